/* hyper.c: hyper-parameters with their types and ranges, and what a graph asks of the world (GraphInfo).
 *
 * A hyper is a constant of the plan: the last setting of its name, else the default of the file. */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

/* ---- hypers */

Val const_of(Cx *cx, const ConstValue *v) {
    if (v->kind == VAL_BOOL) return val_bool(v->num != 0);
    if (v->kind == VAL_STRING) return val_str(arena_str(cx->a, v->str, strlen(v->str)));
    return val_num(v->num, v->is_int);
}

static const char *setting_key(const Setting *s) {
    return strncmp(s->key, "graph.", 6) ? s->key : s->key + 6;
}

static const Setting *hyper_setting(Cx *cx, const char *name) {
    for (uint32_t i = cx->testing ? 0 : cx->o->nhyper; i-- > 0;)
        if (!strcmp(setting_key(&cx->o->hyper[i]), name)) return &cx->o->hyper[i];
    return NULL;
}

static const char *htype_text(Cx *cx, const AstHType *t) {
    if (t->base) return t->base;
    Sbuf b;
    sb_init(&b, cx->a);
    for (uint32_t i = 0; i < t->choice.n; i++) sb_fmt(&b, "%s\"%s\"", i ? " | " : "", t->choice.name[i]);
    return b.s ? b.s : "";
}

static bool htype_fits(const AstHType *t, Val *v) {
    int64_t n;
    if (v->kind == VK_TENSOR) return t->base && !strcmp(t->base, "schedule");
    if (v->kind != VK_CONST) return false;
    if (!t->base) {
        for (uint32_t i = 0; i < t->choice.n; i++)
            if (v->t == LT_STR && !strcmp(t->choice.name[i], v->str)) return true;
        return false;
    }
    bool number = v->t == LT_F32 || v->t == LT_INT;
    if (!strcmp(t->base, "int")) return number && val_whole(v, &n);
    if (!strcmp(t->base, "bool")) return v->t == LT_BOOL;
    if (!strcmp(t->base, "scope")) return v->t == LT_SCOPE;
    return number && (!strcmp(t->base, "f32") || !strcmp(t->base, "schedule"));
}

static const char *range_text(Cx *cx, const Stmt *st, double lo, double hi) {
    Sbuf b;
    sb_init(&b, cx->a);
    sb_chr(&b, st->lo_open ? '(' : '[');
    sb_double(&b, lo);
    sb_str(&b, ", ");
    sb_double(&b, hi);
    sb_chr(&b, st->hi_open ? ')' : ']');
    return b.s;
}

static bool hyper_range(Cx *cx, const Stmt *st, double *lo, double *hi) {
    if (!st->has_range) return false;
    Val a = eval(cx, &cx->graph_scope, st->lo), b = eval(cx, &cx->graph_scope, st->hi);
    if (a.kind == VK_POISON || b.kind == VK_POISON) return false;
    if (!val_is_number(&a) || !val_is_number(&b)) {
        sema_error(cx, E015, st->lo->loc, "a range is two numbers");
        return false;
    }
    *lo = a.num;
    *hi = b.num;
    return true;
}

static const char *from_text(Cx *cx, const Setting *s) {
    if (!s) return "";
    if (s->origin && !strcmp(s->origin, "command line")) return " (from the command line)";
    return arena_fmt(cx->a, " (from %s)", s->origin ? s->origin : "the configuration");
}

static Val hyper_given(Cx *cx, const Stmt *st, const Setting *s) {
    Val v = const_of(cx, &s->v);
    const char *base = st->htype.base;
    if (!base || v.t != LT_STR) return v;
    if (!strcmp(base, "scope") &&
        (!strcmp(v.str, "step") || !strcmp(v.str, "ranks") || !strcmp(v.str, "micro")))
        return val_scope(v.str);
    if (strcmp(base, "schedule")) return v;
    Expr *e = wg_parse_expr(cx->a, v.str, strlen(v.str), st->name_loc,
                            cx->d); /* "cosine(1.0, warmup=3%)" in a YAML */
    return e ? eval(cx, &cx->graph_scope, e) : val_poison();
}

Val hyper_value(Cx *cx, Entry *e) {
    const Stmt *st = e->st;
    const Setting *s = hyper_setting(cx, e->name);
    Val v = s ? hyper_given(cx, st, s) : eval(cx, &cx->graph_scope, st->e);
    if (v.kind == VK_POISON) return v;
    Loc at = s ? st->name_loc : st->e->loc;
    static const char *const bases[] = {"f32", "int", "bool", "scope", "schedule"};
    bool known = !st->htype.base;
    for (size_t i = 0; i < WM_LEN(bases); i++) known |= st->htype.base && !strcmp(bases[i], st->htype.base);
    if (!known)
        return val_error(cx, E061, st->htype.loc,
                         "a hyper is f32, int, bool, scope, schedule or a choice of strings, not %s",
                         st->htype.base);
    if (!htype_fits(&st->htype, &v)) {
        Diag *g = sema_error(cx, E061, at, "hyper `%s` is %s, not %s%s", e->name, htype_text(cx, &st->htype),
                             val_text(cx, &v), from_text(cx, s));
        if (v.kind == VK_CONST && v.t == LT_STR && !st->htype.base) {
            const char *near = text_nearest(v.str, st->htype.choice.name, st->htype.choice.n);
            if (near) diag_help(cx->d, g, "did you mean \"%s\"?", near);
        }
        return val_poison();
    }
    double lo, hi;
    if (v.kind == VK_CONST && v.t <= LT_INT && hyper_range(cx, st, &lo, &hi)) {
        bool in = (st->lo_open ? v.num > lo : v.num >= lo) && (st->hi_open ? v.num < hi : v.num <= hi);
        Sbuf b;
        sb_init(&b, cx->a);
        sb_double(&b, v.num);
        if (!in)
            return val_error(cx, E060, at, "hyper `%s` is %s, outside %s%s", e->name, b.s,
                             range_text(cx, st, lo, hi), from_text(cx, s));
    }
    if (st->htype.base && v.kind == VK_CONST && v.t <= LT_INT)
        v.t = strcmp(st->htype.base, "int") ? LT_F32 : LT_INT;
    return v;
}

void unknown_hypers(Cx *cx) {
    for (uint32_t i = 0; i < cx->o->nhyper && !cx->testing; i++) {
        const Setting *s = &cx->o->hyper[i];
        Entry *e = entry_find(cx, setting_key(s));
        if (e && e->kind == S_HYPER) continue;
        const char *cand[256];
        size_t n = 0;
        for (uint32_t k = 0; k < cx->nentry && n < WM_LEN(cand); k++)
            if (cx->entry[k].kind == S_HYPER) cand[n++] = cx->entry[k].name;
        Diag *g = sema_error(cx, E010, cx->chain[0]->name_loc, "graph `%s` has no hyper `%s`%s",
                             cx->chain[0]->name, setting_key(s), from_text(cx, s));
        const char *near = text_nearest(setting_key(s), cand, n);
        if (near)
            diag_help(cx->d, g, "did you mean `%s`?", near);
        else
            diag_help(cx->d, g, "`wmtpc help %s` lists its hypers", cx->chain[0]->path);
    }
}

/* ---- what the graph asks of the world */

static ConstValue const_back(const Val *v) {
    ConstValue c = {.kind = VAL_NUMBER, .num = v->num, .is_int = v->t == LT_INT};
    if (v->kind != VK_CONST) return (ConstValue){.kind = VAL_STRING, .str = "schedule"};
    if (v->t == LT_BOOL) c.kind = VAL_BOOL;
    if (v->t == LT_STR || v->t == LT_SCOPE) c = (ConstValue){.kind = VAL_STRING, .str = v->str};
    return c;
}

static GraphInput input_info(const Entry *e) {
    const AstType *t = &e->st->type;
    GraphInput r = {
        .name = e->name, .dtype = t->name, .from = e->st->from ? e->st->from : e->name, .loc = e->loc};
    for (uint32_t i = 0; i < t->dims.n && i < MAX_DIMS; i++) r.dims[r.ndim++] = t->dims.name[i];
    return r;
}

static GraphHyper hyper_info(Cx *cx, Entry *e) {
    double lo, hi;
    const Setting *s = hyper_setting(cx, e->name);
    GraphHyper r = {.name = e->name, .type = htype_text(cx, &e->st->htype), .doc = e->st->doc, .loc = e->loc};
    r.value = const_back(&e->v);
    r.origin = s ? s->origin : "default";
    cx->quiet++;
    r.range = hyper_range(cx, e->st, &lo, &hi) ? range_text(cx, e->st, lo, hi) : NULL;
    cx->quiet--;
    return r;
}

/* Answers to one problem: the size of a further dim of `tokens`. */
static int64_t answers(Cx *cx, const char *dim) {
    Entry *tokens = entry_find(cx, "tokens"), *e = entry_find(cx, dim);
    if (!tokens || tokens->kind != S_INPUT || !e || e->kind != S_DIM) return 1;
    for (uint32_t i = 0; i < tokens->st->type.dims.n; i++) {
        if (strcmp(tokens->st->type.dims.name[i], dim)) continue;
        if (e->st->names.n) return (int64_t)e->st->names.n;
        int64_t lo = 1, hi;
        Val a = e->st->e2 ? eval(cx, &cx->graph_scope, e->st->e) : val_num(1, true);
        Val b = eval(cx, &cx->graph_scope, e->st->e2 ? e->st->e2 : e->st->e);
        if (val_whole(&a, &lo) && val_whole(&b, &hi) && hi >= lo) return hi - lo + 1;
    }
    return 1;
}

void graph_info(Cx *cx, GraphInfo *info) {
    *info = (GraphInfo){.side = 1, .group = 1, .best_mode = "min", .best_metric = "val.loss"};
    info->input = NEWN(cx->a, GraphInput, cx->nentry + 1);
    info->hyper = NEWN(cx->a, GraphHyper, cx->nentry + 1);
    info->model = NEWN(cx->a, GraphModel, cx->nentry + 1);
    for (uint32_t i = 0; i < cx->nentry; i++) {
        Entry *e = &cx->entry[i];
        if (e->kind == S_INPUT) info->input[info->ninput++] = input_info(e);
        if (e->kind == S_HYPER) info->hyper[info->nhyper++] = hyper_info(cx, e);
        if (e->kind != S_INSTANCE) continue;
        bool trained = false;
        for (uint32_t k = 0; k < cx->ntrain; k++) trained |= !strcmp(cx->train[k].model, e->name);
        GraphModel *m = &info->model[info->nmodel++];
        *m = (GraphModel){.name = e->name,
                          .kind = e->st->kind_name,
                          .frozen = e->st->frozen,
                          .trained = trained,
                          .loc = e->loc};
        model_keys(cx, e->st, m);
    }
    if (cx->best) {
        info->best_mode = cx->best->name;
        info->best_metric = cx->best->pattern;
    }
    info->side = answers(cx, "side");
    info->group = answers(cx, "group");
    const char **files = NEWN(cx->a, const char *, cx->nfile);
    for (uint32_t i = 0; i < cx->nfile; i++) files[i] = cx->file[i]->path;
    info->file = files;
    info->nfile = cx->nfile;
}
