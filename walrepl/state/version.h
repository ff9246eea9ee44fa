/* The replicated state of one database. Private to walrepl. */
#ifndef WALREPL_STATE_VERSION_H
#define WALREPL_STATE_VERSION_H

#include <stdbool.h>
#include <stdint.h>
#include "pages/pagesum.h"
#include "state/parts.h"

struct wrep_version {
	uint64_t version, index; /* of the entry that led to it */
	bool wal_mode;		 /* page 1 says so */
	struct wrep_pagesum sum;
	bool unverified; /* restored, and what the log's tail holds is not all applied again yet */
	struct wrep_parts *parts; /* of the open transaction; a reference, or NULL */
};

#endif
