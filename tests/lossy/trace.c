#include "trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_zeros(const uint8_t *p, size_t len)
{
	return !len || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

void trace_add(struct trace *t, const struct disk_op *op, const char *name)
{
	struct disk_op *copy;

	if (!(t->count & (t->count - 1))) {
		t->ops = reallocarray(t->ops, t->count ? 2 * t->count : 1, sizeof *t->ops);
		if (!t->ops)
			abort();
	}
	copy = &t->ops[t->count++];
	*copy = *op;
	if (op->kind > DISK_RENAME)
		strcpy(copy->name, name);
	copy->data = NULL; /* most of a new segment of the log */
	if (op->data && !is_zeros(op->data, op->len)) {
		uint8_t *data = malloc(op->len);

		if (!data)
			abort();
		memcpy(data, op->data, op->len);
		copy->data = data;
	}
}

void trace_clear(struct trace *t)
{
	for (size_t i = 0; i < t->count; i++)
		free((void *)t->ops[i].data);
	free(t->ops);
	*t = (struct trace){0};
}

struct disk *trace_replay(const struct trace *t, size_t count)
{
	struct disk *d = disk_new();

	if (count > t->count)
		count = t->count;
	for (size_t i = 0; i < count; i++)
		disk_do(d, &t->ops[i], i == count - 1);
	return d;
}

int trace_save(const struct trace *t, const char *path)
{
	FILE *f = fopen(path, "wb");
	bool good = f;

	if (!f)
		return -errno;
	for (size_t i = 0; i < t->count && good; i++) {
		const struct disk_op *op = &t->ops[i];

		good = fwrite(op, sizeof *op, 1, f) == 1 &&
		       (!op->data || fwrite(op->data, op->len, 1, f) == 1);
	}
	return fclose(f) == 0 && good ? 0 : -EIO;
}

int trace_load(struct trace *t, const char *path)
{
	FILE *f = fopen(path, "rb");
	struct disk_op op;
	int rc = 0;

	if (!f)
		return -errno;
	trace_clear(t);
	while (!rc && fread(&op, sizeof op, 1, f) == 1) {
		uint8_t *data = NULL;

		if (op.data) { /* the pointer that it was: says whether there are any */
			data = malloc(op.len);
			if (!data)
				abort();
			if (fread(data, op.len, 1, f) != 1)
				rc = -EIO;
		}
		op.data = data;
		if (!rc)
			trace_add(t, &op, op.name);
		free(data);
	}
	fclose(f);
	return rc;
}
