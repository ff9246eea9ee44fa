/* A database that an application creates on a node which may not write.
 *
 * Only the leader can make it, and SQLite turns every error of open(2) into "unable to open database file", at
 * which no busy timeout helps. So the open succeeds, with a stand-in: an empty file that is there for those who
 * have it open, and for nobody else. The daemon holds its RESERVED byte, through the mount, where its lock meets
 * those of applications. Who reads finds an empty database; who wants to write gets SQLITE_BUSY before
 * it has written anything, and tries again for as long as its busy timeout says. It ends in one of these ways:
 *
 *   closed    With its last descriptor it is gone.
 *   created   The entry that creates the database comes, from whichever node. Before anybody can look the name up
 *             the applier makes the stand-in's inode the database's, and counts the descriptors as opens of it.
 *             Unless this node leads, its gate is then closed by the very descriptor that holds RESERVED, so
 *             that no writer gets in between; else that is closed. To SQLite, which reads size and header anew
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
#include <sys/prctl.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>
#include "mount/clone.h"
#include "node/log.h"
#include "ops/admission.h"
#include "ops/attr.h"
#include "ops/handle.h"
#include "ops/inode.h"
#include "ops/pending.h"

#define RESERVED_BYTE 0x40000001 /* SQLite's os.h */
#define LOOK_MS 20
#define CREATE_AGAIN_MS 500

SLIST_HEAD(held_pends, fsd_pend);

/* How it ends. Open -> created or taken. */
enum standin_state { STANDIN_OPEN, STANDIN_CREATED, STANDIN_TAKEN };

struct fsd_standin {
	SLIST_ENTRY(fsd_standin) entry; /* lock, like all down to the next comment */
	struct held_pends held;		/* creates that are not answered */
	unsigned opens;			/* those, and the descriptors of applications */
	int lock_fd;			/* through the mount, RESERVED held; -1 */
	enum standin_state state;
	bool submitted; /* the entry that creates it is on its way from here */
	bool handed;	/* lock_fd went to the applier */
	/* the thread's own */
	uint64_t not_before_ms;
	/* constant */
	struct fsd *fs;
	struct fsd_inode *inode; /* a reference, while it is in the list */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec made;
	char path[];
};

struct fsd_standins {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	SLIST_HEAD(, fsd_standin) list; /* lock, like the rest */
	pthread_t thread;
	bool is_running, is_stopped;
	_Atomic pid_t tid; /* the thread's */
};

/* A CREATE that is on its way. */
struct submission {
	struct wrep_op op; /* first */
	struct fsd_standin *standin;
};

bool fsd_standin_suits(int flags)
{
	return (flags & O_ACCMODE) == O_RDWR && !(flags & (O_EXCL | O_TRUNC));
}

/* ---- the list ------------------------------------------------------------------------------------- */

/* That of the name for which nothing has been decided yet; NULL. lock held. */
static struct fsd_standin *find(struct fsd *fs, const char *path)
{
	struct fsd_standin *s;

	SLIST_FOREACH(s, &fs->standins->list, entry)
		if (s->state == STANDIN_OPEN && strcmp(s->path, path) == 0)
			break;
	return s;
}

/* lock held. */
static struct fsd_standin *make(struct fsd *fs, const struct fsd_pend *pend)
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

static void *standins_main(void *arg);

/* 0 or -errno. lock held. */
static int add(struct fsd *fs, struct fsd_pend *pend)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s;
	int rv = 0;

	if (all->is_stopped)
		return -EIO;
	if (!all->is_running)
		rv = -pthread_create(&all->thread, NULL, standins_main, fs);
	if (rv)
		return rv;
	all->is_running = true;
	s = find(fs, pend->name);
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

/* ---- requests ------------------------------------------------------------------------------------- */

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

/* ---- the thread ----------------------------------------------------------------------------------- */

/* Hold RESERVED. 0 or -errno. Another may have it: an application, of the database that this is by now. */
static int take_lock(struct fsd_standin *s)
{
	struct flock lock = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = RESERVED_BYTE,
		.l_len = 1,
	};
	struct fsd_standins *all = s->fs->standins;
	int fd, rv = 0;

	fd = fsd_clone_open_file(s->fs->clone, s->inode->id, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return fd;
	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		rv = -errno;
	pthread_mutex_lock(&all->lock);
	if (s->state == STANDIN_CREATED) {
		rv = 0;
	} else if (!rv) {
		s->lock_fd = fd;
		fd = -1;
	}
	pthread_mutex_unlock(&all->lock);
	if (fd >= 0)
		close(fd);
	return rv;
}

static void let_go(struct fsd_standin *s)
{
	struct fsd_standins *all = s->fs->standins;
	int fd;

	pthread_mutex_lock(&all->lock);
	fd = s->lock_fd;
	s->lock_fd = -1;
	pthread_mutex_unlock(&all->lock);
	if (fd >= 0)
		close(fd);
}

static void answer(struct fsd_standin *s, struct fsd_pend *pend, int rv)
{
	struct fsd *fs = s->fs;
	struct fuse_entry_param entry = {0};
	struct fuse_file_info fi = {.keep_cache = 1};
	struct fsd_inode *inode = fsd_inode_find(fs, s->inode->id);

	if (!rv)
		rv = fsd_inode_attr(inode, &entry.attr);
	if (!rv) {
		fi.fh = (uint64_t)(uintptr_t)inode;
		entry.ino = inode->id;
		fsd_inode_looked_up(fs, inode);
		if (!fuse_reply_create(pend->req, &entry, &fi)) {
			fsd_pend_unref(pend);
			return;
		}
		fsd_inode_forget(fs, entry.ino, 1);
	} else {
		fuse_reply_err(pend->req, -rv);
	}
	fsd_release_app(fs, inode);
	fsd_pend_unref(pend);
}

/* Has something else the name, or the database itself, which appeared too early to be told of? */
static bool name_is_taken(struct fsd_standin *s)
{
	struct wrep *w = s->fs->wrep;
	struct wrep_file *file = NULL;
	struct wrep_dir *dir = NULL;
	bool taken;

	if (!wrep_lookup(w, s->path, &file)) {
		taken = atomic_load(&s->inode->file) != file;
		wrep_file_unref(file);
		return taken;
	}
	taken = !wrep_dir_lookup(w, s->path, &dir);
	wrep_dir_unref(dir);
	return taken;
}

static void submitted_done(struct wrep_op *op, int result)
{
	struct submission *sub = (struct submission *)op;
	struct fsd_standin *s = sub->standin;
	struct fsd_standins *all = s->fs->standins;

	if (!result) { /* an open, which nobody asked for */
		wrep_file_release(op->file, false);
		wrep_file_unref(op->file);
	}
	free(sub);
	pthread_mutex_lock(&all->lock);
	s->submitted = false;
	pthread_cond_signal(&all->changed);
	pthread_mutex_unlock(&all->lock);
}

/* This node may write: make the database. What becomes of that, fsd_standins_appears() tells. */
static void submit(struct fsd_standin *s)
{
	struct submission *sub = calloc(1, sizeof(*sub));
	int rv;

	s->not_before_ms = rlog_clock_ms() + CREATE_AGAIN_MS;
	if (!sub)
		return;
	sub->op.done = submitted_done;
	sub->standin = s;
	pthread_mutex_lock(&s->fs->standins->lock);
	s->submitted = true;
	pthread_mutex_unlock(&s->fs->standins->lock);
	rv = wrep_create(s->fs->wrep, s->path,
			 &(struct wrep_new_file){s->mode, s->uid, s->gid, O_RDWR | O_CREAT}, false,
			 &sub->op);
	if (rv != WREP_PENDING)
		submitted_done(&sub->op, rv);
}

/* True: it has ended. */
static bool look_at(struct fsd_standin *s)
{
	struct fsd_standins *all = s->fs->standins;
	struct held_pends held;
	struct fsd_pend *pend;
	bool open, ended, locked;
	int rv = 0;

	pthread_mutex_lock(&all->lock);
	held = s->held;
	SLIST_INIT(&s->held);
	open = s->state == STANDIN_OPEN;
	locked = s->lock_fd >= 0;
	pthread_mutex_unlock(&all->lock);

	if (open && name_is_taken(s)) {
		pthread_mutex_lock(&all->lock);
		if (s->state == STANDIN_OPEN)
			s->state = STANDIN_TAKEN;
		open = false;
		pthread_mutex_unlock(&all->lock);
		let_go(s);
	}
	if (open && !SLIST_EMPTY(&held) && !locked)
		rv = take_lock(s);
	while ((pend = SLIST_FIRST(&held))) {
		SLIST_REMOVE_HEAD(&held, held);
		answer(s, pend, rv);
	}
	if (open && wrep_may_write(s->fs->wrep) && rlog_clock_ms() >= s->not_before_ms) {
		bool wanted;

		pthread_mutex_lock(&all->lock);
		wanted = s->opens && !s->submitted && s->state != STANDIN_CREATED;
		pthread_mutex_unlock(&all->lock);
		if (wanted)
			submit(s);
	}
	pthread_mutex_lock(&all->lock);
	/* (Until the applier has let go, it looks for it.) */
	ended = SLIST_EMPTY(&s->held) && !s->submitted &&
		(s->state == STANDIN_TAKEN ||
		 (s->state == STANDIN_CREATED ? s->lock_fd < 0 : s->opens == 0));
	pthread_mutex_unlock(&all->lock);
	return ended;
}

/* Take it out of the list, unless somebody has opened it since it was looked at. False: he has. */
static bool remove_ended(struct fsd_standin *s)
{
	struct fsd_standins *all = s->fs->standins;
	bool ended;

	pthread_mutex_lock(&all->lock);
	ended = SLIST_EMPTY(&s->held) && (s->state != STANDIN_OPEN || !s->opens);
	if (ended)
		SLIST_REMOVE(&all->list, s, fsd_standin, entry);
	pthread_mutex_unlock(&all->lock);
	return ended;
}

/* Only this thread takes one out of the list, and new ones come at its beginning. */
static void look_at_all(struct fsd *fs)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s, *next;

	pthread_mutex_lock(&all->lock);
	s = SLIST_FIRST(&all->list);
	pthread_mutex_unlock(&all->lock);
	for (; s; s = next) {
		bool ended = look_at(s);

		pthread_mutex_lock(&all->lock);
		next = SLIST_NEXT(s, entry);
		pthread_mutex_unlock(&all->lock);
		if (ended && remove_ended(s)) {
			let_go(s);
			fsd_inode_unref(fs,
					s->inode); /* and with the last of these it goes itself */
		}
	}
}

static void *standins_main(void *arg)
{
	struct fsd *fs = arg;
	struct fsd_standins *all = fs->standins;

	prctl(PR_SET_NAME, "fsd-standin");
	atomic_store(&all->tid, gettid());
	pthread_mutex_lock(&all->lock);
	while (!all->is_stopped) {
		uint64_t until = rlog_clock_ns() + LOOK_MS * RLOG_NS_PER_MS;

		pthread_mutex_unlock(&all->lock);
		look_at_all(fs);
		pthread_mutex_lock(&all->lock);
		if (all->is_stopped)
			break;
		if (!SLIST_EMPTY(&all->list))
			rlog_cond_wait(&all->changed, &all->lock, until);
		else
			pthread_cond_wait(&all->changed, &all->lock);
	}
	pthread_mutex_unlock(&all->lock);
	return NULL;
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

void fsd_standins_stop(struct fsd *fs)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s;
	struct fsd_pend *pend;

	pthread_mutex_lock(&all->lock);
	all->is_stopped = true;
	pthread_cond_signal(&all->changed);
	pthread_mutex_unlock(&all->lock);
	if (all->is_running)
		pthread_join(all->thread, NULL);
	/* Nobody adds or removes any more. */
	SLIST_FOREACH(s, &all->list, entry) {
		while ((pend = SLIST_FIRST(&s->held))) {
			SLIST_REMOVE_HEAD(&s->held, held);
			refuse(pend, -EIO);
		}
		let_go(s);
	}
}

/* ---- the applier ---------------------------------------------------------------------------------- */

bool fsd_standins_appears(struct fsd *fs, const char *name, struct wrep_file *file)
{
	struct fsd_standins *all = fs->standins;
	struct fsd_standin *s;
	unsigned opened = 0;
	bool is;

	pthread_mutex_lock(&all->lock);
	s = find(fs, name);
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
