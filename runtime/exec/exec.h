/* exec.h: private to runtime/: what an executor holds. Everything is made by exec_open; a step allocates
 * nothing. */
#ifndef WM_EXEC_H
#define WM_EXEC_H

#include "runtime/runtime.h"

typedef struct {
    PlanAddr at;
    uint32_t arg;
} ExecMoving; /* an argument whose address follows the micro-batch */
typedef struct {
    const ExecMoving *moving;
    uint32_t nmoving;
} ExecSection;
typedef struct {
    const ExecSection *section;
} ExecProgram;

struct Exec {
    Env *env;
    const Plan *plan;
    const KernelFnRt *kernel;
    Device *dev;
    uint64_t seed;
    char *base[NARENA];
    int64_t *kernel_bytes; /* of all arguments of a kernel together */
    void *
        *arg; /* one pointer for each Plan.addr; those of a moving argument are set before each micro-batch */
    ExecSection *section; /* of all programs, in order */
    ExecMoving *moving;
    ExecProgram *program;
    const volatile int *stop; /* exec_stop */
    int64_t *profile_ns;      /* exec_profile: one number for each instruction of the plan */
};

static inline int64_t plan_dtype_bytes(PlanDType t) {
    static const int64_t bytes[5] = {8, 4, 2, 4, 1};
    return bytes[t];
}
/* Partial sums beside the sum itself: the stack of G leaves is floor(log2 G) deep, the sum is its lowest. */
static inline uint32_t accum_extra(int64_t micro) {
    uint32_t n = 0;
    while (micro >> (n + 2)) n++;
    return n;
}

#endif
