/* Two hashes over the same nodes, by path and by id. A directory counts what is in it. */
#include "state/name_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define BUCKETS 1024

struct wrep_tree {
	struct wrep_tree_node *by_path[BUCKETS];
	struct wrep_tree_node *by_id[BUCKETS];
};

static unsigned path_bucket(const char *path)
{
	return (unsigned)(XXH3_64bits(path, strlen(path)) % BUCKETS);
}

struct wrep_tree *wrep_tree_new(void)
{
	return calloc(1, sizeof(struct wrep_tree));
}

static void free_node(struct wrep_tree_node *n)
{
	free((char *)n->path);
	free(n);
}

void wrep_tree_clear(struct wrep_tree *t)
{
	struct wrep_tree_node *n;

	for (unsigned b = 0; b < BUCKETS; b++) {
		while ((n = t->by_id[b])) {
			t->by_id[b] = n->next_by_id;
			free_node(n);
		}
		t->by_path[b] = NULL;
	}
}

void wrep_tree_free(struct wrep_tree *t)
{
	if (t)
		wrep_tree_clear(t);
	free(t);
}

struct wrep_tree_node *wrep_tree_find(const struct wrep_tree *t, uint64_t id)
{
	struct wrep_tree_node *n = t->by_id[id % BUCKETS];

	while (n && n->id != id)
		n = n->next_by_id;
	return n;
}

struct wrep_tree_node *wrep_tree_find_path(const struct wrep_tree *t, const char *path)
{
	struct wrep_tree_node *n = t->by_path[path_bucket(path)];

	while (n && strcmp(n->path, path) != 0)
		n = n->next_by_path;
	return n;
}

uint64_t wrep_tree_parent(const struct wrep_tree *t, uint64_t id)
{
	const struct wrep_tree_node *n = wrep_tree_find(t, id);

	return n && n->parent ? n->parent->id : 0;
}

void wrep_tree_each(const struct wrep_tree *t, void (*each)(void *arg, struct wrep_tree_node *n),
		    void *arg)
{
	for (unsigned b = 0; b < BUCKETS; b++)
		for (struct wrep_tree_node *n = t->by_id[b]; n; n = n->next_by_id)
			each(arg, n);
}

/* The directory that `path` is in, NULL for the top. 0, -ENOENT, -ENOTDIR, -ENOMEM. */
static int find_parent(const struct wrep_tree *t, const char *path, struct wrep_tree_node **out)
{
	const char *slash = strrchr(path, '/');
	char *above;

	*out = NULL;
	if (!slash)
		return 0;
	above = strndup(path, (size_t)(slash - path));
	if (!above)
		return -ENOMEM;
	*out = wrep_tree_find_path(t, above);
	free(above);
	return !*out ? -ENOENT : (*out)->is_dir ? 0 : -ENOTDIR;
}

static void enter_path(struct wrep_tree *t, struct wrep_tree_node *n)
{
	unsigned b = path_bucket(n->path);

	n->next_by_path = t->by_path[b];
	t->by_path[b] = n;
	if (n->parent)
		n->parent->children++;
}

static void leave_path(struct wrep_tree *t, struct wrep_tree_node *n)
{
	struct wrep_tree_node **p = &t->by_path[path_bucket(n->path)];

	while (*p != n)
		p = &(*p)->next_by_path;
	*p = n->next_by_path;
	if (n->parent)
		n->parent->children--;
}

static void remove_node(struct wrep_tree *t, struct wrep_tree_node *n)
{
	struct wrep_tree_node **p = &t->by_id[n->id % BUCKETS];

	leave_path(t, n);
	while (*p != n)
		p = &(*p)->next_by_id;
	*p = n->next_by_id;
	free_node(n);
}

int wrep_tree_add(struct wrep_tree *t, uint64_t id, const char *path, bool is_dir)
{
	struct wrep_tree_node *parent, *n;
	int rc = find_parent(t, path, &parent);

	if (rc)
		return rc;
	if (wrep_tree_find_path(t, path) || wrep_tree_find(t, id))
		return -EEXIST;
	n = calloc(1, sizeof *n);
	if (n)
		n->path = strdup(path);
	if (!n || !n->path) {
		free(n);
		return -ENOMEM;
	}
	n->id = id;
	n->is_dir = is_dir;
	n->parent = parent;
	n->next_by_id = t->by_id[id % BUCKETS];
	t->by_id[id % BUCKETS] = n;
	enter_path(t, n);
	return 0;
}

int wrep_tree_remove(struct wrep_tree *t, uint64_t id)
{
	struct wrep_tree_node *n = wrep_tree_find(t, id);

	if (!n)
		return -ENOENT;
	if (n->children)
		return -ENOTEMPTY;
	remove_node(t, n);
	return 0;
}

int wrep_tree_rename(struct wrep_tree *t, uint64_t id, const char *path, bool keep,
		     uint64_t *replaced)
{
	struct wrep_tree_node *n = wrep_tree_find(t, id), *there, *parent;
	char *copy;
	int rc;

	*replaced = 0;
	if (!n)
		return -ENOENT;
	if (n->is_dir)
		return -EXDEV;
	rc = find_parent(t, path, &parent);
	if (rc)
		return rc;
	there = wrep_tree_find_path(t, path);
	if (there && keep)
		return -EEXIST;
	if (there && there->is_dir)
		return -EISDIR;
	if (there == n)
		return 0;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	if (there) {
		*replaced = there->id;
		remove_node(t, there);
	}
	leave_path(t, n);
	free((char *)n->path);
	n->path = copy;
	n->parent = parent;
	enter_path(t, n);
	return 1;
}
