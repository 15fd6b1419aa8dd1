/* file.c: whole files over Env: reading with a limit, writing so that a reader sees the old or the new file.
 */
#include "base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const char *errno_text(int err) {
    return strerrordesc_np(err) ? strerrordesc_np(err) : "unknown error";
}

bool write_full(Env *env, int fd, const void *p, size_t n, int *err) {
    const char *s = p;
    while (n) {
        int64_t k = env->write(env, fd, s, n, err);
        if (k < 0 && *err == EINTR) continue;
        if (k <= 0) {
            if (k == 0) *err = EIO;
            return false;
        }
        s += k;
        n -= (size_t)k;
    }
    return true;
}

static bool read_full(Env *env, int fd, char *p, size_t n, size_t *got, int *err) {
    *got = 0;
    while (*got < n) {
        int64_t k = env->read(env, fd, p + *got, n - *got, err);
        if (k < 0 && *err == EINTR) continue;
        if (k < 0) return false;
        if (k == 0) break;
        *got += (size_t)k;
    }
    return true;
}

static bool read_open(Env *env, Arena *a, int fd, const char *path, wm_size max, char **text, size_t *len,
                      Diags *d) {
    EnvStat st;
    int err = 0;
    if (env->fstat(env, fd, &st, &err) < 0) return diag_fail(d, R001, NOLOC, "%s: %s", path, errno_text(err));
    if (!st.is_file) return diag_fail(d, D001, NOLOC, "%s: not a regular file", path);
    if ((wm_size)st.size > max)
        return diag_fail(d, D001, NOLOC, "%s: %lld bytes, at most %llu are read", path, (long long)st.size,
                         (unsigned long long)max);
    char *s = arena_alloc(a, (wm_size)st.size + 1);
    if (!s) return diag_fail(d, R006, NOLOC, "%s: no memory for %lld bytes", path, (long long)st.size);
    if (!read_full(env, fd, s, (size_t)st.size, len, &err))
        return diag_fail(d, R001, NOLOC, "%s: %s", path, errno_text(err));
    s[*len] = 0;
    *text = s;
    return true;
}

bool file_read_all(Env *env, Arena *a, const char *path, wm_size max, char **text, size_t *len, Diags *d) {
    int err = 0;
    int fd = env->open_read(env, path, &err);
    if (fd < 0) {
        bool gone = err == ENOENT || err == ENOTDIR;
        return diag_fail(d, gone ? D002 : R001, NOLOC, "%s: %s", path, errno_text(err));
    }
    bool ok = read_open(env, a, fd, path, max, text, len, d);
    env->close(env, fd, &err);
    return ok;
}

/* Parent folder of a path, "." without one. */
static void parent_of(const char *path, char *out, size_t cap) {
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (!slash)
        snprintf(out, cap, ".");
    else if (n == 0)
        snprintf(out, cap, "/");
    else
        snprintf(out, cap, "%.*s", (int)n, path);
}

bool file_write_atomic(Env *env, const char *path, const void *p, size_t n, Diags *d) {
    char tmp[4096], dir[4096];
    int err = 0, ignored;
    int len = snprintf(tmp, sizeof tmp, "%s.tmp-%lld", path, (long long)env->pid(env));
    if (len < 0 || (size_t)len >= sizeof tmp)
        return diag_fail(d, R001, NOLOC, "%s: the path is too long", path);
    parent_of(path, dir, sizeof dir);
    int fd = env->open_new(env, tmp, 0644, &err);
    if (fd < 0 && err == EEXIST && env->unlink(env, tmp, &ignored) == 0)
        fd = env->open_new(env, tmp, 0644, &err);
    if (fd < 0) return diag_fail(d, R001, NOLOC, "%s: %s", tmp, errno_text(err));
    bool ok = write_full(env, fd, p, n, &err) && env->fsync(env, fd, &err) == 0;
    int close_err = 0;
    if (env->close(env, fd, &close_err) < 0 && ok) {
        ok = false;
        err = close_err;
    }
    ok = ok && env->rename(env, tmp, path, &err) == 0 && env->fsync_dir(env, dir, &err) == 0;
    if (ok) return true;
    env->unlink(env, tmp, &ignored);
    return diag_fail(d, R001, NOLOC, "%s: %s", path, errno_text(err));
}

bool path_make_dirs(Env *env, const char *path, Diags *d) {
    char part[4096];
    size_t n = strlen(path);
    if (n >= sizeof part) return diag_fail(d, R001, NOLOC, "the path is too long: %zu bytes", n);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        int err = 0;
        EnvStat st;
        if (env->mkdir(env, part, 0777, &err) == 0) continue;
        bool there = err == EEXIST && env->stat(env, part, &st, &err) == 0;
        if (there && st.is_dir) continue;
        if (there)
            return diag_fail(d, R001, NOLOC, "%s: there is a file of that name, a directory is needed", part);
        return diag_fail(d, R001, NOLOC, "%s: %s", part, errno_text(err));
    }
    return true;
}
