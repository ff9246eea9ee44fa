/* Arrays that grow. Private to walrepl; any thread. */
#ifndef WALREPL_BASE_ARRAY_H
#define WALREPL_BASE_ARRAY_H

#include <stddef.h>

/* Make room for `count` items of `item_bytes` each in the malloc'd array that `*array` points to (NULL for none
 * yet), which has room for `*capacity` of them. `array` is the address of the pointer, of whatever type. It grows
 * by half, so that appending one by one costs little. 0, or -ENOMEM: then nothing has changed. */
int wrep_array_reserve(void *array, size_t *capacity, size_t count, size_t item_bytes);

#endif
