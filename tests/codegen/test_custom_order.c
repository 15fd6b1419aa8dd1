/* Ops over an order, against the evaluator. */
#include "custom_harness.h"

#define START(dt)                                                                                            \
    Case c;                                                                                                  \
    case_open(&c, dt);                                                                                       \
    CASE_GUARD(&c)

static void finish(Case *c, Op op, const ValueId *in, uint32_t nin, const Attr *at, uint32_t nat) {
    ValueId r = build(c->g, op, in, nin, at, nat);
    case_check(c, case_node(c, r), op_info[op].name);
    case_close(c);
}

static void along(DType dt, Op op, const char *x, const char *dim, int64_t attr) {
    START(dt);
    bool mask = op == OP_first || op == OP_last;
    bool ties = op == OP_argmax && attr != 0; /* whole numbers below 3 */
    ValueId v = case_leaf(&c, mask ? DT_BOOL : dt, x, mask ? FILL_MASK : ties ? FILL_TOKEN : FILL_REAL, 3);
    Attr at[3] = {at_dim(case_dim(&c, dim)), at_none(), at_none()};
    if (op == OP_argmax) {
        at[1] = at_int(1);
        at[2] = at_bool(attr != 0);
    }
    if (op == OP_cumsum) at[1] = at_bool(attr != 0);
    finish(&c, op, &v, 1, at, mask ? 1 : op == OP_argmax ? 3 : 2);
}
Test(custom_order, along, .timeout = 1200) {
    for (int r = 0; r < 2; r++) {
        along(DT_F64, OP_argmax, "a4 b6", "b", r);
        along(DT_F32, OP_argmax, "a4 b6 c3", "b", r);
        along(DT_F64, OP_cumsum, "a4 b6 c3", "b", r);
        along(DT_F32, OP_cumsum, "b6", "b", r);
        along(DT_F64, OP_first, "a4 b6 c3", r ? "a" : "b", 0);
        along(DT_F64, OP_last, "a4 b6 c3", r ? "c" : "b", 0);
    }
}

static void scanned(DType dt, const char *init, const char *a, const char *b, bool reverse, bool grad) {
    START(dt);
    ValueId v[6] = {case_real(&c, init), case_real(&c, a), case_real(&c, b),
                    case_leaf(&c, DT_BOOL, "a4 s9 g2", FILL_MASK, 0)};
    Attr at[2] = {at_dim(case_dim(&c, "s")), at_bool(reverse)};
    if (grad) {
        v[4] = case_real(&c, "a4 s9 g2");
        v[5] = case_real(&c, "a4 s9 g2");
    }
    finish(&c, grad ? OP_scan_grad : OP_scan, v, grad ? 6 : 4, at, 2);
}
Test(custom_order, scan, .timeout = 1200) {
    for (int i = 0; i < 4; i++) {
        scanned(DT_F64, "a4 g2", "a4 s9 g2", "a4 s9 g2", i & 1, i & 2);
        scanned(DT_F32, "a4", "s9", "a4 s9 g2", i & 1, i & 2);
        scanned(DT_F64, "", "", "g2 a4", i & 1, i & 2);
    }
}

/* Results that nothing reads have no memory; the others are the same. */
static void scan_part(DType dt, uint32_t wanted, const char *a) {
    START(dt);
    ValueId v[6] = {case_real(&c, "a4"),    case_real(&c, a),
                    case_real(&c, "a4 s9"), case_leaf(&c, DT_BOOL, "a4 s9", FILL_MASK, 0),
                    case_real(&c, "a4 s9"), case_real(&c, "a4 s9")};
    Attr at[2] = {at_dim(case_dim(&c, "s")), at_bool(false)};
    ValueId r = build(c.g, OP_scan_grad, v, 6, at, 2);
    for (uint32_t i = 0; i < 3; i++)
        if (i != wanted) c.unwanted[c.nunwanted++] = (ValueId){r.i + i};
    case_check(&c, case_node(&c, r), "scan_grad, one result");
    case_close(&c);
}
Test(custom_order, scan_grad_parts, .timeout = 1200) {
    for (uint32_t i = 0; i < 3; i++) {
        scan_part(DT_F64, i, "a4 s9");
        scan_part(DT_F32, i, "s9");
    }
}

static void quantiles(DType dt, double q, const char *x, const char *m, const char *over, Fill fill) {
    START(dt);
    DimId d[MAX_DIMS];
    ValueId v[2] = {case_real(&c, x), case_leaf(&c, DT_BOOL, m, fill, 0)};
    uint32_t n = case_dims(&c, over, d);
    Attr at[2] = {at_float(q), at_dims(c.g, d, n)};
    finish(&c, OP_quantile, v, 2, at, 2);
}
Test(custom_order, quantile, .timeout = 1200) {
    quantiles(DT_F64, 0.4, "a4 b60", "a4 b60", "b60", FILL_MASK);
    quantiles(DT_F32, 0.4, "a4 b60", "a4 b60", "a4 b60", FILL_MASK);
    quantiles(DT_F32, 0.0, "a4 b60", "b60 a4", "a4", FILL_MASK);
    quantiles(DT_F64, 1.0, "b60 a4", "b60", "b60", FILL_MASK);
    quantiles(DT_F64, 0.5, "b11", "a4 b11", "b11", FILL_MASK);
    quantiles(DT_F32, 0.5, "a4 b60", "a4 b60", "b60", FILL_ZERO);
}

static void shuffled(DType dt, const char *x, const char *m, const char *over, bool inverse) {
    START(dt);
    ValueId v[2] = {case_real(&c, x), case_leaf(&c, DT_BOOL, m, FILL_MASK, 0)};
    case_scalar(&c, "seed", (double)c.seed);
    case_scalar(&c, "step", (double)c.step);
    Attr at[3] = {at_dim(case_dim(&c, over)), at_int(99), at_bool(inverse)};
    finish(&c, OP_shuffle, v, 2, at, 3);
}
Test(custom_order, shuffle, .timeout = 1200) {
    for (int i = 0; i < 2; i++) {
        shuffled(DT_F64, "a4 b60", "a4 b60", "b", i);
        shuffled(DT_F32, "a7 b60", "a7 b60", "a", i);
    }
}

/* In a section of micro-batches the words go on counting: micro-batch 1 of a draw or a shuffle over [micro,
 * batch, ..] is the second half of the whole. */
static ValueId drawn(Case *c, Op op, const char *dims, const double *x, const double *m) {
    DimId d[MAX_DIMS];
    uint32_t n = case_dims(c, dims, d);
    if (op != OP_shuffle) {
        Attr at[1] = {at_int(5)};
        return build_leaf(c->g, op, type_make(c->real, d, n), at, 1);
    }
    ValueId v[2] = {case_real(c, dims), case_leaf(c, DT_BOOL, dims, FILL_MASK, 0)};
    if (x) c->leaf[c->nleaf - 2].x = (double *)(uintptr_t)x;
    if (m) c->leaf[c->nleaf - 1].x = (double *)(uintptr_t)m;
    Attr at[3] = {at_dim(d[n - 1]), at_int(5), at_bool(false)};
    return build(c->g, OP_shuffle, v, 2, at, 3);
}
static void second_half(DType dt, Op op) {
    Case whole, c;
    case_open(&whole, dt);
    CASE_GUARD(&whole);
    whole.tol = dt == DT_F32 ? 1e-6 : 1e-12;
    ValueId full = drawn(&whole, op, "m2 a3 s17", NULL, NULL);
    EvalInput in = {case_fill_leaf, &whole, whole.seed, whole.step};
    double **ref = graph_eval(whole.a, whole.g, &in, &full, 1, whole.d);
    cr_assert(ref != NULL);
    case_open(&c, dt);
    CASE_GUARD(&c);
    case_scalar(&c, "seed", (double)c.seed);
    case_scalar(&c, "step", (double)c.step);
    case_scalar(&c, "micro", 1);
    bool shuffle = op == OP_shuffle;
    ValueId v =
        drawn(&c, op, "a3 s17", shuffle ? whole.leaf[0].x + 51 : NULL, shuffle ? whole.leaf[1].x + 51 : NULL);
    c.g->batch = case_dim(&c, "a");
    c.g->node[case_node(&c, v).i].section = 1;
    double *want[16] = {0};
    want[v.i] = ref[full.i] + 51;
    case_level(&c, CPU_V3, case_node(&c, v), want, op_info[op].name);
    case_close(&c);
    case_close(&whole);
}
Test(custom_order, micro_batches, .timeout = 1200) {
    const Op op[] = {OP_uniform, OP_normal, OP_shuffle};
    for (int i = 0; i < 3; i++) {
        second_half(DT_F64, op[i]);
        second_half(DT_F32, op[i]);
    }
}
