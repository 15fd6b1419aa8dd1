/* Configurations from hostile bytes: refused with a diagnostic that can be rendered, or a configuration whose
 * every key can be read and which, shown and loaded again, says the same. */
#include "cli/config/config.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An Env in which c.yaml is the input and the only file, and every variable of the environment is "here". */
typedef struct {
    Env env;
    const char *text;
    size_t size, at;
} Memory;

static int mem_open(Env *e, const char *path, int *err) {
    if (strcmp(path, "c.yaml") == 0) return ((Memory *)(void *)e)->at = 0, 100;
    *err = ENOENT;
    return -1;
}

static int mem_close(Env *e, int fd, int *err) {
    (void)e, (void)fd, (void)err;
    return 0;
}

static int mem_fstat(Env *e, int fd, EnvStat *st, int *err) {
    (void)fd, (void)err;
    *st = (EnvStat){.size = (int64_t)((Memory *)(void *)e)->size, .is_file = true};
    return 0;
}

static int64_t mem_read(Env *e, int fd, void *p, size_t n, int *err) {
    Memory *m = (Memory *)(void *)e;
    (void)fd, (void)err;
    if (n > m->size - m->at) n = m->size - m->at;
    if (n) memcpy(p, m->text + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static const char *mem_getenv(Env *e, const char *name) {
    (void)e;
    return *name == '_' ? NULL : "here";
}

typedef struct {
    Memory m;
    Arena *a;
    Diags *d;
} Job;

static void same(bool yes) {
    if (!yes) __builtin_trap();
}

static void same_value(ConstValue a, ConstValue b) {
    same(a.kind == b.kind && a.is_int == b.is_int && memcmp(&a.num, &b.num, sizeof a.num) == 0);
    same(a.kind != VAL_STRING || strcmp(a.str, b.str) == 0);
}

static void same_settings(const Setting *a, uint32_t na, const Setting *b, uint32_t nb) {
    same(na == nb);
    for (uint32_t i = 0; i < na; i++) {
        same(strcmp(a[i].key, b[i].key) == 0);
        same_value(a[i].v, b[i].v);
    }
}

static void compare(Job *j, const Config *c, const Config *k) {
    uint32_t n, m;
    for (uint32_t i = 0; i < config_nkey; i++) {
        const char *key = config_key[i].path;
        same(config_is_set(c, key) == config_is_set(k, key) &&
             strcmp(config_str(c, key), config_str(k, key)) == 0);
        (void)config_int(c, key), (void)config_bool(c, key), (void)config_origin(c, key);
    }
    const Setting *s = config_hypers(c, &n), *t = config_hypers(k, &m);
    same_settings(s, n, t, m);
    const ConfigModel *p = config_models(c, &n), *q = config_models(k, &m);
    same(n == m);
    for (uint32_t i = 0; i < n; i++) {
        same(strcmp(p[i].name, q[i].name) == 0 && strcmp(p[i].path, q[i].path) == 0 &&
             p[i].nignore == q[i].nignore);
        same_settings(p[i].set, p[i].nset, q[i].set, q[i].nset);
    }
    double *v, *w;
    uint32_t r1, c1, r2, c2;
    bool ok = config_rows(c, j->a, "data_sampling.curriculum", &v, &r1, &c1, j->d);
    same(ok == config_rows(k, j->a, "data_sampling.curriculum", &w, &r2, &c2, j->d));
    same(!ok || (r1 == r2 && c1 == c2 && (!r1 || memcmp(v, w, (size_t)r1 * c1 * sizeof *v) == 0)));
}

static bool one(void *ctx, Guard *g) {
    Job *j = ctx;
    j->a = arena_open(env_posix(), g);
    const Config *c = config_load(j->a, &j->m.env, "c.yaml", NULL, 0, j->d);
    Sbuf b;
    sb_init(&b, j->a);
    if (!c) {
        same(j->d->nerror != 0);
        diags_render(j->d, &b, true);
        return true;
    }
    config_show(c, &b, false);
    j->m.text = b.s;
    j->m.size = b.len;
    const Config *k = config_load(j->a, &j->m.env, "c.yaml", NULL, 0, j->d);
    same(k != NULL);
    compare(j, c, k);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Job j = {.m = {.env = *env_posix(), .text = (const char *)data, .size = size},
             .d = diags_open(env_posix())};
    j.m.env.open_read = mem_open;
    j.m.env.close = mem_close;
    j.m.env.fstat = mem_fstat;
    j.m.env.read = mem_read;
    j.m.env.getenv = mem_getenv;
    if (!guard_run(one, &j, j.d)) __builtin_trap();
    if (j.a) arena_close(j.a);
    diags_close(j.d);
    return 0;
}
