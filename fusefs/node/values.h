/* Bytes that need not be UTF-8, and numbers of 64 bits, go into JSON and come out of it again.
 *
 * A string is what FSD_FOR_JSON makes of the bytes (escape.h). A number above 2^63 - 1, which JSON libraries
 * cannot hold, becomes a string of its decimal digits; only damage and hostile peers make such.
 */
#ifndef FUSEFS_VALUES_H
#define FUSEFS_VALUES_H

#include <inttypes.h>
#include <jansson.h>

json_t *fsd_bytes_json(const char *bytes);
json_t *fsd_number_json(uint64_t number);
json_t *fsd_hex_json(int digits, uint64_t number);

/* The bytes of a string, to be freed; NULL when it is none, or out of memory. */
char *fsd_bytes_of(const json_t *string);
/* 0 when it is no number. */
uint64_t fsd_number_of(const json_t *number);

#endif
