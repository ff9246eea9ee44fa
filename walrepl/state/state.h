/* The replicated state: all names, and which multi-commits took effect; with the versions of the databases
 * (state/version.h), all that the Raft log says. Private to walrepl.
 *
 * Pure: no thread, no lock, no file, no log line. Who delivers entries owns a state, one thread at a time, and
 * guards each version that takes part in a call. An entry's result says what is to be carried out.
 */
#ifndef WALREPL_STATE_STATE_H
#define WALREPL_STATE_STATE_H

#include "record/entry.h"
#include "record/manifest.h"
#include "state/multi_list.h"
#include "state/name_tree.h"
#include "state/version.h"

struct wrep_replicated {
	/* `data` of a database's node is its struct wrep_version, of a directory's what the owner likes. */
	struct wrep_tree *names;
	struct wrep_multi_list multi;
	uint64_t
		names_index; /* names were restored as of this entry: those up to it change none again */
	/* Restored versions may have pages that entries up to here wrote: checksums hold only then. */
	uint64_t redo_until;
};

struct wrep_replicated *wrep_state_new(void); /* NULL: out of memory */
/* The versions and what else `data` refers to are the owner's to free, before. */
void wrep_state_free(struct wrep_replicated *s);

/* ---- restoring ---- */

/* What a manifest says, but for names. `last_index`: of the local log; what it holds may be in the files. 0 or
 * -ENOMEM. */
int wrep_state_restore(struct wrep_replicated *s, const struct wrep_manifest *m,
		       uint64_t last_index);
/* And each of the names, directories first, in the order of their ids. 0, -ENOMEM, -EBADMSG. */
int wrep_state_restore_name(struct wrep_replicated *s, uint64_t id, const char *path, bool is_dir,
			    void *data);

/* ---- names ---- */

/* What an entry of no transaction does. */
struct wrep_name_effect {
	enum wrep_verdict verdict;
	int error;	   /* without effect: what who asked for it is told, 0 or -errno */
	uint64_t id;	   /* CREATE, MKDIR: of what has the name now, or 0; else the entry's */
	uint64_t parent;   /* the directory that this is, or was, in; 0: the top */
	bool is_dir;	   /* it is, or was, a directory */
	void *data;	   /* of what it is about, or NULL; with UNLINK and RMDIR that goes */
	uint64_t replaced; /* RENAME: the database that goes, or 0 */
};

/* CREATE, UNLINK, SETATTR, MKDIR, RMDIR or RENAME entry `e` is delivered. 0 or -ENOMEM. A database that is made
 * gets its version by wrep_state_attach(). */
int wrep_state_change_names(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
			    struct wrep_name_effect *out);
void wrep_state_attach(struct wrep_replicated *s, uint64_t id, void *data);
/* NULL: there is no such database. */
struct wrep_version *wrep_state_version(const struct wrep_replicated *s, uint64_t id);

/* ---- transactions: PAGES and DISCARD are a version's alone ---- */

struct wrep_log_position {
	uint64_t index, term;
};

/* A COMMIT is delivered. A verdict; or -EUCLEAN: it has to take effect, but does not lead to its checksum here, so
 * this copy differs; -EBADMSG: its parts do not fit together; -ENOMEM. After the first two no version has moved;
 * after the last nothing may be delivered any more. In any case the caller owns c->parts, and calls
 * wrep_change_clear(). */
int wrep_state_commit(struct wrep_replicated *s, struct wrep_log_position at,
		      struct wrep_change *c);
/* A GROUP: all or none, in ascending order of the databases' ids. `*bad`: which member differs. */
int wrep_state_multi_commit(struct wrep_replicated *s, struct wrep_log_position at,
			    struct wrep_change *changes, uint32_t count,
			    const struct wrep_change **bad);

#endif
