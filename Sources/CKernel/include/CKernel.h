#pragma once
// System calls that Swift's Glibc module lacks, and the child's stage between clone and exec.
// Every function returns what the kernel does: a value, or -1 with errno set.
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "CKernelMessage.h"
#include "ChildStage.h"
#include "Network.h"
#include "Trace.h"

// MARK: Processes

int moult_pidfd_open(pid_t pid, unsigned flags);
int moult_pidfd_getfd(int pidfd, int descriptor);
int moult_pidfd_send_signal(int pidfd, int signal);
/// Waits for a child's end. `block` 0: returns 0 at once if it still runs. Returns its pid when reaped;
/// *code is the exit code, or the signal's number when *signalled is set.
pid_t moult_wait(pid_t pid, int block, int *code, int *signalled);

/// `limit` is {soft, hard}; either pointer may be null.
int moult_prlimit(pid_t pid, int resource, const uint64_t limit[2], uint64_t old[2]);

/// sched_setattr(2), version 0.
struct moult_sched_attr {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;
  uint64_t deadline;
  uint64_t period;
};
int moult_sched_getattr(pid_t thread, struct moult_sched_attr *attr);
int moult_sched_setattr(pid_t thread, const struct moult_sched_attr *attr);
/// Raw calls: sizes in bytes, and the get call returns the number of bytes written.
int moult_sched_getaffinity(pid_t thread, size_t size, void *mask);
int moult_sched_setaffinity(pid_t thread, size_t size, const void *mask);

// MARK: Files

#define MOULT_RENAME_NOREPLACE 1u
#define MOULT_RENAME_EXCHANGE 2u
int moult_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);

#define MOULT_RESOLVE_NO_XDEV 0x01ull
#define MOULT_RESOLVE_NO_MAGICLINKS 0x02ull
#define MOULT_RESOLVE_NO_SYMLINKS 0x04ull
#define MOULT_RESOLVE_BENEATH 0x08ull
#define MOULT_RESOLVE_IN_ROOT 0x10ull
int moult_openat2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
extern const int moult_o_path;

int moult_close_range(unsigned first, unsigned last, unsigned flags);
int moult_memfd_create(const char *name, unsigned flags);
/// The kind of file system that a path lies on (statfs(2), f_type), or -1 with errno.
long moult_filesystem_type(const char *path);
/// pipe2(2), both ends close-on-exec.
int moult_pipe(int ends[2]);

/// An exclusive open file description lock on the whole file (fcntl(2), F_OFD_SETLK): not waited for.
int moult_lock(int descriptor);
/// 1 if another open file description holds such a lock, 0 if none does.
int moult_is_locked(int descriptor);

/// listxattr(2), getxattr(2), setxattr(2); symbolic links are followed.
ssize_t moult_list_attributes(const char *path, char *names, size_t size);
ssize_t moult_get_attribute(const char *path, const char *name, void *value, size_t size);
int moult_set_attribute(const char *path, const char *name, const void *value, size_t size);

// MARK: Namespaces and mounts

extern const int moult_clone_newns, moult_clone_newnet, moult_clone_newipc, moult_clone_newuts, moult_clone_fs;
int moult_unshare(int flags);
int moult_setns(int descriptor, int kind);
int moult_pivot_root(const char *new_root, const char *put_old);
/// umount2 with MNT_DETACH | UMOUNT_NOFOLLOW.
int moult_detach(const char *path);
/// Makes the mount that `descriptor` is the root of read-only, keeping its other attributes (mount_setattr(2), Linux 5.12).
int moult_mount_read_only(int descriptor, int recursive);
/// SIOCSIFFLAGS: IFF_UP on the interface of the calling thread's network namespace.
int moult_interface_up(const char *name);

// MARK: Sockets and signals

/// SO_PEERCRED.
/// Sends one datagram in the name of another process (SCM_CREDENTIALS: needs root), with a descriptor unless that is -1.
int moult_notify(const char *path, const char *text, pid_t pid, int descriptor);
int moult_peer_credentials(int socket, pid_t *pid, uid_t *uid, gid_t *gid);
/// recvmsg; received descriptors are close-on-exec. *count: room on entry, number received on return.
ssize_t moult_receive_descriptors(int socket, void *data, size_t size, int *descriptors, size_t *count);
/// Blocks the signals of `mask` (bit n-1 = signal n), gives the former mask, and returns a signalfd for them.
int moult_signalfd(uint64_t mask, uint64_t *old_mask);
/// Sets the calling thread's signal mask (bit n-1 = signal n); *old may be null.
int moult_set_signal_mask(uint64_t mask, uint64_t *old);
/// The number of the next pending signal of a signalfd; 0 if there is none and the descriptor does not block.
int moult_read_signal(int descriptor, pid_t *sender);
