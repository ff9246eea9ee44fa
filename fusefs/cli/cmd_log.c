/* dqlitefs log --data DIR [--json]: what the Raft log of a stopped node holds, entry by entry.
 *
 * The log is dumped, printed as it is read, so that any size of it can be looked at; nothing is
 * written. The node's lock is held meanwhile, so that no daemon starts to write into what is read.
 * Damage ends the dump: it is told behind everything that could be read in front of it, and again in
 * one line on stderr.
 *
 * With --json every line is an object; its "kind" says of what:
 *
 *   node      node, address, cluster, term, voted_for (or null), torn
 *   snapshot  index, term, members: [{node, address, role}],
 *             databases: [{name, id, version, index, wal_frames}], directories: [{name, id}]: what the
 *             files hold; the log goes on from there, whatever of it still lies in front
 *   segment   file, first_index, entries, used_bytes, bytes, state: full, last, torn, damaged
 *   entry     file, offset, index, term, bytes, dropped, type; and by that:
 *               members              members: [{node, address, role}]
 *               barrier, unknown
 *               truncation           the entries from index on are dropped
 *               create, setattr      database, id, effect, mode, uid, gid (setattr: those it sets)
 *               unlink               database, id, effect
 *               mkdir, rmdir         directory, id, effect; mkdir: mode, uid, gid. A setattr may have
 *                                    directory instead of database
 *               rename               database, id, effect, to, keep: only if `to` is free, replaced:
 *                                    the id of the database that goes by it, or null
 *               pages                database, id, effect, part, pages, page_size
 *               commit               these, and base_version, version, checksum, total_pages,
 *                                    dropped_pages, page_count, mode: wal, rollback
 *               group                effect, members: [{what a commit has, but for the effect}]
 *   database  name, id, version, checksum, page_size, pages: at the end of what was read
 *             (the snapshot's and what the entries made of it)
 *   directory name, id: likewise
 *   summary   segments, entries, first_index, last_index, terms, first_term, last_term, torn_bytes
 *   damage    file, offset, message, segments_unread
 *
 * Names and numbers are as values.h says. A database that an entry names by an id that does not live (any more) is null. The effect is true,
 * false, or null when what the snapshot says was after the entry. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cli/cli.h"
#include "cli/stopped.h"
#include "node/identity.h"
#include "node/values.h"
#include "walrepl.h"

struct shown {
	bool as_json;
	struct fsd_identity identity;
	bool has_identity, other_node;
	struct wrep_history *history;
	uint64_t segments, entries, first_index, last_index, terms, first_term, last_term;
	bool bad_manifest; /* the snapshot's payload is none */
	/* the first entry that this version does not understand */
	char strange_file[32];
	uint64_t strange_offset, strange_index;
};

/* ---- words --------------------------------------------------------------------------------- */

static json_t *name_json(const char *name)
{
	return name[0] ? fsd_bytes_json(name) : json_null();
}

static json_t *hex_json(int digits, uint64_t number)
{
	return json_sprintf("%0*" PRIx64, digits, number);
}

static const char *role_word(enum rlog_member_role role)
{
	static const char *const words[] = {"voter", "standby", "spare"};

	return words[role];
}

static const char *type_word(const struct rlog_dump_entry *entry, const struct wrep_description *d)
{
	static const char *const kinds[] = {"create",  "unlink", "setattr", "pages", "commit",
					    "discard", "group",	 "mkdir",   "rmdir", "rename"};

	switch (entry->type) {
	case RLOG_DUMP_COMMAND:
		return d ? kinds[d->kind] : "unknown";
	case RLOG_DUMP_BARRIER:
		return "barrier";
	case RLOG_DUMP_MEMBERS:
		return "members";
	case RLOG_DUMP_TRUNCATION:
		return "truncation";
	case RLOG_DUMP_UNKNOWN:
		break;
	}
	return "unknown";
}

/* ---- lines --------------------------------------------------------------------------------- */

static int print_json(json_t *object)
{
	if (!object)
		return -ENOMEM;
	json_dumpf(object, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
	json_decref(object);
	putchar('\n');
	return ferror(stdout) ? -EIO : 0;
}

static int print_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int print_text(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	return ferror(stdout) ? -EIO : 0;
}

static json_t *members_json(const struct rlog_member *members, unsigned count)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, json_pack("{s:o, s:o, s:s}", "node",
						      hex_json(8, members[i].id), "address",
						      fsd_bytes_json(members[i].address), "role",
						      role_word(members[i].role)));
	return list;
}

static void print_members(const struct rlog_member *members, unsigned count)
{
	char address[FSD_SHOWN_SIZE];

	for (unsigned i = 0; i < count; i++)
		print_text("%s %08" PRIx64 " %s %s", i ? "," : "", members[i].id,
			   fsd_shown(members[i].address, address), role_word(members[i].role));
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

static int show_snapshot_directory(void *arg, uint64_t id, const char *path)
{
	char name[FSD_SHOWN_SIZE];

	(void)arg;
	return print_text("  %-22s %10" PRIu64 "  directory\n", fsd_shown(path, name), id);
}

static int show_snapshot_database(void *arg, const struct wrep_history_db *db)
{
	char name[FSD_SHOWN_SIZE];

	(void)arg;
	return print_text("  %-22s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu32 "\n",
			  fsd_shown(db->name, name), db->id, db->version, db->index,
			  db->wal_frames);
}

static int show_snapshot(struct shown *s, const struct rlog_dump_node *node)
{
	json_t *list, *dirs;
	int err = wrep_history_start(s->history, node->snapshot_index, node->snapshot_payload);

	s->bad_manifest = err == -EBADMSG;
	if (err)
		return err;
	if (s->as_json) {
		list = json_array();
		wrep_history_databases(s->history, add_snapshot_json, list);
		dirs = json_array();
		wrep_history_directories(s->history, add_directory_json, dirs);
		return print_json(
			json_pack("{s:s, s:o, s:o, s:o, s:o, s:o}", "kind", "snapshot", "index",
				  fsd_number_json(node->snapshot_index), "term",
				  fsd_number_json(node->snapshot_term), "members",
				  members_json(node->snapshot_members, node->snapshot_member_count),
				  "databases", list, "directories", dirs));
	}
	print_text("\nsnapshot at index %" PRIu64 ", term %" PRIu64 ", members",
		   node->snapshot_index, node->snapshot_term);
	print_members(node->snapshot_members, node->snapshot_member_count);
	print_text("\n  %-22s %10s %10s %10s %10s\n", "DATABASE", "ID", "VERSION", "INDEX",
		   "WAL FRAMES");
	err = wrep_history_databases(s->history, show_snapshot_database, NULL);
	return err ? err : wrep_history_directories(s->history, show_snapshot_directory, NULL);
}

static int show_node_line(struct shown *s, const struct rlog_dump_node *node)
{
	const char *address = s->has_identity ? s->identity.address : "-";
	char shown[FSD_SHOWN_SIZE];

	s->other_node = s->has_identity &&
			(node->id != s->identity.node || node->cluster_id != s->identity.cluster);
	if (s->as_json)
		return print_json(
			json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:b}", "kind", "node", "node",
				  hex_json(8, node->id), "address", fsd_bytes_json(address),
				  "cluster", hex_json(16, node->cluster_id), "term",
				  fsd_number_json(node->term), "voted_for",
				  node->voted_for ? hex_json(8, node->voted_for) : json_null(),
				  "torn", (int)node->torn));
	print_text("node     %08" PRIx64 " at %s\n", node->id, fsd_shown(address, shown));
	print_text("cluster  %016" PRIx64 "\n", node->cluster_id);
	print_text("term     %" PRIu64, node->term);
	if (node->voted_for)
		print_text(", voted for %08" PRIx64, node->voted_for);
	return print_text("%s\n", node->torn ? " (a later update was torn)" : "");
}

static int show_node(void *arg, const struct rlog_dump_node *node)
{
	int err = show_node_line(arg, node);

	return !err && node->snapshot_payload ? show_snapshot(arg, node) : err;
}

static int show_segment(void *arg, const struct rlog_dump_segment *segment)
{
	static const char *const states[] = {"full", "last", "torn", "damaged"};
	static const char *const meanings[] = {"full", "last", "last, with a torn write at the end",
					       "damaged"};
	struct shown *s = arg;

	s->segments++;
	if (s->as_json)
		return print_json(json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:s}", "kind",
					    "segment", "file", segment->file, "first_index",
					    fsd_number_json(segment->first_index), "entries",
					    fsd_number_json(segment->entries), "used_bytes",
					    fsd_number_json(segment->used_bytes), "bytes",
					    fsd_number_json(segment->all_bytes), "state",
					    states[segment->state]));
	return print_text("\n%s: first index %" PRIu64 ", entries %" PRIu64 ", used %" PRIu64
			  " of %" PRIu64 " bytes, %s\n%10s %6s %10s  %s\n",
			  segment->file, segment->first_index, segment->entries,
			  segment->used_bytes, segment->all_bytes, meanings[segment->state],
			  "INDEX", "TERM", "BYTES", "TYPE");
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
	json_object_set_new(object, "checksum", hex_json(16, d->checksum));
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

static int show_entry_json(const struct rlog_dump_entry *entry, const struct wrep_description *d,
			   int effect)
{
	json_t *object =
		json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:b, s:s}", "kind", "entry", "file",
			  entry->file, "offset", fsd_number_json(entry->offset), "index",
			  fsd_number_json(entry->index), "term", fsd_number_json(entry->term),
			  "bytes", fsd_number_json(entry->bytes), "dropped", (int)entry->dropped,
			  "type", type_word(entry, d));

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

static void print_description(const struct wrep_description *d)
{
	char name[FSD_SHOWN_SIZE];

	if (d->name[0])
		print_text(" %s", fsd_shown(d->name, name));
	else
		print_text(" %s %" PRIu64, d->is_dir ? "directory" : "database", d->db_id);
	if (d->kind == WREP_DESCRIBES_RENAME)
		print_text(" to %s%s", fsd_shown(d->to, name), d->keep ? ", if that is free" : "");
	if (d->replaced)
		print_text(", in place of database %" PRIu64, d->replaced);
	if (d->kind == WREP_DESCRIBES_COMMIT)
		print_text(" version %" PRIu64, d->base_version + 1);
	if (d->kind == WREP_DESCRIBES_PAGES)
		print_text(" part %" PRIu32, d->part);
	if (d->kind == WREP_DESCRIBES_PAGES || d->kind == WREP_DESCRIBES_COMMIT)
		print_text(", %" PRIu32 " pages of %" PRIu32, d->pages, d->page_size);
	if (d->kind == WREP_DESCRIBES_COMMIT && d->part)
		print_text(" (%" PRIu32 " with its parts)", d->total_pages);
	if (d->dropped_pages)
		print_text(", %" PRIu32 " of the parts dropped", d->dropped_pages);
	if (d->kind == WREP_DESCRIBES_COMMIT)
		print_text(", database of %" PRIu32 " pages, %s", d->page_count,
			   d->wal ? "wal" : "rollback");
	if (d->attr_valid & WREP_ATTR_MODE)
		print_text(", mode %o", (unsigned)d->mode);
	if (d->attr_valid & WREP_ATTR_UID)
		print_text(", uid %u", (unsigned)d->uid);
	if (d->attr_valid & WREP_ATTR_GID)
		print_text(", gid %u", (unsigned)d->gid);
	if (d->attr_valid & WREP_ATTR_TIMES)
		print_text(", times");
}

static int show_entry_text(const struct rlog_dump_entry *entry, const struct wrep_description *d,
			   int effect)
{
	if (entry->type == RLOG_DUMP_TRUNCATION)
		return print_text("%10s %6s %10s  truncation: entries from %" PRIu64
				  " on are dropped\n",
				  "-", "-", "-", entry->index);
	print_text("%10" PRIu64 " %6" PRIu64 " %10zu  %s", entry->index, entry->term, entry->bytes,
		   type_word(entry, d));
	print_members(entry->members, entry->member_count);
	if (d && d->kind != WREP_DESCRIBES_GROUP)
		print_description(d);
	for (uint32_t i = 0; d && i < d->member_count; i++) {
		print_text("%s", i ? ";" : "");
		print_description(&d->members[i]);
	}
	return print_text("%s\n", entry->dropped		       ? ": dropped later"
				  : !d				       ? ""
				  : effect == WREP_HISTORY_IN_SNAPSHOT ? ": in the snapshot"
				  : effect == WREP_HISTORY_PASSED_OVER ? ": no effect"
								       : "");
}

static void count_entry(struct shown *s, const struct rlog_dump_entry *entry)
{
	if (!s->entries++) {
		s->first_index = entry->index;
		s->first_term = entry->term;
	}
	if (s->terms == 0 || entry->term != s->last_term)
		s->terms++;
	s->last_index = entry->index;
	s->last_term = entry->term;
}

static int show_entry(void *arg, const struct rlog_dump_entry *entry)
{
	struct shown *s = arg;
	struct wrep_description description, *d = NULL;
	int effect = WREP_HISTORY_PASSED_OVER;

	int err;

	if (entry->type == RLOG_DUMP_COMMAND && !wrep_describe(entry->buf, &description))
		d = &description;
	if (d && !entry->dropped) {
		effect = wrep_history_add(s->history, entry->index, entry->term, d);
		if (effect < 0) {
			wrep_description_clear(d);
			return effect;
		}
	}
	if (entry->type != RLOG_DUMP_TRUNCATION && !entry->dropped) {
		count_entry(s, entry);
		if (!s->strange_index && !strcmp(type_word(entry, d), "unknown")) {
			snprintf(s->strange_file, sizeof(s->strange_file), "%s", entry->file);
			s->strange_offset = entry->offset;
			s->strange_index = entry->index;
		}
	}
	err = s->as_json ? show_entry_json(entry, d, effect) : show_entry_text(entry, d, effect);
	if (d)
		wrep_description_clear(d);
	return err;
}

static int show_database(void *arg, const struct wrep_history_db *db)
{
	struct shown *s = arg;
	char name[FSD_SHOWN_SIZE];

	if (s->as_json)
		return print_json(json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "kind",
					    "database", "name", name_json(db->name), "id",
					    fsd_number_json(db->id), "version",
					    fsd_number_json(db->version), "checksum",
					    hex_json(16, db->checksum), "page_size",
					    fsd_number_json(db->page_size), "pages",
					    fsd_number_json(db->page_count)));
	return print_text("%-24s %10" PRIu64 " %10" PRIu64 "  %016" PRIx64 " %9" PRIu32
			  " %10" PRIu32 "\n",
			  fsd_shown(db->name, name), db->id, db->version, db->checksum,
			  db->page_size, db->page_count);
}

static int show_directory(void *arg, uint64_t id, const char *path)
{
	struct shown *s = arg;
	char name[FSD_SHOWN_SIZE];

	if (s->as_json)
		return print_json(json_pack("{s:s, s:o, s:o}", "kind", "directory", "name",
					    name_json(path), "id", fsd_number_json(id)));
	return print_text("%-24s %10" PRIu64 "  directory\n", fsd_shown(path, name), id);
}

static int show_summary(struct shown *s, const struct rlog_dump_end *end)
{
	if (s->as_json)
		return print_json(json_pack("{s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "kind",
					    "summary", "segments", fsd_number_json(s->segments),
					    "entries", fsd_number_json(s->entries), "first_index",
					    fsd_number_json(s->first_index), "last_index",
					    fsd_number_json(s->last_index), "terms",
					    fsd_number_json(s->terms), "first_term",
					    fsd_number_json(s->first_term), "last_term",
					    fsd_number_json(s->last_term), "torn_bytes",
					    fsd_number_json(end->torn_bytes)));
	print_text("\nsegments %" PRIu64 "\nentries  %" PRIu64, s->segments, s->entries);
	if (s->entries)
		print_text(", index %" PRIu64 " to %" PRIu64 "\nterms    %" PRIu64 ", %" PRIu64
			   " to %" PRIu64,
			   s->first_index, s->last_index, s->terms, s->first_term, s->last_term);
	if (end->torn_bytes)
		print_text("\ntorn     %" PRIu64 " bytes that nobody was told of; the next start "
			   "drops them",
			   end->torn_bytes);
	return print_text("\n");
}

static int show_damage(struct shown *s, const char *file, uint64_t offset, const char *message,
		       uint64_t unread)
{
	if (s->as_json)
		return print_json(json_pack("{s:s, s:s, s:o, s:s, s:o}", "kind", "damage", "file",
					    file, "offset", fsd_number_json(offset), "message",
					    message, "segments_unread", fsd_number_json(unread)));
	print_text("\ndamage   %s at offset %" PRIu64 ": %s", file, offset, message);
	if (unread)
		print_text("; %" PRIu64 " later segments were not read", unread);
	return print_text("\n");
}

/* What follows the entries; also of a dump that ended early. */
static void show_end(struct shown *s, const struct rlog_dump_end *end)
{
	if (!s->as_json)
		print_text("\n%-24s %10s %10s  %-16s %9s %10s\n", "DATABASE", "ID", "VERSION",
			   "CHECKSUM", "PAGE SIZE", "PAGES");
	wrep_history_databases(s->history, show_database, s);
	wrep_history_directories(s->history, show_directory, s);
	show_summary(s, end);
	if (end->damage)
		show_damage(s, end->damage_file, end->damage_offset, end->damage,
			    end->segments_unread);
	if (s->bad_manifest)
		show_damage(s, "snapshot", 0, "not a manifest of this version", 0);
	if (s->strange_index)
		show_damage(s, s->strange_file, s->strange_offset, "not an entry of this version",
			    0);
}

/* ---- the command --------------------------------------------------------------------------- */

static int show(struct shown *s, const char *raft)
{
	static const struct rlog_dump_ops ops = {
		.node = show_node,
		.segment = show_segment,
		.entry = show_entry,
	};
	char errmsg[RLOG_ERRMSG_SIZE] = "out of memory";
	struct rlog_dump_end end;
	int err;

	s->history = wrep_history_new();
	if (!s->history) {
		fsd_complain("%s", errmsg);
		return -ENOMEM;
	}
	err = rlog_dump(raft, &ops, s, &end, errmsg);
	if (!ferror(stdout))
		show_end(s, &end);
	wrep_history_free(s->history);
	if (fflush(stdout) || ferror(stdout)) {
		fsd_complain("cannot write all of the output: look at where it goes");
		return -EIO;
	}
	if (s->bad_manifest) {
		fsd_complain(
			"the snapshot of the log cannot be understood file=snapshot offset=0: run "
			"the dqlitefs version that wrote it");
	} else if (err) {
		fsd_complain("%s", errmsg);
	} else if (s->other_node) {
		fsd_complain("%s/%s and the raft log are not of the same node: bring back the one "
			     "that was changed",
			     FSD_STATE_DIR, FSD_NODE_FILE);
		err = -EXDEV;
	} else if (s->strange_index) {
		fsd_complain("an entry of the log cannot be understood index=%" PRIu64
			     " file=%s offset=%" PRIu64 ": run the dqlitefs version that wrote it",
			     s->strange_index, s->strange_file, s->strange_offset);
		err = -EBADMSG;
	}
	return err;
}

int fsd_cmd_log(int argc, char **argv)
{
	static const struct option options[] = {{"data", required_argument, NULL, 'd'},
						{"json", no_argument, NULL, 'j'},
						{0}};
	char errmsg[FSD_ERRMSG_SIZE];
	struct fsd_stopped node;
	struct shown s = {0};
	const char *given = NULL;
	int c, err, bad_identity;

	while ((c = fsd_next_option(argc, argv, ":", options)) != -1) {
		if (c == '?')
			return FSD_EXIT_USAGE;
		if (c == 'd')
			given = optarg;
		else
			s.as_json = true;
	}
	if (optind < argc || !given || !given[0]) {
		fsd_complain("log wants --data DIR and nothing else: see 'dqlitefs help log'");
		return FSD_EXIT_USAGE;
	}
	if (fsd_stopped_open(given, &node))
		return FSD_EXIT_FAILED;
	bad_identity = fsd_identity_read(node.state_fd, &s.identity, errmsg);
	s.has_identity = !bad_identity;
	err = fsd_stopped_has_log(&node, &s.identity);
	if (!err)
		err = show(&s, node.raft);
	if (bad_identity && !err)
		fsd_complain("%s", errmsg);
	fsd_stopped_close(&node);
	return err || bad_identity ? FSD_EXIT_FAILED : 0;
}
