#define _GNU_SOURCE
#include "ChildStage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static _Noreturn void fail(const struct moult_child *child, int stage, int index) {
  struct moult_report report = {stage, errno, index};
  syscall(SYS_write, child->report_descriptor, &report, sizeof report);
  for (;;) syscall(SYS_exit_group, 127);
}

static void set_descriptors(const struct moult_child *child) {
  // First nothing survives exec, then what is meant to: dup3 without O_CLOEXEC clears the mark.
  if (syscall(SYS_close_range, 3, ~0u, 4 /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */) < 0) {
    if (errno != ENOSYS && errno != EINVAL) fail(child, moult_stage_descriptor, -1);
    for (int descriptor = 3; descriptor < 65536; descriptor++) syscall(SYS_fcntl, descriptor, F_SETFD, FD_CLOEXEC);
  }
  for (size_t i = 0; i < child->descriptor_count; i++) {
    const struct moult_descriptor *entry = &child->descriptors[i];
    if (entry->source < 0) syscall(SYS_close, entry->number);
    else if (syscall(SYS_dup3, entry->source, entry->number, 0) < 0) fail(child, moult_stage_descriptor, (int)i);
  }
}

static void set_working_directory(const struct moult_child *child) {
  if (syscall(SYS_chdir, child->working_directory) < 0) fail(child, moult_stage_working_directory, 0);
  // A path through /proc/self/fd can leave the new root (CVE-2024-21626): then the kernel cannot name it.
  char path[PATH_MAX];
  long size = syscall(SYS_getcwd, path, sizeof path);
  if (size >= 0 && path[0] != '/') {
    errno = ENOENT;
    size = -1;
  }
  if (size < 0) fail(child, moult_stage_working_directory, 0);
}

static void get_capabilities(const struct moult_child *child, struct __user_cap_data_struct data[2]) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  if (syscall(SYS_capget, &header, data) < 0) fail(child, moult_stage_capabilities, 0);
}

static void put_capabilities(const struct moult_child *child, struct __user_cap_data_struct data[2]) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  data[0].inheritable = (uint32_t)child->inheritable;
  data[1].inheritable = (uint32_t)(child->inheritable >> 32);
  if (syscall(SYS_capset, &header, data) < 0) fail(child, moult_stage_capabilities, 1);
}

static void set_credentials(const struct moult_child *child) {
  struct __user_cap_data_struct data[2];
  // Inheritable capabilities outside the bounding set can only be set while that is still whole.
  get_capabilities(child, data);
  put_capabilities(child, data);
  for (int capability = 0; capability < 64; capability++) {
    if (child->bounding >> capability & 1) continue;
    int present = (int)syscall(SYS_prctl, PR_CAPBSET_READ, capability, 0, 0, 0);
    if (present < 0) break;  // Past the last that this kernel knows.
    if (present && syscall(SYS_prctl, PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
      fail(child, moult_stage_bounding, capability);
  }
  if (syscall(SYS_setgroups, child->group_count, child->groups) < 0) fail(child, moult_stage_groups, 0);
  if (syscall(SYS_setresgid, child->gid[0], child->gid[1], child->gid[2]) < 0) fail(child, moult_stage_group_ids, 0);
  // Ambient capabilities must be permitted, which leaving root would undo. exec clears this mark.
  if (syscall(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0) fail(child, moult_stage_user_ids, 0);
  if (syscall(SYS_setresuid, child->uid[0], child->uid[1], child->uid[2]) < 0) fail(child, moult_stage_user_ids, 1);
  get_capabilities(child, data);
  put_capabilities(child, data);
  if (syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) fail(child, moult_stage_ambient, -1);
  for (int capability = 0; capability < 64; capability++)
    if (child->ambient >> capability & 1 &&
        syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
      fail(child, moult_stage_ambient, capability);
}

// The kernel's own struct sigaction: glibc's call refuses the signals that it keeps for itself.
struct kernel_sigaction {
  void *handler;
  unsigned long flags;
  void *restorer;
  uint64_t mask;
};

static void set_signals(const struct moult_child *child) {
  for (int signal = 1; signal <= 64; signal++) {
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    struct kernel_sigaction action = {0};
    if (child->ignored_signals >> (signal - 1) & 1) action.handler = (void *)1;  // SIG_IGN
    if (syscall(SYS_rt_sigaction, signal, &action, NULL, sizeof action.mask) < 0)
      fail(child, moult_stage_signals, signal);
  }
  if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &child->signal_mask, NULL, sizeof child->signal_mask) < 0)
    fail(child, moult_stage_signals, 0);
}

static _Noreturn void run(const struct moult_child *child) {
  char byte;
  long size;
  syscall(SYS_close, child->start_write_descriptor);
  do size = syscall(SYS_read, child->start_descriptor, &byte, 1);
  while (size < 0 && errno == EINTR);
  if (size != 1)
    for (;;) syscall(SYS_exit_group, 127);

  if (child->new_session && syscall(SYS_setsid) < 0) fail(child, moult_stage_session, 0);
  set_descriptors(child);
  if (child->umask >= 0) syscall(SYS_umask, child->umask);
  if (child->working_directory) set_working_directory(child);
  if (child->set_credentials) set_credentials(child);
  if (child->no_new_privileges && syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    fail(child, moult_stage_no_new_privileges, 0);
  set_signals(child);
  if (child->parent) {
    // Last: a change of user clears it. The parent may have ended before.
    if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) fail(child, moult_stage_session, 0);
    if (syscall(SYS_getppid) != child->parent)
      for (;;) syscall(SYS_exit_group, 127);
  }
  if (child->executable) syscall(SYS_execve, child->executable, child->arguments, child->environment);
  else
    syscall(SYS_execveat, child->executable_descriptor, "", child->arguments, child->environment, AT_EMPTY_PATH);
  fail(child, moult_stage_execute, 0);
}

// Starts the child as an orphan: its parent is a process that ends at once, so init adopts it.
static long spawn_orphan(const struct moult_child *child, int *pidfd) {
  int ends[2];
  if (syscall(SYS_pipe2, ends, O_CLOEXEC) < 0) return -1;
  struct clone_args arguments = {.exit_signal = SIGCHLD};
  long between = syscall(SYS_clone3, &arguments, sizeof arguments);
  if (between == 0) {
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) {
      syscall(SYS_close, ends[1]);
      run(child);
    }
    int32_t answer = pid < 0 ? -errno : (int32_t)pid;
    syscall(SYS_write, ends[1], &answer, sizeof answer);
    for (;;) syscall(SYS_exit_group, 0);
  }
  int saved = errno;
  syscall(SYS_close, ends[1]);
  int32_t pid = -saved;
  if (between > 0) {
    pid = -ESRCH;
    while (syscall(SYS_read, ends[0], &pid, sizeof pid) < 0 && errno == EINTR) {}
    while (syscall(SYS_wait4, between, NULL, 0, NULL) < 0 && errno == EINTR) {}
  }
  syscall(SYS_close, ends[0]);
  if (pid > 0) {
    // It waits for its start byte: the number is still its own.
    *pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (*pidfd >= 0) return pid;
    pid = -errno;
  }
  errno = -pid;
  return -1;
}

pid_t moult_spawn(const struct moult_child *child, int *pidfd) {
  // Handlers of the parent must never run in the child: signals stay blocked until the child has reset them.
  uint64_t all = ~0ull, former;
  if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &former, sizeof all) < 0) return -1;
  long pid;
  if (child->orphan) {
    pid = spawn_orphan(child, pidfd);
  } else {
    struct clone_args arguments = {
      .flags = CLONE_PIDFD, .pidfd = (uint64_t)(uintptr_t)pidfd, .exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0) run(child);
  }
  int saved = errno;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &former, NULL, sizeof former);
  errno = saved;
  return (pid_t)pid;
}
