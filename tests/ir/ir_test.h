/* ir_test.h: a guarded arena per test, and short ways to make graphs and read diagnostics. */
#ifndef IR_TEST_H
#define IR_TEST_H
#include "ir/ir.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Arena *a;
    Diags *d;
    void (*fn)(Arena *a, Diags *d);
} TestRun;
static inline bool test_body(void *ctx, Guard *g) {
    TestRun *t = ctx;
    t->a = arena_open(env_posix(), g);
    t->fn(t->a, t->d);
    return true;
}
/* Runs fn under a guard; an escape fails the test and shows why. */
static inline void under_guard(void (*fn)(Arena *a, Diags *d)) {
    TestRun t = {NULL, diags_open(env_posix()), fn};
    bool ok = guard_run(test_body, &t, t.d);
    cr_assert(ok, "escaped: %s", t.d->n ? t.d->item[0]->text : "?");
    if (t.a) arena_close(t.a);
    diags_close(t.d);
}
#define IR_TEST(suite, name)                                                                                 \
    static void suite##_##name##_fn(Arena *a, Diags *d);                                                     \
    Test(suite, name) {                                                                                      \
        under_guard(suite##_##name##_fn);                                                                    \
    }                                                                                                        \
    static void suite##_##name##_fn(Arena *a, Diags *d)

/* A graph over the dims a3 b4 k4 v7 s6 d4 q4 h2 and micro2, batch2. */
static inline Graph *small_graph(Arena *a, Stage stage) {
    static const struct {
        const char *name;
        int64_t size;
    } dims[] = {{"micro", 2}, {"batch", 2}, {"a", 3}, {"b", 4}, {"k", 4},
                {"v", 7},     {"s", 6},     {"d", 4}, {"q", 4}, {"h", 2}};
    Graph *g = graph_new(a, "test", stage);
    for (size_t k = 0; k < WM_LEN(dims); k++) graph_dim(g, dims[k].name, dims[k].size);
    graph_find_dim(g, "micro", &g->micro);
    graph_find_dim(g, "batch", &g->batch);
    return g;
}
static inline DimId dim_of(const Graph *g, const char *name) {
    DimId d = {UINT32_MAX};
    cr_assert(graph_find_dim(g, name, &d), "dim %s", name);
    return d;
}
/* "f32[a,b]" */
static inline Type type_of(const Graph *g, const char *text) {
    Type t = {0};
    const char *p = strchr(text, '[');
    for (int k = 0; k < NDTYPE; k++)
        if (strlen(dtype_name[k]) == (size_t)(p - text) &&
            strncmp(dtype_name[k], text, (size_t)(p - text)) == 0)
            t.dt = (DType)k;
    for (p++; *p != ']';) {
        char name[32] = {0};
        size_t n = strcspn(p, ",]");
        memcpy(name, p, n);
        t.dim[t.ndim++] = dim_of(g, name);
        p += n + (p[n] == ',');
    }
    return t;
}
static inline ValueId input_of(Graph *g, const char *name, const char *type) {
    Attr at = at_str(g, name);
    return build_leaf(g, OP_input, type_of(g, type), &at, 1);
}
static inline const char *shown(const Graph *g, ValueId v) {
    return type_text(g->arena, g, value_type(g, v));
}
#endif
