/* dims.c: dims by name and coordinates, how operands align, and index arithmetic.
 *
 * A dim of the language is its plain name with its coordinates. The graph's own dim, else the first model
 * that has one, takes the plain name in the IR; another model's with other coordinates is `hidden.ref`. Equal
 * name and equal coordinates are the same DimId, so alignment in the IR needs nothing but ids. */
#include "frontend/sema.h"

#include <string.h>

static bool same_coords(const Cx *cx, DimId d, int64_t size, int64_t base, const char *const *coord) {
    const DimInfo *info = &cx->dim[d.i];
    if (cx->g->dim[d.i].size != size || !info->coord != !coord) return false;
    if (!coord) return info->base == base;
    for (int64_t i = 0; i < size; i++)
        if (strcmp(info->coord[i], coord[i])) return false;
    return true;
}

bool dim_is(const Cx *cx, DimId d, const char *plain) {
    return d.i < cx->dim_cap && cx->dim[d.i].plain && !strcmp(cx->dim[d.i].plain, plain);
}

bool dim_plain(const Cx *cx, const char *name, DimId *d) {
    return graph_find_dim(cx->g, name, d) && dim_is(cx, *d, name);
}

DimId dim_make(Cx *cx, const char *plain, const char *owner, int64_t size, int64_t base,
               const char *const *coord, Loc loc) {
    for (uint32_t i = 0; i < cx->g->ndim; i++)
        if (dim_is(cx, (DimId){i}, plain) && same_coords(cx, (DimId){i}, size, base, coord))
            return (DimId){i};
    if (cx->g->ndim >= MAX_GRAPH_DIMS) {
        sema_error(cx, E064, loc, "the graph has more than %d dims", MAX_GRAPH_DIMS);
        return (DimId){0};
    }
    DimId old;
    const char *name = plain;
    if (dim_plain(cx, plain, &old)) {
        name = arena_fmt(cx->a, "%s.%s", plain, owner ? owner : "other");
        /* one model, two sizes of one dim: only a value from outside can bring that about */
        for (int k = 2; graph_find_dim(cx->g, name, &old); k++)
            name = arena_fmt(cx->a, "%s.%s.%d", plain, owner ? owner : "other", k);
    }
    DimId d = graph_dim(cx->g, name, size);
    GROW(cx->a, cx->dim, d.i, cx->dim_cap);
    cx->dim[d.i] = (DimInfo){plain, owner, base, coord, loc};
    cx->g->dim[d.i].ragged = !strcmp(plain, "seq");
    return d;
}

bool dim_in(const Cx *cx, const Type *t, const char *name, DimId *d) {
    int n = 0;
    for (int i = 0; i < t->ndim; i++)
        if (dim_is(cx, t->dim[i], name)) {
            *d = t->dim[i];
            n++;
        }
    return n == 1;
}

int dim_coord(const Cx *cx, DimId d, const char *name) {
    const DimInfo *info = &cx->dim[d.i];
    for (int64_t i = 0; info->coord && i < cx->g->dim[d.i].size; i++)
        if (!strcmp(info->coord[i], name)) return (int)i;
    return -1;
}

const char *coord_text(Cx *cx, DimId d, int64_t index) {
    const DimInfo *info = &cx->dim[d.i];
    return info->coord ? info->coord[index] : arena_fmt(cx->a, "%lld", (long long)(info->base + index));
}

/* ---- alignment */

static Type type_of(const Cx *cx, const Val *v) {
    if (v->kind == VK_TENSOR) return *val_type(cx, v);
    return (Type){.dt = DT_F32};
}

static bool visible_holds(const Cx *cx, const Type *a, const Type *b) {
    for (int i = 0; i < b->ndim; i++)
        if (b->dim[i].i != cx->g->micro.i && !type_has(a, b->dim[i])) return false;
    return true;
}

bool same_visible(const Cx *cx, const Type *a, const Type *b) {
    return visible_holds(cx, a, b) && visible_holds(cx, b, a);
}

static const char *dim_source(Cx *cx, DimId d) {
    const DimInfo *info = &cx->dim[d.i];
    const char *of = info->owner ? arena_fmt(cx->a, " of model `%s`", info->owner) : "";
    return arena_fmt(cx->a, "`%s`%s has %lld", info->plain, of, (long long)cx->g->dim[d.i].size);
}

bool dims_agree(Cx *cx, Loc op, const Val *a, const Val *b) {
    Type x = type_of(cx, a), y = type_of(cx, b);
    for (int i = 0; i < x.ndim; i++)
        for (int k = 0; k < y.ndim; k++) {
            DimId p = x.dim[i], q = y.dim[k];
            if (p.i == q.i || strcmp(cx->dim[p.i].plain, cx->dim[q.i].plain)) continue;
            Diag *g = sema_error(cx, E024, op, "two sizes for one dim: %s, %s", dim_source(cx, p),
                                 dim_source(cx, q));
            sema_span(cx, g, a);
            sema_span(cx, g, b);
            return false;
        }
    return true;
}

bool visible_join(Cx *cx, Loc op, const Val *a, const Val *b) {
    if (!dims_agree(cx, op, a, b)) return false;
    Type x = type_of(cx, a), y = type_of(cx, b);
    if (visible_holds(cx, &x, &y) || visible_holds(cx, &y, &x)) return true;
    Diag *g = sema_error(cx, E021, op, "the dims %s and %s: neither holds the other", dims_text(cx, &x),
                         dims_text(cx, &y));
    sema_span(cx, g, a);
    sema_span(cx, g, b);
    for (int i = 0; i < y.ndim; i++)
        if (!type_has(&x, y.dim[i]) && y.dim[i].i != cx->g->micro.i) {
            diag_help(cx->d, g,
                      "if the larger product is meant, write expand(.., %s) around the left operand",
                      cx->g->dim[y.dim[i].i].name);
            break;
        }
    return false;
}

/* A value of more elements than any machine holds is a mistake in a size, said here and not in the IR. */
bool dims_fit(Cx *cx, Loc loc, const DimId *d, uint32_t n) {
    double count = 1;
    for (uint32_t i = 0; i < n; i++) count *= (double)cx->g->dim[d[i].i].size;
    if (count <= 0x1p44) return true;
    sema_error(cx, E064, loc, "a value of %.3g elements: look at the sizes of its dims", count);
    return false;
}

static bool types_fit(Cx *cx, Loc loc, const Type *a, const DimId *more, uint32_t n) {
    DimId d[2 * MAX_DIMS];
    uint32_t k = 0;
    for (int i = 0; i < a->ndim; i++) d[k++] = a->dim[i];
    for (uint32_t i = 0; i < n; i++) d[k++] = more[i];
    return dims_fit(cx, loc, d, k);
}

ValueId to_dims(Cx *cx, ValueId v, const DimId *d, uint32_t n) {
    Graph *g = cx->g;
    Type t = *value_type(g, v);
    DimId add[MAX_DIMS] = {{0}};
    uint32_t nadd = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!type_has(&t, d[i])) add[nadd++] = d[i];
    v = b_expand(g, v, add, nadd);
    t = *value_type(g, v);
    bool same = t.ndim == n;
    for (uint32_t i = 0; i < n && same; i++) same = t.dim[i].i == d[i].i;
    if (same) return v;
    Attr to = at_dims(g, d, n);
    return build(g, OP_transpose, &v, 1, &to, 1);
}

void lacks_dim(Cx *cx, Loc loc, const char *name, const Val *v) {
    const Type *t = val_type(cx, v);
    const char *cand[MAX_DIMS];
    size_t n = 0;
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i].i != cx->g->micro.i) cand[n++] = cx->dim[t->dim[i].i].plain;
    Diag *g = sema_error(cx, E020, loc, "the value has no dim `%s`", name);
    sema_span(cx, g, v);
    const char *near = text_nearest(name, cand, n);
    if (!near) return;
    diag_help(cx->d, g, "did you mean `%s`?", near);
    diag_fix(cx->d, g, loc, false, "%s", near);
}

bool dim_names(Cx *cx, const Expr *e, const char **name, Loc *loc, uint32_t *n) {
    *n = 0;
    uint32_t count = e->kind == X_LIST ? e->list.n : 1;
    for (uint32_t i = 0; i < count; i++) {
        const Expr *x = e->kind == X_LIST ? e->list.item[i].e : e;
        bool dim = x->kind == X_NAME ||
                   (x->kind == X_DOT && x->a->kind == X_NAME); /* ref.vocab: by its plain name too */
        if (!dim) {
            sema_error(cx, E015, x->loc, "a dim is written as its name, several as [a, b]");
            return false;
        }
        if (*n == MAX_DIMS) {
            sema_error(cx, E015, e->loc, "at most %d dims", MAX_DIMS);
            return false;
        }
        name[*n] = x->name;
        loc[(*n)++] = x->loc;
    }
    return true;
}

/* ---- which dim a name means here */

static bool lookup_in_graph(Cx *cx, const char *name, Loc loc, DimId *d, bool *found) {
    if (dim_plain(cx, name, d)) return *found = true;
    Entry *e = entry_find(cx, name);
    bool builtin = !strcmp(name, "seq") || !strcmp(name, "batch");
    if (!builtin && (!e || (e->kind != S_DIM && !(e->kind == S_IMPORT && e->st->kind == S_DIM))))
        return *found = false;
    *found = true;
    if (e) e->used = true;
    if (e && e->at == READY) return false; /* its own statement said why it has no size */
    if (cx->testing && e && e->kind == S_DIM && (e->st->e || e->st->names.n)) {
        graph_dim_entry(cx, e); /* no tensor of the test gave it another size */
        return dim_plain(cx, name, d);
    }
    Diag *g = sema_error(cx, E064, loc, "nothing gives the dim `%s` a size", name);
    diag_help(cx->d, g,
              cx->testing ? "a tensor(.., [dims]) of the test gives its dims their sizes"
                          : "a dim of a model has a size when the graph has a model with that dim");
    return false;
}

/* Looks from the module of the scope outwards. true: *d is the dim. false with *found: a message was given.
 */
bool dim_lookup(Cx *cx, const Scope *sc, const char *name, Loc loc, DimId *d, bool *found) {
    *found = false;
    for (const Scope *s = sc; s; s = s->caller) {
        if (!s->mod) return lookup_in_graph(cx, name, loc, d, found);
        Decl *decl = module_find(s->mod, name);
        if (!decl || decl->st->kind != S_DIM) continue;
        *found = true;
        if (s->inst) return inst_dim(cx, s->inst, decl->mod, decl->st, loc, true, d);
        break; /* outside of a model the plain name counts */
    }
    if (dim_plain(cx, name, d)) return *found = true;
    if (!*found && strcmp(name, "seq") && strcmp(name, "batch")) return false;
    *found = true;
    sema_error(cx, E064, loc, "nothing gives the dim `%s` a size", name);
    return false;
}

/* ---- index arithmetic (section 7): a sum of dims and ints */

typedef struct {
    DimId dim[MAX_DIMS];
    int64_t factor[MAX_DIMS];
    uint32_t n;
    int64_t k;
} Affine;

static bool affine_error(Cx *cx, const Expr *e) {
    sema_error(cx, E022, e->loc, "an index is a sum of dims and whole numbers, as in x[seq + head - 1]");
    return false;
}

static bool affine_add(Cx *cx, Affine *r, const Affine *b, int64_t sign, const Expr *e) {
    r->k += sign * b->k;
    for (uint32_t i = 0; i < b->n; i++) {
        uint32_t at = 0;
        while (at < r->n && r->dim[at].i != b->dim[i].i) at++;
        if (at == MAX_DIMS) return affine_error(cx, e);
        if (at == r->n) {
            r->dim[r->n] = b->dim[i];
            r->factor[r->n++] = 0;
        }
        r->factor[at] += sign * b->factor[i];
    }
    return true;
}

static bool affine(Cx *cx, const Scope *sc, const Expr *e, Affine *r) {
    *r = (Affine){0};
    Affine x, y;
    if (e->kind == X_NEG) return affine(cx, sc, e->a, &x) && affine_add(cx, r, &x, -1, e);
    if (e->kind == X_BIN && (e->op == B_ADD || e->op == B_SUB))
        return affine(cx, sc, e->a, &x) && affine(cx, sc, e->b, &y) && affine_add(cx, r, &x, 1, e) &&
               affine_add(cx, r, &y, e->op == B_ADD ? 1 : -1, e);
    if (e->kind == X_BIN && e->op == B_MUL) {
        if (!affine(cx, sc, e->a, &x) || !affine(cx, sc, e->b, &y)) return false;
        if (x.n && y.n) return affine_error(cx, e);
        return x.n ? affine_add(cx, r, &x, y.k, e) : affine_add(cx, r, &y, x.k, e);
    }
    Val v = eval(cx, sc, e);
    if (v.kind == VK_POISON) return false;
    if (v.kind == VK_DIM) {
        r->dim[0] = v.dim;
        r->factor[0] = 1;
        r->n = 1;
        return true;
    }
    return val_whole(&v, &r->k) || affine_error(cx, e);
}

static double fill_default(LType t) {
    return t == LT_TOKEN ? IGNORE_TOKEN : 0;
}

static bool fill_value(Cx *cx, const Scope *sc, const Expr *fill, LType t, double *v) {
    *v = fill_default(t);
    if (!fill) return true;
    Val f = eval(cx, sc, fill);
    if (f.kind == VK_POISON) return false;
    bool ok = f.kind == VK_CONST && (t == LT_TOKEN  ? f.t == LT_TOKEN || f.t == LT_INT
                                     : t == LT_BOOL ? f.t == LT_BOOL
                                                    : f.t <= LT_BOOL);
    if (!ok) {
        sema_error(cx, E015, fill->loc, "fill= is a constant like the value: %s",
                   t == LT_TOKEN  ? "a token or `ignore`"
                   : t == LT_BOOL ? "true or false"
                                  : "a number");
        return false;
    }
    *v = f.num;
    return true;
}

static Val shift(Cx *cx, const Scope *sc, Val x, const Expr *ix, const Expr *fill) {
    Affine a;
    if (!affine(cx, sc, ix, &a)) return val_poison();
    const Type *t = val_type(cx, &x);
    uint32_t main_at = 0, nmain = 0;
    for (uint32_t i = 0; i < a.n; i++)
        if (type_has(t, a.dim[i]) && a.factor[i] != 0) {
            main_at = i;
            nmain++;
        }
    if (nmain != 1 || a.factor[main_at] != 1) {
        Diag *g = sema_error(cx, E022, ix->loc, "an index has exactly one dim of the value, with factor 1");
        sema_span(cx, g, &x);
        return val_poison();
    }
    DimId add[MAX_DIMS];
    int64_t factor[MAX_DIMS];
    uint32_t n = 0;
    for (uint32_t i = 0; i < a.n; i++) {
        if (i == main_at || a.factor[i] == 0) continue;
        if (cx->dim[a.dim[i].i].coord)
            return val_error(cx, E022, ix->loc, "the coordinates of `%s` are names",
                             cx->dim[a.dim[i].i].plain);
        if (a.factor[i] > 4096 || a.factor[i] < -4096) return affine_error(cx, ix), val_poison();
        if (t->ndim + n >= MAX_DIMS)
            return val_error(cx, E022, ix->loc, "a value has at most %d dims", MAX_DIMS);
        add[n] = a.dim[i];
        factor[n++] = a.factor[i];
        a.k += a.factor[i] * cx->dim[a.dim[i].i].base;
    }
    if (a.k > ((int64_t)1 << 32) || a.k < -((int64_t)1 << 32)) return affine_error(cx, ix), val_poison();
    double fv;
    if (!fill_value(cx, sc, fill, x.t, &fv)) return val_poison();
    if (n == 0 && a.k == 0) return x;
    if (!types_fit(cx, ix->loc, t, add, n)) return val_poison();
    Graph *g = cx->g;
    Attr attr[] = {at_dim(a.dim[main_at]), at_int(a.k), n ? at_dims(g, add, n) : at_none(),
                   n ? at_ints(g, factor, n) : at_none(), at_float(fv)};
    Val r = x;
    r.v = build(g, OP_shift, &x.v, 1, attr, 5);
    return r;
}

static Val gather(Cx *cx, Val x, Val t, const Expr *ix) {
    DimId cls;
    const Type *tx = val_type(cx, &x), *tt = val_type(cx, &t);
    if (!dim_in(cx, tx, "vocab", &cls)) {
        Diag *g =
            sema_error(cx, E022, ix->loc, "tokens look up along `vocab`, which the value does not have");
        sema_span(cx, g, &x);
        return val_poison();
    }
    for (int i = 0; i < tt->ndim; i++)
        if (type_has(tx, tt->dim[i])) {
            Diag *g =
                sema_error(cx, E022, ix->loc, "the value and the tokens that look up in it both have `%s`",
                           cx->g->dim[tt->dim[i].i].name);
            sema_span(cx, g, &x);
            return val_poison();
        }
    if (tx->ndim + tt->ndim - 1 > MAX_DIMS)
        return val_error(cx, E022, ix->loc, "a value has at most %d dims", MAX_DIMS);
    Type rest = *tx; /* what the result has of x: `vocab` goes */
    for (int i = 0; i < rest.ndim; i++)
        if (rest.dim[i].i == cls.i) rest.dim[i] = rest.dim[rest.ndim - 1];
    rest.ndim--;
    if (!types_fit(cx, ix->loc, &rest, tt->dim, tt->ndim)) return val_poison();
    Attr attr = at_dim(cls);
    Val r = x;
    r.v = build(cx->g, OP_gather, (ValueId[]){x.v, t.v}, 2, &attr, 1);
    return r;
}

/* x[d = c]: c is a name of a coordinate or a number known when compiling */
static Val select_one(Cx *cx, const Scope *sc, Val x, const NamedExpr *s) {
    DimId d;
    if (!dim_in(cx, val_type(cx, &x), s->name, &d)) {
        lacks_dim(cx, s->loc, s->name, &x);
        return val_poison();
    }
    int64_t size = cx->g->dim[d.i].size, at = -1, c;
    if (s->e->kind == X_NAME && dim_coord(cx, d, s->e->name) >= 0) {
        at = dim_coord(cx, d, s->e->name);
    } else if (cx->dim[d.i].coord && s->e->kind == X_NAME) {
        at = -1;
    } else {
        Val v = eval(cx, sc, s->e);
        if (v.kind == VK_POISON) return v;
        if (v.kind != VK_CONST)
            return val_error(cx, E023, s->e->loc, "a coordinate is known when compiling; this is %s",
                             val_text(cx, &v));
        if (val_whole(&v, &c) && !cx->dim[d.i].coord) at = c - cx->dim[d.i].base;
    }
    if (at < 0 || at >= size) {
        Diag *g = sema_error(cx, E023, s->e->loc, "`%s` has no such coordinate", s->name);
        diag_help(cx->d, g, "its coordinates are %s to %s", coord_text(cx, d, 0),
                  coord_text(cx, d, size - 1));
        return val_poison();
    }
    Val r = x;
    r.v = build(cx->g, OP_select, &x.v, 1, (Attr[]){at_dim(d), at_int(at)}, 2);
    return r;
}

Val index_eval(Cx *cx, const Scope *sc, const Expr *e) {
    Val x = lift_any(cx, eval(cx, sc, e->a));
    if (x.kind == VK_POISON) { /* names in the indices are looked at all the same */
        Affine a;
        for (uint32_t i = 0; i < e->list.n; i++) {
            const Expr *ix = e->list.item[i].e;
            if (!e->list.item[i].name)
                ix->kind == X_BIN ? (void)affine(cx, sc, ix, &a) : (void)eval(cx, sc, ix);
        }
        return x;
    }
    if (x.kind != VK_TENSOR) return val_error(cx, E022, e->a->loc, "%s cannot be indexed", val_text(cx, &x));
    const Expr *fill = NULL;
    for (uint32_t i = 0; i < e->list.n; i++)
        if (e->list.item[i].name && !strcmp(e->list.item[i].name, "fill")) fill = e->list.item[i].e;
    for (uint32_t i = 0; i < e->list.n && x.kind != VK_POISON; i++) {
        const NamedExpr *ix = &e->list.item[i];
        x.loc = e->a->loc;
        if (ix->name) {
            if (ix->e != fill) x = select_one(cx, sc, x, ix);
            continue;
        }
        if (ix->e->kind == X_NAME || ix->e->kind == X_INDEX || ix->e->kind == X_CALL) {
            Val t = eval(cx, sc, ix->e);
            if (t.kind == VK_POISON) return t;
            if (t.kind == VK_TENSOR && t.t == LT_TOKEN) {
                x = gather(cx, x, t, ix->e);
                continue;
            }
        }
        x = shift(cx, sc, x, ix->e, fill);
    }
    return x;
}
