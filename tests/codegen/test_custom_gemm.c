/* matmul in every shape that the kernels tell apart, against the evaluator. */
#include "custom_harness.h"

static void product(DType dt, const char *x, const char *y, const char *over, const char *what) {
    Case c;
    case_open(&c, dt);
    CASE_GUARD(&c);
    ValueId in[2] = {case_real(&c, x), case_real(&c, y)};
    DimId d[MAX_DIMS];
    uint32_t n = case_dims(&c, over, d);
    ValueId r = b_matmul(c.g, in[0], in[1], d, n);
    case_check(&c, case_node(&c, r), what);
    case_close(&c);
}

static const struct {
    const char *x, *y, *over, *what;
} shapes[] = {
    {"a3 k6", "b8 k6", "k6", "small, dot"},
    {"a3 k6", "k6 b9", "k6", "small, columns at once"},
    {"r130 k70", "n96 k70", "k70", "forward: transposed weight, packed"},
    {"r37 k500", "n64 k500", "k500", "tail of rows, two blocks of k"},
    {"r37 k500", "k500 n64", "k500", "right operand in place"},
    {"r37 k20", "k20 n65", "k20", "tail of columns"},
    {"r29 k33", "k33 n35", "k33", "tails everywhere"},
    {"b2 s70 o45", "o45 h50", "o45", "rows from two dims"},
    {"b2 s70 o45", "b2 s70 h50", "b2 s70", "weight gradient: both transposed"},
    {"s70 b2 o45", "b2 s70 h50", "s70 b2", "k in another order: runs of k"},
    {"b3 s20 k30", "b3 k30 n40", "k30", "batched"},
    {"b3 s20 k30", "b3 n40 k30", "k30", "batched, packed"},
    {"s20 b3 k30", "b3 n40 k30", "k30", "batched, batch inside"},
    {"b2 s30 q4 d8", "q4 d8 h48", "q4 d8", "heads contracted"},
    {"b2 s30 h40", "q4 d8 h40", "h40", "heads made"},
    {"q4 b2 s30 h40", "q4 d24 h40", "h40", "batch of heads in front"},
    {"r200 k64", "k64", "k64", "one column"},
    {"r200", "r200 k64", "r200", "one row"},
    {"r200", "k64", "", "outer product"},
    {"k64", "k64", "k64", "one number"},
    {"r10 k300", "n700 k300", "k300", "few rows, many columns"},
    {"r10 k300", "k300 n704", "k300", "few rows, many columns, in place"},
    {"x3 r40 y2 k20", "k20 y2 n32", "k20", "batch between rows"},
    {"r40 j3 k20", "k20 n48 j3", "k20 j3", "k runs that do not join"},
    {"r40 k20", "n3 k20 o40", "k20", "columns in two runs"},
    {"r33 k1024", "n40 k1024", "k1024", "rows a power of two apart"},
};

Test(custom_gemm, f64, .timeout = 1200) {
    for (size_t i = 0; i < WM_LEN(shapes); i++)
        product(DT_F64, shapes[i].x, shapes[i].y, shapes[i].over, shapes[i].what);
}
Test(custom_gemm, f32, .timeout = 1200) {
    for (size_t i = 0; i < WM_LEN(shapes); i++)
        product(DT_F32, shapes[i].x, shapes[i].y, shapes[i].over, shapes[i].what);
}
