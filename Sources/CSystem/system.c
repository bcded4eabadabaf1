#define _GNU_SOURCE
#include "CSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
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

int system_listen(const void *address, unsigned length, int v6_only) {
  const struct sockaddr *to = address;
  // Not blocking: a connection may be gone again before it is accepted.
  int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -errno;
  int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (to->sa_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
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
