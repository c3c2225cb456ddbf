#pragma once
// ptrace(2) of one thread, as far as making it do a system call needs it. Only x86-64 has registers here.
#include <stdint.h>
#include <sys/types.h>

/// user_regs_struct of <sys/user.h>, which does not import.
struct moult_registers {
  uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, eflags, rsp, ss,
      fs_base, gs_base, ds, es, fs, gs;
};

/// What waiting for a traced thread can say.
enum moult_trace_event {
  moult_trace_ended = 1,      // exited or killed; detail: 0
  moult_trace_interrupted,    // PTRACE_INTERRUPT, or a group stop
  moult_trace_signal,         // about to be given a signal; detail: its number
  moult_trace_syscall,        // at the beginning or the end of a system call
  moult_trace_other,          // detail: the wait status
};

/// PTRACE_SEIZE; with PTRACE_O_EXITKILL, the process ends with the tracer.
int moult_trace_seize(pid_t thread, int ends_with_tracer);
int moult_trace_interrupt(pid_t thread);
/// PTRACE_DETACH without a signal.
int moult_trace_detach(pid_t thread);
/// PTRACE_CONT; 0 for no signal.
int moult_trace_continue(pid_t thread, int signal);
/// PTRACE_SYSCALL without a signal: to the beginning or the end of the next system call. Unlike at a step, no signal is
/// under way there, of which the thread would die if the tracer did.
int moult_trace_to_syscall(pid_t thread);
int moult_trace_get_registers(pid_t thread, struct moult_registers *registers);
int moult_trace_set_registers(pid_t thread, const struct moult_registers *registers);
/// Waits for the thread's next report, at most so long: then -1 with ETIMEDOUT. A signal that interrupts it counts
/// as that, too. SIGALRM is left as it was.
int moult_trace_wait(pid_t thread, int milliseconds, int *detail);
