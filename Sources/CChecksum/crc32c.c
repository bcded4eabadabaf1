#include "CChecksum.h"

#include <string.h>

// Reflected polynomial of CRC32C.
#define POLYNOMIAL 0x82F63B78u

static uint32_t table[8][256];

// Operators of "append LONG or SHORT zero bytes", as four byte-indexed tables each: they join the three streams.
#define LONG 8192
#define SHORT 256
static uint32_t longShift[4][256], shortShift[4][256];

static uint32_t appendZeros(uint32_t crc, size_t count) {
  while (count--) crc = table[0][crc & 0xff] ^ (crc >> 8);
  return crc;
}

static void makeShift(uint32_t shift[4][256], size_t count) {
  // The operator is linear over GF(2): find it for each bit, then combine the bits of each byte.
  uint32_t bit[32];
  for (int i = 0; i < 32; i++) bit[i] = appendZeros(1u << i, count);
  for (int byte = 0; byte < 4; byte++)
    for (int value = 0; value < 256; value++) {
      uint32_t sum = 0;
      for (int i = 0; i < 8; i++)
        if (value >> i & 1) sum ^= bit[byte * 8 + i];
      shift[byte][value] = sum;
    }
}

static uint32_t applyShift(uint32_t shift[4][256], uint32_t crc) {
  return shift[0][crc & 0xff] ^ shift[1][crc >> 8 & 0xff] ^ shift[2][crc >> 16 & 0xff] ^ shift[3][crc >> 24];
}

uint32_t checksum_crc32c_portable(uint32_t crc, const void *bytes, size_t count) {
  const unsigned char *p = bytes;
  crc = ~crc;
  while (count >= 8) {
    uint64_t word;
    memcpy(&word, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    word ^= crc;
    crc = table[7][word & 0xff] ^ table[6][word >> 8 & 0xff] ^ table[5][word >> 16 & 0xff] ^
          table[4][word >> 24 & 0xff] ^ table[3][word >> 32 & 0xff] ^ table[2][word >> 40 & 0xff] ^
          table[1][word >> 48 & 0xff] ^ table[0][word >> 56];
    p += 8;
    count -= 8;
  }
  while (count--) crc = table[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
  return ~crc;
}

#if defined(__x86_64__)
#define HARDWARE __attribute__((target("sse4.2")))
#define STEP64(crc, p) __builtin_ia32_crc32di((crc), load64(p))
#define STEP8(crc, byte) __builtin_ia32_crc32qi((uint32_t)(crc), (byte))
static int hasHardware(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define HARDWARE __attribute__((target("crc")))
#define STEP64(crc, p) __crc32cd((uint32_t)(crc), load64(p))
#define STEP8(crc, byte) __crc32cb((uint32_t)(crc), (byte))
static int hasHardware(void) { return (getauxval(AT_HWCAP) >> 7) & 1; }  // HWCAP_CRC32
#endif

#ifdef HARDWARE
static inline uint64_t load64(const unsigned char *p) {
  uint64_t word;
  memcpy(&word, p, 8);
  return word;
}

// The instruction has a latency of 3 and a throughput of 1: three independent streams keep it busy.
#define THREE_STREAMS(SPAN, SHIFT)                                  \
  while (count >= 3 * SPAN) {                                       \
    uint64_t b = 0, c = 0;                                          \
    const unsigned char *end = p + SPAN;                            \
    do {                                                            \
      a = STEP64(a, p);                                             \
      b = STEP64(b, p + SPAN);                                      \
      c = STEP64(c, p + 2 * SPAN);                                  \
      p += 8;                                                       \
    } while (p < end);                                              \
    a = applyShift(SHIFT, (uint32_t)a) ^ b;                         \
    a = applyShift(SHIFT, (uint32_t)a) ^ c;                         \
    p += 2 * SPAN;                                                  \
    count -= 3 * SPAN;                                              \
  }

HARDWARE static uint32_t hardware(uint32_t crc, const void *bytes, size_t count) {
  const unsigned char *p = bytes;
  uint64_t a = (uint32_t)~crc;
  THREE_STREAMS(LONG, longShift)
  THREE_STREAMS(SHORT, shortShift)
  while (count >= 8) {
    a = STEP64(a, p);
    p += 8;
    count -= 8;
  }
  while (count--) a = STEP8(a, *p++);
  return ~(uint32_t)a;
}
#endif

static uint32_t (*implementation)(uint32_t, const void *, size_t) = checksum_crc32c_portable;

__attribute__((constructor)) static void prepare(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
    table[0][i] = crc;
  }
  for (int i = 0; i < 256; i++)
    for (int t = 1; t < 8; t++) table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 0xff];
  makeShift(longShift, LONG);
  makeShift(shortShift, SHORT);
#ifdef HARDWARE
  if (hasHardware()) implementation = hardware;
#endif
}

uint32_t checksum_crc32c(uint32_t crc, const void *bytes, size_t count) { return implementation(crc, bytes, count); }
