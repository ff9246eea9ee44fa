/* Leadership goes to another node: when this one ends, and when nobody can see its mount any more.
 *
 * After `umount -l` the applications that still have files open go on, but no new one comes. The node should
 * not lead then: those on other nodes would be writing through it for as long as a forgotten process lives. It
 * stays a voter, and whenever it is elected again it hands leadership over again.
 */
#ifndef FUSEFS_HANDOVER_H
#define FUSEFS_HANDOVER_H

struct fsd;
struct fsd_handover;

/* Hand it over, if this node leads others. Waits. */
void fsd_hand_over(struct fsd *fs);

/* NULL: out of memory. */
struct fsd_handover *fsd_handover_new(struct fsd *fs);
/* The mount is not to be seen: see whether leadership is to go, and let a thread hand it over. Returns when
 * this wants to be called next, in ms from now, or -1: when fsd_stop_wake() tells of a change. [serve.c's loop] */
int fsd_handover_look(struct fsd_handover *h);
/* Waits for the thread. */
void fsd_handover_free(struct fsd_handover *h);

#endif
