// Shared by the parts of the load generator: the options, a session, a command in flight.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "histogram.h"
#include "wire.h"

enum access { ACCESS_READ, ACCESS_WRITE, ACCESS_MIX };

struct options {
  const char *address, *target, *initiator;
  uint16_t port;
  uint32_t lun, luns;  // the first, and how many from it on
  enum access access;
  uint32_t read_percent;     // of a mix
  uint32_t block;            // bytes of one command
  uint32_t depth, sessions;  // commands per session
  double seconds, warmup;
  bool sequential;
  bool header_digest, data_digest;  // ask for CRC32C
  bool is_spinning;                 // look for answers without sleeping
  bool is_idle;                     // log in, say so, and stay until the input ends
  uint64_t size;  // bytes of the LUN that are used; 0: all
  int cpu;        // -1: not pinned
  int watch;      // process whose CPU time is reported; 0: none
  const char *tally;  // file whose first eight bytes are the target's calls for memory; NULL: not counted
};

struct command {
  uint8_t header[PDU_HEADER_BYTES];
  bool is_write, is_busy;
  uint64_t start_ns;
  uint8_t *unsolicited_headers;  // Data-Out before any R2T
  uint8_t *burst_headers;        // Data-Out of the one R2T in progress (MaxOutstandingR2T=1)
};

struct session {
  int fd;
  unsigned number;
  uint32_t cmd_sn, max_cmd_sn, exp_stat_sn;
  // What was negotiated, bytes.
  uint32_t target_max_segment, first_burst, max_burst;
  bool immediate_data, initial_r2t, header_digest, data_digest;
  bool is_after_login;     // digests are in force
  unsigned header_length;  // bytes, with its digest

  struct command *commands;
  uint32_t *free_slots, free_count;
  uint64_t sequential_block;

  // What waits to be sent: whole buffers that stay where they are until they are gone.
  struct iovec *out;
  size_t out_head, out_tail, out_capacity;
  bool wants_write;  // EPOLLOUT is armed
  uint8_t nop_headers[16][PDU_HEADER_BYTES];
  unsigned nop_next;

  // What arrives: headers are read into `in`; `skip` bytes of payload are still to be thrown away.
  uint8_t *in;
  size_t in_length;
  uint64_t skip;
};

struct medium {
  uint64_t blocks;
  uint32_t block_bytes;
};

void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
uint64_t now_ns(void);

// Peripheral device addressing below 256, flat space addressing above (SAM-5 §4.7).
static inline void put_lun(uint8_t *p, uint32_t lun) { put64(p, (uint64_t)(lun < 256 ? lun : 0x4000 | lun) << 48); }

// login.c: blocking, before the measurement.
void session_login(struct session *s, const struct options *o);
struct medium session_medium(struct session *s, uint32_t lun);
void session_logout(struct session *s);

// Puts the digest behind a header, where the session has one. Returns the length of both.
size_t seal(const struct session *s, uint8_t *header);
