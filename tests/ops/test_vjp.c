/* Every row with a gradient against central differences in f64, on operands made from its sample column. */
#include "tests/passes/pass_test.h"

#include <ctype.h>

typedef struct {
    char kind;
    Type ty;
} Operand;

static DimId named_dim(Graph *g, const char **p) { /* "a4": dim a of size 4; "a": the dim met before */
    char name[16] = {0};
    size_t n = 0;
    while (isalpha((unsigned char)**p)) name[n++] = *(*p)++;
    DimId d;
    char *end;
    long size = strtol(*p, &end, 10);
    *p = end;
    if (size == 0) {
        cr_assert(graph_find_dim(g, name, &d), "dim %s", name);
        return d;
    }
    return graph_dim(g, name, size);
}

static uint32_t read_dims(Graph *g, const char **p, DimId *d) { /* "[a4 b6]", from the bracket to behind it */
    uint32_t n = 0;
    (*p)++;
    while (**p != ']') {
        if (**p == ' ')
            (*p)++;
        else
            d[n++] = named_dim(g, p);
    }
    (*p)++;
    return n;
}

static uint32_t read_operands(Graph *g, const char **p, Operand *o) {
    uint32_t n = 0;
    while (**p && **p != ';') {
        if (**p == ' ' || **p == ',') {
            (*p)++;
            continue;
        }
        o[n].kind = *(*p)++;
        DimId d[MAX_DIMS];
        uint32_t k = read_dims(g, p, d);
        o[n].ty = type_make(o[n].kind == 'm' ? DT_BOOL : o[n].kind == 't' ? DT_I32 : DT_F64, d, k);
        n++;
    }
    return n;
}

static Attr read_attr(Graph *g, AttrKind kind, const char *text) {
    DimId d[MAX_DIMS];
    int64_t ints[MAX_DIMS];
    uint32_t n = 0;
    const char *p = text;
    if (kind == AT_INT) return at_int(atoll(text));
    if (kind == AT_FLOAT) return at_float(atof(text));
    if (kind == AT_BOOL) return at_bool(!strncmp(text, "true", 4));
    if (kind == AT_DT) return at_dt(!strncmp(text, "f64", 3) ? DT_F64 : DT_F32);
    if (kind == AT_DIM) return at_dim(named_dim(g, &p));
    if (kind == AT_DIMS) {
        n = read_dims(g, &p, d);
        return at_dims(g, d, n);
    }
    cr_assert(kind == AT_INTS, "attribute kind of a sample");
    for (p++; *p != ']'; p++) {
        char *end;
        ints[n++] = strtoll(p, &end, 10);
        p = end;
        if (*p == ']') break;
    }
    return at_ints(g, ints, n);
}

static void read_attrs(Graph *g, const OpInfo *info, const char *text, Attr *at) {
    for (int i = 0; i < info->nattr; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s=", info->attr[i].name);
        at[i] = at_none();
        for (const char *p = text; (p = strstr(p, key)); p++)
            if (p == text || p[-1] == ' ' || p[-1] == ';') {
                at[i] = read_attr(g, info->attr[i].kind, p + strlen(key));
                break;
            }
    }
}

static bool fill(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    const RandomLeaves *l = ctx;
    const char *name = attr_str(g, n, "name");
    Rng r = {hash_bytes(name, strlen(name)) ^ l->seed};
    for (int64_t i = 0; i < count; i++) {
        double u = rng_unit(&r);
        switch (name[0]) {
        case 'm':
            out[i] = u < 0.7;
            break;
        case 't':
            out[i] = u < 0.2 ? -100 : floor(rng_unit(&r) * 7);
            break;
        case 'p':
            out[i] = 0.3 + 2 * u;
            break;
        case 'n':
            out[i] = floor(u * 4);
            break;
        default:
            out[i] = 3 * u - 1.5;
        }
        if (l->bump && !strcmp(name, l->bump) && i == l->at) out[i] += l->by;
    }
    return true;
}

static double loss_of(Arena *a, const Graph *g, RandomLeaves l, Diags *d) {
    EvalInput in = {fill, &l, 5, 1};
    ValueId v = graph_find_result(g, "loss", "test")->v;
    double **all = graph_eval(a, g, &in, &v, 1, d);
    cr_assert(all != NULL, "evaluation failed: %s", first_diag(d));
    return all[v.i][0];
}

static ValueId leaf_of(Graph *g, const Operand *o, uint32_t i, bool trained) {
    char name[16];
    snprintf(name, sizeof name, "%c%u", o->kind, i);
    Attr in = at_str(g, name);
    if (!trained) return build_leaf(g, OP_input, o->ty, &in, 1);
    Attr at[9] = {at_str(g, "m"),       at_str(g, name), at_str(g, name), at_str(g, ""), at_none(),
                  at_str(g, "const:0"), at_int(0),       at_bool(true),   at_int(0)};
    return build_leaf(g, OP_param, o->ty, at, 9);
}

/* sum of result k times random weights */
static ValueId weighted(Graph *g, ValueId v, uint32_t k) {
    Type t = *value_type(g, v);
    char name[16];
    snprintf(name, sizeof name, "w%u", k);
    Attr at = at_str(g, name);
    t.dt = DT_F64;
    ValueId w = build_leaf(g, OP_input, t, &at, 1);
    return b_over(g, OP_sum, b_ew2(g, OP_mul, b_cast(g, v, DT_F64), w), t.dim, t.ndim);
}

static void check_gradients(Arena *a, const Graph *g, const OpInfo *info, bool stop, uint64_t seed,
                            Diags *d) {
    Graph *t = passes_gradient(a, g, d);
    cr_assert(t != NULL, "%s: %s", info->name, first_diag(d));
    cr_assert(graph_verify(t, false, d), "%s: %s", info->name, first_diag(d));
    RandomLeaves l = {.seed = seed};
    EvalInput in = {fill, &l, 5, 1};
    double **v = graph_eval(a, t, &in, NULL, 0, d);
    cr_assert(v != NULL, "%s: %s", info->name, first_diag(d));
    uint32_t seen = 0;
    for (uint32_t i = 0; i < t->nresult; i++) {
        const Result *r = &t->result[i];
        if (strcmp(r->kind, "grad")) continue;
        seen++;
        int64_t n = type_count(t, value_type(t, r->v));
        for (int64_t k = 0; k < n; k++) {
            RandomLeaves hi = {seed, strchr(r->name, '/') + 1, k, 1e-5}, lo = hi;
            lo.by = -1e-5;
            double want = (loss_of(a, g, hi, d) - loss_of(a, g, lo, d)) / 2e-5, got = v[r->v.i][k];
            cr_assert(fabs(want - got) <= 1e-6 * (1 + fabs(want)),
                      "%s: d/d %s[%lld] is %.12g, differences give %.12g", info->name, r->name, (long long)k,
                      got, want);
        }
    }
    cr_assert(stop ? seen == 0 : seen > 0, "%s: %u gradients", info->name, seen);
}

/* Operands that have no gradient by definition. */
static bool constant_operand(Op op, uint32_t i) {
    return (op == OP_rope || op == OP_pow) && i == 1;
}

static void one_op(Arena *a, Diags *d, uint64_t at) {
    Op op = (Op)(at & 0xff);
    const OpInfo *info = &op_info[op];
    Graph *g = graph_new(a, info->name, ST_MATH);
    Operand o[8];
    const char *p = info->sample;
    uint32_t n = read_operands(g, &p, o);
    ValueId in[8];
    graph_find_dim(g, "micro", &g->micro);
    Attr attr[MAX_ATTR];
    read_attrs(g, info, *p ? p + 1 : p, attr);
    for (uint32_t i = 0; i < n; i++)
        in[i] = leaf_of(g, &o[i], i, (o[i].kind == 'f' || o[i].kind == 'p') && !constant_operand(op, i));
    ValueId v = build(g, op, in, n, attr, (uint32_t)info->nattr), loss = NOVALUE;
    for (uint32_t k = 0; k < value_node(g, v)->nout; k++) {
        bool counts = k == 0 || (op == OP_linear_ce && k == 2); /* lse is not visible to users */
        if (!counts) continue;
        ValueId w = weighted(g, b_out(g, v, k), k);
        loss = value_is(loss) ? b_ew2(g, OP_add, loss, w) : w;
    }
    graph_result(g, "loss", "test", loss);
    check_gradients(a, g, info, !strcmp(info->vjp, "stop"), at >> 8, d);
}

Test(vjp, every_row_against_central_differences) {
    uint32_t tested = 0;
    for (int op = 0; op < NOP; op++) {
        const OpInfo *info = &op_info[op];
        if (!info->sample[0] || !strcmp(info->vjp, "none")) continue;
        for (uint64_t seed = 1; seed <= 3; seed++) guarded(one_op, (uint64_t)op | seed << 8);
        tested++;
    }
    cr_assert(tested >= 50, "only %u rows were tested", tested);
}
