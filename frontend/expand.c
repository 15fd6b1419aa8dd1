/* expand.c: the flat graph after `extends`, as text (wmtpc expand).
 *
 * Statements are copied from the files that hold them, comments included. A redefined name stands where the
 * base first defined it, since the order of models decides whose dim has the plain name. */
#include "frontend/sema.h"

#include <string.h>

typedef struct {
    Cx *cx;
    Sbuf *out;
    const Stmt **done;
    uint32_t n, cap;
} Expand;

static bool mark_done(Expand *x, const Stmt *st) {
    for (uint32_t i = 0; i < x->n; i++)
        if (x->done[i] == st) return false;
    GROW(x->cx->a, x->done, x->n, x->cap);
    x->done[x->n++] = st;
    return true;
}

static size_t line_start(const char *t, size_t at) {
    while (at > 0 && t[at - 1] != '\n') at--;
    return at;
}

/* The comment lines that stand directly above. */
static size_t with_comments(const char *t, size_t at) {
    size_t from = line_start(t, at);
    while (from > 0) {
        size_t above = line_start(t, from - 1), s = above;
        while (t[s] == ' ' || t[s] == '\t') s++;
        if (t[s] != '#') break;
        from = above;
    }
    return from;
}

static void copy_comments(Expand *x, const AstFile *f, const Stmt *st) {
    size_t from = with_comments(f->text, st->loc.at), to = line_start(f->text, st->loc.at);
    if (from >= 2 && f->text[from - 1] == '\n' && f->text[from - 2] == '\n') sb_chr(x->out, '\n');
    if (from < to) sb_put(x->out, f->text + from, to - from);
}

static void copy_tail(Expand *x, const AstFile *f, const Stmt *st) {
    size_t at = st->loc.at + st->loc.len, end = at;
    while (end < f->len && f->text[end] != '\n') end++;
    sb_put(x->out, f->text + at, end - at);
    sb_chr(x->out, '\n');
}

static void copy_stmt(Expand *x, const AstFile *f, const Stmt *st, bool open) {
    if (!mark_done(x, st)) return;
    copy_comments(x, f, st);
    if (open && strncmp(f->text + st->loc.at, "open", 4)) sb_str(x->out, "open ");
    sb_put(x->out, f->text + st->loc.at, st->loc.len);
    copy_tail(x, f, st);
}

static void put_type(Expand *x, const AstType *t) {
    sb_str(x->out, t->name);
    for (uint32_t i = 0; i < t->dims.n; i++) sb_fmt(x->out, "%s%s", i ? ", " : "[", t->dims.name[i]);
    if (t->dims.n) sb_chr(x->out, ']');
}

/* One line for several inputs: whole if all of them survive, else one line for each that is still to be
 * written. */
static void put_inputs(Expand *x, const AstFile *f, const Stmt *st) {
    bool whole = true;
    for (uint32_t i = 0; i < st->names.n; i++) {
        Entry *e = entry_find(x->cx, st->names.name[i]);
        whole &= e && e->st == st;
    }
    if (whole) {
        copy_stmt(x, f, st, false);
        return;
    }
    for (uint32_t i = 0; i < st->names.n; i++) {
        Entry *e = entry_find(x->cx, st->names.name[i]);
        if (!e) continue;
        if (e->st != st) {
            put_inputs(x, e->file, e->st);
            continue;
        }
        sb_fmt(x->out, "input %s : ", e->name);
        put_type(x, &st->type);
        if (st->from) sb_fmt(x->out, " from \"%s\"", st->from);
        sb_chr(x->out, '\n');
    }
}

static void put_train(Expand *x, const AstFile *f, const Stmt *st) {
    uint32_t left = 0;
    for (uint32_t k = 0; k < x->cx->ntrain; k++) left += x->cx->train[k].st == st;
    if (left == st->ngroup) {
        copy_stmt(x, f, st, false);
        return;
    }
    if (!left || !mark_done(x, st)) return;
    const char *sep = "train ";
    for (uint32_t k = 0; k < x->cx->ntrain; k++) {
        const TrainGroup *t = &x->cx->train[k];
        if (t->st != st) continue;
        sb_fmt(x->out, "%s%s", sep, t->model);
        if (t->pattern) sb_fmt(x->out, " \"%s\"", t->pattern);
        sep = ", ";
    }
    sb_str(x->out, " with ");
    sb_put(x->out, f->text + st->e->loc.at, st->e->loc.len);
    sb_chr(x->out, '\n');
}

static void put_stmt(Expand *x, const AstFile *f, const Stmt *st, bool top) {
    Cx *cx = x->cx;
    Entry *e;
    switch (st->kind) {
    case S_INPUT:
        put_inputs(x, f, st);
        break;
    case S_TRAIN:
        put_train(x, f, st);
        break;
    case S_CLIP:
    case S_BEST:
        if (st == cx->clip || st == cx->best) copy_stmt(x, f, st, false);
        break;
    case S_TEST:
        if (top) copy_stmt(x, f, st, false);
        break;
    case S_DIM:
    case S_HYPER:
    case S_INSTANCE:
    case S_STATE:
    case S_DEF:
    case S_LET:
    case S_LOSS:
    case S_METRIC:
        e = entry_find(cx, st->name);
        if (e) copy_stmt(x, e->file, e->st, e->open);
        break;
    default:
        copy_stmt(x, f, st, false);
        break;
    }
}

bool frontend_expand(Arena *a, const char *file, const LowerOptions *o, Sbuf *out, Diags *d) {
    uint32_t before = d->nerror;
    Cx *cx = NEW(a, Cx);
    *cx = (Cx){.a = a, .o = o, .d = d, .g = graph_new(a, file, ST_MATH), .present = NOVALUE, .binding = ""};
    cx->g->micro = cx->g->batch = (DimId){UINT32_MAX};
    if (!graph_load(cx, file) || d->nerror > before) return false;
    Expand x = {.cx = cx, .out = out};
    const AstFile *topfile = cx->chain[0];
    size_t head = with_comments(topfile->text, topfile->name_loc.at),
           to = line_start(topfile->text, topfile->name_loc.at);
    sb_put(out, topfile->text + head, to - head);
    sb_fmt(out, "graph %s\n", topfile->name);
    for (uint32_t i = cx->nchain; i-- > 0;) {
        for (uint32_t k = 0; k < cx->chain[i]->body.n; k++)
            put_stmt(&x, cx->chain[i], cx->chain[i]->body.item[k], i == 0);
    }
    return d->nerror == before;
}
