/* The shape of train graphs: losses unrolled by head, one pass or two, deferred factors, AdamW and SGD number
 * by number. */
#include "tests/passes/pass_test.h"

typedef enum { UNIFORM, BY_LABEL, BY_LOSS, BY_LOSS_BUT_FIRST, BY_MEAN_LOSS } Weighting;

typedef struct {
    Graph *g;
    DimId micro, batch, seq, head, hidden, vocab;
} Tiny;

static ValueId param(Tiny *t, const char *name, const DimId *d, uint32_t n, int row) {
    Graph *g = t->g;
    Attr at[9] = {at_str(g, "policy"),  at_str(g, name), at_str(g, name), at_str(g, ""), at_none(),
                  at_str(g, "const:0"), at_int(row),     at_bool(true),   at_int(0)};
    return build_leaf(g, OP_param, type_make(DT_F32, d, n), at, 9);
}

static Tiny tiny(Arena *a) {
    Tiny t = {.g = graph_new(a, "tiny", ST_MATH)};
    t.micro = graph_dim(t.g, "micro", 3);
    t.batch = graph_dim(t.g, "batch", 2);
    t.seq = graph_dim(t.g, "seq", 4);
    t.head = graph_dim(t.g, "head", 2);
    t.hidden = graph_dim(t.g, "hidden", 4);
    t.vocab = graph_dim(t.g, "vocab", 5);
    t.g->micro = t.micro;
    t.g->batch = t.batch;
    t.g->path = "policy";
    return t;
}

static ValueId input(Tiny *t, const char *name, DType dt, const DimId *d, uint32_t n) {
    Attr at = at_str(t->g, name);
    return build_leaf(t->g, OP_input, type_make(dt, d, n), &at, 1);
}

static void optimizer(Tiny *t, Opt o) {
    Graph *g = t->g;
    o.lr = b_const(g, DT_F64, 0.125);
    GROW(g->arena, g->opt, g->nopt, g->opt_cap);
    g->opt[g->nopt++] = o;
}

/* Two heads: a block each on one trunk, a shared norm, a shared unembedding; the loss sum(nll w) /
 * max(sum(w), 1). */
static Graph *two_heads(Arena *a, Weighting weighting) {
    Tiny t = tiny(a);
    Graph *g = t.g;
    DimId mbs[3] = {t.micro, t.batch, t.seq}, vh[2] = {t.vocab, t.hidden},
          hh[2] = {t.hidden, graph_dim(g, "hidden.in", 4)};
    ValueId tokens = input(&t, "tokens", DT_I32, mbs, 3), labels = input(&t, "labels", DT_I32, mbs, 3);
    ValueId embed = param(&t, "embed", vh, 2, 0), out = param(&t, "out", vh, 2, 0),
            gain = param(&t, "gain", &t.hidden, 1, 0);
    Attr cls = at_dim(t.vocab);
    ValueId trunk = build(g, OP_gather, (ValueId[]){embed, tokens}, 2, &cls, 1), part[2];
    for (int i = 0; i < 2; i++) {
        ValueId w = param(&t, i ? "w1" : "w0", hh, 2, 0), y = b_matmul(g, trunk, w, &t.hidden, 1);
        ValueId back = param(&t, i ? "u1" : "u0", hh, 2, 0);
        part[i] = b_ew2(g, OP_add, trunk, b_matmul(g, b_ew1(g, OP_silu, y), back, &hh[1], 1));
    }
    Attr head = at_dim(t.head);
    ValueId h = build(g, OP_stack, part, 2, &head, 1);
    ValueId ms = b_over(g, OP_sum, b_ew2(g, OP_pow, h, b_const(g, DT_F32, 2)), &t.hidden, 1);
    ms = b_ew2(g, OP_add, b_ew2(g, OP_div, ms, b_const(g, DT_F32, 4)), b_const(g, DT_F32, 1e-5));
    h = b_ew2(g, OP_mul, b_ew2(g, OP_div, h, b_ew1(g, OP_sqrt, ms)), gain);
    ValueId logits = b_matmul(g, h, out, &t.hidden, 1);
    int64_t one = 1;
    Attr sh[5] = {at_dim(t.seq), at_int(0), at_dims(g, &t.head, 1), at_ints(g, &one, 1), at_float(-100)};
    sh[1] = at_int(1);
    ValueId target = build(g, OP_shift, &labels, 1, sh, 5);
    g->path = "loss";
    ValueId nll = b_ew2(g, OP_add, build(g, OP_cross_entropy, (ValueId[]){logits, target}, 2, &cls, 1),
                        b_const(g, DT_F32, 0));
    Type full = *value_type(g, nll);
    DimId head_last[4] = {t.micro, t.batch, t.seq, t.head};
    Type like = type_make(DT_F32, head_last, 4);
    if (memcmp(full.dim, like.dim, sizeof like.dim)) {
        Attr to = at_dims(g, head_last, 4);
        nll = build(g, OP_transpose, &nll, 1, &to, 1);
    }
    ValueId valid = b_ew2(g, OP_ne, target, b_const(g, DT_I32, -100)), weight = b_cast(g, valid, DT_F32);
    ValueId keep = b_ew2(g, OP_ge, b_ew1(g, OP_stop_grad, nll), b_const(g, DT_F32, 1.5));
    if (weighting == BY_LOSS_BUT_FIRST) {
        Attr io[2] = {at_dim(t.head), at_int(1)};
        ValueId heads = build_leaf(g, OP_iota, type_make(DT_F32, &t.head, 1), io, 2);
        keep = b_ew2(g, OP_or, b_ew2(g, OP_le, heads, b_const(g, DT_F32, 1)), keep);
    }
    if (weighting == BY_MEAN_LOSS) { /* what the whole step's losses say of a row */
        ValueId mean = b_over(g, OP_sum, b_ew1(g, OP_stop_grad, nll), head_last, 4);
        weight = b_ew2(
            g, OP_mul, weight,
            b_ew2(g, OP_div, b_ew1(g, OP_stop_grad, nll), b_ew2(g, OP_add, mean, b_const(g, DT_F32, 1))));
    } else if (weighting >= BY_LOSS)
        weight = b_cast(g, b_ew2(g, OP_and, valid, keep), DT_F32);
    if (weighting == BY_LABEL) weight = b_ew2(g, OP_mul, weight, b_const(g, DT_F32, 0.5));
    ValueId s =
        b_over(g, OP_sum, b_ew3(g, OP_where, valid, b_ew2(g, OP_mul, nll, weight), b_const(g, DT_F32, 0)),
               head_last, 4);
    ValueId n = b_over(g, OP_sum, weight, head_last, 4);
    ValueId loss = b_ew2(g, OP_div, s, b_ew2(g, OP_max, n, b_const(g, DT_F32, 1)));
    graph_result(g, "loss", "ce", loss);
    graph_result(g, "total", "loss", loss);
    optimizer(&t, (Opt){.kind = "adamw", .b1 = 0.9, .b2 = 0.95, .eps = 1e-8, .wd = 0.01});
    return g;
}

static uint32_t count(const Graph *g, Op op) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->nnode; i++) n += g->node[i].op == op;
    return n;
}
static bool noted(const Graph *g, const char *text) {
    for (uint32_t i = 0; i < g->nnote; i++)
        if (strstr(g->note[i], text)) return true;
    return false;
}
/* Runs over the micro-batches with the model: the longest chain micro-batch -> step -> micro-batch, not
 * counting what follows from data and states alone. */
static uint32_t micro_runs(Arena *a, const Graph *g) {
    uint32_t *level = NEWN(a, uint32_t, g->nvalue + 1), top = 0;
    bool *late = NEWN(a, bool, g->nvalue + 1);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        bool micro = n->op != OP_micro_stack && type_has(&g->value[n->out0].ty, g->micro),
             l = n->op == OP_param;
        uint32_t at = micro ? 1 : 0;
        for (uint32_t k = 0; k < n->nin; k++) {
            uint32_t v = g->operand[n->in0 + k].i, x = level[v];
            if (!late[v]) continue;
            l = true;
            if (micro != (x % 2 == 1)) x++;
            if (x > at) at = x;
        }
        for (uint32_t k = 0; k < n->nout; k++) level[n->out0 + k] = at, late[n->out0 + k] = l;
        if (l && at > top) top = at;
    }
    return (top + 1) / 2;
}

static Graph *to_form(Arena *a, Graph *g, Diags *d, bool classes) {
    PassOptions o = {.real = DT_F32,
                     .stop_after = "form",
                     .check_roundtrip = true,
                     .check_eval = true,
                     .off_classes = !classes};
    Graph *t = passes_run(a, g, &o, d);
    cr_assert(t != NULL, "%s", first_diag(d));
    return t;
}

static void no_logits(const Graph *g) {
    DimId vocab = {0}, seq = {0};
    graph_find_dim(g, "vocab", &vocab);
    graph_find_dim(g, "seq", &seq);
    for (uint32_t i = 0; i < g->nvalue; i++)
        cr_assert(!(type_has(&g->value[i].ty, vocab) && type_has(&g->value[i].ty, seq)),
                  "value %u is stored logits", i);
}

static void known_weights(Arena *a, Diags *d, uint64_t which) {
    Graph *g = two_heads(a, (Weighting)which), *t = to_form(a, g, d, true);
    no_logits(t);
    cr_assert_eq(count(t, OP_linear_ce_fb), 2);
    cr_assert_eq(count(t, OP_linear_ce) + count(t, OP_linear_ce_grad), 0);
    cr_assert_eq(micro_runs(a, t), 1);
    cr_assert(noted(t, "class early"));
    cr_assert_eq(count(t, OP_stop_grad), 0);
}
/* f32: tensors f32; what sums over the micro-batches outside the backward is f64 already inside the sum. */
static void dtypes(Arena *a, Diags *d, uint64_t which) {
    Graph *t = to_form(a, two_heads(a, (Weighting)which), d, true);
    uint32_t sums = 0;
    for (uint32_t i = 0; i < t->nnode; i++) {
        const Node *n = &t->node[i];
        DType dt = t->value[n->out0].ty.dt;
        if (n->op == OP_param || n->op == OP_state || n->op == OP_linear_ce || n->op == OP_linear_ce_grad ||
            n->op == OP_matmul)
            cr_assert_eq(dt, DT_F32, "%s is %s", op_info[n->op].name, dtype_name[dt]);
        if (n->op != OP_micro_sum) continue;
        bool weight = n->flags & N_BWD;
        cr_assert_eq(dt, weight ? DT_F32 : DT_F64, "a sum over micro is %s", dtype_name[dt]);
        cr_assert_eq(value_node(t, t->operand[n->in0])->op == OP_cast, false,
                     "the cast stands inside the sum");
        sums += !weight;
    }
    cr_assert_eq(sums, 2); /* numerator and denominator */
    cr_assert_eq(value_type(t, graph_find_result(t, "loss", "ce")->v)->dt, DT_F64);
}
Test(train, statistics_are_f64_and_tensors_f32) {
    guarded(dtypes, UNIFORM);
    guarded(dtypes, BY_LOSS);
}

Test(train, weights_known_before_give_one_pass) {
    guarded(known_weights, UNIFORM);
    guarded(known_weights, BY_LABEL);
}

static void loss_weights(Arena *a, Diags *d, uint64_t which) {
    Graph *g = two_heads(a, (Weighting)which), *t = to_form(a, g, d, true);
    no_logits(t);
    uint32_t one = which == BY_LOSS_BUT_FIRST ? 1 : 0;
    cr_assert_eq(count(t, OP_linear_ce_fb), one, "%u one-pass losses", count(t, OP_linear_ce_fb));
    cr_assert_eq(count(t, OP_linear_ce), 2 - one);
    cr_assert_eq(count(t, OP_linear_ce_grad), 2 - one);
    cr_assert(noted(t, "deferred"));
    cr_assert_eq(micro_runs(a, t), 1, "a deferred factor needs one run, not %u", micro_runs(a, t));
    Graph *two = to_form(a, two_heads(a, (Weighting)which), d, false);
    cr_assert_eq(micro_runs(a, two), 2, "without classes the denominator waits for all micro-batches");
    cr_assert(noted(two, "two-phase"));
}
Test(train, weights_from_the_loss_give_two_passes_and_a_deferred_factor) {
    guarded(loss_weights, BY_LOSS);
    guarded(loss_weights, BY_LOSS_BUT_FIRST);
}

static void step_weights(Arena *a, Diags *d, uint64_t which) {
    Graph *t = to_form(a, two_heads(a, (Weighting)which), d, true);
    cr_assert(noted(t, "two-phase"));
    cr_assert_eq(micro_runs(a, t), 2, "weights from the step's mean loss wait for all micro-batches");
    cr_assert_eq(count(t, OP_linear_ce_fb), 0);
    cr_assert(noted(t, "form C"));
}
Test(train, weights_from_the_whole_step_give_two_runs) {
    guarded(step_weights, BY_MEAN_LOSS);
}

/* ---- optimizers, number by number */
static Graph *two_vectors(Arena *a, Opt o, double clip) {
    Tiny t = tiny(a);
    Graph *g = t.g;
    ValueId w = param(&t, "w", &t.hidden, 1, 0), f = param(&t, "frozen", &t.hidden, 1, -1);
    ValueId u = param(&t, "u", &t.hidden, 1, 0); /* no weight decay */
    for (int k = 0; k < op_info[OP_param].nattr; k++)
        if (!strcmp(op_info[OP_param].attr[k].name, "decay"))
            g->node[g->value[u.i].def.i].attr[k] = at_bool(false);
    ValueId x = input(&t, "x", DT_F32, (DimId[]){t.micro, t.batch, t.hidden}, 3);
    ValueId y = b_ew2(g, OP_mul, b_ew2(g, OP_mul, x, w), f);
    y = b_ew2(g, OP_add, y, b_ew2(g, OP_mul, b_ew2(g, OP_mul, x, x), u));
    ValueId total = b_over(g, OP_sum, y, (DimId[]){t.micro, t.batch, t.hidden}, 3);
    graph_result(g, "loss", "l", total);
    graph_result(g, "total", "loss", total);
    optimizer(&t, o);
    g->clip_norm = clip;
    return g;
}
static const double *result_of(const Graph *g, double **v, const char *kind, const char *name) {
    const Result *r = graph_find_result(g, kind, name);
    cr_assert(r != NULL, "no result %s %s", kind, name);
    return v[r->v.i];
}
static const double *leaf_value(const Graph *g, double **v, Op op, const char *name) {
    for (uint32_t i = 0; i < g->nnode; i++)
        if (g->node[i].op == op && !strcmp(attr_str(g, &g->node[i], "name"), name)) return v[g->node[i].out0];
    cr_assert_fail("no leaf %s", name);
    return NULL;
}

/* AdamW, SGD with momentum, SGD; decay 0: the parameter is exempt from weight decay. */
static void vector_step(Arena *a, const Graph *t, double **v, const char *name, uint64_t which, double factor,
                        double decay) {
    const char *full = arena_fmt(a, "policy/%s", name), *m_name = arena_fmt(a, "exp_avg.%s", full),
               *s_name = arena_fmt(a, "exp_avg_sq.%s", full);
    const double *dw = result_of(t, v, "grad", full), *w = leaf_value(t, v, OP_param, name),
                 *next = result_of(t, v, "next", full);
    double lr = 0.125, step = 3;
    for (int i = 0; i < 4; i++) {
        double x = dw[i] * factor, want;
        if (which % 3 == 0) {
            double m = 0.9 * leaf_value(t, v, OP_state, m_name)[i] + 0.1 * x;
            double s = 0.95 * leaf_value(t, v, OP_state, s_name)[i] + 0.05 * x * x;
            want = w[i] - lr * 0.01 * decay * w[i] -
                   lr * (m / (1 - pow(0.9, step))) / (sqrt(s / (1 - pow(0.95, step))) + 1e-8);
            cr_assert_float_eq(result_of(t, v, "next", m_name)[i], m, 1e-12);
            cr_assert_float_eq(result_of(t, v, "next", s_name)[i], s, 1e-12);
        } else {
            x += 0.1 * decay * w[i];
            if (which % 3 == 1) x += 0.9 * leaf_value(t, v, OP_state, arena_fmt(a, "momentum.%s", full))[i];
            want = w[i] - lr * x;
        }
        cr_assert_float_eq(next[i], want, 1e-12, "%s[%d] becomes %.17g, want %.17g", name, i, next[i], want);
    }
}

static void steps_of(Arena *a, Diags *d, uint64_t which) {
    static const Opt opts[] = {
        {.kind = "adamw", .b1 = 0.9, .b2 = 0.95, .eps = 1e-8, .wd = 0.01},
        {.kind = "sgd", .wd = 0.1, .momentum = 0.9},
        {.kind = "sgd", .wd = 0.1},
    };
    Opt o = opts[which % 3];
    double clip = which < 3 ? 0.5 : 0;
    Graph *g = two_vectors(a, o, clip);
    PassOptions p = {.real = DT_F64,
                     .stop_after = "form",
                     .keep_grads = true,
                     .check_roundtrip = true,
                     .check_eval = true};
    Graph *t = passes_run(a, g, &p, d);
    cr_assert(t != NULL, "%s", first_diag(d));
    double **v = evaluate(a, t, 3, d), norm = 0;
    const double *dw = result_of(t, v, "grad", "policy/w"), *du = result_of(t, v, "grad", "policy/u");
    cr_assert(graph_find_result(t, "grad", "policy/frozen") == NULL &&
              graph_find_result(t, "next", "policy/frozen") == NULL);
    for (int i = 0; i < 4; i++) norm += dw[i] * dw[i] + du[i] * du[i];
    norm = sqrt(norm);
    cr_assert_float_eq(result_of(t, v, "grad_norm", "grad_norm")[0], norm, 1e-12);
    cr_assert_float_eq(result_of(t, v, "lr", "0")[0], 0.125, 0);
    double factor = clip > 0 ? fmin(1, clip / (norm + 1e-6)) : 1;
    vector_step(a, t, v, "w", which, factor, 1);
    vector_step(a, t, v, "u", which, factor, 0);
}
Test(train, optimizers_follow_their_formulas) {
    for (uint64_t k = 0; k < 6; k++) guarded(steps_of, k);
}

static void no_gradient(Arena *a, Diags *d, uint64_t which) {
    (void)which;
    Tiny t = tiny(a);
    Graph *g = t.g;
    ValueId w = param(&t, "w", &t.hidden, 1, 0), total = b_over(g, OP_sum, b_ew1(g, OP_cos, w), &t.hidden, 1);
    graph_result(g, "loss", "l", total);
    graph_result(g, "total", "loss", total);
    optimizer(&t, (Opt){.kind = "sgd"});
    PassOptions p = {.real = DT_F64, .stop_after = "autodiff"};
    cr_assert(passes_run(a, g, &p, d) == NULL);
    cr_assert_eq(d->nerror, 1);
    cr_assert_eq(d->item[0]->code, P003);
    cr_assert(strstr(d->item[0]->text, "cos"), "%s", d->item[0]->text);
}
Test(train, an_op_without_gradient_is_an_error) {
    guarded(no_gradient, 0);
}
