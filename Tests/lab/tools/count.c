// A plugin of QEMU: counts the instructions that run in user mode in programs linked to be loaded anywhere, as the
// daemon is. What runs beside it meanwhile (busybox, pace) is linked to a fixed place below all of these. They are
// counted between two functions of pace: what a machine does before it is looked at depends on our haste, because the
// clock of an idle one flies. The counts repeat, and add nothing to what is counted.
//
// usage: -plugin count.so,table=PATH
//
// PATH is then a mapped table, for others to read: an address, and how many instructions ran in blocks that begin
// there.
//
// The few declarations of QEMU's qemu-plugin.h that this needs: Debian has no package with it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
enum { QEMU_PLUGIN_CB_NO_REGS };

struct qemu_plugin_tb;
typedef void (*translated_t)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*executed_t)(unsigned processor, void *word);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated_t);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed_t, int flags, void *word);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);

// QEMU 7 and 8 want this; 9 will want 2.
int qemu_plugin_version = 1;

enum { PLACE_BITS = 18, PLACES = 1 << PLACE_BITS };
static const uint64_t fixed_end = 1ull << 46, user_end = 1ull << 47;
static const uint64_t begin_counting = 0x10000000, end_counting = 0x10001000;
static uintptr_t is_counting;
static struct { uint64_t address, instructions; } *table;

static uint64_t place_of(uint64_t address) {
  uint64_t place = address * 0x9e3779b97f4a7c15u >> (64 - PLACE_BITS);
  for (unsigned tries = 0; tries < PLACES; tries++, place = (place + 1) % PLACES) {
    if (table[place].address == address) return place;
    if (table[place].address != 0) continue;
    table[place].address = address;
    return place;
  }
  abort();
}

// `word`: the block's place in the table, and its instructions above that.
static void run(unsigned processor, void *word) {
  (void)processor;
  if (!is_counting) return;
  table[(uintptr_t)word % PLACES].instructions += (uintptr_t)word >> PLACE_BITS;
}

static void set_counting(unsigned processor, void *word) {
  (void)processor;
  is_counting = (uintptr_t)word;
}

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  uint64_t address = qemu_plugin_tb_vaddr(block);
  if (address == begin_counting || address == end_counting) {
    void *word = (void *)(uintptr_t)(address == begin_counting);
    qemu_plugin_register_vcpu_tb_exec_cb(block, set_counting, QEMU_PLUGIN_CB_NO_REGS, word);
  }
  if (address < fixed_end || address >= user_end) return;
  uintptr_t word = qemu_plugin_tb_n_insns(block) << PLACE_BITS | place_of(address);
  qemu_plugin_register_vcpu_tb_exec_cb(block, run, QEMU_PLUGIN_CB_NO_REGS, (void *)word);
}

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **words) {
  (void)info;
  if (count != 1 || strncmp(words[0], "table=", 6) != 0) return -1;
  int file = open(words[0] + 6, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0 || ftruncate(file, PLACES * sizeof *table) != 0) return -1;
  void *mapped = mmap(NULL, PLACES * sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return -1;
  table = mapped;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  return 0;
}
