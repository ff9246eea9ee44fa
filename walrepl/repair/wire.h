/* What two nodes say to each other while one fetches the other's databases. Private to walrepl.
 *
 * One asks, the other answers; a connection serves one fetch. Everything is a frame:
 *
 *    0: u32 type | 4: u32 bytes of the body | 8: XXH3-64 of the body | 16: body
 *
 *   question                                       answer
 *   OPEN   0: u64 the oldest index that helps      IMAGE  raftlog's snapshot image, of that index
 *                                                         or a later one
 *   SUMS   0: u64 id | 8: u32 first page           SUMS   0: u32 page_size | 4: u32 page_count
 *                                                         8: u32 mode, uid, gid | 20: u32 0
 *                                                        24: i64 mtime_ns
 *                                                        32: hashes from that page on
 *   PAGES  0: u64 id | 8: u32 page_size            PAGES  the pages, one behind the other
 *         12: u32 0 | 16: page numbers, u32
 *   END    nothing                                 END    0: u64 index
 *
 * What is drawn here is of level 1 (format.h). Both sides know the level that the other reads from their
 * greetings (rlog_format_of()): a later form may be sent where both read its level.
 *
 * Instead of an answer: GONE (the database is no more), CHANGED (its page size has), REFUSED (a line).
 * All numbers are little-endian. What comes from a peer is checked.
 */
#ifndef WALREPL_STREAM_H
#define WALREPL_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum wrep_wire_type {
	WREP_STREAM_OPEN = 1,
	WREP_STREAM_IMAGE,
	WREP_STREAM_SUMS,
	WREP_STREAM_PAGES,
	WREP_STREAM_END,
	WREP_STREAM_GONE,
	WREP_STREAM_CHANGED,
	WREP_STREAM_REFUSED,
};

#define WREP_STREAM_SUMS_HEAD 32u
#define WREP_STREAM_PAGES_HEAD 16u
#define WREP_STREAM_SUMS_MAX 65536u	   /* hashes in one answer */
#define WREP_STREAM_PAGES_BYTES (1u << 20) /* pages in one answer, at least one */
#define WREP_STREAM_BODY_MAX (256u << 20)  /* an image, which holds the names of all databases */

/* One side of a connection. */
struct wrep_wire {
	int fd;			 /* blocking; the owner's */
	bool (*stop)(void *arg); /* asked every second: give up? */
	void *arg;
	uint8_t *body; /* of the last frame received */
	size_t len, room;
	enum wrep_wire_type type;
};

void wrep_wire_init(struct wrep_wire *s, int fd, bool (*stop)(void *arg), void *arg);
void wrep_wire_clear(struct wrep_wire *s); /* frees; does not close */
/* 0, -ECANCELED (stop said so), -ETIMEDOUT (nothing moved for ten seconds), -EBADMSG, -errno. */
int wrep_wire_send(struct wrep_wire *s, enum wrep_wire_type type, const void *body, size_t len);
int wrep_wire_receive(struct wrep_wire *s);

#endif
