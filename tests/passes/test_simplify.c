/* What simplify removes, and what it must leave: signs of zero, reachable stop_grad, trained parameters. */
#include "tests/passes/pass_test.h"

typedef struct {
    Graph *g;
    ValueId x, y, m;
    DimId micro, batch, seq, head;
} Small;

static Small small(Arena *a) {
    Small s = {.g = graph_new(a, "small", ST_MATH)};
    s.micro = graph_dim(s.g, "micro", 2);
    s.batch = graph_dim(s.g, "batch", 2);
    s.seq = graph_dim(s.g, "seq", 3);
    s.head = graph_dim(s.g, "head", 2);
    s.g->micro = s.micro;
    s.g->batch = s.batch;
    DimId d[3] = {s.micro, s.batch, s.seq};
    Attr x = at_str(s.g, "x"), y = at_str(s.g, "y"), m = at_str(s.g, "m");
    s.x = build_leaf(s.g, OP_input, type_make(DT_F64, d, 3), &x, 1);
    s.y = build_leaf(s.g, OP_input, type_make(DT_F64, d, 3), &y, 1);
    s.m = build_leaf(s.g, OP_input, type_make(DT_BOOL, d, 3), &m, 1);
    return s;
}
static ValueId num(Small *s, double v) {
    return b_const(s->g, DT_F64, v);
}
static ValueId select_of(Graph *g, ValueId v, DimId dim, int64_t i) {
    Attr at[2] = {at_dim(dim), at_int(i)};
    return build(g, OP_select, &v, 1, at, 2);
}
static Graph *simplified(Arena *a, Small *s, ValueId v, Diags *d) {
    graph_result(s->g, "value", "v", v);
    PassOptions o = {.real = DT_F64, .check_roundtrip = true, .check_eval = true, .stop_after = "simplify"};
    Graph *t = passes_run(a, s->g, &o, d);
    cr_assert(t != NULL, "%s", first_diag(d));
    return t;
}
static Op result_op(const Graph *g) {
    return value_node(g, g->result[0].v)->op;
}

typedef struct {
    const char *what;
    ValueId (*make)(Small *s);
    Op op;
    uint32_t nodes;
} Row;

static ValueId times_one(Small *s) {
    return b_ew2(s->g, OP_mul, num(s, 1), s->x);
}
static ValueId plus_zero(Small *s) {
    return b_ew2(s->g, OP_add, s->x, num(s, 0));
}
static ValueId plus_minus_zero(Small *s) {
    return b_ew2(s->g, OP_add, s->x, num(s, -0.0));
}
static ValueId minus_zero(Small *s) {
    return b_ew2(s->g, OP_sub, s->x, num(s, 0));
}
static ValueId by_one(Small *s) {
    return b_ew2(s->g, OP_div, s->x, num(s, 1));
}
static ValueId square(Small *s) {
    return b_ew2(s->g, OP_pow, s->x, num(s, 2));
}
static ValueId negated(Small *s) {
    return b_ew1(s->g, OP_neg, b_ew1(s->g, OP_neg, s->x));
}
static ValueId where_true(Small *s) {
    return b_ew3(s->g, OP_where, b_const(s->g, DT_BOOL, 1), s->x, s->y);
}
static ValueId or_true(Small *s) {
    return b_ew2(s->g, OP_or, s->m, b_const(s->g, DT_BOOL, 1));
}
static ValueId and_true(Small *s) {
    return b_ew2(s->g, OP_and, s->m, b_const(s->g, DT_BOOL, 1));
}
static ValueId folded(Small *s) {
    return b_ew1(s->g, OP_exp, b_ew2(s->g, OP_mul, num(s, 2), num(s, 3)));
}
static ValueId twice(Small *s) {
    return b_ew2(s->g, OP_mul, b_ew2(s->g, OP_add, s->x, s->y), b_ew2(s->g, OP_add, s->y, s->x));
}
static ValueId min_twice(Small *s) { /* of 0 and -0 the first counts: not the same */
    return b_ew2(s->g, OP_mul, b_ew2(s->g, OP_min, s->x, s->y), b_ew2(s->g, OP_min, s->y, s->x));
}
static ValueId of_stack(Small *s) {
    Attr at = at_dim(s->head);
    return select_of(s->g, build(s->g, OP_stack, (ValueId[]){s->x, s->y}, 2, &at, 1), s->head, 1);
}
static ValueId of_shift(Small *s) {
    int64_t two = 2;
    Attr at[5] = {at_dim(s->seq), at_int(1), at_dims(s->g, &s->head, 1), at_ints(s->g, &two, 1), at_float(0)};
    return select_of(s->g, build(s->g, OP_shift, &s->x, 1, at, 5), s->head, 1);
}
static ValueId through_ew(Small *s) {
    Attr at = at_dim(s->head), io[2] = {at_dim(s->head), at_int(1)};
    ValueId st = build(s->g, OP_stack, (ValueId[]){s->x, s->y}, 2, &at, 1);
    ValueId heads = build_leaf(s->g, OP_iota, type_make(DT_F64, &s->head, 1), io, 2);
    return select_of(s->g, b_ew2(s->g, OP_mul, st, heads), s->head, 0); /* x * 1 */
}
static ValueId broadcast(Small *s) {
    ValueId k = b_over(s->g, OP_sum, s->x, (DimId[]){s->micro, s->batch, s->seq}, 3);
    return b_ew2(s->g, OP_mul, s->y, b_expand(s->g, k, (DimId[]){s->micro, s->batch, s->seq}, 3));
}
static ValueId stopped(Small *s) {
    return b_ew1(s->g, OP_stop_grad, b_ew1(s->g, OP_stop_grad, s->x));
}

static const Row rows[] = {
    {"x * 1", times_one, OP_input, 1},
    {"x + 0", plus_zero, OP_add, 3},
    {"x + -0", plus_minus_zero, OP_input, 1},
    {"x - 0", minus_zero, OP_input, 1},
    {"x / 1", by_one, OP_input, 1},
    {"x^2", square, OP_mul, 2},
    {"--x", negated, OP_input, 1},
    {"where(true)", where_true, OP_input, 1},
    {"m or true", or_true, OP_expand, 2},
    {"m and true", and_true, OP_input, 1},
    {"exp(2 * 3)", folded, OP_const, 1},
    {"(x + y)(y + x)", twice, OP_mul, 4},
    {"min min", min_twice, OP_mul, 5},
    {"select of stack", of_stack, OP_input, 1},
    {"select of shift", of_shift, OP_shift, 2},
    {"select of x * heads", through_ew, OP_input, 1},
    {"broadcast", broadcast, OP_mul, 4},
    {"stop stop", stopped, OP_stop_grad, 2},
};

static void one_row(Arena *a, Diags *d, uint64_t k) {
    Small s = small(a);
    Graph *t = simplified(a, &s, rows[k].make(&s), d);
    cr_assert_eq(result_op(t), rows[k].op, "%s became %s", rows[k].what, op_info[result_op(t)].name);
    cr_assert_eq(t->nnode, rows[k].nodes, "%s: %u nodes left", rows[k].what, t->nnode);
}
Test(simplify, rules) {
    for (uint64_t k = 0; k < WM_LEN(rows); k++) guarded(one_row, k);
}

static void shifted_by(Arena *a, Diags *d, uint64_t k) {
    (void)k;
    Small s = small(a);
    Graph *t = simplified(a, &s, of_shift(&s), d);
    cr_assert_eq(attr_int(t, value_node(t, t->result[0].v), "by"), 3); /* 1 + 2 * 1 */
    cr_assert_eq(node_attr(t, value_node(t, t->result[0].v), "add")->kind, AT_NONE);
}
Test(simplify, a_selected_shift_has_a_constant) {
    guarded(shifted_by, 0);
}

static void trained(Arena *a, Diags *d, uint64_t k) {
    (void)k;
    Small s = small(a);
    Graph *g = s.g;
    for (int i = 0; i < 2; i++) {
        Attr at[9] = {at_str(g, "m"), at_str(g, i ? "frozen" : "w"), at_str(g, "h"),     at_str(g, "seq"),
                      at_none(),      at_str(g, "const:0"),          at_int(i ? -1 : 0), at_bool(true),
                      at_int(i)};
        build_leaf(g, OP_param, type_make(DT_F32, &s.seq, 1), at, 9);
    }
    GROW(g->arena, g->opt, g->nopt, g->opt_cap);
    g->opt[g->nopt++] = (Opt){.kind = "sgd", .lr = num(&s, 0.1)};
    Graph *t = simplified(a, &s, s.x, d);
    uint32_t params = 0;
    for (uint32_t i = 0; i < t->nnode; i++) params += t->node[i].op == OP_param;
    cr_assert_eq(params, 1, "the trained parameter stays, the frozen one goes");
}
Test(simplify, trained_parameters_stay) {
    guarded(trained, 0);
}
