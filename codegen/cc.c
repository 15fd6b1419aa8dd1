/* cc.c: the system compiler as a Toolchain (header-free C in, shared object out), and the level of the CPU.
 *
 * The compiler is an absolute path run with an argument array, no shell, and an environment of our own; what
 * it reads and writes lies in a private directory beside the object, which is gone afterwards. All flags
 * stand in one table: they are part of the identity, and with it of every cache key. Generated code has one
 * meaning under gcc and clang: no fast-math, no contraction (an FMA is written where one is meant). */
#include "codegen/codegen.h"

#include <errno.h>
#include <string.h>

enum { ABI_NUMBER = 1, MAX_LOG = 1 << 16, SOURCE_MODE = 0600 };

static const char *const flag[] = {"-std=gnu11",
                                   "-O3",
                                   "-mprefer-vector-width=512",
                                   "-ffp-contract=off",
                                   "-fno-math-errno",
                                   "-fno-trapping-math",
                                   "-fno-asynchronous-unwind-tables",
                                   "-fno-stack-protector",
                                   "-fPIC",
                                   "-shared",
                                   "-nostdlib",
                                   "-w",
                                   "-pipe",
                                   "-Wl,--build-id=none",
                                   "-Wl,-z,noexecstack"};
static const char *const march[] = {
    [CPU_NONE] = "", [CPU_V3] = "-march=x86-64-v3", [CPU_V4] = "-march=x86-64-v4"};

typedef struct {
    Env *env;
    const char *path; /* absolute */
    CpuLevel level;
} Compiler;

/* The best level that both this CPU and its system (saved registers) have. */
CpuLevel cpu_level(void) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
        return CPU_NONE;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512cd"))
        return CPU_V4;
    return CPU_V3;
}

static const char *find_on_path(Arena *a, Env *env, const char *name) {
    const char *path = env->getenv(env, "PATH");
    if (!path) path = "/usr/local/bin:/usr/bin:/bin";
    while (*path) {
        size_t n = strcspn(path, ":");
        if (n && *path == '/') {
            const char *full = arena_fmt(a, "%.*s/%s", (int)n, path, name);
            EnvStat st;
            int err;
            if (env->stat(env, full, &st, &err) == 0 && st.is_file && (st.mode & 0111)) return full;
        }
        path += n + (path[n] == ':');
    }
    return NULL;
}

/* All of a small file behind a descriptor, as text. */
static const char *slurp(Arena *a, Env *env, int fd) {
    char *s = NEWN(a, char, MAX_LOG);
    size_t n = 0;
    int err;
    while (n < MAX_LOG - 1) {
        int64_t got = env->pread(env, fd, s + n, MAX_LOG - 1 - n, (int64_t)n, &err);
        if (got <= 0) break;
        n += (size_t)got;
    }
    s[n] = 0;
    return s;
}

static bool run(const Compiler *c, const char *const *argv, const char *tmpdir, int log, int *status,
                int *err) {
    Env *env = c->env;
    char tmp[512], path[] = "PATH=/usr/local/bin:/usr/bin:/bin", lang[] = "LC_ALL=C";
    size_t n = strlen(tmpdir);
    if (n > sizeof tmp - 8) {
        *err = ENAMETOOLONG;
        return false;
    }
    memcpy(tmp, "TMPDIR=", 7);
    memcpy(tmp + 7, tmpdir, n + 1);
    const char *envp[] = {path, lang, tmp, NULL};
    int64_t pid;
    if (env->spawn(env, c->path, argv, envp, log, &pid, err) < 0) return false;
    return env->wait(env, pid, status, err) == 0;
}

/* What `-v` says, but for lines that name paths: compiler, version, target, options it was built with. */
static const char *version_of(Arena *a, const Compiler *c, Diags *d) {
    Env *env = c->env;
    const char *dir = env->getenv(env, "TMPDIR");
    if (!dir || *dir != '/') dir = "/tmp";
    const char *name =
        arena_fmt(a, "%s/wmtpc-%lld-%lld", dir, (long long)env->pid(env), (long long)env->now_ns(env));
    int err = 0, status = -1;
    int log = env->open_new(env, name, SOURCE_MODE, &err);
    if (log < 0) {
        diag_add(d, R001, NOLOC, "cannot write '%s': %s", name, errno_text(err));
        return NULL;
    }
    env->unlink(env, name, &err);
    const char *argv[] = {c->path, "-v", NULL};
    bool ok = run(c, argv, dir, log, &status, &err) && status == 0;
    const char *text = slurp(a, env, log);
    env->close(env, log, &err);
    if (!ok || !*text) {
        Diag *g = diag_add(d, R005, NOLOC, "the compiler '%s' does not run", c->path);
        diag_help(d, g, "`%s -v` must work: repair or install gcc (Debian: apt install gcc)", c->path);
        return NULL;
    }
    return text;
}

/* Source file, log and the compiler's own temporaries, all in `dir`, are removed whatever happened. */
typedef struct {
    Env *env;
    Arena *a;
    const char *dir;
} Sweep;
static bool remove_one(void *ctx, const char *name) {
    Sweep *s = ctx;
    int err;
    s->env->unlink(s->env, arena_fmt(s->a, "%s/%s", s->dir, name), &err);
    return true;
}
static void sweep(Env *env, Arena *a, const char *dir) {
    Sweep s = {env, a, dir};
    int err;
    env->list(env, dir, remove_one, &s, &err);
    env->rmdir(env, dir, &err);
}

static void say_failed(Diags *d, const Compiler *c, int status, const char *log) {
    if (status > 128) {
        Diag *g = diag_add(d, R005, NOLOC, "the compiler '%s' was ended by signal %d", c->path, status - 128);
        diag_help(d, g, "is there memory enough? a compiler child may take 4 GiB");
        return;
    }
    const char *first = strstr(log, "error");
    while (first && first > log && first[-1] != '\n') first--;
    if (!first) first = log;
    diag_add(d, I001, NOLOC, "generated code does not compile (%s, exit %d): %s", c->path, status,
             text_escape(d->arena, first, strcspn(first, "\n")));
}

static bool compile(const Compiler *c, Arena *a, const char *dir, const char *source, size_t n,
                    const char *object, Diags *d) {
    Env *env = c->env;
    const char *file = arena_fmt(a, "%s/k.c", dir), *logname = arena_fmt(a, "%s/log", dir);
    int err = 0, status = -1;
    int fd = env->open_new(env, file, SOURCE_MODE, &err);
    bool ok = fd >= 0 && write_full(env, fd, source, n, &err);
    if (fd >= 0 && env->close(env, fd, &err) < 0) ok = false;
    int log = ok ? env->open_new(env, logname, SOURCE_MODE, &err) : -1;
    if (log < 0) return diag_fail(d, R001, NOLOC, "cannot write into '%s': %s", dir, errno_text(err));
    const char *argv[WM_LEN(flag) + 8];
    size_t k = 0;
    argv[k++] = c->path;
    for (size_t i = 0; i < WM_LEN(flag); i++) argv[k++] = flag[i];
    argv[k++] = march[c->level];
    argv[k++] = "-o";
    argv[k++] = object;
    argv[k++] = file;
    argv[k] = NULL;
    ok = run(c, argv, dir, log, &status, &err);
    if (!ok)
        diag_add(d, R005, NOLOC, "cannot run '%s': %s", c->path, errno_text(err));
    else if (status != 0)
        say_failed(d, c, status, slurp(a, env, log));
    env->close(env, log, &err);
    return ok && status == 0;
}

typedef struct {
    const Compiler *c;
    const char *source, *object;
    size_t n;
    Diags *d;
    Arena *a; /* closed by the caller of guard_run, also after an escape */
} Job;

static bool build_guarded(void *ctx, Guard *g) {
    Job *j = ctx;
    Env *env = j->c->env;
    Arena *a = j->a = arena_open(env, g);
    const char *dir = arena_fmt(a, "%s.d", j->object);
    int err;
    bool ok = env->mkdir(env, dir, 0700, &err) == 0;
    if (!ok)
        diag_add(j->d, R001, NOLOC, "cannot make the directory '%s': %s", dir, errno_text(err));
    else
        ok = compile(j->c, a, dir, j->source, j->n, j->object, j->d);
    sweep(env, a, dir);
    return ok;
}

static bool build_cc(Toolchain *t, const char *source, size_t n, const char *object_path, Diags *d) {
    Job j = {t->self, source, object_path, n, d, NULL};
    bool ok = guard_run(build_guarded, &j, d);
    arena_close(j.a);
    return ok;
}

bool toolchain_cc(Arena *a, Env *env, CpuLevel level, Toolchain *t, Diags *d) {
    static const char *const name[] = {"gcc", "cc", "clang"};
    if (level == CPU_NONE) {
        Diag *g = diag_add(d, R005, NOLOC, "this CPU lacks AVX2, FMA or BMI2");
        diag_help(d, g, "generated code needs x86-64-v3 or better; the reference evaluator runs anywhere");
        return false;
    }
    Compiler *c = NEW(a, Compiler);
    c->env = env;
    c->level = level;
    for (size_t i = 0; i < WM_LEN(name) && !c->path; i++) c->path = find_on_path(a, env, name[i]);
    if (!c->path) {
        Diag *g = diag_add(d, R005, NOLOC, "no C compiler: none of gcc, cc, clang is on PATH");
        diag_help(d, g, "install one (Debian, Ubuntu: apt install gcc; Fedora: dnf install gcc)");
        return false;
    }
    const char *version = version_of(a, c, d);
    if (!version) return false;
    Sbuf id;
    sb_init(&id, a);
    sb_fmt(&id, "abi=%d\n%s\n", ABI_NUMBER, version);
    for (size_t i = 0; i < WM_LEN(flag); i++) sb_fmt(&id, "%s ", flag[i]);
    sb_str(&id, march[level]);
    *t = (Toolchain){c, id.s, build_cc};
    return true;
}
