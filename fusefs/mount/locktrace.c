/* One perf event for each CPU, with a ring of its own.
 *
 *   page 0                          pages 1 .. RING_PAGES
 *   perf_event_mmap_page            records: header | u32 pid, tid | u32 size, the tracepoint's own bytes
 *   data_tail (ours) .. data_head (the kernel's), which count bytes since the beginning
 *
 * Where in its bytes a field lies the kernel says in a file, beside the tracepoint's number. The file is in
 * tracefs; where nobody has mounted that, it is mounted for a moment, seen by nobody else.
 *
 * The kernel writes a record, and moves data_head, before the lock call returns (trace_posix_lock_inode() is
 * the last that posix_lock_inode() does). So whoever has heard of something that was done after a call has
 * returned, a write request for instance, finds the record of the call: the one caused the other, so memory
 * is ordered. Records of different CPUs are told in no order, and those of two processes may even be in the
 * inverse one: what releases a lock is recorded after somebody else may have got it.
 */
#include "mount/locktrace.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "guarded.h"

#define RING_PAGES \
	8u /* some 250 calls, on each CPU, before the thread that waits must have read them */
#define RECORD_BYTES_MAX 512u
#define TRACEPOINT "events/filelock/posix_lock_inode"
#define NOT_A_LOCK 8u /* FL_ACCESS: asks only (the kernel's filelock.h) */

/* Where a field lies in a record. */
struct field {
	unsigned offset, size;
};

struct layout {
	uint64_t id;
	struct field number, first, last, type, flags, result;
};

struct ring {
	int fd;
	struct perf_event_mmap_page *head; /* NULL: none */
};

struct fsd_lockrings {
	struct layout layout;
	size_t page_bytes;
	unsigned count;
	struct ring rings[];
};

struct fsd_locktrace {
	pthread_mutex_t lock; /* readers, one after the other; calls `each` */
	_Atomic bool on;
	struct fsd_lockrings *rings GUARDED_BY(lock);
	int waiter; /* an epoll of all rings; whoever calls on, off and wait */
	void (*each)(void *ctx, const struct wrep_lock_call *call);
	void *ctx;
};

/* ---- the tracepoint's description ------------------------------------------------------------- */

/* tracefs, mounted for ourselves: a descriptor, or -errno. */
static int mount_tracefs(void)
{
	int fd, fs = fsopen("tracefs", FSOPEN_CLOEXEC);

	if (fs < 0)
		return -errno;
	fd = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) ? -1
							      : fsmount(fs, FSMOUNT_CLOEXEC, 0);
	if (fd < 0)
		fd = -errno;
	close(fs);
	return fd;
}

/* A file of the tracepoint's: a descriptor, or -errno. */
static int open_description(const char *name)
{
	char path[128];
	int root, fd;

	snprintf(path, sizeof(path), "/sys/kernel/tracing/" TRACEPOINT "/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	root = mount_tracefs();
	if (root < 0)
		return root;
	snprintf(path, sizeof(path), TRACEPOINT "/%s", name);
	fd = openat(root, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	close(root);
	return fd;
}

/* "	field:unsigned long i_ino;	offset:16;	size:8;	signed:0;": its name is the last word before
 * the first semicolon. */
static bool read_field(const char *line, const char *name, struct field *field)
{
	const char *end = strchr(line, ';'), *word = end;
	struct field found;

	if (!strstr(line, "field:") || !end)
		return false;
	while (word > line && word[-1] != ' ' && word[-1] != '*')
		word--;
	if ((size_t)(end - word) != strlen(name) || strncmp(word, name, strlen(name)) != 0 ||
	    sscanf(end, "; offset:%u; size:%u;", &found.offset, &found.size) != 2 ||
	    found.size > sizeof(uint64_t) || found.offset > RECORD_BYTES_MAX - found.size)
		return false;
	*field = found;
	return true;
}

static int read_layout(struct layout *out)
{
	/* Linux 6.9 has renamed some. */
	const struct {
		const char *name, *former;
		struct field *field;
	} wanted[] = {
		{"i_ino", "i_ino", &out->number},   {"fl_start", "fl_start", &out->first},
		{"fl_end", "fl_end", &out->last},   {"type", "fl_type", &out->type},
		{"flags", "fl_flags", &out->flags}, {"ret", "ret", &out->result},
	};
	int fd = open_description("format");
	unsigned long long id;
	char line[512];
	FILE *file;

	memset(out, 0, sizeof(*out));
	if (fd < 0)
		return fd;
	file = fdopen(fd, "r");
	if (!file) {
		close(fd);
		return -ENOMEM;
	}
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "ID: %llu", &id) == 1)
			out->id = id;
		for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
			if (!read_field(line, wanted[i].name, wanted[i].field))
				read_field(line, wanted[i].former, wanted[i].field);
	}
	fclose(file);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (!out->id || !wanted[i].field->size)
			return -EPROTO;
	return 0;
}

static uint64_t value_of(const uint8_t *bytes, struct field field)
{
	uint64_t value = 0;

	/* Little-endian or not: the field as wide as it is, in its own place. */
	switch (field.size) {
	case 1:
		return bytes[field.offset];
	case 2: {
		uint16_t narrow;

		memcpy(&narrow, bytes + field.offset, sizeof(narrow));
		return narrow;
	}
	case 4: {
		uint32_t narrow;

		memcpy(&narrow, bytes + field.offset, sizeof(narrow));
		return narrow;
	}
	default:
		memcpy(&value, bytes + field.offset, field.size);
		return value;
	}
}

/* ---- reading ---------------------------------------------------------------------------------- */

struct sample {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint32_t size;
	uint8_t bytes[RECORD_BYTES_MAX];
};

static void tell(struct fsd_locktrace *t, const struct sample *s) REQUIRES(t->lock)
{
	const struct layout *layout = &t->rings->layout;
	struct wrep_lock_call call = {
		.number = value_of(s->bytes, layout->number),
		.first = value_of(s->bytes, layout->first),
		.last = value_of(s->bytes, layout->last),
		.type = (int)value_of(s->bytes, layout->type),
		.pid = (int32_t)s->pid > 0 ? (pid_t)s->pid : 0,
		.result = (int)value_of(s->bytes, layout->result),
	};

	if (!(value_of(s->bytes, layout->flags) & NOT_A_LOCK))
		t->each(t->ctx, &call);
}

static void read_ring(struct fsd_locktrace *t, struct ring *ring) REQUIRES(t->lock)
{
	const size_t size = RING_PAGES * t->rings->page_bytes;
	const uint8_t *data = (const uint8_t *)ring->head + t->rings->page_bytes;
	uint64_t head = __atomic_load_n(&ring->head->data_head, __ATOMIC_ACQUIRE);
	uint64_t tail = ring->head->data_tail;
	bool lost = false;

	while (tail < head) {
		struct sample s = {0};
		size_t at = tail % size, len;

		/* A header does not reach over the end: all are of eights. */
		memcpy(&s.header, data + at, sizeof(s.header));
		if (s.header.size < sizeof(s.header) || s.header.size > head - tail) {
			lost = true;
			tail = head;
			break;
		}
		len = s.header.size < sizeof(s) ? s.header.size : sizeof(s);
		if (at + len > size) {
			memcpy(&s, data + at, size - at);
			memcpy((uint8_t *)&s + (size - at), data, len - (size - at));
		} else {
			memcpy(&s, data + at, len);
		}
		if (s.header.type == PERF_RECORD_SAMPLE)
			tell(t, &s);
		else
			lost = true; /* PERF_RECORD_LOST, or of throttling */
		tail += s.header.size;
	}
	__atomic_store_n(&ring->head->data_tail, tail, __ATOMIC_RELEASE);
	if (lost)
		t->each(t->ctx, NULL);
}

void fsd_locktrace_read(struct fsd_locktrace *t)
{
	if (!atomic_load(&t->on))
		return;
	pthread_mutex_lock(&t->lock);
	for (unsigned i = 0; t->rings && i < t->rings->count; i++)
		if (t->rings->rings[i].head)
			read_ring(t, &t->rings->rings[i]);
	pthread_mutex_unlock(&t->lock);
}

void fsd_locktrace_wait(struct fsd_locktrace *t, int timeout_ms)
{
	struct epoll_event events[16];

	if (epoll_wait(t->waiter, events, 16, timeout_ms) >= 0 || errno == EINTR)
		fsd_locktrace_read(t);
}

/* ---- on and off ------------------------------------------------------------------------------- */

struct fsd_locktrace *fsd_locktrace_new(void)
{
	struct fsd_locktrace *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->waiter = -1;
	pthread_mutex_init(&t->lock, NULL);
	return t;
}

/* Not on before it is enabled. 0; -ENODEV: there is no such CPU now; -errno. */
static int open_ring(struct fsd_lockrings *r, int cpu, const char *filter, int waiter,
		     struct ring *ring)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attr),
		.config = r->layout.id,
		.sample_period = 1,
		.sample_type = PERF_SAMPLE_TID | PERF_SAMPLE_RAW,
		.disabled = 1,
		.wakeup_events = 1,
	};
	struct epoll_event event = {.events = EPOLLIN};
	void *map;

	ring->fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);
	if (ring->fd < 0)
		return -errno;
	if (ioctl(ring->fd, PERF_EVENT_IOC_SET_FILTER, filter) < 0)
		return -errno;
	map = mmap(NULL, (1 + RING_PAGES) * r->page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
		   ring->fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	ring->head = map;
	return epoll_ctl(waiter, EPOLL_CTL_ADD, ring->fd, &event) < 0 ? -errno : 0;
}

static void close_rings(struct fsd_lockrings *r)
{
	for (unsigned i = 0; r && i < r->count; i++) {
		if (r->rings[i].head)
			munmap(r->rings[i].head, (1 + RING_PAGES) * r->page_bytes);
		if (r->rings[i].fd >= 0)
			close(r->rings[i].fd);
	}
	free(r);
}

static int open_rings(unsigned device, uint64_t byte, int waiter, struct fsd_lockrings **out)
{
	const long cpus = sysconf(_SC_NPROCESSORS_CONF);
	struct fsd_lockrings *r = calloc(1, sizeof(*r) + (size_t)cpus * sizeof(r->rings[0]));
	unsigned opened = 0;
	char filter[128];
	int rv;

	if (!r)
		return -ENOMEM;
	r->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	rv = read_layout(&r->layout);
	snprintf(filter, sizeof(filter), "s_dev == %u && fl_start <= %llu && fl_end >= %llu",
		 device, (unsigned long long)byte, (unsigned long long)byte);
	for (long cpu = 0; cpu < cpus && !rv; cpu++) {
		struct ring *ring = &r->rings[r->count++];

		ring->fd = -1;
		rv = open_ring(r, (int)cpu, filter, waiter, ring);
		if (!rv)
			opened++;
		else if (rv == -ENODEV)
			rv = 0; /* Should it come, its calls are not told. */
	}
	if (!rv && !opened)
		rv = -ENODEV;
	if (rv)
		close_rings(r);
	else
		*out = r;
	return rv;
}

int fsd_locktrace_on(struct fsd_locktrace *t, unsigned device, uint64_t byte,
		     void (*each)(void *ctx, const struct wrep_lock_call *call), void *ctx)
{
	struct fsd_lockrings *rings;
	int rv;

	if (t->waiter < 0)
		t->waiter = epoll_create1(EPOLL_CLOEXEC);
	if (t->waiter < 0)
		return -errno;
	rv = open_rings(device, byte, t->waiter, &rings);
	if (rv)
		return rv;
	/* Read from now on, recorded afterwards: no record is older than what is read here. */
	pthread_mutex_lock(&t->lock);
	t->each = each;
	t->ctx = ctx;
	t->rings = rings;
	atomic_store(&t->on, true);
	pthread_mutex_unlock(&t->lock);
	for (unsigned i = 0; i < rings->count && !rv; i++)
		if (rings->rings[i].head && ioctl(rings->rings[i].fd, PERF_EVENT_IOC_ENABLE, 0) < 0)
			rv = -errno;
	if (rv)
		fsd_locktrace_off(t);
	return rv;
}

void fsd_locktrace_off(struct fsd_locktrace *t)
{
	struct fsd_lockrings *rings;

	pthread_mutex_lock(&t->lock);
	rings = t->rings;
	t->rings = NULL;
	atomic_store(&t->on, false);
	pthread_mutex_unlock(&t->lock);
	close_rings(rings);
}

void fsd_locktrace_free(struct fsd_locktrace *t)
{
	if (!t)
		return;
	fsd_locktrace_off(t);
	if (t->waiter >= 0)
		close(t->waiter);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
