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

// Two passes, but the second finds its bytes in the first-level cache.
#define COPY_IN_PARTS(NAME, FORM)                                                            \
  static uint32_t NAME(uint32_t crc, void *to, const void *from, size_t count) {             \
    for (size_t done = 0, part; done < count; done += part) {                                \
      part = count - done < 4096 ? count - done : 4096;                                      \
      memcpy((char *)to + done, (const char *)from + done, part);                            \
      crc = FORM(crc, (char *)to + done, part);                                              \
    }                                                                                        \
    return crc;                                                                              \
  }

COPY_IN_PARTS(copyPortable, checksum_crc32c_portable)
#ifdef HARDWARE
COPY_IN_PARTS(copyHardware, hardware)
#endif

#if defined(__x86_64__)
#include <immintrin.h>

// Folding by carry-less multiplication (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ"):
// what stands in a register is moved on by a distance, its lower and upper 64 bits each by a constant, and added to
// what is there. Four registers side by side, because the instruction has a latency of 3 to 8 and a throughput of 1.
// The constants for a distance of d bits are x^(d+31) and x^(d-33) modulo the polynomial, bits reflected.
static uint64_t foldBy[5][2];  // of 16, 32, 64, 128, 256 bytes
enum { FOLD_16, FOLD_32, FOLD_64, FOLD_128, FOLD_256 };

static void makeFolds(void) {
  for (int i = 0; i < 5; i++)
    for (int upper = 0; upper < 2; upper++) {
      uint32_t power = 0x80000000;  // x^0
      for (int n = (128 << i) + (upper ? -33 : 31); n > 0; n--)
        power = power & 1 ? power >> 1 ^ POLYNOMIAL : power >> 1;
      foldBy[i][upper] = power;
    }
}

#define FOLDING_256 __attribute__((target("avx2,vpclmulqdq,pclmul,sse4.2")))
#define FOLDING_512 __attribute__((target("avx512f,avx512vl,vpclmulqdq,pclmul,sse4.2")))

// Four registers of 16 bytes, in order, and the rest of the run.
#define FINISH(a, b, c, d)                                                                   \
  do {                                                                                       \
    const __m128i by16 = _mm_loadu_si128((const __m128i *)foldBy[FOLD_16]);                  \
    __m128i sum = a;                                                                         \
    const __m128i rest[3] = {b, c, d};                                                       \
    for (int i = 0; i < 3; i++)                                                              \
      sum = _mm_xor_si128(rest[i], _mm_xor_si128(_mm_clmulepi64_si128(sum, by16, 0x00),      \
                                                 _mm_clmulepi64_si128(sum, by16, 0x11)));    \
    uint64_t crc64 = STEP64(0, (const unsigned char *)&sum);                                 \
    crc64 = STEP64(crc64, (const unsigned char *)&sum + 8);                                  \
    return (to ? copyHardware : crcOnly)(~(uint32_t)crc64, to, from, count);                 \
  } while (0)

static uint32_t crcOnly(uint32_t crc, void *to, const void *from, size_t count) {
  (void)to;
  return hardware(crc, from, count);
}

// `to` may be NULL: then nothing is copied.
FOLDING_256 static inline __attribute__((always_inline)) uint32_t fold256(
    uint32_t crc, unsigned char *to, const unsigned char *from, size_t count) {
  if (count < 256) return (to ? copyHardware : crcOnly)(crc, to, from, count);
#define NEXT(into, offset)                                                                   \
  into = _mm256_loadu_si256((const __m256i *)(from + offset));                               \
  if (to) _mm256_storeu_si256((__m256i *)(to + offset), into)
#define FOLD(x, by, next)                                                                    \
  _mm256_xor_si256(next, _mm256_xor_si256(_mm256_clmulepi64_epi128(x, by, 0x00),             \
                                          _mm256_clmulepi64_epi128(x, by, 0x11)))
#define CONSTANT(i) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)foldBy[i]))
  __m256i a, b, c, d, e, f, g, h;
  NEXT(a, 0);
  NEXT(b, 32);
  NEXT(c, 64);
  NEXT(d, 96);
  a = _mm256_xor_si256(a, _mm256_zextsi128_si256(_mm_cvtsi32_si128((int)~crc)));
  const __m256i by128 = CONSTANT(FOLD_128);
  for (;;) {
    from += 128;
    if (to) to += 128;
    count -= 128;
    if (count < 128) break;
    NEXT(e, 0);
    NEXT(f, 32);
    NEXT(g, 64);
    NEXT(h, 96);
    a = FOLD(a, by128, e);
    b = FOLD(b, by128, f);
    c = FOLD(c, by128, g);
    d = FOLD(d, by128, h);
  }
  const __m256i by64 = CONSTANT(FOLD_64);
  c = FOLD(a, by64, c);
  d = FOLD(b, by64, d);
  FINISH(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1), _mm256_castsi256_si128(d),
         _mm256_extracti128_si256(d, 1));
#undef NEXT
#undef FOLD
#undef CONSTANT
}

FOLDING_512 static inline __attribute__((always_inline)) uint32_t fold512(
    uint32_t crc, unsigned char *to, const unsigned char *from, size_t count) {
  if (count < 256) return (to ? copyHardware : crcOnly)(crc, to, from, count);
#define NEXT(into, offset)                                                                   \
  into = _mm512_loadu_si512(from + offset);                                                  \
  if (to) _mm512_storeu_si512(to + offset, into)
// 96h: the exclusive or of all three.
#define FOLD(x, by, next)                                                                    \
  _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x, by, 0x00), _mm512_clmulepi64_epi128(x, by, 0x11), next, 0x96)
#define CONSTANT(i) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)foldBy[i]))
  __m512i a, b, c, d, e, f, g, h;
  NEXT(a, 0);
  NEXT(b, 64);
  NEXT(c, 128);
  NEXT(d, 192);
  a = _mm512_xor_si512(a, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)~crc)));
  const __m512i by256 = CONSTANT(FOLD_256);
  for (;;) {
    from += 256;
    if (to) to += 256;
    count -= 256;
    if (count < 256) break;
    NEXT(e, 0);
    NEXT(f, 64);
    NEXT(g, 128);
    NEXT(h, 192);
    a = FOLD(a, by256, e);
    b = FOLD(b, by256, f);
    c = FOLD(c, by256, g);
    d = FOLD(d, by256, h);
  }
  const __m512i by128 = CONSTANT(FOLD_128), by64 = CONSTANT(FOLD_64);
  c = FOLD(a, by128, c);
  d = FOLD(b, by128, d);
  d = FOLD(c, by64, d);
  FINISH(_mm512_castsi512_si128(d), _mm512_extracti32x4_epi32(d, 1), _mm512_extracti32x4_epi32(d, 2),
         _mm512_extracti32x4_epi32(d, 3));
#undef NEXT
#undef FOLD
#undef CONSTANT
}

#define FORMS(WIDTH)                                                                                     \
  FOLDING_##WIDTH static uint32_t folding##WIDTH(uint32_t crc, const void *bytes, size_t count) {        \
    return fold##WIDTH(crc, NULL, bytes, count);                                                         \
  }                                                                                                      \
  FOLDING_##WIDTH static uint32_t copyFolding##WIDTH(                                                    \
      uint32_t crc, void *to, const void *from, size_t count) {                                          \
    return fold##WIDTH(crc, to, from, count);                                                            \
  }
FORMS(256)
FORMS(512)
#endif

// What this CPU and its system can run, the fastest last.
static checksum_form forms[4] = {{"portable", checksum_crc32c_portable, copyPortable}};
static size_t formCount = 1;
static checksum_form best = {"portable", checksum_crc32c_portable, copyPortable};

static void addForm(checksum_form form) { best = forms[formCount++] = form; }

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
  if (hasHardware()) addForm((checksum_form){"three streams", hardware, copyHardware});
#endif
#if defined(__x86_64__)
  // Each is told only if the system saves the registers too.
  if (!hasHardware() || !__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("vpclmulqdq")) return;
  makeFolds();
  if (__builtin_cpu_supports("avx2")) addForm((checksum_form){"folding, AVX2", folding256, copyFolding256});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
    addForm((checksum_form){"folding, AVX-512", folding512, copyFolding512});
#endif
}

uint32_t checksum_crc32c(uint32_t crc, const void *bytes, size_t count) { return best.crc(crc, bytes, count); }

uint32_t checksum_crc32c_copy(uint32_t crc, void *to, const void *from, size_t count) {
  return best.copy(crc, to, from, count);
}

const checksum_form *checksum_forms(size_t *count) {
  *count = formCount;
  return forms;
}
