#pragma once
#include <stddef.h>
#include <stdint.h>

// libFuzzer's driver: parses the arguments, then calls `one` with every input until it is told to stop.
int LLVMFuzzerRunDriver(int *argc, char ***argv, int (*one)(const uint8_t *data, size_t size));
