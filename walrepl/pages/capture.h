/* Which of the writes to a -wal completes a transaction. Private to walrepl.
 *
 * Judged by content, never by the shape of the writes: a transaction is complete at the write after
 * which the chain of frame checksums is valid from the last committed frame through a frame whose
 * "database size" field is not zero (SQLite's file format, section 4). The kernel may split and
 * merge an application's writes at page boundaries; SQLite rewrites frames in place after a cache
 * spill, with headers (and their checksums) last. None of that matters here.
 *
 * The caller serialises all calls on one capture (the database's lock).
 */
#ifndef WALREPL_PAGES_CAPTURE_H
#define WALREPL_PAGES_CAPTURE_H

#include <stdbool.h>
#include "pages/pagesum.h"

struct wrep_capture;

/* A complete transaction, in the -wal and the write at hand, not yet committed. */
struct wrep_wal_txn {
	uint32_t page_size;
	uint32_t page_count;  /* "database size" of the commit frame */
	uint64_t end;	      /* offset in the -wal behind the commit frame */
	uint32_t image_count; /* distinct pages, ascending, none above page_count */
	/* It is the last committed frame again, once or more. SQLite repeats the commit frame up to the end of
	 * a sector (psow=0) before it publishes a transaction: then this is padding of that transaction, and may
	 * be committed at once. Else it is a transaction of its own, whose page changed back, or not at all. */
	bool repeats;
	struct wrep_wal_image {
		uint32_t pgno;
		uint64_t hash;
		uint64_t offset; /* of the page's last image in the -wal, behind its frame header */
	} * images;
};

/* Over the backing -wal `fd` (not owned; must stay open). Nothing is read yet. */
int wrep_capture_open(struct wrep_capture **out, int fd);
void wrep_capture_close(struct wrep_capture *c);

/* The backing file changed by other hands (applied, restarted, recovered): read it again before the next judgement, from the committed end
 * when the last committed frame is still in its place, else from the start. Everything whose chain is
 * valid through a commit frame counts as committed. Not while a transaction is undecided. */
void wrep_capture_forget(struct wrep_capture *c);

/* An application is about to write `len` bytes at `off`; the backing file does not hold them yet.
 * A write that holds several commit frames makes one transaction, which leads to the last of them; what it holds
 * behind that frame belongs to the next.
 * Returns
 *   0         an ordinary write: put it into the backing file;
 *   1         it completes the transaction `*txn` (owned by the capture, valid until committed or
 *             refused): hold the bytes back;
 *   -EPERM    it would change what is committed (a whole header that starts a new WAL generation at
 *             offset 0 is allowed; so is writing again the same bytes);
 *   -EBUSY    a transaction is undecided;
 *   -EBADMSG  it ends a transaction whose frames have no checksums and never will: the work of an
 *             older SQLite (3.40 is one) after a cache spill and a ROLLBACK TO. The application sees
 *             an I/O error and rolls back; a larger `PRAGMA cache_size` avoids it. Log it;
 *   -EFBIG, -EIO, -ENOMEM. */
int wrep_capture_write(struct wrep_capture *c, const void *buf, size_t len, uint64_t off,
		       const struct wrep_wal_txn **txn);

/* The caller failed to put an ordinary write at `off` into the backing file, or put only a part of it there: what
 * that part might complete is made invalid. 0; -errno: it could not be (the caller stops the node). */
int wrep_capture_write_failed(struct wrep_capture *c, uint64_t off);

/* How much of the -wal would lie behind what is committed after a write of `len` bytes at `off`; 0
 * when the -wal cannot be read. */
uint64_t wrep_capture_uncommitted(struct wrep_capture *c, size_t len, uint64_t off);

/* The frames that the open transaction has appended so far, as far as they are known: `*count` whole frames from frame
 * `*first` on are in the backing file, or will be when the last ordinary write is. They may be of any
 * content, also without checksums (which SQLite may still have to compute), and the application may
 * overwrite them, or go back and append others in their place. Returns a number that is another one as
 * soon as the frames from `*first` on may be those of another transaction. Reads nothing. */
uint64_t wrep_capture_appended(const struct wrep_capture *c, uint32_t *first, uint32_t *count,
			       uint32_t *page_size);
/* Read `count` of these frames, as they are now: headers and pages, one behind the other. 0 or -errno. */
int wrep_capture_read_frames(const struct wrep_capture *c, uint32_t first, uint32_t count,
			     void *bytes);
/* The page number in the header of such a frame; 0 when it is none of this generation. */
uint32_t wrep_capture_frame_pgno(const struct wrep_capture *c, const uint8_t *header);

/* Read the image of a page of the undecided transaction: from the backing file, or from the write
 * that was held back (`wrep_capture_write` keeps its bytes). 0 or -errno. */
int wrep_capture_image(struct wrep_capture *c, const struct wrep_wal_image *image, void *page);

/* Make sure that there will be room for the bytes held back. 0 or -ENOSPC. */
int wrep_capture_reserve(struct wrep_capture *c);

/* The bytes held back: written into the backing file by this call, and the committed end moves.
 * 0; -ENOSPC (they are still held back: to be called again); -errno (then the backing -wal is unfit: the
 * caller stops the node). */
int wrep_capture_committed(struct wrep_capture *c);
/* Forget the write: it never happened. */
void wrep_capture_refused(struct wrep_capture *c);

/* The application truncates the -wal. 0, or -EPERM when that cuts into what is committed but does not
 * remove all of it (size 0), or when the zeros of a longer file would complete a transaction; -EBUSY.
 * The caller then truncates the backing file; should it fail to, it calls wrep_capture_forget(). */
int wrep_capture_truncate(struct wrep_capture *c, uint64_t size);

#endif
