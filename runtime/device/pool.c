/* pool.c: the threads of a rank. The caller is thread 0; the others wait for work by spinning a little and
 * then sleeping, so that short kernels cost about a microsecond and an idle pool costs nothing. A kernel has
 * as many parts as there are threads. Each thread takes its own part first (its data is in that core's
 * cache), then any that is left, so a thread that the system holds back delays nobody. What a part computes
 * depends on the shape alone. */
#include "runtime/runtime.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SPINS = 3000, MAX_THREADS = 256 };

typedef struct {
    Pool *pool;
    int part;
} Worker;
struct Pool {
    Env *env;
    int threads;
    EnvThread *thread[MAX_THREADS];
    Worker worker[MAX_THREADS];
    KernelFnRt fn;
    void *const *args;
    atomic_uint round; /* raised by the caller: there is work, or `stop` */
    atomic_int left;   /* parts that are not done yet */
    atomic_bool
        taken[MAX_THREADS]; /* by part; cleared after fn and args are set, so who takes a part sees them */
    atomic_int sleepers;    /* workers in (or on their way to) the condition variable */
    atomic_bool caller_sleeps;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* A sleeper announces itself before it looks again, the waker raises the round before it looks for sleepers:
 * under sequential consistency one of the two sees the other. */
static void wait_for_round(Pool *p, unsigned seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->round) != seen) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->round) == seen) pthread_cond_wait(&p->work, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void wake_workers(Pool *p) {
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleepers) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static void wait_for_parts(Pool *p) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->left) == 0) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_sleeps, true);
    while (atomic_load(&p->left) != 0) pthread_cond_wait(&p->done, &p->lock);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->lock);
}

/* A worker that comes late finds all parts taken, or those of the next kernel: both are right. */
static void run_parts(Pool *p, int first) {
    for (int k = 0; k < p->threads; k++) {
        int part = first + k < p->threads ? first + k : first + k - p->threads;
        if (atomic_load(&p->taken[part]) || atomic_exchange(&p->taken[part], true)) continue;
        p->fn(p->args, part, p->threads);
        if (atomic_fetch_sub(&p->left, 1) != 1 || !atomic_load(&p->caller_sleeps)) continue;
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
}

static void worker_main(void *ctx) {
    Worker *w = ctx;
    Pool *p = w->pool;
    for (unsigned seen = 0;;) {
        wait_for_round(p, seen);
        seen = atomic_load(&p->round);
        if (atomic_load(&p->stop)) return;
        run_parts(p, w->part);
    }
}

/* A pool of `threads` (0: one for each core). NULL: R006 without memory, R005 if the system refuses a thread.
 */
Pool *pool_open(Env *env, int threads, Diags *d) {
    int cores = env->cpu_count(env);
    int n = threads > 0 ? threads : cores;
    if (n > MAX_THREADS) n = MAX_THREADS;
    Pool *p = env->alloc(env, sizeof *p);
    if (!p) {
        diag_add(d, R006, NOLOC, "out of memory: %zu bytes for the threads were refused", sizeof *p);
        return NULL;
    }
    p->env = env;
    p->threads = n;
    for (int i = 0; i < n; i++) atomic_store(&p->taken[i], true);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    for (int i = 1; i < n; i++) {
        int err = 0;
        p->worker[i] = (Worker){p, i};
        p->thread[i] = env->thread_start(env, worker_main, &p->worker[i], n <= cores ? i : -1, &err);
        if (p->thread[i]) continue;
        diag_add(d, R005, NOLOC, "thread %d of %d could not be started: %s", i + 1, n, errno_text(err));
        p->threads = i;
        pool_close(p);
        return NULL;
    }
    return p;
}

void pool_close(Pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    wake_workers(p);
    for (int i = 1; i < p->threads; i++) p->env->thread_join(p->env, p->thread[i]);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    p->env->free(p->env, p);
}

int pool_threads(const Pool *p) {
    return p->threads;
}

void pool_run(Pool *p, KernelFnRt fn, void *const *args) {
    if (p->threads == 1) {
        fn(args, 0, 1);
        return;
    }
    p->fn = fn;
    p->args = args;
    atomic_store(&p->left, p->threads);
    for (int i = 0; i < p->threads; i++) atomic_store(&p->taken[i], false);
    wake_workers(p);
    run_parts(p, 0);
    wait_for_parts(p);
}
