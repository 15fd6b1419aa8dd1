/* A plan made by hand: one input x[n] for each micro-batch; leaf = x * x + micro; its canonical sum; a check;
 * the state w takes the sum. Kernels are C functions of the test. */
#ifndef PLAN_TEST_H
#define PLAN_TEST_H

#include "runtime/runtime.h"

#include <string.h>

enum { HAND_N = 5 };

static inline PlanInstr hand_instr(Plan *p, PlanOp op, const PlanAddr *at, uint32_t n) {
    PlanInstr in = {.op = op, .dtype = PD_F32, .count = HAND_N, .arg0 = p->naddr, .narg = n};
    for (uint32_t i = 0; i < n; i++) p->addr[p->naddr++] = at[i];
    return in;
}

static inline Plan *hand_plan(Arena *a, int64_t micro) {
    Plan *p = NEW(a, Plan);
    *p = (Plan){.built = WM_VERSION,
                .graph_name = "by \"hand\"\n",
                .graph_hash = "g",
                .config_hash = "c",
                .real = PD_F32,
                .batch = 1,
                .seq = HAND_N,
                .arena_bytes = {64, 4096}};
    p->addr = NEWN(a, PlanAddr, 32);
    p->instr = NEWN(a, PlanInstr, 8);
    p->state = NEW(a, PlanState);
    p->nstate = 1;
    p->state[0] = (PlanState){.model = "m",
                              .name = "w",
                              .hf = "w.hf",
                              .axes = "n",
                              .halves = "",
                              .role = "param",
                              .init = "const:1",
                              .trained = true,
                              .dtype = PD_F32,
                              .ndim = 1,
                              .dim = {"n"},
                              .size = {HAND_N}};
    p->kernel = NEW(a, PlanKernel);
    p->nkernel = 1;
    p->kernel[0] =
        (PlanKernel){.key = "0123456789abcdef0123456789abcdef", .what = "square", .narg = 3, .nwrite = 1};
    p->kernel[0].arg_bytes = arena_copy(a, (int64_t[]){4 * HAND_N, 8, 4 * HAND_N}, 3 * sizeof(int64_t));
    p->program = NEW(a, PlanProgram);
    p->nprogram = 1;
    PlanProgram *r = p->program;
    *r = (PlanProgram){.name = "train", .micro = micro, .work_bytes = 4096, .ir = "no ir\n", .flops = 1.5};
    r->note = arena_copy(a, (const char *[]){"a note"}, sizeof(char *));
    r->nnote = 1;
    PlanAddr x = {1, 1024, 4 * HAND_N}, index = {1, 0, 0}, leaf = {1, 64, 0}, sum = {1, 128, 0},
             levels = {1, 256, 0};
    PlanAddr state = {0, 0, 0};
    r->input = NEWN(a, PlanInput, 2);
    r->ninput = 2;
    r->input[0] = (PlanInput){
        .kind = "data", .name = "x", .dtype = PD_F32, .ndim = 1, .dim = {"n"}, .size = {HAND_N}, .at = x};
    r->input[1] = (PlanInput){.kind = "scalar", .name = "micro", .dtype = PD_F64, .at = index};
    r->output = NEWN(a, PlanOutput, 1);
    r->noutput = 1;
    r->output[0] = (PlanOutput){.kind = "value",
                                .name = "sum",
                                .dtype = PD_F32,
                                .ndim = 1,
                                .dim = {"n"},
                                .size = {HAND_N},
                                .at = sum};
    r->section = NEWN(a, PlanSection, 3);
    r->nsection = 3;
    if (micro == 1) leaf = sum;
    r->section[1] = (PlanSection){true, 0, micro == 1 ? 1u : 2u};
    p->instr[p->ninstr++] = hand_instr(p, I_LAUNCH, (PlanAddr[]){x, index, leaf}, 3);
    p->instr[0].count = 0;
    if (micro > 1)
        p->instr[p->ninstr++] = hand_instr(p, I_ACCUM, (PlanAddr[]){sum, leaf, levels}, micro > 3 ? 3 : 2);
    r->section[2] = (PlanSection){false, p->ninstr, 2};
    p->instr[p->ninstr] = hand_instr(p, I_CHECK, &sum, 1);
    p->instr[p->ninstr].name = "the sum";
    p->instr[p->ninstr++].count = 1;
    p->instr[p->ninstr++] = hand_instr(p, I_COPY, (PlanAddr[]){state, sum}, 2);
    plan_hash(a, p);
    return p;
}

static inline float hand_leaf(float x, int64_t micro) {
    return x * x + (float)micro;
}

static inline void hand_kernel(void *const *p, int part, int nparts) {
    const float *x = p[0];
    const double *micro = p[1];
    float *out = p[2];
    for (int i = part; i < HAND_N; i += nparts) out[i] = hand_leaf(x[i], (int64_t)*micro);
}

#endif
