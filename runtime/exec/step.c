/* step.c: one step: the instructions of a program, section by section; odd sections once for each
 * micro-batch.
 *
 * The canonical sum is a stack of partial sums, one for each bit of the number of leaves so far, the longest
 * lowest. A leaf joins as many of them as a binary counter carries, the last leaf all of them, each time the
 * longer one on the left: exactly the tree that splits at the largest power of two below its length. */
#include "runtime/exec/exec.h"

#include <math.h>
#include <string.h>

typedef struct {
    Exec *e;
    const PlanProgram *p;
    int64_t micro;
    Diags *d;
} Step;

static double *scalar_at(Step *s, const PlanInput *in) {
    return (double *)(void *)(s->e->base[in->at.arena] + in->at.off);
}

static void set_scalars(Step *s, const char *name, double v) {
    for (uint32_t i = 0; i < s->p->ninput; i++) {
        const PlanInput *in = &s->p->input[i];
        if (strcmp(in->kind, "scalar") == 0 && strcmp(in->name, name) == 0) *scalar_at(s, in) = v;
    }
}

static void accumulate(Step *s, const PlanInstr *in) {
    Device *dev = s->e->dev;
    void **arg = &s->e->arg[in->arg0];
    int64_t bytes = in->count * plan_dtype_bytes(in->dtype);
    uint32_t depth = (uint32_t)__builtin_popcountll((uint64_t)s->micro), joins = 0;
    while (s->micro >> joins & 1) joins++;
    if (s->micro + 1 == s->p->micro) joins = depth;
    char *sum = arg[0], *above = in->narg > 2 ? arg[2] : NULL;
    const char *cur = arg[1];
    for (uint32_t k = 0; k < joins; k++) {
        uint32_t top = depth - 1 - k;
        char *left = top ? above + bytes * (top - 1) : sum;
        dev->accum(dev, in->dtype, left, left, cur, in->count);
        cur = left;
    }
    if (!joins) dev->copy(dev, depth ? above + bytes * (depth - 1) : sum, cur, bytes);
}

static bool check(Step *s, const PlanInstr *in) {
    const void *p = s->e->arg[in->arg0];
    double v;
    float f;
    if (in->dtype == PD_F64) {
        memcpy(&v, p, sizeof v);
    } else {
        memcpy(&f, p, sizeof f);
        v = (double)f;
    }
    if (isfinite(v)) return true;
    Diag *g = diag_add(s->d, R003, NOLOC, "%s is %s", in->name, isnan(v) ? "not a number" : "infinite");
    diag_help(s->d, g, "the step was not applied: parameters and states are as before it");
    return false;
}

static bool run_instr(Step *s, const PlanInstr *in) {
    Exec *e = s->e;
    Device *dev = e->dev;
    void **arg = &e->arg[in->arg0];
    int64_t bytes = in->count * plan_dtype_bytes(in->dtype);
    switch (in->op) {
    case I_LAUNCH:
        dev->launch(dev, e->kernel[in->kernel], arg, e->kernel_bytes[in->kernel]);
        return true;
    case I_ACCUM:
        accumulate(s, in);
        return true;
    case I_COPY:
        dev->copy(dev, arg[0], arg[1], bytes);
        return true;
    case I_ZERO:
        dev->zero(dev, arg[0], bytes);
        return true;
    case I_CHECK:
        return check(s, in);
    }
    return false;
}

static bool run_section(Step *s, uint32_t index, int64_t times) {
    Exec *e = s->e;
    const PlanSection *sec = &s->p->section[index];
    const ExecSection *es = &e->program[s->p - e->plan->program].section[index];
    for (s->micro = 0; s->micro < times; s->micro++) {
        if (sec->micro) set_scalars(s, "micro", (double)s->micro);
        for (uint32_t i = 0; i < es->nmoving; i++) {
            const ExecMoving *m = &es->moving[i];
            e->arg[m->arg] = e->base[m->at.arena] + m->at.off + m->at.stride * s->micro;
        }
        if (e->stop && *e->stop && strcmp(s->p->name, "train") != 0) return false;
        for (uint32_t i = 0; i < sec->ninstr; i++) {
            int64_t t0 = e->profile_ns ? e->env->now_ns(e->env) : 0;
            if (!run_instr(s, &e->plan->instr[sec->instr0 + i])) return false;
            if (e->profile_ns) e->profile_ns[sec->instr0 + i] += e->env->now_ns(e->env) - t0;
        }
    }
    return true;
}

void exec_stop(Exec *e, const volatile int *stop) {
    e->stop = stop;
}
void exec_profile(Exec *e, int64_t *ns) {
    e->profile_ns = ns;
}

bool exec_step(Exec *e, int program, int64_t step, int64_t steps, Diags *d) {
    Step s = {e, &e->plan->program[program], 0, d};
    set_scalars(&s, "step", (double)step);
    set_scalars(&s, "steps", (double)steps);
    set_scalars(&s, "seed", (double)e->seed);
    for (uint32_t i = 0; i < s.p->nsection; i++)
        if (!run_section(&s, i, s.p->section[i].micro ? s.p->micro : 1)) return false;
    return e->dev->sync(e->dev, d);
}
