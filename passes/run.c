/* run.c: the table of passes and the loop over it. After each pass: its stage, the verifier, on request the
 * text round trip and the reference evaluator on both graphs. A pass that fails a check is a broken invariant
 * (exit 70). */
#include "passes/passes.h"

#include <math.h>
#include <string.h>

const Pass pass_table[] = {
    {"simplify", ST_MATH, ST_MATH, false, false, pass_simplify,
     "fold constants, merge equal nodes, remove dead code"},
    {"linear_ce", ST_MATH, ST_MATH, false, false, pass_linear_ce,
     "losses over a vocabulary without stored logits"},
    {"precision", ST_MATH, ST_MATH, true, false, pass_precision, "dtypes and casts"},
    {"autodiff", ST_MATH, ST_TRAIN, true, true, pass_autodiff, "gradient of the loss"},
    {"optim", ST_TRAIN, ST_TRAIN, true, true, pass_optim, "gradient norm, clipping, AdamW and SGD"},
    {"micro", ST_TRAIN, ST_TRAIN, false, false, pass_micro, "sums over micro-batches in the canonical tree"},
    {"form", ST_TRAIN, ST_TRAIN, true, true, pass_form,
     "loss and gradient in one pass where the weights are known before"},
    {"localize", ST_TRAIN, ST_LOCAL, true, false, pass_localize,
     "sections: once per step, once per micro-batch"},
    {"fuse", ST_LOCAL, ST_LOCAL, true, false, pass_fuse, "groups of nodes that become one kernel"},
    {"schedule", ST_LOCAL, ST_SCHEDULED, true, false, pass_schedule, "order of execution"},
    {"memplan", ST_SCHEDULED, ST_PLANNED, true, false, pass_memplan, "offsets of every buffer"},
};
const int npass = (int)WM_LEN(pass_table);

const Pass *pass_find(const char *name) {
    for (int i = 0; i < npass; i++)
        if (!strcmp(pass_table[i].name, name)) return &pass_table[i];
    return NULL;
}

/* ---- round trip */
static bool check_roundtrip(Arena *a, const Graph *g, const char *pass, Diags *d) {
    Sbuf text;
    sb_init(&text, a);
    graph_print(g, &text, false);
    Graph *back = graph_parse(a, pass, text.s, text.len, d);
    const char *difference = "it does not parse";
    if (back && graph_equal(g, back, &difference)) return true;
    return diag_fail(d, I001, NOLOC, "after pass %s the text of the graph is not the graph: %s", pass,
                     difference);
}

/* ---- evaluation of both graphs on the same made-up leaves */
typedef struct {
    int64_t tokens;
} Made;

static double unit_of(const char *name, int64_t i) {
    uint64_t w[2] = {hash_bytes(name, strlen(name)), (uint64_t)i};
    return (double)(hash_bytes(w, sizeof w) >> 11) * 0x1p-53;
}

static bool made_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    const Made *m = ctx;
    const char *name = attr_str(g, n, "name"), *model = attr_str(g, n, "model");
    DType dt = g->value[n->out0].ty.dt;
    uint64_t salt = hash_bytes(model, strlen(model));
    for (int64_t i = 0; i < count; i++) {
        double u = unit_of(name, i ^ (int64_t)(salt & 0xffff0000));
        if (n->op == OP_scalar)
            out[i] = strcmp(name, "steps") ? 2 : 100;
        else if (n->op == OP_state)
            out[i] = u;
        else if (dt == DT_BOOL)
            out[i] = !strcmp(name, "present") ? u < 0.9 : u < 0.6;
        else if (dt == DT_I32)
            out[i] = u < 0.1 ? -100 : floor(u * (double)m->tokens);
        else
            out[i] = u - 0.5;
    }
    return true;
}

static int64_t least_class(const Graph *g) {
    int64_t least = 2;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Attr *cls = node_attr(g, &g->node[i], "cls");
        if (cls->kind != AT_DIM) continue;
        int64_t n = g->dim[cls->u.dim.i].size;
        if (least == 2 || n < least) least = n;
    }
    return least;
}

static bool close_enough(double x, double y) {
    if (x == y || (isnan(x) && isnan(y))) return true;
    return fabs(x - y) <= 1e-9 * (1 + fmax(fabs(x), fabs(y)));
}

static bool results_agree(Arena *a, const Graph *x, const Graph *y, const char *pass, Diags *d) {
    Made m = {least_class(x)};
    EvalInput in = {made_leaf, &m, 7, 2};
    double **vx = graph_eval(a, x, &in, NULL, 0, d), **vy = vx ? graph_eval(a, y, &in, NULL, 0, d) : NULL;
    if (!vy) return false;
    for (uint32_t i = 0; i < x->nresult; i++) {
        const Result *r = &x->result[i], *s = graph_find_result(y, r->kind, r->name);
        if (!s) continue;
        int64_t n = type_count(x, value_type(x, r->v));
        for (int64_t k = 0; k < n; k++) {
            double p = vx[r->v.i][k], q = vy[s->v.i][k];
            if (close_enough(p, q)) continue;
            return diag_fail(d, I001, NOLOC, "pass %s changed %s %s at %lld: %.17g became %.17g", pass,
                             r->kind, r->name, (long long)k, p, q);
        }
    }
    return true;
}

/* ---- the loop */
static Graph *skipped(Arena *a, const Graph *g, Stage out) {
    Graph *copy = arena_copy(a, g, sizeof *g);
    copy->stage = out;
    return copy;
}

static bool check(Arena *a, const Graph *before, const Graph *after, const Pass *p, const PassOptions *o,
                  Diags *d) {
    if (after->stage != p->out)
        return diag_fail(d, I001, NOLOC, "pass %s left the graph at stage %s instead of %s", p->name,
                         stage_name[after->stage], stage_name[p->out]);
    if (!graph_verify(after, false, d)) return false;
    if (o->check_roundtrip && !check_roundtrip(a, after, p->name, d)) return false;
    return !o->check_eval || results_agree(a, before, after, p->name, d);
}

/* Where to go on with a graph of an inner stage: the first pass that takes it. Passes at ST_TRAIN may run
 * again. */
static int first_pass(const Graph *g) {
    for (int i = 0; i < npass; i++)
        if (pass_table[i].in == g->stage) return i;
    return npass;
}

Graph *passes_run(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    const Graph *now = g;
    Graph *last = skipped(a, g, g->stage);
    bool val = g->phase && !strcmp(g->phase, "val");
    if (o->stop_after && !pass_find(o->stop_after)) {
        diag_add(d, R007, NOLOC, "no pass is called '%s'", o->stop_after);
        return NULL;
    }
    for (int i = first_pass(g); i < npass; i++) {
        const Pass *p = &pass_table[i];
        uint32_t errors = d->nerror;
        last = p->train_only && val ? skipped(a, now, p->out) : p->fn(a, now, o, d);
        if (!last || d->nerror > errors) return NULL;
        if (!check(a, now, last, p, o, d)) return NULL;
        if (o->after) o->after(o->ctx, i, p->name, now, last);
        now = last;
        if (o->stop_after && !strcmp(o->stop_after, p->name)) break;
    }
    return last;
}
