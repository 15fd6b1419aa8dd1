/* cpu.c: the device `cpu`. Arenas are mapped pages, a launch is a call on all threads of the pool; copies,
 * zeroes and sums of large arrays are shared out in pieces of a fixed length, so that the number of threads
 * changes no bit. */
#include "runtime/runtime.h"

#include <string.h>

enum { SHARE_BYTES = 1 << 15 }; /* below this, waking the other threads costs more than it gives */

typedef struct {
    Device dev; /* first: Device.self is this struct */
    Env *env;
    Pool *pool;
} Cpu;
typedef struct {
    PlanDType dt;
    int64_t count;
} Shape;

static void piece(int64_t count, int part, int nparts, int64_t *from, int64_t *to) {
    int64_t step = (count + nparts - 1) / nparts;
    step = (step + 63) & ~(int64_t)63;
    *from = step * part < count ? step * part : count;
    *to = *from + step < count ? *from + step : count;
}

static void sum_part(void *const *p, int part, int nparts) {
    const Shape *s = p[3];
    int64_t from, to;
    piece(s->count, part, nparts, &from, &to);
    if (s->dt == PD_F64) {
        double *dst = p[0];
        const double *left = p[1], *right = p[2];
        for (int64_t i = from; i < to; i++) dst[i] = left[i] + right[i];
    } else {
        float *dst = p[0];
        const float *left = p[1], *right = p[2];
        for (int64_t i = from; i < to; i++) dst[i] = left[i] + right[i];
    }
}
static void copy_part(void *const *p, int part, int nparts) {
    const Shape *s = p[2];
    int64_t from, to;
    piece(s->count, part, nparts, &from, &to);
    if (from < to) memmove((char *)p[0] + from, (const char *)p[1] + from, (size_t)(to - from));
}
static void zero_part(void *const *p, int part, int nparts) {
    const Shape *s = p[1];
    int64_t from, to;
    piece(s->count, part, nparts, &from, &to);
    if (from < to) memset((char *)p[0] + from, 0, (size_t)(to - from));
}
static void share(Cpu *c, KernelFnRt fn, void *const *args, int64_t bytes) {
    if (bytes < SHARE_BYTES)
        fn(args, 0, 1);
    else
        pool_run(c->pool, fn, args);
}

static void *cpu_arena_open(Device *dev, int64_t bytes) {
    Cpu *c = dev->self;
    return c->env->map(c->env, (size_t)bytes);
}
static void cpu_arena_close(Device *dev, void *p, int64_t bytes) {
    Cpu *c = dev->self;
    if (p) c->env->unmap(c->env, p, (size_t)bytes);
}
static void cpu_copy(Device *dev, void *dst, const void *src, int64_t bytes) {
    Shape s = {PD_BOOL, bytes};
    union {
        const void *in;
        void *out;
    } from = {src};
    void *args[3] = {dst, from.out, &s};
    share(dev->self, copy_part, args, bytes);
}
static void cpu_transfer(Device *dev, void *dst, const void *src, int64_t bytes) {
    (void)dev;
    memcpy(dst, src, (size_t)bytes);
}
static void cpu_zero(Device *dev, void *dst, int64_t bytes) {
    Shape s = {PD_BOOL, bytes};
    void *args[2] = {dst, &s};
    share(dev->self, zero_part, args, bytes);
}
static void cpu_launch(Device *dev, KernelFnRt fn, void *const *args, int64_t bytes) {
    share(dev->self, fn, args, bytes);
}
static void cpu_accum(Device *dev, PlanDType dt, void *dst, const void *left, const void *right,
                      int64_t count) {
    Shape s = {dt, count};
    union {
        const void *in;
        void *out;
    } l = {left}, r = {right};
    void *args[4] = {dst, l.out, r.out, &s};
    share(dev->self, sum_part, args, count * (dt == PD_F64 ? 8 : 4));
}
static bool cpu_sync(Device *dev, Diags *d) {
    (void)dev;
    (void)d;
    return true;
}
static void cpu_close(Device *dev) {
    Cpu *c = dev->self;
    pool_close(c->pool);
    c->env->free(c->env, c);
}

/* The processor as a device with `threads` threads (0: one for each core). NULL with a diagnostic. */
Device *device_cpu(Env *env, int threads, Diags *d) {
    Cpu *c = env->alloc(env, sizeof *c);
    if (!c) {
        diag_add(d, R006, NOLOC, "out of memory: %zu bytes were refused", sizeof *c);
        return NULL;
    }
    c->env = env;
    c->pool = pool_open(env, threads, d);
    if (!c->pool) {
        env->free(env, c);
        return NULL;
    }
    c->dev = (Device){c,        "cpu",    cpu_arena_open, cpu_arena_close, cpu_transfer, cpu_transfer,
                      cpu_zero, cpu_copy, cpu_launch,     cpu_accum,       cpu_sync,     cpu_close};
    return &c->dev;
}
