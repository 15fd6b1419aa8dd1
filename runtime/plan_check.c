/* plan_check.c: may this plan be run? Every offset lies inside its arena for every micro-batch, every
 * argument is as large as its kernel's row says, no state is written before the checks. Uses nothing but the
 * plan. */
#include "runtime/exec/exec.h"
#include "runtime/plan_words.h"

#include <string.h>

typedef struct {
    const Plan *p;
    const char *file;
    Diags *d;
} Check;

static bool bad(const Check *c, const char *what, int64_t at) {
    return diag_fail(c->d, P001, (Loc){.file = c->file}, "damaged plan: %s (%lld)", what, (long long)at);
}

/* bytes at `at`, for each of `times` micro-batches, lie inside arena and program. */
static bool inside(const Check *c, const PlanProgram *r, PlanAddr at, int64_t bytes, int64_t times) {
    if (at.arena < 0 || at.arena >= NARENA) return bad(c, "no such arena", at.arena);
    wm_size end, walk;
    if (at.off < 0 || at.stride < 0 || bytes < 0 || times < 1)
        return bad(c, "negative offset or size", at.off);
    if (!wm_mul((wm_size)at.stride, (wm_size)(times - 1), &walk) || !wm_add(walk, (wm_size)at.off, &end) ||
        !wm_add(end, (wm_size)bytes, &end))
        return bad(c, "an offset overflows", at.off);
    wm_size limit = (wm_size)c->p->arena_bytes[at.arena];
    if (r && at.arena == ARENA_WORK && (wm_size)r->work_bytes < limit) limit = (wm_size)r->work_bytes;
    if (end > limit) return bad(c, "an address ends behind its arena", at.off);
    return true;
}

static bool count_bytes(const Check *c, PlanDType dt, int64_t count, int64_t *bytes) {
    wm_size n;
    if (count < 0 || !wm_mul((wm_size)count, (wm_size)plan_dtype_bytes(dt), &n) || n > INT64_MAX)
        return bad(c, "a number of elements overflows", count);
    *bytes = (int64_t)n;
    return true;
}
static bool type_bytes(const Check *c, PlanDType dt, uint32_t ndim, const int64_t *size, int64_t *bytes) {
    wm_size n = 1;
    for (uint32_t i = 0; i < ndim; i++)
        if (!wm_mul(n, (wm_size)size[i], &n) || n > (wm_size)1 << 48)
            return bad(c, "a size overflows", size[i]);
    return count_bytes(c, dt, (int64_t)n, bytes);
}

static bool check_launch(const Check *c, const PlanProgram *r, const PlanInstr *in, int64_t times,
                         bool *wrote) {
    if (in->kernel >= c->p->nkernel) return bad(c, "no such kernel", in->kernel);
    const PlanKernel *k = &c->p->kernel[in->kernel];
    if (k->narg != in->narg)
        return bad(c, "a launch with another number of arguments than its kernel", in->kernel);
    for (uint32_t j = 0; j < in->narg; j++) {
        PlanAddr at = c->p->addr[in->arg0 + j];
        if (!inside(c, r, at, k->arg_bytes[j], times)) return false;
        *wrote |= j >= in->narg - k->nwrite && at.arena == ARENA_STATE;
    }
    return true;
}

static bool check_accum(const Check *c, const PlanProgram *r, const PlanInstr *in, int64_t times,
                        int64_t bytes) {
    wm_size levels;
    const PlanAddr *at = &c->p->addr[in->arg0];
    uint32_t extra = accum_extra(times);
    if (times < 2) return bad(c, "accum outside a section of micro-batches, or with one", times);
    if (in->dtype != PD_F64 && in->dtype != PD_F32) return bad(c, "accum sums f64 or f32", in->dtype);
    if (in->narg != (extra ? 3u : 2u))
        return bad(c, "accum takes two arguments, or three with levels", in->narg);
    if (!wm_mul((wm_size)bytes, extra, &levels) || levels > INT64_MAX)
        return bad(c, "levels overflow", bytes);
    if (at[0].stride || (extra && at[2].stride))
        return bad(c, "the sum of all micro-batches moves with them", at[0].off);
    return inside(c, r, at[0], bytes, 1) && inside(c, r, at[1], bytes, times) &&
           (!extra || inside(c, r, at[2], (int64_t)levels, 1));
}

static bool check_instr(const Check *c, const PlanProgram *r, const PlanInstr *in, int64_t times,
                        bool *wrote) {
    int64_t bytes;
    const PlanAddr *at = &c->p->addr[in->arg0];
    if (in->op == I_LAUNCH) return check_launch(c, r, in, times, wrote);
    if (!count_bytes(c, in->dtype, in->count, &bytes)) return false;
    if (in->op == I_ACCUM) {
        *wrote |= at[0].arena == ARENA_STATE;
        return check_accum(c, r, in, times, bytes);
    }
    if (in->narg != (in->op == I_COPY ? 2u : 1u)) return bad(c, "wrong number of arguments", in->narg);
    for (uint32_t j = 0; j < in->narg; j++)
        if (!inside(c, r, at[j], bytes, times)) return false;
    if (in->op != I_CHECK) {
        *wrote |= at[0].arena == ARENA_STATE;
        return true;
    }
    if (in->count != 1 || (in->dtype != PD_F64 && in->dtype != PD_F32))
        return bad(c, "check reads one f64 or f32", in->dtype);
    if (*wrote) return bad(c, "a state is written before the check", at[0].off);
    return true;
}

static bool check_program(const Check *c, const PlanProgram *r) {
    int64_t bytes;
    bool wrote = false;
    if (r->micro < 1 || r->micro > PLAN_MAX_MICRO) return bad(c, "number of micro-batches", r->micro);
    if (r->work_bytes < 0 || r->work_bytes > c->p->arena_bytes[ARENA_WORK])
        return bad(c, "a program needs more than the work arena", r->work_bytes);
    for (uint32_t i = 0; i < r->ninput; i++) {
        const PlanInput *x = &r->input[i];
        bool scalar = strcmp(x->kind, "scalar") == 0;
        if (!scalar && strcmp(x->kind, "data") != 0) return bad(c, "kind of input", i);
        if (scalar && (x->ndim || x->dtype != PD_F64 || x->at.stride))
            return bad(c, "a scalar input is one f64", i);
        if (x->at.arena != ARENA_WORK || x->at.off % (scalar ? 8 : 1))
            return bad(c, "place of an input", x->at.off);
        if (!type_bytes(c, x->dtype, x->ndim, x->size, &bytes) || !inside(c, r, x->at, bytes, r->micro))
            return false;
    }
    for (uint32_t i = 0; i < r->noutput; i++) {
        const PlanOutput *x = &r->output[i];
        if (!type_bytes(c, x->dtype, x->ndim, x->size, &bytes)) return false;
        if (!inside(c, r, x->at, bytes, x->per_micro ? r->micro : 1)) return false;
    }
    for (uint32_t s = 0; s < r->nsection; s++)
        for (uint32_t k = 0; k < r->section[s].ninstr; k++)
            if (!check_instr(c, r, &c->p->instr[r->section[s].instr0 + k], r->section[s].micro ? r->micro : 1,
                             &wrote))
                return false;
    return true;
}

/* A kernel reads and writes whole vectors from its arguments' first byte on. */
static bool check_rows(const Check *c) {
    int64_t bytes;
    for (uint32_t i = 0; i < c->p->nkernel; i++)
        if (c->p->kernel[i].nwrite > c->p->kernel[i].narg)
            return bad(c, "a kernel writes more than its arguments", i);
    for (uint32_t i = 0; i < c->p->nstate; i++) {
        const PlanState *s = &c->p->state[i];
        if (!type_bytes(c, s->dtype, s->ndim, s->size, &bytes)) return false;
        if (s->off % 64) return bad(c, "a state is not aligned", s->off);
        if (!state_axes_ok(s)) return bad(c, "axes or halves of a state do not fit its dims", i);
        if (!inside(c, NULL, (PlanAddr){ARENA_STATE, s->off, 0}, bytes, 1)) return false;
    }
    return true;
}

bool plan_check(const Plan *p, const char *file, Diags *d) {
    Check c = {p, file, d};
    for (int i = 0; i < NARENA; i++)
        if (p->arena_bytes[i] < 0 || p->arena_bytes[i] > (int64_t)1 << 48)
            return bad(&c, "size of an arena", p->arena_bytes[i]);
    if (!check_rows(&c)) return false;
    for (uint32_t i = 0; i < p->nprogram; i++)
        if (!check_program(&c, &p->program[i])) return false;
    return true;
}
