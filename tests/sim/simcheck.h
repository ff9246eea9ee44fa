/* What must hold in every run. One history for the whole cluster; every node's doings are compared
 * with it. The first thing that does not hold is kept, in words. */
#ifndef SIMCHECK_H
#define SIMCHECK_H

#include <stdbool.h>
#include <stdint.h>

struct simcheck;

/* What became of a submission, as its node was told. */
enum sim_told { SIM_NOTHING, SIM_COMMITTED, SIM_REFUSED, SIM_UNKNOWN };

struct simcheck *simcheck_new(void);
void simcheck_free(struct simcheck *c);
const char *simcheck_failure(const struct simcheck *c); /* NULL: none */
void simcheck_fail(struct simcheck *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Node `node` says that it leads `term`. */
void simcheck_leads(struct simcheck *c, uint64_t term, unsigned node);
/* A new submission; returns its number, from 1 on. */
uint64_t simcheck_submitted(struct simcheck *c);
void simcheck_told(struct simcheck *c, uint64_t submission, enum sim_told told);
/* A node, whose last entry was `after`, applies the entry (index, term) that carries `submission`. */
void simcheck_applied(struct simcheck *c, unsigned node, uint64_t after, uint64_t index,
		      uint64_t term, uint64_t submission);
/* A hash over all that was applied up to `index`, 0 for nothing, and the next one of such. */
uint64_t simcheck_chain(const struct simcheck *c, uint64_t index);
uint64_t simcheck_link(uint64_t chain, uint64_t index, uint64_t submission);
/* What a node's state is behind everything up to `index`: the same as any other's. */
void simcheck_state(struct simcheck *c, unsigned node, uint64_t index, uint64_t state);
uint64_t simcheck_last(const struct simcheck *c); /* the highest index applied anywhere */
void simcheck_counts(const struct simcheck *c, uint64_t counts[4]); /* by enum sim_told */

#endif
