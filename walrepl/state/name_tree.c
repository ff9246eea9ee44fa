/* A hash over the nodes by id, and one over their names. A directory counts what is in it.
 *
 * A name is a struct of its own, so that a rename enters the new one before it takes out the old one: where
 * memory is missing, nothing has happened. */
#include "state/name_tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct wrep_tree_name {
	struct wrep_tree_node *node;
	UT_hash_handle hh; /* by path */
	char path[];
};

struct wrep_tree {
	struct wrep_tree_name *names;
	struct wrep_tree_node *nodes;
};

struct wrep_tree *wrep_tree_new(void)
{
	return calloc(1, sizeof(struct wrep_tree));
}

/* The name enters the table, beside another of the same path if there is one. NULL: out of memory. */
static struct wrep_tree_name *enter_name(struct wrep_tree *t, const char *path,
					 struct wrep_tree_node *n)
{
	size_t len = strlen(path);
	struct wrep_tree_name *name = calloc(1, sizeof(*name) + len + 1);

	if (!name)
		return NULL;
	memcpy(name->path, path, len);
	name->node = n;
	HASH_ADD(hh, t->names, path, len, name);
	if (!name->hh.tbl) {
		free(name);
		return NULL;
	}
	return name;
}

static void leave_name(struct wrep_tree *t, struct wrep_tree_name *name)
{
	HASH_DELETE(hh, t->names, name);
	free(name);
}

/* Its name is in the table. */
static void set_name(struct wrep_tree_node *n, struct wrep_tree_name *name,
		     struct wrep_tree_node *parent)
{
	n->name = name;
	n->path = name->path;
	n->parent = parent;
	if (parent)
		parent->children++;
}

static void remove_node(struct wrep_tree *t, struct wrep_tree_node *n)
{
	if (n->parent)
		n->parent->children--;
	leave_name(t, n->name);
	HASH_DELETE(hh, t->nodes, n);
	free(n);
}

void wrep_tree_clear(struct wrep_tree *t)
{
	struct wrep_tree_name *name, *next_name;
	struct wrep_tree_node *n, *next;

	HASH_ITER(hh, t->names, name, next_name)
	leave_name(t, name);
	HASH_ITER(hh, t->nodes, n, next)
	{
		HASH_DELETE(hh, t->nodes, n);
		free(n);
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
	struct wrep_tree_node *n;

	HASH_FIND(hh, t->nodes, &id, sizeof(id), n);
	return n;
}

struct wrep_tree_node *wrep_tree_find_path(const struct wrep_tree *t, const char *path)
{
	struct wrep_tree_name *name;

	HASH_FIND(hh, t->names, path, strlen(path), name);
	return name ? name->node : NULL;
}

uint64_t wrep_tree_parent(const struct wrep_tree *t, uint64_t id)
{
	const struct wrep_tree_node *n = wrep_tree_find(t, id);

	return n && n->parent ? n->parent->id : 0;
}

void wrep_tree_each(const struct wrep_tree *t, void (*each)(void *arg, struct wrep_tree_node *n),
		    void *arg)
{
	for (struct wrep_tree_node *n = t->nodes; n; n = n->hh.next)
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

int wrep_tree_add(struct wrep_tree *t, uint64_t id, const char *path, bool is_dir)
{
	struct wrep_tree_node *parent, *n;
	struct wrep_tree_name *name;
	int rc = find_parent(t, path, &parent);

	if (rc)
		return rc;
	if (wrep_tree_find_path(t, path) || wrep_tree_find(t, id))
		return -EEXIST;
	n = calloc(1, sizeof *n);
	name = n ? enter_name(t, path, n) : NULL;
	if (!name) {
		free(n);
		return -ENOMEM;
	}
	n->id = id;
	n->is_dir = is_dir;
	HASH_ADD(hh, t->nodes, id, sizeof(n->id), n);
	if (!n->hh.tbl) {
		leave_name(t, name);
		free(n);
		return -ENOMEM;
	}
	set_name(n, name, parent);
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
	struct wrep_tree_name *name;
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
	name = enter_name(t, path, n);
	if (!name)
		return -ENOMEM;
	if (there) {
		*replaced = there->id;
		remove_node(t, there);
	}
	if (n->parent)
		n->parent->children--;
	leave_name(t, n->name);
	set_name(n, name, parent);
	return 1;
}
