/* lint.c: what is legal but looks wrong, read off the finished graph.
 *
 * W064 asks for each exp of the graph's own text whether its operand has an upper bound, by a small interval
 * argument over signs and bounds, or whether all that reads it is a clip. */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

/* ---- W062 */

static void lint_unused(Cx *cx) {
    int top = (int)cx->nchain - 1;
    for (uint32_t i = 0; i < cx->nentry; i++) {
        const Entry *e = &cx->entry[i];
        bool import = e->kind == S_IMPORT && e->st->kind != S_DIM;
        bool kind = e->kind == S_HYPER || e->kind == S_LET || import;
        if (kind && !e->used && !e->open && e->level == top)
            sema_warn(cx, W062, e->loc, "`%s` is never used", e->name);
    }
}

/* ---- W064 */

enum { MAX_BOUND_DEPTH = 40 };
typedef struct {
    const Graph *g;
    const Uses *uses;
} Lint;

static ValueId operand(const Graph *g, const Node *n, uint32_t k) {
    return g->operand[n->in0 + k];
}

static bool in_ops(Op op, const Op *ops, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (ops[i] == op) return true;
    return false;
}

static bool moves(Op op) {
    static const Op ops[] = {OP_stop_grad, OP_cast, OP_shift, OP_select, OP_expand, OP_transpose, OP_stack};
    return in_ops(op, ops, WM_LEN(ops));
}

static bool never_negative(Op op) {
    static const Op ops[] = {OP_exp,           OP_abs,     OP_softplus, OP_sqrt, OP_sigmoid,
                             OP_cross_entropy, OP_entropy, OP_kl,       OP_iota, OP_uniform};
    return in_ops(op, ops, WM_LEN(ops));
}

static bool small_range(Op op) {
    static const Op ops[] = {OP_sigmoid, OP_tanh, OP_cos, OP_const, OP_tensor, OP_iota, OP_uniform};
    return in_ops(op, ops, WM_LEN(ops));
}

static double constant_of(const Graph *g, ValueId v) {
    const Node *n = value_node(g, v);
    return n->op == OP_const ? attr_float(g, n, "value") : NAN;
}

/* Whether v has a bound on the given side, whatever the data. */
static bool bounded(const Graph *g, ValueId v, bool above, int depth) {
    const Node *n = value_node(g, v);
    if (depth > MAX_BOUND_DEPTH) return false;
    if (value_type(g, v)->dt == DT_BOOL || small_range(n->op) || (!above && never_negative(n->op)))
        return true;
    ValueId a = n->nin > 0 ? operand(g, n, 0) : v, b = n->nin > 1 ? operand(g, n, 1) : v;
    bool one = n->op == (above ? OP_min : OP_max),
         both = n->op == (above ? OP_max : OP_min) || n->op == OP_add;
    if (one) return bounded(g, a, above, depth + 1) || bounded(g, b, above, depth + 1);
    if (both) return bounded(g, a, above, depth + 1) && bounded(g, b, above, depth + 1);
    if (n->op == OP_where)
        return bounded(g, b, above, depth + 1) && bounded(g, operand(g, n, 2), above, depth + 1);
    if (n->op == OP_neg) return bounded(g, a, !above, depth + 1);
    if (n->op == OP_sub) return bounded(g, a, above, depth + 1) && bounded(g, b, !above, depth + 1);
    if (n->op == OP_mul && a.i == b.i && !above) return true;
    if (n->op == OP_mul || n->op == OP_div) {
        double c = constant_of(g, b), d = n->op == OP_mul ? constant_of(g, a) : NAN;
        if (c == c) return bounded(g, a, c >= 0 ? above : !above, depth + 1);
        return d == d && bounded(g, b, d >= 0 ? above : !above, depth + 1);
    }
    return moves(n->op) && bounded(g, a, above, depth + 1);
}

/* Whether everything that reads v is a clip from above, perhaps after v was moved. */
static bool clipped(const Lint *l, ValueId v, int depth) {
    const Graph *g = l->g;
    for (uint32_t i = 0; i < g->nresult; i++)
        if (g->result[i].v.i == v.i) return false;
    for (uint32_t k = l->uses->use0[v.i]; k < l->uses->use0[v.i + 1]; k++) {
        const Node *n = &g->node[l->uses->use[k].i];
        if (n->op == OP_min) continue;
        if (!moves(n->op) || depth > MAX_BOUND_DEPTH || !clipped(l, (ValueId){n->out0}, depth + 1))
            return false;
    }
    return true;
}

static bool own_text(const Cx *cx, const Loc *loc) {
    for (uint32_t i = 0; i < cx->nchain; i++)
        if (cx->chain[i]->path == loc->file) return true;
    return false;
}

static void lint_exp(Cx *cx, const Graph *g) {
    Uses uses = graph_uses(cx->a, g);
    Lint l = {g, &uses};
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (n->op != OP_exp || !own_text(cx, &n->loc)) continue;
        if (bounded(g, operand(g, n, 0), true, 0) || clipped(&l, (ValueId){n->out0}, 0)) continue;
        sema_warn(cx, W064, n->loc,
                  "exp of a value without bound, and no clip follows: one large value spoils the step");
    }
}

/* ---- W065 */

static double model_count(const Graph *g, const char *model, bool *vocab) {
    double count = 0;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (n->op != OP_param || strcmp(attr_str(g, n, "model"), model)) continue;
        const Type *t = &g->value[n->out0].ty;
        count += (double)type_count(g, t);
        for (int k = 0; k < t->ndim; k++) *vocab |= !strncmp(g->dim[t->dim[k].i].name, "vocab", 5);
    }
    return count;
}

static void lint_reference(Cx *cx, const Graph *g) {
    double most = 0;
    for (uint32_t k = 0; k < cx->ntrain; k++) {
        bool vocab = false;
        double n = model_count(g, cx->train[k].model, &vocab);
        if (vocab && n > most) most = n;
    }
    for (uint32_t i = 0; i < cx->ninst && most > 0 && !cx->sizes_assumed; i++) {
        bool vocab = false;
        double n = cx->inst[i]->frozen ? model_count(g, cx->inst[i]->name, &vocab) : 0;
        if (n > most)
            sema_warn(
                cx, W065, cx->inst[i]->st->name_loc,
                "the frozen model `%s` has %.4g parameters, the trained one %.4g: are the two paths swapped?",
                cx->inst[i]->name, n, most);
    }
}

void lint_graph(Cx *cx, const Graph *g) {
    lint_unused(cx);
    lint_exp(cx, g);
    lint_reference(cx, g);
}
