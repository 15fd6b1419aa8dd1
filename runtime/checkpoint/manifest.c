/* manifest.c: MANIFEST.json, the list of what a checkpoint holds: files with size and XXH3-128, tensors
 * with theirs, the states they came from, and last the hash of the text before it. Read as untrusted text
 * like any other file. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <string.h>

enum { MANIFEST_MOST = 256 << 20, MANIFEST_DEPTH = 8, FILES_MOST = 1 << 20 };
static const char hash_key[] = ",\n \"hash\": \"", hash_end[] = "\"\n}\n";
enum { TAIL = sizeof hash_key - 1 + 32 + sizeof hash_end - 1 };

static void put_text(Sbuf *b, const char *key, const char *value) {
    sb_fmt(b, ",\n \"%s\": ", key);
    if (value)
        json_quote(b, value, strlen(value));
    else
        sb_str(b, "null");
}

static void put_shape(Sbuf *b, const int64_t *shape, uint32_t n) {
    sb_str(b, "\"shape\": [");
    for (uint32_t i = 0; i < n; i++) sb_fmt(b, "%s%lld", i ? ", " : "", (long long)shape[i]);
    sb_chr(b, ']');
}

static void put_file(Sbuf *b, const LogFile *f) {
    sb_str(b, "  {\"name\": ");
    json_quote(b, f->name, strlen(f->name));
    sb_fmt(b, ", \"bytes\": %lld, \"xxh3\": \"%s\", \"tensors\": [", (long long)f->bytes, f->hash);
    for (uint32_t i = 0; i < f->ntensor; i++) {
        const LogTensor *t = &f->tensor[i];
        sb_str(b, i ? ",\n   {\"name\": " : "\n   {\"name\": ");
        json_quote(b, t->name, strlen(t->name));
        sb_fmt(b, ", \"dtype\": \"%s\", ", t->dtype);
        put_shape(b, t->shape, t->ndim);
        sb_fmt(b, ", \"xxh3\": \"%s\"}", t->hash);
    }
    sb_str(b, "]}");
}

bool manifest_write(FileLog *l, const Manifest *m, const StateView *v, Diags *d) {
    Sbuf b;
    char hash[33];
    sb_init(&b, l->a);
    sb_fmt(&b, "{\n \"format\": \"wmtpc-checkpoint\",\n \"version\": 1,\n \"step\": %lld,\n \"epoch\": %lld",
           (long long)m->step, (long long)m->epoch);
    put_text(&b, "run", m->run);
    put_text(&b, "graph", m->graph);
    put_text(&b, "plan", m->plan);
    sb_str(&b, ",\n \"files\": [");
    for (uint32_t i = 0; i < l->n; i++) {
        sb_str(&b, i ? ",\n" : "\n");
        put_file(&b, &l->file[i]);
    }
    sb_str(&b, "],\n \"states\": [");
    for (uint32_t i = 0; i < v->n; i++) {
        const PlanState *s = &v->row[i];
        const char *key = state_key(l->a, s, NAMES_META);
        int64_t shape[PLAN_MAX_DIMS];
        uint32_t n;
        state_stored_shape(s, shape, &n);
        sb_fmt(&b, "%s\n  {\"role\": \"%s\", \"dtype\": \"%s\", ", i ? "," : "", s->role,
               state_dtype_text(s->dtype));
        put_shape(&b, shape, n);
        sb_str(&b, ", \"name\": ");
        json_quote(&b, key ? key : "", key ? strlen(key) : 0);
        sb_chr(&b, '}');
        b.failed |= !key;
    }
    sb_chr(&b, ']');
    if (!b.failed) hash128_hex(b.s, b.len, hash);
    if (!b.failed) sb_fmt(&b, "%s%s%s", hash_key, hash, hash_end);
    if (b.failed) return diag_fail(d, R006, NOLOC, "no memory for the manifest of %s", l->dir);
    return log_write(l, "MANIFEST.json", b.s, b.len, d);
}

/* ---- reading */

static bool check_own_hash(const char *text, size_t len, const char *path, Diags *d) {
    char hash[33];
    const char *tail = text + len - TAIL;
    bool form = len > TAIL && !memcmp(tail, hash_key, sizeof hash_key - 1) &&
                !memcmp(text + len - (sizeof hash_end - 1), hash_end, sizeof hash_end - 1);
    if (form) hash128_hex(text, len - TAIL, hash);
    if (form && !memcmp(tail + sizeof hash_key - 1, hash, 32)) return true;
    return diag_fail(d, D001, NOLOC, "%s: damaged: %s", shown(d, path),
                     form ? "its own hash does not fit" : "it does not end with its hash");
}

static const char *copy_text(Arena *a, const Json *j) {
    size_t len = 0;
    const char *s = json_string(j, &len);
    return s ? arena_str(a, s, len) : NULL;
}

static bool copy_hash(const Json *j, char out[33]) {
    size_t len = 0;
    const char *s = json_string(j, &len);
    if (!s || len != 32 || strspn(s, "0123456789abcdef") != 32) return false;
    memcpy(out, s, 33);
    return true;
}

static bool parse_tensor(Arena *a, const Json *j, LogTensor *t) {
    const Json *shape = json_get(j, "shape");
    t->name = copy_text(a, json_get(j, "name"));
    t->dtype = copy_text(a, json_get(j, "dtype"));
    t->ndim = (uint32_t)json_size(shape);
    if (!t->name || !t->dtype || json_kind(shape) != J_ARRAY || json_size(shape) > PLAN_MAX_DIMS)
        return false;
    for (uint32_t i = 0; i < t->ndim; i++) {
        if (json_kind(json_at(shape, i)) != J_INT || json_int(json_at(shape, i)) < 0) return false;
        t->shape[i] = json_int(json_at(shape, i));
    }
    return copy_hash(json_get(j, "xxh3"), t->hash);
}

static bool parse_file(Arena *a, const Json *j, LogFile *f) {
    const Json *tensors = json_get(j, "tensors");
    f->name = copy_text(a, json_get(j, "name"));
    f->bytes = json_int(json_get(j, "bytes"));
    if (!f->name || !plain_name(f->name) || json_kind(tensors) != J_ARRAY || f->bytes < 0) return false;
    if (json_kind(json_get(j, "bytes")) != J_INT || !copy_hash(json_get(j, "xxh3"), f->hash)) return false;
    f->tensor = NEWN(a, LogTensor, json_size(tensors) + 1);
    if (!f->tensor) return false;
    for (; f->ntensor < json_size(tensors); f->ntensor++)
        if (!parse_tensor(a, json_at(tensors, f->ntensor), &f->tensor[f->ntensor])) return false;
    return true;
}

static bool parse_manifest(Arena *a, const Json *j, Manifest *m) {
    const Json *files = json_get(j, "files");
    const char *format = json_string(json_get(j, "format"), NULL);
    if (!format || strcmp(format, "wmtpc-checkpoint") || json_int(json_get(j, "version")) != 1) return false;
    m->step = json_int(json_get(j, "step"));
    m->epoch = json_int(json_get(j, "epoch"));
    m->run = copy_text(a, json_get(j, "run"));
    m->graph = copy_text(a, json_get(j, "graph"));
    m->plan = copy_text(a, json_get(j, "plan"));
    if (json_kind(json_get(j, "step")) != J_INT || json_kind(files) != J_ARRAY ||
        json_size(files) > FILES_MOST)
        return false;
    m->file = NEWN(a, LogFile, json_size(files) + 1);
    if (!m->file) return false;
    for (; m->n < json_size(files); m->n++)
        if (!parse_file(a, json_at(files, m->n), &m->file[m->n])) return false;
    return true;
}

/* A directory or file that is what it says, not a link to something else. */
bool real_entry(Env *env, const char *path, bool dir, EnvStat *st, Diags *d) {
    int err = 0;
    if (!path) return diag_fail(d, R006, NOLOC, "no memory to read a checkpoint");
    if (env->lstat(env, path, st, &err) < 0) {
        if (err == ENOENT)
            return diag_fail(d, D001, NOLOC, "%s: missing, so the checkpoint is not whole", shown(d, path));
        return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, path), errno_text(err));
    }
    if (dir ? st->is_dir : st->is_file && !st->is_link) return true;
    return diag_fail(d, D001, NOLOC, "%s: %s, a checkpoint has only plain files", shown(d, path),
                     st->is_link ? "a symbolic link"
                     : dir       ? "no directory"
                                 : "no plain file");
}

bool manifest_read(Env *env, Arena *a, const char *dir, Manifest *m, Diags *d) {
    EnvStat st;
    char *text = NULL;
    size_t len = 0;
    *m = (Manifest){0};
    const char *path = join(a, dir, "MANIFEST.json");
    if (!real_entry(env, dir, true, &st, d) || !real_entry(env, path, false, &st, d)) return false;
    if (!file_read_all(env, a, path, MANIFEST_MOST, &text, &len, d) || !check_own_hash(text, len, path, d))
        return false;
    Json *j = json_parse(text, len, path, 1, MANIFEST_DEPTH, d, D001);
    if (!j) return false;
    bool ok = parse_manifest(a, j, m) ||
              diag_fail(d, D001, NOLOC, "%s: not a manifest of version 1", shown(d, path));
    json_free(j);
    return ok;
}
