/* schema.c: known keys and their types; ${..}. */
#include "cli/config/tree.h"

#include <float.h>
#include <math.h>
#include <string.h>

const ConfigKey config_key[] = {
#define KEY(path, type, dflt, where, help) {path, #type, dflt, #where, help},
#include "cli/config/schema.def"
#undef KEY
};
const uint32_t config_nkey = WM_LEN(config_key);

const ConfigKey *schema_find(const char *path) {
    for (uint32_t i = 0; i < config_nkey; i++)
        if (strcmp(config_key[i].path, path) == 0) return &config_key[i];
    return NULL;
}

bool scalar_number(const char *text, double *v) {
    static const struct {
        const char *end;
        double by;
    } unit[] = {
        {"%", 0.01}, {"Ki", 1024.0}, {"Mi", 1048576.0}, {"Gi", 1073741824.0}, {"Ti", 1099511627776.0}};
    char plain[128];
    size_t n = strlen(text), k = 0;
    double by = 1;
    for (size_t i = 0; i < WM_LEN(unit); i++) {
        size_t m = strlen(unit[i].end);
        if (n > m && strcmp(text + n - m, unit[i].end) == 0) {
            by = unit[i].by;
            n -= m;
            break;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '_') continue;
        if (k + 1 >= sizeof plain) return false;
        plain[k++] = text[i];
    }
    if (!text_double(plain, k, v)) return false;
    *v = by == 0.01 ? *v / 100 : *v * by;
    return true;
}

static bool typed(const ConfigKey *k, const Tree *t, bool expanded, Diags *d) {
    double v;
    bool list = strcmp(k->type, "LIST") == 0;
    if (t->kind == T_MAP || (t->kind == T_LIST) != list)
        return diag_fail(d, C003, t->loc, "`%s` is %s", k->path, list ? "a list" : "a single value");
    if (list || strcmp(k->type, "STR") == 0 || (!expanded && strstr(t->text, "${"))) return true;
    if (strcmp(k->type, "BOOL") == 0)
        return strcmp(t->text, "true") == 0 || strcmp(t->text, "false") == 0 ||
               diag_fail(d, C003, t->loc, "`%s` is true or false, not '%s'", k->path, t->text);
    bool whole = strcmp(k->type, "INT") == 0;
    if (t->text[0] == 0 && k->dflt[0] == 0) return true;
    if (!scalar_number(t->text, &v) || !(v >= 0 && v <= DBL_MAX) ||
        (whole && !(v <= 0x1p53 && v == floor(v))))
        return diag_fail(d, C003, t->loc, "`%s` is a %snumber from 0 on, not '%s'", k->path,
                         whole ? "whole " : "", t->text);
    return true;
}

static bool unknown(Arena *a, const Tree *t, const char *path, Diags *d) {
    const char *name[WM_LEN(config_key) * 2 + 8];
    size_t n = 0, up = strrchr(path, '.') ? (size_t)(strrchr(path, '.') - path) + 1 : 0;
    for (uint32_t i = 0; i < config_nkey; i++) {
        if (strncmp(config_key[i].path, path, up) != 0) continue;
        const char *rest = config_key[i].path + up, *dot = strchr(rest, '.');
        name[n++] = arena_str(a, rest, dot ? (size_t)(dot - rest) : strlen(rest));
    }
    if (up == 0) name[n++] = "models", name[n++] = "defaults";
    Diag *g = diag_add(d, C002, t->key_loc, "unknown key `%s`", path);
    const char *near = text_nearest(path + up, name, n);
    if (near)
        diag_help(d, g, "did you mean `%.*s%s`?", (int)up, path, near);
    else
        diag_help(d, g, "keys of your own start with x-; `wmtpc help config` lists the others");
    if (near) diag_fix(d, g, t->key_loc, false, "%s", near);
    return false;
}

static bool is_section(const char *path) {
    size_t n = strlen(path);
    for (uint32_t i = 0; i < config_nkey; i++)
        if (strncmp(config_key[i].path, path, n) == 0 && config_key[i].path[n] == '.') return true;
    return false;
}

static bool check(Arena *a, const Tree *t, const char *path, bool expanded, Diags *d) {
    bool ok = true;
    for (uint32_t i = 0; i < t->n; i++) {
        const Tree *x = t->item[i];
        const char *p = path[0] ? arena_fmt(a, "%s.%s", path, x->key) : x->key;
        const ConfigKey *k = schema_find(p);
        if (strncmp(x->key, "x-", 2) == 0 || strcmp(p, "defaults") == 0) continue;
        if (k) {
            ok = typed(k, x, expanded, d) && ok;
        } else if (strcmp(path, "graph") == 0) { /* hyper-parameters: the graph knows them */
            if (x->kind != T_SCALAR) ok = diag_fail(d, C003, x->loc, "`%s` is a single value", p);
        } else if (strcmp(p, "models") == 0 || (strcmp(path, "models") == 0)) {
            if (x->kind != T_MAP)
                ok = diag_fail(d, C003, x->loc, "`%s` is a map", p);
            else if (strcmp(p, "models") == 0)
                ok = check(a, x, p, expanded, d) && ok;
        } else if (is_section(p)) {
            ok = x->kind == T_MAP ? check(a, x, p, expanded, d) && ok
                                  : diag_fail(d, C003, x->loc, "`%s` is a map of keys", p);
        } else {
            ok = unknown(a, x, p, d);
        }
    }
    return ok;
}

bool schema_check(Arena *a, const Tree *root, bool expanded, Diags *d) {
    return check(a, root, "", expanded, d);
}

/* Every text is expanded once and then kept, so that the work grows with the file alone; what comes out is
 * bounded. */
enum { MAX_DEPTH = 64, MAX_EXPANDED = 1 << 20 };
typedef struct {
    Arena *a;
    Env *env;
    Tree *root;
    Diags *d;
    size_t bytes;
} Inter;

static const char *expand(Inter *x, const Tree *at, const char *text, int depth);

static const char *refuse(Inter *x, const Tree *at, const char *name, const char *why) {
    diag_add(x->d, C003, at->loc, "${%s}%s%s", name, why[0] == ':' ? "" : " ", why);
    return NULL;
}

static const char *expand_node(Inter *x, const Tree *at, Tree *t, const char *name, int depth) {
    if (t->refs == REF_BUSY) return refuse(x, at, name, "refers to itself");
    if (depth > MAX_DEPTH) return refuse(x, at, name, "is the end of a chain of more than 64 references");
    if (t->refs == REF_DONE) return t->text;
    if (t->refs == REF_BAD) return NULL; /* has been reported */
    t->refs = REF_BUSY;
    const char *s = expand(x, t, t->text, depth + 1);
    t->refs = s ? REF_DONE : REF_BAD;
    return s ? (t->text = s) : NULL;
}

static const char *lookup(Inter *x, const Tree *at, const char *name, int depth) {
    if (strncmp(name, "env:", 4) == 0 || strncmp(name, "oc.env:", 7) == 0) {
        const char *var = strchr(name, ':') + 1, *comma = strchr(var, ',');
        const char *key = arena_str(x->a, var, comma ? (size_t)(comma - var) : strlen(var));
        const char *v = x->env->getenv(x->env, key);
        size_t bad;
        if (v && !text_utf8_ok(v, strlen(v), &bad)) return refuse(x, at, name, "is not UTF-8");
        if (v) return arena_str(x->a, v, strlen(v));
        if (comma) return comma + 1;
        diag_add(x->d, C003, at->loc, "the environment has no %s; ${env:%s,DEFAULT} gives a default", key,
                 key);
        return NULL;
    }
    Tree *t = tree_path(x->root, name);
    const ConfigKey *k = schema_find(name);
    if (t && t->kind == T_SCALAR) return expand_node(x, at, t, name, depth);
    if (!t && k) return expand(x, at, k->dflt, depth + 1);
    return refuse(x, at, name, ": there is no such key");
}

static const char *expand(Inter *x, const Tree *at, const char *text, int depth) {
    const char *open = strstr(text, "${");
    if (!open) return text;
    Sbuf b;
    sb_init(&b, x->a);
    for (; open; open = strstr(text, "${")) {
        const char *close = strchr(open, '}');
        if (!close) {
            diag_add(x->d, C003, at->loc, "${ without }");
            return NULL;
        }
        sb_put(&b, text, (size_t)(open - text));
        const char *name = arena_str(x->a, open + 2, (size_t)(close - open) - 2),
                   *v = lookup(x, at, name, depth);
        if (!v) return NULL;
        x->bytes += strlen(v);
        if (x->bytes > MAX_EXPANDED)
            return refuse(x, at, name, "is too much: references make at most 1 MiB of text");
        sb_str(&b, v);
        text = close + 1;
    }
    sb_str(&b, text);
    if (!strstr(b.s, "${")) return b.s;
    diag_add(x->d, C003, at->loc, "what stands for ${..} here makes ${ again; references are expanded once");
    return NULL;
}

static bool walk(Inter *x, Tree *t) {
    if (t->kind == T_SCALAR) return expand_node(x, t, t, "", 0) != NULL;
    bool ok = true;
    for (uint32_t i = 0; i < t->n; i++) ok = walk(x, t->item[i]) && ok;
    return ok;
}

bool interpolate(Arena *a, Env *env, Tree *root, Diags *d) {
    Inter x = {a, env, root, d, 0};
    return walk(&x, root);
}
