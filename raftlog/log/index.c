/* The index of the log in memory. A place is an offset in units of 8 bytes (records are aligned to
 * that) and a length; term, type and segment stand in sorted arrays of runs, found by bisection: a
 * log of millions of entries has a handful of terms and a segment per some thousand entries. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "log/index.h"

struct rlog_index_place {
	uint32_t offset8, len;
};
static_assert(sizeof(struct rlog_index_place) == 8, "the memory that a long log costs");

void rlog_index_init(struct rlog_index *x, uint64_t first)
{
	*x = (struct rlog_index){.first = first, .last = first - 1};
}

void rlog_index_free(struct rlog_index *x)
{
	free(x->places);
	free(x->terms.at);
	free(x->segments.at);
	*x = (struct rlog_index){0};
}

static int grow(void **at, size_t *room, size_t need, size_t size)
{
	size_t more = *room ? *room : 64;
	void *bigger;

	if (need <= *room)
		return 0;
	while (more < need)
		more *= 2;
	bigger = realloc(*at, more * size);
	if (!bigger)
		return -ENOMEM;
	*at = bigger;
	*room = more;
	return 0;
}

static int runs_reserve(struct rlog_index_runs *runs, size_t count)
{
	return grow((void **)&runs->at, &runs->room, runs->count + count, sizeof(*runs->at));
}

int rlog_index_reserve(struct rlog_index *x, size_t count)
{
	size_t have = (size_t)(x->last + 1 - x->first);

	if (grow((void **)&x->places, &x->room, have + count, sizeof(*x->places)) < 0 ||
	    runs_reserve(&x->terms, count) < 0 || runs_reserve(&x->segments, 1) < 0)
		return -ENOMEM;
	return 0;
}

static void runs_append(struct rlog_index_runs *runs, uint64_t first, uint64_t value, uint8_t type)
{
	struct rlog_index_run *last = runs->count ? &runs->at[runs->count - 1] : NULL;

	if (last && last->value == value && last->type == type)
		return;
	assert(runs->count < runs->room && (!last || last->first < first));
	runs->at[runs->count++] = (struct rlog_index_run){first, value, type};
}

static void runs_truncate(struct rlog_index_runs *runs, uint64_t index)
{
	while (runs->count > 0 && runs->at[runs->count - 1].first >= index)
		runs->count--;
}

static const struct rlog_index_run *runs_find(const struct rlog_index_runs *runs, uint64_t index)
{
	size_t low = 0, high = runs->count; /* the answer is in front of high */

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (runs->at[mid].first <= index)
			low = mid + 1;
		else
			high = mid;
	}
	return low > 0 ? &runs->at[low - 1] : NULL;
}

void rlog_index_add(struct rlog_index *x, uint64_t term, uint8_t type, uint32_t len)
{
	uint64_t index = ++x->last;

	assert(index - x->first < x->room);
	x->places[index - x->first] = (struct rlog_index_place){.len = len};
	runs_append(&x->terms, index, term, type);
}

void rlog_index_place(struct rlog_index *x, uint64_t index, uint64_t seq, uint64_t offset)
{
	assert(index >= x->first && index <= x->last);
	assert(offset > 0 && offset % 8 == 0 && offset / 8 <= UINT32_MAX);
	x->places[index - x->first].offset8 = (uint32_t)(offset / 8);
	runs_append(&x->segments, index, seq, 0);
}

/* The run that `index` is in becomes the first. */
static void runs_drop(struct rlog_index_runs *runs, uint64_t index)
{
	size_t gone = 0;

	while (gone + 1 < runs->count && runs->at[gone + 1].first <= index)
		gone++;
	runs->count -= gone;
	memmove(runs->at, runs->at + gone, runs->count * sizeof(*runs->at));
}

void rlog_index_drop(struct rlog_index *x, uint64_t index)
{
	size_t left;

	assert(index <= x->last + 1);
	if (index <= x->first)
		return;
	left = (size_t)(x->last + 1 - index);
	memmove(x->places, x->places + (index - x->first), left * sizeof(*x->places));
	x->first = index;
	runs_drop(&x->terms, index);
	runs_drop(&x->segments, index);
	if (left == 0)
		x->terms.count = x->segments.count = 0;
}

void rlog_index_truncate(struct rlog_index *x, uint64_t index)
{
	assert(index >= x->first);
	if (index > x->last)
		return;
	x->last = index - 1;
	runs_truncate(&x->terms, index);
	runs_truncate(&x->segments, index);
}

bool rlog_index_get(const struct rlog_index *x, uint64_t index, struct rlog_index_entry *e)
{
	const struct rlog_index_run *term, *segment;
	const struct rlog_index_place *place;

	if (index < x->first || index > x->last)
		return false;
	place = &x->places[index - x->first];
	term = runs_find(&x->terms, index);
	segment = place->offset8 ? runs_find(&x->segments, index) : NULL;
	*e = (struct rlog_index_entry){
		.term = term->value,
		.type = term->type,
		.len = place->len,
		.seq = segment ? segment->value : 0,
		.offset = (uint64_t)place->offset8 * 8,
	};
	return true;
}
