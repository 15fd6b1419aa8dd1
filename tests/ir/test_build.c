/* test_build.c: appending, reading, uses, copying, cost. */
#include "ir_test.h"

IR_TEST(build, types_and_context) {
    (void)d;
    Graph *g = small_graph(a, ST_MATH);
    g->path = "loss";
    g->flags = N_BWD;
    g->origin = 0;
    g->loc.line = 7;
    ValueId x = input_of(g, "x", "f32[a,b]"), y = input_of(g, "y", "f32[b]");
    ValueId z = b_ew2(g, OP_add, y, x);
    cr_assert_str_eq(shown(g, z), "f32[a,b]");
    const Node *n = value_node(g, z);
    cr_assert(n->op == OP_add && n->flags == N_BWD && n->origin == 0 && n->loc.line == 7);
    cr_assert_str_eq(n->path, "loss");
    DimId b = dim_of(g, "b"), k = dim_of(g, "k");
    cr_assert_str_eq(shown(g, b_over(g, OP_sum, z, &b, 1)), "f32[a]");
    cr_assert_eq(b_over(g, OP_sum, z, &b, 0).i, z.i);
    cr_assert_str_eq(shown(g, b_expand(g, z, &k, 1)), "f32[k,a,b]");
    cr_assert_eq(b_cast(g, z, DT_F32).i, z.i);
    cr_assert_str_eq(shown(g, b_cast(g, z, DT_F64)), "f64[a,b]");
    cr_assert_str_eq(op_info[OP_pow].expr, "POW(x0, x1)");
    cr_assert_str_eq(op_info[OP_sum].cost, "OVER");
    cr_assert_str_eq(op_info[OP_matmul].attr[0].name, "over");
    cr_assert_eq(op_info[OP_param].nattr, 9);
    Op op;
    cr_assert(op_find("linear_ce_fb", &op) && op == OP_linear_ce_fb && !op_find("linear", &op));
}

IR_TEST(build, uses) {
    (void)d;
    Graph *g = small_graph(a, ST_MATH);
    ValueId x = input_of(g, "x", "f32[a,b]"), y = input_of(g, "y", "f32[b]");
    ValueId z = b_ew2(g, OP_mul, x, x), w = b_ew2(g, OP_add, z, x);
    Uses u = graph_uses(a, g);
    cr_assert_eq(u.use0[x.i + 1] - u.use0[x.i], 3);
    cr_assert_eq(u.use[u.use0[x.i]].i, value_type(g, z) ? g->value[z.i].def.i : 0);
    cr_assert_eq(u.use[u.use0[x.i] + 2].i, g->value[w.i].def.i);
    cr_assert_eq(u.use0[y.i + 1] - u.use0[y.i], 0);
    cr_assert_eq(u.use0[z.i + 1] - u.use0[z.i], 1);
    cr_assert_eq(u.use0[w.i + 1] - u.use0[w.i], 0);
}

IR_TEST(build, copy) {
    (void)d;
    Graph *g = small_graph(a, ST_MATH);
    g->clip_norm = 2;
    ValueId x = input_of(g, "x", "f32[a,b]"), dead = input_of(g, "y", "f32[b]");
    (void)dead;
    g->origin = (int32_t)g->value[x.i].def.i;
    DimId b = dim_of(g, "b");
    ValueId s = b_over(g, OP_sum, x, &b, 1);
    graph_result(g, "value", "s", s);
    GROW(a, g->opt, g->nopt, g->opt_cap);
    g->opt[g->nopt++] = (Opt){"sgd", s, 0, 0, 0, 0, 0, NOLOC};
    graph_note(g, "n%d", 1);
    Graph *c = graph_like(a, g);
    ValueId *map = NEWN(a, ValueId, g->nvalue);
    for (uint32_t k = 0; k < g->nvalue; k++) map[k] = NOVALUE;
    ValueId other = input_of(c, "x", "f64[a,b]");
    map[x.i] = other;
    graph_copy_node(c, g, g->value[s.i].def, map);
    graph_copy_results(c, g, map);
    cr_assert_str_eq(shown(c, map[s.i]), "f64[a]"); /* inferred again */
    cr_assert_eq(value_node(c, map[s.i])->origin, 0);
    cr_assert_eq(graph_find_result(c, "value", "s")->v.i, map[s.i].i);
    cr_assert(c->nopt == 1 && c->opt[0].lr.i == map[s.i].i && c->nnote == 1 && c->clip_norm == 2);
}

IR_TEST(build, cost) {
    (void)d;
    Graph *g = small_graph(a, ST_MATH);
    ValueId x = input_of(g, "x", "f32[a,k]"), y = input_of(g, "y", "f32[v,k]");
    DimId k = dim_of(g, "k");
    ValueId m = b_matmul(g, x, y, &k, 1);
    cr_assert_str_eq(shown(g, m), "f32[a,v]");
    cr_assert_float_eq(node_flops(g, value_node(g, m)), 2 * 4 * 21, 0);
    cr_assert_eq(node_bytes(g, value_node(g, m)), 4 * (12 + 28 + 21));
    cr_assert_float_eq(node_flops(g, value_node(g, b_over(g, OP_sum, x, &k, 1))), 12, 0);
}
