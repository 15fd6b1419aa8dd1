/* param.c: parameters: their names, shapes, first values, and which of them exist.
 *
 * Which parameters a model has under this configuration is known without building it: a walk over the syntax
 * from its defs, entering the chosen branch of `if` and `match`. Patterns of `train` lines are matched
 * against that list, so that each parameter node is made with its row. */
#include "frontend/sema.h"

#include <string.h>

const char *param_name(Cx *cx, Owner *own, const Stmt *st, int which) {
    const AstStoredPair *pair = &st->stored[0];
    Scope sc = {.own = own, .mod = own->mod, .inst = own->inst};
    const char *name = stored_name(cx, &sc, &pair->alt[(uint32_t)which < pair->n ? which : 0]);
    return name ? arena_fmt(cx->a, "%s%s", own->prefix[which], name) : NULL;
}

/* ---- the shape in the file */

static const StoredShape *stored_find(const ModelSource *src, const char *name) {
    for (uint32_t i = 0; i < src->nstored; i++) {
        size_t skip = src->prefix ? strlen(src->prefix) : 0;
        const char *s = src->stored[i].name;
        if ((!skip || !strncmp(s, src->prefix, skip)) && !strcmp(s + skip, name)) return &src->stored[i];
    }
    return NULL;
}

static const StoredShape *stored_of(Cx *cx, Owner *own, const Stmt *st) {
    const ModelSource *src = own->inst->src;
    for (int k = 0; k < 2; k++) {
        const char *name = param_name(cx, own, st, k);
        const StoredShape *s = name ? stored_find(src, name) : NULL;
        if (s) return s;
    }
    return NULL;
}

/* The size of `dim` where it is the one unknown of axis k of a stored parameter. */
static bool axis_size(Cx *cx, Owner *own, const Stmt *st, uint32_t k, const Stmt *dim, int64_t *size) {
    const AstAxis *ax = &st->axis[k];
    const StoredShape *s = stored_of(cx, own, st);
    if (!s || s->ndim != st->naxis) return false;
    int64_t known = 1;
    for (uint32_t i = 0; i < ax->dims.n; i++) {
        Decl *d = module_find(own->mod, ax->dims.name[i]);
        DimId id;
        if (!d || d->st->kind != S_DIM) return false;
        if (d->st == dim) continue;
        if (!inst_dim(cx, own->inst, d->mod, d->st, ax->loc, false, &id)) return false;
        known *= cx->g->dim[id.i].size;
    }
    if (known == 0 || s->shape[k] % known) return false;
    *size = s->shape[k] / known;
    return true;
}

static bool shape_in(Cx *cx, Owner *own, const Stmt *dim, int64_t *size, int depth) {
    if (depth > 16) return false;
    for (uint32_t i = 0; i < own->decl->body.n; i++) {
        const Stmt *m = own->decl->body.item[i];
        for (uint32_t k = 0; m->kind == S_PARAM && k < m->naxis; k++)
            for (uint32_t j = 0; j < m->axis[k].dims.n; j++) {
                Decl *d = module_find(own->mod, m->axis[k].dims.name[j]);
                if (d && d->st == dim && axis_size(cx, own, m, k, dim, size)) return true;
            }
    }
    for (uint32_t i = 0; i < own->decl->body.n; i++) {
        const Stmt *m = own->decl->body.item[i];
        if (m->kind != S_STACK && m->kind != S_SUBBLOCK) continue;
        Val s = owner_get(cx, own, m, m->loc);
        if (s.kind == VK_STACK && s.u.stack->n && shape_in(cx, s.u.stack->copy[0], dim, size, depth + 1))
            return true;
    }
    return false;
}

bool param_shape_size(Cx *cx, Inst *i, const Stmt *dim, Module *m, int64_t *size) {
    (void)m;
    if (!i->src || !i->src->nstored) return false;
    cx->quiet++;
    bool ok = shape_in(cx, i->top, dim, size, 0);
    cx->quiet--;
    return ok;
}

static const char *shape_text(Cx *cx, const int64_t *shape, uint32_t n) {
    Sbuf b;
    sb_init(&b, cx->a);
    sb_chr(&b, '[');
    for (uint32_t i = 0; i < n; i++) sb_fmt(&b, "%s%lld", i ? ", " : "", (long long)shape[i]);
    sb_chr(&b, ']');
    return b.s;
}

/* A model with weights finds each parameter there, in its shape. */
static bool check_stored(Cx *cx, Owner *own, const Stmt *st, const char *const name[2],
                         const int64_t *shape) {
    Inst *i = own->inst;
    if (!i->src || !i->src->has_weights || cx->quiet) return true;
    if (!i->second_known) {
        i->second = stored_find(i->src, name[0]) || !stored_find(i->src, name[1]) ? 0 : 1;
        i->second_known = true;
    }
    const char *want = name[i->second];
    const StoredShape *s = stored_find(i->src, want);
    if (!s && i->src->missing_init) return true;
    if (!s) {
        Diag *g = sema_error(cx, D010, st->loc, "model `%s`: its weights have no tensor `%s%s`", i->name,
                             i->src->prefix ? i->src->prefix : "", want);
        diag_help(cx->d, g, "models.%s.missing: init starts what is missing by this line", i->name);
        return false;
    }
    bool same = s->ndim == st->naxis;
    for (uint32_t k = 0; same && k < s->ndim; k++) same = s->shape[k] == shape[k];
    if (same) return true;
    sema_error(cx, D011, st->loc, "model `%s`: `%s` is stored as %s, the model needs %s", i->name, want,
               shape_text(cx, s->shape, s->ndim), shape_text(cx, shape, st->naxis));
    return false;
}

/* ---- the node */

typedef struct {
    DimId dim[MAX_DIMS];
    uint32_t n;
    int64_t shape[MAX_DIMS];
    const char *axes;
} ParamDims;

static bool param_dims(Cx *cx, Owner *own, const Stmt *st, ParamDims *p) {
    Sbuf b;
    sb_init(&b, cx->a);
    *p = (ParamDims){0};
    if (st->naxis > MAX_DIMS)
        return sema_error(cx, E020, st->loc, "a parameter has at most %d axes", MAX_DIMS), false;
    for (uint32_t k = 0; k < st->naxis; k++) {
        const AstAxis *ax = &st->axis[k];
        sb_fmt(&b, "%s%s", k ? "," : "", ax->dims.n > 1 ? "(" : "");
        p->shape[k] = 1;
        for (uint32_t i = 0; i < ax->dims.n; i++) {
            Decl *d = module_find(own->mod, ax->dims.name[i]);
            DimId id;
            if (!d || d->st->kind != S_DIM)
                return sema_error(cx, E020, ax->dims.loc[i], "module `%s` has no dim `%s`",
                                  own->mod->ast->name, ax->dims.name[i]),
                       false;
            if (!inst_dim(cx, own->inst, d->mod, d->st, ax->dims.loc[i], true, &id)) return false;
            for (uint32_t j = 0; j < p->n; j++)
                if (p->dim[j].i == id.i)
                    return sema_error(cx, E011, ax->dims.loc[i], "the dim `%s` twice in one parameter",
                                      d->name),
                           false;
            if (p->n == MAX_DIMS)
                return sema_error(cx, E020, ax->loc, "a parameter has at most %d dims", MAX_DIMS), false;
            p->dim[p->n++] = id;
            p->shape[k] *= cx->g->dim[id.i].size;
            sb_fmt(&b, "%s%s", i ? "," : "", cx->g->dim[id.i].name);
        }
        sb_str(&b, ax->dims.n > 1 ? ")" : ax->dims.n == 0 ? "1" : "");
    }
    p->axes = b.s ? b.s : "";
    return dims_fit(cx, st->loc, p->dim, p->n);
}

static bool halves_text(Cx *cx, const Stmt *st, const ParamDims *p, const char **text) {
    Sbuf b;
    sb_init(&b, cx->a);
    for (uint32_t k = 0; k < st->stored[0].n; k++) {
        const AstStored *alt = &st->stored[0].alt[k];
        if (!alt->halves) continue;
        bool ok = false;
        const char *full = alt->halves; /* the graph's name of the dim: `hd.ref` */
        for (uint32_t i = 0; i < p->n; i++) {
            if (!dim_is(cx, p->dim[i], alt->halves) || cx->g->dim[p->dim[i].i].size % 2 != 0) continue;
            full = cx->g->dim[p->dim[i].i].name;
            ok = true;
        }
        if (!ok)
            return sema_error(cx, E020, alt->loc, "`halves %s`: the parameter has no dim `%s` of even size",
                              alt->halves, alt->halves),
                   false;
        sb_fmt(&b, "%s%s=%s", b.len ? "," : "", k ? "hf" : "meta", full);
    }
    *text = b.len ? b.s : NULL;
    return true;
}

static bool init_text(Cx *cx, Owner *own, const Stmt *st, const char **text) {
    Scope sc = {.own = own, .mod = own->mod, .inst = own->inst};
    Val v = eval(cx, &sc, st->e);
    Sbuf b;
    sb_init(&b, cx->a);
    if (v.kind == VK_POISON) return false;
    if (v.kind == VK_INIT) {
        sb_fmt(&b, "%s:", v.u.init.kind);
        sb_double(&b, v.u.init.a);
        sb_chr(&b, ',');
        sb_double(&b, v.u.init.b);
    } else if (val_is_number(&v) && v.t != LT_BOOL) {
        sb_str(&b, "const:");
        sb_double(&b, v.num);
    } else {
        Diag *g = sema_error(cx, E026, st->e->loc,
                             "a parameter starts as a number, normal(mean=, std=) or uniform(lo=, hi=)");
        sema_span(cx, g, &v);
        return false;
    }
    *text = b.s;
    return true;
}

/* In a test the parameter is the tensor that the model was made with. */
static bool given_value(Cx *cx, Owner *own, const Stmt *st, const ParamDims *p, Val *v) {
    Binding *b = own == own->inst->top ? frame_find(&own->inst->given, st->name) : NULL;
    if (!b || b->v.kind != VK_TENSOR) return false;
    *v = b->v;
    Type want = type_make(DT_F32, p->dim, p->n);
    if (!same_visible(cx, val_type(cx, v), &want)) {
        Diag *g = sema_error(cx, E025, b->v.loc, "`%s` has the dims %s", st->name, dims_text(cx, &want));
        sema_span(cx, g, v);
        *v = val_poison();
        return true;
    }
    v->v = to_dims(cx, v->v, p->dim, p->n);
    return true;
}

static const ParamRef *ref_find(const Inst *i, const char *name) {
    for (uint32_t k = 0; k < i->nparam; k++)
        if (!strcmp(i->param[k].name, name)) return &i->param[k];
    return NULL;
}

Val param_value(Cx *cx, Owner *own, const Stmt *st) {
    ParamDims p;
    Val v;
    if (!param_dims(cx, own, st, &p)) return val_poison();
    if (given_value(cx, own, st, &p, &v)) return v;
    const char *name[2] = {param_name(cx, own, st, 0), param_name(cx, own, st, 1)}, *halves, *init;
    if (!name[0] || !name[1] || !halves_text(cx, st, &p, &halves) || !init_text(cx, own, st, &init))
        return val_poison();
    if (!check_stored(cx, own, st, name, p.shape)) return val_poison();
    Inst *i = own->inst;
    const ParamRef *ref = ref_find(i, name[0]);
    bool train = ref && ref->row >= 0 && !strcmp(cx->o->phase, "train");
    Graph *g = cx->g;
    Loc loc = g->loc;
    const char *path = g->path;
    g->loc = st->loc;
    g->path = own->path;
    Attr attr[] = {
        at_str(g, i->name),
        at_str(g, name[0]),
        at_str(g, name[1]),
        at_str(g, p.axes),
        halves ? at_str(g, halves) : at_none(),
        at_str(g, init),
        at_int(train ? ref->row : -1),
        at_bool(!ref || ref->decay),
        at_int(stream_of(arena_fmt(cx->a, "init:%s/%s", i->name, name[0]))),
    };
    ValueId leaf = build_leaf(g, OP_param, type_make(DT_F32, p.dim, p.n), attr, WM_LEN(attr));
    g->loc = loc;
    g->path = path;
    return val_tensor(leaf, LT_F32, train);
}

/* ---- which parameters some def reads */

typedef struct {
    const char *name[64];
    uint32_t n;
} Locals;
typedef struct {
    Cx *cx;
    Inst *i;
    const void **seen;
    uint32_t nseen, cap;
    int depth;
} Walk;

static void walk_expr(Walk *w, const Expr *e, const Locals *l, Owner *own, Module *mod);

static bool walk_seen(Walk *w, const void *a, const void *b) {
    for (uint32_t i = 0; i < w->nseen; i += 2)
        if (w->seen[i] == a && w->seen[i + 1] == b) return true;
    GROW(w->cx->a, w->seen, w->nseen, w->cap);
    w->seen[w->nseen++] = a;
    GROW(w->cx->a, w->seen, w->nseen, w->cap);
    w->seen[w->nseen++] = b;
    return false;
}

static void local_add(Locals *l, const char *name) {
    if (l->n < WM_LEN(l->name)) l->name[l->n++] = name;
}

static void walk_body(Walk *w, const Formals *f, const Stmts *body, const Expr *e, Owner *own, Module *mod) {
    Locals l = {.n = 0};
    for (uint32_t i = 0; i < f->n; i++) local_add(&l, f->item[i].name);
    for (uint32_t i = 0; i < body->n; i++)
        if (body->item[i]->kind == S_LET) local_add(&l, body->item[i]->name);
    for (uint32_t i = 0; i < f->n; i++) walk_expr(w, f->item[i].dflt, &l, own, mod);
    for (uint32_t i = 0; i < body->n; i++)
        if (body->item[i]->kind == S_LET) walk_expr(w, body->item[i]->e, &l, own, mod);
    walk_expr(w, e, &l, own, mod);
}

static void walk_member(Walk *w, Owner *own, const Stmt *m) {
    Cx *cx = w->cx;
    if (walk_seen(w, own, m)) return;
    Locals none = {.n = 0};
    if (m->kind == S_DEF) {
        walk_body(w, &m->params, &m->body, m->e, own, own->mod);
    } else if (m->kind == S_LET) {
        walk_expr(w, m->e, &none, own, own->mod);
    } else if (m->kind == S_PARAM) {
        const char *name = param_name(cx, own, m, 0);
        if (!name) return;
        GROW(cx->a, w->i->param, w->i->nparam, w->i->param_cap);
        w->i->param[w->i->nparam++] = (ParamRef){name, m, own, -1, true};
    } else {
        Val s = owner_get(cx, own, m, m->loc);
        for (uint32_t k = 0; s.kind == VK_STACK && k < s.u.stack->n; k++) {
            Owner *c = s.u.stack->copy[k];
            walk_body(w, &c->decl->params, &c->decl->body, c->decl->e, c, c->mod);
        }
    }
}

static void walk_name(Walk *w, const char *name, const Locals *l, Owner *own, Module *mod) {
    for (uint32_t i = 0; i < l->n; i++)
        if (!strcmp(l->name[i], name)) return;
    const Stmt *m = own ? owner_member(own, name) : NULL;
    if (m) {
        walk_member(w, own, m);
        return;
    }
    const Decl *d = module_find(mod, name);
    if (d && d->st->kind == S_DEF && !walk_seen(w, NULL, d->st))
        walk_body(w, &d->st->params, &d->st->body, d->st->e, NULL, d->mod);
}

static Val walk_condition(Walk *w, const Expr *e, Owner *own, Module *mod) {
    Scope sc = {.own = own, .mod = mod, .inst = w->i};
    w->cx->quiet++;
    Val v = eval(w->cx, &sc, e);
    w->cx->quiet--;
    return v;
}

static void walk_expr(Walk *w, const Expr *e, const Locals *l, Owner *own, Module *mod) {
    if (!e || w->depth > MAX_EVAL_DEPTH) return;
    w->depth++;
    Val c = {.kind = VK_POISON};
    if (e->kind == X_IF || e->kind == X_MATCH) c = walk_condition(w, e->a, own, mod);
    if (e->kind == X_NAME) {
        walk_name(w, e->name, l, own, mod);
    } else if (e->kind == X_IF && c.kind == VK_CONST && c.t == LT_BOOL) {
        walk_expr(w, c.num != 0 ? e->b : e->c, l, own, mod);
    } else {
        walk_expr(w, e->a, l, own, mod);
        walk_expr(w, e->b, l, own, mod);
        walk_expr(w, e->c, l, own, mod);
        for (uint32_t i = 0; i < e->list.n; i++) {
            bool other = e->kind == X_MATCH && c.kind == VK_CONST && c.t == LT_STR &&
                         strcmp(e->list.item[i].name, c.str);
            if (!other) walk_expr(w, e->list.item[i].e, l, own, mod);
        }
    }
    w->depth--;
}

void param_walk(Cx *cx, Inst *i) {
    if (i->walked) return;
    i->walked = true;
    Walk w = {.cx = cx, .i = i};
    for (uint32_t k = 0; k < i->decl->body.n; k++)
        if (i->decl->body.item[k]->kind == S_DEF) walk_member(&w, i->top, i->decl->body.item[k]);
}

/* ---- patterns: `*` any characters, `(a|b)` a choice */

enum { MAX_MATCH_STEPS = 1000000 };
typedef struct {
    Arena *a;
    int depth;
    long steps;
} Match; /* a pattern of many stars ends, as no match */

static bool match_text(Match *m, const char *p, const char *s);

/* Each alternative of the group at p, followed by the rest of the pattern. */
static bool match_group(Match *m, const char *p, const char *s) {
    const char *close = p;
    int open = 0;
    do {
        open += *close == '(' ? 1 : *close == ')' ? -1 : 0;
        close++;
    } while (*close && open);
    if (open) return false;
    const char *from = p + 1;
    for (const char *q = p + 1; q < close; q++) {
        open += *q == '(' ? 1 : *q == ')' && q + 1 < close ? -1 : 0;
        bool ends = q + 1 == close || (*q == '|' && !open);
        if (!ends) continue;
        if (match_text(m, arena_fmt(m->a, "%.*s%s", (int)(q - from), from, close), s)) return true;
        from = q + 1;
    }
    return false;
}

static bool match_rest(Match *m, const char *p, const char *s) {
    for (; *p; p++, s++) {
        if (*p == '(') return match_group(m, p, s);
        if (*p == '*') {
            for (;; s++) {
                if (match_text(m, p + 1, s)) return true;
                if (!*s) return false;
            }
        }
        if (*p != *s) return false;
    }
    return !*s;
}

static bool match_text(Match *m, const char *p, const char *s) {
    if (m->depth > 64 || m->steps++ > MAX_MATCH_STEPS) return false;
    m->depth++;
    bool ok = match_rest(m, p, s);
    m->depth--;
    return ok;
}

bool pattern_match(Cx *cx, const char *pattern, const char *name) {
    size_t n = strlen(name), tail = strlen(".weight");
    if (n > tail && !strcmp(name + n - tail, ".weight")) n -= tail;
    Match m = {.a = cx->a};
    return match_text(&m, pattern, arena_str(cx->a, name, n));
}
