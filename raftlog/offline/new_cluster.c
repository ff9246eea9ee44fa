/* A new cluster from the log of one survivor, when the others are lost for good.
 *
 * What makes it a new cluster is its id: it stands in `meta`, in every segment's header, in the snapshot
 * and in each greeting between nodes, so that nobody who was not there takes part by mistake: neither a
 * former member that comes back with its old log nor a segment of the old log. Also the new log has an
 * epoch of its own, so no record of the old one is a record in it. All of that means writing the log
 * again; it is as long as --log-size makes it.
 *
 * The new log, in the good case:
 *
 *   meta       the term one above the old one, the vote in it for this node
 *   snapshot   the old one's, with the new id; its membership is the old one, which does not matter:
 *              the newest in the log counts
 *   entries    those behind the snapshot, with the same index and term each, since versions of databases
 *              and the durable state of the owner are counted by them; then, in the new term, a
 *              membership of this node alone
 *
 * Why that is right for Raft. It is a log that a leader of the new term, elected by a majority that the
 * survivor stands for, would have after its first entry. A start finds the node to be the only voter,
 * so it leads at once, in a term of its own, and commits all of it with its first barrier. Entries that
 * the old cluster had not committed are thereby committed; those that it had are all there only if the
 * survivor had them all, which is why the one with the highest (term, index) at its end is to be chosen.
 *
 * The steps, with DIR the log. What a crash leaves behind each of them is told by looking whose cluster's
 * the logs under the names are:
 *
 *   prepare   DIR.refound is made, whole and durable      DIR: old           (the owner has noted nothing)
 *   the owner notes the new id durably: from here on the old log must not be opened
 *   finish    DIR -> DIR.old                              DIR: none, DIR.refound: new
 *             DIR.refound -> DIR                          DIR: new
 *             DIR.old is removed                          DIR: new
 *
 * The new id is drawn at random, so that a DIR.refound of an attempt that was given up never passes for
 * that of this one. */
#include "offline/new_cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/address.h"
#include "base/configuration.h"
#include "log/compact.h"
#include "log/meta.h"
#include "log/open.h"
#include "log/read.h"
#include "log/scan.h"
#include "log/snapshot.h"
#include "offline/create.h"

#define ASIDE ".refound"
#define OLD ".old"
#define COPY_BYTES (4u << 20) /* between flushes */

/* ---- from log to log -------------------------------------------------------------------------- */

static int failed(char errmsg[RLOG_ERRMSG_SIZE], int err, const char *what)
{
	snprintf(errmsg, RLOG_ERRMSG_SIZE, "cannot %s: %s%s", what, strerror(-err),
		 err == -ENOSPC ? " (free as much as the raft log takes)" : "");
	return err;
}

static int copy_snapshot(struct rlog_log *from, struct rlog_disk *to, uint64_t cluster_id)
{
	const struct rlog_snapshot *s = rlog_log_snapshot(from);
	struct rlog_buf *image;
	int err;

	if (!s)
		return 0;
	image = rlog_snapshot_encode(cluster_id, s);
	err = image ? rlog_snapshot_store(to, image) : -ENOMEM;
	rlog_buf_unref(image);
	return err;
}

static int flush(struct rlog_log *to)
{
	int err = rlog_log_flush(to);

	if (err == 0)
		rlog_log_applied(to, rlog_log_durable(to)); /* memory for a few of them */
	return err;
}

/* Entries of `from` behind its snapshot, then `last`. */
static int copy_entries(struct rlog_log *from, struct rlog_log *to, const struct rlog_record *last,
			char errmsg[RLOG_ERRMSG_SIZE])
{
	size_t staged = 0;
	int err = 0;

	for (uint64_t i = rlog_log_last(to) + 1; err == 0 && i < last->index; i++) {
		struct rlog_record r;

		err = rlog_log_read(from, i, &r);
		if (err < 0)
			return failed(errmsg, err, "read the raft log");
		staged += r.buf->len;
		err = rlog_log_append(to, &r, 1);
		rlog_buf_unref(r.buf);
		if (err == 0 && staged >= COPY_BYTES) {
			staged = 0;
			err = flush(to);
		}
	}
	if (err == 0)
		err = rlog_log_append(to, last, 1);
	if (err == 0)
		err = flush(to);
	return err < 0 ? failed(errmsg, err, "write the new raft log") : 0;
}

static int copy_log(struct rlog_log *from, struct rlog_disk *to,
		    const struct rlog_new_cluster_options *opt, char errmsg[RLOG_ERRMSG_SIZE])
{
	const struct rlog_log_options options = {.cluster_id = opt->new_cluster_id,
						 .node_id = opt->id,
						 .segment_bytes = opt->segment_bytes,
						 .format_reads = opt->format_reads,
						 .format_needed = rlog_log_format(from)};
	const struct rlog_snapshot *snapshot = rlog_log_snapshot(from);
	struct rlog_record last = {.index = rlog_log_last(from) + 1, .type = RAFT_CHANGE};
	struct rlog_log_begin begin;
	struct rlog_log *log;
	uint64_t term, vote;
	int err;

	if (last.index == 1) {
		snprintf(errmsg, RLOG_ERRMSG_SIZE,
			 "the raft log holds nothing: this node had not got anything from its "
			 "cluster");
		return -ENODATA;
	}
	rlog_log_meta(from, &term, &vote);
	last.term = term + 1;
	last.buf = rlog_configuration_alone(opt->id, opt->address);
	if (!last.buf)
		return failed(errmsg, -ENOMEM, "make a membership");
	begin = (struct rlog_log_begin){snapshot ? snapshot->index + 1 : 1, last.term, opt->id};
	err = rlog_log_create_at(to, &options, &begin, errmsg);
	if (err == 0) {
		err = copy_snapshot(from, to, opt->new_cluster_id);
		if (err < 0)
			failed(errmsg, err, "write the new snapshot");
	}
	if (err == 0)
		err = rlog_log_open(&log, to, &options, errmsg);
	if (err == 0) {
		err = copy_entries(from, log, &last, errmsg);
		rlog_log_close(log);
	}
	rlog_buf_unref(last.buf);
	return err;
}

int rlog_new_cluster_copy(struct rlog_disk *from, struct rlog_disk *to,
			  const struct rlog_new_cluster_options *opt, char errmsg[RLOG_ERRMSG_SIZE])
{
	const struct rlog_log_options options = {.cluster_id = opt->cluster_id,
						 .node_id = opt->id,
						 .format_reads = opt->format_reads};
	struct rlog_log *log;
	int err;

	if (strlen(opt->address) >= RLOG_ADDRESS_MAX)
		return failed(errmsg, -ENAMETOOLONG, "use the node's address");
	err = rlog_log_open(&log, from, &options, errmsg);
	if (err < 0)
		return err;
	err = copy_log(log, to, opt, errmsg);
	rlog_log_close(log);
	if (err == 0) {
		err = to->sync_dir(to);
		if (err < 0)
			failed(errmsg, err, "sync the new raft log");
	}
	return err;
}

/* ---- directories -------------------------------------------------------------------------------- */

struct names {
	const char *dir;
	char aside[4096], old[4096];
};

static int names_of(const char *dir, struct names *n, char errmsg[RLOG_ERRMSG_SIZE])
{
	n->dir = dir;
	if (snprintf(n->aside, sizeof(n->aside), "%s" ASIDE, dir) >= (int)sizeof(n->aside) ||
	    snprintf(n->old, sizeof(n->old), "%s" OLD, dir) >= (int)sizeof(n->old))
		return failed(errmsg, -ENAMETOOLONG, "use the raft log's directory");
	return 0;
}

static int prepare(const struct names *n, const struct rlog_new_cluster_options *opt,
		   char errmsg[RLOG_ERRMSG_SIZE])
{
	struct rlog_disk *from, *to;
	int err = rlog_disk_open(&from, n->dir);

	if (err < 0)
		return failed(errmsg, err, "open the raft log");
	err = mkdir(n->aside, 0700) ? -errno : rlog_disk_open(&to, n->aside);
	if (err < 0) {
		failed(errmsg, err, "make the new raft log");
	} else {
		err = rlog_new_cluster_copy(from, to, opt, errmsg);
		rlog_disk_close(to);
	}
	rlog_disk_close(from);
	return err;
}

int rlog_new_cluster_prepare(const char *dir, const struct rlog_new_cluster_options *opt,
			     char errmsg[RLOG_ERRMSG_SIZE])
{
	struct names n;
	int err = names_of(dir, &n, errmsg);

	if (err < 0)
		return err;
	err = rlog_directory_remove(n.aside);
	if (err == 0)
		err = rlog_directory_remove(n.old);
	if (err < 0)
		return failed(errmsg, err, "remove what an earlier attempt left");
	err = prepare(&n, opt, errmsg);
	if (err == 0) {
		err = rlog_directory_sync_parent(dir);
		if (err < 0)
			failed(errmsg, err, "sync the new raft log");
	}
	if (err < 0)
		rlog_directory_remove(n.aside);
	return err;
}

/* Is the log at `path` of that cluster? A log that cannot be read is of none. */
static bool is_of(const char *path, uint64_t cluster_id)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	struct rlog_disk *disk;
	struct rlog_meta m;
	int bad_slots, handle;

	if (rlog_disk_open_read_only(&disk, path) < 0)
		return false;
	handle = rlog_meta_open(disk, &m, &bad_slots, errmsg);
	if (handle >= 0)
		disk->close(disk, handle);
	rlog_disk_close(disk);
	return handle >= 0 && m.cluster_id == cluster_id;
}

static int swap(const struct names *n)
{
	int err;

	if (rename(n->dir, n->old) && errno != ENOENT)
		return -errno;
	/* In this order also on disk: the second would fail where the first had not happened. */
	err = rlog_directory_sync_parent(n->dir);
	if (err == 0 && rename(n->aside, n->dir))
		err = -errno;
	return err ? err : rlog_directory_sync_parent(n->dir);
}

int rlog_new_cluster_finish(const char *dir, uint64_t new_cluster_id, char errmsg[RLOG_ERRMSG_SIZE])
{
	struct names n;
	int err = names_of(dir, &n, errmsg);

	if (err < 0)
		return err;
	if (!is_of(dir, new_cluster_id)) {
		if (!is_of(n.aside, new_cluster_id)) {
			snprintf(errmsg, RLOG_ERRMSG_SIZE,
				 "the new raft log is gone or damaged: bring the data directory "
				 "back from a backup, or recover another survivor");
			return -ENOENT;
		}
		err = swap(&n);
		if (err < 0)
			return failed(errmsg, err, "put the new raft log in its place");
	}
	err = rlog_directory_remove(n.old);
	if (err == 0)
		err = rlog_directory_sync_parent(dir);
	return err < 0 ? failed(errmsg, err, "remove the old raft log") : 0;
}

int rlog_new_cluster_forget(const char *dir)
{
	char errmsg[RLOG_ERRMSG_SIZE];
	struct names n;
	int err = names_of(dir, &n, errmsg);

	return err < 0 ? err : rlog_directory_remove(n.aside);
}
