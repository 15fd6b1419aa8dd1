/* check.c: messages of the semantic half, and what a value is in words.
 *
 * A message inside a `def` or block says how one came there: each call on the stack adds a span. While
 * cx->quiet is above 0 a message goes to a scratch Diag: that is how sizes are tried that nobody may need. */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

static void call_spans(Cx *cx, Diag *g, Loc loc) {
    for (int i = cx->ncall - 1, shown = 0; i >= 0 && shown < 2; i--, shown++)
        if (cx->call[i].loc.file != loc.file || cx->call[i].loc.at != loc.at)
            diag_span(cx->d, g, cx->call[i].loc, "in the call of `%s` here", cx->call[i].name);
}

Diag *sema_error(Cx *cx, Code code, Loc loc, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *text = arena_vfmt(cx->a, fmt, ap);
    va_end(ap);
    if (cx->quiet > 0) {
        memset(&cx->scratch, 0, sizeof cx->scratch);
        return &cx->scratch;
    }
    Diag *g = diag_add(cx->d, code, loc, "%s", text);
    call_spans(cx, g, loc);
    return g;
}

static bool named(const char *const *list, uint32_t n, const char *name) {
    for (uint32_t k = 0; k < n; k++)
        if (!strcmp(list[k], name)) return true;
    return false;
}

/* What is often meant is silent until it is asked for. */
static bool warning_off(const Cx *cx, Code code) {
    bool asked = code == W061 || code == W068;
    const char *name = code_info[code].name;
    return named(cx->o->no_warn, cx->o->nno_warn, name) || (asked && !named(cx->o->warn, cx->o->nwarn, name));
}

static bool same_place(Loc a, Loc b) {
    return a.at == b.at && (a.file == b.file || (a.file && b.file && strcmp(a.file, b.file) == 0));
}

void sema_warn(Cx *cx, Code code, Loc loc, const char *fmt, ...) {
    if (cx->quiet > 0 || cx->testing || warning_off(cx, code)) return;
    for (uint32_t i = 0; i < cx->d->n; i++) /* the same place is reached by several calls: said once */
        if (cx->d->item[i]->code == code && same_place(cx->d->item[i]->span[0].loc, loc)) return;
    va_list ap;
    va_start(ap, fmt);
    Diag *g = diag_add(cx->d, code, loc, "%s", arena_vfmt(cx->a, fmt, ap));
    va_end(ap);
    call_spans(cx, g, loc);
    if (cx->o->werror && g->level == LEVEL_WARNING) {
        g->level = LEVEL_ERROR;
        cx->d->nerror++;
    }
}

/* The source at loc if it is short and on one line, in quotes; else "this". */
static const char *source_text(Cx *cx, Loc loc) {
    for (uint32_t i = 0; i < cx->nfile; i++) {
        const AstFile *f = cx->file[i];
        if (strcmp(f->path, loc.file) || loc.len == 0 || loc.len > 32 || (size_t)loc.at + loc.len > f->len)
            continue;
        if (memchr(f->text + loc.at, '\n', loc.len)) continue;
        return arena_fmt(cx->a, "`%.*s`", (int)loc.len, f->text + loc.at);
    }
    return "this";
}

void sema_span(Cx *cx, Diag *g, const Val *v) {
    if (!v->loc.file || cx->quiet > 0) return;
    const char *text = arena_fmt(cx->a, "%s is %s", source_text(cx, v->loc), val_text(cx, v));
    const Loc *at = &g->span[0].loc;
    if (at->file == v->loc.file && at->at == v->loc.at && at->len == v->loc.len)
        diag_label(g, text);
    else
        diag_span(cx->d, g, v->loc, "%s", text);
}

Val val_poison(void) {
    return (Val){.kind = VK_POISON};
}

Val val_error(Cx *cx, Code code, Loc loc, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *text = arena_vfmt(cx->a, fmt, ap);
    va_end(ap);
    sema_error(cx, code, loc, "%s", text);
    return val_poison();
}

Val val_num(double v, bool is_int) {
    return (Val){.kind = VK_CONST, .t = is_int ? LT_INT : LT_F32, .num = v};
}
Val val_bool(bool b) {
    return (Val){.kind = VK_CONST, .t = LT_BOOL, .num = b ? 1 : 0};
}
Val val_str(const char *s) {
    return (Val){.kind = VK_CONST, .t = LT_STR, .str = s};
}
Val val_token(double v) {
    return (Val){.kind = VK_CONST, .t = LT_TOKEN, .num = v};
}
Val val_scope(const char *s) {
    return (Val){.kind = VK_CONST, .t = LT_SCOPE, .str = s};
}
Val val_tensor(ValueId v, LType t, bool grad) {
    return (Val){.kind = VK_TENSOR, .t = t, .v = v, .grad = grad};
}

const Type *val_type(const Cx *cx, const Val *v) {
    return value_type(cx->g, v->v);
}

static bool is_micro(const Cx *cx, DimId d) {
    return d.i == cx->g->micro.i;
}

const char *dims_text(Cx *cx, const Type *t) {
    Sbuf b;
    sb_init(&b, cx->a);
    sb_chr(&b, '[');
    bool first = true;
    for (int i = 0; i < t->ndim; i++) {
        if (is_micro(cx, t->dim[i])) continue;
        sb_fmt(&b, "%s%s", first ? "" : ", ", cx->g->dim[t->dim[i].i].name);
        first = false;
    }
    sb_chr(&b, ']');
    return b.s;
}

static const char *const ltype_name[] = {"f32", "int", "bool", "token", "string", "scope"};

static const char *const_text(Cx *cx, const Val *v) {
    Sbuf b;
    sb_init(&b, cx->a);
    switch (v->t) {
    case LT_BOOL:
        return v->num != 0 ? "`true`" : "`false`";
    case LT_STR:
        return arena_fmt(cx->a, "the string \"%s\"", v->str);
    case LT_SCOPE:
        return arena_fmt(cx->a, "the scope `%s`", v->str);
    case LT_TOKEN:
        return "`ignore`";
    default:
        break;
    }
    sb_str(&b, "the number ");
    sb_double(&b, v->num);
    return b.s;
}

const char *val_text(Cx *cx, const Val *v) {
    static const char *const words[] = {
        [VK_POISON] = "a value with an error",
        [VK_LIST] = "a list",
        [VK_AFFINE] = "a function of `carry`",
        [VK_OPTIM] = "an optimizer",
        [VK_INIT] = "an initial distribution",
        [VK_MODEL] = "a model",
        [VK_METHOD] = "a function of a model",
        [VK_KIND] = "a kind of model",
        [VK_BLOCK] = "a block",
        [VK_STACK] = "a stack of blocks",
        [VK_EACH] = "a stack of blocks",
        [VK_DEF] = "a function",
    };
    if (v->kind == VK_CONST) return const_text(cx, v);
    if (v->kind == VK_DIM) return arena_fmt(cx->a, "int[%s]", cx->g->dim[v->dim.i].name);
    if (v->kind != VK_TENSOR) return words[v->kind];
    const Type *t = val_type(cx, v);
    const char *dims = dims_text(cx, t);
    return arena_fmt(cx->a, "%s%s%s", ltype_name[v->t], strcmp(dims, "[]") ? dims : "",
                     v->t == LT_F32 && is_logits(cx, v) ? ", logits" : "");
}

bool val_is_number(const Val *v) {
    return v->kind == VK_CONST && v->t <= LT_BOOL;
}

bool val_whole(const Val *v, int64_t *n) {
    if (v->kind != VK_CONST || (v->t != LT_INT && v->t != LT_F32)) return false;
    if (!(fabs(v->num) < 9e15) || v->num != floor(v->num)) return false;
    *n = (int64_t)v->num;
    return true;
}

/* ---- names */

static const char *const constants[] = {"ignore", "inf",   "phase", "step", "ranks",
                                        "micro",  "carry", "batch", "seq"};

bool name_reserved(const char *name) {
    for (size_t i = 0; i < WM_LEN(constants); i++)
        if (!strcmp(constants[i], name)) return true;
    return builtin_find(name) != NULL;
}

bool check_name(Cx *cx, const char *name, Loc loc) {
    if (!name_reserved(name)) return true;
    Diag *g = sema_error(cx, E014, loc, "`%s` is the name of a built-in", name);
    diag_help(cx->d, g, "choose another name");
    return false;
}

typedef struct {
    const char *name[512];
    uint32_t n;
} Names512;
static void offer(Names512 *c, const char *name) {
    if (c->n < WM_LEN(c->name)) c->name[c->n++] = name;
}

const char *name_nearest(Cx *cx, const Scope *sc, const char *name) {
    Names512 *c = NEW(cx->a, Names512);
    if (sc && sc->frame)
        for (uint32_t i = 0; i < sc->frame->n; i++) offer(c, sc->frame->item[i].name);
    if (sc && sc->own)
        for (uint32_t i = 0; i < sc->own->decl->body.n; i++) offer(c, sc->own->decl->body.item[i]->name);
    if (sc && sc->mod)
        for (uint32_t i = 0; i < sc->mod->n; i++) offer(c, sc->mod->decl[i].name);
    if (!sc || !sc->mod)
        for (uint32_t i = 0; i < cx->nentry; i++)
            if (!cx->entry[i].hidden_import) offer(c, cx->entry[i].name);
    for (size_t i = 0; i < WM_LEN(constants); i++) offer(c, constants[i]);
    const char *b[128];
    uint32_t n = builtin_names(b, 128);
    for (uint32_t i = 0; i < n; i++) offer(c, b[i]);
    return text_nearest(name, c->name, c->n);
}

/* ---- operands */

bool is_logits(const Cx *cx, const Val *v) {
    if (v->kind != VK_TENSOR || v->t != LT_F32) return false;
    const Type *t = val_type(cx, v);
    bool vocab = false, seq = false;
    for (int i = 0; i < t->ndim; i++) {
        vocab |= dim_is(cx, t->dim[i], "vocab");
        seq |= dim_is(cx, t->dim[i], "seq");
    }
    return vocab && seq;
}

Val lift_any(Cx *cx, Val v) {
    if (v.kind != VK_DIM) return v;
    const DimInfo *info = &cx->dim[v.dim.i];
    if (info->coord) {
        Val r = val_error(cx, E026, v.loc, "the coordinates of `%s` are names, no numbers", info->plain);
        return r;
    }
    Type ty = type_make(DT_F32, &v.dim, 1);
    Val r = val_tensor(build_leaf(cx->g, OP_iota, ty, (Attr[]){at_dim(v.dim), at_int(info->base)}, 2), LT_INT,
                       false);
    r.loc = v.loc;
    return r;
}

Val lift(Cx *cx, Val v) {
    v = lift_any(cx, v);
    if (!is_logits(cx, &v)) return v;
    Diag *g =
        sema_error(cx, E033, v.loc,
                   "logits are never stored whole: only cross_entropy, entropy, kl and argmax take them");
    sema_span(cx, g, &v);
    diag_help(cx->d, g,
              "use cross_entropy(logits, token), entropy(logits), kl(p, q) or argmax(logits, over=vocab)");
    return val_poison();
}
