/* See simnet.h. A connection is a queue of messages with an arrival round that never falls. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "simnet.h"

#define ROOM (1 << 20)

struct packet {
	struct packet *next;
	uint64_t round;
	size_t len;
	uint8_t bytes[];
};

struct connection {
	bool up;
	uint64_t up_round; /* when it comes back */
	uint64_t last_round;
	size_t queued;
	struct packet *head, **tail;
};

struct simnet {
	struct sim_random *random;
	unsigned count, side, max_delay;
	bool one_way;
	bool down[SIM_NODES_MAX];
	uint64_t round;
	struct connection connections[SIM_NODES_MAX][SIM_NODES_MAX];
};

/* splitmix64, by Sebastiano Vigna (public domain). */
uint64_t sim_random(struct sim_random *r)
{
	uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

uint64_t sim_below(struct sim_random *r, uint64_t limit)
{
	return sim_random(r) % limit;
}

bool sim_chance(struct sim_random *r, unsigned percent)
{
	return sim_below(r, 100) < percent;
}

struct simnet *simnet_new(struct sim_random *random, unsigned node_count)
{
	struct simnet *net = calloc(1, sizeof *net);

	assert(net != NULL && node_count <= SIM_NODES_MAX);
	net->random = random;
	net->count = node_count;
	net->max_delay = 4;
	for (unsigned i = 0; i < node_count; i++)
		for (unsigned j = 0; j < node_count; j++)
			net->connections[i][j].tail = &net->connections[i][j].head;
	return net;
}

static void lose(struct connection *c)
{
	while (c->head != NULL) {
		struct packet *next = c->head->next;

		free(c->head);
		c->head = next;
	}
	c->tail = &c->head;
	c->queued = 0;
	c->up = false;
}

void simnet_free(struct simnet *net)
{
	for (unsigned i = 0; i < net->count; i++)
		for (unsigned j = 0; j < net->count; j++)
			lose(&net->connections[i][j]);
	free(net);
}

static bool reachable(const struct simnet *net, unsigned from, unsigned to)
{
	unsigned from_side = net->side >> from & 1, to_side = net->side >> to & 1;

	if (net->down[from] || net->down[to])
		return false;
	return from_side == to_side || (net->one_way && from_side == 1);
}

void simnet_break(struct simnet *net, unsigned from, unsigned to)
{
	struct connection *c = &net->connections[from][to];

	lose(c);
	c->up_round = net->round + 10 + sim_below(net->random, 200);
}

static void break_unreachable(struct simnet *net)
{
	for (unsigned i = 0; i < net->count; i++)
		for (unsigned j = 0; j < net->count; j++)
			if (net->connections[i][j].up && !reachable(net, i, j))
				simnet_break(net, i, j);
}

void simnet_advance(struct simnet *net, uint64_t round)
{
	net->round = round;
	for (unsigned i = 0; i < net->count; i++) {
		for (unsigned j = 0; j < net->count; j++) {
			struct connection *c = &net->connections[i][j];

			if (i != j && !c->up && round >= c->up_round && reachable(net, i, j))
				c->up = true;
		}
	}
}

int64_t simnet_room(struct simnet *net, unsigned from, unsigned to)
{
	struct connection *c = &net->connections[from][to];

	if (!c->up)
		return -1;
	return c->queued >= ROOM ? 0 : (int64_t)(ROOM - c->queued);
}

void simnet_send(struct simnet *net, unsigned from, unsigned to, const void *bytes, size_t len)
{
	struct connection *c = &net->connections[from][to];
	struct packet *p;

	if (!c->up)
		return;
	p = malloc(sizeof *p + len);
	assert(p != NULL);
	p->next = NULL;
	p->len = len;
	memcpy(p->bytes, bytes, len);
	p->round = net->round + 1 + sim_below(net->random, net->max_delay);
	if (sim_below(net->random, 500) == 0)
		p->round += sim_below(net->random, 2000); /* a stall */
	if (p->round < c->last_round)
		p->round = c->last_round;
	c->last_round = p->round;
	*c->tail = p;
	c->tail = &p->next;
	c->queued += len;
}

uint8_t *simnet_receive(struct simnet *net, unsigned to, unsigned *from, size_t *len)
{
	unsigned begin = (unsigned)sim_below(net->random, net->count);

	for (unsigned k = 0; k < net->count; k++) {
		unsigned i = (begin + k) % net->count;
		struct connection *c = &net->connections[i][to];
		struct packet *p = c->head;
		uint8_t *bytes;

		if (p == NULL || p->round > net->round)
			continue;
		c->head = p->next;
		if (c->head == NULL)
			c->tail = &c->head;
		c->queued -= p->len;
		*from = i;
		*len = p->len;
		bytes = malloc(p->len);
		assert(bytes != NULL);
		memcpy(bytes, p->bytes, p->len);
		free(p);
		return bytes;
	}
	return NULL;
}

void simnet_node_down(struct simnet *net, unsigned node, bool down)
{
	net->down[node] = down;
	break_unreachable(net);
}

void simnet_split(struct simnet *net, unsigned side, bool one_way)
{
	net->side = side;
	net->one_way = one_way;
	break_unreachable(net);
}

void simnet_slow(struct simnet *net, unsigned max_delay)
{
	net->max_delay = max_delay;
}
