/* What this node has to say: log lines, what is damaged, why it cannot go on. */
#include "base/report.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/phase.h"
#include "base/wrep.h"

void wrep_logf(struct wrep *w, char level, const char *format, ...)
{
	char line[3 * WREP_PATH_MAX]; /* two names, and what is said of them */
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	w->config.host.log(w->config.host_ctx, level, line);
}

void wrep_damagef(struct wrep *w, const char *format, ...)
{
	char line[sizeof w->last_damage];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	pthread_mutex_lock(&w->lock);
	w->damages++;
	memcpy(w->last_damage, line, sizeof line);
	w->last_damage_at = time(NULL);
	pthread_mutex_unlock(&w->lock);
	w->config.host.log(w->config.host_ctx, 'E', line);
}

void wrep_health(struct wrep *w, struct wrep_health *out)
{
	memset(out, 0, sizeof *out);
	pthread_mutex_lock(&w->lock);
	out->state = wrep_fetching(w)	? WREP_FETCHING
		     : wrep_is_ready(w) ? WREP_SERVING
					: WREP_CATCHING_UP;
	out->leader_id = w->view.leader_id;
	out->compared_bytes = atomic_load(&w->compared_bytes);
	out->fetched_bytes = atomic_load(&w->fetched_bytes);
	out->damages = w->damages;
	memcpy(out->last_damage, w->last_damage, sizeof out->last_damage);
	out->last_damage_at = w->last_damage_at;
	pthread_mutex_unlock(&w->lock);
}

void wrep_fatalf(struct wrep *w, const char *format, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof line, format, ap);
	va_end(ap);
	atomic_store(&w->may_write, false);
	if (wrep_phase_fail(w))
		w->config.host.fatal(w->config.host_ctx, line);
}
