/* Random training steps as kernels: passes, plan, compiler and executor against the evaluator in f64 at
 * 1e-10. The evaluator runs the graph without simplification, fused losses or classes: what the kernels owe
 * to no rewriting. Losses, metrics, values, gradients and next states are compared for 1 to 5 micro-batches;
 * then again on the same executor, and on another number of threads: the same bits. Some graphs also without
 * fusion, schedule or memory plan. */
#include "tests/passes/pass_test.h"

#include "codegen/codegen.h"
#include "runtime/runtime.h"

#include <stdlib.h>
#include <unistd.h>

enum { PER_CALL = 20, SEED = 11, STEP = 2, STEPS = 100, THREADS = 3 };
typedef struct {
    uint64_t seed;
    int off;
    Graph *ref, *math;
    Plan plan;
    KernelSource *source;
    KernelFn *fn;
} Case;
typedef struct {
    uint64_t from, to;
    bool offs; /* each graph four times: all passes, and without one */
    Diags *d;
    Arena *a;
    Toolchain tool;
    char dir[64];
    Cache *cache;
    Device *dev[2]; /* THREADS threads, one thread */
} World;

static Graph *graph_of(Arena *a, uint64_t seed) {
    static const RandomShape shape[] = {
        {2, 4, 4, 5, 3, 6, 10}, {3, 5, 6, 19, 9, 4, 8}, {2, 7, 16, 33, 17, 4, 6}};
    return random_graph_of(a, seed, false, shape[seed % WM_LEN(shape)]);
}
/* Data reach the device as f32: numbers that f32 holds. */
static bool leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    if (!random_leaf(ctx, g, n, out, count)) return false;
    for (int64_t i = 0; i < count; i++) out[i] = (double)(float)out[i];
    return true;
}
static double **numbers(World *w, const Graph *g, uint64_t seed) {
    RandomLeaves l = {.seed = seed};
    EvalInput in = {leaf, &l, SEED, STEP};
    double **v = graph_eval(w->a, g, &in, NULL, 0, w->d);
    cr_assert(v != NULL, "seed %llu: %s", (unsigned long long)seed, first_diag(w->d));
    return v;
}

static void make_case(World *w, Case *c, uint64_t seed, int off) {
    PassOptions all = {.real = DT_F64,
                       .keep_grads = true,
                       .off_fuse = off == 1,
                       .off_schedule = off == 2,
                       .off_memplan = off == 3};
    PassOptions plain = {.real = DT_F64,
                         .keep_grads = true,
                         .stop_after = "optim",
                         .off_simplify = true,
                         .off_linear_ce = true,
                         .off_classes = true};
    all.off_linear_ce = seed % 7 == 6;
    *c = (Case){.seed = seed, .off = off, .math = graph_of(w->a, seed)};
    Graph *planned = passes_run(w->a, c->math, &all, w->d);
    c->ref = planned ? passes_run(w->a, c->math, &plain, w->d) : NULL;
    EmitInput in = {.train = planned, .level = cpu_level(), .seq = 4};
    cr_assert(c->ref && codegen_emit(w->a, &in, &c->plan, &c->source, w->d) &&
                  plan_check(&c->plan, "random", w->d),
              "seed %llu: %s", (unsigned long long)seed, first_diag(w->d));
}

/* All kernels of the cases in one call: the compiler sees equal ones once, and many at a time. */
static void compile(World *w, Case *c, uint32_t n) {
    uint32_t total = 0, at = 0;
    for (uint32_t i = 0; i < n; i++) total += c[i].plan.nkernel;
    KernelSource *source = NEWN(w->a, KernelSource, total);
    KernelFn *fn = NEWN(w->a, KernelFn, total);
    for (uint32_t i = 0; i < n; at += c[i++].plan.nkernel) {
        c[i].fn = fn + at;
        memcpy(source + at, c[i].source, c[i].plan.nkernel * sizeof *source);
    }
    cr_assert(cache_get(w->cache, source, total, fn, NULL, w->d), "%s", first_diag(w->d));
}

static const char *state_name(Arena *a, const PlanState *s) {
    if (strcmp(s->role, "param") == 0) return arena_fmt(a, "%s/%s", s->model, s->name);
    return strcmp(s->role, "user") == 0 ? s->name : arena_fmt(a, "%s.%s/%s", s->role, s->model, s->name);
}
static int find_state(World *w, const Plan *p, const char *name) {
    for (uint32_t i = 0; i < p->nstate; i++)
        if (strcmp(state_name(w->a, &p->state[i]), name) == 0) return (int)i;
    return -1;
}
static void put(PlanDType dt, void *to, int64_t i, double v) {
    cr_assert(dt != PD_BF16);
    if (dt == PD_F64)
        ((double *)to)[i] = v;
    else if (dt == PD_F32)
        ((float *)to)[i] = (float)v;
    else if (dt == PD_I32)
        ((int32_t *)to)[i] = (int32_t)v;
    else
        ((unsigned char *)to)[i] = v != 0;
}
static double get(PlanDType dt, const void *from, int64_t i) {
    cr_assert(dt != PD_BF16);
    if (dt == PD_F64) return ((const double *)from)[i];
    if (dt == PD_F32) return (double)((const float *)from)[i];
    return dt == PD_I32 ? (double)((const int32_t *)from)[i] : (double)((const unsigned char *)from)[i];
}

/* Leaves of the reference graph into the executor's states and inputs. */
static void fill(World *w, const Case *c, Exec *e, double **v) {
    const Graph *g = c->ref;
    const PlanProgram *p = &c->plan.program[0];
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (n->op != OP_param && n->op != OP_state && n->op != OP_input) continue;
        const char *name = attr_str(g, n, "name");
        int64_t count = type_count(g, &g->value[n->out0].ty);
        const double *x = v[n->out0];
        if (n->op == OP_input) {
            count /= p->micro;
            for (uint32_t k = 0; k < p->ninput; k++)
                for (int64_t m = 0; m < p->micro && strcmp(p->input[k].name, name) == 0; m++)
                    for (int64_t j = 0; j < count; j++)
                        put(p->input[k].dtype, exec_input(e, 0, name, m), j, x[m * count + j]);
            continue;
        }
        int row = find_state(
            w, &c->plan, n->op == OP_param ? arena_fmt(w->a, "%s/%s", attr_str(g, n, "model"), name) : name);
        for (int64_t j = 0; row >= 0 && j < count; j++)
            put(c->plan.state[row].dtype, exec_state_ptr(e, (uint32_t)row), j, x[j]);
    }
}

static void near(const Case *c, const Result *r, int64_t at, double got, double want) {
    bool same = got == want || (isnan(got) && isnan(want)) || fabs(got - want) <= 1e-10 * (1 + fabs(want));
    cr_assert(same, "seed %llu: %s %s [%lld] is %.17g, not %.17g", (unsigned long long)c->seed, r->kind,
              r->name, (long long)at, got, want);
}
/* Element i of an output in row-major order, micro-batches first. */
static double output(const PlanOutput *o, const void *data, int64_t i, int64_t each) {
    const unsigned char *base = data;
    if (!o->per_micro) return get(o->dtype, data, i);
    return get(o->dtype, base + (i / each) * o->at.stride, i % each);
}
/* A parameter whose gradient simplification finds to be 0 is not trained: no gradient, no next values. */
static bool untrained(const Case *c, Exec *e, const char *name, double **v) {
    const char *param = strncmp(name, "exp_avg", 7) ? name : strchr(name, '.') + 1;
    const Result *r = graph_find_result(c->ref, "grad", param);
    const void *data;
    if (!r || exec_output(e, 0, "grad", param, &data)) return false;
    int64_t n = type_count(c->ref, value_type(c->ref, r->v));
    for (int64_t i = 0; i < n; i++) near(c, r, i, 0, v[r->v.i][i]);
    return true;
}
static uint32_t compare(World *w, const Case *c, Exec *e, double **v) {
    const Graph *g = c->ref;
    uint32_t seen = 0;
    for (uint32_t k = 0; k < g->nresult; k++) {
        const Result *r = &g->result[k];
        bool next = !strcmp(r->kind, "next");
        int64_t n = type_count(g, value_type(g, r->v));
        const void *data = NULL;
        const PlanOutput *o = next ? NULL : exec_output(e, 0, r->kind, r->name, &data);
        if ((next || !strcmp(r->kind, "grad")) && untrained(c, e, r->name, v)) continue;
        int row = next ? find_state(w, &c->plan, r->name) : -1;
        cr_assert(o || row >= 0, "seed %llu: no %s %s", (unsigned long long)c->seed, r->kind, r->name);
        for (int64_t i = 0; i < n; i++) {
            double got = next ? get(c->plan.state[row].dtype, exec_state_ptr(e, (uint32_t)row), i)
                              : output(o, data, i, n / c->plan.program[0].micro);
            near(c, r, i, got, v[r->v.i][i]);
        }
        seen++;
    }
    return seen;
}
/* Over everything that a step leaves: states and outputs. */
static uint64_t bits(const Case *c, Exec *e) {
    const Plan *p = &c->plan;
    uint64_t h = 7;
    for (uint32_t k = 0; k < p->nstate; k++) {
        int64_t n = 1;
        for (uint32_t i = 0; i < p->state[k].ndim; i++) n *= p->state[k].size[i];
        for (int64_t i = 0; i < n; i++) {
            double x = get(p->state[k].dtype, exec_state_ptr(e, k), i);
            h = h * 31 + hash_bytes(&x, sizeof x);
        }
    }
    for (uint32_t k = 0; k < p->program[0].noutput; k++) {
        const void *data = NULL;
        const PlanOutput *o =
            exec_output(e, 0, p->program[0].output[k].kind, p->program[0].output[k].name, &data);
        int64_t n = 1;
        for (uint32_t i = 0; i < o->ndim; i++) n *= o->size[i];
        for (int64_t i = 0; i < n * (o->per_micro ? p->program[0].micro : 1); i++) {
            double x = output(o, data, i, n);
            h = h * 31 + hash_bytes(&x, sizeof x);
        }
    }
    return h;
}

static uint64_t run_case(World *w, const Case *c) {
    double **v = numbers(w, c->ref, c->seed), **first = numbers(w, c->math, c->seed);
    same_results(w->a, c->math, first, c->ref, v, 1e-10, "autodiff", c->seed);
    uint64_t hash = 0;
    for (int k = 0; k < 3; k++) { /* the third run on one thread */
        static Exec *e;
        if (k != 1) e = exec_open(env_posix(), &c->plan, c->fn, w->dev[k / 2], SEED, w->d);
        cr_assert_not_null(e, "%s", first_diag(w->d));
        fill(w, c, e, v);
        cr_assert(exec_step(e, 0, STEP, STEPS, w->d), "seed %llu: %s", (unsigned long long)c->seed,
                  first_diag(w->d));
        if (k == 0) cr_assert_geq(compare(w, c, e, v), 6);
        if (k == 0) hash = bits(c, e);
        cr_assert_eq(bits(c, e), hash, "seed %llu: other bits %s", (unsigned long long)c->seed,
                     k == 1 ? "the second time" : "on one thread");
        if (k != 0) exec_close(e);
    }
    return hash;
}

static bool batch(void *ctx, Guard *guard) {
    World *w = ctx;
    w->a = arena_open(env_posix(), guard);
    if (!toolchain_cc(w->a, env_posix(), cpu_level(), &w->tool, w->d)) return false;
    w->cache = cache_open(env_posix(), w->dir, &w->tool, w->d);
    w->dev[0] = device_cpu(env_posix(), THREADS, w->d);
    w->dev[1] = device_cpu(env_posix(), 1, w->d);
    if (!w->cache || !w->dev[0] || !w->dev[1]) return false;
    Case *c = NEWN(w->a, Case, PER_CALL);
    int noff = w->offs ? 4 : 1;
    uint32_t n = 0;
    for (; w->from < w->to && n + (uint32_t)noff <= PER_CALL; w->from++)
        for (int off = 0; off < noff; off++) make_case(w, &c[n++], w->from, off);
    compile(w, c, n);
    uint64_t all = 0;
    for (uint32_t i = 0; i < n; i++) {
        static const char *const without[] = {"", "fusion", "schedule", "memory plan"};
        uint64_t h = run_case(w, &c[i]);
        if (!c[i].off) all = h;
        cr_assert_eq(h, all, "seed %llu: other bits without %s", (unsigned long long)c[i].seed,
                     without[c[i].off]);
    }
    cache_close(w->cache);
    for (int k = 0; k < 2; k++) w->dev[k]->close(w->dev[k]);
    arena_close(w->a);
    return true;
}
static void random_kernels(uint64_t from, uint64_t to, bool offs) {
    World w = {.from = from, .to = to, .offs = offs, .d = diags_open(env_posix())};
    strcpy(w.dir, "/tmp/wmtpc-random-XXXXXX");
    cr_assert_not_null(mkdtemp(w.dir));
    while (w.from < w.to)
        cr_assert(guard_run(batch, &w, w.d), "seed about %llu: %s", (unsigned long long)w.from,
                  first_diag(w.d));
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", w.dir);
    cr_assert_eq(system(command), 0);
    diags_close(w.d);
}

TestSuite(random_kernels, .timeout = 600);
Test(random_kernels, steps_0) {
    random_kernels(0, 50, false);
}
Test(random_kernels, steps_1) {
    random_kernels(50, 100, false);
}
Test(random_kernels, steps_2) {
    random_kernels(100, 150, false);
}
Test(random_kernels, steps_3) {
    random_kernels(150, 200, false);
}
Test(random_kernels, without_a_pass) {
    random_kernels(1000, 1015, true);
}
