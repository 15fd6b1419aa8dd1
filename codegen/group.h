/* group.h: private to group.c and emit_c.c: a fusion group as one loop nest. */
#ifndef WM_GROUP_H
#define WM_GROUP_H

#include "codegen/emit.h"

enum { LANES = 16 };

typedef enum { IT_CONST, IT_LOAD, IT_EW, IT_REDUCE } ItemKind;

/* One value of the group or one that it reads. Its C name is t<index>; in a column nest r<index>[c] outside
 * the loops. */
typedef struct {
    ItemKind kind;
    DType dt;
    ValueId v;
    Op op;
    double value;                 /* IT_CONST */
    uint32_t in[3], nin;          /* items */
    int32_t arg_in, arg_out;      /* kernel argument that holds it, -1: none */
    int64_t stride[MAX_DIMS + 1]; /* elements, along the loops, where it lies in memory */
    bool inner, vec;              /* changes along an inner loop; along the vector loop */
    bool full;                    /* by type: an output over all loops, else over the outer ones */
    uint8_t level;                /* how many reductions lie before it */
} Item;

/* Outer loops are split over parts; inner ones are reduced (or, without reductions, the last loop alone).
 * Loop nouter + ninner - 1 is the vector loop, but in a column nest it is the last outer one. */
typedef struct {
    Item *item;
    uint32_t nitem;
    int64_t size[MAX_DIMS + 1];
    uint32_t nouter, ninner;
    bool reduces, column;
    uint32_t nloop; /* passes over the inner loops */
    ValueId *arg;   /* read ones first */
    uint32_t narg, nwrite;
    DType *arg_dt;
} Nest;

/* emit_c.c: the kernel's source. */
void nest_print(const Nest *n, CpuLevel level, Sbuf *out);

#endif
