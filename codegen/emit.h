/* emit.h: private to codegen/. What a node or a fusion group becomes: a sequence of launches.
 *
 * A launch is one generated function over a list of addresses. Source text depends on op kinds, dtypes, local
 * sizes and strides alone: no ids, names, paths, comments or addresses, so equal layers share a kernel.
 * Everything in it is `static` but the entry `void k(void *const *p, int part, int nparts)`. A source holds
 * its own helpers (mathlib pieces, vector types): no headers. A kernel splits its work into pieces whose
 * shape alone decides what is in them; piece i belongs to part i % nparts (or to a contiguous range of
 * pieces): any number of parts gives the same bits. Launches run one after the other; within one launch there
 * is no barrier between parts. */
#ifndef WM_EMIT_H
#define WM_EMIT_H

#include "codegen/codegen.h"

typedef struct {
    const char *source;
    size_t len;
    const char *what; /* one line for people: "gemm avx512 14x2 kc=384", "fused 12 nodes" */
    PlanAddr *arg;
    int64_t *arg_bytes;
    uint32_t narg, nwrite; /* written arguments come last */
    NodeId node;
} Launch;

typedef struct {
    Arena *a;
    const Graph *g; /* ST_PLANNED */
    CpuLevel level;
    Diags *d;
    Launch *launch;
    uint32_t nlaunch, cap;
} Emit;

/* Address of a value (its arena, offset, stride) and of a node's scratch. Buffers are 64-byte aligned, but
 * the pieces of a value that keeps all micro-batches lie close together: only the first is. A value written
 * may lie on an operand that the same nodes read at the same element alone (the next value of a parameter on
 * the parameter): no `restrict`. A `const` that only element-wise nodes and reductions read has no memory:
 * print it into the expression (c_const). */
PlanAddr emit_value(const Emit *e, ValueId v);
bool emit_has_memory(const Emit *e, ValueId v);
PlanAddr emit_scratch(const Emit *e, const Node *n, int64_t off);
/* Address of a number that the runtime gives (f64): "step", "seed", "micro" (the running micro-batch's
 * index). For kernels that draw random numbers: localize gives every graph that draws these leaves. */
PlanAddr emit_scalar(Emit *e, const char *name);
/* Element strides of value v along each of the dims of `order`; 0 where v lacks the dim (broadcast). */
void emit_strides(const Emit *e, ValueId v, const DimId *order, uint32_t n, int64_t *stride);
/* Appends a launch; arrays are copied. */
Launch *emit_launch(Emit *e, NodeId node, const char *what, const Sbuf *source, const PlanAddr *arg,
                    const int64_t *arg_bytes, uint32_t narg, uint32_t nwrite);

/* group.c: nodes first .. first + count - 1 of one fusion group (or a single EW, REDUCE node). */
bool emit_group(Emit *e, NodeId first, uint32_t count);
/* custom.c: every other node. Dispatch by a table indexed by op, one row per op that it can emit. */
bool emit_custom(Emit *e, NodeId n);
/* mathlib.c: the text of the functions that `names` uses for dtype dt ("exp_f32" ..): definitions in
 * dependency order, plain branch-free C that the compiler can vectorise, the same bits under gcc and clang.
 */
void mathlib_put(Sbuf *out, DType dt, const char *const *names, uint32_t n);
/* expr.c: prints the expr column of an element-wise op with x0 x1 x2 replaced by the given texts and IR
 * functions by those of the dtype; collects the function names used. */
void expr_put(Sbuf *out, const char *expr, DType dt, const char *const x[3], const char **used,
              uint32_t *nused);
const char *c_type(DType dt);                /* double float unsigned short int unsigned char */
void c_const(Sbuf *out, DType dt, double v); /* hex float with suffix; NaN and Inf by builtin */

#endif
