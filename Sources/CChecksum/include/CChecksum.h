#ifndef CCHECKSUM_H
#define CCHECKSUM_H
#include <stddef.h>
#include <stdint.h>

/// CRC32C (Castagnoli, RFC 7143 §13.1) of `count` bytes continued from `crc`. Start with 0; the initial and final
/// inversions are done inside, so that crc(ab) == crc(b) continued from crc(a).
uint32_t checksum_crc32c(uint32_t crc, const void *bytes, size_t count);

/// The table-driven form, whatever the CPU: the reference for tests.
uint32_t checksum_crc32c_portable(uint32_t crc, const void *bytes, size_t count);
#endif
