/* Inodes: the kernel knows files and directories by a node id.
 *
 * Every incarnation of a file or directory has a number of its own that is never used again, kept in the
 * wrep_file or wrep_dir itself: it is also the inode number that applications see (SQLite tells files apart
 * by it), so it must survive the kernel forgetting the file. The inode exists while the kernel knows
 * the number or a descriptor is open, and keeps a reference of the wrep_file.
 */
#ifndef FUSEFS_INODE_H
#define FUSEFS_INODE_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/queue.h>
#include "mount/mount.h"

struct fsd_inodes;
struct fsd_standin;

struct fsd_inode {
	uint64_t id;
	/* One of the two, a reference; of a stand-in (standin.c) none yet. The directory at the top has no inode. */
	_Atomic(struct wrep_file *) file;
	struct wrep_dir *dir;
	struct fsd_standin *standin; /* what it is as long as it is neither; or NULL */
	LIST_ENTRY(fsd_inode) entry; /* inode.c's alone, like the two below */
	uint64_t lookups;	     /* the kernel's references */
	unsigned refs;		     /* ours (open files, requests) */
	/* settle.c's alone: sizes that the kernel was told in answers to SETATTR, and those that it has taken in */
	_Atomic unsigned told, settled;
	/* passthrough.c's alone; -shm only */
	int backing_id;
	unsigned backing_opens;
};

/* NULL: out of memory. */
struct fsd_inodes *fsd_inodes_new(void);

/* The number of a file, made at its first use. [any thread] */
uint64_t fsd_inode_number(struct fsd *fs, struct wrep_file *file);
uint64_t fsd_inode_number_of_dir(struct fsd *fs, struct wrep_dir *dir);

/* The inode of `file`, with a reference; the caller's reference of the file passes to it. NULL when
 * out of memory. */
struct fsd_inode *fsd_inode_of(struct fsd *fs, struct wrep_file *file);
struct fsd_inode *fsd_inode_of_dir(struct fsd *fs, struct wrep_dir *dir);

/* A new one, of a stand-in, which it frees at its end. With a reference; NULL when out of memory. */
struct fsd_inode *fsd_inode_of_standin(struct fsd *fs, struct fsd_standin *standin);
/* Make the number of `inode` that of `file`. False: that has another one. */
bool fsd_inode_give_number(const struct fsd_inode *inode, struct wrep_file *file);

/* The inode that the kernel calls `id`, with a reference; NULL when there is none. */
struct fsd_inode *fsd_inode_find(struct fsd *fs, uint64_t id);

void fsd_inode_unref(struct fsd *fs, struct fsd_inode *inode);

/* The kernel got, or gave back, references to the number. */
void fsd_inode_looked_up(struct fsd *fs, struct fsd_inode *inode);
void fsd_inode_forget(struct fsd *fs, uint64_t id, uint64_t lookups);

#endif
