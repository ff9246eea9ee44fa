/* The names in the mount as the log says them: databases and directories, each known by the index of the
 * entry that made it. Private to walrepl.
 *
 * Every rule about names is here: what may be made, removed and renamed depends on the tree alone, so on
 * nothing but the log, and every node decides alike. state.c asks for each entry. One thread at a time.
 */
#ifndef WALREPL_TREE_H
#define WALREPL_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include "hash.h"

struct wrep_tree;

struct wrep_tree_node {
	uint64_t id;
	const char *path; /* in `name` */
	bool is_dir;
	void *data;		       /* the owner's; NULL at first */
	struct wrep_tree_node *parent; /* NULL: at the top */
	unsigned children;	       /* of a directory */
	struct wrep_tree_name *name;   /* name_tree.c */
	UT_hash_handle hh;	       /* by id */
};

struct wrep_tree *wrep_tree_new(void); /* NULL: out of memory */
void wrep_tree_free(struct wrep_tree *t);
void wrep_tree_clear(struct wrep_tree *t);
/* NULL when there is none. */
struct wrep_tree_node *wrep_tree_find(const struct wrep_tree *t, uint64_t id);
struct wrep_tree_node *wrep_tree_find_path(const struct wrep_tree *t, const char *path);
/* The directory that `id` is in; 0: the top, or there is no such node. */
uint64_t wrep_tree_parent(const struct wrep_tree *t, uint64_t id);
/* Calls `each` for every node, in no order; it may not change the tree. */
void wrep_tree_each(const struct wrep_tree *t, void (*each)(void *arg, struct wrep_tree_node *n),
		    void *arg);

/* A database or a directory is made. 0; -ENOENT: there is no such directory; -ENOTDIR: it is a database;
 * -EEXIST: the name, or the id, is taken; -ENOMEM. */
int wrep_tree_add(struct wrep_tree *t, uint64_t id, const char *path, bool is_dir);
/* It goes. 0, -ENOENT, -ENOTEMPTY. */
int wrep_tree_remove(struct wrep_tree *t, uint64_t id);
/* A database gets another name, and takes the place of the one that has it, if any: `*replaced` is its
 * id then, else 0. 1; 0: it is called so already; -ENOENT (the database, or the directory), -ENOTDIR;
 * -EISDIR: the name is a directory's; -EEXIST: it is taken, with `keep`; -EXDEV: a directory; -ENOMEM. */
int wrep_tree_rename(struct wrep_tree *t, uint64_t id, const char *path, bool keep,
		     uint64_t *replaced);

#endif
