/* build.c: appending nodes. Each takes its section of the arrays, infers the types of its results and notes
 * where in the program it stands (g->loc, g->path, g->flags, g->origin), so callers set those once per
 * statement or rule. */
#include "ir/internal.h"

#include <string.h>

/* ---- attributes */
Attr at_none(void) {
    return (Attr){AT_NONE, {0}};
}
Attr at_int(int64_t v) {
    return (Attr){AT_INT, {.i = v}};
}
Attr at_float(double v) {
    return (Attr){AT_FLOAT, {.f = v}};
}
Attr at_bool(bool v) {
    return (Attr){AT_BOOL, {.b = v}};
}
Attr at_str(Graph *g, const char *s) {
    return (Attr){AT_STR, {.s = arena_str(g->arena, s, strlen(s))}};
}
Attr at_dim(DimId d) {
    return (Attr){AT_DIM, {.dim = d}};
}
Attr at_dt(DType d) {
    return (Attr){AT_DT, {.dt = d}};
}
Attr at_dims(Graph *g, const DimId *d, uint32_t n) {
    List l = {g->ndimlist, n};
    for (uint32_t k = 0; k < n; k++) {
        DimId v = d[k]; /* d may lie in the list itself */
        GROW(g->arena, g->dimlist, g->ndimlist, g->dimlist_cap);
        g->dimlist[g->ndimlist++] = v;
    }
    return (Attr){AT_DIMS, {.list = l}};
}
Attr at_ints(Graph *g, const int64_t *v, uint32_t n) {
    List l = {g->nintlist, n};
    for (uint32_t k = 0; k < n; k++) {
        int64_t x = v[k];
        GROW(g->arena, g->intlist, g->nintlist, g->intlist_cap);
        g->intlist[g->nintlist++] = x;
    }
    return (Attr){AT_INTS, {.list = l}};
}
Attr at_floats(Graph *g, const double *v, uint32_t n) {
    List l = {g->nfloatlist, n};
    for (uint32_t k = 0; k < n; k++) {
        double x = v[k];
        GROW(g->arena, g->floatlist, g->nfloatlist, g->floatlist_cap);
        g->floatlist[g->nfloatlist++] = x;
    }
    return (Attr){AT_FLOATS, {.list = l}};
}

/* ---- nodes */
NodeId node_append(Graph *g, Op op, const ValueId *in, uint32_t nin, const Attr *attr, const Type *out,
                   uint32_t nout) {
    Node n = {0};
    n.op = op;
    n.flags = g->flags;
    n.nin = (uint16_t)nin;
    n.nout = (uint8_t)nout;
    n.in0 = g->noperand;
    n.out0 = g->nvalue;
    n.origin = g->origin;
    n.path = g->path ? g->path : "";
    n.loc = g->loc;
    memcpy(n.attr, attr, sizeof n.attr);
    for (uint32_t k = 0; k < nin; k++) {
        ValueId v = in[k];
        GROW(g->arena, g->operand, g->noperand, g->operand_cap);
        g->operand[g->noperand++] = v;
    }
    NodeId id = {g->nnode};
    for (uint32_t k = 0; k < nout; k++) {
        GROW(g->arena, g->value, g->nvalue, g->value_cap);
        g->value[g->nvalue++] = (Value){out[k], id, (uint8_t)k, NONE, 0, 0};
    }
    GROW(g->arena, g->node, g->nnode, g->node_cap);
    g->node[g->nnode++] = n;
    return id;
}

static NodeId add_node(Graph *g, Op op, const ValueId *in, uint32_t nin, const Attr *attr, uint32_t nattr,
                       const Type *leaf) {
    Attr full[MAX_ATTR] = {{AT_NONE, {0}}};
    Type out[MAX_OUT] = {{0}}, few[8], *ty = nin <= WM_LEN(few) ? few : NEWN(g->arena, Type, nin);
    uint32_t nout = 0;
    const char *why = "";
    wm_check(g->arena, nattr <= (uint32_t)op_info[op].nattr, "%s: %u attributes, the row has %d",
             op_info[op].name, nattr, op_info[op].nattr);
    wm_check(g->arena, nin <= UINT16_MAX, "%s: %u operands", op_info[op].name, nin);
    if (nattr) memcpy(full, attr, nattr * sizeof *attr);
    for (uint32_t k = 0; k < nin; k++) {
        wm_check(g->arena, in[k].i < g->nvalue, "%s: operand %u does not exist", op_info[op].name, k);
        ty[k] = g->value[in[k].i].ty;
    }
    if (leaf) out[0] = *leaf;
    bool ok = ir_infer(g, op, ty, nin, full, out, &nout, &why);
    wm_check(g->arena, ok, "%s: %s%s%s (%s:%u)", op_info[op].name, why, g->path && g->path[0] ? ", in " : "",
             g->path ? g->path : "", g->loc.file ? g->loc.file : "", g->loc.line);
    return node_append(g, op, in, nin, full, out, nout);
}

ValueId build(Graph *g, Op op, const ValueId *in, uint32_t nin, const Attr *attr, uint32_t nattr) {
    wm_check(g->arena, !(op_info[op].flags & F_LEAF), "%s is a leaf and needs build_leaf", op_info[op].name);
    NodeId n = add_node(g, op, in, nin, attr, nattr, NULL);
    return (ValueId){g->node[n.i].out0};
}
ValueId build_leaf(Graph *g, Op op, Type ty, const Attr *attr, uint32_t nattr) {
    wm_check(g->arena, op_info[op].flags & F_LEAF, "%s is not a leaf", op_info[op].name);
    NodeId n = add_node(g, op, NULL, 0, attr, nattr, &ty);
    return (ValueId){g->node[n.i].out0};
}

/* ---- shorthands */
ValueId b_ew1(Graph *g, Op op, ValueId x) {
    return build(g, op, &x, 1, NULL, 0);
}
ValueId b_ew2(Graph *g, Op op, ValueId x, ValueId y) {
    return build(g, op, (ValueId[]){x, y}, 2, NULL, 0);
}
ValueId b_ew3(Graph *g, Op op, ValueId x, ValueId y, ValueId z) {
    return build(g, op, (ValueId[]){x, y, z}, 3, NULL, 0);
}
ValueId b_const(Graph *g, DType dt, double v) {
    Attr a = at_float(v);
    return build_leaf(g, OP_const, type_make(dt, NULL, 0), &a, 1);
}
ValueId b_cast(Graph *g, ValueId x, DType to) {
    if (value_type(g, x)->dt == to) return x;
    Attr a = at_dt(to);
    return build(g, OP_cast, &x, 1, &a, 1);
}
ValueId b_over(Graph *g, Op op, ValueId x, const DimId *over, uint32_t n) {
    if (n == 0) return x;
    Attr a = at_dims(g, over, n);
    return build(g, op, &x, 1, &a, 1);
}
ValueId b_matmul(Graph *g, ValueId x, ValueId y, const DimId *over, uint32_t n) {
    Attr a = at_dims(g, over, n);
    return build(g, OP_matmul, (ValueId[]){x, y}, 2, &a, 1);
}
ValueId b_expand(Graph *g, ValueId x, const DimId *dims, uint32_t n) {
    if (n == 0) return x;
    Attr a = at_dims(g, dims, n);
    return build(g, OP_expand, &x, 1, &a, 1);
}
ValueId b_out(const Graph *g, ValueId first, uint32_t k) {
    const Node *n = value_node(g, first);
    wm_check(g->arena, k < n->nout, "%s has no result %u", op_info[n->op].name, k);
    return (ValueId){n->out0 + k};
}

/* ---- copying */
Graph *graph_like(Arena *a, const Graph *g) {
    Graph *r = graph_new(a, g->name, g->stage);
    r->phase = arena_str(a, g->phase, strlen(g->phase));
    r->micro = g->micro;
    r->batch = g->batch;
    r->clip_norm = g->clip_norm;
    for (uint32_t k = 0; k < g->ndim; k++) {
        GROW(a, r->dim, r->ndim, r->dim_cap);
        r->dim[r->ndim] = g->dim[k];
        r->dim[r->ndim++].name = arena_str(a, g->dim[k].name, strlen(g->dim[k].name));
    }
    return r;
}

Attr attr_copy(Graph *g, const Graph *from, const Attr *a) {
    if (a->kind == AT_STR) return at_str(g, a->u.s);
    if (a->kind == AT_DIMS) return at_dims(g, from->dimlist + a->u.list.at, a->u.list.n);
    if (a->kind == AT_INTS) return at_ints(g, from->intlist + a->u.list.at, a->u.list.n);
    if (a->kind == AT_FLOATS) return at_floats(g, from->floatlist + a->u.list.at, a->u.list.n);
    return *a;
}

/* Where the origin of a node lies in the copy: through the map of its first result; none if it was not
 * copied. */
static int32_t copy_origin(const Graph *g, const Graph *from, int32_t origin, const ValueId *map) {
    if (origin < 0 || (uint32_t)origin >= from->nnode) return NONE;
    ValueId v = map[from->node[origin].out0];
    return value_is(v) ? (int32_t)g->value[v.i].def.i : NONE;
}

/* `from` may be g itself. Types are inferred again, so a changed dtype of an operand goes on
 * to the results. */
NodeId graph_copy_node(Graph *g, const Graph *from, NodeId n, ValueId *map) {
    Node old = from->node[n.i];
    Attr attr[MAX_ATTR] = {{AT_NONE, {0}}};
    ValueId few[8], *in = old.nin <= WM_LEN(few) ? few : NEWN(g->arena, ValueId, old.nin);
    for (uint32_t k = 0; k < old.nin; k++) {
        in[k] = map[from->operand[old.in0 + k].i];
        wm_check(g->arena, value_is(in[k]), "copy of %s: operand %u was not copied before",
                 op_info[old.op].name, k);
    }
    for (int k = 0; k < op_info[old.op].nattr; k++) attr[k] = attr_copy(g, from, &old.attr[k]);
    Type leaf = from->value[old.out0].ty;
    NodeId id = add_node(g, old.op, in, old.nin, attr, (uint32_t)op_info[old.op].nattr,
                         op_info[old.op].flags & F_LEAF ? &leaf : NULL);
    Node *c = &g->node[id.i];
    wm_check(g->arena, c->nout == old.nout, "copy of %s has another number of results", op_info[old.op].name);
    c->flags = old.flags;
    c->section = old.section;
    c->group = old.group;
    c->ws_bytes = old.ws_bytes;
    c->ws_off = old.ws_off;
    c->origin = copy_origin(g, from, old.origin, map);
    c->path = arena_str(g->arena, old.path, strlen(old.path));
    c->loc = old.loc;
    for (uint32_t k = 0; k < old.nout; k++) {
        Value *v = &g->value[c->out0 + k];
        const Value *w = &from->value[old.out0 + k];
        v->arena = w->arena;
        v->off = w->off;
        v->stride = w->stride;
        map[old.out0 + k] = (ValueId){c->out0 + k};
    }
    return id;
}

void graph_copy_results(Graph *g, const Graph *from, const ValueId *map) {
    Loc loc = g->loc;
    for (uint32_t k = 0; k < from->nresult; k++) {
        const Result *r = &from->result[k];
        wm_check(g->arena, value_is(map[r->v.i]), "result %s %s was not copied", r->kind, r->name);
        g->loc = r->loc;
        graph_result(g, r->kind, r->name, map[r->v.i]);
    }
    g->loc = loc;
    for (uint32_t k = 0; k < from->nopt; k++) {
        Opt o = from->opt[k];
        wm_check(g->arena, !value_is(o.lr) || value_is(map[o.lr.i]),
                 "the learning rate of row %u was not copied", k);
        if (value_is(o.lr)) o.lr = map[o.lr.i];
        o.kind = arena_str(g->arena, o.kind, strlen(o.kind));
        GROW(g->arena, g->opt, g->nopt, g->opt_cap);
        g->opt[g->nopt++] = o;
    }
    for (uint32_t k = 0; k < from->nnote; k++) graph_note(g, "%s", from->note[k]);
    for (int k = 0; k < 2; k++) g->arena_bytes[k] = from->arena_bytes[k];
}
