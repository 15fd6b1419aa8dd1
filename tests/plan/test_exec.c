/* The executor on a plan made by hand: the canonical sum against the recursive tree, threads, checks, states.
 */
#include "plan_test.h"

#include <criterion/criterion.h>
#include <math.h>

static float value(int64_t m, int i) {
    return 0.1f + 3.7f * (float)(m % 5) - 1.3f * (float)i + 1e6f * (float)(m & 1);
}

static float tree(int64_t from, int64_t n,
                  int i) { /* D8: the left part is the largest power of two below n */
    if (n == 1) return hand_leaf(value(from, i), from);
    int64_t left = tree_split((uint32_t)n);
    return tree(from, left, i) + tree(from + left, n - left, i);
}

static void fill(Exec *e, int64_t micro) {
    for (int64_t m = 0; m < micro; m++) {
        float *x = exec_input(e, 0, "x", m);
        cr_assert_not_null(x);
        for (int i = 0; i < HAND_N; i++) x[i] = value(m, i);
    }
}

static void sums(int threads) {
    KernelFnRt fn = hand_kernel;
    for (int64_t micro = 1; micro <= 17; micro++) {
        Env *env = env_posix();
        Diags *d = diags_open(env);
        Arena *a = arena_open(env, NULL);
        Plan *p = hand_plan(a, micro);
        cr_assert(plan_check(p, "hand", d));
        Device *dev = device_cpu(env, threads, d);
        Exec *e = exec_open(env, p, &fn, dev, 7, d);
        cr_assert_not_null(e);
        cr_assert_null(exec_input(e, 0, "x", micro));
        for (int step = 0; step < 2; step++) {
            fill(e, micro);
            cr_assert(exec_step(e, exec_program(e, "train"), step, 2, d));
            const void *out;
            cr_assert_not_null(exec_output(e, 0, "value", "sum", &out));
            const float *w = exec_state_ptr(e, 0);
            for (int i = 0; i < HAND_N; i++) {
                float want = tree(0, micro, i);
                cr_assert(memcmp((const float *)out + i, &want, 4) == 0, "G %d: %a, not %a", (int)micro,
                          ((const float *)out)[i], want);
                cr_assert(memcmp(w + i, &want, 4) == 0);
            }
        }
        exec_close(e);
        dev->close(dev);
        arena_close(a);
        diags_close(d);
    }
}

Test(exec, canonical_sum) {
    sums(1);
}
Test(exec, canonical_sum_on_three_threads) {
    sums(3);
}

Test(exec, a_check_that_fails_leaves_the_state) {
    KernelFnRt fn = hand_kernel;
    Env *env = env_posix();
    Diags *d = diags_open(env);
    Arena *a = arena_open(env, NULL);
    Plan *p = hand_plan(a, 3);
    Device *dev = device_cpu(env, 1, d);
    Exec *e = exec_open(env, p, &fn, dev, 7, d);
    fill(e, 3);
    cr_assert(exec_step(e, 0, 0, 2, d));
    float before[HAND_N];
    memcpy(before, exec_state_ptr(e, 0), sizeof before);
    float *x = exec_input(e, 0, "x", 1);
    x[0] = NAN;
    cr_assert_not(exec_step(e, 0, 1, 2, d));
    cr_assert_eq(diags_exit(d), EXIT_NONFINITE);
    cr_assert(memcmp(before, exec_state_ptr(e, 0), sizeof before) == 0);
    exec_close(e);
    dev->close(dev);
    arena_close(a);
    diags_close(d);
}

typedef struct {
    int parts[8];
    int64_t sum;
} Count;
static void count_parts(void *const *p, int part, int nparts) {
    Count *c = p[0];
    c->parts[part]++;
    if (part == 0) c->sum += nparts;
}
Test(exec, every_part_runs_once_for_each_launch) {
    Diags *d = diags_open(env_posix());
    Pool *pool = pool_open(env_posix(), 4, d);
    cr_assert_eq(pool_threads(pool), 4);
    Count c = {{0}, 0};
    void *args[1] = {&c};
    for (int i = 0; i < 2000; i++) pool_run(pool, count_parts, args);
    for (int i = 0; i < 4; i++) cr_assert_eq(c.parts[i], 2000);
    cr_assert_eq(c.sum, 8000);
    pool_close(pool);
    diags_close(d);
}
