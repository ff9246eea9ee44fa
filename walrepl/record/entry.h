/* The entries that walrepl puts into the Raft log, and their encoding. Private to walrepl.
 *
 * A transaction is zero or more PAGES entries (only when it is too large for one entry) followed by
 * one COMMIT entry, all submitted in order by one node within one term: a COMMIT of another term than
 * its PAGES takes no effect. Nothing is visible before the COMMIT. One that was given up after some
 * PAGES is followed by a DISCARD, which changes nothing that a COMMIT could lead to: it lets all nodes
 * forget the PAGES. A transaction over several databases ends in one GROUP entry, which holds the COMMIT
 * of each of them; before it come the PAGES of each.
 *
 * PAGES may be sent before the transaction is complete (txn/streaming.c), so they may hold what is not of it
 * after all. The last image of a page in the log counts; a page above the COMMIT's
 * `page_count`, and one that the COMMIT names as dropped, does not count at all.
 *
 * All numbers are little-endian; a diagram stands in record/entry_format.h.
 */
#ifndef WALREPL_RECORD_ENTRY_H
#define WALREPL_RECORD_ENTRY_H

#include <stdbool.h>
#include "base/bytes.h"
#include "raftlog.h"
#include "walrepl.h"

enum wrep_entry_type {
	WREP_ENTRY_CREATE = 1, /* a database file appears, empty */
	WREP_ENTRY_UNLINK = 2,
	WREP_ENTRY_SETATTR = 3,
	WREP_ENTRY_PAGES = 4,
	WREP_ENTRY_COMMIT = 5,
	WREP_ENTRY_DISCARD = 6, /* the COMMIT of these PAGES will not come */
	WREP_ENTRY_GROUP = 7,	/* the COMMITs of several databases, all or none */
	WREP_ENTRY_MKDIR = 10,	/* a directory appears, empty */
	WREP_ENTRY_RMDIR = 11,
	WREP_ENTRY_RENAME = 12, /* a database gets another name, in place of the one that has it */
};

/* Entries stay below this, except a COMMIT or PAGES that holds a single page. */
#define WREP_ENTRY_BYTES (1u << 20)
#define WREP_NAME_MAX WREP_PATH_MAX

/* How the transaction was written, so how it is applied. REPLACE: not by SQLite (`cp` over the database):
 * what applications keep of the former content need not look outdated to them, so they lose the file. */
enum wrep_commit_mode { WREP_COMMIT_WAL = 1, WREP_COMMIT_ROLLBACK = 2, WREP_COMMIT_REPLACE = 3 };

/* One decoded entry. Pointers point into the buffer it was decoded from. */
struct wrep_entry {
	enum wrep_entry_type type;
	/* CREATE, MKDIR: `name`, mode, uid, gid (the id becomes the index of this entry).
	 * All others: `db_id`, of SETATTR and RMDIR that of a directory; RENAME: `name`, too. */
	char name[WREP_NAME_MAX + 1];
	uint64_t db_id;
	uint32_t mode, uid, gid;
	bool keep;	     /* RENAME: of no effect where the name is taken */
	uint32_t attr_valid; /* SETATTR: WREP_ATTR_* */
	int64_t atime_ns, mtime_ns;
	uint32_t atime_omit, mtime_omit;
	uint32_t member_count; /* GROUP: see wrep_entry_member() */
	/* PAGES, COMMIT, DISCARD: which transaction; unique over all nodes and restarts. */
	uint64_t origin, sequence;
	uint32_t part; /* PAGES: 0, 1, ...; COMMIT: how many PAGES came before */
	/* COMMIT */
	enum wrep_commit_mode commit_mode;
	uint64_t base_version;	/* it leads from this version to base_version + 1 */
	uint64_t checksum;	/* of the whole database afterwards (pagesum.h) */
	uint32_t page_count;	/* size of the database afterwards */
	uint32_t total_pages;	/* that count in the whole transaction, all parts */
	uint32_t dropped_count; /* of the parts' pages, those that do not; then no image is in it */
	const uint8_t *dropped; /* dropped_count little-endian u32, ascending */
	/* PAGES, COMMIT */
	uint32_t page_size;
	uint32_t image_count;  /* in this entry */
	const uint8_t *pgnos;  /* image_count little-endian u32, see wrep_entry_pgno() */
	const uint8_t *images; /* image_count * page_size bytes */
};

static inline uint32_t wrep_entry_number(const uint8_t *numbers, uint32_t i)
{
	return wrep_get32(numbers + (size_t)i * 4);
}

static inline uint32_t wrep_entry_pgno(const struct wrep_entry *e, uint32_t i)
{
	return wrep_entry_number(e->pgnos, i);
}

static inline uint32_t wrep_entry_dropped(const struct wrep_entry *e, uint32_t i)
{
	return wrep_entry_number(e->dropped, i);
}

/* Decode and check bounds, enums, page size (a power of two, 512..65536; 0 in a COMMIT that leaves
 * an empty database), page numbers (not 0, not the lock page, ascending, none above page_count in a
 * COMMIT; so those that are dropped), names (wrep_names_path_valid()). 0 or -EBADMSG. */
int wrep_entry_decode(const struct rlog_buf *buf, struct wrep_entry *out);

/* The attributes that a SETATTR changes. */
struct wrep_attr wrep_entry_attr(const struct wrep_entry *e);

/* The members of a GROUP that was decoded, each a COMMIT entry, in ascending order of their databases'
 * ids: `*at` is 0 for the first and moves on. False after the last. */
bool wrep_entry_member(const struct rlog_buf *buf, size_t *at, struct wrep_entry *out);

/* Encode an entry without images. NULL: out of memory. */
struct rlog_buf *wrep_entry_encode(const struct wrep_entry *e);

/* Encode a PAGES or COMMIT entry with room for `e->image_count` images, and `e->dropped_count` numbers of
 * dropped pages: the caller fills in these and the images where the pointers in `e` then point (they
 * point into the new buffer; cast away const, they are the caller's until submitted). */
struct rlog_buf *wrep_entry_alloc(struct wrep_entry *e);
void wrep_entry_set_pgno(struct wrep_entry *e, uint32_t i, uint32_t pgno);
void wrep_entry_set_dropped(struct wrep_entry *e, uint32_t i, uint32_t pgno);

/* The same for a GROUP of `count` COMMIT entries, at least two, in ascending order of their databases. */
struct rlog_buf *wrep_entry_alloc_group(struct wrep_entry *members, uint32_t count);
/* How many images each of `count` members may have in a GROUP, maybe none. */
uint32_t wrep_entry_group_images_max(uint32_t page_size, uint32_t count);
/* And how many dropped pages, where it has some. */
uint32_t wrep_entry_group_dropped_max(uint32_t count);

/* How many images of `page_size` bytes fit into one PAGES or COMMIT entry; at least 1. Decoding
 * refuses an entry with more. */
uint32_t wrep_entry_images_max(uint32_t page_size);
/* How many pages a COMMIT can drop. */
#define WREP_ENTRY_DROPPED_MAX 262000u

#endif
