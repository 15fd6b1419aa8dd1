/* optim: ST_TRAIN -> ST_TRAIN. Takes the results of kind grad and appends the step of the optimizer as
 * ordinary nodes: the global norm, clipping, AdamW (as PyTorch, decoupled decay) or SGD (as PyTorch), a
 * result `next` for each trained parameter and moment, `grad_norm`, and `lr` for each row of Graph.opt.
 *
 * What is one number is f64 (norm, rate, bias corrections) and is cast where it meets a parameter. */
#include "passes/rewrite.h"

#include <string.h>

typedef struct {
    Graph *g;
    Arena *a;
    ValueId factor; /* of clipping, or NOVALUE */
    ValueId t;      /* step + 1 */
} Step;

static ValueId num(Graph *g, DType dt, double v) {
    return b_const(g, dt, v);
}
static ValueId mul(Graph *g, ValueId x, ValueId y) {
    return b_ew2(g, OP_mul, x, y);
}
static ValueId add(Graph *g, ValueId x, ValueId y) {
    return b_ew2(g, OP_add, x, y);
}
static ValueId sub(Graph *g, ValueId x, ValueId y) {
    return b_ew2(g, OP_sub, x, y);
}
static ValueId divide(Graph *g, ValueId x, ValueId y) {
    return b_ew2(g, OP_div, x, y);
}
static ValueId square(Graph *g, ValueId x) {
    return mul(g, x, x);
}

static ValueId square_sum(Graph *g, ValueId x) {
    x = b_cast(g, x, DT_F64);
    Type t = *value_type(g, x);
    return b_over(g, OP_sum, square(g, x), t.dim, t.ndim);
}

static ValueId gradient_norm(Graph *g, const Result *grad, uint32_t n) {
    ValueId s = num(g, DT_F64, 0);
    for (uint32_t i = 0; i < n; i++) s = i ? add(g, s, square_sum(g, grad[i].v)) : square_sum(g, grad[i].v);
    return b_ew1(g, OP_sqrt, s);
}

static ValueId scalar_leaf(Graph *g, const char *name) {
    Attr at = at_str(g, name);
    return build_leaf(g, OP_scalar, type_make(DT_F64, NULL, 0), &at, 1);
}

static ValueId moment(Step *s, ValueId param, const char *role, const char *of, const char **full) {
    Graph *g = s->g;
    *full = arena_fmt(s->a, "%s.%s", role, of);
    Attr at[5] = {at_str(g, *full), at_str(g, role), at_float(0), at_str(g, of), at_none()};
    return build_leaf(g, OP_state, *value_type(g, param), at, 5);
}

/* m = b m + (1 - b) x */
static ValueId running(Graph *g, ValueId m, ValueId x, double b) {
    DType dt = value_type(g, m)->dt;
    return add(g, mul(g, m, num(g, dt, b)), mul(g, x, num(g, dt, 1 - b)));
}

static ValueId decayed(Graph *g, ValueId p, ValueId lr, double wd) {
    ValueId keep = sub(g, num(g, DT_F64, 1), mul(g, lr, num(g, DT_F64, wd)));
    return mul(g, p, b_cast(g, keep, value_type(g, p)->dt));
}

static ValueId bias(Step *s, double b) { /* 1 - b^t */
    return sub(s->g, num(s->g, DT_F64, 1), b_ew2(s->g, OP_pow, num(s->g, DT_F64, b), s->t));
}

/* p -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), the two corrections taken into scalars first. */
static void adamw(Step *s, const Opt *o, ValueId p, ValueId dp, ValueId lr, const char *name, bool decay) {
    Graph *g = s->g;
    DType dt = value_type(g, p)->dt;
    const char *mname, *vname;
    ValueId m = running(g, moment(s, p, "exp_avg", name, &mname), dp, o->b1);
    ValueId v = running(g, moment(s, p, "exp_avg_sq", name, &vname), square(g, dp), o->b2);
    ValueId rate = b_cast(g, divide(g, lr, bias(s, o->b1)), dt);
    ValueId root = b_cast(g, divide(g, num(g, DT_F64, 1), b_ew1(g, OP_sqrt, bias(s, o->b2))), dt);
    ValueId below = add(g, mul(g, b_ew1(g, OP_sqrt, v), root), num(g, dt, o->eps));
    ValueId base = decay && o->wd != 0 ? decayed(g, p, lr, o->wd) : p;
    graph_result(g, "next", name, sub(g, base, mul(g, rate, divide(g, m, below))));
    graph_result(g, "next", mname, m);
    graph_result(g, "next", vname, v);
}

/* d = g + wd p; m = mu m + d (m = 0 before the first step); p -= lr m. */
static void sgd(Step *s, const Opt *o, ValueId p, ValueId dp, ValueId lr, const char *name, bool decay) {
    Graph *g = s->g;
    DType dt = value_type(g, p)->dt;
    if (decay && o->wd != 0) dp = add(g, dp, mul(g, p, num(g, dt, o->wd)));
    if (o->momentum != 0) {
        const char *mname;
        ValueId m = moment(s, p, "momentum", name, &mname);
        dp = add(g, mul(g, m, num(g, dt, o->momentum)), dp);
        graph_result(g, "next", mname, dp);
    }
    graph_result(g, "next", name, sub(g, p, mul(g, b_cast(g, lr, dt), dp)));
}

static NodeId param_of(const Graph *g, const char *name) {
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (n->op != OP_param) continue;
        const char *model = attr_str(g, n, "model"), *own = attr_str(g, n, "name");
        size_t k = strlen(model);
        if (!strncmp(model, name, k) && name[k] == '/' && !strcmp(name + k + 1, own)) return (NodeId){i};
    }
    wm_check(g->arena, false, "gradient of '%s', which is no parameter", name);
    return (NodeId){0};
}

static void step_params(Step *s, const Result *grad, uint32_t n, const ValueId *lr) {
    Graph *g = s->g;
    for (uint32_t i = 0; i < n; i++) {
        NodeId id = param_of(g, grad[i].name);
        Node p = g->node[id.i];
        int64_t row = attr_int(g, &p, "opt");
        wm_check(s->a, row >= 0 && row < (int64_t)g->nopt, "parameter %s has row %lld of %u optimizers",
                 grad[i].name, (long long)row, g->nopt);
        Opt o = g->opt[row];
        g->loc = o.loc;
        g->path = p.path;
        g->origin = (int32_t)id.i;
        ValueId dp = grad[i].v, v = {p.out0};
        if (value_is(s->factor)) dp = mul(g, dp, b_cast(g, s->factor, value_type(g, dp)->dt));
        bool decay = attr_bool(g, &p, "decay");
        (strcmp(o.kind, "sgd") ? adamw : sgd)(s, &o, v, dp, lr[row], grad[i].name, decay);
    }
}

/* Results of kind grad leave the list (they are returned); keep: they stay as well. */
static Result *take_gradients(Graph *g, Arena *a, bool keep, uint32_t *n) {
    Result *out = NEWN(a, Result, g->nresult + 1);
    uint32_t k = 0, left = 0;
    for (uint32_t i = 0; i < g->nresult; i++) {
        bool is = !strcmp(g->result[i].kind, "grad");
        if (is) out[k++] = g->result[i];
        if (!is || keep) g->result[left++] = g->result[i];
    }
    g->nresult = left;
    *n = k;
    return out;
}

Graph *pass_optim(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    Rewrite r = rewrite_begin(a, g);
    for (uint32_t i = 0; i < g->nnode; i++) rewrite_copy(&r, &g->node[i]);
    graph_copy_results(r.to, g, r.map);
    if (graph_find_result(g, "grad_norm", "grad_norm")) return r.to; /* done before (a restart from a dump) */
    uint32_t n;
    const Result *grad = take_gradients(r.to, a, o->keep_grads, &n);
    Graph *to = r.to;
    to->path = "update";
    to->flags = 0;
    to->origin = -1;
    ValueId norm = gradient_norm(to, grad, n), *lr = NEWN(a, ValueId, to->nopt + 1);
    graph_result(to, "grad_norm", "grad_norm", norm);
    Step s = {to, a, NOVALUE, add(to, scalar_leaf(to, "step"), num(to, DT_F64, 1))};
    if (to->clip_norm > 0) {
        ValueId part = divide(to, num(to, DT_F64, to->clip_norm), add(to, norm, num(to, DT_F64, 1e-6)));
        s.factor = b_ew2(to, OP_min, num(to, DT_F64, 1), part);
    }
    for (uint32_t i = 0; i < to->nopt; i++) {
        lr[i] = b_cast(to, to->opt[i].lr, DT_F64);
        graph_result(to, "lr", arena_fmt(a, "%u", i), lr[i]);
    }
    step_params(&s, grad, n, lr);
    return o->off_simplify ? graph_live(a, to) : simplify_graph(a, to, true, d);
}
