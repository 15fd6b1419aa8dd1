/* lower_builtin.c: the closed set of built-ins, one row each, and how their arguments are bound.
 *
 * Builtin.params is the signature: what E015 prints is read from it, so the messages cannot lag behind. */
#include "frontend/sema.h"

#include <string.h>

static Val fn_ew1(const Call *c) {
    return val_ew1(c->cx, c->b->op, arg_eval(c, 0), c->e->loc);
}

static Val fn_minmax(const Call *c) {
    Val a = lift(c->cx, arg_eval(c, 0)), b = lift(c->cx, arg_eval(c, 1));
    if (a.kind == VK_POISON || b.kind == VK_POISON) return val_poison();
    if (val_is_number(&a) && val_is_number(&b)) {
        bool second = c->b->op == OP_max ? b.num > a.num : b.num < a.num;
        return second ? b : a;
    }
    for (int i = 0; i < 2; i++) {
        const Val *v = i ? &b : &a;
        if (v->kind != VK_TENSOR && !val_is_number(v))
            return val_error(c->cx, E026, v->loc, "`%s` takes numbers, not %s", c->b->name,
                             val_text(c->cx, v));
        if (v->t == LT_TOKEN)
            return val_error(c->cx, E032, v->loc, "`%s` takes numbers, not tokens", c->b->name);
    }
    if (!visible_join(c->cx, c->e->loc, &a, &b)) return val_poison();
    bool f64 =
        real_of(c->cx, &a) == DT_F64 && real_of(c->cx, &b) == DT_F64 && (a.t == LT_F32 || b.t == LT_F32);
    DType dt = f64 ? DT_F64 : DT_F32;
    ValueId in[2] = {as_real(c->cx, &a, dt), as_real(c->cx, &b, dt)};
    Val r = val_tensor(emit_ew(c->cx, c->b->op, in, 2), a.t == LT_F32 || b.t == LT_F32 ? LT_F32 : LT_INT,
                       a.grad || b.grad);
    r.nll = a.nll || b.nll;
    r.counted = a.counted || b.counted;
    return r;
}

static bool scalar_bound(const Call *c, int k, Val *v) {
    *v = lift(c->cx, arg_eval(c, k));
    if (v->kind == VK_POISON) return false;
    bool number = val_is_number(v) || (v->kind == VK_TENSOR && v->t <= LT_INT &&
                                       !strcmp(dims_text(c->cx, val_type(c->cx, v)), "[]"));
    if (number && !v->grad) return true;
    Diag *g = sema_error(c->cx, v->grad ? E026 : E040, v->loc,
                         "the bounds of clip are single numbers without gradient");
    if (g->code == E040) g->code = E026;
    sema_span(c->cx, g, v);
    return false;
}

static Val fn_clip(const Call *c) {
    Val x = lift(c->cx, arg_eval(c, 0)), lo, hi;
    if (!scalar_bound(c, 1, &lo) || !scalar_bound(c, 2, &hi) || x.kind == VK_POISON) return val_poison();
    if (x.kind != VK_TENSOR && !val_is_number(&x))
        return val_error(c->cx, E026, x.loc, "clip takes numbers, not %s", val_text(c->cx, &x));
    if (x.t == LT_TOKEN) return val_error(c->cx, E032, x.loc, "clip takes numbers, not tokens");
    if (val_is_number(&x) && val_is_number(&lo) && val_is_number(&hi))
        return x.num < lo.num ? lo : x.num > hi.num ? hi : x;
    DType dt = x.kind == VK_TENSOR && x.t != LT_BOOL ? val_type(c->cx, &x)->dt : DT_F32;
    ValueId in[2] = {as_real(c->cx, &x, dt), as_real(c->cx, &hi, dt)};
    in[0] = emit_ew(c->cx, OP_min, in, 2);
    in[1] = as_real(c->cx, &lo, dt);
    Val r = val_tensor(emit_ew(c->cx, OP_max, in, 2), LT_F32, x.grad);
    r.nll = x.nll;
    return r;
}

static Val fn_where(const Call *c) {
    return val_where(c->cx, arg_eval(c, 0), arg_eval(c, 1), arg_eval(c, 2), c->e->loc);
}

static Val fn_stop_grad(const Call *c) {
    Val x = lift(c->cx, arg_eval(c, 0));
    if (x.kind != VK_TENSOR) return x;
    if (!x.grad) return x;
    Val r = val_tensor(b_ew1(c->cx->g, OP_stop_grad, x.v), x.t, false);
    r.nll = x.nll;
    return r;
}

static const Builtin table[] = {
    {"exp", fn_ew1, OP_exp, "x"},
    {"log", fn_ew1, OP_log, "x"},
    {"sqrt", fn_ew1, OP_sqrt, "x"},
    {"abs", fn_ew1, OP_abs, "x"},
    {"sigmoid", fn_ew1, OP_sigmoid, "x"},
    {"tanh", fn_ew1, OP_tanh, "x"},
    {"softplus", fn_ew1, OP_softplus, "x"},
    {"silu", fn_ew1, OP_silu, "x"},
    {"gelu", fn_ew1, OP_gelu, "x"},
    {"min", fn_minmax, OP_min, "a b"},
    {"max", fn_minmax, OP_max, "a b"},
    {"clip", fn_clip, NOP, "x lo hi"},
    {"where", fn_where, NOP, "m a b"},
    {"stop_grad", fn_stop_grad, NOP, "x"},
    {"expand", make_expand, NOP, "x ..."},
    {"sum", red_sum, NOP, "x over? per? where? scope?"},
    {"mean", red_mean, NOP, "x over? per? where? scope?"},
    {"var", red_var, NOP, "x over? per? where? scope? ddof?"},
    {"std", red_std, NOP, "x over? per? where? scope? ddof?"},
    {"count", red_count, NOP, "m over? per? where? scope?"},
    {"any", red_any, NOP, "m over? per? where? scope?"},
    {"all", red_all, NOP, "m over? per? where? scope?"},
    {"min_of", red_extreme, OP_min_of, "x over? per? where? scope?"},
    {"max_of", red_extreme, OP_max_of, "x over? per? where? scope?"},
    {"quantile", red_quantile, NOP, "x over? per? where? scope? q"},
    {"first", seq_first, OP_first, "m over!"},
    {"last", seq_first, OP_last, "m over!"},
    {"cumsum", seq_cumsum, NOP, "x over! where?"},
    {"scan", seq_scan, NOP, "d init! step! where! reverse?"},
    {"shuffle", seq_shuffle, NOP, "x over! where!"},
    {"argmax", seq_argmax, NOP, "x over?"},
    {"cross_entropy", nn_cross_entropy, NOP, "logits token"},
    {"entropy", nn_entropy, NOP, "logits"},
    {"kl", nn_kl, NOP, "p_logits q_logits"},
    {"table", make_table, NOP, "d ="},
    {"tensor", make_tensor, NOP, "list dims"},
    {"size", make_size, NOP, "d"},
    {"dot", nn_dot, NOP, "a b over!"},
    {"rope", nn_rope, NOP, "x over! along! theta!"},
    {"attention", nn_attention, NOP, "q k v along! over! causal?"},
    {"dropout", nn_dropout, NOP, "x p"},
    {"uniform", draw_uniform, NOP, "dims* lo? hi?"},
    {"normal", draw_normal, NOP, "dims* mean? std?"},
    {"lognormal", draw_lognormal, NOP, "dims mean! std!"},
    {"bernoulli", draw_bernoulli, NOP, "dims p"},
    {"constant", rate_constant, NOP, "x"},
    {"linear", rate_linear, NOP, "peak warmup? floor?"},
    {"cosine", rate_cosine, NOP, "peak warmup? floor?"},
    {"hold_decay", rate_hold_decay, NOP, "a b hold! decay!"},
    {"adamw", make_adamw, NOP, "lr betas? eps? wd? no_decay?"},
    {"sgd", make_sgd, NOP, "lr momentum? wd?"},
    {"lora", make_lora, NOP, "rank! alpha! dropout?"},
};

const Builtin *builtin_find(const char *name) {
    for (size_t i = 0; i < WM_LEN(table); i++)
        if (!strcmp(table[i].name, name)) return &table[i];
    return NULL;
}

uint32_t builtin_names(const char **names, uint32_t max) {
    uint32_t n = 0;
    for (size_t i = 0; i < WM_LEN(table) && n < max; i++) names[n++] = table[i].name;
    return n;
}

/* ---- binding of arguments */

typedef struct {
    const char *name;
    char mark;
} Param; /* mark: ' ' by place or name, else as Builtin.params */

static int params_of(Cx *cx, const Builtin *b, Param *p, char *more) {
    int n = 0;
    *more = 0;
    for (const char *s = b->params; *s;) {
        size_t len = strcspn(s, " ");
        if (!strncmp(s, "...", len) || (len == 1 && *s == '=')) {
            *more = *s;
        } else {
            char last = s[len - 1];
            bool marked = last == '?' || last == '!' || last == '*';
            p[n++] = (Param){arena_str(cx->a, s, len - marked), marked ? last : ' '};
        }
        s += len + (s[len] == ' ');
    }
    return n;
}

static const char *signature(Cx *cx, const Builtin *b, const Param *p, int n, char more) {
    Sbuf s;
    sb_init(&s, cx->a);
    sb_fmt(&s, "%s(", b->name);
    for (int i = 0; i < n; i++)
        sb_fmt(&s, "%s%s%s", i ? ", " : "", p[i].name, p[i].mark == '?' || p[i].mark == '!' ? "=" : "");
    sb_str(&s, more == '.' ? ", ..)" : more ? ", name=value, ..)" : ")");
    return s.s;
}

static bool bad_call(Cx *cx, const Builtin *b, const Param *p, int n, char more, Loc loc, const char *what,
                     const char *name) {
    Diag *g = sema_error(cx, E015, loc, what, b->name, name);
    diag_help(cx->d, g, "it is %s", signature(cx, b, p, n, more));
    return false;
}

static int place_of(const Param *p, int n, const Call *c) {
    for (int i = 0; i < n; i++)
        if ((p[i].mark == ' ' || p[i].mark == '*') && !c->arg[i]) return i;
    return -1;
}

static int name_of(const Param *p, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(p[i].name, name)) return i;
    return -1;
}

static bool bind(Cx *cx, Call *c) {
    Param p[MAX_PARAM];
    char more;
    int n = params_of(cx, c->b, p, &more);
    for (uint32_t i = 0; i < c->e->list.n; i++) {
        const NamedExpr *x = &c->e->list.item[i];
        int k = x->name ? name_of(p, n, x->name) : place_of(p, n, c);
        if (k < 0 && more && (more == '=') == (x->name != NULL)) continue;
        if (k < 0)
            return bad_call(cx, c->b, p, n, more, x->loc,
                            x->name ? "`%s` has no `%s=`" : "`%s` gets too many arguments%s",
                            x->name ? x->name : "");
        if (c->arg[k]) return bad_call(cx, c->b, p, n, more, x->loc, "`%s` gets `%s` twice", p[k].name);
        c->arg[k] = x->e;
    }
    for (int i = 0; i < n; i++)
        if (!c->arg[i] && (p[i].mark == ' ' || p[i].mark == '!'))
            return bad_call(cx, c->b, p, n, more, c->e->loc, "`%s`: `%s` is missing", p[i].name);
    return true;
}

Val builtin_call(Cx *cx, const Scope *sc, const Builtin *b, const Expr *e) {
    Call c = {.cx = cx, .sc = sc, .e = e, .b = b};
    if (!bind(cx, &c)) return val_poison();
    return b->fn(&c);
}

Val arg_eval(const Call *c, int k) {
    return eval(c->cx, c->sc, c->arg[k]);
}

bool arg_num(const Call *c, int k, double dflt, double *v) {
    *v = dflt;
    if (!c->arg[k]) return true;
    Val x = arg_eval(c, k);
    if (x.kind == VK_POISON) return false;
    if (!val_is_number(&x) || x.t == LT_BOOL) {
        Diag *g = sema_error(c->cx, E015, x.loc, "`%s` needs a number that is known when compiling here",
                             c->b->name);
        sema_span(c->cx, g, &x);
        return false;
    }
    *v = x.num;
    return true;
}

Val arg_tensor(const Call *c, int k) {
    Cx *cx = c->cx;
    Val x = lift(cx, arg_eval(c, k));
    if (x.kind == VK_POISON) return x;
    if (x.kind != VK_TENSOR && !val_is_number(&x))
        return val_error(cx, E026, x.loc, "`%s` takes numbers, not %s", c->b->name, val_text(cx, &x));
    if (x.t == LT_TOKEN) return val_error(cx, E032, x.loc, "`%s` takes numbers, not tokens", c->b->name);
    if (x.kind == VK_TENSOR && dtype_real(val_type(cx, &x)->dt)) return x;
    Val r = val_tensor(as_real(cx, &x, DT_F32), x.t == LT_F32 ? LT_F32 : LT_INT, false);
    r.loc = x.loc;
    return r;
}

Val arg_mask(const Call *c, int k) {
    Cx *cx = c->cx;
    Val m = lift(cx, arg_eval(c, k));
    if (m.kind == VK_POISON) return m;
    if ((m.kind != VK_TENSOR && m.kind != VK_CONST) || m.t != LT_BOOL) {
        Diag *g = sema_error(cx, E031, m.loc, "`%s` takes a mask here", c->b->name);
        sema_span(cx, g, &m);
        return val_poison();
    }
    Val r = val_tensor(as_mask(cx, &m), LT_BOOL, false);
    r.loc = m.loc;
    return r;
}

bool arg_dim(const Call *c, int k, const Val *x, DimId *d) {
    const char *name[MAX_DIMS];
    Loc loc[MAX_DIMS];
    uint32_t n;
    if (!dim_names(c->cx, c->arg[k], name, loc, &n)) return false;
    if (n != 1) return sema_error(c->cx, E015, c->arg[k]->loc, "`%s` takes one dim here", c->b->name), false;
    if (dim_in(c->cx, val_type(c->cx, x), name[0], d)) return true;
    lacks_dim(c->cx, loc[0], name[0], x);
    return false;
}
