/* resume.c: finds, checks and loads checkpoints. There is no file that says which is the newest: the names
 * do.
 *
 * Verifying reads every byte and names the file and tensor that differ from the manifest. Loading checks
 * all states of the graph against all tensors of the checkpoint, both ways, before it changes the first
 * byte of memory. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <string.h>

enum { CHUNK = 1 << 20 };

/* ---- finding */

typedef struct {
    int64_t below, best;
} Newest;

static bool on_step(void *ctx, const char *name) {
    Newest *n = ctx;
    int64_t step;
    if (step_name(name, &step) && step < n->below && step > n->best) n->best = step;
    return true;
}

bool ckpt_find(Env *env, const char *dir, int64_t below, Arena *a, const char **path, int64_t *step,
               Diags *d) {
    Newest n = {below, -1};
    int err = 0;
    *path = NULL;
    if (env->list(env, dir, on_step, &n, &err) < 0) {
        bool gone = err == ENOENT;
        return diag_fail(d, gone ? D002 : R001, NOLOC, "%s: %s", shown(d, dir), errno_text(err));
    }
    if (n.best < 0) return true;
    *step = n.best;
    *path = arena_fmt(a, "%s/step-%06lld", dir, (long long)n.best);
    return *path || diag_fail(d, R006, NOLOC, "no memory to look for checkpoints");
}

/* ---- verifying */

/* XXH3-128 of `bytes` bytes of an open file from `at` on. */
static bool hash_range(Env *env, int fd, int64_t at, int64_t bytes, char *piece, char hex[33], int *err) {
    Hash128 h;
    hash128_start(&h);
    while (bytes > 0) {
        size_t n = bytes < CHUNK ? (size_t)bytes : CHUNK;
        if (!pread_full(env, fd, piece, n, at, err)) return false;
        hash128_put(&h, piece, n);
        at += (int64_t)n;
        bytes -= (int64_t)n;
    }
    hash128_end(&h, hex);
    return true;
}

static const LogTensor *listed(const LogFile *f, const char *name) {
    for (uint32_t lo = 0, hi = f->ntensor; lo < hi;) { /* set_write sorts them */
        uint32_t mid = lo + (hi - lo) / 2;
        int c = strcmp(f->tensor[mid].name, name);
        if (c == 0) return &f->tensor[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static bool hash_tensor(StFile *f, const StTensor *t, char *piece, char hex[33], Diags *d) {
    Hash128 h;
    int64_t size = t->end - t->begin;
    hash128_start(&h);
    for (int64_t at = 0; at < size; at += CHUNK) {
        int64_t n = size - at < CHUNK ? size - at : CHUNK;
        if (!st_read(f, t, piece, at, n, d)) return false;
        hash128_put(&h, piece, (size_t)n);
    }
    hash128_end(&h, hex);
    return true;
}

/* The file as a whole differs from the manifest: says which tensor does, or that it is the header. */
static bool blame(Env *env, const char *path, const LogFile *file, char *piece, Diags *d) {
    char hex[33];
    bool found = false;
    if (!file->ntensor)
        return diag_fail(d, D001, NOLOC, "%s: damaged: its hash does not fit the manifest", shown(d, path));
    StFile *f = st_open(env, path, d);
    if (!f) return false;
    for (uint32_t i = 0; i < st_count(f); i++) {
        const StTensor *t = st_tensor(f, i);
        const LogTensor *want = listed(file, t->name);
        if (want && (!hash_tensor(f, t, piece, hex, d) || !strcmp(hex, want->hash))) continue;
        found = true;
        (void)diag_fail(d, D001, NOLOC, "%s: tensor '%s' is damaged: its hash does not fit the manifest",
                        shown(d, path), shown(d, t->name));
    }
    st_close(f);
    return found ? false
                 : diag_fail(d, D001, NOLOC, "%s: damaged: the header does not fit the manifest",
                             shown(d, path));
}

/* Header and manifest must list the same tensors. */
static bool check_tensors(Env *env, const char *path, const LogFile *file, Diags *d) {
    StFile *f = file->ntensor ? st_open(env, path, d) : NULL;
    if (!f) return !file->ntensor;
    bool ok = st_count(f) == file->ntensor;
    for (uint32_t i = 0; ok && i < st_count(f); i++) ok = listed(file, st_tensor(f, i)->name) != NULL;
    st_close(f);
    return ok || diag_fail(d, D001, NOLOC, "%s: holds other tensors than the manifest says", shown(d, path));
}

static bool check_bytes(Env *env, const char *path, const LogFile *file, char *piece, Diags *d) {
    char hex[33];
    int err = 0, fd = env->open_read(env, path, &err);
    if (fd < 0) return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, path), errno_text(err));
    bool read = hash_range(env, fd, 0, file->bytes, piece, hex, &err);
    int ignored = 0;
    (void)env->close(env, fd, &ignored);
    if (!read && err) return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, path), errno_text(err));
    if (!read) return diag_fail(d, D001, NOLOC, "%s: cut while it was read", shown(d, path));
    return !strcmp(hex, file->hash) ? check_tensors(env, path, file, d) : blame(env, path, file, piece, d);
}

static bool verify_file(Env *env, Arena *a, const char *dir, const LogFile *file, char *piece, Diags *d) {
    EnvStat st;
    const char *path = join(a, dir, file->name);
    if (!real_entry(env, path, false, &st, d)) return false;
    if (st.size != file->bytes)
        return diag_fail(d, D001, NOLOC, "%s: has %lld bytes, the manifest says %lld", shown(d, path),
                         (long long)st.size, (long long)file->bytes);
    return check_bytes(env, path, file, piece, d);
}

bool ckpt_verify(Env *env, const char *path, Diags *d) {
    Manifest m;
    EnvStat st;
    int64_t step;
    int err = 0;
    if (env->lstat(env, path, &st, &err) < 0 && err == ENOENT)
        return diag_fail(d, D002, NOLOC, "%s: there is no checkpoint", shown(d, path));
    Arena *a = arena_open(env, NULL);
    char *piece = env->alloc(env, CHUNK);
    const char *slash = strrchr(path, '/');
    bool ok = (a && piece) || diag_fail(d, R006, NOLOC, "no memory to verify %s", path);
    ok = ok && manifest_read(env, a, path, &m, d);
    if (ok && step_name(slash ? slash + 1 : path, &step) && step != m.step)
        ok = diag_fail(d, D001, NOLOC, "%s: its manifest is that of step %lld", shown(d, path),
                       (long long)m.step);
    for (uint32_t i = 0; ok && i < m.n; i++) ok = verify_file(env, a, path, &m.file[i], piece, d);
    env->free(env, piece);
    arena_close(a);
    return ok;
}

/* ---- loading */

typedef struct {
    StFile *file;
    const StTensor *tensor;
    const PlanState *row; /* as stored */
} Source;

typedef struct {
    Env *env;
    Arena *a;
    const char *path;
    const StateView *v;
    CkptInfo *info;
    StSet *set;        /* one for each set of the checkpoint */
    const char **name; /* "model", "value", "optimizer", "state" */
    uint32_t nset;
    Source *source; /* of each row; tensor NULL for what is not stored */
    uint32_t taken; /* rows with a tensor */
    Diags *d;
} Loading;

static bool no_memory(const Loading *l) {
    return diag_fail(l->d, R006, NOLOC, "no memory to load %s", l->path);
}

/* The set called `name`, opened once; it may be empty. */
static StSet *open_named(Loading *l, const char *name) {
    EnvStat st;
    int err = 0;
    for (uint32_t i = 0; i < l->nset; i++)
        if (!strcmp(l->name[i], name)) return &l->set[i];
    const char *index = arena_fmt(l->a, "%s/%s.safetensors.index.json", l->path, name);
    const char *one = arena_fmt(l->a, "%s/%s.safetensors", l->path, name);
    if (!index || !one) {
        (void)no_memory(l);
        return NULL;
    }
    bool there = l->env->lstat(l->env, index, &st, &err) == 0 || l->env->lstat(l->env, one, &st, &err) == 0;
    StSet *s = &l->set[l->nset];
    l->name[l->nset] = name;
    *s = (StSet){0};
    if (there && !st_open_set(l->env, l->a, l->path, name, s, l->d)) return NULL;
    l->nset++;
    return s;
}

static bool stored_here(const Loading *l, const PlanState *s) {
    return !state_is(s, "param") || model_trained(l->v, s->model);
}

static bool fits(const Loading *l, const PlanState *row, const StTensor *t) {
    int64_t shape[PLAN_MAX_DIMS];
    uint32_t n;
    state_stored_shape(row, shape, &n);
    bool same = n == t->ndim && !memcmp(shape, t->shape, n * sizeof *shape);
    if (same && !strcmp(t->dtype, state_dtype_text(row->dtype))) return true;
    return diag_fail(l->d, R008, NOLOC, "%s: '%s' is stored with another %s than this run gives it",
                     shown(l->d, l->path), shown(l->d, t->name), same ? "dtype" : "shape");
}

static bool find_source(Loading *l, uint32_t i) {
    const PlanState *row = stored_row(l->a, l->v, i);
    bool param = row && state_is(row, "param");
    const char *name = !row ? NULL : param ? state_name(row, NAMES_HF) : extra_name(l->a, row);
    if (!name) return no_memory(l);
    StSet *s = open_named(l, param                   ? model_set(l->v, l->info, row->model)
                             : state_is(row, "user") ? "state"
                                                     : "optimizer");
    if (!s) return false;
    Source *src = &l->source[i];
    src->row = row;
    src->tensor = st_set_find(s, name, &src->file);
    l->taken += src->tensor != NULL;
    if (src->tensor) return fits(l, row, src->tensor);
    Diag *g = diag_add(l->d, R008, NOLOC, "%s: '%s%s%s' (%s) of this run is not in the checkpoint",
                       shown(l->d, l->path), row->model, row->model[0] ? "/" : "", row->name, row->role);
    diag_help(
        l->d, g,
        "a run continues with the graph and training settings it was saved with; to start from its weights, "
        "give the checkpoint as models.NAME.path of a new run");
    return false;
}

static bool frozen_same(const Loading *l, const char *model) {
    char hex[33];
    if (!model_hash(l->v, l->env, model, hex, l->d)) return false;
    for (uint32_t i = 0; i < l->info->nmodel; i++)
        if (!strcmp(l->info->model[i].name, model) && !strcmp(l->info->model[i].hash, hex)) return true;
    return diag_fail(l->d, R008, NOLOC,
                     "%s: the frozen model '%s' is another one than the run was trained with",
                     shown(l->d, l->path), model);
}

static bool check_frozen(const Loading *l) {
    bool ok = true;
    for (uint32_t i = 0; i < l->v->n; i++) {
        const PlanState *s = &l->v->row[i];
        bool first = state_is(s, "param") && !model_trained(l->v, s->model);
        for (uint32_t k = 0; first && k < i; k++)
            first = strcmp(l->v->row[k].model, s->model) || !state_is(&l->v->row[k], "param");
        if (first) ok = frozen_same(l, s->model) && ok;
    }
    return ok;
}

/* A model that was trained when the checkpoint was made and is unknown or frozen now would be lost in
 * silence. */
static bool check_models(Loading *l) {
    bool ok = true;
    for (uint32_t i = 0; i < l->info->nmodel; i++) {
        const CkptModel *m = &l->info->model[i];
        if (m->hash[0] || model_trained(l->v, m->name)) continue;
        ok = diag_fail(l->d, R008, NOLOC,
                       "%s: model '%s' was trained in the run that is to go on, here it is not",
                       shown(l->d, l->path), shown(l->d, m->name));
    }
    return ok;
}

/* Every tensor of the checkpoint must have found its row. */
static bool check_leftover(Loading *l) {
    uint32_t stored = 0;
    if (!open_named(l, "optimizer") || !open_named(l, "state")) return false;
    for (uint32_t i = 0; i < l->nset; i++)
        for (uint32_t k = 0; k < l->set[i].n; k++) stored += st_count(l->set[i].file[k]);
    if (stored == l->taken) return true;
    for (uint32_t i = 0; i < l->nset; i++)
        for (uint32_t k = 0; k < l->set[i].n; k++)
            for (uint32_t t = 0; t < st_count(l->set[i].file[k]); t++) {
                const StTensor *x = st_tensor(l->set[i].file[k], t);
                bool used = false;
                for (uint32_t r = 0; !used && r < l->v->n; r++) used = l->source[r].tensor == x;
                if (!used)
                    return diag_fail(l->d, R008, NOLOC,
                                     "%s: '%s' (%s) is in the checkpoint, but this run has no such state",
                                     shown(l->d, l->path), shown(l->d, x->name), l->name[i]);
            }
    return diag_fail(l->d, R008, NOLOC, "%s: two states of this run are one tensor of the checkpoint",
                     shown(l->d, l->path));
}

static bool load(Loading *l) {
    bool ok = true;
    l->set = NEWN(l->a, StSet, l->v->n + 4);
    l->name = NEWN(l->a, const char *, l->v->n + 4);
    l->source = NEWN(l->a, Source, l->v->n + 1);
    if (!l->set || !l->name || !l->source) return no_memory(l);
    for (uint32_t i = 0; i < l->v->n; i++)
        if (stored_here(l, &l->v->row[i])) ok = find_source(l, i) && ok;
    ok = ok && check_models(l) && check_leftover(l) && check_frozen(l);
    for (uint32_t i = 0; ok && i < l->v->n; i++) {
        const Source *s = &l->source[i];
        if (s->tensor)
            ok = row_load(l->env, s->row, NAMES_HF, s->file, s->tensor, l->v->mem(l->v->ctx, i), l->d);
    }
    return ok;
}

bool ckpt_load(Env *env, const char *path, const StateView *v, Arena *a, CkptInfo *info, Diags *d) {
    Loading l = {.env = env, .path = path, .v = v, .info = info, .d = d};
    if (!ckpt_read_info(env, path, a, info, d)) return false;
    l.a = arena_open(env, NULL);
    bool ok = l.a ? load(&l) : no_memory(&l);
    for (uint32_t i = 0; i < l.nset; i++) st_close_set(&l.set[i]);
    arena_close(l.a);
    return ok;
}
