/* A network in memory: one connection per ordered pair of nodes, as raftlog's, that keeps its order,
 * and otherwise delays, breaks and splits as the seed says. What was on its way when a connection
 * broke is lost. Messages travel as the bytes of the wire. */
#ifndef SIMNET_H
#define SIMNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_NODES_MAX 5

/* The one source of chance. */
struct sim_random {
	uint64_t state;
};
uint64_t sim_random(struct sim_random *r);
uint64_t sim_below(struct sim_random *r, uint64_t limit); /* [0, limit) */
bool sim_chance(struct sim_random *r, unsigned percent);

struct simnet;

struct simnet *simnet_new(struct sim_random *random, unsigned node_count);
void simnet_free(struct simnet *net);

/* Rounds pass; connections come back. */
void simnet_advance(struct simnet *net, uint64_t round);
/* How much may be queued; negative without a connection. */
int64_t simnet_room(struct simnet *net, unsigned from, unsigned to);
void simnet_send(struct simnet *net, unsigned from, unsigned to, const void *bytes, size_t len);
/* The next message that has arrived at `to`, from any connection, or NULL; the caller frees it. */
uint8_t *simnet_receive(struct simnet *net, unsigned to, unsigned *from, size_t *len);

void simnet_break(struct simnet *net, unsigned from, unsigned to);
void simnet_node_down(struct simnet *net, unsigned node, bool down);
/* Only nodes whose bit in `side` is equal hear each other; one way only if `one_way`. 0 heals. */
void simnet_split(struct simnet *net, unsigned side, bool one_way);
void simnet_slow(struct simnet *net, unsigned max_delay);

#endif
