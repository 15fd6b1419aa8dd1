/* autodiff: ST_MATH -> ST_TRAIN. Adds the gradient of `total` for every trained parameter that it reaches.
 *
 * A reverse walk over the rows of vjp.c. Adjoints of one value are added in descending order of the node that
 * read it (operand order within a node), so the order of every sum is written in the graph. Parts that no
 * trained parameter reaches get no gradient nodes. A factor common to the whole loss that only the end of the
 * step knows and that has no gradient (1 / sum(weight)) stays out of the walk and multiplies the gradients at
 * its end: the backward of a micro-batch need not wait for the others (class `deferred`). */
#include "passes/vjp.h"

#include <string.h>

typedef struct {
    Arena *a;
    Graph *g;
    Diags *d;
    bool all;       /* every real param, not only the trained */
    bool *reach;    /* per value: a wanted parameter reaches it */
    bool *late;     /* per value: depends on a parameter, so it is not known before the micro-batches */
    uint32_t known; /* values that reach and late cover */
    ValueId *adj;   /* per value of the forward graph */
    Triples memo;   /* factors by the value behind them */
    ValueId factor; /* common factor, or NOVALUE */
    int fuel;       /* nodes that the search for a factor may still look at: sums may share operands */
} Grad;

static bool wanted(const Grad *x, const Node *n) {
    if (n->op != OP_param || !dtype_real(x->g->value[n->out0].ty.dt)) return false;
    return x->all || attr_int(x->g, n, "opt") >= 0;
}

/* reach and late of the nodes appended since the last call. */
static void learn(Grad *x) {
    Graph *g = x->g;
    uint32_t n = g->nvalue;
    bool *reach = NEWN(x->a, bool, n + 1), *late = NEWN(x->a, bool, n + 1);
    if (x->known) memcpy(reach, x->reach, x->known), memcpy(late, x->late, x->known);
    for (uint32_t i = x->known; i < n; i++) {
        const Node *def = &g->node[g->value[i].def.i];
        bool r = false, l = def->op == OP_param;
        for (uint32_t k = 0; k < def->nin; k++) {
            uint32_t v = g->operand[def->in0 + k].i;
            r |= reach[v];
            l |= late[v];
        }
        reach[i] = wanted(x, def) || (r && dtype_real(g->value[i].ty.dt) && !vjp_is_stop(def->op));
        late[i] = l;
    }
    x->reach = reach;
    x->late = late;
    x->known = n;
}

/* ---- the common factor */
typedef struct {
    ValueId part, factor;
} Split; /* value = part * factor; gradient through part only */

static ValueId memo_factor(Grad *x, uint32_t kind, ValueId v, ValueId w) {
    uint32_t at;
    uint64_t ka = ((uint64_t)kind << 32) | v.i, kb = value_is(w) ? w.i : UINT32_MAX;
    if (triples_get(&x->memo, ka, kb, &at)) return (ValueId){at};
    ValueId one = b_const(x->g, value_type(x->g, v)->dt == DT_BOOL ? DT_F64 : value_type(x->g, v)->dt, 1), f;
    if (kind == 0)
        f = b_ew2(x->g, OP_div, one, v);
    else if (kind == 1)
        f = b_ew2(x->g, OP_mul, v, w);
    else {
        DType t = value_is(w) ? value_type(x->g, w)->dt : DT_F64;
        f = b_ew3(x->g, OP_where, v, value_is(w) ? w : b_const(x->g, t, 1), b_const(x->g, t, 0));
    }
    triples_put(&x->memo, ka, kb, f.i);
    return f;
}

static ValueId joined(Grad *x, ValueId a, ValueId b) {
    if (!value_is(a) || !value_is(b)) return value_is(a) ? a : b;
    if (value_type(x->g, a)->dt != value_type(x->g, b)->dt)
        a = b_cast(x->g, a, DT_F64), b = b_cast(x->g, b, DT_F64);
    return memo_factor(x, 1, a, b);
}

static bool is_reached(const Grad *x, ValueId v) {
    return v.i < x->known && x->reach[v.i];
}
static bool is_late(const Grad *x, ValueId v) {
    return v.i < x->known && x->late[v.i];
}

static Split split(Grad *x, ValueId v, int depth);

static Split split_sum(Grad *x, ValueId v, const Node *n, const ValueId *in, int depth) {
    Split whole = {v, NOVALUE};
    if (!is_reached(x, in[1])) return split(x, in[0], depth);
    Split b = split(x, in[1], depth);
    if (!is_reached(x, in[0])) {
        if (n->op == OP_sub) b.part = b_ew1(x->g, OP_neg, b.part);
        return b;
    }
    Split a = split(x, in[0], depth);
    if (a.factor.i != b.factor.i) return whole;
    if (!value_is(a.factor)) return whole;
    return (Split){b_ew2(x->g, n->op, a.part, b.part), a.factor};
}

static Split split_where(Grad *x, ValueId v, const ValueId *in, int depth) {
    Split whole = {v, NOVALUE};
    if (is_reached(x, in[2]) || !is_late(x, in[0])) return whole;
    Split s = split(x, in[1], depth);
    s.factor = memo_factor(x, 2, in[0], s.factor);
    return s;
}

/* Peels late scalars without gradient off v. Only the outermost levels of a loss matter; depth bounds the
 * walk. */
static Split split(Grad *x, ValueId v, int depth) {
    Split whole = {v, NOVALUE};
    Node n = *value_node(x->g, v);
    if (value_type(x->g, v)->ndim || depth == 0 || x->fuel-- <= 0) return whole;
    ValueId in[3];
    for (uint32_t i = 0; i < n.nin && i < 3; i++) in[i] = x->g->operand[n.in0 + i];
    depth--;
    if (n.op == OP_add || n.op == OP_sub) return split_sum(x, v, &n, in, depth);
    if (n.op == OP_where) return split_where(x, v, in, depth);
    if (n.op == OP_cast || n.op == OP_neg) {
        Split s = split(x, in[0], depth);
        if (!value_is(s.factor)) return whole;
        s.part = n.op == OP_neg ? b_ew1(x->g, OP_neg, s.part) : b_cast(x->g, s.part, value_type(x->g, v)->dt);
        return s;
    }
    if (n.op != OP_mul && n.op != OP_div) return whole;
    uint32_t k = n.op == OP_mul && is_reached(x, in[1]) ? 1 : 0; /* the operand with the gradient */
    if (!is_reached(x, in[k]) || is_reached(x, in[1 - k])) return whole;
    Split s = split(x, in[k], depth);
    if (is_late(x, in[1 - k])) {
        ValueId f = n.op == OP_div ? memo_factor(x, 0, in[1], NOVALUE) : in[1 - k];
        return (Split){s.part, joined(x, s.factor, f)};
    }
    if (!value_is(s.factor)) return whole;
    return (Split){b_ew2(x->g, n.op, s.part, in[1 - k]), s.factor};
}

/* ---- the walk */
static void put_adjoint(Grad *x, ValueId v, ValueId more) {
    more = vjp_fit(x->g, more, *value_type(x->g, v));
    ValueId *at = &x->adj[v.i];
    *at = value_is(*at) ? b_ew2(x->g, OP_add, *at, more) : more;
}

static bool node_back(Grad *x, uint32_t i) {
    Graph *g = x->g;
    Node n = g->node[i];
    ValueId out[MAX_OUT], dout[MAX_OUT], *in = NEWN(x->a, ValueId, n.nin + 1u),
                                         *din = NEWN(x->a, ValueId, n.nin + 1u);
    bool any = false, *need = NEWN(x->a, bool, n.nin + 1u), wants = false;
    for (uint32_t k = 0; k < n.nout; k++) {
        out[k] = (ValueId){n.out0 + k};
        dout[k] = x->reach[out[k].i] ? x->adj[out[k].i] : NOVALUE;
        any |= value_is(dout[k]);
    }
    for (uint32_t k = 0; k < n.nin; k++) {
        in[k] = g->operand[n.in0 + k];
        din[k] = NOVALUE;
        wants |= need[k] = x->reach[in[k].i];
    }
    if (!any || !wants) return true;
    g->loc = n.loc;
    g->path = n.path;
    g->flags = (uint16_t)(n.flags | N_BWD);
    g->origin = (int32_t)i;
    Vjp v = {g, x->d, n, in, out, dout, need, din, false};
    vjp_table[n.op](&v);
    for (uint32_t k = 0; k < n.nin && !v.failed; k++)
        if (need[k] && value_is(din[k])) put_adjoint(x, in[k], din[k]);
    return !v.failed;
}

static bool walk(Grad *x, ValueId root) {
    uint32_t nnode = x->g->nnode, nvalue = x->g->nvalue;
    x->adj = NEWN(x->a, ValueId, nvalue + 1);
    for (uint32_t i = 0; i < nvalue; i++) x->adj[i] = NOVALUE;
    x->g->flags = N_BWD;
    x->adj[root.i] = b_const(x->g, value_type(x->g, root)->dt, 1);
    for (uint32_t i = nnode; i-- > 0;)
        if (!node_back(x, i)) return false;
    return true;
}

/* ---- results */
static const char *param_name(Arena *a, const Graph *g, const Node *n) {
    return arena_fmt(a, "%s/%s", attr_str(g, n, "model"), attr_str(g, n, "name"));
}

static void put_gradients(Grad *x, uint32_t nnode) {
    Graph *g = x->g;
    for (uint32_t i = 0; i < nnode; i++) {
        Node n = g->node[i];
        if (!wanted(x, &n)) continue;
        ValueId dp = x->adj[n.out0];
        const char *name = param_name(x->a, g, &n);
        if (!value_is(dp)) {
            if (!x->all) graph_note(g, "parameter %s: no loss reaches it, it is not trained", name);
            continue;
        }
        g->loc = n.loc;
        g->path = n.path;
        g->flags = N_BWD;
        g->origin = (int32_t)i;
        if (value_is(x->factor)) dp = b_ew2(g, OP_mulz, b_cast(g, x->factor, value_type(g, dp)->dt), dp);
        graph_result(g, "grad", name, dp);
    }
}

/* Does the backward of a micro-batch read something that only all micro-batches together give? */
static bool two_phase(const Grad *x) {
    const Graph *g = x->g;
    bool *step = NEWN(x->a, bool, g->nvalue + 1); /* depends on a reduction of late values over micro */
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        bool micro = n->nout && type_has(&g->value[n->out0].ty, g->micro);
        for (uint32_t k = 0; k < n->nin; k++) {
            ValueId v = g->operand[n->in0 + k];
            bool from_micro = type_has(value_type(g, v), g->micro);
            bool dep = step[v.i] || (from_micro && !micro && is_late(x, v));
            if ((n->flags & N_BWD) && micro && step[v.i]) return true; /* also through a weight of rows */
            for (uint32_t o = 0; dep && o < n->nout; o++) step[n->out0 + o] = true;
        }
    }
    return false;
}

/* Is there a division by a step value without gradient under v (its denominator)? */
static bool divides(const Grad *x, ValueId v, int depth) {
    const Node *n = value_node(x->g, v);
    if (!depth || !is_reached(x, v)) return false;
    if (n->op == OP_div && !is_reached(x, x->g->operand[n->in0 + 1])) return true;
    for (uint32_t i = 0; i < n->nin; i++)
        if (divides(x, x->g->operand[n->in0 + i], depth - 1)) return true;
    return false;
}

static void note_classes(Grad *x) {
    Graph *g = x->g;
    bool two = g->micro.i != UINT32_MAX && two_phase(x);
    uint32_t n = g->nresult;
    for (uint32_t i = 0; i < n; i++) {
        const Result r = g->result[i];
        if (strcmp(r.kind, "loss") || !is_reached(x, r.v)) continue;
        x->fuel = 1000;
        bool own = value_is(x->factor) && value_is(split(x, r.v, 64).factor);
        const char *class = two ? "two-phase" : own ? "deferred" : divides(x, r.v, 12) ? "early" : "linear";
        graph_note(g, "loss %s: class %s", r.name, class);
    }
}

static Graph *whole_copy(Arena *a, const Graph *g) {
    Rewrite r = rewrite_begin(a, g);
    for (uint32_t i = 0; i < g->nnode; i++) rewrite_copy(&r, &g->node[i]);
    graph_copy_results(r.to, g, r.map);
    r.to->stage = ST_TRAIN;
    return r.to;
}

static Graph *differentiate(Arena *a, const Graph *g, const Result *loss, bool all, bool defer, Diags *d) {
    Grad x = {.a = a, .g = whole_copy(a, g), .d = d, .all = all, .factor = NOVALUE};
    triples_init(&x.memo, a);
    ValueId root = x.g->result[loss - g->result].v;
    uint32_t nnode = x.g->nnode;
    learn(&x);
    if (value_type(x.g, root)->ndim || !dtype_real(value_type(x.g, root)->dt)) {
        diag_add(d, P003, loss->loc, "the %s to differentiate is not one real number", loss->kind);
        return NULL;
    }
    if (defer && is_reached(&x, root)) {
        x.g->loc = loss->loc;
        x.g->path = "loss";
        x.fuel = 1000;
        Split s = split(&x, root, 64);
        if (value_is(s.factor)) root = s.part, x.factor = s.factor;
    }
    learn(&x);
    if (!walk(&x, root)) return NULL;
    put_gradients(&x, nnode);
    learn(&x); /* the adjoints: what follows from parameters among them */
    if (!all) note_classes(&x);
    return x.g;
}

Graph *pass_autodiff(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    const Result *total = graph_find_result(g, "total", "total");
    for (uint32_t i = 0; i < g->nresult && !total; i++)
        if (!strcmp(g->result[i].kind, "total")) total = &g->result[i];
    if (!total) {
        diag_add(d, P003, NOLOC, "the graph '%s' has no result of kind total to differentiate", g->name);
        return NULL;
    }
    Graph *made = differentiate(a, g, total, false, !o->off_classes, d);
    if (!made) return NULL;
    return o->off_simplify ? graph_live(a, made) : simplify_graph(a, made, true, d);
}

Graph *passes_gradient(Arena *a, const Graph *g, Diags *d) {
    const Result *loss = NULL;
    for (uint32_t i = 0; i < g->nresult && !loss; i++)
        if (!strcmp(g->result[i].kind, "loss") || !strcmp(g->result[i].kind, "total")) loss = &g->result[i];
    if (!loss) {
        diag_add(d, P003, NOLOC, "the graph '%s' has no result of kind loss or total to differentiate",
                 g->name);
        return NULL;
    }
    return differentiate(a, g, loss, true, false, d);
}
