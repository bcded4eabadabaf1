#ifndef CSYSTEM_WATCHDOG_H
#define CSYSTEM_WATCHDOG_H
// A watchdog of the kernel: it resets the machine that does not keep it alive.

/// Opens and starts it. A descriptor, or -errno; EBUSY: somebody else has it.
int system_watchdog_open(const char *path);
/// Sets its time. The seconds that are in force, or -errno.
int system_watchdog_set(int fd, int seconds);
/// 0, or -errno.
int system_watchdog_keep_alive(int fd);
/// Whether it can be stopped by `system_watchdog_stop` (unless the driver was loaded with nowayout).
int system_watchdog_can_stop(int fd);
/// Stops and closes it. 0, or -errno: it runs on.
int system_watchdog_stop(int fd);
#endif
