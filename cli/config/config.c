/* config.c: layers, overrides, typed reading, and `config show`. */
#include "cli/config/tree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct Config {
    Arena *a;
    Tree *root;
    const char **dflt; /* interpolated defaults, by row of the schema */
    Setting *hyper;
    uint32_t nhyper, hyper_cap;
    ConfigModel *model;
    uint32_t nmodel, model_cap;
};

static Tree *load_file(Arena *a, Env *env, const char *path, int depth, Diags *d) {
    char *text;
    size_t len;
    if (depth > 8) {
        diag_add(d, C003, NOLOC, "%s: `defaults` go deeper than 8 files, or round in a circle", path);
        return NULL;
    }
    if (!file_read_all(env, a, path, 1 << 21, &text, &len, d)) return NULL;
    diag_source(d, path, text, len);
    Tree *t = yaml_parse(a, path, text, len, d), *root, *list;
    if (!t || !schema_check(a, t, false, d)) return NULL;
    if (!(list = tree_get(t, "defaults"))) return t;
    if (list->kind != T_LIST) {
        diag_add(d, C003, list->loc, "`defaults` is a list of files");
        return NULL;
    }
    root = tree_new(a, T_MAP, "", t->loc, t->origin);
    const char *slash = strrchr(path, '/');
    for (uint32_t i = 0; i < list->n; i++) {
        const char *f = list->item[i]->text;
        if (list->item[i]->kind != T_SCALAR || !f[0]) {
            diag_add(d, C003, list->item[i]->loc, "`defaults` is a list of files");
            return NULL;
        }
        if (slash && f[0] != '/') f = arena_fmt(a, "%.*s%s", (int)(slash - path) + 1, path, f);
        Tree *base = load_file(a, env, f, depth + 1, d);
        if (!base) return NULL;
        tree_merge(a, root, base);
    }
    tree_merge(a, root, t);
    return root;
}

/* key=value: a map as deep as the key has dots. */
static bool add_override(Arena *a, Tree *root, const char *text, Diags *d) {
    const char *eq = strchr(text, '=');
    if (!eq || eq == text) return diag_fail(d, R007, NOLOC, "'%s' is not of the form key=value", text);
    const char *key = arena_str(a, text, (size_t)(eq - text));
    if (!strchr(key, '.')) key = arena_fmt(a, "graph.%s", key);
    const char *file = "command line";
    size_t len = strlen(text), n = strlen(key);
    diag_source(d, file, arena_fmt(a, "%s\n", text), len + 1);
    Loc loc = {file, 1, 1, 0, (uint32_t)(eq - text)},
        vloc = {file, 1, (uint32_t)(eq - text) + 2, (uint32_t)(eq - text) + 1, (uint32_t)strlen(eq + 1)};
    Tree *v = NULL;
    if (eq[1] == '[') {
        Tree *t = yaml_parse(a, file, arena_fmt(a, "v: %s\n", eq + 1), strlen(eq + 1) + 4, d);
        if (!t) return false;
        v = tree_get(t, "v");
    } else {
        v = tree_new(a, T_SCALAR, "", vloc, file);
        v->text = eq + 1;
    }
    v->loc = vloc;
    v->key_loc = loc;
    v->origin = file;
    for (size_t end = n; n > 0;) { /* from the last part to the first */
        while (n > 0 && key[n - 1] != '.') n--;
        v->key = arena_str(a, key + n, end - n);
        Tree *up = tree_new(a, T_MAP, "", loc, file);
        tree_add(a, up, v);
        v = up;
        if (n > 0) end = --n;
    }
    if (!schema_check(a, v, false, d)) return false;
    tree_merge(a, root, v);
    return true;
}

static Setting setting_of(const char *key, const Tree *t) {
    Setting s = {key, {VAL_STRING, 0, t->text, false}, t->origin};
    double v;
    if (t->quoted) return s;
    if (strcmp(t->text, "true") == 0 || strcmp(t->text, "false") == 0)
        s.v = (ConstValue){VAL_BOOL, t->text[0] == 't', NULL, false};
    else if (scalar_number(t->text, &v) && !isnan(v))
        s.v = (ConstValue){VAL_NUMBER, v, NULL, !strpbrk(t->text, ".eE%") && v == floor(v)};
    return s;
}

static bool read_model(Config *c, const Tree *t, Diags *d) {
    GROW(c->a, c->model, c->nmodel, c->model_cap);
    ConfigModel *m = &c->model[c->nmodel++];
    *m = (ConfigModel){.name = t->key, .path = "", .prefix = "", .missing = "", .loc = t->key_loc};
    Setting *set = NEWN(c->a, Setting, t->n + 1);
    m->set = set;
    Loc *at = NEWN(c->a, Loc, t->n + 1);
    m->set_loc = at;
    for (uint32_t i = 0; i < t->n; i++) {
        const Tree *x = t->item[i];
        if (strcmp(x->key, "ignore") == 0 && x->kind == T_LIST) {
            const char **name = NEWN(c->a, const char *, x->n + 1);
            for (uint32_t k = 0; k < x->n; k++) name[k] = x->item[k]->text;
            m->ignore = name;
            m->nignore = x->n;
        } else if (x->kind != T_SCALAR) {
            return diag_fail(d, C003, x->loc, "`models.%s.%s` is a single value", t->key, x->key);
        } else if (strcmp(x->key, "path") == 0)
            m->path = x->text;
        else if (strcmp(x->key, "prefix") == 0)
            m->prefix = x->text;
        else if (strcmp(x->key, "missing") == 0)
            m->missing = x->text;
        else {
            at[m->nset] = x->key_loc;
            set[m->nset++] = setting_of(x->key, x);
        }
    }
    if (m->missing[0] && strcmp(m->missing, "init") != 0)
        return diag_fail(d, C003, tree_get(t, "missing")->loc, "`models.%s.missing` is init or not set",
                         t->key);
    return true;
}

static bool finish(Config *c, Env *env, Diags *d) {
    if (!interpolate(c->a, env, c->root, d) || !schema_check(c->a, c->root, true, d)) return false;
    Tree *g = tree_get(c->root, "graph"), *models = tree_get(c->root, "models");
    for (uint32_t i = 0; g && i < g->n; i++) {
        if (strcmp(g->item[i]->key, "file") == 0) continue;
        GROW(c->a, c->hyper, c->nhyper, c->hyper_cap);
        c->hyper[c->nhyper++] = setting_of(g->item[i]->key, g->item[i]);
    }
    for (uint32_t i = 0; models && i < models->n; i++)
        if (!read_model(c, models->item[i], d)) return false;
    c->dflt = NEWN(c->a, const char *, config_nkey);
    for (uint32_t i = 0; i < config_nkey; i++) {
        Tree *t = tree_new(c->a, T_MAP, "", NOLOC, ""), *x = tree_new(c->a, T_SCALAR, "v", NOLOC, "default");
        x->text = config_key[i].dflt;
        tree_merge(c->a, t, c->root);
        tree_add(c->a, t, x);
        if (strstr(x->text, "${") && !interpolate(c->a, env, t, d)) return false;
        c->dflt[i] = tree_get(t, "v")->text;
    }
    return true;
}

Config *config_load(Arena *a, Env *env, const char *path, const char *const *override, uint32_t n, Diags *d) {
    Config *c = NEW(a, Config);
    c->a = a;
    Tree *file = path ? load_file(a, env, path, 0, d) : NULL;
    if (path && !file) return NULL;
    c->root = tree_new(a, T_MAP, "", NOLOC, "");
    if (file) tree_merge(a, c->root, file);
    bool ok = true;
    for (uint32_t i = 0; i < n; i++) ok = add_override(a, c->root, override[i], d) && ok;
    return ok && finish(c, env, d) ? c : NULL;
}

static const char *text_at(const Config *c, const char *key) {
    const Tree *t = tree_path(c->root, key);
    const ConfigKey *k = schema_find(key);
    wm_check(c->a, k, "configuration key %s is not in the schema", key);
    return t && t->kind == T_SCALAR ? t->text : c->dflt[k - config_key];
}

double config_num(const Config *c, const char *key) {
    double v = 0;
    scalar_number(text_at(c, key), &v);
    return v;
}
int64_t config_int(const Config *c, const char *key) {
    return (int64_t)config_num(c, key);
}
bool config_bool(const Config *c, const char *key) {
    return strcmp(text_at(c, key), "true") == 0;
}
const char *config_str(const Config *c, const char *key) {
    return text_at(c, key);
}
bool config_is_set(const Config *c, const char *key) {
    return tree_path(c->root, key) != NULL;
}
const char *config_origin(const Config *c, const char *key) {
    const Tree *t = tree_path(c->root, key);
    return t ? t->origin : "default";
}
Loc config_loc(const Config *c, const char *key) {
    const Tree *t = tree_path(c->root, key);
    return t ? t->loc : NOLOC;
}
const Setting *config_hypers(const Config *c, uint32_t *n) {
    return *n = c->nhyper, c->hyper;
}
const ConfigModel *config_models(const Config *c, uint32_t *n) {
    return *n = c->nmodel, c->model;
}
const ConfigModel *config_model(const Config *c, const char *name) {
    for (uint32_t i = 0; i < c->nmodel; i++)
        if (strcmp(c->model[i].name, name) == 0) return &c->model[i];
    return NULL;
}

bool config_rows(const Config *c, Arena *a, const char *key, double **v, uint32_t *nrow, uint32_t *ncol,
                 Diags *d) {
    const Tree *t = tree_path(c->root, key);
    *nrow = *ncol = 0;
    if (!t || t->n == 0) return true;
    bool nested = t->item[0]->kind == T_LIST;
    *nrow = nested ? t->n : 1;
    *ncol = nested ? t->item[0]->n : t->n;
    *v = NEWN(a, double, *nrow **ncol + 1);
    for (uint32_t i = 0; i < *nrow; i++) {
        const Tree *row = nested ? t->item[i] : t;
        if (nested && (row->kind != T_LIST || row->n != *ncol))
            return diag_fail(d, C003, row->loc, "the rows of `%s` are lists of %u numbers", key, *ncol);
        for (uint32_t k = 0; k < *ncol; k++)
            if (row->item[k]->kind != T_SCALAR || !scalar_number(row->item[k]->text, &(*v)[i * *ncol + k]))
                return diag_fail(d, C003, row->item[k]->loc, "`%s` holds numbers", key);
    }
    return true;
}

/* Characters that YAML ends lines with or refuses, as code points; 0: the bytes at s may stand as they are.
 */
static unsigned special(const char *s, int *len) {
    const unsigned char *u = (const unsigned char *)s;
    *len = 1;
    if (u[0] < 32 || u[0] == 127) return u[0];
    if (u[0] == 0xc2 && u[1] < 0xa0) return *len = 2, u[1];
    *len = 3;
    if (u[0] == 0xe2 && u[1] == 0x80 && (u[2] == 0xa8 || u[2] == 0xa9)) return 0x2000u + u[2] - 0x80;
    if (u[0] == 0xef && u[1] == 0xbb && u[2] == 0xbf) return 0xfeff;
    if (u[0] == 0xef && u[1] == 0xbf && u[2] >= 0xbe) return 0xffc0u + u[2] - 0x80;
    return 0;
}

/* Between double quotes: single quotes cannot hold line ends and other special characters. */
static void put_escaped(Sbuf *o, const char *s) {
    sb_chr(o, '"');
    for (int len; *s;) {
        unsigned c = special(s, &len);
        if (c)
            sb_fmt(o, "\\u%04x", c), s += len;
        else {
            if (*s == '"' || *s == '\\') sb_chr(o, '\\');
            sb_chr(o, *s++);
        }
    }
    sb_chr(o, '"');
}

static bool letter_or_digit(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void put_text(Sbuf *o, const char *text, bool quoted) {
    bool plain = text[0] != 0 && !quoted, control = false;
    for (const char *s = text; *s; s++) {
        plain = plain && (letter_or_digit(*s) || strchr("._-/%+", *s));
        control = control || (unsigned char)*s < 32 || (unsigned char)*s >= 127;
    }
    if (text[0] == '%' || (text[0] == '-' && !letter_or_digit(text[1])) || strncmp(text, "...", 3) == 0)
        plain = false;
    if (plain)
        sb_str(o, text);
    else if (control)
        put_escaped(o, text);
    else {
        sb_chr(o, '\'');
        for (const char *s = text; *s; s++) sb_put(o, *s == '\'' ? "''" : s, *s == '\'' ? 2 : 1);
        sb_chr(o, '\'');
    }
}

static void put_flow(Sbuf *o, const Tree *t) {
    if (t->kind == T_SCALAR) {
        put_text(o, t->text, t->quoted);
        return;
    }
    sb_chr(o, t->kind == T_MAP ? '{' : '[');
    for (uint32_t i = 0; i < t->n; i++) {
        if (i) sb_str(o, ", ");
        if (t->kind == T_MAP) {
            put_text(o, t->item[i]->key, false);
            sb_str(o, ": ");
        }
        put_flow(o, t->item[i]);
    }
    sb_chr(o, t->kind == T_MAP ? '}' : ']');
}

static void show(Sbuf *o, const Tree *t, int depth) {
    for (uint32_t i = 0; i < t->n; i++) {
        const Tree *x = t->item[i];
        if (depth == 0 && strcmp(x->key, "defaults") == 0) continue;
        size_t start = o->len;
        sb_fmt(o, "%*s", depth * 2, "");
        put_text(o, x->key, false);
        sb_chr(o, ':');
        if (x->kind == T_MAP) {
            sb_str(o, x->n ? "\n" : " {}\n");
            show(o, x, depth + 1);
            continue;
        }
        sb_chr(o, ' ');
        put_flow(o, x);
        int pad = 44 - (int)(o->len - start);
        sb_fmt(o, "%*s  # %s", pad > 0 ? pad : 0, "", text_escape(o->a, x->origin, strlen(x->origin)));
        if (x->was) sb_fmt(o, "; was %s", text_escape(o->a, x->was, strlen(x->was)));
        sb_chr(o, '\n');
    }
}

void config_show(const Config *c, Sbuf *out, bool with_defaults) {
    Tree *all = tree_new(c->a, T_MAP, "", NOLOC, "");
    for (uint32_t i = 0; with_defaults && i < config_nkey; i++) {
        const char *p = config_key[i].path, *dot = strchr(p, '.');
        if (!c->dflt[i][0] || strcmp(config_key[i].type, "LIST") == 0) continue;
        Tree *m = tree_new(c->a, T_MAP, arena_str(c->a, p, (size_t)(dot - p)), NOLOC, ""),
             *top = tree_new(c->a, T_MAP, "", NOLOC, "");
        Tree *x = tree_new(c->a, T_SCALAR, dot + 1, NOLOC, "default");
        x->text = c->dflt[i];
        tree_add(c->a, m, x);
        tree_add(c->a, top, m);
        tree_merge(c->a, all, top);
    }
    Tree *mine = tree_new(c->a, T_MAP, "", NOLOC, "");
    tree_merge(c->a, mine, c->root);
    tree_merge(c->a, all, mine);
    sb_put(out, "", 0);
    show(out, all, 0);
}
