/* simplify: ST_MATH -> ST_MATH (also at ST_TRAIN). Constants folded, equal nodes made one, operations that do
 * nothing removed, `select` pushed into what made the dim, dead code gone.
 *
 * One walk in node order. Every node goes through emit(): a rule by op may answer with a value that is there
 * already or with other nodes, which go through emit() in turn; else an equal node is looked up, and only
 * then one is built. Rules keep bits, but for x^2 = x * x. */
#include "passes/rewrite.h"

#include <math.h>
#include <string.h>

typedef struct {
    Rewrite r;
    Graph *g; /* = r.to */
    Diags *d;
    bool drop_stop;
    Triples same; /* (hash, try) -> node */
    Slicer slicer;
    Type rows; /* dims of the data: those of inputs of tokens and masks */
    uint32_t depth;
} Simp;

typedef struct {
    Op op;
    const ValueId *in;
    uint32_t nin;
    const Attr *attr;
    Type ty;
} Expr; /* ty: of leaves */
typedef ValueId (*Rule)(Simp *s, const Expr *e);

static ValueId emit(Simp *s, const Expr *e);

static ValueId emit_op(Simp *s, Op op, const ValueId *in, uint32_t nin, const Attr *attr) {
    static const Attr none[MAX_ATTR];
    Expr e = {op, in, nin, attr ? attr : none, {0}};
    return emit(s, &e);
}

static const Node *def(const Simp *s, ValueId v) {
    return value_node(s->g, v);
}
static ValueId arg(const Simp *s, const Node *n, uint32_t i) {
    return s->g->operand[n->in0 + i];
}
static Type ty(const Simp *s, ValueId v) {
    return *value_type(s->g, v);
}

static ValueId constant(Simp *s, DType dt, double v) {
    Attr at[MAX_ATTR] = {at_float(v)};
    Expr e = {OP_const, NULL, 0, at, type_make(dt, NULL, 0)};
    return emit(s, &e);
}

static ValueId fill(Simp *s, double v, Type like) {
    ValueId c = constant(s, like.dt, v);
    if (!like.ndim) return c;
    Attr at[MAX_ATTR] = {at_dims(s->g, like.dim, like.ndim)};
    return emit_op(s, OP_expand, &c, 1, at);
}

/* Type of the result; the operands are known to fit. */
static bool infer(Simp *s, const Expr *e, Type *out) {
    Type in[8], all[MAX_OUT];
    uint32_t nout;
    const char *why;
    if (e->nin > 8) return false;
    for (uint32_t i = 0; i < e->nin; i++) in[i] = ty(s, e->in[i]);
    if (!ir_infer(s->g, e->op, in, e->nin, e->attr, all, &nout, &why)) return false;
    *out = all[0];
    return true;
}

/* v if it has the type of the expression, else no answer. */
static ValueId if_same(Simp *s, const Expr *e, ValueId v) {
    Type t;
    return infer(s, e, &t) && type_equal(&t, value_type(s->g, v)) ? v : NOVALUE;
}

static bool is_const(const Simp *s, ValueId v, double *c) {
    const Node *n = def(s, v);
    while (n->op == OP_expand) n = def(s, arg(s, n, 0));
    if (n->op != OP_const) return false;
    *c = attr_float(s->g, n, "value");
    return true;
}

static bool const_is(const Simp *s, ValueId v, double c) {
    double x;
    return is_const(s, v, &x) && x == c && signbit(x) == signbit(c);
}

/* ---- rules */
static ValueId rule_mul(Simp *s, const Expr *e) {
    if (const_is(s, e->in[1], 1)) return if_same(s, e, e->in[0]);
    if (const_is(s, e->in[0], 1)) return if_same(s, e, e->in[1]);
    return NOVALUE;
}
static ValueId rule_mulz(Simp *s, const Expr *e) {
    double c;
    if (const_is(s, e->in[0], 1)) return if_same(s, e, e->in[1]);
    Type t;
    if (is_const(s, e->in[0], &c) && c == 0 && infer(s, e, &t)) return fill(s, 0, t);
    return NOVALUE;
}
static ValueId rule_div(Simp *s, const Expr *e) {
    return const_is(s, e->in[1], 1) ? if_same(s, e, e->in[0]) : NOVALUE;
}
static ValueId rule_add(Simp *s, const Expr *e) { /* x + 0 is not x for x = -0 */
    if (const_is(s, e->in[1], -0.0)) return if_same(s, e, e->in[0]);
    return const_is(s, e->in[0], -0.0) ? if_same(s, e, e->in[1]) : NOVALUE;
}
static ValueId rule_sub(Simp *s, const Expr *e) {
    return const_is(s, e->in[1], 0) ? if_same(s, e, e->in[0]) : NOVALUE;
}
static ValueId rule_twice(Simp *s, const Expr *e) { /* neg, not */
    const Node *n = def(s, e->in[0]);
    return n->op == e->op ? arg(s, n, 0) : NOVALUE;
}
static ValueId rule_pow(Simp *s, const Expr *e) {
    if (const_is(s, e->in[1], 1)) return if_same(s, e, e->in[0]);
    if (!const_is(s, e->in[1], 2) || !value_is(if_same(s, e, e->in[0]))) return NOVALUE;
    ValueId in[2] = {e->in[0], e->in[0]};
    return emit_op(s, OP_mul, in, 2, NULL);
}
static ValueId rule_bool(Simp *s, const Expr *e) { /* and, or */
    double neutral = e->op == OP_and ? 1 : 0;
    for (uint32_t k = 0; k < 2; k++) {
        double c;
        Type t;
        if (!is_const(s, e->in[k], &c)) continue;
        if ((c != 0) == (neutral != 0)) {
            ValueId v = if_same(s, e, e->in[1 - k]);
            if (value_is(v)) return v;
        } else if (infer(s, e, &t)) {
            return fill(s, 1 - neutral, t);
        }
    }
    return e->in[0].i == e->in[1].i ? e->in[0] : NOVALUE;
}
static ValueId rule_where(Simp *s, const Expr *e) {
    double c;
    if (e->in[1].i == e->in[2].i) return if_same(s, e, e->in[1]);
    return is_const(s, e->in[0], &c) ? if_same(s, e, e->in[c != 0 ? 1 : 2]) : NOVALUE;
}
static ValueId rule_cast(Simp *s, const Expr *e) {
    DType to = e->attr[0].u.dt, from = ty(s, e->in[0]).dt;
    if (to == from) return e->in[0];
    const Node *n = def(s, e->in[0]);
    ValueId inner = n->nin ? arg(s, n, 0) : NOVALUE;
    if (n->op == OP_cast) { /* only where nothing is lost in between */
        DType first = ty(s, inner).dt;
        bool exact = first == DT_BOOL || (dtype_real(first) && from == DT_F64);
        if (exact && dtype_real(from) && dtype_real(to)) return emit_op(s, OP_cast, &inner, 1, e->attr);
    }
    if (n->op == OP_expand) {
        Attr at[MAX_ATTR];
        memcpy(at, n->attr, sizeof at);
        ValueId x = emit_op(s, OP_cast, &inner, 1, e->attr);
        return emit_op(s, OP_expand, &x, 1, at);
    }
    return NOVALUE;
}
static ValueId rule_stop(Simp *s, const Expr *e) {
    const Node *n = def(s, e->in[0]);
    double c;
    return s->drop_stop || n->op == OP_stop_grad || is_const(s, e->in[0], &c) ? e->in[0] : NOVALUE;
}
static ValueId rule_expand(Simp *s, const Expr *e) {
    List l = e->attr[0].u.list;
    if (!l.n) return e->in[0];
    const Node *n = def(s, e->in[0]);
    if (n->op != OP_expand) return NOVALUE;
    DimId d[MAX_DIMS];
    const DimId *inner;
    uint32_t k = attr_dims(s->g, n, "dims", &inner);
    for (uint32_t i = 0; i < l.n; i++) d[i] = s->g->dimlist[l.at + i];
    for (uint32_t i = 0; i < k; i++) d[l.n + i] = inner[i];
    ValueId x = arg(s, n, 0);
    Attr at[MAX_ATTR] = {at_dims(s->g, d, l.n + k)};
    return emit_op(s, OP_expand, &x, 1, at);
}
static ValueId rule_transpose(Simp *s, const Expr *e) {
    List l = e->attr[0].u.list;
    Type t = ty(s, e->in[0]), want = type_make(t.dt, s->g->dimlist + l.at, l.n);
    if (same_dims(&t, &want)) return e->in[0];
    const Node *n = def(s, e->in[0]);
    ValueId x = n->nin ? arg(s, n, 0) : NOVALUE;
    if (n->op == OP_transpose) return emit_op(s, OP_transpose, &x, 1, e->attr);
    if (n->op != OP_expand) return NOVALUE;
    /* a broadcast in the wanted order: the new dims must all come first there, the others be in order */
    Type inner = ty(s, x);
    uint32_t k = l.n - inner.ndim;
    Type tail = type_make(t.dt, want.dim + k, inner.ndim);
    if (!same_dims(&tail, &inner)) return NOVALUE;
    Attr at[MAX_ATTR] = {at_dims(s->g, want.dim, k)};
    return emit_op(s, OP_expand, &x, 1, at);
}
/* One number per row of the data and coordinate of dim: cheap to compute again for one coordinate. */
static bool row_sized(const Simp *s, const Type *t, DimId dim) {
    for (uint32_t i = 0; i < t->ndim; i++)
        if (!dim_is(t->dim[i], dim) && !type_has(&s->rows, t->dim[i])) return false;
    return true;
}
/* Whatever came of it, in the order of dims that a select of `in` has. */
static ValueId selected_order(Simp *s, ValueId v, ValueId in, DimId dim) {
    Type t = ty(s, in), want = {0};
    want.dt = ty(s, v).dt;
    for (uint32_t i = 0; i < t.ndim; i++)
        if (!dim_is(t.dim[i], dim)) want.dim[want.ndim++] = t.dim[i];
    Attr at[MAX_ATTR] = {at_dims(s->g, want.dim, want.ndim)};
    return same_dims(value_type(s->g, v), &want) ? v : emit_op(s, OP_transpose, &v, 1, at);
}
/* A weight of rows is cut by coordinate, so that what holds for one head alone is seen (one that always
 * trains). */
static ValueId rule_select(Simp *s, const Expr *e) {
    DimId dim = e->attr[0].u.dim;
    int64_t index = e->attr[1].u.i;
    if (slice_free(&s->slicer, e->in[0], dim)) return slice(&s->slicer, e->in[0], dim, index);
    Node n = *def(s, e->in[0]);
    if (op_info[n.op].kind != K_EW || n.op == OP_expand || n.nin > 3) return NOVALUE;
    if (!row_sized(s, value_type(s->g, e->in[0]), dim)) return NOVALUE;
    ValueId in[3];
    for (uint32_t i = 0; i < n.nin; i++) {
        in[i] = arg(s, &n, i);
        if (type_has(value_type(s->g, in[i]), dim)) in[i] = emit_op(s, OP_select, &in[i], 1, e->attr);
    }
    Attr at[MAX_ATTR];
    memcpy(at, n.attr, sizeof at);
    return selected_order(s, emit_op(s, n.op, in, n.nin, at), e->in[0], dim);
}
static ValueId rule_stack(Simp *s, const Expr *e) { /* all coordinates of one value, side by side again */
    ValueId whole = NOVALUE;
    DimId dim = e->attr[0].u.dim;
    for (uint32_t i = 0; i < e->nin; i++) {
        const Node *n = def(s, e->in[i]);
        if (n->op != OP_select || !dim_is(attr_dim(s->g, n, "dim"), dim)) return NOVALUE;
        if (attr_int(s->g, n, "index") != (int64_t)i) return NOVALUE;
        if (i && arg(s, n, 0).i != whole.i) return NOVALUE;
        whole = arg(s, n, 0);
    }
    if (s->g->dim[dim.i].size != (int64_t)e->nin) return NOVALUE;
    Type t = ty(s, whole), first = ty(s, e->in[0]);
    uint32_t at = first.ndim && dim_is(first.dim[0], s->g->micro) ? 1 : 0;
    return type_index(&t, dim) == (int)at ? whole : NOVALUE;
}

static const Rule rule_of[NOP] = {
    [OP_mul] = rule_mul,        [OP_mulz] = rule_mulz,     [OP_div] = rule_div,
    [OP_add] = rule_add,        [OP_sub] = rule_sub,       [OP_neg] = rule_twice,
    [OP_not] = rule_twice,      [OP_pow] = rule_pow,       [OP_and] = rule_bool,
    [OP_or] = rule_bool,        [OP_where] = rule_where,   [OP_cast] = rule_cast,
    [OP_stop_grad] = rule_stop, [OP_expand] = rule_expand, [OP_transpose] = rule_transpose,
    [OP_select] = rule_select,  [OP_stack] = rule_stack,
};

/* An element-wise op of constants is a constant: evaluated by the reference evaluator on a graph of its own.
 */
static ValueId fold(Simp *s, const Expr *e) {
    if (op_info[e->op].kind != K_EW || e->op == OP_expand || e->op == OP_stop_grad || !e->nin || e->nin > 3)
        return NOVALUE;
    Graph *t = graph_new(s->r.a, "fold", ST_MATH);
    ValueId in[3];
    for (uint32_t i = 0; i < e->nin; i++) {
        const Node *n = def(s, e->in[i]);
        if (n->op != OP_const) return NOVALUE;
    }
    for (uint32_t i = 0; i < e->nin; i++)
        in[i] = b_const(t, ty(s, e->in[i]).dt, attr_float(s->g, def(s, e->in[i]), "value"));
    ValueId v = build(t, e->op, in, e->nin, e->attr, (uint32_t)op_info[e->op].nattr);
    EvalInput none = {0};
    double **all = graph_eval(s->r.a, t, &none, &v, 1, s->d);
    return all ? constant(s, value_type(t, v)->dt, all[v.i][0]) : NOVALUE;
}

/* Element-wise: an operand that only broadcasts or reorders what it reads is read through, as deep as the
 * result stays the same. */
static ValueId peel(Simp *s, const Expr *e) {
    if (op_info[e->op].kind != K_EW || e->nin < 2 || e->nin > 3) return NOVALUE;
    Type t, u;
    ValueId in[3], chain[6];
    memcpy(in, e->in, e->nin * sizeof *in);
    bool changed = false, known = false;
    for (uint32_t i = 0; i < e->nin; i++) {
        uint32_t n = 0;
        const Node *d = def(s, in[i]);
        for (chain[0] = in[i]; n < 5 && (d->op == OP_expand || d->op == OP_transpose); d = def(s, chain[n]))
            chain[++n] = arg(s, d, 0);
        if (n && !known && !infer(s, e, &t)) return NOVALUE;
        known |= n > 0;
        for (; n; n--) {
            in[i] = chain[n];
            Expr x = {e->op, in, e->nin, e->attr, {0}};
            if (infer(s, &x, &u) && type_equal(&t, &u)) break;
        }
        in[i] = chain[n];
        changed |= n > 0;
    }
    return changed ? emit_op(s, e->op, in, e->nin, e->attr) : NOVALUE;
}

/* ---- equal nodes */
static uint64_t mix(uint64_t h, uint64_t x) {
    uint64_t w[2] = {h, x};
    return hash_bytes(w, sizeof w);
}

static uint64_t hash_attr(const Graph *g, const Attr *at, uint64_t h) {
    uint64_t bits = 0;
    List l = at->u.list;
    h = mix(h, (uint64_t)at->kind);
    if (at->kind == AT_STR) return hash_bytes(at->u.s, strlen(at->u.s)) ^ h;
    if ((at->kind == AT_DIMS || at->kind == AT_INTS || at->kind == AT_FLOATS) && !l.n) return h;
    if (at->kind == AT_DIMS) return mix(h, hash_bytes(g->dimlist + l.at, l.n * sizeof(DimId)));
    if (at->kind == AT_INTS) return mix(h, hash_bytes(g->intlist + l.at, l.n * sizeof(int64_t)));
    if (at->kind == AT_FLOATS) return mix(h, hash_bytes(g->floatlist + l.at, l.n * sizeof(double)));
    if (at->kind == AT_INT) bits = (uint64_t)at->u.i;
    if (at->kind == AT_FLOAT) memcpy(&bits, &at->u.f, 8);
    if (at->kind == AT_BOOL) bits = at->u.b;
    if (at->kind == AT_DIM) bits = at->u.dim.i;
    if (at->kind == AT_DT) bits = (uint64_t)at->u.dt;
    return mix(h, bits);
}

static bool node_is(const Graph *g, const Node *n, const Expr *e) {
    if (n->op != e->op || n->nin != e->nin) return false;
    for (uint32_t i = 0; i < e->nin; i++)
        if (g->operand[n->in0 + i].i != e->in[i].i) return false;
    for (int i = 0; i < op_info[e->op].nattr; i++)
        if (!attr_equal(g, g, &n->attr[i], &e->attr[i])) return false;
    return !(op_info[e->op].flags & F_LEAF) || type_equal(&g->value[n->out0].ty, &e->ty);
}

static ValueId find_or_build(Simp *s, const Expr *e) {
    Graph *g = s->g;
    uint64_t h = mix(e->op, e->nin);
    for (uint32_t i = 0; i < e->nin; i++) h = mix(h, e->in[i].i);
    int nattr = op_info[e->op].nattr;
    for (int i = 0; i < nattr; i++) h = hash_attr(g, &e->attr[i], h);
    if (op_info[e->op].flags & F_LEAF)
        h = mix(mix(h, (uint64_t)e->ty.dt), hash_bytes(e->ty.dim, e->ty.ndim * sizeof(DimId)));
    uint64_t again = 0;
    for (uint32_t found; triples_get(&s->same, h, again, &found); again++)
        if (node_is(g, &g->node[found], e)) return (ValueId){g->node[found].out0};
    ValueId v = op_info[e->op].flags & F_LEAF ? build_leaf(g, e->op, e->ty, e->attr, (uint32_t)nattr)
                                              : build(g, e->op, e->in, e->nin, e->attr, (uint32_t)nattr);
    triples_put(&s->same, h, again, g->value[v.i].def.i);
    return v;
}

/* add, mul, eq, ne, and, or of operands of one type: the older operand first. (min and max differ on ties of
 * 0 and -0.) */
static void order_operands(const Simp *s, const Expr *e, ValueId in[2]) {
    in[0] = e->in[0], in[1] = e->in[1];
    if (in[0].i <= in[1].i || !type_equal(value_type(s->g, in[0]), value_type(s->g, in[1]))) return;
    in[0] = e->in[1], in[1] = e->in[0];
}

static ValueId emit(Simp *s, const Expr *e) {
    ValueId v = NOVALUE, in[2];
    s->depth++;
    if (s->depth < 200) { /* rules shrink what they see; the bound is against a cycle of rules */
        v = fold(s, e);
        if (!value_is(v) && rule_of[e->op]) v = rule_of[e->op](s, e);
        if (!value_is(v)) v = peel(s, e);
    }
    s->depth--;
    if (value_is(v)) return v;
    Expr x = *e;
    if ((op_info[e->op].flags & F_COMM) && e->op != OP_min && e->op != OP_max) {
        order_operands(s, e, in);
        x.in = in;
    }
    return find_or_build(s, &x);
}

static ValueId emit_slice(void *ctx, Op op, const ValueId *in, uint32_t nin, const Attr attr[MAX_ATTR]) {
    return emit_op(ctx, op, in, nin, attr);
}

static Type row_dims(const Graph *g) {
    Type rows = {0};
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Type *t = &g->value[g->node[i].out0].ty;
        if (g->node[i].op != OP_input || dtype_real(t->dt)) continue;
        for (uint32_t k = 0; k < t->ndim && rows.ndim < MAX_DIMS; k++)
            if (!type_has(&rows, t->dim[k])) rows.dim[rows.ndim++] = t->dim[k];
    }
    return rows;
}

Graph *simplify_graph(Arena *a, const Graph *g, bool drop_stop, Diags *d) {
    Simp s = {.r = rewrite_begin(a, g), .d = d, .drop_stop = drop_stop};
    s.g = s.r.to;
    s.rows = row_dims(g);
    triples_init(&s.same, a);
    slicer_init(&s.slicer, s.g);
    s.slicer.make = emit_slice;
    s.slicer.ctx = &s;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        Attr attr[MAX_ATTR];
        rewrite_attrs(s.g, g, n, attr);
        Expr e = {n->op, rewrite_operands(&s.r, n), n->nin, attr, g->value[n->out0].ty};
        rewrite_at(&s.r, n);
        rewrite_map(&s.r, n, emit(&s, &e));
    }
    return rewrite_end(&s.r);
}

Graph *pass_simplify(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    bool drop = g->stage != ST_MATH || !strcmp(g->phase ? g->phase : "", "val");
    return o->off_simplify ? graph_live(a, g) : simplify_graph(a, g, drop, d);
}
