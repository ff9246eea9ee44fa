/* What entries of the log do to the replicated state: each rule, and random sequences against a model that is as
 * plain as can be. No file, no thread. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../rig/state_entries.h"

#define PAGE 512u
#define DATABASES 512u

static struct state_rig *r;
static uint64_t index_now, term_now, sequence;

static int set_up(void **state)
{
	(void)state;
	r = state_rig_new();
	index_now = 0;
	term_now = 1;
	sequence = 0;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	state_rig_free(r);
	r = NULL;
	return 0;
}

/* ---- entries ------------------------------------------------------------------------------------- */

static int deliver(struct rlog_buf *buf)
{
	int rc = state_rig_apply(r, (struct wrep_log_position){++index_now, term_now}, buf);

	rlog_buf_unref(buf);
	return rc;
}

static int name_entry(enum wrep_entry_type type, uint64_t id, const char *name, bool keep)
{
	struct wrep_entry e = {.type = type, .db_id = id, .keep = keep};

	strcpy(e.name, name);
	return deliver(wrep_entry_encode(&e));
}

static int create(const char *name)
{
	return name_entry(WREP_ENTRY_CREATE, 0, name, false);
}

static uint64_t created(const char *name)
{
	assert_int_equal(create(name), WREP_TAKES_EFFECT);
	return index_now;
}

static int unlink_db(uint64_t id)
{
	return name_entry(WREP_ENTRY_UNLINK, id, "", false);
}

static int rename_db(uint64_t id, const char *to, bool keep)
{
	return name_entry(WREP_ENTRY_RENAME, id, to, keep);
}

/* A transaction of pages 1 to `pages` of a database then as large, all bytes `seed`. */
struct transaction {
	uint64_t id, base, sequence;
	uint32_t pages;
	uint8_t seed;
	uint32_t parts;	   /* each of one page: 1, 2, ... */
	uint64_t checksum; /* 0: the right one */
};

static void fill_image(struct wrep_entry *e, uint32_t i, uint32_t pgno, uint8_t seed)
{
	wrep_entry_set_pgno(e, i, pgno);
	memset((uint8_t *)(uintptr_t)e->images + (size_t)i * PAGE, seed, PAGE);
}

static uint64_t sum_of(const struct transaction *t)
{
	uint8_t page[PAGE];
	uint64_t sum = 0;

	memset(page, t->seed, sizeof page);
	for (uint32_t p = 1; p <= t->pages; p++)
		sum += wrep_page_hash(p, page, PAGE);
	return sum;
}

static struct wrep_entry commit_of(const struct transaction *t)
{
	return (struct wrep_entry){
		.type = WREP_ENTRY_COMMIT,
		.db_id = t->id,
		.origin = 9,
		.sequence = t->sequence ? t->sequence : ++sequence,
		.part = t->parts,
		.page_size = PAGE,
		.image_count = t->pages - t->parts,
		.total_pages = t->pages,
		.page_count = t->pages,
		.base_version = t->base,
		.commit_mode = WREP_COMMIT_WAL,
		.checksum = t->checksum ? t->checksum : sum_of(t),
	};
}

static void fill_commit(const struct transaction *t, struct wrep_entry *e)
{
	for (uint32_t i = 0; i < e->image_count; i++)
		fill_image(e, i, t->parts + i + 1, t->seed);
}

static int commit(struct transaction t)
{
	struct wrep_entry e = commit_of(&t);
	struct rlog_buf *buf = wrep_entry_alloc(&e);

	fill_commit(&t, &e);
	return deliver(buf);
}

static int part(struct transaction t, uint32_t number)
{
	struct wrep_entry e = commit_of(&t);
	struct rlog_buf *buf;

	e.type = WREP_ENTRY_PAGES;
	e.part = number;
	e.image_count = 1;
	buf = wrep_entry_alloc(&e);
	fill_image(&e, 0, number + 1, t.seed);
	return deliver(buf);
}

static int discard(struct transaction t)
{
	struct wrep_entry e = commit_of(&t);

	e.type = WREP_ENTRY_DISCARD;
	return deliver(wrep_entry_encode(&e));
}

static int multi(struct transaction a, struct transaction b)
{
	const struct transaction *t[2] = {&a, &b};
	struct wrep_entry e[2] = {commit_of(&a), commit_of(&b)};
	struct rlog_buf *buf = wrep_entry_alloc_group(e, 2);

	for (int i = 0; i < 2; i++)
		fill_commit(t[i], &e[i]);
	return deliver(buf);
}

static void expect_version(uint64_t id, uint64_t version, uint64_t index)
{
	const struct wrep_version *v = wrep_state_version(r->state, id);

	assert_non_null(v);
	assert_int_equal(v->version, version);
	assert_int_equal(v->index, index);
	assert_int_equal(wrep_pagesum_total(&v->sum), v->sum.sum);
}

/* ---- one database -------------------------------------------------------------------------------- */

static void commit_on_the_present_version_moves_it_by_one(void **state)
{
	uint64_t id = created("a.db");

	(void)state;
	expect_version(id, 0, id);
	assert_int_equal(commit((struct transaction){.id = id, .pages = 3, .seed = 1}), 1);
	expect_version(id, 1, index_now);
	/* byte 18 and 19 of page 1 */
	assert_false(wrep_state_version(r->state, id)->wal_mode);
	assert_int_equal(commit((struct transaction){.id = id, .base = 1, .pages = 2, .seed = 2}),
			 1);
	expect_version(id, 2, index_now);
	assert_true(wrep_state_version(r->state, id)->wal_mode);
	assert_int_equal(wrep_state_version(r->state, id)->sum.page_count, 2);
}

static void commit_on_another_version_changes_nothing(void **state)
{
	uint64_t id = created("a.db"), hash;

	(void)state;
	commit((struct transaction){.id = id, .pages = 3, .seed = 1});
	hash = state_rig_hash(r);
	assert_int_equal(commit((struct transaction){.id = id, .pages = 4, .seed = 2}), 0);
	assert_int_equal(commit((struct transaction){.id = id, .base = 2, .pages = 1, .seed = 2}),
			 0);
	assert_int_equal(commit((struct transaction){.id = id + 1, .base = 1, .pages = 1}), 0);
	assert_int_equal(state_rig_hash(r), hash);
}

static void commit_that_leads_to_another_checksum_moves_nothing(void **state)
{
	uint64_t a = created("a.db"), b = created("b.db"), hash;

	(void)state;
	commit((struct transaction){.id = a, .pages = 3, .seed = 1});
	hash = state_rig_hash(r);
	assert_int_equal(commit((struct transaction){
				 .id = a, .base = 1, .pages = 2, .seed = 2, .checksum = 17}),
			 -EUCLEAN);
	assert_int_equal(state_rig_hash(r), hash);
	/* nor the member in front of the one that differs */
	assert_int_equal(multi((struct transaction){.id = a, .base = 1, .pages = 2, .seed = 2},
			       (struct transaction){.id = b, .pages = 2, .checksum = 17}),
			 -EUCLEAN);
	assert_int_equal(state_rig_hash(r), hash);
	assert_int_equal(r->state->multi.count, 0);
}

/* ---- parts --------------------------------------------------------------------------------------- */

static void parts_count_if_all_came_in_order(void **state)
{
	struct transaction t = {.id = created("a.db"), .sequence = 100, .pages = 3, .parts = 2};

	(void)state;
	assert_int_equal(part(t, 0), 1);
	assert_int_equal(part(t, 1), 1);
	assert_int_equal(commit(t), 1);
	expect_version(t.id, 1, index_now);
	/* those of the one before do not count again */
	t.base = 1;
	assert_int_equal(commit(t), 0);
	/* the second is missing; and a COMMIT ends what was open, whatever becomes of it */
	t.sequence++;
	assert_int_equal(part(t, 0), 1);
	assert_int_equal(commit(t), 0);
	assert_null(wrep_state_version(r->state, t.id)->parts);
	/* a gap */
	assert_int_equal(part(t, 0), 1);
	assert_int_equal(part(t, 2), 0);
	t.parts = 3;
	assert_int_equal(commit(t), 0);
	/* the first is missing */
	assert_int_equal(part(t, 1), 0);
	t.parts = 2;
	assert_int_equal(commit(t), 0);
	expect_version(t.id, 1, wrep_state_version(r->state, t.id)->index);
}

static void parts_of_another_transaction_give_the_open_one_up(void **state)
{
	struct transaction t = {.id = created("a.db"), .sequence = 100, .pages = 3, .parts = 1};
	struct transaction other = t;

	(void)state;
	other.sequence = 200;
	assert_int_equal(part(t, 0), 1);
	assert_int_equal(part(other, 0), 1);
	assert_int_equal(commit(t), 0);
	assert_int_equal(commit(other), 0); /* the COMMIT before ended it */
	assert_int_equal(part(t, 0), 1);
	assert_int_equal(part(other, 1), 0);
	assert_null(wrep_state_version(r->state, t.id)->parts);
}

static void parts_and_commit_are_of_one_term(void **state)
{
	struct transaction t = {.id = created("a.db"), .sequence = 100, .pages = 3, .parts = 2};

	(void)state;
	part(t, 0);
	term_now++;
	assert_int_equal(part(t, 1), 0);
	assert_null(wrep_state_version(r->state, t.id)->parts);
	part(t, 0);
	part(t, 1);
	term_now++;
	assert_int_equal(commit(t), 0);
	/* any entry of a newer term shows it */
	part(t, 0);
	term_now++;
	created("b.db");
	assert_null(wrep_state_version(r->state, t.id)->parts);
	expect_version(t.id, 0, t.id);
}

static void discard_ends_what_it_names_alone(void **state)
{
	struct transaction t = {.id = created("a.db"), .sequence = 100, .pages = 3, .parts = 1};
	struct transaction other = t;

	(void)state;
	other.sequence = 200;
	part(t, 0);
	assert_int_equal(discard(other), 0);
	assert_non_null(wrep_state_version(r->state, t.id)->parts);
	assert_int_equal(discard(t), 1);
	assert_int_equal(discard(t), 0);
	assert_int_equal(commit(t), 0);
	part(t, 0);
	assert_int_equal(discard(other), 0);
	assert_int_equal(commit(t), 1);
}

static void parts_that_do_not_fit_their_commit_are_told(void **state)
{
	struct transaction t = {.id = created("a.db"), .sequence = 100, .pages = 3, .parts = 1};
	struct wrep_entry e = commit_of(&t);
	struct rlog_buf *buf;

	(void)state;
	part(t, 0);
	e.total_pages = 4;
	buf = wrep_entry_alloc(&e);
	fill_commit(&t, &e);
	assert_int_equal(deliver(buf), -EBADMSG);
	expect_version(t.id, 0, t.id);
}

/* ---- names --------------------------------------------------------------------------------------- */

static void name_effect(const struct wrep_entry *e, uint64_t index, enum wrep_verdict verdict,
			int error, uint64_t id)
{
	struct wrep_name_effect effect;

	assert_int_equal(wrep_state_change_names(r->state, index, e, &effect), 0);
	assert_int_equal(effect.verdict, verdict);
	assert_int_equal(effect.error, error);
	assert_int_equal(effect.id, id);
}

static void who_asks_for_a_name_is_told_why_not(void **state)
{
	struct wrep_entry e = {.type = WREP_ENTRY_CREATE, .name = "a.db"};
	uint64_t a = created("a.db"), d, x;

	(void)state;
	name_entry(WREP_ENTRY_MKDIR, 0, "d", false);
	d = index_now;
	x = created("d/x.db");
	name_effect(&e, 90, WREP_REFUSED, -EEXIST, a);
	strcpy(e.name, "d");
	name_effect(&e, 90, WREP_REFUSED, -EISDIR, d);
	strcpy(e.name, "e/x.db");
	name_effect(&e, 90, WREP_REFUSED, -ENOENT, 0);
	strcpy(e.name, "a.db/x.db");
	name_effect(&e, 90, WREP_REFUSED, -ENOTDIR, 0);
	e = (struct wrep_entry){.type = WREP_ENTRY_MKDIR, .name = "d"};
	name_effect(&e, 90, WREP_REFUSED, -EEXIST, d);
	strcpy(e.name, "a.db");
	name_effect(&e, 90, WREP_REFUSED, -EEXIST, a);
	e = (struct wrep_entry){.type = WREP_ENTRY_RMDIR, .db_id = d};
	name_effect(&e, 90, WREP_REFUSED, -ENOTEMPTY, d);
	e.db_id = a;
	name_effect(&e, 90, WREP_REFUSED, -ENOTDIR, a);
	e.db_id = 77;
	name_effect(&e, 90, WREP_REFUSED, -ENOENT, 77);
	e = (struct wrep_entry){.type = WREP_ENTRY_UNLINK, .db_id = d};
	name_effect(&e, 90, WREP_REFUSED, -ENOENT, d);
	e = (struct wrep_entry){.type = WREP_ENTRY_SETATTR, .db_id = 77};
	name_effect(&e, 90, WREP_REFUSED, -ENOENT, 77);
	e.db_id = d;
	name_effect(&e, 90, WREP_TAKES_EFFECT, 0, d);
	e = (struct wrep_entry){.type = WREP_ENTRY_RENAME, .db_id = a, .name = "a.db"};
	name_effect(&e, 90, WREP_REFUSED, 0, a); /* it is called so */
	strcpy(e.name, "d");
	name_effect(&e, 90, WREP_REFUSED, -EISDIR, a);
	strcpy(e.name, "d/x.db");
	e.keep = true;
	name_effect(&e, 90, WREP_REFUSED, -EEXIST, a);
	e.db_id = d;
	name_effect(&e, 90, WREP_REFUSED, -ENOENT, d);
	assert_int_equal(unlink_db(x), 1);
	assert_int_equal(name_entry(WREP_ENTRY_RMDIR, d, "", false), 1);
	assert_null(wrep_tree_find_path(r->state->names, "d"));
}

static void database_made_again_is_another(void **state)
{
	struct transaction t = {.id = created("a.db"), .pages = 3};
	uint64_t again;

	(void)state;
	commit(t);
	assert_int_equal(create("a.db"), 0);
	assert_int_equal(unlink_db(t.id), 1);
	assert_int_equal(unlink_db(t.id), 0);
	assert_null(wrep_state_version(r->state, t.id));
	again = created("a.db");
	t.base = 1;
	assert_int_equal(commit(t), 0);
	expect_version(again, 0, again);
	t = (struct transaction){.id = again, .pages = 1};
	assert_int_equal(commit(t), 1);
}

static void rename_replaces_what_has_the_name(void **state)
{
	struct transaction t = {.id = created("b.db"), .sequence = 5, .pages = 2, .parts = 1};
	uint64_t a = created("a.db");

	(void)state;
	part(t, 0);
	assert_int_equal(rename_db(a, "b.db", true), 0);
	assert_int_equal(rename_db(a, "b.db", false), 1);
	assert_null(wrep_state_version(r->state, t.id));
	assert_int_equal(commit(t), 0);
	assert_int_equal(wrep_tree_find_path(r->state->names, "b.db")->id, a);
	assert_null(wrep_tree_find_path(r->state->names, "a.db"));
	assert_int_equal(commit((struct transaction){.id = a, .pages = 1}), 1);
	expect_version(a, 1, index_now);
}

/* ---- several databases --------------------------------------------------------------------------- */

static void multi_commit_takes_effect_on_all_or_none(void **state)
{
	uint64_t a = created("a.db"), b = created("b.db"), hash, took;
	struct transaction large = {.id = b, .base = 1, .sequence = 50, .pages = 3, .parts = 2};

	(void)state;
	assert_int_equal(multi((struct transaction){.id = a, .pages = 2},
			       (struct transaction){.id = b, .pages = 1}),
			 1);
	took = index_now;
	expect_version(a, 1, took);
	expect_version(b, 1, took);
	hash = state_rig_hash(r);
	assert_int_equal(multi((struct transaction){.id = a, .base = 1, .pages = 3},
			       (struct transaction){.id = b, .base = 0, .pages = 3}),
			 0);
	assert_int_equal(multi((struct transaction){.id = a, .base = 1, .pages = 3}, large), 0);
	assert_int_equal(state_rig_hash(r), hash);
	part(large, 0);
	part(large, 1);
	assert_int_equal(multi((struct transaction){.id = a, .base = 1, .pages = 3}, large), 1);
	expect_version(a, 2, index_now);
	expect_version(b, 2, index_now);
	assert_int_equal(r->state->multi.count, 2);
	assert_int_equal(r->state->multi.indices[0], took);
	assert_int_equal(r->state->multi.indices[1], index_now);
	unlink_db(b);
	assert_int_equal(multi((struct transaction){.id = a, .base = 2, .pages = 1},
			       (struct transaction){.id = b, .base = 2, .pages = 1}),
			 0);
	expect_version(a, 2, wrep_state_version(r->state, a)->index);
}

/* ---- restored ------------------------------------------------------------------------------------ */

static void restored_from(const struct wrep_manifest *m)
{
	state_rig_free(r);
	r = state_rig_new();
	assert_int_equal(wrep_state_restore(r->state, m, 0), 0);
	for (size_t i = 0; i < m->dir_count; i++)
		assert_int_equal(wrep_state_restore_name(r->state, m->dirs[i].id, m->dirs[i].path,
							 true, NULL),
				 0);
}

/* A version without page sums: whoever knows the images is another. */
static struct wrep_version *restored(struct wrep_version *v, const struct wrep_manifest_db *d)
{
	memset(v, 0, sizeof *v);
	wrep_version_init(v, d->id);
	v->without_sums = true;
	assert_int_equal(wrep_version_restore(v, d, NULL), 0);
	assert_int_equal(wrep_state_restore_name(r->state, d->id, d->name, false, v), 0);
	return v;
}

static int at_index(uint64_t index, int (*deliver_it)(struct transaction), struct transaction t)
{
	index_now = index - 1;
	return deliver_it(t);
}

static void database_does_not_take_again_what_it_was_restored_with(void **state)
{
	struct wrep_manifest m = {.names_index = 8};
	struct wrep_version v;

	(void)state;
	restored_from(&m);
	restored(&v, &(struct wrep_manifest_db){
			     .name = "a.db", .id = 2, .version = 4, .index = 10, .page_size = PAGE,
			     .page_count = 1});
	assert_int_equal(at_index(9, commit, (struct transaction){.id = 2, .base = 2, .pages = 1}),
			 WREP_PAST);
	assert_int_equal(at_index(10, commit, (struct transaction){.id = 2, .base = 4, .pages = 1}),
			 WREP_PAST);
	assert_int_equal(at_index(10, discard, (struct transaction){.id = 2, .pages = 1}),
			 WREP_PAST);
	index_now = 9;
	assert_int_equal(part((struct transaction){.id = 2, .pages = 2, .parts = 1}, 0), WREP_PAST);
	assert_null(v.parts);
	assert_int_equal(at_index(11, commit, (struct transaction){.id = 2, .base = 4, .pages = 1}),
			 WREP_TAKES_EFFECT);
	assert_int_equal(v.version, 5);
	wrep_version_clear(&v);
}

static void names_up_to_the_restored_ones_change_none_again(void **state)
{
	struct wrep_manifest_dir dirs[] = {{.path = "d", .id = 3}};
	struct wrep_manifest m = {.names_index = 8, .dir_count = 1, .dirs = dirs};
	struct wrep_entry e = {.type = WREP_ENTRY_CREATE, .name = "a.db"};
	struct wrep_version v;

	(void)state;
	restored_from(&m);
	restored(&v, &(struct wrep_manifest_db){.name = "a.db", .id = 2, .index = 2});
	name_effect(&e, 2, WREP_PAST, -EEXIST, 2);
	name_effect(&e, 5, WREP_PAST, -EIO, 0);
	e = (struct wrep_entry){.type = WREP_ENTRY_MKDIR, .name = "d"};
	name_effect(&e, 3, WREP_PAST, -EIO, 3);
	name_effect(&e, 6, WREP_PAST, -EIO, 0);
	e = (struct wrep_entry){.type = WREP_ENTRY_RMDIR, .db_id = 3};
	name_effect(&e, 7, WREP_PAST, -EIO, 3);
	e = (struct wrep_entry){.type = WREP_ENTRY_UNLINK, .db_id = 1};
	name_effect(&e, 7, WREP_PAST, -ENOENT, 1);
	e = (struct wrep_entry){.type = WREP_ENTRY_RENAME, .db_id = 2, .name = "b.db"};
	name_effect(&e, 8, WREP_PAST, -EIO, 2);
	name_effect(&e, 9, WREP_TAKES_EFFECT, 0, 2);
	e = (struct wrep_entry){.type = WREP_ENTRY_RMDIR, .db_id = 3};
	name_effect(&e, 10, WREP_TAKES_EFFECT, 0, 3);
	wrep_version_clear(&v);
}

/* Entry 11 is over both: a.db was noted before it came, b.db behind it. */
static void multi_commit_on_both_sides_of_a_snapshot_is_judged_by_the_manifest(void **state)
{
	uint64_t named[] = {11};
	struct wrep_manifest m = {
		.names_index = 8, .judged_until = 13, .groups = named, .group_count = 1};
	struct wrep_manifest_db a = {.name = "a.db", .id = 2, .version = 4, .index = 10,
				     .page_size = PAGE, .page_count = 1};
	struct wrep_manifest_db b = {.name = "b.db", .id = 3, .version = 7, .index = 12,
				     .page_size = PAGE, .page_count = 1};
	struct transaction of_a = {.id = 2, .base = 4, .pages = 1},
			   of_b = {.id = 3, .base = 5, .pages = 1};
	struct wrep_version va, vb;

	(void)state;
	restored_from(&m);
	restored(&va, &a);
	restored(&vb, &b);
	index_now = 10;
	assert_int_equal(multi(of_a, of_b), WREP_TAKES_EFFECT);
	assert_int_equal(va.version, 5);
	assert_int_equal(vb.version, 7);
	assert_int_equal(r->state->multi.count, 1); /* once */
	/* not named: the member that does not have it would hold, and yet */
	of_a.base = 5;
	assert_int_equal(multi(of_a, of_b), WREP_REFUSED);
	assert_int_equal(va.version, 5);
	/* behind judged_until: as ever, with the member that is gone */
	index_now = 13;
	of_b.base = 7;
	of_b.id = 4;
	assert_int_equal(multi(of_a, of_b), WREP_REFUSED);
	of_b.id = 3;
	assert_int_equal(multi(of_a, of_b), WREP_TAKES_EFFECT);
	assert_int_equal(r->state->multi.count, 2);
	/* both have it */
	index_now = 14;
	assert_int_equal(multi(of_a, of_b), WREP_PAST);
	wrep_version_clear(&va);
	wrep_version_clear(&vb);
}

static void list_of_multi_commits_begins_behind_the_snapshot(void **state)
{
	struct wrep_multi_list l = {0};
	struct wrep_manifest m = {0};

	(void)state;
	for (uint64_t i = 1; i <= 40; i++)
		assert_int_equal(wrep_multi_list_add(&l, 3 * i), 0);
	assert_int_equal(wrep_multi_list_add(&l, 60), 0); /* applied again */
	assert_int_equal(l.count, 40);
	for (uint64_t i = 0; i <= 130; i++)
		assert_int_equal(wrep_multi_list_has(&l, i), i && i % 3 == 0 && i <= 120);
	wrep_multi_list_forget(&l, 59);
	assert_int_equal(l.count, 21);
	assert_int_equal(l.indices[0], 60);
	assert_int_equal(wrep_multi_list_note(&l, 121, &m), 0);
	wrep_multi_list_forget(&l, 500);
	assert_int_equal(l.count, 0);
	assert_int_equal(wrep_multi_list_adopt(&l, &m), 0);
	assert_int_equal(l.count, 21);
	assert_int_equal(l.judged_until, 121);
	wrep_multi_list_clear(&l);
	wrep_manifest_clear(&m);
}

/* ---- checksums behind a restart ------------------------------------------------------------------ */

static int commit_to(struct wrep_version *v, uint64_t index, struct transaction t, bool lost)
{
	struct wrep_change c = {.e = commit_of(&t), .v = v, .lost = lost};
	struct rlog_buf *buf = wrep_entry_alloc(&c.e);
	int rc;

	fill_commit(&t, &c.e);
	rc = wrep_state_commit(r->state, (struct wrep_log_position){index, 1}, &c);
	wrep_change_clear(&c);
	rlog_buf_unref(buf);
	return rc;
}

static void checksums_are_compared_once_the_redo_is_over(void **state)
{
	struct wrep_manifest m = {.redo_until = 20};
	struct transaction t = {.id = 2, .base = 4, .pages = 2, .seed = 1};

	(void)state;
	for (int what = 0; what < 3; what++) { /* sound, damaged, its file is lost */
		struct wrep_version v = {0};
		uint64_t *hash = calloc(2, sizeof *hash);

		restored_from(&m);
		hash[0] = 1234; /* newer than the version */
		assert_int_equal(
			wrep_version_restore(&v,
					     &(struct wrep_manifest_db){.version = 4,
									.index = 10,
									.checksum = 99,
									.page_size = PAGE,
									.page_count = 2},
					     hash),
			0);
		t.base = 4;
		assert_int_equal(commit_to(&v, 20, t, what == 2), WREP_TAKES_EFFECT);
		assert_true(v.unverified);
		if (what == 1)
			v.sum.hash[1]++;
		t.base = 5;
		assert_int_equal(commit_to(&v, 21, t, what == 2),
				 what ? -EUCLEAN : (int)WREP_TAKES_EFFECT);
		assert_int_equal(v.unverified, what != 0);
		assert_int_equal(v.version, what ? 5 : 6);
		wrep_version_clear(&v);
	}
}

static void originator_knows_the_pages_of_its_own_commit(void **state)
{
	struct wrep_page_change changes[] = {{.pgno = 1, .hash = 5}, {.pgno = 2, .hash = 6}};
	struct transaction t = {.id = 2, .pages = 2, .checksum = 11};
	struct wrep_version v = {0};
	struct wrep_change c = {
		.e = commit_of(&t),
		.v = &v,
		.pages = {.known = true, .changes = changes, .count = 2, .sets_wal_mode = true,
			  .wal_mode = true},
	};

	(void)state;
	assert_int_equal(wrep_state_commit(r->state, (struct wrep_log_position){5, 1}, &c), 1);
	assert_int_equal(v.sum.sum, 11);
	assert_true(v.wal_mode);
	assert_false(c.nothing);
	/* and one that changes nothing but the version */
	t.base = 1;
	c = (struct wrep_change){.e = commit_of(&t), .v = &v, .pages = {.known = true}};
	assert_int_equal(wrep_state_commit(r->state, (struct wrep_log_position){6, 1}, &c), 1);
	assert_true(c.nothing);
	assert_int_equal(v.version, 2);
	wrep_version_clear(&v);
}

/* ---- a model ------------------------------------------------------------------------------------- */

struct model_image {
	uint32_t pgno;
	uint64_t hash;
};

/* By id, which is small here. */
static struct model_name {
	bool there, is_dir;
	char path[64];
	uint64_t version, index;
	uint32_t page_size, page_count;
	uint64_t hash[256];
	bool open;
	uint64_t origin, sequence, term;
	uint32_t parts;
	struct model_image images[64];
	unsigned image_count;
} *model;
static uint64_t model_count;

static struct model_name *model_find(const char *path)
{
	for (uint64_t id = 1; id < model_count; id++)
		if (model[id].there && !strcmp(model[id].path, path))
			return &model[id];
	return NULL;
}

/* May something be called so? */
static bool model_has_parent(const char *path)
{
	char above[64];
	char *slash;
	struct model_name *parent;

	strcpy(above, path);
	slash = strrchr(above, '/');
	if (!slash)
		return true;
	*slash = '\0';
	parent = model_find(above);
	return parent && parent->is_dir;
}

static bool model_is_empty(const struct model_name *d)
{
	size_t len = strlen(d->path);

	for (uint64_t id = 1; id < model_count; id++)
		if (model[id].there && !strncmp(model[id].path, d->path, len) &&
		    model[id].path[len] == '/')
			return false;
	return true;
}

static bool model_names(uint64_t index, const struct wrep_entry *e)
{
	struct model_name *n = e->db_id < model_count && model[e->db_id].there ? &model[e->db_id]
									       : NULL;
	struct model_name *there;

	switch (e->type) {
	case WREP_ENTRY_CREATE:
	case WREP_ENTRY_MKDIR:
		if (model_find(e->name) || !model_has_parent(e->name))
			return false;
		model[index].there = true;
		model[index].is_dir = e->type == WREP_ENTRY_MKDIR;
		model[index].index = index;
		strcpy(model[index].path, e->name);
		return true;
	case WREP_ENTRY_UNLINK:
		if (!n || n->is_dir)
			return false;
		n->there = false;
		return true;
	case WREP_ENTRY_RMDIR:
		if (!n || !n->is_dir || !model_is_empty(n))
			return false;
		n->there = false;
		return true;
	case WREP_ENTRY_RENAME:
		there = model_find(e->name);
		if (!n || n->is_dir || there == n || !model_has_parent(e->name) ||
		    (there && (e->keep || there->is_dir)))
			return false;
		if (there)
			there->there = false;
		strcpy(n->path, e->name);
		return true;
	default:
		return n;
	}
}

static struct model_name *model_db(uint64_t id)
{
	return id < model_count && model[id].there && !model[id].is_dir ? &model[id] : NULL;
}

static void model_take(struct model_name *db, const struct wrep_entry *e)
{
	for (uint32_t i = 0; i < e->image_count; i++)
		db->images[db->image_count++] = (struct model_image){
			.pgno = wrep_entry_pgno(e, i),
			.hash = wrep_page_hash(wrep_entry_pgno(e, i),
					       e->images + (size_t)i * e->page_size, e->page_size)};
}

static bool model_same(const struct model_name *db, const struct wrep_entry *e, uint64_t term)
{
	return db->open && db->origin == e->origin && db->sequence == e->sequence &&
	       db->term == term;
}

static bool model_pages(const struct wrep_entry *e, uint64_t term)
{
	struct model_name *db = model_db(e->db_id);

	if (!db)
		return false;
	if (e->part == 0 || !model_same(db, e, term))
		db->open = false;
	if (!db->open && e->part)
		return false;
	if (!db->open) {
		db->open = true;
		db->origin = e->origin;
		db->sequence = e->sequence;
		db->term = term;
		db->parts = 0;
		db->image_count = 0;
	}
	if (e->part != db->parts)
		return false;
	db->parts++;
	model_take(db, e);
	return true;
}

static bool model_holds(const struct wrep_entry *e, uint64_t term)
{
	const struct model_name *db = model_db(e->db_id);

	return db && db->version == e->base_version &&
	       (!e->part || (model_same(db, e, term) && db->parts == e->part));
}

static bool model_dropped(const struct wrep_entry *e, uint32_t pgno)
{
	for (uint32_t i = 0; i < e->dropped_count; i++)
		if (wrep_entry_dropped(e, i) == pgno)
			return true;
	return false;
}

static void model_commit(const struct wrep_entry *e, uint64_t index)
{
	struct model_name *db = model_db(e->db_id);

	if (!e->part)
		db->image_count = 0;
	if (db->page_size != e->page_size)
		memset(db->hash, 0, sizeof db->hash);
	db->page_size = e->page_size;
	db->page_count = e->page_count;
	for (uint32_t p = e->page_count + 1; p < 256; p++)
		db->hash[p] = 0;
	/* In a COMMIT without parts `images` is that of this entry alone. */
	model_take(db, e);
	for (unsigned i = 0; i < db->image_count; i++)
		if (db->images[i].pgno <= e->page_count && !model_dropped(e, db->images[i].pgno))
			db->hash[db->images[i].pgno] = db->images[i].hash;
	db->version++;
	db->index = index;
}

static bool model_commits(uint64_t index, uint64_t term, const struct wrep_entry *members,
			  uint32_t count)
{
	bool effect = true;

	for (uint32_t i = 0; i < count; i++)
		effect = effect && model_holds(&members[i], term);
	for (uint32_t i = 0; i < count; i++) {
		if (effect)
			model_commit(&members[i], index);
		if (model_db(members[i].db_id))
			model_db(members[i].db_id)->open = false;
	}
	return effect;
}

static bool model_apply(uint64_t index, uint64_t term, const struct rlog_buf *buf)
{
	struct wrep_entry e, members[4];
	struct model_name *db;
	uint32_t count = 0;
	size_t at = 0;

	assert_int_equal(wrep_entry_decode(buf, &e), 0);
	switch (e.type) {
	case WREP_ENTRY_PAGES:
		return model_pages(&e, term);
	case WREP_ENTRY_COMMIT:
		return model_commits(index, term, &e, 1);
	case WREP_ENTRY_GROUP:
		while (wrep_entry_member(buf, &at, &members[count]))
			count++;
		return model_commits(index, term, members, count);
	case WREP_ENTRY_DISCARD:
		db = model_db(e.db_id);
		if (!db || !model_same(db, &e, term))
			return false;
		db->open = false;
		return true;
	default:
		return model_names(index, &e);
	}
}

struct comparing {
	uint64_t seed, names;
};

static void compare_name(void *arg, struct wrep_tree_node *n)
{
	struct comparing *c = arg;
	const struct model_name *m = &model[n->id];
	const struct wrep_version *v = n->data;
	uint64_t sum = 0;

	c->names++;
	assert_true(m->there);
	assert_string_equal(m->path, n->path);
	assert_int_equal(m->is_dir, n->is_dir);
	if (n->is_dir)
		return;
	assert_int_equal(m->version, v->version);
	assert_int_equal(m->index, v->index);
	assert_int_equal(m->page_count, v->sum.page_count);
	for (uint32_t p = 1; p <= m->page_count; p++) {
		sum += m->hash[p];
		assert_true(v->sum.hash[p - 1] == m->hash[p]);
	}
	assert_true(v->sum.sum == sum);
	if (v->parts && m->open) {
		assert_int_equal(v->parts->sequence, m->sequence);
		assert_int_equal(v->parts->count, m->parts);
	}
	/* The model forgets nothing when a term ends, as that makes no difference. */
	assert_true(!v->parts || m->open);
}

static void compare(uint64_t seed)
{
	struct comparing c = {.seed = seed};
	uint64_t names = 0;

	wrep_tree_each(r->state->names, compare_name, &c);
	for (uint64_t id = 1; id < model_count; id++)
		names += model[id].there;
	assert_int_equal(names, c.names);
}

/* ---- random sequences ---------------------------------------------------------------------------- */

#define STEPS 400u

/* All entries so far, and what the state was behind each. */
struct delivered {
	struct rlog_buf *buf;
	uint64_t term, hash;
	bool effect;
};
static struct delivered *history;

static struct rlog_buf *stored; /* the newest snapshot, */
static uint64_t stored_index;	/* from behind which it goes on */

/* A node that begins with it must come to the same. */
static void restart(uint64_t seed)
{
	struct state_rig *again = state_rig_restore(stored->data, stored->len);

	for (uint64_t i = stored_index + 1; i <= index_now; i++) {
		int rc = state_rig_apply(again, (struct wrep_log_position){i, history[i].term},
					 history[i].buf);

		if (rc < 0 || (i > again->as_of && rc != (int)history[i].effect) ||
		    (i >= again->as_of && state_rig_hash(again) != history[i].hash))
			fail_msg("seed %llu: restarted from %llu, as of %llu, entry %llu: %d, not %d",
				 (unsigned long long)seed, (unsigned long long)stored_index,
				 (unsigned long long)again->as_of, (unsigned long long)i, rc,
				 history[i].effect);
	}
	for (struct rig_db *db = again->dbs; db; db = db->next)
		assert_true(wrep_version_verify(&db->version));
	state_rig_free(again);
}

static void step(uint64_t seed, struct sim_random *random, struct rlog_buf *buf)
{
	struct delivered *d = &history[index_now + 1];
	bool effect;
	int rc;

	if (sim_chance(random, 2))
		term_now++;
	d->term = term_now;
	d->buf = rlog_buf_ref(buf);
	effect = model_apply(index_now + 1, term_now, buf);
	rc = deliver(buf);
	if (rc != (int)effect)
		fail_msg("seed %llu: entry %llu: %d, not %d", (unsigned long long)seed,
			 (unsigned long long)index_now, rc, effect);
	d->effect = effect;
	d->hash = state_rig_hash(r);
	compare(seed);
}

/* The snapshot is begun, or goes on, or is ended. */
static void snapshot(struct sim_random *random, struct rig_snapshot *s)
{
	if (!r->noting) {
		uint64_t back = sim_below(random, index_now - stored_index + 1);

		rig_snapshot_begin(s, r, index_now, index_now - (sim_chance(random, 50) ? back : 0));
		return;
	}
	if (rig_snapshot_note(s, r))
		return;
	rlog_buf_unref(stored);
	stored = rig_snapshot_end(s, r, index_now);
	stored_index = s->index;
	wrep_multi_list_forget(&r->state->multi, s->index);
	rig_snapshot_clear(s, r);
}

/* Two nodes submit; what they do is mixed, but each one's own entries stay in their order. */
static void random_run(uint64_t seed)
{
	struct sim_random random = {seed};
	struct rig_author authors[2] = {{.random = &random, .origin = 1, .leaves_parts = true},
					{.random = &random, .origin = 2, .leaves_parts = true}};
	struct rlog_buf *waiting[2][RIG_ENTRIES_MAX];
	unsigned left[2] = {0}, at[2] = {0};
	struct rig_snapshot s = {0};

	while (index_now < STEPS) {
		unsigned who = sim_chance(&random, 20);

		if (at[who] == left[who]) {
			left[who] = rig_entries(&authors[who], r, waiting[who]);
			at[who] = 0;
		}
		step(seed, &random, waiting[who][at[who]++]);
		if (sim_chance(&random, 15))
			snapshot(&random, &s);
		if (stored && sim_chance(&random, 3))
			restart(seed);
	}
	for (unsigned who = 0; who < 2; who++)
		while (at[who] < left[who])
			rlog_buf_unref(waiting[who][at[who]++]);
	rig_snapshot_clear(&s, r);
}

static void random_sequences_agree_with_a_model_and_after_restarts(void **state)
{
	unsigned long long took = 0, all = 0;

	for (uint64_t seed = 1; seed <= 60; seed++) {
		set_up(state);
		model_count = STEPS + 1;
		model = calloc(model_count, sizeof *model);
		history = calloc(STEPS + 2, sizeof *history);
		stored = NULL;
		stored_index = 0;
		random_run(seed);
		for (uint64_t i = 1; i <= index_now; i++) {
			took += history[i].effect;
			all++;
			rlog_buf_unref(history[i].buf);
		}
		rlog_buf_unref(stored);
		free(history);
		free(model);
		tear_down(state);
	}
	/* Both must have happened often, or nothing is tested. */
	assert_in_range(took, all / 3, all * 9 / 10);
	set_up(state);
}

int main(void)
{
#define state_test(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		state_test(commit_on_the_present_version_moves_it_by_one),
		state_test(commit_on_another_version_changes_nothing),
		state_test(commit_that_leads_to_another_checksum_moves_nothing),
		state_test(parts_count_if_all_came_in_order),
		state_test(parts_of_another_transaction_give_the_open_one_up),
		state_test(parts_and_commit_are_of_one_term),
		state_test(discard_ends_what_it_names_alone),
		state_test(parts_that_do_not_fit_their_commit_are_told),
		state_test(who_asks_for_a_name_is_told_why_not),
		state_test(database_made_again_is_another),
		state_test(rename_replaces_what_has_the_name),
		state_test(multi_commit_takes_effect_on_all_or_none),
		state_test(database_does_not_take_again_what_it_was_restored_with),
		state_test(names_up_to_the_restored_ones_change_none_again),
		state_test(multi_commit_on_both_sides_of_a_snapshot_is_judged_by_the_manifest),
		state_test(list_of_multi_commits_begins_behind_the_snapshot),
		state_test(checksums_are_compared_once_the_redo_is_over),
		state_test(originator_knows_the_pages_of_its_own_commit),
		state_test(random_sequences_agree_with_a_model_and_after_restarts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
