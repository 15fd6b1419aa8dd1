/* recompute.c: first half of pass fuse: element-wise values that are made again instead of kept. Exact.
 *
 * A reader in the backward pass, or in another block of the model, gets copies of its own of the element-wise
 * nodes in front of it, as far as what they read is small or is kept for that place anyway: the norm's output
 * from x and 1/rms, the SwiGLU product from gate and up. The copies then vanish inside the reader's kernel;
 * what a matmul reads is made once more beside the backward of the same block. Chains are short: what would
 * need more is kept. */
#include "passes/fuse.h"

#include <string.h>

enum { MAX_CHAIN = 4 };

typedef struct {
    Rewrite r;
    Uses uses;
    const bool *model;
    ValueId *shared; /* by value: its copy for readers that are no element-wise kernels */
} Recompute;

/* Length of the part of a path that names a block: through its last number, `policy.tail.0` of
 * `policy.tail.0.att`. */
static size_t block_length(const char *path) {
    size_t len = 0;
    for (size_t i = 0; path[i]; i++) {
        size_t k = i;
        while ((i == 0 || path[i - 1] == '.' || path[i - 1] == '/') && path[k] >= '0' && path[k] <= '9') k++;
        if (k > i && (!path[k] || path[k] == '.' || path[k] == '/')) len = k;
    }
    return len;
}

bool fuse_same_lane(const Node *x, const Node *y) {
    size_t n = block_length(x->path), m = block_length(y->path);
    return n == m && memcmp(x->path, y->path, n) == 0;
}

static bool is_backward(const Node *n) {
    return (n->flags & N_BWD) != 0;
}
static bool same_place(const Node *x, const Node *y) {
    return x->section == y->section && is_backward(x) == is_backward(y) && fuse_same_lane(x, y);
}
static bool simple(const Node *n) {
    return op_info[n->op].kind == K_EW;
}
static bool is_param(const Node *n) {
    return n->op == OP_param || n->op == OP_const;
}

static bool fusible(const Node *n) {
    return simple(n) || op_info[n->op].kind == K_REDUCE;
}

bool fuse_for_columns(const Graph *g, const Uses *uses, uint32_t i) {
    const Node *n = &g->node[i];
    const Type *t = &g->value[n->out0].ty;
    uint32_t last = t->ndim, readers = 0;
    while (last > 0 && g->dim[t->dim[last - 1].i].size == 1) last--;
    if (!simple(n) || last == 0) return false;
    for (uint32_t u = uses->use0[n->out0]; u < uses->use0[n->out0 + 1]; u++, readers++) {
        const Node *r = &g->node[uses->use[u].i];
        const DimId *over;
        if (op_info[r->op].kind != K_REDUCE) return false;
        uint32_t nover = attr_dims(g, r, "over", &over);
        if (dims_have(over, nover, t->dim[last - 1])) return false;
    }
    for (uint32_t k = 0; k < g->nresult; k++)
        if (g->value[g->result[k].v.i].def.i == i) return false;
    return readers > 0;
}

/* Something at the reader's place reads u whatever happens here; for a reader that is no element-wise kernel
 * itself, one that can make the copy beside its own results. */
static bool kept_for(const Recompute *x, ValueId u, const Node *reader) {
    const Graph *g = x->r.from;
    for (uint32_t k = x->uses.use0[u.i]; k < x->uses.use0[u.i + 1]; k++) {
        uint32_t r = x->uses.use[k].i;
        if (!same_place(&g->node[r], reader)) continue;
        if (fusible(reader) || (fusible(&g->node[r]) && !fuse_for_columns(g, &x->uses, r))) return true;
    }
    return false;
}

/* May v be made again for the reader: heavy, made elsewhere, from what is there anyway? */
static bool cheap(const Recompute *x, ValueId v, const Node *reader, int depth) {
    const Graph *g = x->r.from;
    const Node *n = value_node(g, v);
    if (depth == 0 || !simple(n) || n->section != reader->section || !type_heavy(x->model, value_type(g, v)))
        return false;
    if (same_place(n, reader) || (is_backward(n) && !is_backward(reader))) return false;
    bool reads_heavy = false;
    for (uint32_t k = 0; k < n->nin; k++) {
        ValueId u = g->operand[n->in0 + k];
        if (is_param(value_node(g, u))) continue;
        if (type_count(g, value_type(g, u)) * 8 <= type_count(g, value_type(g, v))) continue;
        reads_heavy = true;
        if (!cheap(x, u, reader, depth - 1) && !kept_for(x, u, reader)) return false;
    }
    return reads_heavy;
}

/* Copies v and what is cheap before it, as nodes at the reader's place. */
static ValueId copy_for(Recompute *x, ValueId v, const Node *reader, int depth) {
    const Graph *g = x->r.from;
    if (!cheap(x, v, reader, depth)) return x->r.map[v.i];
    bool alone = !fusible(reader);
    if (alone && value_is(x->shared[v.i]) && same_place(value_node(x->r.to, x->shared[v.i]), reader))
        return x->shared[v.i];
    const Node *n = value_node(g, v);
    ValueId *in = NEWN(x->r.a, ValueId, n->nin + 1u);
    for (uint32_t k = 0; k < n->nin; k++) in[k] = copy_for(x, g->operand[n->in0 + k], reader, depth - 1);
    rewrite_at(&x->r, n);
    x->r.to->flags = (uint16_t)(reader->flags | N_REMAT);
    x->r.to->path = reader->path;
    ValueId made = rewrite_with(&x->r, n, in);
    Node *copy = &x->r.to->node[x->r.to->nnode - 1];
    copy->section = n->section;
    if (alone && depth == MAX_CHAIN) x->shared[v.i] = made;
    return made;
}

Graph *fuse_recompute(Arena *a, const Graph *g) {
    Recompute x = {rewrite_begin(a, g), graph_uses(a, g), model_dims(a, g), NEWN(a, ValueId, g->nvalue + 1)};
    for (uint32_t v = 0; v < g->nvalue; v++) x.shared[v] = NOVALUE;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        ValueId *own = NEWN(a, ValueId, n->nin + 1u);
        bool any = false;
        for (uint32_t k = 0; k < n->nin; k++) {
            ValueId v = g->operand[n->in0 + k];
            own[k] = copy_for(&x, v, n, MAX_CHAIN);
            any |= own[k].i != x.r.map[v.i].i;
        }
        rewrite_copy(&x.r, n);
        Node *made = &x.r.to->node[x.r.to->nnode - 1];
        for (uint32_t k = 0; any && k < n->nin; k++) x.r.to->operand[made->in0 + k] = own[k];
    }
    graph_copy_results(x.r.to, g, x.r.map);
    return graph_live(a, x.r.to);
}
