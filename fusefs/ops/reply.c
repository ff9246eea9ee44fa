#include "ops/reply.h"

#include <errno.h>
#include "node/log.h"
#include "walrepl.h"

void fsd_reply_read_err(fuse_req_t req, int rv)
{
	bool means_damage = rv == -EIO || rv == -ENXIO || rv == -ERANGE;

	fuse_reply_err(req, means_damage ? EBADMSG : -rv);
}

void fsd_refuse(fuse_req_t req, const char *what, const char *name)
{
	static struct fsd_log_limit limit;

	fsd_log_limited(&limit, 'W', "refused %s name=%s: " WREP_NAME_RULE, what, name);
	fuse_reply_err(req, EPERM);
}
