#include "cli/log_json.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include "node/values.h"
#include "node/words.h"

static json_t *name_json(const char *name)
{
	return name[0] ? fsd_bytes_json(name) : json_null();
}

static int print_json(json_t *object)
{
	if (!object)
		return -ENOMEM;
	json_dumpf(object, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(object);
	putchar('\n');
	return ferror(stdout) ? -EIO : 0;
}

static json_t *members_json(const struct rlog_member *members, unsigned count)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, json_pack("{s:o, s:o, s:s}", "node",
						      fsd_hex_json(8, members[i].id), "address",
						      fsd_bytes_json(members[i].address), "role",
						      fsd_member_role_word(members[i].role)));
	return list;
}

static int add_snapshot_json(void *arg, const struct wrep_history_db *db)
{
	return json_array_append_new(arg,
				     json_pack("{s:o, s:o, s:o, s:o, s:o}", "name",
					       name_json(db->name), "id", fsd_number_json(db->id),
					       "version", fsd_number_json(db->version), "index",
					       fsd_number_json(db->index), "wal_frames",
					       fsd_number_json(db->wal_frames)));
}

static int add_directory_json(void *arg, uint64_t id, const char *path)
{
	return json_array_append_new(arg, json_pack("{s:o, s:o}", "name", name_json(path), "id",
						    fsd_number_json(id)));
}

static int show_snapshot(const struct rlog_dump_node *node, struct wrep_history *history)
{
	json_t *list = json_array(), *dirs = json_array();

	wrep_history_databases(history, add_snapshot_json, list);
	wrep_history_directories(history, add_directory_json, dirs);
	return print_json(
		json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "kind", "snapshot", "index",
			  fsd_number_json(node->snapshot_index), "term",
			  fsd_number_json(node->snapshot_term), "members",
			  members_json(node->snapshot_members, node->snapshot_member_count),
			  "databases", list, "directories", dirs));
}

static int show_node(const struct rlog_dump_node *node, const char *address)
{
	return print_json(
		json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:b}", "kind", "node", "node",
			  fsd_hex_json(8, node->id), "address", fsd_bytes_json(address), "cluster",
			  fsd_hex_json(16, node->cluster_id), "term", fsd_number_json(node->term),
			  "voted_for",
			  node->voted_for ? fsd_hex_json(8, node->voted_for) : json_null(), "torn",
			  (int)node->torn));
}

static int show_segment(const struct rlog_dump_segment *segment)
{
	static const char *const states[] = {"full", "last", "torn", "damaged"};

	return print_json(
		json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:s}", "kind", "segment", "file",
			  segment->file, "first_index", fsd_number_json(segment->first_index),
			  "entries", fsd_number_json(segment->entries), "used_bytes",
			  fsd_number_json(segment->used_bytes), "bytes",
			  fsd_number_json(segment->all_bytes), "state", states[segment->state]));
}

static void add_number(json_t *object, const char *key, uint64_t number)
{
	json_object_set_new(object, key, fsd_number_json(number));
}

static void add_description_json(json_t *object, const struct wrep_description *d)
{
	json_object_set_new(object, d->is_dir ? "directory" : "database", name_json(d->name));
	add_number(object, "id", d->db_id);
	if (d->kind == WREP_DESCRIBES_RENAME) {
		json_object_set_new(object, "to", name_json(d->to));
		json_object_set_new(object, "keep", json_boolean(d->keep));
		json_object_set_new(object, "replaced",
				    d->replaced ? fsd_number_json(d->replaced) : json_null());
	}
	if (d->attr_valid & WREP_ATTR_MODE)
		json_object_set_new(object, "mode", json_sprintf("%o", (unsigned)d->mode));
	if (d->attr_valid & WREP_ATTR_UID)
		add_number(object, "uid", d->uid);
	if (d->attr_valid & WREP_ATTR_GID)
		add_number(object, "gid", d->gid);
	if (d->kind != WREP_DESCRIBES_PAGES && d->kind != WREP_DESCRIBES_COMMIT)
		return;
	add_number(object, "part", d->part);
	add_number(object, "pages", d->pages);
	add_number(object, "page_size", d->page_size);
	if (d->kind != WREP_DESCRIBES_COMMIT)
		return;
	add_number(object, "base_version", d->base_version);
	add_number(object, "version", d->base_version + 1);
	json_object_set_new(object, "checksum", fsd_hex_json(16, d->checksum));
	add_number(object, "total_pages", d->total_pages);
	add_number(object, "dropped_pages", d->dropped_pages);
	add_number(object, "page_count", d->page_count);
	json_object_set_new(object, "mode", json_string(d->wal ? "wal" : "rollback"));
}

static void add_members_json(json_t *object, const struct wrep_description *d)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < d->member_count; i++) {
		json_t *member = json_object();

		add_description_json(member, &d->members[i]);
		json_array_append_new(list, member);
	}
	json_object_set_new(object, "members", list);
}

static int show_entry(const struct rlog_dump_entry *entry, const struct wrep_description *d,
		      int effect)
{
	json_t *object =
		json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:s}", "kind", "entry", "file",
			  entry->file, "offset", fsd_number_json(entry->offset), "index",
			  fsd_number_json(entry->index), "term", fsd_number_json(entry->term),
			  "bytes", fsd_number_json(entry->bytes), "dropped", (int)entry->dropped,
			  "type", fsd_log_type_word(entry, d));

	if (entry->type == RLOG_DUMP_MEMBERS)
		json_object_set_new(object, "members",
				    members_json(entry->members, entry->member_count));
	if (d)
		json_object_set_new(object, "effect",
				    effect == WREP_HISTORY_IN_SNAPSHOT
					    ? json_null()
					    : json_boolean(effect == WREP_HISTORY_TAKES_EFFECT));
	if (d && d->kind == WREP_DESCRIBES_GROUP)
		add_members_json(object, d);
	else if (d)
		add_description_json(object, d);
	return print_json(object);
}

static int show_database(void *arg, const struct wrep_history_db *db)
{
	return print_json(json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "kind", "database",
				    "name", name_json(db->name), "id", fsd_number_json(db->id),
				    "version", fsd_number_json(db->version), "checksum",
				    fsd_hex_json(16, db->checksum), "page_size",
				    fsd_number_json(db->page_size), "pages",
				    fsd_number_json(db->page_count)));
}

static int show_directory(void *arg, uint64_t id, const char *path)
{
	return print_json(json_pack("{s:s, s:o, s:o}", "kind", "directory", "name", name_json(path),
				    "id", fsd_number_json(id)));
}

static void show_end(struct wrep_history *history)
{
	wrep_history_databases(history, show_database, NULL);
	wrep_history_directories(history, show_directory, NULL);
}

static int show_summary(const struct fsd_log_totals *s, uint64_t torn_bytes)
{
	return print_json(json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "kind",
				    "summary", "segments", fsd_number_json(s->segments), "entries",
				    fsd_number_json(s->entries), "first_index",
				    fsd_number_json(s->first_index), "last_index",
				    fsd_number_json(s->last_index), "terms",
				    fsd_number_json(s->terms), "first_term",
				    fsd_number_json(s->first_term), "last_term",
				    fsd_number_json(s->last_term), "torn_bytes",
				    fsd_number_json(torn_bytes)));
}

static int show_damage(const char *file, uint64_t offset, const char *message, uint64_t unread)
{
	return print_json(json_pack("{s:s, s:s, s:o, s:s, s:o}", "kind", "damage", "file", file,
				    "offset", fsd_number_json(offset), "message", message,
				    "segments_unread", fsd_number_json(unread)));
}

const struct fsd_log_printer fsd_log_as_json = {
	.node = show_node,
	.snapshot = show_snapshot,
	.segment = show_segment,
	.entry = show_entry,
	.end = show_end,
	.summary = show_summary,
	.damage = show_damage,
};
