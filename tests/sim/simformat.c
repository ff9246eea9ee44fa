/* See simformat.h. In most runs nodes differ; a node that starts may be of an older or a newer version than it
 * was, and some are of a version that knows no levels. Checked: no node stores or applies an entry that it does
 * not read, or that its log does not say it needs; a log that needs more than a node reads is not opened, and
 * any other is. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include "server/format.h"
#include "simformat.h"

static unsigned any_level(struct sim *sim)
{
	return 1 + (unsigned)sim_below(&sim->random, SIM_LEVELS);
}

void simformat_start(struct node *n)
{
	struct sim *sim = n->sim;

	if (n->reads == 0)
		n->reads = sim->mixed ? any_level(sim) : 1;
	else if (sim->mixed && !sim->quiet_time && sim_chance(&sim->random, 30))
		n->reads = any_level(sim);
	n->former = n->reads == 1 && sim->mixed && sim_chance(&sim->random, 50);
}

void simformat_send(const struct node *n, struct rlog_message *m)
{
	if (n->former)
		m->reads = m->needs = 0;
}

void simformat_receive(const struct node *n, struct rlog_message *m)
{
	if (n->former)
		m->reads = m->needs = 1;
}

bool simformat_started(struct node *n, int result)
{
	struct simcheck *check = n->sim->check;

	if (result == 0 && n->reads < n->needs)
		simcheck_fail(check, "node %u reads level %u and opens a log that needs %u",
			      n->number + 1, n->reads, n->needs);
	if (result != -ENOTSUP)
		return false;
	if (n->reads == SIM_LEVELS)
		simcheck_fail(check, "node %u reads everything and does not open its log",
			      n->number + 1);
	n->sim->counts->refused_starts++;
	n->reads = SIM_LEVELS;
	return true;
}

void simformat_stop(struct node *n)
{
	n->needs = rlog_log_format(n->log);
	for (unsigned i = 0; i < n->sim->count; i++)
		n->greeted[i] = n->sim->nodes[i].greeted[n->number] = false;
}

static void greet(struct node *a, struct node *b)
{
	if (a->greeted[b->number] || simnet_room(a->sim->net, a->number, b->number) < 0 ||
	    simnet_room(a->sim->net, b->number, a->number) < 0)
		return;
	rlog_server_reads(a->server, b->number + 1, b->address, b->reads);
	rlog_server_reads(b->server, a->number + 1, a->address, a->reads);
	a->greeted[b->number] = b->greeted[a->number] = true;
}

void simformat_round(struct sim *sim)
{
	for (unsigned i = 0; i < sim->count; i++)
		for (unsigned j = 0; j < i; j++)
			if (sim->nodes[i].server != NULL && sim->nodes[j].server != NULL)
				greet(&sim->nodes[i], &sim->nodes[j]);
}

bool simformat_joins(struct node *n, const struct node *leader)
{
	if (n->reads == 0)
		simformat_start(n);
	if (n->reads >= rlog_server_needs(leader->server))
		return true;
	n->sim->counts->refused_joins++;
	if (n->sim->quiet_time)
		n->reads = SIM_LEVELS;
	else
		n->reads = any_level(n->sim);
	return false;
}

unsigned simformat_submit(struct node *n, uint64_t submission)
{
	struct sim *sim = n->sim;
	unsigned level = any_level(sim);

	if (!sim->mixed)
		level = 1;
	else if (level > rlog_server_format(n->server) && sim_chance(&sim->random, 90))
		level = rlog_server_format(n->server);
	if (submission >= sim->level_room) {
		sim->level_room = 2 * (submission + 512);
		sim->levels = realloc(sim->levels, sim->level_room);
		assert(sim->levels != NULL);
	}
	sim->levels[submission] = (uint8_t)level;
	return level;
}

void simformat_refused(struct sim *sim, uint64_t submission, int error)
{
	if (error != -ENOTSUP)
		return;
	sim->counts->refused_entries++;
	if (sim->levels[submission] == 1)
		simcheck_fail(sim->check, "submission %llu of level 1 was refused for its level",
			      (unsigned long long)submission);
}

void simformat_applied(struct node *n, uint64_t submission)
{
	const unsigned level = n->sim->levels[submission];

	n->sim->counts->newer_entries += level > 1;
	if (level > n->reads || level > rlog_log_format(n->log))
		simcheck_fail(n->sim->check,
			      "node %u reads level %u, its log says %u, and it has submission %llu "
			      "of level %u",
			      n->number + 1, n->reads, rlog_log_format(n->log),
			      (unsigned long long)submission, level);
}

bool simformat_fetches(struct node *n, const struct node *from)
{
	const unsigned needs = rlog_log_format(from->log);

	return needs <= n->reads && rlog_server_format_raise(n->server, needs);
}

void simformat_heal(struct node *n)
{
	if (n->sim->mixed)
		n->reads = SIM_LEVELS;
}

void simformat_free(struct sim *sim)
{
	free(sim->levels);
}
