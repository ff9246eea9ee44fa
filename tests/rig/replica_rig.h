/* A whole replica, applier and all, with the test in the place of raftlog and of fusefs.
 *
 * The linker's --wrap brings the replica's calls of raftlog here (the list is in tests/unit/meson.build). What it
 * submits lies in a queue until the test delivers it, or lets it fail, or delivers instead what another node
 * might have submitted. The test's thread is raftlog's. */
#ifndef REPLICA_RIG_H
#define REPLICA_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/types.h>
#include "base/work.h"
#include "base/wrep.h"
#include "record/entry.h"

#define PAGE 4096u
#define ROOM 64u

extern struct wrep *w;
extern char replica_dir[];	      /* the data directory's path */
extern int dir_fd, state_fd, shm_fd;  /* the data directory; for the state; for -shm */
extern char failure[1024];	      /* what the replica could not go on for */
extern char last_error[1024];	      /* the last line that it logged as an error */

/* ---- in the place of raftlog ------------------------------------------------------------------- */

extern struct rlog_callbacks cb;
extern void *cb_ctx;
/* Submitted, in order; those before `taken` have been dealt with. */
extern struct rlog_request *submitted[ROOM];
extern unsigned submitted_count, taken;
/* Of the last entry that was delivered, and of the next. */
extern uint64_t index_now, term_now;
/* What the log begins with; NULL: nothing. */
extern struct rlog_buf *restored;
extern uint64_t restored_index, restored_last;
extern bool only_voter;		  /* no other node */
extern struct rlog_buf *snapshot; /* the last one that it took */

unsigned waiting(void);
struct rlog_request *take(void);
void end(struct rlog_request *req, enum rlog_outcome outcome);
/* What raftlog's apply() returned: -EAGAIN is tried again by the other. */
int deliver_once(struct rlog_buf *buf, struct rlog_request *req);
void deliver_buf(struct rlog_buf *buf, struct rlog_request *req);
/* Deliver the next of what was submitted, to its originator or (`known` false) as one whose request
 * has ended. Returns what it was. */
enum wrep_entry_type deliver(bool known);
/* It becomes the leader, and may write. */
void lead(void);
/* Another node makes a database: its id. */
uint64_t foreign_database(const char *name);

/* ---- in the place of fusefs -------------------------------------------------------------------- */

/* Who holds every lock; 0: the application here takes no locks, and is alone. */
extern pid_t locker;

/* An operation that somebody waits for. */
struct op {
	struct wrep_op op;
	_Atomic int result; /* 1: not ended */
};

void op_done(struct wrep_op *op, int result);
int wait_op(struct op *o);
/* The application of the node that leads makes a database. */
struct wrep_file *make_database(const char *name);
void close_database(struct wrep_file *f);
/* A page as the tests write them: by its number and one byte. */
void fill_page(uint8_t *page, uint32_t pgno, uint8_t content);
/* The database's file holds so many of them. */
void expect_content(const char *name, uint32_t pages, uint8_t content);

/* ---- its life ------------------------------------------------------------------------------------- */

/* On what is in the directories. */
void start(void);
/* A new one, caught up with an empty log. */
int setup(void **state);
int teardown(void **state);
void wipe_state(void);
/* Runs the tests between making the directories and removing them: main()'s result. */
int replica_run(const char *name, const struct CMUnitTest *tests, size_t count);

#endif
