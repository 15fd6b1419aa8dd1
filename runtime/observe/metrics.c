/* metrics.c: the log of a run. A line whose step lies beyond the checkpoint a run resumes from is cut off, so
 * that the file reads as if the run had never stopped. */
#include "runtime/train.h"

#include <stdio.h>
#include <string.h>

struct Metrics {
    Env *env;
    int fd;
    const char *path;
    Arena *a;
};

/* Bytes of the whole lines at the head of the file whose "step" is at most `step`. */
static size_t keep_bytes(const char *text, size_t len, int64_t step, const char *path, Diags *d) {
    size_t keep = 0;
    for (size_t i = 0; i < len;) {
        const char *nl = memchr(text + i, '\n', len - i);
        if (!nl) break;
        size_t end = (size_t)(nl - text);
        Json *j = json_parse(text + i, end - i, path, 1, 16, d, D001);
        const Json *s = j ? json_get(j, "step") : NULL;
        bool ours = s && json_kind(s) == J_INT && json_int(s) <= step;
        json_free(j);
        if (!ours) break;
        keep = i = end + 1;
    }
    return keep;
}

static bool cut(Metrics *m, int64_t step, Diags *d) {
    char *text;
    size_t len;
    int err = 0;
    Diags *quiet = diags_open(m->env); /* a damaged tail is expected after a crash: it is cut, not reported */
    bool ok = quiet && file_read_all(m->env, m->a, m->path, (wm_size)4 << 30, &text, &len, d);
    if (ok) {
        size_t keep = keep_bytes(text, len, step, m->path, quiet);
        if (keep < len && m->env->truncate(m->env, m->fd, (int64_t)keep, &err) < 0)
            ok = diag_fail(d, R001, NOLOC, "%s: %s", m->path, errno_text(err));
    }
    diags_close(quiet);
    return ok;
}

Metrics *metrics_open(Env *env, const char *dir, int64_t step, Diags *d) {
    Arena *a = arena_open(env, NULL);
    Metrics *m = a ? NEW(a, Metrics) : NULL;
    int err = 0;
    if (!m) {
        diag_add(d, R006, NOLOC, "out of memory");
        arena_close(a);
        return NULL;
    }
    *m = (Metrics){.env = env, .fd = -1, .path = arena_fmt(a, "%s/metrics.jsonl", dir), .a = a};
    m->fd = env->open_append(env, m->path, 0644, &err);
    if (m->fd < 0)
        diag_add(d, R001, NOLOC, "%s: %s", m->path, errno_text(err));
    else if (cut(m, step, d))
        return m;
    metrics_close(m);
    return NULL;
}

bool metrics_line(Metrics *m, const char *text, size_t len, Diags *d) {
    int err = 0;
    bool ok = write_full(m->env, m->fd, text, len, &err) && write_full(m->env, m->fd, "\n", 1, &err);
    return ok || diag_fail(d, R001, NOLOC, "%s: %s", m->path, errno_text(err));
}

void metrics_close(Metrics *m) {
    if (!m) return;
    int err;
    if (m->fd >= 0) m->env->close(m->env, m->fd, &err);
    arena_close(m->a);
}
