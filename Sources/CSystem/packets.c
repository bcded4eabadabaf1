#define _GNU_SOURCE
#include "packets.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int system_packet_connect(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) return -ENAMETOOLONG;
  strcpy(address.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  // A full backlog would have connect(2) wait without a bound.
  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
    int error = errno;
    close(fd);
    return -error;
  }
  fcntl(fd, F_SETFL, 0);
  return fd;
}

static int option(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  return getsockopt(fd, SOL_SOCKET, name, &value, &length) < 0 ? -1 : value;
}

int system_is_packet_listener(int fd) {
  return option(fd, SO_DOMAIN) == AF_UNIX && option(fd, SO_TYPE) == SOCK_SEQPACKET && option(fd, SO_ACCEPTCONN) == 1;
}

int system_is_tcp_listener(int fd) {
  int domain = option(fd, SO_DOMAIN);
  return (domain == AF_INET || domain == AF_INET6) && option(fd, SO_TYPE) == SOCK_STREAM &&
         option(fd, SO_ACCEPTCONN) == 1;
}

int system_packet_accept(int listener) {
  int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  return fd < 0 ? -errno : fd;
}

int system_peer_user(int fd, uint32_t *user) {
  struct ucred credentials;
  socklen_t length = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return -errno;
  *user = credentials.uid;
  return 0;
}

int system_packet_send(int fd, const void *bytes, uint64_t count, int passed) {
  struct iovec part = {.iov_base = (void *)bytes, .iov_len = count};
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (passed >= 0) {
    message.msg_control = &control;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
  }
  ssize_t sent;
  do sent = sendmsg(fd, &message, MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

int64_t system_packet_receive(int fd, void *bytes, uint64_t count, int *passed) {
  struct iovec part = {.iov_base = bytes, .iov_len = count};
  // Room for one descriptor: the kernel closes what has no room and says so (MSG_CTRUNC).
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.bytes};
  *passed = -1;
  ssize_t got;
  do got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return -errno;
  int received[2] = {-1, -1};
  for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t held = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    // CMSG_SPACE is rounded up, so that on 64 bits there is room for two.
    memcpy(received, CMSG_DATA(header), (held > 2 ? 2 : held) * sizeof(int));
  }
  if (received[1] >= 0 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
    for (int i = 0; i < 2; i++)
      if (received[i] >= 0) close(received[i]);
    return -EMSGSIZE;
  }
  *passed = received[0];
  return got;
}

int system_block_device(int fd, uint64_t *number) {
  struct stat status;
  if (fstat(fd, &status) < 0) return -errno;
  if (!S_ISBLK(status.st_mode)) return -ENOTBLK;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0) return -errno;
  // O_PATH descriptors say O_RDONLY.
  if ((flags & O_ACCMODE) != O_RDWR) return -EBADF;
  *number = status.st_rdev;
  return 0;
}
