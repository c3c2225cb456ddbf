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
  moult_trace_executed,       // its program begins
  moult_trace_cloned,         // it has made a thread; detail: its number
};

/// Where a thread is that has reported moult_trace_syscall. The stack pointer and arguments are those of the beginning.
struct moult_syscall {
  int is_entry;
  uint64_t number, arguments[6], stack;  // at the beginning
  int64_t result;                        // at the end: a value, or a negative errno
};

/// PTRACE_SEIZE; with PTRACE_O_EXITKILL, the process ends with the tracer.
int moult_trace_seize(pid_t thread, int ends_with_tracer);
/// The same for a process that has not executed its program yet, and ends with the tracer: it reports that, and its
/// new threads are traced, too.
int moult_trace_seize_start(pid_t process);
int moult_trace_interrupt(pid_t thread);
/// PTRACE_DETACH without a signal.
int moult_trace_detach(pid_t thread);
/// The same, giving it one.
int moult_trace_detach_with(pid_t thread, int signal);
/// PTRACE_CONT; 0 for no signal.
int moult_trace_continue(pid_t thread, int signal);
/// PTRACE_SYSCALL with a signal, or 0.
int moult_trace_on_to_syscall(pid_t thread, int signal);
/// PTRACE_SYSCALL without a signal: to the beginning or the end of the next system call. Unlike at a step, no signal is
/// under way there, of which the thread would die if the tracer did.
int moult_trace_to_syscall(pid_t thread);
int moult_trace_get_registers(pid_t thread, struct moult_registers *registers);
int moult_trace_set_registers(pid_t thread, const struct moult_registers *registers);
/// PTRACE_GET_SYSCALL_INFO (Linux 5.3).
int moult_trace_get_syscall(pid_t thread, struct moult_syscall *call);
/// process_vm_readv(2), process_vm_writev(2): the number of bytes.
ssize_t moult_trace_read(pid_t thread, uint64_t address, void *bytes, size_t count);
ssize_t moult_trace_write(pid_t thread, uint64_t address, const void *bytes, size_t count);
/// A descriptor that is readable when a traced thread may have something to report (an eventfd(2)): it takes SIGCHLD for so
/// long. One at a time in a process.
int moult_trace_reports_open(void);
void moult_trace_reports_close(int reports);
/// Makes it readable.
void moult_trace_reports_more(int reports);
/// The thread's next report, if there is one: else 0.
int moult_trace_poll(pid_t thread, int *detail);
/// Waits for the thread's next report, at most so long: then -1 with ETIMEDOUT. A signal that interrupts it counts
/// as that, too. SIGALRM is left as it was.
int moult_trace_wait(pid_t thread, int milliseconds, int *detail);
