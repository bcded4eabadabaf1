// Unverified I/O on a block device at a fixed depth, for comparing targets: direct, by Linux AIO, so that the load
// itself costs little and always the same.
//
// usage: pace DEVICE [name=value]...
//   count=1500      requests                       bytes=4096     of each
//   depth=1         requests at a time             write=0        1: writes
//   sequential=0    1: one after the other; else at random, the same choice every time
//   counted=0       1: tells tools/count.c when it begins and ends, and does not look at the clock for each request,
//                   because that code would be counted
// Prints one line: requests per second, and the median and the 99th percentile of their times in microseconds.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static struct {
  uint64_t count, bytes, depth, write, sequential, counted;
} option = {.count = 1500, .bytes = 4096, .depth = 1};

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t request_now_ns(void) { return option.counted ? 0 : now_ns(); }

// A linker's word puts these where tools/count.c looks for them.
__attribute__((noinline, section("counting_begins"))) static void begin_counting(void) { __asm__ volatile(""); }
__attribute__((noinline, section("counting_ends"))) static void end_counting(void) { __asm__ volatile(""); }

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void parse(const char *text) {
  static const char *names[] = {"count", "bytes", "depth", "write", "sequential", "counted"};
  uint64_t *values[] = {&option.count, &option.bytes,      &option.depth,
                        &option.write, &option.sequential, &option.counted};
  const char *equals = strchr(text, '=');
  for (size_t i = 0; equals != NULL && i < sizeof names / sizeof *names; i++) {
    if (strlen(names[i]) == (size_t)(equals - text) && strncmp(names[i], text, strlen(names[i])) == 0) {
      *values[i] = strtoull(equals + 1, NULL, 0);
      return;
    }
  }
  fprintf(stderr, "pace: %s?\n", text);
  exit(2);
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  for (int i = 2; i < argc; i++) parse(argv[i]);
  if (option.depth == 0 || option.depth > 1024 || option.count == 0 || option.bytes == 0) return 2;
  int device = open(argv[1], O_RDWR | O_DIRECT);
  if (device < 0) fail(argv[1]);
  off_t end = lseek(device, 0, SEEK_END);
  uint64_t places = (uint64_t)end / option.bytes, issued = 0, done = 0, state = 1;
  if (places == 0) return 2;
  aio_context_t context = 0;
  if (syscall(SYS_io_setup, (unsigned)option.depth, &context) != 0) fail("io_setup");
  struct iocb *requests = calloc(option.depth, sizeof *requests);
  uint64_t *begun = calloc(option.depth, sizeof *begun), *times = calloc(option.count, sizeof *times);
  struct io_event *events = calloc(option.depth, sizeof *events);
  char *memory = NULL;
  if (posix_memalign((void **)&memory, 4096, option.depth * option.bytes) != 0) return 2;
  memset(memory, 0x5a, option.depth * option.bytes);
  uint64_t begin = now_ns();
  if (option.counted) begin_counting();
  for (uint64_t slot = 0; done < option.count;) {
    // First all slots, then each again when it is back.
    while (issued < option.count && slot < option.depth) {
      struct iocb *request = &requests[slot];
      memset(request, 0, sizeof *request);
      state = state * 6364136223846793005u + 1442695040888963407u;
      request->aio_data = slot;
      request->aio_lio_opcode = option.write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD;
      request->aio_fildes = (uint32_t)device;
      request->aio_buf = (uint64_t)(uintptr_t)(memory + slot * option.bytes);
      request->aio_nbytes = option.bytes;
      request->aio_offset = (int64_t)((option.sequential ? issued : state >> 33) % places * option.bytes);
      begun[slot] = request_now_ns();
      struct iocb *list[] = {request};
      if (syscall(SYS_io_submit, context, 1L, list) != 1) fail("io_submit");
      issued++;
      slot++;
    }
    long found = syscall(SYS_io_getevents, context, 1L, (long)option.depth, events, NULL);
    if (found < 1) fail("io_getevents");
    uint64_t now = request_now_ns();
    for (long i = 0; i < found; i++) {
      uint64_t back = events[i].data;
      if (events[i].res != (int64_t)option.bytes) {
        fprintf(stderr, "pace: a request ended with %lld\n", (long long)events[i].res);
        return 1;
      }
      times[done++] = now - begun[back];
      if (issued >= option.count) continue;
      struct iocb *list[] = {&requests[back]};
      state = state * 6364136223846793005u + 1442695040888963407u;
      requests[back].aio_offset = (int64_t)((option.sequential ? issued : state >> 33) % places * option.bytes);
      begun[back] = request_now_ns();
      if (syscall(SYS_io_submit, context, 1L, list) != 1) fail("io_submit");
      issued++;
    }
  }
  if (option.counted) end_counting();
  double seconds = (double)(now_ns() - begin) / 1e9;
  qsort(times, done, sizeof *times, compare);
  printf("pace: iops %.0f p50 %.1f p99 %.1f\n", (double)done / seconds, (double)times[done / 2] / 1e3,
         (double)times[done * 99 / 100] / 1e3);
  return 0;
}
