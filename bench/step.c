/* step.c: where the time of a training step goes: the launches of a plan, one thread, summed by what they
 * are. wmtpc compile graphs/baseline.wg -c configs/tiny.yaml -o tiny.plan ninja -C build bench_step &&
 * build/bench/bench_step tiny.plan Parameters and inputs are random numbers; only the training program is
 * run, once to warm and then three times. */
#include "cli/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* other work on the machine does not count */
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fill_states(const Plan *p, char *base[NARENA]) {
    for (uint32_t i = 0; i < p->nstate; i++) {
        int64_t n = 1;
        for (uint32_t k = 0; k < p->state[i].ndim; k++) n *= p->state[i].size[k];
        float *x = (float *)(void *)(base[ARENA_STATE] + p->state[i].off);
        bool zero = strcmp(p->state[i].role, "param") != 0;
        for (int64_t k = 0; k < n && p->state[i].dtype == PD_F32; k++)
            x[k] = zero ? 0 : (float)rand() / (float)RAND_MAX * 0.08f - 0.04f;
    }
}

/* Before each step: the memory of an input serves other values once it has been read. */
static void fill_inputs(const Plan *p, char *base[NARENA]) {
    const PlanProgram *t = &p->program[0];
    for (uint32_t i = 0; i < t->ninput; i++) {
        const PlanInput *in = &t->input[i];
        int64_t n = strcmp(in->kind, "scalar") ? t->micro : 1;
        for (uint32_t k = 0; k < in->ndim; k++) n *= in->size[k];
        char *x = base[in->at.arena] + in->at.off;
        for (int64_t k = 0; k < n; k++) {
            if (in->dtype == PD_I32) ((int32_t *)(void *)x)[k] = rand() % 500;
            if (in->dtype == PD_BOOL) x[k] = 1;
            if (in->dtype == PD_F64) ((double *)(void *)x)[k] = strcmp(in->name, "steps") ? 1 : 100;
            if (in->dtype == PD_F32) ((float *)(void *)x)[k] = (float)rand() / (float)RAND_MAX;
        }
    }
}

/* Runs all sections; adds the seconds of each launch to its kernel's. */
static double step(const Plan *p, const KernelFn *fn, char *base[NARENA], double *time) {
    const PlanProgram *t = &p->program[0];
    double begin = now();
    for (uint32_t s = 0; s < t->nsection; s++) {
        int64_t times = t->section[s].micro ? t->micro : 1;
        for (int64_t m = 0; m < times; m++)
            for (uint32_t i = 0; i < t->section[s].ninstr; i++) {
                const PlanInstr *in = &p->instr[t->section[s].instr0 + i];
                void *arg[64];
                if (in->op != I_LAUNCH) continue;
                for (uint32_t k = 0; k < in->narg; k++) {
                    PlanAddr a = p->addr[in->arg0 + k];
                    arg[k] = base[a.arena] + a.off + a.stride * m;
                }
                double at = now();
                fn[in->kernel](arg, 0, 1);
                time[in->kernel] += now() - at;
            }
    }
    return now() - begin;
}

static void report(const Plan *p, double *time, double total, int runs) {
    uint32_t calls[4096] = {0};
    const PlanProgram *t = &p->program[0];
    for (uint32_t s = 0; s < t->nsection; s++)
        for (uint32_t i = 0; i < t->section[s].ninstr; i++)
            calls[p->instr[t->section[s].instr0 + i].kernel]++;
    printf("one step: %.1f ms\n", total * 1e3);
    for (int shown = 0; shown < 40; shown++) {
        uint32_t at = 0;
        for (uint32_t i = 0; i < p->nkernel; i++)
            if (time[i] > time[at]) at = i;
        if (time[at] <= 0) return;
        printf("%8.2f ms %5.1f %%  %4u x %s\n", time[at] * 1e3 / runs, time[at] / runs / total * 100,
               calls[at], p->kernel[at].what);
        time[at] = 0;
    }
}

static int profile(Arena *a, Diags *d, const char *file) {
    char *text;
    size_t len;
    Build b;
    Kernels k;
    if (!file_read_all(env_posix(), a, file, 1 << 28, &text, &len, d)) return 1;
    Plan *p = plan_parse(a, file, text, len, d);
    if (!p || p->nkernel > 4096 || !build_from_plan(a, p, file, &b, d) ||
        !kernels_get(a, &b.plan, b.source, &k, d))
        return 1;
    char *base[NARENA];
    double *time = NEWN(a, double, p->nkernel), best = 1e9;
    for (int i = 0; i < NARENA; i++) {
        base[i] =
            env_posix()->map(env_posix(), (size_t)p->arena_bytes[i] + 64); /* as in a run: large pages */
        if (!base[i]) return 1;
    }
    fill_states(p, base);
    fill_inputs(p, base);
    step(p, k.fn, base, time);
    memset(time, 0, p->nkernel * sizeof *time);
    for (int r = 0; r < 3; r++) {
        fill_inputs(p, base);
        double t = step(p, k.fn, base, time);
        if (t < best) best = t;
    }
    report(p, time, best, 3);
    kernels_close(&k);
    return 0;
}

int main(int argc, char **argv) {
    Diags *d = diags_open(env_posix());
    Guard guard = {.diags = d};
    Arena *a = arena_open(env_posix(), &guard);
    if (setjmp(guard.out) == 0 && argc == 2) profile(a, d, argv[1]);
    Sbuf s;
    sb_init(&s, a);
    diags_render(d, &s, false);
    printf("%s", s.s ? s.s : argc == 2 ? "" : "usage: bench_step F.plan\n");
    return diags_exit(d);
}
