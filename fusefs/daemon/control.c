/* The daemon's answers at the control socket, DATA/.dqlitefs/control. clients.c talks to the clients.
 *
 * A client connects, sends one line of JSON and gets one line back:
 *
 *   {"command": "status"}                  the keys of `status --json`
 *   {"command": "pid"}                     {"pid": 4711}
 *   {"command": "transfer", "to": "..."}   {"leader": {...}}; "to" may be absent
 *   anything that fails                    {"error": "one line"}
 *
 * Names and texts in it are as values.h says.
 *
 * The directory is 0700, so only root gets here. A path in sockaddr_un ends at 108 bytes, and a data
 * directory's may be longer: the socket is named through /proc/self/fd.
 */
#include "daemon/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "node/values.h"
#include "node/words.h"
#include "ops/open_queue.h"

#define TRANSFER_TIMEOUT_MS 5000

int fsd_control_listen(int state_fd, char errmsg[FSD_ERRMSG_SIZE])
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int rv, fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", state_fd,
		 FSD_CONTROL_SOCKET);
	/* We hold the lock: what is there was left by a daemon that died. */
	unlinkat(state_fd, FSD_CONTROL_SOCKET, 0);
	if (fd >= 0 && !bind(fd, (struct sockaddr *)&sa, sizeof(sa)) && !listen(fd, 16))
		return fd;
	rv = -errno;
	snprintf(errmsg, FSD_ERRMSG_SIZE, "cannot make the control socket: %s", strerror(-rv));
	if (fd >= 0)
		close(fd);
	return rv;
}

static json_t *error_answer(const char *format, ...) __attribute__((format(printf, 1, 2)));
static json_t *error_answer(const char *format, ...)
{
	char line[FSD_ERRMSG_SIZE];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	return json_pack("{s:o}", "error", fsd_bytes_json(line));
}

static json_t *leader_json(const struct rlog_status *status)
{
	if (!status->view.leader_id)
		return json_null();
	return json_pack("{s:o, s:o}", "node", fsd_hex_json(8, status->view.leader_id), "address",
			 fsd_bytes_json(status->leader_address));
}

static json_t *members_json(const struct rlog_status *status)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < status->member_count; i++) {
		const struct rlog_member *m = &status->members[i];

		json_array_append_new(list, json_pack("{s:o, s:o, s:s, s:o}", "node",
						      fsd_hex_json(8, m->id), "address",
						      fsd_bytes_json(m->address), "role",
						      fsd_member_role_word(m->role), "match_index",
						      fsd_number_json(m->match_index)));
	}
	return list;
}

static json_t *databases_json(struct fsd *fs)
{
	struct wrep_db_status *all = NULL;
	json_t *list = json_array();
	size_t count = 0;

	if (wrep_databases(fs->wrep, &all, &count))
		count = 0;
	for (size_t i = 0; i < count; i++)
		json_array_append_new(list,
				      json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:b, s:b}", "name",
						fsd_bytes_json(all[i].name), "version",
						fsd_number_json(all[i].version), "checksum",
						fsd_hex_json(16, all[i].checksum), "page_size",
						fsd_number_json(all[i].page_size), "pages",
						fsd_number_json(all[i].page_count), "mode",
						all[i].mode, "damaged", (int)all[i].damaged,
						"uncommitted", (int)all[i].uncommitted));
	free(all);
	return list;
}

static json_t *log_json(const struct rlog_status *status)
{
	return json_pack("{s:o, s:o, s:o, s:o}", "first_index",
			 fsd_number_json(status->first_index), "last_index",
			 fsd_number_json(status->last_index), "snapshot_index",
			 fsd_number_json(status->snapshot_index), "bytes",
			 fsd_number_json(status->log_bytes));
}

/* Levels of formats (format.h); what all members read is known to the leader. */
static json_t *format_json(const struct rlog_status *status)
{
	return json_pack("{s:o, s:o, s:o}", "reads", fsd_number_json(status->format_reads),
			 "needed", fsd_number_json(status->format_needed), "all_read",
			 status->view.role == RLOG_LEADER ? fsd_number_json(status->format_level)
							  : json_null());
}

static json_t *fetch_json(const struct wrep_health *health)
{
	return json_pack("{s:o, s:o}", "compared_bytes", fsd_number_json(health->compared_bytes),
			 "fetched_bytes", fsd_number_json(health->fetched_bytes));
}

static json_t *damage_json(const struct wrep_health *health)
{
	return json_pack("{s:o, s:o, s:o}", "found", fsd_number_json(health->damages), "last",
			 fsd_bytes_json(health->last_damage), "last_at",
			 fsd_number_json(health->last_damage_at));
}

static json_t *answer_status(struct fsd *fs)
{
	static const char *const states[] = {"catching up", "fetching", "serving"};
	struct rlog_status status;
	struct wrep_health health;
	const char *reason = fsd_opens_reason(fs);

	rlog_status(wrep_log(fs->wrep), &status);
	wrep_health(fs->wrep, &health);
	return json_pack(
		"{s:o, s:o, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"node", fsd_hex_json(8, fs->identity.node), "address",
		fsd_bytes_json(fs->identity.address), "role", fsd_role_word(status.view.role),
		"state", states[health.state], "waits",
		reason ? fsd_bytes_json(reason) : json_null(), "leader", leader_json(&status),
		"term", fsd_number_json(status.view.term), "commit_index",
		fsd_number_json(status.commit_index), "applied_index",
		fsd_number_json(status.applied_index), "log", log_json(&status), "format",
		format_json(&status), "fetch", fetch_json(&health), "damage", damage_json(&health),
		"members", members_json(&status), "databases", databases_json(fs));
}

/* A member named by its node id or its address; 0 when there is none. */
static uint64_t find_member(const struct rlog_status *status, const char *name)
{
	char id[17];

	for (unsigned i = 0; i < status->member_count; i++) {
		snprintf(id, sizeof(id), "%08" PRIx64, status->members[i].id);
		if (!strcmp(id, name) || !strcmp(status->members[i].address, name))
			return status->members[i].id;
	}
	return 0;
}

static json_t *answer_transfer(struct fsd *fs, const char *to)
{
	struct rlog *log = wrep_log(fs->wrep);
	struct rlog_status status;
	uint64_t id = 0;

	rlog_status(log, &status);
	if (to) {
		id = find_member(&status, to);
		if (!id)
			return error_answer("no member %s: name one that 'dqlitefs status' lists",
					    to);
		if (id == status.view.leader_id)
			return json_pack("{s:o}", "leader", leader_json(&status));
	}
	switch (rlog_transfer(log, id, TRANSFER_TIMEOUT_MS)) {
	case 0:
		rlog_status(log, &status);
		return json_pack("{s:o}", "leader", leader_json(&status));
	case -EALREADY:
		return error_answer("this node does not lead: run it on the leader (%s)",
				    status.leader_address[0] ? status.leader_address
							     : "none is known now");
	case -ENOENT:
		return error_answer(to ? "%s is no voter yet: wait until 'dqlitefs status' says so"
				       : "there is no other voter%s: add a node with --join",
				    to ? to : "");
	case -EHOSTUNREACH:
		return error_answer(to ? "%s does not answer: see its log, or name another voter"
				       : "no other voter answers%s: see their logs",
				    to ? to : "");
	case -ETIMEDOUT:
		return error_answer("no other node took over in %d ms: see its log, then try again",
				    TRANSFER_TIMEOUT_MS);
	default:
		return error_answer("the transfer failed: see the daemon's log");
	}
}

char *fsd_control_answer(struct fsd *fs, const char *line)
{
	json_t *request = json_loads(line, 0, NULL), *reply;
	const char *command = NULL;
	json_t *to_json = NULL;
	char *text, *to = NULL;

	if (json_unpack(request, "{s:s, s?o}", "command", &command, "to", &to_json) ||
	    (to_json && !(to = fsd_bytes_of(to_json))))
		reply = error_answer("not a request");
	else if (!strcmp(command, "status"))
		reply = answer_status(fs);
	else if (!strcmp(command, "pid"))
		reply = json_pack("{s:i}", "pid", getpid());
	else if (!strcmp(command, "transfer"))
		reply = answer_transfer(fs, to);
	else
		reply = error_answer(
			"unknown command: the daemon is older than this program; mount "
			"again");
	json_decref(request);
	free(to);
	text = json_dumps(reply, JSON_COMPACT);
	json_decref(reply);
	return text;
}
