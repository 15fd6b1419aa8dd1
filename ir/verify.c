/* verify.c: what must hold of a graph at its stage, checked after every pass and after reading a file.
 *
 * The types are inferred again, so a pass that patches a type or an operand in place is caught at once. From
 * ST_LOCAL on the rules of sections hold: a micro-batch's values are read in its own section, or through
 * micro_sum and micro_stack. From ST_PLANNED on what is read has a place inside its arena. */
#include "ir/ir.h"

#include <string.h>

typedef struct {
    const Graph *g;
    Diags *d;
    Code code;
    uint32_t before; /* errors that were there before */
} Verify;

#define BAD(c, n, ...) bad((c), (n), arena_fmt((c)->d->arena, __VA_ARGS__))
static bool bad(Verify *c, const Node *n, const char *text) {
    if (!n) return diag_fail(c->d, c->code, NOLOC, "%s", text);
    return diag_fail(c->d, c->code, n->loc, "%%%u = %s%s%s%s: %s", n->out0, op_info[n->op].name,
                     n->path[0] ? " in `" : "", n->path, n->path[0] ? "`" : "", text);
}

/* ---- arrays and types */
static bool check_ids(Verify *c, const Node *n, uint32_t id, uint32_t out0) {
    const Graph *g = c->g;
    if ((unsigned)n->op >= NOP) return BAD(c, NULL, "node %u has no op", id);
    if (!n->path) return BAD(c, NULL, "node %u has no path", id);
    if (n->out0 != out0 || n->nout == 0 || n->nout > MAX_OUT || n->nout > g->nvalue - out0)
        return BAD(c, n, "its results are not the next values");
    if (n->in0 > g->noperand || n->nin > g->noperand - n->in0)
        return BAD(c, n, "its operands lie beyond the list");
    if (n->origin < NONE || (n->origin >= 0 && (uint32_t)n->origin >= g->nnode))
        return BAD(c, n, "its origin does not exist");
    if (n->flags & ~(N_BWD | N_REMAT)) return BAD(c, n, "unknown flags");
    for (uint32_t k = 0; k < n->nin; k++)
        if (g->operand[n->in0 + k].i >= out0) return BAD(c, n, "operand %u is not defined before", k);
    for (uint32_t k = 0; k < n->nout; k++) {
        const Value *v = &g->value[out0 + k];
        if (v->def.i != id || v->out != k) return BAD(c, n, "result %u does not know its node", k);
        if (v->arena < NONE || v->arena > 1 || v->off < 0 || v->stride < 0)
            return BAD(c, n, "result %u has no legal place", k);
        if (v->ty.partial) return BAD(c, n, "result %u is partial on one rank", k);
        for (int j = 0; j < MAX_DIMS; j++)
            if (v->ty.split[j]) return BAD(c, n, "result %u is split on one rank", k);
    }
    return true;
}

static bool check_types(Verify *c, const Node *n) {
    const Graph *g = c->g;
    Type few[8], out[MAX_OUT] = {{0}}, *in = n->nin <= WM_LEN(few) ? few : NEWN(c->d->arena, Type, n->nin);
    uint32_t nout = 0;
    const char *why = "";
    for (uint32_t k = 0; k < n->nin; k++) in[k] = g->value[g->operand[n->in0 + k].i].ty;
    out[0] = g->value[n->out0].ty;
    if (!ir_infer(g, n->op, in, n->nin, n->attr, out, &nout, &why)) return BAD(c, n, "%s", why);
    if (nout != n->nout) return BAD(c, n, "%u results; inference gives %u", n->nout, nout);
    for (uint32_t k = 0; k < nout; k++)
        if (!type_equal(&out[k], &g->value[n->out0 + k].ty))
            return BAD(c, n, "result %u has type %s; inference gives %s", k,
                       type_text(c->d->arena, g, &g->value[n->out0 + k].ty),
                       type_text(c->d->arena, g, &out[k]));
    return true;
}

/* ---- stages */
static bool check_stage(Verify *c, const Node *n) {
    const Graph *g = c->g;
    bool local = g->stage >= ST_LOCAL,
         logits = n->op == OP_cross_entropy || n->op == OP_entropy || n->op == OP_kl;
    if (local && logits) return BAD(c, n, "works on whole logits; pass linear_ce removes it");
    if (!local && n->op == OP_micro_slice) return BAD(c, n, "stands before pass localize");
    if (n->op == OP_micro_sum) {
        ValueId v = g->operand[n->in0];
        if (!type_has(value_type(g, v), g->micro) && !(local && value_node(g, v)->section % 2))
            return BAD(c, n, "%%%u has no micro-batches to sum", v.i);
    }
    if (!local && n->section) return BAD(c, n, "has section %u before pass localize", n->section);
    if (n->op == OP_param && g->nopt) {
        int64_t opt = attr_int(g, n, "opt");
        if (opt < NONE || opt >= (int64_t)g->nopt)
            return BAD(c, n, "there is no optimizer row %lld", (long long)opt);
    }
    return true;
}

/* A value with one piece per micro-batch: made in an odd section, and not collected there. */
static bool per_micro(const Graph *g, ValueId v) {
    const Node *n = value_node(g, v);
    return n->section % 2 == 1 && n->op != OP_micro_stack;
}
static bool check_section(Verify *c, const Node *n) {
    const Graph *g = c->g;
    bool collects = n->op == OP_micro_sum || n->op == OP_micro_stack;
    for (uint32_t k = 0; k < n->nin; k++) {
        ValueId v = g->operand[n->in0 + k];
        uint32_t s = value_node(g, v)->section;
        if (s > n->section)
            return BAD(c, n, "section %u reads %%%u of the later section %u", n->section, v.i, s);
        if (per_micro(g, v) && s != n->section && !(collects && n->section % 2 == 0))
            return BAD(c, n,
                       "section %u reads %%%u of micro-batch section %u without micro_sum or micro_stack",
                       n->section, v.i, s);
    }
    if (n->section % 2 == 0) return true;
    if (n->op == OP_micro_sum) return BAD(c, n, "stands in the micro-batch section %u", n->section);
    for (uint32_t k = 0; k < n->nout && n->op != OP_micro_stack && g->micro.i < g->ndim; k++)
        if (type_has(&g->value[n->out0 + k].ty, g->micro))
            return BAD(c, n, "result %u has dim %s in the micro-batch section %u", k, g->dim[g->micro.i].name,
                       n->section);
    return true;
}
/* Groups stand together in one section; after schedule so do sections. */
static bool check_order(Verify *c) {
    const Graph *g = c->g;
    uint32_t max = 0;
    for (uint32_t k = 0; k < g->nnode; k++)
        if (g->node[k].group > max) max = g->node[k].group;
    if (max > g->nnode) return BAD(c, NULL, "group %u of %u nodes", max, g->nnode);
    bool *closed = NEWN(c->d->arena, bool, max + 1);
    for (uint32_t k = 1; k < g->nnode; k++) {
        const Node *p = &g->node[k - 1], *n = &g->node[k];
        if (g->stage >= ST_SCHEDULED && n->section < p->section)
            return BAD(c, n, "stands after section %u", p->section);
        if (n->group == p->group) {
            if (n->group && n->section != p->section)
                return BAD(c, n, "group %u lies in two sections", n->group);
            continue;
        }
        closed[p->group] = true;
        if (n->group && closed[n->group])
            return BAD(c, n, "the nodes of group %u do not stand together", n->group);
    }
    return true;
}

/* ---- memory. Views, broadcasts and literals may be read through their operand or from the kernel's text. */
static bool may_lack_memory(const Node *n) {
    return op_info[n->op].kind == K_VIEW || op_info[n->op].kind == K_TREE || n->op == OP_expand ||
           n->op == OP_transpose || n->op == OP_const;
}
static bool check_place(Verify *c, const Node *n, uint32_t k) {
    const Graph *g = c->g;
    const Value *v = &g->value[n->out0 + k];
    int64_t bytes = type_bytes(g, &v->ty), end;
    if (v->arena < 0) return true;
    if (v->stride && n->section % 2 == 1 && g->micro.i < g->ndim && n->op != OP_micro_stack) {
        if (g->dim[g->micro.i].size > 0 &&
            (__builtin_mul_overflow(v->stride, g->dim[g->micro.i].size - 1, &end) ||
             __builtin_add_overflow(end, bytes, &bytes)))
            return BAD(c, n, "result %u is larger than any memory", k);
    }
    if (v->off % dtype_bytes[v->ty.dt])
        return BAD(c, n, "result %u lies at the odd offset %lld", k, (long long)v->off);
    if (__builtin_add_overflow(v->off, bytes, &end) || end > g->arena_bytes[v->arena])
        return BAD(c, n, "result %u ends at byte %lld of arena %d, which has %lld", k, (long long)end,
                   v->arena, (long long)g->arena_bytes[v->arena]);
    return true;
}
static bool check_memory(Verify *c) {
    const Graph *g = c->g;
    bool *read = NEWN(c->d->arena, bool, g->nvalue + 1);
    for (uint32_t k = 0; k < g->nnode; k++) {
        const Node *n = &g->node[k];
        for (uint32_t j = 0; j < n->nin; j++) {
            ValueId v = g->operand[n->in0 + j];
            const Node *w = value_node(g, v);
            if (!w->group || w->group != n->group) read[v.i] = true;
        }
    }
    for (uint32_t k = 0; k < g->nresult; k++) read[g->result[k].v.i] = true;
    for (uint32_t k = 0; k < g->nnode; k++) {
        const Node *n = &g->node[k];
        for (uint32_t j = 0; j < n->nout; j++) {
            if (read[n->out0 + j] && g->value[n->out0 + j].arena < 0 && !may_lack_memory(n))
                return BAD(c, n, "result %u is read but has no place in memory", j);
            if (!check_place(c, n, j)) return false;
        }
        int64_t end;
        if (n->ws_bytes < 0 || n->ws_off < 0 || __builtin_add_overflow(n->ws_off, n->ws_bytes, &end) ||
            (n->ws_bytes && end > g->arena_bytes[1]))
            return BAD(c, n, "its scratch of %lld bytes lies outside the work arena", (long long)n->ws_bytes);
    }
    return true;
}

/* ---- head and tail */
static bool check_dims(Verify *c) {
    const Graph *g = c->g;
    StrMap *names = strmap_new(c->d->arena);
    for (uint32_t k = 0; k < g->ndim; k++) {
        if (g->dim[k].size < 0 || g->dim[k].padded < g->dim[k].size)
            return BAD(c, NULL, "dim %s has no legal size", g->dim[k].name);
        if (!strmap_put(names, g->dim[k].name, k)) return BAD(c, NULL, "dim %s stands twice", g->dim[k].name);
    }
    const DimId special[2] = {g->micro, g->batch};
    for (int k = 0; k < 2; k++)
        if (special[k].i != UINT32_MAX && special[k].i >= g->ndim)
            return BAD(c, NULL, "micro or batch is no dim of the graph");
    return true;
}
static bool check_results(Verify *c) {
    static const char *const kinds[] = {"loss",      "total", "metric", "value", "grad",
                                        "grad_norm", "next",  "check",  "lr"};
    const Graph *g = c->g;
    StrMap *seen = strmap_new(c->d->arena);
    for (uint32_t k = 0; k < g->nresult; k++) {
        const Result *r = &g->result[k];
        bool known = false;
        for (size_t j = 0; j < WM_LEN(kinds); j++) known = known || strcmp(kinds[j], r->kind) == 0;
        if (!known) return BAD(c, NULL, "result of the unknown kind %s", r->kind);
        if (r->v.i >= g->nvalue) return BAD(c, NULL, "result %s %s is no value", r->kind, r->name);
        const Type *t = value_type(g, r->v);
        bool number = strcmp(r->kind, "loss") == 0 || strcmp(r->kind, "total") == 0;
        if (number && (t->ndim || !dtype_real(t->dt)))
            return BAD(c, value_node(g, r->v), "%s %s is %s, not one real number", r->kind, r->name,
                       type_text(c->d->arena, g, t));
        if (strcmp(r->kind, "check") == 0 && t->dt != DT_BOOL)
            return BAD(c, value_node(g, r->v), "check %s is %s, not bool", r->name, dtype_name[t->dt]);
        if (g->stage >= ST_LOCAL && per_micro(g, r->v))
            return BAD(c, value_node(g, r->v), "result %s %s has a piece per micro-batch", r->kind, r->name);
        if (!strmap_put(seen, arena_fmt(c->d->arena, "%s %s", r->kind, r->name), k))
            return BAD(c, value_node(g, r->v), "result %s %s stands twice", r->kind, r->name);
    }
    for (uint32_t k = 0; k < g->nopt; k++) {
        const Opt *o = &g->opt[k];
        if (value_is(o->lr) && (o->lr.i >= g->nvalue || value_type(g, o->lr)->ndim))
            return BAD(c, NULL, "the learning rate of optimizer row %u is no scalar", k);
        if (strcmp(o->kind, "adamw") != 0 && strcmp(o->kind, "sgd") != 0)
            return BAD(c, NULL, "optimizer row %u is of the unknown kind %s", k, o->kind);
    }
    return true;
}

bool graph_verify(const Graph *g, bool from_file, Diags *d) {
    Verify c = {g, d, from_file ? P002 : I001, d->nerror};
    if (!check_dims(&c)) return false;
    uint32_t out0 = 0;
    for (uint32_t k = 0; k < g->nnode; k++) {
        if (!check_ids(&c, &g->node[k], k, out0)) return false;
        out0 += g->node[k].nout;
    }
    if (out0 != g->nvalue) return BAD(&c, NULL, "%u values but %u results of nodes", g->nvalue, out0);
    for (uint32_t k = 0; k < g->nnode; k++) { /* all of these are safe now, so report several */
        const Node *n = &g->node[k];
        if (check_types(&c, n) && check_stage(&c, n) && g->stage >= ST_LOCAL) check_section(&c, n);
    }
    if (!check_results(&c)) return false;
    if (g->stage >= ST_LOCAL && !check_order(&c)) return false;
    if (g->stage == ST_PLANNED && !check_memory(&c)) return false;
    return d->nerror == c.before;
}
