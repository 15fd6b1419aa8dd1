/* emit.c: what the emitters share: addresses of values, element strides, the list of launches. */
#include "codegen/emit.h"

#include <string.h>

bool emit_has_memory(const Emit *e, ValueId v) {
    return e->g->value[v.i].arena >= 0;
}

PlanAddr emit_value(const Emit *e, ValueId v) {
    const Value *x = &e->g->value[v.i];
    wm_check(e->a, x->arena >= 0, "value %u of '%s' has no memory", v.i,
             op_info[value_node(e->g, v)->op].name);
    /* a value that holds all micro-batches as a dim is addressed whole; its pieces move with the micro-batch
     */
    bool whole = type_has(&x->ty, e->g->micro);
    return (PlanAddr){x->arena, x->off, whole ? 0 : x->stride};
}

PlanAddr emit_scalar(Emit *e, const char *name) {
    const Graph *g = e->g;
    for (uint32_t i = 0; i < g->nnode; i++)
        if (g->node[i].op == OP_scalar && strcmp(attr_str(g, &g->node[i], "name"), name) == 0)
            return emit_value(e, (ValueId){g->node[i].out0});
    wm_check(e->a, false, "the graph reads no number '%s' of the runtime", name);
    return (PlanAddr){0};
}

PlanAddr emit_scratch(const Emit *e, const Node *n, int64_t off) {
    wm_check(e->a, off >= 0 && off < n->ws_bytes, "%s: scratch at %lld of %lld bytes", op_info[n->op].name,
             (long long)off, (long long)n->ws_bytes);
    return (PlanAddr){ARENA_WORK, n->ws_off + off, 0};
}

void emit_strides(const Emit *e, ValueId v, const DimId *order, uint32_t n, int64_t *stride) {
    const Graph *g = e->g;
    const Type *t = value_type(g, v);
    int64_t own[MAX_DIMS], step = 1;
    for (uint32_t i = t->ndim; i-- > 0;) {
        own[i] = step;
        step *= g->dim[t->dim[i].i].size;
    }
    for (uint32_t i = 0; i < n; i++) {
        int at = type_index(t, order[i]);
        stride[i] = at < 0 ? 0 : own[at];
    }
}

Launch *emit_launch(Emit *e, NodeId node, const char *what, const Sbuf *source, const PlanAddr *arg,
                    const int64_t *arg_bytes, uint32_t narg, uint32_t nwrite) {
    wm_check(e->a, nwrite <= narg, "a kernel with %u arguments writes %u", narg, nwrite);
    GROW(e->a, e->launch, e->nlaunch, e->cap);
    Launch *l = &e->launch[e->nlaunch++];
    *l = (Launch){.source = arena_str(e->a, source->s ? source->s : "", source->len),
                  .len = source->len,
                  .what = arena_str(e->a, what, strlen(what)),
                  .narg = narg,
                  .nwrite = nwrite,
                  .node = node};
    l->arg = arena_copy(e->a, arg, narg * sizeof *arg);
    l->arg_bytes = arena_copy(e->a, arg_bytes, narg * sizeof *arg_bytes);
    return l;
}
