/* fuse: ST_LOCAL -> ST_LOCAL. Labels groups of element-wise nodes and reductions that become one kernel, and puts the nodes
 * of a group side by side. Exact: a kernel does for each element what its nodes do one by one.
 *
 * Groups grow forwards: all other nodes run as soon as they can, then a group starts at the first node that is ready
 * and takes in what is ready with it. A node that waits for another kernel cannot join, so groups are convex and free of
 * cycles by construction. What a kernel can do (codegen/group.c): one iteration space; all reductions of a group remove
 * the same dims; a result kept in memory covers the space, or the dims that reductions leave. */
#include "passes/rewrite.h"

#include <string.h>

enum { MAX_GROUP = 96, MAX_INPUTS = 40, FEW_PIECES = 8, LARGE = 1 << 15 };

typedef struct { DimId d[MAX_DIMS]; uint32_t n; } Dims; /* without dims of size 1 */

typedef enum { WAITING, IN_GROUP, PLACED } State;

typedef struct {
    uint32_t node[MAX_GROUP], n;
    uint8_t section;
    Dims full, inner; /* the space; what reductions remove, in loop order */
    bool reduces, column, checked, writes_state, backward;
} Group;

typedef struct {
    Arena *a;
    const Graph *g;
    Uses uses;
    State *state;
    uint32_t *waits;     /* operands' nodes not placed yet */
    bool *is_result;     /* of nodes: read from outside */
    bool *checked;       /* flows into what is checked before a state changes */
    bool *next;          /* new value of a parameter or state */
    uint32_t *order, norder;
    uint32_t *label, nlabel;
    uint32_t *ready, nready; /* heap of fusible nodes whose operands are placed */
    uint32_t *plain, nplain; /* heap of the others */
    Group grp;
} Fuse;

/* ---- heaps of node numbers, least first */
static void heap_push(uint32_t *h, uint32_t *n, uint32_t v) {
    uint32_t i = (*n)++;
    for (; i > 0 && h[(i - 1) / 2] > v; i = (i - 1) / 2) h[i] = h[(i - 1) / 2];
    h[i] = v;
}
static uint32_t heap_pop(uint32_t *h, uint32_t *n) {
    uint32_t top = h[0], v = h[--*n], i = 0;
    for (;;) {
        uint32_t c = 2 * i + 1;
        if (c >= *n) break;
        if (c + 1 < *n && h[c + 1] < h[c]) c++;
        if (h[c] >= v) break;
        h[i] = h[c];
        i = c;
    }
    h[i] = v;
    return top;
}

/* ---- dims as sets */
static Dims dims_of(const Graph *g, const Type *t) {
    Dims s = {.n = 0};
    for (uint32_t i = 0; i < t->ndim; i++)
        if (g->dim[t->dim[i].i].size != 1) s.d[s.n++] = t->dim[i];
    return s;
}
static bool holds(const Dims *a, const Dims *b) {
    for (uint32_t i = 0; i < b->n; i++)
        if (!dims_have(a->d, a->n, b->d[i])) return false;
    return true;
}
static bool same_set(const Dims *a, const Dims *b) { return a->n == b->n && holds(a, b); }
static bool same_list(const Dims *a, const Dims *b) {
    for (uint32_t i = 0; i < a->n && i < b->n; i++)
        if (!dim_is(a->d[i], b->d[i])) return false;
    return a->n == b->n;
}
static Dims without(const Dims *a, const Dims *b) {
    Dims s = {.n = 0};
    for (uint32_t i = 0; i < a->n; i++)
        if (!dims_have(b->d, b->n, a->d[i])) s.d[s.n++] = a->d[i];
    return s;
}
static int64_t count_of(const Graph *g, const Dims *s) {
    int64_t n = 1;
    for (uint32_t i = 0; i < s->n; i++) n *= g->dim[s->d[i].i].size;
    return n;
}

static const Node *node_at(const Fuse *f, uint32_t i) { return &f->g->node[i]; }
static uint32_t def_of(const Fuse *f, ValueId v) { return f->g->value[v.i].def.i; }
static ValueId operand(const Fuse *f, const Node *n, uint32_t k) { return f->g->operand[n->in0 + k]; }
static bool fusible(const Node *n) { return op_info[n->op].kind == K_EW || op_info[n->op].kind == K_REDUCE; }

/* ---- may a node join */
static bool is_in(const Fuse *f, uint32_t i) { return f->state[i] == IN_GROUP; }

/* Everything that reads node i is in the group, or is `also`. */
static bool inside(const Fuse *f, uint32_t i, uint32_t also) {
    if (f->is_result[i]) return false;
    const Node *n = node_at(f, i);
    for (uint32_t u = f->uses.use0[n->out0]; u < f->uses.use0[n->out0 + 1]; u++) {
        uint32_t r = f->uses.use[u].i;
        if (r != also && !is_in(f, r)) return false;
    }
    return true;
}

/* The space of the group with node i in it; false if it is not one space. */
static bool widen(const Fuse *f, uint32_t i, Group *w) {
    const Graph *g = f->g;
    const Node *n = node_at(f, i);
    *w = f->grp;
    bool reduce = op_info[n->op].kind == K_REDUCE;
    Dims own = dims_of(g, reduce ? value_type(g, operand(f, n, 0)) : value_type(g, (ValueId){n->out0}));
    if (!reduce) {
        if (holds(&w->full, &own)) return true;
        if (w->reduces || !holds(&own, &w->full)) return false;
        w->full = own;
        return true;
    }
    const DimId *over;
    uint32_t nover = attr_dims(g, n, "over", &over);
    Dims inner = {.n = 0};
    bool last = false;
    for (uint32_t k = 0; k < own.n; k++) {
        last = dims_have(over, nover, own.d[k]);
        if (last) inner.d[inner.n++] = own.d[k];
    }
    bool column = inner.n > 0 && !last;
    if (w->reduces) return same_set(&own, &w->full) && same_list(&inner, &w->inner) && column == w->column;
    if (!holds(&own, &w->full)) return false;
    w->full = own;
    w->inner = inner;
    w->reduces = true;
    w->column = column;
    return true;
}

/* May node i's value stand in memory in the space of w? Few long rows are for one thread each: results of the whole
 * space are then left to a kernel that all threads share. */
static bool storable(const Fuse *f, const Group *w, uint32_t i) {
    Dims own = dims_of(f->g, &f->g->value[node_at(f, i)->out0].ty), outer = without(&w->full, &w->inner);
    if (w->reduces && same_set(&own, &outer)) return true;
    if (!same_set(&own, &w->full)) return false;
    return !w->reduces || w->column || count_of(f->g, &outer) >= FEW_PIECES || count_of(f->g, &w->full) < LARGE;
}

static bool is_backward(const Node *n) { return (n->flags & N_BWD) != 0; }
static bool is_number(const Fuse *f, uint32_t i) {
    return op_info[node_at(f, i)->op].kind == K_EW && dims_of(f->g, &f->g->value[node_at(f, i)->out0].ty).n == 0;
}

static uint32_t inputs_of(const Fuse *f, uint32_t also) {
    uint32_t n = 0;
    for (uint32_t k = 0; k <= f->grp.n; k++) {
        uint32_t i = k < f->grp.n ? f->grp.node[k] : also;
        const Node *node = node_at(f, i);
        if (!inside(f, i, also)) n++;
        for (uint32_t j = 0; j < node->nin; j++) n += !is_in(f, def_of(f, operand(f, node, j)));
    }
    return n;
}

/* A sum of gradients of a weight that several places share. Each such sum is a kernel of its own, so that a gradient can
 * be added as soon as it is there instead of waiting in memory for the others. */
static bool adds_weights(const Fuse *f, const Node *n) {
    const Type *t = &f->g->value[n->out0].ty;
    return n->op == OP_add && is_backward(n) && (n->section & 1) && t->ndim > 0 && !type_has(t, f->g->batch);
}

/* May node i, all operands of which are placed or in the group, join? A backward node that is ready in the forward pass
 * stays out of its kernels: its result would wait in memory until the backward pass reads it. */
static bool may_join(const Fuse *f, uint32_t i, uint32_t reader, Group *w) {
    const Node *n = node_at(f, i);
    const Group *grp = &f->grp;
    if (!fusible(n) || n->section != grp->section || n->nout != 1 || grp->n == MAX_GROUP) return false;
    if (grp->n > 0 && is_backward(n) != grp->backward && !is_number(f, i)) return false;
    if (grp->n > 0 && adds_weights(f, n)) return false;
    if ((grp->checked && f->next[i]) || (grp->writes_state && f->checked[i])) return false;
    if (!widen(f, i, w)) return false;
    if (!storable(f, w, i) && !inside(f, i, reader)) return false;
    for (uint32_t k = 0; k < grp->n; k++)
        if (!storable(f, w, grp->node[k]) && !inside(f, grp->node[k], i)) return false;
    return inputs_of(f, i) <= MAX_INPUTS;
}

static void join(Fuse *f, uint32_t i, const Group *w) {
    f->grp = *w;
    if (f->grp.n == 0) f->grp.backward = is_backward(node_at(f, i));
    f->grp.node[f->grp.n++] = i;
    f->grp.checked |= f->checked[i];
    f->grp.writes_state |= f->next[i];
    f->state[i] = IN_GROUP;
}

/* Joins node i if it may; an operand that is not placed yet may come along if it is ready and nothing else reads it. */
static bool try_join(Fuse *f, uint32_t i) {
    if (f->state[i] != WAITING) return false;
    const Node *n = node_at(f, i);
    Group before = f->grp, w;
    uint32_t pulled[3], npulled = 0;
    bool ok = fusible(n);
    for (uint32_t k = 0; ok && k < n->nin; k++) {
        uint32_t d = def_of(f, operand(f, n, k));
        if (f->state[d] != WAITING) continue;
        ok = f->waits[d] == 0 && may_join(f, d, i, &w);
        if (!ok) break;
        join(f, d, &w);
        pulled[npulled++] = d;
    }
    if (ok && may_join(f, i, UINT32_MAX, &w)) {
        join(f, i, &w);
        return true;
    }
    while (npulled > 0) f->state[pulled[--npulled]] = WAITING;
    f->grp = before;
    return false;
}

/* Length of the part of a path that names a block: through its last number, `policy.tail.0` of `policy.tail.0.att`. */
static size_t block_of(const char *path) {
    size_t len = 0;
    for (size_t i = 0; path[i]; i++) {
        bool starts = i == 0 || path[i - 1] == '.' || path[i - 1] == '/';
        size_t k = i;
        while (starts && path[k] >= '0' && path[k] <= '9') k++;
        if (k > i && (!path[k] || path[k] == '.' || path[k] == '/')) len = k;
    }
    return len;
}
static bool same_block(const Fuse *f, uint32_t i, uint32_t k) {
    const char *p = node_at(f, i)->path, *q = node_at(f, k)->path;
    size_t n = block_of(p), m = block_of(q);
    return n == 0 || m == 0 || (n == m && memcmp(p, q, n) == 0);
}

/* May reader r follow node i into its group? Not where blocks that stand beside each other (heads) read i: one kernel
 * for all of them would keep all their activations in memory at a time. */
static bool may_follow(const Fuse *f, uint32_t i, uint32_t r) {
    const Node *n = node_at(f, i);
    if (same_block(f, i, r)) return true;
    for (uint32_t u = f->uses.use0[n->out0]; u < f->uses.use0[n->out0 + 1]; u++) {
        uint32_t other = f->uses.use[u].i;
        if (!same_block(f, other, r) && !same_block(f, other, i)) return false;
    }
    return true;
}

/* Readers of node i's results, and readers of what it reads over the whole space. */
static bool grow_at(Fuse *f, uint32_t i) {
    const Node *n = node_at(f, i);
    bool any = false;
    for (uint32_t u = f->uses.use0[n->out0]; u < f->uses.use0[n->out0 + 1]; u++)
        if (may_follow(f, i, f->uses.use[u].i)) any |= try_join(f, f->uses.use[u].i);
    for (uint32_t k = 0; k < n->nin; k++) {
        ValueId v = operand(f, n, k);
        Dims own = dims_of(f->g, value_type(f->g, v));
        if (is_in(f, def_of(f, v)) || value_node(f->g, v)->op == OP_const || !same_set(&own, &f->grp.full)) continue;
        for (uint32_t u = f->uses.use0[v.i]; u < f->uses.use0[v.i + 1]; u++)
            if (same_block(f, i, f->uses.use[u].i)) any |= try_join(f, f->uses.use[u].i);
    }
    return any;
}

/* Numbers are all alike: any that is ready may come along. */
static bool grow_scalars(Fuse *f) {
    bool any = false;
    for (uint32_t k = 0; k < f->nready && f->grp.full.n == 0; k++) any |= try_join(f, f->ready[k]);
    return any;
}

static void place(Fuse *f, uint32_t i) {
    f->state[i] = PLACED;
    f->order[f->norder++] = i;
    const Node *n = node_at(f, i);
    for (uint32_t o = 0; o < n->nout; o++)
        for (uint32_t u = f->uses.use0[n->out0 + o]; u < f->uses.use0[n->out0 + o + 1]; u++) {
            uint32_t r = f->uses.use[u].i;
            if (--f->waits[r] > 0 || f->state[r] != WAITING) continue;
            if (fusible(node_at(f, r))) heap_push(f->ready, &f->nready, r);
            else heap_push(f->plain, &f->nplain, r);
        }
}

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void place_group(Fuse *f) {
    Group *grp = &f->grp;
    for (uint32_t i = 1; i < grp->n; i++) /* node order is topological; groups are short */
        for (uint32_t k = i; k > 0 && by_number(&grp->node[k - 1], &grp->node[k]) > 0; k--) {
            uint32_t t = grp->node[k];
            grp->node[k] = grp->node[k - 1];
            grp->node[k - 1] = t;
        }
    uint32_t label = grp->n > 1 ? ++f->nlabel : 0;
    for (uint32_t i = 0; i < grp->n; i++) {
        f->label[grp->node[i]] = label;
        place(f, grp->node[i]);
    }
}

static void make_group(Fuse *f, uint32_t seed) {
    Group w;
    f->grp = (Group){.section = node_at(f, seed)->section};
    wm_check(f->a, widen(f, seed, &w), "node %u spans no space", seed);
    join(f, seed, &w);
    for (bool any = true; any;) {
        any = grow_scalars(f);
        for (uint32_t k = 0; k < f->grp.n; k++) any |= grow_at(f, f->grp.node[k]);
    }
    place_group(f);
}

static void run(Fuse *f) {
    for (uint32_t i = 0; i < f->g->nnode; i++) {
        if (f->waits[i] > 0) continue;
        if (fusible(node_at(f, i))) heap_push(f->ready, &f->nready, i);
        else heap_push(f->plain, &f->nplain, i);
    }
    while (f->nplain > 0 || f->nready > 0) {
        uint32_t i = f->nplain > 0 ? heap_pop(f->plain, &f->nplain) : heap_pop(f->ready, &f->nready);
        if (f->state[i] != WAITING) continue;
        if (fusible(node_at(f, i))) make_group(f, i);
        else place(f, i);
    }
}

/* ---- units back in node order: of those whose operands are there, the one with the least first node. `order` lists
 * whole groups, each in node order. */
static void settle(Fuse *f) {
    uint32_t n = f->g->nnode, *begin = NEWN(f->a, uint32_t, n + 1), *next = NEWN(f->a, uint32_t, n + 1), nnext = 0;
    uint32_t *size = NEWN(f->a, uint32_t, n + 1), *unit = NEWN(f->a, uint32_t, n + 1); /* by first node of the unit */
    uint32_t *waits = NEWN(f->a, uint32_t, n + 1);
    for (uint32_t i = 0; i < n; i += size[f->order[i]]) {
        uint32_t first = f->order[i], label = f->label[first];
        begin[first] = i;
        for (size[first] = 1; label && i + size[first] < n && f->label[f->order[i + size[first]]] == label;) size[first]++;
        for (uint32_t k = 0; k < size[first]; k++) unit[f->order[i + k]] = first;
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < node_at(f, i)->nin; k++) waits[unit[i]] += unit[def_of(f, operand(f, node_at(f, i), k))] != unit[i];
    for (uint32_t i = 0; i < n; i++)
        if (unit[i] == i && waits[i] == 0) heap_push(next, &nnext, i);
    uint32_t *order = NEWN(f->a, uint32_t, n + 1), norder = 0;
    while (nnext > 0) {
        uint32_t first = heap_pop(next, &nnext);
        for (uint32_t j = 0; j < size[first]; j++) {
            uint32_t i = order[norder++] = f->order[begin[first] + j];
            const Node *x = node_at(f, i);
            for (uint32_t u = f->uses.use0[x->out0]; u < f->uses.use0[x->out0 + x->nout]; u++) {
                uint32_t r = unit[f->uses.use[u].i];
                if (r != first && --waits[r] == 0) heap_push(next, &nnext, r);
            }
        }
    }
    wm_check(f->a, norder == n, "fuse ordered %u of %u nodes", norder, n);
    f->order = order;
}

/* ---- what the graph says about its nodes */
static void mark_results(Fuse *f) {
    static const char *const checked[] = {"loss", "total", "grad_norm", "check"};
    const Graph *g = f->g;
    for (uint32_t i = 0; i < g->nresult; i++) {
        uint32_t n = def_of(f, g->result[i].v);
        f->is_result[n] = true;
        f->next[n] |= strcmp(g->result[i].kind, "next") == 0;
        for (size_t k = 0; k < WM_LEN(checked); k++) f->checked[n] |= strcmp(g->result[i].kind, checked[k]) == 0;
    }
    for (uint32_t i = 0; i < g->nopt; i++)
        if (value_is(g->opt[i].lr)) f->is_result[def_of(f, g->opt[i].lr)] = true;
    for (uint32_t i = g->nnode; i-- > 0;) {
        const Node *n = node_at(f, i);
        for (uint32_t k = 0; k < n->nin; k++) {
            uint32_t d = def_of(f, operand(f, n, k));
            if (f->checked[i]) f->checked[d] = true;
        }
    }
}

static Graph *relabel(const Fuse *f) {
    Rewrite r = rewrite_begin(f->a, f->g);
    for (uint32_t i = 0; i < f->norder; i++) {
        rewrite_copy(&r, node_at(f, f->order[i]));
        r.to->node[r.to->nnode - 1].group = f->label[f->order[i]];
    }
    graph_copy_results(r.to, f->g, r.map);
    return r.to;
}

Graph *pass_fuse(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    (void)d;
    uint32_t n = g->nnode + 1;
    Fuse *f = NEW(a, Fuse);
    *f = (Fuse){.a = a, .g = g, .uses = graph_uses(a, g), .state = NEWN(a, State, n), .waits = NEWN(a, uint32_t, n),
                .is_result = NEWN(a, bool, n), .checked = NEWN(a, bool, n), .next = NEWN(a, bool, n),
                .order = NEWN(a, uint32_t, n), .label = NEWN(a, uint32_t, n), .ready = NEWN(a, uint32_t, n),
                .plain = NEWN(a, uint32_t, n)};
    for (uint32_t v = 0; v < g->nvalue; v++)
        for (uint32_t u = f->uses.use0[v]; u < f->uses.use0[v + 1]; u++) f->waits[f->uses.use[u].i]++;
    mark_results(f);
    if (o->off_fuse) {
        for (uint32_t i = 0; i < g->nnode; i++) f->order[f->norder++] = i;
        return relabel(f);
    }
    run(f);
    wm_check(a, f->norder == g->nnode, "fuse placed %u of %u nodes", f->norder, g->nnode);
    settle(f);
    return relabel(f);
}
