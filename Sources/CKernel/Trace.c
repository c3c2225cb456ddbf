#define _GNU_SOURCE
#include "Trace.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int moult_trace_seize(pid_t thread, int ends_with_tracer) {
  return (int)ptrace(PTRACE_SEIZE, thread, NULL, (void *)(intptr_t)(PTRACE_O_TRACESYSGOOD | (ends_with_tracer ? PTRACE_O_EXITKILL : 0)));
}

int moult_trace_seize_start(pid_t process) {
  const int options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE;
  return (int)ptrace(PTRACE_SEIZE, process, NULL, (void *)(intptr_t)options);
}

int moult_trace_interrupt(pid_t thread) { return (int)ptrace(PTRACE_INTERRUPT, thread, NULL, NULL); }
int moult_trace_on_to_syscall(pid_t thread, int signal) {
  return (int)ptrace(PTRACE_SYSCALL, thread, NULL, (void *)(intptr_t)signal);
}
int moult_trace_to_syscall(pid_t thread) { return moult_trace_on_to_syscall(thread, 0); }

int moult_trace_detach_with(pid_t thread, int signal) {
  return (int)ptrace(PTRACE_DETACH, thread, NULL, (void *)(intptr_t)signal);
}
int moult_trace_detach(pid_t thread) { return moult_trace_detach_with(thread, 0); }

int moult_trace_continue(pid_t thread, int signal) {
  return (int)ptrace(PTRACE_CONT, thread, NULL, (void *)(intptr_t)signal);
}

#if defined(__x86_64__)
_Static_assert(sizeof(struct moult_registers) == sizeof(struct user_regs_struct), "registers");
_Static_assert(offsetof(struct moult_registers, orig_rax) == offsetof(struct user_regs_struct, orig_rax), "registers");
_Static_assert(offsetof(struct moult_registers, gs) == offsetof(struct user_regs_struct, gs), "registers");

int moult_trace_get_registers(pid_t thread, struct moult_registers *registers) {
  return (int)ptrace(PTRACE_GETREGS, thread, NULL, registers);
}

int moult_trace_set_registers(pid_t thread, const struct moult_registers *registers) {
  return (int)ptrace(PTRACE_SETREGS, thread, NULL, registers);
}
#else
int moult_trace_get_registers(pid_t thread, struct moult_registers *registers) { errno = ENOSYS; return -1; }
int moult_trace_set_registers(pid_t thread, const struct moult_registers *registers) { errno = ENOSYS; return -1; }
#endif

#if defined(__x86_64__)
#define OWN_ARCH 0xC000003Eu  // AUDIT_ARCH_X86_64: another one's numbers mean other calls
#else
#define OWN_ARCH 0u
#endif

int moult_trace_get_syscall(pid_t thread, struct moult_syscall *call) {
  struct __ptrace_syscall_info info = {0};
  if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, (void *)sizeof info, &info) < 0) return -1;
  *call = (struct moult_syscall){.stack = info.stack_pointer, .number = UINT64_MAX};
  if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
    call->is_entry = 1;
    if (info.arch == OWN_ARCH) call->number = info.entry.nr;
    for (int i = 0; i < 6; i++) call->arguments[i] = info.entry.args[i];
  } else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
    call->result = info.exit.rval;
  }
  return 0;
}

ssize_t moult_trace_read(pid_t thread, uint64_t address, void *bytes, size_t count) {
  struct iovec here = {bytes, count}, there = {(void *)(uintptr_t)address, count};
  return process_vm_readv(thread, &here, 1, &there, 1, 0);
}

ssize_t moult_trace_write(pid_t thread, uint64_t address, const void *bytes, size_t count) {
  struct iovec here = {(void *)bytes, count}, there = {(void *)(uintptr_t)address, count};
  return process_vm_writev(thread, &here, 1, &there, 1, 0);
}

static void nothing(int signal) { (void)signal; }

static int report(int status, int *detail) {
  *detail = 0;
  if (WIFEXITED(status) || WIFSIGNALED(status)) return moult_trace_ended;
  if (WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_STOP) return moult_trace_interrupted;
  if (WIFSTOPPED(status) && WSTOPSIG(status) == (SIGTRAP | 0x80)) return moult_trace_syscall;
  if (WIFSTOPPED(status) && status >> 16 == 0) {
    *detail = WSTOPSIG(status);
    return moult_trace_signal;
  }
  *detail = status;
  return moult_trace_other;
}

static int reports = -1;
static struct sigaction former_action;
static sigset_t former_mask;

static void note_report(int signal) {
  (void)signal;
  int error = errno;
  eventfd_write(reports, 1);
  errno = error;
}

int moult_trace_reports_open(void) {
  // Not by signalfd(2): a signal of the whole process may go to a thread that does not block it.
  if ((reports = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0) return -1;
  struct sigaction action = {.sa_handler = note_report, .sa_flags = SA_RESTART};
  sigset_t child;
  sigemptyset(&child);
  sigaddset(&child, SIGCHLD);
  sigaction(SIGCHLD, &action, &former_action);
  pthread_sigmask(SIG_UNBLOCK, &child, &former_mask);
  return reports;
}

void moult_trace_reports_more(int descriptor) { eventfd_write(descriptor, 1); }

void moult_trace_reports_close(int descriptor) {
  pthread_sigmask(SIG_SETMASK, &former_mask, NULL);
  sigaction(SIGCHLD, &former_action, NULL);
  close(descriptor);
}

int moult_trace_poll(pid_t thread, int *detail) {
  int status = 0;
  pid_t pid = waitpid(thread, &status, __WALL | WNOHANG);
  if (pid < 0) return errno == ECHILD ? moult_trace_ended : -1;
  if (pid == 0) return 0;
  if (WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_EXEC) return moult_trace_executed;
  if (WIFSTOPPED(status) && status >> 16 == PTRACE_EVENT_CLONE) {
    unsigned long made = 0;
    if (ptrace(PTRACE_GETEVENTMSG, thread, NULL, &made) < 0) return -1;
    *detail = (int)made;
    return moult_trace_cloned;
  }
  return report(status, detail);
}

int moult_trace_wait(pid_t thread, int milliseconds, int *detail) {
  // waitpid(2) knows no time limit, so a timer interrupts it: again and again, lest the first one comes too early.
  struct sigaction action = {.sa_handler = nothing}, before;
  sigset_t alarm, mask;
  sigemptyset(&alarm);
  sigaddset(&alarm, SIGALRM);
  struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM};
  event._sigev_un._tid = gettid();
  const struct itimerspec times = {
      .it_value = {milliseconds / 1000, milliseconds % 1000 * 1000000L}, .it_interval = {.tv_nsec = 50000000L}};
  timer_t timer;
  if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) return -1;
  sigaction(SIGALRM, &action, &before);
  pthread_sigmask(SIG_UNBLOCK, &alarm, &mask);
  int result = -1, status = 0;
  if (timer_settime(timer, 0, &times, NULL) == 0) {
    pid_t pid = waitpid(thread, &status, __WALL);
    if (pid > 0) result = report(status, detail);
    else if (errno == EINTR) errno = ETIMEDOUT;
    else if (errno == ECHILD) result = moult_trace_ended;  // reaped: its end was nobody's to wait for
  }
  int error = errno;
  timer_delete(timer);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  sigaction(SIGALRM, &before, NULL);
  errno = error;
  return result;
}
