/* The manifest: what a snapshot of the Raft log says of this node's files. Private to walrepl.
 *
 * It is the payload of raftlog's snapshot, so it is replaced atomically, together with the index from
 * which the log is delivered again after a restart.
 */
#ifndef WALREPL_RECORD_MANIFEST_H
#define WALREPL_RECORD_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>
#include "record/entry.h"

/* One database: its file on disk holds everything up to `version`, and perhaps more (restore.c). */
struct wrep_manifest_db {
	char name[WREP_NAME_MAX + 1];
	uint64_t id;
	uint64_t version;
	uint64_t index; /* of the entry that led to it: entries up to here are not applied again */
	/* As of a version that may be newer than `version`, and older than what will be redone. */
	uint64_t checksum;
	uint32_t page_size, page_count;
	bool wal_mode;
	/* An entry behind `names_index` removes it, and its file was gone already. */
	bool gone;
	/* Pages that the database file lacks are in the first `wal_frames` frames of the -wal with this
	 * salt (0: it lacks none). */
	uint32_t wal_frames;
	uint32_t wal_salt[2];
};

/* One directory, and what it looks like. */
struct wrep_manifest_dir {
	char path[WREP_PATH_MAX + 1];
	uint64_t id;
	uint32_t mode, uid, gid;
	int64_t mtime_ns;
};

struct wrep_manifest {
	/* The files may hold what entries up to here wrote: only when these are applied again do they
	 * hold what the checksums say. */
	uint64_t redo_until;
	size_t count, capacity;
	struct wrep_manifest_db *dbs; /* in no order before wrep_manifest_sort() */
	/* Those of the GROUP entries behind the snapshot, up to this one, that took effect: state/multi_list.c
	 * says why. */
	uint64_t judged_until;
	size_t group_count;
	uint64_t *groups; /* indices, ascending */
	/* All names are as this entry left them: those that come up to here make, remove and rename
	 * nothing again. 0 before version 3. */
	uint64_t names_index;
	size_t dir_count, dir_capacity;
	struct wrep_manifest_dir
		*dirs; /* in the order of their ids, so each behind that which it is in */
};

void wrep_manifest_clear(struct wrep_manifest *m);
/* Room for one more at the end, zeroed; NULL: out of memory. */
struct wrep_manifest_db *wrep_manifest_add(struct wrep_manifest *m);
/* By id; wrep_manifest_find() wants it so. */
void wrep_manifest_sort(struct wrep_manifest *m);
/* The same for a directory; then the order is the caller's to keep. */
struct wrep_manifest_dir *wrep_manifest_add_dir(struct wrep_manifest *m);
/* `to` is empty. 0 or -ENOMEM. */
int wrep_manifest_copy(const struct wrep_manifest *from, struct wrep_manifest *to);
void wrep_manifest_sort_dirs(struct wrep_manifest *m);
struct wrep_manifest_db *wrep_manifest_find(const struct wrep_manifest *m, uint64_t id);

/* Take a copy of `indices`. 0 or -ENOMEM. */
int wrep_manifest_set_groups(struct wrep_manifest *m, uint64_t judged_until,
			     const uint64_t *indices, size_t count);

struct rlog_buf *wrep_manifest_encode(const struct wrep_manifest *m); /* NULL: out of memory */
/* 0, -EBADMSG (not one, or of a later version), -ENOMEM. */
int wrep_manifest_decode(const struct rlog_buf *buf, struct wrep_manifest *out);

#endif
