/* The capture, fed with what SQLite really writes.
 *
 * A shim VFS stands where the mount will stand: it splits every write to the -wal as the kernel does
 * (and sometimes anywhere), asks the capture, agrees to or refuses what it calls a transaction, and
 * writes the rest into the file. The captured images are applied to a model of the database. After
 * every commit that SQLite reports, every refusal and now and then in between, the database and its
 * -wal are copied, an SQLite of its own recovers the copy, and what it finds must be the model: not a
 * transaction less, and not one more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../rig/random.h"
#include "pages/capture.h"
#include "pages/wal_content.h"
#include "sqlite/file_format.h"
#include "sqlite/wal_format.h"

/* ---- the harness ------------------------------------------------------------------------------- */

enum split { SPLIT_PAGES, SPLIT_ANYWHERE, SPLIT_NEVER, SPLIT_RANDOM };

static struct {
	int round;
	char dir[64], path[96], wal_path[104], copy[96], copy_wal[104];
	/* how the shim behaves */
	enum split split;
	unsigned refuse_percent, check_percent;
	bool powersafe, refuse_next;
	/* the -wal, while it is open */
	struct wrep_capture *capture;
	int wal_fd;
	/* the database, as committed */
	uint8_t *model;
	size_t model_bytes;
	struct wrep_pagesum sum;
	/* what happened */
	unsigned commits, refusals, denied;
	unsigned unchained; /* transactions that SQLite left without checksums */
	size_t last_completing_bytes;
} h;

static uint8_t *read_file(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	uint8_t *bytes;

	*len = 0;
	if (fd < 0)
		return NULL;
	check(fstat(fd, &st) == 0);
	bytes = malloc((size_t)st.st_size + 1);
	check(pread(fd, bytes, (size_t)st.st_size, 0) == st.st_size);
	*len = (size_t)st.st_size;
	close(fd);
	return bytes;
}

static void write_file(const char *path, const uint8_t *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	check(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
	close(fd);
}

/* Take the database file for the model: nothing is in the -wal. */
static void adopt_database(void)
{
	struct wrep_page_change *changes;
	uint32_t page_size, pages;

	free(h.model);
	h.model = read_file(h.path, &h.model_bytes);
	wrep_pagesum_close(&h.sum);
	if (h.model_bytes == 0)
		return;
	page_size = (uint32_t)h.model[16] << 8 | h.model[17];
	if (page_size == 1)
		page_size = 65536;
	pages = (uint32_t)(h.model_bytes / page_size);
	changes = calloc(pages, sizeof(*changes));
	for (uint32_t i = 0; i < pages; i++) {
		changes[i].pgno = i + 1;
		changes[i].hash = wrep_page_hash(i + 1, h.model + (size_t)i * page_size, page_size);
	}
	check(wrep_pagesum_apply(&h.sum, page_size, pages, changes, pages) == 0);
	free(changes);
}

static void apply_to_model(const struct wrep_wal_txn *txn)
{
	size_t bytes = (size_t)txn->page_count * txn->page_size;
	struct wrep_page_change *changes = calloc(txn->image_count + 1, sizeof(*changes));
	uint32_t last = 0;
	uint64_t preview, sum = 0;

	check(txn->page_size == h.sum.page_size);
	h.model = realloc(h.model, bytes > h.model_bytes ? bytes : h.model_bytes);
	if (bytes > h.model_bytes)
		memset(h.model + h.model_bytes, 0, bytes - h.model_bytes);
	h.model_bytes = bytes;
	for (uint32_t i = 0; i < txn->image_count; i++) {
		const struct wrep_wal_image *image = &txn->images[i];
		uint8_t *page = h.model + (size_t)(image->pgno - 1) * txn->page_size;

		check(image->pgno > last && image->pgno <= txn->page_count);
		last = image->pgno;
		check(wrep_capture_image(h.capture, image, page) == 0);
		check(wrep_page_hash(image->pgno, page, txn->page_size) == image->hash);
		changes[i].pgno = image->pgno;
		changes[i].hash = image->hash;
	}
	preview = wrep_pagesum_preview(&h.sum, txn->page_size, txn->page_count, changes,
				       txn->image_count);
	check(wrep_pagesum_apply(&h.sum, txn->page_size, txn->page_count, changes,
				 txn->image_count) == 0);
	for (uint32_t i = 0; i < txn->page_count; i++)
		sum += h.sum.hash[i];
	check(h.sum.sum == preview && preview == sum);
	free(changes);
}

/* Would a recovery of what is in the files find exactly the model? */
static void check_recovery(void)
{
	size_t len, wal_len;
	uint8_t *bytes = read_file(h.path, &len);
	uint8_t *wal = read_file(h.wal_path, &wal_len);
	sqlite3 *db;

	write_file(h.copy, bytes, len);
	unlink(h.copy_wal);
	if (wal != NULL)
		write_file(h.copy_wal, wal, wal_len);
	free(bytes);
	free(wal);
	check(sqlite3_open_v2(h.copy, &db, SQLITE_OPEN_READWRITE, "unix") == SQLITE_OK);
	check(sqlite3_exec(db,
			   "PRAGMA synchronous=OFF; PRAGMA locking_mode=EXCLUSIVE;"
			   "PRAGMA wal_checkpoint(TRUNCATE)",
			   NULL, NULL, NULL) == SQLITE_OK);
	check(sqlite3_close(db) == SQLITE_OK);
	bytes = read_file(h.copy, &len);
	if (h.model_bytes > 0) {
		check(len == h.model_bytes);
		/* Pages never written since the database last grew over them hold anything. */
		for (uint32_t i = 0; i < h.sum.page_count; i++) {
			size_t off = (size_t)i * h.sum.page_size;

			if (h.sum.hash[i] != 0)
				check(memcmp(bytes + off, h.model + off, h.sum.page_size) == 0);
		}
	}
	free(bytes);
	if (h.capture != NULL) {
		struct wrep_wal_position now, fresh;
		struct wrep_capture *other;

		check(wrep_wal_content_position(h.capture, &now) == 0);
		check(wrep_capture_open(&other, h.wal_fd) == 0);
		check(wrep_wal_content_position(other, &fresh) == 0);
		check(memcmp(&now, &fresh, sizeof(now)) == 0);
		wrep_capture_close(other);
	}
}

static void check_recovery_sometimes(void)
{
	if (random_below(100) < h.check_percent)
		check_recovery();
}

/* ---- the shim ---------------------------------------------------------------------------------- */

struct shim_file {
	sqlite3_file base;
	bool is_wal;
	sqlite3_file *real;
};

static sqlite3_vfs *real_vfs;

#define REAL(file) (((struct shim_file *)(file))->real)

static int shim_close(sqlite3_file *file)
{
	struct shim_file *f = (struct shim_file *)file;

	if (f->is_wal) {
		wrep_capture_close(h.capture);
		h.capture = NULL;
		close(h.wal_fd);
	}
	return f->real->pMethods ? f->real->pMethods->xClose(f->real) : SQLITE_OK;
}

static int shim_read(sqlite3_file *file, void *buf, int len, sqlite3_int64 off)
{
	return REAL(file)->pMethods->xRead(REAL(file), buf, len, off);
}

static int write_piece(sqlite3_file *file, const uint8_t *buf, size_t len, uint64_t off)
{
	const struct wrep_wal_txn *txn = NULL;
	int rc;

	rc = wrep_capture_write(h.capture, buf, len, off, &txn);
	if (rc == 0) {
		rc = REAL(file)->pMethods->xWrite(REAL(file), buf, (int)len, (sqlite3_int64)off);
		check(rc == SQLITE_OK);
		if (random_below(200) == 0)
			wrep_capture_forget(h.capture);
		check_recovery_sometimes();
		return SQLITE_OK;
	}
	if (rc == -EBADMSG) {
		h.unchained++;
		check_recovery();
		return SQLITE_IOERR_WRITE;
	}
	if (rc < 0) {
		h.denied++;
		return SQLITE_IOERR_WRITE;
	}
	/* Not a byte of it is in the file: nothing else may be written, and nothing is committed. */
	check(wrep_capture_write(h.capture, buf, len, off, &txn) == -EBUSY);
	check(wrep_capture_truncate(h.capture, 0) == -EBUSY);
	check_recovery_sometimes();
	if (txn->repeats && !h.powersafe) { /* what its caller finds in the wal-index */
		check(wrep_capture_committed(h.capture) == 0);
		check_recovery_sometimes();
		return SQLITE_OK;
	}
	if (h.refuse_next || random_below(100) < h.refuse_percent) {
		wrep_capture_refused(h.capture);
		h.refuse_next = false;
		h.refusals++;
		check_recovery();
		return SQLITE_IOERR_WRITE;
	}
	apply_to_model(txn);
	for (uint32_t i = 0; i < txn->image_count; i += 1 + txn->image_count / 8)
		check(!wrep_wal_content_holds(h.capture, txn->images[i].pgno, 1));
	check(wrep_capture_committed(h.capture) == 0);
	for (uint32_t i = 0; i < txn->image_count; i += 1 + txn->image_count / 8)
		check(wrep_wal_content_holds(h.capture, txn->images[i].pgno, txn->images[i].hash));
	h.commits++;
	h.last_completing_bytes = len;
	check_recovery_sometimes();
	return SQLITE_OK;
}

static int shim_write(sqlite3_file *file, const void *buf, int len, sqlite3_int64 off)
{
	const uint8_t *p = buf;
	uint64_t pos = (uint64_t)off, end = (uint64_t)off + (uint64_t)len;
	enum split split = h.split == SPLIT_RANDOM ? random_below(3) : h.split;

	if (!((struct shim_file *)file)->is_wal)
		return REAL(file)->pMethods->xWrite(REAL(file), buf, len, off);
	if (h.sum.page_size == 0)
		adopt_database();
	while (pos < end) {
		uint64_t stop = end;
		int rc;

		if (split == SPLIT_PAGES)
			stop = (pos / 4096 + 1) * 4096;
		else if (split == SPLIT_ANYWHERE)
			stop = pos + 1 + random_below((uint32_t)len);
		if (stop < WREP_WAL_HEADER_BYTES)
			stop = WREP_WAL_HEADER_BYTES; /* lies within one page: never split */
		if (stop > end)
			stop = end;
		rc = write_piece(file, p + (pos - (uint64_t)off), (size_t)(stop - pos), pos);
		if (rc != SQLITE_OK)
			return rc;
		pos = stop;
	}
	return SQLITE_OK;
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	if (((struct shim_file *)file)->is_wal &&
	    wrep_capture_truncate(h.capture, (uint64_t)size) != 0) {
		h.denied++;
		return SQLITE_IOERR_TRUNCATE;
	}
	return REAL(file)->pMethods->xTruncate(REAL(file), size);
}

static int shim_sync(sqlite3_file *file, int flags)
{
	(void)file;
	(void)flags;
	return SQLITE_OK;
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *size)
{
	return REAL(file)->pMethods->xFileSize(REAL(file), size);
}

static int shim_lock(sqlite3_file *file, int level)
{
	return REAL(file)->pMethods->xLock(REAL(file), level);
}

static int shim_unlock(sqlite3_file *file, int level)
{
	return REAL(file)->pMethods->xUnlock(REAL(file), level);
}

static int shim_check_reserved(sqlite3_file *file, int *out)
{
	return REAL(file)->pMethods->xCheckReservedLock(REAL(file), out);
}

static int shim_control(sqlite3_file *file, int op, void *arg)
{
	return REAL(file)->pMethods->xFileControl(REAL(file), op, arg);
}

static int shim_sector_size(sqlite3_file *file)
{
	(void)file;
	return 4096;
}

static int shim_characteristics(sqlite3_file *file)
{
	(void)file;
	return h.powersafe ? SQLITE_IOCAP_POWERSAFE_OVERWRITE : 0;
}

static int shim_shm_map(sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
	return REAL(file)->pMethods->xShmMap(REAL(file), region, size, extend, out);
}

static int shim_shm_lock(sqlite3_file *file, int off, int n, int flags)
{
	return REAL(file)->pMethods->xShmLock(REAL(file), off, n, flags);
}

static void shim_shm_barrier(sqlite3_file *file)
{
	REAL(file)->pMethods->xShmBarrier(REAL(file));
}

static int shim_shm_unmap(sqlite3_file *file, int delete)
{
	return REAL(file)->pMethods->xShmUnmap(REAL(file), delete);
}

static const sqlite3_io_methods shim_methods = {
	.iVersion = 2,
	.xClose = shim_close,
	.xRead = shim_read,
	.xWrite = shim_write,
	.xTruncate = shim_truncate,
	.xSync = shim_sync,
	.xFileSize = shim_size,
	.xLock = shim_lock,
	.xUnlock = shim_unlock,
	.xCheckReservedLock = shim_check_reserved,
	.xFileControl = shim_control,
	.xSectorSize = shim_sector_size,
	.xDeviceCharacteristics = shim_characteristics,
	.xShmMap = shim_shm_map,
	.xShmLock = shim_shm_lock,
	.xShmBarrier = shim_shm_barrier,
	.xShmUnmap = shim_shm_unmap,
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
		     int *out_flags)
{
	struct shim_file *f = (struct shim_file *)file;
	int rc;

	(void)vfs;
	f->real = (sqlite3_file *)(f + 1);
	f->is_wal = false;
	rc = real_vfs->xOpen(real_vfs, name, f->real, flags, out_flags);
	f->base.pMethods = f->real->pMethods ? &shim_methods : NULL;
	if (rc == SQLITE_OK && flags & SQLITE_OPEN_WAL) {
		f->is_wal = true;
		h.wal_fd = open(name, O_RDWR | O_CLOEXEC);
		check(h.wal_fd >= 0);
		check(wrep_capture_open(&h.capture, h.wal_fd) == 0);
	}
	return rc;
}

static int group_setup(void **state)
{
	static sqlite3_vfs shim;

	(void)state;
	random_begin();
	real_vfs = sqlite3_vfs_find("unix");
	shim = *real_vfs;
	shim.zName = "shim";
	shim.pNext = NULL;
	shim.xOpen = shim_open;
	shim.szOsFile = (int)sizeof(struct shim_file) + real_vfs->szOsFile;
	return sqlite3_vfs_register(&shim, 0) != SQLITE_OK;
}

/* ---- one database ------------------------------------------------------------------------------ */

static void begin_round(int round)
{
	const char *tmp = getenv("TMPDIR");

	memset(&h, 0, sizeof(h));
	h.round = round;
	random_round(round);
	/* SQLite's randomness (salts, randomblob) repeats, too. */
	sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(rng >> 33 | 1), NULL);
	h.powersafe = true;
	h.split = SPLIT_PAGES;
	h.check_percent = 10;
	snprintf(h.dir, sizeof(h.dir), "%s/wrep-capture-XXXXXX",
		 tmp && strlen(tmp) < 30 ? tmp : "/tmp");
	check(mkdtemp(h.dir) != NULL);
	snprintf(h.path, sizeof(h.path), "%s/a.db", h.dir);
	snprintf(h.wal_path, sizeof(h.wal_path), "%s-wal", h.path);
	snprintf(h.copy, sizeof(h.copy), "%s/copy.db", h.dir);
	snprintf(h.copy_wal, sizeof(h.copy_wal), "%s-wal", h.copy);
}

static void end_round(void)
{
	static const char *const names[] = {"a.db", "a.db-wal", "a.db-shm", "copy.db",
					    "copy.db-wal"};
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", h.dir, names[i]);
		unlink(path);
	}
	check(rmdir(h.dir) == 0);
	free(h.model);
	wrep_pagesum_close(&h.sum);
}

static sqlite3 *open_database(void)
{
	sqlite3 *db;

	check(sqlite3_open_v2(h.path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "shim") ==
	      SQLITE_OK);
	return db;
}

/* Runs `sql`; it may fail only because the shim failed a write. */
static int run(sqlite3 *db, const char *format, ...)
{
	unsigned failures = h.refusals + h.denied + h.unchained;
	va_list args;
	char *sql;
	int rc;

	va_start(args, format);
	sql = sqlite3_vmprintf(format, args);
	va_end(args);
	rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	if (rc != SQLITE_OK && h.refusals + h.denied + h.unchained == failures)
		print_error("%s: %s\n", sql, sqlite3_errmsg(db));
	check(rc == SQLITE_OK || h.refusals + h.denied + h.unchained > failures);
	sqlite3_free(sql);
	return rc;
}

static void enter_wal_mode(sqlite3 *db)
{
	check(run(db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL") == SQLITE_OK);
}

static sqlite3 *new_database(uint32_t page_size, const char *more)
{
	sqlite3 *db = open_database();

	check(run(db, "PRAGMA page_size=%u; PRAGMA auto_vacuum=%d; %s", page_size,
		  (int)random_below(3), more) == SQLITE_OK);
	enter_wal_mode(db);
	return db;
}

/* ---- recorded shapes ---------------------------------------------------------------------------- */

static void insert_then_update_after_a_spill_is_one_transaction(void **state)
{
	(void)state;
	for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
		sqlite3 *db;
		unsigned before;

		begin_round((int)page_size);
		db = new_database(page_size, "PRAGMA cache_size=2");
		check(run(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB)") == SQLITE_OK);
		before = h.commits;
		check(run(db,
			  "PRAGMA cache_size=2; PRAGMA wal_autocheckpoint=0; BEGIN;"
			  "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n"
			  " WHERE i<40) INSERT INTO t SELECT i, randomblob(%u) FROM n;",
			  page_size / 3) == SQLITE_OK);
		check(h.commits == before);
		check(run(db, "UPDATE t SET b=randomblob(%u) WHERE a%%3=1", page_size / 3) ==
		      SQLITE_OK);
		check(h.commits == before);
		check_recovery();
		check(run(db, "COMMIT") == SQLITE_OK);
		check(h.commits == before + 1);
		/* Frames were overwritten in place: the last write was of a header (or its end). */
		check(h.last_completing_bytes <= 24);
		check_recovery();
		check(sqlite3_close(db) == SQLITE_OK);
		check_recovery();
		check(h.denied == 0);
		end_round();
	}
}

static void padding_is_no_transaction(void **state)
{
	struct wrep_wal_position position;
	uint32_t before;
	sqlite3 *db;

	(void)state;
	begin_round(1);
	h.powersafe = false;
	db = new_database(512, "");
	check(run(db, "PRAGMA synchronous=FULL; CREATE TABLE t(a INTEGER PRIMARY KEY, b)") ==
	      SQLITE_OK);
	for (unsigned i = 0; i < 30; i++) {
		unsigned commits = h.commits;

		check(wrep_wal_content_position(h.capture, &position) == 0);
		before = position.frame_count;
		check(run(db, "INSERT INTO t(b) VALUES(%u)", i) == SQLITE_OK);
		check(h.commits == commits + 1);
		check(wrep_wal_content_position(h.capture, &position) == 0);
		check(position.frame_count >= before + 7); /* up to the end of the sector */
		check_recovery();
	}
	check(h.denied == 0);
	check(sqlite3_close(db) == SQLITE_OK);
	end_round();
}

static void refused_transaction_never_comes_back(void **state)
{
	sqlite3 *db;

	(void)state;
	begin_round(2);
	h.check_percent = 100;
	db = new_database(1024, "PRAGMA cache_size=2");
	check(run(db, "PRAGMA cache_size=2; CREATE TABLE t(a INTEGER PRIMARY KEY, b)") ==
	      SQLITE_OK);
	for (int i = 0; i < 20; i++) {
		unsigned commits = h.commits;

		h.refuse_next = true;
		check(run(db, "INSERT INTO t(a,b) VALUES(%d, zeroblob(3000)); ", i) != SQLITE_OK);
		check(h.commits == commits);
		/* The very same again: the same bytes at the same places. */
		check(run(db, "INSERT INTO t(a,b) VALUES(%d, zeroblob(3000)); ", i) == SQLITE_OK);
		check(h.commits == commits + 1);
		check_recovery();
	}
	check(h.denied == 0);
	check(sqlite3_close(db) == SQLITE_OK);
	check_recovery();
	end_round();
}

static void page_size_changed_by_vacuum_is_followed(void **state)
{
	sqlite3 *db;

	(void)state;
	begin_round(3);
	db = new_database(1024, "");
	for (uint32_t page_size = 65536; page_size >= 512; page_size /= 2) {
		check(run(db, "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b);"
			      "INSERT INTO t(b) VALUES(randomblob(5000))") == SQLITE_OK);
		check_recovery();
		check(run(db, "PRAGMA journal_mode=DELETE; PRAGMA page_size=%u; VACUUM",
			  page_size) == SQLITE_OK);
		enter_wal_mode(db);
		adopt_database();
		check(h.sum.page_size == page_size);
		check(run(db, "DELETE FROM t WHERE a=1; VACUUM") == SQLITE_OK);
		check_recovery();
	}
	check(h.denied == 0);
	check(sqlite3_close(db) == SQLITE_OK);
	end_round();
}

/* Older versions leave this transaction without checksums: it must fail, or be whole. */
static void rollback_to_savepoint_after_a_spill_is_no_silent_loss(void **state)
{
	sqlite3 *db;
	int rc;

	(void)state;
	begin_round(4);
	db = new_database(512, "PRAGMA cache_size=2");
	check(run(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); PRAGMA cache_size=2;"
		      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<40)"
		      " INSERT INTO t SELECT i, randomblob(300) FROM n") == SQLITE_OK);
	check(run(db, "BEGIN; SAVEPOINT s; UPDATE t SET b=randomblob(300);"
		      "UPDATE t SET b=randomblob(300) WHERE a>20; ROLLBACK TO s; RELEASE s;"
		      "INSERT INTO t VALUES(1000,1)") == SQLITE_OK);
	rc = run(db, "COMMIT");
	check(rc == SQLITE_OK || h.unchained == 1);
	check(h.denied == 0);
	check(h.unchained == 0 || sqlite3_libversion_number() < 3053000);
	check_recovery();
	if (!sqlite3_get_autocommit(db))
		check(run(db, "ROLLBACK") == SQLITE_OK);
	check(run(db, "UPDATE t SET b=2 WHERE a<15") == SQLITE_OK);
	check_recovery();
	check(sqlite3_close(db) == SQLITE_OK);
	end_round();
}

/* ---- random histories --------------------------------------------------------------------------- */

static void random_statement(sqlite3 *db, uint32_t page_size)
{
	uint32_t bytes = random_below(page_size * (random_below(10) == 0 ? 6 : 1)) + 1;
	/* Equal content makes pieces of writes equal to what lies there already. */
	const char *blob = random_below(3) ? "randomblob" : "zeroblob";
	uint32_t key = random_below(120);

	switch (random_below(12)) {
	case 0:
	case 1:
	case 2:
	case 3:
		run(db, "INSERT OR REPLACE INTO t VALUES(%u, %s(%u))", key, blob, bytes);
		break;
	case 4:
		run(db,
		    "WITH RECURSIVE n(i) AS (SELECT %u UNION ALL SELECT i+1 FROM n WHERE i<%u)"
		    " INSERT OR REPLACE INTO t SELECT i, %s(%u) FROM n",
		    key, key + random_below(30), blob, bytes % page_size);
		break;
	case 5:
	case 6:
	case 7:
		run(db, "UPDATE t SET b=%s(%u) WHERE a BETWEEN %u AND %u", blob, bytes % page_size,
		    key, key + random_below(20));
		break;
	case 8:
		run(db, "DELETE FROM t WHERE a BETWEEN %u AND %u", key, key + random_below(60));
		break;
	case 9:
		run(db, "CREATE INDEX IF NOT EXISTS i ON t(b)");
		break;
	case 10:
		run(db, "DROP INDEX IF EXISTS i");
		break;
	case 11:
		run(db, "PRAGMA incremental_vacuum(%u)", random_below(5));
		break;
	}
}

static void random_transaction(sqlite3 *db, uint32_t page_size)
{
	if (run(db, random_below(2) ? "BEGIN" : "BEGIN IMMEDIATE") != SQLITE_OK)
		return;
	for (uint32_t n = random_below(8); n > 0 && !sqlite3_get_autocommit(db); n--) {
		bool savepoint = random_below(3) == 0;

		if (savepoint)
			run(db, "SAVEPOINT s");
		random_statement(db, page_size);
		if (sqlite3_get_autocommit(db))
			return;
		if (savepoint && random_below(2)) {
			run(db, "ROLLBACK TO s");
			if (random_below(2))
				random_statement(db, page_size);
		}
		if (savepoint && !sqlite3_get_autocommit(db))
			run(db, "RELEASE s");
		if (random_below(4) == 0)
			check_recovery_sometimes();
	}
	if (!sqlite3_get_autocommit(db))
		run(db, random_below(4) ? "COMMIT" : "ROLLBACK");
	if (!sqlite3_get_autocommit(db))
		run(db, "ROLLBACK");
}

static void random_step(sqlite3 **db, uint32_t page_size)
{
	static const char *const checkpoints[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};

	switch (random_below(16)) {
	case 0:
		run(*db, "PRAGMA wal_checkpoint(%s)", checkpoints[random_below(4)]);
		break;
	case 1:
		run(*db, "VACUUM");
		break;
	case 2:
		run(*db, "PRAGMA synchronous=%s; PRAGMA cache_size=%d; PRAGMA cache_spill=%s",
		    random_below(2) ? "FULL" : "NORMAL", random_below(3) ? 2 : -2000,
		    random_below(4) ? "ON" : "OFF");
		break;
	case 3:
		run(*db, "PRAGMA journal_size_limit=%d; PRAGMA wal_autocheckpoint=%u",
		    random_below(2) ? -1 : (int)random_below(30000), random_below(60));
		break;
	case 4:
		if (random_below(2) == 0) {
			check(sqlite3_close(*db) == SQLITE_OK);
			check_recovery();
			*db = open_database();
		}
		break;
	case 5:
	case 6:
	case 7:
	case 8:
		random_statement(*db, page_size);
		break;
	default:
		random_transaction(*db, page_size);
		break;
	}
}

static void random_history(uint32_t page_size, int steps)
{
	sqlite3 *db;

	h.split = random_below(4);
	h.powersafe = random_below(2);
	h.refuse_percent = random_below(3) ? random_below(30) : 0;
	h.check_percent = random_below(3);
	db = new_database(page_size, "PRAGMA cache_size=2");
	while (run(db, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)") != SQLITE_OK)
		continue;
	for (int step = 0; step < steps; step++) {
		random_step(&db, page_size);
		check(sqlite3_get_autocommit(db));
		check_recovery();
		/* Nothing else that SQLite does is ever denied, whatever was refused before. */
		check(h.denied == 0);
		check(h.unchained == 0 || sqlite3_libversion_number() < 3053000);
	}
	h.refuse_percent = 0;
	check(run(db, "PRAGMA integrity_check; PRAGMA wal_checkpoint(TRUNCATE)") == SQLITE_OK);
	check(sqlite3_close(db) == SQLITE_OK);
	check_recovery();
	check(h.commits > 0);
}

static void random_histories_give_sqlites_own_database(void **state)
{
	int rounds = getenv("WREP_TEST_ROUNDS") ? atoi(getenv("WREP_TEST_ROUNDS")) : 16;

	(void)state;
	for (int round = 0; round < rounds; round++) {
		uint32_t page_size = 512u << (round % 8);

		begin_round(100 + round);
		random_history(page_size, page_size > 8192 ? 40 : 90);
		end_round();
	}
}

/* ---- synthetic files ---------------------------------------------------------------------------- */

#define S_PAGE 4096u
#define S_FRAME (24u + S_PAGE)

/* A -wal made by hand: header and frames laid out in `bytes`, none of it written yet. */
struct synth {
	int fd;
	struct wrep_capture *c;
	struct wrep_wal_header header;
	struct wrep_pagesum sum;
	uint32_t running[2];
	uint32_t frames;
	uint8_t bytes[32 + 12 * S_FRAME];
};

static struct synth s;

static void synth_header(bool big_endian, uint8_t salt)
{
	s.header.page_size = S_PAGE;
	s.header.big_endian = big_endian;
	s.header.checkpoint_seq = salt;
	memset(s.header.salt, salt, sizeof(s.header.salt));
	wrep_wal_header_encode(&s.header, s.bytes);
	s.running[0] = s.header.sum[0];
	s.running[1] = s.header.sum[1];
	s.frames = 0;
}

static uint64_t frame_at(uint32_t frame)
{
	return wrep_wal_frame_offset(S_PAGE, frame);
}

/* Lay frame `frame` out as SQLite appends it when it means to compute the checksum later. */
static void strip_checksum(uint32_t frame)
{
	memset(s.bytes + frame_at(frame) + 8, 0, 16);
}

static void synth_frame(uint32_t pgno, uint32_t page_count, uint8_t fill)
{
	struct wrep_wal_frame frame = {.pgno = pgno, .page_count = page_count};
	uint8_t *p = s.bytes + frame_at(s.frames);

	memset(p + 24, fill, S_PAGE);
	wrep_wal_frame_encode(&s.header, s.running, &frame, p + 24, p);
	memcpy(s.running, frame.sum, sizeof(s.running));
	s.frames++;
}

static int synth_setup(void **state)
{
	char path[] = "/tmp/wrep-synth-XXXXXX";

	(void)state;
	memset(&s, 0, sizeof(s));
	h.round = 0;
	s.fd = mkstemp(path);
	unlink(path);
	return s.fd < 0 || wrep_capture_open(&s.c, s.fd) != 0;
}

static int synth_teardown(void **state)
{
	(void)state;
	wrep_capture_close(s.c);
	wrep_pagesum_close(&s.sum);
	return close(s.fd);
}

/* Write [off, end) of the laid-out bytes through the capture. */
static int synth_write(uint64_t off, uint64_t end, const struct wrep_wal_txn **txn)
{
	int rc = wrep_capture_write(s.c, s.bytes + off, (size_t)(end - off), off, txn);

	if (rc == 0)
		assert_int_equal(pwrite(s.fd, s.bytes + off, (size_t)(end - off), (off_t)off),
				 (ssize_t)(end - off));
	return rc;
}

static void commit_txn(const struct wrep_wal_txn *txn)
{
	struct wrep_page_change changes[16];

	assert_true(txn->image_count <= 16);
	for (uint32_t i = 0; i < txn->image_count; i++) {
		changes[i].pgno = txn->images[i].pgno;
		changes[i].hash = txn->images[i].hash;
	}
	assert_int_equal(wrep_pagesum_apply(&s.sum, txn->page_size, txn->page_count, changes,
					    txn->image_count),
			 0);
	assert_int_equal(wrep_capture_committed(s.c), 0);
}

static uint32_t committed_frames(void)
{
	struct wrep_wal_position position;

	assert_int_equal(wrep_wal_content_position(s.c, &position), 0);
	return position.frame_count;
}

static uint8_t file_byte(uint64_t off)
{
	uint8_t byte = 0;

	assert_int_equal(pread(s.fd, &byte, 1, (off_t)off), 1);
	return byte;
}

static void checksums_of_both_byte_orders_are_followed(void **state)
{
	const struct wrep_wal_txn *txn;
	uint8_t page[S_PAGE];

	(void)state;
	for (int big_endian = 0; big_endian < 2; big_endian++) {
		synth_header(big_endian, (uint8_t)(10 + big_endian));
		synth_frame(2, 0, 'a');
		synth_frame(1, 0, 'b');
		synth_frame(2, 3, (uint8_t)('c' + big_endian));
		assert_int_equal(synth_write(0, 32, &txn), 0);
		assert_int_equal(synth_write(32, frame_at(2) + 24, &txn), 0);
		assert_int_equal(synth_write(frame_at(2) + 24, frame_at(3), &txn), 1);
		assert_int_equal(txn->image_count, 2);
		assert_int_equal(txn->page_count, 3);
		assert_int_equal(txn->page_size, S_PAGE);
		assert_int_equal(txn->end, frame_at(3));
		assert_int_equal(txn->images[0].pgno, 1);
		assert_int_equal(txn->images[1].pgno, 2);
		assert_int_equal(txn->images[1].offset, frame_at(2) + 24);
		assert_int_equal(wrep_capture_image(s.c, &txn->images[1], page), 0);
		assert_memory_equal(page, s.bytes + frame_at(2) + 24, S_PAGE);
		commit_txn(txn);
		assert_int_equal(committed_frames(), 3);
	}
}

static void one_write_with_several_commits_is_one_transaction(void **state)
{
	const struct wrep_wal_txn *txn;
	uint8_t page[S_PAGE];

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 9, 'a');
	synth_frame(2, 9, 'b');
	synth_frame(9, 9, 'c');
	synth_frame(1, 2, 'd');
	synth_frame(2, 0, 'e'); /* the beginning of the next */
	/* Header, transactions and a torn frame in one write. */
	assert_int_equal(synth_write(0, frame_at(5) - 100, &txn), 1);
	assert_int_equal(txn->page_count, 2);
	assert_int_equal(txn->image_count, 2);
	assert_int_equal(txn->end, frame_at(4));
	assert_int_equal(wrep_capture_image(s.c, &txn->images[0], page), 0);
	assert_int_equal(page[7], 'd');
	assert_int_equal(wrep_capture_image(s.c, &txn->images[1], page), 0);
	assert_int_equal(page[7], 'b');
	assert_int_equal(lseek(s.fd, 0, SEEK_END), 0);
	commit_txn(txn);
	assert_int_equal(lseek(s.fd, 0, SEEK_END), (off_t)(frame_at(5) - 100));
	assert_int_equal(committed_frames(), 4);
	/* What came behind the commit frame belongs to the next transaction. */
	synth_frame(1, 2, 'f');
	assert_int_equal(synth_write(frame_at(5) - 100, frame_at(6), &txn), 1);
	assert_int_equal(txn->image_count, 2);
	commit_txn(txn);
	assert_int_equal(committed_frames(), 6);
}

static void refused_generation_leaves_the_former_one(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 1, 'a');
	assert_int_equal(synth_write(0, frame_at(1), &txn), 1);
	commit_txn(txn);
	synth_header(false, 2);
	synth_frame(1, 1, 'b');
	assert_int_equal(synth_write(0, frame_at(1), &txn), 1);
	assert_int_equal(file_byte(frame_at(0) + 24), 'a');
	wrep_capture_refused(s.c);
	assert_int_equal(committed_frames(), 1);
	assert_true(wrep_wal_content_holds(s.c, 1, s.sum.hash[0]));
	assert_int_equal(synth_write(0, frame_at(1), &txn), 1);
	commit_txn(txn);
	assert_int_equal(file_byte(frame_at(0) + 24), 'b');
}

static void frames_of_a_former_generation_are_no_transaction(void **state)
{
	static uint8_t old[sizeof(s.bytes)];
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	for (uint8_t i = 0; i < 8; i++)
		synth_frame(i + 1u, 8, 'a');
	memcpy(old, s.bytes, sizeof(old));
	/* Under other hands: a new header and two frames before the former generation's frames. */
	synth_header(false, 2);
	synth_frame(1, 0, 'b');
	synth_frame(2, 2, 'b');
	assert_int_equal(pwrite(s.fd, old, sizeof(old), 0), (ssize_t)sizeof(old));
	assert_int_equal(pwrite(s.fd, s.bytes, frame_at(2), 0), (ssize_t)frame_at(2));
	assert_int_equal(committed_frames(), 2);
	/* Written over frames of the former generation, piece by piece. */
	synth_frame(3, 0, 'c');
	synth_frame(4, 4, 'c');
	for (uint32_t frame = 2; frame < 4; frame++) {
		assert_int_equal(synth_write(frame_at(frame), frame_at(frame) + 24, &txn), 0);
		assert_int_equal(synth_write(frame_at(frame) + 24, frame_at(frame) + 900, &txn), 0);
		assert_int_equal(synth_write(frame_at(frame) + 900, frame_at(frame + 1), &txn),
				 frame == 3);
	}
	assert_int_equal(txn->image_count, 2);
	commit_txn(txn);
	assert_int_equal(committed_frames(), 4);
}

static void new_generation_forgets_the_former_frames_and_leaves_the_file_its_size(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	for (uint8_t i = 0; i < 8; i++)
		synth_frame(i + 1u, 8, 'a');
	assert_int_equal(synth_write(0, frame_at(8), &txn), 1);
	commit_txn(txn);
	synth_header(false, 2);
	assert_int_equal(synth_write(0, 32, &txn), 0);
	assert_int_equal(lseek(s.fd, 0, SEEK_END), frame_at(8));
	assert_int_equal(committed_frames(), 0);
	assert_false(wrep_wal_content_holds(s.c, 1, s.sum.hash[0]));
}

/* The last piece of a page equals what a former generation left there: a recovery would find the
 * transaction before that piece is written, so the piece before it has to wait. */
static void piece_that_is_already_there_does_not_commit_unseen(void **state)
{
	const struct wrep_wal_txn *txn;
	uint64_t middle = frame_at(0) + 24 + 2000;

	(void)state;
	synth_header(false, 2);
	synth_frame(1, 1, 'z');
	assert_int_equal(pwrite(s.fd, s.bytes, 32, 0), 32);
	assert_int_equal(pwrite(s.fd, s.bytes + middle, frame_at(1) - middle, (off_t)middle),
			 (ssize_t)(frame_at(1) - middle));
	assert_int_equal(synth_write(frame_at(0), frame_at(0) + 24, &txn), 0);
	assert_int_equal(synth_write(frame_at(0) + 24, middle, &txn), 1);
	assert_int_equal(synth_write(middle, frame_at(1), &txn), -EBUSY);
	commit_txn(txn);
	/* The rest changes nothing of what is committed. */
	assert_int_equal(synth_write(middle, frame_at(1), &txn), 0);
	assert_int_equal(committed_frames(), 1);
}

/* A write behind the scan position can complete it, too, by the hole that it leaves. */
static void hole_that_completes_a_frame_is_seen(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 1, 0);
	synth_frame(2, 2, 'x');
	assert_int_equal(synth_write(0, 32, &txn), 0);
	assert_int_equal(synth_write(frame_at(0), frame_at(0) + 24, &txn), 0);
	assert_int_equal(wrep_capture_truncate(s.c, frame_at(1)), -EPERM);
	assert_int_equal(synth_write(frame_at(1), frame_at(1) + 24, &txn), 1);
	assert_int_equal(txn->end, frame_at(1));
	wrep_capture_refused(s.c);
	assert_int_equal(synth_write(frame_at(0) + 24, frame_at(1), &txn), 1);
	commit_txn(txn);
	assert_int_equal(committed_frames(), 1);
}

/* After a refusal only the held-back write comes again, in whatever order. */
static void held_back_bytes_written_again_are_held_back_again(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 0, 'a');
	synth_frame(2, 2, 'b');
	assert_int_equal(synth_write(0, 32, &txn), 0);
	/* Headers last, the first of them at the very end. */
	assert_int_equal(synth_write(frame_at(0) + 24, frame_at(1), &txn), 0);
	assert_int_equal(synth_write(frame_at(1), frame_at(2), &txn), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(synth_write(frame_at(0), frame_at(0) + 24, &txn), 1);
		assert_int_equal(txn->image_count, 2);
		wrep_capture_refused(s.c);
		assert_int_equal(committed_frames(), 0);
	}
	wrep_capture_forget(s.c);
	assert_int_equal(synth_write(frame_at(0), frame_at(0) + 24, &txn), 1);
	commit_txn(txn);
	assert_int_equal(committed_frames(), 2);
}

static void writes_below_the_committed_end_are_refused(void **state)
{
	const struct wrep_wal_txn *txn;
	uint8_t other[64];

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 0, 'a');
	synth_frame(2, 2, 'b');
	assert_int_equal(synth_write(0, frame_at(2), &txn), 1);
	commit_txn(txn);
	memset(other, 'q', sizeof(other));
	for (uint64_t off = 0; off < frame_at(2); off += 61)
		assert_int_equal(wrep_capture_write(s.c, other, sizeof(other), off, &txn), -EPERM);
	assert_int_equal(wrep_capture_write(s.c, other, sizeof(other), frame_at(2), &txn), 0);
	/* The same bytes change nothing; half a header of another generation would. */
	assert_int_equal(synth_write(frame_at(0), frame_at(1), &txn), 0);
	assert_int_equal(synth_write(0, 32, &txn), 0);
	synth_header(false, 2);
	assert_int_equal(synth_write(0, 31, &txn), -EPERM);
	assert_int_equal(committed_frames(), 2);
	assert_int_equal(wrep_capture_write(s.c, other, 1, UINT64_MAX, &txn), -EFBIG);
	assert_int_equal(wrep_capture_truncate(s.c, frame_at(2) - 1), -EPERM);
	assert_int_equal(wrep_capture_truncate(s.c, 32), -EPERM);
	assert_int_equal(wrep_capture_truncate(s.c, frame_at(2)), 0);
	assert_int_equal(committed_frames(), 2);
	assert_int_equal(wrep_capture_truncate(s.c, 0), 0);
	assert_int_equal(ftruncate(s.fd, 0), 0);
	assert_int_equal(committed_frames(), 0);
}

static void header_written_in_pieces_starts_a_generation(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(true, 1);
	synth_frame(1, 1, 'a');
	assert_int_equal(synth_write(20, 32, &txn), 0);
	assert_int_equal(synth_write(0, 11, &txn), 0);
	assert_int_equal(synth_write(11, 20, &txn), 0);
	assert_int_equal(synth_write(32, frame_at(1), &txn), 1);
	commit_txn(txn);
	assert_int_equal(committed_frames(), 1);
}

static void invalid_headers_are_ordinary_writes(void **state)
{
	const struct wrep_wal_txn *txn;
	struct wrep_wal_position position;

	(void)state;
	for (uint32_t i = 0; i < 32; i++) {
		synth_header(false, 1);
		synth_frame(1, 1, 'a');
		s.bytes[i] ^= 0x10;
		assert_int_equal(synth_write(0, frame_at(1), &txn), 0);
		assert_int_equal(wrep_wal_content_position(s.c, &position), 0);
		assert_int_equal(position.frame_count, 0);
		assert_int_equal(position.page_size, 0);
	}
}

static void forgetting_reads_what_other_hands_wrote(void **state)
{
	const struct wrep_wal_txn *txn;
	uint64_t hash;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 1, 'a');
	assert_int_equal(synth_write(0, frame_at(1), &txn), 1);
	commit_txn(txn);
	/* Appended in the same generation. */
	synth_frame(2, 2, 'b');
	synth_frame(3, 0, 'b');
	assert_int_equal(pwrite(s.fd, s.bytes, frame_at(3), 0), (ssize_t)frame_at(3));
	wrep_capture_forget(s.c);
	assert_int_equal(committed_frames(), 2);
	hash = wrep_page_hash(2, s.bytes + frame_at(1) + 24, S_PAGE);
	assert_true(wrep_wal_content_holds(s.c, 2, hash));
	assert_false(
		wrep_wal_content_holds(s.c, 3, wrep_page_hash(3, s.bytes + frame_at(2) + 24, S_PAGE)));
	/* Another generation, shorter. */
	synth_header(false, 2);
	synth_frame(1, 1, 'c');
	assert_int_equal(pwrite(s.fd, s.bytes, frame_at(1), 0), (ssize_t)frame_at(1));
	wrep_capture_forget(s.c);
	assert_int_equal(committed_frames(), 1);
	assert_false(wrep_wal_content_holds(s.c, 2, hash));
	/* The same header, but what was committed is gone. */
	s.bytes[frame_at(0) + 30] ^= 1;
	s.bytes[frame_at(0) + 17] ^= 1;
	assert_int_equal(pwrite(s.fd, s.bytes, frame_at(1), 0), (ssize_t)frame_at(1));
	wrep_capture_forget(s.c);
	assert_int_equal(committed_frames(), 0);
	assert_int_equal(ftruncate(s.fd, 0), 0);
	wrep_capture_forget(s.c);
	assert_int_equal(committed_frames(), 0);
}

static void frame_that_comes_again_may_be_padding(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 0, 'a');
	synth_frame(2, 2, 'b');
	assert_int_equal(synth_write(0, frame_at(2), &txn), 1);
	assert_false(txn->repeats);
	commit_txn(txn);
	synth_frame(2, 2, 'b');
	synth_frame(2, 2, 'b');
	for (uint32_t i = 2; i < 4; i++) {
		assert_int_equal(synth_write(frame_at(i), frame_at(i + 1), &txn), 1);
		assert_true(txn->repeats);
		assert_int_equal(txn->image_count, 1);
		commit_txn(txn);
	}
	assert_int_equal(committed_frames(), 4);
	synth_frame(1, 0, 'a'); /* nothing new, but no padding */
	synth_frame(2, 2, 'b');
	assert_int_equal(synth_write(frame_at(4), frame_at(6), &txn), 1);
	assert_false(txn->repeats);
	assert_int_equal(txn->image_count, 2);
	commit_txn(txn);
	synth_frame(2, 3, 'b'); /* the same page, but the database is larger */
	assert_int_equal(synth_write(frame_at(6), frame_at(7), &txn), 1);
	assert_false(txn->repeats);
	assert_int_equal(txn->image_count, 1);
	commit_txn(txn);
	synth_frame(1, 1, 'a'); /* smaller */
	assert_int_equal(synth_write(frame_at(7), frame_at(8), &txn), 1);
	assert_false(txn->repeats);
	commit_txn(txn);
	synth_header(false, 2); /* another generation has no last frame */
	synth_frame(1, 1, 'a');
	assert_int_equal(synth_write(0, frame_at(1), &txn), 1);
	assert_false(txn->repeats);
	commit_txn(txn);
}

static void lock_page_and_pages_beyond_the_end_are_no_images(void **state)
{
	uint32_t lock_page = wrep_lock_page(S_PAGE);
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(lock_page, 0, 'a');
	synth_frame(lock_page + 2, 0, 'b');
	synth_frame(1, lock_page + 1, 'c');
	assert_int_equal(synth_write(0, frame_at(3), &txn), 1);
	assert_int_equal(txn->image_count, 1);
	assert_int_equal(txn->images[0].pgno, 1);
	assert_int_equal(txn->page_count, lock_page + 1);
	commit_txn(txn);
}

static void commit_without_checksums_is_refused(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	for (uint32_t frames = 1; frames < 4; frames++) {
		synth_header(false, (uint8_t)frames);
		assert_int_equal(synth_write(0, 32, &txn), 0);
		for (uint32_t i = 0; i < frames; i++) {
			synth_frame(i + 1, i + 1 == frames ? frames : 0, 'a');
			strip_checksum(i);
			assert_int_equal(synth_write(frame_at(i), frame_at(i) + 24, &txn), 0);
			assert_int_equal(synth_write(frame_at(i) + 24, frame_at(i) + 100, &txn), 0);
			assert_int_equal(synth_write(frame_at(i) + 100, frame_at(i + 1), &txn),
					 i + 1 == frames ? -EBADMSG : 0);
		}
		assert_int_equal(committed_frames(), 0);
	}
}

static void checksums_that_come_after_the_commit_frame_are_awaited(void **state)
{
	static uint8_t whole[sizeof(s.bytes)];
	const struct wrep_wal_txn *txn;

	(void)state;
	/* Twice: over a frame that had a checksum, and over one that had none. */
	for (int stripped = 0; stripped < 2; stripped++) {
		synth_header(false, (uint8_t)(1 + stripped));
		assert_int_equal(synth_write(0, 32, &txn), 0);
		synth_frame(1, 0, 'a');
		if (stripped)
			strip_checksum(0);
		assert_int_equal(synth_write(frame_at(0), frame_at(0) + 24, &txn), 0);
		assert_int_equal(synth_write(frame_at(0) + 24, frame_at(1), &txn), 0);
		synth_header(false, (uint8_t)(1 + stripped));
		synth_frame(1, 0, 'b');
		assert_int_equal(synth_write(frame_at(0) + 24, frame_at(1), &txn), 0);
		synth_frame(2, 0, 'c');
		synth_frame(3, 3, (uint8_t)('d' + stripped));
		memcpy(whole, s.bytes, sizeof(whole));
		for (uint32_t i = 1; i < 3; i++) {
			strip_checksum(i);
			assert_int_equal(synth_write(frame_at(i), frame_at(i) + 24, &txn), 0);
			assert_int_equal(synth_write(frame_at(i) + 24, frame_at(i + 1), &txn), 0);
		}
		memcpy(s.bytes, whole, sizeof(whole));
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(synth_write(frame_at(i), frame_at(i) + 24, &txn), i == 2);
		assert_int_equal(txn->image_count, 3);
		commit_txn(txn);
	}
}

/* What the open transaction has appended; returns the number that tells it from others. */
static uint64_t check_appended(uint32_t expected_first, uint32_t expected_count)
{
	uint32_t first, count, page_size;
	uint64_t attempt = wrep_capture_appended(s.c, &first, &count, &page_size);

	assert_int_equal(first, expected_first);
	assert_int_equal(count, expected_count);
	assert_int_equal(page_size, S_PAGE);
	return attempt;
}

/* As SQLite does: the header, then the page, which the kernel may split. */
static void append_frame(uint32_t frame)
{
	const struct wrep_wal_txn *txn;

	assert_int_equal(synth_write(frame_at(frame), frame_at(frame) + 24, &txn), 0);
	assert_int_equal(synth_write(frame_at(frame) + 24, frame_at(frame) + 999, &txn), 0);
	assert_int_equal(synth_write(frame_at(frame) + 999, frame_at(frame + 1), &txn), 0);
}

static void appended_frames_are_told_from_those_of_another_transaction(void **state)
{
	const struct wrep_wal_txn *txn;
	uint8_t *frames = malloc(2 * S_FRAME);
	uint64_t attempt;

	(void)state;
	synth_header(false, 1);
	assert_int_equal(synth_write(0, 32, &txn), 0);
	for (uint32_t i = 0; i < 6; i++)
		synth_frame(i + 1, 0, (uint8_t)('a' + i));
	attempt = check_appended(0, 0);
	for (uint32_t i = 0; i < 4; i++) {
		append_frame(i);
		assert_int_equal(check_appended(0, i + 1), attempt);
	}
	/* overwritten in place: then checksums come later, and frames count all the same */
	assert_int_equal(synth_write(frame_at(1) + 24, frame_at(2), &txn), 0);
	assert_int_equal(check_appended(0, 4), attempt);
	strip_checksum(4);
	append_frame(4);
	assert_int_equal(check_appended(0, 5), attempt);
	assert_int_equal(wrep_capture_read_frames(s.c, 3, 2, frames), 0);
	assert_memory_equal(frames, s.bytes + frame_at(3), 2 * S_FRAME);
	assert_int_equal(wrep_capture_frame_pgno(s.c, frames), 4);
	assert_int_equal(wrep_capture_frame_pgno(s.c, frames + S_FRAME), 5);
	frames[8] ^= 1; /* of another generation */
	assert_int_equal(wrep_capture_frame_pgno(s.c, frames), 0);
	/* ROLLBACK TO, and other frames behind it */
	append_frame(2);
	assert_int_equal(check_appended(0, 3), attempt);
	append_frame(3);
	assert_int_equal(check_appended(0, 4), attempt);
	/* ROLLBACK, and another transaction */
	append_frame(0);
	assert_int_not_equal(check_appended(0, 1), attempt);
	attempt = check_appended(0, 1);
	/* which commits: the next is behind it */
	synth_header(false, 1);
	synth_frame(1, 0, 'x');
	synth_frame(2, 2, 'y');
	assert_int_equal(synth_write(frame_at(0), frame_at(1), &txn), 0);
	assert_int_equal(synth_write(frame_at(1), frame_at(2), &txn), 1);
	commit_txn(txn);
	assert_int_not_equal(check_appended(2, 0), attempt);
	attempt = check_appended(2, 0);
	synth_frame(3, 0, 'z');
	append_frame(2);
	assert_int_equal(check_appended(2, 1), attempt);
	/* a refused one's frames are no more than what lies there */
	synth_frame(4, 4, 'z');
	assert_int_equal(synth_write(frame_at(3), frame_at(4), &txn), 1);
	wrep_capture_refused(s.c);
	assert_int_not_equal(check_appended(2, 0), attempt);
	/* a gap: nobody knows what is in there */
	assert_int_equal(synth_write(frame_at(3), frame_at(3) + 100, &txn), 0);
	check_appended(2, 0);
	/* a new generation */
	attempt = check_appended(2, 0);
	synth_header(false, 2);
	assert_int_equal(synth_write(0, 32, &txn), 0);
	assert_int_not_equal(check_appended(0, 0), attempt);
	free(frames);
}

/* Frames written in any order, in pieces, some of them more than once: the transaction is complete
 * exactly with the write after which a recovery would find it. */
static void random_order_of_pieces_completes_exactly_once(void **state)
{
	(void)state;
	for (int round = 0; round < 400; round++) {
		const struct wrep_wal_txn *txn = NULL;
		uint8_t missing[sizeof(s.bytes)];
		uint64_t left, end;
		bool done = false;

		random_round(round);
		h.round = round;
		synth_setup(NULL);
		synth_header(random_below(2), (uint8_t)random64());
		end = frame_at(random_below(8) + 1);
		while (frame_at(s.frames + 1) < end)
			synth_frame(random_below(20) + 1, 0, (uint8_t)(1 + random_below(255)));
		synth_frame(random_below(20) + 1, 20, (uint8_t)(1 + random_below(255)));
		/* A byte of content is never 0, so that holes are no content. */
		memset(missing, 1, sizeof(missing));
		check(synth_write(0, 32, &txn) == 0);
		memset(missing, 0, 32);
		left = end - 32;
		for (int step = 0; !done; step++) {
			uint64_t off = 32 + random_below((uint32_t)end - 32);
			uint64_t len = random_below(random_below(2) ? 9000 : 200) + 1;
			uint64_t before = left;
			int rc;

			if (step > 300)
				off = (uint64_t)((uint8_t *)memchr(missing, 1, end) - missing);
			if (len > end - off)
				len = end - off;
			for (uint64_t i = off; i < off + len; i++)
				left -= missing[i];
			/* A hole may by chance be right, where headers hold zeros: count those. */
			rc = synth_write(off, off + len, &txn);
			if (rc == 1) {
				for (uint64_t i = 32; i < end; i++)
					check(!missing[i] || (i >= off && i < off + len) ||
					      s.bytes[i] == 0);
				if (random_below(4) == 0) {
					wrep_capture_refused(s.c);
					left = before;
					continue;
				}
				check(txn->end == end);
				commit_txn(txn);
				done = true;
			} else if (rc == -EBADMSG) {
				/* A commit frame that lacks nothing but its checksum: SQLite writes a
				 * header in one piece, so there it is one that none will come for. */
				for (uint64_t i = frame_at(s.frames - 1) + 16;
				     i < frame_at(s.frames - 1) + 24; i++)
					check(missing[i] && (i < off || i >= off + len));
				left = before;
			} else {
				check(rc == 0 && left > 0);
				memset(missing + off, 0, len);
			}
		}
		check(committed_frames() == s.frames);
		synth_teardown(NULL);
	}
}

#define synth_test(f) cmocka_unit_test_setup_teardown(f, synth_setup, synth_teardown)

/* ---- a writer that is no SQLite; tests/fuzz has more of him ---- */

static void header_that_comes_last_completes_a_transaction(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 0, 'a');
	synth_frame(2, 2, 'b');
	assert_int_equal(synth_write(frame_at(0), frame_at(2), &txn), 0);
	assert_int_equal(synth_write(0, frame_at(0), &txn), 1);
	assert_int_equal(txn->image_count, 2);
	wrep_capture_refused(s.c);
	assert_int_equal(committed_frames(), 0);
	/* in two pieces, and over itself */
	assert_int_equal(synth_write(0, 9, &txn), 0);
	assert_int_equal(synth_write(9, frame_at(0), &txn), 1);
	commit_txn(txn);
	assert_int_equal(committed_frames(), 2);
}

static void same_header_again_leaves_no_frame_out(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 0, 'a');
	synth_frame(2, 2, 'b');
	assert_int_equal(synth_write(0, frame_at(1), &txn), 0);
	assert_int_equal(synth_write(0, frame_at(0), &txn), 0);
	assert_int_equal(synth_write(frame_at(1), frame_at(2), &txn), 1);
	assert_int_equal(txn->image_count, 2);
	commit_txn(txn);
}

static void hole_of_a_refused_write_completes_nothing(void **state)
{
	const struct wrep_wal_txn *txn;
	uint64_t inside = frame_at(1) - 100;
	uint8_t page[S_PAGE];

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 0, 0);
	synth_frame(2, 2, 'b');
	/* The rest of the first page would be in the hole. */
	assert_int_equal(synth_write(0, inside, &txn), 0);
	assert_int_equal(synth_write(frame_at(1), frame_at(2), &txn), 1);
	assert_int_equal(txn->image_count, 2);
	assert_int_equal(wrep_capture_image(s.c, &txn->images[0], page), 0);
	wrep_capture_refused(s.c);
	/* It is not there yet: what completes the frame is looked at, and so is what comes behind it. */
	s.bytes[inside] = 'x';
	assert_int_equal(synth_write(inside, frame_at(1), &txn), 0);
	assert_int_equal(synth_write(frame_at(1), frame_at(2), &txn), 0);
	s.bytes[inside] = 0;
	assert_int_equal(synth_write(inside, frame_at(1), &txn), 1);
	assert_int_equal(txn->image_count, 2);
	commit_txn(txn);
}

static void half_a_write_completes_nothing(void **state)
{
	const struct wrep_wal_txn *txn;

	(void)state;
	synth_header(false, 1);
	synth_frame(1, 1, 'a');
	synth_frame(2, 2, 'b');
	assert_int_equal(synth_write(0, frame_at(1), &txn), 1);
	commit_txn(txn);
	/* All of the second frame is there but its first page's bytes, which come with something that spoils it. */
	assert_int_equal(synth_write(frame_at(1) + 50, frame_at(2), &txn), 0);
	s.bytes[frame_at(1) + 60] ^= 1;
	assert_int_equal(wrep_capture_write(s.c, s.bytes + frame_at(1), 61, frame_at(1), &txn), 0);
	assert_int_equal(pwrite(s.fd, s.bytes + frame_at(1), 50, (off_t)frame_at(1)), 50);
	assert_int_equal(wrep_capture_write_failed(s.c, frame_at(1)), 0);
	assert_int_equal(committed_frames(), 1);
	wrep_capture_forget(s.c);
	assert_int_equal(committed_frames(), 1);
	s.bytes[frame_at(1) + 60] ^= 1;
	assert_int_equal(synth_write(frame_at(1), frame_at(2), &txn), 1);
	commit_txn(txn);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		synth_test(checksums_of_both_byte_orders_are_followed),
		synth_test(one_write_with_several_commits_is_one_transaction),
		synth_test(refused_generation_leaves_the_former_one),
		synth_test(frames_of_a_former_generation_are_no_transaction),
		synth_test(new_generation_forgets_the_former_frames_and_leaves_the_file_its_size),
		synth_test(piece_that_is_already_there_does_not_commit_unseen),
		synth_test(hole_that_completes_a_frame_is_seen),
		synth_test(held_back_bytes_written_again_are_held_back_again),
		synth_test(writes_below_the_committed_end_are_refused),
		synth_test(header_written_in_pieces_starts_a_generation),
		synth_test(invalid_headers_are_ordinary_writes),
		synth_test(forgetting_reads_what_other_hands_wrote),
		synth_test(frame_that_comes_again_may_be_padding),
		synth_test(header_that_comes_last_completes_a_transaction),
		synth_test(same_header_again_leaves_no_frame_out),
		synth_test(hole_of_a_refused_write_completes_nothing),
		synth_test(half_a_write_completes_nothing),
		synth_test(lock_page_and_pages_beyond_the_end_are_no_images),
		synth_test(commit_without_checksums_is_refused),
		synth_test(checksums_that_come_after_the_commit_frame_are_awaited),
		synth_test(appended_frames_are_told_from_those_of_another_transaction),
		cmocka_unit_test(random_order_of_pieces_completes_exactly_once),
		cmocka_unit_test(insert_then_update_after_a_spill_is_one_transaction),
		cmocka_unit_test(padding_is_no_transaction),
		cmocka_unit_test(refused_transaction_never_comes_back),
		cmocka_unit_test(page_size_changed_by_vacuum_is_followed),
		cmocka_unit_test(rollback_to_savepoint_after_a_spill_is_no_silent_loss),
		cmocka_unit_test(random_histories_give_sqlites_own_database),
	};

	return cmocka_run_group_tests_name("walrepl_capture", tests, group_setup, NULL);
}
