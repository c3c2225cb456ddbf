#define _GNU_SOURCE
#include "CLab.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
// Has the structure that glibc's older header lacks.
#include <linux/ptrace.h>

pid_t lab_trace_start(char *const argv[], const char *output, const char *errors) {
  pid_t pid = fork();
  if (pid < 0) return -1;
  if (pid == 0) {
    struct sigaction plain = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++) sigaction(number, &plain, NULL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setpgid(0, 0);
    int in = open("/dev/null", O_RDONLY), out = open(output, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int err = open(errors, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (in < 0 || out < 0 || err < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) _exit(126);
    close_range(3, ~0u, 0);
    ptrace(PTRACE_TRACEME, 0, 0, 0);
    execv(argv[0], argv);
    _exit(127);
  }
  // execve(2) of a traced process stops it.
  int status;
  if (waitpid(pid, &status, __WALL) != pid) return -1;
  if (!WIFSTOPPED(status)) {
    errno = ENOEXEC;
    return -1;
  }
  if (ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) < 0) return -1;
  return pid;
}

// Runs it to the next beginning or end of a system call. 1: it stands there; 0: it has ended; -1.
static int step(pid_t pid, struct ptrace_syscall_info *info, int *status) {
  long signal = 0;
  for (;;) {
    if (ptrace(PTRACE_SYSCALL, pid, 0, signal) < 0 && errno != ESRCH) return -1;
    if (waitpid(pid, status, __WALL) != pid) return -1;
    if (!WIFSTOPPED(*status)) return 0;
    if (WSTOPSIG(*status) == (SIGTRAP | 0x80))
      return ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof *info, info) > 0 ? 1 : -1;
    // Any other stop is a signal on its way to the process.
    signal = WSTOPSIG(*status);
  }
}

static int leadsTo(pid_t pid, uint64_t descriptor, const char *path) {
  char link[64], target[4096];
  snprintf(link, sizeof link, "/proc/%d/fd/%llu", pid, (unsigned long long)descriptor);
  ssize_t length = readlink(link, target, sizeof target);
  return length == (ssize_t)strlen(path) && memcmp(target, path, (size_t)length) == 0;
}

ssize_t lab_trace_next(pid_t pid, const char *path, char *buffer, size_t room, long *request, long *others, int *status) {
  *others = 0;
  *request = -1;
  for (;;) {
    struct ptrace_syscall_info info;
    int result = step(pid, &info, status);
    if (result <= 0) return result;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) continue;
    if (info.entry.nr == SYS_ptrace) {
      *request = (long)info.entry.args[0];
      return 1;
    }
    if (info.entry.nr != SYS_write) {
      ++*others;
      continue;
    }
    if (!leadsTo(pid, info.entry.args[0], path)) {
      if (info.entry.args[0] > 2) ++*others;
      continue;
    }
    size_t length = info.entry.args[2] < room ? info.entry.args[2] : room;
    struct iovec here = {buffer, length}, there = {(void *)(uintptr_t)info.entry.args[1], length};
    if (process_vm_readv(pid, &here, 1, &there, 1, 0) < 0) return -1;
    return (ssize_t)info.entry.args[2];
  }
}

long lab_trace_finish(pid_t pid) {
  struct ptrace_syscall_info info;
  int status;
  if (step(pid, &info, &status) <= 0 || info.op != PTRACE_SYSCALL_INFO_EXIT) return -1;
  return (long)info.exit.rval;
}

int lab_trace_release(pid_t pid) { return (int)ptrace(PTRACE_DETACH, pid, 0, 0); }

int lab_adopt_orphans(int whether) { return prctl(PR_SET_CHILD_SUBREAPER, whether, 0, 0, 0); }
