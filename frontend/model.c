/* model.c: one model of a graph: its configs, dims, blocks, stacks and calls.
 *
 * A module is read anew for each model, so everything that may differ (configs, constants, dims) is cached in
 * the Inst by the statement that declares it. Nothing is looked for before somebody needs it. */
#include "frontend/sema.h"

#include <string.h>

enum { ASSUMED_CONFIG = 4, ASSUMED_DIM = 16, MAX_COPIES = 4096 };

static Cached *cached_at(Cx *cx, Cached ***list, uint32_t *n, uint32_t *cap, const Stmt *st) {
    for (uint32_t i = 0; i < *n; i++)
        if ((*list)[i]->st == st) return (*list)[i];
    Cached *c = NEW(cx->a, Cached);
    c->st = st;
    GROW(cx->a, *list, *n, *cap);
    (*list)[(*n)++] = c;
    return c;
}

static Cached *inst_cached(Cx *cx, Inst *i, const Stmt *st) {
    return cached_at(cx, &i->cached, &i->ncached, &i->cached_cap, st);
}

/* What was tried quietly and failed is tried again when somebody needs it. */
static void cached_done(Cx *cx, Cached *c, Val v) {
    c->v = v;
    c->at = v.kind == VK_POISON && cx->quiet > 0 ? TODO : READY;
}

/* ---- settings: the configs and dims that a model has */

static void settings_of(Cx *cx, Inst *i, Module **seen, uint32_t *nseen, Module *m) {
    for (uint32_t k = 0; k < *nseen; k++)
        if (seen[k] == m) return;
    if (*nseen == 64) return;
    seen[(*nseen)++] = m;
    for (uint32_t k = 0; k < m->n; k++) {
        Decl *d = &m->decl[k];
        if (d->imported || (d->st->kind != S_CONFIG && d->st->kind != S_DIM)) continue;
        for (uint32_t j = 0; j < i->nsetting; j++)
            if (!strcmp(i->setting[j]->name, d->name) && i->setting[j]->st != d->st) {
                Diag *g = sema_error(cx, E011, d->loc, "`%s` is declared twice within model `%s`", d->name,
                                     i->name);
                diag_span(cx->d, g, i->setting[j]->loc, "first here");
            }
        GROW(cx->a, i->setting, i->nsetting, i->setting_cap);
        i->setting[i->nsetting++] = d;
    }
    for (uint32_t k = 0; k < m->n; k++) settings_of(cx, i, seen, nseen, m->decl[k].mod);
}

static void all_settings(Cx *cx, const Scope *sc, Inst *i) {
    Module *seen[64];
    uint32_t nseen = 0;
    settings_of(cx, i, seen, &nseen, i->mod);
    for (uint32_t k = 0; k < i->st->args.n;
         k++) { /* a block of another module brings that module's configs */
        const Expr *e = i->st->args.item[k].e;
        if (e->kind != X_NAME) continue;
        cx->quiet++;
        Val v = eval(cx, sc, e);
        cx->quiet--;
        if (v.kind == VK_BLOCK) settings_of(cx, i, seen, &nseen, v.u.decl.mod);
    }
}

void model_keys(Cx *cx, const Stmt *st, GraphModel *m) {
    const char **keys = NULL;
    uint32_t n = 0, cap = 0;
    Inst i = {.name = st->name, .st = st};
    cx->quiet++;
    Val k = eval_name(cx, &cx->graph_scope, st->kind_name, st->kind_loc);
    if (k.kind == VK_KIND) {
        i.mod = k.u.decl.mod;
        all_settings(cx, &cx->graph_scope, &i);
    }
    cx->quiet--;
    const char **setting = NEWN(cx->a, const char *, i.nsetting + 1);
    for (uint32_t s = 0; s < i.nsetting; s++) {
        const Stmt *d = i.setting[s]->st;
        setting[s] = i.setting[s]->name;
        for (uint32_t q = 0; q < (d->keys.n ? d->keys.n : 1); q++) {
            GROW(cx->a, keys, n, cap);
            keys[n++] = d->keys.n ? d->keys.name[q] : d->name;
        }
    }
    m->key = keys;
    m->nkey = n;
    m->setting = setting;
    m->nsetting = i.nsetting;
}

Decl *inst_setting(Cx *cx, Inst *i, const char *name) {
    (void)cx;
    for (uint32_t k = 0; k < i->nsetting; k++)
        if (!strcmp(i->setting[k]->name, name)) return i->setting[k];
    return NULL;
}

static Val found(Cx *cx, const Setting *s, const Stmt *st, const char **from) {
    Val v = const_of(cx, &s->v);
    v.loc = st->name_loc;
    *from = arena_fmt(cx->a, " (%s of %s)", s->key, s->origin ? s->origin : "the configuration");
    return v;
}

/* YAML, the argument of that name, the keys of `from`. VK_POISON: nothing. from: where, for messages. */
static Val look(Cx *cx, Inst *i, const Stmt *st, const char **from) {
    const ModelSource *src = i->src;
    *from = "";
    for (uint32_t k = src ? src->nyaml : 0; k-- > 0;)
        if (!strcmp(src->yaml[k].key, st->name)) return found(cx, &src->yaml[k], st, from);
    Binding *b = frame_find(&i->given, st->name);
    if (b && b->v.kind == VK_CONST) return b->v;
    uint32_t nkey = st->keys.n ? st->keys.n : 1;
    for (uint32_t k = 0; k < nkey; k++) {
        const char *key = st->keys.n ? st->keys.name[k] : st->name;
        for (uint32_t j = 0; src && j < src->njson; j++) {
            const Setting *s = &src->json[j];
            if (!strcmp(s->key, key) && !(s->v.kind == VAL_NUMBER && s->v.num == -1))
                return found(cx, s, st, from);
        }
    }
    return val_poison();
}

static void nothing_gives(Cx *cx, Inst *i, const Stmt *st, Loc loc) {
    Sbuf b;
    sb_init(&b, cx->a);
    for (uint32_t k = 0; k < (st->keys.n ? st->keys.n : 1); k++)
        sb_fmt(&b, "%s%s", k ? ", " : "", st->keys.n ? st->keys.name[k] : st->name);
    Diag *g = sema_error(cx, E064, loc, "model `%s`: nothing gives `%s`", i->name, st->name);
    diag_span(cx->d, g, st->name_loc, "declared here");
    const char *json = i->src ? i->src->json_path : NULL;
    if (json)
        diag_note(cx->d, g, "%s has none of %s", json, b.s);
    else
        diag_note(cx->d, g,
                  "there is no params.json or config.json beside its weights; %s would be looked for there",
                  b.s);
    diag_help(cx->d, g, "write models.%s.%s in the configuration, or give the model a path", i->name,
              st->name);
}

static void note_assumed(Cx *cx) {
    if (!cx->sizes_assumed)
        graph_note(cx->g, "sizes without a configuration are assumed: configs %d, dims %d", ASSUMED_CONFIG,
                   ASSUMED_DIM);
    cx->sizes_assumed = true;
}

static bool config_type(const Stmt *st, const Val *v) {
    const AstHType *t = &st->htype;
    if (v->kind != VK_CONST) return false;
    if (!t->base) {
        for (uint32_t i = 0; i < t->choice.n; i++)
            if (v->t == LT_STR && !strcmp(v->str, t->choice.name[i])) return true;
        return false;
    }
    int64_t n;
    if (!strcmp(t->base, "bool")) return v->t == LT_BOOL;
    if (!strcmp(t->base, "int")) return val_whole(v, &n);
    return !strcmp(t->base, "f32") && (v->t == LT_F32 || v->t == LT_INT);
}

Val inst_config(Cx *cx, Inst *i, Module *m, const Stmt *st, Loc loc) {
    Cached *c = inst_cached(cx, i, st);
    if (c->at == READY) return c->v;
    if (c->at == BUSY) return val_error(cx, E013, loc, "`%s` depends on itself", st->name);
    c->at = BUSY;
    const char *from;
    Val v = look(cx, i, st, &from);
    bool none = v.kind == VK_POISON;
    if (none && st->e) {
        Scope sc = {.mod = m, .inst = i};
        v = eval(cx, &sc, st->e);
    } else if (none && cx->o->assume_sizes) {
        note_assumed(cx);
        bool flag = st->htype.base && !strcmp(st->htype.base, "bool");
        v = flag              ? val_bool(false)
            : !st->htype.base ? val_str(st->htype.choice.name[0])
                              : val_num(ASSUMED_CONFIG, true);
    } else if (none) {
        nothing_gives(cx, i, st, loc);
    }
    if (v.kind != VK_POISON && !config_type(st, &v)) {
        bool part = st->htype.base && !strcmp(st->htype.base, "int") && v.kind == VK_CONST && v.t == LT_F32;
        v = val_error(cx, part ? E064 : E061, v.loc, "model `%s`: config `%s` is %s, not %s%s", i->name,
                      st->name, st->htype.base ? st->htype.base : "one of the named choices",
                      val_text(cx, &v), from);
    }
    if (v.kind == VK_CONST && st->htype.base && !strcmp(st->htype.base, "int")) v.t = LT_INT;
    cached_done(cx, c, v);
    return v;
}

Val inst_let(Cx *cx, Inst *i, Module *m, const Stmt *st, Loc loc) {
    Cached *c = inst_cached(cx, i, st);
    if (c->at == READY) return c->v;
    if (c->at == BUSY) return val_error(cx, E013, loc, "`%s` depends on itself", st->name);
    c->at = BUSY;
    Scope sc = {.mod = m, .inst = i};
    Val v = eval(cx, &sc, st->e);
    cached_done(cx, c, v);
    return v;
}

/* ---- dims */

static bool size_of(Cx *cx, Inst *i, const Stmt *st, const Val *v, int64_t least, const char *from,
                    int64_t *n) {
    if (v->kind == VK_POISON) return false;
    if (val_whole(v, n) && *n >= least && *n < ((int64_t)1 << 40)) return true;
    Diag *g = sema_error(cx, E064, st->name_loc,
                         "model `%s`: `%s` would be %s%s: a size is a whole number, %lld or more", i->name,
                         st->name, val_text(cx, v), from, (long long)least);
    diag_label(g, "this dim");
    return false;
}

static bool dim_range(Cx *cx, Inst *i, Module *m, const Stmt *st, DimId *d) {
    Scope sc = {.mod = m, .inst = i};
    Val lo = eval(cx, &sc, st->e), hi = eval(cx, &sc, st->e2);
    int64_t a, b;
    if (!size_of(cx, i, st, &lo, -(int64_t)1000000000, "", &a) || !size_of(cx, i, st, &hi, a, "", &b))
        return false;
    *d = dim_make(cx, st->name, i->name, b - a + 1, a, NULL, st->name_loc);
    return true;
}

static bool dim_from_values(Cx *cx, Inst *i, const Stmt *st, DimId *d) {
    for (uint32_t k = 0; k < i->given.n; k++) {
        const Val *v = &i->given.item[k].v;
        if (v->kind == VK_TENSOR && dim_in(cx, val_type(cx, v), st->name, d)) return true;
    }
    for (uint32_t k = 0; k < i->ncalled; k++)
        if (!strcmp(i->called[k].name, st->name)) {
            *d = i->called[k].dim;
            return true;
        }
    return false;
}

static bool dim_sized(Cx *cx, Inst *i, Module *m, const Stmt *st, Loc loc, bool need, DimId *d) {
    const char *from;
    Val v = look(cx, i, st, &from);
    Scope sc = {.mod = m, .inst = i};
    int64_t n;
    if (v.kind == VK_POISON && st->e) { /* quietly: a shape or a call may still give it */
        cx->quiet++;
        v = eval(cx, &sc, st->e);
        cx->quiet--;
    }
    if (v.kind == VK_POISON && param_shape_size(cx, i, st, m, &n)) v = val_num((double)n, true);
    if (v.kind == VK_POISON && dim_from_values(cx, i, st, d)) return true;
    if (v.kind == VK_POISON && !need) return false;
    if (v.kind == VK_POISON && cx->o->assume_sizes) {
        note_assumed(cx);
        v = val_num(ASSUMED_DIM, true);
    }
    if (v.kind == VK_POISON && st->e)
        v = eval(cx, &sc, st->e); /* says what is wrong */
    else if (v.kind == VK_POISON)
        nothing_gives(cx, i, st, loc);
    if (!size_of(cx, i, st, &v, 1, from, &n)) return false;
    *d = dim_make(cx, st->name, i->name, n, 0, NULL, st->name_loc);
    return true;
}

bool inst_dim(Cx *cx, Inst *i, Module *m, const Stmt *st, Loc loc, bool need, DimId *d) {
    Cached *c = inst_cached(cx, i, st);
    if (c->at == READY) {
        *d = c->v.dim;
        return c->v.kind == VK_DIM;
    }
    if (c->at == BUSY) {
        if (need) sema_error(cx, E013, loc, "the size of `%s` depends on itself", st->name);
        return false;
    }
    c->at = BUSY;
    bool ok;
    if (st->names.n) {
        *d = dim_make(cx, st->name, i->name, (int64_t)st->names.n, 0, st->names.name, st->name_loc);
        ok = true;
    } else if (st->e2) {
        ok = dim_range(cx, i, m, st, d);
    } else {
        ok = dim_sized(cx, i, m, st, loc, need, d);
    }
    c->v = ok ? (Val){.kind = VK_DIM, .dim = *d} : val_poison();
    c->at = ok || (need && cx->quiet == 0) ? READY : TODO; /* a failure is reported once */
    return ok;
}

void inst_register_dims(Cx *cx, Inst *i) {
    cx->quiet++;
    for (uint32_t k = 0; k < i->nsetting; k++) {
        DimId d;
        if (i->setting[k]->st->kind == S_DIM)
            inst_dim(cx, i, i->setting[k]->mod, i->setting[k]->st, i->setting[k]->loc, false, &d);
    }
    cx->quiet--;
}

/* ---- making a model */

static bool find_kind(Cx *cx, const Scope *sc, const Stmt *st, DeclRef *kind) {
    Val k = eval_name(cx, sc, st->kind_name, st->kind_loc);
    if (k.kind == VK_POISON) return false;
    if (k.kind != VK_KIND)
        return sema_error(cx, E017, st->kind_loc, "`%s` is %s, no kind of model", st->kind_name,
                          val_text(cx, &k)),
               false;
    *kind = k.u.decl;
    return true;
}

static int formal_at(const Formals *f, const char *name) {
    for (uint32_t k = 0; k < f->n; k++)
        if (!strcmp(f->item[k].name, name)) return (int)k;
    return -1;
}

/* Arguments: parameters of the model by place or name; configs and sizes by name; in tests its params. */
static void inst_args(Cx *cx, const Scope *sc, Inst *i) {
    const Formals *f = &i->decl->params;
    const Stmt *st = i->st;
    uint32_t place = 0;
    for (uint32_t k = 0; k < st->args.n; k++) {
        const NamedExpr *x = &st->args.item[k];
        int at = x->name ? formal_at(f, x->name) : place < f->n ? (int)place++ : -1;
        const Stmt *member = x->name ? owner_member(i->top, x->name) : NULL;
        bool param = member && member->kind == S_PARAM && cx->testing;
        if (at < 0 && !(x->name && (inst_setting(cx, i, x->name) || param))) {
            Diag *g =
                sema_error(cx, E015, x->loc, x->name ? "`%s` has no `%s`" : "`%s` gets too many arguments",
                           i->decl->name, x->name ? x->name : "");
            diag_help(cx->d, g, "arguments are parameters of the model, its configs and its sizes");
            continue;
        }
        Val v = eval(cx, sc, x->e);
        if (at >= 0)
            frame_put(cx, &i->arg, f->item[at].name, v);
        else
            frame_put(cx, &i->given, x->name, param ? lift(cx, v) : v);
    }
    Scope inner = {.own = i->top, .mod = i->mod, .inst = i};
    for (uint32_t k = 0; k < f->n; k++) {
        if (frame_find(&i->arg, f->item[k].name)) continue;
        if (f->item[k].dflt)
            frame_put(cx, &i->arg, f->item[k].name, eval(cx, &inner, f->item[k].dflt));
        else
            sema_error(cx, E015, st->loc, "`%s`: `%s` is missing", i->decl->name, f->item[k].name);
    }
}

Inst *inst_make(Cx *cx, const Scope *sc, const Stmt *st) {
    DeclRef kind;
    if (!find_kind(cx, sc, st, &kind)) return NULL;
    Inst *i = NEW(cx->a, Inst);
    *i = (Inst){.name = st->name, .mod = kind.mod, .decl = kind.st, .st = st, .frozen = st->frozen};
    for (uint32_t k = 0; k < cx->o->nmodel && !cx->testing; k++)
        if (!strcmp(cx->o->model[k].model, st->name)) i->src = &cx->o->model[k];
    i->top = NEW(cx->a, Owner);
    *i->top = (Owner){.inst = i, .mod = i->mod, .decl = i->decl, .prefix = {"", ""}, .path = i->name};
    all_settings(cx, sc, i);
    inst_args(cx, sc, i);
    GROW(cx->a, cx->inst, cx->ninst, cx->inst_cap);
    cx->inst[cx->ninst++] = i;
    return i;
}

/* ---- members */

const Stmt *owner_member(const Owner *own, const char *name) {
    for (uint32_t k = 0; k < own->decl->body.n; k++)
        if (!strcmp(own->decl->body.item[k]->name, name)) return own->decl->body.item[k];
    return NULL;
}

const char *stored_name(Cx *cx, const Scope *sc, const AstStored *stored) {
    Sbuf b;
    sb_init(&b, cx->a);
    const char *s = stored->name;
    for (const char *open; (open = strchr(s, '{')) != NULL;) {
        const char *close = strchr(open, '}');
        sb_put(&b, s, (size_t)(open - s));
        if (!close) {
            sema_error(cx, E002, stored->loc, "`{` without `}` in a stored name");
            return NULL;
        }
        Loc inside = stored->loc; /* past the quote and what stands before */
        uint32_t skip = 1 + (uint32_t)(open + 1 - stored->name);
        inside.at += skip;
        inside.col += skip;
        Expr *e = wg_parse_expr(cx->a, open + 1, (size_t)(close - open - 1), inside, cx->d);
        if (!e) return NULL;
        Val v = eval(cx, sc, e);
        int64_t n;
        if (v.kind == VK_POISON) return NULL;
        if (!val_whole(&v, &n)) {
            sema_error(cx, E064, e->loc, "{..} in a stored name is a whole number, not %s", val_text(cx, &v));
            return NULL;
        }
        sb_fmt(&b, "%lld", (long long)n);
        s = close + 1;
    }
    sb_str(&b, s);
    return b.s;
}

static Owner *copy_make(Cx *cx, Stack *s, const DeclRef *block, uint32_t at) {
    Owner *own = s->own, *c = NEW(cx->a, Owner);
    Frame frame = {0};
    if (!s->single) frame_put(cx, &frame, "i", val_num(at, true));
    Scope sc = {.frame = &frame, .own = own, .mod = own->mod, .inst = own->inst};
    const AstStoredPair *pair = &s->st->stored[at > 0 && s->st->nstored > 1 ? 1 : 0];
    *c = (Owner){.inst = own->inst, .mod = block->mod, .decl = block->st};
    for (uint32_t k = 0; k < 2; k++) {
        const char *name = stored_name(cx, &sc, &pair->alt[k < pair->n ? k : 0]);
        if (!name) return NULL;
        c->prefix[k] = arena_fmt(cx->a, "%s%s.", own->prefix[k], name);
    }
    c->path = s->single ? arena_fmt(cx->a, "%s.%s", own->path, s->st->name)
                        : arena_fmt(cx->a, "%s.%s.%u", own->path, s->st->name, at);
    return c;
}

static Val stack_make(Cx *cx, Owner *own, const Stmt *st) {
    Scope sc = {.own = own, .mod = own->mod, .inst = own->inst};
    Val b = eval_name(cx, &sc, st->kind_name, st->kind_loc);
    if (b.kind == VK_POISON) return b;
    if (b.kind != VK_BLOCK)
        return val_error(cx, E017, st->kind_loc, "`%s` is %s, no block", st->kind_name, val_text(cx, &b));
    Stack *s = NEW(cx->a, Stack);
    s->own = own;
    s->st = st;
    s->single = st->kind == S_SUBBLOCK;
    int64_t n = 1;
    if (!s->single) {
        Val v = eval(cx, &sc, st->e);
        if (v.kind == VK_POISON) return v;
        s->has_dim = v.kind == VK_DIM;
        s->dim = v.dim;
        bool whole = s->has_dim || val_whole(&v, &n);
        if (s->has_dim) n = cx->g->dim[v.dim.i].size;
        if (!whole || n < 0 || n > MAX_COPIES)
            return val_error(cx, E064, st->e->loc,
                             "model `%s`: `%s` would have %s copies: a whole number from 0 to %d",
                             own->inst->name, st->name, val_text(cx, &v), MAX_COPIES);
    }
    s->copy = NEWN(cx->a, Owner *, n);
    for (s->n = 0; s->n < n; s->n++)
        if (!(s->copy[s->n] = copy_make(cx, s, &b.u.decl, s->n))) return val_poison();
    Val r = {.kind = VK_STACK};
    r.u.stack = s;
    return r;
}

Val owner_get(Cx *cx, Owner *own, const Stmt *st, Loc loc) {
    Cached *c = cached_at(cx, &own->member, &own->n, &own->cap, st);
    if (c->at == READY) return c->v;
    if (c->at == BUSY) return val_error(cx, E013, loc, "`%s` depends on itself", st->name);
    c->at = BUSY;
    Scope sc = {.own = own, .mod = own->mod, .inst = own->inst};
    Val v;
    if (st->kind == S_PARAM)
        v = param_value(cx, own, st);
    else if (st->kind == S_LET)
        v = eval(cx, &sc, st->e);
    else
        v = stack_make(cx, own, st);
    cached_done(cx, c, v);
    return v;
}

/* ---- calls */

static Val copy_run(Cx *cx, const Scope *sc, Owner *own, const Frame *args, Loc loc) {
    Frame frame = {0};
    for (uint32_t k = 0; k < args->n; k++) frame_put(cx, &frame, args->item[k].name, args->item[k].v);
    Scope inner = {.frame = &frame, .own = own, .mod = own->mod, .inst = own->inst, .caller = sc};
    if (!call_enter(cx, own->decl->name, own->decl, own, loc)) return val_poison();
    const char *path = cx->g->path;
    cx->g->path = own->path;
    Val r = eval_body(cx, &inner, &own->decl->body, own->decl->e);
    cx->g->path = path;
    call_leave(cx);
    return r;
}

static Val stack_each(Cx *cx, const Scope *sc, Stack *s, const Frame *args, Loc loc) {
    ValueId *out = NEWN(cx->a, ValueId, s->n);
    Val r = val_tensor((ValueId){0}, LT_F32, false);
    for (uint32_t k = 0; k < s->n; k++) {
        Val v = copy_run(cx, sc, s->copy[k], args, loc);
        if (v.kind == VK_POISON) return v;
        v = lift_any(cx, v);
        if (v.kind != VK_TENSOR || v.t > LT_INT)
            return val_error(cx, E026, loc, "the block `%s` gives %s, no numbers to stand side by side",
                             s->copy[k]->decl->name, val_text(cx, &v));
        if (type_has(val_type(cx, &v), s->dim))
            return val_error(cx, E020, loc, "the value has the dim `%s` already", cx->g->dim[s->dim.i].name);
        const Type *first = k ? value_type(cx->g, out[0]) : val_type(cx, &v);
        out[k] = to_dims(cx, v.v, first->dim, first->ndim);
        r.grad |= v.grad;
    }
    Attr d = at_dim(s->dim);
    r.v = build(cx->g, OP_stack, out, s->n, &d, 1);
    return r;
}

Val stack_call(Cx *cx, const Scope *sc, Stack *s, const Expr *call, bool each) {
    if (each && !s->has_dim)
        return val_error(cx, E015, call->loc,
                         "`%s.each` adds the dim of the stack, but its size is a number, no dim",
                         s->st->name);
    if (s->n == 0)
        return call->list.n ? eval(cx, sc, call->list.item[0].e)
                            : val_error(cx, E015, call->loc, "`%s` takes a value", s->st->name);
    Frame args = {0};
    const Owner *first = s->copy[0];
    Scope inner = {.frame = &args, .own = s->copy[0], .mod = first->mod, .inst = first->inst, .caller = sc};
    if (!bind_args(cx, sc, call, &first->decl->params, first->decl->name, &inner)) return val_poison();
    if (args.n == 0)
        return val_error(cx, E015, call->loc, "the block `%s` takes no value", first->decl->name);
    if (each) return stack_each(cx, sc, s, &args, call->loc);
    for (uint32_t k = 0; k < s->n; k++) {
        args.item[0].v = copy_run(cx, sc, s->copy[k], &args, call->loc);
        if (args.item[0].v.kind == VK_POISON) return val_poison();
    }
    return args.item[0].v;
}

static void remember_called(Cx *cx, Inst *i, const Frame *args) {
    for (uint32_t k = 0; k < args->n; k++) {
        if (args->item[k].v.kind != VK_TENSOR) continue;
        const Type *t = val_type(cx, &args->item[k].v);
        for (int j = 0; j < t->ndim; j++) {
            const char *plain = cx->dim[t->dim[j].i].plain;
            const Decl *d = inst_setting(cx, i, plain);
            bool known = !d || d->st->kind != S_DIM;
            for (uint32_t q = 0; q < i->ncalled; q++) known |= !strcmp(i->called[q].name, plain);
            if (known) continue;
            GROW(cx->a, i->called, i->ncalled, i->called_cap);
            i->called[i->ncalled++] = (CalledDim){plain, t->dim[j]};
        }
    }
}

Val inst_method(Cx *cx, const Scope *sc, Inst *i, const char *name, const Expr *call, Loc loc) {
    const Stmt *def = owner_member(i->top, name);
    if (!def || def->kind != S_DEF) {
        Diag *g = sema_error(cx, E017, loc,
                             !strcmp(name, "call") ? "model `%s` cannot be called: it has no `def call`"
                                                   : "model `%s` has no `%s`",
                             i->name, name);
        diag_span(cx->d, g, i->st->name_loc, "the model is made here");
        return val_poison();
    }
    Frame frame = {0};
    Scope inner = {.frame = &frame, .own = i->top, .mod = i->mod, .inst = i, .caller = sc};
    if (!bind_args(cx, sc, call, &def->params, def->name, &inner)) return val_poison();
    for (uint32_t k = 0; k < frame.n; k++) /* its dims would be missed in every size that the call gives */
        if (frame.item[k].v.kind == VK_POISON) return val_poison();
    remember_called(cx, i, &frame);
    if (!call_enter(cx, arena_fmt(cx->a, "%s.%s", i->name, name), def, i->top, call->loc))
        return val_poison();
    const char *path = cx->g->path;
    cx->g->path = i->name;
    Val r = eval_body(cx, &inner, &def->body, def->e);
    cx->g->path = path;
    call_leave(cx);
    return r;
}
