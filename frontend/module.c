/* module.c: finding and reading files, what modules offer, and the table of names of a graph.
 *
 * A graph with its bases is one table: the file at the bottom of `extends` is level 0 and comes first, so
 * that every name keeps the place of its first definition and a redefinition replaces what stands there. */
#include "frontend/sema.h"

#include <string.h>

enum { MAX_LEVELS = 16, MAX_FILE_BYTES = 1 << 22 };

/* ---- files */

static const char *folder_of(Cx *cx, const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return ".";
    return slash == path ? "/" : arena_str(cx->a, path, (size_t)(slash - path));
}

static bool is_file(Cx *cx, const char *path) {
    Env *env = arena_env(cx->a);
    EnvStat st;
    int err;
    return env->stat(env, path, &st, &err) == 0 && st.is_file;
}

static const char *try_in(Cx *cx, const char *dir, const char *sub, const char *name) {
    const char *p = !strcmp(dir, ".") ? arena_fmt(cx->a, "%s%s.wg", sub, name)
                                      : arena_fmt(cx->a, "%s/%s%s.wg", dir, sub, name);
    return is_file(cx, p) ? p : NULL;
}

/* Beside the file, lib/ there, the parent folder and its lib/, then WMTPC_PATH and the installed library. */
static const char *file_find(Cx *cx, const char *name, const char *beside) {
    const char *dir = folder_of(cx, beside), *p;
    static const char *const near[] = {"", "lib/", "../", "../lib/"};
    static const char *const sub[] = {"", "lib/", "examples/"};
    for (size_t i = 0; i < WM_LEN(near); i++)
        if ((p = try_in(cx, dir, near[i], name)) != NULL) return p;
    for (uint32_t k = 0; k < cx->o->npath; k++)
        for (size_t i = 0; i < WM_LEN(sub); i++)
            if ((p = try_in(cx, cx->o->path[k], sub[i], name)) != NULL) return p;
    return NULL;
}

/* "graphs/examples/../lib/x.wg" and "graphs/lib/x.wg" are one file: taken apart by device and inode. */
static bool same_file(Cx *cx, const char *a, const char *b) {
    Env *env = arena_env(cx->a);
    EnvStat x, y;
    int err;
    if (!strcmp(a, b)) return true;
    return env->stat(env, a, &x, &err) == 0 && env->stat(env, b, &y, &err) == 0 && x.dev == y.dev &&
           x.ino == y.ino;
}

static const char *stem(Cx *cx, const char *path) {
    const char *slash = strrchr(path, '/'), *s = slash ? slash + 1 : path, *dot = strrchr(s, '.');
    return arena_str(cx->a, s, dot && !strcmp(dot, ".wg") ? (size_t)(dot - s) : strlen(s));
}

AstFile *file_load(Cx *cx, const char *path, Loc from) {
    for (uint32_t i = 0; i < cx->nfile; i++)
        if (same_file(cx, cx->file[i]->path, path)) return cx->file[i];
    if (!is_file(cx, path)) {
        if (!cx->nfile)
            return diag_add(cx->d, D002, NOLOC, "there is no file %s", path), NULL; /* the command line's */
        sema_error(cx, E016, from, "there is no file %s", path);
        return NULL;
    }
    char *text;
    size_t len;
    if (!file_read_all(arena_env(cx->a), cx->a, path, MAX_FILE_BYTES, &text, &len, cx->d)) return NULL;
    path = arena_str(cx->a, path, strlen(path));
    diag_source(cx->d, path, text, len);
    AstFile *f = wg_parse(cx->a, path, text, len, cx->d);
    GROW(cx->a, cx->file, cx->nfile, cx->file_cap);
    cx->file[cx->nfile++] = f;
    if (!f->name) return f;
    const char *want = stem(cx, path);
    if (strcmp(f->name, want)) {
        Diag *g = sema_error(cx, E016, f->name_loc, "the file %s.wg holds `%s`", want, f->name);
        diag_help(cx->d, g, "the file NAME.wg holds the graph or module NAME");
    }
    return f;
}

static void no_such(Cx *cx, Loc loc, const char *what, const char *name, const char *beside) {
    Diag *g = sema_error(cx, E016, loc, "there is no %s `%s`", what, name);
    Sbuf b;
    sb_init(&b, cx->a);
    const char *dir = folder_of(cx, beside);
    sb_fmt(&b, "looked for %s.wg in %s, %s/lib, %s/.., %s/../lib", name, dir, dir, dir, dir);
    for (uint32_t i = 0; i < cx->o->npath; i++) sb_fmt(&b, ", %s", cx->o->path[i]);
    diag_note(cx->d, g, "%s", b.s);
}

/* ---- modules */

Decl *module_find(Module *m, const char *name) {
    for (uint32_t i = 0; m && i < m->n; i++)
        if (!strcmp(m->decl[i].name, name)) return &m->decl[i];
    return NULL;
}

static void module_put(Cx *cx, Module *m, const char *name, Module *from, const Stmt *st, bool imported,
                       Loc loc) {
    if (!check_name(cx, name, loc)) return;
    Decl *old = module_find(m, name);
    if (old && old->st == st) return;
    if (old) {
        Diag *g = sema_error(cx, E011, loc, "`%s` is defined twice", name);
        diag_span(cx->d, g, old->loc, "first here");
        return;
    }
    GROW(cx->a, m->decl, m->n, m->cap);
    m->decl[m->n++] = (Decl){name, from, st, imported, loc};
}

static void lacks(Cx *cx, Module *m, const char *name, Loc loc) {
    const char *cand[256];
    size_t n = 0;
    for (uint32_t i = 0; i < m->n && n < WM_LEN(cand); i++) cand[n++] = m->decl[i].name;
    Diag *g = sema_error(cx, E017, loc, "module `%s` has no `%s`", m->ast->name, name);
    const char *near = text_nearest(name, cand, n);
    if (!near) return;
    diag_help(cx->d, g, "did you mean `%s`?", near);
    diag_fix(cx->d, g, loc, false, "%s", near);
}

static void module_import(Cx *cx, Module *m, const Stmt *st) {
    Module *from = module_load(cx, st->name, m->ast->path, st->name_loc);
    for (uint32_t i = 0; from && i < st->names.n; i++) {
        Decl *d = module_find(from, st->names.name[i]);
        if (d)
            module_put(cx, m, d->name, d->mod, d->st, true, st->names.loc[i]);
        else
            lacks(cx, from, st->names.name[i], st->names.loc[i]);
    }
}

static void check_members(Cx *cx, const Stmt *st) {
    for (uint32_t i = 0; i < st->body.n; i++) {
        const Stmt *m = st->body.item[i];
        if (!check_name(cx, m->name, m->name_loc)) continue;
        for (uint32_t k = 0; k < i; k++)
            if (!strcmp(st->body.item[k]->name, m->name)) {
                Diag *g = sema_error(cx, E011, m->name_loc, "`%s` is defined twice", m->name);
                diag_span(cx->d, g, st->body.item[k]->name_loc, "first here");
                break;
            }
    }
}

static void check_formals(Cx *cx, const Formals *f) {
    for (uint32_t i = 0; i < f->n; i++) {
        check_name(cx, f->item[i].name, f->item[i].loc);
        for (uint32_t k = 0; k < i; k++)
            if (!strcmp(f->item[k].name, f->item[i].name))
                sema_error(cx, E011, f->item[i].loc, "`%s` is defined twice", f->item[i].name);
    }
}

static const char *stmt_word(StmtKind k) {
    static const struct {
        StmtKind k;
        const char *word;
    } words[] = {
        {S_INPUT, "input"},   {S_HYPER, "hyper"},   {S_STATE, "state"},
        {S_LOSS, "loss"},     {S_METRIC, "metric"}, {S_METRIC_NAMES, "metric"},
        {S_BEST, "best"},     {S_TRAIN, "train"},   {S_CLIP, "clip_norm"},
        {S_ADAPT, "adapt"},   {S_PLAN, "plan"},     {S_INSTANCE, "model NAME : KIND"},
        {S_CONFIG, "config"}, {S_BLOCK, "block"},   {S_MODEL, "model NAME {"},
    };
    for (size_t i = 0; i < WM_LEN(words); i++)
        if (words[i].k == k) return words[i].word;
    return "this statement";
}

static void module_statement(Cx *cx, Module *m, const Stmt *st) {
    switch (st->kind) {
    case S_IMPORT:
        module_import(cx, m, st);
        break;
    case S_BLOCK:
    case S_MODEL:
        check_members(cx, st);
        check_formals(cx, &st->params);
        module_put(cx, m, st->name, m, st, false, st->name_loc);
        break;
    case S_DEF:
        check_formals(cx, &st->params); /* fallthrough */
    case S_DIM:
    case S_CONFIG:
    case S_LET:
        if (st->is_open) sema_error(cx, E018, st->loc, "`open` stands in graphs, not in modules");
        module_put(cx, m, st->name, m, st, false, st->name_loc);
        break;
    case S_TEST:
        break;
    default:
        sema_error(cx, E018, st->loc, "`%s` stands in graphs, not in modules", stmt_word(st->kind));
        break;
    }
}

Module *module_of_file(Cx *cx, AstFile *f, Loc from) {
    for (uint32_t i = 0; i < cx->nmodule; i++)
        if (cx->module[i]->ast == f) {
            if (!cx->module[i]->loading) return cx->module[i];
            sema_error(cx, E013, from, "module `%s` imports itself", f->name);
            return NULL;
        }
    if (!f->name) return NULL;
    if (!f->is_module) {
        sema_error(cx, E016, from, "`%s` is a graph, not a module", f->name);
        return NULL;
    }
    Module *m = NEW(cx->a, Module);
    m->ast = f;
    m->loading = true;
    GROW(cx->a, cx->module, cx->nmodule, cx->module_cap);
    cx->module[cx->nmodule++] = m;
    for (uint32_t i = 0; i < f->body.n; i++) module_statement(cx, m, f->body.item[i]);
    m->loading = false;
    return m;
}

Module *module_load(Cx *cx, const char *name, const char *beside, Loc loc) {
    const char *path = file_find(cx, name, beside);
    if (!path) {
        no_such(cx, loc, "module", name, beside);
        return NULL;
    }
    AstFile *f = file_load(cx, path, loc);
    return f ? module_of_file(cx, f, loc) : NULL;
}

/* ---- does a def read what differs from model to model? */

static bool expr_reads(Module *m, const Stmt *def, const Expr *e, int depth);

static bool name_reads(Module *m, const Stmt *def, const char *name, int depth) {
    for (uint32_t i = 0; i < def->params.n; i++)
        if (!strcmp(def->params.item[i].name, name)) return false;
    for (uint32_t i = 0; i < def->body.n; i++)
        if (!strcmp(def->body.item[i]->name, name)) return false;
    const Decl *d = module_find(m, name);
    if (!d) return false;
    if (d->st->kind == S_CONFIG || d->st->kind == S_LET) return true;
    return d->st->kind == S_DEF && reads_config(d->mod, d->st, depth + 1);
}

static bool list_reads(Module *m, const Stmt *def, const ExprList *l, int depth) {
    for (uint32_t i = 0; i < l->n; i++)
        if (expr_reads(m, def, l->item[i].e, depth)) return true;
    return false;
}

static bool expr_reads(Module *m, const Stmt *def, const Expr *e, int depth) {
    if (!e) return false;
    if (e->kind == X_NAME) return name_reads(m, def, e->name, depth);
    return expr_reads(m, def, e->a, depth) || expr_reads(m, def, e->b, depth) ||
           expr_reads(m, def, e->c, depth) || list_reads(m, def, &e->list, depth);
}

bool reads_config(Module *m, const Stmt *def, int depth) {
    if (depth > MAX_CALLS) return false; /* recursion is reported where it is called */
    for (uint32_t i = 0; i < def->body.n; i++)
        if (expr_reads(m, def, def->body.item[i]->e, depth)) return true;
    return expr_reads(m, def, def->e, depth);
}

/* ---- the table of a graph */

Entry *entry_find(Cx *cx, const char *name) {
    uint32_t i;
    return cx->entry_of && strmap_get(cx->entry_of, name, &i) && !cx->entry[i].hidden_import ? &cx->entry[i]
                                                                                             : NULL;
}

static void entry_add(Cx *cx, Entry e) {
    GROW(cx->a, cx->entry, cx->nentry, cx->entry_cap);
    if (!cx->entry_of) cx->entry_of = strmap_new(cx->a);
    strmap_put(cx->entry_of, e.name, cx->nentry);
    cx->entry[cx->nentry++] = e;
}

static bool type_same_name(const Stmt *a, const Stmt *b) {
    if (!a->htype.base != !b->htype.base) return false;
    if (a->htype.base) return !strcmp(a->htype.base, b->htype.base);
    if (a->htype.choice.n != b->htype.choice.n) return false;
    for (uint32_t i = 0; i < a->htype.choice.n; i++)
        if (strcmp(a->htype.choice.name[i], b->htype.choice.name[i])) return false;
    return true;
}

static bool names_hold(const Names *a, const Names *b) {
    for (uint32_t i = 0; i < b->n; i++) {
        bool in = false;
        for (uint32_t k = 0; k < a->n; k++) in |= !strcmp(a->name[k], b->name[i]);
        if (!in) return false;
    }
    return true;
}

/* Whether `e` may take the place of `old`, of a base graph. */
static bool may_replace(Cx *cx, const Entry *old, const Entry *e) {
    if (old->kind == S_INPUT && e->kind == S_INPUT) {
        const AstType *a = &old->st->type, *b = &e->st->type;
        if (!strcmp(a->name, b->name) && names_hold(&b->dims, &a->dims)) return true;
        Diag *g = sema_error(cx, E063, e->loc, "`%s` is redeclared with %s", e->name,
                             strcmp(a->name, b->name) ? "another dtype" : "fewer dims");
        diag_span(cx->d, g, old->loc, "the base graph declares it here");
        diag_help(cx->d, g, "a redeclared input keeps its dtype and its dims, and may gain dims");
        return false;
    }
    if (old->kind == S_HYPER && e->kind == S_HYPER) {
        if (type_same_name(old->st, e->st)) return true;
        Diag *g = sema_error(cx, E012, e->loc, "hyper `%s` has another type in the base graph", e->name);
        diag_span(cx->d, g, old->loc, "declared here");
        return false;
    }
    if (old->kind == S_INSTANCE && e->kind == S_INSTANCE) return true;
    if (old->open && old->kind == e->kind) return true;
    Diag *g = sema_error(cx, E012, e->loc, "`%s` is not open in the graph that this one extends", e->name);
    diag_span(cx->d, g, old->loc, "defined here");
    diag_help(cx->d, g, "write `open %s = ..` there, or choose another name", e->name);
    return false;
}

static void entry_put(Cx *cx, Entry e) {
    if (!check_name(cx, e.name, e.loc)) return;
    Entry *old = entry_find(cx, e.name);
    if (!old) {
        entry_add(cx, e);
        return;
    }
    if (old->kind == S_IMPORT && e.kind == S_IMPORT && old->st == e.st) return;
    if (old->level == e.level) {
        Diag *g = sema_error(cx, E011, e.loc, "`%s` is defined twice", e.name);
        diag_span(cx->d, g, old->loc, "first here");
        return;
    }
    if (!may_replace(cx, old, &e)) return;
    e.open = e.open || old->open;
    *old = e;
}

static void graph_import(Cx *cx, AstFile *f, const Stmt *st, int level) {
    Module *m = module_load(cx, st->name, f->path, st->name_loc);
    for (uint32_t i = 0; m && i < st->names.n; i++) {
        const char *name = st->names.name[i];
        Loc loc = st->names.loc[i];
        Decl *d = module_find(m, name);
        if (!d) {
            lacks(cx, m, name, loc);
        } else if (d->st->kind == S_CONFIG || d->st->kind == S_LET) {
            sema_error(cx, E017, loc, "`%s` belongs to each model of module `%s`: a graph cannot import it",
                       name, d->mod->ast->name);
        } else if (d->st->kind == S_DEF && reads_config(d->mod, d->st, 0)) {
            sema_error(cx, E017, loc, "`%s` reads a config of module `%s`: only models can call it", name,
                       d->mod->ast->name);
        } else {
            entry_put(cx, (Entry){.name = name,
                                  .kind = S_IMPORT,
                                  .st = d->st,
                                  .file = f,
                                  .mod = d->mod,
                                  .level = level,
                                  .loc = loc});
        }
    }
}

static void train_add(Cx *cx, const Stmt *st, int level) {
    for (uint32_t i = 0; i < st->ngroup; i++) {
        const AstGroup *p = &st->group[i];
        for (uint32_t k = 0; k < cx->ntrain; k++) {
            TrainGroup *t = &cx->train[k];
            if (strcmp(t->model, p->model) || t->st == st) continue;
            if (t->level == level) {
                Diag *g = sema_error(cx, E055, p->loc, "model `%s` is in two train lines", p->model);
                diag_span(cx->d, g, t->loc, "the other one is here");
            } else {
                *t = cx->train[--cx->ntrain]; /* replaced */
                k--;
            }
        }
        GROW(cx->a, cx->train, cx->ntrain, cx->train_cap);
        cx->train[cx->ntrain++] = (TrainGroup){
            .model = p->model, .pattern = p->pattern, .st = st, .level = level, .row = -1, .loc = p->loc};
    }
}

static void single(Cx *cx, const Stmt **slot, int *slot_level, const Stmt *st, int level, const char *word) {
    if (*slot && *slot_level == level) {
        Diag *g = sema_error(cx, E011, st->loc, "`%s` is written twice", word);
        diag_span(cx->d, g, (*slot)->loc, "first here");
    }
    *slot = st;
    *slot_level = level;
}

static void graph_statement(Cx *cx, AstFile *f, const Stmt *st, int level) {
    Entry e = {.name = st->name,
               .kind = st->kind,
               .st = st,
               .file = f,
               .level = level,
               .open = st->is_open,
               .loc = st->name_loc};
    switch (st->kind) {
    case S_IMPORT:
        graph_import(cx, f, st, level);
        break;
    case S_INPUT:
        for (uint32_t i = 0; i < st->names.n; i++) {
            e.name = st->names.name[i];
            e.loc = st->names.loc[i];
            entry_put(cx, e);
        }
        break;
    case S_DEF:
        check_formals(cx, &st->params); /* fallthrough */
    case S_DIM:
    case S_HYPER:
    case S_INSTANCE:
    case S_STATE:
    case S_LET:
    case S_LOSS:
    case S_METRIC:
        entry_put(cx, e);
        break;
    case S_TRAIN:
        train_add(cx, st, level);
        break;
    case S_CLIP:
        single(cx, &cx->clip, &cx->clip_level, st, level, "clip_norm");
        break;
    case S_BEST:
        single(cx, &cx->best, &cx->best_level, st, level, "best");
        break;
    case S_METRIC_NAMES:
    case S_PLAN:
    case S_ADAPT:
        GROW(cx->a, cx->misc, cx->nmisc, cx->misc_cap);
        GROW(cx->a, cx->misc_level, cx->nmisc, cx->misc_level_cap);
        cx->misc[cx->nmisc] = st;
        cx->misc_level[cx->nmisc++] = level;
        break;
    case S_TEST:
        break;
    default:
        sema_error(cx, E018, st->loc, "`%s` stands in modules, not in graphs", stmt_word(st->kind));
        break;
    }
}

static bool chain_load(Cx *cx, const char *path) {
    Loc from = {.file = path, .line = 1, .col = 1};
    AstFile *f = file_load(cx, path, from);
    while (f) {
        for (uint32_t i = 0; i < cx->nchain; i++)
            if (cx->chain[i] == f)
                return sema_error(cx, E013, cx->chain[cx->nchain - 1]->base_loc, "graph `%s` extends itself",
                                  f->name),
                       false;
        if (cx->nchain == MAX_LEVELS)
            return sema_error(cx, E013, f->name_loc, "more than %d levels of extends", MAX_LEVELS), false;
        GROW(cx->a, cx->chain, cx->nchain, cx->chain_cap);
        cx->chain[cx->nchain++] = f;
        if (!f->name) return false; /* the parser has said why */
        if (f->is_module)
            return sema_error(cx, E016, cx->nchain > 1 ? cx->chain[cx->nchain - 2]->base_loc : f->name_loc,
                              "`%s` is a module, not a graph", f->name),
                   false;
        if (!f->base) return true;
        const char *p = file_find(cx, f->base, f->path);
        if (!p) {
            no_such(cx, f->base_loc, "graph", f->base, f->path);
            return false;
        }
        f = file_load(cx, p, f->base_loc);
    }
    return false;
}

bool graph_load(Cx *cx, const char *path) {
    if (!chain_load(cx, path)) return false;
    if (cx->nchain > 3)
        sema_warn(cx, W067, cx->chain[0]->base_loc,
                  "%u levels of extends: hard to read; `wmtpc expand` prints the flat file", cx->nchain - 1);
    for (uint32_t i = cx->nchain; i-- > 0;)
        for (uint32_t k = 0; k < cx->chain[i]->body.n; k++)
            graph_statement(cx, cx->chain[i], cx->chain[i]->body.item[k], (int)(cx->nchain - 1 - i));
    return true;
}
