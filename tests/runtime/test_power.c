/* Power loss: what a save does to the disk is recorded, and disks are made that a crash after any of these
 * operations could leave: writes that were not fsynced are missing, torn at 512 bytes or there; entries of
 * folders that were not fsynced are there or not. The newest checkpoint must then be the old or the new one,
 * whole; a reported one must stay. Leaving any single fsync out of the record must be noticed. */
#include "ckpt_test.h"

enum { OPS = 512, FILES = 64 };
typedef enum { MAKE_DIR, CREATE, WRITE, SYNC, SYNC_DIR, RENAME } Kind;
typedef struct {
    Kind kind;
    int file;
    char path[300], to[300];
    char *data;
    size_t n;
} Op;
typedef struct {
    Env env;
    Env *real;
    Op op[OPS];
    int n, nfile, of_fd[1024];
} Record;

static Op *add(Env *e, Kind kind, const char *path) {
    Record *r = (Record *)e;
    cr_assert(r->n < OPS);
    Op *op = &r->op[r->n++];
    op->kind = kind;
    snprintf(op->path, sizeof op->path, "%s", path);
    return op;
}

static int r_open_new(Env *e, const char *p, uint32_t m, int *err) {
    Record *r = (Record *)e;
    int fd = r->real->open_new(r->real, p, m, err);
    cr_assert(fd >= 0 && fd < 1024 && r->nfile < FILES);
    r->of_fd[fd] = r->nfile;
    add(e, CREATE, p)->file = r->nfile++;
    return fd;
}
static int64_t r_write(Env *e, int fd, const void *p, size_t n, int *err) {
    Record *r = (Record *)e;
    Op *op = add(e, WRITE, "");
    op->file = r->of_fd[fd];
    op->data = malloc(n);
    memcpy(op->data, p, n);
    op->n = n;
    return r->real->write(r->real, fd, p, n, err);
}
static int r_fsync(Env *e, int fd, int *err) {
    Record *r = (Record *)e;
    add(e, SYNC, "")->file = r->of_fd[fd];
    return r->real->fsync(r->real, fd, err);
}
static int r_fsync_dir(Env *e, const char *p, int *err) {
    return add(e, SYNC_DIR, p), ((Record *)e)->real->fsync_dir(env_posix(), p, err);
}
static int r_mkdir(Env *e, const char *p, uint32_t m, int *err) {
    return add(e, MAKE_DIR, p), ((Record *)e)->real->mkdir(env_posix(), p, m, err);
}
static int r_rename(Env *e, const char *a, const char *b, int *err) {
    snprintf(add(e, RENAME, a)->to, 300, "%s", b);
    return ((Record *)e)->real->rename(env_posix(), a, b, err);
}

static uint64_t draw(uint64_t *s) {
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return *s >> 33;
}

/* Content of a file after a crash behind op `end`: whole up to its last fsync, anything after that. */
static void put_file(const Record *r, int file, int end, int skip, const char *path, uint64_t *seed) {
    char *all = malloc(1 << 20);
    size_t n = 0, safe = 0;
    for (int i = 0; i < end; i++) {
        const Op *op = &r->op[i];
        if (op->file != file) continue;
        if (op->kind == WRITE) memcpy(all + n, op->data, op->n), n += op->n;
        if (op->kind == SYNC && i != skip) safe = n;
    }
    size_t keep = n;
    if (safe < n) {
        int how = (int)(draw(seed) % 4);
        if (how == 0) keep = safe;
        if (how == 1) keep = safe + (n - safe) / 512 * 512;
        for (size_t at = safe; how == 2 && at < n; at += 512) /* pages that never reached the disk */
            if (draw(seed) % 2) memset(all + at, 0, n - at < 512 ? n - at : 512);
    }
    spit(path, all, keep);
    free(all);
}

/* Makes in `disk` what a crash behind op `end` left of the save. */
static void crash(const Record *r, int end, int skip, const char *disk, uint64_t *seed) {
    const Op *made = NULL;
    int moved = -1, parent_safe = -1, inner_safe = -1;
    for (int i = 0; i < end; i++) {
        const Op *op = &r->op[i];
        if (op->kind == MAKE_DIR) made = op;
        if (op->kind == RENAME) moved = i;
        if (op->kind == SYNC_DIR && i != skip && made && !strcmp(op->path, made->path))
            inner_safe = i;
        else if (op->kind == SYNC_DIR && i != skip)
            parent_safe = i;
    }
    if (!made) return;
    bool final = moved >= 0 && (parent_safe > moved || draw(seed) % 2);
    if (!final && draw(seed) % 2) return; /* not even the temporary folder is there */
    char dir[400], path[800];
    const char *name = strrchr(final ? r->op[moved].to : made->path, '/');
    snprintf(dir, sizeof dir, "%s%s", disk, name);
    cr_assert(mkdir(dir, 0777) == 0);
    for (int i = 0; i < end; i++) {
        const Op *op = &r->op[i];
        if (op->kind != CREATE || (inner_safe < i && draw(seed) % 2)) continue;
        snprintf(path, sizeof path, "%s%s", dir, strrchr(op->path, '/'));
        put_file(r, op->file, end, skip, path, seed);
    }
}

typedef struct {
    TestView *one, *two;
    Record *r;
    char base[256];
} Saved;

static Saved saved(void) {
    static const CkptModel model[] = {{.name = "policy"}, {.name = "value"}, {.name = "ref"}};
    Saved s = {test_view(1), test_view(2), calloc(1, sizeof(Record)), ""};
    Diags *d = diags_open(env_posix());
    scratch(s.base);
    Owner *o = owner_take(env_posix(), s.base, d);
    CkptInfo info = {.step = 1, .model = model, .nmodel = 3};
    cr_assert(o && ckpt_save(env_posix(), s.base, o, &s.one->v, &info, 0, d));
    s.r->env = *env_posix();
    s.r->real = env_posix();
    Env *e = &s.r->env;
    e->open_new = r_open_new, e->write = r_write, e->fsync = r_fsync, e->fsync_dir = r_fsync_dir,
    e->mkdir = r_mkdir, e->rename = r_rename;
    info.step = 2;
    cr_assert(ckpt_save(e, s.base, o, &s.two->v, &info, 0, d) && s.r->n > 30);
    owner_release(o);
    char cmd[400];
    snprintf(cmd, sizeof cmd, "rm -r '%s/step-000002'", s.base);
    cr_assert(system(cmd) == 0);
    diags_close(d);
    return s;
}

static void saved_free(Saved *s) {
    for (int i = 0; i < s->r->n; i++) free(s->r->op[i].data);
    free(s->r);
    test_view_free(s->one);
    test_view_free(s->two);
    wipe(s->base);
}

/* Whether a run that starts after such a crash finds what it must. */
static bool survives(const Saved *s, int end, int skip, uint64_t seed) {
    char disk[256], from[300], to[700];
    const char *path = NULL;
    int64_t step = -1;
    CkptInfo info;
    scratch(disk);
    snprintf(from, sizeof from, "%s/step-000001", s->base);
    snprintf(to, sizeof to, "cp -r '%s' '%s/'", from, disk);
    cr_assert(system(to) == 0);
    crash(s->r, end, skip, disk, &seed);
    Diags *d = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    TestView *t = test_view(9);
    bool ok = ckpt_find(env_posix(), disk, INT64_MAX, a, &path, &step, d) && path &&
              ckpt_verify(env_posix(), path, d) && ckpt_load(env_posix(), path, &t->v, a, &info, d) &&
              same_view(t, step == 2 ? s->two : s->one);
    ok = ok && (end < s->r->n || step == 2);
    test_view_free(t);
    arena_close(a);
    diags_close(d);
    wipe(disk);
    return ok;
}

Test(power, old_or_new_after_a_crash_behind_any_operation) {
    Saved s = saved();
    for (int end = 0; end <= s.r->n; end++)
        for (uint64_t k = 0; k < 4; k++)
            cr_assert(survives(&s, end, -1, k * 1000 + (uint64_t)end), "behind op %d of %d, seed %d", end,
                      s.r->n, (int)k);
    saved_free(&s);
}

Test(power, every_fsync_is_needed) {
    Saved s = saved();
    int fsyncs = 0;
    for (int i = 0; i < s.r->n; i++) {
        if (s.r->op[i].kind != SYNC && s.r->op[i].kind != SYNC_DIR) continue;
        bool noticed = false;
        for (uint64_t k = 0; !noticed && k < 40; k++) noticed = !survives(&s, s.r->n, i, k);
        cr_assert(noticed, "operation %d can be left out", i);
        fsyncs++;
    }
    cr_assert(fsyncs == 9 + 2, "%d", fsyncs);
    saved_free(&s);
}
