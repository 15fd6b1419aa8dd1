/* vjp.c: the gradient of each op, in ordinary ops. The table is the vjp column of ops.def.
 *
 * Products with an adjoint are `mulz`: where the adjoint is 0 the result is 0, so that a masked place stays 0
 * even behind log(0) or 1/0. Broadcasting is not thought of here: autodiff sums what an operand lacks. */
#include "passes/vjp.h"

/* ---- shorthands: dy is the adjoint of result 0, y the result, a b c the operands */
static DType dt(const Vjp *x, ValueId v) {
    return value_type(x->g, v)->dt;
}
static ValueId num(Vjp *x, ValueId like, double v) {
    return b_const(x->g, dt(x, like), v);
}
static ValueId mul(Vjp *x, ValueId a, ValueId b) {
    return b_ew2(x->g, OP_mul, a, b);
}
static ValueId mulz(Vjp *x, ValueId dy, ValueId b) {
    return b_ew2(x->g, OP_mulz, dy, b);
}
static ValueId add(Vjp *x, ValueId a, ValueId b) {
    return b_ew2(x->g, OP_add, a, b);
}
static ValueId sub(Vjp *x, ValueId a, ValueId b) {
    return b_ew2(x->g, OP_sub, a, b);
}
static ValueId neg(Vjp *x, ValueId a) {
    return b_ew1(x->g, OP_neg, a);
}
static ValueId inverse(Vjp *x, ValueId a) {
    return b_ew2(x->g, OP_div, num(x, a, 1), a);
}
static ValueId where(Vjp *x, ValueId m, ValueId a, ValueId b) {
    return b_ew3(x->g, OP_where, m, a, b);
}
static ValueId times(Vjp *x, ValueId a, double v) {
    return mul(x, a, num(x, a, v));
}

static Type ty(const Vjp *x, ValueId v) {
    return *value_type(x->g, v);
}

ValueId vjp_fit(Graph *g, ValueId v, Type like) {
    Type t = *value_type(g, v);
    DimId over[MAX_DIMS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < t.ndim; i++)
        if (!type_has(&like, t.dim[i])) over[n++] = t.dim[i];
    v = b_over(g, OP_sum, v, over, n);
    v = v_ordered(g, v, &like);
    return b_cast(g, v, like.dt);
}

/* ---- element-wise */
static void vjp_none(Vjp *x) {
    diag_add(x->d, P003, x->n.loc,
             "%s%s%s has no gradient, but a trained parameter reaches the loss through it; "
             "put stop_grad around its operand or use another operation",
             op_info[x->n.op].name, x->n.path && x->n.path[0] ? " in " : "", x->n.path ? x->n.path : "");
    x->failed = true;
}

static void vjp_stop(Vjp *x) {
    (void)x;
}

static void vjp_add(Vjp *x) {
    x->din[0] = x->din[1] = x->dout[0];
}

static void vjp_sub(Vjp *x) {
    x->din[0] = x->dout[0];
    if (x->need[1]) x->din[1] = neg(x, x->dout[0]);
}

static void vjp_mul(Vjp *x) {
    if (x->in[0].i == x->in[1].i) { /* a square: one product */
        x->din[0] = mulz(x, x->dout[0], add(x, x->in[0], x->in[0]));
        return;
    }
    if (x->need[0]) x->din[0] = mulz(x, x->dout[0], x->in[1]);
    if (x->need[1]) x->din[1] = mulz(x, x->dout[0], x->in[0]);
}

/* d/da = dy / b; d/db = -dy y / b, summed to the dims of b before the division. */
static void vjp_div(Vjp *x) {
    ValueId r = inverse(x, x->in[1]);
    if (x->need[0]) x->din[0] = mulz(x, x->dout[0], r);
    if (!x->need[1]) return;
    ValueId t = vjp_fit(x->g, mulz(x, x->dout[0], x->out[0]), ty(x, x->in[1]));
    x->din[1] = mulz(x, neg(x, t), r);
}

static void vjp_pow(Vjp *x) {
    if (x->need[1]) {
        diag_add(x->d, P003, x->n.loc,
                 "a trained parameter reaches an exponent; only the base of a power has a "
                 "gradient: put stop_grad around the exponent, or write exp(y * log(x))");
        x->failed = true;
        return;
    }
    ValueId a = x->in[0], b = x->in[1];
    double c;
    if (v_is_const(x->g, b, &c) && c == 2) {
        x->din[0] = mulz(x, x->dout[0], times(x, a, 2));
        return;
    }
    ValueId slope = mul(x, b_ew2(x->g, OP_pow, a, sub(x, b, num(x, b, 1))), b);
    ValueId flat = b_ew2(x->g, OP_eq, b, num(x, b, 0)); /* x^0 is 1 everywhere, also at 0 */
    x->din[0] = mulz(x, x->dout[0], where(x, flat, num(x, b, 0), slope));
}

static void pick(Vjp *x, Op op) { /* the second operand is taken where `x1 op x0` */
    ValueId second = b_ew2(x->g, op, x->in[1], x->in[0]), zero = num(x, x->dout[0], 0);
    if (x->need[0]) x->din[0] = where(x, second, zero, x->dout[0]);
    if (x->need[1]) x->din[1] = where(x, second, x->dout[0], zero);
}
static void vjp_min(Vjp *x) {
    pick(x, OP_lt);
}
static void vjp_max(Vjp *x) {
    pick(x, OP_gt);
}

static void vjp_neg(Vjp *x) {
    x->din[0] = neg(x, x->dout[0]);
}
static void vjp_exp(Vjp *x) {
    x->din[0] = mulz(x, x->dout[0], x->out[0]);
}
static void vjp_log(Vjp *x) {
    x->din[0] = mulz(x, x->dout[0], inverse(x, x->in[0]));
}

static void vjp_sqrt(Vjp *x) { /* 0 at 0 by definition */
    ValueId y = x->out[0], half = b_ew2(x->g, OP_div, num(x, y, 0.5), y);
    ValueId slope = where(x, b_ew2(x->g, OP_gt, y, num(x, y, 0)), half, num(x, y, 0));
    x->din[0] = mulz(x, x->dout[0], slope);
}

static void vjp_abs(Vjp *x) {
    ValueId a = x->in[0], dy = x->dout[0], zero = num(x, a, 0);
    ValueId low = where(x, b_ew2(x->g, OP_lt, a, zero), neg(x, dy), zero);
    x->din[0] = where(x, b_ew2(x->g, OP_gt, a, zero), dy, low);
}

static void vjp_sigmoid(Vjp *x) {
    ValueId y = x->out[0];
    x->din[0] = mulz(x, x->dout[0], mul(x, y, sub(x, num(x, y, 1), y)));
}

static void vjp_tanh(Vjp *x) {
    ValueId y = x->out[0];
    x->din[0] = mulz(x, x->dout[0], sub(x, num(x, y, 1), mul(x, y, y)));
}

static void vjp_softplus(Vjp *x) {
    x->din[0] = mulz(x, x->dout[0], b_ew1(x->g, OP_sigmoid, x->in[0]));
}

/* (x s)' = s (1 + x (1 - s)) */
static void vjp_silu(Vjp *x) {
    ValueId a = x->in[0], s = b_ew1(x->g, OP_sigmoid, a), one = num(x, a, 1);
    ValueId slope = mul(x, s, add(x, one, mul(x, a, sub(x, one, s))));
    x->din[0] = mulz(x, x->dout[0], slope);
}

/* (x Phi)' = Phi + x phi */
static void vjp_gelu(Vjp *x) {
    ValueId a = x->in[0], one = num(x, a, 1);
    ValueId phi = times(x, b_ew1(x->g, OP_exp, times(x, mul(x, a, a), -0.5)), 0.39894228040143267794);
    ValueId cum = times(x, add(x, one, b_ew1(x->g, OP_erf, times(x, a, 0.70710678118654752440))), 0.5);
    x->din[0] = mulz(x, x->dout[0], add(x, cum, mul(x, a, phi)));
}

static void vjp_erf(Vjp *x) {
    ValueId a = x->in[0];
    ValueId slope = times(x, b_ew1(x->g, OP_exp, neg(x, mul(x, a, a))), 1.12837916709551257390);
    x->din[0] = mulz(x, x->dout[0], slope);
}

static void vjp_where(Vjp *x) {
    ValueId zero = num(x, x->dout[0], 0);
    if (x->need[1]) x->din[1] = where(x, x->in[0], x->dout[0], zero);
    if (x->need[2]) x->din[2] = where(x, x->in[0], zero, x->dout[0]);
}

static void vjp_cast(Vjp *x) {
    x->din[0] = x->dout[0];
}
static void vjp_expand(Vjp *x) {
    x->din[0] = x->dout[0];
} /* autodiff sums the new dims */

/* ---- reductions */
static void vjp_sum(Vjp *x) {
    const DimId *over;
    uint32_t n = attr_dims(x->g, &x->n, "over", &over);
    x->din[0] = v_ordered(x->g, b_expand(x->g, x->dout[0], over, n), value_type(x->g, x->in[0]));
}

/* dy contracted with the other operand: over what the other has, dy has and this one lacks. Nothing to
 * contract: a product element by element, as a matmul without inner dim would be a slow one. */
static ValueId contract(Vjp *x, ValueId dy, ValueId other, Type self) {
    Type t = ty(x, other), d = ty(x, dy);
    DimId over[MAX_DIMS], more[MAX_DIMS];
    uint32_t n = 0, m = 0;
    for (uint32_t i = 0; i < t.ndim; i++)
        if (type_has(&d, t.dim[i]) && !type_has(&self, t.dim[i])) over[n++] = t.dim[i];
    if (n) { /* of the two orders of operands the one that gives the dims of `self` in order, if one does */
        bool other_first = self.ndim && type_has(&t, self.dim[0]) && !type_has(&d, self.dim[0]);
        return other_first ? b_matmul(x->g, other, dy, over, n) : b_matmul(x->g, dy, other, over, n);
    }
    for (uint32_t i = 0; i < d.ndim; i++)
        if (!type_has(&t, d.dim[i])) more[m++] = d.dim[i];
    return mulz(x, dy, b_expand(x->g, other, more, m));
}

static void vjp_matmul(Vjp *x) {
    if (x->need[0]) x->din[0] = contract(x, x->dout[0], x->in[1], ty(x, x->in[0]));
    if (x->need[1]) x->din[1] = contract(x, x->dout[0], x->in[0], ty(x, x->in[1]));
}

/* ---- moving data */
static void vjp_gather(Vjp *x) {
    Type table = ty(x, x->in[0]), token = ty(x, x->in[1]);
    DimId over[MAX_DIMS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < token.ndim; i++)
        if (!type_has(&table, token.dim[i])) over[n++] = token.dim[i];
    ValueId in[2] = {x->dout[0], x->in[1]};
    Attr at[2] = {*node_attr(x->g, &x->n, "cls"), at_dims(x->g, over, n)};
    x->din[0] = build(x->g, OP_scatter_add, in, 2, at, 2);
}

static void vjp_shift(Vjp *x) {
    Attr at[4] = {x->n.attr[0], x->n.attr[1], x->n.attr[2], x->n.attr[3]}; /* all but fill */
    x->din[0] = build(x->g, OP_shift_grad, x->dout, 1, at, 4);
}

static void vjp_select(Vjp *x) {
    x->din[0] = build(x->g, OP_place, x->dout, 1, x->n.attr, 2);
}

static void vjp_stack(Vjp *x) {
    DimId dim = attr_dim(x->g, &x->n, "dim");
    for (uint32_t i = 0; i < x->n.nin; i++)
        if (x->need[i]) x->din[i] = v_select(x->g, x->dout[0], dim, (int64_t)i);
}

static void vjp_transpose(Vjp *x) {
    x->din[0] = x->dout[0];
} /* autodiff orders the dims */

/* ---- models */
static void vjp_rope(Vjp *x) {
    if (x->need[1]) {
        vjp_none(x);
        return;
    }
    ValueId in[2] = {x->dout[0], x->in[1]};
    Attr at[3] = {x->n.attr[0], x->n.attr[1], at_bool(!attr_bool(x->g, &x->n, "inverse"))};
    x->din[0] = build(x->g, OP_rope, in, 2, at, 3);
}

static void vjp_attention(Vjp *x) {
    wm_check(x->g->arena, !value_is(x->dout[1]), "the lse of attention has no gradient");
    ValueId in[6] = {x->in[0], x->in[1], x->in[2], x->out[0], x->out[1], x->dout[0]};
    ValueId first = build(x->g, OP_attention_grad, in, 6, x->n.attr, 2);
    for (uint32_t k = 0; k < 3; k++)
        if (x->need[k]) x->din[k] = b_out(x->g, first, k);
}

/* ---- losses over a vocabulary (after pass linear_ce) */
static ValueId adjoint_or_zero(Vjp *x, uint32_t k) {
    Type t = ty(x, x->out[k]);
    return value_is(x->dout[k]) ? x->dout[k] : v_fill(x->g, t.dt, 0, t.dim, t.ndim);
}

static void vjp_linear_ce(Vjp *x) {
    wm_check(x->g->arena, !value_is(x->dout[1]), "the lse of linear_ce has no gradient");
    Type rows = ty(x, x->out[0]);
    ValueId in[7] = {x->in[0], x->in[1], x->in[2], x->out[1], adjoint_or_zero(x, 0), x->out[2], x->dout[2]};
    Attr at[3] = {x->n.attr[0], x->n.attr[1], at_dims(x->g, rows.dim, rows.ndim)};
    ValueId first = build(x->g, OP_linear_ce_grad, in, value_is(x->dout[2]) ? 7 : 5, at, 3);
    for (uint32_t k = 0; k < 2; k++)
        if (x->need[k]) x->din[k] = b_out(x->g, first, k);
}

static void vjp_linear_kl(Vjp *x) {
    if (!value_is(x->dout[0])) return;
    Type rows = ty(x, x->out[0]);
    ValueId in[7] = {x->in[0], x->in[1], x->in[2], x->in[3], x->out[1], x->out[2], x->dout[0]};
    Attr at[4] = {x->n.attr[0], x->n.attr[1], x->n.attr[2], at_dims(x->g, rows.dim, rows.ndim)};
    ValueId first = build(x->g, OP_linear_kl_grad, in, 7, at, 4);
    for (uint32_t k = 0; k < 4; k++)
        if (x->need[k]) x->din[k] = b_out(x->g, first, k);
}

/* ---- scans */
static void vjp_cumsum(Vjp *x) {
    Attr at[2] = {x->n.attr[0], at_bool(!attr_bool(x->g, &x->n, "reverse"))};
    x->din[0] = build(x->g, OP_cumsum, x->dout, 1, at, 2);
}

static void vjp_scan(Vjp *x) {
    ValueId in[6] = {x->in[0], x->in[1], x->in[2], x->in[3], x->out[0], x->dout[0]};
    ValueId first = build(x->g, OP_scan_grad, in, 6, x->n.attr, 2);
    for (uint32_t k = 0; k < 3; k++)
        if (x->need[k]) x->din[k] = b_out(x->g, first, k);
}

static void vjp_shuffle(Vjp *x) {
    ValueId in[2] = {x->dout[0], x->in[1]};
    Attr at[3] = {x->n.attr[0], x->n.attr[1], at_bool(!attr_bool(x->g, &x->n, "inverse"))};
    x->din[0] = build(x->g, OP_shuffle, in, 2, at, 3);
}

/* ---- micro-batches */
static void vjp_micro_sum(Vjp *x) {
    DimId micro = x->g->micro;
    x->din[0] = v_ordered(x->g, b_expand(x->g, x->dout[0], &micro, 1), value_type(x->g, x->in[0]));
}
static void vjp_micro_stack(Vjp *x) {
    x->din[0] = x->dout[0];
}

/* ---- the table */
const VjpFn vjp_table[NOP] = {
#define OP(name, nin, nout, flags, attrs, rule, kind, expr, ref, vjp, cost, sample, doc) vjp_##vjp,
#include "ir/ops.def"
#undef OP
};

bool vjp_is_stop(Op op) {
    return vjp_table[op] == vjp_stop;
}
