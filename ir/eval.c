/* eval.c: the reference evaluator: driver, leaves, element-wise ops, reductions, micro-batches.
 *
 * Plain loops in double over whole values, one function per `ref` column; element-wise ops compile the `expr`
 * column itself. It is the definition that passes and kernels are held against, so it stays simple and is
 * never optimized. In localized graphs a value of an odd section has G pieces, and each odd section runs once
 * per micro-batch. */
#include "ir/eval.h"

#include <math.h>
#include <string.h>

/* ---- spaces */
int64_t dim_stride(const Graph *g, const Type *t, DimId d) {
    int64_t s = 1;
    for (int k = t->ndim - 1; k >= 0; k--) {
        if (t->dim[k].i == d.i) return s;
        s *= g->dim[t->dim[k].i].size;
    }
    return 0;
}
void space_start(Space *s, const Graph *g) {
    memset(s, 0, sizeof *s);
    s->g = g;
}
void space_dims(Space *s, const Type *t, const Type *without) {
    for (int k = 0; k < t->ndim; k++) {
        bool there = without && type_has(without, t->dim[k]);
        for (int j = 0; j < s->n; j++) there = there || s->dim[j].i == t->dim[k].i;
        if (there) continue;
        wm_check(s->g->arena, s->n < SPACE_DIMS, "more dims than a walk holds");
        s->dim[s->n] = t->dim[k];
        s->size[s->n++] = s->g->dim[t->dim[k].i].size;
    }
}
int space_tensor(Space *s, const Type *t) {
    for (int k = 0; k < s->n; k++) s->stride[s->ntensor][k] = dim_stride(s->g, t, s->dim[k]);
    return s->ntensor++;
}
void space_first(Space *s) {
    s->end = false;
    for (int k = 0; k < s->n; k++) {
        s->i[k] = 0;
        if (s->size[k] == 0) s->end = true;
    }
    for (int t = 0; t < s->ntensor; t++) s->at[t] = 0;
}
void space_next(Space *s) {
    for (int k = s->n - 1; k >= 0; k--) {
        for (int t = 0; t < s->ntensor; t++) s->at[t] += s->stride[t][k];
        if (++s->i[k] < s->size[k]) return;
        for (int t = 0; t < s->ntensor; t++) s->at[t] -= s->stride[t][k] * s->size[k];
        s->i[k] = 0;
    }
    s->end = true;
}

/* ---- helpers of the cells */
Type type_of_dims(const Graph *g, const Node *n, const char *name) {
    const Attr *a = node_attr(g, n, name);
    if (a->kind == AT_DIM) return type_make(DT_F64, &a->u.dim, 1);
    if (a->kind == AT_DIMS) return type_make(DT_F64, g->dimlist + a->u.list.at, a->u.list.n);
    return type_make(DT_F64, NULL, 0);
}
bool eval_error(Cell *c, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *text = arena_vfmt(c->e->a, fmt, ap);
    va_end(ap);
    return diag_fail(c->e->d, P002, c->n->loc, "%%%u = %s: %s", c->n->out0, op_info[c->n->op].name, text);
}
bool eval_token(Cell *c, double token, int64_t size, int64_t *index, bool *ignored) {
    *ignored = token == IGNORE;
    *index = 0;
    if (*ignored) return true;
    if (!(token >= 0 && token < (double)size))
        return eval_error(c, "token %g is outside a dim of size %lld", token, (long long)size);
    *index = (int64_t)token;
    return true;
}

/* ---- values and their pieces */
static bool in_pieces(const Graph *g, ValueId v) {
    const Node *n = value_node(g, v);
    return n->section % 2 == 1 && n->op != OP_micro_stack;
}
static double *piece_of(const Eval *e, ValueId v) {
    return e->v[v.i] + (in_pieces(e->g, v) ? e->piece * type_count(e->g, value_type(e->g, v)) : 0);
}
const double *eval_operand(const Eval *e, const Node *n, uint32_t k) {
    return piece_of(e, e->g->operand[n->in0 + k]);
}

/* ---- element-wise */
#define EXP        exp
#define LOG        log
#define SQRT       sqrt
#define TANH       tanh
#define ERF        erf
#define COS        cos
#define FLOOR      floor
#define POW        pow
#define FABS       fabs
#define LOG1P      log1p
#define SIGMOID(x) (1 / (1 + exp(-(x))))
#define ROW_EW(name, expr)                                                                                   \
    case OP_##name:                                                                                          \
        return (double)(expr);
#define ROW_REDUCE(name, expr) ROW_EW(name, expr)
#define ROW_LEAF(name, expr)
#define ROW_GEMM(name, expr)
#define ROW_VIEW(name, expr)
#define ROW_COPY(name, expr)
#define ROW_GATHER(name, expr)
#define ROW_SCAN(name, expr)
#define ROW_CUSTOM(name, expr)
#define ROW_TREE(name, expr)
#define ROW_COLL(name, expr)
/* Masks are 0 and 1 in double here, and && of two doubles is meant. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wfloat-conversion"
static double apply(Op op, double x0, double x1, double x2) {
    switch (op) {
#define OP(name, nin, nout, flags, attrs, rule, kind, expr, ref, vjp, cost, sample, doc)                     \
    ROW_##kind(name, expr)
#include "ir/ops.def"
#undef OP
    default:
        return NAN;
    }
}
#pragma GCC diagnostic pop
static double convert(DType to, double x) {
    return to == DT_BOOL ? x != 0 : to == DT_I32 ? trunc(x) : x;
}

bool eval_ew(Cell *c) {
    Space s;
    double x[3] = {0};
    space_start(&s, c->g);
    space_dims(&s, c->ty[0], NULL);
    int out = space_tensor(&s, c->ty[0]), in[3];
    for (uint32_t k = 0; k < c->n->nin; k++) in[k] = space_tensor(&s, c->tx[k]);
    for (space_first(&s); !s.end; space_next(&s)) {
        for (uint32_t k = 0; k < c->n->nin; k++) x[k] = c->x[k][s.at[in[k]]];
        double y = apply(c->n->op, x[0], x[1], x[2]);
        c->y[0][s.at[out]] = c->n->op == OP_cast ? convert(c->ty[0]->dt, y) : y;
    }
    return true;
}

bool eval_reduce(Cell *c) {
    Space s;
    double start = c->n->op == OP_max_of ? -INFINITY : c->n->op == OP_min_of ? INFINITY : 0;
    for (int64_t k = 0; k < type_count(c->g, c->ty[0]); k++) c->y[0][k] = start;
    space_start(&s, c->g);
    space_dims(&s, c->tx[0], NULL);
    int in = space_tensor(&s, c->tx[0]), out = space_tensor(&s, c->ty[0]);
    for (space_first(&s); !s.end; space_next(&s))
        c->y[0][s.at[out]] = apply(c->n->op, c->y[0][s.at[out]], c->x[0][s.at[in]], 0);
    return true;
}

/* ---- leaves */
static bool ask(Cell *c, double *out, int64_t count) {
    const EvalInput *in = c->e->in;
    if (in && in->leaf && in->leaf(in->ctx, c->g, c->n, out, count)) return true;
    return eval_error(c, "no value was given for %s `%s`", op_info[c->n->op].name,
                      attr_str(c->g, c->n, "name"));
}
/* An input of an odd section is asked for as a whole: the pieces of all micro-batches, one after the other.
 */
static bool asked_leaf(Cell *c, int64_t count) {
    Eval *e = c->e;
    if (c->n->op == OP_scalar && strcmp(attr_str(c->g, c->n, "name"), "micro") == 0) {
        c->y[0][0] = (double)e->piece;
        return true;
    }
    if (c->n->op != OP_input || c->n->section % 2 == 0) return ask(c, c->y[0], count);
    return e->piece > 0 || ask(c, c->y[0], count * e->pieces);
}
bool eval_leaf(Cell *c) {
    int64_t count = type_count(c->g, c->ty[0]);
    if (c->n->op == OP_const) {
        c->y[0][0] = attr_float(c->g, c->n, "value");
    } else if (c->n->op == OP_tensor) {
        const Attr *a = node_attr(c->g, c->n, "values");
        for (int64_t k = 0; k < count; k++) c->y[0][k] = c->g->floatlist[a->u.list.at + (uint32_t)k];
    } else if (c->n->op == OP_iota) {
        for (int64_t k = 0; k < count; k++) c->y[0][k] = (double)(attr_int(c->g, c->n, "base") + k);
    } else {
        return asked_leaf(c, count);
    }
    return true;
}

/* The index of an element in the whole step: pieces of micro-batches lie one after the other. */
bool eval_random(Cell *c) {
    const EvalInput *in = c->e->in;
    int64_t count = type_count(c->g, c->ty[0]);
    uint32_t stream = (uint32_t)attr_int(c->g, c->n, "stream"), w[4];
    if (!in) return eval_error(c, "no seed was given");
    for (int64_t k = 0; k < count; k++) {
        uint64_t i = (uint64_t)(k + (c->n->section % 2 ? c->e->piece * count : 0));
        philox4x32(in->seed, i >> 2, (uint32_t)in->step, stream, w);
        if (c->n->op == OP_uniform) {
            c->y[0][k] = philox_unit(w[i & 3]);
            continue;
        }
        double r = sqrt(-2 * log(philox_unit(w[i & 2]))), angle = 2 * M_PI * philox_unit(w[(i & 2) + 1]);
        c->y[0][k] = i & 1 ? r * sin(angle) : r * cos(angle);
    }
    return true;
}

bool eval_rope_table(Cell *c) {
    DimId along = attr_dim(c->g, c->n, "along"), over = attr_dim(c->g, c->n, "over");
    int64_t places = c->g->dim[along.i].size, width = c->g->dim[over.i].size;
    double theta = attr_float(c->g, c->n, "theta"), base = (double)attr_int(c->g, c->n, "base");
    for (int64_t t = 0; t < places; t++) {
        for (int64_t k = 0; k < width / 2; k++) {
            double angle = (base + (double)t) * pow(theta, -2 * (double)k / (double)width);
            c->y[0][t * width + 2 * k] = cos(angle);
            c->y[0][t * width + 2 * k + 1] = sin(angle);
        }
    }
    return true;
}

/* ---- micro-batches */
static double tree(const double *p, int64_t stride, uint32_t n) {
    if (n == 0) return 0;
    if (n == 1) return p[0];
    uint32_t left = tree_split(n);
    return tree(p, stride, left) + tree(p + (int64_t)left * stride, stride, n - left);
}
bool eval_tree(Cell *c) {
    Eval *e = c->e;
    int64_t count = type_count(c->g, c->ty[0]);
    ValueId v = c->g->operand[c->n->in0];
    if (type_has(c->tx[0], c->g->micro)) {
        Space s;
        space_start(&s, c->g);
        space_dims(&s, c->ty[0], NULL);
        int in = space_tensor(&s, c->tx[0]), out = space_tensor(&s, c->ty[0]);
        int64_t stride = dim_stride(c->g, c->tx[0], c->g->micro);
        for (space_first(&s); !s.end; space_next(&s))
            c->y[0][s.at[out]] = tree(c->x[0] + s.at[in], stride, (uint32_t)e->pieces);
        return true;
    }
    if (!in_pieces(c->g, v)) return eval_error(c, "%%%u has no micro-batches to sum", v.i);
    for (int64_t k = 0; k < count; k++) c->y[0][k] = tree(e->v[v.i] + k, count, (uint32_t)e->pieces);
    return true;
}

/* micro_stack and micro_slice. */
bool eval_copy(Cell *c) {
    Eval *e = c->e;
    int64_t count = type_count(c->g, c->ty[0]);
    ValueId v = c->g->operand[c->n->in0];
    if (c->n->op == OP_micro_slice) {
        int64_t start = e->piece * dim_stride(c->g, c->tx[0], c->g->micro);
        Space s;
        space_start(&s, c->g);
        space_dims(&s, c->ty[0], NULL);
        int in = space_tensor(&s, c->tx[0]), out = space_tensor(&s, c->ty[0]);
        for (space_first(&s); !s.end; space_next(&s)) c->y[0][s.at[out]] = c->x[0][start + s.at[in]];
        return true;
    }
    if (type_has(c->tx[0], c->g->micro)) { /* before localize: the same value */
        memcpy(c->y[0], c->x[0], (size_t)count * sizeof(double));
        return true;
    }
    if (!in_pieces(c->g, v)) return eval_error(c, "%%%u has no micro-batches to collect", v.i);
    if (c->n->section % 2 == 0) { /* the pieces as they lie are the stack */
        memcpy(c->y[0], e->v[v.i], (size_t)count * sizeof(double));
        return true;
    }
    int64_t part = count / e->pieces;
    memcpy(c->y[0] + e->piece * part, c->x[0], (size_t)part * sizeof(double));
    return true;
}

/* ---- driver */
static bool run_node(Eval *e, const Node *n) {
    static bool (*const fn[NOP])(Cell *) = {
#define OP(name, nin, nout, flags, attrs, rule, kind, expr, ref, vjp, cost, sample, doc)                     \
    [OP_##name] = eval_##ref,
#include "ir/ops.def"
#undef OP
    };
    Cell c = {.e = e, .g = e->g, .n = n};
    for (uint32_t k = 0; k < n->nin && k < EVAL_IN; k++) {
        c.x[k] = eval_operand(e, n, k);
        c.tx[k] = value_type(e->g, e->g->operand[n->in0 + k]);
    }
    for (uint32_t k = 0; k < n->nout; k++) {
        c.y[k] = piece_of(e, (ValueId){n->out0 + k});
        c.ty[k] = &e->g->value[n->out0 + k].ty;
    }
    return fn[n->op](&c);
}

static bool *needed_nodes(Arena *a, const Graph *g, const ValueId *want, uint32_t nwant) {
    bool *need = NEWN(a, bool, g->nnode + 1);
    for (uint32_t k = 0; want && k < nwant; k++) need[g->value[want[k].i].def.i] = true;
    for (uint32_t k = 0; !want && k < g->nresult; k++) need[g->value[g->result[k].v.i].def.i] = true;
    for (uint32_t i = g->nnode; i-- > 0;)
        for (uint32_t k = 0; need[i] && k < g->node[i].nin; k++)
            need[g->value[g->operand[g->node[i].in0 + k].i].def.i] = true;
    return need;
}

static bool run_section(Eval *e, uint32_t section, const bool *need) {
    const Graph *g = e->g;
    int64_t times = section % 2 ? e->pieces : 1;
    for (e->piece = 0; e->piece < times; e->piece++)
        for (uint32_t i = 0; i < g->nnode; i++)
            if (need[i] && g->node[i].section == section && !run_node(e, &g->node[i])) return false;
    e->piece = 0;
    return true;
}

double **graph_eval(Arena *a, const Graph *g, const EvalInput *in, const ValueId *want, uint32_t nwant,
                    Diags *d) {
    Eval e = {g, in, a, d, NEWN(a, double *, g->nvalue + 1), 1, 0};
    uint32_t last = 0;
    if (g->micro.i < g->ndim) e.pieces = g->dim[g->micro.i].size;
    bool *need = needed_nodes(a, g, want, nwant);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (!need[i]) continue;
        if (n->section > last) last = n->section;
        for (uint32_t k = 0; k < n->nout; k++) {
            ValueId v = {n->out0 + k};
            wm_size count = (wm_size)type_count(g, value_type(g, v));
            if (!wm_mul(count, in_pieces(g, v) ? (wm_size)e.pieces : 1, &count) || count > (wm_size)1 << 48) {
                diag_add(d, P002, n->loc, "%%%u has too many elements to evaluate", v.i);
                return NULL;
            }
            e.v[v.i] = NEWN(a, double, count);
        }
    }
    for (uint32_t s = 0; s <= last; s++)
        if (!run_section(&e, s, need)) return NULL;
    return e.v;
}
