#ifndef CCHECKSUM_H
#define CCHECKSUM_H
#include <stddef.h>
#include <stdint.h>

/// CRC32C (Castagnoli, RFC 7143 §13.1) of `count` bytes continued from `crc`. Start with 0; the initial and final
/// inversions are done inside, so that crc(ab) == crc(b) continued from crc(a).
uint32_t checksum_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The table-driven form, whatever the CPU: the reference for tests.
uint32_t checksum_crc32c_portable(uint32_t crc, const void *bytes, size_t count);

/// The same while `count` bytes are copied from `from` to `to`, which do not overlap.
uint32_t checksum_crc32c_copy(uint32_t crc, void *to, const void *from, size_t count);

/// A way to compute both.
typedef struct {
  const char *name;
  uint32_t (*crc)(uint32_t crc, const void *bytes, size_t count);
  uint32_t (*copy)(uint32_t crc, void *to, const void *from, size_t count);
} checksum_form;

/// Those that this machine can run, the portable one first and the one in use last: for tests.
const checksum_form *checksum_forms(size_t *count);
#endif
