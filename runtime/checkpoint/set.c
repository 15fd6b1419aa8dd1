/* set.c: several safetensors files as one: a directory with SET.safetensors, or with
 * SET.safetensors.index.json and its shards, or with SET-*.safetensors. Names of shards come from a file
 * and are trusted only as plain names. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { INDEX_MOST = 64 << 20, SHARDS_MOST = 10000 };

typedef struct {
    Env *env;
    Arena *a;
    Diags *d;
    const char *dir, *prefix;
    const char **name; /* what was found */
    uint32_t n, cap;
    bool failed;
} Found;

/* A name that stays in its directory: no slash, no control byte, not empty, not . or .. */
bool plain_name(const char *s) {
    if (!*s || !strcmp(s, ".") || !strcmp(s, "..") || strlen(s) > 255) return false;
    for (; *s; s++)
        if (*s == '/' || *s == '\\' || (unsigned char)*s < 0x20 || *s == 0x7f) return false;
    return true;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static bool keep_name(Found *f, const char *name) {
    GROW(f->a, f->name, f->n, f->cap);
    const char *copy = arena_str(f->a, name, strlen(name));
    f->failed = f->failed || f->n >= f->cap || !copy;
    if (f->failed) return false;
    f->name[f->n++] = copy;
    return true;
}

static bool on_entry(void *ctx, const char *name) {
    Found *f = ctx;
    bool fits = ends_with(name, ".safetensors") && !strncmp(name, f->prefix, strlen(f->prefix));
    return !fits || keep_name(f, name);
}

static bool find_files(Found *f) {
    int err = 0;
    f->n = 0;
    if (f->env->list(f->env, f->dir, on_entry, f, &err) < 0)
        return diag_fail(f->d, err == ENOENT ? D002 : R001, NOLOC, "%s: %s", shown(f->d, f->dir),
                         errno_text(err));
    if (f->failed) return diag_fail(f->d, R006, NOLOC, "%s: no memory to list it", shown(f->d, f->dir));
    return true;
}

const char *join(Arena *a, const char *dir, const char *name) {
    return arena_fmt(a, "%s/%s", dir, name);
}

static bool exists(Env *env, const char *path) {
    EnvStat st;
    int err = 0;
    return path && env->stat(env, path, &st, &err) == 0 && st.is_file;
}

static bool add_file(Env *env, Arena *a, const char *path, StSet *s, Diags *d) {
    StFile **more = arena_alloc(a, (s->n + 1) * sizeof *more);
    if (!more || !path) return diag_fail(d, R006, NOLOC, "no memory to open the weights");
    StFile *f = st_open(env, path, d);
    if (!f) return false;
    if (s->n) memcpy(more, s->file, s->n * sizeof *more);
    more[s->n++] = f;
    s->file = more;
    return true;
}

static StFile *open_shard(const StSet *s, const Found *f, const char *name) {
    for (uint32_t i = 0; i < f->n; i++)
        if (!strcmp(f->name[i], name)) return s->file[i];
    return NULL;
}

/* Opens the shards that the index names; each tensor must be where the index says. */
static bool open_index(Found *f, const char *path, StSet *s) {
    char *text = NULL;
    size_t len = 0;
    if (!file_read_all(f->env, f->a, path, INDEX_MOST, &text, &len, f->d)) return false;
    Json *j = json_parse(text, len, path, 1, ST_DEPTH_MOST, f->d, D001);
    if (!j) return false;
    const Json *map = json_get(j, "weight_map"), *v = NULL;
    bool ok =
        json_kind(map) == J_OBJECT || diag_fail(f->d, D001, NOLOC, "%s: no weight_map", shown(f->d, path));
    for (size_t i = 0; ok && i < json_size(map); i++) {
        const char *tensor = json_key_at(map, i, &v), *name = json_string(v, NULL);
        if (!name || !plain_name(name) || !ends_with(name, ".safetensors")) {
            ok = diag_fail(f->d, D001, NOLOC, "%s: '%s' does not lie in a file of this directory",
                           shown(f->d, path), shown(f->d, tensor));
            break;
        }
        StFile *file = open_shard(s, f, name);
        if (!file) {
            if (f->n == SHARDS_MOST)
                ok = diag_fail(f->d, D001, NOLOC, "%s: more than %d files", shown(f->d, path), SHARDS_MOST);
            ok = ok && (keep_name(f, name) || diag_fail(f->d, R006, NOLOC, "no memory to open the weights"));
            ok = ok && add_file(f->env, f->a, join(f->a, f->dir, name), s, f->d);
            if (ok) file = s->file[s->n - 1];
        }
        if (ok && !st_find(file, tensor))
            ok = diag_fail(f->d, D001, NOLOC, "%s: '%s' is not in %s", shown(f->d, path), shown(f->d, tensor),
                           shown(f->d, name));
    }
    json_free(j);
    return ok;
}

/* 1: opened; 0: there is no such set; -1: failed. */
static int open_named(Found *f, const char *set, StSet *s) {
    const char *one = arena_fmt(f->a, "%s/%s.safetensors", f->dir, set);
    const char *index = arena_fmt(f->a, "%s/%s.safetensors.index.json", f->dir, set);
    f->prefix = arena_fmt(f->a, "%s-", set);
    f->n = 0;
    if (exists(f->env, one)) return add_file(f->env, f->a, one, s, f->d) ? 1 : -1;
    if (exists(f->env, index)) return open_index(f, index, s) ? 1 : -1;
    if (!f->prefix || !find_files(f)) return -1;
    for (uint32_t i = 0; i < f->n; i++)
        if (!add_file(f->env, f->a, join(f->a, f->dir, f->name[i]), s, f->d)) return -1;
    return f->n > 0;
}

static bool note_pickle(void *ctx, const char *name) {
    bool *found = ctx;
    *found = *found || ends_with(name, ".pt") || ends_with(name, ".pth") || ends_with(name, ".bin");
    return !*found;
}

static bool nothing_here(Found *f, const char *set) {
    bool pickle = false;
    int err = 0;
    Diag *g = diag_add(
        f->d, D002, NOLOC,
        "%s: no weights: looked for %s%smodel.safetensors, model.safetensors.index.json, model-*.safetensors",
        shown(f->d, f->dir), set ? set : "", set ? "-*.safetensors, " : "");
    (void)f->env->list(f->env, f->dir, note_pickle, &pickle, &err);
    if (pickle)
        diag_help(f->d, g,
                  "files of torch.save run code when they are read; convert them once:\n"
                  "  import torch, glob\n  from safetensors.torch import save_file\n  w = {}\n"
                  "  for f in sorted(glob.glob('*.pt*') + glob.glob('*.bin')):\n"
                  "      w.update(torch.load(f, map_location='cpu', weights_only=True))\n"
                  "  save_file({k: v.contiguous() for k, v in w.items()}, 'model.safetensors')");
    return false;
}

/* The only safetensors file of a directory that is no checkpoint (a checkpoint has sets with names). */
static bool open_only(Found *f, const char *set, StSet *s) {
    if (exists(f->env, join(f->a, f->dir, "MANIFEST.json"))) return nothing_here(f, set);
    f->prefix = "";
    if (!find_files(f)) return false;
    if (f->n == 0) return nothing_here(f, set);
    if (f->n > 1)
        return diag_fail(f->d, D002, NOLOC,
                         "%s: %u safetensors files (%s, %s, ..) and no model.safetensors.index.json that "
                         "says which belong together",
                         shown(f->d, f->dir), f->n, shown(f->d, f->name[0]), shown(f->d, f->name[1]));
    return add_file(f->env, f->a, join(f->a, f->dir, f->name[0]), s, f->d);
}

/* Refuses a tensor that two files of the set hold. */
static bool check_once(const StSet *s, Diags *d) {
    for (uint32_t i = 1; i < s->n; i++)
        for (uint32_t k = 0; k < st_count(s->file[i]); k++)
            for (uint32_t j = 0; j < i; j++)
                if (st_find(s->file[j], st_tensor(s->file[i], k)->name))
                    return diag_fail(d, D001, NOLOC, "%s: tensor '%s' is also in %s",
                                     shown(d, st_path(s->file[i])), shown(d, st_tensor(s->file[i], k)->name),
                                     shown(d, st_path(s->file[j])));
    return true;
}

bool st_open_set(Env *env, Arena *a, const char *path, const char *set, StSet *s, Diags *d) {
    EnvStat st;
    int err = 0, got = 0;
    *s = (StSet){0};
    Found f = {.env = env, .a = a, .d = d, .dir = path};
    if (env->stat(env, path, &st, &err) < 0)
        return diag_fail(d, err == ENOENT || err == ENOTDIR ? D002 : R001, NOLOC, "%s: %s", shown(d, path),
                         errno_text(err));
    bool ok = true;
    if (!st.is_dir) {
        ok = add_file(env, a, path, s, d);
    } else {
        if (set) got = open_named(&f, set, s);
        if (!got && !(set && !strcmp(set, "model"))) got = open_named(&f, "model", s);
        ok = got > 0 || (got == 0 && open_only(&f, set, s));
    }
    ok = ok && check_once(s, d);
    if (!ok) st_close_set(s);
    return ok;
}

void st_close_set(StSet *s) {
    for (uint32_t i = 0; i < s->n; i++) st_close(s->file[i]);
    *s = (StSet){0};
}

const StTensor *st_set_find(const StSet *s, const char *name, StFile **file) {
    for (uint32_t i = 0; i < s->n; i++) {
        const StTensor *t = st_find(s->file[i], name);
        if (t && file) *file = s->file[i];
        if (t) return t;
    }
    return NULL;
}

static int by_name(const void *x, const void *y) {
    return strcmp((*(const StTensor *const *)x)->name, (*(const StTensor *const *)y)->name);
}

uint32_t st_set_list(const StSet *s, Arena *a, const StTensor ***tensor) {
    uint32_t n = 0, k = 0;
    for (uint32_t i = 0; i < s->n; i++) n += st_count(s->file[i]);
    *tensor = NEWN(a, const StTensor *, n + 1);
    if (!*tensor) return 0;
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t t = 0; t < st_count(s->file[i]); t++) (*tensor)[k++] = st_tensor(s->file[i], t);
    if (n) qsort(*tensor, n, sizeof **tensor, by_name);
    return n;
}
