/* An application reads a file. */
#include <errno.h>
#include "base/io.h"
#include "db/db.h"
#include "pages/overlay.h"
#include "repair/page_check.h"

ssize_t wrep_file_read(struct wrep_file *f, void *buf, size_t len, uint64_t off)
{
	struct wrep_db *db = f->db;
	bool retired, damaged;
	ssize_t n;

	if (f->kind == WREP_DB) {
		pthread_mutex_lock(&db->lock);
		if (db->overlay && db->files[WREP_DB] == f) {
			n = wrep_overlay_read(db->overlay, f->fd, buf, len, off);
			pthread_mutex_unlock(&db->lock);
			return n;
		}
		pthread_mutex_unlock(&db->lock);
	}
	n = wrep_read_some(f->fd, buf, len, off);
	if (f->kind == WREP_SUPER || f->kind == WREP_STRAY)
		return n;
	/* Others write to the file then, and what was read may be half of it. Neither error is EIO, which
	 * SQLite takes for a damaged database, where there is nothing that removing it would cure. What the
	 * disk cannot read (`n`) is a damaged page like any other: another node has it. */
	pthread_mutex_lock(&db->lock);
	retired = db->retired || f->revoked || (f->kind == WREP_DB && db->half_applied);
	damaged = db->damaged;
	pthread_mutex_unlock(&db->lock);
	if (retired)
		return -ESTALE;
	if (damaged ||
	    (f->kind == WREP_DB && !wrep_pages_are_sound(f, buf, n < 0 ? 0 : (size_t)n, len, off)))
		return -EBADMSG;
	return n;
}
