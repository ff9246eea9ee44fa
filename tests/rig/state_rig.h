/* A replicated state that owns its versions, as a node would keep it: for tests and for the simulator. No file. */
#ifndef STATE_RIG_H
#define STATE_RIG_H

#include "state/state.h"

struct rig_db {
	struct wrep_version version; /* first: what the state refers to */
	uint64_t id;
	uint64_t submitted_on; /* 1 + the version that a transaction was made on here last */
	bool removed;	       /* it is kept until what takes a snapshot has noted it */
	struct rig_db *next;
};

struct state_rig {
	struct wrep_replicated *state;
	struct rig_db *dbs;
	uint64_t term;
	/* Restored from what a node noted while it applied entries up to here: until then it is in between. */
	uint64_t as_of;
	bool noting; /* a snapshot is in the making */
};

struct state_rig *state_rig_new(void);
void state_rig_free(struct state_rig *r);
/* The entry in `buf` is delivered. A verdict, or -errno. */
int state_rig_apply(struct state_rig *r, struct wrep_log_position at, const struct rlog_buf *buf);
/* Over all that is replicated: equal states have equal ones. */
uint64_t state_rig_hash(const struct state_rig *r);

/* A snapshot in the making, which need not be of one moment: begin, each database, end. */
struct rig_snapshot {
	struct wrep_manifest manifest;
	uint64_t index; /* the log is delivered again from behind it */
	size_t noted;	/* databases */
};

/* All names, when everything up to `applied` is; the snapshot is to be at `index`, or before it. */
void rig_snapshot_begin(struct rig_snapshot *s, struct state_rig *r, uint64_t applied,
			uint64_t index);
/* The next database. False: there is none. */
bool rig_snapshot_note(struct rig_snapshot *s, struct state_rig *r);
/* Everything up to `applied` is applied by now. The page hashes are those of this moment, so newer than the
 * versions, as a disk may have them. Once it is stored, wrep_multi_list_forget() may forget what lies before. */
struct rlog_buf *rig_snapshot_end(struct rig_snapshot *s, struct state_rig *r, uint64_t applied);
void rig_snapshot_clear(struct rig_snapshot *s, struct state_rig *r);
struct state_rig *state_rig_restore(const uint8_t *bytes, size_t len);

#endif
