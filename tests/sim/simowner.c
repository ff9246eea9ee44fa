/* The owner of a node's log, which keeps a state of its own beside it.
 *
 * The state is the sequence of all entries applied, of which a hash chain stands for the whole. Like a
 * database it is in memory up to the entry applied last, and durable up to some earlier one. At random the
 * owner makes it durable and takes a snapshot of that; when the node is told that it needs the state of
 * another, or the state is damaged, it gets an image of the leader's, some time later has the state that
 * this describes, and installs it. Power may fail anywhere in between: what was durable is still there,
 * and a state that was being replaced counts as damaged.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sim.h"

struct payload {
	uint64_t index, chain;
};

static struct rlog_buf *payload_new(uint64_t index, uint64_t chain)
{
	const struct payload p = {index, chain};
	struct rlog_buf *buf = rlog_buf_new(sizeof p);

	assert(buf != NULL);
	memcpy(buf->data, &p, sizeof p);
	return buf;
}

/* The state that a snapshot tells of, which must be the one that belongs to its index. */
static struct payload payload_of(struct node *n, const struct rlog_snapshot *s, const char *whose)
{
	struct payload p = {0};

	if (s->payload_len == sizeof p)
		memcpy(&p, s->payload, sizeof p);
	if (p.index != s->index || p.chain != simcheck_chain(n->sim->check, p.index))
		simcheck_fail(n->sim->check,
			      "the %s snapshot of node %u at %llu tells of another state", whose,
			      n->number + 1, (unsigned long long)s->index);
	return p;
}

static uint64_t snapshot_index(const struct node *n)
{
	const struct rlog_snapshot *s = rlog_log_snapshot(n->log);

	return s != NULL ? s->index : 0;
}

void owner_start(struct node *n)
{
	const struct rlog_snapshot *s = rlog_log_snapshot(n->log);
	struct owner *o = &n->owner;

	n->last = 0;
	o->chain = 0;
	if (s == NULL)
		return;
	o->chain = payload_of(n, s, "stored").chain;
	n->last = s->index;
	if (!o->damaged && o->durable < s->index)
		simcheck_fail(n->sim->check,
			      "node %u has a snapshot at %llu, its owner's state ends at %llu",
			      n->number + 1, (unsigned long long)s->index,
			      (unsigned long long)o->durable);
}

void owner_stop(struct node *n)
{
	struct owner *o = &n->owner;

	rlog_buf_unref(o->image);
	rlog_buf_unref(o->fetched);
	*o = (struct owner){.keeps = o->keeps, .durable = o->durable, .damaged = o->damaged};
}

void owner_applied(struct node *n, uint64_t index, uint64_t submission)
{
	n->owner.chain = simcheck_link(n->owner.chain, index, submission);
	if (n->owner.chain != simcheck_chain(n->sim->check, index))
		simcheck_fail(n->sim->check,
			      "node %u has another history than the cluster up to index %llu",
			      n->number + 1, (unsigned long long)index);
}

/* Now and then the power fails in one of the calls to come. */
static void arm(struct node *n, unsigned calls)
{
	if (n->sim->quiet_time || !sim_chance(&n->sim->random, 4))
		return;
	memdisk_power_fail_at(n->disk, 1 + (unsigned)sim_below(&n->sim->random, calls));
	n->power_fails = true;
}

/* ---- taking a snapshot -------------------------------------------------------------------- */

static void begin_snapshot(struct node *n)
{
	struct sim_random *r = &n->sim->random;
	struct owner *o = &n->owner;
	const uint64_t old = snapshot_index(n), applied = n->server->applied;
	uint64_t index = applied;
	struct rlog_buf *payload;
	int rv;

	if (applied == 0 || applied < old)
		return;
	if (!o->wanted && sim_chance(r, 50))
		index -= sim_below(r, applied - old + 1);
	if (index == 0)
		return;
	o->wanted = false;
	if (o->durable < index)
		o->durable = index;
	payload = payload_new(index, simcheck_chain(n->sim->check, index));
	rv = rlog_server_image(n->server, index, payload, &o->image);
	rlog_buf_unref(payload);
	if (rv != 0) {
		o->image = NULL;
		simcheck_fail(n->sim->check, "node %u cannot take a snapshot at %llu: %s",
			      n->number + 1, (unsigned long long)index, strerror(-rv));
		return;
	}
	o->stored = false;
	o->keep_bytes = o->keeps ? 10000000 : sim_chance(r, 60) ? 0 : sim_below(r, 300000);
	o->store_round = n->sim->round + sim_below(r, 40);
}

static void go_on_with_snapshot(struct node *n)
{
	struct sim *sim = n->sim;
	struct owner *o = &n->owner;
	const uint64_t first = rlog_log_first(n->log);
	int rv;

	if (o->store_round > sim->round)
		return;
	if (!o->stored) {
		arm(n, 12); /* in storing it, or in letting go of segments */
		rv = rlog_snapshot_store(memdisk_disk(n->disk), o->image);
		o->stored = rv == 0;
		o->store_round = sim->round + sim_below(&sim->random, 20);
		if (rv == 0)
			return;
		if (rv != -ENOSPC && !memdisk_is_off(n->disk))
			simcheck_fail(sim->check, "node %u cannot store a snapshot: %s",
				      n->number + 1, strerror(-rv));
	} else {
		rv = rlog_server_snapshot(n->server, o->image, o->keep_bytes);
		if (rv != 0 && rlog_server_failure(n->server) == NULL)
			simcheck_fail(sim->check, "node %u does not accept its snapshot: %s",
				      n->number + 1, strerror(-rv));
		sim->counts->snapshots++;
		sim->counts->compactions += rlog_log_first(n->log) > first;
	}
	sim->counts->cut += memdisk_is_off(n->disk);
	rlog_buf_unref(o->image);
	o->image = NULL;
}

/* ---- getting a state ---------------------------------------------------------------------- */

static void fetch_from(struct node *n, unsigned from)
{
	struct owner *o = &n->owner;

	if (o->fetching || from == n->number)
		return;
	o->fetching = true;
	o->from = from;
	o->fetch_round = n->sim->round + sim_below(&n->sim->random, 400);
}

void owner_needs_state(void *ctx, uint64_t leader_id, const char *leader_address)
{
	struct node *n = ctx;

	assert(leader_id >= 1 && leader_id <= n->sim->count);
	if (strcmp(leader_address, n->sim->nodes[leader_id - 1].address) != 0)
		simcheck_fail(n->sim->check, "needs_state with the address %s", leader_address);
	fetch_from(n, (unsigned)leader_id - 1);
}

/* Mostly the leader; an image of any other node is of what is committed, too. */
static unsigned somebody(struct sim *sim, unsigned leader)
{
	unsigned other = (unsigned)sim_below(&sim->random, sim->count);

	return !sim->quiet_time && sim_chance(&sim->random, 20) && sim->nodes[other].exists
		       ? other
		       : leader;
}

void owner_fetch(struct node *n, bool damaged)
{
	const char *address;
	uint64_t leader = rlog_server_leader(n->server, &address);

	/* Whom a sole voter could not hand over to, it cannot get a state from either. */
	if (!n->owner.damaged &&
	    (rlog_server_sole_voter(n->server) || n->server->raft.configuration_uncommitted_index != 0))
		return;
	if (damaged && leader != 0 && leader != n->number + 1) {
		n->owner.damaged = true;
		n->owner.durable = 0;
		sim_say(n->sim, n, "the state is damaged");
	}
	if (leader != 0)
		fetch_from(n, somebody(n->sim, (unsigned)leader - 1));
}

static void end_fetch(struct owner *o)
{
	rlog_buf_unref(o->fetched);
	o->fetched = NULL;
	o->fetching = false;
}

static void get_image(struct node *n)
{
	struct sim *sim = n->sim;
	struct node *from = &sim->nodes[n->owner.from];
	const struct rlog_snapshot *s = from->log != NULL ? rlog_log_snapshot(from->log) : NULL;

	if (from->log != NULL && (s == NULL || s->index + 1 < rlog_log_first(n->log)))
		from->owner.wanted = true;
	if (s == NULL) {
		end_fetch(&n->owner);
		return;
	}
	n->owner.fetched = rlog_buf_ref(s->image);
	n->owner.fetch_round = sim->round;
	switch (sim_below(&sim->random, 10)) {
	case 0:
		n->owner.fetch_round += sim_below(&sim->random, sim->quiet_time ? 8000 : 30000);
		break;
	case 1:
		n->owner.fetch_round += sim_below(&sim->random, 8000);
		break;
	default:
		n->owner.fetch_round += sim_below(&sim->random, 400);
	}
}

static void install(struct node *n)
{
	struct sim *sim = n->sim;
	struct owner *o = &n->owner;
	const uint64_t first = rlog_log_first(n->log);
	struct rlog_snapshot s;
	struct rlog_buf *payload;
	struct payload p;
	int rv = rlog_snapshot_decode(o->fetched, CLUSTER, &s);
	char line[100];

	assert(rv == 0);
	p = payload_of(n, &s, "fetched");
	rlog_snapshot_clear(&s);
	/* The files are those of the image now, whatever becomes of the rest. */
	o->damaged = true;
	o->durable = p.index;
	payload = payload_new(p.index, p.chain);
	arm(n, 16);
	rv = rlog_server_install(n->server, memdisk_disk(n->disk), o->fetched, payload);
	rlog_buf_unref(payload);
	sim_trace(sim, 'i', n->number, p.index * 100 + (uint64_t)-rv);
	snprintf(line, sizeof line, "installing index=%llu: %s", (unsigned long long)p.index,
		 strerror(-rv));
	sim_say(sim, n, line);
	if (rv == 0) {
		o->damaged = false;
		o->chain = p.chain;
		n->last = p.index;
		n->caught_up = false;
		if (rlog_log_first(n->log) != first)
			sim->counts->replaced++;
		else
			sim->counts->kept++;
		if (n->server->applied != p.index)
			simcheck_fail(sim->check, "node %u goes on from %llu after installing %llu",
				      n->number + 1, (unsigned long long)n->server->applied,
				      (unsigned long long)p.index);
	} else if (rv == -EAGAIN) {
		sim->counts->too_old++;
		sim->nodes[o->from].owner.wanted = true;
	} else if (rv != -EALREADY && rv != -ENOSPC && !memdisk_is_off(n->disk)) {
		simcheck_fail(sim->check, "node %u cannot install a state: %s", n->number + 1,
			      strerror(-rv));
	}
	sim->counts->cut += memdisk_is_off(n->disk);
	end_fetch(o);
}

void owner_round(struct node *n)
{
	struct sim *sim = n->sim;
	struct owner *o = &n->owner;

	if (o->image != NULL)
		go_on_with_snapshot(n);
	else if (!o->damaged && (o->wanted || sim_below(&sim->random, 1500) == 0))
		begin_snapshot(n);
	if (rlog_server_failure(n->server) != NULL || memdisk_is_off(n->disk))
		return;

	if (o->damaged && rlog_server_leads(n->server))
		rlog_server_transfer(n->server, 0, 1000);
	if (!o->fetching &&
	    (o->damaged || (!sim->quiet_time && sim_below(&sim->random, 20000) == 0)))
		owner_fetch(n, false);
	if (!o->fetching || o->fetch_round > sim->round)
		return;
	if (o->fetched == NULL)
		get_image(n);
	else if (o->image == NULL && !rlog_server_writing(n->server))
		install(n);
}

bool owner_quiet(const struct node *n)
{
	return !n->owner.damaged && !n->owner.fetching;
}
