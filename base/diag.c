/* diag.c: the one error object. Text is copied into the arena of the Diags; render.c makes it readable. */
#include "base/base.h"

#include <string.h>

const CodeInfo code_info[NCODE] = {
#define CODE(id, exit, title, explain, wrong, right) {#id, exit, title, explain, wrong, right},
#include "base/codes.def"
#undef CODE
};

Diags *diags_open(Env *env) {
    Arena *a = arena_open(env, NULL);
    Diags *d = a ? NEW(a, Diags) : NULL;
    if (!d) return NULL;
    d->arena = a;
    d->max_errors = 20;
    return d;
}

void diags_close(Diags *d) {
    if (d) arena_close(d->arena);
}

void diag_source(Diags *d, const char *file, const char *text, size_t len) {
    GROW(d->arena, d->source, d->nsource, d->source_cap);
    d->source[d->nsource].file = file;
    d->source[d->nsource].text = text;
    d->source[d->nsource++].len = len;
}

/* The name of the file may lie in something that is closed before the diagnostics are rendered. */
static Loc kept(Diags *d, Loc loc) {
    if (loc.file) loc.file = arena_str(d->arena, loc.file, strlen(loc.file));
    return loc;
}

Diag *diag_add(Diags *d, Code code, Loc loc, const char *fmt, ...) {
    Diag *g = NEW(d->arena, Diag);
    va_list ap;
    va_start(ap, fmt);
    g->text = arena_vfmt(d->arena, fmt, ap);
    va_end(ap);
    g->code = code;
    g->level = code_info[code].exit ? LEVEL_ERROR : LEVEL_WARNING;
    g->span[0].loc = kept(d, loc);
    g->nspan = 1;
    bool error = g->level == LEVEL_ERROR;
    if (error) d->nerror++;
    if (error && d->nerror > d->max_errors) return g; /* counted, not kept */
    GROW(d->arena, d->item, d->n, d->cap);
    d->item[d->n++] = g;
    return g;
}

void diag_label(Diag *g, const char *text) {
    g->span[0].label = text;
}

void diag_span(Diags *d, Diag *g, Loc loc, const char *fmt, ...) {
    if (g->nspan >= WM_LEN(g->span)) return;
    va_list ap;
    va_start(ap, fmt);
    g->span[g->nspan].label = arena_vfmt(d->arena, fmt, ap);
    va_end(ap);
    g->span[g->nspan++].loc = kept(d, loc);
}

void diag_help(Diags *d, Diag *g, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    g->help = arena_vfmt(d->arena, fmt, ap);
    va_end(ap);
}

void diag_note(Diags *d, Diag *g, const char *fmt, ...) {
    if (g->nnote >= WM_LEN(g->note)) return;
    va_list ap;
    va_start(ap, fmt);
    g->note[g->nnote++] = arena_vfmt(d->arena, fmt, ap);
    va_end(ap);
}

void diag_fix(Diags *d, Diag *g, Loc where, bool sure, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    g->replacement = arena_vfmt(d->arena, fmt, ap);
    va_end(ap);
    g->replace = kept(d, where);
    g->sure = sure;
}

int diags_exit(const Diags *d) {
    for (uint32_t i = 0; i < d->n; i++)
        if (d->item[i]->level ==
            LEVEL_ERROR) { /* a warning that was made an error has no exit code of its own */
            int code = code_info[d->item[i]->code].exit;
            return code ? code : EXIT_USER;
        }
    return d->nerror ? EXIT_USER : EXIT_DONE;
}
