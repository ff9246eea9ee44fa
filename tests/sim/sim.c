/* Whole clusters in one process, from one seed.
 *
 *   dqlitefs-sim --seeds N [--first S] | --seed S   [--nodes 3|5] [--verbose]
 *
 * The real server and the real log of every node run on a disk in memory that loses what was not
 * synced (memdisk.h), a network in memory (simnet.h) and a clock that only this loop moves. A run
 * begins with one bootstrapped node; the others join. For twenty seconds of virtual time requests are
 * submitted and things go wrong: nodes lose power, also in the middle of a write or while making a
 * file, connections break, the network splits or slows, disks fill up, receivers are full,
 * leadership is handed over, the states of owners are damaged. All the time owners take snapshots, logs are
 * shortened, and whoever is left behind fetches the state of another (simowner.c). In most runs nodes are of
 * different versions, up and down with their restarts (simformat.c). Then everything heals, and the cluster
 * must converge and accept writes.
 *
 * Checked all along (simcheck.h holds the history): at most one leader per term; every node applies
 * a prefix of one common sequence; nothing is applied before this node's disk has it; nothing is
 * acknowledged before the disks of a majority have it; what a disk was said to hold is there after a
 * power failure, or in a snapshot that is; what was refused is never applied, anywhere; what a node has
 * applied or taken over is the common history, all of it.
 *
 * The entries are walrepl's, with page images: changes of names and transactions, made at random on what the node
 * that submits them has applied. What they lead to is the replicated state, moved by walrepl's own rules
 * (state/state.h), and must be the same on all nodes behind each index, also where a node began again with a
 * snapshot that was not of one moment.
 *
 * The same seed gives the same run: the trace, a hash over all that happened, is printed with it.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "sim.h"
#include "simformat.h"

#define TROUBLE_MS 20000
#define HEAL_MS 30000
#define SUBMISSIONS_OPEN 200
#define ALL_HAPPENS_SEEDS 50 /* as many runs see everything that the simulator can do */

struct submission {
	struct rlog_request req;
	struct sim *sim;
	uint64_t number;
};

void sim_trace(struct sim *sim, uint64_t what, uint64_t a, uint64_t b)
{
	const uint64_t parts[] = {sim->trace, sim->round, what, a, b};

	sim->trace = XXH3_64bits(parts, sizeof parts);
}

void sim_say(const struct sim *sim, const struct node *n, const char *what)
{
	if (sim->verbose)
		printf("%8llu.%u node %d: %s\n", (unsigned long long)sim->now,
		       (unsigned)(sim->round % ROUNDS_PER_MS), n == NULL ? 0 : (int)n->number + 1,
		       what);
}

/* ---- what the server calls ---------------------------------------------------------------- */

static int64_t io_room(void *ctx, uint64_t id, const char *address)
{
	struct node *n = ctx;

	(void)address;
	assert(id >= 1 && id <= n->sim->count);
	return simnet_room(n->sim->net, n->number, (unsigned)id - 1);
}

static void io_send(void *ctx, uint64_t id, const char *address, const struct rlog_message *m)
{
	struct node *n = ctx;
	struct rlog_message own = *m;
	struct rlog_frame *f;
	uint8_t *bytes, *at;

	(void)address;
	simformat_send(n, &own);
	f = rlog_frame_new(&own);
	assert(f != NULL);
	at = bytes = malloc(f->bytes);
	for (unsigned i = 0; i < f->iov_count; i++) {
		memcpy(at, f->iov[i].iov_base, f->iov[i].iov_len);
		at += f->iov[i].iov_len;
	}
	simnet_send(n->sim->net, n->number, (unsigned)id - 1, bytes, f->bytes);
	free(bytes);
	rlog_frame_free(f);
}

static void io_write(void *ctx, const struct rlog_log_write *w)
{
	struct node *n = ctx;
	struct sim_random *r = &n->sim->random;

	assert(!n->writing);
	memdisk_write_start(n->disk, w);
	n->writing = true;
	n->write_round = n->sim->round + 1 + sim_below(r, 6);
	if (sim_chance(r, 1))
		n->write_round += sim_below(r, 3000);
}

static void io_members(void *ctx)
{
	(void)ctx;
}

/* The voters of a configuration whose disks hold (index, term), against how many are a majority. */
static bool majority_holds(const struct sim *sim, const struct raft_configuration *conf,
			   uint64_t index, uint64_t term)
{
	unsigned voters = 0, holding = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		const struct node *n = &sim->nodes[conf->servers[i].id - 1];
		uint64_t there;
		uint8_t type;
		size_t len;

		if (conf->servers[i].role != RAFT_VOTER)
			continue;
		voters++;
		if (n->log == NULL)
			holding += index <= n->snapshot_index ||
				   (index < n->term_count && n->terms[index] == term);
		else if (rlog_log_snapshot(n->log) != NULL &&
			 index <= rlog_log_snapshot(n->log)->index)
			holding++;
		else
			holding += rlog_log_durable(n->log) >= index &&
				   rlog_log_describe(n->log, index, &there, &type, &len) == 0 &&
				   there == term;
	}
	return holding > voters / 2;
}

static int on_apply(void *ctx, uint64_t index, uint64_t term, struct rlog_buf *buf,
		    struct rlog_request *req)
{
	struct node *n = ctx;
	struct sim *sim = n->sim;
	const struct raft *r = &n->server->raft;
	uint64_t number;

	if (n->owner.damaged || sim_chance(&sim->random, n->full_percent))
		return -EAGAIN;
	if (rlog_log_durable(n->log) < index)
		simcheck_fail(sim->check, "node %u applies index %llu before its disk has it",
			      n->number + 1, (unsigned long long)index);
	number = owner_applied(n, (struct wrep_log_position){index, term}, buf);
	simformat_applied(n, number);
	n->last = index;
	sim_trace(sim, 'a', n->number, index);
	if (req != NULL) {
		struct submission *s = (struct submission *)req;

		if (s->number != number)
			simcheck_fail(sim->check,
				      "submission %llu is acknowledged with the entry of %llu",
				      (unsigned long long)s->number, (unsigned long long)number);
		/* The configuration may have moved on between commit and apply. */
		if (!majority_holds(sim, &r->configuration, index, term) &&
		    !majority_holds(sim, &r->configuration_committed, index, term))
			simcheck_fail(
				sim->check,
				"submission %llu is acknowledged, but no majority of disks has "
				"index %llu",
				(unsigned long long)number, (unsigned long long)index);
		simcheck_told(sim->check, number, SIM_COMMITTED);
		sim->open--;
		free(s);
	}
	return 0;
}

static void on_done(struct rlog_request *req, enum rlog_outcome outcome)
{
	struct submission *s = (struct submission *)req;

	simformat_refused(s->sim, s->number, req->error);
	simcheck_told(s->sim->check, s->number,
		      outcome == RLOG_REFUSED ? SIM_REFUSED : SIM_UNKNOWN);
	sim_trace(s->sim, 'd', s->number, (uint64_t)outcome);
	s->sim->open--;
	free(s);
}

static void on_view(void *ctx, const struct rlog_view *view)
{
	struct node *n = ctx;

	if (view->role == RLOG_LEADER)
		simcheck_leads(n->sim->check, view->term, n->number);
	sim_trace(n->sim, 'v', n->number, view->term * 8 + (uint64_t)view->role * 2 + view->ready);
}

static void on_caught_up(void *ctx)
{
	struct node *n = ctx;

	n->caught_up = true;
	sim_say(n->sim, n, "caught up");
}

static void on_log(void *ctx, char level, const char *line)
{
	const struct node *n = ctx;

	(void)level;
	sim_say(n->sim, n, line);
}

/* ---- a node's life ------------------------------------------------------------------------ */

/* Power fails: the disk keeps what it must and some of what it may. */
static void node_down(struct node *n, uint64_t rounds)
{
	struct sim *sim = n->sim;

	n->term_count = rlog_log_durable(n->log) + 1;
	n->terms = realloc(n->terms, n->term_count * sizeof *n->terms);
	n->terms[0] = 0;
	for (uint64_t i = 1; i < n->term_count; i++)
		n->terms[i] = rlog_server_term_of(n->server, i);
	n->snapshot_index =
		rlog_log_snapshot(n->log) != NULL ? rlog_log_snapshot(n->log)->index : 0;
	simformat_stop(n);
	owner_stop(n);
	rlog_server_free(n->server);
	rlog_log_close(n->log);
	n->server = NULL;
	n->log = NULL;
	n->writing = false;
	n->power_fails = false;
	memdisk_crash(n->disk);
	simnet_node_down(sim->net, n->number, true);
	n->up_round = sim->round + rounds;
	sim_trace(sim, 'x', n->number, rounds);
	sim_say(sim, n, "power failure");
}

/* The log has all that it was said to hold, but for what the snapshot has. When the snapshot contradicts
 * the log, or the log did not reach it, all of the log may be gone. */
static void check_durable(struct node *n)
{
	const struct rlog_snapshot *s = rlog_log_snapshot(n->log);
	const uint64_t index = s != NULL ? s->index : 0;

	if (s == NULL && n->snapshot_index > 0)
		simcheck_fail(n->sim->check, "node %u lost its snapshot", n->number + 1);
	if (index >= n->term_count && index > 0)
		return;
	if (index > 0 && n->terms[index] != 0 && n->terms[index] != s->term)
		return;
	for (uint64_t i = 1; i < n->term_count; i++) {
		uint64_t there = rlog_server_term_of(n->server, i);

		if (there != n->terms[i] && n->terms[i] != 0 && (there != 0 || i > index)) {
			simcheck_fail(
				n->sim->check,
				"node %u lost durable index %llu of term %llu in a power failure",
				n->number + 1, (unsigned long long)i,
				(unsigned long long)n->terms[i]);
			break;
		}
	}
}

static void node_open(struct node *n)
{
	struct sim *sim = n->sim;
	struct rlog_log_options options = {.cluster_id = CLUSTER,
					   .node_id = n->number + 1,
					   .segment_bytes = sim->segment_bytes,
					   .cache_bytes = 64 << 10,
					   .format_reads = n->reads,
					   .log = on_log,
					   .ctx = n};
	struct rlog_server_config config = {
		.id = n->number + 1,
		.address = n->address,
		.commit_timeout_ms = 2000,
		.seed = (unsigned)sim_random(&sim->random),
		.format_reads = n->reads,
		.io = {n, io_room, io_send, io_write, io_members, NULL},
		.cb = {on_apply, on_view, on_caught_up, NULL, on_log, NULL, owner_needs_state},
		.ctx = n,
	};
	char errmsg[RLOG_ERRMSG_SIZE];
	int rv;

	n->caught_up = false;
	rv = rlog_log_open(&n->log, memdisk_disk(n->disk), &options, errmsg);
	if (rv == 0) {
		owner_start(n);
		rv = rlog_server_new(&n->server, &config, n->log, sim->now, errmsg);
		if (rv != 0)
			rlog_log_close(n->log);
	}
	if (simformat_started(n, rv)) {
		n->log = NULL;
		n->up_round = sim->round + 1;
		return;
	}
	if (rv != 0) {
		n->log = NULL;
		if (memdisk_is_off(n->disk)) {
			memdisk_crash(n->disk);
			n->up_round = sim->round + 400;
			return;
		}
		simcheck_fail(sim->check, "node %u does not start: %s", n->number + 1, errmsg);
		return;
	}
	check_durable(n);
	simnet_node_down(sim->net, n->number, false);
	sim_say(sim, n, "started");
}

static void node_up(struct node *n)
{
	simformat_start(n);
	node_open(n);
}

static void node_create(struct node *n)
{
	struct rlog_log_options options = {.cluster_id = CLUSTER,
					   .node_id = n->number + 1,
					   .segment_bytes = n->sim->segment_bytes};
	struct rlog_record first = {.index = 1, .term = 1, .type = RAFT_CHANGE};
	char errmsg[RLOG_ERRMSG_SIZE];
	struct raft_configuration conf;
	struct raft_buffer encoded;

	n->disk = memdisk_new(sim_random(&n->sim->random));
	raft_configuration_init(&conf);
	raft_configuration_add(&conf, n->number + 1, n->address, RAFT_VOTER);
	raft_configuration_encode(&conf, &encoded);
	raft_configuration_close(&conf);
	first.buf = rlog_buf_new(encoded.len);
	memcpy(first.buf->data, encoded.base, encoded.len);
	raft_free(encoded.base);
	if (rlog_log_create(memdisk_disk(n->disk), &options, n->number == 0 ? &first : NULL,
			    errmsg) != 0)
		simcheck_fail(n->sim->check, "cannot make a log: %s", errmsg);
	rlog_buf_unref(first.buf);
	n->exists = true;
	if (n->reads == 0)
		simformat_start(n);
	node_open(n);
}

static void node_receive(struct node *n)
{
	unsigned from;
	size_t len;
	uint8_t *bytes = simnet_receive(n->sim->net, n->number, &from, &len);
	struct rlog_frame_header h;
	struct rlog_message m;

	if (bytes == NULL)
		return;
	sim_trace(n->sim, 'm', n->number * 8 + from, XXH3_64bits(bytes, len));
	if (rlog_frame_header_read(bytes, &h) != 0 ||
	    rlog_message_read(&h, bytes + RLOG_FRAME_HEADER, &m) != 0) {
		simcheck_fail(n->sim->check, "a message of node %u does not decode", from + 1);
	} else {
		simformat_receive(n, &m);
		rlog_server_receive(n->server, from + 1, n->sim->nodes[from].address, &m);
	}
	free(bytes);
}

/* One round of one node: the events are there or not, in any number; then its turn ends. */
static void node_round(struct node *n)
{
	struct sim *sim = n->sim;
	struct sim_random *r = &sim->random;

	rlog_server_now(n->server, sim->now);
	for (uint64_t i = 1 + sim_below(r, 4); i > 0; i--)
		node_receive(n);
	if (n->writing && n->write_round <= sim->round) {
		n->writing = false;
		rlog_server_written(n->server, memdisk_write_finish(n->disk));
	}
	for (unsigned i = 0; i < sim->count; i++)
		rlog_server_room(n->server, i + 1);
	if (rlog_server_deadline(n->server) <= sim->now)
		rlog_server_tick(n->server);
	rlog_server_turn(n->server);
	if (sim_chance(r, 70)) /* the power may fail in between */
		rlog_server_deliver(n->server);
	if (n->server->stalled && sim_chance(r, 20))
		rlog_server_resume(n->server);
	if (rlog_server_failure(n->server) == NULL)
		owner_round(n);
	if (rlog_server_failure(n->server) != NULL || memdisk_is_off(n->disk)) {
		if (!memdisk_is_off(n->disk))
			simcheck_fail(sim->check, "node %u stops: %s", n->number + 1,
				      rlog_server_failure(n->server));
		node_down(n, 400 + sim_below(r, 4000));
	}
}

/* ---- trouble ------------------------------------------------------------------------------ */

static struct node *any_leader(struct sim *sim)
{
	unsigned begin = (unsigned)sim_below(&sim->random, sim->count);

	for (unsigned k = 0; k < sim->count; k++) {
		struct node *n = &sim->nodes[(begin + k) % sim->count];

		if (n->server != NULL && rlog_server_leads(n->server))
			return n;
	}
	return NULL;
}

/* False: there is nothing to be submitted. */
static bool submit(struct sim *sim, struct node *n)
{
	struct submission *s = calloc(1, sizeof *s);

	s->sim = sim;
	s->number = simcheck_submitted(sim->check);
	s->req.done = on_done;
	s->req.buf = owner_entry(n, s->number);
	if (s->req.buf == NULL) {
		free(s);
		return false;
	}
	s->req.format = simformat_submit(n, s->number);
	sim->open++;
	rlog_server_submit(n->server, &s->req);
	return true;
}

static void submit_some(struct sim *sim)
{
	struct node *n = any_leader(sim);

	if (sim_chance(&sim->random, 2)) /* whoever, leader or not */
		n = &sim->nodes[sim_below(&sim->random, sim->count)];
	if (n == NULL || n->server == NULL || sim->open >= SUBMISSIONS_OPEN)
		return;
	for (unsigned left = 1 + (unsigned)sim_below(&sim->random, 4); left > 0; left--) {
		/* Between two entries of one transaction much may happen. */
		if (!submit(sim, n) || (owner_has_more(n) && sim_chance(&sim->random, 20)))
			break;
	}
}

static void grow_cluster(struct sim *sim)
{
	struct node *leader = any_leader(sim);
	uint64_t index, term;

	for (unsigned i = 0; i < sim->count && leader != NULL; i++) {
		struct node *n = &sim->nodes[i];
		int rv;

		if (n->exists)
			continue;
		if (!simformat_joins(n, leader))
			return;
		rv = rlog_server_add(leader->server, i + 1, n->address, &index, &term);
		if (rv == -EALREADY)
			node_create(n); /* this one is answered: it is a member */
		return;
	}
}

static void make_trouble(struct sim *sim)
{
	struct sim_random *r = &sim->random;
	struct node *n = &sim->nodes[sim_below(r, sim->count)];
	struct node *leader = any_leader(sim);

	if (leader != NULL && sim_chance(r, 40))
		n = leader;
	switch (sim_below(r, 14)) {
	case 0:
	case 1:
	case 2:
		if (n->server != NULL)
			node_down(n, sim_below(r, 8000));
		break;
	case 3: /* in the middle of making a file, or of storing the term */
		if (n->server != NULL) {
			memdisk_power_fail_at(n->disk, 1 + (unsigned)sim_below(r, 4));
			n->power_fails = true;
		}
		break;
	case 4:
		simnet_split(sim->net, (unsigned)sim_below(r, 1u << sim->count), sim_chance(r, 30));
		sim_say(sim, NULL, "the network splits");
		break;
	case 5:
	case 6:
		simnet_split(sim->net, 0, false);
		simnet_slow(sim->net, 4);
		break;
	case 7:
		simnet_slow(sim->net, 1 + (unsigned)sim_below(r, 100));
		break;
	case 8:
		if (n->server != NULL)
			rlog_server_transfer(n->server,
					     sim_chance(r, 50) ? 0 : 1 + sim_below(r, sim->count),
					     1000);
		break;
	case 9:
		if (n->exists)
			memdisk_set_capacity(n->disk, sim_chance(r, 50) ? 1 : 0);
		break;
	case 10:
		n->full_percent = sim_chance(r, 50) ? (unsigned)sim_below(r, 90) : 0;
		break;
	case 11:
		for (unsigned i = 0; i < sim->count; i++)
			if (sim_chance(r, 50))
				simnet_break(sim->net, n->number, i);
		break;
	case 12:
	case 13:
		if (n->server != NULL)
			owner_fetch(n, sim_chance(r, 50));
		break;
	}
}

/* ---- a run -------------------------------------------------------------------------------- */

static void round_of_all(struct sim *sim)
{
	unsigned begin = (unsigned)sim_below(&sim->random, sim->count);

	sim->round++;
	sim->now = 1000 + sim->round / ROUNDS_PER_MS;
	simnet_advance(sim->net, sim->round);
	simformat_round(sim);
	for (unsigned k = 0; k < sim->count; k++) {
		struct node *n = &sim->nodes[(begin + k) % sim->count];

		if (n->server != NULL)
			node_round(n);
		else if (n->exists && n->up_round <= sim->round)
			node_up(n);
	}
}

static void heal(struct sim *sim)
{
	simnet_split(sim->net, 0, false);
	simnet_slow(sim->net, 4);
	sim->quiet_time = true;
	for (unsigned i = 0; i < sim->count; i++) {
		struct node *n = &sim->nodes[i];

		n->full_percent = 0;
		n->up_round = sim->round;
		simformat_heal(n);
		if (n->exists) {
			memdisk_set_capacity(n->disk, 0);
			if (n->server != NULL && (n->power_fails || sim->mixed))
				node_down(n, 0);
		}
	}
	sim_say(sim, NULL, "everything heals");
}

/* All are members and voters, and all have applied all there is, with nothing open. */
static bool converged(struct sim *sim)
{
	struct node *leader = any_leader(sim);

	if (leader == NULL || !rlog_server_ready(leader->server) || sim->open > 0)
		return false;
	for (unsigned i = 0; i < sim->count; i++) {
		const struct node *n = &sim->nodes[i];
		const struct raft *r;

		if (n->server == NULL || !n->caught_up || !owner_quiet(n) ||
		    n->server->applied < simcheck_last(sim->check) ||
		    n->owner.chain != simcheck_chain(sim->check, simcheck_last(sim->check)))
			return false;
		r = &n->server->raft;
		if (r->configuration.n != sim->count || r->configuration_uncommitted_index != 0)
			return false;
		for (unsigned j = 0; j < r->configuration.n; j++)
			if (r->configuration.servers[j].role != RAFT_VOTER)
				return false;
	}
	return true;
}

static void finish(struct sim *sim)
{
	const uint64_t until = sim->now + HEAL_MS;
	uint64_t number;
	struct node *leader;

	heal(sim);
	while (!converged(sim) && sim->now < until && simcheck_failure(sim->check) == NULL) {
		if (sim->round % (50 * ROUNDS_PER_MS) == 0)
			grow_cluster(sim);
		round_of_all(sim);
	}
	if (simcheck_failure(sim->check) != NULL)
		return;
	if (!converged(sim)) {
		for (unsigned i = 0; i < sim->count; i++) {
			const struct node *n = &sim->nodes[i];
			char line[160];

			if (n->server == NULL)
				continue;
			snprintf(
				line, sizeof line,
				"state=%u term=%llu last=%llu durable=%llu commit=%llu applied=%llu "
				"members=%u caught_up=%d",
				n->server->raft.state,
				(unsigned long long)n->server->raft.current_term,
				(unsigned long long)rlog_log_last(n->log),
				(unsigned long long)rlog_log_durable(n->log),
				(unsigned long long)n->server->raft.commit_index,
				(unsigned long long)n->server->applied,
				n->server->raft.configuration.n, n->caught_up);
			sim_say(sim, n, line);
		}
		simcheck_fail(sim->check, "the cluster does not converge after healing");
		return;
	}
	/* A transfer begun in bad times may still refuse the first. */
	number = simcheck_last(sim->check);
	for (unsigned i = 0; i < 5000 * ROUNDS_PER_MS; i++) {
		leader = any_leader(sim);
		if (converged(sim) && simcheck_last(sim->check) > number) {
			for (unsigned k = 0; k < sim->count; k++)
				owner_verify(&sim->nodes[k]);
			return;
		}
		if (sim->open == 0 && leader != NULL && simcheck_last(sim->check) == number)
			submit(sim, leader);
		round_of_all(sim);
	}
	if (simcheck_last(sim->check) == number)
		simcheck_fail(sim->check, "the healed cluster takes no writes");
	else
		simcheck_fail(sim->check, "the healed cluster does not converge again");
}

static bool run(uint64_t seed, unsigned count, bool verbose, struct sim_counts *all)
{
	struct sim sim = {.seed = seed,
			  .count = count,
			  .verbose = verbose,
			  .random = {seed},
			  .counts = all};
	uint64_t counts[4];
	const char *failure;

	sim.check = simcheck_new();
	sim.net = simnet_new(&sim.random, count);
	sim.now = 1000;
	sim.mixed = sim_chance(&sim.random, 70);
	sim.segment_bytes = (size_t)16384 << sim_below(&sim.random, 5);
	for (unsigned i = 0; i < count; i++) {
		sim.nodes[i].sim = &sim;
		sim.nodes[i].number = i;
		sim.nodes[i].owner.keeps = sim_chance(&sim.random, 30);
		snprintf(sim.nodes[i].address, sizeof sim.nodes[i].address, "node%u:1", i + 1);
	}
	node_create(&sim.nodes[0]);
	while (sim.now < 1000 + TROUBLE_MS && simcheck_failure(sim.check) == NULL) {
		if (sim_below(&sim.random, 9) == 0)
			submit_some(&sim);
		if (sim_below(&sim.random, 400 * ROUNDS_PER_MS) == 0)
			make_trouble(&sim);
		if (sim.round % (50 * ROUNDS_PER_MS) == 0)
			grow_cluster(&sim);
		round_of_all(&sim);
	}
	if (simcheck_failure(sim.check) == NULL)
		finish(&sim);

	failure = simcheck_failure(sim.check);
	simcheck_counts(sim.check, counts);
	if (failure != NULL)
		printf("seed %llu FAILED at %llu ms: %s\n    again: dqlitefs-sim --seed %llu --nodes %u "
		       "--verbose\n",
		       (unsigned long long)seed, (unsigned long long)sim.now, failure,
		       (unsigned long long)seed, count);
	else if (verbose)
		printf("seed %llu nodes=%u committed=%llu refused=%llu unknown=%llu\n",
		       (unsigned long long)seed, count, (unsigned long long)counts[SIM_COMMITTED],
		       (unsigned long long)counts[SIM_REFUSED],
		       (unsigned long long)counts[SIM_UNKNOWN]);
	if (verbose)
		printf("trace %016llx\n", (unsigned long long)sim.trace);
	for (unsigned i = 0; i < count; i++) {
		struct node *n = &sim.nodes[i];

		owner_stop(n);
		if (n->server != NULL) {
			rlog_server_free(n->server);
			rlog_log_close(n->log);
		}
		if (n->disk != NULL)
			memdisk_free(n->disk);
		free(n->terms);
	}
	simformat_free(&sim);
	simnet_free(sim.net);
	simcheck_free(sim.check);
	fflush(stdout);
	return failure == NULL;
}

static int usage(void)
{
	fprintf(stderr, "usage: dqlitefs-sim --seeds N [--first S] | --seed S  [--nodes 3|5] "
			"[--verbose]\n");
	return 2;
}

int main(int argc, char **argv)
{
	uint64_t first = 1, seeds = 0;
	unsigned nodes = 0, passed = 0, failed = 0;
	bool verbose = false;
	struct sim_counts all = {0};

	for (int i = 1; i < argc; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--verbose") == 0) {
			verbose = true;
			continue;
		}
		if (value == NULL)
			return usage();
		if (strcmp(argv[i], "--seeds") == 0) {
			seeds = strtoull(value, NULL, 0);
		} else if (strcmp(argv[i], "--first") == 0) {
			first = strtoull(value, NULL, 0);
		} else if (strcmp(argv[i], "--seed") == 0) {
			first = strtoull(value, NULL, 0);
			seeds = 1;
		} else if (strcmp(argv[i], "--nodes") == 0) {
			nodes = (unsigned)strtoul(value, NULL, 0);
			if (nodes != 3 && nodes != 5)
				return usage();
		} else {
			return usage();
		}
		i++;
	}
	if (seeds == 0)
		return usage();
	for (uint64_t seed = first; seed < first + seeds; seed++) {
		if (run(seed, nodes != 0 ? nodes : seed % 2 == 0 ? 5 : 3, verbose, &all))
			passed++;
		else
			failed++;
	}
	printf("entries_took_effect=%llu refused=%llu past=%llu multi_commits=%llu parts=%llu\n",
	       (unsigned long long)all.effects, (unsigned long long)all.refusals,
	       (unsigned long long)all.past, (unsigned long long)all.multi,
	       (unsigned long long)all.parts);
	printf("snapshots=%llu compactions=%llu installs_log_kept=%llu installs_log_replaced=%llu "
	       "images_too_old=%llu cut_by_power=%llu\n",
	       (unsigned long long)all.snapshots, (unsigned long long)all.compactions,
	       (unsigned long long)all.kept, (unsigned long long)all.replaced,
	       (unsigned long long)all.too_old, (unsigned long long)all.cut);
	printf("entries_of_newer_levels=%llu refused_for_their_level: entries=%llu starts=%llu joins=%llu\n",
	       (unsigned long long)all.newer_entries, (unsigned long long)all.refused_entries,
	       (unsigned long long)all.refused_starts, (unsigned long long)all.refused_joins);
	if (seeds >= ALL_HAPPENS_SEEDS &&
	    (all.compactions == 0 || all.kept == 0 || all.replaced == 0 || all.too_old == 0 ||
	     all.cut == 0 || all.effects == 0 || all.refusals == 0 || all.past == 0 ||
	     all.multi == 0 || all.parts == 0 || all.newer_entries == 0 ||
	     all.refused_entries == 0 || all.refused_starts == 0 || all.refused_joins == 0)) {
		printf("FAILED: something of this never happened, and so was not tested\n");
		failed++;
	}
	printf("%u passed, %u failed\n", passed, failed);
	return failed == 0 ? 0 : 1;
}
