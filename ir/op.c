/* op.c: the rows of ops.def as the table op_info.
 *
 * The attribute column is a macro, A0 to A9 of (kind, name); the same kind with an O in front is optional.
 * Here the macros make initialisers, everywhere else the column is not looked at. */
#define KIND_INT    AT_INT, false
#define KIND_FLOAT  AT_FLOAT, false
#define KIND_BOOL   AT_BOOL, false
#define KIND_STR    AT_STR, false
#define KIND_DIM    AT_DIM, false
#define KIND_DIMS   AT_DIMS, false
#define KIND_INTS   AT_INTS, false
#define KIND_FLOATS AT_FLOATS, false
#define KIND_DT     AT_DT, false
#define KIND_OINT   AT_INT, true
#define KIND_OFLOAT AT_FLOAT, true
#define KIND_OBOOL  AT_BOOL, true
#define KIND_OSTR   AT_STR, true
#define KIND_ODIM   AT_DIM, true
#define KIND_ODIMS  AT_DIMS, true
#define KIND_OINTS  AT_INTS, true

#include "ir/ir.h"

#include <string.h>

#undef A0
#define R(k, n)                                                                                              \
    { #n, KIND_##k }
#define A0                                                                                                   \
    0, {                                                                                                     \
        { NULL, AT_NONE, false }                                                                             \
    }
#define A1(k0, n0)                                                                                           \
    1, {                                                                                                     \
        R(k0, n0)                                                                                            \
    }
#define A2(k0, n0, k1, n1)                                                                                   \
    2, {                                                                                                     \
        R(k0, n0), R(k1, n1)                                                                                 \
    }
#define A3(k0, n0, k1, n1, k2, n2)                                                                           \
    3, {                                                                                                     \
        R(k0, n0), R(k1, n1), R(k2, n2)                                                                      \
    }
#define A4(k0, n0, k1, n1, k2, n2, k3, n3)                                                                   \
    4, {                                                                                                     \
        R(k0, n0), R(k1, n1), R(k2, n2), R(k3, n3)                                                           \
    }
#define A5(k0, n0, k1, n1, k2, n2, k3, n3, k4, n4)                                                           \
    5, {                                                                                                     \
        R(k0, n0), R(k1, n1), R(k2, n2), R(k3, n3), R(k4, n4)                                                \
    }
#define A9(k0, n0, k1, n1, k2, n2, k3, n3, k4, n4, k5, n5, k6, n6, k7, n7, k8, n8)                           \
    9, {                                                                                                     \
        R(k0, n0), R(k1, n1), R(k2, n2), R(k3, n3), R(k4, n4), R(k5, n5), R(k6, n6), R(k7, n7), R(k8, n8)    \
    }

const OpInfo op_info[NOP] = {
#define OP(name, nin, nout, flags, attrs, rule, kind, expr, ref, vjp, cost, sample, doc)                     \
    [OP_##name] = {#name, nin, nout, flags, attrs, rule, K_##kind, #expr, #ref, #vjp, #cost, sample, doc},
#include "ir/ops.def"
#undef OP
};

const char *const dtype_name[NDTYPE] = {"f64", "f32", "bf16", "i32", "bool"};
const int dtype_bytes[NDTYPE] = {8, 4, 2, 4, 1};
const char *const stage_name[NSTAGE] = {"math",  "train",     "sharded", "collective",
                                        "local", "scheduled", "planned"};

bool op_find(const char *name, Op *op) {
    for (int k = 0; k < NOP; k++) {
        if (strcmp(op_info[k].name, name) == 0) {
            *op = (Op)k;
            return true;
        }
    }
    return false;
}
