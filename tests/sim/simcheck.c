/* See simcheck.h. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "simcheck.h"

struct place {
	uint64_t term, submission; /* submission 0: not applied anywhere (a barrier, a change) */
	uint64_t chain;
	bool state_known;
	uint64_t state; /* a hash over the replicated state behind it */
};

struct simcheck {
	char failure[256];
	unsigned *leaders; /* by term: 1 + node */
	uint64_t leader_count;
	struct place *history; /* by index */
	uint64_t history_count, last;
	struct {
		enum sim_told told;
		uint64_t index;
	} * submissions;
	uint64_t submission_count, submission_room;
};

static void *grow(void *array, uint64_t *count, uint64_t need, size_t each)
{
	uint64_t more = *count;

	if (need < more)
		return array;
	while (need >= more)
		more = more * 2 + 64;
	array = realloc(array, more * each);
	assert(array != NULL);
	memset((char *)array + *count * each, 0, (more - *count) * each);
	*count = more;
	return array;
}

struct simcheck *simcheck_new(void)
{
	struct simcheck *c = calloc(1, sizeof *c);

	assert(c != NULL);
	return c;
}

void simcheck_free(struct simcheck *c)
{
	free(c->leaders);
	free(c->history);
	free(c->submissions);
	free(c);
}

const char *simcheck_failure(const struct simcheck *c)
{
	return c->failure[0] != 0 ? c->failure : NULL;
}

void simcheck_fail(struct simcheck *c, const char *fmt, ...)
{
	va_list ap;

	if (c->failure[0] != 0)
		return;
	va_start(ap, fmt);
	vsnprintf(c->failure, sizeof c->failure, fmt, ap);
	va_end(ap);
}

void simcheck_leads(struct simcheck *c, uint64_t term, unsigned node)
{
	c->leaders = grow(c->leaders, &c->leader_count, term, sizeof *c->leaders);
	if (c->leaders[term] != 0 && c->leaders[term] != node + 1)
		simcheck_fail(c, "nodes %u and %u both lead term %llu", c->leaders[term], node + 1,
			      (unsigned long long)term);
	c->leaders[term] = node + 1;
}

uint64_t simcheck_submitted(struct simcheck *c)
{
	uint64_t number = ++c->submission_count;

	c->submissions = grow(c->submissions, &c->submission_room, number, sizeof *c->submissions);
	return number;
}

void simcheck_told(struct simcheck *c, uint64_t number, enum sim_told told)
{
	assert(number <= c->submission_count);
	if (c->submissions[number].told != SIM_NOTHING)
		simcheck_fail(c, "submission %llu ended twice", (unsigned long long)number);
	if (told == SIM_REFUSED && c->submissions[number].index != 0)
		simcheck_fail(c, "submission %llu was refused, but is applied at index %llu",
			      (unsigned long long)number,
			      (unsigned long long)c->submissions[number].index);
	c->submissions[number].told = told;
}

void simcheck_applied(struct simcheck *c, unsigned node, uint64_t after, uint64_t index,
		      uint64_t term, uint64_t number)
{
	struct place *place;

	if (index <= after || number == 0 || number > c->submission_count) {
		simcheck_fail(c, "node %u applies index %llu (submission %llu) after %llu",
			      node + 1, (unsigned long long)index, (unsigned long long)number,
			      (unsigned long long)after);
		return;
	}
	c->history = grow(c->history, &c->history_count, index, sizeof *c->history);
	for (uint64_t i = after + 1; i < index; i++)
		if (c->history[i].submission != 0)
			simcheck_fail(c, "node %u skips index %llu", node + 1,
				      (unsigned long long)i);
	place = &c->history[index];
	if (place->submission != 0) {
		if (place->submission != number || place->term != term)
			simcheck_fail(c,
				      "node %u applies submission %llu of term %llu at index %llu, "
				      "where %llu of term %llu was committed",
				      node + 1, (unsigned long long)number,
				      (unsigned long long)term, (unsigned long long)index,
				      (unsigned long long)place->submission,
				      (unsigned long long)place->term);
		return;
	}
	if (index < c->last)
		simcheck_fail(c, "node %u applies index %llu, which others passed over", node + 1,
			      (unsigned long long)index);
	if (c->submissions[number].index != 0)
		simcheck_fail(c, "submission %llu is applied at index %llu and at %llu",
			      (unsigned long long)number,
			      (unsigned long long)c->submissions[number].index,
			      (unsigned long long)index);
	if (c->submissions[number].told == SIM_REFUSED)
		simcheck_fail(c, "node %u applies submission %llu, which was refused", node + 1,
			      (unsigned long long)number);
	place->chain = simcheck_link(simcheck_chain(c, index - 1), index, number);
	place->submission = number;
	place->term = term;
	c->submissions[number].index = index;
	c->last = index;
}

uint64_t simcheck_link(uint64_t chain, uint64_t index, uint64_t submission)
{
	const uint64_t parts[] = {chain, index, submission};

	return XXH3_64bits(parts, sizeof parts);
}

/* The last of those up to `index` that was applied, or 0. */
static uint64_t last_applied(const struct simcheck *c, uint64_t index)
{
	if (index > c->last)
		index = c->last;
	while (index > 0 && c->history[index].submission == 0)
		index--;
	return index;
}

uint64_t simcheck_chain(const struct simcheck *c, uint64_t index)
{
	index = last_applied(c, index);
	return index > 0 ? c->history[index].chain : 0;
}

void simcheck_state(struct simcheck *c, unsigned node, uint64_t index, uint64_t state)
{
	struct place *place;

	index = last_applied(c, index);
	if (index == 0)
		return;
	place = &c->history[index];
	if (place->state_known && place->state != state)
		simcheck_fail(c, "node %u has another state than the cluster behind index %llu",
			      node + 1, (unsigned long long)index);
	place->state_known = true;
	place->state = state;
}

uint64_t simcheck_last(const struct simcheck *c)
{
	return c->last;
}

void simcheck_counts(const struct simcheck *c, uint64_t counts[4])
{
	memset(counts, 0, 4 * sizeof *counts);
	for (uint64_t i = 1; i <= c->submission_count; i++)
		counts[c->submissions[i].told]++;
}
