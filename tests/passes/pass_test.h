/* pass_test.h: a guarded arena per test, evaluation of a graph on named leaves, comparison of results. */
#ifndef PASS_TEST_H
#define PASS_TEST_H
#include "tests/passes/random_graph.h"

#include <criterion/criterion.h>
#include <stdio.h>

typedef struct {
    Arena *a;
    Diags *d;
    void (*fn)(Arena *a, Diags *d, uint64_t seed);
    uint64_t seed;
} PassRun;
static inline bool pass_body(void *ctx, Guard *g) {
    PassRun *t = ctx;
    t->a = arena_open(env_posix(), g);
    t->fn(t->a, t->d, t->seed);
    return true;
}
/* Runs fn under a guard; an escape fails the test and shows why. */
static inline void guarded(void (*fn)(Arena *a, Diags *d, uint64_t seed), uint64_t seed) {
    PassRun t = {NULL, diags_open(env_posix()), fn, seed};
    bool ok = guard_run(pass_body, &t, t.d);
    cr_assert(ok, "seed %llu escaped: %s", (unsigned long long)seed, t.d->n ? t.d->item[0]->text : "?");
    if (t.a) arena_close(t.a);
    diags_close(t.d);
}
static inline const char *first_diag(const Diags *d) {
    return d->n ? d->item[0]->text : "no diagnostics";
}
static inline double **evaluate(Arena *a, const Graph *g, uint64_t seed, Diags *d) {
    RandomLeaves l = {.seed = seed};
    EvalInput in = {random_leaf, &l, 11, 2};
    double **v = graph_eval(a, g, &in, NULL, 0, d);
    cr_assert(v != NULL, "seed %llu: evaluation failed: %s", (unsigned long long)seed, first_diag(d));
    return v;
}
static inline void print_graph(Arena *a, const Graph *g) {
    Sbuf b;
    sb_init(&b, a);
    graph_print(g, &b, false);
    fprintf(stderr, "%s\n", b.s);
}
/* Results that both graphs have, equal to within tol (0: bits). */
static inline void same_results(Arena *a, const Graph *x, double **vx, const Graph *y, double **vy,
                                double tol, const char *what, uint64_t seed) {
    uint32_t shared = 0;
    for (uint32_t i = 0; i < x->nresult; i++) {
        const Result *r = &x->result[i], *s = graph_find_result(y, r->kind, r->name);
        if (!s) continue;
        shared++;
        int64_t n = type_count(x, value_type(x, r->v));
        cr_assert_eq(n, type_count(y, value_type(y, s->v)), "%s %s has another size", r->kind, r->name);
        for (int64_t k = 0; k < n; k++) {
            double p = vx[r->v.i][k], q = vy[s->v.i][k];
            bool same = p == q || (isnan(p) && isnan(q)) || fabs(p - q) <= tol * (1 + fmax(fabs(p), fabs(q)));
            if (!same) {
                print_graph(a, x);
                print_graph(a, y);
            }
            cr_assert(same, "seed %llu: %s changed %s %s at %lld: %.17g became %.17g",
                      (unsigned long long)seed, what, r->kind, r->name, (long long)k, p, q);
        }
    }
    cr_assert(shared > 0, "%s: no result in common", what);
}
#endif
