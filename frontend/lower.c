/* lower.c: the walker. An expression becomes a symbolic value; nodes are appended to the graph on the way.
 *
 * Outside of models all branches of `if` and `match` are worked out, so that all are checked; what was
 * lowered for the branches not taken is dead and leaves with the other dead nodes. In a model only the branch
 * taken is: what the configuration switches off does not exist there, its parameters least of all. */
#include "frontend/sema.h"

#include <string.h>

Binding *frame_find(Frame *f, const char *name) {
    for (uint32_t i = 0; f && i < f->n; i++)
        if (!strcmp(f->item[i].name, name)) return &f->item[i];
    return NULL;
}

Binding *frame_put(Cx *cx, Frame *f, const char *name, Val v) {
    GROW(cx->a, f->item, f->n, f->cap);
    f->item[f->n] = (Binding){name, NULL, READY, v};
    return &f->item[f->n++];
}

static Val cycle(Cx *cx, const char *name, Loc loc) {
    return val_error(cx, E013, loc, "`%s` depends on itself", name);
}

Val frame_get(Cx *cx, const Scope *sc, Binding *b, Loc loc) {
    if (b->at == BUSY) return cycle(cx, b->name, loc);
    if (b->at == READY) return b->v;
    Frame *f = sc->frame;
    uint32_t at = (uint32_t)(b - f->item);
    b->at = BUSY;
    Val v = eval(cx, sc, b->let->e);
    f->item[at].v =
        v; /* the frame never grows while its lets are worked out, but its place is re-read all the same */
    f->item[at].at = READY;
    return v;
}

/* ---- names */

static Val builtin_constant(Cx *cx, const char *name, bool *found) {
    *found = true;
    if (!strcmp(name, "ignore")) return val_token(IGNORE_TOKEN);
    if (!strcmp(name, "inf")) return val_num(1.0 / 0.0, false);
    if (!strcmp(name, "phase")) return val_str(cx->o->phase);
    if (!strcmp(name, "step") || !strcmp(name, "ranks") || !strcmp(name, "micro")) return val_scope(name);
    *found = false;
    return val_poison();
}

static Val module_value(Cx *cx, const Scope *sc, const Decl *d, Loc loc) {
    Val r = {.kind = VK_POISON};
    switch (d->st->kind) {
    case S_CONFIG:
        if (!sc->inst)
            return val_error(cx, E017, loc,
                             "`%s` belongs to each model of module `%s`; there is no model here", d->name,
                             d->mod->ast->name);
        return inst_config(cx, sc->inst, d->mod, d->st, loc);
    case S_LET:
        if (!sc->inst) {
            Scope inner = {.mod = d->mod, .caller = sc->caller};
            return eval(cx, &inner, d->st->e);
        }
        return inst_let(cx, sc->inst, d->mod, d->st, loc);
    case S_BLOCK:
    case S_MODEL:
    case S_DEF:
        r.kind = d->st->kind == S_BLOCK ? VK_BLOCK : d->st->kind == S_MODEL ? VK_KIND : VK_DEF;
        r.u.decl = (DeclRef){d->mod, d->st, NULL};
        return r;
    default:
        return r;
    }
}

static Val entry_value(Cx *cx, Entry *e, Loc loc) {
    e->used = true;
    if (e->kind == S_IMPORT || e->kind == S_DEF) {
        Val r = {.kind = e->st->kind == S_BLOCK ? VK_BLOCK : e->st->kind == S_MODEL ? VK_KIND : VK_DEF};
        r.u.decl = (DeclRef){e->kind == S_IMPORT ? e->mod : NULL, e->st, NULL};
        return r;
    }
    return entry_get(cx, e, loc);
}

static bool entry_is_dim(const Entry *e) {
    return e->kind == S_DIM || (e->kind == S_IMPORT && e->st->kind == S_DIM);
}

/* A member of a block or model; what stands in a frame was found before. */
static Val member_value(Cx *cx, Owner *own, const Stmt *m, Loc loc) {
    if (m->kind != S_DEF) return owner_get(cx, own, m, loc);
    Val r = {.kind = VK_DEF};
    r.u.decl = (DeclRef){own->mod, m, own};
    return r;
}

static Val name_value(Cx *cx, const Scope *sc, const char *name, Loc loc) {
    Binding *b = frame_find(sc->frame, name);
    if (b) return frame_get(cx, sc, b, loc);
    if (!sc->mod && cx->override && (b = frame_find(cx->override, name)) != NULL) return b->v;
    bool found;
    Val v = builtin_constant(cx, name, &found);
    if (found) return v;
    if (sc->own) {
        const Stmt *m = owner_member(sc->own, name);
        if (m) return member_value(cx, sc->own, m, loc);
        if (sc->own == sc->inst->top && (b = frame_find(&sc->inst->arg, name)) != NULL) return b->v;
    }
    const Decl *d = sc->mod ? module_find(sc->mod, name) : NULL;
    if (d && d->st->kind != S_DIM) return module_value(cx, sc, d, loc);
    Entry *e = sc->mod ? NULL : entry_find(cx, name);
    if (e && !entry_is_dim(e)) return entry_value(cx, e, loc);
    DimId dim;
    if (dim_lookup(cx, sc, name, loc, &dim, &found)) return (Val){.kind = VK_DIM, .dim = dim};
    if (found) return val_poison();
    const char *near = cx->d->nerror < cx->d->max_errors ? name_nearest(cx, sc, name)
                                                         : NULL; /* later errors are only counted */
    Diag *g = sema_error(cx, E010, loc, "unknown name `%s`", name);
    if (near) {
        diag_help(cx->d, g, "did you mean `%s`?", near);
        diag_fix(cx->d, g, loc, false, "%s", near);
    }
    return val_poison();
}

Val eval_name(Cx *cx, const Scope *sc, const char *name, Loc loc) {
    Val v = name_value(cx, sc, name, loc);
    v.loc = loc;
    return v;
}

/* ---- if and match */

static bool branch_class(const Val *v, int *class) {
    if (v->kind == VK_AFFINE || v->kind == VK_DIM)
        *class = LT_F32;
    else if (v->kind == VK_TENSOR || v->kind == VK_CONST)
        *class = v->t == LT_INT ? LT_F32 : (int)v->t;
    else
        *class = 100 + (int)v->kind;
    return v->kind != VK_POISON;
}

static bool branches_agree(Cx *cx, Val *v, uint32_t n, Loc loc) {
    Type none = {.dt = DT_F32};
    for (uint32_t i = 1; i < n; i++) {
        int a, b;
        if (!branch_class(&v[0], &a) || !branch_class(&v[i], &b)) continue;
        const Type *x = v[0].kind == VK_TENSOR ? val_type(cx, &v[0]) : &none;
        const Type *y = v[i].kind == VK_TENSOR ? val_type(cx, &v[i]) : &none;
        bool dims = v[0].kind == VK_AFFINE || v[i].kind == VK_AFFINE || same_visible(cx, x, y);
        if (dims && a == b) continue;
        Diag *g = sema_error(cx, E025, loc, "the branches have different %s", dims ? "dtypes" : "dims");
        sema_span(cx, g, &v[0]);
        sema_span(cx, g, &v[i]);
        return false;
    }
    return true;
}

static Val run_time_choice(Cx *cx, const char *word, const Val *c, Loc loc) {
    Diag *g = sema_error(cx, E043, loc, "`%s` is decided when compiling; the condition is %s", word,
                         val_text(cx, c));
    diag_help(cx->d, g, "write where(condition, a, b)");
    return val_poison();
}

static Val eval_if(Cx *cx, const Scope *sc, const Expr *e) {
    Val c = eval(cx, sc, e->a);
    if (c.kind == VK_TENSOR || c.kind == VK_DIM || c.kind == VK_AFFINE)
        return run_time_choice(cx, "if", &c, e->a->loc);
    bool known = c.kind == VK_CONST && c.t == LT_BOOL;
    if (c.kind != VK_POISON && !known)
        return val_error(cx, E031, e->a->loc, "the condition of `if` is true or false, not %s",
                         val_text(cx, &c));
    if (sc->inst && known) return eval(cx, sc, c.num != 0 ? e->b : e->c);
    Val v[2] = {eval(cx, sc, e->b), eval(cx, sc, e->c)};
    if (!branches_agree(cx, v, 2, e->loc) || !known) return val_poison();
    return v[c.num != 0 ? 0 : 1];
}

static Val no_arm(Cx *cx, const Expr *e, const Val *c) {
    Sbuf b;
    sb_init(&b, cx->a);
    for (uint32_t i = 0; i < e->list.n; i++) sb_fmt(&b, "%s\"%s\"", i ? ", " : "", e->list.item[i].name);
    Diag *g = sema_error(cx, E061, e->a->loc, "no arm for \"%s\"", c->str);
    diag_help(cx->d, g, "the arms are %s", b.s ? b.s : "none");
    return val_poison();
}

static Val eval_match(Cx *cx, const Scope *sc, const Expr *e) {
    Val c = eval(cx, sc, e->a);
    if (c.kind == VK_TENSOR || c.kind == VK_DIM || c.kind == VK_AFFINE)
        return run_time_choice(cx, "match", &c, e->a->loc);
    bool known = c.kind == VK_CONST && c.t == LT_STR;
    if (c.kind != VK_POISON && !known)
        return val_error(cx, E026, e->a->loc, "`match` compares strings; this is %s", val_text(cx, &c));
    Val *v = NEWN(cx->a, Val, e->list.n);
    uint32_t hit = UINT32_MAX;
    for (uint32_t i = 0; i < e->list.n; i++) {
        bool chosen = known && !strcmp(e->list.item[i].name, c.str);
        if (chosen && hit == UINT32_MAX) hit = i;
        if (!sc->inst || chosen) v[i] = eval(cx, sc, e->list.item[i].e);
    }
    if (!known) return val_poison();
    if (hit == UINT32_MAX) return no_arm(cx, e, &c);
    if (!sc->inst && !branches_agree(cx, v, e->list.n, e->loc)) return val_poison();
    return v[hit];
}

/* ---- calls */

bool call_enter(Cx *cx, const char *name, const Stmt *st, const Owner *own, Loc loc) {
    bool again = false;
    for (int i = 0; i < cx->ncall; i++) again |= cx->call[i].st == st && cx->call[i].own == own;
    if (again) return sema_error(cx, E013, loc, "`%s` calls itself", name), false;
    if (cx->ncall == MAX_CALLS)
        return sema_error(cx, E013, loc, "more than %d calls inside each other", MAX_CALLS), false;
    cx->call[cx->ncall].name = name;
    cx->call[cx->ncall].st = st;
    cx->call[cx->ncall].own = own;
    cx->call[cx->ncall++].loc = loc;
    return true;
}

void call_leave(Cx *cx) {
    cx->ncall--;
}

static const char *formals_text(Cx *cx, const Formals *f) {
    Sbuf b;
    sb_init(&b, cx->a);
    for (uint32_t i = 0; i < f->n; i++)
        sb_fmt(&b, "%s%s%s", i ? ", " : "", f->item[i].name, f->item[i].dflt ? "=" : "");
    return b.s ? b.s : "nothing";
}

static int formal_find(const Formals *f, const char *name) {
    for (uint32_t i = 0; i < f->n; i++)
        if (!strcmp(f->item[i].name, name)) return (int)i;
    return -1;
}

bool bind_args(Cx *cx, const Scope *sc, const Expr *call, const Formals *f, const char *what,
               const Scope *inner) {
    Val *v = NEWN(cx->a, Val, f->n);
    bool *given = NEWN(cx->a, bool, f->n), ok = true;
    uint32_t place = 0;
    for (uint32_t i = 0; i < call->list.n; i++) {
        const NamedExpr *x = &call->list.item[i];
        int k = x->name ? formal_find(f, x->name) : place < f->n ? (int)place++ : -1;
        if (k < 0 || given[k]) {
            Diag *g = sema_error(cx, E015, x->loc,
                                 k >= 0    ? "`%s` gets `%s` twice"
                                 : x->name ? "`%s` has no `%s`"
                                           : "`%s` gets too many arguments",
                                 what,
                                 k >= 0    ? f->item[k].name
                                 : x->name ? x->name
                                           : "");
            diag_help(cx->d, g, "it takes %s", formals_text(cx, f));
            ok = false;
            continue;
        }
        v[k] = eval(cx, sc, x->e);
        given[k] = true;
    }
    for (uint32_t i = 0; i < f->n && ok; i++) {
        if (!given[i] && !f->item[i].dflt) {
            Diag *g = sema_error(cx, E015, call->loc, "`%s`: `%s` is missing", what, f->item[i].name);
            diag_help(cx->d, g, "it takes %s", formals_text(cx, f));
            ok = false;
            break;
        }
        frame_put(cx, inner->frame, f->item[i].name, given[i] ? v[i] : eval(cx, inner, f->item[i].dflt));
    }
    return ok;
}

Val eval_body(Cx *cx, const Scope *inner, const Stmts *body, const Expr *result) {
    uint32_t first = inner->frame->n;
    for (uint32_t i = 0; i < body->n; i++) {
        const Stmt *st = body->item[i];
        if (st->kind != S_LET) continue;
        Binding *old = frame_find(inner->frame, st->name);
        if (old) {
            sema_error(cx, E011, st->name_loc, "`%s` is defined twice", st->name);
            continue;
        }
        Binding *b = frame_put(cx, inner->frame, st->name, val_poison());
        b->let = st;
        b->at = TODO;
    }
    for (uint32_t i = first; i < inner->frame->n; i++)
        frame_get(cx, inner, &inner->frame->item[i], inner->frame->item[i].let->name_loc);
    return result ? eval(cx, inner, result) : val_poison();
}

Val call_def(Cx *cx, const Scope *sc, const Val *def, const Expr *call) {
    const Stmt *st = def->u.decl.st;
    Frame frame = {0};
    Scope inner = {.frame = &frame, .own = def->u.decl.own, .mod = def->u.decl.mod, .caller = sc};
    if (inner.own)
        inner.inst = inner.own->inst;
    else if (inner.mod)
        inner.inst = sc->inst;
    if (!bind_args(cx, sc, call, &st->params, st->name, &inner)) return val_poison();
    if (!call_enter(cx, st->name, st, inner.own, call->loc)) return val_poison();
    Val r = eval_body(cx, &inner, &st->body, st->e);
    call_leave(cx);
    return r;
}

static Val eval_call(Cx *cx, const Scope *sc, const Expr *e) {
    if (e->a->kind == X_NAME && !frame_find(sc->frame, e->a->name)) {
        const Builtin *b = builtin_find(e->a->name);
        if (b) return builtin_call(cx, sc, b, e);
    }
    Val f = eval(cx, sc, e->a);
    switch (f.kind) {
    case VK_POISON:
        return f;
    case VK_DEF:
        return call_def(cx, sc, &f, e);
    case VK_MODEL:
        return inst_method(cx, sc, f.u.inst, "call", e, e->a->loc);
    case VK_METHOD:
        return inst_method(cx, sc, f.u.inst, f.str, e, e->a->op_loc);
    case VK_STACK:
        return stack_call(cx, sc, f.u.stack, e, false);
    case VK_EACH:
        return stack_call(cx, sc, f.u.stack, e, true);
    default:
        break;
    }
    return val_error(cx, E015, e->a->loc, "%s cannot be called", val_text(cx, &f));
}

static Val eval_dot(Cx *cx, const Scope *sc, const Expr *e) {
    Val m = eval(cx, sc, e->a);
    if (m.kind == VK_POISON) return m;
    if (m.kind == VK_STACK && !strcmp(e->name, "each")) {
        m.kind = VK_EACH;
        return m;
    }
    if (m.kind == VK_STACK) return val_error(cx, E017, e->op_loc, "a stack has `each`, no `%s`", e->name);
    if (m.kind != VK_MODEL) return val_error(cx, E017, e->op_loc, "%s has no parts", val_text(cx, &m));
    Inst *i = m.u.inst;
    const Stmt *def = owner_member(i->top, e->name);
    if (def && def->kind == S_DEF) {
        Val r = {.kind = VK_METHOD, .str = e->name};
        r.u.inst = i;
        return r;
    }
    const Decl *d = def ? NULL : inst_setting(cx, i, e->name);
    DimId dim;
    if (d && d->st->kind == S_DIM)
        return inst_dim(cx, i, d->mod, d->st, e->op_loc, true, &dim) ? (Val){.kind = VK_DIM, .dim = dim}
                                                                     : val_poison();
    const char *cand[64];
    uint32_t n = 0;
    for (uint32_t k = 0; k < i->decl->body.n && n < 64; k++)
        if (i->decl->body.item[k]->kind == S_DEF) cand[n++] = i->decl->body.item[k]->name;
    Diag *g =
        sema_error(cx, E017, e->op_loc,
                   def || d ? "model `%s` keeps `%s` to itself" : "model `%s` has no `%s`", i->name, e->name);
    const char *near = text_nearest(e->name, cand, n);
    if (near) diag_help(cx->d, g, "did you mean `%s`?", near);
    return val_poison();
}

static Val eval_list(Cx *cx, const Scope *sc, const Expr *e) {
    Val r = {.kind = VK_LIST};
    r.u.list.item = NEWN(cx->a, Val, e->list.n);
    r.u.list.n = e->list.n;
    for (uint32_t i = 0; i < e->list.n; i++) {
        r.u.list.item[i] = eval(cx, sc, e->list.item[i].e);
        if (r.u.list.item[i].kind == VK_POISON) r.kind = VK_POISON;
    }
    return r;
}

static Val eval_kind(Cx *cx, const Scope *sc, const Expr *e) {
    switch (e->kind) {
    case X_NUM:
        return val_num(e->num, e->is_int);
    case X_STR:
        return val_str(e->name);
    case X_BOOL:
        return val_bool(e->num != 0);
    case X_NAME:
        return name_value(cx, sc, e->name, e->loc);
    case X_LIST:
        return eval_list(cx, sc, e);
    case X_NEG:
        return val_neg(cx, eval(cx, sc, e->a), e->loc);
    case X_NOT:
        return val_not(cx, eval(cx, sc, e->a), e->loc);
    case X_BIN: {
        Val a = eval(cx, sc, e->a), b = eval(cx, sc, e->b);
        cx->g->loc = e->op_loc;
        return val_bin(cx, e->op, a, b, e->op_loc);
    }
    case X_IF:
        return eval_if(cx, sc, e);
    case X_MATCH:
        return eval_match(cx, sc, e);
    case X_CALL:
        return eval_call(cx, sc, e);
    case X_INDEX:
        return index_eval(cx, sc, e);
    case X_DOT:
        return eval_dot(cx, sc, e);
    }
    return val_poison();
}

/* Definitions that call each other twice double what they make: a small file may stand for any number of
 * nodes. Said once; from then on every value is poison, so that all calls return at once. */
static bool too_large(Cx *cx, Loc loc) {
    if (cx->nevals <= MAX_EVALS && cx->g->nnode <= MAX_GRAPH_NODES) {
        cx->nevals++;
        return false;
    }
    if (cx->nevals == UINT32_MAX) return true;
    cx->nevals = UINT32_MAX;
    Diag *g = sema_error(cx, E003, loc,
                         "the graph has more than %d nodes or %d expressions when all calls are written out",
                         MAX_GRAPH_NODES, MAX_EVALS);
    diag_help(cx->d, g,
              "definitions that call each other more than once grow with every level; give the value a name "
              "and use that");
    return true;
}

Val eval(Cx *cx, const Scope *sc, const Expr *e) {
    if (too_large(cx, e->loc)) return val_poison();
    if (cx->depth >= MAX_EVAL_DEPTH) return val_error(cx, E003, e->loc, "nested too deep");
    cx->depth++;
    Loc outer = cx->g->loc;
    cx->g->loc = e->loc;
    Val v = eval_kind(cx, sc, e);
    v.loc = e->loc;
    cx->g->loc = outer;
    cx->depth--;
    return v;
}
