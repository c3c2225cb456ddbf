#pragma once
// Taps and ports: what needs ioctl(2) structures that do not import.
#include <stddef.h>
#include <stdint.h>

/// Opens a new tap interface of the calling thread's network namespace, not blocking. `flags` as in TUNSETIFF;
/// `name` may hold `%d`, and has room for 16 bytes.
int moult_tap_open(char *name, unsigned flags);
/// TUNGETIFF: the interface's name (16 bytes) and flags.
int moult_tap_interface(int descriptor, char *name, unsigned *flags);
/// TUNGETDEVNETNS: a descriptor of the network namespace that a queue's interface is in.
int moult_tap_namespace(int descriptor);
/// VHOST_VSOCK_SET_GUEST_CID: gives a device of /dev/vhost-vsock its CID.
int moult_set_guest_cid(int device, uint64_t cid);
/// A socket that sends whole frames on an interface of the calling thread's network namespace.
int moult_frame_socket(const char *interface);
/// A TCP socket that keeps a free port, of IPv4 and IPv6, from those that ask for any; one that asks for that very
/// port with SO_REUSEADDR gets it. Nobody has the UDP port of that number when it is chosen.
int moult_reserve_port(uint16_t *port);
/// FIONREAD: how many bytes wait to be read from a stream socket.
int moult_bytes_waiting(int socket, int *count);
/// Makes a listening socket take no connection any more: what arrives is dropped (SO_ATTACH_FILTER).
int moult_drop_incoming(int socket);
/// Listens at a free port of the loopback interface (IPv4) of the calling thread's network namespace.
int moult_listen_loopback(uint16_t *port);
/// Connects to a port of the loopback interface of the calling thread's network namespace, IPv4 or else IPv6;
/// *local is the port it is connected from.
int moult_connect_loopback(uint16_t port, int is_ipv6, uint16_t *local);
/// Listens at an abstract unix socket of the calling thread's network namespace.
int moult_listen_abstract(const char *name);
/// Connects to an abstract unix socket of the calling thread's network namespace.
int moult_connect_abstract(const char *name);
