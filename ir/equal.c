/* equal.c: equality of graphs, by content: lists are compared element by element, locations do not count. */
#include "ir/ir.h"

#include <math.h>
#include <string.h>

#define DIFFER(...) (*why = arena_fmt(a->arena, __VA_ARGS__), false)

static bool same_double(double x, double y) {
    return (isnan(x) && isnan(y)) || (x == y && signbit(x) == signbit(y));
}

static bool same_list(const Graph *a, const Graph *b, const Attr *x, const Attr *y) {
    if (x->u.list.n != y->u.list.n) return false;
    for (uint32_t k = 0; k < x->u.list.n; k++) {
        uint32_t i = x->u.list.at + k, j = y->u.list.at + k;
        if (x->kind == AT_DIMS && a->dimlist[i].i != b->dimlist[j].i) return false;
        if (x->kind == AT_INTS && a->intlist[i] != b->intlist[j]) return false;
        if (x->kind == AT_FLOATS && !same_double(a->floatlist[i], b->floatlist[j])) return false;
    }
    return true;
}
bool attr_equal(const Graph *a, const Graph *b, const Attr *x, const Attr *y) {
    if (x->kind != y->kind) return false;
    switch (x->kind) {
    case AT_NONE:
        return true;
    case AT_INT:
        return x->u.i == y->u.i;
    case AT_FLOAT:
        return same_double(x->u.f, y->u.f);
    case AT_BOOL:
        return x->u.b == y->u.b;
    case AT_STR:
        return strcmp(x->u.s, y->u.s) == 0;
    case AT_DIM:
        return x->u.dim.i == y->u.dim.i;
    case AT_DT:
        return x->u.dt == y->u.dt;
    case AT_DIMS:
    case AT_INTS:
    case AT_FLOATS:
        return same_list(a, b, x, y);
    }
    return false;
}

static bool same_node(const Graph *a, const Graph *b, uint32_t at, const char **why) {
    const Node *x = &a->node[at], *y = &b->node[at];
    uint32_t id = x->out0;
    if (x->op != y->op) return DIFFER("%%%u is %s and %s", id, op_info[x->op].name, op_info[y->op].name);
    if (x->nin != y->nin || x->nout != y->nout || x->out0 != y->out0)
        return DIFFER("%%%u: numbers of operands or results", id);
    for (uint32_t k = 0; k < x->nin; k++)
        if (a->operand[x->in0 + k].i != b->operand[y->in0 + k].i) return DIFFER("%%%u: operand %u", id, k);
    for (int k = 0; k < op_info[x->op].nattr; k++)
        if (!attr_equal(a, b, &x->attr[k], &y->attr[k]))
            return DIFFER("%%%u: %s", id, op_info[x->op].attr[k].name);
    if (x->flags != y->flags || x->section != y->section || x->group != y->group || x->origin != y->origin ||
        x->ws_bytes != y->ws_bytes || x->ws_off != y->ws_off)
        return DIFFER("%%%u: labels", id);
    if (strcmp(x->path, y->path) != 0) return DIFFER("%%%u: path %s and %s", id, x->path, y->path);
    for (uint32_t k = 0; k < x->nout; k++) {
        const Value *v = &a->value[id + k], *w = &b->value[id + k];
        if (!type_equal(&v->ty, &w->ty))
            return DIFFER("%%%u: %s and %s", id + k, type_text(a->arena, a, &v->ty),
                          type_text(a->arena, b, &w->ty));
        if (v->arena != w->arena || v->off != w->off || v->stride != w->stride)
            return DIFFER("%%%u: place in memory", id + k);
    }
    return true;
}

static bool same_head(const Graph *a, const Graph *b, const char **why) {
    if (strcmp(a->name, b->name) != 0) return DIFFER("name %s and %s", a->name, b->name);
    if (a->stage != b->stage) return DIFFER("stage %s and %s", stage_name[a->stage], stage_name[b->stage]);
    if (strcmp(a->phase, b->phase) != 0) return DIFFER("phase %s and %s", a->phase, b->phase);
    if (a->micro.i != b->micro.i || a->batch.i != b->batch.i) return DIFFER("micro or batch");
    if (!same_double(a->clip_norm, b->clip_norm)) return DIFFER("clip_norm");
    if (memcmp(a->arena_bytes, b->arena_bytes, sizeof a->arena_bytes) != 0)
        return DIFFER("sizes of the arenas");
    if (a->ndim != b->ndim) return DIFFER("%u and %u dims", a->ndim, b->ndim);
    for (uint32_t k = 0; k < a->ndim; k++) {
        const Dim *x = &a->dim[k], *y = &b->dim[k];
        if (strcmp(x->name, y->name) != 0 || x->size != y->size || x->padded != y->padded ||
            x->ragged != y->ragged)
            return DIFFER("dim %s", x->name);
    }
    return true;
}

static bool same_tail(const Graph *a, const Graph *b, const char **why) {
    if (a->nresult != b->nresult || a->nopt != b->nopt || a->nnote != b->nnote)
        return DIFFER("numbers of results, optimizers or notes");
    for (uint32_t k = 0; k < a->nresult; k++) {
        const Result *x = &a->result[k], *y = &b->result[k];
        if (x->v.i != y->v.i || strcmp(x->kind, y->kind) != 0 || strcmp(x->name, y->name) != 0)
            return DIFFER("result %s %s", x->kind, x->name);
    }
    for (uint32_t k = 0; k < a->nopt; k++) {
        const Opt *x = &a->opt[k], *y = &b->opt[k];
        if (strcmp(x->kind, y->kind) != 0 || x->lr.i != y->lr.i || !same_double(x->b1, y->b1) ||
            !same_double(x->b2, y->b2) || !same_double(x->eps, y->eps) || !same_double(x->wd, y->wd) ||
            !same_double(x->momentum, y->momentum))
            return DIFFER("opt %u", k);
    }
    for (uint32_t k = 0; k < a->nnote; k++)
        if (strcmp(a->note[k], b->note[k]) != 0) return DIFFER("note %u", k);
    return true;
}

/* `difference` gets the first difference (text of a's arena); it may be NULL. */
bool graph_equal(const Graph *a, const Graph *b, const char **difference) {
    const char *none, **why = difference ? difference : &none;
    if (!same_head(a, b, why)) return false;
    if (a->nnode != b->nnode || a->nvalue != b->nvalue) return DIFFER("%u and %u nodes", a->nnode, b->nnode);
    for (uint32_t k = 0; k < a->nnode; k++)
        if (!same_node(a, b, k, why)) return false;
    return same_tail(a, b, why);
}
