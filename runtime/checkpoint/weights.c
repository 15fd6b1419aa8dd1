/* weights.c: the parameters of a model from whatever directory has them, and the settings that lie beside
 * them.
 *
 * A file has all the first names of the model's parameters or all the second ones; which, the first
 * parameter that is there decides. Everything is checked before the first byte of state changes, so a
 * refused file leaves no mixture. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 20, KEYS_MOST = 1 << 20 };

typedef struct {
    Env *env;
    const StateView *v;
    const char *model, *prefix;
    const StSet *set;
    bool missing_init;
    Arena *a;
    NameStyle style;
    const char **used; /* names in the file that parameters took */
    uint32_t nused;
    Diags *d;
} Load;

static bool is_param(const Load *l, uint32_t i) {
    const PlanState *s = &l->v->row[i];
    return state_is(s, "param") && !strcmp(s->model, l->model);
}

static const StTensor *find(const Load *l, const PlanState *s, NameStyle style, StFile **file) {
    const char *name = arena_fmt(l->a, "%s%s", l->prefix, state_name(s, style));
    return name ? st_set_find(l->set, name, file) : NULL;
}

/* The first parameter found under either name decides; the first name wins where both are there. */
static NameStyle detect(const Load *l) {
    for (uint32_t i = 0; i < l->v->n; i++) {
        if (!is_param(l, i)) continue;
        const PlanState *s = &l->v->row[i];
        if (!strcmp(state_name(s, NAMES_META), state_name(s, NAMES_HF))) continue; /* says nothing */
        if (find(l, s, NAMES_META, NULL)) return NAMES_META;
        if (find(l, s, NAMES_HF, NULL)) return NAMES_HF;
    }
    return NAMES_META;
}

static const char *source(const Load *l) {
    return l->set->n ? shown(l->d, st_path(l->set->file[0])) : "the weights";
}

static bool missing(const Load *l, const PlanState *s) {
    NameStyle other = l->style == NAMES_HF ? NAMES_META : NAMES_HF;
    Diag *g = diag_add(l->d, D010, NOLOC, "%s: parameter '%s%s' of model '%s' is not there", source(l),
                       l->prefix, state_name(s, l->style), l->model);
    if (find(l, s, other, NULL))
        diag_help(
            l->d, g,
            "'%s%s' is there: a file must have all names as Meta spells them or all as Hugging Face does",
            l->prefix, state_name(s, other));
    else
        diag_help(l->d, g,
                  "models.%s.missing: init starts what is missing from its initial value; models.%s.prefix "
                  "goes before each name",
                  l->model, l->model);
    return false;
}

static const char *shape_text(Arena *a, const int64_t *shape, uint32_t n) {
    Sbuf b;
    sb_init(&b, a);
    sb_chr(&b, '[');
    for (uint32_t i = 0; i < n; i++) sb_fmt(&b, "%s%lld", i ? ", " : "", (long long)shape[i]);
    sb_chr(&b, ']');
    return b.failed ? "?" : b.s;
}

static bool check_shape(const Load *l, const PlanState *s, const StTensor *t, const StFile *file) {
    int64_t shape[PLAN_MAX_DIMS];
    uint32_t n;
    RealDType from;
    state_stored_shape(s, shape, &n);
    bool same = n == t->ndim;
    for (uint32_t i = 0; same && i < n; i++) same = shape[i] == t->shape[i];
    if (!same)
        return diag_fail(l->d, D011, NOLOC, "%s: '%s' has the shape %s, model '%s' declares %s",
                         shown(l->d, st_path(file)), shown(l->d, t->name),
                         shape_text(l->a, t->shape, t->ndim), l->model, shape_text(l->a, shape, n));
    if (real_dtype(t->dtype, &from)) return true;
    return diag_fail(l->d, D011, NOLOC, "%s: '%s' is %s; parameters are read from F64, F32, BF16 and F16",
                     shown(l->d, st_path(file)), shown(l->d, t->name), t->dtype);
}

static bool check_all(Load *l) {
    bool ok = true;
    uint32_t count = 0;
    for (uint32_t i = 0; i < l->v->n; i++) count += is_param(l, i);
    l->used = NEWN(l->a, const char *, count + 1);
    if (!l->used) return diag_fail(l->d, R006, NOLOC, "no memory to load model '%s'", l->model);
    for (uint32_t i = 0; i < l->v->n; i++) {
        StFile *file = NULL;
        if (!is_param(l, i)) continue;
        const PlanState *s = &l->v->row[i];
        const StTensor *t = find(l, s, l->style, &file);
        if (!t) {
            ok = (l->missing_init || missing(l, s)) && ok;
            continue;
        }
        l->used[l->nused++] = t->name;
        ok = check_shape(l, s, t, file) && ok;
    }
    return ok;
}

/* Straight into memory, piece by piece, where the orders agree. */
static bool load_in_order(StFile *file, const StTensor *t, RealDType from, RealDType to, char *mem,
                          char *piece, Diags *d) {
    int64_t count = (t->end - t->begin) / from.bytes, step = CHUNK / from.bytes;
    for (int64_t at = 0; at < count; at += step) {
        int64_t n = count - at < step ? count - at : step;
        if (!st_read(file, t, piece, at * from.bytes, n * from.bytes, d)) return false;
        reals_convert(from, piece, to, mem + at * to.bytes, n);
    }
    return true;
}

bool row_load(Env *env, const PlanState *s, NameStyle style, StFile *file, const StTensor *t, void *mem,
              Diags *d) {
    RealDType from = {0, false}, to = {plan_dtype_bytes[s->dtype], s->dtype == PD_BF16};
    bool ordered = state_as_stored(s, style), real = real_dtype(t->dtype, &from);
    bool same = !strcmp(t->dtype, state_dtype_text(s->dtype));
    if (same && ordered) return st_read(file, t, mem, 0, t->end - t->begin, d);
    if (!same && (!real || s->dtype > PD_BF16))
        return diag_fail(d, I001, NOLOC, "'%s' cannot be read as %s", t->name, state_dtype_text(s->dtype));
    int64_t whole = state_bytes(s) > 0 ? state_bytes(s) : 1;
    char *piece = same ? NULL : env->alloc(env, CHUNK);
    char *stored = ordered ? NULL : env->alloc(env, (size_t)whole);
    bool ok = (same || piece) && (ordered || stored);
    if (!ok) (void)diag_fail(d, R006, NOLOC, "no memory to read '%s'", shown(d, t->name));
    if (ok && same)
        ok = st_read(file, t, stored, 0, t->end - t->begin, d);
    else if (ok)
        ok = load_in_order(file, t, from, to, ordered ? mem : stored, piece, d);
    if (ok && !ordered) state_from_stored(s, style, stored, mem);
    env->free(env, piece);
    env->free(env, stored);
    return ok;
}

static int by_text(const void *x, const void *y) {
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

/* Names under the prefix that no parameter took, in byte order. */
static bool list_extra(Load *l, const char ***extra, uint32_t *nextra) {
    const StTensor **all = NULL;
    uint32_t n = st_set_list(l->set, l->a, &all), k = 0;
    *nextra = 0;
    *extra = NEWN(l->a, const char *, n + 1);
    if (!all || !*extra) return diag_fail(l->d, R006, NOLOC, "no memory to load model '%s'", l->model);
    if (l->nused) qsort(l->used, l->nused, sizeof *l->used, by_text);
    for (uint32_t i = 0; i < n; i++) {
        while (k < l->nused && strcmp(l->used[k], all[i]->name) < 0) k++;
        if (k < l->nused && !strcmp(l->used[k], all[i]->name)) continue;
        if (strncmp(all[i]->name, l->prefix, strlen(l->prefix))) continue;
        const char *copy = arena_str(l->a, all[i]->name, strlen(all[i]->name));
        if (!copy) return diag_fail(l->d, R006, NOLOC, "no memory to load model '%s'", l->model);
        (*extra)[(*nextra)++] = copy;
    }
    return true;
}

bool weights_load_view(Env *env, const StateView *v, const char *model, const StSet *set, const char *prefix,
                       bool missing_init, Arena *a, NameStyle *names, const char ***extra, uint32_t *nextra,
                       Diags *d) {
    Load l = {.env = env,
              .v = v,
              .model = model,
              .prefix = prefix ? prefix : "",
              .set = set,
              .missing_init = missing_init,
              .a = a,
              .d = d};
    l.style = detect(&l);
    if (names) *names = l.style;
    if (!check_all(&l)) return false;
    for (uint32_t i = 0; i < v->n; i++) {
        StFile *file = NULL;
        if (!is_param(&l, i)) continue;
        const StTensor *t = find(&l, &v->row[i], l.style, &file);
        if (t && !row_load(env, &v->row[i], l.style, file, t, v->mem(v->ctx, i), d)) return false;
    }
    return !extra || list_extra(&l, extra, nextra);
}

bool weights_load(Exec *e, const Plan *p, const char *model, const StSet *set, const char *prefix,
                  bool missing_init, Arena *a, const char ***extra, uint32_t *nextra, Diags *d) {
    StateView v = exec_view(e, p);
    return weights_load_view(arena_env(a), &v, model, set, prefix, missing_init, a, NULL, extra, nextra, d);
}

/* ---- params.json and config.json */

typedef struct {
    Arena *a;
    ModelKey *key;
    uint32_t n, cap;
    bool failed;
} Keys;

static void flatten(Keys *k, const Json *j, const char *prefix) {
    const Json *v = NULL;
    const char *name;
    for (size_t i = 0; (name = json_key_at(j, i, &v)); i++) {
        JsonKind kind = json_kind(v);
        const char *key = arena_fmt(k->a, "%s%s%s", prefix, *prefix ? "." : "", name);
        k->failed |= !key;
        if (k->failed) return;
        if (kind == J_OBJECT) flatten(k, v, key);
        if (kind != J_BOOL && kind != J_INT && kind != J_REAL && kind != J_STRING) continue;
        GROW(k->a, k->key, k->n, k->cap);
        size_t len = 0;
        const char *text = json_string(v, &len);
        ModelKey row = {
            .key = key, .kind = kind, .num = kind == J_BOOL ? json_bool(v) : json_real(v), .i = json_int(v)};
        if (text) row.str = arena_str(k->a, text, len);
        k->failed |= k->n >= k->cap || (text && !row.str);
        if (k->failed) return;
        k->key[k->n++] = row;
    }
}

static const char *beside(Env *env, Arena *a, const char *path, const char *name) {
    EnvStat st;
    int err = 0;
    const char *slash = strrchr(path, '/');
    bool dir = env->stat(env, path, &st, &err) == 0 && st.is_dir;
    const char *file = dir     ? join(a, path, name)
                       : slash ? arena_fmt(a, "%.*s/%s", (int)(slash - path), path, name)
                               : name;
    return file && env->stat(env, file, &st, &err) == 0 && st.is_file ? file : NULL;
}

bool model_keys_read(Env *env, Arena *a, const char *path, const char *prefer, ModelKey **key, uint32_t *nkey,
                     const char **file, Diags *d) {
    const char *name[2] = {"params.json", "config.json"};
    int first = prefer && !strcmp(prefer, name[1]);
    char *text = NULL;
    size_t len = 0;
    *key = NULL;
    *nkey = 0;
    *file = beside(env, a, path, name[first]);
    if (!*file) *file = beside(env, a, path, name[!first]);
    if (!*file) return true;
    if (!file_read_all(env, a, *file, KEYS_MOST, &text, &len, d)) return false;
    Json *j = json_parse(text, len, *file, 1, ST_DEPTH_MOST, d, D001);
    if (!j) return false;
    Keys k = {.a = a};
    bool ok = json_kind(j) == J_OBJECT || diag_fail(d, D001, NOLOC, "%s: not a JSON object", shown(d, *file));
    if (ok) flatten(&k, j, "");
    json_free(j);
    if (ok && k.failed) ok = diag_fail(d, R006, NOLOC, "no memory to read %s", *file);
    *key = k.key;
    *nkey = k.n;
    return ok;
}
