#include "ops/standin_file.h"

#include <errno.h>
#include <fcntl.h>
#include "node/log.h"
#include "ops/admission.h"
#include "ops/handle.h"
#include "ops/inode.h"
#include "ops/standin_internal.h"

static bool is_taken(const struct fsd_inode *inode)
{
	struct fsd_standins *all = inode->standin->fs->standins;
	bool taken;

	pthread_mutex_lock(&all->lock);
	taken = inode->standin->state == STANDIN_TAKEN;
	pthread_mutex_unlock(&all->lock);
	return taken;
}

int fsd_standin_attr(const struct fsd_inode *inode, struct stat *st)
{
	const struct fsd_standin *s = inode->standin;

	if (is_taken(inode))
		return -ESTALE;
	st->st_mode = S_IFREG | s->mode;
	st->st_nlink = 1;
	st->st_uid = s->uid;
	st->st_gid = s->gid;
	st->st_blksize = 4096;
	st->st_atim = st->st_mtim = st->st_ctim = s->made;
	return 0;
}

int fsd_standin_read(const struct fsd_inode *inode)
{
	return is_taken(inode) ? -ESTALE : 0;
}

int fsd_standin_change(const struct fsd_inode *inode)
{
	static struct fsd_log_limit limit;

	if (is_taken(inode))
		return -ESTALE;
	fsd_log_limited(
		&limit, 'W',
		"write refused: the database is not created yet, and this node does not lead; write "
		"on the leader name=%s",
		inode->standin->path);
	return -EROFS;
}

int fsd_standin_open(fuse_req_t req, struct fsd_inode *inode, int flags, uint64_t *fh_bits)
{
	struct fsd_standin *s = inode->standin;
	struct fsd_standins *all = s->fs->standins;
	bool locks = fuse_req_ctx(req)->pid == atomic_load(&all->tid);
	bool own = locks || fsd_is_internal(s->fs, req);
	int rv = 0;

	*fh_bits = locks ? FSD_FH_LOCK : own ? FSD_FH_UNCOUNTED : 0;
	pthread_mutex_lock(&all->lock);
	if (s->state != STANDIN_OPEN) /* just now */
		rv = -ESTALE;
	else if (!own && ((flags & O_ACCMODE) == O_WRONLY || (flags & O_TRUNC)))
		rv = -EROFS;
	else if (!own)
		s->opens++;
	pthread_mutex_unlock(&all->lock);
	return rv;
}

bool fsd_standin_release(struct fsd *fs, struct fsd_inode *inode)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s = inode->standin;
	bool is;

	pthread_mutex_lock(&all->lock);
	is = s->state != STANDIN_CREATED;
	if (is && --s->opens == 0)
		pthread_cond_signal(&all->changed);
	pthread_mutex_unlock(&all->lock);
	return is;
}
