// Prints the frequency of the time stamp counter in kHz.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

static double seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

int main(void) {
  const struct timespec wait = {.tv_nsec = 400000000};
  double begin = seconds();
  uint64_t first = __rdtsc();
  nanosleep(&wait, NULL);
  double end = seconds();
  printf("%.0f\n", (double)(__rdtsc() - first) / (end - begin) / 1000);
}
