// Verified I/O on a block device: every 4 KiB block that is written says which block, which time and whose it is, and
// everything that is read is compared with what was last acknowledged. Direct I/O, `depth` requests at a time.
//
// usage: verify DEVICE [name=value]...
//   seconds=10      how long                       count=0        or how many requests (0: as long as `seconds`)
//   min=4096        least bytes of a request       max=65536      most
//   depth=1         requests at a time             read=50        per cent of reads
//   offset=0        where                          size=0         how many bytes (0: to the end)
//   seed=1          of the choices and the data    final=1        read everything once more at the end
//   state=FILE      what was written, kept between runs: a later run verifies what an earlier one wrote
// SIGTERM ends its time: what is under way and the reading at the end are still done.
// Prints one line with its counts and the longest request; ends with 1 after any error or difference.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { block_bytes = 4096, words = block_bytes / 8, tellings_max = 10 };

static struct {
  uint64_t seconds, count, min, max, depth, read, offset, size, seed, final;
  const char *state;
} option = {.seconds = 10, .min = 4096, .max = 65536, .depth = 1, .read = 50, .seed = 1, .final = 1};

static int device;
static uint64_t block_count, first_block;
static _Atomic uint64_t end_ns;
// For each block: how often it was written (0: not by us, not compared), and whether a request is on it.
static uint32_t *generations;
static uint8_t *is_busy;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t reads, writes, bytes_done, errors, differences, longest_ns, issued;

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t next_random(uint64_t *state) {
  uint64_t value = (*state += 0x9e3779b97f4a7c15u);
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

static void fill(uint64_t *data, uint64_t block, uint32_t generation) {
  uint64_t state = option.seed << 48 ^ (uint64_t)generation << 32 ^ (first_block + block);
  data[0] = first_block + block;
  data[1] = generation;
  for (int i = 2; i < words; i++) data[i] = state += 0x9e3779b97f4a7c15u;
}

static void tell(const char *what, uint64_t block, uint64_t blocks, int error) {
  if (errors + differences > tellings_max) return;
  printf("verify: %s of blocks %llu+%llu: %s\n", what, (unsigned long long)block, (unsigned long long)blocks,
         strerror(error));
  fflush(stdout);
}

static void compare(const uint64_t *data, uint64_t block, uint32_t generation) {
  uint64_t wanted[words];
  fill(wanted, block, generation);
  if (memcmp(wanted, data, block_bytes) == 0) return;
  int word = 0;
  while (wanted[word] == data[word]) word++;
  pthread_mutex_lock(&lock);
  if (differences++ < tellings_max)
    printf("verify: block %llu, write %u: differs from byte %d on; it says block %llu, write %llu\n",
           (unsigned long long)block, generation, word * 8, (unsigned long long)data[0], (unsigned long long)data[1]);
  pthread_mutex_unlock(&lock);
}

// Takes blocks that no other request is on; false when there is nothing more to do.
static int take(uint64_t *random, uint64_t *block, uint64_t *blocks) {
  for (;;) {
    if (errors + differences > 0 || now_ns() > end_ns) return 0;
    uint64_t least = option.min / block_bytes, most = option.max / block_bytes;
    *blocks = least + next_random(random) % (most - least + 1);
    *block = next_random(random) % (block_count - *blocks + 1);
    pthread_mutex_lock(&lock);
    if (option.count > 0 && issued >= option.count) {
      pthread_mutex_unlock(&lock);
      return 0;
    }
    int is_free = memchr(is_busy + *block, 1, *blocks) == NULL;
    if (is_free) {
      memset(is_busy + *block, 1, *blocks);
      issued++;
    }
    pthread_mutex_unlock(&lock);
    if (is_free) return 1;
  }
}

// One request, and its account.
static int transfer(int is_read, void *data, uint64_t block, uint64_t blocks) {
  size_t bytes = blocks * block_bytes;
  off_t place = (off_t)(option.offset + block * block_bytes);
  uint64_t begin = now_ns();
  ssize_t done = is_read ? pread(device, data, bytes, place) : pwrite(device, data, bytes, place);
  int error = done == (ssize_t)bytes ? 0 : done < 0 ? errno : EIO;
  uint64_t took = now_ns() - begin;
  pthread_mutex_lock(&lock);
  if (took > longest_ns) longest_ns = took;
  bytes_done += bytes;
  if (is_read) reads++;
  else writes++;
  if (error != 0) {
    errors++;
    tell(is_read ? "read" : "write", block, blocks, error);
  }
  pthread_mutex_unlock(&lock);
  return error;
}

static void *worker(void *argument) {
  uint64_t random = option.seed * 1000003u + (uint64_t)(uintptr_t)argument, block, blocks;
  uint64_t *data;
  if (posix_memalign((void **)&data, block_bytes, option.max) != 0) exit(2);
  while (take(&random, &block, &blocks)) {
    int is_read = next_random(&random) % 100 < option.read;
    if (!is_read)
      for (uint64_t i = 0; i < blocks; i++) fill(data + i * words, block + i, generations[block + i] + 1);
    int error = transfer(is_read, data, block, blocks);
    for (uint64_t i = 0; i < blocks; i++) {
      uint32_t *generation = &generations[block + i];
      if (!is_read) *generation = error == 0 ? *generation + 1 : 0;
      else if (error == 0 && *generation != 0) compare(data + i * words, block + i, *generation);
    }
    pthread_mutex_lock(&lock);
    memset(is_busy + block, 0, blocks);
    pthread_mutex_unlock(&lock);
  }
  free(data);
  return NULL;
}

static void read_all(void) {
  uint64_t *data, step = (1u << 20) / block_bytes;
  if (posix_memalign((void **)&data, block_bytes, step * block_bytes) != 0) exit(2);
  for (uint64_t block = 0; block < block_count && errors == 0; block += step) {
    uint64_t blocks = block_count - block < step ? block_count - block : step, written = 0;
    for (uint64_t i = 0; i < blocks; i++) written += generations[block + i] != 0;
    if (written == 0 || transfer(1, data, block, blocks) != 0) continue;
    for (uint64_t i = 0; i < blocks; i++)
      if (generations[block + i] != 0) compare(data + i * words, block + i, generations[block + i]);
  }
  free(data);
}

static void parse(char *argument) {
  struct {
    const char *name;
    uint64_t *value;
  } known[] = {{"seconds", &option.seconds}, {"count", &option.count}, {"min", &option.min},
               {"max", &option.max},         {"depth", &option.depth}, {"read", &option.read},
               {"offset", &option.offset},   {"size", &option.size},   {"seed", &option.seed},
               {"final", &option.final}};
  char *value = strchr(argument, '=');
  if (value == NULL) exit(2);
  *value++ = 0;
  if (strcmp(argument, "state") == 0) {
    option.state = value;
    return;
  }
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (strcmp(argument, known[i].name) == 0) {
      *known[i].value = strtoull(value, NULL, 0);
      return;
    }
  fprintf(stderr, "verify: there is no option '%s'\n", argument);
  exit(2);
}

static void end_time(int signal) {
  (void)signal;
  end_ns = 0;
}

static void keep_state(int is_saving) {
  if (option.state == NULL) return;
  FILE *file = fopen(option.state, is_saving ? "w" : "r");
  if (file == NULL) return;
  size_t done = is_saving ? fwrite(generations, 4, block_count, file) : fread(generations, 4, block_count, file);
  if (done != block_count || fclose(file) != 0) exit(2);
}

int main(int count, char **arguments) {
  if (count < 2) return 2;
  for (int i = 2; i < count; i++) parse(arguments[i]);
  device = open(arguments[1], O_RDWR | O_DIRECT);
  if (device < 0) {
    perror(arguments[1]);
    return 2;
  }
  if (option.size == 0) option.size = (uint64_t)lseek(device, 0, SEEK_END) - option.offset;
  block_count = option.size / block_bytes;
  first_block = option.offset / block_bytes;
  if (option.min < block_bytes || option.max < option.min || option.max / block_bytes > block_count) return 2;
  generations = calloc(block_count, sizeof *generations);
  is_busy = calloc(block_count, 1);
  pthread_t *threads = calloc(option.depth, sizeof *threads);
  if (generations == NULL || is_busy == NULL || threads == NULL) return 2;
  keep_state(0);
  uint64_t begin = now_ns();
  end_ns = begin + (option.count > 0 ? 3600u : option.seconds) * 1000000000u;
  signal(SIGTERM, end_time);
  for (uint64_t i = 0; i < option.depth; i++)
    if (pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)(i + 1)) != 0) return 2;
  for (uint64_t i = 0; i < option.depth; i++) pthread_join(threads[i], NULL);
  if (option.final) read_all();
  keep_state(1);
  printf("verified: %llu reads %llu writes %llu bytes %llu errors %llu differences longest %llu ms total %llu ms\n",
         (unsigned long long)reads, (unsigned long long)writes, (unsigned long long)bytes_done,
         (unsigned long long)errors, (unsigned long long)differences, (unsigned long long)(longest_ns / 1000000u),
         (unsigned long long)((now_ns() - begin) / 1000000u));
  return errors + differences > 0;
}
