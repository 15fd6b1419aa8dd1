/* form: ST_TRAIN -> ST_TRAIN. A linear_ce and its gradient become one linear_ce_fb (form B: loss and
 * gradients in one pass over the rows) where the weights of the rows are known before the loss; else they
 * stay two nodes (form C).
 *
 * Proof by dependency: the seed must not follow from this linear_ce, nor, through a sum over the
 * micro-batches, from any loss over a vocabulary (that would tie a micro-batch to the losses of the others).
 * Kept exact: the same numbers meet in the same order. */
#include "passes/rewrite.h"

#include <string.h>

static ValueId operand(const Graph *g, const Node *n, uint32_t i) {
    return g->operand[n->in0 + i];
}

/* The linear_ce whose lse the gradient reads, if the gradient is of the plain form. */
static int32_t forward_of(const Graph *g, const Node *grad) {
    if (grad->op != OP_linear_ce_grad || grad->nin != 5) return -1;
    ValueId lse = operand(g, grad, 3);
    const Node *n = value_node(g, lse);
    if (n->op != OP_linear_ce || g->value[lse.i].out != 1) return -1;
    for (uint32_t i = 0; i < 3; i++)
        if (operand(g, n, i).i != operand(g, grad, i).i) return -1;
    return (int32_t)g->value[lse.i].def.i;
}

static bool is_loss(Op op) {
    return op == OP_linear_ce || op == OP_linear_ce_fb || op == OP_linear_kl;
}

/* Does the seed hold off the one-pass form? Walks back from it; `crossed`: behind a sum or stack of
 * micro-batches. */
static bool seed_waits(Arena *a, const Graph *g, ValueId seed, uint32_t loss) {
    uint8_t *want = NEWN(a, uint8_t, g->nnode + 1); /* 1: in the cone, 2: in it behind a micro_sum too */
    uint32_t top = g->value[seed.i].def.i;
    want[top] = 1;
    for (uint32_t i = g->nnode; i-- > 0;) {
        if (!want[i]) continue;
        const Node *n = &g->node[i];
        if (i == loss || (want[i] == 2 && is_loss(n->op))) return true;
        bool crosses = n->op == OP_micro_sum || n->op == OP_micro_stack;
        uint8_t mark = crosses || want[i] == 2 ? 2 : 1;
        for (uint32_t k = 0; k < n->nin; k++) {
            uint32_t on = g->value[operand(g, n, k).i].def.i;
            if (want[on] < mark) want[on] = mark;
        }
    }
    return false;
}

static ValueId fb_result(const Graph *g, uint32_t fwd, uint32_t grad, uint32_t v, ValueId first) {
    const Node *f = &g->node[fwd], *b = &g->node[grad];
    if (v >= f->out0 && v < f->out0 + f->nout) return (ValueId){first.i + (v - f->out0)};
    if (v >= b->out0 && v < b->out0 + b->nout) return (ValueId){first.i + 4 + (v - b->out0)};
    return NOVALUE;
}

/* The two nodes as one, placed at the gradient; what read the loss before that moves behind it. */
static Graph *joined(Arena *a, const Graph *g, uint32_t fwd, uint32_t grad) {
    Rewrite r = rewrite_begin(a, g);
    const Node *b = &g->node[grad], *f = &g->node[fwd];
    /* what follows from the loss (directly or not) and stands before the gradient waits until after it */
    bool *behind = NEWN(a, bool, g->nnode + 1);
    behind[fwd] = true;
    for (uint32_t i = fwd + 1; i < grad; i++)
        for (uint32_t k = 0; k < g->node[i].nin; k++)
            behind[i] |= behind[g->value[operand(g, &g->node[i], k).i].def.i];
    for (uint32_t i = 0; i < grad; i++)
        if (!behind[i]) rewrite_copy(&r, &g->node[i]);
    Attr at[3];
    Attr all[MAX_ATTR];
    rewrite_attrs(r.to, g, b, all);
    memcpy(at, all, sizeof at);
    ValueId in[4];
    for (uint32_t i = 0; i < 4; i++) in[i] = r.map[operand(g, b, i < 3 ? i : 4).i];
    rewrite_at(&r, f);
    ValueId first = build(r.to, OP_linear_ce_fb, in, 4, at, 3);
    for (uint32_t v = f->out0; v < f->out0 + f->nout; v++) r.map[v] = fb_result(g, fwd, grad, v, first);
    for (uint32_t v = b->out0; v < b->out0 + b->nout; v++) r.map[v] = fb_result(g, fwd, grad, v, first);
    for (uint32_t i = fwd + 1; i < grad; i++)
        if (behind[i]) rewrite_copy(&r, &g->node[i]);
    for (uint32_t i = grad + 1; i < g->nnode; i++) rewrite_copy(&r, &g->node[i]);
    return rewrite_end(&r);
}

Graph *pass_form(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    (void)o, (void)d;
    Graph *now = graph_live(a, g);
    for (uint32_t i = 0; i < now->nnode; i++) {
        int32_t f = forward_of(now, &now->node[i]);
        if (f < 0 || seed_waits(a, now, operand(now, &now->node[i], 4), (uint32_t)f)) continue;
        graph_note(now, "%s: loss and gradient in one pass (form B)", now->node[f].path);
        now = joined(a, now, (uint32_t)f, i);
        i = UINT32_MAX; /* from the start: places have changed */
    }
    for (uint32_t i = 0; i < now->nnode; i++)
        if (now->node[i].op == OP_linear_ce_grad)
            graph_note(now, "%s: the weights follow from the loss, two passes (form C)", now->node[i].path);
    return now;
}
