/* lower_ops.c: operators on symbolic values.
 *
 * Constants fold in f64. What is left becomes one element-wise node: operands get one real dtype, and where
 * no operand holds the dims of all (hidden `micro` on one side, a dim on the other) the largest is expanded.
 */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *text;
    Op op;
} bin_row[] = {
    [B_ADD] = {"+", OP_add}, [B_SUB] = {"-", OP_sub}, [B_MUL] = {"*", OP_mul}, [B_DIV] = {"/", OP_div},
    [B_POW] = {"^", OP_pow}, [B_EQ] = {"==", OP_eq},  [B_NE] = {"!=", OP_ne},  [B_LT] = {"<", OP_lt},
    [B_LE] = {"<=", OP_le},  [B_GT] = {">", OP_gt},   [B_GE] = {">=", OP_ge},  [B_AND] = {"and", OP_and},
    [B_OR] = {"or", OP_or},
};

static bool is_compare(BinOp op) {
    return op >= B_EQ && op <= B_GE;
}
static bool is_logic(BinOp op) {
    return op == B_AND || op == B_OR;
}

/* ---- from values to operands of the IR */

DType real_of(const Cx *cx, const Val *v) {
    if (v->kind == VK_TENSOR && dtype_real(val_type(cx, v)->dt)) return val_type(cx, v)->dt;
    return DT_F64; /* constants and masks take what the other has */
}

ValueId as_real(Cx *cx, const Val *v, DType dt) {
    if (v->kind == VK_CONST) return b_const(cx->g, dt, v->num);
    return b_cast(cx->g, v->v, dt);
}

ValueId as_mask(Cx *cx, const Val *v) {
    return v->kind == VK_CONST ? b_const(cx->g, DT_BOOL, v->num) : v->v;
}
ValueId as_token(Cx *cx, const Val *v) {
    return v->kind == VK_CONST ? b_const(cx->g, DT_I32, v->num) : v->v;
}

/* The dtype of arithmetic between two: f64 only where nothing is f32 (schedules, states, statistics). */
static DType common_real(const Cx *cx, const Val *a, const Val *b) {
    DType x = real_of(cx, a), y = real_of(cx, b);
    bool fixed = (a->kind == VK_TENSOR && a->t != LT_BOOL) || (b->kind == VK_TENSOR && b->t != LT_BOOL);
    return x == DT_F64 && y == DT_F64 && fixed ? DT_F64 : DT_F32;
}

ValueId emit_ew(Cx *cx, Op op, const ValueId *in, uint32_t n) {
    Graph *g = cx->g;
    ValueId x[3];
    Type all = {0};
    uint32_t big = 0;
    for (uint32_t i = 0; i < n; i++) {
        x[i] = in[i];
        const Type *t = value_type(g, x[i]);
        for (int k = 0; k < t->ndim; k++)
            if (!type_has(&all, t->dim[k]) && all.ndim < MAX_DIMS) all.dim[all.ndim++] = t->dim[k];
        if (t->ndim > value_type(g, x[big])->ndim) big = i;
    }
    bool held = false;
    for (uint32_t i = 0; i < n; i++) held |= type_holds(value_type(g, x[i]), &all);
    if (!held) {
        DimId add[MAX_DIMS];
        uint32_t nadd = 0;
        for (int k = 0; k < all.ndim; k++)
            if (!type_has(value_type(g, x[big]), all.dim[k])) add[nadd++] = all.dim[k];
        x[big] = b_expand(g, x[big], add, nadd);
    }
    return build(g, op, x, n, NULL, 0);
}

/* ---- constants */

static double fold(BinOp op, double a, double b) {
    switch (op) {
    case B_ADD:
        return a + b;
    case B_SUB:
        return a - b;
    case B_MUL:
        return a * b;
    case B_DIV:
        return a / b;
    case B_POW:
        return pow(a, b);
    case B_EQ:
        return a == b;
    case B_NE:
        return a != b;
    case B_LT:
        return a < b;
    case B_LE:
        return a <= b;
    case B_GT:
        return a > b;
    case B_GE:
        return a >= b;
    case B_AND:
        return a != 0 && b != 0;
    case B_OR:
        return a != 0 || b != 0;
    }
    return 0;
}

static Val fold_words(Cx *cx, BinOp op, const Val *a, const Val *b, Loc loc) {
    if (a->kind == VK_CONST && b->kind == VK_CONST && a->t == b->t && (op == B_EQ || op == B_NE))
        return val_bool((strcmp(a->str, b->str) == 0) == (op == B_EQ));
    Diag *g = sema_error(cx, E026, loc, "`%s` does not take %s and %s", bin_row[op].text, val_text(cx, a),
                         val_text(cx, b));
    diag_help(cx->d, g, "words are compared with == and != to words alone");
    return val_poison();
}

/* ---- affine in carry */

static Val affine_of(Cx *cx, Val a, Val b) {
    Val r = {.kind = VK_AFFINE};
    r.u.affine.a = NEW(cx->a, Val);
    r.u.affine.b = NEW(cx->a, Val);
    *r.u.affine.a = a;
    *r.u.affine.b = b;
    if (a.kind == VK_POISON || b.kind == VK_POISON) r.kind = VK_POISON;
    return r;
}

static Val not_affine(Cx *cx, Loc loc) {
    Diag *g = sema_error(cx, E050, loc, "step= is not affine in `carry`");
    diag_help(cx->d, g, "write it as a * carry + b, where a and b do not read carry");
    return val_poison();
}

static Val affine_bin(Cx *cx, BinOp op, Val a, Val b, Loc loc) {
    bool x = a.kind == VK_AFFINE, y = b.kind == VK_AFFINE;
    if (op == B_ADD || op == B_SUB) {
        Val xa = x ? *a.u.affine.a : val_num(0, true), xb = x ? *a.u.affine.b : a;
        Val ya = y ? *b.u.affine.a : val_num(0, true), yb = y ? *b.u.affine.b : b;
        Val slope = !y ? xa : !x && op == B_ADD ? ya : val_bin(cx, op, xa, ya, loc);
        return affine_of(cx, slope, val_bin(cx, op, xb, yb, loc));
    }
    if (op == B_MUL && x != y) {
        Val *f = x ? &b : &a, *c = x ? &a : &b;
        return affine_of(cx, val_bin(cx, B_MUL, *f, *c->u.affine.a, loc),
                         val_bin(cx, B_MUL, *f, *c->u.affine.b, loc));
    }
    if (op == B_DIV && x && !y)
        return affine_of(cx, val_bin(cx, B_DIV, *a.u.affine.a, b, loc),
                         val_bin(cx, B_DIV, *a.u.affine.b, b, loc));
    return not_affine(cx, loc);
}

/* ---- operators */

static Val wrong_operand(Cx *cx, Code code, const char *op, const Val *v, Loc loc, const char *help) {
    Diag *g = sema_error(cx, code, loc, "`%s` does not take %s", op, val_text(cx, v));
    sema_span(cx, g, v);
    if (help) diag_help(cx->d, g, "%s", help);
    return val_poison();
}

static bool is_value(const Val *v) {
    return v->kind == VK_TENSOR || v->kind == VK_CONST;
}
static bool is_word(const Val *v) {
    return v->kind == VK_CONST && (v->t == LT_STR || v->t == LT_SCOPE);
}

static Val token_bin(Cx *cx, BinOp op, Val a, Val b, Loc loc) {
    const Val *bad = a.t == LT_TOKEN ? &a : &b;
    if (op != B_EQ && op != B_NE)
        return wrong_operand(cx, E032, bin_row[op].text, bad, loc,
                             "tokens are no numbers: they have ==, !=, shifts and their use as an index");
    for (int i = 0; i < 2; i++) {
        const Val *v = i ? &b : &a;
        if (v->t != LT_TOKEN && !(v->kind == VK_CONST && v->t == LT_INT))
            return wrong_operand(cx, E032, bin_row[op].text, v, loc,
                                 "a token is compared to a token, `ignore` or a whole number");
    }
    if (a.kind == VK_CONST && b.kind == VK_CONST) return val_bool(fold(op, a.num, b.num) != 0);
    ValueId in[2] = {as_token(cx, &a), as_token(cx, &b)};
    return val_tensor(emit_ew(cx, bin_row[op].op, in, 2), LT_BOOL, false);
}

static Val logic_bin(Cx *cx, BinOp op, Val a, Val b, Loc loc) {
    if (a.t != LT_BOOL)
        return wrong_operand(cx, E031, bin_row[op].text, &a, loc,
                             "it joins masks; compare first, as in x > 0");
    if (b.t != LT_BOOL)
        return wrong_operand(cx, E031, bin_row[op].text, &b, loc,
                             "it joins masks; compare first, as in x > 0");
    if (a.kind == VK_CONST && b.kind == VK_CONST) return val_bool(fold(op, a.num, b.num) != 0);
    ValueId in[2] = {as_mask(cx, &a), as_mask(cx, &b)};
    return val_tensor(emit_ew(cx, bin_row[op].op, in, 2), LT_BOOL, false);
}

static LType arith_type(BinOp op, const Val *a, const Val *b) {
    if (is_compare(op)) return LT_BOOL;
    bool whole = (a->t == LT_INT || a->t == LT_BOOL) && (b->t == LT_INT || b->t == LT_BOOL);
    return whole && (op == B_ADD || op == B_SUB || op == B_MUL) ? LT_INT : LT_F32;
}

static void lint_weight(Cx *cx, const Val *a, const Val *b, Loc loc) {
    if ((a->nll && b->grad && !b->nll) || (b->nll && a->grad && !a->nll))
        sema_warn(cx, W060, loc,
                  "a weight with gradient multiplies a cross-entropy: the loss can fall by shrinking the "
                  "weights; wrap the weight in stop_grad()");
}

/* A mask is no weight, and neither is one number for all. */
static bool weighs(const Cx *cx, const Val *x, const Val *w) {
    return x->nll && !w->grad && w->kind == VK_TENSOR && w->t != LT_BOOL && val_type(cx, w)->ndim > 0 &&
           w->v.i != x->v.i;
}

static void note_weighted(Cx *cx, BinOp op, const Val *a, const Val *b, Val *r, Loc loc) {
    if (op == B_MUL) r->weighted = a->weighted || b->weighted || weighs(cx, a, b) || weighs(cx, b, a);
    if (op == B_DIV && a->weighted && b->counted)
        sema_warn(cx, W061, loc,
                  "a weighted sum over the count: the size of the weights acts as a learning rate; divide by "
                  "the sum of the weights");
    if (op == B_ADD) r->weighted = a->weighted || b->weighted;
    if (op == B_ADD) r->counted = a->counted && b->counted;
}

Val val_bin(Cx *cx, BinOp op, Val a, Val b, Loc loc) {
    if (a.kind == VK_POISON || b.kind == VK_POISON) return val_poison();
    if (is_word(&a) || is_word(&b)) return fold_words(cx, op, &a, &b, loc);
    a = lift(cx, a);
    b = lift(cx, b);
    if (a.kind == VK_POISON || b.kind == VK_POISON) return val_poison();
    if (a.kind == VK_AFFINE || b.kind == VK_AFFINE) return affine_bin(cx, op, a, b, loc);
    if (!is_value(&a)) return wrong_operand(cx, E026, bin_row[op].text, &a, loc, NULL);
    if (!is_value(&b)) return wrong_operand(cx, E026, bin_row[op].text, &b, loc, NULL);
    if (!visible_join(cx, loc, &a, &b)) return val_poison();
    if (a.t == LT_TOKEN || b.t == LT_TOKEN) return token_bin(cx, op, a, b, loc);
    if (is_logic(op)) return logic_bin(cx, op, a, b, loc);
    LType t = arith_type(op, &a, &b);
    if (a.kind == VK_CONST && b.kind == VK_CONST) {
        Val r = val_num(fold(op, a.num, b.num), t == LT_INT);
        r.t = t;
        return r;
    }
    if (op == B_POW && b.grad)
        return wrong_operand(cx, E026, "^", &b, loc, "the exponent has no gradient; wrap it in stop_grad()");
    if (op == B_MUL) lint_weight(cx, &a, &b, loc);
    DType dt = common_real(cx, &a, &b);
    if (op == B_POW && b.kind == VK_CONST && b.num == 2) { /* exact, and far cheaper */
        op = B_MUL;
        b = a;
    }
    ValueId in[2] = {as_real(cx, &a, dt), as_real(cx, &b, dt)};
    Val r = val_tensor(emit_ew(cx, bin_row[op].op, in, 2), t, !is_compare(op) && (a.grad || b.grad));
    r.nll = r.t != LT_BOOL && (a.nll || b.nll);
    note_weighted(cx, op, &a, &b, &r, loc);
    return r;
}

Val val_neg(Cx *cx, Val a, Loc loc) {
    if (a.kind == VK_CONST && a.t == LT_F32) return val_num(-a.num, false);
    if (a.kind == VK_CONST && (a.t == LT_INT || a.t == LT_BOOL)) return val_num(-a.num, true);
    if (a.kind == VK_AFFINE)
        return affine_of(cx, val_neg(cx, *a.u.affine.a, loc), val_neg(cx, *a.u.affine.b, loc));
    Val r = val_ew1(cx, OP_neg, a, loc);
    if (r.kind == VK_TENSOR && (a.t == LT_INT || a.t == LT_BOOL)) r.t = LT_INT;
    return r;
}

Val val_not(Cx *cx, Val a, Loc loc) {
    if (a.kind == VK_POISON) return a;
    if (!is_value(&a) || a.t != LT_BOOL) return wrong_operand(cx, E031, "not", &a, loc, "it negates a mask");
    if (a.kind == VK_CONST) return val_bool(a.num == 0);
    return val_tensor(emit_ew(cx, OP_not, &a.v, 1), LT_BOOL, false);
}

static const struct {
    Op op;
    double (*fn)(double);
} fold1[] = {
    {OP_exp, exp},   {OP_log, log}, {OP_sqrt, sqrt},   {OP_abs, fabs},
    {OP_tanh, tanh}, {OP_cos, cos}, {OP_floor, floor}, {OP_erf, erf},
};

static bool fold_ew1(Op op, double x, double *y) {
    for (size_t i = 0; i < WM_LEN(fold1); i++)
        if (fold1[i].op == op) {
            *y = fold1[i].fn(x);
            return true;
        }
    return false;
}

Val val_ew1(Cx *cx, Op op, Val a, Loc loc) {
    a = lift(cx, a);
    if (a.kind == VK_POISON) return a;
    const char *name = op_info[op].name;
    if (a.kind == VK_AFFINE) return not_affine(cx, loc);
    if (!is_value(&a)) return wrong_operand(cx, E026, name, &a, loc, "it takes numbers");
    if (a.t == LT_TOKEN) return wrong_operand(cx, E032, name, &a, loc, "tokens are no numbers");
    if (is_word(&a)) return wrong_operand(cx, E026, name, &a, loc, "it takes numbers");
    double y;
    if (a.kind == VK_CONST && fold_ew1(op, a.num, &y)) return val_num(y, false);
    DType dt = a.kind == VK_TENSOR && a.t != LT_BOOL ? val_type(cx, &a)->dt : DT_F32;
    ValueId in = as_real(cx, &a, dt);
    Val r = val_tensor(emit_ew(cx, op, &in, 1), LT_F32, a.grad);
    r.nll = a.nll;
    return r;
}

static Val where_affine(Cx *cx, Val m, Val a, Val b, Loc loc) {
    Val zero = val_num(0, true);
    Val aa = a.kind == VK_AFFINE ? *a.u.affine.a : zero, ab = a.kind == VK_AFFINE ? *a.u.affine.b : a;
    Val ba = b.kind == VK_AFFINE ? *b.u.affine.a : zero, bb = b.kind == VK_AFFINE ? *b.u.affine.b : b;
    return affine_of(cx, val_where(cx, m, aa, ba, loc), val_where(cx, m, ab, bb, loc));
}

Val val_where(Cx *cx, Val m, Val a, Val b, Loc loc) {
    m = lift(cx, m);
    a = lift(cx, a);
    b = lift(cx, b);
    if (m.kind == VK_POISON || a.kind == VK_POISON || b.kind == VK_POISON) return val_poison();
    if (!is_value(&m) || m.t != LT_BOOL)
        return wrong_operand(cx, E031, "where", &m, loc, "its first operand is a mask");
    if (a.kind == VK_AFFINE || b.kind == VK_AFFINE) return where_affine(cx, m, a, b, loc);
    if (!is_value(&a) || is_word(&a)) return wrong_operand(cx, E026, "where", &a, loc, NULL);
    if (!is_value(&b) || is_word(&b)) return wrong_operand(cx, E026, "where", &b, loc, NULL);
    if (!visible_join(cx, loc, &a, &b)) return val_poison();
    const Val *large =
        a.kind == VK_CONST || (b.kind == VK_TENSOR && type_holds(val_type(cx, &b), val_type(cx, &a))) ? &b
                                                                                                      : &a;
    if (!visible_join(cx, loc, large, &m)) return val_poison();
    bool token = a.t == LT_TOKEN || b.t == LT_TOKEN;
    if (token && ((a.t != LT_TOKEN && a.kind != VK_CONST) || (b.t != LT_TOKEN && b.kind != VK_CONST)))
        return wrong_operand(cx, E032, "where", a.t == LT_TOKEN ? &b : &a, loc,
                             "both branches are tokens, or none is");
    if (m.kind == VK_CONST && a.kind == VK_CONST && b.kind == VK_CONST) return m.num != 0 ? a : b;
    bool mask = a.t == LT_BOOL && b.t == LT_BOOL;
    LType t = token ? LT_TOKEN : mask ? LT_BOOL : a.t != LT_F32 && b.t != LT_F32 ? LT_INT : LT_F32;
    DType dt = common_real(cx, &a, &b);
    ValueId in[3] = {as_mask(cx, &m),
                     token  ? as_token(cx, &a)
                     : mask ? as_mask(cx, &a)
                            : as_real(cx, &a, dt),
                     token  ? as_token(cx, &b)
                     : mask ? as_mask(cx, &b)
                            : as_real(cx, &b, dt)};
    Val r = val_tensor(emit_ew(cx, OP_where, in, 3), t, a.grad || b.grad);
    r.nll = a.nll || b.nll;
    return r;
}

bool emit_checked(Cx *cx, Op op, const ValueId *in, uint32_t n, const Attr *attr, uint32_t nattr, Loc loc,
                  ValueId *out) {
    Type ty[4], result[MAX_OUT];
    uint32_t nout;
    const char *why = "";
    for (uint32_t i = 0; i < n && i < 4; i++) ty[i] = *value_type(cx->g, in[i]);
    Attr all[MAX_ATTR] = {{0}};
    memcpy(all, attr, nattr * sizeof *attr);
    if (!ir_infer(cx->g, op, ty, n, all, result, &nout, &why)) {
        sema_error(cx, E015, loc, "`%s`: %s", op_info[op].name, why);
        return false;
    }
    *out = build(cx->g, op, in, n, attr, nattr);
    return true;
}
