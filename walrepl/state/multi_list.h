/* Which multi-commits took effect, as far as a restart must know. Private to walrepl. */
#ifndef WALREPL_STATE_MULTI_LIST_H
#define WALREPL_STATE_MULTI_LIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "record/manifest.h"

/* Zeroed: empty. One thread at a time. */
struct wrep_multi_list {
	uint64_t
		judged_until; /* the manifest says of those up to this entry whether they took effect */
	size_t count, room;
	uint64_t *indices; /* of those behind the snapshot that did, ascending */
};

void wrep_multi_list_clear(struct wrep_multi_list *l);
/* The one at `index` took effect; maybe once more. 0 or -ENOMEM. */
int wrep_multi_list_add(struct wrep_multi_list *l, uint64_t index);
/* Did the one at `index`, which is not above judged_until, take effect? */
bool wrep_multi_list_has(const struct wrep_multi_list *l, uint64_t index);
/* The snapshot is at `index` now: those before it need not be known any more. */
void wrep_multi_list_forget(struct wrep_multi_list *l, uint64_t index);
/* What a manifest says, in place of what is in there. 0 or -ENOMEM. */
int wrep_multi_list_adopt(struct wrep_multi_list *l, const struct wrep_manifest *m);
/* And the other way round: everything up to `delivered` is judged. 0 or -ENOMEM. */
int wrep_multi_list_note(const struct wrep_multi_list *l, uint64_t delivered,
			 struct wrep_manifest *m);

#endif
