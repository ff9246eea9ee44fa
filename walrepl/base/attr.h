/* The attributes of a file. */
#ifndef WALREPL_BASE_ATTR_H
#define WALREPL_BASE_ATTR_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct timespec wrep_to_timespec(int64_t ns, bool omit);

#endif
