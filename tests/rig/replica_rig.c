#include "replica_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct wrep *w;
char replica_dir[] = "/tmp/wrep-replica-XXXXXX";
int dir_fd, state_fd, shm_fd;
char failure[1024], last_error[1024];

/* ---- in the place of raftlog ------------------------------------------------------------------- */

struct rlog_callbacks cb;
void *cb_ctx;

static pthread_mutex_t door = PTHREAD_MUTEX_INITIALIZER;
struct rlog_request *submitted[ROOM];
unsigned submitted_count, taken;
uint64_t index_now, term_now;
struct rlog_buf *restored;
uint64_t restored_index, restored_last;
bool only_voter;
struct rlog_buf *snapshot;

int __wrap_rlog_open(struct rlog **out, const struct rlog_config *config, char *errmsg);
void __wrap_rlog_stop(struct rlog *log);
void __wrap_rlog_free(struct rlog *log);
void __wrap_rlog_submit(struct rlog *log, struct rlog_request *req);
void __wrap_rlog_resume(struct rlog *log);
void __wrap_rlog_status(struct rlog *log, struct rlog_status *out);
int __wrap_rlog_snapshot(struct rlog *log, uint64_t index, struct rlog_buf *payload,
			 uint64_t keep_bytes);

int __wrap_rlog_open(struct rlog **out, const struct rlog_config *config, char *errmsg)
{
	(void)errmsg;
	cb = config->cb;
	cb_ctx = config->ctx;
	*out = (struct rlog *)&cb; /* never looked into */
	return restored ? cb.restore(cb_ctx, restored_index, restored, restored_last) : 0;
}

void __wrap_rlog_submit(struct rlog *log, struct rlog_request *req)
{
	(void)log;
	pthread_mutex_lock(&door);
	assert_true(submitted_count < ROOM);
	submitted[submitted_count++] = req;
	pthread_mutex_unlock(&door);
}

void __wrap_rlog_resume(struct rlog *log)
{
	(void)log;
}

void __wrap_rlog_status(struct rlog *log, struct rlog_status *out)
{
	(void)log;
	memset(out, 0,
	       sizeof(*out)); /* no log to speak of: a durable point is taken when asked for */
	if (!only_voter)
		return;
	out->view.leader_id = 1;
	out->member_count = 1;
	out->members[0].id = 1;
	out->members[0].role = RLOG_VOTER;
}

int __wrap_rlog_snapshot(struct rlog *log, uint64_t index, struct rlog_buf *payload,
			 uint64_t keep_bytes)
{
	(void)log, (void)index, (void)keep_bytes;
	rlog_buf_unref(snapshot);
	snapshot = rlog_buf_ref(payload);
	return 0;
}

unsigned waiting(void)
{
	unsigned n;

	pthread_mutex_lock(&door);
	n = submitted_count - taken;
	pthread_mutex_unlock(&door);
	return n;
}

struct rlog_request *take(void)
{
	struct rlog_request *req;

	pthread_mutex_lock(&door);
	assert_true(taken < submitted_count);
	req = submitted[taken++];
	if (taken == submitted_count)
		taken = submitted_count = 0;
	pthread_mutex_unlock(&door);
	return req;
}

void end(struct rlog_request *req, enum rlog_outcome outcome)
{
	rlog_buf_unref(req->buf);
	req->buf = NULL;
	req->done(req, outcome);
}

void __wrap_rlog_stop(struct rlog *log)
{
	(void)log;
	while (waiting())
		end(take(), RLOG_UNKNOWN);
}

void __wrap_rlog_free(struct rlog *log)
{
	(void)log;
}

int deliver_once(struct rlog_buf *buf, struct rlog_request *req)
{
	return cb.apply(cb_ctx, index_now + 1, term_now, buf, req);
}

void deliver_buf(struct rlog_buf *buf, struct rlog_request *req)
{
	while (deliver_once(buf, req) == -EAGAIN)
		usleep(1000);
	index_now++;
}

enum wrep_entry_type deliver(bool known)
{
	struct rlog_request *req = take();
	struct rlog_buf *buf = req->buf;
	struct wrep_entry e;

	assert_int_equal(wrep_entry_decode(buf, &e), 0);
	req->buf = NULL;
	if (!known)
		req->done(req, RLOG_UNKNOWN);
	deliver_buf(buf, known ? req : NULL);
	rlog_buf_unref(buf);
	return e.type;
}

void lead(void)
{
	struct rlog_view view = {.role = RLOG_LEADER,
				 .ready = true,
				 .term = term_now,
				 .leader_id = 1};

	cb.view(cb_ctx, &view);
	while (!atomic_load(&w->may_write))
		usleep(500);
}

uint64_t foreign_database(const char *name)
{
	struct wrep_entry e = {.type = WREP_ENTRY_CREATE, .mode = 0644};
	struct rlog_buf *buf;

	strcpy(e.name, name);
	buf = wrep_entry_encode(&e);
	deliver_buf(buf, NULL);
	rlog_buf_unref(buf);
	return index_now;
}

/* ---- in the place of fusefs -------------------------------------------------------------------- */

pid_t locker;

static int host_open(void *ctx, const char *name, int flags)
{
	int fd = openat(strstr(name, "-shm") ? shm_fd : dir_fd, name, flags | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

static void host_invalidate(void *ctx, struct wrep_file *file, uint64_t off, uint64_t len)
{
}

static int host_settle(void *ctx, struct wrep_file *file, int fd)
{
	return 0;
}

static pid_t host_process_of(void *ctx, pid_t tid)
{
	return tid;
}

static bool host_has_open(void *ctx, pid_t tid, struct wrep_file *file)
{
	return true;
}

static bool host_is_killed(void *ctx, pid_t tid)
{
	return false;
}

static pid_t host_lock_holder(void *ctx, struct wrep_file *file, uint64_t byte)
{
	return locker;
}

static void host_fatal(void *ctx, const char *msg)
{
	snprintf(failure, sizeof(failure), "%s", msg);
}

static void host_log(void *ctx, char level, const char *line)
{
	if (level == 'E')
		snprintf(last_error, sizeof(last_error), "%s", line);
}

static void host_view(void *ctx, const struct rlog_view *view)
{
}

void op_done(struct wrep_op *op, int result)
{
	((struct op *)op)->result = result;
}

int wait_op(struct op *o)
{
	while (o->result == 1)
		usleep(500);
	return o->result;
}

struct wrep_file *make_database(const char *name)
{
	struct op o = {.op.done = op_done, .result = 1};

	assert_int_equal(wrep_create(w, name, &(struct wrep_new_file){.mode = 0644, .flags = O_CREAT}, false, &o.op), WREP_PENDING);
	assert_int_equal(deliver(true), WREP_ENTRY_CREATE);
	assert_int_equal(wait_op(&o), 0);
	return o.op.file;
}

void close_database(struct wrep_file *f)
{
	wrep_file_release(f, false);
	wrep_file_unref(f);
}

void fill_page(uint8_t *page, uint32_t pgno, uint8_t content)
{
	memset(page, content, PAGE);
	memcpy(page + 200, &pgno, sizeof(pgno));
	if (pgno != 1)
		return;
	memset(page, 0, 100);
	memcpy(page, "SQLite format 3", 16);
	page[16] = PAGE >> 8;
	page[18] = page[19] = 1; /* a rollback journal */
}

void expect_content(const char *name, uint32_t pages, uint8_t content)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
	uint8_t page[PAGE], wanted[PAGE];
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, (off_t)pages * PAGE);
	for (uint32_t pgno = 1; pgno <= pages; pgno++) {
		fill_page(wanted, pgno, content);
		assert_int_equal(pread(fd, page, PAGE, (off_t)(pgno - 1) * PAGE), PAGE);
		assert_memory_equal(page, wanted, PAGE);
	}
	close(fd);
}

/* ---- its life ------------------------------------------------------------------------------------- */

void start(void)
{
	struct wrep_config config = {
		.data_fd = dir_fd,
		.state_fd = state_fd,
		.shm_fd = shm_fd,
		.log = {.id = 1, .dir = "unused"},
		.host = {.mounted_open = host_open,
			 .invalidate = host_invalidate,
			 .settle = host_settle,
			 .process_of = host_process_of,
			 .has_open = host_has_open,
			 .is_killed = host_is_killed,
			 .lock_holder = host_lock_holder,
			 .fatal = host_fatal,
			 .log = host_log,
			 .view = host_view},
	};
	char errmsg[RLOG_ERRMSG_SIZE] = "";

	failure[0] = last_error[0] = 0;
	if (wrep_open(&w, &config, errmsg))
		fail_msg("%s", errmsg);
}

int setup(void **state)
{
	(void)state;
	alarm(60);
	wipe_state();
	index_now = 0;
	term_now = 1;
	start();
	cb.caught_up(cb_ctx);
	return 0;
}

int teardown(void **state)
{
	(void)state;
	wrep_close(w);
	return failure[0] != 0;
}

static void wipe(int fd)
{
	DIR *names = fdopendir(dup(fd));
	struct dirent *entry;

	rewinddir(names);
	while ((entry = readdir(names)))
		unlinkat(fd, entry->d_name, 0);
	closedir(names);
}

/* What walrepl keeps of a database is named after its id, and every test has an id 1. */
void wipe_state(void)
{
	wipe(state_fd);
}

int replica_run(const char *name, const struct CMUnitTest *tests, size_t count)
{
	char shm[64], state[64];
	int rc;

	if (!mkdtemp(replica_dir))
		return 1;
	snprintf(shm, sizeof(shm), "%s-shm", replica_dir);
	snprintf(state, sizeof(state), "%s-state", replica_dir);
	if (mkdir(shm, 0700) || mkdir(state, 0700))
		return 1;
	dir_fd = open(replica_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	shm_fd = open(shm, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	state_fd = open(state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = _cmocka_run_group_tests(name, tests, count, NULL, NULL);
	rlog_buf_unref(snapshot);
	wipe(dir_fd);
	wipe(shm_fd);
	wipe(state_fd);
	rmdir(replica_dir);
	rmdir(shm);
	rmdir(state);
	return rc;
}
