/* The page hashes of a database on disk, so that a restart need not read its pages. Private to walrepl.
 *
 * DATA/.dqlitefs/sums-ID: the 8-byte hash of page 1, of page 2, ..., little-endian, nothing else. It
 * is written in place and may be torn by a crash, or be ahead of the durable version: a hash that
 * differs from that version's belongs to a page which the log's tail writes again (restore.c).
 */
#ifndef WALREPL_PAGES_SUMFILE_H
#define WALREPL_PAGES_SUMFILE_H

#include <pthread.h>
#include <stdbool.h>
#include "pages/pagesum.h"

/* Make the first `page_count` hashes of database `id` durable that have changed (bits of `sum->dirty`,
 * cleared). `lock` guards `sum` and is held while a block is copied only. 0, or -errno: what could not be
 * written is still marked. */
int wrep_sumfile_store(int state_fd, uint64_t id, struct wrep_pagesum *sum, pthread_mutex_t *lock);
/* The hashes of `page_count` pages, malloc'd; those that the file lacks are 0. 0, -ENOMEM, -errno. */
int wrep_sumfile_load(int state_fd, uint64_t id, uint32_t page_count, uint64_t **out);
int wrep_sumfile_remove(int state_fd, uint64_t id);
/* Remove those whose database `keep` does not know. */
int wrep_sumfile_tidy(int state_fd, bool (*keep)(void *arg, uint64_t id), void *arg);

/* The same for whatever is called `prefix` and the id. */
int wrep_numbered_tidy(int state_fd, const char *prefix, bool (*keep)(void *arg, uint64_t id),
		       void *arg);

#endif
