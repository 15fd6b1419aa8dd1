/* tree.h: private to cli/config/: what a YAML file says, with the place of every node. */
#ifndef WM_CONFIG_TREE_H
#define WM_CONFIG_TREE_H

#include "cli/config/config.h"

typedef enum { T_MAP, T_LIST, T_SCALAR } TreeKind;
typedef struct Tree Tree;
struct Tree {
    TreeKind kind;
    const char *key;  /* in a map; else "" */
    const char *text; /* T_SCALAR */
    bool quoted;      /* written with quotes: a string whatever it looks like */
    enum { REF_NONE, REF_BUSY, REF_DONE, REF_BAD } refs; /* how far ${..} in text is */
    Loc loc, key_loc;
    const char *origin; /* "rho1.yaml:2", "command line" */
    const char *was;    /* what it replaced: "0.6, rho1.yaml:2"; NULL */
    Tree **item;
    uint32_t n, cap;
};

/* Parses one file; NULL with C001 (syntax, anchors, tags, duplicate keys, limits). */
Tree *yaml_parse(Arena *a, const char *file, const char *text, size_t len, Diags *d);
Tree *tree_new(Arena *a, TreeKind kind, const char *key, Loc loc, const char *origin);
Tree *tree_get(const Tree *t, const char *key);     /* child of a map; NULL */
Tree *tree_path(const Tree *t, const char *dotted); /* NULL */
void tree_add(Arena *a, Tree *t, Tree *child);
void tree_merge(Arena *a, Tree *into,
                const Tree *from); /* maps merge, the rest is replaced (and remembered in was) */

/* Known keys (schema.c). false with C002 or C003. Before `expanded`, a text with ${..} has no type yet. */
bool schema_check(Arena *a, const Tree *root, bool expanded, Diags *d);
const ConfigKey *schema_find(const char *path);
/* ${a.b} and ${env:NAME,default} in every scalar. */
bool interpolate(Arena *a, Env *env, Tree *root, Diags *d);
/* Numbers with %, and sizes with Ki Mi Gi Ti. */
bool scalar_number(const char *text, double *v);

#endif
