// Apart: <linux/tcp.h> and <netinet/tcp.h> define the same names.
#include "CSystem.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

uint64_t system_bytes_acknowledged(int fd, int *has_more) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  memset(&info, 0, sizeof info);
  *has_more = 0;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) < 0) return 0;
  *has_more = info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0;
  return info.tcpi_bytes_acked;
}
