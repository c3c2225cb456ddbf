// _GNU_SOURCE stays in the .c file: in a public header it breaks Swift's import of Glibc.
#define _GNU_SOURCE
#include "CKernel.h"
#include <sys/vfs.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

int moult_pidfd_open(pid_t pid, unsigned flags) { return (int)syscall(SYS_pidfd_open, pid, flags); }

int moult_pidfd_getfd(int pidfd, int descriptor) {
  return (int)syscall(SYS_pidfd_getfd, pidfd, descriptor, 0);
}

int moult_pidfd_send_signal(int pidfd, int signal) {
  return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0);
}

pid_t moult_wait(pid_t pid, int block, int *code, int *signalled) {
  int status = 0;
  pid_t result = waitpid(pid, &status, block ? 0 : WNOHANG);
  if (result > 0) {
    *signalled = WIFSIGNALED(status);
    *code = *signalled ? WTERMSIG(status) : WEXITSTATUS(status);
  }
  return result;
}

int moult_prlimit(pid_t pid, int resource, const uint64_t limit[2], uint64_t old[2]) {
  return (int)syscall(SYS_prlimit64, pid, resource, limit, old);
}

int moult_sched_getattr(pid_t thread, struct moult_sched_attr *attr) {
  return (int)syscall(SYS_sched_getattr, thread, attr, sizeof *attr, 0);
}

int moult_sched_setattr(pid_t thread, const struct moult_sched_attr *attr) {
  return (int)syscall(SYS_sched_setattr, thread, attr, 0);
}

int moult_sched_getaffinity(pid_t thread, size_t size, void *mask) {
  return (int)syscall(SYS_sched_getaffinity, thread, size, mask);
}

int moult_sched_setaffinity(pid_t thread, size_t size, const void *mask) {
  return (int)syscall(SYS_sched_setaffinity, thread, size, mask);
}

int moult_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
  return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int moult_openat2(int dir, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
  struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
  return (int)syscall(SYS_openat2, dir, path, &how, sizeof how);
}

const int moult_o_path = O_PATH;

int moult_lock(int descriptor) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  return fcntl(descriptor, F_OFD_SETLK, &lock);
}

int moult_is_locked(int descriptor) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (fcntl(descriptor, F_OFD_GETLK, &lock) < 0) return -1;
  return lock.l_type != F_UNLCK;
}

int moult_close_range(unsigned first, unsigned last, unsigned flags) {
  return (int)syscall(SYS_close_range, first, last, flags);
}

int moult_memfd_create(const char *name, unsigned flags) { return memfd_create(name, flags); }

int moult_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

ssize_t moult_list_attributes(const char *path, char *names, size_t size) { return listxattr(path, names, size); }

ssize_t moult_get_attribute(const char *path, const char *name, void *value, size_t size) {
  return getxattr(path, name, value, size);
}

int moult_set_attribute(const char *path, const char *name, const void *value, size_t size) {
  return setxattr(path, name, value, size, 0);
}

const int moult_clone_newns = CLONE_NEWNS;
const int moult_clone_newnet = CLONE_NEWNET;
const int moult_clone_newipc = CLONE_NEWIPC;
const int moult_clone_newuts = CLONE_NEWUTS;
const int moult_clone_fs = CLONE_FS;

int moult_unshare(int flags) { return unshare(flags); }
int moult_setns(int descriptor, int kind) { return setns(descriptor, kind); }

int moult_pivot_root(const char *new_root, const char *put_old) {
  return (int)syscall(SYS_pivot_root, new_root, put_old);
}

int moult_detach(const char *path) { return umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW); }

int moult_mount_read_only(int descriptor, int recursive) {
  // struct mount_attr of linux/mount.h, which cannot be included beside sys/mount.h on older glibc.
  struct { uint64_t set, clear, propagation, userns; } attr = {.set = 1 /* MOUNT_ATTR_RDONLY */};
  return (int)syscall(442 /* mount_setattr, the same number on every architecture */, descriptor, "",
                      AT_EMPTY_PATH | (recursive ? 0x8000 /* AT_RECURSIVE */ : 0), &attr, sizeof attr);
}

int moult_interface_up(const char *name) {
  int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (control < 0) return -1;
  struct ifreq request = {0};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  int result = ioctl(control, SIOCGIFFLAGS, &request);
  if (result == 0) {
    request.ifr_flags |= IFF_UP;
    result = ioctl(control, SIOCSIFFLAGS, &request);
  }
  int saved = errno;
  close(control);
  errno = saved;
  return result;
}

int moult_notify(const char *path, const char *text, pid_t pid, int descriptor) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(address.sun_path, path);
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
  struct msghdr message = {
    .msg_name = &address, .msg_namelen = sizeof address, .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
    .msg_controllen = descriptor < 0 ? CMSG_SPACE(sizeof(struct ucred)) : sizeof control.bytes};
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  *header = (struct cmsghdr){
    .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS, .cmsg_len = CMSG_LEN(sizeof(struct ucred))};
  struct ucred credentials = {.pid = pid, .uid = geteuid(), .gid = getegid()};
  memcpy(CMSG_DATA(header), &credentials, sizeof credentials);
  if (descriptor >= 0) {
    header = CMSG_NXTHDR(&message, header);
    *header = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
  }
  int socket_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (socket_ < 0) return -1;
  ssize_t result = sendmsg(socket_, &message, MSG_NOSIGNAL);
  int saved = errno;
  close(socket_);
  errno = saved;
  return result < 0 ? -1 : 0;
}

int moult_peer_credentials(int socket, pid_t *pid, uid_t *uid, gid_t *gid) {
  struct ucred credentials;
  socklen_t size = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0) return -1;
  *pid = credentials.pid;
  *uid = credentials.uid;
  *gid = credentials.gid;
  return 0;
}

enum { max_descriptors = 253 };  // SCM_MAX_FD

ssize_t moult_receive_descriptors(int socket, void *data, size_t size, int *descriptors, size_t *count) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int) * max_descriptors)];
  } control;
  struct iovec part = {.iov_base = data, .iov_len = size};
  struct msghdr message = {
    .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t result = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  size_t room = *count;
  *count = 0;
  if (result < 0) return result;
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < received; i++) {
      int descriptor;
      memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      // A descriptor nobody asked for must not stay open.
      if (*count < room) descriptors[(*count)++] = descriptor;
      else close(descriptor);
    }
  }
  return result;
}

static void set_from_mask(sigset_t *set, uint64_t mask) {
  sigemptyset(set);
  for (int signal = 1; signal <= 64; signal++)
    if (mask >> (signal - 1) & 1) sigaddset(set, signal);
}

static uint64_t mask_from_set(const sigset_t *set) {
  uint64_t mask = 0;
  for (int signal = 1; signal <= 64; signal++)
    if (sigismember(set, signal) == 1) mask |= 1ull << (signal - 1);
  return mask;
}

int moult_signalfd(uint64_t mask, uint64_t *old_mask) {
  sigset_t set, old;
  set_from_mask(&set, mask);
  if (sigprocmask(SIG_BLOCK, &set, &old) < 0) return -1;
  int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (descriptor < 0) {
    int saved = errno;
    sigprocmask(SIG_SETMASK, &old, NULL);
    errno = saved;
    return -1;
  }
  *old_mask = mask_from_set(&old);
  return descriptor;
}

int moult_set_signal_mask(uint64_t mask, uint64_t *old) {
  sigset_t set, former;
  set_from_mask(&set, mask);
  if (sigprocmask(SIG_SETMASK, &set, &former) < 0) return -1;
  if (old) *old = mask_from_set(&former);
  return 0;
}

int moult_read_signal(int descriptor, pid_t *sender) {
  struct signalfd_siginfo info;
  ssize_t size = read(descriptor, &info, sizeof info);
  if (size < 0) return errno == EAGAIN ? 0 : -1;
  *sender = (pid_t)info.ssi_pid;
  return (int)info.ssi_signo;
}

long moult_filesystem_type(const char *path) {
  struct statfs system;
  return statfs(path, &system) == 0 ? (long)system.f_type : -1;
}
