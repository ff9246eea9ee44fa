/* A database that an application creates on a node which may not write.
 *
 * Only the leader can make it, and SQLite turns every error of open(2) into "unable to open database file", at
 * which no busy timeout helps. So the open succeeds, with a stand-in: an empty file that is there for those who
 * have it open, and for nobody else. The daemon holds its RESERVED byte, through the mount, where its lock meets
 * those of applications. A reader finds an empty database. A writer gets SQLITE_BUSY before
 * it has written anything, and tries again for as long as its busy timeout says. It ends in one of these ways:
 *
 *   closed    With its last descriptor it is gone.
 *   created   The entry that creates the database comes, from whichever node. Before anybody can look the name up
 *             the applier makes the stand-in's inode the database's, and counts the descriptors as opens of it.
 *             Unless this node leads, the very descriptor that holds RESERVED then holds its write fence, so
 *             that no writer gets in between; else it is closed. To SQLite, which reads size and header anew
 *             in every transaction, another process has made the database in the empty file.
 *   led       This node leads now: it submits that entry itself.
 *   taken     Something else gets the name: a database that is renamed to it, or fetched, or a directory. The
 *             descriptors get ESTALE, SQLite says "disk I/O error", and the application has to open it again.
 *
 * Nothing gets into it: whatever would change it is answered EROFS. Only who opens it as SQLite does (O_RDWR,
 * neither O_EXCL nor O_TRUNC) gets one. cp, touch and a shell's redirection ask for something else, and are
 * refused at once.
 *
 * A thread of its own, while there are any, opens and locks them (which asks this very daemon, so no thread that
 * serves requests may do it), answers, and looks now and then what has become of each. It alone takes one out of
 * the list. `lock` is held for moments, and while a database's is taken.
 */
#include "ops/standin.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "node/log.h"
#include "ops/handle.h"
#include "ops/inode.h"
#include "ops/pending.h"
#include "ops/standin_internal.h"
#include "ops/standin_thread.h"

bool fsd_standin_suits(int flags)
{
	return (flags & O_ACCMODE) == O_RDWR && !(flags & (O_EXCL | O_TRUNC));
}

/* ---- the list ------------------------------------------------------------------------------------- */

/* That of the name for which nothing has been decided yet; NULL. */
static struct fsd_standin *find(struct fsd_standins *all, const char *path) REQUIRES(all->lock)
{
	struct fsd_standin *s;

	SLIST_FOREACH(s, &all->list, entry)
		if (s->state == STANDIN_OPEN && strcmp(s->path, path) == 0)
			break;
	return s;
}

static struct fsd_standin *make(struct fsd *fs, const struct fsd_pend *pend)
	REQUIRES(fs->standins->lock)
{
	struct fsd_standin *s = calloc(1, sizeof(*s) + strlen(pend->name) + 1);

	if (!s)
		return NULL;
	s->fs = fs;
	s->lock_fd = -1;
	s->mode = pend->attr.mode;
	s->uid = pend->attr.uid;
	s->gid = pend->attr.gid;
	clock_gettime(CLOCK_REALTIME, &s->made);
	strcpy(s->path, pend->name);
	s->inode = fsd_inode_of_standin(fs, s);
	if (!s->inode) {
		free(s);
		return NULL;
	}
	SLIST_INSERT_HEAD(&fs->standins->list, s, entry);
	fsd_log('I',
		"an application creates a database on a node that does not lead: it finds it locked until "
		"there is one name=%s",
		s->path);
	return s;
}

/* 0 or -errno. */
static int add(struct fsd *fs, struct fsd_pend *pend) REQUIRES(fs->standins->lock)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s;
	int rv = 0;

	if (all->is_stopped)
		return -EIO;
	if (!all->is_running)
		rv = -pthread_create(&all->thread, NULL, fsd_standins_main, fs);
	if (rv)
		return rv;
	all->is_running = true;
	s = find(fs->standins, pend->name);
	if (!s)
		s = make(fs, pend);
	if (!s)
		return -ENOMEM;
	s->opens++;
	SLIST_INSERT_HEAD(&s->held, pend, held);
	pthread_cond_signal(&all->changed);
	return 0;
}

static void refuse(struct fsd_pend *pend, int rv)
{
	fuse_reply_err(pend->req, -rv);
	fsd_app_opens_sub(pend->fs);
	fsd_pend_unref(pend);
}

void fsd_standin_create(struct fsd_pend *pend)
{
	struct fsd *fs = pend->fs;
	int rv;

	pthread_mutex_lock(&fs->standins->lock);
	rv = add(fs, pend);
	pthread_mutex_unlock(&fs->standins->lock);
	if (rv)
		refuse(pend, rv);
}

struct fsd_standins *fsd_standins_new(void)
{
	struct fsd_standins *all = calloc(1, sizeof(*all));

	if (!all)
		return NULL;
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->changed, NULL);
	return all;
}

/* The thread has ended, and nobody adds one any more. */
static void refuse_rest(struct fsd_standins *all) UNCHECKED
{
	struct fsd_standin *s;
	struct fsd_pend *pend;

	SLIST_FOREACH(s, &all->list, entry) {
		while ((pend = SLIST_FIRST(&s->held))) {
			SLIST_REMOVE_HEAD(&s->held, held);
			refuse(pend, -EIO);
		}
		fsd_standin_unlock(s);
	}
}

void fsd_standins_stop(struct fsd *fs)
{
	struct fsd_standins *all = fs->standins;
	bool was_running;

	pthread_mutex_lock(&all->lock);
	all->is_stopped = true;
	was_running = all->is_running;
	pthread_cond_signal(&all->changed);
	pthread_mutex_unlock(&all->lock);
	if (was_running)
		pthread_join(all->thread, NULL);
	refuse_rest(all);
}

/* ---- the applier ---------------------------------------------------------------------------------- */

bool fsd_standins_appears(struct fsd *fs, const char *name, struct wrep_file *file)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s;
	unsigned opened = 0;
	bool is;

	pthread_mutex_lock(&all->lock);
	s = find(all, name);
	/* Counted before anybody can close them as descriptors of the database. */
	while (s && opened < s->opens && !wrep_file_adopt(file))
		opened++;
	is = s && opened == s->opens && fsd_inode_give_number(s->inode, file);
	if (is) {
		atomic_store(&s->inode->file, wrep_file_ref(file));
		s->state = STANDIN_CREATED;
	}
	pthread_mutex_unlock(&all->lock);
	while (!is && opened--) /* out of descriptors: it is a name that is taken */
		wrep_file_release(file, false);
	return is;
}

void fsd_standins_let_go(struct fsd *fs, const char *name)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s;
	int fd = -1;

	pthread_mutex_lock(&all->lock);
	SLIST_FOREACH(s, &all->list, entry) {
		if (s->state != STANDIN_CREATED || s->lock_fd < 0 || strcmp(s->path, name) != 0)
			continue;
		fd = s->lock_fd;
		s->lock_fd = -1;
		break;
	}
	pthread_cond_signal(&all->changed);
	pthread_mutex_unlock(&all->lock);
	if (fd >= 0)
		close(fd);
}

int fsd_standin_hand_over(struct fsd *fs, struct fsd_inode *inode)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s = inode->standin;
	struct wrep_op op = {0};
	int fd = -1, rv;

	pthread_mutex_lock(&all->lock);
	if (s->state == STANDIN_CREATED) {
		fd = s->lock_fd;
		s->lock_fd = -1;
	}
	pthread_mutex_unlock(&all->lock);
	if (fd < 0)
		return -ENOENT;
	rv = wrep_file_open(inode->file, O_RDWR, true, &op);
	pthread_mutex_lock(&all->lock);
	s->handed = !rv;
	pthread_mutex_unlock(&all->lock);
	if (!rv)
		return fd;
	close(fd);
	return rv;
}

void fsd_standin_release_lock(struct fsd *fs, struct fsd_inode *inode)
{
	struct fsd_standins *all = fs->standins;
	bool handed;

	pthread_mutex_lock(&all->lock);
	handed = inode->standin->handed;
	pthread_mutex_unlock(&all->lock);
	if (handed)
		wrep_file_release(inode->file, true);
	fsd_inode_unref(fs, inode);
}
