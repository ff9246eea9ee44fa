/* Which multi-commits (GROUP entries) took effect.
 *
 * Applying them again. A restart delivers the log again from the snapshot S on, and passes over what a
 * database already has, by the index that the manifest gives for it (snapshot/restore.c). For a multi-commit
 * that is not enough: the manifest is not of one moment, so it may have one member in front of the entry and
 * another behind it, or removed in the meantime, and whether it took effect cannot be told any more from a
 * database that is past it. So this is written down: the manifest names the multi-commits behind S that took
 * effect, up to the last entry that was delivered (`judged_until`) when all databases had been noted. What a
 * database was noted to have is not above it, and a database that was there at S, but had gone when it was
 * to be noted, was removed by an entry that is not above it either. Hence:
 *
 *   one up to judged_until    takes effect if it is named, on the members that do not have it yet;
 *                             those that have it, or are gone, need no look
 *   one behind it             no member has it, and each is there if and only if it was when the entry
 *                             was first delivered: it is judged anew
 *
 * The list begins behind S again whenever a snapshot is taken. It is the same for a peer that fetches (the
 * leader's manifest comes with it, and the pages, however new, change nothing about versions); a database
 * that the leader has removed since, the peer keeps until the log removes it there (repair/fetch.c).
 */
#include "state/multi_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "record/manifest.h"

void wrep_multi_list_clear(struct wrep_multi_list *l)
{
	free(l->indices);
	memset(l, 0, sizeof *l);
}

int wrep_multi_list_add(struct wrep_multi_list *l, uint64_t index)
{
	if (l->count && index <= l->indices[l->count - 1])
		return 0; /* applied again */
	if (l->count == l->room) {
		size_t room = l->room ? 2 * l->room : 8;
		uint64_t *more = reallocarray(l->indices, room, sizeof *more);

		if (!more)
			return -ENOMEM;
		l->indices = more;
		l->room = room;
	}
	l->indices[l->count++] = index;
	return 0;
}

bool wrep_multi_list_has(const struct wrep_multi_list *l, uint64_t index)
{
	size_t from = 0, to = l->count;

	while (from < to) {
		size_t middle = from + (to - from) / 2;

		if (l->indices[middle] < index)
			from = middle + 1;
		else
			to = middle;
	}
	return from < l->count && l->indices[from] == index;
}

void wrep_multi_list_forget(struct wrep_multi_list *l, uint64_t index)
{
	size_t old = 0;

	while (old < l->count && l->indices[old] <= index)
		old++;
	if (old)
		memmove(l->indices, l->indices + old, (l->count - old) * sizeof *l->indices);
	l->count -= old;
}

int wrep_multi_list_adopt(struct wrep_multi_list *l, const struct wrep_manifest *m)
{
	int rc = 0;

	wrep_multi_list_clear(l);
	l->judged_until = m->judged_until;
	for (size_t i = 0; i < m->group_count && !rc; i++)
		rc = wrep_multi_list_add(l, m->groups[i]);
	return rc;
}

int wrep_multi_list_note(const struct wrep_multi_list *l, uint64_t delivered,
			 struct wrep_manifest *m)
{
	return wrep_manifest_set_groups(m, delivered, l->indices, l->count);
}
