/* The owner of a node's log, which keeps a state of its own beside it.
 *
 * The state is walrepl's replicated state: all names, and databases at their versions, with the hashes of their
 * pages but without files (tests/rig/state_rig.h). A hash chain stands for the sequence of all entries applied.
 * Like a database the state is in memory up to the entry applied last, and durable up to some earlier one. At
 * random the owner notes down its state, one database after the other while entries are applied, makes that
 * durable and takes a snapshot of it; when the node is told that it needs the state of
 * another, or the state is damaged, it gets an image of the leader's, some time later has the state that
 * this describes, and installs it. Power may fail anywhere in between: what was durable is still there,
 * and a state that was being replaced counts as damaged.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "sim.h"
#include "simformat.h"

/* Behind it comes what the state was restored from. */
struct payload {
	uint64_t index, chain;
};

static struct rlog_buf *payload_new(uint64_t index, uint64_t chain, const struct rlog_buf *state)
{
	const struct payload p = {index, chain};
	struct rlog_buf *buf = rlog_buf_new(sizeof p + state->len);

	assert(buf != NULL);
	memcpy(buf->data, &p, sizeof p);
	memcpy(buf->data + sizeof p, state->data, state->len);
	return buf;
}

/* The state that a snapshot tells of, which must be the one that belongs to its index. */
static struct payload payload_of(struct node *n, const struct rlog_snapshot *s, const char *whose)
{
	struct payload p = {0};

	if (s->payload_len >= sizeof p)
		memcpy(&p, s->payload, sizeof p);
	if (p.index != s->index || p.chain != simcheck_chain(n->sim->check, p.index))
		simcheck_fail(n->sim->check,
			      "the %s snapshot of node %u at %llu tells of another state", whose,
			      n->number + 1, (unsigned long long)s->index);
	return p;
}

/* Everything up to `index` is applied. While what a restart began with is not passed, the state is in between. */
static void compare_state(struct node *n, uint64_t index)
{
	if (index >= n->owner.state->as_of)
		simcheck_state(n->sim->check, n->number, index, state_rig_hash(n->owner.state));
}

static void drop_state(struct owner *o)
{
	if (o->state == NULL)
		return;
	rig_snapshot_clear(&o->noting, o->state);
	o->noting = (struct rig_snapshot){0};
	state_rig_free(o->state);
	o->state = NULL;
}

/* Begin with what a snapshot says. */
static void take_up_state(struct node *n, const struct rlog_snapshot *s)
{
	drop_state(&n->owner);
	n->owner.state = state_rig_restore((const uint8_t *)s->payload + sizeof(struct payload),
					   s->payload_len - sizeof(struct payload));
	compare_state(n, s->index);
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
	if (s == NULL) {
		o->state = state_rig_new();
		return;
	}
	o->chain = payload_of(n, s, "stored").chain;
	n->last = s->index;
	take_up_state(n, s);
	if (!o->damaged && o->durable < s->index)
		simcheck_fail(n->sim->check,
			      "node %u has a snapshot at %llu, its owner's state ends at %llu",
			      n->number + 1, (unsigned long long)s->index,
			      (unsigned long long)o->durable);
}

static void drop_entries(struct owner *o)
{
	while (o->made_at < o->made_count)
		rlog_buf_unref(o->made[o->made_at++]);
}

void owner_stop(struct node *n)
{
	struct owner *o = &n->owner;

	rlog_buf_unref(o->image);
	rlog_buf_unref(o->fetched);
	drop_entries(o);
	drop_state(o);
	*o = (struct owner){.keeps = o->keeps, .durable = o->durable, .damaged = o->damaged};
}

/* ---- entries ------------------------------------------------------------------------------ */

/* In front of an entry. */
struct head {
	uint64_t submission, hash; /* over the entry */
};

/* A name that is changed, or a transaction: its entries. */
static void make_entries(struct node *n)
{
	struct owner *o = &n->owner;
	struct rig_author author = {.random = &n->sim->random,
				    .origin = sim_random(&n->sim->random),
				    .large_percent = 5,
				    .waits = true};

	o->made_at = o->made_count = 0;
	/* Nobody writes before the state is what it was. */
	if (!o->damaged && n->server->applied >= o->state->as_of)
		o->made_count = rig_entries(&author, o->state, o->made);
}

bool owner_has_more(const struct node *n)
{
	return n->owner.made_at < n->owner.made_count;
}

struct rlog_buf *owner_entry(struct node *n, uint64_t submission)
{
	struct owner *o = &n->owner;
	struct rlog_buf *entry, *buf;
	struct head head = {.submission = submission};

	if (!owner_has_more(n))
		make_entries(n);
	if (!owner_has_more(n))
		return NULL;
	entry = o->made[o->made_at++];
	head.hash = XXH3_64bits(entry->data, entry->len);
	buf = rlog_buf_new(sizeof head + entry->len);
	assert(buf != NULL);
	memcpy(buf->data, &head, sizeof head);
	memcpy(buf->data + sizeof head, entry->data, entry->len);
	rlog_buf_unref(entry);
	return buf;
}

static void count_entry(struct sim_counts *counts, uint8_t type, int verdict)
{
	counts->effects += verdict == WREP_TAKES_EFFECT;
	counts->refusals += verdict == WREP_REFUSED;
	counts->past += verdict == WREP_PAST;
	counts->multi += verdict == WREP_TAKES_EFFECT && type == WREP_ENTRY_GROUP;
	counts->parts += verdict == WREP_TAKES_EFFECT && type == WREP_ENTRY_PAGES;
}

uint64_t owner_applied(struct node *n, struct wrep_log_position at, const struct rlog_buf *buf)
{
	struct owner *o = &n->owner;
	struct simcheck *check = n->sim->check;
	struct rlog_buf *entry;
	struct head head;
	int verdict;

	if (buf->len < sizeof head) {
		simcheck_fail(check, "damaged payload at index %llu", (unsigned long long)at.index);
		return 0;
	}
	memcpy(&head, buf->data, sizeof head);
	entry = rlog_buf_new(buf->len - sizeof head);
	assert(entry != NULL);
	memcpy(entry->data, buf->data + sizeof head, entry->len);
	if (XXH3_64bits(entry->data, entry->len) != head.hash)
		simcheck_fail(check, "damaged payload at index %llu", (unsigned long long)at.index);
	simcheck_applied(check, n->number, n->last, at.index, at.term, head.submission);
	o->chain = simcheck_link(o->chain, at.index, head.submission);
	if (o->chain != simcheck_chain(check, at.index))
		simcheck_fail(check,
			      "node %u has another history than the cluster up to index %llu",
			      n->number + 1, (unsigned long long)at.index);
	verdict = state_rig_apply(o->state, at, entry);
	if (verdict < 0)
		simcheck_fail(check, "node %u cannot apply the entry at index %llu: %s",
			      n->number + 1, (unsigned long long)at.index, strerror(-verdict));
	count_entry(n->sim->counts, entry->data[0], verdict);
	compare_state(n, at.index);
	rlog_buf_unref(entry);
	return head.submission;
}

void owner_verify(struct node *n)
{
	for (struct rig_db *db = n->owner.state->dbs; db != NULL; db = db->next)
		if (!wrep_version_verify(&db->version))
			simcheck_fail(n->sim->check, "the page sums of node %u do not add up",
				      n->number + 1);
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

	if (applied == 0 || applied < old || applied < o->state->as_of)
		return;
	if (!o->wanted && sim_chance(r, 50))
		index -= sim_below(r, applied - old + 1);
	if (index == 0)
		return;
	o->wanted = false;
	rig_snapshot_begin(&o->noting, o->state, applied, index);
	o->note_round = n->sim->round;
}

/* All of the state is noted: it may lie before what was meant, as parts of a transaction must stay in the log. */
static void take_snapshot(struct node *n)
{
	struct sim_random *r = &n->sim->random;
	struct owner *o = &n->owner;
	struct rlog_buf *state = rig_snapshot_end(&o->noting, o->state, n->server->applied);
	const uint64_t index = o->noting.index;
	struct rlog_buf *payload;
	int rv;

	rig_snapshot_clear(&o->noting, o->state);
	if (index == 0) {
		rlog_buf_unref(state);
		return;
	}
	if (o->durable < index)
		o->durable = index;
	payload = payload_new(index, simcheck_chain(n->sim->check, index), state);
	rv = rlog_server_image(n->server, index, payload, &o->image);
	rlog_buf_unref(payload);
	rlog_buf_unref(state);
	if (rv != 0) {
		o->image = NULL;
		simcheck_fail(n->sim->check, "node %u cannot take a snapshot at %llu: %s",
			      n->number + 1, (unsigned long long)index, strerror(-rv));
		return;
	}
	o->image_index = index;
	o->stored = false;
	o->keep_bytes = o->keeps ? 10000000 : sim_chance(r, 60) ? 0 : sim_below(r, 300000);
	o->store_round = n->sim->round + sim_below(r, 40);
}

static void go_on_noting(struct node *n)
{
	struct owner *o = &n->owner;

	if (o->note_round > n->sim->round)
		return;
	o->note_round = n->sim->round + sim_below(&n->sim->random, 30);
	if (!rig_snapshot_note(&o->noting, o->state))
		take_snapshot(n);
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
		wrep_multi_list_forget(&o->state->state->multi, o->image_index);
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
	if (s == NULL || !simformat_fetches(n, from)) {
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
	struct rlog_buf *payload;
	struct rlog_snapshot s;
	struct payload p;
	int rv = rlog_snapshot_decode(o->fetched, CLUSTER, &s);
	char line[100];

	assert(rv == 0);
	p = payload_of(n, &s, "fetched");
	/* The files are those of the image now, whatever becomes of the rest. */
	o->damaged = true;
	o->durable = p.index;
	payload = rlog_buf_new(s.payload_len);
	assert(payload != NULL);
	memcpy(payload->data, s.payload, s.payload_len);
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
		take_up_state(n, &s);
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
	rlog_snapshot_clear(&s);
	end_fetch(o);
}

void owner_round(struct node *n)
{
	struct sim *sim = n->sim;
	struct owner *o = &n->owner;

	if (o->image != NULL)
		go_on_with_snapshot(n);
	else if (o->state->noting && o->damaged)
		rig_snapshot_clear(&o->noting, o->state);
	else if (o->state->noting)
		go_on_noting(n);
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
