/* Nodes of several versions in one cluster: what they read changes with their restarts, and entries are
 * submitted in forms that some do not read. */
#ifndef SIMFORMAT_H
#define SIMFORMAT_H

#include "sim.h"

#define SIM_LEVELS 3 /* that there are */

/* What a node that is about to start reads. */
void simformat_start(struct node *n);
/* It has started, or not: whether that was right. True: it is to be started again, upgraded. */
bool simformat_started(struct node *n, int result);
void simformat_stop(struct node *n); /* while it has its log */
/* A message as the version of the node sends it, and as it reads it. */
void simformat_send(const struct node *n, struct rlog_message *m);
void simformat_receive(const struct node *n, struct rlog_message *m);
/* Greetings on connections that are new. */
void simformat_round(struct sim *sim);
/* May it join, as far as the leader knows? */
bool simformat_joins(struct node *n, const struct node *leader);
/* The level of an entry that is submitted to `n`, and of the submissions that came of it. */
unsigned simformat_submit(struct node *n, uint64_t submission);
void simformat_refused(struct sim *sim, uint64_t submission, int error);
void simformat_applied(struct node *n, uint64_t submission);
/* Can it have the state of `from`? Notes what reading that needs. */
bool simformat_fetches(struct node *n, const struct node *from);
/* From now on all read everything. */
void simformat_heal(struct node *n);
void simformat_free(struct sim *sim);

#endif
