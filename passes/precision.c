/* precision: ST_MATH -> ST_MATH. Decides the dtype of every real value and puts the casts.
 *
 * real=f64: every f32 becomes f64. real=f32: tensors are f32; what has no micro dim and follows from a
 * reduction over micro, a state of the graph or a number of the runtime is a statistic and f64: counts,
 * denominators, losses, metrics, rates. The cast to f64 stands before the reduction, so that the sum itself
 * is f64. Where a statistic meets a tensor that has micro or follows from a parameter it is cast down. f64
 * that lowering asked for stays. */
#include "passes/rewrite.h"

#include <string.h>

typedef enum { FREE, TENSOR, STATISTIC } Class; /* FREE: constants and coordinates, at home in both */

typedef struct {
    Rewrite r;
    Class *class; /* per value of the new graph; grown as nodes are appended */
    uint32_t nclass, class_cap;
} Prec;

static const Type *type_of(const Prec *x, ValueId v) {
    return value_type(x->r.to, v);
}
static bool has_micro(const Prec *x, const Type *t) {
    return type_has(t, x->r.to->micro);
}

static Class class_of(const Prec *x, ValueId v) {
    return v.i < x->nclass ? x->class[v.i] : FREE;
}

static void set_class(Prec *x, ValueId v, Class c) {
    while (x->nclass <= v.i) {
        GROW(x->r.a, x->class, x->nclass, x->class_cap);
        x->class[x->nclass++] = FREE;
    }
    x->class[v.i] = c;
}

/* x as dtype `to`. A cast of a bool goes straight there; a constant is made anew. */
static ValueId as(Prec *x, ValueId v, DType to) {
    Graph *g = x->r.to;
    if (type_of(x, v)->dt == to || !dtype_real(type_of(x, v)->dt)) return v;
    Node n = *value_node(g, v);
    ValueId made;
    if (n.op == OP_const)
        made = b_const(g, to, attr_float(g, &n, "value"));
    else if (n.op == OP_cast && value_type(g, g->operand[n.in0])->dt == DT_BOOL)
        made = b_cast(g, g->operand[n.in0], to);
    else
        made = b_cast(g, v, to);
    set_class(x, made, class_of(x, v));
    return made;
}

static ValueId leaf(Prec *x, const Node *n, DType real) {
    Type t = x->r.from->value[n->out0].ty;
    Attr attr[MAX_ATTR];
    rewrite_attrs(x->r.to, x->r.from, n, attr);
    bool user = n->op == OP_state && !strcmp(attr_str(x->r.from, n, "role"), "user");
    if (t.dt == DT_F32 && (real == DT_F64 || user)) t.dt = DT_F64;
    rewrite_at(&x->r, n);
    ValueId v = build_leaf(x->r.to, n->op, t, attr, (uint32_t)op_info[n->op].nattr);
    bool stat = t.dt == DT_F64 && (user || n->op == OP_scalar);
    set_class(x, v, stat ? STATISTIC : n->op == OP_param || has_micro(x, &t) ? TENSOR : FREE);
    return v;
}

typedef struct {
    bool micro_in, micro_out, f64, stat, tensor, real;
    uint8_t ndim;
} Facts;

static Facts facts_of(const Prec *x, const Node *n, const ValueId *in) {
    const Graph *from = x->r.from;
    Facts f = {0};
    const Type *out = &from->value[n->out0].ty;
    f.micro_out = has_micro(x, out);
    f.ndim = out->ndim;
    for (uint32_t i = 0; i < n->nin; i++) {
        const Type *old = value_type(from, from->operand[n->in0 + i]);
        f.micro_in |= has_micro(x, old);
        if (!dtype_real(old->dt)) continue;
        f.real = true;
        f.f64 |= old->dt == DT_F64;
        f.stat |= class_of(x, in[i]) == STATISTIC;
        f.tensor |= class_of(x, in[i]) == TENSOR && !(f.micro_in && !f.micro_out);
    }
    return f;
}

/* dtype of the real operands of a node under real=f32. */
static bool wants_f64(const Facts *f) {
    if (f->f64 && (f->micro_out || !f->stat)) return true; /* as lowering wrote it */
    if (f->micro_out) return false;
    if (f->micro_in) return true; /* a reduction over micro */
    return f->stat && (!f->tensor || f->ndim == 0);
}

static void mark_results(Prec *x, const Node *n, ValueId first, const Facts *f, bool f64) {
    for (uint32_t k = 0; k < n->nout; k++) {
        ValueId v = {first.i + k};
        Class c = f->micro_out                        ? TENSOR
                  : (f64 && (f->stat || f->micro_in)) ? STATISTIC
                  : f->tensor                         ? TENSOR
                                                      : FREE;
        set_class(x, v, c);
    }
}

static void cast_node(Prec *x, const Node *n, const ValueId *in, DType real) {
    const Type *from = value_type(x->r.from, x->r.from->operand[n->in0]);
    DType to = n->attr[0].u.dt;
    if (to == DT_F32 && real == DT_F64) to = DT_F64;
    Facts f = facts_of(x, n, in);
    bool keep = dtype_real(to) && class_of(x, in[0]) == STATISTIC && !f.micro_out; /* a statistic stays f64 */
    bool real_in = dtype_real(from->dt);
    if (keep && !real_in) to = DT_F64; /* a mask that follows from statistics */
    ValueId v = keep && real_in             ? as(x, in[0], DT_F64)
                : real_in && dtype_real(to) ? as(x, in[0], to)
                                            : b_cast(x->r.to, in[0], to);
    if (v.i >= x->nclass) set_class(x, v, f.micro_out ? TENSOR : keep ? STATISTIC : class_of(x, in[0]));
    x->r.map[n->out0] = v;
}

static void node(Prec *x, const Node *n, DType real) {
    ValueId *in = rewrite_operands(&x->r, n);
    rewrite_at(&x->r, n);
    if (n->op == OP_cast) {
        cast_node(x, n, in, real);
        return;
    }
    Facts f = facts_of(x, n, in);
    bool f64 = real == DT_F64 || (f.real && wants_f64(&f));
    for (uint32_t i = 0; i < n->nin; i++) in[i] = as(x, in[i], f64 ? DT_F64 : DT_F32);
    ValueId first = rewrite_with(&x->r, n, in);
    mark_results(x, n, first, &f, f64);
    rewrite_map(&x->r, n, first);
}

static bool stat_kind(const char *kind) {
    return !strcmp(kind, "loss") || !strcmp(kind, "total") || !strcmp(kind, "metric") || !strcmp(kind, "lr");
}

/* Losses, metrics and rates are f64; the next value of a state has the dtype of the state. */
static void results(Prec *x, Graph *g) {
    for (uint32_t i = 0; i < g->nresult; i++) {
        Result *r = &g->result[i];
        if (!dtype_real(value_type(g, r->v)->dt)) continue;
        DType to = value_type(g, r->v)->dt;
        if (stat_kind(r->kind) && !has_micro(x, value_type(g, r->v))) to = DT_F64;
        for (uint32_t k = 0; k < g->nnode && !strcmp(r->kind, "next"); k++) {
            const Node *n = &g->node[k];
            if (n->op == OP_state && !strcmp(attr_str(g, n, "name"), r->name)) to = g->value[n->out0].ty.dt;
        }
        ValueId v =
            as(x, r->v, to); /* may move g->result only through graph_result, which is not called here */
        g->result[i].v = v;
    }
    for (uint32_t i = 0; i < g->nopt; i++)
        if (value_is(g->opt[i].lr)) g->opt[i].lr = as(x, g->opt[i].lr, DT_F64);
}

Graph *pass_precision(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    if (o->real != DT_F32 && o->real != DT_F64) {
        diag_add(d, C003, NOLOC, "computation in %s is not available; f32 and f64 are", dtype_name[o->real]);
        return NULL;
    }
    Prec x = {.r = rewrite_begin(a, g)};
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (op_info[n->op].flags & F_LEAF)
            rewrite_map(&x.r, n, leaf(&x, n, o->real));
        else
            node(&x, n, o->real);
    }
    graph_copy_results(x.r.to, g, x.r.map);
    results(&x, x.r.to);
    Graph *made = graph_live(a, x.r.to);
    bool drop = g->phase && !strcmp(g->phase, "val");
    return o->off_simplify ? made : simplify_graph(a, made, drop, d);
}
