/* What an entry of the log does.
 *
 * In the good case a COMMIT names a database by its id, the index of the entry that created it, and the version
 * that its transaction was built on. That is the database's version, all parts came before it in its own term,
 * and its pages lead to the checksum that it names: the version grows by one.
 *
 * Why all nodes that have applied the same entries have the same state. Whether an entry takes effect, and what
 * it changes, depends on the state before it and on the entry's own index, term and bytes, on nothing else: no
 * clock, no file, no other node. All nodes begin with nothing, and raftlog hands them the same entries in the
 * same order. So by induction they agree behind every entry.
 *
 * Why nothing forks. Versions grow by one with each transaction that takes effect, and a transaction takes effect
 * only on the version it was built on. Two that were built on the same version (an old leader's and a new one's,
 * or a retry after an unknown outcome) can therefore never both take effect. A database that is removed and made
 * again has another id, so no entry that was meant for the former one reaches the new one. A transaction in parts
 * is of one term: its parts and its COMMIT are submitted by one leader, terms never fall along the log, and one
 * database has one open transaction at a time. So parts that were given up never mix with another transaction.
 *
 * Why an entry that is refused changes nothing. A refused COMMIT moves no version and no page sum. It ends the
 * transaction whose parts were open: its own, which has had its COMMIT, or one that this COMMIT shows to be given
 * up, as entries of one database are submitted in order. A multi-commit judges all of its members before the
 * first one moves; it takes effect if each COMMIT in it would. A name that is refused leaves the tree as it is
 * (state/name_tree.c).
 *
 * The checksum is a proof, not a rule. Where a COMMIT has to take effect, the pages that it carried must lead this
 * node to the checksum of its originator. If they do not, this node's copy differs, and it stops taking entries
 * (-EUCLEAN) before anything has moved: the databases are fetched, and the entry is delivered again.
 *
 * Why a restart leads to the same state. A manifest gives each database at some version, with the index of the
 * entry that led to it, and the names as of names_index; the log is delivered again from its snapshot on. What a
 * database has already is past: entries up to its index do not count again, and names not up to names_index. The
 * snapshot lies before the first part of any open transaction, so the rest of the log says the same as it did the
 * first time. Of multi-commits, whose members may be on both sides, the manifest says itself which took effect
 * (state/multi_list.c). Until the redo is over, pages may be newer than their version, so checksums are taken
 * from the entries; behind it the page sums must add up to them.
 */
#include "state/state.h"

#include <errno.h>
#include <stdlib.h>
#include "record/entry.h"
#include "record/manifest.h"
#include "state/multi_list.h"
#include "state/name_tree.h"
#include "state/version.h"

struct wrep_replicated *wrep_state_new(void)
{
	struct wrep_replicated *s = calloc(1, sizeof *s);

	if (s)
		s->names = wrep_tree_new();
	if (!s || !s->names) {
		free(s);
		return NULL;
	}
	return s;
}

void wrep_state_free(struct wrep_replicated *s)
{
	if (!s)
		return;
	wrep_tree_free(s->names);
	wrep_multi_list_clear(&s->multi);
	free(s);
}

int wrep_state_restore(struct wrep_replicated *s, const struct wrep_manifest *m,
		       uint64_t last_index)
{
	s->redo_until = m->redo_until > last_index ? m->redo_until : last_index;
	s->names_index = m->names_index;
	return wrep_multi_list_adopt(&s->multi, m);
}

int wrep_state_restore_name(struct wrep_replicated *s, uint64_t id, const char *path, bool is_dir,
			    void *data)
{
	int rc = wrep_tree_add(s->names, id, path, is_dir);

	if (!rc)
		wrep_state_attach(s, id, data);
	return rc && rc != -ENOMEM ? -EBADMSG : rc;
}

void wrep_state_attach(struct wrep_replicated *s, uint64_t id, void *data)
{
	wrep_tree_find(s->names, id)->data = data;
}

struct wrep_version *wrep_state_version(const struct wrep_replicated *s, uint64_t id)
{
	const struct wrep_tree_node *n = wrep_tree_find(s->names, id);

	return n && !n->is_dir ? n->data : NULL;
}

/* ---- names ------------------------------------------------------------------------------------- */

static void refuse(struct wrep_name_effect *out, int error)
{
	out->verdict = WREP_REFUSED;
	out->error = error;
}

/* This entry changes no name again. */
static void leave(struct wrep_name_effect *out, int error)
{
	out->verdict = WREP_PAST;
	out->error = error;
}

/* How the tree takes it. 0 or -ENOMEM. */
static int done(struct wrep_name_effect *out, int rc)
{
	if (rc == -ENOMEM)
		return rc;
	if (rc)
		refuse(out, rc);
	else
		out->verdict = WREP_TAKES_EFFECT;
	return 0;
}

static void is_about(struct wrep_name_effect *out, const struct wrep_tree_node *n)
{
	out->id = n->id;
	out->parent = n->parent ? n->parent->id : 0;
	out->is_dir = n->is_dir;
	out->data = n->data;
}

static int create(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
		  struct wrep_name_effect *out)
{
	const struct wrep_tree_node *n = wrep_tree_find(s->names, index);
	int rc;

	if (n) { /* restored: it is this entry's own */
		is_about(out, n);
		leave(out, -EEXIST);
		return 0;
	}
	if (index <= s->names_index) { /* it has been removed since */
		leave(out, -EIO);
		return 0;
	}
	n = wrep_tree_find_path(s->names, e->name);
	if (n) { /* two at once: the second finds it there */
		is_about(out, n);
		refuse(out, n->is_dir ? -EISDIR : -EEXIST);
		return 0;
	}
	rc = done(out, wrep_tree_add(s->names, index, e->name, false));
	if (out->verdict == WREP_TAKES_EFFECT)
		is_about(out, wrep_tree_find(s->names, index));
	return rc;
}

static int make_directory(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
			  struct wrep_name_effect *out)
{
	const struct wrep_tree_node *n;
	int rc;

	out->is_dir = true;
	if (index <= s->names_index) {
		n = wrep_tree_find(s->names, index);
		if (n)
			is_about(out, n);
		leave(out, -EIO);
		return 0;
	}
	n = wrep_tree_find_path(s->names, e->name);
	if (n)
		is_about(out, n);
	rc = done(out, wrep_tree_add(s->names, index, e->name, true));
	if (out->verdict == WREP_TAKES_EFFECT)
		is_about(out, wrep_tree_find(s->names, index));
	return rc;
}

static int remove_database(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
			   struct wrep_name_effect *out)
{
	if (out->is_dir)
		refuse(out, -ENOENT);
	else if (index <= s->names_index)
		leave(out, -EIO);
	else
		return done(out, wrep_tree_remove(s->names, e->db_id));
	return 0;
}

static int remove_directory(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
			    struct wrep_name_effect *out)
{
	if (!out->is_dir) /* no node submits that */
		refuse(out, -ENOTDIR);
	else if (index <= s->names_index)
		/* What is restored with it was there then, so it had no effect; by now it may be empty. */
		leave(out, -EIO);
	else
		return done(out, wrep_tree_remove(s->names, e->db_id));
	return 0;
}

static int rename_database(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
			   struct wrep_name_effect *out)
{
	int rc;

	if (out->is_dir) {
		refuse(out, -ENOENT);
	} else if (index <= s->names_index) {
		leave(out, -EIO);
	} else {
		rc = wrep_tree_rename(s->names, e->db_id, e->name, e->keep, &out->replaced);
		if (rc == 0) /* it is called so already */
			refuse(out, 0);
		else
			return done(out, rc < 0 ? rc : 0);
	}
	return 0;
}

/* Attributes are set once more where they may have been before: an own transaction may have overtaken them. */
static int set_attributes(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
			  struct wrep_name_effect *out)
{
	const struct wrep_version *v = out->is_dir ? NULL : out->data;

	out->verdict = v && index <= v->index ? WREP_PAST : WREP_TAKES_EFFECT;
	return 0;
}

int wrep_state_change_names(struct wrep_replicated *s, uint64_t index, const struct wrep_entry *e,
			    struct wrep_name_effect *out)
{
	static int (*const rules[])(struct wrep_replicated *, uint64_t, const struct wrep_entry *,
				    struct wrep_name_effect *) = {
		[WREP_ENTRY_UNLINK] = remove_database,
		[WREP_ENTRY_SETATTR] = set_attributes,
		[WREP_ENTRY_RMDIR] = remove_directory,
		[WREP_ENTRY_RENAME] = rename_database,
	};
	const struct wrep_tree_node *n;

	*out = (struct wrep_name_effect){0};
	if (e->type == WREP_ENTRY_CREATE)
		return create(s, index, e, out);
	if (e->type == WREP_ENTRY_MKDIR)
		return make_directory(s, index, e, out);
	out->id = e->db_id;
	n = wrep_tree_find(s->names, e->db_id);
	if (n) {
		is_about(out, n);
		return rules[e->type](s, index, e, out);
	}
	if (index <= s->names_index)
		leave(out, -ENOENT);
	else
		refuse(out, -ENOENT);
	return 0;
}

/* ---- transactions ------------------------------------------------------------------------------ */

/* Does the checksum that the entry leads to hold here? Until a restored database is verified, what its
 * pages count is not known: it is taken from the entry. */
static bool checksum_holds(const struct wrep_replicated *s, uint64_t index, struct wrep_change *c)
{
	if (c->v->without_sums || (c->v->unverified && index <= s->redo_until))
		return true;
	if (c->v->unverified && c->lost)
		return false;
	/* The redo was over with the entry before: now they must add up. */
	return wrep_version_verify(c->v) && c->sum == c->e.checksum;
}

/* All of them are to take effect: does that lead where the entry says? 0, -EUCLEAN, -EBADMSG, -ENOMEM. */
static int preview_all(struct wrep_replicated *s, uint64_t index, struct wrep_change *changes,
		       uint32_t count, const struct wrep_change **bad)
{
	int rc = 0;

	for (uint32_t i = 0; i < count && !rc; i++) {
		struct wrep_change *c = &changes[i];

		if (!wrep_change_concerns(c))
			continue;
		if (c->holds)
			rc = wrep_version_preview(c);
		if (!rc && (!c->holds || !checksum_holds(s, index, c))) {
			*bad = c;
			rc = -EUCLEAN;
		}
	}
	return rc;
}

/* Do they all hold, as far as it is to be judged here? */
static bool judge_all(struct wrep_log_position at, struct wrep_change *changes, uint32_t count)
{
	bool hold = true;

	for (uint32_t i = 0; i < count; i++) {
		struct wrep_change *c = &changes[i];

		if (wrep_change_concerns(c))
			wrep_version_judge(c, at.term);
		hold = hold && c->holds;
	}
	return hold;
}

static int take_effect(struct wrep_replicated *s, uint64_t index, struct wrep_change *changes,
		       uint32_t count, const struct wrep_change **bad)
{
	int rc = preview_all(s, index, changes, count, bad);

	for (uint32_t i = 0; i < count && !rc; i++)
		if (wrep_change_concerns(&changes[i]))
			rc = wrep_version_take_effect(&changes[i], index);
	return rc ? rc : WREP_TAKES_EFFECT;
}

int wrep_state_commit(struct wrep_replicated *s, struct wrep_log_position at, struct wrep_change *c)
{
	const struct wrep_change *bad;

	if (c->v && at.index <= c->v->index) {
		c->past = true;
		return WREP_PAST;
	}
	if (!judge_all(at, c, 1))
		return WREP_REFUSED;
	return take_effect(s, at.index, c, 1, &bad);
}

int wrep_state_multi_commit(struct wrep_replicated *s, struct wrep_log_position at,
			    struct wrep_change *changes, uint32_t count,
			    const struct wrep_change **bad)
{
	bool effect, news = false;
	int rc;

	for (uint32_t i = 0; i < count; i++) {
		changes[i].past = changes[i].v && at.index <= changes[i].v->index;
		news = news || !changes[i].past;
	}
	if (!news)
		return WREP_PAST;
	effect = judge_all(at, changes, count);
	if (at.index <= s->multi.judged_until)
		effect = wrep_multi_list_has(&s->multi, at.index);
	if (!effect)
		return WREP_REFUSED;
	rc = take_effect(s, at.index, changes, count, bad);
	if (rc == WREP_TAKES_EFFECT && wrep_multi_list_add(&s->multi, at.index) < 0)
		return -ENOMEM;
	return rc;
}
