#ifndef CSYSTEM_H
#define CSYSTEM_H
// Calls and constants that Swift's importer cannot reach: GNU-only functions, and macros.
#include <stdint.h>

#include "packets.h"
#include "passthrough.h"
#include "watchdog.h"

/// eventfd(2), close-on-exec. Returns the descriptor or -errno.
int system_eventfd(void);

/// open(2) with O_DIRECT and O_CLOEXEC; `exclusive` adds O_EXCL (a block device in use elsewhere gives -EBUSY),
/// `writable` O_RDWR. `direct` = 0 leaves O_DIRECT out. Returns the descriptor or -errno.
int system_open_disk(const char *path, int writable, int exclusive, int direct);

/// Size in bytes of a block device or regular file, or -errno.
int64_t system_disk_bytes(int fd);

/// Facts of a block device; for a regular file the file system's preferred alignment.
struct system_disk_facts {
  uint32_t is_block_device;
  uint32_t logical_block_bytes;
  uint32_t physical_block_bytes;
  int32_t alignment_offset;
  uint32_t is_read_only;
  uint64_t device_number;
};

/// Fills `facts`; 0 or -errno.
int system_disk_facts(int fd, struct system_disk_facts *facts);

/// Binds the calling thread to a CPU; 0 or -errno.
int system_bind_to_cpu(int cpu);

/// Names the calling thread (15 bytes are kept).
void system_name_thread(const char *name);

/// fallocate(2) modes for IORING_OP_FALLOCATE.
extern const int system_falloc_deallocate;  // FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
extern const int system_falloc_zero;        // FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE

/// BLKDISCARD, which waits for the device; 0 or -errno.
int system_discard(int fd, uint64_t offset, uint64_t count);

/// lseek(2) with SEEK_DATA / SEEK_HOLE: the offset, or -errno (-ENXIO: none from here on).
int64_t system_seek_data(int fd, int64_t offset);
int64_t system_seek_hole(int fd, int64_t offset);

/// RWF_DSYNC for io_uring's rw_flags: a write that is on stable storage when it completes.
extern const uint32_t system_rwf_dsync;

/// Writes once; what was written is on stable storage when the call returns (RWF_DSYNC). Bytes or -errno.
int64_t system_write_through(int fd, const void *bytes, uint64_t count, int64_t offset);

/// A listening TCP socket on the given address (SO_REUSEADDR, and IPV6_V6ONLY where asked). Descriptor or -errno.
/// `may_be_absent`: an address that no interface has yet is good too, and works once one has it.
int system_listen(const void *address, unsigned length, int v6_only, int may_be_absent);

/// Settings of an accepted connection: TCP_NODELAY, and keep-alive with bounds in seconds.
void system_tune_connection(int fd);

/// Bytes that the peer has taken of a TCP connection since its beginning; 0: not known. `has_more`: whether the kernel
/// has more for it.
uint64_t system_bytes_acknowledged(int fd, int *has_more);

/// CLOCK_MONOTONIC in nanoseconds.
uint64_t system_monotonic_ns(void);

/// Tells the processor that this is a loop that waits.
static inline void system_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/// A load that later loads are not taken before.
static inline uint32_t system_load_acquire(const uint32_t *place) { return __atomic_load_n(place, __ATOMIC_ACQUIRE); }

/// getrandom(2) for `count` bytes; traps the process if the kernel has none (it always has after boot).
void system_random(void *bytes, uint64_t count);

/// A netlink socket that the kernel tells of every change to a network interface or an address (rtnetlink(7):
/// RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR). It does not block. Descriptor or -errno.
int system_listen_to_links(void);

/// Takes what waits at a socket of messages and throws it away, without waiting.
void system_discard_messages(int fd);

/// A UDP socket of one interface and family (AF_INET or AF_INET6), bound to the port at every address. It never blocks,
/// what it sends goes out at this interface and crosses no router, and its own multicasts are not heard (on loopback
/// they have to be). Descriptor or -errno.
int system_open_beats(int family, const char *interface, unsigned index, uint16_t port, int is_loopback);

/// A UDP socket that hears one multicast group at one interface: its address in 4 or 16 bytes. Several may be bound so.
/// Descriptor or -errno.
int system_open_group(int family, const char *interface, unsigned index, uint16_t port, const void *group);

/// Gives the calling thread real-time priority (SCHED_FIFO, 1 to 99; children do not inherit it). 0 or -errno.
int system_make_urgent(int priority);

/// Puts the calling thread into the network namespace that the descriptor names. 0 or -errno.
int system_enter_namespace(int fd);

/// No core is ever dumped of this process, and only root may look into its memory (PR_SET_DUMPABLE). 0 or -errno.
int system_forbid_dumps(void);

/// Keeps pages of a program's file that were once read in memory: [start, start + bytes). 0 or -errno.
int system_lock_when_read(uint64_t start, uint64_t bytes);
#endif
