/* The lossy disk: inodes made of blocks with their history, and the names.
 *
 * A file is an array of cells, one for each block: the durable content, and the contents since, oldest
 * first. So a write adds a version to the cells that it touches, a sync leaves the newest one, and a
 * power cut chooses. Truncations are counted in each file, and a version knows how many there were when it
 * came: when a truncation is lost, so is what was written after it, and when it survives, what was there
 * before it is gone (`barrier`).
 *
 * Names are one flat table, twice: as it is seen and as it is durable, with the list of the changes
 * in between.
 */
#include "disk.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif

#define VERSIONS_MAX 12 /* of one block between syncs; more of them add no new case */

const char *const disk_kind_names[DISK_KINDS] = {"create",   "remove",	 "rename",  "write",
						 "truncate", "allocate", "setattr", "fsync"};

struct block {
	uint32_t refs;
	uint8_t bytes[DISK_BLOCK];
};

struct version {
	struct block *block; /* NULL: a hole */
	uint32_t truncations;
	bool barrier; /* made by that truncation */
};

struct cell {
	struct block *durable;
	struct version *newer;
	uint32_t count;
	bool forgotten; /* the newest is taken for durable, and is not */
};

struct size_change {
	uint64_t size;
	bool truncation;
};

struct attributes {
	uint32_t mode, uid, gid;
};

struct inode {
	struct cell *cells;
	size_t cell_count;
	uint64_t size, durable_size;
	struct size_change *changes; /* of the size, since the last sync */
	size_t change_count;
	uint32_t truncations; /* among them */
	struct attributes attr, durable_attr;
	struct timespec mtime;
	unsigned open;
	char name[DISK_NAME_MAX + 1];
};

struct entry {
	uint64_t dir, ino;
	char *name;
};

struct names {
	struct entry *entries;
	size_t count;
};

enum change_kind { ADD, REMOVE, MOVE, EXCHANGE };

struct change {
	enum change_kind kind;
	uint64_t dir, dir2, ino;
	char *name, *name2;
};

struct disk {
	struct inode **inodes; /* by number; NULL: gone */
	size_t inode_count;
	struct names seen, durable;
	struct change *changes; /* of the names, from `durable` to `seen` */
	size_t change_count;
	uint64_t used_blocks, limit;
};

static void *room_for(void *array, size_t count, size_t size)
{
	/* doubled whenever the count is a power of two */
	if (count & (count - 1) && array)
		return array;
	array = realloc(array, (count ? 2 * count : 1) * size);
	if (!array)
		abort();
	return array;
}

static char *copy_string(const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		abort();
	return copy;
}

/* ---- blocks ------------------------------------------------------------------------------------ */

static struct block zeros = {.refs = 1};

static struct block *block_ref(struct block *b)
{
	if (b)
		b->refs++;
	return b;
}

static void block_unref(struct block *b)
{
	if (b && --b->refs == 0)
		free(b);
}

static struct block *block_new(const void *bytes)
{
	struct block *b;

	if (!bytes || memcmp(bytes, zeros.bytes, DISK_BLOCK) == 0)
		return block_ref(&zeros);
	b = malloc(sizeof *b);
	if (!b)
		abort();
	b->refs = 1;
	memcpy(b->bytes, bytes, DISK_BLOCK);
	return b;
}

static const uint8_t *block_bytes(const struct block *b)
{
	return b ? b->bytes : zeros.bytes;
}

static struct block *cell_block(const struct cell *c)
{
	return c->count ? c->newer[c->count - 1].block : c->durable;
}

static void cell_drop(struct cell *c, uint32_t i)
{
	block_unref(c->newer[i].block);
	memmove(c->newer + i, c->newer + i + 1, (--c->count - i) * sizeof *c->newer);
}

/* Takes the reference to `b`. */
static void cell_push(struct disk *d, struct cell *c, struct block *b, uint32_t truncations,
		      bool barrier)
{
	d->used_blocks -= cell_block(c) != NULL;
	d->used_blocks += b != NULL;
	if (c->count >= VERSIONS_MAX) {
		uint32_t i = 0;

		while (i < c->count - 1 && c->newer[i].barrier)
			i++;
		cell_drop(c, i);
	}
	c->forgotten = false;
	c->newer = room_for(c->newer, c->count, sizeof *c->newer);
	c->newer[c->count++] = (struct version){b, truncations, barrier};
}

static void cell_clear_newer(struct cell *c)
{
	while (c->count)
		block_unref(c->newer[--c->count].block);
	free(c->newer);
	c->newer = NULL;
}

static void cell_settle(struct cell *c)
{
	struct block *b = block_ref(cell_block(c));

	cell_clear_newer(c);
	block_unref(c->durable);
	c->durable = b;
}

/* ---- inodes -------------------------------------------------------------------------------------- */

static struct inode *inode_at(const struct disk *d, uint64_t ino)
{
	return ino < d->inode_count ? d->inodes[ino] : NULL;
}

static uint64_t inode_new(struct disk *d, const struct disk_op *op)
{
	struct inode *i = calloc(1, sizeof *i);

	if (!i)
		abort();
	i->attr = i->durable_attr = (struct attributes){op->mode, op->uid, op->gid};
	strcpy(i->name, op->name);
	clock_gettime(CLOCK_REALTIME, &i->mtime);
	d->inodes = room_for(d->inodes, d->inode_count, sizeof(struct inode *));
	d->inodes[d->inode_count] = i;
	return d->inode_count++;
}

static void cells_need(struct inode *i, size_t count)
{
	if (count <= i->cell_count)
		return;
	i->cells = reallocarray(i->cells, count, sizeof *i->cells);
	if (!i->cells)
		abort();
	memset(i->cells + i->cell_count, 0, (count - i->cell_count) * sizeof *i->cells);
	i->cell_count = count;
}

static void inode_clear_changes(struct inode *i)
{
	free(i->changes);
	i->changes = NULL;
	i->change_count = 0;
	i->truncations = 0;
}

static void inode_drop_cells(struct disk *d, struct inode *i, size_t from)
{
	while (i->cell_count > from) {
		struct cell *c = &i->cells[--i->cell_count];

		d->used_blocks -= cell_block(c) != NULL;
		cell_clear_newer(c);
		block_unref(c->durable);
	}
}

static void inode_free(struct disk *d, uint64_t ino)
{
	struct inode *i = d->inodes[ino];

	if (!i)
		return;
	inode_drop_cells(d, i, 0);
	inode_clear_changes(i);
	free(i->cells);
	free(i);
	d->inodes[ino] = NULL;
}

static void inode_resize(struct inode *i, uint64_t size, bool truncation)
{
	i->changes = room_for(i->changes, i->change_count, sizeof *i->changes);
	i->changes[i->change_count++] = (struct size_change){size, truncation};
	i->size = size;
}

static void inode_write(struct disk *d, struct inode *i, const struct disk_op *op)
{
	uint64_t end = op->off + op->len;

	cells_need(i, (end + DISK_BLOCK - 1) / DISK_BLOCK);
	for (uint64_t at = op->off; at < end;) {
		struct cell *c = &i->cells[at / DISK_BLOCK];
		size_t in = at % DISK_BLOCK;
		size_t len = DISK_BLOCK - in < end - at ? DISK_BLOCK - in : end - at;
		uint8_t bytes[DISK_BLOCK];

		memcpy(bytes, block_bytes(cell_block(c)), sizeof bytes);
		if (op->data)
			memcpy(bytes + in, op->data + (at - op->off), len);
		else
			memset(bytes + in, 0, len);
		cell_push(d, c, block_new(bytes), i->truncations, false);
		at += len;
	}
	if (end > i->size)
		inode_resize(i, end, false);
	clock_gettime(CLOCK_REALTIME, &i->mtime);
}

static void inode_truncate(struct disk *d, struct inode *i, uint64_t size)
{
	if (size == i->size)
		return;
	if (size < i->size) {
		size_t first = size / DISK_BLOCK, in = size % DISK_BLOCK;

		i->truncations++;
		for (size_t n = first; n < i->cell_count; n++) {
			struct cell *c = &i->cells[n];
			struct block *b = cell_block(c);

			if (n == first && in && b) {
				uint8_t bytes[DISK_BLOCK] = {0};

				memcpy(bytes, b->bytes, in);
				cell_push(d, c, block_new(bytes), i->truncations, true);
			} else if (b && !(n == first && in)) {
				cell_push(d, c, NULL, i->truncations, true);
			}
		}
		inode_resize(i, size, true);
	} else {
		inode_resize(i, size, false);
	}
	clock_gettime(CLOCK_REALTIME, &i->mtime);
}

static void inode_allocate(struct disk *d, struct inode *i, const struct disk_op *op)
{
	uint64_t end = op->off + op->len;

	cells_need(i, (end + DISK_BLOCK - 1) / DISK_BLOCK);
	for (size_t n = op->off / DISK_BLOCK; n * DISK_BLOCK < end; n++)
		if (!cell_block(&i->cells[n]))
			cell_push(d, &i->cells[n], block_new(NULL), i->truncations, false);
	if (!op->sync && end > i->size)
		inode_resize(i, end, false);
}

/* Size and attributes, and so the truncations: O_DSYNC. */
static void inode_sync_size(struct inode *i)
{
	for (size_t n = 0; n < i->cell_count && i->truncations; n++) {
		struct cell *c = &i->cells[n];
		uint32_t last = c->count;

		while (last && !c->newer[last - 1].barrier)
			last--;
		if (last) {
			block_unref(c->durable);
			c->durable = block_ref(c->newer[last - 1].block);
			while (last--)
				cell_drop(c, 0);
		}
		for (uint32_t v = 0; v < c->count; v++)
			c->newer[v].truncations = 0;
	}
	i->durable_size = i->size;
	i->durable_attr = i->attr;
	inode_clear_changes(i);
}

static void inode_sync(struct inode *i)
{
	inode_sync_size(i);
	for (size_t n = 0; n < i->cell_count; n++)
		if (i->cells[n].count && !i->cells[n].forgotten)
			cell_settle(&i->cells[n]);
}

void disk_fail_sync(struct disk *d, uint64_t ino)
{
	struct inode *i = inode_at(d, ino);

	for (size_t n = 0; i && n < i->cell_count; n++)
		i->cells[n].forgotten = i->cells[n].count > 0;
}

/* ---- names ------------------------------------------------------------------------------------- */

static struct entry *names_find(const struct names *t, uint64_t dir, const char *name)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->entries[i].dir == dir && strcmp(t->entries[i].name, name) == 0)
			return &t->entries[i];
	return NULL;
}

static void names_remove(struct names *t, uint64_t dir, const char *name)
{
	struct entry *e = names_find(t, dir, name);

	if (!e)
		return;
	free(e->name);
	*e = t->entries[--t->count];
}

static void names_add(struct names *t, uint64_t dir, const char *name, uint64_t ino)
{
	t->entries = room_for(t->entries, t->count, sizeof *t->entries);
	t->entries[t->count++] = (struct entry){dir, ino, copy_string(name)};
}

static void names_clear(struct names *t)
{
	while (t->count)
		free(t->entries[--t->count].name);
	free(t->entries);
	t->entries = NULL;
}

static void names_apply(struct names *t, const struct change *c)
{
	struct entry *from, *to;
	uint64_t ino;

	switch (c->kind) {
	case ADD:
		names_add(t, c->dir, c->name, c->ino);
		break;
	case REMOVE:
		names_remove(t, c->dir, c->name);
		break;
	case MOVE:
		names_remove(t, c->dir2, c->name2);
		names_remove(t, c->dir, c->name);
		names_add(t, c->dir2, c->name2, c->ino);
		break;
	case EXCHANGE:
		from = names_find(t, c->dir, c->name);
		to = names_find(t, c->dir2, c->name2);
		ino = from->ino;
		from->ino = to->ino;
		to->ino = ino;
		break;
	}
}

static bool names_have(const struct names *t, uint64_t ino)
{
	for (size_t i = 0; i < t->count; i++)
		if (t->entries[i].ino == ino)
			return true;
	return false;
}

static void change(struct disk *d, enum change_kind kind, const struct disk_op *op, uint64_t ino)
{
	struct change *c;

	d->changes = room_for(d->changes, d->change_count, sizeof *d->changes);
	c = &d->changes[d->change_count++];
	*c = (struct change){kind,
			     op->ino,
			     op->ino2,
			     ino,
			     copy_string(op->name),
			     kind >= MOVE ? copy_string(op->name2) : NULL};
	names_apply(&d->seen, c);
}

/* Forget files that have no name any more, and will not get one back. */
static void collect(struct disk *d)
{
	for (size_t ino = DISK_ROOT + 1; ino < d->inode_count; ino++) {
		bool needed = !d->inodes[ino] || d->inodes[ino]->open ||
			      names_have(&d->seen, ino) || names_have(&d->durable, ino);

		for (size_t i = 0; i < d->change_count && !needed; i++)
			needed = d->changes[i].ino == ino;
		if (!needed)
			inode_free(d, ino);
	}
}

/* The first `count` changes are durable. */
static void commit_names(struct disk *d, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		names_apply(&d->durable, &d->changes[i]);
		free(d->changes[i].name);
		free(d->changes[i].name2);
	}
	if (count) {
		/* Not moved down: room_for() counts on the size of the array. */
		struct change *rest = NULL;

		for (size_t i = count; i < d->change_count; i++) {
			rest = room_for(rest, i - count, sizeof *rest);
			rest[i - count] = d->changes[i];
		}
		free(d->changes);
		d->changes = rest;
		d->change_count -= count;
		collect(d);
	}
}

static void sync_names(struct disk *d, uint64_t ino)
{
	bool dir = S_ISDIR(d->inodes[ino]->attr.mode);
	size_t count = d->change_count;

	for (; count; count--) {
		const struct change *c = &d->changes[count - 1];

		if ((c->kind == ADD && c->ino == ino) ||
		    (dir && (c->dir == ino || (c->kind >= MOVE && c->dir2 == ino))))
			break;
	}
	commit_names(d, count);
}

/* ---- operations ---------------------------------------------------------------------------------- */

struct disk *disk_new(void)
{
	struct disk *d = calloc(1, sizeof *d);
	struct disk_op root = {.mode = S_IFDIR | 0755};

	if (!d)
		abort();
	d->limit = UINT64_MAX;
	d->inodes = room_for(NULL, 0, sizeof(struct inode *));
	d->inodes[0] = NULL;
	d->inode_count = 1;
	inode_new(d, &root);
	return d;
}

void disk_free(struct disk *d)
{
	names_clear(&d->seen);
	names_clear(&d->durable);
	for (size_t i = 0; i < d->change_count; i++) {
		free(d->changes[i].name);
		free(d->changes[i].name2);
	}
	free(d->changes);
	for (size_t ino = 1; ino < d->inode_count; ino++)
		inode_free(d, ino);
	free(d->inodes);
	free(d);
}

static bool is_empty(const struct disk *d, uint64_t dir)
{
	uint64_t ino;

	return !disk_list(d, dir, 0, &ino);
}

static int check_rename(const struct disk *d, const struct disk_op *op)
{
	const struct entry *from = names_find(&d->seen, op->ino, op->name);
	const struct entry *to = names_find(&d->seen, op->ino2, op->name2);

	if (!from || (!to && op->flags & RENAME_EXCHANGE))
		return -ENOENT;
	if (op->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (to && op->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (to && !(op->flags & RENAME_EXCHANGE) && S_ISDIR(d->inodes[to->ino]->attr.mode) &&
	    !is_empty(d, to->ino))
		return -ENOTEMPTY;
	return 0;
}

/* Blocks that the operation would add. */
static uint64_t blocks_wanted(const struct inode *i, const struct disk_op *op)
{
	uint64_t count = 0;

	for (uint64_t n = op->off / DISK_BLOCK; n * DISK_BLOCK < op->off + op->len; n++)
		count += n >= i->cell_count || !cell_block(&i->cells[n]);
	return count;
}

int disk_check(const struct disk *d, const struct disk_op *op)
{
	const struct inode *i = inode_at(d, op->ino);
	const struct entry *e;

	if (!i)
		return -ESTALE;
	switch (op->kind) {
	case DISK_CREATE:
		if (d->used_blocks * DISK_BLOCK >= d->limit)
			return -ENOSPC;
		return *op->name && names_find(&d->seen, op->ino, op->name) ? -EEXIST : 0;
	case DISK_REMOVE:
		e = names_find(&d->seen, op->ino, op->name);
		if (!e)
			return -ENOENT;
		return S_ISDIR(d->inodes[e->ino]->attr.mode) && !is_empty(d, e->ino) ? -ENOTEMPTY
										     : 0;
	case DISK_RENAME:
		return check_rename(d, op);
	case DISK_WRITE:
	case DISK_ALLOCATE:
		if (d->limit != UINT64_MAX &&
		    (d->used_blocks + blocks_wanted(i, op)) * DISK_BLOCK > d->limit &&
		    blocks_wanted(i, op))
			return -ENOSPC;
		return 0;
	default:
		return 0;
	}
}

static void set_attributes(struct inode *i, const struct disk_op *op)
{
	if (op->flags & DISK_SET_MODE)
		i->attr.mode = (i->attr.mode & S_IFMT) | (op->mode & 07777);
	if (op->flags & DISK_SET_UID)
		i->attr.uid = op->uid;
	if (op->flags & DISK_SET_GID)
		i->attr.gid = op->gid;
	if (op->flags & DISK_SET_MTIME)
		i->mtime = (struct timespec){.tv_sec = op->mtime_s};
}

static uint64_t create(struct disk *d, const struct disk_op *op)
{
	uint64_t ino = inode_new(d, op);

	if (*op->name)
		change(d, ADD, op, ino);
	return ino;
}

static void rename_entry(struct disk *d, const struct disk_op *op)
{
	uint64_t ino = names_find(&d->seen, op->ino, op->name)->ino;
	const struct entry *to = names_find(&d->seen, op->ino2, op->name2);

	if (to && to->ino == ino)
		return;
	strcpy(d->inodes[ino]->name, op->name2);
	if (op->flags & RENAME_EXCHANGE)
		strcpy(d->inodes[to->ino]->name, op->name);
	change(d, op->flags & RENAME_EXCHANGE ? EXCHANGE : MOVE, op, ino);
	collect(d);
}

uint64_t disk_do(struct disk *d, const struct disk_op *op, bool in_flight)
{
	struct inode *i = inode_at(d, op->ino);

	/* When a trace is replayed nobody has files open: one without a name may be gone. */
	if (!i)
		return 0;
	switch (op->kind) {
	case DISK_CREATE:
		return create(d, op);
	case DISK_REMOVE:
		change(d, REMOVE, op, names_find(&d->seen, op->ino, op->name)->ino);
		collect(d);
		break;
	case DISK_RENAME:
		rename_entry(d, op);
		break;
	case DISK_WRITE:
		inode_write(d, i, op);
		if (op->sync && !in_flight) {
			inode_sync_size(i);
			for (uint64_t n = op->off / DISK_BLOCK; n * DISK_BLOCK < op->off + op->len;
			     n++)
				cell_settle(&i->cells[n]);
			sync_names(d, op->ino);
		}
		break;
	case DISK_TRUNCATE:
		inode_truncate(d, i, op->off);
		break;
	case DISK_ALLOCATE:
		inode_allocate(d, i, op);
		break;
	case DISK_SETATTR:
		set_attributes(i, op);
		break;
	case DISK_FSYNC:
		if (!in_flight) {
			inode_sync(i);
			sync_names(d, op->ino);
		}
		break;
	case DISK_KINDS:
		break;
	}
	return 0;
}

/* ---- the power cut --------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state) /* splitmix64 */
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* What a seed is inclined to do; the extremes are the cases that a uniform choice never meets. */
struct mood {
	uint64_t state;
	unsigned keep, tear; /* percent */
};

static bool chance(struct mood *m, unsigned percent)
{
	return draw(&m->state) % 100 < percent;
}

static size_t up_to(struct mood *m, size_t n)
{
	if (m->keep == 0 || m->keep == 100)
		return m->keep ? n : 0;
	return draw(&m->state) % (n + 1);
}

static void cut_cell(struct mood *m, struct cell *c, uint32_t truncations,
		     struct disk_survivors *out)
{
	struct block *choice[VERSIONS_MAX + 1], *chosen;
	unsigned count = 0;

	choice[count++] = c->durable;
	for (uint32_t v = 0; v < c->count && c->newer[v].truncations <= truncations; v++) {
		if (c->newer[v].barrier)
			count = 0;
		choice[count++] = c->newer[v].block;
	}
	if (c->forgotten) {
		chosen = block_ref(choice[0]);
		out->dropped++;
	} else if (chance(m, m->tear) && count > 1) {
		uint8_t bytes[DISK_BLOCK];

		for (size_t at = 0; at < DISK_BLOCK; at += DISK_SECTOR)
			memcpy(bytes + at, block_bytes(choice[draw(&m->state) % count]) + at,
			       DISK_SECTOR);
		chosen = block_new(bytes);
		out->torn++;
	} else if (chance(m, m->keep)) {
		/* mostly the newest */
		unsigned i = m->keep < 100 && count > 2 && chance(m, 25)
				     ? 1 + draw(&m->state) % (count - 1)
				     : count - 1;

		chosen = block_ref(choice[i]);
		out->kept++;
	} else {
		chosen = block_ref(choice[0]);
		out->dropped++;
	}
	cell_clear_newer(c);
	c->forgotten = false;
	block_unref(c->durable);
	c->durable = chosen;
}

static void cut_inode(struct disk *d, struct mood *m, struct inode *i, struct disk_survivors *out)
{
	size_t survive = up_to(m, i->change_count), in;
	uint32_t truncations = 0;

	i->size = survive ? i->changes[survive - 1].size : i->durable_size;
	for (size_t n = 0; n < survive; n++)
		truncations += i->changes[n].truncation;
	for (size_t n = 0; n < i->cell_count; n++) {
		struct cell *c = &i->cells[n];

		if (!c->count)
			continue;
		d->used_blocks -= cell_block(c) != NULL;
		cut_cell(m, c, truncations, out);
		d->used_blocks += cell_block(c) != NULL;
	}
	inode_drop_cells(d, i, (i->size + DISK_BLOCK - 1) / DISK_BLOCK);
	in = i->size % DISK_BLOCK;
	if (in && i->size / DISK_BLOCK < i->cell_count) {
		struct cell *c = &i->cells[i->size / DISK_BLOCK];

		if (c->durable) {
			uint8_t bytes[DISK_BLOCK] = {0};

			memcpy(bytes, c->durable->bytes, in);
			block_unref(c->durable);
			c->durable = block_new(bytes);
		}
	}
	if (chance(m, m->keep))
		i->durable_attr = i->attr;
	i->attr = i->durable_attr;
	i->durable_size = i->size;
	i->open = 0;
	inode_clear_changes(i);
}

void disk_cut(struct disk *d, uint64_t seed, struct disk_survivors *out)
{
	static const unsigned keeps[] = {0, 100, 50, 50, 90, 10}, tears[] = {0, 0, 0, 30, 60, 5};
	struct mood m = {.state = seed};
	size_t survive, kind = draw(&m.state) % (sizeof keeps / sizeof *keeps);

	*out = (struct disk_survivors){.names_of = (unsigned)d->change_count};
	m.keep = keeps[kind];
	m.tear = tears[kind];
	survive = up_to(&m, d->change_count);
	out->names = (unsigned)survive;
	for (size_t i = survive; i < d->change_count; i++) {
		free(d->changes[i].name);
		free(d->changes[i].name2);
	}
	d->change_count = survive;
	for (size_t ino = 1; ino < d->inode_count; ino++)
		if (d->inodes[ino])
			d->inodes[ino]->open = 0;
	commit_names(d, survive);
	free(d->changes);
	d->changes = NULL;
	d->change_count = 0;
	names_clear(&d->seen);
	for (size_t i = 0; i < d->durable.count; i++) {
		const struct entry *e = &d->durable.entries[i];

		names_add(&d->seen, e->dir, e->name, e->ino);
	}
	collect(d);
	for (size_t ino = 1; ino < d->inode_count; ino++)
		if (d->inodes[ino])
			cut_inode(d, &m, d->inodes[ino], out);
	for (size_t i = 0; i < d->seen.count; i++) {
		const struct entry *e = &d->seen.entries[i];

		strcpy(d->inodes[e->ino]->name, e->name);
	}
}

/* ---- looking ----------------------------------------------------------------------------------- */

int disk_stat(const struct disk *d, uint64_t ino, struct stat *st)
{
	const struct inode *i = inode_at(d, ino);
	uint64_t blocks = 0;

	memset(st, 0, sizeof *st);
	if (!i)
		return -ESTALE;
	for (size_t n = 0; n < i->cell_count; n++)
		blocks += cell_block(&i->cells[n]) != NULL;
	for (size_t n = 0; n < d->seen.count; n++)
		st->st_nlink += d->seen.entries[n].ino == ino;
	if (S_ISDIR(i->attr.mode))
		st->st_nlink = 2;
	st->st_ino = ino;
	st->st_mode = i->attr.mode;
	st->st_uid = i->attr.uid;
	st->st_gid = i->attr.gid;
	st->st_size = (off_t)i->size;
	st->st_blocks = (blkcnt_t)(blocks * (DISK_BLOCK / 512));
	st->st_blksize = DISK_BLOCK;
	st->st_atim = st->st_mtim = st->st_ctim = i->mtime;
	return 0;
}

uint64_t disk_lookup(const struct disk *d, uint64_t dir, const char *name)
{
	const struct entry *e = names_find(&d->seen, dir, name);

	return e ? e->ino : 0;
}

size_t disk_read(const struct disk *d, uint64_t ino, void *buf, size_t len, uint64_t off)
{
	const struct inode *i = inode_at(d, ino);
	size_t done = 0;

	if (!i || off >= i->size)
		return 0;
	if (len > i->size - off)
		len = i->size - off;
	while (done < len) {
		uint64_t n = (off + done) / DISK_BLOCK, in = (off + done) % DISK_BLOCK;
		size_t part = DISK_BLOCK - in < len - done ? DISK_BLOCK - in : len - done;
		const struct block *b = n < i->cell_count ? cell_block(&i->cells[n]) : NULL;

		memcpy((uint8_t *)buf + done, block_bytes(b) + in, part);
		done += part;
	}
	return len;
}

const char *disk_list(const struct disk *d, uint64_t dir, size_t i, uint64_t *ino)
{
	for (size_t n = 0; n < d->seen.count; n++)
		if (d->seen.entries[n].dir == dir && i-- == 0) {
			*ino = d->seen.entries[n].ino;
			return d->seen.entries[n].name;
		}
	return NULL;
}

const char *disk_name(const struct disk *d, uint64_t ino)
{
	const struct inode *i = inode_at(d, ino);

	return i ? i->name : "";
}

void disk_open(struct disk *d, uint64_t ino)
{
	if (inode_at(d, ino))
		d->inodes[ino]->open++;
}

void disk_release(struct disk *d, uint64_t ino)
{
	struct inode *i = inode_at(d, ino);

	if (i && i->open && --i->open == 0)
		collect(d);
}

int disk_flip(struct disk *d, uint64_t ino, uint64_t off, unsigned bit)
{
	struct inode *i = inode_at(d, ino);
	uint8_t bytes[DISK_BLOCK];
	struct cell *c;

	if (!i || off >= i->size || off / DISK_BLOCK >= i->cell_count)
		return -EINVAL;
	c = &i->cells[off / DISK_BLOCK];
	memcpy(bytes, block_bytes(cell_block(c)), sizeof bytes);
	bytes[off % DISK_BLOCK] ^= (uint8_t)(1u << bit % 8);
	cell_push(d, c, block_new(bytes), i->truncations, false);
	cell_settle(c);
	return 0;
}

void disk_limit(struct disk *d, uint64_t bytes)
{
	d->limit = bytes;
}

uint64_t disk_used(const struct disk *d)
{
	return d->used_blocks * DISK_BLOCK;
}

uint64_t disk_capacity(const struct disk *d)
{
	return d->limit == UINT64_MAX ? UINT64_C(1) << 40 : d->limit;
}
