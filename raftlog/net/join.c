/* Becoming a member: the member that is asked.
 *
 * A node without a log asks any member with one message, JOIN (its id and address). The leader adds
 * it as a standby and answers JOINED when that has committed; another member answers with the
 * leader's address, or to try again when there is none. Then the node makes its empty log, listens,
 * and the leader, which dials it already, sends it everything; later the leader makes it a voter.
 * Asking twice is harmless: an answer that was lost is given again. The node that asks: dial.c.
 */
#include "net/join.h"

#include <errno.h>
#include <stdio.h>
#include "net/inside.h"
#include "net/levels.h"

static void answer(struct rlog_conn *c, enum rlog_answer what, const char *address)
{
	struct rlog_message m = {.type = RLOG_MSG_JOINED};

	c->join.waiting = false;
	m.joined.cluster_id = c->net->config.self.cluster_id;
	m.joined.answer = what;
	snprintf(m.joined.address, sizeof m.joined.address, "%s", address);
	rlog_net_stamp(c->net, &m);
	rlog_conn_send(c, &m);
	c->last = true;
}

void rlog_join_request(struct rlog_conn *c, const struct rlog_message *m)
{
	const struct rlog_net_owner *owner = &c->net->config.owner;
	const struct rlog_self *self = &c->net->config.self;
	const char *leader_address;
	uint64_t leader;

	if (m->join.cluster_id != 0 && m->join.cluster_id != self->cluster_id) {
		answer(c, RLOG_ANSWER_OTHER_CLUSTER, "");
		return;
	}
	if (!rlog_net_reads_enough(c->net, m)) {
		rlog_net_line_older(c->net, m->join.id, m->join.address, m);
		answer(c, RLOG_ANSWER_TOO_OLD, "");
		return;
	}
	switch (owner->add(owner->ctx, m->join.id, m->join.address, &c->join.index,
			   &c->join.term)) {
	case 0:
		c->join.waiting = true;
		return;
	case -EALREADY:
		answer(c, RLOG_ANSWER_OK, "");
		return;
	case -EADDRINUSE:
		answer(c, RLOG_ANSWER_ADDRESS_USED, m->join.address);
		return;
	case -ENFILE:
		answer(c, RLOG_ANSWER_FULL, "");
		return;
	default:
		leader = owner->leader(owner->ctx, &leader_address);
		if (leader != 0 && leader != self->id && leader_address[0] != 0)
			answer(c, RLOG_ANSWER_LEADER, leader_address);
		else
			answer(c, RLOG_ANSWER_RETRY, "");
	}
}

void rlog_join_look(struct rlog_conn *c)
{
	const struct rlog_net_owner *owner = &c->net->config.owner;
	const char *address;
	int outcome;

	if (c->state != CONN_JOINER || !c->join.waiting || c->closing)
		return;
	outcome = owner->outcome_of(owner->ctx, c->join.index, c->join.term);
	if (outcome > 0)
		answer(c, RLOG_ANSWER_OK, "");
	else if (outcome < 0 || owner->leader(owner->ctx, &address) != c->net->config.self.id)
		answer(c, RLOG_ANSWER_RETRY, "");
}
