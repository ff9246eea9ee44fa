/* The level of the formats: one number for all forms in which nodes leave bytes to each other. All folders
 * use it, through raftlog.h.
 *
 * A cluster is upgraded node by node, so nodes of two versions are members side by side, and a data
 * directory may go back to the version before. Therefore a new form is read from the level on that adds it,
 * and written only when all members read that level:
 *
 *   - Each message between nodes says the level that its sender reads. A node from before the levels says
 *     nothing, which is level 1.
 *   - The leader knows the lowest level of all members, voters or not (rlog_format_level()). A member that it
 *     has not heard since it was started counts as level 1.
 *   - An entry is submitted with the level of its form (struct rlog_request). The leader refuses what a member
 *     does not read. Before the first entry of a level enters the log of a node, that node notes the level
 *     durably, in `meta`: from then on its log needs it, for good.
 *   - A node that reads less than what the log needs does not become a member, is sent no entries, and does
 *     not open such a data directory; each time a line names the remedy. Until the first entry of a new level
 *     is submitted every node may go back.
 *
 * How to add a form: raise RLOG_FORMAT_LEVEL by one and add a line here; read it; where it is written, ask
 * rlog_format_level() for an entry, rlog_format_needed() for a manifest or a snapshot, which others read
 * later, and rlog_format_of() for a stream to one peer. tests/cluster/test_former_landing.py shows that the
 * former landing does not meet it.
 *
 *   level  what it adds
 *   1      the first. Frames between nodes 1; segments and records 1, `meta` 1, snapshot 1; entries 2 and
 *          manifest 3 of walrepl; its page streams, which have no number of their own.
 */
#ifndef RAFTLOG_FORMAT_H
#define RAFTLOG_FORMAT_H

#include <stddef.h>

/* The newest that this build reads, and may write. */
#define RLOG_FORMAT_LEVEL 1u

/* What 0 stands for: a node that says nothing, or a field that nobody set. */
static inline unsigned rlog_format_or_first(unsigned level)
{
	return level > 1 ? level : 1;
}

/* The lowest of `count` levels, each as rlog_format_or_first(); `own` when there are none. [any thread] */
unsigned rlog_format_lowest(unsigned own, const unsigned *levels, size_t count);

#endif
