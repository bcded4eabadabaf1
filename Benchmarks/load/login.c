// Login, unit attentions, READ CAPACITY and logout: one PDU at a time on a blocking socket.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "CChecksum.h"
#include "load.h"

static void send_all(int fd, const void *bytes, size_t length) {
  for (const uint8_t *p = bytes; length > 0;) {
    ssize_t n = send(fd, p, length, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail("send: %s", strerror(errno));
    p += n;
    length -= (size_t)n;
  }
}

static void receive_all(int fd, void *bytes, size_t length) {
  for (uint8_t *p = bytes; length > 0;) {
    ssize_t n = recv(fd, p, length, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) fail("the target closed the connection");
    if (n < 0) fail("recv: %s", strerror(errno));
    p += n;
    length -= (size_t)n;
  }
}

size_t seal(const struct session *s, uint8_t *header) {
  if (!s->header_digest || !s->is_after_login) return HEADER_BYTES;
  put_digest(header + HEADER_BYTES, checksum_crc32c(0, header, HEADER_BYTES));
  return PDU_HEADER_BYTES;
}

// Before the measurement only logins have data, and those have no digests.
static void send_pdu(struct session *s, uint8_t *header, const void *data, uint32_t length) {
  static const uint8_t zeros[4];
  put24(header + 5, length);
  send_all(s->fd, header, seal(s, header));
  if (length > 0) send_all(s->fd, data, length);
  if (padded(length) > length) send_all(s->fd, zeros, padded(length) - length);
}

// What follows a header: additional segments, data, padding, digest.
static uint32_t data_bytes(const struct session *s, const uint8_t *header) {
  uint32_t length = get24(header + 5);
  return header[4] * 4u + padded(length) + (s->data_digest && s->is_after_login && length > 0 ? DIGEST_BYTES : 0);
}

// Reads one PDU; its data segment is cut to `capacity` bytes. Returns the bytes stored.
static uint32_t receive_pdu(struct session *s, uint8_t *header, uint8_t *data, uint32_t capacity) {
  receive_all(s->fd, header, s->header_length);
  uint32_t length = data_bytes(s, header), kept = get24(header + 5);
  for (uint32_t at = 0; at < length;) {
    uint8_t scrap[4096];
    uint32_t part = length - at < sizeof scrap ? length - at : sizeof scrap;
    receive_all(s->fd, scrap, part);
    if (at < capacity) memcpy(data + at, scrap, at + part <= capacity ? part : capacity - at);
    at += part;
  }
  s->max_cmd_sn = get32(header + 32);
  return kept < capacity ? kept : capacity;
}

static void connect_to(struct session *s, const struct options *o) {
  char port[8];
  snprintf(port, sizeof port, "%u", o->port);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found;
  if (getaddrinfo(o->address, port, &hints, &found) != 0) fail("not an address: %s", o->address);
  s->fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s->fd < 0 || connect(s->fd, found->ai_addr, found->ai_addrlen) < 0)
    fail("connect to %s port %u: %s", o->address, o->port, strerror(errno));
  freeaddrinfo(found);
  struct timeval limit = {.tv_sec = 10};
  setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  int one = 1;
  setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static void take_key(struct session *s, const char *key, const char *value) {
  uint32_t number = (uint32_t)strtoul(value, NULL, 0);
  bool yes = strcmp(value, "Yes") == 0;
  if (strcmp(key, "MaxRecvDataSegmentLength") == 0) s->target_max_segment = number;
  if (strcmp(key, "FirstBurstLength") == 0) s->first_burst = number;
  if (strcmp(key, "MaxBurstLength") == 0) s->max_burst = number;
  if (strcmp(key, "ImmediateData") == 0) s->immediate_data = yes;
  if (strcmp(key, "InitialR2T") == 0) s->initial_r2t = yes;
  if (strcmp(key, "HeaderDigest") == 0) s->header_digest = strcmp(value, "CRC32C") == 0;
  if (strcmp(key, "DataDigest") == 0) s->data_digest = strcmp(value, "CRC32C") == 0;
}

static void take_keys(struct session *s, char *text, uint32_t length) {
  text[length] = 0;
  for (char *p = text; p < text + length; p += strlen(p) + 1) {
    char *equals = strchr(p, '=');
    if (equals == NULL) continue;
    *equals = 0;
    take_key(s, p, equals + 1);
    p = equals + 1;
  }
}

static uint32_t offered_keys(char *text, size_t capacity, const struct options *o) {
  // What Linux's initiator offers, so that the target is measured as it would be used.
  int n = snprintf(text, capacity,
                   "InitiatorName=%s%cTargetName=%s%cSessionType=Normal%cHeaderDigest=%s%cDataDigest=%s%c"
                   "InitialR2T=No%cImmediateData=Yes%cMaxRecvDataSegmentLength=262144%cMaxBurstLength=16776192%c"
                   "FirstBurstLength=262144%cMaxOutstandingR2T=1%cMaxConnections=1%cDataPDUInOrder=Yes%c"
                   "DataSequenceInOrder=Yes%cErrorRecoveryLevel=0%cDefaultTime2Wait=2%cDefaultTime2Retain=0%c",
                   o->initiator, 0, o->target, 0, 0, o->header_digest ? "CRC32C" : "None", 0,
                   o->data_digest ? "CRC32C" : "None", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  if (n < 0 || (size_t)n >= capacity) fail("the names are too long");
  return (uint32_t)n;
}

void session_login(struct session *s, const struct options *o) {
  connect_to(s, o);
  // RFC 7143's defaults, until the target says otherwise (§13).
  s->target_max_segment = 8192;
  s->first_burst = 65536;
  s->max_burst = 262144;
  s->immediate_data = s->initial_r2t = true;
  s->cmd_sn = 1;
  s->header_length = HEADER_BYTES;

  char text[8192];
  uint32_t length = offered_keys(text, sizeof text, o), exp_stat_sn = 0;
  uint8_t response[PDU_HEADER_BYTES], answer[8193];
  for (int step = 0; step < 8; step++) {
    uint8_t header[PDU_HEADER_BYTES] = {OP_LOGIN | OP_IMMEDIATE, 0x87};  // T, CSG=1, NSG=3
    header[8] = 0x80;                                                    // ISID, type "random" (§11.12.5)
    put32(header + 9, (uint32_t)getpid());
    header[13] = (uint8_t)s->number;
    header[12] ^= (uint8_t)(s->number >> 8);
    put32(header + 24, s->cmd_sn);
    put32(header + 28, exp_stat_sn);
    send_pdu(s, header, text, length);
    uint32_t got = receive_pdu(s, response, answer, sizeof answer - 1);
    if (response[0] != OP_LOGIN_RESPONSE) fail("expected a Login Response, got opcode 0x%02x", response[0]);
    if (response[36] != 0) fail("login refused with status %02x%02x", response[36], response[37]);
    exp_stat_sn = get32(response + 24) + 1;
    take_keys(s, (char *)answer, got);
    length = 0;
    if ((response[1] & 0x83) == 0x83) {
      s->exp_stat_sn = exp_stat_sn;
      if (s->header_digest != o->header_digest || s->data_digest != o->data_digest)
        fail("the target did not agree to the digests");
      s->is_after_login = true;
      s->header_length = s->header_digest ? PDU_HEADER_BYTES : HEADER_BYTES;
      return;
    }
  }
  fail("the login does not end");
}

// One command without data-out; returns its SCSI status.
static uint8_t run_command(struct session *s, uint32_t lun, const uint8_t cdb[16], uint8_t *data, uint32_t capacity) {
  uint8_t header[PDU_HEADER_BYTES] = {OP_COMMAND, FLAG_FINAL | ATTRIBUTE_SIMPLE | (capacity > 0 ? FLAG_READ : 0)};
  put_lun(header + 8, lun);
  put32(header + 16, 0x5EED);
  put32(header + 20, capacity);
  put32(header + 24, s->cmd_sn++);
  put32(header + 28, s->exp_stat_sn);
  memcpy(header + 32, cdb, 16);
  send_pdu(s, header, NULL, 0);
  for (;;) {
    uint8_t response[PDU_HEADER_BYTES], sense[512];

    // Peek at the opcode, so that Data-In lands in the caller's buffer.
    if (recv(s->fd, response, 1, MSG_PEEK | MSG_WAITALL) != 1) fail("no response to a command");
    bool to_data = (response[0] & 0x3F) == OP_DATA_IN;
    receive_pdu(s, response, to_data ? data : sense, to_data ? capacity : sizeof sense);
    uint8_t opcode = response[0] & 0x3F;
    if (opcode == OP_NOP_IN || opcode == OP_ASYNC || (to_data && (response[1] & FLAG_STATUS) == 0)) continue;
    if (opcode != OP_RESPONSE && opcode != OP_DATA_IN) fail("unexpected opcode 0x%02x", opcode);
    s->exp_stat_sn = get32(response + 24) + 1;
    return response[3];
  }
}

struct medium session_medium(struct session *s, uint32_t lun) {
  uint8_t ready[16] = {0}, capacity[16] = {0x9E, 0x10}, data[32] = {0};
  capacity[13] = sizeof data;
  for (int attempt = 0; run_command(s, lun, ready, NULL, 0) != 0; attempt++)
    if (attempt == 16) fail("LUN %u is not ready", lun);
  if (run_command(s, lun, capacity, data, sizeof data) != 0) fail("READ CAPACITY (16) failed");
  return (struct medium){.blocks = get64(data) + 1, .block_bytes = get32(data + 8)};
}

void session_logout(struct session *s) {
  uint8_t header[PDU_HEADER_BYTES] = {OP_LOGOUT | OP_IMMEDIATE, FLAG_FINAL};
  put32(header + 16, 0x5EED);
  put32(header + 24, s->cmd_sn);
  put32(header + 28, s->exp_stat_sn);
  size_t length = seal(s, header);
  if (send(s->fd, header, length, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)length) {
    struct timeval limit = {.tv_sec = 1};
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    recv(s->fd, header, s->header_length, MSG_WAITALL);
  }
  close(s->fd);
}
