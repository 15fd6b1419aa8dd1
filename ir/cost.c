/* cost.c: FLOPs and bytes of a node, from the cost column of ops.def.
 *
 * The column is a C expression of OVER, the number of elements contracted for one element of result 0: the
 * product of the dims named by `over` and `cls` that result 0 lacks, G for micro_sum, the length for
 * attention. */
#include "ir/ir.h"

#include <string.h>

static double dims_product(const Graph *g, const Attr *a, const Type *result) {
    double p = 1;
    if (a->kind == AT_DIM && !type_has(result, a->u.dim)) p = (double)g->dim[a->u.dim.i].size;
    if (a->kind != AT_DIMS) return p;
    for (uint32_t k = 0; k < a->u.list.n; k++) {
        DimId d = g->dimlist[a->u.list.at + k];
        if (!type_has(result, d)) p *= (double)g->dim[d.i].size;
    }
    return p;
}

static double contracted(const Graph *g, const Node *n) {
    const Type *r = &g->value[n->out0].ty;
    const Attr *along = node_attr(g, n, "along");
    if (op_info[n->op].kind == K_TREE) {
        bool whole = g->micro.i < g->ndim;
        return whole ? (double)g->dim[g->micro.i].size : 1;
    }
    if (along->kind == AT_DIM) return (double)g->dim[along->u.dim.i].size;
    return dims_product(g, node_attr(g, n, "over"), r) * dims_product(g, node_attr(g, n, "cls"), r);
}

double node_flops(const Graph *g, const Node *n) {
    const double OVER = contracted(g, n);
    const double per_element[NOP] = {
#define OP(name, nin, nout, flags, attrs, rule, kind, expr, ref, vjp, cost, sample, doc)                     \
    [OP_##name] = (double)(cost),
#include "ir/ops.def"
#undef OP
    };
    return per_element[n->op] * (double)type_count(g, &g->value[n->out0].ty);
}

int64_t node_bytes(const Graph *g, const Node *n) {
    int64_t b = 0;
    if (op_info[n->op].kind == K_LEAF || op_info[n->op].kind == K_VIEW) return 0;
    for (uint32_t k = 0; k < n->nin; k++) b += type_bytes(g, value_type(g, g->operand[n->in0 + k]));
    for (uint32_t k = 0; k < n->nout; k++) b += type_bytes(g, &g->value[n->out0 + k].ty);
    return b;
}
