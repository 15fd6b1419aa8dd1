/* lower_case.h: a recorded case (tests/cases/NAME) lowered and put through the reference evaluator. */
#ifndef LOWER_CASE_H
#define LOWER_CASE_H

#include "frontend/frontend.h"
#include "runtime/runtime.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Arena *a;
    Diags *d;
    const Json *c;
    StFile *weights, *batches;
    const char *dir;
    int64_t step;
} Case;

static inline double *read_f64(Case *x, StFile *f, const char *name, int64_t *count) {
    const StTensor *t = st_find(f, name);
    if (!t) return NULL;
    int64_t bytes = t->end - t->begin;
    char *raw = arena_alloc(x->a, (wm_size)bytes);
    if (!st_read(f, t, raw, 0, bytes, x->d)) return NULL;
    *count = bytes / (strcmp(t->dtype, "BOOL") ? 8 : 1);
    double *v = NEWN(x->a, double, *count);
    for (int64_t i = 0; i < *count; i++)
        v[i] = !strcmp(t->dtype, "I64")   ? (double)((int64_t *)raw)[i]
               : !strcmp(t->dtype, "F64") ? ((double *)raw)[i]
                                          : (double)raw[i];
    return v;
}

static inline bool case_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    Case *x = ctx;
    const char *name = attr_str(g, n, "name");
    if (n->op == OP_state) {
        for (int64_t i = 0; i < count; i++) out[i] = attr_float(g, n, "init");
        return true;
    }
    if (n->op == OP_scalar) {
        *out = strcmp(name, "steps") ? (double)x->step : 1000;
        return true;
    }
    if (n->op == OP_input && !strcmp(name, "present")) {
        for (int64_t i = 0; i < count; i++) out[i] = 1;
        return true;
    }
    const char *key = arena_fmt(x->a, "%s.%lld", name, (long long)x->step);
    if (n->op == OP_param) {
        const Json *prefix = json_get(json_get(x->c, "prefix"), attr_str(g, n, "model"));
        key = arena_fmt(x->a, "%s%s", prefix ? json_string(prefix, NULL) : "", name);
    }
    int64_t have = 0;
    double *v = read_f64(x, n->op == OP_param ? x->weights : x->batches, key, &have);
    if (!v || have != count) return false;
    memcpy(out, v, (size_t)count * sizeof *out);
    return true;
}

typedef struct {
    Setting *item;
    uint32_t n, cap;
} Settings;

static inline void add_setting(Case *x, Settings *s, const char *key, const Json *v) {
    ConstValue c = {VAL_NUMBER, 0, NULL, false};
    JsonKind k = json_kind(v);
    if (k == J_STRING)
        c = (ConstValue){VAL_STRING, 0, json_string(v, NULL), false};
    else if (k == J_BOOL)
        c = (ConstValue){VAL_BOOL, json_bool(v), NULL, false};
    else if (k == J_INT)
        c = (ConstValue){VAL_NUMBER, (double)json_int(v), NULL, true};
    else if (k == J_REAL)
        c = (ConstValue){VAL_NUMBER, json_real(v), NULL, false};
    else
        return;
    GROW(x->a, s->item, s->n, s->cap);
    s->item[s->n++] = (Setting){key, c, "case.json"};
}

static inline Settings settings_of_json(Case *x, const Json *j) {
    Settings s = {0};
    for (size_t i = 0; i < json_size(j); i++) {
        const Json *v;
        const char *key = json_key_at(j, i, &v);
        add_setting(x, &s, key, v);
    }
    return s;
}

static inline void case_open(Case *x, Arena *a, const char *name, Diags *d) {
    Env *env = env_posix();
    *x = (Case){.a = a, .d = d, .dir = arena_fmt(a, "%s/tests/cases/%s", WM_SOURCE_DIR, name)};
    char *text;
    size_t len;
    const char *json = arena_fmt(a, "%s/case.json", x->dir);
    cr_assert(file_read_all(env, a, json, 1 << 24, &text, &len, d));
    x->c = json_parse(text, len, json, 1, 32, d, D001);
    cr_assert_not_null(x->c);
    x->weights = st_open(env, arena_fmt(a, "%s/weights.safetensors", x->dir), d);
    x->batches = st_open(env, arena_fmt(a, "%s/batches.safetensors", x->dir), d);
    cr_assert(x->weights && x->batches);
}

static inline ModelSource case_source(Case *x, const char *model) {
    const Json *cfg = json_get(x->c, "model"), *prefix = json_get(json_get(x->c, "prefix"), model);
    if (!strcmp(model, "ref")) cfg = json_get(cfg, "reference");
    Settings s = settings_of_json(x, cfg);
    ModelSource m = {.model = model,
                     .json = s.item,
                     .njson = s.n,
                     .json_path = "case.json",
                     .has_weights = true,
                     .prefix = ""};
    if (prefix) m.prefix = json_string(prefix, NULL);
    StoredShape *shape = NEWN(x->a, StoredShape, st_count(x->weights) + 1);
    for (uint32_t i = 0; i < st_count(x->weights); i++) {
        const StTensor *t = st_tensor(x->weights, i);
        shape[i].name = t->name;
        shape[i].ndim = t->ndim;
        memcpy(shape[i].shape, t->shape, sizeof shape[i].shape);
    }
    m.stored = shape;
    m.nstored = st_count(x->weights);
    return m;
}

static inline Graph *case_lower(Case *x, const char *const *want, uint32_t nwant, GraphInfo *info) {
    static const char *const path[] = {WM_SOURCE_DIR "/graphs"};
    Settings h = settings_of_json(x, json_get(x->c, "hyper"));
    ModelSource m[3] = {case_source(x, "policy"), case_source(x, "value"), case_source(x, "ref")};
    LowerOptions o = {.phase = "train",
                      .micro = json_int(json_get(x->c, "micro_batches")),
                      .batch = json_int(json_get(x->c, "batch")),
                      .seq = json_int(json_get(x->c, "seq")),
                      .hyper = h.item,
                      .nhyper = h.n,
                      .model = m,
                      .nmodel = 3,
                      .path = path,
                      .npath = 1,
                      .want = want,
                      .nwant = nwant};
    const char *file =
        arena_fmt(x->a, "%s/graphs/%s.wg", WM_SOURCE_DIR, json_string(json_get(x->c, "graph"), NULL));
    return frontend_lower(x->a, file, &o, info, x->d);
}

#endif
