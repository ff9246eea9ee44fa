#include "daemon/handover.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include "mount/mount.h"
#include "node/log.h"
#include "node/stop.h"

#define TRANSFER_TIMEOUT_MS 2000
#define RETRY_MS 1000 /* after nobody took it */

struct fsd_handover {
	struct fsd *fs;
	pthread_t thread;
	bool running;
	_Atomic bool ended;
	int result; /* of the thread that has ended */
	uint64_t not_before_ms;
	bool told; /* that nobody takes it */
};

static bool leads_others(struct fsd *fs)
{
	struct rlog_status status;
	unsigned voters = 0;

	rlog_status(wrep_log(fs->wrep), &status);
	for (unsigned i = 0; i < status.member_count; i++)
		voters += status.members[i].role == RLOG_VOTER;
	return status.view.role == RLOG_LEADER && voters > 1;
}

/* 0, also when another node leads by now. */
static int transfer(struct fsd *fs)
{
	int rv = rlog_transfer(wrep_log(fs->wrep), 0, TRANSFER_TIMEOUT_MS);

	return rv == -EALREADY ? 0 : rv;
}

void fsd_hand_over(struct fsd *fs)
{
	int rv = leads_others(fs) ? transfer(fs) : 0;

	if (rv)
		fsd_log('W', "leadership was not handed over error=%s: the others elect a leader",
			strerror(-rv));
}

static void *handover_main(void *arg)
{
	struct fsd_handover *h = arg;

	prctl(PR_SET_NAME, "fsd-handover");
	h->result = transfer(h->fs);
	atomic_store(&h->ended, true);
	fsd_stop_wake(h->fs->stop);
	return NULL;
}

static void take_result(struct fsd_handover *h)
{
	pthread_join(h->thread, NULL);
	h->running = false;
	h->not_before_ms = h->result ? rlog_clock_ms() + RETRY_MS : 0;
	if (h->result && !h->told)
		fsd_log('W',
			"unmounted, but this node still leads, and no other takes it over "
			"error=\"%s\"; trying again every second: start the others, or end the "
			"applications that have files open here",
			strerror(-h->result));
	h->told = h->result;
}

int fsd_handover_look(struct fsd_handover *h)
{
	const uint64_t now = rlog_clock_ms();

	if (h->running && atomic_load(&h->ended))
		take_result(h);
	if (h->running || !leads_others(h->fs))
		return -1;
	if (now < h->not_before_ms)
		return (int)(h->not_before_ms - now);
	atomic_store(&h->ended, false);
	h->running = !pthread_create(&h->thread, NULL, handover_main, h);
	if (h->running)
		return -1;
	h->not_before_ms = now + RETRY_MS;
	return RETRY_MS;
}

struct fsd_handover *fsd_handover_new(struct fsd *fs)
{
	struct fsd_handover *h = calloc(1, sizeof(*h));

	if (h)
		h->fs = fs;
	return h;
}

void fsd_handover_free(struct fsd_handover *h)
{
	if (h->running)
		pthread_join(h->thread, NULL);
	free(h);
}
