/* attention and its gradient against the evaluator: grouped queries, odd lengths, permuted dims. */
#include "custom_harness.h"

static void attend(DType dt, const char *q, const char *k, const char *v, const char *o, bool grad) {
    Case c;
    case_open(&c, dt);
    CASE_GUARD(&c);
    if (dt == DT_F32) c.tol = 1e-4;
    ValueId in[6] = {case_real(&c, q), case_real(&c, k), case_real(&c, v)};
    in[5] = case_real(&c, o);
    Attr at[2] = {at_dim(case_dim(&c, "s")), at_dim(case_dim(&c, "d"))};
    ValueId r = build(c.g, OP_attention, in, 3, at, 2);
    in[3] = r;
    in[4] = b_out(c.g, r, 1);
    if (grad) build(c.g, OP_attention_grad, in, 6, at, 2);
    case_check(&c, case_node(&c, r), "attention");
    case_close(&c);
}
static const struct {
    const char *q, *k, *v, *o;
} shapes[] = {
    {"a2 s5 q4 d4", "a2 s5 k2 d4", "a2 s5 k2 d4", "a2 s5 q4 d4"},
    {"a2 s5 d4", "a2 s5 d4", "a2 s5 d4", "a2 s5 d4"},
    {"s5 d4", "s5 d4", "s5 d4", "s5 d4"},
    {"a1 s300 q4 d20", "a1 s300 k2 d20", "a1 s300 k2 d20", "a1 s300 q4 d20"},
    {"a2 s257 q3 d33", "a2 s257 d33", "a2 s257 d33", "a2 s257 q3 d33"},
    {"a2 h3 s90 d16", "a2 h3 s90 d16", "a2 h3 s90 d16", "a2 h3 s90 d16"},
    {"q4 a2 d16 s90", "s90 k2 a2 d16", "a2 d16 k2 s90", "q4 a2 d16 s90"},
    {"a2 s90 q4 d16", "a2 s90 k2 d16", "a2 s90 k2 e24", "a2 s90 q4 e24"},
};
Test(custom_attention, forward, .timeout = 1200) {
    for (size_t i = 0; i < WM_LEN(shapes); i++)
        for (int t = 0; t < 2; t++)
            attend(t ? DT_F32 : DT_F64, shapes[i].q, shapes[i].k, shapes[i].v, shapes[i].o, false);
}
Test(custom_attention, backward, .timeout = 1200) {
    for (size_t i = 0; i < WM_LEN(shapes); i++)
        for (int t = 0; t < 2; t++)
            attend(t ? DT_F32 : DT_F64, shapes[i].q, shapes[i].k, shapes[i].v, shapes[i].o, true);
}

/* Gradients that nothing reads have no memory. */
static void attend_part(DType dt, uint32_t wanted) {
    Case c;
    case_open(&c, dt);
    CASE_GUARD(&c);
    if (dt == DT_F32) c.tol = 1e-4;
    ValueId in[6] = {case_real(&c, shapes[0].q), case_real(&c, shapes[0].k), case_real(&c, shapes[0].v)};
    in[5] = case_real(&c, shapes[0].o);
    Attr at[2] = {at_dim(case_dim(&c, "s")), at_dim(case_dim(&c, "d"))};
    ValueId r = build(c.g, OP_attention, in, 3, at, 2);
    in[3] = r;
    in[4] = b_out(c.g, r, 1);
    ValueId d = build(c.g, OP_attention_grad, in, 6, at, 2);
    for (uint32_t i = 0; i < 3; i++)
        if (i != wanted) c.unwanted[c.nunwanted++] = (ValueId){d.i + i};
    case_check(&c, case_node(&c, r), "attention_grad, one result");
    case_close(&c);
}
Test(custom_attention, parts, .timeout = 1200) {
    for (uint32_t i = 0; i < 3; i++) attend_part(DT_F64, i);
}
