/* lossyfs MOUNTPOINT: a file system on the lossy disk (disk.h), for programs that must survive power
 * cuts without knowing that there was one.
 *
 * Every request goes to the disk in memory: nothing is cached in the kernel, neither data (all files are
 * opened for direct I/O) nor names and attributes. So the disk sees each write as the program made it,
 * with its O_DSYNC or RWF_DSYNC. The changing ones are counted, from 1.
 *
 * Commands come on stdin, one a line, and each is answered with one line, "ok ..." or "error ...":
 *
 *   ops                      "ok COUNT on|off"
 *   counts                   "ok KIND:FILE=COUNT ..."
 *   cut N hang|fail          power fails in operation N, or at once if there were that many. It and
 *                            all later requests never return, or fail with EIO
 *   release                  end with EIO what hangs, and from now on everything
 *   restore SEED             power on, with what the seed leaves of the volatile; operations count from 1
 *   record                   keep operations, to replay them; the disk must be untouched
 *   replay N SEED            as if power had failed in operation N of what was recorded; then restore
 *   operations               "ok KIND:FILE:OFFSET:BYTES:SYNC ..." of what was recorded
 *   save FILE | load FILE    the recorded operations
 *   quota BYTES|none         a smaller disk
 *   fail KIND GLOB COUNT     so many operations of that kind, or "read", on files named so fail with EIO;
 *                            what an fsync should have written is lost, see disk_fail_sync()
 *   heal                     undo `fail`
 *   flip FILE OFFSET BIT     damage
 *
 * The end of stdin ends the program: it takes its mount away, and whoever still waits for it gets an error.
 *
 * Threads: FUSE requests in one, commands in another; one lock around everything. After `restore` and
 * `replay` all inodes get new numbers in the kernel (the epoch), so nothing that it remembers, and no file
 * that somebody still has open, leads to the new disk.
 */
#define FUSE_USE_VERSION 318

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>
#include "disk.h"
#include "trace.h"

#define EPOCH_SHIFT 40
#define FAILS_MAX 16

struct count {
	enum disk_kind kind;
	char name[DISK_NAME_MAX + 1];
	uint64_t count;
};

struct fail {
	char kind[16], glob[DISK_NAME_MAX + 1];
	uint64_t left;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all of these */
static struct disk *disk;
static struct trace trace;
static bool recording;
static uint64_t epoch, ops, cut_at;
static enum { ON, HANGING, FAILING } power;
static bool cut_fails;
static fuse_req_t *hanging;
static size_t hanging_count;
static struct count *counts;
static size_t count_count;
static struct fail fails[FAILS_MAX];
static size_t fail_count;

static const char *mountpoint;

/* ---- requests ------------------------------------------------------------------------------------ */

static void hang(fuse_req_t req)
{
	hanging = reallocarray(hanging, hanging_count + 1, sizeof(fuse_req_t));
	if (!hanging)
		abort();
	hanging[hanging_count++] = req;
}

/* The disk's number of the kernel's inode; answers and returns 0 where there is no power, or the inode is of
 * another epoch. */
static uint64_t enter(fuse_req_t req, fuse_ino_t node)
{
	if (power == HANGING) {
		hang(req);
		return 0;
	}
	if (power == FAILING) {
		fuse_reply_err(req, EIO);
		return 0;
	}
	if (node == FUSE_ROOT_ID)
		return DISK_ROOT;
	if (node >> EPOCH_SHIFT != epoch) {
		fuse_reply_err(req, ESTALE);
		return 0;
	}
	return node & ((UINT64_C(1) << EPOCH_SHIFT) - 1);
}

static fuse_ino_t to_node(uint64_t ino)
{
	return ino == DISK_ROOT ? FUSE_ROOT_ID : (epoch << EPOCH_SHIFT) | ino;
}

static bool must_fail(const char *kind, const char *name)
{
	for (size_t i = 0; i < fail_count; i++) {
		struct fail *f = &fails[i];

		if (f->left && strcmp(f->kind, kind) == 0 && fnmatch(f->glob, name, 0) == 0) {
			f->left--;
			return true;
		}
	}
	return false;
}

static const char *op_name(const struct disk_op *op)
{
	return *op->name ? op->name : disk_name(disk, op->ino);
}

static void count_op(const struct disk_op *op)
{
	const char *name = op_name(op);

	ops++;
	for (size_t i = 0; i < count_count; i++)
		if (counts[i].kind == op->kind && strcmp(counts[i].name, name) == 0) {
			counts[i].count++;
			return;
		}
	counts = reallocarray(counts, count_count + 1, sizeof *counts);
	if (!counts)
		abort();
	counts[count_count] = (struct count){.kind = op->kind, .count = 1};
	strcpy(counts[count_count++].name, name);
}

static void power_off(void)
{
	power = cut_fails ? FAILING : HANGING;
	cut_at = 0;
}

/* Do a changing operation. False: it is answered already. */
static bool change(fuse_req_t req, const struct disk_op *op, uint64_t *made)
{
	bool in_flight, failing = must_fail(disk_kind_names[op->kind], op_name(op));
	int rc = failing ? -EIO : disk_check(disk, op);

	if (failing && op->kind == DISK_FSYNC)
		disk_fail_sync(disk, op->ino);
	if (rc) {
		fuse_reply_err(req, -rc);
		return false;
	}
	count_op(op);
	if (recording)
		trace_add(&trace, op, op_name(op));
	in_flight = cut_at && ops >= cut_at;
	*made = disk_do(disk, op, in_flight);
	if (!in_flight)
		return true;
	power_off();
	if (power == HANGING)
		hang(req);
	else
		fuse_reply_err(req, EIO);
	return false;
}

static void change_and_reply(fuse_req_t req, const struct disk_op *op)
{
	uint64_t made;

	if (change(req, op, &made))
		fuse_reply_err(req, 0);
}

static bool take_name(fuse_req_t req, char to[DISK_NAME_MAX + 1], const char *name)
{
	if (strlen(name) <= DISK_NAME_MAX) {
		strcpy(to, name);
		return true;
	}
	fuse_reply_err(req, ENAMETOOLONG);
	return false;
}

static struct fuse_entry_param entry_of(uint64_t ino)
{
	struct fuse_entry_param e = {.ino = to_node(ino)};

	disk_stat(disk, ino, &e.attr);
	return e;
}

static void op_init(void *arg, struct fuse_conn_info *conn)
{
	fuse_unset_feature_flag(conn, FUSE_CAP_WRITEBACK_CACHE);
	fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_READ);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	uint64_t dir, ino;

	pthread_mutex_lock(&lock);
	dir = enter(req, parent);
	ino = dir ? disk_lookup(disk, dir, name) : 0;
	if (ino) {
		e = entry_of(ino);
		fuse_reply_entry(req, &e);
	} else if (dir) {
		fuse_reply_err(req, ENOENT);
	}
	pthread_mutex_unlock(&lock);
}

static void op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct stat st;
	uint64_t ino;
	int rc;

	pthread_mutex_lock(&lock);
	ino = enter(req, node);
	if (ino) {
		rc = disk_stat(disk, ino, &st);
		if (rc)
			fuse_reply_err(req, -rc);
		else
			fuse_reply_attr(req, &st, 0);
	}
	pthread_mutex_unlock(&lock);
}

static void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int to_set,
		       struct fuse_file_info *fi)
{
	struct disk_op op = {.kind = DISK_SETATTR};
	uint64_t made;
	struct stat st;
	bool good;

	pthread_mutex_lock(&lock);
	op.ino = enter(req, node);
	good = op.ino;
	if (good && to_set & FUSE_SET_ATTR_SIZE) {
		struct disk_op cut = {.kind = DISK_TRUNCATE,
				      .ino = op.ino,
				      .off = (uint64_t)attr->st_size};

		good = change(req, &cut, &made);
	}
	op.mode = attr->st_mode;
	op.uid = attr->st_uid;
	op.gid = attr->st_gid;
	op.mtime_s = to_set & FUSE_SET_ATTR_MTIME_NOW ? time(NULL) : attr->st_mtim.tv_sec;
	op.flags = (to_set & FUSE_SET_ATTR_MODE ? DISK_SET_MODE : 0) |
		   (to_set & FUSE_SET_ATTR_UID ? DISK_SET_UID : 0) |
		   (to_set & FUSE_SET_ATTR_GID ? DISK_SET_GID : 0) |
		   (to_set & (FUSE_SET_ATTR_MTIME | FUSE_SET_ATTR_MTIME_NOW) ? DISK_SET_MTIME : 0);
	if (good && op.flags)
		good = change(req, &op, &made);
	if (good) {
		if (disk_stat(disk, op.ino, &st))
			fuse_reply_err(req, ESTALE);
		else
			fuse_reply_attr(req, &st, 0);
	}
	pthread_mutex_unlock(&lock);
}

/* Make what `mode` says; 0: answered already. With the lock held. */
static uint64_t make(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	const struct fuse_ctx *who = fuse_req_ctx(req);
	struct disk_op op = {.kind = DISK_CREATE, .mode = mode, .uid = who->uid, .gid = who->gid};
	uint64_t made = 0;

	op.ino = enter(req, parent);
	if (!op.ino || !take_name(req, op.name, name) || !change(req, &op, &made))
		return 0;
	return made;
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct fuse_entry_param e;
	uint64_t ino;

	pthread_mutex_lock(&lock);
	ino = make(req, parent, name, mode);
	if (ino) {
		e = entry_of(ino);
		fuse_reply_entry(req, &e);
	}
	pthread_mutex_unlock(&lock);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	op_mknod(req, parent, name, S_IFDIR | (mode & 07777), 0);
}

static void make_open(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	struct fuse_entry_param e;
	uint64_t ino;

	pthread_mutex_lock(&lock);
	ino = make(req, parent, name, S_IFREG | (mode & 07777));
	if (ino) {
		disk_open(disk, ino);
		fi->direct_io = 1;
		e = entry_of(ino);
		fuse_reply_create(req, &e, fi);
	}
	pthread_mutex_unlock(&lock);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *fi)
{
	make_open(req, parent, name, mode, fi);
}

static void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
	make_open(req, parent, "", mode, fi);
}

static void op_remove(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct disk_op op = {.kind = DISK_REMOVE};

	pthread_mutex_lock(&lock);
	op.ino = enter(req, parent);
	if (op.ino && take_name(req, op.name, name))
		change_and_reply(req, &op);
	pthread_mutex_unlock(&lock);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent,
		      const char *new_name, unsigned int flags)
{
	struct disk_op op = {.kind = DISK_RENAME, .flags = flags};

	pthread_mutex_lock(&lock);
	op.ino = enter(req, parent);
	op.ino2 = op.ino ? enter(req, new_parent) : 0;
	if (op.ino2 && take_name(req, op.name, name) && take_name(req, op.name2, new_name))
		change_and_reply(req, &op);
	pthread_mutex_unlock(&lock);
}

static void op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	uint64_t ino;

	pthread_mutex_lock(&lock);
	ino = enter(req, node);
	if (ino) {
		disk_open(disk, ino);
		fi->direct_io = 1;
		fuse_reply_open(req, fi);
	}
	pthread_mutex_unlock(&lock);
}

static void op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	pthread_mutex_lock(&lock);
	if (power == ON && node >> EPOCH_SHIFT == epoch)
		disk_release(disk, node & ((UINT64_C(1) << EPOCH_SHIFT) - 1));
	fuse_reply_err(req, 0);
	pthread_mutex_unlock(&lock);
}

static void op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	char *buf = malloc(size);
	uint64_t ino;

	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	pthread_mutex_lock(&lock);
	ino = enter(req, node);
	if (ino && must_fail("read", disk_name(disk, ino)))
		fuse_reply_err(req, EIO);
	else if (ino)
		fuse_reply_buf(req, buf, disk_read(disk, ino, buf, size, (uint64_t)off));
	pthread_mutex_unlock(&lock);
	free(buf);
}

static void op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t size, off_t off,
		     struct fuse_file_info *fi)
{
	struct disk_op op = {.kind = DISK_WRITE,
			     .sync = fi->flags & O_DSYNC, /* O_SYNC has it, too */
			     .off = (uint64_t)off,
			     .len = size,
			     .data = (const uint8_t *)buf};
	uint64_t made;

	pthread_mutex_lock(&lock);
	op.ino = enter(req, node);
	if (op.ino && change(req, &op, &made))
		fuse_reply_write(req, size);
	pthread_mutex_unlock(&lock);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len,
			 struct fuse_file_info *fi)
{
	struct disk_op op = {.kind = DISK_ALLOCATE,
			     .sync = mode & FALLOC_FL_KEEP_SIZE,
			     .off = (uint64_t)off,
			     .len = (uint64_t)len};

	pthread_mutex_lock(&lock);
	op.ino = enter(req, node);
	if (op.ino && mode & ~FALLOC_FL_KEEP_SIZE)
		fuse_reply_err(req, EOPNOTSUPP);
	else if (op.ino)
		change_and_reply(req, &op);
	pthread_mutex_unlock(&lock);
}

static void op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	struct disk_op op = {.kind = DISK_FSYNC};

	pthread_mutex_lock(&lock);
	op.ino = enter(req, node);
	if (op.ino)
		change_and_reply(req, &op);
	pthread_mutex_unlock(&lock);
}

/* The names as they were at the first read: programs remove what they have just read. */
struct listing {
	size_t size;
	char bytes[256 << 10];
};

static void op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct listing *l = calloc(1, sizeof *l);

	if (!l)
		abort();
	fi->fh = (uintptr_t)l;
	pthread_mutex_lock(&lock);
	if (enter(req, node))
		fuse_reply_open(req, fi);
	else
		free(l);
	pthread_mutex_unlock(&lock);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	free((struct listing *)(uintptr_t)fi->fh);
	fuse_reply_err(req, 0);
}

static void list(fuse_req_t req, uint64_t dir, struct listing *l)
{
	const char *name = ".";
	uint64_t ino = dir;

	l->size = 0;
	for (size_t i = 0; name; i++) {
		struct stat st = {.st_ino = ino, .st_mode = S_IFDIR};
		size_t len = fuse_add_direntry(req, NULL, 0, name, NULL, 0);

		if (i >= 2)
			disk_stat(disk, ino, &st);
		if (len > sizeof l->bytes - l->size)
			abort();
		fuse_add_direntry(req, l->bytes + l->size, sizeof l->bytes - l->size, name, &st,
				  (off_t)(l->size + len));
		l->size += len;
		name = i == 0 ? ".." : disk_list(disk, dir, i - 1, &ino);
	}
}

static void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		       struct fuse_file_info *fi)
{
	struct listing *l = (struct listing *)(uintptr_t)fi->fh;
	uint64_t dir;

	pthread_mutex_lock(&lock);
	dir = enter(req, node);
	if (dir && off == 0)
		list(req, dir, l);
	if (dir) {
		size_t from = (size_t)off < l->size ? (size_t)off : l->size, to = from;

		/* whole entries only */
		while (to < l->size) {
			uint32_t name_len;
			size_t len;

			memcpy(&name_len, l->bytes + to + 16, sizeof name_len);
			len = (24 + name_len + 7) & ~(size_t)7;
			if (to + len - from > size)
				break;
			to += len;
		}
		fuse_reply_buf(req, l->bytes + from, to - from);
	}
	pthread_mutex_unlock(&lock);
}

static void op_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct statvfs st = {.f_bsize = DISK_BLOCK,
			     .f_frsize = DISK_BLOCK,
			     .f_namemax = DISK_NAME_MAX};

	pthread_mutex_lock(&lock);
	if (enter(req, FUSE_ROOT_ID)) {
		uint64_t all = disk_capacity(disk), used = disk_used(disk);

		st.f_blocks = all / DISK_BLOCK;
		st.f_bfree = st.f_bavail = used < all ? (all - used) / DISK_BLOCK : 0;
		fuse_reply_statfs(req, &st);
	}
	pthread_mutex_unlock(&lock);
}

static const struct fuse_lowlevel_ops operations = {
	.init = op_init,
	.lookup = op_lookup,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.create = op_create,
	.tmpfile = op_tmpfile,
	.unlink = op_remove,
	.rmdir = op_remove,
	.rename = op_rename,
	.open = op_open,
	.release = op_release,
	.read = op_read,
	.write = op_write,
	.fallocate = op_fallocate,
	.fsync = op_fsync,
	.fsyncdir = op_fsync,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.releasedir = op_releasedir,
	.statfs = op_statfs,
};

/* ---- commands ------------------------------------------------------------------------------------ */

static void release_all(void)
{
	if (power == HANGING)
		power = FAILING;
	for (size_t i = 0; i < hanging_count; i++)
		fuse_reply_err(hanging[i], EIO);
	hanging_count = 0;
}

static void restore(uint64_t seed)
{
	struct disk_survivors s;

	release_all();
	disk_cut(disk, seed, &s);
	recording = false;
	epoch++;
	ops = cut_at = 0;
	count_count = fail_count = 0;
	power = ON;
	printf("ok kept=%u dropped=%u torn=%u names=%u/%u\n", s.kept, s.dropped, s.torn, s.names,
	       s.names_of);
}

static void print_operations(void)
{
	printf("ok");
	for (size_t i = 0; i < trace.count; i++) {
		const struct disk_op *op = &trace.ops[i];

		printf(" %s:%s:%" PRIu64 ":%" PRIu64 ":%d", disk_kind_names[op->kind], op->name,
		       op->off, op->len, op->sync);
	}
	printf("\n");
}

static void print_counts(void)
{
	printf("ok");
	for (size_t i = 0; i < count_count; i++)
		printf(" %s:%s=%" PRIu64, disk_kind_names[counts[i].kind], counts[i].name,
		       counts[i].count);
	printf("\n");
}

static uint64_t find_name(const char *name)
{
	uint64_t dirs[64] = {DISK_ROOT}, ino;
	size_t count = 1;
	const char *found;

	for (size_t i = 0; i < count; i++)
		for (size_t n = 0; (found = disk_list(disk, dirs[i], n, &ino)); n++) {
			struct stat st;

			if (strcmp(found, name) == 0)
				return ino;
			disk_stat(disk, ino, &st);
			if (S_ISDIR(st.st_mode) && count < 64)
				dirs[count++] = ino;
		}
	return 0;
}

static void done(int rc)
{
	if (rc)
		printf("error %s\n", strerror(-rc));
	else
		printf("ok\n");
}

static void add_fail(const char *kind, const char *glob, uint64_t count)
{
	struct fail *f = &fails[fail_count];

	if (fail_count == FAILS_MAX || strlen(kind) >= sizeof f->kind ||
	    strlen(glob) >= sizeof f->glob) {
		done(-EINVAL);
		return;
	}
	strcpy(f->kind, kind);
	strcpy(f->glob, glob);
	f->left = count;
	fail_count++;
	done(0);
}

static void cut(uint64_t at, bool failing)
{
	cut_fails = failing;
	cut_at = at;
	if (power == ON && ops >= at)
		power_off();
	done(0);
}

static void command(const char *line)
{
	char word[16] = "", a[1024] = "", b[1024] = "", c[1024] = "";
	uint64_t n, seed;

	sscanf(line, "%15s %1023s %1023s %1023s", word, a, b, c);
	n = strtoull(a, NULL, 0);
	seed = strtoull(b, NULL, 0);
	if (strcmp(word, "ops") == 0) {
		printf("ok %" PRIu64 " %s\n", ops, power == ON ? "on" : "off");
	} else if (strcmp(word, "counts") == 0) {
		print_counts();
	} else if (strcmp(word, "cut") == 0) {
		cut(n, strcmp(b, "fail") == 0);
	} else if (strcmp(word, "release") == 0) {
		release_all();
		done(0);
	} else if (strcmp(word, "restore") == 0) {
		restore(n);
	} else if (strcmp(word, "record") == 0) {
		recording = ops == 0 && epoch == 1;
		done(recording ? 0 : -EBUSY);
	} else if (strcmp(word, "replay") == 0) {
		release_all();
		disk_free(disk);
		disk = trace_replay(&trace, n);
		restore(seed);
	} else if (strcmp(word, "operations") == 0) {
		print_operations();
	} else if (strcmp(word, "save") == 0) {
		done(trace_save(&trace, a));
	} else if (strcmp(word, "load") == 0) {
		done(trace_load(&trace, a));
	} else if (strcmp(word, "quota") == 0) {
		disk_limit(disk, strcmp(a, "none") == 0 ? UINT64_MAX : n);
		done(0);
	} else if (strcmp(word, "fail") == 0) {
		add_fail(a, b, strtoull(c, NULL, 0));
	} else if (strcmp(word, "heal") == 0) {
		fail_count = 0;
		done(0);
	} else if (strcmp(word, "flip") == 0) {
		done(disk_flip(disk, find_name(a), seed, (unsigned)strtoul(c, NULL, 0)));
	} else {
		printf("error what is \"%s\"?\n", word);
	}
}

static void *command_main(void *arg)
{
	char *line = NULL;
	size_t size = 0;

	while (getline(&line, &size, stdin) > 0) {
		pthread_mutex_lock(&lock);
		command(line);
		pthread_mutex_unlock(&lock);
		fflush(stdout);
	}
	umount2(mountpoint, MNT_DETACH);
	_exit(0); /* closes /dev/fuse, which ends every request */
}

int main(int argc, char **argv)
{
	char *words[] = {argv[0], (char *)"-o",
			 (char *)"fsname=lossyfs,subtype=lossyfs,default_permissions,allow_other",
			 NULL};
	struct fuse_args args = FUSE_ARGS_INIT(3, words);
	struct fuse_session *se;
	pthread_t thread;

	if (argc != 2 || argv[1][0] == '-') {
		fprintf(stderr, "usage: lossyfs MOUNTPOINT (commands on stdin: see lossyfs.c)\n");
		return 2;
	}
	mountpoint = argv[1];
	disk = disk_new();
	epoch = 1;
	se = fuse_session_new(&args, &operations, sizeof operations, NULL);
	if (!se || fuse_session_mount(se, mountpoint)) {
		fprintf(stderr, "lossyfs: cannot mount %s\n", mountpoint);
		return 1;
	}
	printf("ok mounted\n");
	fflush(stdout);
	if (pthread_create(&thread, NULL, command_main, NULL))
		return 1;
	fuse_session_loop(se);
	fuse_session_unmount(se);
	return 0;
}
