/* linear_ce and linear_kl with their gradients, against the evaluator: odd sizes, several chunks, no rows at
 * all. */
#include "custom_harness.h"

#define START(dt)                                                                                            \
    Case c;                                                                                                  \
    case_open(&c, dt);                                                                                       \
    CASE_GUARD(&c);                                                                                          \
    if (dt == DT_F32) c.tol = 5e-5

typedef struct {
    const char *rows, *over, *cls;
    Fill target, seed;
    unsigned skip;
    const char *sum;
} Shape;
static const Shape shapes[] = {
    {"a3 s5", "h4", "v7", FILL_TOKEN, FILL_SPARSE, 0, "a3 s5"},
    {"a3 s5", "h4", "v7", FILL_TOKEN, FILL_SPARSE, 0xe, "a3 s5"},
    {"a2 s360", "h33", "v97", FILL_TOKEN, FILL_SPARSE, 0, "a2 s360"},
    {"a2 s360", "h33", "v97", FILL_TOKEN, FILL_SPARSE, 0xe, "a2 s360"},
    {"a2 s360", "h33", "v97", FILL_TOKEN, FILL_ZERO, 0xf, "a2 s360"},
    {"a2 s40", "h32", "v64", FILL_IGNORE, FILL_SPARSE, 0xe, "a2 s40"},
    {"a2 s40", "h32", "v64", FILL_IGNORE, FILL_SPARSE, 0, "a2 s40"},
    {"a3 s300", "h16 g3", "v50", FILL_TOKEN, FILL_REAL, 0x6, "s300"},
};

static char *joined(Case *c, const char *a, const char *b) {
    return arena_fmt(c->a, "%s %s", a, b);
}

/* h, W, target and the attributes; the dims of `sum` are summed in dW. */
static void head(Case *c, const Shape *s, ValueId *v, Attr *at) {
    DimId d[MAX_DIMS];
    v[0] = case_real(c, joined(c, s->rows, s->over));
    v[1] = case_real(c, joined(c, s->cls, s->over));
    uint32_t n = case_dims(c, s->cls, d);
    v[2] = case_leaf(c, DT_I32, s->rows, s->target, (int)c->g->dim[d[0].i].size);
    at[1] = at_dim(d[0]);
    n = case_dims(c, s->over, d);
    at[0] = at_dims(c->g, d, n);
    n = case_dims(c, s->sum, d);
    at[2] = at_dims(c->g, d, n);
}
static void unwanted(Case *c, ValueId first, unsigned skip) {
    for (uint32_t i = 0; i < 4; i++)
        if (skip >> i & 1) c->unwanted[c->nunwanted++] = (ValueId){first.i + i};
}

static void forward(DType dt, const Shape *s) {
    START(dt);
    ValueId v[8];
    Attr at[3];
    head(&c, s, v, at);
    ValueId r = build(c.g, OP_linear_ce, v, 3, at, 2);
    unwanted(&c, r, s->skip);
    case_check(&c, case_node(&c, r), "linear_ce");
    case_close(&c);
}
static void both(DType dt, const Shape *s) {
    START(dt);
    ValueId v[8];
    Attr at[3];
    head(&c, s, v, at);
    v[3] = case_leaf(&c, dt, s->rows, s->seed, 0);
    ValueId r = build(c.g, OP_linear_ce_fb, v, 4, at, 3);
    unwanted(&c, r, s->skip);
    case_check(&c, case_node(&c, r), "linear_ce_fb");
    case_close(&c);
}
/* The gradient's lse and entropy are those of the forward: a graph of two nodes. */
static void backward(DType dt, const Shape *s, bool entropy) {
    START(dt);
    ValueId v[8];
    Attr at[3];
    head(&c, s, v, at);
    v[4] = case_leaf(&c, dt, s->rows, s->seed, 0);
    v[6] = case_leaf(&c, dt, s->rows, s->seed, 0);
    ValueId r = build(c.g, OP_linear_ce, v, 3, at, 2);
    v[3] = b_out(c.g, r, 1);
    v[5] = b_out(c.g, r, 2);
    build(c.g, OP_linear_ce_grad, v, entropy ? 7 : 5, at, 3);
    case_check(&c, case_node(&c, r), "linear_ce_grad");
    case_close(&c);
}
Test(custom_loss, forward, .timeout = 1200) {
    for (size_t i = 0; i < WM_LEN(shapes); i++) {
        forward(DT_F64, &shapes[i]);
        forward(DT_F32, &shapes[i]);
    }
}
Test(custom_loss, forward_backward, .timeout = 1200) {
    for (size_t i = 0; i < WM_LEN(shapes); i++) {
        both(DT_F64, &shapes[i]);
        both(DT_F32, &shapes[i]);
    }
}
Test(custom_loss, backward, .timeout = 1200) {
    for (size_t i = 0; i < WM_LEN(shapes); i++) {
        backward(DT_F64, &shapes[i], i % 2);
        backward(DT_F32, &shapes[i], !(i % 2));
    }
}

static void divergence(DType dt, const char *rows, const char *over2, const char *sum, Fill seed) {
    START(dt);
    DimId d[MAX_DIMS];
    ValueId v[8] = {case_real(&c, joined(&c, rows, "h20")), case_real(&c, "v70 h20"),
                    case_real(&c, joined(&c, rows, over2)), case_real(&c, joined(&c, "v70", over2))};
    v[6] = case_leaf(&c, dt, rows, seed, 0);
    Attr at[4];
    uint32_t n = case_dims(&c, "h20", d);
    at[0] = at_dims(c.g, d, n);
    n = case_dims(&c, over2, d);
    at[1] = at_dims(c.g, d, n);
    at[2] = at_dim(case_dim(&c, "v"));
    n = case_dims(&c, sum, d);
    at[3] = at_dims(c.g, d, n);
    ValueId r = build(c.g, OP_linear_kl, v, 4, at, 3);
    v[4] = b_out(c.g, r, 1);
    v[5] = b_out(c.g, r, 2);
    build(c.g, OP_linear_kl_grad, v, 7, at, 4);
    case_check(&c, case_node(&c, r), "linear_kl");
    case_close(&c);
}
Test(custom_loss, divergence, .timeout = 1200) {
    for (int i = 0; i < 2; i++) {
        DType dt = i ? DT_F32 : DT_F64;
        divergence(dt, "a3 s5", "g9", "a3 s5", FILL_SPARSE);
        divergence(dt, "a2 s300", "g33", "a2 s300", FILL_SPARSE);
        divergence(dt, "a2 s300", "g33", "s300", FILL_REAL);
        divergence(dt, "a3 s5", "g9", "a3 s5", FILL_ZERO);
    }
}
