/* micro: ST_TRAIN -> ST_TRAIN. After it only micro_sum and readers of micro_stack remove `micro`.
 *
 * A sum over micro (sum, matmul, scatter_add, gradients of the losses) becomes the sum inside each
 * micro-batch, then micro_sum, whose tree is the same for any number of ranks. What is not a sum (quantile,
 * max_of) reads micro_stack: all micro-batches side by side. Re-associates. */
#include "passes/rewrite.h"

#include <string.h>

/* The attribute whose dims are summed away, by op; ops that are no sums are not listed. */
static const char *const sum_attr[NOP] = {
    [OP_sum] = "over",           [OP_matmul] = "over",        [OP_scatter_add] = "over",
    [OP_linear_ce_grad] = "row", [OP_linear_kl_grad] = "row",
};

static int attr_place(const Node *n, const char *name) {
    const OpInfo *info = &op_info[n->op];
    for (int i = 0; i < info->nattr; i++)
        if (!strcmp(info->attr[i].name, name)) return i;
    return -1;
}

/* A product that contracts nothing but micro: element by element inside a micro-batch. */
static ValueId outer(Graph *g, ValueId x, ValueId y) {
    Type tx = *value_type(g, x), ty = *value_type(g, y);
    DimId more[MAX_DIMS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < tx.ndim; i++)
        if (!type_has(&ty, tx.dim[i])) more[n++] = tx.dim[i];
    return b_ew2(g, OP_mul, x, b_expand(g, y, more, n));
}

/* The same node with micro left in, then micro_sum of the results that lost it. */
static void sum_in_micro(Rewrite *r, const Node *n, const ValueId *in) {
    DimId over[MAX_DIMS];
    const DimId *all;
    uint32_t count = attr_dims(r->from, n, sum_attr[n->op], &all), k = 0;
    for (uint32_t i = 0; i < count; i++)
        if (!dim_is(all[i], r->from->micro)) over[k++] = all[i];
    Attr attr[MAX_ATTR];
    rewrite_attrs(r->to, r->from, n, attr);
    attr[attr_place(n, sum_attr[n->op])] = at_dims(r->to, over, k);
    ValueId first;
    if (n->op == OP_sum && !k)
        first = in[0];
    else if (n->op == OP_matmul && !k)
        first = outer(r->to, in[0], in[1]);
    else
        first = build(r->to, n->op, in, n->nin, attr, (uint32_t)op_info[n->op].nattr);
    for (uint32_t o = 0; o < n->nout; o++) {
        ValueId v = o ? b_out(r->to, first, o) : first;
        const Type *want = &r->from->value[n->out0 + o].ty;
        if (!type_has(want, r->from->micro) && type_has(value_type(r->to, v), r->from->micro))
            v = v_ordered(r->to, build(r->to, OP_micro_sum, &v, 1, NULL, 0), want);
        r->map[n->out0 + o] = v;
    }
}

static void stack_operands(Rewrite *r, const Node *n, ValueId *in) {
    for (uint32_t i = 0; i < n->nin; i++)
        if (type_has(value_type(r->to, in[i]), r->from->micro))
            in[i] = build(r->to, OP_micro_stack, &in[i], 1, NULL, 0);
    rewrite_map(r, n, rewrite_with(r, n, in));
}

static bool loses_micro(const Graph *g, const Node *n) {
    bool in = false, out = true;
    for (uint32_t i = 0; i < n->nin; i++) in |= type_has(value_type(g, g->operand[n->in0 + i]), g->micro);
    for (uint32_t i = 0; i < n->nout; i++) out &= type_has(&g->value[n->out0 + i].ty, g->micro);
    return in && !out;
}

static bool stacked(const Graph *g, const Node *n) {
    for (uint32_t i = 0; i < n->nin; i++)
        if (value_node(g, g->operand[n->in0 + i])->op == OP_micro_stack) return true;
    return false;
}

/* A dim attribute that walks along micro cannot be cut into micro-batches. The language has no way to write
 * it. */
static bool along_micro(const Graph *g, const Node *n, Diags *d) {
    for (int i = 0; i < op_info[n->op].nattr; i++)
        if (n->attr[i].kind == AT_DIM && dim_is(n->attr[i].u.dim, g->micro) && n->op != OP_iota) {
            diag_add(d, P003, n->loc,
                     "%s along the dim of the micro-batches cannot be computed one micro-batch at a time",
                     op_info[n->op].name);
            return true;
        }
    return false;
}

/* The leaf of a sum over micro-batches, also behind a reordering of dims; NOVALUE for anything else. */
static ValueId leaf_of(const Graph *g, ValueId v) {
    const Node *n = value_node(g, v);
    if (n->op == OP_transpose) n = value_node(g, g->operand[n->in0]);
    return n->op == OP_micro_sum ? g->operand[n->in0] : NOVALUE;
}

static bool read_once(const Graph *g, const Uses *u, ValueId v) {
    for (uint32_t i = 0; i < g->nresult; i++)
        if (g->result[i].v.i == v.i) return false;
    return u->use0[v.i + 1] - u->use0[v.i] == 1;
}

/* A sum of two tensors that are sums over micro-batches and nothing else: added in each micro-batch, summed
 * once. The gradients of a weight that several heads share then need the levels of one sum, not of one for
 * each head. */
static bool join_sums(Rewrite *r, const Uses *u, const Node *n) {
    if (n->op != OP_add || r->from->value[n->out0].ty.ndim == 0) return false;
    ValueId leaf[2];
    for (uint32_t k = 0; k < 2; k++) {
        ValueId v = r->from->operand[n->in0 + k];
        if (!read_once(r->from, u, v)) return false;
        leaf[k] = leaf_of(r->to, r->map[v.i]);
        if (!value_is(leaf[k])) return false;
    }
    if (!type_equal(value_type(r->to, leaf[0]), value_type(r->to, leaf[1]))) return false;
    rewrite_at(r, n);
    ValueId sum = b_ew2(r->to, OP_add, leaf[0], leaf[1]);
    sum = build(r->to, OP_micro_sum, &sum, 1, NULL, 0);
    rewrite_map(r, n, v_ordered(r->to, sum, &r->from->value[n->out0].ty));
    return true;
}

Graph *pass_micro(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    (void)o;
    if (g->micro.i == UINT32_MAX) return graph_live(a, g);
    Rewrite r = rewrite_begin(a, g);
    Uses uses = graph_uses(a, g);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (join_sums(&r, &uses, n)) continue;
        if (n->op == OP_micro_sum || n->op == OP_micro_slice || stacked(g, n) || !loses_micro(g, n)) {
            if (along_micro(g, n, d)) return NULL;
            rewrite_copy(&r, n);
            continue;
        }
        ValueId *in = rewrite_operands(&r, n);
        rewrite_at(&r, n);
        if (sum_attr[n->op])
            sum_in_micro(&r, n, in);
        else
            stack_operands(&r, n, in);
    }
    return rewrite_end(&r);
}
