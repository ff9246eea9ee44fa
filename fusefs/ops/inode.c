/* The table of inodes: a hash over node ids under one lock, which is held for a few instructions. */
#include "ops/inode.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include "guarded.h"
#include "ops/admission.h"

#define ROOT_ID 1
#define BUCKETS 1024

LIST_HEAD(bucket, fsd_inode);

struct fsd_inodes {
	pthread_mutex_t lock;
	_Atomic uint64_t next_id;
	struct bucket buckets[BUCKETS] GUARDED_BY(lock);
};

struct fsd_inodes *fsd_inodes_new(void)
{
	struct fsd_inodes *all = calloc(1, sizeof(*all));

	if (all)
		pthread_mutex_init(&all->lock, NULL);
	return all;
}

static struct bucket *bucket_of(struct fsd *fs, uint64_t id) REQUIRES(fs->inodes->lock)
{
	return &fs->inodes->buckets[id % BUCKETS];
}

static uint64_t number_in(struct fsd *fs, _Atomic(void *) *slot)
{
	void *value = atomic_load(slot), *fresh;

	if (value)
		return (uintptr_t)value;
	fresh = (void *)(uintptr_t)(ROOT_ID + atomic_fetch_add(&fs->inodes->next_id, 1) + 1);
	if (atomic_compare_exchange_strong(slot, &value, fresh))
		value = fresh;
	return (uintptr_t)value;
}

uint64_t fsd_inode_number(struct fsd *fs, struct wrep_file *file)
{
	return number_in(fs, wrep_file_host_data(file));
}

uint64_t fsd_inode_number_of_dir(struct fsd *fs, struct wrep_dir *dir)
{
	return number_in(fs, wrep_dir_host_data(dir));
}

static struct fsd_inode *find_locked(struct fsd *fs, uint64_t id) REQUIRES(fs->inodes->lock)
{
	struct fsd_inode *inode;

	LIST_FOREACH(inode, bucket_of(fs, id), entry)
		if (inode->id == id)
			break;
	return inode;
}

struct fsd_inode *fsd_inode_find(struct fsd *fs, uint64_t id)
{
	struct fsd_inode *inode;

	pthread_mutex_lock(&fs->inodes->lock);
	inode = find_locked(fs, id);
	if (inode)
		inode->refs++;
	pthread_mutex_unlock(&fs->inodes->lock);
	return inode;
}

static void unref(struct wrep_file *file, struct wrep_dir *dir)
{
	wrep_file_unref(file);
	wrep_dir_unref(dir);
}

static struct fsd_inode *inode_of(struct fsd *fs, uint64_t id, struct wrep_file *file,
				  struct wrep_dir *dir)
{
	struct fsd_inode *inode = fsd_inode_find(fs, id), *fresh;

	if (inode) {
		unref(file, dir);
		return inode;
	}
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh) {
		unref(file, dir);
		return NULL;
	}
	fresh->id = id;
	fresh->file = file;
	fresh->dir = dir;
	fresh->refs = 1;

	pthread_mutex_lock(&fs->inodes->lock);
	inode = find_locked(fs, id);
	if (inode) {
		inode->refs++;
	} else {
		LIST_INSERT_HEAD(bucket_of(fs, id), fresh, entry);
	}
	pthread_mutex_unlock(&fs->inodes->lock);

	if (inode) {
		free(fresh);
		unref(file, dir);
		return inode;
	}
	return fresh;
}

struct fsd_inode *fsd_inode_of(struct fsd *fs, struct wrep_file *file)
{
	return inode_of(fs, fsd_inode_number(fs, file), file, NULL);
}

struct fsd_inode *fsd_inode_of_dir(struct fsd *fs, struct wrep_dir *dir)
{
	return inode_of(fs, fsd_inode_number_of_dir(fs, dir), NULL, dir);
}

struct fsd_inode *fsd_inode_of_standin(struct fsd *fs, struct fsd_standin *standin)
{
	_Atomic(void *) slot = NULL;
	struct fsd_inode *inode = inode_of(fs, number_in(fs, &slot), NULL, NULL);

	if (inode)
		inode->standin = standin;
	return inode;
}

bool fsd_inode_give_number(const struct fsd_inode *inode, struct wrep_file *file)
{
	void *none = NULL;

	return atomic_compare_exchange_strong(wrep_file_host_data(file), &none,
					      (void *)(uintptr_t)inode->id);
}

/* Takes the inode out of the table when nobody refers to it any more. */
static struct fsd_inode *unlink_if_unused(struct fsd_inode *inode)
{
	if (inode->refs || inode->lookups)
		return NULL;
	LIST_REMOVE(inode, entry);
	return inode;
}

static void destroy(struct fsd *fs, struct fsd_inode *inode)
{
	if (!inode)
		return;
	assert(!inode->backing_opens);
	/* After walrepl has closed, its files are gone, and this process soon is. */
	if (!fsd_admission_is_shut(fs))
		unref(inode->file, inode->dir);
	free(inode->standin);
	free(inode);
}

void fsd_inode_unref(struct fsd *fs, struct fsd_inode *inode)
{
	struct fsd_inode *dead;

	pthread_mutex_lock(&fs->inodes->lock);
	assert(inode->refs > 0);
	inode->refs--;
	dead = unlink_if_unused(inode);
	pthread_mutex_unlock(&fs->inodes->lock);
	destroy(fs, dead);
}

void fsd_inode_looked_up(struct fsd *fs, struct fsd_inode *inode)
{
	pthread_mutex_lock(&fs->inodes->lock);
	inode->lookups++;
	pthread_mutex_unlock(&fs->inodes->lock);
}

void fsd_inode_forget(struct fsd *fs, uint64_t id, uint64_t lookups)
{
	struct fsd_inode *inode, *dead = NULL;

	pthread_mutex_lock(&fs->inodes->lock);
	inode = find_locked(fs, id);
	if (inode) {
		inode->lookups -= lookups < inode->lookups ? lookups : inode->lookups;
		dead = unlink_if_unused(inode);
	}
	pthread_mutex_unlock(&fs->inodes->lock);
	destroy(fs, dead);
}
