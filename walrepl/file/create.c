/* An application makes a file: a database on every node, a side file here. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "apply/opening.h"
#include "base/attr.h"
#include "base/report.h"
#include "base/wrep.h"
#include "db/db.h"
#include "db/departure.h"
#include "db/directory.h"
#include "db/files.h"
#include "db/pin.h"
#include "db/stray.h"
#include "db/table.h"
#include "file/file.h"
#include "file/open.h"
#include "file/postponed.h"
#include "file/stray.h"
#include "record/entry.h"
#include "txn/proposal.h"
#include "txn/super_journal.h"

/* A side file springs into being: local to this node. db->lock held. */
static int create_side_file(struct wrep_db *db, enum wrep_kind kind, const struct wrep_new_file *as,
			    bool internal, struct wrep_file **out)
{
	char name[WREP_NAME_MAX + 16];
	int fd, rc = 0;

	wrep_db_backing_name(db, kind, name);
	fd = openat(wrep_dir_fd(db->w, kind), name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
		    as->mode & 07777);
	if (fd < 0)
		return -errno;
	if (!internal && wrep_descriptor_is_spare(db->w, fd)) {
		unlinkat(wrep_dir_fd(db->w, kind), name, 0);
		rc = -EMFILE;
	} else {
		rc = wrep_attr_own(fd, as->mode, as->uid, as->gid);
	}
	if (!rc)
		rc = wrep_file_make(db, kind, fd, 0, &db->files[kind]);
	if (rc < 0) {
		close(fd);
		return rc;
	}
	*out = wrep_file_ref(db->files[kind]);
	return 0;
}

/* Who makes a side file that is not there, and has not the database open as SQLite has, copies it: 1. 0: it is the
 * database's. -EAGAIN: an application has that open, perhaps not for long; -EBUSY, with a line: it stays so.
 * db->lock held. */
static int is_copied(struct wrep_db *db, const char *name, int flags, struct wrep_op *op)
{
	struct wrep *w = db->w;

	if (!wrep_stray_copies(flags))
		return 0;
	if (!db->opens || !db->files[WREP_DB] || (db->unjournaled.active && db->unjournaled.alone))
		return 1;
	if (!op->tid || w->config.host.has_open(w->config.host_ctx, op->tid, db->files[WREP_DB]))
		return 0; /* some programs' own VFS truncates */
	if (!wrep_departure_late(op))
		return -EAGAIN;
	wrep_logf(
		w, 'W',
		"refused to create a file name=%s: an application has the database open; close it, "
		"then copy the database, and what belongs to it",
		name);
	return -EBUSY;
}

static int create_again(struct wrep_postponed *r)
{
	return wrep_create(r->departure.db->w, (const char *)r->bytes, &r->as, false, r->op);
}

struct creation {
	const char *name;
	enum wrep_kind kind;
	const struct wrep_new_file *as;
	bool internal;
};

/* Make a file of a database that is there, or open it. */
static int create_in(struct wrep_db *db, const struct creation *c, struct wrep_op *op)
{
	struct wrep_file *f;
	int copied = 0, rc;
	bool held;

	pthread_mutex_lock(&db->lock);
	rc = wrep_db_pin(db, c->internal);
	held = !rc;
	f = rc ? NULL : wrep_db_file(db, c->kind);
	if (f && (c->as->flags & O_EXCL))
		rc = -EEXIST;
	else if (!rc && !f && c->kind != WREP_DB && !c->internal)
		copied = is_copied(db, c->name, c->as->flags, op);
	if (copied < 0)
		rc = copied;
	else if (!rc && !copied && !f && c->kind != WREP_DB)
		/* Without the database its name may be that of a former one's file. */
		rc = db->files[WREP_DB] && !db->removed
			     ? create_side_file(db, c->kind, c->as, c->internal, &f)
			     : -EPERM;
	pthread_mutex_unlock(&db->lock);
	if (rc == -EAGAIN) {
		rc = wrep_postpone(db, NULL,
				   &(struct wrep_postponed){.again = create_again,
							    .as = *c->as,
							    .len = strlen(c->name) + 1},
				   c->name, op);
	} else if (copied > 0) {
		rc = wrep_stray_create(db->w, c->name, c->as, op);
	} else if (rc) {
		wrep_file_unref(f);
		rc = wrep_file_cannot_open(db, rc);
	} else {
		op->file = f;
		op->state = WREP_OP_CREATE;
		rc = wrep_file_open_with(db, f, c->as->flags, c->internal, op);
		if (rc < 0)
			wrep_op_drop_file(op);
	}
	if (held)
		wrep_file_unpin_db(db);
	return rc;
}

/* Make a database. */
static int create_database(struct wrep *w, const char *name, const struct wrep_new_file *as,
			   struct wrep_op *op)
{
	struct wrep_entry e = {.type = WREP_ENTRY_CREATE};
	struct wrep_dir *dir;

	if (wrep_dir_lookup(w, name, &dir) == 0) {
		wrep_dir_unref(dir);
		return -EISDIR;
	}
	if (!atomic_load(&w->may_write))
		return -EROFS;
	op->file = NULL;
	op->state = WREP_OP_CREATE;
	snprintf(e.name, sizeof e.name, "%s", name);
	e.mode = as->mode & 07777;
	e.uid = as->uid;
	e.gid = as->gid;
	return wrep_propose(w, NULL, &e, as->flags, op);
}

int wrep_create(struct wrep *w, const char *name, const struct wrep_new_file *as, bool internal,
		struct wrep_op *op)
{
	enum wrep_kind kind;
	struct wrep_db *db;
	int rc;

	if (!wrep_name_kind(w, name, &kind))
		return wrep_name_refusal(w, name);
	if (kind == WREP_SUPER)
		return wrep_super_create(w, name, as, op);
	if (kind == WREP_STRAY)
		return wrep_stray_create(w, name, as, op);
	db = wrep_file_db(w, name, &kind);
	if (db) {
		rc = create_in(db, &(struct creation){name, kind, as, internal}, op);
		wrep_db_unref(db);
		return rc;
	}
	if (kind == WREP_DB)
		return create_database(w, name, as, op);
	/* SQLite makes none without its database */
	return wrep_stray_copies(as->flags) ? wrep_stray_create(w, name, as, op) : -EPERM;
}
