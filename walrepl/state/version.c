/* One database as the log says it: a number that grows by one with each transaction that takes effect, the
 * checksum of its pages, and the transaction whose parts are coming in.
 *
 * In the good case a COMMIT is judged, its pages are hashed and the checksum computed that they lead to
 * (preview), and it takes effect. Why the three are apart: in a multi-commit all members are judged before the
 * first one moves.
 */
#include "state/version.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "pages/pagesum.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "sqlite/file_format.h"
#include "state/parts.h"

void wrep_version_init(struct wrep_version *v, uint64_t id)
{
	v->index = id;
}

int wrep_version_restore(struct wrep_version *v, const struct wrep_manifest_db *d, uint64_t *hash)
{
	if (v->without_sums) {
		v->sum.page_size = d->page_size;
		v->sum.page_count = d->page_count;
	} else {
		int rc = wrep_pagesum_load(&v->sum, d->page_size, d->page_count, hash);

		if (rc)
			return rc;
	}
	v->sum.sum = d->checksum;
	v->version = d->version;
	v->index = d->index;
	v->wal_mode = d->wal_mode;
	v->unverified = true;
	return 0;
}

void wrep_version_clear(struct wrep_version *v)
{
	wrep_parts_free(v->parts);
	wrep_pagesum_close(&v->sum);
	memset(v, 0, sizeof *v);
}

bool wrep_version_verify(struct wrep_version *v)
{
	if (!v->unverified)
		return true;
	if (wrep_pagesum_total(&v->sum) != v->sum.sum)
		return false;
	v->unverified = false;
	return true;
}

/* ---- parts ------------------------------------------------------------------------------------- */

struct wrep_parts *wrep_version_take_parts(struct wrep_version *v)
{
	struct wrep_parts *parts = v->parts;

	v->parts = NULL;
	return parts;
}

struct wrep_parts *wrep_version_give_up_older(struct wrep_version *v, uint64_t term)
{
	return v->parts && v->parts->term < term ? wrep_version_take_parts(v) : NULL;
}

/* A PAGES entry joins those of its transaction. Part 0, or any part of another transaction, shows
 * that the former one's COMMIT will never come: entries of one database are submitted by one node at
 * a time, in order. A gap leaves the transaction incomplete, so refused. */
int wrep_version_pages(struct wrep_version *v, const struct wrep_entry *e, uint64_t index,
		       uint64_t term, struct wrep_parts **given_up)
{
	int rc;

	*given_up = NULL;
	if (index <= v->index)
		return WREP_PAST;
	if (e->part == 0 || !wrep_parts_same(v->parts, e->origin, e->sequence) ||
	    v->parts->term != term)
		*given_up = wrep_version_take_parts(v);
	if (!v->parts && e->part == 0) {
		v->parts = wrep_parts_new(e, index, term);
		if (!v->parts)
			return -ENOMEM;
	}
	if (!v->parts || e->part != v->parts->count)
		return WREP_REFUSED;
	rc = wrep_parts_add(v->parts, e);
	return rc < 0 ? rc : WREP_TAKES_EFFECT;
}

/* Its originator gave a transaction up between two parts, or does not know what became of the COMMIT,
 * which then has either come before this or never comes. */
enum wrep_verdict wrep_version_discard(struct wrep_version *v, const struct wrep_entry *e,
				       uint64_t index, struct wrep_parts **given_up)
{
	*given_up = NULL;
	if (index <= v->index)
		return WREP_PAST;
	if (!wrep_parts_same(v->parts, e->origin, e->sequence))
		return WREP_REFUSED;
	*given_up = wrep_version_take_parts(v);
	return WREP_TAKES_EFFECT;
}

/* ---- a commit ---------------------------------------------------------------------------------- */

bool wrep_change_concerns(const struct wrep_change *c)
{
	return c->v && !c->past;
}

void wrep_change_clear(struct wrep_change *c)
{
	free(c->pages.owned);
	c->pages.owned = NULL;
}

void wrep_version_judge(struct wrep_change *c, uint64_t term)
{
	bool complete = wrep_parts_complete(c->v->parts, &c->e, term);

	c->parts = wrep_version_take_parts(c->v);
	c->holds = c->e.base_version == c->v->version && complete;
}

/* Of a COMMIT that carries all of them. */
static int hash_images(const struct wrep_entry *e, struct wrep_pages *out)
{
	out->owned = malloc(((size_t)e->image_count + 1) * sizeof *out->owned);
	if (!out->owned)
		return -ENOMEM;
	for (uint32_t i = 0; i < e->image_count; i++) {
		uint32_t pgno = wrep_entry_pgno(e, i);
		const uint8_t *page = e->images + (size_t)i * e->page_size;

		if (pgno == 1) {
			out->sets_wal_mode = true;
			out->wal_mode = wrep_page1_is_wal(page);
		}
		out->owned[i].pgno = pgno;
		out->owned[i].hash = wrep_page_hash(pgno, page, e->page_size);
	}
	out->changes = out->owned;
	out->count = e->image_count;
	return 0;
}

/* Of a COMMIT that completes `parts`. */
static int complete_parts(const struct wrep_entry *e, struct wrep_parts *parts,
			  struct wrep_pages *out)
{
	int rc = wrep_parts_settle(parts, e);

	if (rc < 0)
		return rc;
	out->changes = parts->changes;
	out->count = parts->image_count;
	out->sets_wal_mode = parts->sets_wal_mode;
	out->wal_mode = parts->wal_mode;
	return 0;
}

int wrep_version_preview(struct wrep_change *c)
{
	const struct wrep_entry *e = &c->e;
	int rc = 0;

	if (c->v->without_sums) {
		c->sum = e->checksum;
		return 0;
	}
	if (!c->pages.known)
		rc = e->part ? complete_parts(e, c->parts, &c->pages) : hash_images(e, &c->pages);
	if (!rc)
		c->sum = wrep_pagesum_preview(&c->v->sum, e->page_size, e->page_count,
					      c->pages.changes, c->pages.count);
	return rc;
}

int wrep_version_take_effect(struct wrep_change *c, uint64_t index)
{
	struct wrep_version *v = c->v;
	const struct wrep_entry *e = &c->e;
	int rc = 0;

	c->nothing = !c->pages.count && e->page_size == v->sum.page_size &&
		     e->page_count == v->sum.page_count;
	if (v->without_sums) {
		v->sum.page_size = e->page_size;
		v->sum.page_count = e->page_count;
	} else {
		rc = wrep_pagesum_apply(&v->sum, e->page_size, e->page_count, c->pages.changes,
					c->pages.count);
	}
	if (rc < 0)
		return rc;
	v->sum.sum = e->checksum;
	v->version++;
	v->index = index;
	if (c->pages.sets_wal_mode)
		v->wal_mode = c->pages.wal_mode;
	return 0;
}
