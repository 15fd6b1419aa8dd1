/* intest.c: the `test` blocks of .wg files, run in the f64 reference evaluator.
 *
 * Each test is lowered on its own: tensors give dims their sizes, bindings of the test replace names of the
 * graph, and only what an expectation reads is worked out. There is one micro-batch and no dim for it. */
#include "frontend/sema.h"

#include <math.h>
#include <string.h>

typedef struct {
    const Stmt *st;
    ValueId a, b;
    bool near;
} Expect;
typedef struct {
    Expect *item;
    uint32_t n, cap;
} Expects;

static void new_cx(Cx *cx, const Cx *files, const char *name) {
    *cx = (Cx){
        .a = files->a, .o = files->o, .d = files->d, .present = NOVALUE, .binding = "test", .testing = true};
    cx->file = files->file;
    cx->nfile = files->nfile;
    cx->file_cap = files->file_cap;
    cx->module = files->module;
    cx->nmodule = files->nmodule;
    cx->module_cap = files->module_cap;
    cx->g = graph_new(cx->a, name, ST_MATH);
    cx->g->phase = cx->o->phase;
    cx->g->path = "";
    cx->g->micro = cx->g->batch = (DimId){UINT32_MAX};
}

/* `labels = tensor([[3, 4]], ..)`: whole numbers are tokens where the input is of tokens. */
static Val replacement(Cx *cx, const char *name, Val v) {
    const Entry *e = entry_find(cx, name);
    bool token = e && e->kind == S_INPUT && !strcmp(e->st->type.name, "token");
    if (!token || v.kind != VK_TENSOR || v.t != LT_INT) return v;
    v.v = b_cast(cx->g, v.v, DT_I32);
    v.t = LT_TOKEN;
    return v;
}

static void test_bindings(Cx *cx, const Scope *sc, const Stmt *test) {
    for (uint32_t i = 0; i < test->body.n; i++) {
        const Stmt *st = test->body.item[i];
        if (st->kind != S_LET && st->kind != S_INSTANCE) continue;
        Val v = val_poison();
        if (st->kind == S_LET) {
            v = replacement(cx, st->name, eval(cx, sc, st->e));
        } else if ((v.u.inst = inst_make(cx, sc, st)) != NULL) {
            v.kind = VK_MODEL;
            inst_register_dims(cx, v.u.inst);
        }
        frame_put(cx, cx->override, st->name, v);
    }
}

/* Both sides over the dims of the larger one, in one order. */
static bool test_expect(Cx *cx, const Scope *sc, const Stmt *st, Expect *x) {
    *x = (Expect){.st = st, .near = st->kind == S_NEAR};
    Val a = lift(cx, eval(cx, sc, st->e)), b = x->near ? lift(cx, eval(cx, sc, st->e2)) : val_bool(true);
    if (a.kind == VK_POISON || b.kind == VK_POISON) return false;
    for (int i = 0; i < 2; i++) {
        const Val *v = i ? &b : &a;
        bool value = (v->kind == VK_TENSOR || v->kind == VK_CONST) && v->t != LT_STR && v->t != LT_SCOPE;
        if (!value || (!x->near && v->t != LT_BOOL) || (x->near && v->t == LT_TOKEN))
            return sema_error(cx, x->near ? E026 : E031, v->loc, "`expect` %s, not %s",
                              x->near ? "compares numbers" : "takes a condition", val_text(cx, v)),
                   false;
    }
    if (!visible_join(cx, st->loc, &a, &b)) return false;
    x->a = x->near ? as_real(cx, &a, DT_F32) : as_mask(cx, &a);
    x->b = x->near ? as_real(cx, &b, DT_F32) : as_mask(cx, &b);
    Type ta = *value_type(cx->g, x->a), tb = *value_type(cx->g, x->b), t = type_holds(&ta, &tb) ? ta : tb;
    x->a = to_dims(cx, x->a, t.dim, t.ndim);
    x->b = to_dims(cx, x->b, t.dim, t.ndim);
    return true;
}

/* ---- running */

static bool test_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    (void)ctx;
    if (n->op == OP_state) {
        for (int64_t i = 0; i < count; i++) out[i] = attr_float(g, n, "init");
        return true;
    }
    if (n->op != OP_scalar) return false;
    *out = strcmp(attr_str(g, n, "name"), "steps") ? 0 : 1000;
    return true;
}

static const char *place_text(Cx *cx, const Type *t, int64_t at) {
    int64_t rest = type_count(cx->g, t);
    Sbuf b;
    sb_init(&b, cx->a);
    for (int i = 0; i < t->ndim; i++) {
        int64_t size = cx->g->dim[t->dim[i].i].size;
        rest /= size;
        sb_fmt(&b, "%s%s = %s", i ? ", " : " at ", cx->g->dim[t->dim[i].i].name,
               coord_text(cx, t->dim[i], at / rest % size));
    }
    return b.s ? b.s : "";
}

static const char *number_text(Cx *cx, double v) {
    Sbuf b;
    sb_init(&b, cx->a);
    sb_double(&b, v);
    return b.s;
}

static bool near(double a, double b) {
    return a == b || fabs(a - b) <= 1e-9 + 1e-6 * fabs(b);
}

static bool check_one(Cx *cx, const Expect *x, double *const *value) {
    const Type *t = value_type(cx->g, x->a);
    const double *a = value[x->a.i], *b = value[x->b.i];
    for (int64_t i = 0; i < type_count(cx->g, t); i++) {
        if (x->near ? near(a[i], b[i]) : a[i] != 0) continue;
        Diag *g = x->near ? sema_error(cx, E070, x->st->loc, "expectation failed%s: %s, expected %s",
                                       place_text(cx, t, i), number_text(cx, a[i]), number_text(cx, b[i]))
                          : sema_error(cx, E070, x->st->loc, "expectation failed%s: it does not hold",
                                       place_text(cx, t, i));
        diag_span(cx->d, g, x->st->e->loc, "this is %s", x->near ? number_text(cx, a[i]) : "false");
        return false;
    }
    return true;
}

static bool check_all(Cx *cx, const Expects *xs) {
    ValueId *want = NEWN(cx->a, ValueId, xs->n * 2 + 1);
    for (uint32_t i = 0; i < xs->n; i++) {
        want[2 * i] = xs->item[i].a;
        want[2 * i + 1] = xs->item[i].b;
    }
    EvalInput in = {.leaf = test_leaf, .ctx = cx};
    double **value = xs->n ? graph_eval(cx->a, cx->g, &in, want, xs->n * 2, cx->d) : NULL;
    if (!value) return xs->n == 0;
    bool ok = true;
    for (uint32_t i = 0; i < xs->n; i++) ok &= check_one(cx, &xs->item[i], value);
    return ok;
}

static bool run_test(const Cx *files, const char *path, const Stmt *test) {
    Cx *cx = NEW(files->a, Cx);
    new_cx(cx, files, path);
    uint32_t before = cx->d->nerror;
    Frame override = {0};
    cx->override = &override;
    AstFile *f = file_load(cx, path, test->loc);
    Scope sc = {.mod = NULL};
    if (f->is_module) {
        sc.mod = module_of_file(cx, f, test->loc);
        sc.frame = &override;
    } else if (!graph_load(cx, path)) {
        return false;
    }
    Expects xs = {0};
    test_bindings(cx, &sc, test);
    for (uint32_t i = 0; i < test->body.n; i++) {
        const Stmt *st = test->body.item[i];
        if (st->kind != S_EXPECT && st->kind != S_NEAR) continue;
        GROW(cx->a, xs.item, xs.n, xs.cap);
        if (test_expect(cx, &sc, st, &xs.item[xs.n])) xs.n++;
    }
    if (cx->d->nerror > before) return false;
    return check_all(cx, &xs) && cx->d->nerror == before;
}

bool frontend_test(Arena *a, const char *file, const LowerOptions *o, TestCount *count, Diags *d) {
    uint32_t before = d->nerror;
    *count = (TestCount){0, 0};
    Cx *cx = NEW(a, Cx);
    *cx = (Cx){.a = a, .o = o, .d = d, .g = graph_new(a, file, ST_MATH), .present = NOVALUE, .binding = ""};
    cx->g->micro = cx->g->batch = (DimId){UINT32_MAX};
    AstFile *f = file_load(cx, file, (Loc){.file = file, .line = 1, .col = 1});
    if (!f || d->nerror > before) return false;
    bool loaded = f->is_module ? module_of_file(cx, f, f->name_loc) != NULL : graph_load(cx, file);
    if (!loaded || d->nerror > before) return false;
    for (uint32_t i = 0; i < f->body.n; i++) {
        if (f->body.item[i]->kind != S_TEST) continue;
        if (run_test(cx, file, f->body.item[i]))
            count->passed++;
        else
            count->failed++;
    }
    return count->failed == 0;
}
