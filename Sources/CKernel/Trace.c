#define _GNU_SOURCE
#include "Trace.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int moult_trace_seize(pid_t thread, int ends_with_tracer) {
  return (int)ptrace(PTRACE_SEIZE, thread, NULL, (void *)(intptr_t)(PTRACE_O_TRACESYSGOOD | (ends_with_tracer ? PTRACE_O_EXITKILL : 0)));
}
int moult_trace_interrupt(pid_t thread) { return (int)ptrace(PTRACE_INTERRUPT, thread, NULL, NULL); }
int moult_trace_to_syscall(pid_t thread) { return (int)ptrace(PTRACE_SYSCALL, thread, NULL, NULL); }

int moult_trace_detach(pid_t thread) { return (int)ptrace(PTRACE_DETACH, thread, NULL, NULL); }

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
