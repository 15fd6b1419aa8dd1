/* Ops that move data, rope and scatter_add, against the evaluator. */
#include "custom_harness.h"

static void check1(Case *c, Op op, const ValueId *in, uint32_t nin, const Attr *at, uint32_t nat,
                   const char *what) {
    ValueId r = build(c->g, op, in, nin, at, nat);
    case_check(c, case_node(c, r), what);
    case_close(c);
}
#define START(dt)                                                                                            \
    Case c;                                                                                                  \
    case_open(&c, dt);                                                                                       \
    CASE_GUARD(&c)

static void shifted(DType dt, const char *x, const char *dim, int by, double fill) {
    START(dt);
    ValueId v = case_leaf(&c, dt, x, dt == DT_I32 ? FILL_TOKEN : dt == DT_BOOL ? FILL_MASK : FILL_REAL, 9);
    Attr at[5] = {at_dim(case_dim(&c, dim)), at_int(by), at_none(), at_none(), at_float(fill)};
    check1(&c, OP_shift, &v, 1, at, 5, "shift");
}
Test(custom_move, shift, .timeout = 1200) {
    shifted(DT_F64, "a3 s6 h5", "s", 1, 0);
    shifted(DT_F32, "a3 s6 h5", "s", -2, 0.5);
    shifted(DT_F32, "a3 s6", "s", 3, 0);
    shifted(DT_I32, "a3 s6", "s", 2, -100);
    shifted(DT_BOOL, "s6 a3", "s", 1, 0);
    shifted(DT_F64, "s6", "s", 9, 0);
}
static void shift_added(DType dt, bool grad) {
    START(dt);
    DimId add[2];
    int64_t factor[2] = {1, -2};
    ValueId v = case_real(&c, grad ? "a3 s7 h4 e2 f3" : "a3 s7 h4");
    case_dims(&c, "e2 f3", add);
    Attr at[5] = {at_dim(case_dim(&c, "s")), at_int(1), at_dims(c.g, add, 2), at_ints(c.g, factor, 2),
                  at_float(0.25)};
    check1(&c, grad ? OP_shift_grad : OP_shift, &v, 1, at, grad ? 4 : 5, "shift with added dims");
}
Test(custom_move, shift_added, .timeout = 1200) {
    shift_added(DT_F64, false);
    shift_added(DT_F32, false);
    shift_added(DT_F64, true);
    shift_added(DT_F32, true);
}
Test(custom_move, shift_grad_plain, .timeout = 1200) {
    START(DT_F64);
    ValueId v = case_real(&c, "a3 s7 h4");
    Attr at[4] = {at_dim(case_dim(&c, "s")), at_int(2), at_none(), at_none()};
    check1(&c, OP_shift_grad, &v, 1, at, 4, "shift_grad");
}

static void selected(DType dt, Op op, const char *x, const char *dim, int64_t size, int index) {
    START(dt);
    ValueId v = case_leaf(&c, dt, x, dt == DT_I32 ? FILL_TOKEN : FILL_REAL, 9);
    Attr at[2] = {at_dim(graph_dim(c.g, dim, size)), at_int(index)};
    check1(&c, op, &v, 1, at, 2, op_info[op].name);
}
Test(custom_move, select_place, .timeout = 1200) {
    selected(DT_F64, OP_select, "a3 s6 h5", "s", 6, 2);
    selected(DT_F32, OP_select, "a3 s6 h5", "a", 3, 2);
    selected(DT_I32, OP_select, "a3 s6 h5", "h", 5, 4);
    selected(DT_F64, OP_place, "a3 s6", "n", 4, 3);
    selected(DT_F32, OP_place, "a3 s6", "n", 4, 0);
}
Test(custom_move, stack, .timeout = 1200) {
    START(DT_F32);
    ValueId v[3] = {case_real(&c, "a3 s6"), case_real(&c, "a3 s6"), case_real(&c, "a3 s6")};
    Attr at[1] = {at_dim(graph_dim(c.g, "n", 3))};
    check1(&c, OP_stack, v, 3, at, 1, "stack");
}
static void transposed(const char *to) {
    START(DT_F64);
    DimId d[MAX_DIMS];
    ValueId v = case_real(&c, "a3 s6 h5");
    uint32_t n = case_dims(&c, to, d);
    Attr at[1] = {at_dims(c.g, d, n)};
    check1(&c, OP_transpose, &v, 1, at, 1, "transpose");
}
Test(custom_move, transpose, .timeout = 1200) {
    transposed("s6 a3 h5");
    transposed("h5 a3 s6");
    transposed("a3 h5 s6");
    transposed("a3 s6 h5");
}

static void rotated(DType dt, const char *x, bool inverse) {
    START(dt);
    ValueId v[2] = {case_real(&c, x), case_real(&c, "s5 d4")};
    Attr at[3] = {at_dim(case_dim(&c, "s")), at_dim(case_dim(&c, "d")), at_bool(inverse)};
    check1(&c, OP_rope, v, 2, at, 3, "rope");
}
Test(custom_move, rope, .timeout = 1200) {
    rotated(DT_F64, "a2 s5 h3 d4", false);
    rotated(DT_F32, "a2 s5 h3 d4", true);
    rotated(DT_F64, "d4 a2 s5", true);
}

static void gathered(DType dt, const char *x, const char *t, Fill fill) {
    START(dt);
    ValueId v[2] = {case_real(&c, x), case_leaf(&c, DT_I32, t, fill, 7)};
    Attr at[1] = {at_dim(case_dim(&c, "v"))};
    check1(&c, OP_gather, v, 2, at, 1, "gather");
}
Test(custom_move, gather, .timeout = 1200) {
    gathered(DT_F64, "v7 h4", "a3 b5", FILL_TOKEN);
    gathered(DT_F32, "v7 h4 g3", "a3 b5", FILL_TOKEN);
    gathered(DT_F32, "h4 v7", "a3 b5", FILL_TOKEN);
    gathered(DT_F64, "c3 v7 h4", "b5 a3", FILL_TOKEN);
    gathered(DT_F64, "v7 h4", "a3 b5", FILL_IGNORE);
}

static void scattered(DType dt, const char *x, const char *t, const char *over, Fill fill) {
    START(dt);
    DimId d[MAX_DIMS];
    ValueId v[2] = {case_real(&c, x), case_leaf(&c, DT_I32, t, fill, 7)};
    uint32_t n = case_dims(&c, over, d);
    Attr at[2] = {at_dim(graph_dim(c.g, "v", 7)), at_dims(c.g, d, n)};
    check1(&c, OP_scatter_add, v, 2, at, 2, "scatter_add");
}
Test(custom_move, scatter_add, .timeout = 1200) {
    scattered(DT_F64, "a3 b50 h4", "a3 b50", "a3 b50", FILL_TOKEN);
    scattered(DT_F32, "a3 b50 h4", "a3 b50", "a3 b50", FILL_TOKEN);
    scattered(DT_F64, "a3 b50 h4 g2", "a3 b50", "b50", FILL_TOKEN);
    scattered(DT_F64, "a3 b50 h4", "b50 a3", "a3", FILL_TOKEN);
    scattered(DT_F64, "b50 a3 h4", "a3 b50", "a3 b50", FILL_TOKEN);
    scattered(DT_F64, "a3 b50", "a3 b50", "a3 b50", FILL_TOKEN);
    scattered(DT_F64, "a3 b50 h4", "a3 b50", "a3 b50", FILL_IGNORE);
}

static void leaf(DType dt, Op op, const char *dims, const Attr *at, uint32_t nat) {
    START(dt);
    c.tol = dt == DT_F32 ? 1e-6 : 1e-12;
    DimId d[MAX_DIMS];
    uint32_t n = case_dims(&c, dims, d);
    case_scalar(&c, "seed", (double)c.seed);
    case_scalar(&c, "step", (double)c.step);
    Attr own[4];
    for (uint32_t i = 0; i < nat; i++) own[i] = at[i];
    if (op == OP_rope_table) {
        own[0] = at_dim(d[0]);
        own[1] = at_dim(d[1]);
    }
    if (op == OP_iota) own[0] = at_dim(d[0]);
    if (op == OP_tensor) own[0] = at_floats(c.g, (const double[]){1.5, -2, 3.25, 4, 5, 6}, 6);
    Type t = type_make(dt, d, n);
    ValueId v = build_leaf(c.g, op, t, own, nat);
    case_check(&c, case_node(&c, v), op_info[op].name);
    case_close(&c);
}
Test(custom_move, leaves, .timeout = 1200) {
    const DType both[] = {DT_F64, DT_F32};
    for (int i = 0; i < 2; i++) {
        leaf(both[i], OP_uniform, "a3 s17", (const Attr[]){at_int(4000000000)}, 1);
        leaf(both[i], OP_normal, "a3 s17", (const Attr[]){at_int(77)}, 1);
        leaf(both[i], OP_rope_table, "s9 d8",
             (const Attr[]){at_none(), at_none(), at_float(10000), at_int(1)}, 4);
        leaf(both[i], OP_iota, "s9", (const Attr[]){at_none(), at_int(1)}, 2);
        leaf(both[i], OP_tensor, "a2 s3", (const Attr[]){at_none()}, 1);
        leaf(both[i], OP_const, "", (const Attr[]){at_float(0.1)}, 1);
    }
    leaf(DT_I32, OP_iota, "s9", (const Attr[]){at_none(), at_int(0)}, 2);
}
