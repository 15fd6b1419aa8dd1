/* codegen.h: ST_PLANNED graphs to a Plan and the C sources of its kernels; the compiler and its cache. */
#ifndef WM_CODEGEN_H
#define WM_CODEGEN_H

#include "ir/ir.h"
#include "runtime/plan.h"

/* Two levels of CPU code; chosen from CPUID, printed in the plan as part of `what`. */
typedef enum { CPU_NONE, CPU_V3, CPU_V4 } CpuLevel;
CpuLevel cpu_level(void);

typedef struct {
    const char *source;
    size_t len;
} KernelSource; /* same rows as Plan.kernel */
typedef struct {
    const Graph *train, *val; /* val may be NULL; both ST_PLANNED */
    CpuLevel level;
    const char *const *option;
    uint32_t noption;
    const char *graph_hash, *config_hash;
    int64_t seq;
} EmitInput;
/* Fills a Plan (hash included) and one source per kernel. Kernel ABI: void k(void *const *p, int part, int
 * nparts); sizes are literals; every part writes its own piece in an order that the shape alone decides. */
bool codegen_emit(Arena *a, const EmitInput *in, Plan *plan, KernelSource **source, Diags *d);

/* The system compiler as a Toolchain: finds cc, gcc or clang on PATH (69 with the package to install if
 * none). */
bool toolchain_cc(Arena *a, Env *env, CpuLevel level, Toolchain *t, Diags *d);

typedef void (*KernelFn)(void *const *p, int part, int nparts);
typedef struct Cache Cache;
typedef struct {
    uint32_t hits, built;
    int64_t build_ns;
} CacheStats;
/* dir NULL: WMTPC_CACHE, $XDG_CACHE_HOME/wmtpc or ~/.cache/wmtpc. 69 if it is unsafe or cannot be written. */
Cache *cache_open(Env *env, const char *dir, Toolchain *t, Diags *d);
void cache_close(Cache *c); /* kernels it loaded are unloaded */
/* One function per source; misses compile together, a few units in parallel. */
bool cache_get(Cache *c, const KernelSource *source, uint32_t n, KernelFn *fn, CacheStats *stats, Diags *d);

#endif
