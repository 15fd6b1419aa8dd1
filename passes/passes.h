/* passes.h: ST_MATH to ST_PLANNED. A pass is a row of the table in run.c: name, stage in and out, exact or
 * re-associating, pure function, help. After each: stage check and verifier; on request parse(print(g)) == g
 * and the evaluator on both graphs. */
#ifndef WM_PASSES_H
#define WM_PASSES_H

#include "ir/ir.h"

typedef struct {
    DType real;      /* DT_F32 or DT_F64: dtype of computation */
    bool keep_grads; /* results of kind grad for each trained parameter (tests, replay) */
    bool off_simplify, off_linear_ce, off_classes, off_fuse, off_schedule, off_memplan;
    const char *stop_after; /* name of a pass, or NULL */
    bool check_roundtrip, check_eval;
    /* called after each pass (index in the pipeline, name, graph); for --dump-ir and --dump-dir. May be NULL.
     */
    void (*after)(void *ctx, int index, const char *pass, const Graph *before, const Graph *after);
    void *ctx;
} PassOptions;

typedef Graph *(*PassFn)(Arena *a, const Graph *g, const PassOptions *o, Diags *d);
typedef struct {
    const char *name;
    Stage in, out;
    bool exact;      /* keeps bits; else re-associates (1e-10 in f64) */
    bool train_only; /* skipped for phase val */
    PassFn fn;
    const char *help;
} Pass;
extern const Pass pass_table[];
extern const int npass;
const Pass *pass_find(const char *name);

/* The whole pipeline, or from the graph's own stage on. NULL with diagnostics. */
Graph *passes_run(Arena *a, const Graph *g, const PassOptions *o, Diags *d);

/* The passes, in order. Contracts: docs/passes.md. */
Graph *pass_simplify(Arena *a, const Graph *g, const PassOptions *o,
                     Diags *d); /* simplify.c:  MATH -> MATH */
Graph *pass_linear_ce(Arena *a, const Graph *g, const PassOptions *o,
                      Diags *d); /* linear_ce.c: MATH -> MATH */
Graph *pass_precision(Arena *a, const Graph *g, const PassOptions *o,
                      Diags *d); /* precision.c: MATH -> MATH */
Graph *pass_autodiff(Arena *a, const Graph *g, const PassOptions *o,
                     Diags *d); /* autodiff.c:  MATH -> TRAIN (classes: deferred factors) */
Graph *pass_optim(Arena *a, const Graph *g, const PassOptions *o, Diags *d); /* optim.c:     TRAIN -> TRAIN */
Graph *pass_micro(Arena *a, const Graph *g, const PassOptions *o, Diags *d); /* micro.c:     TRAIN -> TRAIN */
Graph *pass_form(Arena *a, const Graph *g, const PassOptions *o,
                 Diags *d); /* form.c:      TRAIN -> TRAIN (form B where provable) */
Graph *pass_localize(Arena *a, const Graph *g, const PassOptions *o,
                     Diags *d);                                             /* localize.c:  TRAIN -> LOCAL */
Graph *pass_fuse(Arena *a, const Graph *g, const PassOptions *o, Diags *d); /* fuse.c:      LOCAL -> LOCAL */
Graph *pass_schedule(Arena *a, const Graph *g, const PassOptions *o,
                     Diags *d); /* schedule.c:  LOCAL -> SCHEDULED */
Graph *pass_memplan(Arena *a, const Graph *g, const PassOptions *o,
                    Diags *d); /* memplan.c:   SCHEDULED -> PLANNED */

/* Gradients for tests: d(result `loss`)/d(each param) appended as results of kind grad. */
Graph *passes_gradient(Arena *a, const Graph *g, Diags *d);

/* localize.c. Section of each node, see docs/passes.md: odd sections run once per micro-batch, even ones
 * once. */
uint32_t graph_sections(const Graph *g); /* number of sections (highest + 1) of a localized graph */

#endif
