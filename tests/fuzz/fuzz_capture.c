/* A hostile writer of a -wal against the capture.
 *
 * An input is a program for the writer. It lays out logs in memory that are valid from end to end (plans), and
 * puts any pieces of them, in any order, cut anywhere, through the capture: the header last, frames in front of
 * it, a frame far behind the end, one over another. It cuts and lengthens the file, and its writes fail half-way.
 * What the capture holds back is agreed on or refused, as the input says.
 *
 * The oracle reads the backing file after each step, by its own reading of SQLite's file format (section 4),
 * with no line of the capture's: a recovery finds exactly the frames that were agreed on, byte by byte; and when
 * a transaction is agreed on, it is made of the pages that the frames it adds hold.
 *
 * With libFuzzer: ninja -C build tests/fuzz/fuzz_capture; build/tests/fuzz/fuzz_capture -max_total_time=60.
 * Without: tests/unit/test_walrepl_capture_hostile.c runs inputs from a seed, and those in there that once came through.
 */
#include "fuzz_capture.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "pages/capture.h"
#include "pages/wal_content.h"

#define FRAMES 12u
#define PAGES 6u /* page numbers */
#define LOG_BYTES (32u + FRAMES * (24u + 1024u))
#define FILE_BYTES (4u * LOG_BYTES)
#define PLANS 3u
#define STEPS 200u

/* ---- the oracle's reading of a log ----------------------------------------------------------------- */

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Words are big-endian here whatever the magic number says, or little-endian. */
static void add_up(bool big, const uint8_t *p, size_t len, uint32_t s[2])
{
	for (size_t i = 0; i < len; i += 8) {
		uint32_t x[2] = {be32(p + i), be32(p + i + 4)};

		for (int k = 0; k < 2; k++)
			if (!big)
				x[k] = __builtin_bswap32(x[k]);
		s[0] += x[0] + s[1];
		s[1] += x[1] + s[0];
	}
}

struct log {
	uint32_t page_size; /* 0: no valid header */
	uint32_t frames;    /* up to and with the last commit frame */
	size_t bytes;	    /* and so long is what counts; 0 without a commit frame */
};

static struct log recover(const uint8_t *file, size_t len)
{
	struct log log = {0};
	uint32_t s[2] = {0, 0};
	size_t at = 32;
	bool big;

	if (len < 32 || (be32(file) & ~1u) != 0x377f0682 || be32(file + 4) != 3007000)
		return log;
	big = be32(file) & 1;
	add_up(big, file, 24, s);
	if (s[0] != be32(file + 24) || s[1] != be32(file + 28))
		return log;
	log.page_size = be32(file + 8);
	for (uint32_t n = 1; at + 24 + log.page_size <= len; n++) {
		const uint8_t *frame = file + at;

		if (be32(frame) == 0 || memcmp(frame + 8, file + 16, 8) != 0)
			break;
		add_up(big, frame, 8, s);
		add_up(big, frame + 24, log.page_size, s);
		if (s[0] != be32(frame + 16) || s[1] != be32(frame + 20))
			break;
		at += 24 + log.page_size;
		if (be32(frame + 4) != 0) {
			log.frames = n;
			log.bytes = at;
		}
	}
	return log;
}

/* ---- the state ----------------------------------------------------------------------------------- */

struct plan {
	uint8_t bytes[LOG_BYTES];
	uint32_t page_size, frames;
};

struct run {
	const uint8_t *input;
	size_t left;
	int fd;
	struct wrep_capture *capture;
	struct plan plans[PLANS];
	/* What was agreed on. */
	uint8_t agreed[FILE_BYTES];
	struct log agreed_log;
	uint8_t file[FILE_BYTES];
	size_t file_len;
};

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "hostile writer: %s\n", what);
	abort();
}

static void must(bool holds, const char *what)
{
	if (!holds)
		fail(what);
}

static uint32_t next(struct run *r)
{
	if (!r->left)
		return 0;
	r->left--;
	return *r->input++;
}

static struct log read_file(struct run *r)
{
	ssize_t n = pread(r->fd, r->file, sizeof(r->file), 0);

	must(n >= 0, "the file cannot be read");
	r->file_len = (size_t)n;
	return recover(r->file, r->file_len);
}

static void check(struct run *r, const char *after)
{
	struct log now = read_file(r);

	if (now.frames != r->agreed_log.frames || now.bytes != r->agreed_log.bytes ||
	    memcmp(r->file, r->agreed, now.bytes) != 0) {
		fprintf(stderr, "%u frames agreed on, %u found\n", r->agreed_log.frames,
			now.frames);
		fail(after);
	}
}

/* The log begins anew: nothing in it counts. */
static void agree_on_nothing(struct run *r)
{
	r->agreed_log = (struct log){0};
}

/* ---- plans ----------------------------------------------------------------------------------------- */

static size_t frame_at(const struct plan *p, uint32_t frame)
{
	return 32 + frame * (size_t)(24 + p->page_size);
}

/* The frames from `first` on, chained to those before. Pages are of one byte, often zeros: then a hole makes
 * them whole. */
static void lay_frames(struct run *r, struct plan *p, uint32_t first)
{
	uint32_t s[2] = {be32(p->bytes + 24), be32(p->bytes + 28)};
	bool big = be32(p->bytes) & 1;

	if (first > 0) {
		s[0] = be32(p->bytes + frame_at(p, first - 1) + 16);
		s[1] = be32(p->bytes + frame_at(p, first - 1) + 20);
	}
	for (uint32_t i = first; i < p->frames; i++) {
		uint8_t *frame = p->bytes + frame_at(p, i);
		uint32_t kind = next(r);

		put32(frame, 1 + kind % PAGES);
		put32(frame + 4, kind & 64 ? 1 + kind / 8 % 8 : 0);
		memcpy(frame + 8, p->bytes + 16, 8);
		memset(frame + 24, kind & 128 ? (int)(kind % 7) : 0, p->page_size);
		add_up(big, frame, 8, s);
		add_up(big, frame + 24, p->page_size, s);
		put32(frame + 16, s[0]);
		put32(frame + 20, s[1]);
	}
}

static void lay_plan(struct run *r, struct plan *p)
{
	uint32_t kind = next(r), s[2] = {0, 0};

	p->page_size = kind & 16 ? 1024 : 512;
	p->frames = 1 + kind % FRAMES;
	memset(p->bytes, 0, sizeof(p->bytes));
	put32(p->bytes, 0x377f0682 | (kind >> 5 & 1));
	put32(p->bytes + 4, 3007000);
	put32(p->bytes + 8, p->page_size);
	put32(p->bytes + 16, kind >> 6); /* few salts, so that frames of one log fit another */
	add_up(kind >> 5 & 1, p->bytes, 24, s);
	put32(p->bytes + 24, s[0]);
	put32(p->bytes + 28, s[1]);
	lay_frames(r, p, 0);
}

/* Another end of the log that `from` is. */
static void fork_plan(struct run *r, struct plan *p, const struct plan *from)
{
	uint32_t keep = next(r) % (from->frames + 1);

	*p = *from;
	p->frames = keep + 1 + next(r) % FRAMES;
	if (p->frames > FRAMES)
		p->frames = FRAMES;
	lay_frames(r, p, keep < p->frames ? keep : p->frames);
}

/* A place in a log: the beginning of a frame, or of its page, or near it. */
static size_t place(struct run *r, const struct plan *p)
{
	uint32_t where = next(r), near = next(r);
	size_t at = where % (FRAMES + 2) == 0 ? 0 : frame_at(p, where % (FRAMES + 2) - 1);

	if (where & 64)
		at += 24;
	if (where & 128)
		at += near;
	return at < LOG_BYTES ? at : LOG_BYTES;
}

/* ---- steps ------------------------------------------------------------------------------------------- */

static void put(struct run *r, const uint8_t *bytes, size_t len, uint64_t off)
{
	must(pwrite(r->fd, bytes, len, (off_t)off) == (ssize_t)len, "the file cannot be written");
}

struct image {
	uint32_t pgno;
	uint64_t hash;
};

/* What a transaction says of its pages must be what the frames that it adds hold. */
static void check_images(struct run *r, const struct log *former, const struct log *now,
			 const struct image *images, uint32_t count, uint32_t page_count)
{
	size_t frame_bytes = 24 + now->page_size;
	uint32_t found = 0;

	must(be32(r->file + now->bytes - frame_bytes + 4) == page_count, "another size");
	for (uint32_t pgno = 1; pgno <= page_count; pgno++) {
		const uint8_t *page = NULL;

		for (uint32_t i = former->frames; i < now->frames; i++)
			if (be32(r->file + 32 + i * frame_bytes) == pgno)
				page = r->file + 32 + i * frame_bytes + 24;
		if (!page)
			continue;
		must(found < count && images[found].pgno == pgno, "another set of pages");
		must(images[found].hash == wrep_page_hash(pgno, page, now->page_size),
		     "another content of a page");
		found++;
	}
	must(found == count, "pages that no frame holds");
}

static void decide(struct run *r, const struct wrep_wal_txn *txn, bool restart)
{
	struct image images[FRAMES * 4];
	uint32_t count = txn->image_count, page_count = txn->page_count;
	uint32_t page_size = txn->page_size;
	struct log former = restart ? (struct log){0} : r->agreed_log, now;
	uint8_t page[65536];

	check(r, "what is held back is in the file");
	must(count <= FRAMES * 4, "too many pages");
	for (uint32_t i = 0; i < count; i++) {
		images[i] = (struct image){txn->images[i].pgno, txn->images[i].hash};
		must(wrep_capture_image(r->capture, &txn->images[i], page) == 0,
		     "a page of the transaction cannot be read");
		must(wrep_page_hash(images[i].pgno, page, page_size) == images[i].hash,
		     "a page is read other than it was judged");
	}
	if (next(r) % 3 == 0) {
		wrep_capture_refused(r->capture);
		check(r, "what was refused is in the file");
		return;
	}
	must(wrep_capture_committed(r->capture) == 0, "what was agreed on cannot be written");
	now = read_file(r);
	must(now.frames > former.frames && now.page_size == page_size, "it is not in the file");
	check_images(r, &former, &now, images, count, page_count);
	r->agreed_log = now;
	memcpy(r->agreed, r->file, now.bytes);
}

static void write_piece(struct run *r, const uint8_t *bytes, size_t len, uint64_t off)
{
	const struct wrep_wal_txn *txn = NULL;
	/* A whole header in the place of another. */
	bool restart = r->agreed_log.frames > 0 && off == 0 && len >= 32 &&
		       memcmp(bytes, r->agreed, 32) != 0;
	int rc;

	rc = wrep_capture_write(r->capture, bytes, len, off, &txn);
	if (rc == 1) {
		decide(r, txn, restart);
		return;
	}
	if (rc < 0) {
		check(r, "a write that was refused did something");
		return;
	}
	if (next(r) % 8 == 7) { /* the disk is full */
		size_t part = next(r) * len / 256;
		uint8_t now[32];

		put(r, bytes, part, off);
		must(wrep_capture_write_failed(r->capture, off) == 0,
		     "what is half written cannot be taken back");
		if (restart && (pread(r->fd, now, 32, 0) != 32 || memcmp(now, r->agreed, 32) != 0))
			agree_on_nothing(r);
		check(r, "half a write completes a transaction");
		return;
	}
	put(r, bytes, len, off);
	if (restart)
		agree_on_nothing(r);
	check(r, "a write that was let through completes a transaction");
}

/* The kernel cuts writes at any place. */
static void write_all(struct run *r, const uint8_t *bytes, size_t len, uint64_t off)
{
	uint32_t parts = 1 + next(r) % 3;

	while (len > 0) {
		size_t piece = parts-- > 1 ? 1 + next(r) * len / 300 : len;

		if (piece > len)
			piece = len;
		write_piece(r, bytes, piece, off);
		bytes += piece;
		len -= piece;
		off += piece;
	}
}

static void truncate_file(struct run *r, uint64_t size)
{
	int rc = wrep_capture_truncate(r->capture, size);

	if (rc == 0) {
		must(ftruncate(r->fd, (off_t)size) == 0, "the file cannot be cut");
		if (size < 32)
			agree_on_nothing(r);
	}
	check(r, "a truncation completes a transaction");
}

static void step(struct run *r)
{
	uint32_t what = next(r);
	struct plan *p = &r->plans[what / 16 % PLANS];
	uint8_t junk[600];
	size_t from, to;

	switch (what % 16) {
	case 0:
		lay_plan(r, p);
		break;
	case 1:
		fork_plan(r, p, &r->plans[next(r) % PLANS]);
		break;
	case 2:
		wrep_capture_forget(r->capture);
		check(r, "looking again did something");
		break;
	case 3:
		truncate_file(r, what & 64 ? 0 : place(r, p));
		break;
	case 4: /* anything, anywhere */
		memset(junk, (int)next(r), sizeof(junk));
		write_all(r, junk, 1 + next(r) * 2, place(r, p));
		break;
	case 5: /* a piece of one log in another place */
		from = place(r, p);
		to = place(r, p);
		if (from + 24 + p->page_size <= LOG_BYTES)
			write_all(r, p->bytes + from, 24 + p->page_size, to);
		break;
	case 6:
		write_all(r, p->bytes, 32, 0);
		break;
	default:
		from = place(r, p);
		to = place(r, p);
		if (from < to)
			write_all(r, p->bytes + from, to - from, from);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t len)
{
	struct run *r = calloc(1, sizeof(*r));
	struct wrep_wal_position at;

	must(r != NULL, "no memory");
	r->input = input;
	r->left = len;
	r->fd = memfd_create("wal", MFD_CLOEXEC);
	must(r->fd >= 0, "no file");
	must(wrep_capture_open(&r->capture, r->fd) == 0, "no capture");
	for (uint32_t i = 0; i < PLANS; i++)
		lay_plan(r, &r->plans[i]);
	for (uint32_t i = 0; i < STEPS && r->left > 0; i++) {
		step(r);
		must(wrep_wal_content_position(r->capture, &at) == 0, "no position");
		must(at.frame_count == r->agreed_log.frames, "another position");
	}
	wrep_capture_close(r->capture);
	close(r->fd);
	free(r);
	return 0;
}
