/* Snapshots, as the server sees them: taking one, and getting one in place of a log that has become
 * useless.
 *
 * A snapshot holds no data here: the owner has everything up to an entry in its own durable state, and
 * the snapshot says so. Taking one is: its image is made (rlog_server_image()), stored by whoever has
 * time, then libraft is told, and segments are let go (rlog_server_snapshot()).
 *
 * libraft's way of bringing a snapshot to a follower is not used. What it would send becomes a notice,
 * NEEDS_STATE. The follower's owner fetches the leader's state by itself; meanwhile libraft on the leader
 * keeps the follower in its "snapshot" state and sends heartbeats at the snapshot's index, which the
 * follower rejects, upon which the notice is sent again. When the follower has installed this snapshot, the
 * next heartbeat finds the entry it is anchored at, is accepted, and libraft goes on from there. With a newer
 * snapshot on the leader it is rejected and the notice comes once more; the answer to that tells what is
 * committed on the follower, and if the leader's log still has what is behind that, libraft sends it when it
 * looks anew (INSTALL_TIMEOUT_MS).
 *
 * Why rlog_server_install() loses nothing that this node has promised. The image is of a committed prefix
 * of the cluster's log, up to (index, term). If the local log has that entry, it has the same prefix (the
 * log matching property), and what it has behind it stays; only delivery goes back. So it is when the entry
 * is one that the local log has let go of: it was committed. If not, the log ends before the index, or has
 * another entry there: everything up to the index is in the image, and anything behind a conflicting entry
 * was not committed and conflicts as well. So nothing is dropped that could count for a majority. Term and
 * vote stay, unless the image was taken in a later term, which this node then is in, too: the leader of an
 * earlier one need not have the image's entries, and must not be told that they match its own. The core is
 * then started again from what is on disk, as after a restart; that the node had not crashed in between no
 * rule of Raft can tell.
 */
#include "server/snapshot.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include "log/compact.h"
#include "log/read.h"
#include "log/segments.h"
#include "log/snapshot.h"
#include "server/requests.h"
#include "server/send.h"
#include "server/start.h"
#include "server/step.h"

void rlog_server_needs_state(struct rlog_server *s, uint64_t from, const char *address,
			     const struct rlog_message *m)
{
	if (m->needs_state.term != s->raft.current_term || s->raft.state != RAFT_FOLLOWER ||
	    s->raft.follower_state.current_leader.id != from)
		return;
	/* It came in place of a heartbeat, and a leader that hears nothing upon it sends no others. */
	rlog_server_keepalive(s, from, address);
	if (m->needs_state.index <= s->raft.commit_index ||
	    rlog_server_term_of(s, m->needs_state.index) == m->needs_state.index_term)
		return; /* it has been installed; the next heartbeat tells the leader */
	if (s->cb.needs_state != NULL)
		s->cb.needs_state(s->ctx, from, address);
}

/* ---- taking one --------------------------------------------------------------------------- */

/* The membership in force at `index`: the newest at or in front of it, encoded. */
static int membership_at(struct rlog_server *s, uint64_t index, uint64_t *conf_index,
			 struct rlog_buf **out)
{
	const struct rlog_snapshot *old = rlog_log_snapshot(s->log);
	const uint64_t first = rlog_log_first(s->log), known = old != NULL ? old->index : 0;
	struct rlog_record rec;

	for (uint64_t i = index; i >= first && i > known; i--) {
		uint64_t term;
		uint8_t type;
		size_t len;
		int rv = rlog_log_describe(s->log, i, &term, &type, &len);

		if (rv != 0)
			return rv;
		if (type != RAFT_CHANGE)
			continue;
		rv = rlog_log_read(s->log, i, &rec);
		*conf_index = i;
		*out = rec.buf;
		return rv;
	}
	if (old == NULL)
		return -ENOENT;
	*conf_index = old->conf_index;
	*out = rlog_buf_new(old->conf_len);
	if (*out == NULL)
		return -ENOMEM;
	memcpy((*out)->data, old->conf, old->conf_len);
	return 0;
}

int rlog_server_image(struct rlog_server *s, uint64_t index, const struct rlog_buf *payload,
		      struct rlog_buf **image)
{
	const struct rlog_snapshot *old = rlog_log_snapshot(s->log);
	struct rlog_snapshot next = {.index = index, .taken_term = s->raft.current_term};
	struct rlog_buf *conf = NULL;
	int rv;

	if (rlog_server_failed(s))
		return -EIO;
	if (index == 0 || index > s->applied || (old != NULL && index < old->index))
		return -EINVAL;
	next.term = rlog_server_term_of(s, index);
	if (next.term == 0)
		return -EINVAL;
	rv = membership_at(s, index, &next.conf_index, &conf);
	if (rv != 0)
		return rv;
	next.conf = conf->data;
	next.conf_len = conf->len;
	next.payload = payload->data;
	next.payload_len = payload->len;
	*image = rlog_snapshot_encode(rlog_log_cluster(s->log), &next);
	rv = *image != NULL ? 0 : -errno;
	rlog_buf_unref(conf);
	return rv;
}

/* Tell libraft, which lets go of what it knows of the entries that the log has let go of. */
static void step_snapshot(struct rlog_server *s)
{
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(s->log);
	struct raft_event event = {.type = RAFT_SNAPSHOT};
	struct raft_buffer buf = {.base = (void *)(uintptr_t)snapshot->conf,
				  .len = snapshot->conf_len};
	int rv;

	event.snapshot.metadata.index = snapshot->index;
	event.snapshot.metadata.term = snapshot->term;
	event.snapshot.metadata.configuration_index = snapshot->conf_index;
	event.snapshot.trailing = (unsigned)(snapshot->index - (rlog_log_first(s->log) - 1));
	rv = raft_configuration_decode(&buf, &event.snapshot.metadata.configuration);
	if (rv == 0)
		rv = rlog_server_step(s, &event, NULL, NULL, NULL);
	if (rv != 0)
		rlog_server_fail(s, "raft cannot take a snapshot: %s", raft_strerror(rv));
}

int rlog_server_snapshot(struct rlog_server *s, struct rlog_buf *image, uint64_t keep_bytes)
{
	int rv;

	if (rlog_server_failed(s))
		return -EIO;
	rv = rlog_log_set_snapshot(s->log, image);
	if (rv != 0)
		return rv;
	/* libraft knows which entries there are from its snapshots alone, and takes a newer one only. */
	if (rlog_log_snapshot(s->log)->index > s->raft.trail.snapshot.index) {
		rlog_log_compact(s->log, keep_bytes);
		step_snapshot(s);
	}
	return 0;
}

/* ---- getting one -------------------------------------------------------------------------- */

/* What this server knew from before does not hold any more. */
static int start_again(struct rlog_server *s)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	int rv;

	rlog_server_end_all(s);
	raft_close(&s->raft, NULL);
	s->led_term = s->barrier_index = 0;
	s->catch_up_term = s->catch_up_index = 0;
	s->conf_uncommitted = s->conf_committed = 0;
	s->transferring = s->transfer_fired = false;
	s->promote_ms = NEVER;
	for (unsigned i = 0; i < s->peer_count; i++)
		s->peers[i].pending = false;
	rv = rlog_server_core(s, errmsg);
	if (rv == 0)
		rv = rlog_server_start(s, errmsg);
	if (rv != 0)
		rlog_server_fail(s, "%s", errmsg);
	return rv;
}

static int store(struct rlog_server *s, struct rlog_disk *d, const struct rlog_snapshot *of,
		 const struct rlog_buf *payload)
{
	struct rlog_snapshot own = *of;
	struct rlog_buf *image;
	int rv;

	own.payload = payload->data;
	own.payload_len = payload->len;
	image = rlog_snapshot_encode(rlog_log_cluster(s->log), &own);
	if (image == NULL)
		return -errno;
	rv = rlog_snapshot_store(d, image);
	if (rv != 0 && rv != -ENOSPC && rv != -EDQUOT && rv != -ENOMEM)
		rlog_server_fail(s,
				 "cannot store the snapshot: %s; check the disk under the data "
				 "directory, then start this node again",
				 strerror(-rv));
	if (rv == 0)
		rv = rlog_log_set_snapshot(s->log, image);
	rlog_buf_unref(image);
	return rv;
}

/* Does the log, or what it has let go of, hold the image's last entry? 1, 0, or -errno. */
static int holds(struct rlog_server *s, const struct rlog_snapshot *of)
{
	const struct rlog_snapshot *own = rlog_log_snapshot(s->log);
	const uint64_t term = rlog_server_term_of(s, of->index);

	if (of->index + 1 < rlog_log_first(s->log))
		return -EAGAIN; /* what lies between would be lost */
	if (of->index <= s->raft.commit_index && term != 0 && term != of->term) {
		rlog_server_log(s, 'E',
				"an image contradicts what is committed here index=%llu term=%llu "
				"image_term=%llu",
				(unsigned long long)of->index, (unsigned long long)term,
				(unsigned long long)of->term);
		return -EBADMSG;
	}
	/* With the entry right in front of the log its term is gone, but it was committed. */
	if (own != NULL && of->index < own->index)
		return 1;
	return term == of->term && of->index <= rlog_log_durable(s->log);
}

/* The snapshot is stored: term and log come after it, as they would when the log is opened. */
static int follow_snapshot(struct rlog_server *s, const struct rlog_snapshot *of, bool has_it)
{
	const bool later = of->taken_term > s->raft.current_term;
	int rv = 0;

	if (later)
		rv = rlog_log_set_meta(s->log, of->taken_term, 0);
	if (rv == 0 && !has_it)
		rv = rlog_log_replace(s->log);
	if (rv == 0)
		return later || !has_it ? start_again(s) : 0;
	rlog_server_fail(s,
			 "cannot replace the log: %s; free or repair the disk, then start this "
			 "node again",
			 strerror(-rv));
	return rv;
}

int rlog_server_install(struct rlog_server *s, struct rlog_disk *d, struct rlog_buf *image,
			const struct rlog_buf *payload)
{
	struct rlog_snapshot of;
	int has_it, rv;

	assert(!s->writing);
	if (rlog_server_failed(s))
		return -EIO;
	if (s->raft.state == RAFT_LEADER)
		return -EALREADY;
	rv = rlog_snapshot_decode(image, rlog_log_cluster(s->log), &of);
	if (rv != 0)
		return rv;
	has_it = holds(s, &of);
	rv = has_it < 0 ? has_it : 0;
	if (has_it == 0)
		rv = rlog_log_spare_now(s->log); /* a full disk shows before anything changes */
	if (rv == 0)
		rv = store(s, d, &of, payload);
	if (rv == 0)
		rv = follow_snapshot(s, &of, has_it);
	if (rv == 0) {
		rlog_server_end_passed_over(s, of.index);
		s->applied = of.index;
		s->stalled = false;
		s->caught_up = false;
		/* What the leader had committed it says again, with what it sends next. */
		s->catch_up_term = s->catch_up_index = 0;
		rlog_server_log(s, 'I', "state installed index=%llu term=%llu log=%s",
				(unsigned long long)of.index, (unsigned long long)of.term,
				has_it ? "kept" : "replaced");
	}
	rlog_snapshot_clear(&of);
	return rv;
}
