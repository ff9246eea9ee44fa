/* What entries say, and which databases they leave: the rules of state/ from the log alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "record/entry.h"
#include "record/manifest.h"
#include "walrepl.h"

static struct wrep_description describe(struct rlog_buf *buf)
{
	struct wrep_description d;

	assert_non_null(buf);
	assert_int_equal(wrep_describe(buf, &d), 0);
	rlog_buf_unref(buf);
	return d;
}

static struct wrep_description create(const char *name)
{
	struct wrep_entry e = {.type = WREP_ENTRY_CREATE, .mode = 0100640, .uid = 5, .gid = 6};

	strcpy(e.name, name);
	return describe(wrep_entry_encode(&e));
}

static struct wrep_description without_images(enum wrep_entry_type type, uint64_t id)
{
	struct wrep_entry e = {.type = type, .db_id = id};

	return describe(wrep_entry_encode(&e));
}

static struct wrep_description mkdir_entry(const char *path)
{
	struct wrep_entry e = {.type = WREP_ENTRY_MKDIR, .mode = 0750};

	strcpy(e.name, path);
	return describe(wrep_entry_encode(&e));
}

static struct wrep_description rename_entry(uint64_t id, const char *to, bool keep)
{
	struct wrep_entry e = {.type = WREP_ENTRY_RENAME, .db_id = id, .keep = keep};

	strcpy(e.name, to);
	return describe(wrep_entry_encode(&e));
}

static struct wrep_description images(enum wrep_entry_type type, uint64_t id, uint64_t sequence,
				      uint32_t part, uint64_t base_version)
{
	struct wrep_entry e = {
		.type = type,
		.db_id = id,
		.origin = 9,
		.sequence = sequence,
		.part = part,
		.page_size = 512,
		.image_count = 2,
	};
	struct rlog_buf *buf;

	if (type == WREP_ENTRY_COMMIT) {
		e.base_version = base_version;
		e.commit_mode = WREP_COMMIT_WAL;
		e.checksum = 1000 + base_version;
		e.page_count = 7;
		e.total_pages = 2 + 2 * part;
	}
	buf = wrep_entry_alloc(&e);
	assert_non_null(buf);
	memset((uint8_t *)e.images, 1, 1024);
	wrep_entry_set_pgno(&e, 0, 1);
	wrep_entry_set_pgno(&e, 1, 2);
	return describe(buf);
}

/* A COMMIT behind two parts, which carries nothing but what does not count of them. */
static struct wrep_description dropping(uint64_t id, uint64_t sequence)
{
	struct wrep_entry e = {.type = WREP_ENTRY_COMMIT,
			       .db_id = id,
			       .origin = 9,
			       .sequence = sequence,
			       .part = 2,
			       .page_size = 512,
			       .commit_mode = WREP_COMMIT_WAL,
			       .page_count = 9,
			       .total_pages = 6,
			       .dropped_count = 2};
	struct rlog_buf *buf = wrep_entry_alloc(&e);

	assert_non_null(buf);
	wrep_entry_set_dropped(&e, 0, 3);
	wrep_entry_set_dropped(&e, 1, 8);
	return describe(buf);
}

static struct wrep_description discard(uint64_t id, uint64_t sequence)
{
	struct wrep_entry e = {.type = WREP_ENTRY_DISCARD,
			       .db_id = id,
			       .origin = 9,
			       .sequence = sequence};

	return describe(wrep_entry_encode(&e));
}

static struct wrep_description commit(uint64_t id, uint64_t base_version)
{
	return images(WREP_ENTRY_COMMIT, id, base_version, 0, base_version);
}

/* COMMITs of two databases. */
static struct wrep_description group(uint64_t first_id, uint64_t first_base, uint64_t second_id,
				     uint64_t second_base, uint32_t second_parts)
{
	struct wrep_entry members[2] = {{.db_id = first_id, .base_version = first_base},
					{.db_id = second_id, .base_version = second_base}};
	struct rlog_buf *buf;

	for (int i = 0; i < 2; i++) {
		members[i].type = WREP_ENTRY_COMMIT;
		members[i].origin = 9;
		members[i].sequence = members[i].base_version;
		members[i].page_size = 512;
		members[i].commit_mode = WREP_COMMIT_ROLLBACK;
		members[i].checksum = 1000 + members[i].base_version;
		members[i].page_count = 7;
		members[i].part = i == 1 ? second_parts : 0;
		members[i].image_count = members[i].part ? 0 : 1;
		members[i].total_pages = members[i].part ? 2 * second_parts : 1;
	}
	buf = wrep_entry_alloc_group(members, 2);
	assert_non_null(buf);
	for (int i = 0; i < 2; i++)
		if (members[i].image_count)
			wrep_entry_set_pgno(&members[i], 0, 1);
	return describe(buf);
}

static uint64_t term = 1;

static int add(struct wrep_history *h, uint64_t index, struct wrep_description d)
{
	int rc = wrep_history_add(h, index, term, &d);

	wrep_description_clear(&d);
	return rc;
}

struct wanted {
	const char *name;
	uint64_t id, version;
};

static int next_wanted(void *arg, const struct wrep_history_db *db)
{
	struct wanted **next = arg;

	assert_non_null((*next)->name);
	assert_string_equal(db->name, (*next)->name);
	assert_int_equal(db->id, (*next)->id);
	assert_int_equal(db->version, (*next)->version);
	if (db->version > 0) {
		assert_int_equal(db->checksum, 1000 + db->version - 1);
		assert_int_equal(db->page_size, 512);
		assert_int_equal(db->page_count, 7);
	}
	++*next;
	return 0;
}

#define assert_databases(h, ...)                                                             \
	do {                                                                                 \
		struct wanted wanted_[] = {__VA_ARGS__ __VA_OPT__(, ){0}}, *next_ = wanted_; \
		assert_int_equal(wrep_history_databases(h, next_wanted, &next_), 0);         \
		assert_null(next_->name);                                                    \
	} while (0)

/* ---- describing ---------------------------------------------------------------------------- */

static void every_kind_is_described(void **state)
{
	struct wrep_entry e = {.type = WREP_ENTRY_SETATTR,
			       .db_id = 4,
			       .attr_valid = WREP_ATTR_MODE | WREP_ATTR_TIMES,
			       .mode = 0600};
	struct wrep_description d = create("a.db");

	(void)state;
	assert_int_equal(d.kind, WREP_DESCRIBES_CREATE);
	assert_string_equal(d.name, "a.db");
	assert_int_equal(d.db_id, 0);
	assert_int_equal(d.mode, 0100640);
	assert_int_equal(d.uid, 5);
	assert_int_equal(d.gid, 6);
	assert_int_equal(d.attr_valid, WREP_ATTR_MODE | WREP_ATTR_UID | WREP_ATTR_GID);

	d = without_images(WREP_ENTRY_UNLINK, 4);
	assert_int_equal(d.kind, WREP_DESCRIBES_UNLINK);
	assert_int_equal(d.db_id, 4);
	assert_string_equal(d.name, "");

	d = describe(wrep_entry_encode(&e));
	assert_int_equal(d.kind, WREP_DESCRIBES_SETATTR);
	assert_int_equal(d.attr_valid, WREP_ATTR_MODE | WREP_ATTR_TIMES);
	assert_int_equal(d.mode, 0600);

	d = images(WREP_ENTRY_PAGES, 4, 3, 1, 0);
	assert_int_equal(d.kind, WREP_DESCRIBES_PAGES);
	assert_int_equal(d.part, 1);
	assert_int_equal(d.pages, 2);
	assert_int_equal(d.page_size, 512);
	assert_int_equal(d.origin, 9);
	assert_int_equal(d.sequence, 3);

	d = images(WREP_ENTRY_COMMIT, 4, 3, 2, 11);
	assert_int_equal(d.kind, WREP_DESCRIBES_COMMIT);
	assert_int_equal(d.base_version, 11);
	assert_int_equal(d.checksum, 1011);
	assert_int_equal(d.part, 2);
	assert_int_equal(d.pages, 2);
	assert_int_equal(d.total_pages, 6);
	assert_int_equal(d.page_count, 7);
	assert_true(d.wal);

	assert_int_equal(d.dropped_pages, 0);

	d = dropping(4, 3);
	assert_int_equal(d.part, 2);
	assert_int_equal(d.pages, 0);
	assert_int_equal(d.total_pages, 6);
	assert_int_equal(d.dropped_pages, 2);

	d = mkdir_entry("a/b");
	assert_int_equal(d.kind, WREP_DESCRIBES_MKDIR);
	assert_string_equal(d.name, "a/b");
	assert_int_equal(d.mode, 0750);
	assert_true(d.is_dir);
	d = without_images(WREP_ENTRY_RMDIR, 4);
	assert_int_equal(d.kind, WREP_DESCRIBES_RMDIR);
	assert_int_equal(d.db_id, 4);
	d = rename_entry(4, "a/c.db", true);
	assert_int_equal(d.kind, WREP_DESCRIBES_RENAME);
	assert_int_equal(d.db_id, 4);
	assert_string_equal(d.to, "a/c.db");
	assert_string_equal(d.name, "");
	assert_true(d.keep);

	d = discard(4, 3);
	assert_int_equal(d.kind, WREP_DESCRIBES_DISCARD);
	assert_int_equal(d.db_id, 4);
	assert_int_equal(d.origin, 9);
	assert_int_equal(d.sequence, 3);
}

static void bytes_that_are_no_entry_are_refused(void **state)
{
	struct rlog_buf *buf = rlog_buf_new(40);
	struct wrep_description d;

	(void)state;
	memset(buf->data, 0xee, 40);
	assert_int_equal(wrep_describe(buf, &d), -EBADMSG);
	rlog_buf_unref(buf);
	buf = rlog_buf_new(0);
	assert_int_equal(wrep_describe(buf, &d), -EBADMSG);
	rlog_buf_unref(buf);
}

/* ---- the table ------------------------------------------------------------------------------ */

static void names_and_versions_follow_the_entries(void **state)
{
	struct wrep_history *h = wrep_history_new();
	struct wrep_description d;

	(void)state;
	assert_databases(h);
	d = create("a.db");
	assert_int_equal(wrep_history_add(h, 2, 1, &d), 1);
	assert_int_equal(d.db_id, 2);
	assert_int_equal(add(h, 3, create("b.db")), 1);
	assert_int_equal(add(h, 4, commit(3, 0)), 1);
	d = commit(3, 1);
	assert_int_equal(wrep_history_add(h, 5, 1, &d), 1);
	assert_string_equal(d.name, "b.db");
	assert_databases(h, {"a.db", 2, 0}, {"b.db", 3, 2});
	wrep_history_free(h);
}

static void commit_built_on_another_version_has_no_effect(void **state)
{
	struct wrep_history *h = wrep_history_new();

	(void)state;
	add(h, 2, create("a.db"));
	assert_int_equal(add(h, 3, commit(2, 0)), 1);
	assert_int_equal(add(h, 4, commit(2, 0)), 0);
	assert_int_equal(add(h, 5, commit(2, 2)), 0);
	assert_int_equal(add(h, 6, commit(17, 0)), 0);
	assert_databases(h, {"a.db", 2, 1});
	wrep_history_free(h);
}

static void commit_without_all_of_its_parts_has_no_effect(void **state)
{
	struct wrep_history *h = wrep_history_new();

	(void)state;
	add(h, 2, create("a.db"));
	/* all there */
	assert_int_equal(add(h, 3, images(WREP_ENTRY_PAGES, 2, 1, 0, 0)), 1);
	assert_int_equal(add(h, 4, images(WREP_ENTRY_PAGES, 2, 1, 1, 0)), 1);
	assert_int_equal(add(h, 5, images(WREP_ENTRY_COMMIT, 2, 1, 2, 0)), 1);
	/* none, and those of the one before do not count */
	assert_int_equal(add(h, 6, images(WREP_ENTRY_COMMIT, 2, 1, 2, 1)), 0);
	/* one is missing */
	assert_int_equal(add(h, 7, images(WREP_ENTRY_PAGES, 2, 2, 0, 0)), 1);
	assert_int_equal(add(h, 8, images(WREP_ENTRY_PAGES, 2, 2, 2, 0)), 0);
	assert_int_equal(add(h, 9, images(WREP_ENTRY_COMMIT, 2, 2, 3, 1)), 0);
	/* of another transaction */
	assert_int_equal(add(h, 10, images(WREP_ENTRY_PAGES, 2, 3, 0, 0)), 1);
	assert_int_equal(add(h, 11, images(WREP_ENTRY_COMMIT, 2, 4, 1, 1)), 0);
	assert_databases(h, {"a.db", 2, 1});
	wrep_history_free(h);
}

/* One term, and a DISCARD ends what it names and nothing else. */
static void parts_of_another_term_or_discarded_have_no_effect(void **state)
{
	struct wrep_history *h = wrep_history_new();

	(void)state;
	add(h, 2, create("a.db"));
	add(h, 3, images(WREP_ENTRY_PAGES, 2, 1, 0, 0));
	term = 2;
	assert_int_equal(add(h, 4, images(WREP_ENTRY_COMMIT, 2, 1, 1, 0)), 0);
	add(h, 5, images(WREP_ENTRY_PAGES, 2, 2, 0, 0));
	term = 3;
	assert_int_equal(add(h, 6, images(WREP_ENTRY_PAGES, 2, 2, 1, 0)), 0);
	assert_int_equal(add(h, 7, images(WREP_ENTRY_COMMIT, 2, 2, 2, 0)), 0);
	assert_databases(h, {"a.db", 2, 0});

	add(h, 8, images(WREP_ENTRY_PAGES, 2, 3, 0, 0));
	assert_int_equal(add(h, 9, discard(2, 3)), 1);
	assert_int_equal(add(h, 10, discard(2, 3)), 0);
	assert_int_equal(add(h, 11, images(WREP_ENTRY_COMMIT, 2, 3, 1, 0)), 0);
	add(h, 12, images(WREP_ENTRY_PAGES, 2, 4, 0, 0));
	assert_int_equal(add(h, 13, discard(2, 3)), 0);
	assert_int_equal(add(h, 14, images(WREP_ENTRY_COMMIT, 2, 4, 1, 0)), 1);
	assert_databases(h, {"a.db", 2, 1});
	term = 1;
	wrep_history_free(h);
}

static void name_made_again_is_another_database(void **state)
{
	struct wrep_history *h = wrep_history_new();
	struct wrep_description d = create("a.db");

	(void)state;
	add(h, 2, create("a.db"));
	add(h, 3, create("b.db"));
	add(h, 4, commit(2, 0));
	assert_int_equal(wrep_history_add(h, 5, 1, &d), 0); /* is there */
	assert_int_equal(d.db_id, 2);
	d = without_images(WREP_ENTRY_UNLINK, 2);
	assert_int_equal(wrep_history_add(h, 6, 1, &d), 1);
	assert_string_equal(d.name, "a.db");
	assert_databases(h, {"b.db", 3, 0});
	assert_int_equal(add(h, 7, commit(2, 1)), 0);
	assert_int_equal(add(h, 8, without_images(WREP_ENTRY_UNLINK, 2)), 0);
	assert_int_equal(add(h, 9, create("a.db")), 1);
	assert_int_equal(add(h, 10, commit(9, 0)), 1);
	assert_databases(h, {"b.db", 3, 0}, {"a.db", 9, 1});
	wrep_history_free(h);
}

static void many_databases_are_found_by_id(void **state)
{
	struct wrep_history *h = wrep_history_new();
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "%u.db", i);
		assert_int_equal(add(h, 10 + 2 * i, create(name)), 1);
	}
	for (unsigned i = 0; i < 300; i++) {
		struct wrep_description d = commit(10 + 2 * i, 0);

		snprintf(name, sizeof(name), "%u.db", i);
		assert_int_equal(wrep_history_add(h, 1000 + i, 1, &d), 1);
		assert_string_equal(d.name, name);
		assert_int_equal(add(h, 2000 + i, commit(11 + 2 * i, 0)), 0);
	}
	wrep_history_free(h);
}

static void group_takes_effect_on_all_or_none(void **state)
{
	struct wrep_history *h = wrep_history_new();
	struct wrep_description d;

	(void)state;
	assert_int_equal(add(h, 2, create("a.db")), 1);
	assert_int_equal(add(h, 3, create("b.db")), 1);
	d = group(2, 0, 3, 0, 0);
	assert_int_equal(d.kind, WREP_DESCRIBES_GROUP);
	assert_int_equal(d.member_count, 2);
	assert_int_equal(wrep_history_add(h, 4, 1, &d), 1);
	assert_string_equal(d.members[0].name, "a.db");
	assert_string_equal(d.members[1].name, "b.db");
	assert_int_equal(d.members[1].kind, WREP_DESCRIBES_COMMIT);
	assert_false(d.members[1].wal);
	wrep_description_clear(&d);
	assert_databases(h, {"a.db", 2, 1}, {"b.db", 3, 1});
	assert_int_equal(add(h, 5, commit(3, 1)), 1);
	assert_int_equal(add(h, 6, group(2, 1, 3, 1, 0)), 0);
	assert_databases(h, {"a.db", 2, 1}, {"b.db", 3, 2});
	/* all parts of each count */
	assert_int_equal(add(h, 7, group(2, 1, 3, 2, 2)), 0);
	assert_int_equal(add(h, 8, images(WREP_ENTRY_PAGES, 3, 2, 0, 0)), 1);
	assert_int_equal(add(h, 9, images(WREP_ENTRY_PAGES, 3, 2, 1, 0)), 1);
	assert_int_equal(add(h, 10, group(2, 1, 3, 2, 2)), 1);
	assert_databases(h, {"a.db", 2, 2}, {"b.db", 3, 3});
	assert_int_equal(add(h, 11, without_images(WREP_ENTRY_UNLINK, 3)), 1);
	assert_int_equal(add(h, 12, group(2, 2, 3, 3, 0)), 0);
	assert_databases(h, {"a.db", 2, 2});
	wrep_history_free(h);
}

static void directories_and_renames_follow_the_entries(void **state)
{
	struct wrep_history *h = wrep_history_new();
	struct wrep_description d;

	(void)state;
	assert_int_equal(add(h, 2, create("a/x.db")), 0); /* no such directory */
	d = mkdir_entry("a");
	assert_int_equal(wrep_history_add(h, 3, 1, &d), 1);
	assert_int_equal(d.db_id, 3);
	assert_int_equal(add(h, 4, mkdir_entry("a")), 0);
	assert_int_equal(add(h, 5, create("a/x.db")), 1);
	assert_int_equal(add(h, 6, create("y.db")), 1);
	d = without_images(WREP_ENTRY_RMDIR, 3);
	assert_int_equal(wrep_history_add(h, 7, 1, &d), 0); /* not empty */
	assert_string_equal(d.name, "a");
	assert_true(d.is_dir);
	assert_int_equal(add(h, 8, commit(5, 0)), 1);
	assert_int_equal(add(h, 9, rename_entry(5, "y.db", true)), 0);
	d = rename_entry(5, "y.db", false);
	assert_int_equal(wrep_history_add(h, 10, 1, &d), 1);
	assert_string_equal(d.name, "a/x.db");
	assert_int_equal(d.replaced, 6);
	assert_databases(h, {"y.db", 5, 1});
	assert_int_equal(add(h, 11, commit(6, 0)), 0);
	assert_int_equal(add(h, 12, commit(5, 1)), 1);
	assert_int_equal(add(h, 13, without_images(WREP_ENTRY_RMDIR, 3)), 1);
	assert_int_equal(add(h, 14, rename_entry(5, "a/y.db", false)), 0);
	assert_int_equal(add(h, 15, create("a")), 1);
	assert_databases(h, {"y.db", 5, 2}, {"a", 15, 0});
	wrep_history_free(h);
}

/* ---- beginning with a snapshot --------------------------------------------------------------- */

static void start(struct wrep_history *h, uint64_t index, const struct wrep_manifest_db *dbs,
		  size_t count)
{
	static uint64_t groups[] = {12, 15};
	struct wrep_manifest m = {.dbs = (struct wrep_manifest_db *)(uintptr_t)dbs,
				  .count = count,
				  .redo_until = 17,
				  .judged_until = 16,
				  .group_count = 2,
				  .groups = groups};
	struct rlog_buf *payload = wrep_manifest_encode(&m);

	assert_non_null(payload);
	assert_int_equal(wrep_history_start(h, index, payload), 0);
	rlog_buf_unref(payload);
}

static void entries_in_front_of_the_snapshot_do_not_count_again(void **state)
{
	/* b.db was ahead of the snapshot when it was taken, and c.db made behind it. */
	static const struct wrep_manifest_db dbs[] = {
		{.name = "c.db", .id = 12, .version = 0, .index = 12},
		{.name = "b.db",
		 .id = 3,
		 .version = 5,
		 .index = 14,
		 .checksum = 1004,
		 .page_size = 512,
		 .page_count = 7,
		 .wal_frames = 9},
		{.name = "a.db",
		 .id = 2,
		 .version = 2,
		 .index = 6,
		 .checksum = 1001,
		 .page_size = 512,
		 .page_count = 7},
	};
	struct wrep_history *h = wrep_history_new();
	struct wrep_description d;

	(void)state;
	assert_int_equal(wrep_history_wants(h), 0);
	start(h, 10, dbs, 3);
	assert_int_equal(wrep_history_wants(h), 17);
	assert_databases(h, {"a.db", 2, 2}, {"b.db", 3, 5}, {"c.db", 12, 0});
	/* in front, still in the log */
	d = create("a.db");
	assert_int_equal(wrep_history_add(h, 2, 1, &d), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(d.db_id, 2);
	d = commit(2, 1);
	assert_int_equal(wrep_history_add(h, 6, 1, &d), WREP_HISTORY_IN_SNAPSHOT);
	assert_string_equal(d.name, "a.db");
	/* what is gone since has its name all the same */
	assert_int_equal(add(h, 7, create("gone.db")), WREP_HISTORY_IN_SNAPSHOT);
	d = without_images(WREP_ENTRY_UNLINK, 7);
	assert_int_equal(wrep_history_add(h, 8, 1, &d), WREP_HISTORY_IN_SNAPSHOT);
	assert_string_equal(d.name, "gone.db");
	assert_int_equal(add(h, 9, without_images(WREP_ENTRY_UNLINK, 1)), WREP_HISTORY_IN_SNAPSHOT);
	/* behind it */
	assert_int_equal(add(h, 11, commit(3, 3)), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 12, create("c.db")), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 13, commit(2, 2)), WREP_HISTORY_TAKES_EFFECT);
	assert_int_equal(add(h, 14, commit(3, 4)), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 15, commit(3, 5)), WREP_HISTORY_TAKES_EFFECT);
	assert_int_equal(add(h, 16, commit(3, 5)), WREP_HISTORY_PASSED_OVER);
	assert_int_equal(add(h, 17, commit(1, 0)), WREP_HISTORY_PASSED_OVER);
	assert_int_equal(add(h, 18, create("d.db")), WREP_HISTORY_TAKES_EFFECT);
	assert_databases(h, {"a.db", 2, 3}, {"b.db", 3, 6}, {"c.db", 12, 0}, {"d.db", 18, 0});
	wrep_history_free(h);
}

/* a.db was noted before the groups came, b.db behind them, and a third was removed in between. */
static void group_behind_the_snapshot_counts_if_the_manifest_names_it(void **state)
{
	static const struct wrep_manifest_db dbs[] = {
		{.name = "a.db",
		 .id = 2,
		 .version = 2,
		 .index = 6,
		 .checksum = 1001,
		 .page_size = 512,
		 .page_count = 7},
		{.name = "b.db",
		 .id = 3,
		 .version = 5,
		 .index = 15,
		 .checksum = 1004,
		 .page_size = 512,
		 .page_count = 7},
	};
	struct wrep_history *h = wrep_history_new();

	(void)state;
	start(h, 10, dbs, 2);
	assert_int_equal(add(h, 9, group(2, 1, 3, 1, 0)), WREP_HISTORY_IN_SNAPSHOT);
	/* refused then, because of what b.db was */
	assert_int_equal(add(h, 11, group(2, 2, 3, 2, 0)), WREP_HISTORY_PASSED_OVER);
	assert_int_equal(add(h, 12, group(2, 2, 3, 3, 0)), WREP_HISTORY_TAKES_EFFECT);
	assert_databases(h, {"a.db", 2, 3}, {"b.db", 3, 5});
	/* because of the third, though nothing here speaks against it */
	assert_int_equal(add(h, 14, group(2, 3, 4, 0, 0)), WREP_HISTORY_PASSED_OVER);
	assert_int_equal(add(h, 15, group(2, 3, 4, 1, 0)), WREP_HISTORY_TAKES_EFFECT);
	/* behind what the manifest knows of */
	assert_int_equal(add(h, 17, group(2, 4, 4, 2, 0)), WREP_HISTORY_PASSED_OVER);
	assert_int_equal(add(h, 18, group(2, 4, 3, 5, 0)), WREP_HISTORY_TAKES_EFFECT);
	assert_databases(h, {"a.db", 2, 5}, {"b.db", 3, 6});
	wrep_history_free(h);
}

static void database_made_and_removed_behind_the_snapshot_keeps_the_table_in_order(void **state)
{
	static const struct wrep_manifest_db dbs[] = {
		{.name = "a.db", .id = 15, .version = 0, .index = 15},
	};
	struct wrep_history *h = wrep_history_new();

	(void)state;
	start(h, 10, dbs, 1);
	/* The name is taken by the one that was made later: as state.c has it. */
	assert_int_equal(add(h, 11, create("a.db")), WREP_HISTORY_PASSED_OVER);
	assert_int_equal(add(h, 12, create("b.db")), WREP_HISTORY_TAKES_EFFECT);
	assert_databases(h, {"b.db", 12, 0}, {"a.db", 15, 0});
	assert_int_equal(add(h, 13, commit(12, 0)), WREP_HISTORY_TAKES_EFFECT);
	assert_int_equal(add(h, 14, without_images(WREP_ENTRY_UNLINK, 12)),
			 WREP_HISTORY_TAKES_EFFECT);
	assert_int_equal(add(h, 15, create("a.db")), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 16, commit(15, 0)), WREP_HISTORY_TAKES_EFFECT);
	assert_databases(h, {"a.db", 15, 1});
	wrep_history_free(h);
}

static void names_up_to_those_of_the_manifest_do_not_change_again(void **state)
{
	struct wrep_manifest m = {.names_index = 20};
	struct wrep_history *h = wrep_history_new();
	struct wrep_manifest_dir *dir = wrep_manifest_add_dir(&m);
	struct wrep_manifest_db *db = wrep_manifest_add(&m);
	struct rlog_buf *payload;

	(void)state;
	strcpy(dir->path, "a");
	dir->id = 12;
	strcpy(db->name, "a/x.db");
	db->id = 3;
	db->index = 9;
	db->version = 1;
	db->checksum = 1000;
	db->page_size = 512;
	db->page_count = 7;
	payload = wrep_manifest_encode(&m);
	assert_int_equal(wrep_history_start(h, 10, payload), 0);
	rlog_buf_unref(payload);
	wrep_manifest_clear(&m);
	assert_int_equal(add(h, 12, mkdir_entry("a")), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 13, create("y.db")), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 14, rename_entry(3, "a/x.db", false)), WREP_HISTORY_IN_SNAPSHOT);
	/* what is in the databases does */
	assert_int_equal(add(h, 15, commit(3, 1)), WREP_HISTORY_TAKES_EFFECT);
	assert_int_equal(add(h, 16, without_images(WREP_ENTRY_UNLINK, 13)),
			 WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 17, commit(13, 0)), WREP_HISTORY_IN_SNAPSHOT);
	assert_int_equal(add(h, 21, rename_entry(3, "z.db", false)), WREP_HISTORY_TAKES_EFFECT);
	assert_int_equal(add(h, 22, without_images(WREP_ENTRY_RMDIR, 12)),
			 WREP_HISTORY_TAKES_EFFECT);
	assert_databases(h, {"z.db", 3, 2});
	wrep_history_free(h);
}

static void snapshot_that_is_no_manifest_is_refused(void **state)
{
	struct wrep_history *h = wrep_history_new();
	struct rlog_buf *payload = rlog_buf_new(40);

	(void)state;
	memset(payload->data, 0xee, 40);
	assert_int_equal(wrep_history_start(h, 10, payload), -EBADMSG);
	assert_databases(h);
	rlog_buf_unref(payload);
	wrep_history_free(h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_is_described),
		cmocka_unit_test(bytes_that_are_no_entry_are_refused),
		cmocka_unit_test(names_and_versions_follow_the_entries),
		cmocka_unit_test(commit_built_on_another_version_has_no_effect),
		cmocka_unit_test(commit_without_all_of_its_parts_has_no_effect),
		cmocka_unit_test(parts_of_another_term_or_discarded_have_no_effect),
		cmocka_unit_test(name_made_again_is_another_database),
		cmocka_unit_test(many_databases_are_found_by_id),
		cmocka_unit_test(group_takes_effect_on_all_or_none),
		cmocka_unit_test(group_behind_the_snapshot_counts_if_the_manifest_names_it),
		cmocka_unit_test(directories_and_renames_follow_the_entries),
		cmocka_unit_test(names_up_to_those_of_the_manifest_do_not_change_again),
		cmocka_unit_test(entries_in_front_of_the_snapshot_do_not_count_again),
		cmocka_unit_test(
			database_made_and_removed_behind_the_snapshot_keeps_the_table_in_order),
		cmocka_unit_test(snapshot_that_is_no_manifest_is_refused),
	};

	return cmocka_run_group_tests_name("walrepl_describe", tests, NULL, NULL);
}
