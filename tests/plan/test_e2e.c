/* From ST_MATH to numbers: passes, plan, kernels, executor against the reference evaluator in f64 at 1e-10,
 * over several steps, for one to four micro-batches; and the same bits without fusion, schedule or memory
 * plan. */
#include "e2e_graphs.h"

#include "codegen/codegen.h"
#include "passes/passes.h"
#include "runtime/runtime.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEPS = 3, MAX_LEAVES = 32 };
typedef struct {
    const char *key;
    double *v;
    int64_t n;
} Leaf;
typedef struct {
    Leaf leaf[MAX_LEAVES];
    uint32_t n;
    int64_t step;
} Reference;
typedef struct {
    Arena *a;
    Diags *d;
    Toolchain tool;
    Cache *cache;
    Device *dev;
} World;

static bool open_world(void *ctx, Guard *g) {
    World *w = ctx;
    w->a = arena_open(env_posix(), g);
    if (!toolchain_cc(w->a, env_posix(), cpu_level(), &w->tool, w->d)) return false;
    w->cache = cache_open(env_posix(), arena_fmt(w->a, "%s/kernel-cache", WM_TEST_CACHE), &w->tool, w->d);
    w->dev = device_cpu(env_posix(), 2, w->d);
    return w->cache && w->dev;
}

static double first_value(const char *key, int64_t i) {
    if (strcmp(key, "level") == 0) return 2;
    if (strncmp(key, "m/", 2) != 0) return 0;
    return (double)(float)(e2e_unit(key, -1, i) - 0.5);
}
static const char *leaf_key(Arena *a, const Graph *g, const Node *n) {
    return n->op == OP_param ? arena_fmt(a, "%s/%s", attr_str(g, n, "model"), attr_str(g, n, "name"))
                             : attr_str(g, n, "name");
}
static double *leaf_of(Reference *r, const char *key) {
    for (uint32_t i = 0; i < r->n; i++)
        if (strcmp(r->leaf[i].key, key) == 0) return r->leaf[i].v;
    return NULL;
}
static bool give_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    Reference *r = ctx;
    const char *name = attr_str(g, n, "name");
    if (n->op == OP_scalar) {
        for (int64_t i = 0; i < count; i++)
            out[i] = strcmp(name, "steps") == 0 ? STEPS : strcmp(name, "seed") == 0 ? 7 : (double)r->step;
        return true;
    }
    double *v = n->op == OP_input ? NULL : leaf_of(r, leaf_key(g->arena, g, n));
    for (int64_t i = 0; i < count; i++) out[i] = v ? v[i] : e2e_data(name, r->step, i);
    return true;
}
static void first_leaves(World *w, Reference *r, const Graph *g) {
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (n->op != OP_param && n->op != OP_state) continue;
        int64_t count = type_count(g, &g->value[n->out0].ty);
        Leaf *l = &r->leaf[r->n++];
        *l = (Leaf){leaf_key(w->a, g, n), NEWN(w->a, double, count), count};
        for (int64_t k = 0; k < count; k++) l->v[k] = first_value(l->key, k);
    }
}

static const char *state_name(Arena *a, const PlanState *s) {
    if (strcmp(s->role, "param") == 0) return arena_fmt(a, "%s/%s", s->model, s->name);
    return strcmp(s->role, "user") == 0 ? s->name : arena_fmt(a, "%s.%s/%s", s->role, s->model, s->name);
}
static int64_t state_count(const PlanState *s) {
    int64_t n = 1;
    for (uint32_t i = 0; i < s->ndim; i++) n *= s->size[i];
    return n;
}
static void first_states(World *w, Exec *e, const Plan *p) {
    for (uint32_t k = 0; k < p->nstate; k++) {
        double *v = exec_state_ptr(e, k);
        cr_assert_eq(p->state[k].dtype, PD_F64);
        for (int64_t i = 0; i < state_count(&p->state[k]); i++)
            v[i] = first_value(state_name(w->a, &p->state[k]), i);
    }
}
static void give_inputs(Exec *e, const Plan *p, int64_t step) {
    const PlanProgram *r = &p->program[0];
    for (uint32_t k = 0; k < r->ninput; k++) {
        const PlanInput *in = &r->input[k];
        int64_t count = 1;
        if (strcmp(in->kind, "data") != 0) continue;
        for (uint32_t i = 0; i < in->ndim; i++) count *= in->size[i];
        for (int64_t m = 0; m < r->micro; m++) {
            unsigned char *bytes = exec_input(e, 0, in->name, m);
            for (int64_t i = 0; i < count; i++) {
                double v = e2e_data(in->name, step, m * count + i);
                int32_t token = (int32_t)v;
                if (in->dtype == PD_BOOL)
                    bytes[i] = v != 0;
                else
                    memcpy(bytes + 4 * i, &token, 4);
            }
        }
    }
}

static void near(double got, double want, const char *what, const char *name, int64_t i) {
    cr_assert(fabs(got - want) <= 1e-10 * (1 + fabs(want)), "%s %s [%d]: %.17g, not %.17g", what, name,
              (int)i, got, want);
}

static void compare(World *w, Exec *e, const Plan *p, const Graph *g, double **v, Reference *r) {
    for (uint32_t k = 0; k < g->nresult; k++) {
        const Result *x = &g->result[k];
        int64_t n = type_count(g, value_type(g, x->v));
        const double *got = NULL;
        if (strcmp(x->kind, "next") == 0) {
            for (uint32_t s = 0; s < p->nstate; s++)
                if (strcmp(state_name(w->a, &p->state[s]), x->name) == 0) got = exec_state_ptr(e, s);
            memcpy(leaf_of(r, x->name), v[x->v.i], (size_t)n * sizeof(double));
        } else {
            const void *data = NULL;
            const PlanOutput *o = exec_output(e, 0, x->kind, x->name, &data);
            cr_assert_not_null(o, "no %s %s", x->kind, x->name);
            cr_assert_eq(o->dtype, PD_F64);
            got = data;
        }
        cr_assert_not_null(got, "no state %s", x->name);
        for (int64_t i = 0; i < n; i++) near(got[i], v[x->v.i][i], x->kind, x->name, i);
    }
}

/* A step whose loss is not a number changes no state, not a single byte. */
static void spoiled(World *w, Exec *e, const Plan *p) {
    unsigned char **before = NEWN(w->a, unsigned char *, p->nstate);
    for (uint32_t k = 0; k < p->nstate; k++) {
        double *v = exec_state_ptr(e, k);
        int64_t n = state_count(&p->state[k]);
        for (int64_t i = 0; i < n && strcmp(p->state[k].name, "emb") == 0; i++) v[i] = NAN;
        before[k] = arena_copy(w->a, v, (wm_size)n * 8);
    }
    Diags *d = diags_open(env_posix());
    give_inputs(e, p, STEPS); /* their memory may have been used again */
    cr_assert_not(exec_step(e, 0, STEPS, STEPS, d));
    cr_assert_eq(diags_exit(d), EXIT_NONFINITE);
    diags_close(d);
    for (uint32_t k = 0; k < p->nstate; k++)
        cr_assert(memcmp(before[k], exec_state_ptr(e, k), (size_t)state_count(&p->state[k]) * 8) == 0,
                  "%s %s was changed", p->state[k].role, p->state[k].name);
}

/* Trains STEPS steps; with `against` each is compared. Returns a hash over all states and the last loss. */
static uint64_t train(World *w, const Recipe *recipe, PassOptions o, bool against) {
    Graph *math = e2e_graph(w->a, recipe);
    Graph *g = passes_run(w->a, math, &o, w->d);
    o.stop_after = "optim";
    Graph *ref = g ? passes_run(w->a, e2e_graph(w->a, recipe), &o, w->d) : NULL;
    cr_assert(ref, "%s", w->d->n ? w->d->item[0]->text : "");
    Plan p;
    KernelSource *source;
    EmitInput in = {.train = g, .level = cpu_level(), .seq = 3};
    cr_assert(codegen_emit(w->a, &in, &p, &source, w->d), "%s", w->d->n ? w->d->item[0]->text : "");
    cr_assert(plan_check(&p, "e2e", w->d), "%s", w->d->n ? w->d->item[0]->text : "");
    KernelFn *fn = NEWN(w->a, KernelFn, p.nkernel);
    cr_assert(cache_get(w->cache, source, p.nkernel, fn, NULL, w->d), "%s",
              w->d->n ? w->d->item[0]->text : "");
    Exec *e = exec_open(env_posix(), &p, fn, w->dev, 7, w->d);
    cr_assert(e, "%s", w->d->n ? w->d->item[0]->text : "");
    first_states(w, e, &p);
    Reference r = {.n = 0};
    first_leaves(w, &r, ref);
    for (r.step = 0; r.step < STEPS; r.step++) {
        give_inputs(e, &p, r.step);
        cr_assert(exec_step(e, 0, r.step, STEPS, w->d), "%s", w->d->n ? w->d->item[0]->text : "");
        if (!against) continue;
        EvalInput ev = {give_leaf, &r, 7, r.step};
        double **v = graph_eval(w->a, ref, &ev, NULL, 0, w->d);
        cr_assert(v, "%s", w->d->n ? w->d->item[0]->text : "");
        compare(w, e, &p, ref, v, &r);
    }
    double loss = exec_number(e, 0, "total", "total");
    uint64_t h[2] = {hash_bytes(&loss, sizeof loss), 0};
    for (uint32_t k = 0; k < p.nstate; k++)
        h[1] = h[1] * 31 + hash_bytes(exec_state_ptr(e, k), (size_t)state_count(&p.state[k]) * 8);
    if (!recipe->threshold)
        spoiled(w, e, &p); /* nothing lies above a threshold that is no number: a loss of 0 */
    exec_close(e);
    return hash_bytes(h, sizeof h);
}

typedef struct {
    World w;
    const Recipe *recipe;
} Job;
static bool one(void *ctx, Guard *guard) {
    Job *j = ctx;
    PassOptions o = {.real = DT_F64};
    if (!open_world(&j->w, guard)) return false;
    for (int64_t micro = 1; micro <= 4; micro++) {
        Recipe r = *j->recipe;
        r.micro = micro;
        uint64_t all = train(&j->w, &r, o, true);
        PassOptions off[3] = {o, o, o};
        off[0].off_fuse = off[1].off_schedule = off[2].off_memplan = true;
        static const char *const name[3] = {"fusion", "schedule", "memory plan"};
        for (int k = 0; k < 3; k++)
            cr_assert_eq(train(&j->w, &r, off[k], false), all, "G %d: other bits without %s", (int)micro,
                         name[k]);
    }
    cache_close(j->w.cache);
    j->w.dev->close(j->w.dev);
    arena_close(j->w.a);
    return true;
}
static void end_to_end(Recipe recipe) {
    Job j = {{.d = diags_open(env_posix())}, &recipe};
    cr_assert(guard_run(one, &j, j.w.d), "%s", j.w.d->n ? j.w.d->item[0]->text : "");
    diags_close(j.w.d);
}

Test(e2e, sgd) {
    end_to_end((Recipe){.sgd = true});
}
Test(e2e, adamw_with_clipping) {
    end_to_end((Recipe){.clip = true});
}
Test(e2e, a_frozen_weight) {
    end_to_end((Recipe){.frozen = true, .sgd = true});
}
Test(e2e, a_state_of_the_graph) {
    end_to_end((Recipe){.state = true});
}
Test(e2e, values_and_metrics) {
    end_to_end((Recipe){.metric = true, .sgd = true});
}
Test(e2e, a_threshold_over_the_step) {
    end_to_end((Recipe){.threshold = true, .metric = true});
}
Test(e2e, random_weights) {
    end_to_end((Recipe){.random = true, .sgd = true});
}
Test(e2e, all_at_once) {
    end_to_end((Recipe){.threshold = true, .random = true, .state = true, .metric = true, .clip = true});
}
