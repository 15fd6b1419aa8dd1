/* yaml.c: libyaml's events to a tree. Anchors, aliases, tags and several documents are refused: a
 * configuration needs none, and they are how small files become large. Limits: 1 MiB, depth 64, 100,000
 * nodes, scalars of 64 KiB. */
#include "cli/config/tree.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { MAX_BYTES = 1 << 20, MAX_DEPTH = 64, MAX_NODES = 100000, MAX_KEYS = 4096, MAX_SCALAR = 64 << 10 };

typedef struct {
    Arena *a;
    const char *file;
    Diags *d;
    yaml_parser_t p;
    int nodes;
} Reader;

Tree *tree_new(Arena *a, TreeKind kind, const char *key, Loc loc, const char *origin) {
    Tree *t = NEW(a, Tree);
    *t = (Tree){.kind = kind, .key = key, .text = "", .loc = loc, .key_loc = loc, .origin = origin};
    return t;
}

Tree *tree_get(const Tree *t, const char *key) {
    for (uint32_t i = 0; t && t->kind == T_MAP && i < t->n; i++)
        if (strcmp(t->item[i]->key, key) == 0) return t->item[i];
    return NULL;
}

Tree *tree_path(const Tree *t, const char *dotted) {
    char part[256];
    Tree *at = NULL;
    for (const Tree *up = t; *dotted; up = at) {
        const char *dot = strchr(dotted, '.');
        size_t n = dot ? (size_t)(dot - dotted) : strlen(dotted);
        if (n >= sizeof part) return NULL;
        memcpy(part, dotted, n);
        part[n] = 0;
        if (!(at = tree_get(up, part))) return NULL;
        dotted += n + (dot != NULL);
    }
    return at;
}

void tree_add(Arena *a, Tree *t, Tree *child) {
    GROW(a, t->item, t->n, t->cap);
    t->item[t->n++] = child;
}

void tree_merge(Arena *a, Tree *into, const Tree *from) {
    for (uint32_t i = 0; i < from->n; i++) {
        Tree *x = from->item[i], *old = tree_get(into, x->key);
        if (old && old->kind == T_MAP && x->kind == T_MAP) {
            tree_merge(a, old, x);
            continue;
        }
        Tree *copy = arena_copy(a, x, sizeof *x);
        if (!old) {
            tree_add(a, into, copy);
            continue;
        }
        copy->was = strcmp(old->origin, "default") == 0 ? NULL
                    : old->kind == T_SCALAR             ? arena_fmt(a, "%s, %s", old->text, old->origin)
                                                        : old->origin;
        *old = *copy;
    }
}

static Loc place(const Reader *r, yaml_mark_t m, yaml_mark_t end) {
    size_t len = end.line == m.line && end.column > m.column ? end.column - m.column : 1;
    return (Loc){r->file, (uint32_t)m.line + 1, (uint32_t)m.column + 1, (uint32_t)m.index, (uint32_t)len};
}

static Tree *refuse(Reader *r, yaml_event_t *e, const char *what) {
    diag_add(r->d, C001, place(r, e->start_mark, e->end_mark), "%s", what);
    yaml_event_delete(e);
    return NULL;
}

static bool next(Reader *r, yaml_event_t *e) {
    if (yaml_parser_parse(&r->p, e)) return true;
    yaml_mark_t m = r->p.problem_mark;
    Loc loc = {r->file, (uint32_t)m.line + 1, (uint32_t)m.column + 1, (uint32_t)r->p.problem_offset, 1};
    return diag_fail(r->d, C001, loc, "%s", r->p.problem ? r->p.problem : "this is no YAML");
}

static Tree *value(Reader *r, yaml_event_t *e, int depth);

static bool map_item(Reader *r, yaml_event_t *e, Tree *t, int depth) {
    if (e->type != YAML_SCALAR_EVENT) return refuse(r, e, "a key is a word") != NULL;
    if (t->n == MAX_KEYS)
        return refuse(r, e, "more than 4096 keys in one map") != NULL; /* they are searched one by one */
    Loc loc = place(r, e->start_mark, e->end_mark);
    const char *key = arena_str(r->a, (const char *)e->data.scalar.value, e->data.scalar.length);
    const Tree *before = tree_get(t, key);
    yaml_event_delete(e);
    if (before) {
        Diag *g = diag_add(r->d, C001, loc, "`%s` stands here twice", key);
        diag_span(r->d, g, before->key_loc, "first here");
        return false;
    }
    if (!next(r, e)) return false;
    Tree *x = value(r, e, depth + 1);
    if (!x) return false;
    x->key = key;
    x->key_loc = loc;
    tree_add(r->a, t, x);
    return true;
}

/* Takes over e (deletes it). */
static Tree *value(Reader *r, yaml_event_t *e, int depth) {
    if (depth > MAX_DEPTH) return refuse(r, e, "nested deeper than 64 levels");
    if (++r->nodes > MAX_NODES) return refuse(r, e, "more than 100,000 nodes");
    if (e->type == YAML_ALIAS_EVENT) return refuse(r, e, "aliases (*name) are not used in configurations");
    bool map = e->type == YAML_MAPPING_START_EVENT, list = e->type == YAML_SEQUENCE_START_EVENT;
    if (!map && !list && e->type != YAML_SCALAR_EVENT) return refuse(r, e, "a value is missing here");
    const yaml_char_t *anchor = map    ? e->data.mapping_start.anchor
                                : list ? e->data.sequence_start.anchor
                                       : e->data.scalar.anchor;
    const yaml_char_t *tag = map    ? e->data.mapping_start.tag
                             : list ? e->data.sequence_start.tag
                                    : e->data.scalar.tag;
    if (anchor) return refuse(r, e, "anchors (&name) are not used in configurations");
    if (tag) return refuse(r, e, "tags (!name) are not used in configurations");
    Loc loc = place(r, e->start_mark, e->end_mark);
    Tree *t = tree_new(r->a,
                       map    ? T_MAP
                       : list ? T_LIST
                              : T_SCALAR,
                       "", loc, arena_fmt(r->a, "%s:%u", r->file, loc.line));
    if (!map && !list) {
        if (e->data.scalar.length > MAX_SCALAR) return refuse(r, e, "a value of more than 64 KiB");
        if (memchr(e->data.scalar.value, 0, e->data.scalar.length))
            return refuse(r, e, "a NUL byte in a value");
        t->text = arena_str(r->a, (const char *)e->data.scalar.value, e->data.scalar.length);
        t->quoted = e->data.scalar.style == YAML_SINGLE_QUOTED_SCALAR_STYLE ||
                    e->data.scalar.style == YAML_DOUBLE_QUOTED_SCALAR_STYLE;
        yaml_event_delete(e);
        return t;
    }
    yaml_event_delete(e);
    for (;;) {
        if (!next(r, e)) return NULL;
        if (e->type == YAML_MAPPING_END_EVENT || e->type == YAML_SEQUENCE_END_EVENT) break;
        if (map) {
            if (!map_item(r, e, t, depth)) return NULL;
            continue;
        }
        Tree *x = value(r, e, depth + 1);
        if (!x) return NULL;
        tree_add(r->a, t, x);
    }
    yaml_event_delete(e);
    return t;
}

static Tree *document(Reader *r) {
    yaml_event_t e;
    Tree *root = NULL;
    for (;;) {
        if (!next(r, &e)) return NULL;
        if (e.type == YAML_STREAM_END_EVENT) break;
        if (e.type == YAML_DOCUMENT_START_EVENT && root)
            return refuse(r, &e, "a second document in one file");
        if (e.type == YAML_STREAM_START_EVENT || e.type == YAML_DOCUMENT_START_EVENT ||
            e.type == YAML_DOCUMENT_END_EVENT) {
            yaml_event_delete(&e);
            continue;
        }
        if (e.type != YAML_MAPPING_START_EVENT) return refuse(r, &e, "a configuration is a map of keys");
        if (!(root = value(r, &e, 0))) return NULL;
    }
    yaml_event_delete(&e);
    return root ? root : tree_new(r->a, T_MAP, "", (Loc){.file = r->file, .line = 1, .col = 1}, r->file);
}

Tree *yaml_parse(Arena *a, const char *file, const char *text, size_t len, Diags *d) {
    Reader r = {.a = a, .file = file, .d = d};
    size_t bad;
    if (len > MAX_BYTES) {
        diag_add(d, C001, (Loc){.file = file, .line = 1, .col = 1},
                 "%zu bytes; a configuration has at most 1 MiB", len);
        return NULL;
    }
    if (!text_utf8_ok(text, len, &bad)) {
        diag_add(d, C001, (Loc){.file = file, .line = 1, .col = 1, .at = (uint32_t)bad},
                 "byte %zu is not UTF-8", bad);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.p)) {
        diag_add(d, R006, NOLOC, "%s: out of memory", file);
        return NULL;
    }
    yaml_parser_set_encoding(&r.p, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.p, (const unsigned char *)text, len);
    Tree *t = document(&r);
    yaml_parser_delete(&r.p);
    return t;
}
