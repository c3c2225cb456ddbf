#define _GNU_SOURCE
#include "Network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/vhost.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int closing(int descriptor) {
  int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

int moult_tap_open(char *name, unsigned flags) {
  int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
  if (tap < 0) return -1;
  struct ifreq request = {.ifr_flags = (short)flags};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(tap, TUNSETIFF, &request) != 0) return closing(tap);
  memcpy(name, request.ifr_name, IFNAMSIZ);
  return tap;
}

int moult_tap_interface(int descriptor, char *name, unsigned *flags) {
  struct ifreq request = {0};
  if (ioctl(descriptor, TUNGETIFF, &request) != 0) return -1;
  memcpy(name, request.ifr_name, IFNAMSIZ);
  *flags = (unsigned short)request.ifr_flags;
  return 0;
}

int moult_tap_namespace(int descriptor) { return ioctl(descriptor, TUNGETDEVNETNS); }

int moult_set_guest_cid(int device, uint64_t cid) { return ioctl(device, VHOST_VSOCK_SET_GUEST_CID, &cid); }

int moult_frame_socket(const char *interface) {
  int frames = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
  if (frames < 0) return -1;
  struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(interface)};
  if (address.sll_ifindex == 0 || bind(frames, (struct sockaddr *)&address, sizeof address) != 0) return closing(frames);
  return frames;
}

// Whether nobody receives datagrams at a port of any address.
static int is_free_for_datagrams(const struct sockaddr *address, socklen_t size) {
  int off = 0, probe = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (probe < 0) return 0;
  if (address->sa_family == AF_INET6) setsockopt(probe, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  int is_free = bind(probe, address, size) == 0;
  close(probe);
  return is_free;
}

static int reserve_port(uint16_t *port) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6};
  struct sockaddr_in four = {.sin_family = AF_INET};
  int on = 1, off = 0;
  int reserved = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr *address = (struct sockaddr *)&six;
  socklen_t size = sizeof six;
  if (reserved < 0) {  // a host without IPv6
    reserved = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address = (struct sockaddr *)&four;
    size = sizeof four;
  } else {
    setsockopt(reserved, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  }
  if (reserved < 0) return -1;
  if (bind(reserved, address, size) != 0) return closing(reserved);
  // Only now: with it, bind(2) could have chosen a port that another one shares.
  if (setsockopt(reserved, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) return closing(reserved);
  if (getsockname(reserved, address, &size) != 0) return closing(reserved);
  if (!is_free_for_datagrams(address, size)) {
    errno = EADDRINUSE;
    return closing(reserved);
  }
  *port = ntohs(address->sa_family == AF_INET6 ? six.sin6_port : four.sin_port);
  return reserved;
}

int moult_reserve_port(uint16_t *port) {
  for (int attempt = 0; attempt < 100; attempt++) {
    int reserved = reserve_port(port);
    if (reserved >= 0 || errno != EADDRINUSE) return reserved;
  }
  return -1;
}

int moult_listen_loopback(uint16_t *port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return -1;
  if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 8) != 0 ||
      getsockname(listener, (struct sockaddr *)&address, &size) != 0)
    return closing(listener);
  *port = ntohs(address.sin_port);
  return listener;
}

int moult_bytes_waiting(int socket, int *count) { return ioctl(socket, FIONREAD, count); }

int moult_drop_incoming(int socket) {
  struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
  struct sock_fprog program = {1, &drop};
  return setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

int moult_connect_loopback(uint16_t port, int is_ipv6, uint16_t *local) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback, .sin6_port = htons(port)};
  struct sockaddr_in four = {
    .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
  struct sockaddr *address = is_ipv6 ? (struct sockaddr *)&six : (struct sockaddr *)&four;
  socklen_t size = is_ipv6 ? sizeof six : sizeof four;
  int client = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client < 0) return -1;
  struct timeval time = {.tv_sec = 5};
  setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
  if (connect(client, address, size) != 0 || getsockname(client, address, &size) != 0) return closing(client);
  *local = ntohs(is_ipv6 ? six.sin6_port : four.sin_port);
  return client;
}

/// The length of the address without trailing zeros; 0 if the name is too long.
static socklen_t abstract_address(const char *name, struct sockaddr_un *address) {
  size_t length = strlen(name);
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (length >= sizeof address->sun_path) {
    errno = ENAMETOOLONG;
    return 0;
  }
  memcpy(address->sun_path + 1, name, length);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

int moult_listen_abstract(const char *name) {
  struct sockaddr_un address;
  socklen_t size = abstract_address(name, &address);
  int listener = size == 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) return -1;
  if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 8) != 0) return closing(listener);
  return listener;
}

int moult_connect_abstract(const char *name) {
  struct sockaddr_un address;
  socklen_t size = abstract_address(name, &address);
  int client = size == 0 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (client < 0) return -1;
  // QEMU binds without trailing zeros unless it is told `tight=off`.
  if (connect(client, (struct sockaddr *)&address, size) == 0 ||
      connect(client, (struct sockaddr *)&address, sizeof address) == 0)
    return client;
  return closing(client);
}
