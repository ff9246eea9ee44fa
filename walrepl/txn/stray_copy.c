/* Copied side files become part of the copy of their database. */
#include "txn/stray_copy.h"

#include <errno.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>
#include "base/io.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/side_stray.h"
#include "db/stray.h"
#include "pages/playback.h"
#include "record/entry.h"
#include "sqlite/names.h"

static int play_locked(struct wrep_db *db, struct wrep_stray *s, enum wrep_kind kind, bool *some)
{
	struct stat st;
	int rc = wrep_stray_open_locked(s);

	if (rc)
		return rc;
	s->played_bytes = fstat(s->file->fd, &st) < 0 ? 0 : (uint64_t)st.st_size;
	s->played_index = 0;
	*some |= s->played_bytes > 0;
	rc = kind == WREP_WAL
		     ? wrep_playback_wal(s->file->fd, db->overlay, db->files[WREP_DB]->fd)
		     : wrep_playback_journal(s->file->fd, db->overlay, db->files[WREP_DB]->fd);
	wrep_stray_close_locked(s);
	if (rc)
		wrep_logf(
			db->w, 'W',
			"not committed: a copied file does not belong to the database, %s name=%s "
			"error=\"%s\"; open both with SQLite where they come from, close them, and "
			"copy the database again",
			rc == -EXDEV ? "or not to it alone" : "or cannot be read", s->name,
			strerror(-rc));
	return rc;
}

int wrep_strays_play(struct wrep_db *db, bool *some)
{
	struct wrep *w = db->w;
	char name[WREP_NAME_MAX + 16];
	int rc = 0;

	*some = false;
	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 2 && w->strays && !rc; i++) {
		struct wrep_stray *s;

		wrep_names_file(db->name, wrep_side_kinds[i], name);
		s = *wrep_stray_link_locked(w, name);
		if (!s || s->left || s->played || !s->complete)
			continue;
		rc = play_locked(db, s, wrep_side_kinds[i], some);
	}
	pthread_mutex_unlock(&w->stray_lock);
	return rc;
}

void wrep_strays_played(struct wrep_db *db, uint64_t index)
{
	char name[WREP_NAME_MAX + 16], about[WREP_STRAY_FILE_NAME_SIZE];
	struct wrep *w = db->w;
	bool any = false;

	pthread_mutex_lock(&w->stray_lock);
	for (int i = 0; i < 3; i++) {
		struct wrep_stray *s;

		wrep_names_file(db->name, wrep_side_kinds[i], name);
		s = *wrep_stray_link_locked(w, name);
		if (!s || s->left || s->played || !s->complete)
			continue;
		s->played = true;
		s->played_index = index;
		s->played_ms = wrep_now_ms();
		wrep_stray_file_name(about, s->number, WREP_STRAY_ABOUT);
		any |= unlinkat(w->config.state_fd, about, 0) == 0;
	}
	/* Else it would wait there again after a power cut, for a database that has it. */
	if (any && fsync(w->config.state_fd) < 0)
		wrep_logf(w, 'W', "cannot sync the state directory error=\"%s\"", strerror(errno));
	pthread_mutex_unlock(&w->stray_lock);
}
