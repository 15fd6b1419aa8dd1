/* kern.h: private to codegen/custom/. A launch under construction: source text and arguments.
 *
 * Templates are C text made by TEXT(..): written as code, put into the source as it stands. What differs from
 * node to node (sizes, strides, offsets) comes before it as `#define` lines with literals, so a template is
 * read like C. */
#ifndef WM_KERN_H
#define WM_KERN_H

#include "codegen/emit.h"
#include "ir/workspace.h"

#define TEXT(...) #__VA_ARGS__ "\n"
enum { KERN_ARGS = 24 };

typedef struct {
    Emit *e;
    const Graph *g;
    NodeId id;
    const Node *n;
    Sbuf src;
    PlanAddr arg[KERN_ARGS];
    int64_t bytes[KERN_ARGS];
    uint32_t narg, nwrite;
} Kern;

void kern_open(Kern *k, Emit *e, NodeId id);
/* Arguments; the result is the index in p[]. All reads come before the first write. */
uint32_t kern_read(Kern *k, ValueId v);
uint32_t kern_write(Kern *k, ValueId v);
/* A result that nothing reads has no memory: the argument is then `other`, which the text must not touch. */
uint32_t kern_write_wanted(Kern *k, ValueId v, PlanAddr other);
uint32_t kern_read_at(Kern *k, PlanAddr at, int64_t bytes);
uint32_t kern_write_at(Kern *k, PlanAddr at, int64_t bytes);
uint32_t kern_read_part(Kern *k, ValueId v, int64_t first,
                        int64_t count); /* elements first .. first + count - 1 */
uint32_t kern_write_part(Kern *k, ValueId v, int64_t first, int64_t count);
void kern_int(Kern *k, const char *name, int64_t v); /* #define NAME 12L */
void kern_real(Kern *k, const char *name, DType dt, double v);
void kern_type(Kern *k, const char *name, DType dt); /* typedef float NAME; */
void kern_text(Kern *k, const char *text);
void kern_line(Kern *k, const char *fmt, ...) WM_PRINTF(2, 3);
/* Functions of mathlib that the text uses by the names EXP and LOG. */
void kern_math(Kern *k, DType dt, const char *const *names, uint32_t n);
void kern_close(Kern *k, const char *what);

/* Operands and results of the node. */
ValueId kern_in(const Kern *k, uint32_t i);
ValueId kern_out(const Kern *k, uint32_t i);
const Type *kern_ty(const Kern *k, ValueId v);
int64_t kern_size(const Kern *k, DimId d);
bool kern_wanted(const Kern *k, ValueId v); /* it has memory */
/* Element stride of dim d in the row-major layout of v; 0 when it lacks it. */
int64_t kern_stride(const Kern *k, ValueId v, DimId d);
/* Text of sum_i (var / (product of later sizes) % size_i) * stride_i: the offset of flat index `var`. */
void kern_offset(Sbuf *out, const char *var, const int64_t *size, const int64_t *stride, uint32_t n);
/* `static inline long NAME(long r)`: the offset of flat index r over dims d, in elements of v. */
void kern_offset_fn(Kern *k, const char *name, ValueId v, const DimId *d, uint32_t n);
/* Index of dim d (position at of n) in flat index var, as text. */
void kern_coord(Sbuf *out, const char *var, const int64_t *size, uint32_t n, uint32_t at);
/* True when the logical value has `micro` in front of the dims of t: random numbers count through the
 * micro-batches. */
bool kern_has_micro(const Kern *k, const Type *t);

/* Register tiles: T, VV, VU, L, MR, NR, BC, FMA and g_tile. gemm_define prints the macros, gemm_text the
 * functions. */
void gemm_define(Kern *k, DType dt);
int gemm_rows(const Emit *e);           /* MR */
int gemm_cols(const Emit *e, DType dt); /* NR */
/* One `static void NAME(const T *A, const T *B, T *C, long m, long kk, long t0, long t1, long j0, long j1,
 * int first)`: tiles t0..t1 of MR rows times panels j0..j1 of NR columns. */
typedef struct {
    const char *name;
    int64_t am, ak;         /* strides of A */
    int64_t bk;             /* row stride of B in place; 0: panels of NR columns, kk rows each */
    int64_t cm;             /* row stride of C */
    int64_t m_tail, n_tail; /* rows and columns of the last tile; 0: whole */
    int64_t n_panels;       /* of the whole product */
    int64_t kc;             /* 0: by default */
} GemmBlock;
void gemm_block(Kern *k, DType dt, const GemmBlock *b);
/* `static void NAME(const T *B, T *P, long j0, long j1)`: panels j0..j1 of B(k, n) into P[panel][rows][NR],
 * zeros beyond kk rows and n columns. Once a source. */
void gemm_pack(Kern *k, DType dt, const char *name, int64_t kk, int64_t rows, int64_t n, int64_t sk,
               int64_t sn);

extern const char kern_philox_text[]; /* philox(key, block, step, stream, out) and unit(word) */

/* One function per op, all bool (Emit *e, NodeId id). */
/* clang-format off */
#define CUSTOM_OPS(X) \
    X(matmul) X(linear_ce) X(linear_ce_grad) X(linear_ce_fb) X(linear_kl) X(linear_kl_grad) X(attention) \
    X(attention_grad) X(gather) X(scatter_add) X(shift) X(shift_grad) X(select) X(place) X(stack) \
    X(transpose) X(rope) X(iota) X(tensor) X(uniform) X(normal) X(rope_table) X(quantile) X(argmax) \
    X(first) X(last) X(cumsum) X(scan) X(scan_grad) X(shuffle) X(micro_slice) X(micro_stack)
/* clang-format on */
#define X(op) bool custom_##op(Emit *e, NodeId id);
CUSTOM_OPS(X)
#undef X
bool custom_const(Emit *e, NodeId id);

#endif
