# A guest of one sector: counts on the serial port, `beat NNNNNNNN` (hexadecimal) a line, for ever.
# Real mode only, which is all that some hosts' KVM can run.
  .code16
  .globl _start
_start:
  cli
  xorw %ax, %ax
  movw %ax, %ds
  movw %ax, %ss
  movw $0x7c00, %sp
  xorl %ebx, %ebx
again:
  incl %ebx
  movw $beat, %si
text:
  lodsb
  testb %al, %al
  jz number
  call send
  jmp text
number:
  movl %ebx, %edx
  movw $8, %cx
digit:
  roll $4, %edx
  movb %dl, %al
  andb $15, %al
  cmpb $10, %al
  jb decimal
  addb $('a' - '0' - 10), %al
decimal:
  addb $'0', %al
  call send
  loop digit
  movb $10, %al
  call send
  # Until the BIOS's timer ticks, 18.2 times a second.
  sti
  hlt
  cli
  jmp again

send:  # AL, when the port is ready for it
  pushw %ax
  pushw %dx
  movb %al, %ah
  movw $0x3fd, %dx
ready:
  inb %dx, %al
  testb $0x20, %al
  jz ready
  movw $0x3f8, %dx
  movb %ah, %al
  outb %al, %dx
  popw %dx
  popw %ax
  ret

beat:
  .asciz "beat "
  .org 510
  .word 0xaa55
