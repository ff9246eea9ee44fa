#include "cli/log_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "cli/cli.h"
#include "node/words.h"

static int print_text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int print_text(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	return ferror(stdout) ? -EIO : 0;
}

static void print_members(const struct rlog_member *members, unsigned count)
{
	char address[FSD_SHOWN_SIZE];

	for (unsigned i = 0; i < count; i++)
		print_text("%s %08" PRIx64 " %s %s", i ? "," : "", members[i].id,
			   fsd_shown(members[i].address, address),
			   fsd_member_role_word(members[i].role));
}

static int show_snapshot_directory(void *arg, uint64_t id, const char *path)
{
	char name[FSD_SHOWN_SIZE];

	return print_text("  %-22s %10" PRIu64 "  directory\n", fsd_shown(path, name), id);
}

static int show_snapshot_database(void *arg, const struct wrep_history_db *db)
{
	char name[FSD_SHOWN_SIZE];

	return print_text("  %-22s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu32 "\n",
			  fsd_shown(db->name, name), db->id, db->version, db->index,
			  db->wal_frames);
}

static int show_snapshot(const struct rlog_dump_node *node, struct wrep_history *history)
{
	int err;

	print_text("\nsnapshot at index %" PRIu64 ", term %" PRIu64 ", members",
		   node->snapshot_index, node->snapshot_term);
	print_members(node->snapshot_members, node->snapshot_member_count);
	print_text("\n  %-22s %10s %10s %10s %10s\n", "DATABASE", "ID", "VERSION", "INDEX",
		   "WAL FRAMES");
	err = wrep_history_databases(history, show_snapshot_database, NULL);
	return err ? err : wrep_history_directories(history, show_snapshot_directory, NULL);
}

static int show_node(const struct rlog_dump_node *node, const char *address)
{
	char shown[FSD_SHOWN_SIZE];

	print_text("node     %08" PRIx64 " at %s\n", node->id, fsd_shown(address, shown));
	print_text("cluster  %016" PRIx64 "\n", node->cluster_id);
	print_text("term     %" PRIu64, node->term);
	if (node->voted_for)
		print_text(", voted for %08" PRIx64, node->voted_for);
	return print_text("%s\n", node->torn ? " (a later update was torn)" : "");
}

static int show_segment(const struct rlog_dump_segment *segment)
{
	static const char *const meanings[] = {"full", "last", "last, with a torn write at the end",
					       "damaged"};

	return print_text("\n%s: first index %" PRIu64 ", entries %" PRIu64 ", used %" PRIu64
			  " of %" PRIu64 " bytes, %s\n%10s %6s %10s  %s\n",
			  segment->file, segment->first_index, segment->entries,
			  segment->used_bytes, segment->all_bytes, meanings[segment->state],
			  "INDEX", "TERM", "BYTES", "TYPE");
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

static int show_entry(const struct rlog_dump_entry *entry, const struct wrep_description *d,
		      int effect)
{
	if (entry->type == RLOG_DUMP_TRUNCATION)
		return print_text("%10s %6s %10s  truncation: entries from %" PRIu64
				  " on are dropped\n",
				  "-", "-", "-", entry->index);
	print_text("%10" PRIu64 " %6" PRIu64 " %10zu  %s", entry->index, entry->term, entry->bytes,
		   fsd_log_type_word(entry, d));
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

static int show_database(void *arg, const struct wrep_history_db *db)
{
	char name[FSD_SHOWN_SIZE];

	return print_text("%-24s %10" PRIu64 " %10" PRIu64 "  %016" PRIx64 " %9" PRIu32
			  " %10" PRIu32 "\n",
			  fsd_shown(db->name, name), db->id, db->version, db->checksum,
			  db->page_size, db->page_count);
}

static int show_directory(void *arg, uint64_t id, const char *path)
{
	char name[FSD_SHOWN_SIZE];

	return print_text("%-24s %10" PRIu64 "  directory\n", fsd_shown(path, name), id);
}

static void show_end(struct wrep_history *history)
{
	print_text("\n%-24s %10s %10s  %-16s %9s %10s\n", "DATABASE", "ID", "VERSION", "CHECKSUM",
		   "PAGE SIZE", "PAGES");
	wrep_history_databases(history, show_database, NULL);
	wrep_history_directories(history, show_directory, NULL);
}

static int show_summary(const struct fsd_log_totals *s, uint64_t torn_bytes)
{
	print_text("\nsegments %" PRIu64 "\nentries  %" PRIu64, s->segments, s->entries);
	if (s->entries)
		print_text(", index %" PRIu64 " to %" PRIu64 "\nterms    %" PRIu64 ", %" PRIu64
			   " to %" PRIu64,
			   s->first_index, s->last_index, s->terms, s->first_term, s->last_term);
	if (torn_bytes)
		print_text("\ntorn     %" PRIu64 " bytes that nobody was told of; the next start "
			   "drops them",
			   torn_bytes);
	return print_text("\n");
}

static int show_damage(const char *file, uint64_t offset, const char *message, uint64_t unread)
{
	print_text("\ndamage   %s at offset %" PRIu64 ": %s", file, offset, message);
	if (unread)
		print_text("; %" PRIu64 " later segments were not read", unread);
	return print_text("\n");
}

const struct fsd_log_printer fsd_log_as_text = {
	.node = show_node,
	.snapshot = show_snapshot,
	.segment = show_segment,
	.entry = show_entry,
	.end = show_end,
	.summary = show_summary,
	.damage = show_damage,
};
