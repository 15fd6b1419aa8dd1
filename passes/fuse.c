/* fuse: ST_LOCAL -> ST_LOCAL. Labels groups of element-wise nodes and reductions that become one kernel, and
 * puts the nodes of a group side by side. Exact: a kernel does for each element what its nodes do one by one.
 *
 * Groups grow forwards: all other nodes run as soon as they can, then a group starts at the first node that
 * is ready and takes in what is ready with it. A node that waits for another kernel cannot join, so groups
 * are convex and free of cycles by construction. What a kernel can do (codegen/group.c): one iteration space;
 * all reductions of a group remove the same dims; a result kept in memory covers the space, or the dims that
 * reductions leave. */
#include "passes/fuse.h"

#include <string.h>

enum { MAX_GROUP = 96, MAX_INPUTS = 40, MAX_PULL = 8, FEW_PIECES = 8, LARGE = 1 << 15 };

typedef struct {
    DimId d[MAX_DIMS];
    uint32_t n;
} Dims; /* without dims of size 1 */

typedef enum { WAITING, IN_GROUP, PLACED } State;

/* Nodes whose operands are placed, by who goes first. A late node could run long before its reader: it waits
 * for company. */
typedef enum { PLAIN, READY, LATE_LIGHT, LATE_FORWARD, LATE_BACKWARD, NCLASS } Class;
typedef struct {
    uint32_t *node, n;
} Heap;

typedef struct {
    uint32_t node[MAX_GROUP], n;
    uint8_t section;
    Dims full, inner; /* the space; what reductions remove, in loop order */
    bool reduces, column, checked, writes_state, backward, heavy;
    uint32_t other; /* a node of the second block of the model in a heavy group; its first node otherwise */
} Group;

typedef struct {
    Arena *a;
    const Graph *g;
    Uses uses;
    State *state;
    uint32_t *waits; /* operands' nodes not placed yet */
    uint32_t *early; /* those of them that are not late: at 0 the rest may be pulled in */
    bool *is_result; /* of nodes: read from outside */
    bool *checked;   /* flows into what is checked before a state changes */
    bool *next;      /* new value of a parameter or state */
    uint32_t *order, norder;
    uint32_t *label, nlabel;
    Heap heap[NCLASS];
    bool *late; /* made again, or backward though only the forward pass is needed to make it */
    const bool *model;
    Group grp;
} Fuse;

/* ---- heaps of node numbers, least first */
static void heap_push(Heap *h, uint32_t v) {
    uint32_t i = h->n++;
    for (; i > 0 && h->node[(i - 1) / 2] > v; i = (i - 1) / 2) h->node[i] = h->node[(i - 1) / 2];
    h->node[i] = v;
}
static uint32_t heap_pop(Heap *h) {
    uint32_t top = h->node[0], v = h->node[--h->n], i = 0;
    for (;;) {
        uint32_t c = 2 * i + 1;
        if (c >= h->n) break;
        if (c + 1 < h->n && h->node[c + 1] < h->node[c]) c++;
        if (h->node[c] >= v) break;
        h->node[i] = h->node[c];
        i = c;
    }
    h->node[i] = v;
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
static bool same_set(const Dims *a, const Dims *b) {
    return a->n == b->n && holds(a, b);
}
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

static const Node *node_at(const Fuse *f, uint32_t i) {
    return &f->g->node[i];
}
static uint32_t def_of(const Fuse *f, ValueId v) {
    return f->g->value[v.i].def.i;
}
static ValueId operand(const Fuse *f, const Node *n, uint32_t k) {
    return f->g->operand[n->in0 + k];
}
static bool fusible(const Node *n) {
    return op_info[n->op].kind == K_EW || op_info[n->op].kind == K_REDUCE;
}

/* ---- may a node join */
static bool is_in(const Fuse *f, uint32_t i) {
    return f->state[i] == IN_GROUP;
}

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

/* May node i's value stand in memory in the space of w? Few long rows are for one thread each: results of the
 * whole space are then left to a kernel that all threads share. */
static bool storable(const Fuse *f, const Group *w, uint32_t i) {
    Dims own = dims_of(f->g, &f->g->value[node_at(f, i)->out0].ty), outer = without(&w->full, &w->inner);
    if (w->reduces && same_set(&own, &outer)) return true;
    if (!same_set(&own, &w->full) || w->column)
        return false; /* rows of a column nest are cut into short pieces */
    return !w->reduces || count_of(f->g, &outer) >= FEW_PIECES || count_of(f->g, &w->full) < LARGE;
}

static bool is_backward(const Node *n) {
    return (n->flags & N_BWD) != 0;
}
static bool is_number(const Fuse *f, uint32_t i) {
    return op_info[node_at(f, i)->op].kind == K_EW &&
           dims_of(f->g, &f->g->value[node_at(f, i)->out0].ty).n == 0;
}

/* A node for sums over columns may start their kernel, or join what nobody else will read. */
static bool spoils_columns(const Fuse *f, const Group *w, uint32_t i) {
    if (w->column || !fuse_for_columns(f->g, &f->uses, i)) return false;
    for (uint32_t k = 0; k < f->grp.n; k++)
        if (!inside(f, f->grp.node[k], i)) return true;
    return false;
}

/* Heavy groups stay inside a block of the model; one reader's block may be added (residual and norm). Else
 * the blocks of several heads would be bound together, and all their buffers would live at once. */
static bool lane_allows(const Fuse *f, const Group *w, uint32_t i) {
    const Node *n = node_at(f, i);
    if (w->n == 0 || !w->heavy) return true;
    const Node *first = node_at(f, w->node[0]), *other = node_at(f, w->other);
    return fuse_same_lane(n, first) || fuse_same_lane(n, other) || fuse_same_lane(first, other);
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

/* A sum of gradients of a weight that several places share. Each such sum is a kernel of its own, so that a
 * gradient can be added as soon as it is there instead of waiting in memory for the others. */
static bool adds_weights(const Fuse *f, const Node *n) {
    const Type *t = &f->g->value[n->out0].ty;
    return n->op == OP_add && is_backward(n) && (n->section & 1) && t->ndim > 0 && !type_has(t, f->g->batch);
}

/* May node i, all operands of which are placed or in the group, join? A backward node that is ready in the
 * forward pass stays out of its kernels: its result would wait in memory until the backward pass reads it. */
static bool may_join(const Fuse *f, uint32_t i, uint32_t reader, Group *w) {
    const Node *n = node_at(f, i);
    const Group *grp = &f->grp;
    if (!fusible(n) || n->section != grp->section || n->nout != 1 || grp->n == MAX_GROUP) return false;
    if (grp->n > 0 && is_backward(n) != grp->backward && !is_number(f, i)) return false;
    if (grp->n > 0 && adds_weights(f, n)) return false;
    if ((grp->checked && f->next[i]) || (grp->writes_state && f->checked[i])) return false;
    if (!widen(f, i, w)) return false;
    if (spoils_columns(f, w, i)) return false;
    w->heavy = grp->heavy || type_heavy(f->model, &f->g->value[n->out0].ty);
    if (!lane_allows(f, w, i)) return false;
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

static bool join_at(Fuse *f, uint32_t i, uint32_t reader, int depth) {
    if (f->state[i] != WAITING || depth == 0) return false;
    const Node *n = node_at(f, i);
    Group w;
    for (uint32_t k = 0; k < n->nin; k++) {
        uint32_t d = def_of(f, operand(f, n, k));
        if (f->state[d] == WAITING && !join_at(f, d, i, depth - 1)) return false;
    }
    if (!may_join(f, i, reader, &w)) return false;
    join(f, i, &w);
    return true;
}

/* Joins node i if it may, with those operands that are not placed yet if they may too. */
static bool try_join(Fuse *f, uint32_t i) {
    if (f->state[i] != WAITING || !fusible(node_at(f, i))) return false;
    Group before = f->grp;
    if (join_at(f, i, UINT32_MAX, MAX_PULL)) return true;
    for (uint32_t k = before.n; k < f->grp.n; k++) f->state[f->grp.node[k]] = WAITING;
    f->grp = before;
    return false;
}

/* A late node comes along where a matmul or the like waits for it; else only as an operand of what joins. */
static bool try_late(Fuse *f, uint32_t i, int depth) {
    if (f->state[i] != WAITING || depth == 0) return false;
    if (!f->late[i] || f->late[f->grp.node[0]]) return try_join(f, i);
    const Node *n = node_at(f, i);
    bool any = false;
    for (uint32_t u = f->uses.use0[n->out0]; !any && u < f->uses.use0[n->out0 + 1]; u++)
        any = !fusible(node_at(f, f->uses.use[u].i)) && f->uses.use[u].i != i && try_join(f, i);
    for (uint32_t u = f->uses.use0[n->out0]; u < f->uses.use0[n->out0 + 1]; u++)
        if (f->late[f->uses.use[u].i]) any |= try_late(f, f->uses.use[u].i, depth - 1);
    return any;
}

/* Readers of node i's results, and readers of what it reads over the whole space. */
static bool grow_at(Fuse *f, uint32_t i) {
    const Node *n = node_at(f, i);
    bool any = false;
    for (uint32_t u = f->uses.use0[n->out0]; u < f->uses.use0[n->out0 + 1]; u++)
        any |= try_late(f, f->uses.use[u].i, MAX_PULL);
    for (uint32_t k = 0; k < n->nin; k++) {
        ValueId v = operand(f, n, k);
        Dims own = dims_of(f->g, value_type(f->g, v));
        bool heavy = type_heavy(f->model, value_type(f->g, v));
        if (is_in(f, def_of(f, v)) || value_node(f->g, v)->op == OP_const || !same_set(&own, &f->grp.full))
            continue;
        for (uint32_t u = f->uses.use0[v.i]; u < f->uses.use0[v.i + 1]; u++) {
            uint32_t r = f->uses.use[u].i;
            if (!heavy || fuse_same_lane(node_at(f, r), n)) any |= try_late(f, r, MAX_PULL);
        }
    }
    return any;
}

/* Numbers are all alike: any that is ready may come along. */
static bool grow_scalars(Fuse *f) {
    bool any = false;
    const Heap *h = &f->heap[READY];
    for (uint32_t k = 0; k < h->n && f->grp.full.n == 0; k++) any |= try_join(f, h->node[k]);
    return any;
}

/* Node i has all its operands, or, if it may pull in the late ones, all others. */
static void push(Fuse *f, uint32_t i) {
    const Node *n = node_at(f, i);
    if (f->waits[i] > 0 && (f->early[i] > 0 || !fusible(n) || f->late[i])) return;
    Class c = READY;
    if (!fusible(n))
        c = PLAIN;
    else if (f->late[i])
        c = !type_heavy(f->model, &f->g->value[n->out0].ty) ? LATE_LIGHT
            : is_backward(n)                                ? LATE_BACKWARD
                                                            : LATE_FORWARD;
    heap_push(&f->heap[c], i);
}

static void place(Fuse *f, uint32_t i) {
    f->state[i] = PLACED;
    f->order[f->norder++] = i;
    const Node *n = node_at(f, i);
    for (uint32_t o = 0; o < n->nout; o++)
        for (uint32_t u = f->uses.use0[n->out0 + o]; u < f->uses.use0[n->out0 + o + 1]; u++) {
            uint32_t r = f->uses.use[u].i;
            f->waits[r]--;
            f->early[r] -= !f->late[i];
            if (f->state[r] == WAITING && (f->waits[r] == 0 || (!f->late[i] && f->early[r] == 0))) push(f, r);
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
    f->grp = (Group){.section = node_at(f, seed)->section};
    if (!try_join(f, seed)) {
        wm_check(f->a, f->waits[seed] > 0, "node %u fits no kernel", seed);
        return; /* a late operand must come first */
    }
    for (bool any = true; any;) {
        any = grow_scalars(f);
        for (uint32_t k = 0; k < f->grp.n; k++) any |= grow_at(f, f->grp.node[k]);
    }
    place_group(f);
}

static void run(Fuse *f) {
    for (uint32_t i = 0; i < f->g->nnode; i++) push(f, i);
    for (Class c = PLAIN; c < NCLASS;) {
        if (f->heap[c].n == 0) {
            c++;
            continue;
        }
        uint32_t i = heap_pop(&f->heap[c]);
        c = PLAIN;
        if (f->state[i] != WAITING) continue;
        if (fusible(node_at(f, i)))
            make_group(f, i);
        else
            place(f, i);
    }
}

/* ---- units back in node order: of those whose operands are there, the one with the least first node.
 * `order` lists whole groups, each in node order. */
static void settle(Fuse *f) {
    uint32_t n = f->g->nnode, *begin = NEWN(f->a, uint32_t, n + 1), norder = 0;
    Heap next = {NEWN(f->a, uint32_t, n + 1), 0};
    uint32_t *size = NEWN(f->a, uint32_t, n + 1),
             *unit = NEWN(f->a, uint32_t, n + 1); /* by first node of the unit */
    uint32_t *waits = NEWN(f->a, uint32_t, n + 1);
    for (uint32_t i = 0; i < n; i += size[f->order[i]]) {
        uint32_t first = f->order[i], label = f->label[first];
        begin[first] = i;
        for (size[first] = 1; label && i + size[first] < n && f->label[f->order[i + size[first]]] == label;)
            size[first]++;
        for (uint32_t k = 0; k < size[first]; k++) unit[f->order[i + k]] = first;
    }
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < node_at(f, i)->nin; k++)
            waits[unit[i]] += unit[def_of(f, operand(f, node_at(f, i), k))] != unit[i];
    for (uint32_t i = 0; i < n; i++)
        if (unit[i] == i && waits[i] == 0) heap_push(&next, i);
    uint32_t *order = NEWN(f->a, uint32_t, n + 1);
    while (next.n > 0) {
        uint32_t first = heap_pop(&next);
        for (uint32_t j = 0; j < size[first]; j++) {
            uint32_t i = order[norder++] = f->order[begin[first] + j];
            const Node *x = node_at(f, i);
            for (uint32_t u = f->uses.use0[x->out0]; u < f->uses.use0[x->out0 + x->nout]; u++) {
                uint32_t r = unit[f->uses.use[u].i];
                if (r != first && --waits[r] == 0) heap_push(&next, r);
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
        for (size_t k = 0; k < WM_LEN(checked); k++)
            f->checked[n] |= strcmp(g->result[i].kind, checked[k]) == 0;
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

/* Backward nodes that follow from no adjoint: what other kernels of the backward pass make starts the
 * adjoints. */
static void mark_late(Fuse *f) {
    bool *adjoint = NEWN(f->a, bool, f->g->nnode + 1);
    for (uint32_t i = 0; i < f->g->nnode; i++) {
        const Node *n = node_at(f, i);
        adjoint[i] = is_backward(n) && !fusible(n) && !(op_info[n->op].flags & F_LEAF);
        for (uint32_t k = 0; k < n->nin; k++) adjoint[i] |= adjoint[def_of(f, operand(f, n, k))];
        f->late[i] = fusible(n) && !adjoint[i] && (is_backward(n) || (n->flags & N_REMAT));
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
    if (!o->off_fuse) g = fuse_recompute(a, g);
    uint32_t n = g->nnode + 1;
    Fuse *f = NEW(a, Fuse);
    *f = (Fuse){.a = a,
                .g = g,
                .uses = graph_uses(a, g),
                .state = NEWN(a, State, n),
                .waits = NEWN(a, uint32_t, n),
                .early = NEWN(a, uint32_t, n),
                .is_result = NEWN(a, bool, n),
                .checked = NEWN(a, bool, n),
                .next = NEWN(a, bool, n),
                .order = NEWN(a, uint32_t, n),
                .label = NEWN(a, uint32_t, n),
                .late = NEWN(a, bool, n),
                .model = model_dims(a, g)};
    for (Class c = PLAIN; c < NCLASS; c++) f->heap[c].node = NEWN(a, uint32_t, 3 * (wm_size)n);
    mark_results(f);
    mark_late(f);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *x = node_at(f, i);
        f->waits[i] = x->nin;
        for (uint32_t k = 0; k < x->nin; k++) f->early[i] += !f->late[def_of(f, operand(f, x, k))];
    }
    if (o->off_fuse) {
        for (uint32_t i = 0; i < g->nnode; i++) f->order[f->norder++] = i;
        return relabel(f);
    }
    run(f);
    wm_check(a, f->norder == g->nnode, "fuse placed %u of %u nodes", f->norder, g->nnode);
    settle(f);
    return relabel(f);
}
