/* random_graph.h: random train graphs at ST_MATH with finite values, as lowering writes them, and leaves for
 * them.
 *
 * Included by test programs (everything is static). A graph has micro-batches, a present mask, tokens,
 * trained and frozen parameters, blocks side by side (stack), heads over a vocabulary, losses of several
 * forms, metrics and a state. `smooth` graphs differ from their derivative nowhere: no op without gradient
 * stands behind a parameter. */
#ifndef RANDOM_GRAPH_H
#define RANDOM_GRAPH_H

#include "passes/passes.h"

#include <math.h>
#include <string.h>

typedef struct {
    uint64_t s;
} Rng;
static inline uint64_t rng_next(Rng *r) {
    r->s += 0x9e3779b97f4a7c15u;
    uint64_t z = r->s;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline uint32_t rng_below(Rng *r, uint32_t n) {
    return (uint32_t)(rng_next(r) % n);
}
static inline double rng_unit(Rng *r) {
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

enum { RG_POOL = 160 };
typedef struct {
    Graph *g;
    Rng r;
    bool smooth;
    ValueId real[RG_POOL], mask[RG_POOL];
    uint32_t nreal, nmask, nparam;
    ValueId tokens, labels, present, embed, out;
    DimId micro, batch, seq, head, hidden, vocab, wide;
    bool dep[4096]; /* value depends on a parameter */
} RandomGraph;
/* Sizes of dims, and how many steps a graph takes: least .. least + spread - 1. */
typedef struct {
    int64_t batch, seq, hidden, vocab, wide;
    uint32_t least, spread;
} RandomShape;

static inline ValueId rg_leaf(RandomGraph *x, Op op, DType dt, const char *name, const DimId *d, uint32_t n) {
    Graph *g = x->g;
    if (op == OP_input) {
        Attr at = at_str(g, name);
        return build_leaf(g, op, type_make(dt, d, n), &at, 1);
    }
    bool frozen = rng_below(&x->r, 6) == 0 && x->nparam > 1;
    x->nparam++;
    char axes[128] = "";
    for (uint32_t i = 0; i < n; i++) {
        if (i) strcat(axes, ",");
        strcat(axes, g->dim[d[i].i].name);
    }
    Attr at[9] = {at_str(g, "policy"),     at_str(g, name), at_str(g, name),
                  at_str(g, axes),         at_none(),       at_str(g, "normal:0,0.02"),
                  at_int(frozen ? -1 : 0), at_bool(n > 1),  at_int(stream_of(name))};
    return build_leaf(g, op, type_make(dt, d, n), at, 9);
}
static inline ValueId rg_param(RandomGraph *x, const DimId *d, uint32_t n) {
    char name[16];
    strcpy(name, "w0");
    name[1] = (char)('0' + x->nparam % 10);
    name[2] = (char)('a' + x->nparam / 10);
    name[3] = 0;
    return rg_leaf(x, OP_param, DT_F32, name, d, n);
}
static inline void rg_learn(RandomGraph *x) {
    Graph *g = x->g;
    for (uint32_t i = 0; i < g->nvalue && i < WM_LEN(x->dep); i++) {
        const Node *n = &g->node[g->value[i].def.i];
        x->dep[i] = n->op == OP_param;
        for (uint32_t k = 0; k < n->nin; k++) x->dep[i] |= x->dep[g->operand[n->in0 + k].i];
    }
}
static inline const Type *rg_type(RandomGraph *x, ValueId v) {
    return value_type(x->g, v);
}
static inline ValueId rg_num(RandomGraph *x, double v) {
    return b_const(x->g, DT_F32, v);
}
static inline ValueId rg_put(RandomGraph *x, ValueId v) {
    if (x->nreal < RG_POOL) x->real[x->nreal++] = v;
    return v;
}
static inline ValueId rg_pick(RandomGraph *x) {
    return x->real[rng_below(&x->r, x->nreal)];
}
/* A real value whose dims v holds (or hold v's); v itself if luck is bad. */
static inline ValueId rg_partner(RandomGraph *x, ValueId v) {
    for (int i = 0; i < 12; i++) {
        ValueId w = rg_pick(x);
        if (type_holds(rg_type(x, v), rg_type(x, w)) || type_holds(rg_type(x, w), rg_type(x, v))) return w;
    }
    return v;
}
static inline ValueId rg_mask(RandomGraph *x, ValueId like) { /* a mask inside the dims of like */
    for (int i = 0; i < 12; i++) {
        ValueId m = x->mask[rng_below(&x->r, x->nmask)];
        if (type_holds(rg_type(x, like), rg_type(x, m))) return m;
    }
    Graph *g = x->g;
    if (x->smooth) return b_const(g, DT_BOOL, 1);
    return b_ew2(g, OP_gt, like, rg_num(x, 0));
}
static inline ValueId rg_with_dim(RandomGraph *x, DimId d) {
    for (int i = 0; i < 40; i++) {
        ValueId v = rg_pick(x);
        if (type_has(rg_type(x, v), d)) return v;
    }
    return NOVALUE;
}

/* ---- steps: each appends something to the pools */
static inline void rg_unary(RandomGraph *x) {
    Graph *g = x->g;
    ValueId v = rg_pick(x);
    static const Op easy[] = {OP_neg,  OP_abs,  OP_sigmoid, OP_tanh,     OP_softplus,
                              OP_silu, OP_gelu, OP_erf,     OP_stop_grad};
    uint32_t k = rng_below(&x->r, 14);
    if (k < 9) {
        if (easy[k] == OP_stop_grad && x->smooth) return;
        rg_put(x, b_ew1(g, easy[k], v));
    } else if (k == 9)
        rg_put(x, b_ew1(g, OP_exp, b_ew1(g, OP_tanh, v)));
    else if (k == 10)
        rg_put(x, b_ew1(g, OP_log, b_ew2(g, OP_add, b_ew1(g, OP_abs, v), rg_num(x, 0.5))));
    else if (k == 11)
        rg_put(x, b_ew1(g, OP_sqrt, b_ew2(g, OP_add, b_ew1(g, OP_abs, v), rg_num(x, 0.25))));
    else if (k == 12)
        rg_put(x, b_ew2(g, OP_pow, b_ew1(g, OP_tanh, v), rg_num(x, 2 + (double)rng_below(&x->r, 2))));
    else {
        /* a logarithm of 0 where a mask is false: neither value nor gradient may see it */
        ValueId m = rg_mask(x, v), one = rg_num(x, 1);
        ValueId safe = b_ew2(g, OP_add, b_ew2(g, OP_mul, v, v), one);
        ValueId zero = b_ew2(g, OP_mul, safe, b_cast(g, m, DT_F32));
        rg_put(x, b_ew3(g, OP_where, m, b_ew1(g, OP_log, zero), rg_num(x, 0.125)));
    }
}
static inline void rg_binary(RandomGraph *x) {
    Graph *g = x->g;
    ValueId v = rg_pick(x), w = rg_partner(x, v);
    static const Op op[] = {OP_add, OP_sub, OP_mul, OP_min, OP_max};
    uint32_t k = rng_below(&x->r, 7);
    if (k < 5)
        v = b_ew2(g, op[k], v, w);
    else if (k == 5)
        v = b_ew2(g, OP_div, v, b_ew2(g, OP_add, rg_num(x, 1), b_ew2(g, OP_mul, w, w)));
    else {
        Type t = *rg_type(x, v), u = *rg_type(x, w);
        ValueId big = type_holds(&t, &u) ? v : w, m = rg_mask(x, big);
        v = b_ew3(g, OP_where, m, v, w);
    }
    if (rng_below(&x->r, 2)) v = b_ew1(g, OP_tanh, v);
    rg_put(x, v);
}
static inline void rg_compare(RandomGraph *x) {
    Graph *g = x->g;
    static const Op op[] = {OP_lt, OP_le, OP_gt, OP_ge};
    if (x->nmask >= RG_POOL) return;
    if (rng_below(&x->r, 2)) {
        ValueId m = x->mask[rng_below(&x->r, x->nmask)], n = x->mask[rng_below(&x->r, x->nmask)];
        if (!type_holds(rg_type(x, m), rg_type(x, n)) && !type_holds(rg_type(x, n), rg_type(x, m))) return;
        uint32_t k = rng_below(&x->r, 3);
        x->mask[x->nmask++] = k == 2 ? b_ew1(g, OP_not, m) : b_ew2(g, k ? OP_or : OP_and, m, n);
        return;
    }
    ValueId v = rg_pick(x), w = rg_partner(x, v);
    rg_learn(x);
    if (x->smooth && (x->dep[v.i] || x->dep[w.i])) return;
    x->mask[x->nmask++] = b_ew2(g, op[rng_below(&x->r, 4)], v, w);
}
/* Reduction over some dims but never over part of micro and batch without each other's rule: scope micro or
 * step. */
static inline void rg_reduce(RandomGraph *x) {
    Graph *g = x->g;
    ValueId v = rg_pick(x);
    Type t = *rg_type(x, v);
    DimId over[MAX_DIMS];
    uint32_t n = 0, kind = rng_below(&x->r, 5);
    bool step = rng_below(&x->r, 3) == 0, batch = step || rng_below(&x->r, 4) == 0;
    for (int i = 0; i < t.ndim; i++) {
        bool is_micro = t.dim[i].i == x->micro.i, is_batch = t.dim[i].i == x->batch.i;
        if (is_micro ? step : is_batch ? batch : rng_below(&x->r, 2)) over[n++] = t.dim[i];
    }
    if (!n) return;
    rg_learn(x);
    ValueId m = rg_mask(x, v);
    if (kind >= 3 && x->smooth && x->dep[v.i]) kind = 0;
    if (kind < 3) {
        ValueId one = b_cast(g, m, DT_F32), s, c;
        s = b_over(g, OP_sum, b_ew3(g, OP_where, m, v, rg_num(x, 0)), over, n);
        Type mt = *rg_type(x, m);
        DimId mo[MAX_DIMS], me[MAX_DIMS];
        uint32_t k = 0, e = 0;
        for (uint32_t i = 0; i < n; i++)
            if (type_has(&mt, over[i]))
                mo[k++] = over[i];
            else
                me[e++] = over[i];
        c = b_over(g, OP_sum, b_expand(g, one, me, e), over, n);
        (void)mo, (void)k;
        ValueId mean = b_ew2(g, OP_div, s, b_ew2(g, OP_max, c, rg_num(x, 1)));
        Type ct = *rg_type(x, c), st = *rg_type(x, s);
        if (kind == 1 && type_holds(&st, &ct))
            mean = b_ew3(g, OP_where, b_ew2(g, OP_gt, c, rg_num(x, 0)), mean, rg_num(x, 0));
        rg_put(x, mean);
    } else if (kind == 3) {
        rg_put(x, b_over(g, rng_below(&x->r, 2) ? OP_max_of : OP_min_of, v, over, n));
    } else {
        Attr at[2] = {at_float(rng_unit(&x->r)), at_dims(g, over, n)};
        rg_put(x, build(g, OP_quantile, (ValueId[]){v, m}, 2, at, 2));
    }
}
static inline void rg_move(RandomGraph *x) {
    Graph *g = x->g;
    uint32_t k = rng_below(&x->r, 8);
    if (k < 2) { /* shift along seq, perhaps with the heads added */
        ValueId v = rg_with_dim(x, x->seq);
        if (!value_is(v)) return;
        bool add = k && !type_has(rg_type(x, v), x->head);
        int64_t f = 1;
        Attr at[5] = {at_dim(x->seq), at_int((int64_t)rng_below(&x->r, 3) - 1),
                      add ? at_dims(g, &x->head, 1) : at_none(), add ? at_ints(g, &f, 1) : at_none(),
                      at_float(rng_below(&x->r, 2) ? 0 : 0.5)};
        rg_put(x, build(g, OP_shift, &v, 1, at, 5));
    } else if (k == 2) {
        ValueId v = rg_with_dim(x, x->head);
        if (!value_is(v)) return;
        Attr at[2] = {at_dim(x->head), at_int(rng_below(&x->r, 2))};
        rg_put(x, build(g, OP_select, &v, 1, at, 2));
    } else if (k == 3) {
        ValueId v = rg_pick(x);
        Type t = *rg_type(x, v);
        if (type_has(&t, x->head)) return;
        ValueId w = b_ew1(g, OP_tanh, v);
        Attr at = at_dim(x->head);
        rg_put(x, build(g, OP_stack, (ValueId[]){v, w}, 2, &at, 1));
    } else if (k == 4) {
        ValueId v = rg_with_dim(x, x->seq);
        if (!value_is(v)) return;
        Attr at[2] = {at_dim(x->seq), at_bool(rng_below(&x->r, 2))};
        rg_put(x, b_ew1(g, OP_tanh, build(g, OP_cumsum, &v, 1, at, 2)));
    } else if (k == 5) {
        ValueId v = rg_with_dim(x, x->seq);
        if (!value_is(v) || type_has(rg_type(x, v), x->hidden)) return;
        ValueId m = b_ew2(g, OP_and, rg_mask(x, v),
                          b_expand(g, b_const(g, DT_BOOL, 1), rg_type(x, v)->dim, rg_type(x, v)->ndim));
        ValueId a = b_ew1(g, OP_sigmoid, rg_num(x, 0.3));
        Attr at[2] = {at_dim(x->seq), at_bool(rng_below(&x->r, 2))};
        rg_put(x, build(g, OP_scan, (ValueId[]){rg_num(x, 0.5), a, v, m}, 4, at, 2));
    } else if (k == 6) {
        ValueId v = rg_pick(x);
        Type t = *rg_type(x, v);
        if (t.ndim < 2) return;
        DimId d = t.dim[t.ndim - 1];
        t.dim[t.ndim - 1] = t.dim[t.ndim - 2];
        t.dim[t.ndim - 2] = d;
        if (t.dim[0].i != x->micro.i && type_has(&t, x->micro)) return;
        Attr at = at_dims(g, t.dim, t.ndim);
        rg_put(x, build(g, OP_transpose, &v, 1, &at, 1));
    } else {
        ValueId v = rg_with_dim(x, x->seq), m = NOVALUE;
        if (!value_is(v)) return;
        m = b_ew2(g, OP_and, rg_mask(x, v),
                  b_expand(g, b_const(g, DT_BOOL, 1), rg_type(x, v)->dim, rg_type(x, v)->ndim));
        Attr at[3] = {at_dim(x->seq), at_int(77), at_none()};
        rg_put(x, build(g, OP_shuffle, (ValueId[]){v, m}, 2, at, 3));
    }
}
static inline void rg_matmul(RandomGraph *x) {
    Graph *g = x->g;
    ValueId v = rg_with_dim(x, x->hidden);
    if (!value_is(v)) return;
    uint32_t k = rng_below(&x->r, 3);
    if (k == 0) {
        ValueId w = rg_param(x, (DimId[]){x->hidden}, 1);
        rg_put(x, b_ew1(g, OP_tanh, b_matmul(g, v, w, &x->hidden, 1)));
    } else {
        if (type_has(rg_type(x, v), x->wide)) return;
        ValueId w = rg_param(x, (DimId[]){x->wide, x->hidden}, 2),
                u = rg_param(x, (DimId[]){x->hidden, x->wide}, 2);
        ValueId y = b_ew1(g, OP_silu, b_matmul(g, v, w, &x->hidden, 1));
        y = b_matmul(g, y, u, &x->wide, 1);
        rg_put(x, rng_below(&x->r, 2) ? b_ew2(g, OP_add, v, y) : b_ew1(g, OP_tanh, y));
    }
}
static inline void rg_attention(RandomGraph *x) {
    Graph *g = x->g;
    ValueId v = rg_with_dim(x, x->hidden);
    if (!value_is(v) || !type_has(rg_type(x, v), x->seq)) return;
    Attr table[4] = {at_dim(x->seq), at_dim(x->hidden), at_float(10000), at_int(0)};
    ValueId t = build_leaf(g, OP_rope_table, type_make(DT_F32, (DimId[]){x->seq, x->hidden}, 2), table, 4);
    Attr at[3] = {at_dim(x->seq), at_dim(x->hidden), at_none()};
    ValueId q = build(g, OP_rope, (ValueId[]){v, t}, 2, at, 3), w = b_ew1(g, OP_tanh, v);
    rg_put(x, build(g, OP_attention, (ValueId[]){q, v, w}, 3, at, 2));
}
static inline void rg_vocab(RandomGraph *x) {
    Graph *g = x->g;
    ValueId h = rg_with_dim(x, x->hidden);
    if (!value_is(h) || !type_has(rg_type(x, h), x->seq)) return;
    Type t = *rg_type(x, h);
    bool each = !type_has(&t, x->head) && rng_below(&x->r, 2);
    if (each) { /* blocks side by side, then a norm that all share */
        ValueId part[2];
        for (int i = 0; i < 2; i++) {
            ValueId w = rg_param(x, (DimId[]){x->wide, x->hidden}, 2),
                    u = rg_param(x, (DimId[]){x->hidden, x->wide}, 2);
            part[i] = b_ew2(g, OP_add, h,
                            b_matmul(g, b_ew1(g, OP_tanh, b_matmul(g, h, w, &x->hidden, 1)), u, &x->wide, 1));
        }
        if (!type_equal(rg_type(x, part[0]), rg_type(x, part[1]))) return;
        Attr at = at_dim(x->head);
        h = build(g, OP_stack, part, 2, &at, 1);
        ValueId ms = b_over(g, OP_sum, b_ew2(g, OP_mul, h, h), &x->hidden, 1);
        h = b_ew2(g, OP_div, h, b_ew1(g, OP_sqrt, b_ew2(g, OP_add, ms, rg_num(x, 0.1))));
    }
    ValueId logits = b_matmul(g, h, x->out, &x->hidden, 1);
    if (type_has(rg_type(x, logits), x->head) && rng_below(&x->r, 3) == 0) {
        Attr at[2] = {at_dim(x->head), at_int(rng_below(&x->r, 2))};
        logits = build(g, OP_select, &logits, 1, at, 2);
    }
    if (rng_below(&x->r, 4) == 0) { /* logits of the place before */
        Attr at[5] = {at_dim(x->seq), at_int(-1), at_none(), at_none(), at_float(0)};
        logits = build(g, OP_shift, &logits, 1, at, 5);
    }
    t = *rg_type(x, logits);
    bool heads = type_has(&t, x->head);
    int64_t one = 1;
    Attr sh[5] = {at_dim(x->seq), at_int(heads ? 0 : 1), heads ? at_dims(g, &x->head, 1) : at_none(),
                  heads ? at_ints(g, &one, 1) : at_none(), at_float(-100)};
    ValueId target = build(g, OP_shift, &x->labels, 1, sh, 5);
    Attr cls = at_dim(x->vocab);
    Type want = t;
    want.ndim = 0;
    for (int i = 0; i < t.ndim; i++)
        if (t.dim[i].i != x->vocab.i) want.dim[want.ndim++] = t.dim[i];
    if (want.ndim != rg_type(x, target)->ndim || !type_holds(&want, rg_type(x, target))) return;
    ValueId ce = build(g, OP_cross_entropy, (ValueId[]){logits, target}, 2, &cls, 1);
    rg_put(x, ce);
    if (x->nmask < RG_POOL) x->mask[x->nmask++] = b_ew2(g, OP_ne, target, b_const(g, DT_I32, -100));
    if (rng_below(&x->r, 3) == 0) rg_put(x, build(g, OP_entropy, &logits, 1, &cls, 1));
    if (rng_below(&x->r, 3) == 0 && !x->smooth) {
        Attr am[3] = {at_dim(x->vocab), at_int(rng_below(&x->r, 2)), at_none()};
        rg_put(x, build(g, OP_argmax, &logits, 1, am, 3));
    }
    if (rng_below(&x->r, 3) == 0) {
        ValueId other = b_matmul(g, b_ew1(g, OP_tanh, h), x->embed, &x->hidden, 1);
        rg_put(x, build(g, OP_kl, (ValueId[]){logits, other}, 2, &cls, 1));
    }
}

/* ---- losses, metrics, states */
static inline ValueId rg_loss(RandomGraph *x) {
    Graph *g = x->g;
    ValueId v = NOVALUE;
    rg_learn(x);
    for (int i = 0; i < 200 && !value_is(v); i++) {
        ValueId w = rg_pick(x);
        if (x->dep[w.i] && type_has(rg_type(x, w), x->micro) && type_has(rg_type(x, w), x->batch)) v = w;
    }
    if (!value_is(v)) return v;
    Type t = *rg_type(x, v);
    ValueId m = rg_mask(x, v), full, mf;
    full = b_ew2(g, OP_and, m, b_expand(g, b_const(g, DT_BOOL, 1), t.dim, t.ndim));
    if (type_holds(&t, rg_type(x, x->present))) full = b_ew2(g, OP_and, full, x->present);
    mf = b_cast(g, full, DT_F32);
    uint32_t kind = rng_below(&x->r, 4);
    if (kind == 0 &&
        !x->smooth) { /* weighted by something that follows from the forward, divided by its sum */
        ValueId w = rg_partner(x, v);
        if (type_holds(&t, rg_type(x, w)))
            mf = b_ew2(g, OP_mul, mf, b_ew1(g, OP_stop_grad, b_ew1(g, OP_sigmoid, w)));
    }
    ValueId num = b_ew3(g, OP_where, full, b_ew2(g, OP_mul, v, mf), rg_num(x, 0));
    if (kind == 3) { /* a mean for each micro-batch, then over those that hold a sample */
        DimId over[MAX_DIMS];
        uint32_t n = 0;
        for (int i = 0; i < t.ndim; i++)
            if (t.dim[i].i != x->micro.i) over[n++] = t.dim[i];
        ValueId s = b_over(g, OP_sum, num, over, n), c = b_over(g, OP_sum, mf, over, n);
        ValueId each = b_ew2(g, OP_div, s, b_ew2(g, OP_max, c, rg_num(x, 1)));
        ValueId has = b_over(g, OP_max_of, b_cast(g, x->present, DT_F32), &x->batch, 1);
        ValueId k = b_over(g, OP_sum, has, &x->micro, 1);
        ValueId all = b_over(g, OP_sum, b_ew2(g, OP_mul, each, has), &x->micro, 1);
        return b_ew2(g, OP_div, all, b_ew2(g, OP_max, k, rg_num(x, 1)));
    }
    ValueId s = b_over(g, OP_sum, num, t.dim, t.ndim), c = b_over(g, OP_sum, mf, t.dim, t.ndim);
    ValueId mean = b_ew2(g, OP_div, s, b_ew2(g, OP_max, c, rg_num(x, 1)));
    return kind == 1 ? b_ew3(g, OP_where, b_ew2(g, OP_gt, c, rg_num(x, 0)), mean, rg_num(x, 0)) : mean;
}

static inline void rg_results(RandomGraph *x) {
    Graph *g = x->g;
    uint32_t nloss = 1 + rng_below(&x->r, 2);
    ValueId total = NOVALUE;
    static const char *const loss_name[] = {"ce", "aux"};
    for (uint32_t i = 0; i < nloss; i++) {
        ValueId l = rg_loss(x);
        if (!value_is(l)) continue;
        graph_result(g, "loss", loss_name[i], l);
        total = value_is(total) ? b_ew2(g, OP_add, total, b_ew2(g, OP_mul, l, rg_num(x, 0.5))) : l;
    }
    if (!value_is(total)) { /* nothing depended on a parameter: a loss on the embedding */
        total = b_over(g, OP_sum, b_ew2(g, OP_mul, x->embed, x->embed), (DimId[]){x->vocab, x->hidden}, 2);
        graph_result(g, "loss", "ce", total);
    }
    graph_result(g, "total", "loss", total);
    for (uint32_t i = 0; i < 3; i++) {
        ValueId v = rg_pick(x);
        Type t = *rg_type(x, v);
        static const char *const metric_name[] = {"m0", "m1", "m2"};
        graph_result(g, "metric", metric_name[i], b_over(g, OP_sum, v, t.dim, t.ndim));
    }
    static const char *const value_name[] = {"v0", "v1"};
    for (uint32_t i = 0; i < 2; i++) graph_result(g, "value", value_name[i], rg_pick(x));
    Attr st[5] = {at_str(g, "mu"), at_str(g, "user"), at_float(0), at_none(), at_none()};
    ValueId mu = build_leaf(g, OP_state, type_make(DT_F32, NULL, 0), st, 5);
    ValueId next =
        b_ew2(g, OP_add, b_ew2(g, OP_mul, mu, rg_num(x, 0.9)), b_ew2(g, OP_mul, total, rg_num(x, 0.1)));
    graph_result(g, "next", "mu", b_ew1(g, OP_stop_grad, next));
    Attr sc = at_str(g, "step");
    ValueId step = build_leaf(g, OP_scalar, type_make(DT_F64, NULL, 0), &sc, 1);
    ValueId lr = b_ew2(g, OP_div, b_const(g, DT_F64, 0.01), b_ew2(g, OP_add, step, b_const(g, DT_F64, 1)));
    GROW(g->arena, g->opt, g->nopt, g->opt_cap);
    g->opt[g->nopt++] = (Opt){"adamw", lr, 0.9, 0.95, 1e-8, 0.01, 0, {0}};
    g->clip_norm = rng_below(&x->r, 2) ? 1.0 : 0;
}

static inline Graph *random_graph_of(Arena *a, uint64_t seed, bool smooth, RandomShape shape) {
    RandomGraph *x = NEW(a, RandomGraph);
    Graph *g = x->g = graph_new(a, "random", ST_MATH);
    g->phase = "train";
    x->r.s = seed * 7919 + 13;
    x->smooth = smooth;
    x->micro = graph_dim(g, "micro", 1 + rng_below(&x->r, 5));
    x->batch = graph_dim(g, "batch", shape.batch);
    x->seq = graph_dim(g, "seq", shape.seq);
    x->head = graph_dim(g, "head", 2);
    x->hidden = graph_dim(g, "hidden", shape.hidden);
    x->vocab = graph_dim(g, "vocab", shape.vocab);
    x->wide = graph_dim(g, "wide", shape.wide);
    g->micro = x->micro;
    g->batch = x->batch;
    g->path = "loss";
    DimId mbs[3] = {x->micro, x->batch, x->seq}, vh[2] = {x->vocab, x->hidden};
    x->tokens = rg_leaf(x, OP_input, DT_I32, "tokens", mbs, 3);
    x->labels = rg_leaf(x, OP_input, DT_I32, "labels", mbs, 3);
    x->present = rg_leaf(x, OP_input, DT_BOOL, "present", mbs, 2);
    x->embed = rg_leaf(x, OP_param, DT_F32, "embed", vh, 2);
    x->out = rg_leaf(x, OP_param, DT_F32, "out", vh, 2);
    rg_put(x, rg_leaf(x, OP_input, DT_F32, "reward", mbs, 2));
    rg_put(x, rg_leaf(x, OP_input, DT_F32, "score", mbs, 3));
    Attr cls = at_dim(x->vocab), io[2] = {at_dim(x->head), at_int(1)}, un = at_int(5);
    rg_put(x, build(g, OP_gather, (ValueId[]){x->embed, x->tokens}, 2, &cls, 1));
    rg_put(x, build_leaf(g, OP_iota, type_make(DT_F32, &x->head, 1), io, 2));
    rg_put(x, build_leaf(g, OP_uniform, type_make(DT_F32, mbs, 3), &un, 1));
    rg_put(x, rg_param(x, (DimId[]){x->hidden}, 1));
    x->mask[x->nmask++] = x->present;
    x->mask[x->nmask++] = b_ew2(g, OP_ne, x->labels, b_const(g, DT_I32, -100));
    typedef void (*StepFn)(RandomGraph *);
    static const StepFn step[] = {rg_unary,     rg_unary,  rg_binary, rg_binary, rg_compare,
                                  rg_reduce,    rg_reduce, rg_move,   rg_move,   rg_matmul,
                                  rg_attention, rg_vocab,  rg_vocab};
    uint32_t n = shape.least + rng_below(&x->r, shape.spread);
    for (uint32_t i = 0; i < n && g->nvalue < 3000; i++) step[rng_below(&x->r, WM_LEN(step))](x);
    rg_results(x);
    return g;
}
static inline Graph *random_graph(Arena *a, uint64_t seed, bool smooth) {
    return random_graph_of(a, seed, smooth, (RandomShape){2, 4, 4, 5, 3, 8, 24});
}

/* ---- leaves: the same numbers for the same name, whatever pass made the graph */
typedef struct {
    uint64_t seed;
    const char *bump;
    int64_t at;
    double by;
} RandomLeaves; /* bump: parameter to move */
static inline bool random_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    const RandomLeaves *l = ctx;
    const char *name = attr_str(g, n, "name");
    DType dt = g->value[n->out0].ty.dt;
    Rng r = {hash_bytes(name, strlen(name)) ^ (l->seed * 0x2545f4914f6cdd1du)};
    for (int64_t i = 0; i < count; i++) {
        double u = rng_unit(&r);
        if (n->op == OP_scalar)
            out[i] = !strcmp(name, "steps") ? 100 : !strcmp(name, "step") ? 2 : 0;
        else if (n->op == OP_state)
            out[i] = 0.1 + u;
        else if (dt == DT_BOOL)
            out[i] = u < 0.85;
        else if (dt == DT_I32)
            out[i] = u < 0.15 && strcmp(name, "tokens") ? -100 : floor(rng_unit(&r) * 5);
        else
            out[i] = 2 * u - 1;
        if (n->op == OP_param && l->bump && !strcmp(name, l->bump) && i == l->at) out[i] += l->by;
    }
    return true;
}

#endif
