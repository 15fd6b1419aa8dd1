/* lower_seq.c: built-ins along one dim, constants, sizes.
 *
 * In an in-file test `tensor(list, [dims])` is what gives dims their sizes; in a graph the sizes must fit. */
#include "frontend/sema.h"

#include <string.h>

Val seq_first(const Call *c) {
    Val m = arg_mask(c, 0);
    DimId d;
    if (m.kind == VK_POISON || !arg_dim(c, 1, &m, &d)) return val_poison();
    Attr over = at_dim(d);
    return val_tensor(build(c->cx->g, c->b->op, &m.v, 1, &over, 1), LT_BOOL, false);
}

/* x where the mask holds, else 0; true when there is no mask */
static bool zero_off_mask(const Call *c, int k, Val *x) {
    Cx *cx = c->cx;
    if (!c->arg[k]) return true;
    Val m = arg_mask(c, k);
    if (m.kind == VK_POISON || !visible_join(cx, m.loc, x, &m)) return false;
    x->v = emit_ew(cx, OP_where, (ValueId[]){m.v, x->v, b_const(cx->g, val_type(cx, x)->dt, 0)}, 3);
    return true;
}

Val seq_cumsum(const Call *c) {
    Val x = arg_tensor(c, 0);
    DimId d;
    if (x.kind == VK_POISON || !zero_off_mask(c, 2, &x) || !arg_dim(c, 1, &x, &d)) return val_poison();
    x.v = build(c->cx->g, OP_cumsum, &x.v, 1, (Attr[]){at_dim(d), at_none()}, 2);
    return x;
}

Val seq_shuffle(const Call *c) {
    Cx *cx = c->cx;
    Val x = arg_tensor(c, 0), m = arg_mask(c, 2);
    DimId d;
    if (x.kind == VK_POISON || m.kind == VK_POISON || !visible_join(cx, m.loc, &x, &m) ||
        !arg_dim(c, 1, &x, &d))
        return val_poison();
    const Type *t = val_type(cx, &x), *u = val_type(cx, &m);
    if (!type_holds(t, u)) x.v = to_dims(cx, x.v, u->dim, u->ndim);
    int64_t stream = stream_of(arena_fmt(cx->a, "draw:%s#%d", cx->binding, cx->ndraw++));
    x.v =
        build(cx->g, OP_shuffle, (ValueId[]){x.v, m.v}, 2, (Attr[]){at_dim(d), at_int(stream), at_none()}, 3);
    return x;
}

Val seq_argmax(const Call *c) {
    Cx *cx = c->cx;
    Val x = lift_any(cx, arg_eval(c, 0));
    if (x.kind == VK_POISON) return x;
    if (x.kind != VK_TENSOR || x.t > LT_INT)
        return val_error(cx, E026, x.loc, "argmax takes numbers with dims, not %s", val_text(cx, &x));
    DimId d;
    if (c->arg[1]) {
        if (!arg_dim(c, 1, &x, &d)) return val_poison();
    } else if (!dim_in(cx, val_type(cx, &x), "vocab", &d)) {
        return val_error(cx, E015, c->e->loc, "argmax: over= says along which dim");
    }
    if (is_logits(cx, &x) && !dim_is(cx, d, "vocab")) return lift(cx, x);
    bool token = dim_is(cx, d, "vocab");
    ValueId v =
        build(cx->g, OP_argmax, &x.v, 1, (Attr[]){at_dim(d), at_int(cx->dim[d.i].base), at_bool(token)}, 3);
    return val_tensor(v, token ? LT_TOKEN : LT_INT, false);
}

/* ---- scan: step is worked out with a symbolic carry, which leaves a and b of a * carry + b */

static bool scan_step(const Call *c, Val *a, Val *b) {
    Cx *cx = c->cx;
    Frame frame = {0};
    for (uint32_t i = 0; c->sc->frame && i < c->sc->frame->n; i++) {
        const Binding *o = &c->sc->frame->item[i];
        Binding *n = frame_put(cx, &frame, o->name, o->v);
        n->let = o->let;
        n->at = o->at;
    }
    Val one = val_num(1, true), zero = val_num(0, true), carry = {.kind = VK_AFFINE};
    carry.u.affine.a = &one;
    carry.u.affine.b = &zero;
    frame_put(cx, &frame, "carry", carry);
    Scope inner = *c->sc;
    inner.frame = &frame;
    Val s = lift(cx, eval(cx, &inner, c->arg[2]));
    if (s.kind == VK_POISON) return false;
    *a = s.kind == VK_AFFINE ? lift(cx, *s.u.affine.a) : zero;
    *b = s.kind == VK_AFFINE ? lift(cx, *s.u.affine.b) : s;
    for (int i = 0; i < 2; i++) {
        const Val *v = i ? b : a;
        if (v->kind == VK_POISON) return false;
        if ((v->kind != VK_TENSOR && v->kind != VK_CONST) || v->t > LT_BOOL)
            return sema_error(cx, E026, s.loc, "step= is a number, not %s", val_text(cx, v)), false;
    }
    return true;
}

Val seq_scan(const Call *c) {
    Cx *cx = c->cx;
    Graph *g = cx->g;
    Val init = arg_tensor(c, 1), m = arg_mask(c, 3), a, b;
    DimId d;
    bool reverse = false;
    if (init.kind == VK_POISON || m.kind == VK_POISON || !arg_dim(c, 0, &m, &d) || !scan_step(c, &a, &b))
        return val_poison();
    if (c->arg[4]) {
        Val r = arg_eval(c, 4);
        if (r.kind == VK_POISON) return r;
        if (r.kind != VK_CONST || r.t != LT_BOOL)
            return val_error(cx, E015, r.loc, "reverse= is true or false");
        reverse = r.num != 0;
    }
    DType dt = DT_F32;
    ValueId in[4] = {as_real(cx, &init, dt), as_real(cx, &a, dt), as_real(cx, &b, dt), m.v};
    Type all = *val_type(cx, &m); /* a hidden micro of an operand goes to the mask too */
    for (int i = 0; i < 3; i++) {
        Val x = val_tensor(in[i], LT_F32, false), y = val_tensor(in[3], LT_BOOL, false);
        x.loc = i == 0 ? init.loc : c->arg[2]->loc;
        y.loc = m.loc;
        if (!visible_join(cx, x.loc, &x, &y)) return val_poison();
        const Type *t = value_type(g, in[i]);
        for (int k = 0; k < t->ndim; k++)
            if (!type_has(&all, t->dim[k])) {
                in[3] = b_expand(g, in[3], &t->dim[k], 1);
                all = *value_type(g, in[3]);
            }
    }
    for (int i = 1; i < 3; i++) in[i] = to_dims(cx, in[i], all.dim, all.ndim);
    ValueId out;
    if (!emit_checked(cx, OP_scan, in, 4, (Attr[]){at_dim(d), at_bool(reverse)}, 2, c->e->loc, &out))
        return val_poison();
    return val_tensor(out, LT_F32, init.grad || a.grad || b.grad);
}

/* ---- constants */

typedef struct {
    double *v;
    uint32_t n, cap;
    bool is_bool, is_int, is_token;
} Flat;

static bool flatten(const Call *c, const Val *list, const DimId *d, uint32_t nd, Flat *out) {
    Cx *cx = c->cx;
    if (nd == 0) {
        if (list->kind != VK_CONST || list->t > LT_TOKEN)
            return sema_error(cx, E026, list->loc, "tensor() holds constants, not %s", val_text(cx, list)),
                   false;
        GROW(cx->a, out->v, out->n, out->cap);
        out->v[out->n++] = list->num;
        out->is_bool &= list->t == LT_BOOL;
        out->is_int &= list->t == LT_INT || list->t == LT_TOKEN;
        out->is_token |= list->t == LT_TOKEN;
        return true;
    }
    int64_t size = cx->g->dim[d[0].i].size;
    if (list->kind != VK_LIST || list->u.list.n != size) {
        sema_error(cx, E024, list->loc, "`%s` has %lld places, here are %u", cx->g->dim[d[0].i].name,
                   (long long)size, list->kind == VK_LIST ? list->u.list.n : 1);
        return false;
    }
    for (uint32_t i = 0; i < list->u.list.n; i++)
        if (!flatten(c, &list->u.list.item[i], d + 1, nd - 1, out)) return false;
    return true;
}

/* The lower bound of a dim that the graph or a module declares with a range; without one coordinates start at
 * 0. */
static int64_t declared_base(const Call *c, const char *name) {
    const Stmt *st = NULL;
    if (c->sc->mod) {
        const Decl *d = module_find(c->sc->mod, name);
        st = d ? d->st : NULL;
    }
    Entry *e = st ? NULL : entry_find(c->cx, name);
    if (e && (e->kind == S_DIM || e->kind == S_IMPORT)) st = e->st;
    int64_t base = 0;
    if (!st || st->kind != S_DIM || !st->e || !st->e2) return 0;
    c->cx->quiet++;
    Val lo = eval(c->cx, &(Scope){.mod = e ? e->mod : c->sc->mod}, st->e);
    c->cx->quiet--;
    return val_whole(&lo, &base) ? base : 0;
}

static const char *const *declared_names(const Call *c, const char *name, int64_t *n) {
    Entry *e = entry_find(c->cx, name);
    if (!e || (e->kind != S_DIM && e->kind != S_IMPORT) || e->st->kind != S_DIM || e->st->names.n == 0)
        return NULL;
    *n = (int64_t)e->st->names.n;
    return e->st->names.name;
}

/* Dims of a tensor() of a test: known ones, or new ones as long as the list. */
static bool tensor_dims(const Call *c, const Val *list, DimId *d, uint32_t *nd) {
    Cx *cx = c->cx;
    const char *name[MAX_DIMS];
    Loc loc[MAX_DIMS];
    if (!dim_names(cx, c->arg[1], name, loc, nd)) return false;
    const Val *l = list;
    for (uint32_t i = 0; i < *nd; i++) {
        bool found;
        if (!cx->testing || dim_plain(cx, name[i], &d[i])) {
            if (!dim_lookup(cx, c->sc, name[i], loc[i], &d[i], &found)) {
                if (!found) sema_error(cx, E010, loc[i], "unknown dim `%s`", name[i]);
                return false;
            }
        } else {
            int64_t n, declared;
            if (l->kind != VK_LIST || l->u.list.n == 0)
                return sema_error(cx, E024, l->loc, "`%s` needs a list here", name[i]), false;
            n = (int64_t)l->u.list.n;
            const char *const *names = declared_names(c, name[i], &declared);
            if (names && declared != n)
                return sema_error(cx, E024, l->loc, "`%s` has %lld coordinates, here are %lld", name[i],
                                  (long long)declared, (long long)n),
                       false;
            d[i] = dim_make(cx, name[i], NULL, n, names ? 0 : declared_base(c, name[i]), names, loc[i]);
        }
        for (uint32_t k = 0; k < i; k++)
            if (d[k].i == d[i].i) return sema_error(cx, E020, loc[i], "the dim `%s` twice", name[i]), false;
        if (l->kind == VK_LIST && l->u.list.n) l = &l->u.list.item[0];
    }
    return true;
}

Val make_tensor(const Call *c) {
    Cx *cx = c->cx;
    Val list = arg_eval(c, 0);
    if (list.kind == VK_POISON) return list;
    DimId d[MAX_DIMS];
    uint32_t nd;
    Flat f = {.is_bool = true, .is_int = true};
    if (!tensor_dims(c, &list, d, &nd) || !flatten(c, &list, d, nd, &f)) return val_poison();
    LType t = f.is_bool ? LT_BOOL : f.is_token ? LT_TOKEN : f.is_int ? LT_INT : LT_F32;
    DType dt = f.is_bool ? DT_BOOL : f.is_token ? DT_I32 : DT_F32;
    Attr values = at_floats(cx->g, f.v, f.n);
    return val_tensor(build_leaf(cx->g, OP_tensor, type_make(dt, d, nd), &values, 1), t, false);
}

Val make_table(const Call *c) {
    Cx *cx = c->cx;
    Val dv = arg_eval(c, 0);
    if (dv.kind == VK_POISON) return dv;
    if (dv.kind != VK_DIM || !cx->dim[dv.dim.i].coord)
        return val_error(cx, E015, c->arg[0]->loc, "table takes a dim whose coordinates are names");
    int64_t size = cx->g->dim[dv.dim.i].size;
    ValueId *in = NEWN(cx->a, ValueId, size);
    bool *given = NEWN(cx->a, bool, size), grad = false;
    for (uint32_t i = 0; i < c->e->list.n; i++) {
        const NamedExpr *x = &c->e->list.item[i];
        if (!x->name || x->e == c->arg[0]) continue;
        int at = dim_coord(cx, dv.dim, x->name);
        if (at < 0)
            return val_error(cx, E023, x->loc, "`%s` has no coordinate `%s`", cx->dim[dv.dim.i].plain,
                             x->name);
        Val v = lift(cx, eval(cx, c->sc, x->e));
        if (v.kind == VK_POISON) return v;
        if ((v.kind != VK_TENSOR && !val_is_number(&v)) || v.t > LT_BOOL ||
            (v.kind == VK_TENSOR && val_type(cx, &v)->ndim))
            return val_error(cx, E026, x->loc, "table holds single numbers, not %s", val_text(cx, &v));
        in[at] = as_real(cx, &v, DT_F32);
        grad |= v.grad;
        given[at] = true;
    }
    for (int64_t i = 0; i < size; i++)
        if (!given[i])
            return val_error(cx, E015, c->e->loc, "table: nothing for `%s`", coord_text(cx, dv.dim, i));
    Attr d = at_dim(dv.dim);
    return val_tensor(build(cx->g, OP_stack, in, (uint32_t)size, &d, 1), LT_F32, grad);
}

Val make_size(const Call *c) {
    Val d = arg_eval(c, 0);
    if (d.kind == VK_POISON) return d;
    if (d.kind != VK_DIM)
        return val_error(c->cx, E015, c->arg[0]->loc, "size takes a dim, not %s", val_text(c->cx, &d));
    return val_num((double)c->cx->g->dim[d.dim.i].size, true);
}

Val make_expand(const Call *c) {
    Cx *cx = c->cx;
    Val x = lift(cx, arg_eval(c, 0));
    if (x.kind == VK_POISON) return x;
    if (x.kind == VK_CONST && x.t <= LT_BOOL)
        x = val_tensor(x.t == LT_BOOL ? as_mask(cx, &x) : as_real(cx, &x, DT_F32), x.t, false);
    if (x.kind != VK_TENSOR)
        return val_error(cx, E026, x.loc, "expand takes a value, not %s", val_text(cx, &x));
    Type t = *val_type(cx, &x);
    uint32_t n = 0;
    DimId to[MAX_DIMS];
    bool micro = t.ndim && t.dim[0].i == cx->g->micro.i; /* micro stays first */
    if (micro) to[n++] = t.dim[0];
    for (uint32_t i = 1; i < c->e->list.n; i++) {
        Val d = eval(cx, c->sc, c->e->list.item[i].e);
        if (d.kind == VK_POISON) return d;
        if (d.kind != VK_DIM)
            return val_error(cx, E015, c->e->list.item[i].loc, "expand takes dims after the value");
        bool there = type_has(&t, d.dim);
        for (uint32_t k = 0; k < n; k++) there |= to[k].i == d.dim.i;
        if (there) continue;
        if (n + t.ndim - micro >= MAX_DIMS)
            return val_error(cx, E015, c->e->loc, "a value has at most %d dims", MAX_DIMS);
        to[n++] = d.dim;
    }
    for (int i = micro; i < t.ndim; i++) to[n++] = t.dim[i];
    if (!dims_fit(cx, c->e->loc, to, n)) return val_poison();
    x.v = to_dims(cx, x.v, to, n);
    return x;
}
