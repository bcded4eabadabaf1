#ifndef CSYSTEM_PACKETS_H
#define CSYSTEM_PACKETS_H
// Messages between the daemon and its privileged parts: SOCK_SEQPACKET of unix(7), with a descriptor beside them.
#include <stdint.h>

/// A connection to the socket at `path`, close-on-exec. Descriptor or -errno.
int system_packet_connect(const char *path);

/// Whether `fd` is a listening SOCK_SEQPACKET socket of AF_UNIX.
int system_is_packet_listener(int fd);

/// Whether `fd` is a listening TCP socket.
int system_is_tcp_listener(int fd);

/// accept4(2), close-on-exec. Descriptor or -errno.
int system_packet_accept(int listener);

/// The user at the other end (SO_PEERCRED). 0 or -errno.
int system_peer_user(int fd, uint32_t *user);

/// Sends one message, with a descriptor beside it unless `passed` is -1. 0 or -errno.
int system_packet_send(int fd, const void *bytes, uint64_t count, int passed);

/// Receives one message. Bytes (0: the other end has closed) or -errno; -EMSGSIZE: it is longer than `count`, or more
/// than one descriptor was beside it. `passed`: the descriptor that came along, close-on-exec; -1: none, or an error.
int64_t system_packet_receive(int fd, void *bytes, uint64_t count, int *passed);

/// What a descriptor is of: 0 for a block device that is open for writing and its number, or -errno.
int system_block_device(int fd, uint64_t *number);
#endif
