/* modcheck.c: `wmtpc check` of a module on its own. A module has no sizes and no caller, so what can be known
 * is known: its imports and names (module.c), that everything called exists, and that blocks and models read
 * only what they can see. A free name in a `def` may be a dim of the caller, so it is left alone. */
#include "frontend/sema.h"

#include <string.h>

typedef struct Seen Seen;
struct Seen {
    const Seen *up;
    const char *name;
}; /* local names, innermost first */
typedef struct {
    Cx *cx;
    Module *mod;
    const Stmt *owner; /* the block or model around; NULL in a def of the module */
    bool strict;       /* free names are mistakes */
} Walk;

static bool is_member(const Stmt *owner, const char *name) {
    for (uint32_t i = 0; owner && i < owner->body.n; i++)
        if (!strcmp(owner->body.item[i]->name, name)) return true;
    for (uint32_t i = 0; owner && i < owner->params.n; i++)
        if (!strcmp(owner->params.item[i].name, name)) return true;
    return false;
}

static bool known(const Walk *w, const Seen *seen, const char *name) {
    for (const Seen *s = seen; s; s = s->up)
        if (!strcmp(s->name, name)) return true;
    return is_member(w->owner, name) || module_find(w->mod, name) || builtin_find(name) ||
           name_reserved(name);
}

static void unknown(const Walk *w, const char *name, Loc loc, const char *what) {
    const char *cand[256];
    uint32_t n = builtin_names(cand, 128);
    for (uint32_t i = 0; i < w->mod->n && n < 200; i++) cand[n++] = w->mod->decl[i].name;
    for (uint32_t i = 0; w->owner && i < w->owner->body.n && n < 256; i++)
        cand[n++] = w->owner->body.item[i]->name;
    Diag *g = sema_error(w->cx, E010, loc, "unknown %s `%s`", what, name);
    const char *near = text_nearest(name, cand, n);
    if (!near) return;
    diag_help(w->cx->d, g, "did you mean `%s`?", near);
    diag_fix(w->cx->d, g, loc, false, "%s", near);
}

/* Named arguments that hold names of dims, which a call may bring with it. */
static bool names_dims(const char *arg) {
    static const char *const names[] = {"over", "per", "along"};
    for (size_t i = 0; arg && i < WM_LEN(names); i++)
        if (!strcmp(arg, names[i])) return true;
    return false;
}

static void expr(const Walk *w, const Seen *seen, const Expr *e) {
    if (!e) return;
    if (e->kind == X_NAME && w->strict && !known(w, seen, e->name)) unknown(w, e->name, e->loc, "name");
    if (e->kind == X_CALL && e->a->kind == X_NAME) {
        if (!known(w, seen, e->a->name)) unknown(w, e->a->name, e->a->loc, "function");
    } else {
        expr(w, seen, e->a);
    }
    bool scan = e->kind == X_CALL && e->a->kind == X_NAME && !strcmp(e->a->name, "scan");
    Seen carry = {seen, "carry"};
    for (uint32_t i = 0; i < e->list.n; i++)
        if (!names_dims(e->list.item[i].name) && !(e->kind == X_INDEX && e->list.item[i].name))
            expr(w, scan ? &carry : seen, e->list.item[i].e);
    expr(w, seen, e->b);
    expr(w, seen, e->c);
}

/* Lets in order, each seeing those before it, then the result. */
static void body(const Walk *w, const Seen *seen, const Stmt *st, uint32_t at) {
    if (at == st->body.n) {
        expr(w, seen, st->e);
        return;
    }
    const Stmt *let = st->body.item[at];
    Seen own = {seen, let->name};
    if (let->kind == S_LET) expr(w, seen, let->e);
    body(w, let->kind == S_LET ? &own : seen, st, at + 1);
}

static void formals(const Walk *w, const Seen *seen, const Stmt *st, uint32_t at) {
    if (at == st->params.n) {
        body(w, seen, st, 0);
        return;
    }
    Seen own = {seen, st->params.item[at].name};
    expr(w, seen, st->params.item[at].dflt);
    formals(w, &own, st, at + 1);
}

static void kind_known(const Walk *w, const Stmt *st) {
    if (!is_member(w->owner, st->kind_name) && !module_find(w->mod, st->kind_name))
        unknown(w, st->kind_name, st->kind_loc, "block");
}

/* A block or model: members see one another whatever their order. */
static void owner(Cx *cx, Module *m, const Stmt *st) {
    Walk w = {cx, m, st, true};
    for (uint32_t i = 0; i < st->body.n; i++) {
        const Stmt *x = st->body.item[i];
        Walk def = {cx, m, st, false};
        if (x->kind == S_DEF)
            formals(&def, NULL, x, 0);
        else if (x->kind == S_STACK || x->kind == S_SUBBLOCK)
            kind_known(&w, x);
        else
            expr(&w, NULL, x->e);
    }
    if (st->kind == S_BLOCK) expr(&w, NULL, st->e);
}

/* Checks a module file. false with diagnostics. */
bool module_check(Cx *cx, AstFile *f) {
    uint32_t before = cx->d->nerror;
    Module *m = module_of_file(cx, f, f->name_loc);
    if (!m || cx->d->nerror > before) return false;
    Walk w = {cx, m, NULL, false};
    for (uint32_t i = 0; i < f->body.n; i++) {
        const Stmt *st = f->body.item[i];
        if (st->kind == S_BLOCK || st->kind == S_MODEL)
            owner(cx, m, st);
        else if (st->kind == S_DEF)
            formals(&w, NULL, st, 0);
    }
    return cx->d->nerror == before;
}
