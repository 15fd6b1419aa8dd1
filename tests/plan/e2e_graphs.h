/* Small training programs at ST_MATH, built by hand: a two-layer token model with cross-entropy over all
 * tokens of the step. Variants add what sections are for: a threshold over the losses of the whole step,
 * random weights, a state. */
#ifndef E2E_GRAPHS_H
#define E2E_GRAPHS_H

#include "ir/ir.h"

#include <math.h>
#include <string.h>

typedef struct {
    int64_t micro;
    bool sgd, threshold, random, state, metric, clip, frozen;
} Recipe;

static inline ValueId e2e_param(Graph *g, const char *name, const DimId *d, uint32_t n, int64_t opt) {
    Attr at[9] = {at_str(g, "m"), at_str(g, name), at_str(g, ""),
                  at_str(g, ""),  at_none(),       at_str(g, "uniform:-1,1"),
                  at_int(opt),    at_bool(n > 1),  at_int(stream_of(name))};
    return build_leaf(g, OP_param, type_make(DT_F32, d, n), at, 9);
}
static inline ValueId e2e_input(Graph *g, const char *name, DType dt, const DimId *d, uint32_t n) {
    Attr at = at_str(g, name);
    return build_leaf(g, OP_input, type_make(dt, d, n), &at, 1);
}
static inline ValueId e2e_mean(Graph *g, ValueId x, ValueId mask, const DimId *over, uint32_t n) {
    ValueId count = b_over(g, OP_sum, b_cast(g, mask, DT_F32), over, n), zero = b_const(g, DT_F32, 0),
            one = b_const(g, DT_F32, 1);
    const Type *t = value_type(g, x);
    ValueId full = b_expand(g, zero, t->dim, t->ndim);
    ValueId sum = b_over(g, OP_sum, b_ew3(g, OP_where, mask, x, full), over, n);
    ValueId some =
        b_ew2(g, OP_gt, count, b_expand(g, zero, value_type(g, count)->dim, value_type(g, count)->ndim));
    ValueId least =
        b_ew2(g, OP_max, count, b_expand(g, one, value_type(g, count)->dim, value_type(g, count)->ndim));
    ValueId none = b_expand(g, zero, value_type(g, count)->dim, value_type(g, count)->ndim);
    return b_ew3(g, OP_where, some, b_ew2(g, OP_div, sum, least), none);
}

static inline Graph *e2e_graph(Arena *a, const Recipe *r) {
    Graph *g = graph_new(a, "e2e", ST_MATH);
    g->phase = "train";
    DimId micro = graph_dim(g, "micro", r->micro), batch = graph_dim(g, "batch", 2),
          seq = graph_dim(g, "seq", 3);
    DimId hidden = graph_dim(g, "hidden", 4), ffn = graph_dim(g, "ffn", 5), vocab = graph_dim(g, "vocab", 7);
    g->micro = micro;
    g->batch = batch;
    if (r->clip) g->clip_norm = 0.05;
    DimId token_dims[3] = {micro, batch, seq};
    g->path = "data";
    ValueId tokens = e2e_input(g, "tokens", DT_I32, token_dims, 3),
            target = e2e_input(g, "target", DT_I32, token_dims, 3);
    ValueId present = e2e_input(g, "present", DT_BOOL, token_dims, 2);
    g->path = "m.emb";
    ValueId emb = e2e_param(g, "emb", (DimId[]){vocab, hidden}, 2, 0);
    ValueId up = e2e_param(g, "up", (DimId[]){hidden, ffn}, 2, r->frozen ? -1 : 0);
    ValueId bias = e2e_param(g, "bias", &ffn, 1, 0), out = e2e_param(g, "out", (DimId[]){vocab, ffn}, 2, 0);
    Attr cls = at_dim(vocab);
    ValueId x = build(g, OP_gather, (ValueId[]){emb, tokens}, 2, &cls, 1);
    g->path = "m.block";
    ValueId h = b_ew1(g, OP_tanh, b_ew2(g, OP_add, b_matmul(g, x, up, &hidden, 1), bias));
    g->path = "loss";
    ValueId logits = b_matmul(g, h, out, &ffn, 1);
    ValueId ce = build(g, OP_cross_entropy, (ValueId[]){logits, target}, 2, &cls, 1);
    ValueId valid = b_ew2(g, OP_ne, target, b_const(g, DT_I32, -100));
    ValueId mask = b_ew2(g, OP_and, valid, present), weighted = ce;
    if (r->random) {
        Attr stream = at_int(stream_of("draw:noise#0"));
        weighted = b_ew2(g, OP_mul, weighted,
                         build_leaf(g, OP_uniform, type_make(DT_F32, token_dims, 3), &stream, 1));
    }
    if (r->threshold) {
        Attr at[2] = {at_float(0.4), at_dims(g, token_dims, 3)};
        ValueId q = build(g, OP_quantile, (ValueId[]){b_ew1(g, OP_stop_grad, ce), mask}, 2, at, 2);
        mask = b_ew2(g, OP_and, mask, b_ew2(g, OP_ge, b_ew1(g, OP_stop_grad, ce), q));
    }
    ValueId loss = e2e_mean(g, weighted, mask, token_dims, 3);
    if (r->state) {
        Attr at[5] = {at_str(g, "level"), at_str(g, "user"), at_float(2), at_none(), at_none()};
        ValueId level = build_leaf(g, OP_state, type_make(DT_F32, NULL, 0), at, 5),
                nine = b_const(g, DT_F32, 0.9);
        ValueId ten = b_const(g, DT_F32, 0.1);
        graph_result(g, "next", "level",
                     b_ew2(g, OP_add, b_ew2(g, OP_mul, level, nine),
                           b_ew2(g, OP_mul, b_ew1(g, OP_stop_grad, loss), ten)));
        loss = b_ew2(g, OP_mul, loss, level);
    }
    if (r->metric) {
        graph_result(g, "value", "ce", ce);
        ValueId each = e2e_mean(g, ce, mask, token_dims + 1, 2); /* [micro] */
        graph_result(g, "value", "each", each);
        graph_result(g, "metric", "spread", b_over(g, OP_max_of, each, &micro, 1));
    }
    graph_result(g, "loss", "ce", loss);
    graph_result(g, "total", "total", loss);
    g->path = "train";
    ValueId lr = b_const(g, DT_F32, 0.05);
    GROW(a, g->opt, g->nopt, g->opt_cap);
    g->opt[g->nopt++] =
        r->sgd ? (Opt){.kind = "sgd", .lr = lr, .momentum = 0.9, .wd = 0.01}
               : (Opt){.kind = "adamw", .lr = lr, .b1 = 0.9, .b2 = 0.99, .eps = 1e-8, .wd = 0.01};
    return g;
}

/* Data that depends on name, step and element alone. */
static inline double e2e_unit(const char *name, int64_t step, int64_t i) {
    uint64_t w[3] = {hash_bytes(name, strlen(name)), (uint64_t)step, (uint64_t)i};
    return (double)(hash_bytes(w, sizeof w) >> 11) * 0x1p-53;
}
static inline double e2e_data(const char *name, int64_t step, int64_t i) {
    double u = e2e_unit(name, step, i);
    if (strcmp(name, "present") == 0) return u < 0.85;
    if (strcmp(name, "target") == 0 && u < 0.15) return -100;
    return floor(e2e_unit(name, step, i + 1000000) * 7);
}

#endif
