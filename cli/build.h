/* build.h: from a .wg file to a plan with its kernels: the one place that joins frontend, passes and codegen.
 */
#ifndef WM_BUILD_H
#define WM_BUILD_H

#include "codegen/codegen.h"
#include "frontend/frontend.h"
#include "passes/passes.h"
#include "runtime/runtime.h"

typedef struct {
    const char *file;          /* the .wg file */
    int64_t micro, batch, seq; /* of a training step */
    int64_t val_micro;         /* micro-batches of the validation set; 0: no validation program */
    const Setting *hyper;
    uint32_t nhyper;
    const ModelSource *model;
    uint32_t nmodel;
    const char *const *want;
    uint32_t nwant;
    const char *const *path;
    uint32_t npath; /* where modules are looked for after the file's own folders */
    const char *const *no_warn;
    uint32_t nno_warn;
    const char *const *warn;
    uint32_t nwarn;
    bool werror, assume_sizes;
    PassOptions pass; /* off_* switches, real, dumps */
    /* called with the graph of each phase before the passes; may change its optimizer rows. NULL: nothing */
    bool (*edit)(void *ctx, Graph *g, Diags *d);
    void *ctx;
    const char *const *option;
    uint32_t noption; /* "key=value" that the plan remembers */
    const char *config_hash;
} BuildOptions;

typedef struct {
    GraphInfo info;
    Graph *math, *train, *val; /* before and after the passes */
    Plan plan;
    KernelSource *source; /* one per plan.kernel */
} Build;

/* Lowers, runs the passes and emits the plan. Must run under a guard: `a` is an arena with one. */
bool build_plan(Arena *a, const BuildOptions *o, Build *b, Diags *d);

/* The kernels of a build, compiled or out of the cache. */
typedef struct {
    Toolchain toolchain;
    Cache *cache;
    KernelFn *fn;
    CacheStats stats;
} Kernels;
bool kernels_get(Arena *a, const Plan *plan, const KernelSource *source, Kernels *k, Diags *d);
void kernels_close(Kernels *k);

/* Derives plan and sources again from the IR inside a parsed plan. Another text than the plan's own is P001.
 */
bool build_from_plan(Arena *a, const Plan *plan, const char *file, Build *b, Diags *d);

#endif
