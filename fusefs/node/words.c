#include "node/words.h"

const char *fsd_role_word(enum rlog_role role)
{
	static const char *const words[] = {"follower", "candidate", "leader"};

	return words[role];
}

const char *fsd_member_role_word(enum rlog_member_role role)
{
	static const char *const words[] = {"voter", "standby", "spare"};

	return words[role];
}
