/* rewrite.c: copying a graph with changes, and removing what is dead. See rewrite.h. */
#include "passes/rewrite.h"

#include <string.h>

Rewrite rewrite_begin(Arena *a, const Graph *g) {
    Rewrite r = {a, g, graph_like(a, g), NEWN(a, ValueId, g->nvalue + 1)};
    for (uint32_t i = 0; i < g->nvalue; i++) r.map[i] = NOVALUE;
    return r;
}

/* The node that took the place of an origin, if it is there already. */
static int32_t moved_origin(const Rewrite *r, int32_t origin) {
    if (origin < 0 || (uint32_t)origin >= r->from->nnode) return -1;
    ValueId v = r->map[r->from->node[origin].out0];
    return value_is(v) ? (int32_t)r->to->value[v.i].def.i : -1;
}

void rewrite_at(Rewrite *r, const Node *n) {
    r->to->loc = n->loc;
    r->to->path = n->path;
    r->to->flags = n->flags;
    r->to->origin = moved_origin(r, n->origin);
}

void rewrite_attrs(Graph *to, const Graph *from, const Node *n, Attr out[MAX_ATTR]) {
    for (int i = 0; i < MAX_ATTR; i++) out[i] = attr_copy(to, from, &n->attr[i]);
}

ValueId rewrite_with(Rewrite *r, const Node *n, const ValueId *in) {
    Attr attr[MAX_ATTR];
    rewrite_attrs(r->to, r->from, n, attr);
    uint32_t nattr = (uint32_t)op_info[n->op].nattr;
    if (op_info[n->op].flags & F_LEAF)
        return build_leaf(r->to, n->op, r->from->value[n->out0].ty, attr, nattr);
    return build(r->to, n->op, in, n->nin, attr, nattr);
}

void rewrite_map(Rewrite *r, const Node *n, ValueId first) {
    for (uint32_t k = 0; k < n->nout; k++) r->map[n->out0 + k] = k ? b_out(r->to, first, k) : first;
}

void rewrite_copy(Rewrite *r, const Node *n) {
    NodeId id = {(uint32_t)(n - r->from->node)};
    NodeId made = graph_copy_node(r->to, r->from, id, r->map);
    r->to->node[made.i].origin = moved_origin(r, n->origin);
}

ValueId *rewrite_operands(Rewrite *r, const Node *n) {
    ValueId *in = NEWN(r->a, ValueId, n->nin + 1u);
    for (uint32_t i = 0; i < n->nin; i++) {
        in[i] = r->map[r->from->operand[n->in0 + i].i];
        wm_check(r->a, value_is(in[i]), "operand %u of %s is not there yet", i, op_info[n->op].name);
    }
    return in;
}

Graph *rewrite_end(Rewrite *r) {
    graph_copy_results(r->to, r->from, r->map);
    return graph_live(r->a, r->to);
}

static void mark(const Graph *g, bool *live, ValueId v) {
    if (value_is(v)) live[g->value[v.i].def.i] = true;
}

/* A state that nothing reads lives as long as it has a next value: that is written to it. */
static bool has_next(const Graph *g, const Node *n) {
    for (uint32_t i = 0; i < g->nresult; i++)
        if (!strcmp(g->result[i].kind, "next") && !strcmp(g->result[i].name, attr_str(g, n, "name")))
            return true;
    return false;
}

Graph *graph_live(Arena *a, const Graph *g) {
    bool *live = NEWN(a, bool, g->nnode + 1);
    for (uint32_t i = 0; i < g->nresult; i++) mark(g, live, g->result[i].v);
    for (uint32_t i = 0; i < g->nopt; i++) mark(g, live, g->opt[i].lr);
    for (uint32_t i = g->nnode; i-- > 0;) {
        const Node *n = &g->node[i];
        if (n->op == OP_param && g->nopt && attr_int(g, n, "opt") >= 0) live[i] = true;
        if (n->op == OP_state && !strcmp(attr_str(g, n, "role"), "user") && has_next(g, n)) live[i] = true;
        if (n->op == OP_scalar && g->stage >= ST_LOCAL)
            live[i] = true; /* what draws reads it without an operand */
        if (!live[i]) continue;
        for (uint32_t k = 0; k < n->nin; k++) mark(g, live, g->operand[n->in0 + k]);
    }
    Rewrite r = rewrite_begin(a, g);
    for (uint32_t i = 0; i < g->nnode; i++)
        if (live[i]) rewrite_copy(&r, &g->node[i]);
    graph_copy_results(r.to, g, r.map);
    return r.to;
}

/* ---- order */
static ValueId now(const ValueId *subst, ValueId v) {
    return value_is(subst[v.i]) ? subst[v.i] : v;
}

/* Depth first with its own stack; nodes in their old order wherever the operands allow it. */
bool graph_order(Arena *a, const Graph *g, const ValueId *subst, uint32_t *order) {
    typedef struct {
        uint32_t node, next;
    } Frame;
    Frame *stack = NEWN(a, Frame, g->nnode + 1);
    uint8_t *state = NEWN(a, uint8_t, g->nnode + 1); /* 1: on the stack, 2: placed */
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->nnode; i++) {
        if (state[i]) continue;
        uint32_t top = 0;
        stack[top++] = (Frame){i, 0};
        state[i] = 1;
        while (top) {
            Frame *f = &stack[top - 1];
            const Node *node = &g->node[f->node];
            if (f->next == node->nin) {
                state[f->node] = 2;
                order[n++] = f->node;
                top--;
                continue;
            }
            uint32_t on = g->value[now(subst, g->operand[node->in0 + f->next++]).i].def.i;
            if (state[on] == 1) return false;
            if (state[on]) continue;
            state[on] = 1;
            stack[top++] = (Frame){on, 0};
        }
    }
    return true;
}

Graph *graph_substitute(Arena *a, const Graph *g, const ValueId *subst) {
    uint32_t *order = NEWN(a, uint32_t, g->nnode + 1);
    if (!graph_order(a, g, subst, order)) return NULL;
    Rewrite r = rewrite_begin(a, g);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[order[i]];
        ValueId *in = NEWN(a, ValueId, n->nin + 1u);
        for (uint32_t k = 0; k < n->nin; k++) in[k] = r.map[now(subst, g->operand[n->in0 + k]).i];
        rewrite_at(&r, n);
        rewrite_map(&r, n, rewrite_with(&r, n, in));
    }
    for (uint32_t v = 0; v < g->nvalue; v++)
        if (value_is(subst[v])) r.map[v] = r.map[subst[v].i];
    return rewrite_end(&r);
}

/* ---- values */
bool dims_have(const DimId *d, uint32_t n, DimId x) {
    for (uint32_t i = 0; i < n; i++)
        if (dim_is(d[i], x)) return true;
    return false;
}

bool same_dims(const Type *a, const Type *b) {
    if (a->ndim != b->ndim) return false;
    for (uint32_t i = 0; i < a->ndim; i++)
        if (!dim_is(a->dim[i], b->dim[i])) return false;
    return true;
}

ValueId v_ordered(Graph *g, ValueId v, const Type *like) {
    Type want = *like; /* `like` may lie in an array that grows */
    if (same_dims(value_type(g, v), &want)) return v;
    Attr to = at_dims(g, want.dim, want.ndim);
    return build(g, OP_transpose, &v, 1, &to, 1);
}

ValueId v_fill(Graph *g, DType dt, double value, const DimId *dims, uint32_t n) {
    DimId copy[MAX_DIMS];
    for (uint32_t i = 0; i < n; i++) copy[i] = dims[i];
    return b_expand(g, b_const(g, dt, value), copy, n);
}

ValueId v_select(Graph *g, ValueId v, DimId dim, int64_t index) {
    Attr at[2] = {at_dim(dim), at_int(index)};
    return build(g, OP_select, &v, 1, at, 2);
}

ValueId v_stack(Graph *g, const ValueId *v, uint32_t n, DimId dim) {
    Attr at = at_dim(dim);
    return build(g, OP_stack, v, n, &at, 1);
}

bool v_is_const(const Graph *g, ValueId v, double *value) {
    const Node *n = value_node(g, v);
    while (n->op == OP_expand || n->op == OP_cast || n->op == OP_stop_grad)
        n = value_node(g, g->operand[n->in0]);
    if (n->op != OP_const) return false;
    *value = attr_float(g, n, "value");
    return true;
}

/* ---- what is large */
bool *model_dims(Arena *a, const Graph *g) {
    bool *wide = NEWN(a, bool, g->ndim + 1);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < g->nnode; i++) {
            if (g->node[i].op != (pass ? OP_input : OP_param)) continue;
            const Type *t = &g->value[g->node[i].out0].ty;
            for (uint32_t k = 0; k < t->ndim; k++) wide[t->dim[k].i] = pass == 0;
        }
    }
    return wide;
}

bool type_heavy(const bool *wide, const Type *t) {
    for (uint32_t k = 0; k < t->ndim; k++)
        if (wide[t->dim[k].i]) return true;
    return false;
}

/* ---- memo */
void triples_init(Triples *t, Arena *a) {
    *t = (Triples){.a = a};
}

static uint32_t triples_slot(const TripleRow *row, uint32_t cap, uint64_t a, uint64_t b) {
    uint64_t key[2] = {a, b};
    uint32_t at = (uint32_t)(hash_bytes(key, sizeof key) & (cap - 1));
    while (row[at].v && (row[at].a != a || row[at].b != b)) at = (at + 1) & (cap - 1);
    return at;
}

bool triples_get(const Triples *t, uint64_t a, uint64_t b, uint32_t *v) {
    if (!t->cap) return false;
    const TripleRow *r = &t->row[triples_slot(t->row, t->cap, a, b)];
    if (!r->v) return false;
    *v = r->v - 1;
    return true;
}

void triples_put(Triples *t, uint64_t a, uint64_t b, uint32_t v) {
    if (t->n * 2 >= t->cap) {
        uint32_t cap = t->cap ? t->cap * 2 : 64;
        TripleRow *row = NEWN(t->a, TripleRow, cap);
        for (uint32_t i = 0; i < t->cap; i++)
            if (t->row[i].v) row[triples_slot(row, cap, t->row[i].a, t->row[i].b)] = t->row[i];
        t->row = row;
        t->cap = cap;
    }
    TripleRow *r = &t->row[triples_slot(t->row, t->cap, a, b)];
    if (!r->v) t->n++;
    *r = (TripleRow){a, b, v + 1};
}
