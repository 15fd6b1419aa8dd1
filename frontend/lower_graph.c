/* lower_graph.c: the statements of a graph, and the public entry points of lowering.
 *
 * Order: hypers, models with their dims, rows of the train lines, then every binding, loss, metric and state,
 * so that all mistakes are found; last the results, and a copy without what no result needs. */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

/* ---- types that are written */

static bool type_of(Cx *cx, const AstType *t, LType *lt, DimId *d, uint32_t *n) {
    static const char *const names[] = {
        [LT_F32] = "f32", [LT_INT] = "int", [LT_BOOL] = "bool", [LT_TOKEN] = "token"};
    bool known = false, found;
    for (size_t i = 0; i < WM_LEN(names); i++)
        if (!strcmp(names[i], t->name)) {
            *lt = (LType)i;
            known = true;
        }
    if (!known)
        return sema_error(cx, E026, t->loc, "a dtype is f32, int, bool or token, not `%s`", t->name), false;
    *n = 0;
    for (uint32_t i = 0; i < t->dims.n; i++) {
        if (*n == MAX_DIMS - 1)
            return sema_error(cx, E020, t->loc, "a value has at most %d dims", MAX_DIMS), false;
        if (!dim_lookup(cx, &cx->graph_scope, t->dims.name[i], t->dims.loc[i], &d[*n], &found)) {
            if (!found) sema_error(cx, E010, t->dims.loc[i], "unknown dim `%s`", t->dims.name[i]);
            return false;
        }
        (*n)++;
    }
    return true;
}

static bool check_written(Cx *cx, const Stmt *st, const Val *v) {
    LType t;
    DimId d[MAX_DIMS];
    uint32_t n;
    if (!st->has_type || v->kind == VK_POISON) return true;
    if (!type_of(cx, &st->type, &t, d, &n)) return false;
    Type want = type_make(DT_F32, d, n), have = {.dt = DT_F32};
    if (v->kind == VK_TENSOR) have = *val_type(cx, v);
    bool value = v->kind == VK_TENSOR || v->kind == VK_CONST;
    bool dtype = value && (v->t == t || (t == LT_F32 && v->t == LT_INT));
    if (dtype && same_visible(cx, &want, &have)) return true;
    Diag *g = sema_error(cx, E025, st->type.loc, "`%s` is declared %s%s, but is %s", st->name, st->type.name,
                         n ? dims_text(cx, &want) : "", val_text(cx, v));
    sema_span(cx, g, v);
    return false;
}

/* ---- entries */

static Val input_value(Cx *cx, Entry *e) {
    LType t;
    DimId d[MAX_DIMS];
    uint32_t n;
    if (cx->testing)
        return val_error(cx, E071, e->loc, "the test needs the input `%s`, which it does not replace",
                         e->name);
    if (!type_of(cx, &e->st->type, &t, d + 1, &n)) return val_poison();
    d[0] = cx->g->micro;
    if (!dims_fit(cx, e->loc, d, n + 1)) return val_poison();
    DType dt = t == LT_TOKEN ? DT_I32 : t == LT_BOOL ? DT_BOOL : DT_F32;
    Attr name = at_str(cx->g, e->name);
    return val_tensor(build_leaf(cx->g, OP_input, type_make(dt, d, n + 1), &name, 1), t, false);
}

static Val state_value(Cx *cx, Entry *e) {
    LType t;
    DimId d[MAX_DIMS];
    uint32_t n;
    const Stmt *st = e->st;
    if (!type_of(cx, &st->type, &t, d, &n)) return val_poison();
    for (uint32_t i = 0; i < n; i++)
        if (dim_is(cx, d[i], "batch") || dim_is(cx, d[i], "seq"))
            return val_error(cx, E025, st->type.loc, "a state has neither `batch` nor `seq`");
    Val init = eval(cx, &cx->graph_scope, st->e);
    if (init.kind == VK_POISON) return init;
    if (t == LT_TOKEN || !val_is_number(&init))
        return val_error(cx, E026, st->e->loc,
                         "a state starts as a number that is known when compiling, not %s",
                         val_text(cx, &init));
    if (!dims_fit(cx, e->loc, d, n)) return val_poison();
    Attr attr[] = {at_str(cx->g, e->name), at_str(cx->g, "user"), at_float(init.num), at_none(), at_none()};
    ValueId leaf = build_leaf(cx->g, OP_state, type_make(DT_F64, d, n), attr, 5);
    if (t == LT_BOOL) return val_tensor(b_ew2(cx->g, OP_ne, leaf, b_const(cx->g, DT_F64, 0)), LT_BOOL, false);
    return val_tensor(b_cast(cx->g, leaf, DT_F32), t, false);
}

static bool keeps(const Cx *cx, const Val *v, const char *plain) {
    DimId d;
    return v->kind == VK_TENSOR && dim_in(cx, value_type(cx->g, v->v), plain, &d);
}

static Val number_value(Cx *cx, const Entry *e, Val v) {
    v = lift(cx, v);
    if (v.kind == VK_POISON) return v;
    const char *word = e->kind == S_LOSS ? "loss" : "metric";
    if ((v.kind != VK_TENSOR && !val_is_number(&v)) || (e->kind == S_LOSS && v.t == LT_TOKEN))
        return val_error(cx, E026, e->st->e->loc, "%s `%s` is a number, not %s", word, e->name,
                         val_text(cx, &v));
    bool bad = e->kind == S_LOSS ? v.kind == VK_TENSOR && strcmp(dims_text(cx, val_type(cx, &v)), "[]") != 0
                                 : keeps(cx, &v, "batch") || keeps(cx, &v, "seq");
    if (!bad) return v;
    Diag *g = sema_error(cx, E040, e->loc,
                         e->kind == S_LOSS ? "a loss is one number; `%s` keeps dims"
                                           : "a metric keeps neither `batch` nor `seq`; `%s` does",
                         e->name);
    sema_span(cx, g, &v);
    diag_help(cx->d, g, "reduce it: mean(.., where=mask)");
    return val_poison();
}

static Val instance_value(Cx *cx, Entry *e, Loc loc) {
    if (!e->inst) {
        if (!cx->testing) return val_poison(); /* the reason was given when it was made */
        Diag *g = sema_error(cx, E071, loc, "the test needs the model `%s`", e->name);
        diag_help(
            cx->d, g,
            "replace what it gives: a line NAME = tensor(..) in the test for the binding that calls it");
        return val_poison();
    }
    Val v = {.kind = VK_MODEL};
    v.u.inst = e->inst;
    return v;
}

static Val entry_work(Cx *cx, Entry *e, Loc loc) {
    Val v = val_poison();
    switch (e->kind) {
    case S_INPUT:
        return input_value(cx, e);
    case S_HYPER:
        return hyper_value(cx, e);
    case S_INSTANCE:
        return instance_value(cx, e, loc);
    case S_STATE:
        return state_value(cx, e);
    case S_LET:
        v = eval(cx, &cx->graph_scope, e->st->e);
        return check_written(cx, e->st, &v) ? v : val_poison();
    default:
        return number_value(cx, e, eval(cx, &cx->graph_scope, e->st->e));
    }
}

Val entry_get(Cx *cx, Entry *e, Loc loc) {
    if (e->at == READY) return e->v;
    if (e->at == BUSY) return val_error(cx, E013, loc, "`%s` depends on itself", e->name);
    e->at = BUSY;
    const char *binding = cx->binding, *path = cx->g->path;
    int ndraw = cx->ndraw, ncall = cx->ncall;
    Loc at = cx->g->loc;
    cx->binding = cx->g->path = e->name;
    cx->ndraw = cx->ncall = 0;
    cx->g->loc = e->loc;
    Val v = entry_work(cx, e, loc);
    cx->binding = binding;
    cx->g->path = path;
    cx->ndraw = ndraw;
    cx->ncall = ncall;
    cx->g->loc = at;
    e->v = v;
    e->at = v.kind == VK_POISON && cx->quiet > 0 ? TODO : READY;
    return v;
}

/* ---- results */

static ValueId result_value(Cx *cx, const Val *v, bool real) {
    if (v->kind == VK_TENSOR && !real) return v->v;
    if (v->kind == VK_TENSOR && v->t != LT_BOOL && v->t != LT_TOKEN) return b_cast(cx->g, v->v, DT_F32);
    return as_real(cx, v, DT_F32);
}

enum { MAX_METRIC_NUMBERS = 256 };

static void put_metric(Cx *cx, const char *name, ValueId v, const Type *t, int at) {
    if (at == t->ndim) { /* named by several `metric` lines: logged once */
        if (!graph_find_result(cx->g, "metric", name)) graph_result(cx->g, "metric", name, v);
        return;
    }
    for (int64_t i = 0; i < cx->g->dim[t->dim[at].i].size; i++) {
        ValueId one = build(cx->g, OP_select, &v, 1, (Attr[]){at_dim(t->dim[at]), at_int(i)}, 2);
        put_metric(cx, arena_fmt(cx->a, "%s.%s", name, coord_text(cx, t->dim[at], i)), one, t, at + 1);
    }
}

static void metric_result(Cx *cx, const char *name, Val v, Loc loc) {
    if (v.kind == VK_POISON) return;
    cx->g->loc = loc;
    v = settle(cx, v);
    ValueId r = result_value(cx, &v, true);
    Type t = *value_type(cx->g, r);
    if (type_count(cx->g, &t) > MAX_METRIC_NUMBERS) {
        Diag *g = sema_error(cx, E040, loc, "metric `%s` would log %lld numbers", name,
                             (long long)type_count(cx->g, &t));
        diag_help(cx->d, g, "reduce it, or select coordinates: x[dim = c]");
        return;
    }
    put_metric(cx, name, r, &t, 0);
}

static void loss_results(Cx *cx) {
    ValueId total = NOVALUE;
    bool any = false;
    for (uint32_t i = 0; i < cx->nentry; i++) {
        Entry *e = &cx->entry[i];
        if (e->kind != S_LOSS) continue;
        any = true;
        Val v = entry_get(cx, e, e->loc);
        if (v.kind == VK_POISON) continue;
        cx->g->loc = e->loc;
        if (v.kind == VK_TENSOR && cx->g->micro.i != UINT32_MAX && type_has(val_type(cx, &v), cx->g->micro))
            sema_warn(cx, W068, e->loc,
                      "loss `%s` is the mean of the means of micro-batches, whose counts differ; scope=step "
                      "weighs every token alike",
                      e->name);
        v = settle(cx, v);
        ValueId r = result_value(cx, &v, true);
        graph_result(cx->g, "loss", e->name, r);
        total = value_is(total) ? b_ew2(cx->g, OP_add, total, r) : r;
    }
    if (!any) {
        Diag *g = sema_error(cx, E053, cx->chain[0]->name_loc, "graph `%s` has no loss", cx->chain[0]->name);
        diag_help(cx->d, g, "write `loss NAME = ..`");
    }
    if (value_is(total)) graph_result(cx->g, "total", "total", total);
}

static void metric_results(Cx *cx) {
    for (uint32_t i = 0; i < cx->nentry; i++) {
        Entry *e = &cx->entry[i];
        if (e->kind == S_METRIC) metric_result(cx, e->name, entry_get(cx, e, e->loc), e->loc);
    }
    for (uint32_t i = 0; i < cx->nmisc; i++) {
        const Stmt *st = cx->misc[i];
        for (uint32_t k = 0; st->kind == S_METRIC_NAMES && k < st->names.n; k++) {
            Val v = eval_name(cx, &cx->graph_scope, st->names.name[k], st->names.loc[k]);
            if (v.kind == VK_POISON) continue;
            Entry as = {.name = st->names.name[k],
                        .kind = S_METRIC,
                        .st = &(Stmt){.e = &(Expr){.loc = st->names.loc[k]}},
                        .loc = st->names.loc[k]};
            metric_result(cx, as.name, number_value(cx, &as, v), as.loc);
        }
    }
}

static void state_result(Cx *cx, const Entry *e) {
    LType t;
    DimId d[MAX_DIMS];
    uint32_t n;
    Val v = lift(cx, eval(cx, &cx->graph_scope, e->st->e2));
    if (v.kind == VK_POISON || !type_of(cx, &e->st->type, &t, d, &n)) return;
    if ((v.kind != VK_TENSOR && !val_is_number(&v)) || v.t == LT_TOKEN ||
        (v.t == LT_BOOL) != (t == LT_BOOL)) {
        sema_error(cx, E026, e->st->e2->loc, "the next `%s` is %s, but the state is %s", e->name,
                   val_text(cx, &v), e->st->type.name);
        return;
    }
    Type want = type_make(DT_F64, d, n);
    const Type *have = v.kind == VK_TENSOR ? val_type(cx, &v) : &want;
    if (!type_holds(&want, have)) {
        bool micro = cx->g->micro.i != UINT32_MAX && type_has(have, cx->g->micro);
        Diag *g = sema_error(cx, micro ? E041 : E025, e->st->e2->loc,
                             micro ? "the next `%s` differs between micro-batches"
                                   : "the next `%s` has dims that the state has not",
                             e->name);
        sema_span(cx, g, &v);
        diag_help(cx->d, g,
                  micro ? "reduce over the whole step: mean(.., where=mask), scope=step"
                        : "declare the dims: state %s : f32[..]",
                  e->name);
        return;
    }
    ValueId next = v.kind == VK_TENSOR ? b_cast(cx->g, v.v, DT_F64) : b_const(cx->g, DT_F64, v.num);
    if (v.grad) next = b_ew1(cx->g, OP_stop_grad, next);
    if (!strcmp(cx->o->phase, "train")) graph_result(cx->g, "next", e->name, to_dims(cx, next, d, n));
}

static void state_results(Cx *cx) {
    for (uint32_t i = 0; i < cx->nentry; i++) {
        Entry *e = &cx->entry[i];
        if (e->kind != S_STATE) continue;
        cx->binding = cx->g->path = e->name;
        cx->ndraw = 0;
        cx->g->loc = e->loc;
        entry_get(cx, e, e->loc);
        state_result(cx, e);
    }
    cx->g->path = "";
}

static void want_results(Cx *cx) {
    for (uint32_t i = 0; i < cx->o->nwant; i++) {
        const char *name = cx->o->want[i];
        Val v = lift(cx, eval_name(cx, &cx->graph_scope, name, cx->chain[0]->name_loc));
        if (v.kind == VK_POISON) continue;
        if (v.kind != VK_TENSOR && !val_is_number(&v)) {
            sema_error(cx, E026, cx->chain[0]->name_loc, "`%s` is %s, no number", name, val_text(cx, &v));
            continue;
        }
        graph_result(cx->g, "value", name, result_value(cx, &v, false));
    }
}

/* ---- the whole */

/* The dim of a statement that gives its size; nothing where a message was given. */
void graph_dim_entry(Cx *cx, Entry *e) {
    const Stmt *st = e->st;
    int64_t lo = 0, n = (int64_t)st->names.n;
    if (st->e) {
        Val a = eval(cx, &cx->graph_scope, st->e), b = st->e2 ? eval(cx, &cx->graph_scope, st->e2) : a;
        e->at = READY;
        e->v = val_poison();
        if (a.kind == VK_POISON || b.kind == VK_POISON) return;
        int64_t hi = 0;
        bool ok = val_whole(&a, &lo) && val_whole(&b, &hi);
        if (ok && !st->e2) lo = 0;
        n = ok ? hi - (st->e2 ? lo - 1 : 0) : 0;
        if (n < 1 || n > (int64_t)1 << 40) {
            sema_error(cx, E064, st->e->loc, "the size of `%s` is a whole number, 1 or more", e->name);
            return;
        }
    }
    DimId d = dim_make(cx, e->name, NULL, n, lo, st->names.n ? st->names.name : NULL, e->loc);
    if (st->ragged) cx->g->dim[d.i].ragged = true;
}

static void graph_dims(Cx *cx) {
    for (uint32_t i = 0; i < cx->nentry; i++) {
        const Stmt *st = cx->entry[i].st;
        if (cx->entry[i].kind == S_DIM && (st->e || st->names.n)) graph_dim_entry(cx, &cx->entry[i]);
    }
}

static void cx_open(Cx *cx, Arena *a, const LowerOptions *o, Diags *d, const char *name) {
    *cx = (Cx){.a = a, .o = o, .d = d, .present = NOVALUE, .binding = ""};
    cx->g = graph_new(a, name, ST_MATH);
    cx->g->phase = o->phase;
    cx->g->path = "";
    cx->g->micro = cx->g->batch = (DimId){UINT32_MAX};
}

static void data_dims(Cx *cx) {
    Loc none = {0};
    cx->g->micro = dim_make(cx, "micro", NULL, cx->o->micro, 0, NULL, none);
    cx->g->batch = dim_make(cx, "batch", NULL, cx->o->batch, 0, NULL, none);
    dim_make(cx, "seq", NULL, cx->o->seq, 0, NULL, none);
}

static void make_models(Cx *cx) {
    for (uint32_t i = 0; i < cx->nentry; i++) {
        Entry *e = &cx->entry[i];
        if (e->kind != S_INSTANCE) continue;
        e->inst = inst_make(cx, &cx->graph_scope, e->st);
        if (e->inst) inst_register_dims(cx, e->inst);
    }
}

static void visit_all(Cx *cx) {
    for (uint32_t i = 0; i < cx->nentry; i++) {
        Entry *e = &cx->entry[i];
        if (e->kind != S_IMPORT && e->kind != S_DEF && e->kind != S_DIM && e->kind != S_INPUT)
            entry_get(cx, e, e->loc);
    }
}

/* What no result and no optimizer needs stays behind. */
static Graph *live_part(Arena *a, const Graph *g) {
    bool *live = NEWN(a, bool, g->nnode + 1);
    for (uint32_t i = 0; i < g->nresult; i++) live[g->value[g->result[i].v.i].def.i] = true;
    for (uint32_t i = 0; i < g->nopt; i++) live[g->value[g->opt[i].lr.i].def.i] = true;
    for (uint32_t i = 0; i < g->nnode; i++)
        live[i] |= g->node[i].op == OP_state; /* its next value is written to it */
    for (uint32_t i = g->nnode; i-- > 0;)
        for (uint32_t k = 0; live[i] && k < g->node[i].nin; k++)
            live[g->value[g->operand[g->node[i].in0 + k].i].def.i] = true;
    Graph *r = graph_like(a, g);
    ValueId *map = NEWN(a, ValueId, g->nvalue + 1);
    for (uint32_t i = 0; i < g->nvalue; i++) map[i] = NOVALUE;
    for (uint32_t i = 0; i < g->nnode; i++)
        if (live[i]) graph_copy_node(r, g, (NodeId){i}, map);
    graph_copy_results(r, g, map);
    return r;
}

static bool options_ok(const LowerOptions *o, const char *file, Diags *d) {
    Loc loc = {.file = file, .line = 1, .col = 1};
    if (o->micro >= 1 && o->batch >= 1 && o->seq >= 1) return true;
    return diag_fail(d, E064, loc,
                     "micro-batches, batch and seq are whole numbers, 1 or more: %lld, %lld, %lld",
                     (long long)o->micro, (long long)o->batch, (long long)o->seq);
}

bool frontend_check(Arena *a, const char *file, const LowerOptions *o, Diags *d) {
    uint32_t before = d->nerror;
    Cx *cx = NEW(a, Cx);
    cx_open(cx, a, o, d, file);
    AstFile *f = file_load(cx, file, NOLOC);
    if (!f || d->nerror > before) return false;
    if (f->is_module) return module_check(cx, f);
    GraphInfo info;
    return frontend_lower(a, file, o, &info, d) != NULL;
}

Graph *frontend_lower(Arena *a, const char *file, const LowerOptions *o, GraphInfo *info, Diags *d) {
    uint32_t before = d->nerror;
    Cx *cx = NEW(a, Cx);
    cx_open(cx, a, o, d, file);
    if (!options_ok(o, file, d) || !graph_load(cx, file) || d->nerror > before) return NULL;
    cx->g->name = cx->chain[0]->name;
    data_dims(cx);
    graph_dims(cx);
    unknown_hypers(cx);
    make_models(cx);
    train_rows(cx);
    visit_all(cx);
    loss_results(cx);
    metric_results(cx);
    state_results(cx);
    want_results(cx);
    hints_check(cx);
    train_finish(cx);
    if (info) graph_info(cx, info);
    if (d->nerror > before) return NULL;
    Graph *g = live_part(a, cx->g);
    lint_graph(cx, g);
    return d->nerror > before ? NULL : g;
}

bool frontend_info(Arena *a, const char *file, const LowerOptions *o, GraphInfo *info, Diags *d) {
    uint32_t before = d->nerror;
    Cx *cx = NEW(a, Cx);
    cx_open(cx, a, o, d, file);
    if (!graph_load(cx, file) || d->nerror > before) return false;
    unknown_hypers(cx);
    cx->testing = false;
    for (uint32_t i = 0; i < cx->nentry; i++)
        if (cx->entry[i].kind == S_HYPER) entry_get(cx, &cx->entry[i], cx->entry[i].loc);
    graph_info(cx, info);
    return d->nerror == before;
}
