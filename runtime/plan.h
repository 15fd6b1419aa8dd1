/* plan.h: the schema of a plan. Types (and the hash over them): codegen fills a Plan, runtime prints, parses,
 * checks and runs it. A plan holds no code: a kernel is named by the hash of its source, codegen derives the
 * source from the IR inside. */
#ifndef WM_PLAN_H
#define WM_PLAN_H

#include "base/base.h"

enum { PLAN_MAX_DIMS = 8, ARENA_STATE = 0, ARENA_WORK = 1, NARENA = 2 };
typedef enum { PD_F64, PD_F32, PD_BF16, PD_I32, PD_BOOL } PlanDType; /* same order as ir's DType */

/* Where an argument lies: arena + off + stride * (index of the running micro-batch). */
typedef struct {
    int32_t arena;
    int64_t off, stride;
} PlanAddr;

typedef enum {
    I_LAUNCH, /* kernel `kernel` over args; runs on all threads of the rank */
    I_ACCUM,  /* once per micro-batch: leaf args[1] joins the canonical sum args[0], which stands there after
                 the last one.  A stack of floor(log2 G) partial sums: the lowest is args[0], the others are
                 arrays of `count` elements  one after the other at args[2] (absent when there is none). f64
                 and  f32 only. Not used with G = 1 */
    I_COPY,   /* args[0] = args[1], `count` elements */
    I_ZERO,   /* args[0] = 0 */
    I_CHECK   /* args[0]: one real; not finite: the step ends here, before any state changed (79). `name` is
                 what it is */
} PlanOp;
extern const char *const plan_op_name[5];

typedef struct {
    PlanOp op;
    PlanDType dtype;
    int64_t count;       /* elements (I_ACCUM, I_COPY, I_ZERO) */
    uint32_t kernel;     /* I_LAUNCH: row of Plan.kernel */
    uint32_t arg0, narg; /* Plan.addr[arg0 ..] */
    const char *name;    /* I_CHECK; else NULL */
    uint32_t node;       /* node of the ir it came from, for messages and traces */
} PlanInstr;

typedef struct {
    bool micro;
    uint32_t instr0, ninstr;
} PlanSection;

/* What the executor fills before a step. kind data: `name` is an input of the graph, all micro-batches at
 * addr (stride apart). kind scalar: step, steps, seed (f64, once), micro (f64, before each micro-batch). */
typedef struct {
    const char *kind, *name;
    PlanDType dtype;
    uint32_t ndim;
    const char *dim[PLAN_MAX_DIMS];
    int64_t size[PLAN_MAX_DIMS]; /* of one micro-batch: without micro */
    PlanAddr at;
} PlanInput;

/* What the executor hands out after a step: results of kind loss, total, metric, value, grad, grad_norm, lr,
 * check. */
typedef struct {
    const char *kind, *name;
    PlanDType dtype;
    bool per_micro; /* one piece per micro-batch, at.stride apart */
    uint32_t ndim;
    const char *dim[PLAN_MAX_DIMS];
    int64_t size[PLAN_MAX_DIMS];
    PlanAddr at;
} PlanOutput;

typedef struct {
    const char *name; /* "train", "val" */
    int64_t micro;    /* G of this program */
    PlanSection *section;
    uint32_t nsection;
    PlanInput *input;
    uint32_t ninput;
    PlanOutput *output;
    uint32_t noutput;
    const char *ir;     /* text of the ST_PLANNED graph, verbatim */
    int64_t work_bytes; /* what this program needs of the work arena */
    double flops;       /* of one step */
    const char **note;
    uint32_t nnote;
} PlanProgram;

/* One row of what outlives a step. Memory order is that of `dim`; a file holds the axes. */
typedef struct {
    const char *model, *name; /* "policy", "layers.0.attention.wq.weight"; user states: "", NAME */
    const char *hf;           /* second name */
    const char *axes;         /* "(qh,hd),hidden" */
    const char *halves;       /* "", "hf=hd" or "meta=hd" */
    const char *role;         /* param, exp_avg, exp_avg_sq, momentum, user */
    const char *init;         /* normal:M,S uniform:LO,HI const:V */
    uint32_t stream;
    bool trained;
    PlanDType dtype;
    uint32_t ndim;
    const char *dim[PLAN_MAX_DIMS];
    int64_t size[PLAN_MAX_DIMS];
    int64_t off; /* in ARENA_STATE */
} PlanState;

typedef struct {
    char key[33];     /* XXH3-128 of the source */
    const char *what; /* "gemm avx512 14x2 kc=384", "fused 12 nodes": one line for people */
    uint32_t narg;
    int64_t *arg_bytes; /* least size of each argument */
    uint32_t nwrite;    /* the last nwrite arguments are written */
} PlanKernel;

typedef struct {
    char hash[33];     /* of all below */
    const char *built; /* version of wmtpc */
    const char *graph_name, *graph_hash, *config_hash;
    PlanDType real;
    int64_t batch, seq;
    int64_t arena_bytes[NARENA];
    PlanState *state;
    uint32_t nstate;
    PlanKernel *kernel;
    uint32_t nkernel;
    PlanInstr *instr;
    uint32_t ninstr;
    PlanAddr *addr;
    uint32_t naddr;
    PlanProgram *program;
    uint32_t nprogram;
    const char **option;
    uint32_t noption; /* "key=value" of configuration keys that shaped the plan */
} Plan;

void plan_hash(Arena *a, Plan *p); /* sets p->hash from the text of the rest (runtime/plan_text.c) */

#endif
