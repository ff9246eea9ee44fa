/* What an application may do to a -wal, and to the database by a checkpoint. */
#include "file/wal.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/report.h"
#include "db/db.h"
#include "db/files.h"
#include "pages/capture.h"
#include "pages/capture_state.h"
#include "pages/pagesum.h"
#include "pages/wal_chain.h"
#include "pages/wal_content.h"

struct wrep_capture *wrep_wal_capture(struct wrep_db *db)
{
	if (!db->capture)
		wrep_file_unref(wrep_db_file(db, WREP_WAL));
	return db->capture;
}

bool wrep_wal_look_again(struct wrep_db *db)
{
	if (db->fenced)
		wrep_capture_forget(db->capture);
	return db->fenced;
}

int wrep_wal_check_checkpoint(struct wrep_db *db, const uint8_t *buf, size_t len, uint64_t off)
{
	uint32_t size = db->state.sum.page_size;

	if (!size || off % size || len % size)
		return -EPERM;
	for (size_t at = 0; at < len; at += size) {
		uint64_t page = (off + at) / size + 1;
		uint64_t hash;

		if (page > UINT32_MAX)
			return -EPERM;
		hash = wrep_page_hash((uint32_t)page, buf + at, size);
		if (page <= db->state.sum.page_count && db->state.sum.hash[page - 1] == hash)
			continue;
		/* an older image: the newest is beyond what readers let the checkpoint copy */
		if (!wrep_wal_capture(db) ||
		    (!wrep_wal_content_holds(db->capture, (uint32_t)page, hash) &&
		     !(wrep_wal_look_again(db) &&
		       wrep_wal_content_holds(db->capture, (uint32_t)page, hash))))
			return -EPERM;
	}
	return 0;
}

bool wrep_wal_may_go(struct wrep_db *db)
{
	struct wrep_file *f = db->files[WREP_DB];

	if (!db->capture || !f || db->local_version != db->state.version ||
	    wrep_wal_content_copied(db->capture, f->fd, &db->state.sum))
		return true;
	wrep_logf(db->w, 'W',
		  "refused to remove the -wal, which holds transactions that the database "
		  "file does not: PRAGMA wal_checkpoint first database=%s",
		  db->name);
	return false;
}

bool wrep_wal_is_cut(struct wrep_db *db, uint64_t size)
{
	struct wrep_wal_position at;

	return !wrep_wal_capture(db) || wrep_wal_content_position(db->capture, &at) < 0 ||
	       (at.frame_count && size < wrep_wal_frame_offset(at.page_size, at.frame_count));
}

bool wrep_wal_starts_over(struct wrep_file *f, const uint8_t *buf, size_t len, uint64_t off)
{
	uint8_t header[32];
	size_t part;

	if (off >= sizeof header ||
	    pread(f->fd, header, sizeof header, 0) != (ssize_t)sizeof header)
		return false;
	part = sizeof header - off < len ? sizeof header - (size_t)off : len;
	return memcmp(header + off, buf, part) != 0;
}

int wrep_wal_goes_on_with_ended(struct wrep_db *db, uint64_t off)
{
	struct wrep_wal_position at;

	if (db->wal_ended && (off == 0 || wrep_wal_content_position(db->capture, &at) < 0 ||
			      off == wrep_wal_frame_offset(at.page_size, at.frame_count)))
		db->wal_ended = 0;
	return db->wal_ended;
}
