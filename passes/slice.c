/* slice.c: one coordinate of a dim, as a value without the dim.
 *
 * `select` is pushed towards the leaves: a stack gives its operand, an iota a constant, a shift that added
 * the dim a plain shift. Element-wise ops, reductions over other dims, matmuls and moves are repeated on the
 * slice. What cannot be passed ends in a `select`, so slice() is always right. Memoised: a value is cut once
 * for each coordinate. */
#include "passes/rewrite.h"

#include <string.h>

void slicer_init(Slicer *s, Graph *g) {
    *s = (Slicer){.g = g};
    triples_init(&s->done, g->arena);
    triples_init(&s->free, g->arena);
}

/* How slice() treats an op. EACH: repeat the op on slices of the operands that have the dim. */
typedef enum { CUT_NOT, CUT_EACH, CUT_OWN } Cut;
static Cut cut_of(const Graph *g, const Node *n, DimId dim) {
    static const Cut by_op[NOP] = {
        [OP_stack] = CUT_OWN,   [OP_iota] = CUT_OWN,      [OP_shift] = CUT_OWN,   [OP_expand] = CUT_OWN,
        [OP_place] = CUT_OWN,   [OP_transpose] = CUT_OWN, [OP_sum] = CUT_EACH,    [OP_max_of] = CUT_EACH,
        [OP_min_of] = CUT_EACH, [OP_matmul] = CUT_EACH,   [OP_gather] = CUT_EACH, [OP_select] = CUT_EACH,
    };
    if (by_op[n->op] == CUT_OWN && n->op == OP_shift && dim_is(attr_dim(g, n, "dim"), dim)) return CUT_NOT;
    if (by_op[n->op] != CUT_NOT) return by_op[n->op];
    return op_info[n->op].kind == K_EW ? CUT_EACH : CUT_NOT;
}

static Type without(Type t, DimId dim) {
    uint32_t n = 0;
    DimId d[MAX_DIMS];
    for (uint32_t i = 0; i < t.ndim; i++)
        if (!dim_is(t.dim[i], dim)) d[n++] = t.dim[i];
    return type_make(t.dt, d, n);
}

static Attr dims_without(Graph *g, const Node *n, const char *name, DimId dim) {
    const DimId *all;
    DimId left[MAX_DIMS];
    uint32_t count = attr_dims(g, n, name, &all), k = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!dim_is(all[i], dim)) left[k++] = all[i];
    return at_dims(g, left, k);
}

static ValueId made(Slicer *s, Op op, const ValueId *in, uint32_t nin, const Attr *attr, uint32_t nattr) {
    if (!s->make) return build(s->g, op, in, nin, attr, nattr);
    Attr full[MAX_ATTR] = {{AT_NONE, {0}}};
    if (nattr) memcpy(full, attr, nattr * sizeof *attr);
    return s->make(s->ctx, op, in, nin, full);
}

static ValueId ordered(Slicer *s, ValueId v, const Type *want) {
    if (same_dims(value_type(s->g, v), want)) return v;
    Attr to = at_dims(s->g, want->dim, want->ndim);
    return made(s, OP_transpose, &v, 1, &to, 1);
}

static ValueId operand(const Slicer *s, const Node *n, uint32_t i) {
    return s->g->operand[n->in0 + i];
}

static ValueId cut_shift(Slicer *s, const Node *n, DimId dim, int64_t at) {
    Graph *g = s->g;
    const Attr *add = node_attr(g, n, "add"), *factor = node_attr(g, n, "factor");
    DimId left[MAX_DIMS];
    int64_t left_factor[MAX_DIMS], by = attr_int(g, n, "by");
    uint32_t k = 0, count = add->kind == AT_DIMS ? add->u.list.n : 0;
    bool added = false;
    for (uint32_t i = 0; i < count; i++) {
        DimId d = g->dimlist[add->u.list.at + i];
        int64_t f = g->intlist[factor->u.list.at + i];
        if (dim_is(d, dim))
            by += f * at, added = true;
        else
            left[k] = d, left_factor[k++] = f;
    }
    ValueId x = added ? operand(s, n, 0) : slice(s, operand(s, n, 0), dim, at);
    Attr attr[5] = {n->attr[0], at_int(by), k ? at_dims(g, left, k) : at_none(),
                    k ? at_ints(g, left_factor, k) : at_none(), n->attr[4]};
    return made(s, OP_shift, &x, 1, attr, 5);
}

static ValueId cut_stack(Slicer *s, const Node *n, DimId dim, int64_t at) {
    DimId own = attr_dim(s->g, n, "dim");
    if (dim_is(own, dim)) return operand(s, n, (uint32_t)at);
    ValueId *in = NEWN(s->g->arena, ValueId, n->nin + 1u);
    for (uint32_t i = 0; i < n->nin; i++) in[i] = slice(s, operand(s, n, i), dim, at);
    Attr attr = at_dim(own);
    return made(s, OP_stack, in, n->nin, &attr, 1);
}

static ValueId cut_iota(Slicer *s, const Node *n, DimId dim, int64_t at) {
    (void)dim;
    return b_const(s->g, s->g->value[n->out0].ty.dt, (double)(attr_int(s->g, n, "base") + at));
}

static ValueId cut_expand(Slicer *s, const Node *n, DimId dim, int64_t at) {
    ValueId x = slice(s, operand(s, n, 0), dim, at);
    Attr dims = dims_without(s->g, n, "dims", dim);
    return dims.u.list.n ? made(s, OP_expand, &x, 1, &dims, 1) : x;
}

static ValueId cut_place(Slicer *s, const Node *n, DimId dim, int64_t at) {
    DimId own = attr_dim(s->g, n, "dim");
    ValueId x = operand(s, n, 0);
    if (dim_is(own, dim)) {
        Type t = *value_type(s->g, x);
        return attr_int(s->g, n, "index") == at ? x : v_fill(s->g, t.dt, 0, t.dim, t.ndim);
    }
    x = slice(s, x, dim, at);
    Attr attr[2] = {n->attr[0], n->attr[1]};
    return made(s, OP_place, &x, 1, attr, 2);
}

static ValueId cut_transpose(Slicer *s, const Node *n, DimId dim, int64_t at) {
    ValueId x = slice(s, operand(s, n, 0), dim, at);
    Type want = without(s->g->value[n->out0].ty, dim);
    return ordered(s, x, &want);
}

static ValueId cut_own(Slicer *s, const Node *n, DimId dim, int64_t at) {
    typedef ValueId (*Fn)(Slicer *, const Node *, DimId, int64_t);
    static const Fn fn[NOP] = {
        [OP_stack] = cut_stack,   [OP_iota] = cut_iota,   [OP_shift] = cut_shift,
        [OP_expand] = cut_expand, [OP_place] = cut_place, [OP_transpose] = cut_transpose,
    };
    return fn[n->op](s, n, dim, at);
}

static ValueId cut_each(Slicer *s, const Node *n, DimId dim, int64_t at) {
    ValueId *in = NEWN(s->g->arena, ValueId, n->nin + 1u);
    for (uint32_t i = 0; i < n->nin; i++) in[i] = slice(s, operand(s, n, i), dim, at);
    Attr attr[MAX_ATTR];
    memcpy(attr, n->attr, sizeof attr);
    return made(s, n->op, in, n->nin, attr, (uint32_t)op_info[n->op].nattr);
}

ValueId slice(Slicer *s, ValueId v, DimId dim, int64_t i) {
    Graph *g = s->g;
    if (!type_has(value_type(g, v), dim)) return v;
    uint64_t where = ((uint64_t)dim.i << 32) | (uint64_t)i;
    uint32_t found;
    if (triples_get(&s->done, v.i, where, &found)) return (ValueId){found};
    Node n = *value_node(g, v);
    const char *path = g->path;
    Loc loc = g->loc;
    uint16_t flags = g->flags;
    g->path = n.path, g->loc = n.loc, g->flags = n.flags;
    Cut how = g->value[v.i].out == 0 ? cut_of(g, &n, dim) : CUT_NOT;
    ValueId got = how == CUT_OWN    ? cut_own(s, &n, dim, i)
                  : how == CUT_EACH ? cut_each(s, &n, dim, i)
                                    : v_select(g, v, dim, i);
    Type want = without(*value_type(g, v), dim);
    got = ordered(s, got, &want);
    g->path = path, g->loc = loc, g->flags = flags;
    triples_put(&s->done, v.i, where, got.i);
    return got;
}

/* kind 0: slice_free, kind 1: slice_stack. */
static bool ask(Slicer *s, ValueId v, DimId dim, uint32_t kind) {
    const Graph *g = s->g;
    if (!type_has(value_type(g, v), dim)) return kind == 0;
    uint64_t where = ((uint64_t)dim.i << 1) | kind;
    uint32_t found;
    if (triples_get(&s->free, v.i, where, &found)) return found;
    const Node *n = value_node(g, v);
    Cut how = g->value[v.i].out == 0 ? cut_of(g, n, dim) : CUT_NOT;
    bool own = n->op == OP_stack && dim_is(attr_dim(g, n, "dim"), dim);
    bool yes = how != CUT_NOT;
    if (kind == 0 && how == CUT_EACH && op_info[n->op].kind != K_EW && n->op != OP_select) yes = false;
    if (kind == 1) {
        yes = own;
        for (uint32_t k = 0; k < n->nin && how != CUT_NOT && !own; k++)
            yes |= ask(s, operand(s, n, k), dim, kind);
    } else {
        for (uint32_t k = 0; k < n->nin && yes && !own; k++) yes = ask(s, operand(s, n, k), dim, kind);
    }
    triples_put(&s->free, v.i, where, yes);
    return yes;
}

bool slice_free(Slicer *s, ValueId v, DimId dim) {
    return ask(s, v, dim, 0);
}
bool slice_stack(Slicer *s, ValueId v, DimId dim) {
    return ask(s, v, dim, 1);
}
