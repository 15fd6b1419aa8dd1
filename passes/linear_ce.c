/* linear_ce: ST_MATH -> ST_MATH. Losses over a vocabulary whose logits are matmul(h, W) become linear_ce and
 * linear_kl, which never store the logits.
 *
 * Where h was made by a `stack` (blocks side by side, one per head), the nodes between stack and logits are
 * unrolled: slice() cuts them at each coordinate, one linear_ce is made for each, and the results are stacked
 * again, so that the heads can run one after another. All losses of the same rows share one node. Logits that
 * are no plain matmul, and all of them when the pass is switched off (form A), are stored and the losses
 * written out in plain ops. */
#include "passes/rewrite.h"

#include <string.h>

enum { IGNORE = -100 };
typedef struct {
    ValueId h, w;
    DimId over[MAX_DIMS], cls;
    uint32_t nover;
    bool ok;
} Head; /* logits = h . w */
typedef struct {
    ValueId v[4];
} Four; /* results of linear_ce */
typedef struct {
    ValueId h, w, target, first;
    bool dummy;
} Made; /* a linear_ce that was built */

typedef struct {
    Rewrite r;
    Graph *g;
    Slicer slicer;
    Triples heads; /* logits -> index into head */
    Head *head;
    uint32_t nhead, head_cap;
    Made *made;
    uint32_t nmade, made_cap;
} Loss;

static Type ty(const Loss *x, ValueId v) {
    return *value_type(x->g, v);
}
static ValueId num(Loss *x, DType dt, double v) {
    return b_const(x->g, dt, v);
}

/* ---- logits written out (form A) */
typedef struct {
    ValueId lse, p;
} Soft;

static Soft softmax(Loss *x, ValueId logits, DimId cls) {
    Graph *g = x->g;
    ValueId top = b_ew1(g, OP_stop_grad, b_over(g, OP_max_of, logits, &cls, 1));
    ValueId sum = b_over(g, OP_sum, b_ew1(g, OP_exp, b_ew2(g, OP_sub, logits, top)), &cls, 1);
    ValueId lse = b_ew2(g, OP_add, top, b_ew1(g, OP_log, sum));
    return (Soft){lse, b_ew1(g, OP_exp, b_ew2(g, OP_sub, logits, lse))};
}

static ValueId plain_cross_entropy(Loss *x, const Node *n, const ValueId *in) {
    Graph *g = x->g;
    DimId cls = attr_dim(x->r.from, n, "cls");
    Type rows = ty(x, in[1]);
    DType dt = ty(x, in[0]).dt;
    Attr at[2] = {at_dim(cls), at_int(0)};
    ValueId classes = build_leaf(g, OP_iota, type_make(DT_I32, &cls, 1), at, 2);
    ValueId hit = b_ew2(g, OP_eq, b_expand(g, classes, rows.dim, rows.ndim), in[1]);
    ValueId mine = b_over(g, OP_sum, b_ew3(g, OP_where, hit, in[0], num(x, dt, 0)), &cls, 1);
    ValueId loss = b_ew2(g, OP_sub, softmax(x, in[0], cls).lse, mine);
    ValueId counts = b_ew2(g, OP_ne, in[1], num(x, DT_I32, IGNORE));
    return b_ew3(g, OP_where, counts, loss, num(x, dt, 0));
}

static ValueId plain_entropy(Loss *x, const Node *n, const ValueId *in) {
    DimId cls = attr_dim(x->r.from, n, "cls");
    Soft s = softmax(x, in[0], cls);
    ValueId mean = b_over(x->g, OP_sum, b_ew2(x->g, OP_mul, s.p, in[0]), &cls, 1);
    return b_ew2(x->g, OP_sub, s.lse, mean);
}

static ValueId plain_kl(Loss *x, const Node *n, const ValueId *in) {
    Graph *g = x->g;
    DimId cls = attr_dim(x->r.from, n, "cls");
    Soft a = softmax(x, in[0], cls), b = softmax(x, in[1], cls);
    ValueId ratio = b_ew2(g, OP_sub, b_ew2(g, OP_sub, in[0], a.lse), b_ew2(g, OP_sub, in[1], b.lse));
    return b_over(g, OP_sum, b_ew2(g, OP_mul, ratio, a.p), &cls, 1);
}

static ValueId plain_argmax(Loss *x, const Node *n, const ValueId *in) {
    return rewrite_with(&x->r, n, in);
}

/* ---- what the logits are made of */
static Head resolve(Loss *x, ValueId logits, DimId cls);

static Head resolve_matmul(Loss *x, const Node *n, DimId cls) {
    Head h = {.cls = cls};
    const DimId *over;
    uint32_t k = attr_dims(x->g, n, "over", &over), wide = 0;
    for (uint32_t i = 0; i < 2; i++)
        if (type_has(value_type(x->g, x->g->operand[n->in0 + i]), cls)) wide += i + 1;
    if (wide == 0 || wide == 3 || k == 0) return h; /* no operand, or both, have the classes */
    h.w = x->g->operand[n->in0 + wide - 1];
    h.h = x->g->operand[n->in0 + 2 - wide];
    for (uint32_t i = 0; i < k; i++) h.over[i] = over[i];
    h.nover = k;
    h.ok = !type_has(value_type(x->g, h.w), x->g->micro) && !type_has(value_type(x->g, h.w), x->g->batch);
    return h;
}

/* An op that only moves rows, done to h instead of the logits. */
static Head resolve_moved(Loss *x, const Node *n, DimId cls) {
    Head h = resolve(x, x->g->operand[n->in0], cls);
    if (!h.ok) return h;
    Graph *g = x->g;
    Attr at[MAX_ATTR];
    memcpy(at, n->attr, sizeof at);
    uint32_t nattr = (uint32_t)op_info[n->op].nattr;
    if (n->op == OP_select) {
        DimId dim = attr_dim(g, n, "dim");
        int64_t i = attr_int(g, n, "index");
        h.ok = !dim_is(dim, cls);
        if (!h.ok) return h;
        h.h = slice(&x->slicer, h.h, dim, i);
        h.w = slice(&x->slicer, h.w, dim, i);
    } else if (n->op == OP_shift) { /* rows from outside are 0 . W = 0, so the fill must be 0 */
        DimId dim = attr_dim(g, n, "dim");
        Type t = ty(x, h.h);
        h.ok = attr_float(g, n, "fill") == 0 && type_has(&t, dim) && !type_has(value_type(g, h.w), dim);
        if (h.ok) h.h = build(g, OP_shift, &h.h, 1, at, nattr);
    } else if (n->op == OP_stop_grad) {
        h.h = b_ew1(g, OP_stop_grad, h.h);
        h.w = b_ew1(g, OP_stop_grad, h.w);
    }
    return h; /* transpose: the order of the rows is settled later */
}

static Head resolve(Loss *x, ValueId logits, DimId cls) {
    uint32_t at;
    if (triples_get(&x->heads, logits.i, cls.i, &at)) return x->head[at];
    Node n = *value_node(x->g, logits);
    Head h = {.cls = cls};
    if (n.op == OP_matmul)
        h = resolve_matmul(x, &n, cls);
    else if (n.op == OP_select || n.op == OP_shift || n.op == OP_transpose || n.op == OP_stop_grad)
        h = resolve_moved(x, &n, cls);
    GROW(x->r.a, x->head, x->nhead, x->head_cap);
    x->head[x->nhead] = h;
    triples_put(&x->heads, logits.i, cls.i, x->nhead++);
    return h;
}

/* ---- building */
/* h as [rows.., over]; dims of rows that it lacks are broadcast. */
static ValueId head_input(Loss *x, ValueId h, const Head *of, const Type *rows) {
    Type t = ty(x, h), want = type_make(t.dt, rows->dim, rows->ndim);
    DimId more[MAX_DIMS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < rows->ndim; i++)
        if (!type_has(&t, rows->dim[i])) more[n++] = rows->dim[i];
    for (uint32_t i = 0; i < of->nover; i++) want.dim[want.ndim++] = of->over[i];
    return v_ordered(x->g, b_expand(x->g, h, more, n), &want);
}

static ValueId head_weight(Loss *x, ValueId w, const Head *of) {
    Type want = type_make(DT_F32, &of->cls, 1);
    for (uint32_t i = 0; i < of->nover; i++) want.dim[want.ndim++] = of->over[i];
    return v_ordered(x->g, w, &want);
}

/* Dims of h that are rows, then those only `more` has. */
static Type rows_of(Loss *x, ValueId h, const Head *of, const Type *more) {
    Type t = ty(x, h), rows = {0};
    rows.dt = DT_I32;
    for (uint32_t i = 0; i < t.ndim; i++)
        if (!dims_have(of->over, of->nover, t.dim[i])) rows.dim[rows.ndim++] = t.dim[i];
    for (uint32_t i = 0; i < more->ndim; i++)
        if (!type_has(&rows, more->dim[i])) rows.dim[rows.ndim++] = more->dim[i];
    return rows;
}

/* A dim to unroll: one of W beside classes and over, or one that a stack made. */
static bool unroll_dim(Loss *x, const Head *of, const Type *rows, DimId *dim) {
    Type w = ty(x, of->w);
    for (uint32_t i = 0; i < w.ndim; i++) {
        if (dim_is(w.dim[i], of->cls) || dims_have(of->over, of->nover, w.dim[i])) continue;
        *dim = w.dim[i];
        return true;
    }
    for (uint32_t i = 0; i < rows->ndim; i++) {
        *dim = rows->dim[i];
        if (slice_stack(&x->slicer, of->h, *dim)) return true;
    }
    return false;
}

static Four one_linear_ce(Loss *x, const Head *of, ValueId target, bool dummy, const Type *rows) {
    Graph *g = x->g;
    ValueId h = head_input(x, of->h, of, rows), w = head_weight(x, of->w, of);
    Type t = ty(x, target);
    DimId more[MAX_DIMS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < rows->ndim; i++)
        if (!type_has(&t, rows->dim[i])) more[n++] = rows->dim[i];
    target = v_ordered(g, b_expand(g, target, more, n), rows);
    ValueId first = NOVALUE;
    for (uint32_t i = 0; i < x->nmade && !value_is(first); i++) {
        const Made *m = &x->made[i];
        if (m->h.i == h.i && m->w.i == w.i && m->target.i == target.i) first = m->first;
    }
    if (!value_is(first)) {
        Attr at[2] = {at_dims(g, of->over, of->nover), at_dim(of->cls)};
        first = build(g, OP_linear_ce, (ValueId[]){h, w, target}, 3, at, 2);
        GROW(x->r.a, x->made, x->nmade, x->made_cap);
        x->made[x->nmade++] = (Made){h, w, target, first, dummy};
    }
    Four f;
    for (uint32_t k = 0; k < 4; k++) f.v[k] = b_out(g, first, k);
    return f;
}

/* Results of linear_ce for all rows, one node for each coordinate of the dims that are unrolled. */
static Four head_loss(Loss *x, Head of, ValueId target, bool dummy) {
    Type t = ty(x, target), rows = rows_of(x, of.h, &of, &t);
    DimId dim;
    if (!unroll_dim(x, &of, &rows, &dim)) return one_linear_ce(x, &of, target, dummy, &rows);
    uint32_t n = (uint32_t)x->g->dim[dim.i].size;
    Four *part = NEWN(x->r.a, Four, n), all;
    for (uint32_t i = 0; i < n; i++) {
        Head cut = of;
        cut.h = slice(&x->slicer, of.h, dim, i);
        cut.w = slice(&x->slicer, of.w, dim, i);
        part[i] = head_loss(x, cut, slice(&x->slicer, target, dim, i), dummy);
    }
    ValueId *one = NEWN(x->r.a, ValueId, n);
    for (uint32_t k = 0; k < 4; k++) {
        for (uint32_t i = 0; i < n; i++) one[i] = part[i].v[k];
        all.v[k] = v_stack(x->g, one, n, dim);
    }
    return all;
}

/* For entropy and argmax, which need no target: every row is ignored. merge_dummies finds a better one. */
static Four head_rows(Loss *x, Head of) {
    return head_loss(x, of, num(x, DT_I32, IGNORE), true);
}

static ValueId fused_cross_entropy(Loss *x, const Node *n, const Head *h, const ValueId *in) {
    (void)n;
    return head_loss(x, h[0], in[1], false).v[0];
}
static ValueId fused_entropy(Loss *x, const Node *n, const Head *h, const ValueId *in) {
    (void)n, (void)in;
    return head_rows(x, h[0]).v[2];
}
static ValueId fused_argmax(Loss *x, const Node *n, const Head *h, const ValueId *in) {
    int64_t base = attr_int(x->r.from, n, "base");
    bool token = attr_bool(x->r.from, n, "token");
    ValueId best = head_rows(x, h[0]).v[3];
    if (token && base == 0) return best;
    DType real = ty(x, in[0]).dt;
    best = b_cast(x->g, best, real);
    if (base) best = b_ew2(x->g, OP_add, best, num(x, real, (double)base));
    return token ? b_cast(x->g, best, DT_I32) : best;
}

static ValueId one_linear_kl(Loss *x, const Head *a, const Head *b, const Type *rows) {
    Graph *g = x->g;
    ValueId in[4] = {head_input(x, a->h, a, rows), head_weight(x, a->w, a), head_input(x, b->h, b, rows),
                     head_weight(x, b->w, b)};
    Attr at[3] = {at_dims(g, a->over, a->nover), at_dims(g, b->over, b->nover), at_dim(a->cls)};
    return build(g, OP_linear_kl, in, 4, at, 3);
}

static ValueId head_kl(Loss *x, Head a, Head b) {
    Type none = {0}, rows2 = rows_of(x, b.h, &b, &none), rows = rows_of(x, a.h, &a, &rows2);
    DimId dim;
    if (!unroll_dim(x, &a, &rows, &dim) && !unroll_dim(x, &b, &rows, &dim))
        return one_linear_kl(x, &a, &b, &rows);
    uint32_t n = (uint32_t)x->g->dim[dim.i].size;
    ValueId *part = NEWN(x->r.a, ValueId, n);
    for (uint32_t i = 0; i < n; i++) {
        Head p = a, q = b;
        p.h = slice(&x->slicer, a.h, dim, i), p.w = slice(&x->slicer, a.w, dim, i);
        q.h = slice(&x->slicer, b.h, dim, i), q.w = slice(&x->slicer, b.w, dim, i);
        part[i] = head_kl(x, p, q);
    }
    return v_stack(x->g, part, n, dim);
}
static ValueId fused_kl(Loss *x, const Node *n, const Head *h, const ValueId *in) {
    (void)n, (void)in;
    return head_kl(x, h[0], h[1]);
}

/* ---- the ops that this pass removes */
typedef struct {
    uint32_t logits; /* how many of the first operands are logits */
    ValueId (*fused)(Loss *x, const Node *n, const Head *h, const ValueId *in);
    ValueId (*plain)(Loss *x, const Node *n, const ValueId *in);
} LossRow;
static const LossRow loss_row[NOP] = {
    [OP_cross_entropy] = {1, fused_cross_entropy, plain_cross_entropy},
    [OP_entropy] = {1, fused_entropy, plain_entropy},
    [OP_kl] = {2, fused_kl, plain_kl},
    [OP_argmax] = {1, fused_argmax, plain_argmax},
};

static void rewrite_loss(Loss *x, const Node *n, bool off) {
    const LossRow *row = &loss_row[n->op];
    ValueId *in = rewrite_operands(&x->r, n), v;
    DimId cls = attr_dim(x->r.from, n, n->op == OP_argmax ? "over" : "cls");
    Head h[2] = {{.ok = false}, {.ok = false}};
    bool ok = !off;
    rewrite_at(&x->r, n);
    for (uint32_t i = 0; i < row->logits && ok; i++) {
        h[i] = resolve(x, in[i], cls);
        ok = h[i].ok;
    }
    if (!ok && !off && n->op != OP_argmax)
        graph_note(x->g, "%s in %s: the logits are no matmul of states and weights, so they are stored",
                   op_info[n->op].name, n->path);
    v = ok ? row->fused(x, n, h, in) : row->plain(x, n, in);
    x->r.map[n->out0] = v_ordered(x->g, v, &x->r.from->value[n->out0].ty);
}

/* A linear_ce without target gives way to one with a target over the same rows, unless that target follows
 * from it. */
static Graph *merge_dummies(Loss *x, Graph *g) {
    ValueId *subst = NEWN(x->r.a, ValueId, g->nvalue + 1);
    uint32_t *order = NEWN(x->r.a, uint32_t, g->nnode + 1), merged = 0;
    for (uint32_t i = 0; i < g->nvalue; i++) subst[i] = NOVALUE;
    for (uint32_t i = 0; i < x->nmade; i++) {
        const Made *m = &x->made[i];
        for (uint32_t j = 0; j < x->nmade && m->dummy; j++) {
            const Made *to = &x->made[j];
            if (to->dummy || to->h.i != m->h.i || to->w.i != m->w.i) continue;
            for (uint32_t k = 0; k < 4; k++) subst[m->first.i + k] = (ValueId){to->first.i + k};
            if (graph_order(x->r.a, g, subst, order)) {
                merged++;
                break;
            }
            for (uint32_t k = 0; k < 4; k++) subst[m->first.i + k] = NOVALUE;
        }
    }
    return merged ? graph_substitute(x->r.a, g, subst) : g;
}

Graph *pass_linear_ce(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    Loss x = {.r = rewrite_begin(a, g)};
    x.g = x.r.to;
    slicer_init(&x.slicer, x.g);
    triples_init(&x.heads, a);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (loss_row[n->op].plain)
            rewrite_loss(&x, n, o->off_linear_ce);
        else
            rewrite_copy(&x.r, n);
    }
    graph_copy_results(x.g, g, x.r.map);
    Graph *made = graph_live(a, merge_dummies(&x, x.g));
    bool drop = g->phase && !strcmp(g->phase, "val");
    return o->off_simplify ? made : simplify_graph(a, made, drop, d);
}
