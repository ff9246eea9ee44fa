/* The entry point of libFuzzer, for who runs inputs without it. Aborts when the input gets past the capture. */
#ifndef TESTS_FUZZ_CAPTURE_H
#define TESTS_FUZZ_CAPTURE_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len);

#endif
