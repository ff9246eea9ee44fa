/* Hash tables: uthash, as all folders use it. A table grows with what is in it.
 *
 * Memory for a table may be missing: what could not be entered is not in the table then, and its handle says so
 * (`hh.tbl` is NULL). Keys come from applications, so they are hashed by XXH3 rather than by uthash's default.
 */
#ifndef RAFTLOG_HASH_H
#define RAFTLOG_HASH_H

#include <xxhash.h>

#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, bytes, hash) (hash) = (unsigned)XXH3_64bits(key, bytes)

#include <uthash.h>

#endif
