/* owner.c: one run owns a directory at a time (reliability.md 6).
 *
 * owner.json says who: run id, epoch, host, boot, pid and when that process began, so that a reused pid is
 * not taken for a living owner. It is only ever replaced whole, and only under a lock on the file that the
 * name leads to at that moment: of two successors one gets the lock on the old file, the other then finds
 * a new file with a living owner. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_MOST = 4096, TRIES = 64 };
static const int64_t second = 1000000000, beat_every = 15, dead_after = 60;

typedef struct {
    char host[128], boot[64];
    int64_t pid, start; /* start: clock ticks after boot, 0 unknown */
} Who;

struct Owner {
    Env *env;
    char path[3800];
    char run[17];
    int64_t epoch, beat_ns;
    Who who;
};

typedef struct {
    int fd;
    EnvStat st;
    char text[TEXT_MOST];
    size_t len;
} Held;

typedef struct {
    char run[17];
    int64_t epoch;
    bool released;
    Who who;
} Record;

/* A short file of /proc; empty where there is none. */
static void read_small(Env *env, const char *path, char *out, size_t cap) {
    int err = 0, fd = env->open_read(env, path, &err);
    size_t n = 0;
    while (fd >= 0 && n + 1 < cap) {
        int64_t k = env->read(env, fd, out + n, cap - 1 - n, &err);
        if (k <= 0) break;
        n += (size_t)k;
    }
    if (fd >= 0) (void)env->close(env, fd, &err);
    out[n] = 0;
}

static void read_line(Env *env, const char *path, char *out, size_t cap) {
    read_small(env, path, out, cap);
    out[strcspn(out, "\n")] = 0;
}

/* When a process began: field 22 of its stat, counted after the name in parentheses, which may hold
 * anything. */
static int64_t start_of(Env *env, int64_t pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    read_small(env, path, text, sizeof text);
    const char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++) p = strchr(p + 1, ' ');
    int64_t ticks = 0;
    return p && text_int(p + 1, strcspn(p + 1, " "), &ticks) ? ticks : 0;
}

static Who who_am_i(Env *env) {
    Who w = {.pid = env->pid(env)};
    read_line(env, "/proc/sys/kernel/hostname", w.host, sizeof w.host);
    read_line(env, "/proc/sys/kernel/random/boot_id", w.boot, sizeof w.boot);
    w.start = start_of(env, w.pid);
    return w;
}

/* ---- the file under its lock */

static void let_go(Env *env, Held *h) {
    int err = 0;
    if (h->fd >= 0) (void)env->close(env, h->fd, &err);
    h->fd = -1;
}

static bool held_read(Env *env, Held *h, const char *path, Diags *d) {
    int err = 0;
    h->len = 0;
    if (h->st.size >= TEXT_MOST)
        return diag_fail(d, D001, NOLOC, "%s: %lld bytes are no record of an owner", path,
                         (long long)h->st.size);
    if (!pread_full(env, h->fd, h->text, (size_t)h->st.size, 0, &err))
        return diag_fail(d, R001, NOLOC, "%s: %s", path, errno_text(err ? err : EIO));
    h->len = (size_t)h->st.size;
    return true;
}

/* Opens (or makes) and locks the file that `path` names, and reads it. */
static bool hold(Env *env, const char *path, Held *h, Diags *d) {
    for (int i = 0; i < TRIES; i++) {
        int err = 0;
        EnvStat now;
        h->fd = env->open_append(env, path, 0644, &err);
        if (h->fd < 0)
            return diag_fail(d, err == ENOENT ? D002 : R001, NOLOC, "%s: %s", path, errno_text(err));
        bool ok = env->lock(env, h->fd, true, &err) == 0 && env->fstat(env, h->fd, &h->st, &err) == 0;
        if (!ok) {
            let_go(env, h);
            return diag_fail(d, R001, NOLOC, "%s: %s", path, errno_text(err));
        }
        if (env->lstat(env, path, &now, &err) == 0 && now.ino == h->st.ino && now.dev == h->st.dev) {
            if (held_read(env, h, path, d)) return true;
            let_go(env, h);
            return false;
        }
        let_go(env, h); /* replaced while we waited */
    }
    return diag_fail(d, R001, NOLOC, "%s: it is replaced again and again", path);
}

static bool take_text(const Json *j, const char *key, char *out, size_t cap) {
    size_t len = 0;
    const char *s = json_string(json_get(j, key), &len);
    if (!s || len >= cap) return false;
    memcpy(out, s, len + 1);
    return true;
}

/* An empty file is one that an owner made and did not come to fill. */
static bool parse_record(const char *text, size_t len, const char *path, Record *r, Diags *d) {
    *r = (Record){.released = true};
    if (!len) return true;
    Json *j = json_parse(text, len, path, 1, 4, d, D001);
    if (!j) return false;
    bool ok =
        take_text(j, "run", r->run, sizeof r->run) && take_text(j, "host", r->who.host, sizeof r->who.host) &&
        take_text(j, "boot", r->who.boot, sizeof r->who.boot) && json_kind(json_get(j, "epoch")) == J_INT &&
        json_kind(json_get(j, "pid")) == J_INT && json_kind(json_get(j, "released")) == J_BOOL;
    r->epoch = json_int(json_get(j, "epoch"));
    r->released = json_bool(json_get(j, "released"));
    r->who.pid = json_int(json_get(j, "pid"));
    r->who.start = json_int(json_get(j, "start"));
    json_free(j);
    return ok || diag_fail(d, D001, NOLOC,
                           "%s: not a record of an owner; remove it if no run uses this directory", path);
}

static bool alive(Env *env, const Record *r, const Who *me, int64_t mtime_ns) {
    if (r->released) return false;
    if (strcmp(r->who.host, me->host)) return env->wall_ns(env) - mtime_ns < dead_after * second;
    if (strcmp(r->who.boot, me->boot) || !env->pid_alive(env, r->who.pid)) return false;
    int64_t start = start_of(env, r->who.pid);
    return !start || !r->who.start || start == r->who.start;
}

static bool write_record(Owner *o, bool released, Diags *d) {
    Arena *a = arena_open(o->env, NULL);
    if (!a) return diag_fail(d, R006, NOLOC, "no memory to write %s", o->path);
    Sbuf b;
    sb_init(&b, a);
    sb_fmt(&b, "{\"run\": \"%s\", \"epoch\": %lld, \"host\": ", o->run, (long long)o->epoch);
    json_quote(&b, o->who.host, strlen(o->who.host));
    sb_str(&b, ", \"boot\": ");
    json_quote(&b, o->who.boot, strlen(o->who.boot));
    sb_fmt(&b, ", \"pid\": %lld, \"start\": %lld, \"released\": %s}\n", (long long)o->who.pid,
           (long long)o->who.start, released ? "true" : "false");
    bool ok = !b.failed || diag_fail(d, R006, NOLOC, "no memory to write %s", o->path);
    ok = ok && file_write_atomic(o->env, o->path, b.s, b.len, d);
    if (ok) o->beat_ns = o->env->now_ns(o->env);
    arena_close(a);
    return ok;
}

static void make_run_id(Owner *o) {
    char text[512], hex[33];
    int n = snprintf(text, sizeof text, "%s|%s|%lld|%lld|%lld|%lld|%lld", o->who.host, o->who.boot,
                     (long long)o->who.pid, (long long)o->who.start, (long long)o->epoch,
                     (long long)o->env->wall_ns(o->env), (long long)o->env->now_ns(o->env));
    hash128_hex(text, (size_t)n, hex);
    memcpy(o->run, hex, 16);
}

static bool succeed(Owner *o, Diags *d) {
    Held h = {.fd = -1};
    Record r;
    if (!hold(o->env, o->path, &h, d)) return false;
    bool ok = parse_record(h.text, h.len, o->path, &r, d);
    if (ok && alive(o->env, &r, &o->who, h.st.mtime_ns)) {
        Diag *g = diag_add(d, R002, NOLOC, "%s: run %s on %s (pid %lld) is using this directory", o->path,
                           shown(d, r.run), shown(d, r.who.host), (long long)r.who.pid);
        diag_help(d, g, "wait for it, stop it, or choose another checkpoint.save_dir");
        ok = false;
    }
    if (ok) {
        o->epoch = r.epoch + 1;
        make_run_id(o);
        ok = write_record(o, false, d);
    }
    let_go(o->env, &h);
    return ok;
}

Owner *owner_take(Env *env, const char *dir, Diags *d) {
    Owner *o = env->alloc(env, sizeof *o);
    if (!o) {
        (void)diag_fail(d, R006, NOLOC, "no memory to take %s", dir);
        return NULL;
    }
    o->env = env;
    int n = snprintf(o->path, sizeof o->path, "%s/owner.json", dir);
    bool ok = n > 0 && (size_t)n < sizeof o->path;
    if (!ok) (void)diag_fail(d, R001, NOLOC, "the path of the run directory is too long");
    o->who = who_am_i(env);
    if (ok && succeed(o, d)) return o;
    env->free(env, o);
    return NULL;
}

static bool ours(const Owner *o, const Record *r, Diags *d) {
    if (!strcmp(r->run, o->run) && r->epoch == o->epoch) return true;
    return diag_fail(d, R002, NOLOC, "%s: run %s (epoch %lld) took over from this one (%s, epoch %lld)",
                     o->path, shown(d, r->run), (long long)r->epoch, o->run, (long long)o->epoch);
}

/* Reads without the lock: opening for it would make the file anew and hide that it was removed. */
bool owner_still_ours(Owner *o, Diags *d) {
    char *text = NULL;
    size_t len = 0;
    Record r;
    EnvStat st;
    int err = 0;
    if (o->env->lstat(o->env, o->path, &st, &err) < 0 && err == ENOENT)
        return diag_fail(d, R002, NOLOC, "%s: it is gone: somebody else cleared this directory", o->path);
    Arena *a = arena_open(o->env, NULL);
    if (!a) return diag_fail(d, R006, NOLOC, "no memory to read %s", o->path);
    bool ok = file_read_all(o->env, a, o->path, TEXT_MOST, &text, &len, d) &&
              parse_record(text, len, o->path, &r, d) && ours(o, &r, d);
    arena_close(a);
    return ok;
}

static bool rewrite(Owner *o, bool released, Diags *d) {
    Held h = {.fd = -1};
    Record r;
    if (!hold(o->env, o->path, &h, d)) return false;
    bool ok = parse_record(h.text, h.len, o->path, &r, d) && ours(o, &r, d) && write_record(o, released, d);
    let_go(o->env, &h);
    return ok;
}

bool owner_beat(Owner *o, Diags *d) {
    if (o->env->now_ns(o->env) - o->beat_ns < beat_every * second) return true;
    return rewrite(o, false, d);
}

const char *owner_run_id(const Owner *o) {
    return o->run;
}

int64_t owner_epoch(const Owner *o) {
    return o->epoch;
}

/* Says in the file that nobody runs; what cannot be written is left, and a successor finds the process
 * gone. */
void owner_release(Owner *o) {
    if (!o) return;
    Diags *d = diags_open(o->env);
    if (d) {
        (void)rewrite(o, true, d);
        diags_close(d);
    }
    o->env->free(o->env, o);
}
