/* ckpt_test.h: what the tests of checkpoints share: small state views, folders for scratch, and an Env that
 * fails. */
#ifndef CKPT_TEST_H
#define CKPT_TEST_H

#include "runtime/runtime.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- folders */
static inline void scratch(char out[256]) {
    snprintf(out, 256, "/tmp/wmtpc-test-XXXXXX");
    cr_assert(mkdtemp(out) != NULL);
}

static inline void wipe(const char *dir) {
    char cmd[600];
    snprintf(cmd, sizeof cmd, "rm -rf -- '%s'", dir);
    cr_assert(system(cmd) == 0);
}

static inline char *slurp(const char *path, size_t *n) {
    FILE *f = fopen(path, "rb");
    cr_assert(f != NULL, "%s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *p = malloc(*n + 1);
    cr_assert(fread(p, 1, *n, f) == *n);
    p[*n] = 0;
    fclose(f);
    return p;
}

static inline void spit(const char *path, const void *p, size_t n) {
    FILE *f = fopen(path, "wb");
    cr_assert(f != NULL, "%s", path);
    cr_assert(fwrite(p, 1, n, f) == n);
    fclose(f);
}

static inline bool diags_say(const Diags *d, const char *text) {
    for (uint32_t i = 0; i < d->n; i++)
        if (strstr(d->item[i]->text, text) || (d->item[i]->help && strstr(d->item[i]->help, text)))
            return true;
    return false;
}

static inline void show(const Diags *d) {
    for (uint32_t i = 0; i < d->n; i++)
        fprintf(stderr, "  %s: %s\n", code_info[d->item[i]->code].name, d->item[i]->text);
}

/* ---- a view: two trained models, a frozen one, moments, states of the graph */
enum { TEST_ROWS = 14 };
typedef struct {
    PlanState row[TEST_ROWS];
    void *mem[TEST_ROWS];
    uint32_t n;
    StateView v;
} TestView;

static inline void *test_mem(void *ctx, uint32_t i) {
    return ((TestView *)ctx)->mem[i];
}

static inline PlanState *add_row(TestView *t, const char *model, const char *name, const char *hf,
                                 const char *axes, const char *halves, const char *role, bool trained,
                                 PlanDType dt) {
    PlanState *s = &t->row[t->n++];
    *s = (PlanState){.model = model,
                     .name = name,
                     .hf = hf,
                     .axes = axes,
                     .halves = halves,
                     .role = role,
                     .trained = trained,
                     .dtype = dt,
                     .init = "normal:0,1"};
    s->stream = stream_of(name) + t->n;
    return s;
}

static inline PlanState *dims(PlanState *s, uint32_t n, const char *const *name, const int64_t *size) {
    s->ndim = n;
    for (uint32_t i = 0; i < n; i++) s->dim[i] = name[i], s->size[i] = size[i];
    return s;
}

/* seed gives the contents. */
static inline TestView *test_view(uint64_t seed) {
    static const char *const wq[] = {"qh", "hd", "hidden"}, *const head[] = {"vocab", "hidden"},
                             *const three[] = {"three"};
    static const int64_t wq_size[] = {2, 4, 6}, head_size[] = {5, 6}, three_size[] = {3};
    TestView *t = calloc(1, sizeof *t);
    for (int m = 0; m < 3; m++) {
        static const char *const role[] = {"param", "exp_avg", "exp_avg_sq"};
        dims(add_row(t, "policy", "layers.0.attention.wq.weight", "model.layers.0.self_attn.q_proj.weight",
                     "(qh,hd),hidden", "hf=hd", role[m], true, PD_F32),
             3, wq, wq_size);
        dims(add_row(t, "policy", "output.weight", "lm_head.weight", "vocab,hidden", "", role[m], true,
                     PD_F32),
             2, head, head_size);
        dims(add_row(t, "policy", "norm.weight", "model.norm.weight", m ? "" : "hidden", "", role[m], true,
                     PD_F32),
             1, head + 1, head_size + 1);
    }
    dims(add_row(t, "value", "linear.weight", "", "1,hidden", "", "param", true, PD_F64), 1, head + 1,
         head_size + 1);
    dims(add_row(t, "value", "linear.weight", "", "1,hidden", "", "momentum", true, PD_F64), 1, head + 1,
         head_size + 1);
    dims(add_row(t, "ref", "norm.weight", "model.norm.weight", "hidden", "", "param", false, PD_F32), 1,
         head + 1, head_size + 1);
    add_row(t, "", "mean", "", "", "", "user", false, PD_F64);
    dims(add_row(t, "", "cut", "", "", "", "user", false, PD_F32), 1, three, three_size);
    t->v = (StateView){t->row, t->n, test_mem, t};
    Diags *d = diags_open(env_posix());
    for (uint32_t i = 0; i < t->n; i++) {
        t->mem[i] = calloc((size_t)state_elements(&t->row[i]) + 1, 8);
        cr_assert(state_init(&t->row[i], !strcmp(t->row[i].model, "ref") ? 7 : seed, t->mem[i], d));
    }
    diags_close(d);
    return t;
}

static inline void test_view_free(TestView *t) {
    for (uint32_t i = 0; i < t->n; i++) free(t->mem[i]);
    free(t);
}

static inline bool same_view(const TestView *a, const TestView *b) {
    for (uint32_t i = 0; i < a->n; i++)
        if (memcmp(a->mem[i], b->mem[i], (size_t)state_bytes(&a->row[i]))) return false;
    return true;
}

/* ---- an Env whose call number `at` fails; with `dead`, all later ones too and none has an effect */
typedef struct {
    Env env;
    Env *real;
    int64_t calls, at, allocs, alloc_at;
    bool dead;
    int err;
    char trace[1024]; /* o: new file, s: fsync, d: fsync of a folder, r: rename */
} Fault;

static inline bool hit(Env *e, int *err) {
    Fault *f = (Fault *)e;
    f->calls++;
    bool bad = f->at && (f->dead ? f->calls >= f->at : f->calls == f->at);
    if (bad) *err = f->err;
    return bad;
}
static inline void note(Env *e, char what) {
    Fault *f = (Fault *)e;
    size_t n = strlen(f->trace);
    if (n + 1 < sizeof f->trace) f->trace[n] = what;
}
#define REAL(e) (((Fault *)(e))->real)
static inline void *f_alloc(Env *e, size_t n) {
    Fault *f = (Fault *)e;
    return ++f->allocs == f->alloc_at ? NULL : f->real->alloc(f->real, n);
}
static inline void f_free(Env *e, void *p) {
    REAL(e)->free(REAL(e), p);
}
static inline int f_open_read(Env *e, const char *p, int *r) {
    return hit(e, r) ? -1 : REAL(e)->open_read(REAL(e), p, r);
}
static inline int f_open_new(Env *e, const char *p, uint32_t m, int *r) {
    note(e, 'o');
    return hit(e, r) ? -1 : REAL(e)->open_new(REAL(e), p, m, r);
}
static inline int f_open_append(Env *e, const char *p, uint32_t m, int *r) {
    return hit(e, r) ? -1 : REAL(e)->open_append(REAL(e), p, m, r);
}
static inline int64_t f_read(Env *e, int fd, void *p, size_t n, int *r) {
    return hit(e, r) ? -1 : REAL(e)->read(REAL(e), fd, p, n, r);
}
static inline int64_t f_pread(Env *e, int fd, void *p, size_t n, int64_t o, int *r) {
    return hit(e, r) ? -1 : REAL(e)->pread(REAL(e), fd, p, n, o, r);
}
/* A failing write has written half: what is there must not count. */
static inline int64_t f_write(Env *e, int fd, const void *p, size_t n, int *r) {
    Fault *f = (Fault *)e;
    int ignored;
    bool past = f->dead && f->at && f->calls >= f->at;
    if (!hit(e, r)) return REAL(e)->write(REAL(e), fd, p, n, r);
    if (!past && n > 1) REAL(e)->write(REAL(e), fd, p, n / 2, &ignored);
    return -1;
}
static inline int f_fsync(Env *e, int fd, int *r) {
    note(e, 's');
    return hit(e, r) ? -1 : REAL(e)->fsync(REAL(e), fd, r);
}
static inline int f_close(Env *e, int fd, int *r) {
    int ignored, done = REAL(e)->close(REAL(e), fd, &ignored);
    return hit(e, r) ? -1 : done;
}
static inline int f_fstat(Env *e, int fd, EnvStat *s, int *r) {
    return hit(e, r) ? -1 : REAL(e)->fstat(REAL(e), fd, s, r);
}
static inline int f_lstat(Env *e, const char *p, EnvStat *s, int *r) {
    return hit(e, r) ? -1 : REAL(e)->lstat(REAL(e), p, s, r);
}
static inline int f_stat(Env *e, const char *p, EnvStat *s, int *r) {
    return hit(e, r) ? -1 : REAL(e)->stat(REAL(e), p, s, r);
}
static inline int f_rename(Env *e, const char *a, const char *b, int *r) {
    note(e, 'r');
    return hit(e, r) ? -1 : REAL(e)->rename(REAL(e), a, b, r);
}
static inline int f_unlink(Env *e, const char *p, int *r) {
    return hit(e, r) ? -1 : REAL(e)->unlink(REAL(e), p, r);
}
static inline int f_mkdir(Env *e, const char *p, uint32_t m, int *r) {
    return hit(e, r) ? -1 : REAL(e)->mkdir(REAL(e), p, m, r);
}
static inline int f_rmdir(Env *e, const char *p, int *r) {
    return hit(e, r) ? -1 : REAL(e)->rmdir(REAL(e), p, r);
}
static inline int f_fsync_dir(Env *e, const char *p, int *r) {
    note(e, 'd');
    return hit(e, r) ? -1 : REAL(e)->fsync_dir(REAL(e), p, r);
}
static inline int f_list(Env *e, const char *p, bool (*fn)(void *, const char *), void *c, int *r) {
    return hit(e, r) ? -1 : REAL(e)->list(REAL(e), p, fn, c, r);
}

static inline void fault_open(Fault *f) {
    *f = (Fault){.env = *env_posix(), .real = env_posix(), .err = EIO};
    Env *e = &f->env;
    e->alloc = f_alloc, e->free = f_free, e->open_read = f_open_read, e->open_new = f_open_new,
    e->open_append = f_open_append;
    e->read = f_read, e->pread = f_pread, e->write = f_write, e->fsync = f_fsync, e->close = f_close,
    e->fstat = f_fstat;
    e->lstat = f_lstat, e->stat = f_stat, e->rename = f_rename, e->unlink = f_unlink, e->mkdir = f_mkdir,
    e->rmdir = f_rmdir;
    e->fsync_dir = f_fsync_dir, e->list = f_list;
}

#endif
