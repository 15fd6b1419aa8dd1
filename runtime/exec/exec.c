/* exec.c: opens a plan on a device: arenas, the pointer of every argument, inputs and outputs by name. */
#include "runtime/exec/exec.h"

#include <math.h>
#include <string.h>

static void *at(const Exec *e, PlanAddr p, int64_t micro) {
    return e->base[p.arena] + p.off + p.stride * micro;
}

/* Fills the pointer of every argument and, for each section of a program, the list of those that move. */
static void bind_args(Exec *e) {
    const Plan *p = e->plan;
    uint32_t nsection = 0, nmoving = 0;
    for (uint32_t i = 0; i < p->naddr; i++) e->arg[i] = at(e, p->addr[i], 0);
    for (uint32_t i = 0; i < p->nkernel; i++)
        for (uint32_t k = 0; k < p->kernel[i].narg; k++) e->kernel_bytes[i] += p->kernel[i].arg_bytes[k];
    for (uint32_t i = 0; i < p->nprogram; i++) {
        const PlanProgram *pr = &p->program[i];
        e->program[i].section = &e->section[nsection];
        for (uint32_t s = 0; s < pr->nsection; s++) {
            const PlanSection *ps = &pr->section[s];
            ExecSection *es = &e->section[nsection++];
            es->moving = &e->moving[nmoving];
            for (uint32_t k = ps->instr0; ps->micro && k < ps->instr0 + ps->ninstr; k++)
                for (uint32_t j = p->instr[k].arg0; j < p->instr[k].arg0 + p->instr[k].narg; j++)
                    if (p->addr[j].stride) e->moving[nmoving++] = (ExecMoving){p->addr[j], j};
            es->nmoving = (uint32_t)(&e->moving[nmoving] - es->moving);
        }
    }
}

static bool take_memory(Exec *e, Diags *d) {
    const Plan *p = e->plan;
    Env *env = e->env;
    size_t nsection = 0;
    for (uint32_t i = 0; i < p->nprogram; i++) nsection += p->program[i].nsection;
    e->arg = env->alloc(env, (p->naddr + (size_t)1) * sizeof *e->arg);
    e->moving = env->alloc(env, (p->naddr + (size_t)1) * sizeof *e->moving);
    e->section = env->alloc(env, (nsection + 1) * sizeof *e->section);
    e->program = env->alloc(env, (p->nprogram + (size_t)1) * sizeof *e->program);
    e->kernel_bytes = env->alloc(env, (p->nkernel + (size_t)1) * sizeof *e->kernel_bytes);
    if (!e->arg || !e->kernel_bytes || !e->moving || !e->section || !e->program)
        return diag_fail(d, R006, NOLOC, "out of memory: the tables of the executor were refused");
    static const char *const what[NARENA] = {"states (parameters and moments)", "activations and gradients"};
    for (int i = 0; i < NARENA; i++) {
        if (!p->arena_bytes[i]) continue;
        e->base[i] = e->dev->arena_open(e->dev, p->arena_bytes[i]);
        if (!e->base[i])
            return diag_fail(d, R006, NOLOC, "out of memory: %lld bytes for %s were refused",
                             (long long)p->arena_bytes[i], what[i]);
    }
    return true;
}

Exec *exec_open(Env *env, const Plan *plan, const KernelFnRt *kernel, Device *dev, uint64_t seed, Diags *d) {
    if (seed > (uint64_t)1 << 53) { /* kernels get it as a double */
        diag_add(d, R007, NOLOC, "the seed is %llu; at most 2^53", (unsigned long long)seed);
        return NULL;
    }
    Exec *e = env->alloc(env, sizeof *e);
    if (!e) {
        diag_add(d, R006, NOLOC, "out of memory: %zu bytes were refused", sizeof *e);
        return NULL;
    }
    *e = (Exec){.env = env, .plan = plan, .kernel = kernel, .dev = dev, .seed = seed};
    if (!take_memory(e, d)) {
        exec_close(e);
        return NULL;
    }
    bind_args(e);
    return e;
}

void exec_close(Exec *e) {
    if (!e) return;
    for (int i = 0; i < NARENA; i++)
        if (e->base[i]) e->dev->arena_close(e->dev, e->base[i], e->plan->arena_bytes[i]);
    e->env->free(e->env, e->program);
    e->env->free(e->env, e->section);
    e->env->free(e->env, e->moving);
    e->env->free(e->env, e->kernel_bytes);
    e->env->free(e->env, e->arg);
    e->env->free(e->env, e);
}

const Plan *exec_plan(const Exec *e) {
    return e->plan;
}

uint64_t exec_seed(const Exec *e) {
    return e->seed;
}

void *exec_state_ptr(Exec *e, uint32_t row) {
    return e->base[ARENA_STATE] + e->plan->state[row].off;
}

void exec_share(Exec *e, KernelFnRt fn, void *const *args, int64_t bytes) {
    e->dev->launch(e->dev, fn, args, bytes);
}

int exec_program(const Exec *e, const char *name) {
    for (uint32_t i = 0; i < e->plan->nprogram; i++)
        if (strcmp(e->plan->program[i].name, name) == 0) return (int)i;
    return -1;
}

void *exec_input(Exec *e, int program, const char *name, int64_t micro) {
    const PlanProgram *p = &e->plan->program[program];
    for (uint32_t i = 0; i < p->ninput; i++)
        if (strcmp(p->input[i].kind, "data") == 0 && strcmp(p->input[i].name, name) == 0)
            return micro >= 0 && micro < p->micro ? at(e, p->input[i].at, micro) : NULL;
    return NULL;
}

const PlanOutput *exec_output(Exec *e, int program, const char *kind, const char *name, const void **data) {
    const PlanProgram *p = &e->plan->program[program];
    for (uint32_t i = 0; i < p->noutput; i++) {
        if (strcmp(p->output[i].kind, kind) != 0 || strcmp(p->output[i].name, name) != 0) continue;
        *data = at(e, p->output[i].at, 0);
        return &p->output[i];
    }
    return NULL;
}

double exec_number(Exec *e, int program, const char *kind, const char *name) {
    const void *p;
    const PlanOutput *o = exec_output(e, program, kind, name, &p);
    if (!o || o->ndim) return NAN;
    double v;
    float f;
    int32_t i;
    unsigned char b;
    if (o->dtype == PD_F64) return memcpy(&v, p, sizeof v), v;
    if (o->dtype == PD_F32) return memcpy(&f, p, sizeof f), (double)f;
    if (o->dtype == PD_I32) return memcpy(&i, p, sizeof i), (double)i;
    if (o->dtype == PD_BOOL) return memcpy(&b, p, sizeof b), (double)b;
    return NAN;
}
