/* An entry told to people: the fields of entry.h without the page images. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "record/entry.h"
#include "walrepl.h"

static void describe(const struct wrep_entry *e, struct wrep_description *out)
{
	static const enum wrep_description_kind kinds[] = {
		[WREP_ENTRY_CREATE] = WREP_DESCRIBES_CREATE,
		[WREP_ENTRY_UNLINK] = WREP_DESCRIBES_UNLINK,
		[WREP_ENTRY_SETATTR] = WREP_DESCRIBES_SETATTR,
		[WREP_ENTRY_PAGES] = WREP_DESCRIBES_PAGES,
		[WREP_ENTRY_COMMIT] = WREP_DESCRIBES_COMMIT,
		[WREP_ENTRY_DISCARD] = WREP_DESCRIBES_DISCARD,
		[WREP_ENTRY_GROUP] = WREP_DESCRIBES_GROUP,
		[WREP_ENTRY_MKDIR] = WREP_DESCRIBES_MKDIR,
		[WREP_ENTRY_RMDIR] = WREP_DESCRIBES_RMDIR,
		[WREP_ENTRY_RENAME] = WREP_DESCRIBES_RENAME,
	};

	*out = (struct wrep_description){
		.kind = kinds[e->type],
		.db_id = e->db_id,
		.attr_valid = e->attr_valid,
		.mode = e->mode,
		.uid = e->uid,
		.gid = e->gid,
		.origin = e->origin,
		.sequence = e->sequence,
		.part = e->part,
		.page_size = e->page_size,
		.pages = e->image_count,
		.base_version = e->base_version,
		.checksum = e->checksum,
		.total_pages = e->total_pages,
		.dropped_pages = e->dropped_count,
		.page_count = e->page_count,
		.wal = e->type == WREP_ENTRY_COMMIT && e->commit_mode == WREP_COMMIT_WAL,
	};
	out->is_dir = e->type == WREP_ENTRY_MKDIR || e->type == WREP_ENTRY_RMDIR;
	if (e->type == WREP_ENTRY_RENAME)
		strcpy(out->to, e->name);
	out->keep = e->keep;
	if (e->type == WREP_ENTRY_CREATE || e->type == WREP_ENTRY_MKDIR) {
		out->attr_valid = WREP_ATTR_MODE | WREP_ATTR_UID | WREP_ATTR_GID;
		strcpy(out->name, e->name);
	}
}

int wrep_describe(const struct rlog_buf *buf, struct wrep_description *out)
{
	struct wrep_entry e;
	size_t at = 0;
	int err = wrep_entry_decode(buf, &e);

	if (err)
		return err;
	describe(&e, out);
	if (e.type != WREP_ENTRY_GROUP)
		return 0;
	out->members = calloc(e.member_count, sizeof(*out->members));
	if (!out->members)
		return -ENOMEM;
	while (wrep_entry_member(buf, &at, &e))
		describe(&e, &out->members[out->member_count++]);
	return 0;
}

void wrep_description_clear(struct wrep_description *d)
{
	free(d->members);
	d->members = NULL;
	d->member_count = 0;
}
