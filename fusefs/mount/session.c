/* In the good case: a session is made and mounted (place.c), its loop runs in a thread of its own (which
 * starts the pool of /dev/fuse readers and, with io_uring, one thread per CPU), and INIT is answered.
 */
#include "mount/session.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include "guarded.h"
#include "node/log.h"
#include "node/stop.h"

#define INIT_TIMEOUT_S 10

struct fsd_session {
	struct fuse_session *fuse;
	pthread_t thread;
	bool started;
	_Atomic bool over_uring;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool init_done GUARDED_BY(lock);
	bool passthrough GUARDED_BY(lock); /* as INIT said */
};

void fsd_session_init_done(struct fsd_session *s, bool passthrough)
{
	pthread_mutex_lock(&s->lock);
	s->passthrough = passthrough;
	s->init_done = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void fsd_session_note_uring(struct fsd_session *s, bool uring)
{
	atomic_store(&s->over_uring, uring);
}

bool fsd_session_is_over_uring(struct fsd_session *s)
{
	return atomic_load(&s->over_uring);
}

int fsd_session_invalidate(struct fsd_session *s, uint64_t number, uint64_t off, uint64_t len)
{
	return fuse_lowlevel_notify_inval_inode(s->fuse, number, (off_t)off, (off_t)len);
}

/* While the mount starts, libfuse's complaint becomes part of the one error line. Only the main
 * thread and the INIT request write it. */
static _Atomic bool is_starting;
static char complaint[256];

static void log_libfuse(enum fuse_log_level level, const char *format, va_list args)
{
	char line[256];

	vsnprintf(line, sizeof(line), format, args);
	if (atomic_load(&is_starting)) {
		/* The first line is the cause; it may come in pieces. */
		if (!strchr(complaint, '\n') && level <= FUSE_LOG_WARNING)
			strncat(complaint, line, sizeof(complaint) - strlen(complaint) - 1);
		return;
	}
	line[strcspn(line, "\n")] = '\0';
	fsd_log(level <= FUSE_LOG_ERR	   ? 'E'
		: level <= FUSE_LOG_NOTICE ? 'W'
					   : 'I',
		"libfuse: %s", line);
}

const char *fsd_session_complaint(const char *otherwise)
{
	complaint[strcspn(complaint, "\n")] = '\0';
	return complaint[0] ? complaint : otherwise;
}

static void *session_main(void *arg)
{
	struct fsd *fs = arg;
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	int rv = -ENOMEM;

	prctl(PR_SET_NAME, "fsd-session");
	if (config) {
		fuse_loop_cfg_set_clone_fd(config, 0);
		rv = fuse_session_loop_mt(fs->session->fuse, config);
		fuse_loop_cfg_destroy(config);
	}
	if (!fsd_stop_is_asked(fs->stop)) {
		fsd_log('E', "the kernel's connection ended error=%d: mount again", rv);
		fsd_stop_ask(fs->stop, 1);
	}
	return NULL;
}

/* "-ofsname=" and a path whose commas and backslashes do not end the option. */
static char *fsname_option(const char *path)
{
	static const char prefix[] = "-ofsname=";
	char *option = malloc(sizeof(prefix) + 2 * strlen(path)), *to;

	if (!option)
		return NULL;
	strcpy(option, prefix);
	to = option + strlen(option);
	for (; *path; path++) {
		if (*path == ',' || *path == '\\')
			*to++ = '\\';
		*to++ = *path;
	}
	*to = '\0';
	return option;
}

static struct fuse_session *session_new(struct fsd *fs, const struct fuse_lowlevel_ops *ops,
					const char *options)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_session *session = NULL;
	char *fsname = fsname_option(fs->data_path);
	char uring[64];

	snprintf(uring, sizeof(uring), "-oio_uring,io_uring_q_depth=%u", FSD_RING_DEPTH);
	/* Ours come last and win: fsname is how the other commands find the data directory. */
	if (fsname && !fuse_opt_add_arg(&args, "dqlitefs") &&
	    (!options || (!fuse_opt_add_arg(&args, "-o") && !fuse_opt_add_arg(&args, options))) &&
	    !fuse_opt_add_arg(&args, fsname) &&
	    !fuse_opt_add_arg(&args, "-osubtype=dqlitefs,allow_other,default_permissions") &&
	    (!fs->uring || !fuse_opt_add_arg(&args, uring)))
		session = fuse_session_new(&args, ops, sizeof(*ops), fs);
	fuse_opt_free_args(&args);
	free(fsname);
	return session;
}

int fsd_session_prepare(struct fsd *fs, const struct fuse_lowlevel_ops *ops, const char *options,
			char errmsg[FSD_ERRMSG_SIZE])
{
	struct fsd_session *s = calloc(1, sizeof(*s));

	fuse_set_log_func(log_libfuse);
	atomic_store(&is_starting, true);
	if (s)
		s->fuse = session_new(fs, ops, options);
	atomic_store(&is_starting, false);
	if (!s || !s->fuse) {
		free(s);
		return fsd_fail(errmsg, -EINVAL,
				"cannot mount with '-o %s' (%s): leave out what is wrong there",
				options ? options : "", fsd_session_complaint("out of memory"));
	}
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
	fs->session = s;
	return 0;
}

int fsd_session_mount(struct fsd_session *s, const char *where)
{
	int rv;

	atomic_store(&is_starting, true);
	rv = fuse_session_mount(s->fuse, where);
	atomic_store(&is_starting, false);
	return rv ? -EIO : 0;
}

static int wait_for_init(struct fsd_session *s)
{
	const uint64_t until_ns = rlog_clock_ns() + INIT_TIMEOUT_S * RLOG_NS_PER_S;
	int rv = 0;

	pthread_mutex_lock(&s->lock);
	while (!s->init_done && !rv)
		rv = rlog_cond_wait(&s->changed, &s->lock, until_ns);
	if (!rv && !s->passthrough)
		rv = -EOPNOTSUPP;
	pthread_mutex_unlock(&s->lock);
	return rv;
}

int fsd_session_start(struct fsd *fs, char errmsg[FSD_ERRMSG_SIZE])
{
	struct fsd_session *s = fs->session;
	int rv = -pthread_create(&s->thread, NULL, session_main, fs);

	if (!rv) {
		s->started = true;
		rv = wait_for_init(s);
	}
	if (rv)
		return fsd_fail(
			errmsg, rv,
			rv == -EOPNOTSUPP
				? "this kernel has no FUSE passthrough: boot Linux 6.9 or newer, "
				  "built with CONFIG_FUSE_PASSTHROUGH"
				: "the kernel did not start the file system: see its log (dmesg)");
	return 0;
}

void fsd_session_stop(struct fsd *fs)
{
	struct fsd_session *s = fs->session;

	if (!s || !s->fuse)
		return;
	fuse_session_exit(s->fuse);
	if (s->started)
		pthread_join(s->thread, NULL);
	fuse_session_destroy(s->fuse); /* closes /dev/fuse: what is open now fails */
	s->fuse = NULL;
}
