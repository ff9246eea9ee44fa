/* The words that the command line and the log have for what raftlog says. */
#ifndef FUSEFS_WORDS_H
#define FUSEFS_WORDS_H

#include "walrepl.h"

const char *fsd_role_word(enum rlog_role role);		      /* follower, candidate, leader */
const char *fsd_member_role_word(enum rlog_member_role role); /* voter, standby, spare */

#endif
