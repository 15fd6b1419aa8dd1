/* Random graphs through every pass: the evaluator gives the same results before and after (bits for exact
 * passes), the text round-trips, and gradients are those of central differences. */
#include "tests/passes/pass_test.h"

typedef struct {
    Arena *a;
    Diags *d;
    uint64_t seed;
    double **last;
} Watch;

static void after_pass(void *ctx, int index, const char *pass, const Graph *before, const Graph *after) {
    Watch *w = ctx;
    double **v = evaluate(w->a, after, w->seed, w->d);
    same_results(w->a, before, w->last, after, v, pass_table[index].exact ? 0 : 1e-10, pass, w->seed);
    w->last = v;
}

/* Random ops read the seed without an operand for it: its leaf must survive to the plan. */
static void numbers_there(const Graph *g, uint64_t seed) {
    bool draws = false, there = false;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        draws |= n->op == OP_uniform || n->op == OP_normal || n->op == OP_shuffle;
        there |= n->op == OP_scalar && !strcmp(attr_str(g, n, "name"), "seed");
    }
    cr_assert(!draws || there, "seed %llu: a random op without the seed of the run",
              (unsigned long long)seed);
}

static void all_passes(Arena *a, Diags *d, uint64_t seed) {
    Graph *g = random_graph(a, seed, false);
    cr_assert(graph_verify(g, false, d), "seed %llu: %s", (unsigned long long)seed, first_diag(d));
    Watch w = {a, d, seed, evaluate(a, g, seed, d)};
    PassOptions o = {.real = DT_F64,
                     .keep_grads = true,
                     .check_roundtrip = true,
                     .after = after_pass,
                     .ctx = &w,
                     .off_linear_ce = seed % 5 == 4,
                     .off_classes = seed % 7 == 6,
                     .off_simplify = seed % 11 == 10};
    if (seed % 3 == 0) o.real = DT_F32;
    Graph *out = passes_run(a, g, &o, d);
    cr_assert(out != NULL, "seed %llu: %s", (unsigned long long)seed, first_diag(d));
    cr_assert_eq(out->stage, ST_PLANNED);
    numbers_there(out, seed);
}

static void range(uint64_t from, uint64_t to, void (*fn)(Arena *, Diags *, uint64_t)) {
    for (uint64_t s = from; s < to; s++) guarded(fn, s);
}

Test(random, passes_0) {
    range(0, 500, all_passes);
}
Test(random, passes_1) {
    range(500, 1000, all_passes);
}
Test(random, passes_2) {
    range(1000, 1500, all_passes);
}
Test(random, passes_3) {
    range(1500, 2000, all_passes);
}
Test(random, passes_4) {
    range(2000, 2500, all_passes);
}

/* ---- gradients */
static double total_of(Arena *a, const Graph *g, uint64_t seed, const char *bump, int64_t at, double by,
                       Diags *d) {
    RandomLeaves l = {seed, bump, at, by};
    EvalInput in = {random_leaf, &l, 11, 2};
    ValueId t = graph_find_result(g, "total", "loss")->v;
    double **v = graph_eval(a, g, &in, &t, 1, d);
    cr_assert(v != NULL, "evaluation failed: %s", first_diag(d));
    return v[t.i][0];
}

static void gradients(Arena *a, Diags *d, uint64_t seed) {
    Graph *g = random_graph(a, seed, true);
    PassOptions o = {.real = DT_F64,
                     .stop_after = "autodiff",
                     .off_linear_ce = seed % 4 == 3,
                     .off_classes = seed % 2 == 1};
    Graph *t = passes_run(a, g, &o, d);
    cr_assert(t != NULL, "seed %llu: %s", (unsigned long long)seed, first_diag(d));
    double **v = evaluate(a, t, seed, d);
    for (uint32_t i = 0; i < t->nresult; i++) {
        const Result *r = &t->result[i];
        if (strcmp(r->kind, "grad")) continue;
        const char *name = strchr(r->name, '/') + 1;
        int64_t n = type_count(t, value_type(t, r->v));
        for (int64_t k = 0; k < n && k < 4; k++) {
            int64_t at = k * 7 % n;
            double h = 1e-5, hi = total_of(a, g, seed, name, at, h, d),
                   lo = total_of(a, g, seed, name, at, -h, d);
            double want = (hi - lo) / (2 * h), got = v[r->v.i][at];
            bool ok = fabs(want - got) <= 1e-6 * (1 + fabs(want));
            if (!ok) print_graph(a, g);
            cr_assert(ok, "seed %llu: d total / d %s[%lld] is %.12g, differences give %.12g",
                      (unsigned long long)seed, name, (long long)at, got, want);
        }
    }
}
Test(random, gradients_0) {
    range(0, 150, gradients);
}
Test(random, gradients_1) {
    range(150, 300, gradients);
}

/* Form A and linear_ce, classes on and off: one gradient. */
static void same_gradient(Arena *a, Diags *d, uint64_t seed) {
    Graph *g = random_graph(a, seed, false), *t[4];
    for (int i = 0; i < 4; i++) {
        PassOptions o = {.real = DT_F64,
                         .stop_after = "form",
                         .keep_grads = true,
                         .off_linear_ce = i & 1,
                         .off_classes = i & 2};
        t[i] = passes_run(a, g, &o, d);
        cr_assert(t[i] != NULL, "seed %llu: %s", (unsigned long long)seed, first_diag(d));
    }
    double **v = evaluate(a, t[0], seed, d);
    for (int i = 1; i < 4; i++)
        same_results(a, t[0], v, t[i], evaluate(a, t[i], seed, d), 1e-10, "another form", seed);
}
Test(random, forms) {
    range(3000, 3300, same_gradient);
}
