/* lower_reduce.c: reductions with their dims, masks and scope.
 *
 * `sum(x, where=m)` is sum(where(m, x, 0)), so what is masked can hold anything and gets gradient 0. A
 * reduction that removes `batch` also masks the empty slots (`present`) and, in scope step, removes `micro`.
 * Counts are taken over the mask alone and multiplied by the sizes of the dims that the mask lacks: a mask of
 * fewer dims costs less. */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

typedef struct {
    Val x;
    Val mask; /* VK_POISON: every position counts */
    DimId over[MAX_DIMS];
    uint32_t nover;
} Red;

ValueId present_mask(Cx *cx) {
    if (value_is(cx->present)) return cx->present;
    Graph *g = cx->g;
    const char *path = g->path;
    g->path = "";
    DimId d[2] = {g->micro, g->batch};
    Attr name = at_str(g, "present");
    cx->present = build_leaf(g, OP_input, type_make(DT_BOOL, d, 2), &name, 1);
    g->path = path;
    return cx->present;
}

static bool has_micro(const Cx *cx) {
    return cx->g->micro.i != UINT32_MAX;
}

/* Dims of the operand and of its mask together, without micro. */
static Type union_dims(const Cx *cx, const Red *r) {
    Type t = {.dt = DT_F32};
    const Val *v[2] = {&r->x, &r->mask};
    for (int i = 0; i < 2; i++) {
        if (v[i]->kind != VK_TENSOR) continue;
        const Type *u = val_type(cx, v[i]);
        for (int k = 0; k < u->ndim; k++)
            if (!type_has(&t, u->dim[k])) t.dim[t.ndim++] = u->dim[k];
    }
    return t;
}

static bool red_mask(const Call *c, Red *r) {
    Cx *cx = c->cx;
    r->mask = val_poison();
    if (!c->arg[3]) return true;
    Val m = lift(cx, arg_eval(c, 3));
    if (m.kind == VK_POISON) return false;
    if ((m.kind != VK_TENSOR && m.kind != VK_CONST) || m.t != LT_BOOL) {
        Diag *g = sema_error(cx, E031, m.loc, "where= takes a mask");
        sema_span(cx, g, &m);
        diag_help(cx->d, g, "a mask is a bool, as in where=labels != ignore");
        return false;
    }
    if (m.kind == VK_CONST && m.num != 0) return true;
    if (!visible_join(cx, m.loc, &r->x, &m)) return false;
    r->mask = m;
    if (m.kind == VK_CONST) r->mask = val_tensor(b_const(cx->g, DT_BOOL, 0), LT_BOOL, false);
    return true;
}

static bool red_over(const Call *c, Red *r) {
    Cx *cx = c->cx;
    if (c->arg[1] && c->arg[2])
        return sema_error(cx, E015, c->e->loc, "`%s` takes over= or per=, not both", c->b->name), false;
    Type all = union_dims(cx, r);
    const Expr *e = c->arg[1] ? c->arg[1] : c->arg[2];
    DimId named[MAX_DIMS];
    uint32_t n = 0;
    if (e) {
        const char *name[MAX_DIMS];
        Loc loc[MAX_DIMS];
        if (!dim_names(cx, e, name, loc, &n)) return false;
        for (uint32_t i = 0; i < n; i++)
            if (!dim_in(cx, &all, name[i], &named[i])) {
                lacks_dim(cx, loc[i], name[i], &r->x);
                return false;
            }
    }
    for (int i = 0; i < all.ndim; i++) {
        if (all.dim[i].i == cx->g->micro.i) continue;
        bool in = false;
        for (uint32_t k = 0; k < n; k++) in |= named[k].i == all.dim[i].i;
        if (in == (c->arg[1] != NULL)) r->over[r->nover++] = all.dim[i];
    }
    return true;
}

static bool red_ragged(const Call *c, const Red *r) {
    if (c->arg[3] || c->b->fn == red_count || c->b->fn == red_any) return true;
    for (uint32_t i = 0; i < r->nover; i++) {
        const Dim *d = &c->cx->g->dim[r->over[i].i];
        if (!d->ragged) continue;
        Diag *g = sema_error(c->cx, E030, c->e->loc,
                             "`%s` over `%s`, whose length differs from sample to sample, without where=",
                             c->b->name, d->name);
        sema_span(c->cx, g, &r->x);
        diag_help(c->cx->d, g, "say which positions count: where=mask; where=true means all");
        Loc end = c->e->loc;
        if (end.len > 0) {
            end.at += end.len - 1;
            end.col += end.len - 1;
            end.len = 0;
            diag_fix(c->cx->d, g, end, false, ", where=valid");
        }
        return false;
    }
    return true;
}

static bool red_scope(const Call *c, Red *r) {
    Cx *cx = c->cx;
    const char *scope = "step";
    if (c->arg[4]) {
        Val s = arg_eval(c, 4);
        if (s.kind == VK_POISON) return false;
        if (s.kind != VK_CONST || s.t != LT_SCOPE)
            return sema_error(cx, E026, s.loc, "scope= is `step`, `ranks` or `micro`, not %s",
                              val_text(cx, &s)),
                   false;
        scope = s.str;
    }
    bool batch = false;
    for (uint32_t i = 0; i < r->nover; i++) batch |= dim_is(cx, r->over[i], "batch");
    if (c->arg[4] && !batch)
        sema_warn(cx, W069, c->arg[4]->loc, "scope= has no effect: this reduction does not remove `batch`");
    if (!batch || !has_micro(cx)) return true;
    if (!strcmp(scope, "ranks"))
        sema_warn(cx, W202, c->e->loc, "scope=ranks: the result depends on the number of ranks");
    ValueId present = present_mask(cx);
    ValueId both[2] = {r->mask.v, present};
    r->mask = val_tensor(r->mask.kind == VK_POISON ? present : emit_ew(cx, OP_and, both, 2), LT_BOOL, false);
    if (!strcmp(scope, "step")) {
        if (r->nover == MAX_DIMS)
            return sema_error(cx, E020, c->e->loc, "a value has at most %d dims", MAX_DIMS), false;
        r->over[r->nover++] = cx->g->micro;
    }
    return true;
}

static bool red_open(const Call *c, bool mask_operand, Red *r) {
    Cx *cx = c->cx;
    *r = (Red){0};
    r->x = lift(cx, arg_eval(c, 0));
    if (r->x.kind == VK_POISON) return false;
    if (r->x.kind != VK_TENSOR && !val_is_number(&r->x))
        return sema_error(cx, E026, r->x.loc, "`%s` does not take %s", c->b->name, val_text(cx, &r->x)),
               false;
    if (r->x.t == LT_TOKEN)
        return sema_error(cx, E032, r->x.loc, "`%s` does not take tokens", c->b->name), false;
    if (mask_operand && r->x.t != LT_BOOL) {
        Diag *g = sema_error(cx, E031, r->x.loc, "`%s` takes a mask", c->b->name);
        sema_span(cx, g, &r->x);
        return false;
    }
    if (r->x.kind == VK_CONST) {
        Val t = val_tensor(b_const(cx->g, r->x.t == LT_BOOL ? DT_BOOL : DT_F32, r->x.num), r->x.t, false);
        t.loc = r->x.loc;
        r->x = t;
    }
    return red_mask(c, r) && red_over(c, r) && red_ragged(c, r) && red_scope(c, r);
}

/* ---- sums over the positions that count */

static ValueId over_dims(Cx *cx, Op op, ValueId v, const Red *r) {
    DimId d[MAX_DIMS];
    uint32_t n = 0;
    const Type *t = value_type(cx->g, v);
    for (uint32_t i = 0; i < r->nover; i++)
        if (type_has(t, r->over[i])) d[n++] = r->over[i];
    return b_over(cx->g, op, v, d, n);
}

static ValueId masked(Cx *cx, const Red *r, ValueId x, double other) {
    if (r->mask.kind == VK_POISON) return x;
    ValueId in[3] = {r->mask.v, x, b_const(cx->g, value_type(cx->g, x)->dt, other)};
    return emit_ew(cx, OP_where, in, 3);
}

static ValueId sum_of(Cx *cx, const Red *r, ValueId x) {
    return over_dims(cx, OP_sum, masked(cx, r, x, 0), r);
}

/* How many positions count, as a real of dtype dt; a constant where nothing is masked. */
static ValueId count_of(Cx *cx, const Red *r, DType dt) {
    Graph *g = cx->g;
    double times = 1;
    for (uint32_t i = 0; i < r->nover; i++)
        if (r->mask.kind == VK_POISON || !type_has(val_type(cx, &r->mask), r->over[i]))
            times *= (double)g->dim[r->over[i].i].size;
    if (r->mask.kind == VK_POISON) return b_const(g, dt, times);
    ValueId n = over_dims(cx, OP_sum, b_cast(g, r->mask.v, dt), r);
    return times == 1 ? n : b_ew2(g, OP_mul, n, b_const(g, dt, times));
}

static ValueId bin(Cx *cx, Op op, ValueId a, ValueId b) {
    return emit_ew(cx, op, (ValueId[]){a, b}, 2);
}

/* where(n > least, v, 0) */
static ValueId if_more(Cx *cx, ValueId n, double least, ValueId v) {
    ValueId some = bin(cx, OP_gt, n, b_const(cx->g, value_type(cx->g, n)->dt, least));
    return emit_ew(cx, OP_where, (ValueId[]){some, v, b_const(cx->g, value_type(cx->g, v)->dt, 0)}, 3);
}

static ValueId at_least_one(Cx *cx, ValueId n) {
    return bin(cx, OP_max, n, b_const(cx->g, value_type(cx->g, n)->dt, 1));
}

static DType red_dtype(const Cx *cx, const Val *x) {
    return x->t == LT_BOOL ? DT_F32 : val_type(cx, x)->dt;
}

static Val red_result(ValueId v, LType t, const Red *r, bool grad) {
    Val out = val_tensor(v, t, grad && r->x.grad);
    out.nll = r->x.nll;
    out.weighted = r->x.weighted;
    return out;
}

Val red_sum(const Call *c) {
    Red r;
    if (!red_open(c, false, &r)) return val_poison();
    ValueId x = as_real(c->cx, &r.x, red_dtype(c->cx, &r.x));
    return red_result(sum_of(c->cx, &r, x), r.x.t == LT_F32 ? LT_F32 : LT_INT, &r, true);
}

Val red_mean(const Call *c) {
    Red r;
    Cx *cx = c->cx;
    if (!red_open(c, false, &r)) return val_poison();
    if (r.x.weighted)
        sema_warn(cx, W061, c->e->loc,
                  "a weighted mean over the count: the size of the weights acts as a learning rate; sum(x * "
                  "w) / sum(w) takes it out");
    r.x.weighted = false;
    ValueId x = as_real(cx, &r.x, red_dtype(cx, &r.x));
    ValueId s = sum_of(cx, &r, x), n = count_of(cx, &r, value_type(cx->g, x)->dt);
    if (r.mask.kind == VK_POISON) return red_result(bin(cx, OP_div, s, n), LT_F32, &r, true);
    return red_result(if_more(cx, n, 0, bin(cx, OP_div, s, at_least_one(cx, n))), LT_F32, &r, true);
}

static void lint_few(const Call *c, const Red *r) {
    double n = 1;
    for (uint32_t i = 0; i < r->nover; i++) n *= (double)c->cx->g->dim[r->over[i].i].size;
    if (n < 32 && !c->cx->o->assume_sizes)
        sema_warn(c->cx, W063, c->e->loc, "`%s` over at most %.0f values", c->b->name, n);
}

/* max(0, (q - s^2 / n) / (n - ddof)) in f64, 0 if n <= ddof */
static bool variance(const Call *c, Red *r, ValueId *v, DType *dt) {
    Cx *cx = c->cx;
    double ddof;
    if (!red_open(c, false, r) || !arg_num(c, 5, 1, &ddof)) return false;
    if (ddof != floor(ddof) || ddof < 0)
        return sema_error(cx, E015, c->arg[5]->loc, "ddof= is a whole number, 0 or more"), false;
    lint_few(c, r);
    *dt = red_dtype(cx, &r->x);
    ValueId x = b_cast(cx->g, as_real(cx, &r->x, *dt), DT_F64);
    x = masked(cx, r, x, 0); /* before it is squared: what is masked may be inf */
    ValueId n = count_of(cx, r, DT_F64), s = over_dims(cx, OP_sum, x, r),
            q = over_dims(cx, OP_sum, bin(cx, OP_mul, x, x), r);
    ValueId square = bin(cx, OP_sub, q, bin(cx, OP_div, bin(cx, OP_mul, s, s), at_least_one(cx, n)));
    ValueId down = at_least_one(cx, bin(cx, OP_sub, n, b_const(cx->g, DT_F64, ddof)));
    ValueId raw = bin(cx, OP_max, bin(cx, OP_div, square, down), b_const(cx->g, DT_F64, 0));
    *v = if_more(cx, n, ddof, raw);
    return true;
}

Val red_var(const Call *c) {
    Red r;
    ValueId v;
    DType dt;
    if (!variance(c, &r, &v, &dt)) return val_poison();
    return red_result(b_cast(c->cx->g, v, dt), LT_F32, &r, true);
}

Val red_std(const Call *c) {
    Red r;
    ValueId v;
    DType dt;
    if (!variance(c, &r, &v, &dt)) return val_poison();
    return red_result(b_cast(c->cx->g, b_ew1(c->cx->g, OP_sqrt, v), dt), LT_F32, &r, true);
}

/* The positions where the operand itself, a mask, holds (or does not) among those that count. */
static ValueId count_mask(Cx *cx, Red *r, bool negate) {
    ValueId m = negate ? b_ew1(cx->g, OP_not, r->x.v) : r->x.v;
    if (r->mask.kind != VK_POISON) m = bin(cx, OP_and, m, r->mask.v);
    r->mask = val_tensor(m, LT_BOOL, false);
    return count_of(cx, r, DT_F32);
}

Val red_count(const Call *c) {
    Red r;
    if (!red_open(c, true, &r)) return val_poison();
    Val v = red_result(count_mask(c->cx, &r, false), LT_INT, &r, false);
    v.counted = true;
    return v;
}

static Val red_logic(const Call *c, bool negate, Op op) {
    Red r;
    if (!red_open(c, true, &r)) return val_poison();
    ValueId n = count_mask(c->cx, &r, negate);
    return red_result(bin(c->cx, op, n, b_const(c->cx->g, DT_F32, 0)), LT_BOOL, &r, false);
}

Val red_any(const Call *c) {
    return red_logic(c, false, OP_gt);
}
Val red_all(const Call *c) {
    return red_logic(c, true, OP_eq);
}

Val red_extreme(const Call *c) {
    Red r;
    Cx *cx = c->cx;
    if (!red_open(c, false, &r)) return val_poison();
    ValueId x = as_real(cx, &r.x, red_dtype(cx, &r.x));
    ValueId v = over_dims(cx, c->b->op, masked(cx, &r, x, c->b->op == OP_max_of ? -INFINITY : INFINITY), &r);
    if (r.mask.kind != VK_POISON) v = if_more(cx, count_of(cx, &r, value_type(cx->g, x)->dt), 0, v);
    return red_result(v, r.x.t == LT_F32 ? LT_F32 : LT_INT, &r, false);
}

Val red_quantile(const Call *c) {
    Red r;
    Cx *cx = c->cx;
    double q;
    if (!arg_num(c, 5, 0, &q) || !red_open(c, false, &r)) return val_poison();
    if (!(q >= 0 && q <= 1)) return val_error(cx, E015, c->arg[5]->loc, "a quantile lies in [0, 1]");
    lint_few(c, &r);
    ValueId x = as_real(cx, &r.x, red_dtype(cx, &r.x));
    Type all = union_dims(cx, &r);
    x = to_dims(cx, x, all.dim, all.ndim);
    ValueId m = r.mask.kind == VK_POISON ? b_const(cx->g, DT_BOOL, 1) : r.mask.v;
    m = to_dims(cx, m, all.dim, all.ndim);
    Attr attr[] = {at_float(q), at_dims(cx->g, r.over, r.nover)};
    return red_result(build(cx->g, OP_quantile, (ValueId[]){x, m}, 2, attr, 2), LT_F32, &r, false);
}

Val settle(Cx *cx, Val v) {
    if (v.kind != VK_TENSOR || !has_micro(cx) || !type_has(val_type(cx, &v), cx->g->micro)) return v;
    Graph *g = cx->g;
    DType dt = val_type(cx, &v)->dt;
    ValueId held = b_over(g, OP_sum, b_cast(g, present_mask(cx), DT_F32), &g->batch, 1);
    ValueId some = bin(cx, OP_gt, held, b_const(g, DT_F32, 0));
    ValueId n = at_least_one(cx, b_over(g, OP_sum, b_cast(g, some, dt), &g->micro, 1));
    ValueId s = emit_ew(cx, OP_where, (ValueId[]){some, v.v, b_const(g, dt, 0)}, 3);
    v.v = bin(cx, OP_div, b_over(g, OP_sum, s, &g->micro, 1), n);
    return v;
}
