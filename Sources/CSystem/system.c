#define _GNU_SOURCE
#include "CSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int result(int value) { return value < 0 ? -errno : value; }

int system_eventfd(void) { return result(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

int system_open_disk(const char *path, int writable, int exclusive, int direct) {
  int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
  if (exclusive) flags |= O_EXCL;
  if (direct) flags |= O_DIRECT;
  int fd = open(path, flags);
  if (fd < 0) return -errno;
  // Only the open must not wait. Where a file cannot do without waiting, io_uring would answer EAGAIN to a descriptor
  // that forbids it.
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
  return fd;
}

int64_t system_disk_bytes(int fd) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  if (!S_ISBLK(status.st_mode)) return status.st_size;
  uint64_t bytes = 0;
  return ioctl(fd, BLKGETSIZE64, &bytes) < 0 ? -errno : (int64_t)bytes;
}

int system_disk_facts(int fd, struct system_disk_facts *facts) {
  struct stat status;
  memset(facts, 0, sizeof *facts);
  if (fstat(fd, &status) < 0) return -errno;
  if (!S_ISBLK(status.st_mode)) {
    if (!S_ISREG(status.st_mode)) return -ENOTBLK;
    // What lies beneath the file system is not known; the optimal granularity is told apart from it.
    facts->logical_block_bytes = 512;
    facts->physical_block_bytes = 512;
    facts->device_number = status.st_dev;
    return 0;
  }
  int logical = 0, read_only = 0, offset = 0;
  unsigned physical = 0;
  facts->is_block_device = 1;
  facts->device_number = status.st_rdev;
  if (ioctl(fd, BLKSSZGET, &logical) < 0) return -errno;
  if (ioctl(fd, BLKPBSZGET, &physical) < 0) physical = (unsigned)logical;
  if (ioctl(fd, BLKALIGNOFF, &offset) < 0) offset = 0;
  if (ioctl(fd, BLKROGET, &read_only) < 0) read_only = 0;
  facts->logical_block_bytes = (uint32_t)logical;
  facts->physical_block_bytes = physical;
  facts->alignment_offset = offset;
  facts->is_read_only = read_only != 0;
  return 0;
}

int system_bind_to_cpu(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return result(sched_setaffinity(0, sizeof set, &set));
}

void system_name_thread(const char *name) {
  char cut[16];
  strncpy(cut, name, 15);
  cut[15] = 0;
  pthread_setname_np(pthread_self(), cut);
}

const int system_falloc_deallocate = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
const int system_falloc_zero = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

int system_discard(int fd, uint64_t offset, uint64_t count) {
  uint64_t range[2] = {offset, count};
  return ioctl(fd, BLKDISCARD, range) < 0 ? -errno : 0;
}

int64_t system_seek_data(int fd, int64_t offset) {
  off_t found = lseek(fd, offset, SEEK_DATA);
  return found < 0 ? -errno : found;
}

int64_t system_seek_hole(int fd, int64_t offset) {
  off_t found = lseek(fd, offset, SEEK_HOLE);
  return found < 0 ? -errno : found;
}

const uint32_t system_rwf_dsync = RWF_DSYNC;

int64_t system_write_through(int fd, const void *bytes, uint64_t count, int64_t offset) {
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
  ssize_t wrote = pwritev2(fd, &part, 1, offset, RWF_DSYNC);
  return wrote < 0 ? -errno : wrote;
}

int system_forbid_dumps(void) { return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? -errno : 0; }

int system_listen(const void *address, unsigned length, int v6_only, int may_be_absent) {
  const struct sockaddr *to = address;
  // Not blocking: a connection may be gone again before it is accepted.
  int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (to->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
  if (may_be_absent && to->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof one);
  if (may_be_absent && to->sa_family == AF_INET) setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &one, sizeof one);
  if (bind(fd, to, length) < 0 || listen(fd, 1024) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

void system_tune_connection(int fd) {
  int one = 1, idle = 30, interval = 5, probes = 3;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

uint64_t system_monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void system_random(void *bytes, uint64_t count) {
  unsigned char *p = bytes;
  while (count) {
    ssize_t got = getrandom(p, count, 0);
    if (got <= 0) {
      if (got < 0 && errno == EINTR) continue;
      abort();
    }
    p += got;
    count -= (uint64_t)got;
  }
}

int system_listen_to_links(void) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return -errno;
  struct sockaddr_nl address = {
      .nl_family = AF_NETLINK,
      .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR,
  };
  if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  return fd;
}

void system_discard_messages(int fd) {
  char byte;
  // A bound, so that a flood cannot keep us here: what is left is readable at the next poll.
  for (int i = 0; i < 4096; i++) {
    // ENOBUFS says that messages were lost: whoever reads nothing of them loses nothing.
    if (recv(fd, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) < 0 && errno != ENOBUFS && errno != EINTR) return;
  }
}

static int give_up(int fd) {
  int error = errno;
  close(fd);
  return -error;
}

static int set(int fd, int level, int name, int value) { return setsockopt(fd, level, name, &value, sizeof value); }

// A UDP socket bound to the interface; `address` NULL: to every address.
static int open_udp(int family, const char *interface, unsigned index, uint16_t port, const void *address) {
  int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  union {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
  } name = {0};
  socklen_t length = family == AF_INET ? sizeof name.four : sizeof name.six;
  name.any.sa_family = (sa_family_t)family;
  if (family == AF_INET) {
    name.four.sin_port = htons(port);
    if (address) memcpy(&name.four.sin_addr, address, 4);
  } else {
    name.six.sin6_port = htons(port);
    name.six.sin6_scope_id = address ? index : 0;
    if (address) memcpy(&name.six.sin6_addr, address, 16);
    if (set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1) < 0) return give_up(fd);
  }
  // A flood in front of a beat is taken in turn; a small buffer would lose the beat.
  set(fd, SOL_SOCKET, SO_RCVBUF, 256 << 10);
  // Needs no privilege while the socket is bound to no interface yet (Linux 5.7).
  if (setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strnlen(interface, IFNAMSIZ)) < 0 ||
      set(fd, SOL_SOCKET, SO_REUSEADDR, 1) < 0 || bind(fd, &name.any, length) < 0)
    return give_up(fd);
  return fd;
}

int system_open_beats(int family, const char *interface, unsigned index, uint16_t port, int is_loopback) {
  int fd = open_udp(family, interface, index, port, NULL), failed;
  if (fd < 0) return fd;
  // Before bulk data in queues that look: network control (RFC 4594 Â§3.1).
  set(fd, SOL_SOCKET, SO_PRIORITY, 6);
  if (family == AF_INET) {
    struct ip_mreqn out = {.imr_ifindex = (int)index};
    set(fd, IPPROTO_IP, IP_TOS, 0xC0);
    // Else it would hear every group that anybody on this machine has joined.
    set(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0);
    failed = setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof out) < 0 ||
             set(fd, IPPROTO_IP, IP_TTL, 1) < 0 || set(fd, IPPROTO_IP, IP_MULTICAST_TTL, 1) < 0 ||
             set(fd, IPPROTO_IP, IP_MULTICAST_LOOP, is_loopback) < 0;
  } else {
    set(fd, IPPROTO_IPV6, IPV6_TCLASS, 0xC0);
    set(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0);
    failed = set(fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, (int)index) < 0 ||
             set(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 1) < 0 || set(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 1) < 0 ||
             set(fd, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, is_loopback) < 0;
  }
  return failed ? give_up(fd) : fd;
}

int system_open_group(int family, const char *interface, unsigned index, uint16_t port, const void *group) {
  int fd = open_udp(family, interface, index, port, group), failed;
  if (fd < 0) return fd;
  if (family == AF_INET) {
    struct ip_mreqn join = {.imr_ifindex = (int)index};
    memcpy(&join.imr_multiaddr, group, 4);
    failed = setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join) < 0;
  } else {
    struct ipv6_mreq join = {.ipv6mr_interface = index};
    memcpy(&join.ipv6mr_multiaddr, group, 16);
    failed = setsockopt(fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &join, sizeof join) < 0;
  }
  return failed ? give_up(fd) : fd;
}

int system_make_urgent(int priority) {
  struct sched_param parameters = {.sched_priority = priority};
  int error = pthread_setschedparam(pthread_self(), SCHED_FIFO | SCHED_RESET_ON_FORK, &parameters);
  return -error;
}

int system_enter_namespace(int fd) { return result(setns(fd, CLONE_NEWNET)); }

int system_lock_when_read(uint64_t start, uint64_t bytes) {
  return result(mlock2((void *)(uintptr_t)start, bytes, MLOCK_ONFAULT));
}
