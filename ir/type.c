/* type.c: types of results from those of operands, by the rule column of ops.def.
 *
 * A rule string with `...` speaks of operands aligned by name: one operand must hold the dims of all others
 * and gives the order; the letter r or R is what attribute `over` takes away. `@f` is a function of the table
 * at the end. Nothing here asks for `micro`: after localize the values of odd sections simply lack it. The
 * operands may come from a hostile file, so every failing case ends in a clear sentence, never in a check. */
#include "ir/ir.h"

#include <stdio.h>
#include <string.h>

static const int64_t max_elements = (int64_t)1 << 48;

typedef struct {
    const Graph *g;
    Op op;
    const Type *in;
    uint32_t nin;
    const Attr *attr;
    Type *out;
    uint32_t *nout;
    const char **why;
} Infer;

/* ---- small helpers */
#define FAIL(t, ...) (*(t)->why = arena_fmt((t)->g->arena, __VA_ARGS__), false)
static const char *dname(const Infer *t, DimId d) {
    return t->g->dim[d.i].name;
}
static const char *ttext(const Infer *t, const Type *ty) {
    return type_text(t->g->arena, t->g, ty);
}
static int64_t dsize(const Infer *t, DimId d) {
    return t->g->dim[d.i].size;
}
static const Attr *attr(const Infer *t, const char *name) {
    static const Attr absent = {AT_NONE, {0}};
    const OpInfo *f = &op_info[t->op];
    for (int k = 0; k < f->nattr; k++)
        if (strcmp(f->attr[k].name, name) == 0) return &t->attr[k];
    return &absent;
}
static DimId adim(const Infer *t, const char *name) {
    return attr(t, name)->u.dim;
}
static Type adims(const Infer *t, const char *name) { /* as a type, so that type_has and type_holds serve */
    const Attr *a = attr(t, name);
    Type r = {0};
    if (a->kind == AT_DIM) r = type_make(DT_F64, &a->u.dim, 1);
    if (a->kind == AT_DIMS) r = type_make(DT_F64, t->g->dimlist + a->u.list.at, a->u.list.n);
    return r;
}
static bool put(Infer *t, Type *r, DimId d) {
    if (type_has(r, d)) return FAIL(t, "the result would have dim %s twice", dname(t, d));
    if (r->ndim == MAX_DIMS) return FAIL(t, "the result would have more than %d dims", MAX_DIMS);
    r->dim[r->ndim++] = d;
    return true;
}
static bool put_all(Infer *t, Type *r, const Type *from, const Type *without) {
    for (int k = 0; k < from->ndim; k++)
        if (!(without && type_has(without, from->dim[k])) && !put(t, r, from->dim[k])) return false;
    return true;
}
static bool same_dims(const Type *a, const Type *b) {
    return a->ndim == b->ndim && type_holds(a, b);
}
static bool same_order(const Type *a, const Type *b) {
    for (int k = 0; k < a->ndim && k < b->ndim; k++)
        if (a->dim[k].i != b->dim[k].i) return false;
    return a->ndim == b->ndim;
}
static DType wide(DType d) {
    return d == DT_BF16 ? DT_F32 : d;
} /* losses and statistics of bf16 operands are f32 */
static void result1(Infer *t, Type r) {
    t->out[0] = r;
    *t->nout = 1;
}
static bool need_dim(Infer *t, uint32_t k, DimId d) {
    if (type_has(&t->in[k], d)) return true;
    return FAIL(t, "operand %u, %s, has no dim %s", k, ttext(t, &t->in[k]), dname(t, d));
}
static bool no_dim(Infer *t, uint32_t k, DimId d) {
    if (!type_has(&t->in[k], d)) return true;
    return FAIL(t, "operand %u, %s, already has dim %s", k, ttext(t, &t->in[k]), dname(t, d));
}
static bool need_real(Infer *t, uint32_t k) {
    if (dtype_real(t->in[k].dt)) return true;
    return FAIL(t, "operand %u is %s; a real number is needed", k, dtype_name[t->in[k].dt]);
}
static bool need_dtype(Infer *t, uint32_t k, DType dt) {
    if (t->in[k].dt == dt) return true;
    return FAIL(t, "operand %u is %s; %s is needed", k, dtype_name[t->in[k].dt], dtype_name[dt]);
}
static bool need_like(Infer *t, uint32_t k, uint32_t like) { /* both real and of one dtype */
    if (!need_real(t, k) || !need_real(t, like)) return false;
    if (t->in[k].dt == t->in[like].dt) return true;
    return FAIL(t, "operand %u is %s but operand %u is %s; cast one of them", k, dtype_name[t->in[k].dt],
                like, dtype_name[t->in[like].dt]);
}
static bool need_type(Infer *t, uint32_t k, const Type *want) {
    if (type_equal(&t->in[k], want)) return true;
    return FAIL(t, "operand %u is %s; %s is needed", k, ttext(t, &t->in[k]), ttext(t, want));
}
/* The operand among in[0 .. n) that holds the dims of all others; -1 with a reason. */
static int holder(Infer *t, const Type *in, uint32_t n) {
    uint32_t h = 0;
    for (uint32_t k = 1; k < n; k++)
        if (in[k].ndim > in[h].ndim) h = k;
    for (uint32_t k = 0; k < n; k++) {
        if (type_holds(&in[h], &in[k])) continue;
        *t->why = arena_fmt(t->g->arena, "operands %s and %s: neither has all dims of the other",
                            ttext(t, &in[h]), ttext(t, &in[k]));
        return -1;
    }
    return (int)h;
}

/* ---- attributes: present, of the right kind, ids and lists in range */
static bool check_list(Infer *t, const char *name, const Attr *a) {
    const Graph *g = t->g;
    uint64_t end = (uint64_t)a->u.list.at + a->u.list.n;
    uint64_t have = a->kind == AT_DIMS ? g->ndimlist : a->kind == AT_INTS ? g->nintlist : g->nfloatlist;
    if (end > have) return FAIL(t, "%s is a list beyond the lists of the graph", name);
    if (a->kind != AT_DIMS) return true;
    if (a->u.list.n > MAX_DIMS)
        return FAIL(t, "%s has %u dims; at most %d are allowed", name, a->u.list.n, MAX_DIMS);
    const DimId *d = g->dimlist + a->u.list.at;
    for (uint32_t k = 0; k < a->u.list.n; k++) {
        if (d[k].i >= g->ndim) return FAIL(t, "%s names a dim that does not exist", name);
        for (uint32_t j = 0; j < k; j++)
            if (d[j].i == d[k].i) return FAIL(t, "%s has dim %s twice", name, dname(t, d[k]));
    }
    return true;
}
static bool check_attrs(Infer *t) {
    const OpInfo *f = &op_info[t->op];
    for (int k = 0; k < f->nattr; k++) {
        const Attr *a = &t->attr[k];
        if (a->kind == AT_NONE) {
            if (!f->attr[k].optional) return FAIL(t, "attribute %s is missing", f->attr[k].name);
            continue;
        }
        if (a->kind != f->attr[k].kind) return FAIL(t, "attribute %s has the wrong kind", f->attr[k].name);
        if (a->kind == AT_DIM && a->u.dim.i >= t->g->ndim)
            return FAIL(t, "%s names a dim that does not exist", f->attr[k].name);
        if ((a->kind == AT_DIMS || a->kind == AT_INTS || a->kind == AT_FLOATS) &&
            !check_list(t, f->attr[k].name, a))
            return false;
        if (a->kind == AT_DT && (a->u.dt < 0 || a->u.dt >= NDTYPE)) return FAIL(t, "no such dtype");
        if (a->kind == AT_STR && !a->u.s) return FAIL(t, "attribute %s has no text", f->attr[k].name);
    }
    return true;
}

/* ---- rule strings */
/* Operands of element-wise ops: the first letter of the sample says bool or real; these rows take more. */
static bool ew_dtypes(Infer *t) {
    static const struct {
        Op op;
        bool i32, boolean;
    } more[] = {
        {OP_eq, true, true},      {OP_ne, true, true},      {OP_lt, true, false},  {OP_le, true, false},
        {OP_gt, true, false},     {OP_ge, true, false},     {OP_cast, true, true}, {OP_stop_grad, true, true},
        {OP_max_of, true, false}, {OP_min_of, true, false},
    };
    const OpInfo *f = &op_info[t->op];
    bool boolean = false, i32 = false, real = f->sample[0] != 'm';
    for (size_t k = 0; k < WM_LEN(more); k++) {
        if (more[k].op != t->op) continue;
        i32 = more[k].i32;
        boolean = more[k].boolean;
    }
    for (uint32_t k = 0; k < t->nin; k++) {
        DType d = t->in[k].dt;
        if (!real && d != DT_BOOL) return need_dtype(t, k, DT_BOOL);
        if (real && !dtype_real(d) && !(i32 && d == DT_I32) && !(boolean && d == DT_BOOL))
            return need_real(t, k);
        if (d != t->in[0].dt)
            return FAIL(t, "operand 0 is %s but operand %u is %s; cast one of them", dtype_name[t->in[0].dt],
                        k, dtype_name[d]);
    }
    return true;
}
static bool ew_dtype_result(Infer *t, Type *r) {
    if (t->op == OP_where || t->op == OP_shuffle) {
        uint32_t mask = t->op == OP_where ? 0 : 1;
        if (!need_dtype(t, mask, DT_BOOL)) return false;
        if (t->op == OP_where && t->in[1].dt != t->in[2].dt)
            return FAIL(t, "the branches are %s and %s; cast one of them", dtype_name[t->in[1].dt],
                        dtype_name[t->in[2].dt]);
        r->dt = t->in[1 - mask].dt;
        return true;
    }
    if (!ew_dtypes(t)) return false;
    r->dt = op_info[t->op].flags & F_BOOL ? DT_BOOL : t->op == OP_cast ? attr(t, "to")->u.dt : t->in[0].dt;
    return true;
}
static bool infer_rule(Infer *t, const char *rule) {
    int h = holder(t, t->in, t->nin);
    if (h < 0) return false;
    Type over = adims(t, "over"), r = {0};
    for (int k = 0; k < over.ndim; k++)
        if (!need_dim(t, (uint32_t)h, over.dim[k])) return false;
    bool contracts = rule[3] == 'r' || rule[3] == 'R';
    if (!put_all(t, &r, &t->in[h], contracts ? &over : NULL) || !ew_dtype_result(t, &r)) return false;
    result1(t, r);
    return true;
}

static bool sizes_ok(Infer *t) {
    for (uint32_t k = 0; k < *t->nout; k++) {
        int64_t n = 1; /* a later 0 does not excuse an earlier overflow */
        for (int j = 0; j < t->out[k].ndim; j++) {
            int64_t s = dsize(t, t->out[k].dim[j]);
            if (s < 0) return FAIL(t, "dim %s has a negative size", dname(t, t->out[k].dim[j]));
            if (s > max_elements / (n ? n : 1))
                return FAIL(t, "result %u, %s, has more than 2^48 elements", k, ttext(t, &t->out[k]));
            n *= s ? s : 1;
        }
    }
    return true;
}

/* ---- leaves: out[0] is the written type; here it is checked against the attributes */
static bool exact_dims(Infer *t, DimId a, DimId b, uint32_t n) {
    DimId d[2] = {a, b};
    Type want = type_make(t->out[0].dt, d, n);
    if (same_order(&want, &t->out[0])) return true;
    return FAIL(t, "its type is %s; %s is needed", ttext(t, &t->out[0]), ttext(t, &want));
}
static bool infer_leaf(Infer *t) {
    const Type *r = &t->out[0];
    *t->nout = 1;
    if (r->dt < 0 || r->dt >= NDTYPE || r->ndim > MAX_DIMS) return FAIL(t, "its type is malformed");
    Type seen = {0};
    for (int k = 0; k < r->ndim; k++) {
        if (r->dim[k].i >= t->g->ndim) return FAIL(t, "its type names a dim that does not exist");
        if (!put(t, &seen, r->dim[k])) return false;
    }
    bool must_real = t->op == OP_param || t->op == OP_uniform || t->op == OP_normal || t->op == OP_rope_table;
    if (must_real && !dtype_real(r->dt)) return FAIL(t, "its type is %s; it must be real", ttext(t, r));
    if (!sizes_ok(t)) return false;
    if (t->op == OP_tensor && (int64_t)attr(t, "values")->u.list.n != type_count(t->g, r))
        return FAIL(t, "%u values for %s", attr(t, "values")->u.list.n, ttext(t, r));
    if (t->op == OP_iota && r->dt == DT_BOOL) return FAIL(t, "coordinates are real or i32, not bool");
    if (t->op == OP_scalar && r->dt != DT_F64) return FAIL(t, "its type is %s; f64[] is needed", ttext(t, r));
    if (t->op == OP_const || t->op == OP_scalar) return exact_dims(t, (DimId){0}, (DimId){0}, 0);
    if (t->op == OP_iota) return exact_dims(t, adim(t, "dim"), (DimId){0}, 1);
    if (t->op == OP_rope_table) {
        if (dsize(t, adim(t, "over")) % 2)
            return FAIL(t, "dim %s has an odd size", dname(t, adim(t, "over")));
        return exact_dims(t, adim(t, "along"), adim(t, "over"), 2);
    }
    return true;
}

/* ---- shapes */
static bool infer_expand(Infer *t) {
    Type r = adims(t, "dims");
    for (int k = 0; k < r.ndim; k++)
        if (!no_dim(t, 0, r.dim[k])) return false;
    if (!put_all(t, &r, &t->in[0], NULL)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool infer_matmul(Infer *t) {
    if (!need_like(t, 1, 0)) return false;
    Type over = adims(t, "over"), r = {0};
    for (int k = 0; k < over.ndim; k++)
        if (!need_dim(t, 0, over.dim[k]) || !need_dim(t, 1, over.dim[k])) return false;
    if (!put_all(t, &r, &t->in[0], &over)) return false;
    for (int k = 0; k < t->in[1].ndim; k++)
        if (!type_has(&t->in[0], t->in[1].dim[k]) && !put(t, &r, t->in[1].dim[k])) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool infer_gather(Infer *t) {
    DimId cls = adim(t, "cls");
    if (!need_real(t, 0) || !need_dtype(t, 1, DT_I32) || !need_dim(t, 0, cls) || !no_dim(t, 1, cls))
        return false;
    Type r = t->in[1], gone = type_make(DT_F64, &cls, 1);
    if (!put_all(t, &r, &t->in[0], &gone)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool infer_scatter_add(Infer *t) {
    DimId cls = adim(t, "cls");
    Type over = adims(t, "over"), r = {0};
    if (!need_real(t, 0) || !need_dtype(t, 1, DT_I32) || !no_dim(t, 0, cls)) return false;
    for (int k = 0; k < t->in[1].ndim; k++)
        if (!need_dim(t, 0, t->in[1].dim[k])) return false;
    for (int k = 0; k < over.ndim; k++)
        if (!need_dim(t, 1, over.dim[k])) return false;
    if (!put_all(t, &r, &t->in[1], &over) || !put(t, &r, cls) || !put_all(t, &r, &t->in[0], &t->in[1]))
        return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool shift_attrs(Infer *t, Type *add) {
    *add = adims(t, "add");
    const Attr *f = attr(t, "factor");
    uint32_t n = f->kind == AT_INTS ? f->u.list.n : 0;
    if (n != add->ndim) return FAIL(t, "add has %d dims but factor %u numbers", add->ndim, n);
    int64_t limit = (int64_t)1 << 40, by = attr(t, "by")->u.i; /* so that t + by + factor * e fits 64 bits */
    if (by > limit || by < -limit) return FAIL(t, "by is %lld; at most 2^40 is allowed", (long long)by);
    for (uint32_t k = 0; k < n; k++) {
        int64_t v = t->g->intlist[f->u.list.at + k];
        if (v > 4096 || v < -4096) return FAIL(t, "factor is %lld; at most 4096 is allowed", (long long)v);
    }
    return need_dim(t, 0, adim(t, "dim"));
}
static bool infer_shift(Infer *t) {
    Type add, r = t->in[0];
    if (!shift_attrs(t, &add)) return false;
    for (int k = 0; k < add.ndim; k++)
        if (!no_dim(t, 0, add.dim[k])) return false;
    if (!put_all(t, &r, &add, NULL)) return false;
    result1(t, r);
    return true;
}
static bool infer_shift_grad(Infer *t) {
    Type add, r = {0};
    if (!need_real(t, 0) || !shift_attrs(t, &add)) return false;
    if (type_has(&add, adim(t, "dim"))) return FAIL(t, "add holds dim %s itself", dname(t, adim(t, "dim")));
    for (int k = 0; k < add.ndim; k++)
        if (!need_dim(t, 0, add.dim[k])) return false;
    if (!put_all(t, &r, &t->in[0], &add)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool index_ok(Infer *t) {
    int64_t k = attr(t, "index")->u.i, n = dsize(t, adim(t, "dim"));
    if (k >= 0 && k < n) return true;
    return FAIL(t, "index %lld is outside dim %s of size %lld", (long long)k, dname(t, adim(t, "dim")),
                (long long)n);
}
static bool infer_select(Infer *t) {
    DimId d = adim(t, "dim");
    Type r = {0}, gone = type_make(DT_F64, &d, 1);
    if (!need_dim(t, 0, d) || !index_ok(t) || !put_all(t, &r, &t->in[0], &gone)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
/* A new dim comes first, but after micro where the operand begins with micro. */
static bool new_first(Infer *t, DimId d) {
    const Type *x = &t->in[0];
    Type r = {0};
    r.dt = x->dt;
    bool micro = x->ndim > 0 && x->dim[0].i == t->g->micro.i;
    if (micro && !put(t, &r, x->dim[0])) return false;
    if (!put(t, &r, d)) return false;
    for (int k = micro; k < x->ndim; k++)
        if (!put(t, &r, x->dim[k])) return false;
    result1(t, r);
    return true;
}
static bool infer_place(Infer *t) {
    DimId d = adim(t, "dim");
    return no_dim(t, 0, d) && index_ok(t) && new_first(t, d);
}
static bool infer_stack(Infer *t) {
    DimId d = adim(t, "dim");
    if (t->nin == 0) return FAIL(t, "no operands");
    if (t->nin != dsize(t, d))
        return FAIL(t, "%u operands for dim %s of size %lld", t->nin, dname(t, d), (long long)dsize(t, d));
    for (uint32_t k = 1; k < t->nin; k++)
        if (!need_type(t, k, &t->in[0])) return false;
    return no_dim(t, 0, d) && new_first(t, d);
}
static bool infer_transpose(Infer *t) {
    Type r = adims(t, "to");
    r.dt = t->in[0].dt;
    if (!same_dims(&r, &t->in[0])) return FAIL(t, "%s cannot become %s", ttext(t, &t->in[0]), ttext(t, &r));
    result1(t, r);
    return true;
}
static bool infer_rope(Infer *t) {
    DimId d[2] = {adim(t, "along"), adim(t, "over")};
    if (!need_like(t, 1, 0) || !need_dim(t, 0, d[0]) || !need_dim(t, 0, d[1])) return false;
    Type table = type_make(t->in[1].dt, d, 2);
    if (d[0].i == d[1].i) return FAIL(t, "along and over are one dim");
    if (dsize(t, d[1]) % 2)
        return FAIL(t, "dim %s has the odd size %lld", dname(t, d[1]), (long long)dsize(t, d[1]));
    if (!need_type(t, 1, &table)) return false;
    result1(t, t->in[0]);
    return true;
}

/* ---- attention. Key heads: the dim that k has and q has not; query heads: the dim that q has and k has not.
 */
static bool attention_heads(Infer *t) {
    const Type *q = &t->in[0], *k = &t->in[1], *v = &t->in[2];
    DimId along = adim(t, "along"), over = adim(t, "over"), qh = {UINT32_MAX}, kh = {UINT32_MAX};
    if (along.i == over.i) return FAIL(t, "along and over are one dim");
    for (uint32_t j = 0; j < 3; j++)
        if (!need_dim(t, j, along) || (j < 2 && !need_dim(t, j, over)) || !need_like(t, j, 0)) return false;
    for (int j = 0; j < q->ndim; j++) {
        if (type_has(k, q->dim[j])) continue;
        if (qh.i != UINT32_MAX)
            return FAIL(t, "%s and %s are only in q; one is allowed", dname(t, qh), dname(t, q->dim[j]));
        qh = q->dim[j];
        if (type_has(v, qh)) return FAIL(t, "v has %s, which q has and k has not", dname(t, qh));
    }
    for (int j = 0; j < k->ndim; j++) {
        bool common = type_has(q, k->dim[j]);
        if (k->dim[j].i != over.i && !need_dim(t, 2, k->dim[j])) return false;
        if (common) continue;
        if (kh.i != UINT32_MAX)
            return FAIL(t, "%s and %s are only in k; one is allowed", dname(t, kh), dname(t, k->dim[j]));
        kh = k->dim[j];
    }
    int64_t nq = qh.i == UINT32_MAX ? 1 : dsize(t, qh), nk = kh.i == UINT32_MAX ? 1 : dsize(t, kh);
    if (nk == 0 || nq % nk)
        return FAIL(t, "%lld query heads do not share %lld key heads evenly", (long long)nq, (long long)nk);
    return true;
}
static bool attention_types(Infer *t, Type *o, Type *lse) {
    if (!attention_heads(t)) return false;
    const Type *q = &t->in[0], *k = &t->in[1], *v = &t->in[2];
    DimId over = adim(t, "over");
    *o = *lse = (Type){0};
    for (int j = 0; j < q->ndim; j++) {
        if (q->dim[j].i != over.i) {
            if (!put(t, o, q->dim[j]) || !put(t, lse, q->dim[j])) return false;
            continue;
        }
        for (int m = 0; m < v->ndim; m++) /* what v has of its own stands where over stood */
            if ((v->dim[m].i == over.i || !type_has(k, v->dim[m])) && !put(t, o, v->dim[m])) return false;
    }
    o->dt = q->dt;
    lse->dt = wide(q->dt);
    return true;
}
static bool infer_attention(Infer *t) {
    *t->nout = 2;
    return attention_types(t, &t->out[0], &t->out[1]);
}
static bool infer_attention_grad(Infer *t) {
    Type o, lse;
    if (!attention_types(t, &o, &lse) || !need_type(t, 3, &o) || !need_type(t, 4, &lse) ||
        !need_type(t, 5, &o))
        return false;
    memcpy(t->out, t->in, 3 * sizeof *t->out);
    *t->nout = 3;
    return true;
}

/* ---- losses over a vocabulary */
static bool infer_cls1(Infer *t) { /* entropy, kl: logits only */
    DimId cls = adim(t, "cls");
    int h = holder(t, t->in, t->nin);
    Type r = {0}, gone = type_make(DT_F64, &cls, 1);
    if (h < 0) return false;
    for (uint32_t k = 0; k < t->nin; k++)
        if (!need_like(t, k, 0) || !need_dim(t, k, cls)) return false;
    if (!put_all(t, &r, &t->in[h], &gone)) return false;
    r.dt = wide(t->in[0].dt);
    result1(t, r);
    return true;
}
static bool infer_cls2(Infer *t) { /* cross_entropy: logits and target */
    DimId cls = adim(t, "cls");
    Type gone = type_make(DT_F64, &cls, 1), rows[2] = {{0}, t->in[1]};
    if (!need_real(t, 0) || !need_dtype(t, 1, DT_I32) || !need_dim(t, 0, cls) || !no_dim(t, 1, cls))
        return false;
    if (!put_all(t, &rows[0], &t->in[0], &gone)) return false;
    int h = holder(t, rows, 2);
    if (h < 0) return false;
    rows[h].dt = wide(t->in[0].dt);
    result1(t, rows[h]);
    return true;
}
static bool infer_argmax(Infer *t) {
    DimId over = adim(t, "over");
    Type r = {0}, gone = type_make(DT_F64, &over, 1);
    if (!need_real(t, 0) || !need_dim(t, 0, over) || !put_all(t, &r, &t->in[0], &gone)) return false;
    const Attr *token = attr(t, "token");
    r.dt = token->kind == AT_BOOL && token->u.b ? DT_I32 : t->in[0].dt;
    if (dsize(t, over) == 0) return FAIL(t, "dim %s is empty", dname(t, over));
    result1(t, r);
    return true;
}
/* h [rows.., over] and W [cls, over], operands `at` and `at` + 1: the layout that the kernels walk, so exact.
 */
static bool head_types(Infer *t, uint32_t at, const char *over_name, Type *rows) {
    const Type *h = &t->in[at];
    Type over = adims(t, over_name), w = {0};
    DimId cls = adim(t, "cls");
    if (!need_like(t, at + 1, at)) return false;
    *rows = (Type){0};
    rows->dt = wide(h->dt);
    w.dt = t->in[at + 1].dt;
    if (over.ndim == 0) return FAIL(t, "%s is empty", over_name);
    if (!put(t, &w, cls) || !put_all(t, &w, &over, NULL) || !need_type(t, at + 1, &w)) return false;
    if (!put_all(t, rows, h, &over)) return false;
    Type want = *rows;
    want.dt = h->dt;
    if (type_has(rows, cls) || !put_all(t, &want, &over, NULL))
        return FAIL(t, "operand %u, %s, has dim %s", at, ttext(t, h), dname(t, cls));
    if (dsize(t, cls) == 0) return FAIL(t, "dim %s is empty", dname(t, cls));
    return need_type(t, at, &want);
}
static bool head_target(Infer *t, uint32_t k, const Type *rows) {
    Type want = *rows;
    want.dt = DT_I32;
    return need_type(t, k, &want);
}
/* dW: what is left of the rows, then cls and over; accumulated, so f32 where W is bf16. */
static bool head_dw(Infer *t, uint32_t at, const char *over_name, const Type *rows, Type *dw) {
    Type row = adims(t, "row"), over = adims(t, over_name);
    if (!type_holds(rows, &row))
        return FAIL(t, "row holds a dim that the rows %s do not have", ttext(t, rows));
    *dw = (Type){0};
    dw->dt = wide(t->in[at + 1].dt);
    return put_all(t, dw, rows, &row) && put(t, dw, adim(t, "cls")) && put_all(t, dw, &over, NULL);
}
static bool infer_linear_ce(Infer *t) {
    Type rows;
    if (!head_types(t, 0, "over", &rows) || !head_target(t, 2, &rows)) return false;
    for (int k = 0; k < 4; k++) t->out[k] = rows;
    t->out[3].dt = DT_I32;
    *t->nout = 4;
    return true;
}
static bool infer_linear_ce_grad(Infer *t) {
    Type rows;
    if (t->nin != 5 && t->nin != 7) return FAIL(t, "%u operands; 5 or 7 are needed", t->nin);
    if (!head_types(t, 0, "over", &rows) || !head_target(t, 2, &rows)) return false;
    for (uint32_t k = 3; k < t->nin; k++)
        if (!need_type(t, k, &rows)) return false;
    t->out[0] = t->in[0];
    *t->nout = 2;
    return head_dw(t, 0, "over", &rows, &t->out[1]);
}
static bool infer_linear_ce_fb(Infer *t) {
    Type rows;
    if (!head_types(t, 0, "over", &rows) || !head_target(t, 2, &rows) || !need_type(t, 3, &rows))
        return false;
    for (int k = 0; k < 4; k++) t->out[k] = rows;
    t->out[3].dt = DT_I32;
    t->out[4] = t->in[0];
    *t->nout = 6;
    return head_dw(t, 0, "over", &rows, &t->out[5]);
}
static bool kl_rows(Infer *t, Type rows[2]) {
    if (!head_types(t, 0, "over", &rows[0]) || !head_types(t, 2, "over2", &rows[1])) return false;
    if (type_equal(&rows[0], &rows[1])) return true;
    return FAIL(t, "the two heads have the rows %s and %s", ttext(t, &rows[0]), ttext(t, &rows[1]));
}
static bool infer_linear_kl(Infer *t) {
    Type rows[2];
    if (!kl_rows(t, rows)) return false;
    for (int k = 0; k < 3; k++) t->out[k] = rows[0];
    *t->nout = 3;
    return true;
}
static bool infer_linear_kl_grad(Infer *t) {
    Type rows[2];
    if (!kl_rows(t, rows)) return false;
    for (uint32_t k = 4; k < 7; k++)
        if (!need_type(t, k, &rows[0])) return false;
    t->out[0] = t->in[0];
    t->out[2] = t->in[2];
    *t->nout = 4;
    return head_dw(t, 0, "over", &rows[0], &t->out[1]) && head_dw(t, 2, "over2", &rows[0], &t->out[3]);
}

/* ---- order, scans, micro-batches */
static bool infer_quantile(Infer *t) {
    Type over = adims(t, "over"), r = {0};
    double q = attr(t, "q")->u.f;
    if (!(q >= 0 && q <= 1)) return FAIL(t, "q is %g; it lies in [0, 1]", q);
    if (!need_real(t, 0) || !need_dtype(t, 1, DT_BOOL)) return false;
    int h = holder(t, t->in, 2);
    if (h < 0) return false;
    for (int k = 0; k < over.ndim; k++)
        if (!need_dim(t, (uint32_t)h, over.dim[k])) return false;
    if (!put_all(t, &r, &t->in[h], &over)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool scan_types(Infer *t, Type *r) {
    DimId over = adim(t, "over");
    if (!need_dtype(t, 3, DT_BOOL) || !need_dim(t, 3, over) || !no_dim(t, 0, over)) return false;
    for (uint32_t k = 0; k < 3; k++) {
        if (!need_like(t, k, 0)) return false;
        if (!type_holds(&t->in[3], &t->in[k]))
            return FAIL(t, "operand %u, %s, has dims that the mask %s has not", k, ttext(t, &t->in[k]),
                        ttext(t, &t->in[3]));
    }
    *r = t->in[3];
    r->dt = t->in[0].dt;
    return true;
}
static bool infer_scan(Infer *t) {
    *t->nout = 1;
    return scan_types(t, &t->out[0]);
}
static bool infer_scan_grad(Infer *t) {
    Type r;
    if (!scan_types(t, &r) || !need_type(t, 4, &r) || !need_type(t, 5, &r)) return false;
    memcpy(t->out, t->in, 3 * sizeof *t->out);
    *t->nout = 3;
    return true;
}
static bool need_micro(Infer *t) {
    return t->g->micro.i < t->g->ndim ? true : FAIL(t, "the graph has no micro-batches");
}
static bool infer_micro_sum(Infer *t) { /* after localize the operand lacks micro: a piece per micro-batch */
    Type r = {0}, micro = type_make(DT_F64, &t->g->micro, 1);
    if (!need_micro(t) || !need_real(t, 0) || !put_all(t, &r, &t->in[0], &micro)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool infer_micro_stack(Infer *t) {
    Type r = {0};
    if (!need_micro(t)) return false;
    if (!type_has(&t->in[0], t->g->micro) && !put(t, &r, t->g->micro)) return false;
    if (!put_all(t, &r, &t->in[0], NULL)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}
static bool infer_micro_slice(Infer *t) {
    Type r = {0}, micro = type_make(DT_F64, &t->g->micro, 1);
    if (!need_micro(t) || !need_dim(t, 0, t->g->micro) || !put_all(t, &r, &t->in[0], &micro)) return false;
    r.dt = t->in[0].dt;
    result1(t, r);
    return true;
}

static const struct {
    const char *name;
    bool (*fn)(Infer *t);
} rule_fn[] = {
    {"leaf", infer_leaf},
    {"expand", infer_expand},
    {"matmul", infer_matmul},
    {"gather", infer_gather},
    {"scatter_add", infer_scatter_add},
    {"shift", infer_shift},
    {"shift_grad", infer_shift_grad},
    {"select", infer_select},
    {"place", infer_place},
    {"stack", infer_stack},
    {"transpose", infer_transpose},
    {"rope", infer_rope},
    {"attention", infer_attention},
    {"attention_grad", infer_attention_grad},
    {"cls1", infer_cls1},
    {"cls2", infer_cls2},
    {"argmax", infer_argmax},
    {"linear_ce", infer_linear_ce},
    {"linear_ce_grad", infer_linear_ce_grad},
    {"linear_ce_fb", infer_linear_ce_fb},
    {"linear_kl", infer_linear_kl},
    {"linear_kl_grad", infer_linear_kl_grad},
    {"quantile", infer_quantile},
    {"scan", infer_scan},
    {"scan_grad", infer_scan_grad},
    {"micro_sum", infer_micro_sum},
    {"micro_stack", infer_micro_stack},
    {"micro_slice", infer_micro_slice},
};

/* Types of the results; a leaf's written type is handed in as out[0] and checked. `out` has room for MAX_OUT.
 */
bool ir_infer(const Graph *g, Op op, const Type *in, uint32_t nin, const Attr *at, Type *out, uint32_t *nout,
              const char **why) {
    Infer t = {g, op, in, nin, at, out, nout, why};
    const OpInfo *f = &op_info[op];
    *nout = 0;
    if (f->nin >= 0 && nin != (uint32_t)f->nin) return FAIL(&t, "%u operands; %d are needed", nin, f->nin);
    if (!check_attrs(&t)) return false;
    if (f->rule[0] != '@') return infer_rule(&t, f->rule) && sizes_ok(&t);
    for (size_t k = 0; k < WM_LEN(rule_fn); k++)
        if (strcmp(rule_fn[k].name, f->rule + 1) == 0) return rule_fn[k].fn(&t) && sizes_ok(&t);
    return FAIL(&t, "rule %s does not exist", f->rule);
}
