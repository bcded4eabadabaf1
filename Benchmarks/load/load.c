// An iSCSI load generator that costs little, so that the target's core is the bottleneck and not this one.
// One thread, raw PDUs; small reads are received many at a time, large payloads are dropped in the kernel (MSG_TRUNC);
// everything that one turn produces for a session leaves in one sendmsg. Statuses and headers' digests are verified,
// data is not.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "CChecksum.h"
#include "load.h"

enum {
  IN_BYTES = 64 * 1024,
  DROP_BYTES = 16 * 1024,  // from this payload on, dropping in the kernel is cheaper than copying
  IOVECS_PER_SEND = 512,
  DIGESTS = 4096,
};

static struct options options;
static struct medium medium;
static struct session *sessions;
static struct histogram latencies;
static uint64_t errors, nops, rejects, window_waits;
static uint64_t random_state = 0x9E3779B97F4A7C15u;
static uint8_t *payload;  // what every write sends: options.block bytes
static uint64_t all_commands;  // since the start, those of the warm-up too

// Digests of parts of the payload, which is always the same. None is ever changed: what waits to be sent points here.
static struct {
  uint32_t offset, length;
  uint8_t digest[DIGEST_BYTES];
} digests[DIGESTS];
static bool is_stopping;
static uint64_t in_flight;

void fail(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("load: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(1);
}

uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

// MARK: - Sending

static void enqueue(struct session *s, void *bytes, size_t length) {
  if (s->out_head == s->out_tail) s->out_head = s->out_tail = 0;
  if (s->out_tail == s->out_capacity) {
    memmove(s->out, s->out + s->out_head, (s->out_tail - s->out_head) * sizeof *s->out);
    s->out_tail -= s->out_head;
    s->out_head = 0;
    if (s->out_tail == s->out_capacity) fail("the send queue is full");
  }
  s->out[s->out_tail++] = (struct iovec){.iov_base = bytes, .iov_len = length};
}

static uint8_t *payload_digest(uint32_t offset, uint32_t length) {
  for (uint32_t i = 0; i < DIGESTS; i++) {
    uint32_t place = (offset / 512 + length / 512 + i) % DIGESTS;
    if (digests[place].length == length && digests[place].offset == offset) return digests[place].digest;
    if (digests[place].length != 0) continue;
    digests[place].offset = offset;
    digests[place].length = length;
    put_digest(digests[place].digest, checksum_crc32c(0, payload + offset, length));
    return digests[place].digest;
  }
  fail("the target cuts commands into too many different parts");
}

// A part of the payload, with its digest where the session has one.
static void enqueue_payload(struct session *s, uint32_t offset, uint32_t length) {
  enqueue(s, payload + offset, length);
  if (s->data_digest) enqueue(s, payload_digest(offset, length), DIGEST_BYTES);
}

static void flush(struct session *s) {
  while (s->out_head < s->out_tail) {
    size_t count = s->out_tail - s->out_head;
    struct msghdr message = {.msg_iov = s->out + s->out_head,
                             .msg_iovlen = count < IOVECS_PER_SEND ? count : IOVECS_PER_SEND};
    ssize_t sent = sendmsg(s->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) fail("sendmsg: %s", strerror(errno));
    for (size_t left = (size_t)sent; left > 0;) {
      struct iovec *v = &s->out[s->out_head];
      size_t part = left < v->iov_len ? left : v->iov_len;
      v->iov_base = (uint8_t *)v->iov_base + part;
      v->iov_len -= part;
      left -= part;
      if (v->iov_len == 0) s->out_head++;
    }
  }
}

// Data-Out PDUs for `length` bytes from `offset` on, none longer than the target takes (RFC 7143 §11.7).
static void enqueue_data_out(struct session *s, uint32_t slot, uint8_t *headers, uint32_t transfer_tag,
                             const uint8_t *lun, uint32_t offset, uint32_t length) {
  for (uint32_t data_sn = 0; length > 0; data_sn++, headers += PDU_HEADER_BYTES) {
    uint32_t part = length < s->target_max_segment ? length : s->target_max_segment;
    memset(headers, 0, HEADER_BYTES);
    headers[0] = OP_DATA_OUT;
    headers[1] = part == length ? FLAG_FINAL : 0;
    put24(headers + 5, part);
    memcpy(headers + 8, lun, 8);
    put32(headers + 16, slot);
    put32(headers + 20, transfer_tag);
    put32(headers + 28, s->exp_stat_sn);
    put32(headers + 36, data_sn);
    put32(headers + 40, offset);
    enqueue(s, headers, seal(s, headers));
    enqueue_payload(s, offset, part);
    offset += part;
    length -= part;
  }
}

static uint64_t next_lba(struct session *s) {
  uint64_t blocks = options.block / medium.block_bytes, places = medium.blocks / blocks;
  if (!options.sequential) return next_random() % places * blocks;
  uint64_t place = s->sequential_block++ % places;
  return place * blocks;
}

static void put_cdb(uint8_t *cdb, bool is_write, uint64_t lba, uint32_t blocks) {
  if (lba + blocks <= UINT32_MAX && blocks <= UINT16_MAX) {  // READ (10), WRITE (10)
    cdb[0] = is_write ? 0x2A : 0x28;
    put32(cdb + 2, (uint32_t)lba);
    cdb[7] = (uint8_t)(blocks >> 8);
    cdb[8] = (uint8_t)blocks;
  } else {  // READ (16), WRITE (16)
    cdb[0] = is_write ? 0x8A : 0x88;
    put64(cdb + 2, lba);
    put32(cdb + 10, blocks);
  }
}

static uint32_t minimum(uint32_t a, uint32_t b) { return a < b ? a : b; }

static void start_command(struct session *s, uint64_t now) {
  uint32_t slot = s->free_slots[--s->free_count];
  struct command *c = &s->commands[slot];
  c->is_busy = true;
  c->is_write = options.access == ACCESS_WRITE ||
                (options.access == ACCESS_MIX && next_random() % 100 >= options.read_percent);
  c->start_ns = now;
  in_flight++;

  uint8_t *h = c->header;
  memset(h, 0, HEADER_BYTES);
  h[0] = OP_COMMAND;
  h[1] = FLAG_FINAL | ATTRIBUTE_SIMPLE | (c->is_write ? FLAG_WRITE : FLAG_READ);
  put_lun(h + 8, options.lun + (options.luns > 1 ? (uint32_t)(next_random() % options.luns) : 0));
  put32(h + 16, slot);
  put32(h + 20, options.block);
  put32(h + 24, s->cmd_sn++);
  put32(h + 28, s->exp_stat_sn);
  put_cdb(h + 32, c->is_write, next_lba(s), options.block / medium.block_bytes);
  if (!c->is_write) {
    enqueue(s, h, seal(s, h));
    return;
  }

  uint32_t immediate = 0, unsolicited = 0, first = minimum(s->first_burst, options.block);
  if (s->immediate_data) immediate = minimum(first, s->target_max_segment);
  if (!s->initial_r2t) unsolicited = first - immediate;
  put24(h + 5, immediate);
  if (unsolicited > 0) h[1] &= (uint8_t)~FLAG_FINAL;
  enqueue(s, h, seal(s, h));
  if (immediate > 0) enqueue_payload(s, 0, immediate);
  if (unsolicited > 0)
    enqueue_data_out(s, slot, c->unsolicited_headers, RESERVED_TAG, h + 8, immediate, unsolicited);
}

static void start_commands(struct session *s, uint64_t now) {
  while (!is_stopping && s->free_count > 0) {
    if (!serial_le(s->cmd_sn, s->max_cmd_sn)) {
      window_waits++;
      return;
    }
    start_command(s, now);
  }
}

// MARK: - Receiving

static void complete(struct session *s, const uint8_t *header, uint64_t now) {
  uint32_t slot = get32(header + 16);
  if (slot >= options.depth || !s->commands[slot].is_busy) fail("a status for the unknown tag 0x%x", slot);
  if (header[3] != 0 || ((header[0] & 0x3F) == OP_RESPONSE && header[2] != 0)) errors++;
  s->commands[slot].is_busy = false;
  s->free_slots[s->free_count++] = slot;
  in_flight--;
  all_commands++;
  histogram_add(&latencies, now - s->commands[slot].start_ns);
}

static void take_r2t(struct session *s, const uint8_t *header) {
  uint32_t slot = get32(header + 16), offset = get32(header + 40), length = get32(header + 44);
  if (slot >= options.depth || !s->commands[slot].is_busy) fail("an R2T for the unknown tag 0x%x", slot);
  if (length == 0 || length > s->max_burst || offset > options.block || length > options.block - offset)
    fail("an R2T for bytes %u + %u", offset, length);
  enqueue_data_out(s, slot, s->commands[slot].burst_headers, get32(header + 20), header + 8, offset, length);
}

static void answer_nop(struct session *s, const uint8_t *header) {
  nops++;
  if (get32(header + 20) == RESERVED_TAG) return;
  uint8_t *h = s->nop_headers[s->nop_next++ % 16];
  memset(h, 0, HEADER_BYTES);
  h[0] = OP_NOP_OUT | OP_IMMEDIATE;
  h[1] = FLAG_FINAL;
  memcpy(h + 8, header + 8, 8);
  put32(h + 16, RESERVED_TAG);
  memcpy(h + 20, header + 20, 4);
  put32(h + 24, s->cmd_sn);
  put32(h + 28, s->exp_stat_sn);
  enqueue(s, h, seal(s, h));
}

static void take_header(struct session *s, const uint8_t *header, uint64_t now) {
  uint32_t length = get24(header + 5);
  s->skip = header[4] * 4u + padded(length) + (s->data_digest && length > 0 ? DIGEST_BYTES : 0);
  if (s->header_digest) {
    uint8_t digest[DIGEST_BYTES];
    put_digest(digest, checksum_crc32c(0, header, HEADER_BYTES));
    if (memcmp(digest, header + HEADER_BYTES, DIGEST_BYTES) != 0) fail("a header with a wrong digest");
  }
  uint32_t max_cmd_sn = get32(header + 32);
  if (serial_le(s->max_cmd_sn, max_cmd_sn)) s->max_cmd_sn = max_cmd_sn;
  uint8_t opcode = header[0] & 0x3F;
  bool has_status = opcode == OP_RESPONSE || (opcode == OP_DATA_IN && (header[1] & FLAG_STATUS) != 0);
  if (has_status) {
    s->exp_stat_sn = get32(header + 24) + 1;
    complete(s, header, now);
    return;
  }
  switch (opcode) {
    case OP_DATA_IN: break;
    case OP_R2T: take_r2t(s, header); break;
    case OP_NOP_IN: answer_nop(s, header); break;
    case OP_REJECT: rejects++; break;
    case OP_ASYNC: s->exp_stat_sn = get32(header + 24) + 1; break;
    default: fail("unexpected opcode 0x%02x", opcode);
  }
}

// Takes whole headers out of `in`, keeps a partial one at its beginning.
static void parse(struct session *s, uint64_t now) {
  size_t at = 0;
  for (;;) {
    size_t there = s->in_length - at;
    size_t skipped = s->skip < there ? s->skip : there;
    s->skip -= skipped;
    at += skipped;
    if (s->in_length - at < s->header_length) break;
    take_header(s, s->in + at, now);
    at += s->header_length;
  }
  s->in_length -= at;
  memmove(s->in, s->in + at, s->in_length);
}

// One receive. False when there was nothing.
static bool receive(struct session *s, int flags) {
  ssize_t got;
  bool is_drop = s->skip >= DROP_BYTES && s->in_length == 0;
  if (is_drop) {
    got = recv(s->fd, NULL, s->skip, flags | MSG_TRUNC);
  } else {
    // When large payloads follow the headers, do not copy the beginning of the next one.
    size_t most = options.block >= DROP_BYTES && options.access != ACCESS_WRITE
                      ? (size_t)s->skip + s->header_length - s->in_length
                      : IN_BYTES - s->in_length;
    got = recv(s->fd, s->in + s->in_length, most, flags);
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got < 0) fail("recv: %s", strerror(errno));
  if (got == 0) fail("the target closed session %u", s->number);
  if (is_drop) {
    s->skip -= (uint64_t)got;
  } else {
    s->in_length += (size_t)got;
    parse(s, now_ns());
  }
  return true;
}

// MARK: - The loop

static void turn(struct session *s, int flags) {
  // A few receives a turn: enough to drain a socket, few enough to be fair to the other sessions.
  for (int i = 0; i < 8 && receive(s, i == 0 ? flags : MSG_DONTWAIT); i++)
    if (s->skip == 0 && s->in_length == 0 && options.block < DROP_BYTES) break;
  start_commands(s, now_ns());
  flush(s);
}

static void arm(int epoll, struct session *s) {
  bool wants = s->out_head < s->out_tail;
  if (wants == s->wants_write) return;
  struct epoll_event event = {.events = EPOLLIN | (wants ? EPOLLOUT : 0), .data.ptr = s};
  epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
  s->wants_write = wants;
}

static void run_until(int epoll, uint64_t deadline, bool until_idle) {
  while (now_ns() < deadline && !(until_idle && in_flight == 0)) {
    if (options.sessions == 1 && sessions[0].out_head == sessions[0].out_tail) {
      turn(&sessions[0], options.is_spinning ? MSG_DONTWAIT : 0);  // else blocks in recv, for at most SO_RCVTIMEO
      continue;
    }
    struct epoll_event ready[64];
    int count = epoll_wait(epoll, ready, 64, options.is_spinning ? 0 : 100);
    for (int i = 0; i < count; i++) {
      turn(ready[i].data.ptr, MSG_DONTWAIT);
      arm(epoll, ready[i].data.ptr);
    }
  }
}

static uint32_t pdus_for(const struct session *s, uint32_t bytes) {
  return (minimum(bytes, options.block) + s->target_max_segment - 1) / s->target_max_segment;
}

static void prepare(struct session *s, int epoll) {
  uint32_t unsolicited = pdus_for(s, s->first_burst), burst = pdus_for(s, s->max_burst);
  s->commands = calloc(options.depth, sizeof *s->commands);
  s->free_slots = calloc(options.depth, sizeof *s->free_slots);
  s->out_capacity = (size_t)options.depth * (6 + 3 * (unsolicited + burst)) + 64;
  s->out = calloc(s->out_capacity, sizeof *s->out);
  s->in = malloc(IN_BYTES);
  uint8_t *headers = malloc((size_t)options.depth * (unsolicited + burst) * PDU_HEADER_BYTES);
  if (!s->commands || !s->free_slots || !s->out || !s->in || !headers) fail("out of memory");
  for (uint32_t i = 0; i < options.depth; i++) {
    s->commands[i].unsolicited_headers = headers + (size_t)i * (unsolicited + burst) * PDU_HEADER_BYTES;
    s->commands[i].burst_headers = s->commands[i].unsolicited_headers + (size_t)unsolicited * PDU_HEADER_BYTES;
    s->free_slots[s->free_count++] = options.depth - 1 - i;
  }
  s->sequential_block = (uint64_t)s->number * (medium.blocks / options.sessions) * medium.block_bytes / options.block;
  struct timeval limit = {.tv_usec = 100000};
  setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
}

// MARK: - CPU time

static double own_cpu_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

// utime, stime, cutime and cstime of a process: all its threads, io_uring's workers and the children it has waited for.
static void watched_cpu(double *user, double *system) {
  char path[64], text[1024];
  *user = *system = 0;
  if (options.watch == 0) return;
  snprintf(path, sizeof path, "/proc/%d/stat", options.watch);
  FILE *file = fopen(path, "r");
  if (file == NULL) fail("process %d is gone", options.watch);
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[length] = 0;
  unsigned long long utime, stime, cutime, cstime;
  char *after_name = strrchr(text, ')');
  if (after_name == NULL || sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %llu %llu",
                                   &utime, &stime, &cutime, &cstime) != 4)
    fail("cannot read %s", path);
  double tick = (double)sysconf(_SC_CLK_TCK);
  *user = (double)(utime + cutime) / tick;
  *system = (double)(stime + cstime) / tick;
}

// What the library counts that is preloaded into the target (Tests/lab/tools/tally.c).
static uint64_t tally(void) {
  uint64_t count = 0;
  if (options.tally == NULL) return 0;
  FILE *file = fopen(options.tally, "r");
  if (file == NULL || fread(&count, sizeof count, 1, file) != 1) fail("cannot read %s", options.tally);
  fclose(file);
  return count;
}

// MARK: - Options and report

static uint64_t parse_size(const char *text) {
  char *end;
  uint64_t value = strtoull(text, &end, 0);
  switch (*end) {
    case 'K': return value << 10;
    case 'M': return value << 20;
    case 'G': return value << 30;
    case 'T': return value << 40;
    case 0: return value;
    default: fail("not a size: %s", text);
  }
}

static const char usage[] =
    "usage: load --address ADDRESS --port PORT --target NAME [--lun N]\n"
    "  --rw read|write|mix   what the commands do (read); --read-percent N of a mix (70)\n"
    "  --block BYTES         of one command (4096)      --depth N      commands per session (1)\n"
    "  --sessions N          connections (1)            --seconds S    measured time (3), after --warmup S (0.5)\n"
    "  --random|--sequential order of the places        --size BYTES   use only so much of the LUN\n"
    "  --cpu N               run on this processor      --watch PID    report the CPU time of this process per I/O\n"
    "  --digests none|header|data|both (none)           --luns N       spread over N LUNs, from --lun on (1)\n"
    "  --initiator NAME      initiator name             --idle         log in only, and stay until the input ends\n"
    "  --spin                never sleep: latency without this program's own wake-up\n"
    "  --tally FILE          report what its first eight bytes grow by while commands are measured\n";

static enum access parse_access(const char *text) {
  static const char *const names[] = {"read", "write", "mix"};
  for (unsigned i = 0; i < 3; i++)
    if (strcmp(text, names[i]) == 0) return (enum access)i;
  fail("--rw is read, write or mix");
}

static void parse_digests(const char *text) {
  bool is_both = strcmp(text, "both") == 0;
  options.header_digest = is_both || strcmp(text, "header") == 0;
  options.data_digest = is_both || strcmp(text, "data") == 0;
  if (!options.header_digest && !options.data_digest && strcmp(text, "none") != 0)
    fail("--digests is none, header, data or both");
}

static void parse_options(int argc, char **argv) {
  options = (struct options){.address = "127.0.0.1", .port = 3260, .block = 4096, .depth = 1, .sessions = 1, .luns = 1,
                             .seconds = 3, .warmup = 0.5, .cpu = -1, .read_percent = 70,
                             .initiator = "iqn.2026-01.example:load"};
  static const struct option known[] = {
      {"address", 1, 0, 'a'}, {"port", 1, 0, 'p'},    {"target", 1, 0, 't'},     {"lun", 1, 0, 'l'},
      {"rw", 1, 0, 'r'},      {"block", 1, 0, 'b'},   {"depth", 1, 0, 'd'},      {"sessions", 1, 0, 's'},
      {"seconds", 1, 0, 'S'}, {"warmup", 1, 0, 'w'},  {"random", 0, 0, 'R'},     {"sequential", 0, 0, 'q'},
      {"size", 1, 0, 'z'},    {"cpu", 1, 0, 'c'},     {"watch", 1, 0, 'W'},      {"read-percent", 1, 0, 'P'},
      {"help", 0, 0, 'h'},    {"initiator", 1, 0, 'i'}, {"digests", 1, 0, 'D'},
      {"luns", 1, 0, 'L'},    {"idle", 0, 0, 'I'},   {"spin", 0, 0, 'Y'},    {"tally", 1, 0, 'T'},
      {0, 0, 0, 0}};
  for (int letter; (letter = getopt_long(argc, argv, "h", known, NULL)) != -1;) switch (letter) {
      case 'a': options.address = optarg; break;
      case 'p': options.port = (uint16_t)atoi(optarg); break;
      case 't': options.target = optarg; break;
      case 'i': options.initiator = optarg; break;
      case 'l': options.lun = (uint32_t)strtoul(optarg, NULL, 0); break;
      case 'L': options.luns = (uint32_t)atoi(optarg); break;
      case 'D': parse_digests(optarg); break;
      case 'I': options.is_idle = true; break;
      case 'Y': options.is_spinning = true; break;
      case 'r': options.access = parse_access(optarg); break;
      case 'P': options.read_percent = (uint32_t)atoi(optarg); break;
      case 'b': options.block = (uint32_t)parse_size(optarg); break;
      case 'd': options.depth = (uint32_t)atoi(optarg); break;
      case 's': options.sessions = (uint32_t)atoi(optarg); break;
      case 'S': options.seconds = atof(optarg); break;
      case 'w': options.warmup = atof(optarg); break;
      case 'R': options.sequential = false; break;
      case 'q': options.sequential = true; break;
      case 'z': options.size = parse_size(optarg); break;
      case 'c': options.cpu = atoi(optarg); break;
      case 'W': options.watch = atoi(optarg); break;
      case 'T': options.tally = optarg; break;
      case 'h': fputs(usage, stdout); exit(0);
      default: fputs(usage, stderr); exit(2);
    }
  if (options.target == NULL || options.depth == 0 || options.sessions == 0 || options.luns == 0 ||
      options.lun + options.luns > 0x4000) {
    fputs(usage, stderr);
    exit(2);
  }
}

static void check_sizes(void) {
  if (medium.block_bytes == 0 || options.block == 0 || options.block % medium.block_bytes != 0)
    fail("--block %u is not a multiple of the logical block of %u bytes", options.block, medium.block_bytes);
  if (options.size > 0 && options.size / medium.block_bytes < medium.blocks)
    medium.blocks = options.size / medium.block_bytes;
  if (medium.blocks < options.block / medium.block_bytes) fail("the LUN is smaller than one command");
}

static void allow_all_files(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Logs in, says how long that took, and holds the sessions until the input ends.
static int stay_idle(void) {
  sessions = calloc(options.sessions, sizeof *sessions);
  if (sessions == NULL) fail("out of memory");
  uint64_t begin = now_ns();
  for (uint32_t i = 0; i < options.sessions; i++) {
    uint64_t start = now_ns();
    sessions[i].number = i;
    session_login(&sessions[i], &options);
    histogram_add(&latencies, now_ns() - start);
  }
  printf("{\"begin_ns\": %llu, \"end_ns\": %llu, \"logins\": %u, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
         (unsigned long long)begin, (unsigned long long)now_ns(), options.sessions, histogram_us(&latencies, 0.5),
         histogram_us(&latencies, 0.99));
  fflush(stdout);
  char scrap[64];
  while (read(STDIN_FILENO, scrap, sizeof scrap) > 0) continue;
  for (uint32_t i = 0; i < options.sessions; i++) session_logout(&sessions[i]);
  return 0;
}

int main(int argc, char **argv) {
  parse_options(argc, argv);
  if (options.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(options.cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) fail("cannot run on processor %d", options.cpu);
  }
  allow_all_files();
  if (options.is_idle) return stay_idle();
  payload = malloc(options.block);
  sessions = calloc(options.sessions, sizeof *sessions);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  if (payload == NULL || sessions == NULL || epoll < 0) fail("out of memory");
  for (uint32_t i = 0; i < options.block; i++) payload[i] = (uint8_t)(i * 167 >> 3);

  for (uint32_t i = 0; i < options.sessions; i++) {
    sessions[i].number = i;
    session_login(&sessions[i], &options);
    for (uint32_t j = 0; j < options.luns; j++) medium = session_medium(&sessions[i], options.lun + j);
  }
  check_sizes();
  for (uint32_t i = 0; i < options.sessions; i++) {
    prepare(&sessions[i], epoll);
    start_commands(&sessions[i], now_ns());
    flush(&sessions[i]);
    arm(epoll, &sessions[i]);
  }

  run_until(epoll, now_ns() + (uint64_t)(options.warmup * 1e9), false);
  memset(&latencies, 0, sizeof latencies);
  double user[2], system[2], own = own_cpu_seconds();
  watched_cpu(&user[0], &system[0]);
  uint64_t allocations = tally();
  uint64_t begin = now_ns();
  run_until(epoll, begin + (uint64_t)(options.seconds * 1e9), false);
  double elapsed = (double)(now_ns() - begin) / 1e9;
  watched_cpu(&user[1], &system[1]);
  allocations = tally() - allocations;
  own = own_cpu_seconds() - own;
  struct histogram result = latencies;

  is_stopping = true;
  run_until(epoll, now_ns() + 5000000000u, true);
  if (in_flight > 0) fail("%llu commands were not answered within 5 s", (unsigned long long)in_flight);
  for (uint32_t i = 0; i < options.sessions; i++) session_logout(&sessions[i]);

  double count = result.count > 0 ? (double)result.count : 1, target = user[1] - user[0] + system[1] - system[0];
  printf("{\"iops\": %.1f, \"mb_per_s\": %.2f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
         "\"max_us\": %.1f, "
         "\"mean_us\": %.1f, \"commands\": %llu, \"errors\": %llu, \"rejects\": %llu, \"nop_ins\": %llu, "
         "\"window_waits\": %llu, \"seconds\": %.3f, \"load_cpu_percent\": %.1f, \"load_cpu_us_per_io\": %.3f, "
         "\"target_cpu_percent\": %.1f, \"target_cpu_us_per_io\": %.3f, \"target_user_us_per_io\": %.3f, "
         "\"block\": %u, \"depth\": %u, \"sessions\": %u, \"all_commands\": %llu, "
         "\"allocations\": %llu}\n",
         (double)result.count / elapsed, (double)result.count * options.block / elapsed / 1e6,
         histogram_us(&result, 0.5), histogram_us(&result, 0.99), histogram_us(&result, 0.999),
         (double)result.max_ns / 1e3, (double)result.sum_ns / count / 1e3, (unsigned long long)result.count,
         (unsigned long long)errors, (unsigned long long)rejects, (unsigned long long)nops,
         (unsigned long long)window_waits, elapsed, own / elapsed * 100, own * 1e6 / count, target / elapsed * 100,
         target * 1e6 / count, (user[1] - user[0]) * 1e6 / count, options.block, options.depth, options.sessions,
         (unsigned long long)all_commands, (unsigned long long)allocations);
  return errors > 0 || rejects > 0 || result.count == 0 ? 1 : 0;
}
