/* Pass fuse: groups are convex, fit one kernel, and change no bit. */
#include "group_test.h"

#include "passes/passes.h"

TestSuite(fuse, .init = kernels_open, .fini = kernels_close, .timeout = 600);

static Graph *new_graph(void) {
    Graph *g = graph_new(arena, "t", ST_LOCAL);
    g->micro.i = g->batch.i = UINT32_MAX;
    graph_dim(g, "batch", 3), graph_dim(g, "seq", 20), graph_dim(g, "hidden", 48), graph_dim(g, "out", 32);
    return g;
}
static DimId dim(const Graph *g, const char *name) {
    DimId d;
    cr_assert(graph_find_dim(g, name, &d));
    return d;
}
/* Input over the named dims, first letters of batch seq hidden out. */
static Type type_dims(const Graph *g, const char *dims, DType dt) {
    static const char *const full[] = {"batch", "seq", "hidden", "out"};
    Type t = {.dt = dt};
    for (; *dims; dims++)
        for (size_t k = 0; k < WM_LEN(full); k++)
            if (full[k][0] == *dims) t.dim[t.ndim++] = dim(g, full[k]);
    return t;
}
static ValueId leaf(Graph *g, const char *name, const char *dims, DType dt) {
    Attr at = at_str(g, name);
    return build_leaf(g, OP_input, type_dims(g, dims, dt), &at, 1);
}

/* Runs every unit of g on the inputs in order; only what leaves its group gets memory. */
static Bench run_units(Graph *g, uint32_t *kernels) {
    Bench b = bench_open(g);
    Uses uses = graph_uses(arena, g);
    for (uint32_t v = 0; v < g->nvalue; v++) {
        uint32_t group = g->node[g->value[v].def.i].group;
        bool inside = group != 0;
        for (uint32_t u = uses.use0[v]; u < uses.use0[v + 1]; u++)
            inside &= g->node[uses.use[u].i].group == group;
        for (uint32_t r = 0; r < g->nresult; r++) inside &= g->result[r].v.i != v;
        if (inside) g->value[v].arena = NONE;
    }
    Emit e = bench_emit(&b);
    for (uint32_t i = 0; i < g->nnode;) {
        uint32_t n = 1;
        while (g->node[i].group && i + n < g->nnode && g->node[i + n].group == g->node[i].group) n++;
        if (op_info[g->node[i].op].kind != K_LEAF) cr_assert(emit_group(&e, (NodeId){i}, n));
        i += n;
    }
    bench_reset(&b);
    bench_run(&b, &e, 2);
    bench_guards(&b);
    *kernels = e.nlaunch;
    return b;
}

/* Same results, bit for bit, with and without fusion; returns the fused graph. */
static Graph *check(Graph *g, uint32_t most) {
    PassOptions on = {.real = DT_F32}, off = {.real = DT_F32, .off_fuse = true};
    Graph *x = pass_fuse(arena, g, &on, diags), *y = pass_fuse(arena, g, &off, diags);
    uint32_t nx, ny;
    bench_seed = 5;
    Bench bx = run_units(x, &nx);
    bench_seed = 5;
    Bench by = run_units(y, &ny);
    cr_assert(nx < ny, "%u kernels, %u without fusion", nx, ny);
    cr_assert(nx <= most, "%u kernels, at most %u expected", nx, most);
    for (uint32_t r = 0; r < g->nresult; r++) {
        const Value *a = &x->value[x->result[r].v.i], *b = &y->value[y->result[r].v.i];
        cr_assert(memcmp(bx.mem + a->off, by.mem + b->off, (size_t)type_bytes(x, &a->ty)) == 0, "result %s",
                  g->result[r].name);
    }
    for (uint32_t i = 0; i < x->nnode; i++) /* groups stand together */
        for (uint32_t k = i + 1; k < x->nnode; k++)
            if (x->node[i].group && x->node[i].group == x->node[k].group)
                cr_assert_eq(x->node[k - 1].group, x->node[k].group);
    free(bx.mem);
    free(by.mem);
    return x;
}

static ValueId norm(Graph *g, ValueId x, ValueId gain, ValueId *inv) {
    DType dt = value_type(g, x)->dt;
    DimId h = dim(g, "hidden");
    ValueId ms = b_ew2(g, OP_div, b_over(g, OP_sum, b_ew2(g, OP_mul, x, x), &h, 1), b_const(g, dt, 48));
    *inv = b_ew2(g, OP_div, b_const(g, dt, 1), b_ew1(g, OP_sqrt, b_ew2(g, OP_add, ms, b_const(g, dt, 1e-5))));
    return b_ew2(g, OP_mul, b_ew2(g, OP_mul, x, *inv), gain);
}

Test(fuse, residual_and_norm) {
    Graph *g = new_graph();
    ValueId x = leaf(g, "x", "bsh", DT_F32), y = leaf(g, "y", "bsh", DT_F32),
            gain = leaf(g, "g", "h", DT_F32), inv;
    ValueId r = b_ew2(g, OP_add, x, y), out = norm(g, r, gain, &inv);
    graph_result(g, "value", "sum", r);
    graph_result(g, "value", "inv", inv);
    graph_result(g, "value", "out", out);
    check(g, 1);
}

Test(fuse, norm_backward) {
    Graph *g = new_graph();
    ValueId x = leaf(g, "x", "bsh", DT_F32), dy = leaf(g, "y", "bsh", DT_F32),
            gain = leaf(g, "g", "h", DT_F32), r = leaf(g, "p", "bs", DT_F32);
    DimId h = dim(g, "hidden"), rows[2] = {dim(g, "batch"), dim(g, "seq")};
    ValueId xr = b_ew2(g, OP_mul, x, r), dg = b_over(g, OP_sum, b_ew2(g, OP_mul, dy, xr), rows, 2);
    ValueId gdy = b_ew2(g, OP_mul, dy, gain);
    ValueId s = b_ew2(g, OP_div, b_over(g, OP_sum, b_ew2(g, OP_mul, gdy, xr), &h, 1), b_const(g, DT_F32, 48));
    ValueId dx = b_ew2(g, OP_mul, r, b_ew2(g, OP_sub, gdy, b_ew2(g, OP_mul, xr, s)));
    graph_result(g, "value", "dg", dg);
    graph_result(g, "value", "dx", dx);
    check(g, 2);
}

/* A chain that leaves and comes back must not close a cycle: the sum over the columns lies between. */
Test(fuse, convex) {
    Graph *g = new_graph();
    ValueId x = leaf(g, "x", "bsh", DT_F64);
    DimId h = dim(g, "hidden"), rows[2] = {dim(g, "batch"), dim(g, "seq")};
    ValueId e = b_ew1(g, OP_exp, x), col = b_over(g, OP_sum, e, rows, 2), w = b_ew2(g, OP_div, e, col);
    ValueId row = b_over(g, OP_sum, w, &h, 1), out = b_ew2(g, OP_mul, b_ew2(g, OP_add, e, w), row);
    graph_result(g, "value", "out", out);
    check(g, 3);
}

/* Masks, weights, counts: rows of tokens, numbers, and a number read by rows. */
Test(fuse, weights) {
    Graph *g = new_graph();
    ValueId ce = leaf(g, "p", "bs", DT_F32), m = leaf(g, "m", "bs", DT_BOOL), q = leaf(g, "q", "", DT_F64);
    DimId rows[2] = {dim(g, "batch"), dim(g, "seq")};
    ValueId zero = b_const(g, DT_F32, 0), mf = b_cast(g, m, DT_F32);
    ValueId w = b_ew2(g, OP_mul, mf, b_ew1(g, OP_exp, b_ew1(g, OP_neg, ce)));
    ValueId n = b_over(g, OP_sum, b_cast(g, mf, DT_F64), rows, 2),
            t = b_over(g, OP_sum, b_cast(g, b_ew3(g, OP_where, m, b_ew2(g, OP_mul, ce, w), zero), DT_F64),
                       rows, 2);
    ValueId loss = b_ew2(g, OP_div, t, b_ew2(g, OP_max, n, b_const(g, DT_F64, 1)));
    ValueId scale = b_cast(g, b_ew2(g, OP_div, q, n), DT_F32), seed = b_ew2(g, OP_mul, w, scale);
    graph_result(g, "value", "loss", loss);
    graph_result(g, "value", "seed", seed);
    check(g, 3);
}

/* What is checked before a state changes is not in a kernel that changes one. */
Test(fuse, checks_come_first) {
    Graph *g = new_graph();
    ValueId p = leaf(g, "x", "ho", DT_F32), gr = leaf(g, "y", "ho", DT_F32), lr = leaf(g, "p", "", DT_F32);
    DimId all[2] = {dim(g, "hidden"), dim(g, "out")};
    ValueId w = b_cast(g, gr, DT_F64),
            norm2 = b_ew1(g, OP_sqrt, b_over(g, OP_sum, b_ew2(g, OP_mul, w, w), all, 2));
    ValueId next = b_ew2(g, OP_sub, p, b_ew2(g, OP_mul, gr, lr));
    graph_result(g, "grad_norm", "", norm2);
    graph_result(g, "next", "w", next);
    Graph *x = check(g, 2);
    cr_assert_neq(value_node(x, x->result[0].v)->group, value_node(x, x->result[1].v)->group);
}

static ValueId param(Graph *g, const char *name, const char *dims) {
    Attr at[9] = {at_str(g, "m"),       at_str(g, name), at_str(g, name), at_str(g, ""), at_none(),
                  at_str(g, "const:1"), at_int(-1),      at_bool(false),  at_int(0)};
    return build_leaf(g, OP_param, type_dims(g, dims, DT_F32), at, 9);
}

/* SwiGLU and its backward: silu(gate) and the product are made again there, beside the nodes that wait for
 * the adjoint, and the forward kernel keeps the product alone. */
Test(fuse, recomputes) {
    Graph *g = new_graph();
    DimId h = dim(g, "hidden"), o = dim(g, "out"), rows[2] = {dim(g, "batch"), dim(g, "seq")};
    ValueId x = leaf(g, "x", "bsh", DT_F32), w1 = param(g, "w", "oh"), w2 = param(g, "w", "oh"),
            w3 = param(g, "w", "ho");
    g->path = "policy.body.0";
    ValueId gate = b_matmul(g, x, w1, &h, 1), up = b_matmul(g, x, w2, &h, 1);
    ValueId silu = b_ew1(g, OP_silu, gate), prod = b_ew2(g, OP_mul, silu, up),
            y = b_matmul(g, prod, w3, &o, 1);
    g->flags = N_BWD;
    ValueId dprod = b_matmul(g, y, w3, &h, 1), dw3 = b_matmul(g, y, prod, rows, 2);
    ValueId dup = b_ew2(g, OP_mul, dprod, silu), sg = b_ew1(g, OP_sigmoid, gate);
    ValueId dgate = b_ew2(g, OP_mul, b_ew2(g, OP_mul, dprod, up), sg);
    graph_result(g, "value", "dw3", dw3);
    graph_result(g, "value", "dw1", b_matmul(g, dgate, x, rows, 2));
    graph_result(g, "value", "dw2", b_matmul(g, dup, x, rows, 2));
    PassOptions on = {.real = DT_F32};
    Graph *f = pass_fuse(arena, g, &on, diags);
    uint32_t again = 0;
    for (uint32_t i = 0; i < f->nnode; i++) {
        const Node *n = &f->node[i];
        again += (n->flags & N_REMAT) != 0;
        if (!(n->flags & N_BWD)) continue;
        for (uint32_t k = 0; k < n->nin; k++) {
            const Node *from = value_node(f, f->operand[n->in0 + k]);
            cr_expect((from->flags & N_BWD) || op_info[from->op].kind != K_EW,
                      "a backward %s keeps a forward %s alive", op_info[n->op].name, op_info[from->op].name);
        }
    }
    cr_assert(again >= 3, "%u nodes made again", again);
    const Node *first =
        value_node(f, value_node(f, f->result[1].v)->nin ? f->operand[value_node(f, f->result[1].v)->in0]
                                                         : f->result[1].v);
    for (uint32_t i = 0; i < f->nnode; i++) /* all of it is one kernel, with what the adjoint makes */
        if ((f->node[i].flags & N_BWD) && op_info[f->node[i].op].kind == K_EW)
            cr_expect_eq(f->node[i].group, first->group);
}
