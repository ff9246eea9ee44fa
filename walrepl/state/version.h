/* The replicated state of one database, and how the entries of its transactions move it. Private to walrepl.
 *
 * Pure: no thread, no lock, no file. Whoever owns a version guards it (the replica: by the database's lock).
 */
#ifndef WALREPL_STATE_VERSION_H
#define WALREPL_STATE_VERSION_H

#include <stdbool.h>
#include <stdint.h>
#include "pages/pagesum.h"
#include "record/entry.h"
#include "record/manifest.h"
#include "state/parts.h"

/* What becomes of an entry. */
enum wrep_verdict {
	WREP_REFUSED,	   /* every node passes it over */
	WREP_TAKES_EFFECT, /* on every node */
	WREP_PAST, /* as one of these, before: this state was restored with what came of it */
};

struct wrep_version {
	uint64_t version, index; /* of the entry that led to it */
	bool wal_mode;		 /* page 1 says so */
	/* The owner has no page images: checksums and sizes are the entries', and nothing is compared. */
	bool without_sums;
	struct wrep_pagesum sum;
	bool unverified; /* restored, and what the log's tail holds is not all applied again yet */
	struct wrep_parts *parts; /* of the open transaction; owned, or NULL */
};

/* The pages of a transaction, with their hashes. */
struct wrep_pages {
	bool known; /* its originator has filled in the rest when it was captured */
	const struct wrep_page_change *changes;
	struct wrep_page_change *owned; /* to be freed */
	uint32_t count;
	bool sets_wal_mode, wal_mode; /* page 1 is among them */
};

/* What a COMMIT, or one of those of a multi-commit, does to its database. The caller fills in the first four
 * (of `pages`: what is known), state/state.c the rest. */
struct wrep_change {
	struct wrep_entry e;
	struct wrep_version *v;	  /* NULL: there is no such database (any more) */
	bool lost;		  /* its file is not there: it cannot be verified */
	struct wrep_pages pages;  /* `changes` may point into `parts` */
	bool past;		  /* the database has it already: it was restored with it */
	bool holds;		  /* it may take effect, as far as this database goes */
	bool nothing;		  /* it changes nothing but the version */
	struct wrep_parts *parts; /* of the transaction that was open: the caller's, or NULL */
	uint64_t sum;		  /* that its pages lead to */
};

/* A database that the entry at `id` has made. */
void wrep_version_init(struct wrep_version *v, uint64_t id);
/* As a manifest says. `hash`: those of its pages, malloc'd; the version's from then on. 0, or -ENOMEM: then
 * `hash` stays the caller's. */
int wrep_version_restore(struct wrep_version *v, const struct wrep_manifest_db *d, uint64_t *hash);
void wrep_version_clear(struct wrep_version *v);

/* A restored version: do its page hashes add up to its checksum, now that the tail is applied? */
bool wrep_version_verify(struct wrep_version *v);

/* PAGES entry `e`. A verdict, or -ENOMEM. `*given_up`: the transaction that was open until now and has no
 * COMMIT to come, the caller's, or NULL. */
int wrep_version_pages(struct wrep_version *v, const struct wrep_entry *e, uint64_t index,
		       uint64_t term, struct wrep_parts **given_up);
/* DISCARD entry `e`. */
enum wrep_verdict wrep_version_discard(struct wrep_version *v, const struct wrep_entry *e,
				       uint64_t index, struct wrep_parts **given_up);
/* An entry of `term` has come: what is open of an older one has no COMMIT to come. The caller's, or NULL. */
struct wrep_parts *wrep_version_give_up_older(struct wrep_version *v, uint64_t term);
/* The database goes, or its open transaction is decided. The caller's, or NULL. */
struct wrep_parts *wrep_version_take_parts(struct wrep_version *v);

/* ---- the steps of a commit, in this order; state/state.c says when ---- */

/* May it take effect, by this database alone? Fills in `holds` and takes the open transaction. */
void wrep_version_judge(struct wrep_change *c, uint64_t term);
/* Its pages, and the checksum that they lead to. 0, -ENOMEM, -EBADMSG. */
int wrep_version_preview(struct wrep_change *c);
/* 0, or -ENOMEM: then nothing has changed. */
int wrep_version_take_effect(struct wrep_change *c, uint64_t index);
/* Does it concern this database, that is there and does not have it yet? */
bool wrep_change_concerns(const struct wrep_change *c);
void wrep_change_clear(struct wrep_change *c); /* not `parts`: these are the caller's */

#endif
