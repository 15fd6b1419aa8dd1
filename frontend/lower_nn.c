/* lower_nn.c: the built-ins of models, and what may consume logits.
 *
 * The operand with `micro` goes first into a matmul, so that data dims lead in the result and the weight is
 * x1. */
#include "frontend/sema.h"

#include <string.h>

static bool both_have(const Call *c, const char *name, Loc loc, const Val *a, const Val *b, DimId *d) {
    Cx *cx = c->cx;
    for (int i = 0; i < 2; i++) {
        const Val *v = i ? b : a;
        if (dim_in(cx, val_type(cx, v), name, d)) continue;
        lacks_dim(cx, loc, name, v);
        return false;
    }
    return true;
}

Val nn_dot(const Call *c) {
    Cx *cx = c->cx;
    Val a = arg_tensor(c, 0), b = arg_tensor(c, 1);
    if (a.kind == VK_POISON || b.kind == VK_POISON) return val_poison();
    const char *name[MAX_DIMS];
    Loc loc[MAX_DIMS];
    DimId over[MAX_DIMS];
    uint32_t n;
    if (!dims_agree(cx, c->e->loc, &a, &b) || !dim_names(cx, c->arg[2], name, loc, &n)) return val_poison();
    for (uint32_t i = 0; i < n; i++) {
        if (!both_have(c, name[i], loc[i], &a, &b, &over[i])) return val_poison();
        if (!cx->g->dim[over[i].i].ragged) continue;
        Diag *g = sema_error(cx, E030, loc[i], "dot over `%s`, whose length differs from sample to sample",
                             name[i]);
        diag_help(cx->d, g, "sum(a * b, over=%s, where=mask) says what counts", name[i]);
        return val_poison();
    }
    const Type *ta = val_type(cx, &a), *tb = val_type(cx, &b);
    bool swap = cx->g->micro.i != UINT32_MAX && type_has(tb, cx->g->micro) && !type_has(ta, cx->g->micro);
    ValueId in[2] = {swap ? b.v : a.v, swap ? a.v : b.v}, out;
    Attr at = at_dims(cx->g, over, n);
    if (!emit_checked(cx, OP_matmul, in, 2, &at, 1, c->e->loc, &out)) return val_poison();
    Val r = val_tensor(out, LT_F32, a.grad || b.grad);
    r.nll = a.nll || b.nll;
    return r;
}

Val nn_rope(const Call *c) {
    Cx *cx = c->cx;
    Val x = arg_tensor(c, 0);
    DimId over, along;
    double theta;
    if (x.kind == VK_POISON || !arg_dim(c, 1, &x, &over) || !arg_dim(c, 2, &x, &along) ||
        !arg_num(c, 3, 10000, &theta))
        return val_poison();
    int64_t size = cx->g->dim[over.i].size;
    if (size % 2)
        return val_error(cx, E064, c->arg[1]->loc, "rope turns pairs, but `%s` has the odd size %lld",
                         cx->g->dim[over.i].name, (long long)size);
    DimId d[2] = {along, over};
    DType dt = val_type(cx, &x)->dt;
    Attr attr[] = {at_dim(along), at_dim(over), at_float(theta), at_int(cx->dim[along.i].base)};
    ValueId table = build_leaf(cx->g, OP_rope_table, type_make(dt, d, 2), attr, 4), out;
    if (!emit_checked(cx, OP_rope, (ValueId[]){x.v, table}, 2,
                      (Attr[]){at_dim(along), at_dim(over), at_none()}, 3, c->e->loc, &out))
        return val_poison();
    return val_tensor(out, LT_F32, x.grad);
}

Val nn_attention(const Call *c) {
    Cx *cx = c->cx;
    Val q = arg_tensor(c, 0), k = arg_tensor(c, 1), v = arg_tensor(c, 2);
    if (q.kind == VK_POISON || k.kind == VK_POISON || v.kind == VK_POISON) return val_poison();
    DimId along, over, same;
    if (!arg_dim(c, 3, &q, &along) || !arg_dim(c, 4, &q, &over)) return val_poison();
    if (!arg_dim(c, 3, &k, &same) || !arg_dim(c, 4, &k, &same) || !arg_dim(c, 3, &v, &same))
        return val_poison();
    if (!dims_agree(cx, c->e->loc, &q, &k) || !dims_agree(cx, c->e->loc, &q, &v) ||
        !dims_agree(cx, c->e->loc, &k, &v))
        return val_poison();
    if (c->arg[5]) {
        Val causal = arg_eval(c, 5);
        if (causal.kind == VK_POISON) return causal;
        if (causal.kind != VK_CONST || causal.t != LT_BOOL || causal.num == 0)
            return val_error(cx, E015, c->arg[5]->loc, "attention is causal in this version");
    }
    ValueId out;
    if (!emit_checked(cx, OP_attention, (ValueId[]){q.v, k.v, v.v}, 3, (Attr[]){at_dim(along), at_dim(over)},
                      2, c->e->loc, &out))
        return val_poison();
    return val_tensor(out, LT_F32, q.grad || k.grad || v.grad);
}

/* ---- over the vocabulary */

static bool logits_arg(const Call *c, int k, Val *x, DimId *cls) {
    Cx *cx = c->cx;
    *x = lift_any(cx, arg_eval(c, k));
    if (x->kind == VK_POISON) return false;
    if (x->kind != VK_TENSOR || x->t != LT_F32)
        return sema_error(cx, E026, x->loc, "`%s` takes logits, not %s", c->b->name, val_text(cx, x)), false;
    if (dim_in(cx, val_type(cx, x), "vocab", cls)) return true;
    lacks_dim(cx, x->loc, "vocab", x);
    return false;
}

Val nn_cross_entropy(const Call *c) {
    Cx *cx = c->cx;
    Val x, t;
    DimId cls;
    if (!logits_arg(c, 0, &x, &cls)) return val_poison();
    t = lift(cx, arg_eval(c, 1));
    if (t.kind == VK_POISON) return t;
    if (t.kind != VK_TENSOR || t.t != LT_TOKEN) {
        Diag *g = sema_error(cx, E026, t.loc, "the target of cross_entropy is of tokens");
        sema_span(cx, g, &t);
        return val_poison();
    }
    if (!dims_agree(cx, c->e->loc, &x, &t)) return val_poison();
    Type rows = *val_type(cx, &x);
    rows.ndim = 0;
    for (int i = 0; i < val_type(cx, &x)->ndim; i++)
        if (val_type(cx, &x)->dim[i].i != cls.i) rows.dim[rows.ndim++] = val_type(cx, &x)->dim[i];
    if (!same_visible(cx, &rows, val_type(cx, &t))) {
        Diag *g = sema_error(cx, E020, c->e->loc, "the logits have %s beside `vocab`, the target has %s",
                             dims_text(cx, &rows), dims_text(cx, val_type(cx, &t)));
        sema_span(cx, g, &t);
        return val_poison();
    }
    Attr at = at_dim(cls);
    ValueId out;
    if (!emit_checked(cx, OP_cross_entropy, (ValueId[]){x.v, t.v}, 2, &at, 1, c->e->loc, &out))
        return val_poison();
    Val r = val_tensor(out, LT_F32, x.grad);
    r.nll = true;
    return r;
}

Val nn_entropy(const Call *c) {
    Val x;
    DimId cls;
    if (!logits_arg(c, 0, &x, &cls)) return val_poison();
    Attr at = at_dim(cls);
    return val_tensor(build(c->cx->g, OP_entropy, &x.v, 1, &at, 1), LT_F32, x.grad);
}

Val nn_kl(const Call *c) {
    Cx *cx = c->cx;
    Val p, q;
    DimId cls, other;
    if (!logits_arg(c, 0, &p, &cls) || !logits_arg(c, 1, &q, &other) || !dims_agree(cx, c->e->loc, &p, &q))
        return val_poison();
    if (!same_visible(cx, val_type(cx, &p), val_type(cx, &q))) {
        Diag *g = sema_error(cx, E020, c->e->loc, "kl takes logits of the same dims, not %s and %s",
                             dims_text(cx, val_type(cx, &p)), dims_text(cx, val_type(cx, &q)));
        sema_span(cx, g, &p);
        sema_span(cx, g, &q);
        return val_poison();
    }
    Attr at = at_dim(cls);
    ValueId out;
    if (!emit_checked(cx, OP_kl, (ValueId[]){p.v, q.v}, 2, &at, 1, c->e->loc, &out)) return val_poison();
    return val_tensor(out, LT_F32, p.grad || q.grad);
}
