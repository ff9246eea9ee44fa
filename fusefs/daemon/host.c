#include "daemon/host.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "mount/clone.h"
#include "mount/locks.h"
#include "mount/locktrace.h"
#include "mount/place.h"
#include "mount/session.h"
#include "node/log.h"
#include "node/process.h"
#include "node/stop.h"
#include "node/words.h"
#include "ops/inode.h"
#include "ops/settle.h"
#include "ops/standin.h"

struct fsd_host {
	struct fsd_locktrace *locktrace;
	struct rlog_view last_view; /* raftlog's thread only */
};

struct fsd_host *fsd_host_new(void)
{
	struct fsd_host *host = calloc(1, sizeof(*host));

	if (!host)
		return NULL;
	host->locktrace = fsd_locktrace_new();
	if (host->locktrace)
		return host;
	free(host);
	return NULL;
}

/* A side file that the applier makes looks like its database's, as SQLite would have it. */
static int create_like_database(struct fsd *fs, const char *name, int flags, struct wrep_file **out)
{
	struct stat st = {.st_mode = 0600};
	struct wrep_op op = {0};
	struct wrep_file *db;
	char db_name[WREP_PATH_MAX + 1];
	const char *dash = strrchr(name, '-');
	int rv;

	if (dash && (size_t)(dash - name) < sizeof(db_name)) {
		memcpy(db_name, name, (size_t)(dash - name));
		db_name[dash - name] = '\0';
		if (!wrep_lookup(fs->wrep, db_name, &db)) {
			wrep_file_stat(db, &st);
			wrep_file_unref(db);
		}
	}
	rv = wrep_create(fs->wrep, name,
			 &(struct wrep_new_file){st.st_mode & 0777, st.st_uid, st.st_gid, flags},
			 true, &op);
	assert(rv != WREP_PENDING); /* side files are local */
	*out = op.file;
	return rv;
}

/* Opened by number, not by name: a walk to the name may want the directory's lock, which an
 * application's create or unlink holds until its entry is applied. The applier would wait for
 * itself. */
static int mounted_open(void *ctx, const char *name, int flags)
{
	struct fsd *fs = ctx;
	struct fsd_inode *inode;
	struct wrep_file *file;
	bool created = false;
	int rv, dir_fd = fsd_clone_wait(fs->clone);

	if (dir_fd < 0)
		return dir_fd;
	rv = wrep_lookup(fs->wrep, name, &file);
	if (!rv && wrep_file_kind(file) == WREP_STRAY) { /* no database's */
		wrep_file_unref(file);
		rv = -ENOENT;
	}
	if (rv == -ENOENT && (flags & O_CREAT)) {
		rv = create_like_database(fs, name, flags, &file);
		created = !rv;
	} else if (!rv && (flags & O_CREAT) && (flags & O_EXCL)) {
		wrep_file_unref(file);
		rv = -EEXIST;
	}
	if (rv)
		return rv;
	inode = fsd_inode_of(fs, file);
	if (!inode)
		return -ENOMEM;
	rv = inode->standin ? fsd_standin_hand_over(fs, inode) : -ENOENT;
	if (rv != -ENOENT) {
		fsd_inode_unref(fs, inode);
		return rv;
	}
	rv = fsd_clone_open_within(dir_fd, inode->id,
				   (flags & ~(O_CREAT | O_EXCL)) | O_CLOEXEC | O_NOFOLLOW);
	if (created)
		wrep_file_release(inode->file, true);
	fsd_inode_unref(fs, inode);
	return rv;
}

static void report(const char *what, const char *name, int rv)
{
	static struct fsd_log_limit limit;

	/* ENOENT: the kernel has nothing of it. */
	if (rv && rv != -ENOENT && rv != -ENOTCONN && rv != -ENODEV)
		fsd_log_limited(&limit, 'E', "%s failed name=%s error=%s", what, name,
				strerror(-rv));
}

static void invalidate(void *ctx, struct wrep_file *file, uint64_t off, uint64_t len)
{
	struct fsd *fs = ctx;

	/* Before the clone is there, nothing is in the kernel's cache. It has never seen a file without a number. */
	if (fsd_clone_is_there(fs->clone) && atomic_load(wrep_file_host_data(file)))
		report("invalidation", wrep_file_name(file),
		       fsd_session_invalidate(fs->session, fsd_inode_number(fs, file), off, len));
}

static int settle(void *ctx, struct wrep_file *file, int fd)
{
	struct fsd *fs = ctx;
	struct fsd_inode *inode = fsd_inode_find(fs, fsd_inode_number(fs, file));
	int rv = 0;

	if (inode) {
		rv = fsd_settle(fs, inode, fd);
		fsd_inode_unref(fs, inode);
	}
	return rv;
}

static pid_t process_of(void *ctx, pid_t tid)
{
	return fsd_process_of(tid);
}

static struct fsd_locked_file locked_file(struct fsd *fs, struct wrep_file *file)
{
	return (struct fsd_locked_file){fsd_place_device(fs->place), fsd_inode_number(fs, file)};
}

static pid_t lock_holder(void *ctx, struct wrep_file *file, uint64_t byte)
{
	struct fsd_locked_file locked = locked_file(ctx, file);

	return fsd_lock_holder(&locked, byte);
}

static bool may_hold_lock(void *ctx, pid_t pid, struct wrep_file *file, uint64_t byte)
{
	struct fsd_locked_file locked = locked_file(ctx, file);

	return fsd_lock_may_be_held(&locked, byte, pid);
}

static bool has_open(void *ctx, pid_t tid, struct wrep_file *file)
{
	struct fsd_locked_file locked = locked_file(ctx, file);

	return fsd_has_open(&locked, tid);
}

static uint64_t number_of(void *ctx, struct wrep_file *file)
{
	return fsd_inode_number(ctx, file);
}

static void lock_called(void *ctx, const struct wrep_lock_call *call)
{
	struct fsd *fs = ctx;

	wrep_lock_called(fs->wrep, call);
}

static int watch_locks(void *ctx, uint64_t byte, bool on)
{
	struct fsd *fs = ctx;

	if (!on) {
		fsd_locktrace_off(fs->host->locktrace);
		return 0;
	}
	return fsd_locktrace_on(fs->host->locktrace, fsd_place_device(fs->place), byte, lock_called,
				fs);
}

static void read_lock_calls(void *ctx)
{
	struct fsd *fs = ctx;

	fsd_locktrace_read(fs->host->locktrace);
}

static void wait_lock_calls(void *ctx, int timeout_ms)
{
	struct fsd *fs = ctx;

	fsd_locktrace_wait(fs->host->locktrace, timeout_ms);
}

static bool is_killed(void *ctx, pid_t tid)
{
	return fsd_process_is_killed(tid);
}

static void fatal(void *ctx, const char *msg)
{
	struct fsd *fs = ctx;

	fsd_log('E', "%s", msg);
	fsd_stop_ask(fs->stop, 1);
}

static void log_line(void *ctx, char level, const char *line)
{
	fsd_log(level, "%s", line);
}

static void view(void *ctx, const struct rlog_view *view)
{
	struct fsd *fs = ctx;
	struct rlog_view *last = &fs->host->last_view;

	if (view->role != last->role || view->term != last->term ||
	    view->leader_id != last->leader_id)
		fsd_log('I', "role changed role=%s term=%" PRIu64 " leader=%08" PRIx64,
			fsd_role_word(view->role), view->term, view->leader_id);
	if (view->role != last->role)
		fsd_stop_wake(fs->stop); /* leadership may have to go: handover.c */
	*last = *view;
}

static bool appears(void *ctx, const char *name, struct wrep_file *file)
{
	return fsd_standins_appears(ctx, name, file);
}

static void let_go(void *ctx, const char *name)
{
	fsd_standins_let_go(ctx, name);
}

const struct wrep_host fsd_host_calls = {
	.mounted_open = mounted_open,
	.invalidate = invalidate,
	.settle = settle,
	.appears = appears,
	.let_go = let_go,
	.process_of = process_of,
	.lock_holder = lock_holder,
	.may_hold_lock = may_hold_lock,
	.number_of = number_of,
	.watch_locks = watch_locks,
	.read_lock_calls = read_lock_calls,
	.wait_lock_calls = wait_lock_calls,
	.has_open = has_open,
	.is_killed = is_killed,
	.fatal = fatal,
	.log = log_line,
	.view = view,
};
