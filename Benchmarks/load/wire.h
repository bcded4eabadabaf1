// The few iSCSI (RFC 7143) and SCSI words that a load generator speaks: header bytes in and out, nothing else.
#pragma once
#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { HEADER_BYTES = 48, DIGEST_BYTES = 4, PDU_HEADER_BYTES = HEADER_BYTES + DIGEST_BYTES };

// Opcodes (RFC 7143 §11.2.1.2).
enum {
  OP_NOP_OUT = 0x00,
  OP_COMMAND = 0x01,
  OP_LOGIN = 0x03,
  OP_DATA_OUT = 0x05,
  OP_LOGOUT = 0x06,
  OP_NOP_IN = 0x20,
  OP_RESPONSE = 0x21,
  OP_LOGIN_RESPONSE = 0x23,
  OP_DATA_IN = 0x25,
  OP_LOGOUT_RESPONSE = 0x26,
  OP_R2T = 0x31,
  OP_ASYNC = 0x32,
  OP_REJECT = 0x3F,
  OP_IMMEDIATE = 0x40,
};

enum {
  FLAG_FINAL = 0x80,     // byte 1 of most PDUs
  FLAG_READ = 0x40,      // SCSI Command (§11.3.1)
  FLAG_WRITE = 0x20,     // SCSI Command
  ATTRIBUTE_SIMPLE = 1,  // SCSI Command
  FLAG_STATUS = 0x01,    // Data-In: the status is in this PDU (§11.7.3)
};

#define RESERVED_TAG 0xFFFFFFFFu

static inline uint32_t get32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, 4);
  return be32toh(v);
}

static inline void put32(uint8_t *p, uint32_t v) {
  v = htobe32(v);
  memcpy(p, &v, 4);
}

static inline uint64_t get64(const uint8_t *p) { return (uint64_t)get32(p) << 32 | get32(p + 4); }

static inline void put64(uint8_t *p, uint64_t v) {
  put32(p, (uint32_t)(v >> 32));
  put32(p + 4, (uint32_t)v);
}

static inline uint32_t get24(const uint8_t *p) { return (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2]; }

static inline void put24(uint8_t *p, uint32_t v) {
  p[0] = (uint8_t)(v >> 16);
  p[1] = (uint8_t)(v >> 8);
  p[2] = (uint8_t)v;
}

// A digest is sent as the CRC's bytes stand in a little-endian machine (RFC 7143 §13.1).
static inline void put_digest(uint8_t *p, uint32_t crc) {
  crc = htole32(crc);
  memcpy(p, &crc, DIGEST_BYTES);
}

// a <= b in serial arithmetic (RFC 1982).
static inline int serial_le(uint32_t a, uint32_t b) { return (int32_t)(b - a) >= 0; }

// Bytes of the data segment with its padding.
static inline uint32_t padded(uint32_t bytes) { return (bytes + 3) & ~3u; }
