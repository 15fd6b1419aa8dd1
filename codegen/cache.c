/* cache.c: kernels by content, on disk.
 *
 *   p-<hash>.so  an entry (pack.h): one shared object of up to UNIT_KERNELS kernels, with their sources
 *   k-<key>      where a kernel is: pack and index in it; key = XXH3-128 of (toolchain, source)
 *   s-<key>      where all kernels of one call are: a warm start reads this file and a few packs
 *   lock         held while misses are built and published
 * Only a pack counts: the small files are hints. A pack is read whole, its hashes and the source of each
 * kernel are compared, and only then is the open descriptor loaded; anything else is a miss and is built
 * again. Descriptors stay open as long as the library, because the loader knows a library by the name of its
 * descriptor. */
#include "codegen/pack.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { UNIT_KERNELS = 12, UNIT_BYTES = 40000, MAX_WORKERS = 16 };

typedef struct Loaded Loaded;
struct Loaded {
    Loaded *next;
    char name[33];
    int fd;
    void *lib;
    char *bytes;  /* the footer: sources lie in it */
    Arena *arena; /* of pack.source */
    Pack pack;
};
struct Cache {
    Env *env;
    Toolchain *tool;
    char dir[4096];
    uint32_t uid;
    Loaded *loaded;
};
typedef struct {
    char pack[33];
    uint32_t index;
    bool known;
} Ref;

/* ---- the directory */
static bool unsafe(Diags *d, const char *path, const char *why, const char *help) {
    Diag *g =
        diag_add(d, R005, NOLOC, "the kernel cache cannot be used: %s%s%s", path, path[0] ? ": " : "", why);
    diag_help(d, g, "%s, or set WMTPC_CACHE to a directory of your own", help);
    return false;
}

static bool check_component(Cache *c, const char *path, bool leaf, Diags *d) {
    Env *env = c->env;
    EnvStat st;
    int err = 0;
    if (env->lstat(env, path, &st, &err) < 0) {
        if (err == ENOENT && env->mkdir(env, path, 0700, &err) < 0 && err != EEXIST)
            return unsafe(d, path, errno_text(err), "make it writable");
        if (env->lstat(env, path, &st, &err) < 0) return unsafe(d, path, errno_text(err), "make it readable");
    }
    if (st.uid != c->uid && st.uid != 0) return unsafe(d, path, "belongs to another user", "remove it");
    if (st.is_link) {
        if (leaf) return unsafe(d, path, "is a symbolic link", "remove the link");
        if (env->stat(env, path, &st, &err) < 0) return unsafe(d, path, errno_text(err), "repair the link");
        if (st.uid != c->uid && st.uid != 0)
            return unsafe(d, path, "leads to a directory of another user", "remove the link");
    }
    if (!st.is_dir) return unsafe(d, path, "is not a directory", "remove it");
    if (leaf && st.uid != c->uid) return unsafe(d, path, "belongs to another user", "remove it");
    if (leaf && (st.mode & 077))
        return unsafe(d, path, "can be entered by other users", "run chmod 700 on it");
    if ((st.mode & 022) && !(st.mode & 01000))
        return unsafe(d, path, "can be written by other users", "run chmod go-w on it");
    return true;
}

static bool check_dir(Cache *c, Diags *d) {
    char part[sizeof c->dir];
    EnvStat st;
    int err = 0;
    if (c->env->stat(c->env, "/proc/self", &st, &err) < 0)
        return unsafe(d, c->dir, "has an unknown owner (/proc is missing)", "mount /proc");
    c->uid = st.uid;
    size_t n = strlen(c->dir);
    while (n > 1 && c->dir[n - 1] == '/') c->dir[--n] = 0;
    for (size_t i = 1; i <= n; i++) {
        if ((i < n && c->dir[i] != '/') || c->dir[i - 1] == '/') continue;
        memcpy(part, c->dir, i);
        part[i] = 0;
        if (!check_component(c, part, i == n, d)) return false;
    }
    return true;
}

static bool choose_dir(Cache *c, const char *dir, Diags *d) {
    Env *env = c->env;
    const char *home = env->getenv(env, "HOME"), *xdg = env->getenv(env, "XDG_CACHE_HOME"),
               *own = env->getenv(env, "WMTPC_CACHE");
    int k = -1;
    if (!dir && own && *own) dir = own;
    if (dir)
        k = snprintf(c->dir, sizeof c->dir - 64, "%s", dir);
    else if (xdg && *xdg == '/')
        k = snprintf(c->dir, sizeof c->dir - 64, "%s/wmtpc", xdg);
    else if (home && *home == '/')
        k = snprintf(c->dir, sizeof c->dir - 64, "%s/.cache/wmtpc", home);
    if (k < 0) return unsafe(d, "", "has no place (neither HOME nor XDG_CACHE_HOME is set)", "set HOME");
    if ((size_t)k >= sizeof c->dir - 64 || k == 0)
        return unsafe(d, c->dir, "has no usable name", "use a shorter path");
    return true;
}

static int open_lock(Cache *c, int *err) {
    char path[sizeof c->dir + 8];
    snprintf(path, sizeof path, "%s/lock", c->dir);
    return c->env->open_append(c->env, path, 0600, err);
}

Cache *cache_open(Env *env, const char *dir, Toolchain *t, Diags *d) {
    Cache *c = env->alloc(env, sizeof *c);
    if (!c) {
        diag_add(d, R006, NOLOC, "out of memory: %zu bytes were refused", sizeof *c);
        return NULL;
    }
    c->env = env;
    c->tool = t;
    int err = 0, fd = -1;
    bool ok = choose_dir(c, dir, d) && check_dir(c, d);
    if (ok && (fd = open_lock(c, &err)) < 0) ok = unsafe(d, c->dir, errno_text(err), "make it writable");
    if (fd >= 0) env->close(env, fd, &err);
    if (ok) return c;
    env->free(env, c);
    return NULL;
}

static void unload(Cache *c, Loaded *p) {
    int err;
    if (p->lib) c->env->dl_close(c->env, p->lib);
    if (p->fd >= 0) c->env->close(c->env, p->fd, &err);
    arena_close(p->arena);
    c->env->free(c->env, p->bytes);
    c->env->free(c->env, p);
}

void cache_close(Cache *c) {
    if (!c) return;
    for (Loaded *p = c->loaded, *next; p; p = next) {
        next = p->next;
        unload(c, p);
    }
    c->env->free(c->env, c);
}

/* ---- reading */
static char *read_fd(Env *env, int fd, size_t max, size_t *n) {
    EnvStat st;
    int err;
    if (env->fstat(env, fd, &st, &err) < 0 || !st.is_file || st.size < 0 || (uint64_t)st.size > max)
        return NULL;
    size_t size = (size_t)st.size, at = 0;
    char *s = env->alloc(env, size + 1);
    while (s && at < size) {
        int64_t got = env->pread(env, fd, s + at, size - at, (int64_t)at, &err);
        if (got <= 0) {
            env->free(env, s);
            return NULL;
        }
        at += (size_t)got;
    }
    *n = size;
    return s;
}

static char *read_path(Env *env, const char *path, size_t max, size_t *n) {
    int err, fd = env->open_read(env, path, &err);
    if (fd < 0) return NULL;
    char *s = read_fd(env, fd, max, n);
    env->close(env, fd, &err);
    return s;
}

typedef struct {
    Cache *c;
    Arena *a;
    const KernelSource *source;
    uint32_t n;
    KernelFn *fn;
    CacheStats *stats;
    Diags *d;
    char (*key)[33];
    int lock;
} Get;

/* A library that changes the rounding or flushing mode of this thread would change every result after it. */
static bool load_lib(Cache *c, Loaded *p) {
    const char *why = "";
    unsigned before = __builtin_ia32_stmxcsr();
    p->lib = c->env->dl_open(c->env, p->fd, &why);
    bool same = (before & ~0x3fu) == (__builtin_ia32_stmxcsr() & ~0x3fu);
    if (!same) __builtin_ia32_ldmxcsr(before);
    return p->lib && same;
}

static Loaded *load_pack(Get *g, const char *name) {
    Cache *c = g->c;
    for (Loaded *p = c->loaded; p; p = p->next)
        if (strcmp(p->name, name) == 0) return p;
    Loaded *p = c->env->alloc(c->env, sizeof *p);
    if (!p) return NULL;
    char path[sizeof c->dir + 64];
    snprintf(path, sizeof path, "%s/p-%s.so", c->dir, name);
    snprintf(p->name, sizeof p->name, "%s", name);
    int err;
    size_t n = 0;
    p->fd = c->env->open_read(c->env, path, &err);
    if (p->fd >= 0) p->bytes = read_fd(c->env, p->fd, PACK_MAX_BYTES, &n);
    p->arena = p->bytes ? arena_open(c->env, arena_guard(g->a)) : NULL;
    const char *id = c->tool->identity;
    bool ok = p->arena && pack_parse(p->arena, p->bytes, n, &p->pack) && p->pack.identity_len == strlen(id) &&
              memcmp(p->pack.identity, id, strlen(id)) == 0 && load_lib(c, p);
    if (!ok) {
        unload(c, p);
        return NULL;
    }
    p->next = c->loaded;
    c->loaded = p;
    return p;
}

/* The function of kernel i, if the pack that is said to hold it does. */
static bool take(Get *g, uint32_t i, const Ref *r) {
    Loaded *p = load_pack(g, r->pack);
    if (!p || r->index >= p->pack.n) return false;
    const KernelSource *have = &p->pack.source[r->index], *want = &g->source[i];
    if (have->len != want->len || memcmp(have->source, want->source, want->len) != 0) return false;
    char symbol[16];
    snprintf(symbol, sizeof symbol, "k_%u", r->index);
    union {
        void *p;
        KernelFn f;
    } u = {g->c->env->dl_sym(g->c->env, p->lib, symbol)};
    g->fn[i] = u.f;
    return u.p != NULL;
}

enum { REF_BYTES = 42 }; /* "<32 hex> <8 hex>\n" */
static bool parse_ref(const char *s, Ref *r) {
    uint32_t v = 0;
    for (int i = 0; i < REF_BYTES - 1; i++) {
        char c = s[i];
        if (i == 32 ? c != ' ' : (c < '0' || c > '9') && (c < 'a' || c > 'f')) return false;
        if (i > 32) v = v << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    memcpy(r->pack, s, 32);
    r->pack[32] = 0;
    r->index = v;
    r->known = true;
    return s[REF_BYTES - 1] == '\n';
}

static const char *set_path(Get *g) {
    char key[33];
    hash128_hex(g->key, (size_t)g->n * sizeof *g->key, key);
    return arena_fmt(g->a, "%s/s-%s", g->c->dir, key);
}

static uint32_t read_refs(Get *g, const char *path, Ref *ref, uint32_t n) {
    size_t len = 0;
    char *s = read_path(g->c->env, path, (size_t)n * REF_BYTES, &len);
    bool ok = s && len == (size_t)n * REF_BYTES;
    for (uint32_t i = 0; ok && i < n; i++) ok = parse_ref(s + (size_t)i * REF_BYTES, &ref[i]);
    g->c->env->free(g->c->env, s);
    return ok ? n : 0;
}

/* Fills fn for the kernels that are there; true if all are. */
static bool find_all(Get *g) {
    Ref *ref = NEWN(g->a, Ref, g->n);
    if (!read_refs(g, set_path(g), ref, g->n))
        for (uint32_t i = 0; i < g->n; i++) ref[i].known = false;
    bool all = true;
    for (uint32_t i = 0; i < g->n; i++) {
        if (g->fn[i]) continue;
        if (ref[i].known && take(g, i, &ref[i])) continue;
        Ref one = {"", 0, false};
        if (read_refs(g, arena_fmt(g->a, "%s/k-%s", g->c->dir, g->key[i]), &one, 1) && take(g, i, &one))
            continue;
        all = false;
    }
    return all;
}

/* ---- building */
typedef struct {
    uint32_t *which, n;
    Sbuf text;
    const char *object;
    Diags *diags;
    bool ok;
} Unit;
typedef struct {
    Get *g;
    Unit *unit;
    uint32_t n, next;
} Queue;

static void worker(void *ctx) {
    Queue *q = ctx;
    for (;;) {
        uint32_t i = __atomic_fetch_add(&q->next, 1, __ATOMIC_RELAXED);
        if (i >= q->n) return;
        Unit *u = &q->unit[i];
        Toolchain *t = q->g->c->tool;
        u->ok = t->build(t, u->text.s, u->text.len, u->object, u->diags);
    }
}

static void run_units(Get *g, Unit *unit, uint32_t n) {
    Env *env = g->c->env;
    Queue q = {g, unit, n, 0};
    EnvThread *thread[MAX_WORKERS];
    int workers = env->cpu_count(env), started = 0, err;
    if (workers > MAX_WORKERS) workers = MAX_WORKERS;
    if (workers > (int)n) workers = (int)n;
    for (int i = 1; i < workers; i++) {
        thread[started] = env->thread_start(env, worker, &q, -1, &err);
        if (thread[started]) started++;
    }
    worker(&q);
    for (int i = 0; i < started; i++) env->thread_join(env, thread[i]);
}

static Unit *new_unit(Get *g, Unit *u, const char *tmp, uint32_t serial, uint32_t *which, uint32_t n) {
    *u = (Unit){which, n, {0}, arena_fmt(g->a, "%s/u%u.so", tmp, serial), diags_open(g->c->env), false};
    wm_check(g->a, u->diags, "no memory for diagnostics");
    sb_init(&u->text, g->a);
    pack_unit(g->a, &u->text, g->source, which, n);
    return u;
}

static bool write_file(Env *env, const char *path, const char *s, size_t n, int *err) {
    int fd = env->open_new(env, path, 0600, err);
    if (fd < 0) return false;
    bool ok = write_full(env, fd, s, n, err);
    return env->close(env, fd, err) == 0 && ok;
}

static bool publish(Get *g, const char *tmp, const char *to, const char *s, size_t n) {
    Env *env = g->c->env;
    const char *from = arena_fmt(g->a, "%s/hint", tmp);
    int err = 0;
    if (write_file(env, from, s, n, &err) && env->rename(env, from, to, &err) == 0) return true;
    return diag_fail(g->d, R001, NOLOC, "cannot write '%s': %s", to, errno_text(err));
}

/* Object + footer + trailer under the pack's name, then the hints. */
static bool publish_unit(Get *g, const char *tmp, const Unit *u) {
    Env *env = g->c->env;
    size_t n = 0;
    int err = EIO;
    char *object = read_path(env, u->object, PACK_MAX_BYTES, &n);
    if (!object) return diag_fail(g->d, R001, NOLOC, "cannot read '%s'", u->object);
    Sbuf file;
    sb_init(&file, g->a);
    sb_put(&file, object, n);
    env->free(env, object);
    pack_footer(&file, file.s, n, g->c->tool->identity, g->source, u->which, u->n);
    Sbuf keys;
    sb_init(&keys, g->a);
    for (uint32_t i = 0; i < u->n; i++) sb_put(&keys, g->key[u->which[i]], 32);
    char name[33];
    hash128_hex(keys.s, keys.len, name);
    const char *from = arena_fmt(g->a, "%s/pack", tmp), *to = arena_fmt(g->a, "%s/p-%s.so", g->c->dir, name);
    if (!write_file(env, from, file.s, file.len, &err) || env->rename(env, from, to, &err) < 0)
        return diag_fail(g->d, R001, NOLOC, "cannot write '%s': %s", to, errno_text(err));
    for (uint32_t i = 0; i < u->n; i++) {
        const char *text = arena_fmt(g->a, "%s %08x\n", name, i);
        if (!publish(g, tmp, arena_fmt(g->a, "%s/k-%s", g->c->dir, g->key[u->which[i]]), text, REF_BYTES))
            return false;
        Ref r = {"", i, true};
        memcpy(r.pack, name, sizeof name);
        if (!take(g, u->which[i], &r))
            return diag_fail(g->d, R005, NOLOC, "the compiled kernels in '%s' cannot be loaded", to);
    }
    g->stats->built += u->n;
    return true;
}

static void move_diags(Get *g, Unit *u) {
    for (uint32_t i = 0; i < u->diags->n; i++) {
        const Diag *from = u->diags->item[i];
        Diag *to = diag_add(g->d, from->code, NOLOC, "%s", from->text);
        if (from->help) diag_help(g->d, to, "%s", from->help);
    }
}

/* Kernels without a function, cut into units. Equal sources are compiled once. */
static uint32_t cut(Get *g, const char *tmp, Unit *unit) {
    StrMap *seen = strmap_new(g->a);
    uint32_t nunit = 0, i = 0;
    while (i < g->n) {
        uint32_t *which = NEWN(g->a, uint32_t, UNIT_KERNELS), n = 0;
        for (size_t bytes = 0; i < g->n && n < UNIT_KERNELS && bytes < UNIT_BYTES; i++) {
            if (g->fn[i] || !strmap_put(seen, g->key[i], i)) continue;
            bytes += g->source[i].len;
            which[n++] = i;
        }
        if (n) new_unit(g, &unit[nunit], tmp, nunit, which, n), nunit++;
    }
    return nunit;
}

static bool finish(Get *g, const char *tmp, Unit *unit, uint32_t n, bool last) {
    bool ok = true;
    for (uint32_t i = 0; i < n; i++) {
        if (unit[i].ok)
            ok = publish_unit(g, tmp, &unit[i]) && ok;
        else if (last || unit[i].n == 1)
            move_diags(g, &unit[i]), ok = false;
        diags_close(unit[i].diags);
    }
    return ok;
}

/* A unit of several kernels that does not compile is compiled kernel by kernel, so that the message is about
 * one. */
static bool build_in(Get *g, const char *tmp) {
    Unit *unit = NEWN(g->a, Unit, g->n), *alone = NEWN(g->a, Unit, g->n);
    uint32_t n = cut(g, tmp, unit), nalone = 0;
    run_units(g, unit, n);
    bool ok = finish(g, tmp, unit, n, false);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = 0; !unit[i].ok && unit[i].n > 1 && j < unit[i].n; j++, nalone++)
            new_unit(g, &alone[nalone], tmp, n + nalone, &unit[i].which[j], 1);
    run_units(g, alone, nalone);
    return finish(g, tmp, alone, nalone, true) && ok;
}

typedef struct {
    Get *g;
    const char *dir, *prefix;
} Sweep;
static bool sweep_one(void *ctx, const char *name) {
    Sweep *s = ctx;
    Env *env = s->g->c->env;
    int err;
    if (strncmp(name, s->prefix, strlen(s->prefix)) != 0) return true;
    const char *path = arena_fmt(s->g->a, "%s/%s", s->dir, name);
    EnvStat st;
    if (env->lstat(env, path, &st, &err) < 0) return true;
    if (!st.is_dir) return env->unlink(env, path, &err), true;
    Sweep inner = {s->g, path, ""};
    env->list(env, path, sweep_one, &inner, &err);
    env->rmdir(env, path, &err);
    return true;
}

/* Under the lock: what another process made meanwhile is taken, leftovers of killed ones (tmp-*) go, the rest
 * is built. */
static bool build_missing(Get *g) {
    Cache *c = g->c;
    Env *env = c->env;
    int err = 0;
    g->lock = open_lock(c, &err);
    if (g->lock < 0 || env->lock(env, g->lock, true, &err) < 0)
        return unsafe(g->d, c->dir, errno_text(err), "make it writable");
    if (find_all(g)) return true;
    int64_t t0 = env->now_ns(env);
    Sweep s = {g, c->dir, "tmp-"};
    env->list(env, c->dir, sweep_one, &s, &err);
    const char *tmp = arena_fmt(g->a, "%s/tmp-%lld", c->dir, (long long)env->pid(env));
    if (env->mkdir(env, tmp, 0700, &err) < 0)
        return unsafe(g->d, tmp, errno_text(err), "make the directory writable");
    bool ok = build_in(g, tmp);
    for (uint32_t i = 0; ok && i < g->n; i++) ok = g->fn[i] || find_all(g); /* equal sources */
    if (ok) {
        Sbuf text;
        sb_init(&text, g->a);
        for (uint32_t i = 0; i < g->n; i++) {
            Ref r = {"", 0, false};
            if (read_refs(g, arena_fmt(g->a, "%s/k-%s", c->dir, g->key[i]), &r, 1))
                sb_fmt(&text, "%s %08x\n", r.pack, r.index);
        }
        ok = publish(g, tmp, set_path(g), text.s ? text.s : "", text.len);
    }
    env->list(env, c->dir, sweep_one, &s, &err);
    g->stats->build_ns += env->now_ns(env) - t0;
    return ok;
}

static bool get_guarded(void *ctx, Guard *guard) {
    Get *g = ctx;
    g->a = arena_open(g->c->env, guard);
    g->key = arena_alloc(g->a, (wm_size)g->n * sizeof *g->key);
    size_t idlen = strlen(g->c->tool->identity) + 1;
    for (uint32_t i = 0; i < g->n; i++) {
        Sbuf text;
        sb_init(&text, g->a);
        sb_put(&text, g->c->tool->identity, idlen);
        sb_put(&text, g->source[i].source, g->source[i].len);
        hash128_hex(text.s, text.len, g->key[i]);
        g->fn[i] = NULL;
    }
    bool ok = find_all(g) || build_missing(g);
    if (ok) g->stats->hits += g->n - (g->stats->built < g->n ? g->stats->built : g->n);
    return ok;
}

bool cache_get(Cache *c, const KernelSource *source, uint32_t n, KernelFn *fn, CacheStats *stats, Diags *d) {
    CacheStats now = {0, 0, 0};
    Get g = {c, NULL, source, n, fn, &now, d, NULL, -1};
    int err;
    bool ok = guard_run(get_guarded, &g, d);
    if (g.lock >= 0) c->env->close(c->env, g.lock, &err);
    arena_close(g.a);
    if (!ok || !stats) return ok;
    stats->hits += now.hits;
    stats->built += now.built;
    stats->build_ns += now.build_ns;
    return true;
}
