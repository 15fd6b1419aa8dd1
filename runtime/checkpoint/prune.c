/* prune.c: removes old checkpoints and what dead runs left, and nothing else.
 *
 * A checkpoint is recognised by three things that agree: the name, the step in a manifest whose hash fits,
 * and a listing that holds exactly the manifest's files. It first gets a temporary name, so that a fault
 * leaves no half of one. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Arena *a;
    const char **name;
    uint32_t n, cap;
    bool failed;
} Names;

static bool on_name(void *ctx, const char *name) {
    Names *l = ctx;
    GROW(l->a, l->name, l->n, l->cap);
    const char *copy = arena_str(l->a, name, strlen(name));
    l->failed = l->failed || l->n >= l->cap || !copy;
    if (!l->failed) l->name[l->n++] = copy;
    return !l->failed;
}

static bool list_names(Env *env, Arena *a, const char *dir, Names *l, Diags *d) {
    int err = 0;
    *l = (Names){.a = a};
    if (dir && env->list(env, dir, on_name, l, &err) < 0)
        return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, dir), errno_text(err));
    return (dir && !l->failed) || diag_fail(d, R006, NOLOC, "no memory to list a directory");
}

/* Removes a directory that holds plain files only; one with anything else in it stays as it is. */
bool remove_flat(Env *env, Arena *a, const char *dir, Diags *d) {
    Names l;
    EnvStat st;
    int err = 0;
    if (!list_names(env, a, dir, &l, d)) return false;
    for (uint32_t i = 0; i < l.n; i++) {
        const char *path = join(a, dir, l.name[i]);
        if (!path || env->lstat(env, path, &st, &err) < 0 || !st.is_file || st.is_link)
            return diag_fail(d, R001, NOLOC, "%s: not removed: '%s' in it is not a file of a checkpoint",
                             shown(d, dir), shown(d, l.name[i]));
    }
    for (uint32_t i = 0; i < l.n; i++) {
        const char *path = join(a, dir, l.name[i]);
        if (!path || env->unlink(env, path, &err) < 0)
            return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, dir), errno_text(err));
    }
    return env->rmdir(env, dir, &err) == 0 ||
           diag_fail(d, R001, NOLOC, "%s: %s", shown(d, dir), errno_text(err));
}

/* step-NNNNNN.tmp-RRRRRRRRRRRRRRRR of a run that is not ours. */
static bool left_behind(Arena *a, const char *name, const char *ours) {
    const char *dot = strstr(name, ".tmp-");
    int64_t step;
    if (!dot || strlen(dot + 5) != 16 || strspn(dot + 5, "0123456789abcdef") != 16) return false;
    const char *base = arena_str(a, name, (size_t)(dot - name));
    return base && step_name(base, &step) && strcmp(dot + 5, ours);
}

/* NAME.tmp-PID: what an atomic write of one of the run's own files left when its process was killed. */
static bool half_written(const char *name) {
    static const char *const of[] = {"owner.json", "run.json", "config.yaml",
                                     "graph.wg",   "F.plan",   "metrics.jsonl"};
    for (size_t i = 0; i < WM_LEN(of); i++) {
        size_t n = strlen(of[i]);
        if (strncmp(name, of[i], n) || strncmp(name + n, ".tmp-", 5)) continue;
        const char *pid = name + n + 5;
        return *pid && !pid[strspn(pid, "0123456789")];
    }
    return false;
}

bool ckpt_clean(Env *env, const char *dir, const Owner *o, Diags *d) {
    Names l;
    EnvStat st;
    int err = 0;
    Arena *a = arena_open(env, NULL);
    bool ok = a ? list_names(env, a, dir, &l, d) : diag_fail(d, R006, NOLOC, "no memory to clean %s", dir);
    for (uint32_t i = 0; ok && i < l.n; i++) {
        const char *path = join(a, dir, l.name[i]);
        if (path && half_written(l.name[i]) && env->lstat(env, path, &st, &err) == 0 && st.is_file)
            (void)env->unlink(env, path, &err); /* harmless if it stays */
        if (!left_behind(a, l.name[i], owner_run_id(o))) continue;
        if (path && env->lstat(env, path, &st, &err) == 0 && st.is_dir) ok = remove_flat(env, a, path, d);
    }
    arena_close(a);
    return ok;
}

/* Whether dir/name is a whole checkpoint that was made here, and its step. Silent: what it is not is no
 * error. */
static bool recognised(Env *env, Arena *a, const char *dir, const char *name, int64_t *step) {
    Manifest m;
    Names l;
    Diags *quiet = diags_open(env);
    const char *path = join(a, dir, name);
    bool ok = quiet && path && step_name(name, step) && manifest_read(env, a, path, &m, quiet) &&
              m.step == *step && list_names(env, a, path, &l, quiet) && l.n == m.n + 1;
    for (uint32_t i = 0; ok && i < m.n; i++) {
        bool found = false;
        for (uint32_t k = 0; !found && k < l.n; k++) found = !strcmp(m.file[i].name, l.name[k]);
        ok = found;
    }
    if (quiet) diags_close(quiet);
    return ok;
}

static int by_step(const void *x, const void *y) {
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return a < b ? -1 : a > b;
}

static bool remove_step(Env *env, Arena *a, const char *dir, const Owner *o, int64_t step, Diags *d) {
    int err = 0;
    const char *path = arena_fmt(a, "%s/step-%06lld", dir, (long long)step);
    const char *gone = arena_fmt(a, "%s/step-%06lld.tmp-%s", dir, (long long)step, owner_run_id(o));
    if (!path || !gone) return diag_fail(d, R006, NOLOC, "no memory to prune %s", dir);
    if (env->rename(env, path, gone, &err) < 0 || env->fsync_dir(env, dir, &err) < 0)
        return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, path), errno_text(err));
    return remove_flat(env, a, gone, d);
}

bool ckpt_prune(Env *env, const char *dir, Owner *o, int64_t limit, int64_t best_step, int64_t final_step,
                Diags *d) {
    Names l;
    uint32_t n = 0;
    if (limit <= 0) return true;
    if (!owner_still_ours(o, d)) return false;
    Arena *a = arena_open(env, NULL);
    bool ok = a ? list_names(env, a, dir, &l, d) : diag_fail(d, R006, NOLOC, "no memory to prune %s", dir);
    int64_t *step = ok ? NEWN(a, int64_t, l.n + 1) : NULL;
    if (ok && !step) ok = diag_fail(d, R006, NOLOC, "no memory to prune %s", dir);
    for (uint32_t i = 0; ok && i < l.n; i++) n += recognised(env, a, dir, l.name[i], &step[n]);
    if (n) qsort(step, n, sizeof *step, by_step);
    int64_t left = n;
    for (uint32_t i = 0; ok && i + 2 < n && left > limit; i++) {
        if (step[i] == best_step || step[i] == final_step) continue;
        ok = remove_step(env, a, dir, o, step[i], d);
        left--;
    }
    arena_close(a);
    return ok;
}
