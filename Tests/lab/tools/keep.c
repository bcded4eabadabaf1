// Preloaded into libiscsi's programs: memory is given out zeroed and never given back. libiscsi 1.19 takes memory for
// zeroed that it has used before, and its thread for events of a connection goes on using what was freed.
#include <stddef.h>

extern void *__libc_calloc(size_t count, size_t bytes);

void *malloc(size_t bytes) { return __libc_calloc(1, bytes); }

void free(void *memory) { (void)memory; }
