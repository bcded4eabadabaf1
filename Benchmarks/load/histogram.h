// Latencies in nanoseconds, in buckets whose width is 1/64 of their power of two: an error of at most 1.6 %.
#pragma once
#include <stdint.h>

enum { SUB_BITS = 6, SUB_COUNT = 1 << SUB_BITS, HISTOGRAM_BUCKETS = (64 - SUB_BITS + 1) * SUB_COUNT };

struct histogram {
  uint64_t count, sum_ns, max_ns;
  uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline void histogram_add(struct histogram *h, uint64_t ns) {
  unsigned index = (unsigned)ns;
  if (ns >= SUB_COUNT) {
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - SUB_BITS;
    index = (shift + 1) * SUB_COUNT + (unsigned)(ns >> shift) - SUB_COUNT;
  }
  h->bucket[index]++;
  h->count++;
  h->sum_ns += ns;
  if (ns > h->max_ns) h->max_ns = ns;
}

// The upper edge of the bucket that holds the given part (0...1) of all values, in microseconds.
static inline double histogram_us(const struct histogram *h, double part) {
  uint64_t wanted = (uint64_t)((double)h->count * part), seen = 0;
  for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
    seen += h->bucket[i];
    if (h->bucket[i] == 0 || seen <= wanted) continue;
    if (i < SUB_COUNT) return (i + 1) / 1e3;
    unsigned shift = i / SUB_COUNT - 1;
    return (double)((uint64_t)(i % SUB_COUNT + SUB_COUNT + 1) << shift) / 1e3;
  }
  return (double)h->max_ns / 1e3;
}
