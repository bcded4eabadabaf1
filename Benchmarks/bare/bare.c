// The bare answerer: the least io_uring program that answers the load generator with the bytes that a target would.
// One thread, one LUN of memory, no checks of anything. What a target costs above this is what it does for its keep;
// what this costs is the kernel's. It believes its peer, so it listens on the loopback only.
//
// Reads leave straight from the LUN. Headers and small writes arrive through a multishot receive with provided buffers
// and are copied; a connection with large data segments goes over to receives of its own, straight into the LUN.
// Everything that one turn produces for a connection leaves in one sendmsg.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "CChecksum.h"
#include "../load/wire.h"

enum {
  BLOCK_BYTES = 512,
  SEGMENT_BYTES = 262144,  // MaxRecvDataSegmentLength, both ways
  WINDOW = 256,            // commands ahead of ExpCmdSN
  TASKS = 1024,            // writes of a connection by their tag, which the load generator counts from 0
  RECEIVE_BYTES = 16384,
  RECEIVE_COUNT = 256,     // provided buffers: 4 MiB; fewer, and some of 64 sessions that write find none for long
  DIRECT_BYTES = 8192,     // from so much that is missing of a segment, a receive of its own is worth it
  SINGLE_BYTES = 4096,     // of a receive for headers beside such
  QUEUE = 8192,            // iovecs of a turn
  IOVECS_PER_SEND = 1024,  // UIO_MAXIOV
  ENTRIES = 1024,
};

// Tags of completions, in the low bits of the connection's address.
enum { TAG_RECEIVE = 0, TAG_SEND = 1, TAG_CANCEL = 2, TAG_ACCEPT = 3, TAG_MASK = 7 };

struct task {
  uint64_t at;  // of the LUN, bytes
  uint32_t length, received, r2t_sn;
};

struct queue {
  struct iovec v[QUEUE];
  uint8_t bytes[QUEUE / 2][56];  // headers with their digest, digests of data
  unsigned head, tail, headers;
};

enum receiving { IS_MULTISHOT, IS_ENDING, IS_SINGLE };

struct connection {
  int fd;
  unsigned operations;  // under way in the kernel; the connection stays until there are none
  bool is_closing, is_dirty, is_sending, is_armed, is_after_login;
  bool header_digest, data_digest;
  enum receiving receiving;
  uint32_t stat_sn, exp_cmd_sn;

  uint8_t header[PDU_HEADER_BYTES];
  unsigned header_length;
  // The data segment that arrives: where to, with its padding, and what of its digest.
  uint8_t *segment;
  uint32_t segment_left, segment_length, tail_left;
  uint8_t tail[DIGEST_BYTES];

  uint8_t text[SEGMENT_BYTES];
  uint8_t single[SINGLE_BYTES];
  struct task tasks[TASKS];
  struct queue queues[2], *filling, *sending;
  struct msghdr message;
  struct connection *next_dirty;
};

static struct io_uring ring;
static struct io_uring_buf_ring *buffers;  // NULL: this kernel has none
static uint8_t *receive_memory, *lun;
static uint64_t lun_bytes = 1ull << 30;
// What has something to do at the end of the turn, in order: who found no receive buffer first asks again first.
static struct connection *dirty, **dirty_end = &dirty;

static void fail(const char *what, int error) {
  fprintf(stderr, "bare: %s: %s\n", what, strerror(error));
  exit(1);
}

static struct io_uring_sqe *entry(struct connection *c) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
  if (sqe == NULL) {
    io_uring_submit(&ring);
    sqe = io_uring_get_sqe(&ring);
    if (sqe == NULL) fail("no room in the submission queue", ENOMEM);
  }
  if (c != NULL) c->operations++;
  return sqe;
}

// After the io_uring_prep_ call, which overwrites it.
static void set_tag(struct io_uring_sqe *sqe, struct connection *c, unsigned tag) {
  io_uring_sqe_set_data64(sqe, (uintptr_t)c | tag);
}

// MARK: - Sending

static void mark(struct connection *c) {
  if (c->is_dirty) return;
  c->is_dirty = true;
  c->next_dirty = NULL;
  *dirty_end = c;
  dirty_end = &c->next_dirty;
}

static void append(struct connection *c, const void *bytes, size_t length) {
  struct queue *q = c->filling;
  if (q->tail == QUEUE) fail("a peer that asks for too much at once", ENOBUFS);
  q->v[q->tail++] = (struct iovec){.iov_base = (void *)bytes, .iov_len = length};
}

static uint8_t *take_bytes(struct connection *c) {
  if (c->filling->headers == QUEUE / 2) fail("a peer that asks for too much at once", ENOBUFS);
  return c->filling->bytes[c->filling->headers++];
}

static uint8_t *new_header(struct connection *c, uint8_t opcode, uint8_t flags, uint32_t task_tag) {
  uint8_t *h = take_bytes(c);
  memset(h, 0, HEADER_BYTES);
  h[0] = opcode;
  h[1] = flags;
  put32(h + 16, task_tag);
  put32(h + 20, RESERVED_TAG);
  put32(h + 28, c->exp_cmd_sn);
  put32(h + 32, c->exp_cmd_sn + WINDOW - 1);
  return h;
}

static void append_pdu(struct connection *c, uint8_t *h, const uint8_t *data, uint32_t length) {
  static const uint8_t zeros[4];
  put24(h + 5, length);
  bool has_digest = c->header_digest && c->is_after_login;
  if (has_digest) put_digest(h + HEADER_BYTES, checksum_crc32c(0, h, HEADER_BYTES));
  append(c, h, HEADER_BYTES + (has_digest ? 4 : 0));
  if (length == 0) return;
  append(c, data, length);
  uint32_t padding = padded(length) - length;
  if (padding > 0) append(c, zeros, padding);
  if (!c->data_digest || !c->is_after_login) return;
  uint8_t *digest = take_bytes(c);
  put_digest(digest, checksum_crc32c(checksum_crc32c(0, data, length), zeros, padding));
  append(c, digest, DIGEST_BYTES);
}

static void respond(struct connection *c, uint32_t task_tag, uint8_t status) {
  uint8_t *h = new_header(c, OP_RESPONSE, FLAG_FINAL, task_tag);
  h[3] = status;
  put32(h + 20, 0);
  put32(h + 24, c->stat_sn++);
  append_pdu(c, h, NULL, 0);
}

// Data-In from the LUN or from other memory that stays; GOOD is in the last one.
static void send_data(struct connection *c, uint32_t task_tag, const uint8_t *data, uint32_t length) {
  uint32_t offset = 0, data_sn = 0;
  do {
    uint32_t part = length - offset < SEGMENT_BYTES ? length - offset : SEGMENT_BYTES;
    bool is_last = offset + part == length;
    uint8_t *h = new_header(c, OP_DATA_IN, is_last ? FLAG_FINAL | FLAG_STATUS : 0, task_tag);
    if (is_last) put32(h + 24, c->stat_sn++);
    put32(h + 36, data_sn++);
    put32(h + 40, offset);
    append_pdu(c, h, data + offset, part);
    offset += part;
  } while (offset < length);
}

static void start_send(struct connection *c) {
  struct queue *q = c->sending;
  if (q->head == q->tail) {
    q->head = q->tail = q->headers = 0;
    c->sending = c->filling;
    c->filling = q;
    q = c->sending;
    if (q->head == q->tail) return;
  }
  unsigned count = q->tail - q->head;
  c->message.msg_iov = q->v + q->head;
  c->message.msg_iovlen = count < IOVECS_PER_SEND ? count : IOVECS_PER_SEND;
  struct io_uring_sqe *sqe = entry(c);
  io_uring_prep_sendmsg(sqe, c->fd, &c->message, MSG_NOSIGNAL | MSG_WAITALL);
  set_tag(sqe, c, TAG_SEND);
  c->is_sending = true;
}

static void sent(struct connection *c, int result) {
  c->is_sending = false;
  if (result < 0) {
    c->is_closing = true;
    shutdown(c->fd, SHUT_RDWR);
    return;
  }
  struct queue *q = c->sending;
  for (size_t left = (size_t)result; left > 0;) {
    struct iovec *v = &q->v[q->head];
    size_t part = left < v->iov_len ? left : v->iov_len;
    v->iov_base = (uint8_t *)v->iov_base + part;
    v->iov_len -= part;
    left -= part;
    if (v->iov_len == 0) q->head++;
  }
  mark(c);
}

// MARK: - What is answered

static void login(struct connection *c, const uint8_t *header, uint32_t length) {
  static char answer[1024];
  uint8_t stage = (header[1] >> 2) & 3;
  c->text[length] = 0;
  for (char *p = (char *)c->text; p < (char *)c->text + length; p += strlen(p) + 1) {
    if (strncmp(p, "HeaderDigest=CRC32C", 19) == 0) c->header_digest = true;
    if (strncmp(p, "DataDigest=CRC32C", 17) == 0) c->data_digest = true;
  }
  c->exp_cmd_sn = get32(header + 24);
  int n = stage == 0
              ? snprintf(answer, sizeof answer, "AuthMethod=None%cTargetPortalGroupTag=1%c", 0, 0)
              : snprintf(answer, sizeof answer,
                         "TargetPortalGroupTag=1%cHeaderDigest=%s%cDataDigest=%s%cInitialR2T=No%cImmediateData=Yes%c"
                         "MaxRecvDataSegmentLength=262144%cMaxBurstLength=262144%cFirstBurstLength=65536%c"
                         "MaxOutstandingR2T=1%cMaxConnections=1%cErrorRecoveryLevel=0%cDataPDUInOrder=Yes%c"
                         "DataSequenceInOrder=Yes%cDefaultTime2Wait=2%cDefaultTime2Retain=0%c",
                         0, c->header_digest ? "CRC32C" : "None", 0, c->data_digest ? "CRC32C" : "None", 0, 0, 0, 0, 0,
                         0, 0, 0, 0, 0, 0, 0, 0);
  uint8_t *h = new_header(c, OP_LOGIN_RESPONSE, header[1], get32(header + 16));
  memcpy(h + 8, header + 8, 6);  // ISID
  h[15] = 1;                     // TSIH
  put32(h + 20, 0);
  put32(h + 24, c->stat_sn++);
  append_pdu(c, h, (const uint8_t *)answer, (uint32_t)n);
  c->is_after_login = (header[1] & 0x83) == 0x83;
}

static void answer_capacity(struct connection *c, const uint8_t *header, bool is_long) {
  static uint8_t data[32];
  uint64_t last = lun_bytes / BLOCK_BYTES - 1;
  if (is_long) {
    put64(data, last);
    put32(data + 8, BLOCK_BYTES);
  } else {
    put32(data, (uint32_t)last);
    put32(data + 4, BLOCK_BYTES);
  }
  send_data(c, get32(header + 16), data, is_long ? 32 : 8);
}

static void ask_for_rest(struct connection *c, uint32_t task_tag, const uint8_t *lun_field) {
  struct task *t = &c->tasks[task_tag % TASKS];
  uint32_t left = t->length - t->received;
  if (left == 0) {
    respond(c, task_tag, 0);
    return;
  }
  uint8_t *h = new_header(c, OP_R2T, FLAG_FINAL, task_tag);
  memcpy(h + 8, lun_field, 8);
  put32(h + 20, task_tag);
  put32(h + 24, c->stat_sn);
  put32(h + 36, t->r2t_sn++);
  put32(h + 40, t->received);
  put32(h + 44, left < SEGMENT_BYTES ? left : SEGMENT_BYTES);
  append_pdu(c, h, NULL, 0);
}

// Where the data segment of this PDU goes.
static uint8_t *place(struct connection *c, const uint8_t *header) {
  uint8_t opcode = header[0] & 0x3F;
  struct task *t = &c->tasks[get32(header + 16) % TASKS];
  if (opcode == OP_COMMAND && (header[1] & FLAG_WRITE) != 0) {
    bool is_long = header[32] == 0x8A;
    uint64_t at = is_long ? get64(header + 34) : get32(header + 34);
    *t = (struct task){.at = at * BLOCK_BYTES % lun_bytes, .length = get32(header + 20)};
    return lun + t->at;
  }
  if (opcode == OP_DATA_OUT) return lun + t->at + get32(header + 40);
  return c->text;
}

static void answer_command(struct connection *c, const uint8_t *header, uint32_t length) {
  static const uint8_t inquiry[36] = {0, 0, 6, 2, 31, [8] = 'B', 'A', 'R', 'E'};
  uint32_t task_tag = get32(header + 16), wanted = get32(header + 20);
  c->exp_cmd_sn++;
  switch (header[32]) {
    case 0x00: respond(c, task_tag, 0); break;                                                        // TEST UNIT READY
    case 0x12: send_data(c, task_tag, inquiry, wanted < sizeof inquiry ? wanted : sizeof inquiry); break;  // INQUIRY
    case 0x25: answer_capacity(c, header, false); break;                                              // READ CAPACITY
    case 0x9E: answer_capacity(c, header, true); break;
    case 0x28:  // READ (10)
    case 0x88:  // READ (16)
      send_data(c, task_tag,
                lun + (header[32] == 0x88 ? get64(header + 34) : get32(header + 34)) * BLOCK_BYTES % lun_bytes, wanted);
      break;
    case 0x2A:  // WRITE (10)
    case 0x8A:  // WRITE (16)
      c->tasks[task_tag % TASKS].received = length;
      if ((header[1] & FLAG_FINAL) != 0) ask_for_rest(c, task_tag, header + 8);
      break;
    default: respond(c, task_tag, 2);
  }
}

// A whole PDU is there.
static void answer(struct connection *c, const uint8_t *header, uint32_t length) {
  switch (header[0] & 0x3F) {
    case OP_COMMAND: answer_command(c, header, length); break;
    case OP_DATA_OUT:
      c->tasks[get32(header + 16) % TASKS].received += length;
      if ((header[1] & FLAG_FINAL) != 0) ask_for_rest(c, get32(header + 16), header + 8);
      break;
    case OP_LOGIN: login(c, header, length); break;
    case OP_LOGOUT: {
      uint8_t *h = new_header(c, OP_LOGOUT_RESPONSE, FLAG_FINAL, get32(header + 16));
      put32(h + 20, 0);
      put32(h + 24, c->stat_sn++);
      append_pdu(c, h, NULL, 0);
      break;
    }
    default: break;  // nobody asks for a NOP here
  }
  mark(c);
}

// MARK: - Receiving

static bool digest_is(const uint8_t *bytes, uint32_t length, const uint8_t *digest) {
  uint8_t right[DIGEST_BYTES];
  put_digest(right, checksum_crc32c(0, bytes, length));
  return memcmp(right, digest, DIGEST_BYTES) == 0;
}

static void end_segment(struct connection *c) {
  uint32_t whole = padded(c->segment_length);
  if (c->data_digest && c->is_after_login && !digest_is(c->segment - whole, whole, c->tail))
    fail("wrong data digest", EBADMSG);
  answer(c, c->header, c->segment_length);
}

static void take_header(struct connection *c, const uint8_t *header) {
  if (c->header_digest && c->is_after_login && !digest_is(header, HEADER_BYTES, header + HEADER_BYTES))
    fail("wrong header digest", EBADMSG);
  uint32_t length = get24(header + 5);
  uint8_t *to = place(c, header);
  if (length == 0) {
    answer(c, header, 0);
    return;
  }
  if (header != c->header) memcpy(c->header, header, HEADER_BYTES);
  c->segment = to;
  c->segment_length = length;
  c->segment_left = padded(length);
  c->tail_left = c->data_digest && c->is_after_login ? 4 : 0;
}

static void consume(struct connection *c, const uint8_t *p, size_t count) {
  while (count > 0) {
    size_t part, header_bytes = HEADER_BYTES + (c->header_digest && c->is_after_login ? 4 : 0);
    if (c->segment_left > 0) {
      part = c->segment_left < count ? c->segment_left : count;
      memcpy(c->segment, p, part);
      c->segment += part;
      c->segment_left -= (uint32_t)part;
      if (c->segment_left == 0 && c->tail_left == 0) end_segment(c);
    } else if (c->tail_left > 0) {
      part = c->tail_left < count ? c->tail_left : count;
      memcpy(c->tail + 4 - c->tail_left, p, part);
      c->tail_left -= (uint32_t)part;
      if (c->tail_left == 0) end_segment(c);
    } else if (c->header_length == 0 && count >= header_bytes) {
      part = header_bytes;
      take_header(c, p);
    } else {
      part = header_bytes - c->header_length < count ? header_bytes - c->header_length : count;
      memcpy(c->header + c->header_length, p, part);
      c->header_length += (unsigned)part;
      if (c->header_length == header_bytes) {
        c->header_length = 0;
        take_header(c, c->header);
      }
    }
    p += part;
    count -= part;
  }
}

static void arm(struct connection *c) {
  if (c->is_armed || c->is_closing) return;
  if (c->receiving == IS_MULTISHOT && c->segment_left >= DIRECT_BYTES) c->receiving = IS_SINGLE;
  struct io_uring_sqe *sqe = entry(c);
  if (c->receiving == IS_MULTISHOT) {
    io_uring_prep_recv_multishot(sqe, c->fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = 0;
  } else if (c->segment_left >= DIRECT_BYTES) {
    io_uring_prep_recv(sqe, c->fd, c->segment, c->segment_left, MSG_WAITALL);
  } else {
    io_uring_prep_recv(sqe, c->fd, c->single, SINGLE_BYTES, 0);
  }
  set_tag(sqe, c, TAG_RECEIVE);
  c->is_armed = true;
}

static void received(struct connection *c, const struct io_uring_cqe *cqe) {
  bool is_provided = (cqe->flags & IORING_CQE_F_BUFFER) != 0;
  if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
    c->is_armed = false;
    if (c->receiving == IS_ENDING) c->receiving = IS_SINGLE;
  }
  if (is_provided) {
    unsigned number = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    uint8_t *bytes = receive_memory + (size_t)number * RECEIVE_BYTES;
    if (cqe->res > 0) consume(c, bytes, (size_t)cqe->res);
    io_uring_buf_ring_add(buffers, bytes, RECEIVE_BYTES, (unsigned short)number, RECEIVE_COUNT - 1, 0);
    io_uring_buf_ring_advance(buffers, 1);
  } else if (cqe->res > 0 && c->segment_left >= DIRECT_BYTES) {
    c->segment += cqe->res;
    c->segment_left -= (uint32_t)cqe->res;
    if (c->segment_left == 0 && c->tail_left == 0) end_segment(c);
  } else if (cqe->res > 0) {
    consume(c, c->single, (size_t)cqe->res);
  }
  if (cqe->res == 0 || (cqe->res < 0 && cqe->res != -ENOBUFS && cqe->res != -ECANCELED)) c->is_closing = true;
  mark(c);
  // For what is still to come of a large segment the multishot receive ends, and one straight to its place begins.
  if (c->is_armed && c->receiving == IS_MULTISHOT && c->segment_left >= DIRECT_BYTES) {
    struct io_uring_sqe *sqe = entry(c);
    io_uring_prep_cancel64(sqe, (uintptr_t)c | TAG_RECEIVE, 0);
    set_tag(sqe, c, TAG_CANCEL);
    c->receiving = IS_ENDING;
  }
}

// MARK: - The loop

static void accepted(int fd) {
  struct connection *c = mmap(NULL, sizeof *c, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (c == MAP_FAILED) fail("memory", errno);
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  c->fd = fd;
  c->filling = &c->queues[0];
  c->sending = &c->queues[1];
  c->receiving = buffers != NULL ? IS_MULTISHOT : IS_SINGLE;
  arm(c);
}

static void complete(const struct io_uring_cqe *cqe) {
  unsigned tag = cqe->user_data & TAG_MASK;
  if (tag == TAG_ACCEPT) {
    if (cqe->res >= 0) accepted(cqe->res);
    if ((cqe->flags & IORING_CQE_F_MORE) == 0) fail("accept", cqe->res < 0 ? -cqe->res : EIO);
    return;
  }
  struct connection *c = (struct connection *)(uintptr_t)(cqe->user_data & ~(uint64_t)TAG_MASK);
  if ((cqe->flags & IORING_CQE_F_MORE) == 0) c->operations--;
  if (tag == TAG_RECEIVE) received(c, cqe);
  if (tag == TAG_SEND) sent(c, cqe->res);
  if (tag == TAG_CANCEL) mark(c);
}

static void end_turn(void) {
  while (dirty != NULL) {
    struct connection *c = dirty;
    dirty = c->next_dirty;
    if (dirty == NULL) dirty_end = &dirty;
    c->is_dirty = false;
    if (c->is_closing) {
      shutdown(c->fd, SHUT_RDWR);
      if (c->operations > 0) continue;
      close(c->fd);
      munmap(c, sizeof *c);
      continue;
    }
    if (!c->is_sending) start_send(c);
    arm(c);
  }
}

static void make_ring(void) {
  struct io_uring_params p = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_CQSIZE,
                              .cq_entries = 4 * ENTRIES};
  if (io_uring_queue_init_params(ENTRIES, &ring, &p) < 0) {
    p = (struct io_uring_params){.flags = IORING_SETUP_CQSIZE, .cq_entries = 4 * ENTRIES};
    int result = io_uring_queue_init_params(ENTRIES, &ring, &p);
    if (result < 0) fail("io_uring", -result);
  }
  io_uring_register_ring_fd(&ring);
  size_t bytes = RECEIVE_COUNT * sizeof(struct io_uring_buf);
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct io_uring_buf_reg r = {.ring_addr = (uintptr_t)memory, .ring_entries = RECEIVE_COUNT};
  if (memory == MAP_FAILED || io_uring_register_buf_ring(&ring, &r, 0) < 0) return;
  buffers = memory;
  io_uring_buf_ring_init(buffers);
  receive_memory = aligned_alloc(4096, (size_t)RECEIVE_COUNT * RECEIVE_BYTES);
  if (receive_memory == NULL) fail("memory", ENOMEM);
  for (int i = 0; i < RECEIVE_COUNT; i++)
    io_uring_buf_ring_add(buffers, receive_memory + (size_t)i * RECEIVE_BYTES, RECEIVE_BYTES, (unsigned short)i,
                          RECEIVE_COUNT - 1, i);
  io_uring_buf_ring_advance(buffers, RECEIVE_COUNT);
}

static int listening(uint16_t port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1024) < 0)
    fail("listen", errno);
  return fd;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fputs("usage: bare PORT [BYTES]   an iSCSI LUN of memory on 127.0.0.1 that believes its peer\n", stderr);
    return 2;
  }
  if (argc > 2) lun_bytes = strtoull(argv[2], NULL, 0);
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  // Beyond the end there is room for the longest transfer, so that no wrong address needs a check.
  size_t bytes = lun_bytes + (1u << 25);
  lun = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (lun == MAP_FAILED) fail("memory", errno);
  madvise(lun, bytes, MADV_HUGEPAGE);
  make_ring();
  int fd = listening((uint16_t)atoi(argv[1]));
  struct io_uring_sqe *sqe = entry(NULL);
  io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
  set_tag(sqe, NULL, TAG_ACCEPT);
  for (;;) {
    io_uring_submit_and_wait(&ring, 1);
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    io_uring_for_each_cqe(&ring, head, cqe) {
      complete(cqe);
      count++;
    }
    io_uring_cq_advance(&ring, count);
    end_turn();
  }
}
