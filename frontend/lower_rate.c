/* lower_rate.c: schedules, optimizers and random numbers.
 *
 * A schedule is an f64 number over the leaves `step` and `steps`, so one plan serves every step. A draw is a
 * leaf whose stream comes from the name of the binding and the count of draws in it: a new metric moves no
 * other draw. */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

/* ---- schedules */

static Val scalar(Cx *cx, const char *name) {
    Attr a = at_str(cx->g, name);
    return val_tensor(build_leaf(cx->g, OP_scalar, type_make(DT_F64, NULL, 0), &a, 1), LT_F32, false);
}

static Val num(double v) {
    return val_num(v, false);
}

typedef struct {
    Val peak, t, warm, down;
    double floor;
    bool warms;
} Ramp;

/* peak, t, W = floor(T * warmup) and how far the fall has come, (t - W) / (T - W) */
static bool ramp(const Call *c, Ramp *r) {
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    double warmup;
    r->peak = lift(cx, arg_eval(c, 0));
    if (!arg_num(c, 1, 0, &warmup) || !arg_num(c, 2, 0, &r->floor) || r->peak.kind == VK_POISON) return false;
    if (!(warmup >= 0 && warmup < 1))
        return sema_error(cx, E015, c->arg[1]->loc, "warmup= is a share of all steps, in [0, 1)"), false;
    if (!val_is_number(&r->peak) && r->peak.kind != VK_TENSOR)
        return sema_error(cx, E026, r->peak.loc, "the peak is a number, not %s", val_text(cx, &r->peak)),
               false;
    r->t = scalar(cx, "step");
    Val steps = scalar(cx, "steps");
    r->warm = warmup > 0 ? val_ew1(cx, OP_floor, val_bin(cx, B_MUL, steps, num(warmup), l), l) : num(0);
    r->warms = warmup > 0;
    Val rest = val_bin(cx, B_SUB, steps, r->warm, l);
    ValueId most[2] = {as_real(cx, &rest, DT_F64), b_const(cx->g, DT_F64, 1)};
    rest = val_tensor(emit_ew(cx, OP_max, most, 2), LT_F32, false);
    r->down = val_bin(cx, B_DIV, val_bin(cx, B_SUB, r->t, r->warm, l), rest, l);
    return true;
}

static Val ramp_up(const Call *c, const Ramp *r, Val fall) {
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    if (!r->warms) return fall;
    Val up = val_bin(cx, B_DIV, val_bin(cx, B_MUL, r->peak, r->t, l), r->warm, l);
    return val_where(cx, val_bin(cx, B_LT, r->t, r->warm, l), up, fall, l);
}

Val rate_constant(const Call *c) {
    return lift(c->cx, arg_eval(c, 0));
}

Val rate_cosine(const Call *c) {
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    Ramp r;
    if (!ramp(c, &r)) return val_poison();
    Val wave = val_ew1(cx, OP_cos, val_bin(cx, B_MUL, num(acos(-1.0)), r.down, l), l);
    Val share = val_bin(cx, B_MUL, num((1 - r.floor) / 2), val_bin(cx, B_ADD, num(1), wave, l), l);
    return ramp_up(c, &r, val_bin(cx, B_MUL, r.peak, val_bin(cx, B_ADD, num(r.floor), share, l), l));
}

Val rate_linear(const Call *c) {
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    Ramp r;
    if (!ramp(c, &r)) return val_poison();
    Val share = val_bin(cx, B_SUB, num(1), val_bin(cx, B_MUL, num(1 - r.floor), r.down, l), l);
    return ramp_up(c, &r, val_bin(cx, B_MUL, r.peak, share, l));
}

Val rate_hold_decay(const Call *c) {
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    Val a = lift(cx, arg_eval(c, 0)), b = lift(cx, arg_eval(c, 1)), t = scalar(cx, "step");
    double hold, decay;
    if (!arg_num(c, 2, 0, &hold) || !arg_num(c, 3, 0, &decay) || a.kind == VK_POISON || b.kind == VK_POISON)
        return val_poison();
    if (!(hold >= 0) || !(decay >= 0))
        return val_error(cx, E015, c->e->loc, "hold= and decay= are numbers of steps, 0 or more");
    Val way = val_bin(cx, B_DIV, val_bin(cx, B_SUB, t, num(hold), l), num(decay > 0 ? decay : 1), l);
    Val fall = val_bin(cx, B_SUB, a, val_bin(cx, B_MUL, way, val_bin(cx, B_SUB, a, b, l), l), l);
    Val late = val_where(cx, val_bin(cx, B_LT, t, num(hold + decay), l), fall, b, l);
    return val_where(cx, val_bin(cx, B_LT, t, num(hold), l), a, late, l);
}

/* ---- optimizers */

static Val optim(const Call *c, OptRec *o, Val lr) {
    if (lr.kind == VK_POISON) return lr;
    bool number =
        val_is_number(&lr) || (lr.kind == VK_TENSOR && lr.t <= LT_INT && val_type(c->cx, &lr)->ndim == 0);
    if (!number)
        return val_error(c->cx, E026, lr.loc, "lr is one number or a schedule, not %s", val_text(c->cx, &lr));
    Val r = {.kind = VK_OPTIM};
    o->lr = NEW(c->cx->a, Val);
    *o->lr = lr;
    o->loc = c->e->loc;
    r.u.opt = o;
    return r;
}

static bool betas(const Call *c, int k, OptRec *o) {
    o->b1 = 0.9;
    o->b2 = 0.95;
    if (!c->arg[k]) return true;
    Val v = arg_eval(c, k);
    if (v.kind == VK_POISON) return false;
    bool ok = v.kind == VK_LIST && v.u.list.n == 2;
    for (uint32_t i = 0; ok && i < 2; i++)
        ok = val_is_number(&v.u.list.item[i]) && v.u.list.item[i].num >= 0 && v.u.list.item[i].num < 1;
    if (!ok)
        return sema_error(c->cx, E015, c->arg[k]->loc,
                          "betas= is two numbers in [0, 1), as in betas=(0.9, 0.95)"),
               false;
    o->b1 = v.u.list.item[0].num;
    o->b2 = v.u.list.item[1].num;
    return true;
}

Val make_adamw(const Call *c) {
    OptRec *o = NEW(c->cx->a, OptRec);
    o->kind = "adamw";
    o->no_decay = "";
    Val lr = lift(c->cx, arg_eval(c, 0));
    if (!betas(c, 1, o) || !arg_num(c, 2, 1e-8, &o->eps) || !arg_num(c, 3, 0, &o->wd)) return val_poison();
    if (c->arg[4]) {
        Val p = arg_eval(c, 4);
        if (p.kind == VK_POISON) return p;
        if (p.kind != VK_CONST || p.t != LT_STR)
            return val_error(c->cx, E015, c->arg[4]->loc, "no_decay= is a pattern in quotes");
        o->no_decay = p.str;
    }
    return optim(c, o, lr);
}

Val make_sgd(const Call *c) {
    OptRec *o = NEW(c->cx->a, OptRec);
    o->kind = "sgd";
    o->no_decay = "";
    Val lr = lift(c->cx, arg_eval(c, 0));
    if (!arg_num(c, 1, 0, &o->momentum) || !arg_num(c, 2, 0, &o->wd)) return val_poison();
    return optim(c, o, lr);
}

Val make_lora(const Call *c) {
    return val_error(c->cx, E080, c->e->loc, "this version has no adapters (`adapt`, `lora`)");
}

/* ---- random numbers */

static int64_t next_stream(Cx *cx) {
    return stream_of(arena_fmt(cx->a, "draw:%s#%d", cx->binding, cx->ndraw++));
}

static bool draw_dims(const Call *c, DimId *d, uint32_t *n) {
    Cx *cx = c->cx;
    const char *name[MAX_DIMS];
    Loc loc[MAX_DIMS];
    DimId own[MAX_DIMS];
    uint32_t count;
    bool batch = false, found;
    if (!dim_names(cx, c->arg[0], name, loc, &count)) return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!dim_lookup(cx, c->sc, name[i], loc[i], &own[i], &found)) {
            if (!found) sema_error(cx, E010, loc[i], "unknown dim `%s`", name[i]);
            return false;
        }
        for (uint32_t k = 0; k < i; k++)
            if (own[k].i == own[i].i)
                return sema_error(cx, E020, loc[i], "the dim `%s` twice", name[i]), false;
        batch |= dim_is(cx, own[i], "batch");
    }
    *n = 0;
    if (batch && cx->g->micro.i != UINT32_MAX) d[(*n)++] = cx->g->micro;
    if (*n + count > MAX_DIMS)
        return sema_error(cx, E015, c->arg[0]->loc, "at most %d dims", MAX_DIMS), false;
    for (uint32_t i = 0; i < count; i++) d[(*n)++] = own[i];
    return dims_fit(c->cx, c->e->loc, d, *n);
}

static Val draw(const Call *c, Op op) {
    DimId d[MAX_DIMS];
    uint32_t n;
    if (!draw_dims(c, d, &n)) return val_poison();
    Attr stream = at_int(next_stream(c->cx));
    return val_tensor(build_leaf(c->cx->g, op, type_make(DT_F32, d, n), &stream, 1), LT_F32, false);
}

/* Without dims: how a parameter starts, with constants alone. */
static Val initial(const Call *c, double a, double b) {
    Val r = {.kind = VK_INIT};
    if (!arg_num(c, 1, a, &a) || !arg_num(c, 2, b, &b)) return val_poison();
    r.u.init = (InitRec){c->b->name, a, b};
    return r;
}

static Val part(const Call *c, int k, double dflt) {
    return c->arg[k] ? lift(c->cx, arg_eval(c, k)) : num(dflt);
}

Val draw_uniform(const Call *c) {
    if (!c->arg[0]) return initial(c, 0, 1);
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    Val lo = part(c, 1, 0), hi = part(c, 2, 1), u = draw(c, OP_uniform);
    if (!c->arg[1] && !c->arg[2]) return u;
    return val_bin(cx, B_ADD, val_bin(cx, B_MUL, u, val_bin(cx, B_SUB, hi, lo, l), l), lo, l);
}

Val draw_normal(const Call *c) {
    if (!c->arg[0]) return initial(c, 0, 1);
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    Val mean = part(c, 1, 0), std = part(c, 2, 1), z = draw(c, OP_normal);
    return val_bin(cx, B_ADD, val_bin(cx, B_MUL, z, std, l), mean, l);
}

/* exp(log(m) - v/2 + sqrt(v) z), v = log(1 + s^2 / m^2): mean m and deviation s of the variable itself */
Val draw_lognormal(const Call *c) {
    Cx *cx = c->cx;
    Loc l = c->e->loc;
    double m, s;
    if (!arg_num(c, 1, 1, &m) || !arg_num(c, 2, 1, &s)) return val_poison();
    if (!(m > 0) || !(s >= 0))
        return val_error(cx, E015, c->e->loc, "lognormal has mean= above 0 and std= of 0 or more");
    double v = log1p(s * s / (m * m));
    Val z = draw(c, OP_normal);
    Val x = val_bin(cx, B_ADD, val_bin(cx, B_MUL, z, num(sqrt(v)), l), num(log(m) - v / 2), l);
    return val_ew1(cx, OP_exp, x, l);
}

Val draw_bernoulli(const Call *c) {
    Val p = lift(c->cx, arg_eval(c, 1)), u = draw(c, OP_uniform);
    return val_bin(c->cx, B_LT, u, p, c->e->loc);
}

Val nn_dropout(const Call *c) {
    Cx *cx = c->cx;
    Val x = arg_tensor(c, 0);
    double p;
    if (!arg_num(c, 1, 0, &p) || x.kind == VK_POISON) return val_poison();
    if (!(p >= 0 && p < 1))
        return val_error(cx, E060, c->arg[1]->loc, "the share that dropout drops is in [0, 1), not %g", p);
    if (p == 0 || strcmp(cx->o->phase, "train") != 0) return x;
    const Type *t = val_type(cx, &x);
    Attr stream = at_int(
        stream_of(arena_fmt(cx->a, "draw:%s/dropout#%d", cx->g->path ? cx->g->path : "", cx->ndraw++)));
    ValueId u = build_leaf(cx->g, OP_uniform, type_make(t->dt, t->dim, t->ndim), &stream, 1);
    Val keep = val_bin(cx, B_GE, val_tensor(u, LT_F32, false), num(p), c->e->loc);
    return val_where(cx, keep, val_bin(cx, B_DIV, x, num(1 - p), c->e->loc), num(0), c->e->loc);
}
