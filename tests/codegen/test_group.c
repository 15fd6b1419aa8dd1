/* Element-wise and reducing kernels against the evaluator: every op of those kinds, several shapes, f32 and
 * f64, one to four parts; then fused groups, whose bits must be those of their nodes one by one. */
#include "group_test.h"

TestSuite(group, .init = kernels_open, .fini = kernels_close, .timeout = 600);

typedef struct {
    int64_t a, b, c;
} Shape;
static const Shape shapes[] = {{4, 6, 3},    {3, 37, 5},  {1, 300, 2},  {17, 1, 64},
                               {2, 3, 1100}, {70, 9, 16}, {3, 2, 9000}, {1, 1, 1}};

/* "f[a b]" with `real` for f; p positive, n whole, m mask. */
static ValueId leaf(Graph *g, const char *spec, DType real) {
    Type t = {.dt = spec[0] == 'm' ? DT_BOOL : spec[0] == 't' ? DT_I32 : real};
    for (const char *s = spec + 2; *s && *s != ']'; s++) {
        const char name[2] = {*s, 0};
        DimId d;
        if (*s != ' ' && graph_find_dim(g, name, &d)) t.dim[t.ndim++] = d;
    }
    const char name[2] = {spec[0], 0};
    Attr at = at_str(g, name);
    return build_leaf(g, OP_input, t, &at, 1);
}

static Graph *graph_of(const Shape *s) {
    Graph *g = graph_new(arena, "t", ST_MATH);
    g->micro.i = g->batch.i = UINT32_MAX;
    graph_dim(g, "a", s->a);
    graph_dim(g, "b", s->b);
    graph_dim(g, "c", s->c);
    return g;
}

/* Runs value v's node with one to four parts and compares. */
static void check_single(Graph *g, ValueId v, double tol64, double tol32, const char *what) {
    Bench b = bench_open(g);
    Emit e = bench_emit(&b);
    cr_assert(emit_group(&e, g->value[v.i].def, 1));
    double **want = bench_eval(&b, v);
    size_t bytes = (size_t)type_bytes(g, value_type(g, v));
    void *first = malloc(bytes + 1);
    for (int parts = 1; parts <= 4; parts++) {
        bench_reset(&b);
        bench_run(&b, &e, parts);
        bench_guards(&b);
        bench_compare(&b, want, v, tol64, tol32, what);
        if (parts == 1)
            memcpy(first, b.mem + g->value[v.i].off, bytes);
        else
            cr_assert(memcmp(first, b.mem + g->value[v.i].off, bytes) == 0, "%s: %d parts give other bits",
                      what, parts);
    }
    free(first);
    free(b.mem);
}

/* One test graph per pattern of operand dims. */
static const char *const pattern[][3] = {{"abc", "abc", "abc"}, {"abc", "c", "abc"}, {"abc", "a", "ab"},
                                         {"abc", "cba", "b"},   {"abc", "", "c"},    {"acb", "abc", "bc"}};

static void check_op(Op op, const Shape *s, DType real) {
    const OpInfo *o = &op_info[op];
    for (size_t p = 0; p < WM_LEN(pattern); p++) {
        if (o->nin == 1 && p > 0 && p != 5 && op != OP_expand) continue;
        Graph *g = graph_of(s);
        ValueId in[3];
        const char *sample = o->sample;
        cr_assert(*sample, "%s has no sample", o->name);
        for (int i = 0; i < o->nin; i++) {
            while (*sample == ' ' || *sample == ',') sample++;
            in[i] =
                leaf(g, arena_fmt(arena, "%c[%s]", *sample, op == OP_expand ? "bc" : pattern[p][i]), real);
            sample = strchr(sample, ']') + 1;
        }
        Attr at = at_none();
        DimId a, b, c;
        graph_find_dim(g, "a", &a), graph_find_dim(g, "b", &b), graph_find_dim(g, "c", &c);
        if (op == OP_cast) at = at_dt(p == 0 ? (real == DT_F64 ? DT_F32 : DT_F64) : DT_BOOL);
        if (op == OP_expand) at = at_dims(g, &a, 1);
        const char *why;
        Type ins[3], out[MAX_OUT];
        uint32_t nout;
        for (int i = 0; i < o->nin; i++) ins[i] = *value_type(g, in[i]);
        if (!ir_infer(g, op, ins, (uint32_t)o->nin, &at, out, &nout, &why)) continue;
        ValueId v = build(g, op, in, (uint32_t)o->nin, &at, o->nattr ? 1 : 0);
        if (op == OP_cast && p == 5) continue; /* the evaluator keeps reals as they are */
        check_single(g, v, 1e-12, op == OP_cast ? 1e-7 : 1e-6,
                     arena_fmt(arena, "%s %s %lldx%lldx%lld pattern %zu", o->name, dtype_name[real],
                               (long long)s->a, (long long)s->b, (long long)s->c, p));
        if (op == OP_expand) break;
    }
}

static void check_reduce(Op op, const Shape *s, DType real) {
    static const char *const over[] = {"a", "b", "c", "ab", "bc", "ac", "abc"};
    static const char *const order[] = {"abc", "cab"};
    for (size_t k = 0; k < WM_LEN(over) * 2; k++) {
        Graph *g = graph_of(s);
        ValueId x = leaf(g, arena_fmt(arena, "f[%s]", order[k & 1]), real);
        DimId d[3];
        uint32_t n = 0;
        for (const char *q = over[k / 2]; *q; q++) {
            const char name[2] = {*q, 0};
            graph_find_dim(g, name, &d[n++]);
        }
        Attr at = at_dims(g, d, n);
        ValueId v = build(g, op, &x, 1, &at, 1);
        double length = (double)type_count(g, value_type(g, x)) / (double)type_count(g, value_type(g, v));
        check_single(g, v, 1e-14 * (10 + length), 4e-6 * sqrt(length),
                     arena_fmt(arena, "%s %s %lldx%lldx%lld %s over %s", op_info[op].name, dtype_name[real],
                               (long long)s->a, (long long)s->b, (long long)s->c, order[k & 1], over[k / 2]));
    }
}

static void all_ops(DType real) {
    int n = 0;
    for (int op = 0; op < NOP; op++) {
        if (op_info[op].kind != K_EW && op_info[op].kind != K_REDUCE) continue;
        n++;
        for (size_t s = 0; s < WM_LEN(shapes); s++) {
            bool few = op != OP_add && op != OP_sum && (real == DT_F64 || op != OP_where);
            if (few && s != (size_t)op % WM_LEN(shapes)) continue;
            if (op_info[op].kind == K_EW)
                check_op((Op)op, &shapes[s], real);
            else
                check_reduce((Op)op, &shapes[s], real);
        }
    }
    cr_assert(n >= 35, "only %d ops", n);
}
Test(group, every_op_f32) {
    all_ops(DT_F32);
}
Test(group, every_op_f64) {
    all_ops(DT_F64);
}

/* ---- groups */
static Cache *other; /* of another compiler, for compilers_agree */

/* Nodes from `first` on as one group against each alone: equal bits in the results, the evaluator's values.
 */
static void check_group(Graph *g, NodeId first, const ValueId *result, uint32_t nresult, double tol32,
                        const char *what) {
    Bench b = bench_open(g);
    Emit alone = bench_emit(&b), fused = bench_emit(&b);
    double ***want = NEWN(arena, double **, nresult);
    unsigned char **bits = NEWN(arena, unsigned char *, nresult);
    for (uint32_t i = first.i; i < g->nnode; i++) {
        if (g->node[i].op == OP_const) continue;
        cr_assert(emit_group(&alone, (NodeId){i}, 1));
    }
    bench_reset(&b);
    bench_run(&b, &alone, 1);
    for (uint32_t k = 0; k < nresult; k++) {
        want[k] = bench_eval(&b, result[k]);
        bench_compare(&b, want[k], result[k], 1e-11, tol32, what);
        size_t n = (size_t)type_bytes(g, value_type(g, result[k]));
        bits[k] = arena_copy(arena, b.mem + g->value[result[k].i].off, n);
    }
    for (uint32_t v = g->node[first.i].out0; v < g->nvalue;
         v++) { /* what is inside the group has no memory */
        bool out = false;
        for (uint32_t k = 0; k < nresult; k++) out |= result[k].i == v;
        if (!out) g->value[v].arena = NONE;
    }
    cr_assert(emit_group(&fused, first, g->nnode - first.i));
    cr_assert_eq(fused.nlaunch, 1u);
    for (int parts = 1; parts <= 4; parts++) {
        bench_reset(&b);
        bench_run(&b, &fused, parts);
        bench_guards(&b);
        for (uint32_t k = 0; k < nresult; k++) {
            size_t n = (size_t)type_bytes(g, value_type(g, result[k]));
            cr_assert(memcmp(bits[k], b.mem + g->value[result[k].i].off, n) == 0,
                      "%s: result %u differs when fused\n%s", what, k, fused.launch[0].source);
        }
    }
    if (other) { /* the same bits from another compiler */
        Cache *own = cache;
        cache = other;
        bench_reset(&b);
        bench_run(&b, &fused, 1);
        for (uint32_t k = 0; k < nresult; k++) {
            size_t n = (size_t)type_bytes(g, value_type(g, result[k]));
            cr_assert(memcmp(bits[k], b.mem + g->value[result[k].i].off, n) == 0,
                      "%s: compilers differ in result %u", what, k);
        }
        cache = own;
    }
    free(b.mem);
}

static ValueId num(Graph *g, DType dt, double v) {
    return b_const(g, dt, v);
}
static NodeId next_node(const Graph *g) {
    return (NodeId){g->nnode};
}

/* Residual add and RMS norm over c: x + y and its norm times the gain; two results. */
static void norm_forward(const Shape *s, DType dt) {
    Graph *g = graph_of(s);
    ValueId x = leaf(g, "f[abc]", dt), y = leaf(g, "f[abc]", dt), gain = leaf(g, "f[c]", dt);
    ValueId count = num(g, dt, (double)s->c), eps = num(g, dt, 1e-5), one = num(g, dt, 1);
    DimId c;
    graph_find_dim(g, "c", &c);
    NodeId first = next_node(g);
    ValueId r = b_ew2(g, OP_add, x, y), sq = b_ew2(g, OP_mul, r, r), sum = b_over(g, OP_sum, sq, &c, 1);
    ValueId inv =
        b_ew2(g, OP_div, one, b_ew1(g, OP_sqrt, b_ew2(g, OP_add, b_ew2(g, OP_div, sum, count), eps)));
    ValueId out = b_ew2(g, OP_mul, b_ew2(g, OP_mul, r, inv), gain);
    ValueId result[] = {r, inv, out};
    check_group(g, first, result, 3, 1e-5, "norm");
}

/* Softmax over c with its maximum: two reductions, the second on what the first made. */
static void softmax(const Shape *s, DType dt) {
    Graph *g = graph_of(s);
    ValueId x = leaf(g, "f[abc]", dt), m = leaf(g, "m[ab]", dt), zero = num(g, dt, 0);
    DimId c;
    graph_find_dim(g, "c", &c);
    NodeId first = next_node(g);
    ValueId e = b_ew1(g, OP_exp, b_ew2(g, OP_sub, x, b_over(g, OP_max_of, x, &c, 1)));
    ValueId p = b_ew2(g, OP_div, e, b_over(g, OP_sum, e, &c, 1));
    ValueId out = b_ew3(g, OP_where, m, p, zero);
    check_group(g, first, &out, 1, 1e-5, "softmax");
}

/* Gradient of a gain: columns summed over two leading dims; a second sum beside it, and a value over the
 * columns. */
static void gain_gradient(const Shape *s, DType dt) {
    Graph *g = graph_of(s);
    ValueId x = leaf(g, "f[abc]", dt), dy = leaf(g, "f[abc]", dt), r = leaf(g, "f[ab]", dt);
    DimId d[2];
    graph_find_dim(g, "a", &d[0]), graph_find_dim(g, "b", &d[1]);
    NodeId first = next_node(g);
    ValueId dg = b_over(g, OP_sum, b_ew2(g, OP_mul, dy, b_ew2(g, OP_mul, x, r)), d, 2);
    ValueId db = b_over(g, OP_sum, dy, d, 2), both = b_ew2(g, OP_mul, dg, db);
    ValueId result[] = {dg, both};
    check_group(g, first, result, 2, 1e-4, "gain gradient");
}

/* Sum of squares in f64 of f32 numbers. */
static void square_sum(const Shape *s, DType dt) {
    Graph *g = graph_of(s);
    ValueId x = leaf(g, "f[abc]", dt);
    DimId d[3];
    graph_find_dim(g, "a", &d[0]), graph_find_dim(g, "b", &d[1]), graph_find_dim(g, "c", &d[2]);
    NodeId first = next_node(g);
    ValueId w = b_cast(g, x, DT_F64),
            out = b_ew1(g, OP_sqrt, b_over(g, OP_sum, b_ew2(g, OP_mul, w, w), d, 3));
    check_group(g, first, &out, 1, 1e-6, "square sum");
}

/* AdamW: three results of one pass, a clip factor and a learning rate from memory. */
static void adamw(const Shape *s, DType dt) {
    Graph *g = graph_of(s);
    ValueId p = leaf(g, "f[abc]", dt), gr = leaf(g, "f[abc]", dt), m = leaf(g, "f[abc]", dt),
            v = leaf(g, "p[abc]", dt);
    ValueId clip = leaf(g, "p[]", dt), lr = leaf(g, "p[]", dt);
    ValueId b1 = num(g, dt, 0.9), b2 = num(g, dt, 0.95), c1 = num(g, dt, 0.1), c2 = num(g, dt, 0.05),
            eps = num(g, dt, 1e-8);
    NodeId first = next_node(g);
    ValueId gc = b_ew2(g, OP_mul, gr, clip);
    ValueId m2 = b_ew2(g, OP_add, b_ew2(g, OP_mul, m, b1), b_ew2(g, OP_mul, gc, c1));
    ValueId v2 = b_ew2(g, OP_add, b_ew2(g, OP_mul, v, b2), b_ew2(g, OP_mul, b_ew2(g, OP_mul, gc, gc), c2));
    ValueId step = b_ew2(g, OP_div, m2, b_ew2(g, OP_add, b_ew1(g, OP_sqrt, v2), eps));
    ValueId p2 = b_ew2(g, OP_sub, p, b_ew2(g, OP_mul, step, lr));
    ValueId result[] = {m2, v2, p2};
    check_group(g, first, result, 3, 1e-5, "adamw");
}

static void each(void (*fn)(const Shape *, DType)) {
    static const Shape some[] = {{4, 6, 3}, {3, 5, 256}, {2, 9, 300}, {3, 2, 1040}, {5, 7, 100}};
    for (size_t s = 0; s < WM_LEN(some); s++) fn(&some[s], DT_F32), fn(&some[s], DT_F64);
}
Test(group, residual_and_norm) {
    each(norm_forward);
}
Test(group, two_levels) {
    each(softmax);
}
Test(group, columns) {
    each(gain_gradient);
}
Test(group, scalar) {
    each(square_sum);
}
Test(group, three_results) {
    each(adamw);
}

/* Every element-wise op of one real operand, and every elementary function with it, in one expression. */
static void functions(const Shape *s, DType dt) {
    Graph *g = graph_of(s);
    ValueId x = leaf(g, "f[abc]", dt), p = leaf(g, "p[c]", dt);
    NodeId first = next_node(g);
    ValueId v = b_ew2(g, OP_pow, p, x);
    for (int k = 0; k < NOP; k++) {
        const OpInfo *o = &op_info[k];
        if (o->kind != K_EW || o->nin != 1 || o->nattr || !o->expr[0] || o->sample[0] == 'm') continue;
        v = b_ew2(g, OP_add, v, b_ew1(g, (Op)k, o->sample[0] == 'p' ? p : x));
    }
    v = b_ew2(g, OP_div, v, p);
    check_group(g, first, &v, 1, 2e-5, "functions");
}
Test(group, all_functions) {
    each(functions);
}

static const char *only_path;
static const char *getenv_path(Env *env, const char *name) {
    return strcmp(name, "PATH") == 0 ? only_path : env_posix()->getenv(env, name);
}

/* gcc and clang, where both are there: kernels of a run may come from either. */
Test(group, compilers_agree) {
    char folder[] = "/tmp/wmtpc-clang-XXXXXX";
    cr_assert(mkdtemp(folder));
    char *link = arena_fmt(arena, "%s/clang", folder);
    if (access("/usr/bin/clang", X_OK) || symlink("/usr/bin/clang", link)) {
        rmdir(folder);
        cr_skip_test("no clang");
    }
    Env env = *env_posix();
    Toolchain clang;
    only_path = folder;
    env.getenv = getenv_path;
    if (!toolchain_cc(arena, &env, cpu_level(), &clang, diags)) cr_assert_fail("%s", diags->item[0]->text);
    other = cache_open(env_posix(), arena_fmt(arena, "%s/kernel-cache", WM_TEST_CACHE), &clang, diags);
    cr_assert(other && strcmp(clang.identity, tool.identity) != 0);
    each(functions), each(norm_forward), each(softmax), each(gain_gradient), each(square_sum), each(adamw);
    cache_close(other);
    unlink(link);
    rmdir(folder);
}

/* A result on an operand: the next value of a parameter. */
Test(group, in_place) {
    const Shape s = {4, 6, 50};
    Graph *g = graph_of(&s);
    ValueId x = leaf(g, "f[abc]", DT_F32), y = leaf(g, "f[c]", DT_F32);
    NodeId first = next_node(g);
    ValueId out = b_ew2(g, OP_add, b_ew2(g, OP_mul, x, x), y);
    Bench b = bench_open(g);
    Emit e = bench_emit(&b);
    g->value[out.i].off = g->value[x.i].off;
    g->value[out.i - 1].arena = NONE;
    cr_assert(emit_group(&e, first, 2));
    double **want = bench_eval(&b, out);
    bench_reset(&b);
    bench_run(&b, &e, 3);
    bench_compare(&b, want, out, 1e-12, 1e-6, "in place");
    free(b.mem);
}
