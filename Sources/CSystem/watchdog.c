#include "CSystem.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/watchdog.h>
#include <sys/ioctl.h>
#include <unistd.h>

int system_watchdog_open(const char *path) {
  // Opening it starts it.
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  return fd >= 0 ? fd : -errno;
}

int system_watchdog_set(int fd, int seconds) {
  int told = seconds, in_force = 0;
  if (ioctl(fd, WDIOC_SETTIMEOUT, &told) != 0) return -errno;
  // Drivers round to what the device can do.
  if (ioctl(fd, WDIOC_GETTIMEOUT, &in_force) != 0) return -errno;
  return in_force;
}

int system_watchdog_keep_alive(int fd) {
  int unused = 0;
  return ioctl(fd, WDIOC_KEEPALIVE, &unused) == 0 ? 0 : -errno;
}

int system_watchdog_can_stop(int fd) {
  struct watchdog_info info = {0};
  return ioctl(fd, WDIOC_GETSUPPORT, &info) == 0 && (info.options & WDIOF_MAGICCLOSE) != 0;
}

int system_watchdog_stop(int fd) {
  // The kernel's "magic close": without it the device runs on and resets the machine.
  int code = write(fd, "V", 1) == 1 ? 0 : -errno;
  close(fd);
  return code;
}
