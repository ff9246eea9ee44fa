/* A disk in memory, with a file system on it, that loses what a real one may lose at a power cut.
 *
 * Every changing call is a `struct disk_op`. What it changes is seen at once, and stays *volatile* until
 * a sync makes it durable. disk_cut() decides from a seed what of the volatile survives:
 *
 *   data    by blocks of 4 KiB: the durable content, that of any write since, or a mixture of these by
 *	     sectors of 512 bytes. A synchronous write makes its blocks durable, fsync those of the file.
 *   size    the durable one or any since, whatever data survived; what is missing reads as zeros. What
 *	     a truncation cut off comes back only together with the size that it had.
 *   names   creations, renames and removals in their order, up to any of them. Syncing a directory makes
 *	     all up to its last one durable; syncing a file all up to its creation, not its renames.
 *
 * Everything that does this is deterministic, inode numbers too: the same operations and the same seed
 * give the same disk. Nothing here locks.
 */
#ifndef TESTS_LOSSY_DISK_H
#define TESTS_LOSSY_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define DISK_BLOCK 4096
#define DISK_SECTOR 512
#define DISK_NAME_MAX 255
#define DISK_ROOT 1

enum disk_kind {
	DISK_CREATE,   /* of what `mode` says: file, directory, socket; without a name: O_TMPFILE */
	DISK_REMOVE,   /* a file or an empty directory */
	DISK_RENAME,   /* from `ino`, `name` to `ino2`, `name2`; `flags` of renameat2() */
	DISK_WRITE,    /* `sync`: as with O_DSYNC */
	DISK_TRUNCATE, /* to `off` */
	DISK_ALLOCATE, /* `len` bytes at `off`; zeros; `sync`: keeps the size */
	DISK_SETATTR,  /* `flags`: DISK_SET_... */
	DISK_FSYNC,    /* of a file or of a directory */
	DISK_KINDS
};
extern const char *const disk_kind_names[DISK_KINDS];

enum { DISK_SET_MODE = 1, DISK_SET_UID = 2, DISK_SET_GID = 4, DISK_SET_MTIME = 8 };

struct disk_op {
	enum disk_kind kind;
	bool sync;
	uint64_t ino, ino2; /* the file, or the directory with the name */
	char name[DISK_NAME_MAX + 1], name2[DISK_NAME_MAX + 1];
	uint32_t mode, uid, gid, flags;
	int64_t mtime_s;
	uint64_t off, len;
	const uint8_t *data; /* NULL: zeros */
};

struct disk;

struct disk *disk_new(
	void); /* empty; ends the program when out of memory, as everything here does */
void disk_free(struct disk *d);

/* What the operation would return: 0 or -errno. Changes nothing. */
int disk_check(const struct disk *d, const struct disk_op *op);
/* Do it; disk_check() said 0. `in_flight`: power fails meanwhile, so nothing gets durable by it. Returns
 * the inode number of what it made, else 0. */
uint64_t disk_do(struct disk *d, const struct disk_op *op, bool in_flight);

struct disk_survivors {
	unsigned kept, dropped, torn; /* blocks that were volatile */
	unsigned names, names_of;     /* changes of names */
};
/* Power off and on. */
void disk_cut(struct disk *d, uint64_t seed, struct disk_survivors *out);

/* Looking. 0 or -errno. */
int disk_stat(const struct disk *d, uint64_t ino, struct stat *st);
uint64_t disk_lookup(const struct disk *d, uint64_t dir, const char *name); /* 0: not there */
size_t disk_read(const struct disk *d, uint64_t ino, void *buf, size_t len, uint64_t off);
/* The i-th name in a directory, NULL behind the last. */
const char *disk_list(const struct disk *d, uint64_t dir, size_t i, uint64_t *ino);
/* Its last name, for people; "" when it never had one. */
const char *disk_name(const struct disk *d, uint64_t ino);

/* A removed file lives on while it is open. */
void disk_open(struct disk *d, uint64_t ino);
void disk_release(struct disk *d, uint64_t ino);

/* Damage and limits. */
/* An fsync that failed. As Linux has it, what it was to write counts as written from then on: it is seen,
 * but another fsync does not try again, and a power cut loses it. */
void disk_fail_sync(struct disk *d, uint64_t ino);
int disk_flip(struct disk *d, uint64_t ino, uint64_t off,
	      unsigned bit);			 /* on the medium and in memory */
void disk_limit(struct disk *d, uint64_t bytes); /* UINT64_MAX: none */
uint64_t disk_used(const struct disk *d);
uint64_t disk_capacity(const struct disk *d);

#endif
