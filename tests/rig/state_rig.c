/* See state_rig.h. */
#include "state_rig.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct state_rig *state_rig_new(void)
{
	struct state_rig *r = calloc(1, sizeof *r);

	assert(r);
	r->state = wrep_state_new();
	assert(r->state);
	return r;
}

static void free_db(struct rig_db *db)
{
	wrep_version_clear(&db->version);
	free(db);
}

void state_rig_free(struct state_rig *r)
{
	struct rig_db *db;

	if (!r)
		return;
	while ((db = r->dbs)) {
		r->dbs = db->next;
		free_db(db);
	}
	wrep_state_free(r->state);
	free(r);
}

static struct rig_db *add_db(struct state_rig *r, uint64_t id)
{
	struct rig_db *db = calloc(1, sizeof *db);

	assert(db);
	wrep_version_init(&db->version, id);
	db->id = id;
	db->next = r->dbs;
	r->dbs = db;
	return db;
}

static struct rig_db *find_db(struct state_rig *r, uint64_t id)
{
	struct rig_db *db = r->dbs;

	while (db && db->id != id)
		db = db->next;
	return db;
}

static void sweep(struct state_rig *r)
{
	struct rig_db **at = &r->dbs;

	while (*at) {
		struct rig_db *db = *at;

		if (db->removed) {
			*at = db->next;
			free_db(db);
		} else {
			at = &db->next;
		}
	}
}

static void remove_db(struct state_rig *r, uint64_t id)
{
	find_db(r, id)->removed = true;
	if (!r->noting)
		sweep(r);
}

/* ---- entries ----------------------------------------------------------------------------------- */

static int change_names(struct state_rig *r, uint64_t index, const struct wrep_entry *e)
{
	struct wrep_name_effect effect;
	int rc = wrep_state_change_names(r->state, index, e, &effect);

	assert(!rc);
	if (effect.verdict != WREP_TAKES_EFFECT)
		return effect.verdict;
	if (e->type == WREP_ENTRY_CREATE)
		wrep_state_attach(r->state, index, &add_db(r, index)->version);
	if (e->type == WREP_ENTRY_UNLINK)
		remove_db(r, e->db_id);
	if (effect.replaced)
		remove_db(r, effect.replaced);
	return effect.verdict;
}

static int commit(struct state_rig *r, struct wrep_log_position at, struct wrep_change *changes,
		  uint32_t count)
{
	const struct wrep_change *bad = NULL;
	int rc;

	for (uint32_t i = 0; i < count; i++)
		changes[i].v = wrep_state_version(r->state, changes[i].e.db_id);
	rc = count == 1 ? wrep_state_commit(r->state, at, changes)
			: wrep_state_multi_commit(r->state, at, changes, count, &bad);
	for (uint32_t i = 0; i < count; i++) {
		wrep_parts_free(changes[i].parts);
		wrep_change_clear(&changes[i]);
	}
	return rc;
}

static int multi_commit(struct state_rig *r, struct wrep_log_position at, const struct wrep_entry *e,
			const struct rlog_buf *buf)
{
	struct wrep_change *changes = calloc(e->member_count + 1, sizeof *changes);
	uint32_t count = 0;
	size_t member = 0;
	int rc;

	assert(changes);
	while (wrep_entry_member(buf, &member, &changes[count].e))
		count++;
	rc = commit(r, at, changes, count);
	free(changes);
	return rc;
}

static void enter_term(struct state_rig *r, uint64_t term)
{
	if (term <= r->term)
		return;
	r->term = term;
	for (struct rig_db *db = r->dbs; db; db = db->next)
		wrep_parts_free(wrep_version_give_up_older(&db->version, term));
}

int state_rig_apply(struct state_rig *r, struct wrep_log_position at, const struct rlog_buf *buf)
{
	struct wrep_parts *given_up = NULL;
	struct wrep_change c = {0};
	struct wrep_version *v;
	int rc = wrep_entry_decode(buf, &c.e);

	if (rc)
		return rc;
	enter_term(r, at.term);
	v = wrep_state_version(r->state, c.e.db_id);
	switch (c.e.type) {
	case WREP_ENTRY_COMMIT:
		return commit(r, at, &c, 1);
	case WREP_ENTRY_GROUP:
		return multi_commit(r, at, &c.e, buf);
	case WREP_ENTRY_PAGES:
		rc = v ? wrep_version_pages(v, &c.e, at.index, at.term, &given_up) : WREP_REFUSED;
		break;
	case WREP_ENTRY_DISCARD:
		rc = v ? (int)wrep_version_discard(v, &c.e, at.index, &given_up) : WREP_REFUSED;
		break;
	default:
		return change_names(r, at.index, &c.e);
	}
	wrep_parts_free(given_up);
	return rc;
}

/* ---- comparing --------------------------------------------------------------------------------- */

static void hash_name(void *arg, struct wrep_tree_node *n)
{
	const struct wrep_version *v = n->is_dir ? NULL : n->data;
	const struct wrep_parts *p = v ? v->parts : NULL;
	const uint64_t words[] = {
		n->id,
		n->is_dir,
		XXH3_64bits(n->path, strlen(n->path)),
		v ? v->version : 0,
		v ? v->index : 0,
		v ? v->wal_mode : 0,
		v ? v->sum.sum : 0,
		v ? v->sum.page_size : 0,
		v ? v->sum.page_count : 0,
		p ? p->origin : 0,
		p ? p->sequence : 0,
		p ? p->term : 0,
		p ? p->count : 0,
		p ? XXH3_64bits(p->changes, p->image_count * sizeof *p->changes) : 0,
	};

	*(uint64_t *)arg += XXH3_64bits(words, sizeof words);
}

uint64_t state_rig_hash(const struct state_rig *r)
{
	uint64_t hash = 0;

	wrep_tree_each(r->state->names, hash_name, &hash);
	return hash;
}

/* ---- snapshots --------------------------------------------------------------------------------- */

static void note_name(void *arg, struct wrep_tree_node *n)
{
	struct wrep_manifest *m = arg;

	if (n->is_dir) {
		struct wrep_manifest_dir *d = wrep_manifest_add_dir(m);

		assert(d);
		strcpy(d->path, n->path);
		d->id = n->id;
	} else {
		struct wrep_manifest_db *d = wrep_manifest_add(m);

		assert(d);
		strcpy(d->name, n->path);
		d->id = d->index = n->id;
	}
}

void rig_snapshot_begin(struct rig_snapshot *s, struct state_rig *r, uint64_t applied,
			uint64_t index)
{
	*s = (struct rig_snapshot){.index = index};
	r->noting = true;
	s->manifest.names_index = applied;
	wrep_tree_each(r->state->names, note_name, &s->manifest);
	wrep_manifest_sort(&s->manifest);
	wrep_manifest_sort_dirs(&s->manifest);
}

bool rig_snapshot_note(struct rig_snapshot *s, struct state_rig *r)
{
	struct wrep_manifest_db *d;
	struct rig_db *db;

	if (s->noted == s->manifest.count)
		return false;
	d = &s->manifest.dbs[s->noted++];
	db = find_db(r, d->id);
	assert(db);
	d->version = db->version.version;
	d->index = db->version.index;
	d->gone = db->removed;
	if (db->removed)
		return true;
	if (db->version.parts && db->version.parts->first_index <= s->index)
		s->index = db->version.parts->first_index - 1;
	d->checksum = db->version.sum.sum;
	d->page_size = db->version.sum.page_size;
	d->page_count = db->version.sum.page_count;
	d->wal_mode = db->version.wal_mode;
	return true;
}

/* Behind the manifest, which is padded to eight bytes: how long it is, as_of, and the hashes of each database. */
struct rlog_buf *rig_snapshot_end(struct rig_snapshot *s, struct state_rig *r, uint64_t applied)
{
	struct wrep_manifest *m = &s->manifest;
	struct rlog_buf *manifest, *buf;
	size_t padded, hashes = 0;
	uint64_t *out;

	m->redo_until = applied;
	assert(!wrep_multi_list_note(&r->state->multi, applied, m));
	manifest = wrep_manifest_encode(m);
	assert(manifest);
	padded = (manifest->len + 7) / 8 * 8;
	for (size_t i = 0; i < m->count; i++)
		hashes += m->dbs[i].page_count;
	buf = rlog_buf_new(16 + padded + hashes * 8);
	assert(buf);
	memset(buf->data, 0, buf->len);
	memcpy(buf->data, (const uint64_t[]){manifest->len, applied}, 16);
	memcpy(buf->data + 16, manifest->data, manifest->len);
	out = (uint64_t *)(void *)(buf->data + 16 + padded);
	for (size_t i = 0; i < m->count; i++) {
		const struct wrep_pagesum *sum = &find_db(r, m->dbs[i].id)->version.sum;

		for (uint32_t p = 0; p < m->dbs[i].page_count; p++)
			*out++ = p < sum->page_count ? sum->hash[p] : 0;
	}
	rlog_buf_unref(manifest);
	return buf;
}

void rig_snapshot_clear(struct rig_snapshot *s, struct state_rig *r)
{
	r->noting = false;
	sweep(r);
	wrep_manifest_clear(&s->manifest);
}

struct state_rig *state_rig_restore(const uint8_t *bytes, size_t len)
{
	struct state_rig *r = state_rig_new();
	struct rlog_buf *manifest;
	struct wrep_manifest m;
	const uint8_t *from;
	uint64_t head[2];

	assert(len >= sizeof head);
	memcpy(head, bytes, sizeof head);
	manifest = rlog_buf_new(head[0]);
	memcpy(manifest->data, bytes + 16, manifest->len);
	assert(!wrep_manifest_decode(manifest, &m));
	rlog_buf_unref(manifest);
	r->as_of = head[1];
	assert(!wrep_state_restore(r->state, &m, 0));
	for (size_t i = 0; i < m.dir_count; i++)
		assert(!wrep_state_restore_name(r->state, m.dirs[i].id, m.dirs[i].path, true,
						NULL));
	from = bytes + 16 + (head[0] + 7) / 8 * 8;
	for (size_t i = 0; i < m.count; i++) {
		const struct wrep_manifest_db *d = &m.dbs[i];
		struct rig_db *db = add_db(r, d->id);
		uint64_t *hash = malloc((d->page_count + 1) * sizeof *hash);

		memcpy(hash, from, d->page_count * sizeof *hash);
		from += d->page_count * sizeof *hash;
		assert(!wrep_version_restore(&db->version, d, hash));
		assert(!wrep_state_restore_name(r->state, d->id, d->name, false, &db->version));
	}
	assert(from == bytes + len);
	wrep_manifest_clear(&m);
	return r;
}
