/* localize, schedule and memplan: the same numbers at every stage, and a memory plan replayed byte by byte.
 * The replay shares no code with the planner: it walks sections and micro-batches as the executor does,
 * writes into each byte who wrote it, and wants to find at every read what the graph says should be there. */
#include "e2e_graphs.h"

#include "passes/passes.h"

#include <criterion/criterion.h>

static const Recipe recipes[] = {
    {.sgd = true},
    {.clip = true},
    {.frozen = true, .sgd = true},
    {.state = true},
    {.metric = true, .sgd = true},
    {.threshold = true, .metric = true},
    {.random = true, .sgd = true},
    {.threshold = true, .random = true, .state = true, .metric = true, .clip = true},
};

static bool made_up(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    (void)ctx;
    const char *name = attr_str(g, n, "name");
    for (int64_t i = 0; i < count; i++)
        out[i] = n->op == OP_scalar  ? 3
                 : n->op == OP_input ? e2e_data(name, 1, i)
                                     : e2e_unit(name, 2, i) - 0.3 * (n->op == OP_param);
    return true;
}

typedef struct {
    Diags *d;
    const Recipe *recipe;
    int64_t micro;
    void (*fn)(Arena *a, const Recipe *r, Diags *d);
} Job;
static bool job(void *ctx, Guard *guard) {
    Job *j = ctx;
    Arena *a = arena_open(env_posix(), guard);
    Recipe r = *j->recipe;
    r.micro = j->micro;
    j->fn(a, &r, j->d);
    arena_close(a);
    return true;
}
static void for_all(void (*fn)(Arena *a, const Recipe *r, Diags *d)) {
    for (size_t i = 0; i < WM_LEN(recipes); i++) {
        for (int64_t micro = 1; micro <= 5; micro++) {
            Job j = {diags_open(env_posix()), &recipes[i], micro, fn};
            bool ok = guard_run(job, &j, j.d);
            cr_assert(ok, "recipe %zu, G %d: %s", i, (int)micro, j.d->n ? j.d->item[0]->text : "");
            diags_close(j.d);
        }
    }
}

/* ---- numbers */
static void same_numbers(Arena *a, const Recipe *r, Diags *d) {
    static const char *const stop[] = {"form", "localize", "fuse", "schedule", "memplan"};
    EvalInput in = {made_up, NULL, 7, 3};
    Graph *first = NULL;
    double **want = NULL;
    for (size_t s = 0; s < WM_LEN(stop); s++) {
        PassOptions o = {.real = DT_F64, .stop_after = stop[s], .check_roundtrip = true};
        Graph *g = passes_run(a, e2e_graph(a, r), &o, d);
        cr_assert(g, "%s", d->n ? d->item[0]->text : "");
        double **v = graph_eval(a, g, &in, NULL, 0, d);
        cr_assert(v, "%s: %s", stop[s], d->n ? d->item[0]->text : "");
        if (!first) {
            first = g;
            want = v;
            continue;
        }
        for (uint32_t k = 0; k < first->nresult; k++) {
            const Result *x = &first->result[k], *y = graph_find_result(g, x->kind, x->name);
            cr_assert_not_null(y);
            int64_t n = type_count(first, value_type(first, x->v));
            cr_assert_eq(type_count(g, value_type(g, y->v)), n);
            cr_assert(memcmp(want[x->v.i], v[y->v.i], (size_t)n * sizeof(double)) == 0, "%s changed %s %s",
                      stop[s], x->kind, x->name);
        }
    }
}
Test(passes, the_same_numbers_at_every_stage) {
    for_all(same_numbers);
}

/* ---- memory */
typedef struct {
    Arena *a;
    const Graph *g;
    int64_t micro, m;
    uint64_t *byte[2];
    uint32_t *leaves;
} Replay;

/* Who should have written piece m of value v. */
static uint64_t writer(const Replay *x, ValueId v, int64_t m) {
    const Graph *g = x->g;
    const Node *n = value_node(g, v);
    bool odd = n->section & 1;
    if (n->op == OP_micro_slice || n->op == OP_micro_stack || (n->op == OP_micro_sum && x->micro == 1))
        return writer(x, g->operand[n->in0], m);
    return ((uint64_t)v.i + 1) << 16 | (uint64_t)(odd || n->op == OP_input ? m + 1 : 0);
}
static bool pieces(const Replay *x, ValueId v) {
    return type_has(value_type(x->g, v), x->g->micro);
}

static void touch(Replay *x, ValueId v, int64_t m, bool write, const char *what) {
    const Value *y = &x->g->value[v.i];
    bool whole = pieces(x, v);
    if (y->arena < 0) return;
    for (int64_t k = whole ? 0 : m; k < (whole ? x->micro : m + 1); k++) {
        int64_t bytes = type_bytes(x->g, &y->ty) / (whole ? x->micro : 1);
        int64_t step = whole ? bytes : y->stride;
        if (whole && x->micro > 1) cr_assert_eq(y->stride, bytes);
        for (int64_t b = 0; b < bytes; b++) {
            int64_t at = y->off + step * (step ? k : 0) + b;
            cr_assert(at >= 0 && at < x->g->arena_bytes[y->arena]);
            uint64_t *w = &x->byte[y->arena][at], want = writer(x, v, k);
            if (write)
                *w = want;
            else
                cr_assert(*w == want, "%s reads value %u at byte %d: %llx, not %llx", what, v.i, (int)at,
                          (unsigned long long)*w, (unsigned long long)want);
        }
    }
}

/* The sum takes its leaf as soon as that is made: partial sums stand in its own memory and its scratch. */
static void add_leaf(Replay *x, uint32_t i) {
    const Node *n = &x->g->node[i];
    const Value *y = &x->g->value[n->out0];
    if (x->micro == 1 || y->arena < 0) return;
    int64_t bytes = type_bytes(x->g, &y->ty), extra = 0;
    while (x->micro >> (extra + 2)) extra++;
    cr_assert_geq(n->ws_bytes, extra * bytes);
    for (int64_t b = 0; b < bytes * (extra + 1); b++) {
        uint64_t *w = &x->byte[1][b < bytes ? y->off + b : n->ws_off + b - bytes];
        uint64_t before = ((uint64_t)n->out0 + 1) << 40 | x->leaves[i];
        cr_assert(x->leaves[i] == 0 || *w == before, "partial sum %u was overwritten", n->out0);
        *w = before + 1;
    }
    if (++x->leaves[i] == x->micro) touch(x, (ValueId){n->out0}, 0, true, "");
}

static void run_unit(Replay *x, const Uses *u, uint32_t first, uint32_t count) {
    const Graph *g = x->g;
    for (uint32_t i = first; i < first + count; i++) {
        const Node *n = &g->node[i];
        if (op_info[n->op].kind == K_TREE) continue;
        for (uint32_t k = 0; k < n->nin; k++) { /* what the unit makes itself never passes through memory */
            uint32_t def = g->value[g->operand[n->in0 + k].i].def.i;
            if (def < first || def >= first + count)
                touch(x, g->operand[n->in0 + k], x->m, false, op_info[n->op].name);
        }
        for (int64_t b = 0; b < n->ws_bytes; b++) x->byte[1][n->ws_off + b] = ~(uint64_t)0;
    }
    for (uint32_t i = first; i < first + count; i++) {
        const Node *n = &g->node[i];
        if (op_info[n->op].kind == K_TREE || n->op == OP_input || n->op == OP_param || n->op == OP_state ||
            n->op == OP_scalar)
            continue;
        for (uint32_t k = 0; k < n->nout; k++) touch(x, (ValueId){n->out0 + k}, x->m, true, "");
    }
    for (uint32_t i = first; i < first + count; i++)
        for (uint32_t v = g->node[i].out0; v < g->node[i].out0 + g->node[i].nout; v++)
            for (uint32_t k = u->use0[v]; k < u->use0[v + 1]; k++)
                if (g->node[u->use[k].i].op == OP_micro_sum) {
                    touch(x, (ValueId){v}, x->m, false, "micro_sum");
                    add_leaf(x, u->use[k].i);
                }
}

static void run_section(Replay *x, const Uses *u, uint32_t s) {
    const Graph *g = x->g;
    for (x->m = 0; x->m < (s & 1 ? x->micro : 1); x->m++) {
        for (uint32_t i = 0; i < g->nnode;) {
            uint32_t first = i++;
            while (i < g->nnode && g->node[first].group && g->node[i].group == g->node[first].group) i++;
            if (g->node[first].section == s) run_unit(x, u, first, i - first);
        }
    }
}

static void replay(Arena *a, const Recipe *r, Diags *d) {
    for (int off = 0; off < 4; off++) {
        PassOptions o = {
            .real = DT_F32, .off_fuse = off == 1, .off_schedule = off == 2, .off_memplan = off == 3};
        Graph *g = passes_run(a, e2e_graph(a, r), &o, d);
        cr_assert(g, "%s", d->n ? d->item[0]->text : "");
        Replay x = {.a = a, .g = g, .micro = r->micro, .leaves = NEWN(a, uint32_t, g->nnode)};
        Uses u = graph_uses(a, g);
        for (int k = 0; k < 2; k++) x.byte[k] = NEWN(a, uint64_t, g->arena_bytes[k] + 1);
        for (uint32_t i = 0; i < g->nnode; i++) {
            Op op = g->node[i].op;
            if (op == OP_input || op == OP_param || op == OP_state || op == OP_scalar)
                touch(&x, (ValueId){g->node[i].out0}, 0, true, "");
        }
        for (uint32_t s = 0; s < graph_sections(g); s++) run_section(&x, &u, s);
        for (uint32_t k = 0; k < g->nresult; k++) {
            ValueId v = g->result[k].v;
            touch(&x, v, 0, false, g->result[k].name);
        }
    }
}
Test(passes, memory_replayed) {
    for_all(replay);
}

/* ---- the next value of a state */
/* Does the next value of the state w[n] lie on it? nodes: what follows w and the input x[n] in a graph at
 * ST_SCHEDULED. */
static bool next_on_state(Arena *a, const char *nodes, Diags *d) {
    const char *text = arena_fmt(a,
                                 "wir 1\ndim n=5 k=2\ngraph \"g\" stage=scheduled phase=train {\n"
                                 "  %%0 = state name=\"w\" role=\"user\" init=1 : f32[n]\n"
                                 "  %%1 = input name=\"x\" : f32[n]\n%s}\n",
                                 nodes);
    Graph *s = graph_parse(a, "g.wir", text, strlen(text), d);
    cr_assert(s, "%s", d->n ? d->item[0]->text : "");
    PassOptions o = {.real = DT_F32};
    Graph *g = passes_run(a, s, &o, d);
    cr_assert(g, "%s", d->n ? d->item[0]->text : "");
    const Value *w = &g->value[0], *x = &g->value[graph_find_result(g, "next", "w")->v.i];
    cr_assert_eq(w->arena, 0);
    cr_assert_eq(g->arena_bytes[0], 64); /* nothing but the state, wherever its next value went */
    return x->arena == w->arena && x->off == w->off;
}
static void places_of_next(Arena *a, const Recipe *r, Diags *d) {
    (void)r;
    static const struct {
        bool shared;
        const char *what, *nodes;
    } row[] = {
        {true, "the last reader writes it",
         "  %2 = mul %0, %1 : f32[n]\n  %3 = add %0, %1 : f32[n]\n"
         "  result value \"m\" %2\n  result next \"w\" %3\n"},
        {false, "a kernel behind it reads the old value",
         "  %2 = add %0, %1 : f32[n]\n  %3 = mul %0, %1 : f32[n]\n"
         "  result value \"m\" %3\n  result next \"w\" %2\n"},
        {true, "the same kernel reads it again",
         "  %2 = add %0, %1 : f32[n] group=1\n  %3 = mul %0, %1 : f32[n] group=1\n"
         "  result value \"m\" %3\n  result next \"w\" %2\n"},
        {false, "a kernel of the last section reads the old value",
         "  %2 = add %0, %1 : f32[n]\n  %3 = sum %0 over=[n] : f32[] section=2\n"
         "  result metric \"m\" %3\n  result next \"w\" %2\n"},
        {false, "it would be written before what is checked",
         "  %2 = add %0, %1 : f32[n]\n  %3 = sum %1 over=[n] : f32[]\n"
         "  result loss \"l\" %3\n  result next \"w\" %2\n"},
        {false, "the kernel that writes it reads all of the old value for each element",
         "  %2 = sum %0 over=[n] : f32[] group=1\n  %3 = add %1, %2 : f32[n] group=1\n"
         "  result value \"m\" %2\n  result next \"w\" %3\n"},
        {false, "the kernel that writes it reads the old value along other loops",
         "  %2 = expand %0 dims=[k] : f32[k,n] group=1\n  %3 = add %0, %1 : f32[n] group=1\n"
         "  result value \"m\" %2\n  result next \"w\" %3\n"},
        {false, "other elements than the one that is written are read",
         "  %2 = shift %0 dim=n by=1 fill=0 : f32[n]\n  result next \"w\" %2\n"},
    };
    for (size_t i = 0; i < WM_LEN(row); i++)
        cr_expect_eq(next_on_state(a, row[i].nodes, d), row[i].shared, "%s", row[i].what);
}
Test(passes, next_takes_the_place_of_the_old_value_only_behind_its_last_reader) {
    Job j = {diags_open(env_posix()), &recipes[0], 1, places_of_next};
    cr_assert(guard_run(job, &j, j.d), "%s", j.d->n ? j.d->item[0]->text : "");
    diags_close(j.d);
}

/* ---- sections */
static void sections(Arena *a, const Recipe *r, Diags *d) {
    PassOptions o = {.real = DT_F64, .stop_after = "localize"};
    Graph *g = passes_run(a, e2e_graph(a, r), &o, d);
    cr_assert(g, "%s", d->n ? d->item[0]->text : "");
    uint32_t forward = 0, last = graph_sections(g) - 1;
    cr_assert_eq(last & 1, 0);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        bool tree = op_info[n->op].kind == K_TREE;
        forward += n->op == OP_tanh;
        if (n->section & 1) cr_assert(!type_has(&g->value[n->out0].ty, g->micro), "node %u", i);
        for (uint32_t k = 0; k < n->nin; k++) {
            const Node *def = value_node(g, g->operand[n->in0 + k]);
            cr_assert(def->section <= n->section);
            cr_assert(!(def->section & 1) || tree || def->section == n->section, "node %u reads section %u",
                      i, def->section);
        }
    }
    /* a threshold over the step needs the losses first: the forward pass runs again, but only if it was not
     * kept */
    cr_assert_eq(forward, r->threshold && r->micro > 1 ? 2 : 1);
}
Test(passes, sections_and_clones) {
    for_all(sections);
}
