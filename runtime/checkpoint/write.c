/* write.c: the only place of the runtime that makes the files of a model or a checkpoint.
 *
 * A new file is opened with O_EXCL and O_NOFOLLOW, written in full, fsynced and closed, each step checked;
 * what failed is removed and never tried again. Tensors flow through one buffer of the size of the largest
 * that needs reordering, and are hashed as they pass. Where files are cut depends on names and sizes
 * alone, never on how the run was spread. */
#include "runtime/checkpoint/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Env *env;
    const char *path;
    int fd;
    int64_t bytes;
    Hash128 hash;
} NewFile;

static bool io_failed(Diags *d, const char *path, int err) {
    return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, path), errno_text(err));
}

static bool new_open(NewFile *f, Env *env, const char *path, Diags *d) {
    int err = 0;
    *f = (NewFile){.env = env, .path = path, .fd = -1};
    if (!path) return diag_fail(d, R006, NOLOC, "no memory to name a file");
    hash128_start(&f->hash);
    f->fd = env->open_new(env, path, 0644, &err);
    return f->fd >= 0 || io_failed(d, path, err);
}

static bool new_put(NewFile *f, const void *p, size_t bytes, Diags *d) {
    int err = 0;
    hash128_put(&f->hash, p, bytes);
    f->bytes += (int64_t)bytes;
    return write_full(f->env, f->fd, p, bytes, &err) || io_failed(d, f->path, err);
}

/* Makes it last if everything before went well (ok); else, or if that fails, the file is removed. */
static bool new_close(NewFile *f, bool ok, Diags *d) {
    int err = 0, ignored = 0;
    if (f->fd < 0) return false;
    if (ok && f->env->fsync(f->env, f->fd, &err) < 0) ok = io_failed(d, f->path, err);
    if (f->env->close(f->env, f->fd, &err) < 0 && ok) ok = io_failed(d, f->path, err);
    if (!ok) (void)f->env->unlink(f->env, f->path, &ignored);
    return ok;
}

static LogFile *log_add(FileLog *l, const char *name, Diags *d) {
    GROW(l->a, l->file, l->n, l->cap);
    const char *copy = arena_str(l->a, name, strlen(name));
    if (l->n >= l->cap || !copy) {
        (void)diag_fail(d, R006, NOLOC, "no memory to write %s", name);
        return NULL;
    }
    l->file[l->n] = (LogFile){.name = copy};
    return &l->file[l->n++];
}

bool log_write(FileLog *l, const char *name, const void *p, size_t bytes, Diags *d) {
    NewFile f;
    LogFile *row = log_add(l, name, d);
    if (!row || !new_open(&f, l->env, join(l->a, l->dir, name), d)) return false;
    bool ok = new_put(&f, p, bytes, d);
    if (!new_close(&f, ok, d)) return false;
    row->bytes = f.bytes;
    hash128_end(&f.hash, row->hash);
    return true;
}

void log_remove(const FileLog *l) {
    char path[4096]; /* no allocation: this runs when memory is gone, too */
    int ignored = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        int n = snprintf(path, sizeof path, "%s/%s", l->dir, l->file[i].name);
        if (n > 0 && (size_t)n < sizeof path) (void)l->env->unlink(l->env, path, &ignored);
    }
    (void)l->env->rmdir(l->env, l->dir, &ignored);
}

/* ---- header */

static void put_tensor_row(Sbuf *b, const char *name, const char *dtype, const int64_t *shape, uint32_t ndim,
                           int64_t at, int64_t bytes) {
    sb_chr(b, ',');
    json_quote(b, name, strlen(name));
    sb_fmt(b, ":{\"dtype\":\"%s\",\"shape\":[", dtype);
    for (uint32_t i = 0; i < ndim; i++) sb_fmt(b, "%s%lld", i ? "," : "", (long long)shape[i]);
    sb_fmt(b, "],\"data_offsets\":[%lld,%lld]}", (long long)at, (long long)(at + bytes));
}

/* Writes prefix and header; StOut.data are not read. */
static bool put_header(NewFile *f, Arena *a, const StOut *t, uint32_t n, const StMeta *meta, uint32_t nmeta,
                       Diags *d) {
    Sbuf b;
    int64_t at = 0;
    sb_init(&b, a);
    sb_put(&b, "\0\0\0\0\0\0\0\0", 8);
    sb_str(&b, "{\"__metadata__\":{");
    for (uint32_t i = 0; i < nmeta; i++) {
        if (i) sb_chr(&b, ',');
        json_quote(&b, meta[i].key, strlen(meta[i].key));
        sb_chr(&b, ':');
        json_quote(&b, meta[i].value, strlen(meta[i].value));
    }
    sb_chr(&b, '}');
    for (uint32_t i = 0; i < n; i++) {
        put_tensor_row(&b, t[i].name, t[i].dtype, t[i].shape, t[i].ndim, at, t[i].bytes);
        at += t[i].bytes;
    }
    sb_chr(&b, '}');
    while (!b.failed && b.len % 8) sb_chr(&b, ' ');
    if (b.failed) return diag_fail(d, R006, NOLOC, "%s: no memory for the header", f->path);
    if (b.len - 8 > ST_HEADER_MOST)
        return diag_fail(
            d, R001, NOLOC,
            "%s: the header would have %zu bytes, at most %d are legal; cut the model into more files",
            f->path, b.len - 8, ST_HEADER_MOST);
    for (int i = 0; i < 8; i++) b.s[i] = (char)(unsigned char)((uint64_t)(b.len - 8) >> 8 * i & 255);
    return new_put(f, b.s, b.len, d);
}

bool st_write(Env *env, const char *path, const StOut *t, uint32_t n, const StMeta *meta, uint32_t nmeta,
              char hash[33], Diags *d) {
    NewFile f;
    Arena *a = arena_open(env, NULL);
    if (!a) return diag_fail(d, R006, NOLOC, "no memory to write %s", path);
    bool ok = new_open(&f, env, path, d) && put_header(&f, a, t, n, meta, nmeta, d);
    for (uint32_t i = 0; ok && i < n; i++) ok = new_put(&f, t[i].data, (size_t)t[i].bytes, d);
    ok = new_close(&f, ok, d);
    if (ok && hash) hash128_end(&f.hash, hash);
    arena_close(a);
    return ok;
}

/* ---- sets of files */

static int by_name(const void *x, const void *y) {
    return strcmp(((const OutTensor *)x)->name, ((const OutTensor *)y)->name);
}

static PlanDType file_dtype(const OutTensor *t, const SetForm *form) {
    return form->own_dtype ? t->row->dtype : form->as;
}

static int64_t file_bytes(const OutTensor *t, const SetForm *form) {
    return state_elements(t->row) * plan_dtype_bytes[file_dtype(t, form)];
}

/* How many tensors from t on go into one file. */
static uint32_t cut_at(const OutTensor *t, uint32_t n, const SetForm *form) {
    if (!form->cut) return n;
    int64_t sum = n ? file_bytes(t, form) : 0;
    uint32_t k = 1;
    while (k < n && sum + file_bytes(&t[k], form) <= form->cut_bytes) sum += file_bytes(&t[k++], form);
    return k;
}

/* Two buffers: the stored order in the row's dtype, and what another dtype needs. */
typedef struct {
    char *stored, *cast;
} Buffers;

static bool put_data(NewFile *f, const StateView *v, const OutTensor *t, const SetForm *form,
                     const Buffers *b, LogTensor *log, Diags *d) {
    const void *p = v->mem(v->ctx, t->index);
    PlanDType to = file_dtype(t, form);
    if (!state_as_stored(t->row, form->style)) {
        state_to_stored(t->row, form->style, p, b->stored);
        p = b->stored;
    }
    if (to != t->row->dtype) {
        RealDType from = {plan_dtype_bytes[t->row->dtype], t->row->dtype == PD_BF16};
        reals_convert(from, p, (RealDType){plan_dtype_bytes[to], to == PD_BF16}, b->cast,
                      state_elements(t->row));
        p = b->cast;
    }
    Hash128 h;
    hash128_start(&h);
    hash128_put(&h, p, (size_t)log->bytes);
    hash128_end(&h, log->hash);
    return new_put(f, p, (size_t)log->bytes, d);
}

static bool write_tensors(NewFile *f, FileLog *l, LogFile *row, const StateView *v, const OutTensor *t,
                          const SetForm *form, const Buffers *b, Diags *d) {
    static const StMeta meta[] = {{"format", "pt"}};
    uint32_t n = row->ntensor;
    StOut *out = NEWN(l->a, StOut, n + 1);
    row->tensor = NEWN(l->a, LogTensor, n + 1);
    if (!out || !row->tensor) return diag_fail(d, R006, NOLOC, "no memory to write %s", row->name);
    for (uint32_t i = 0; i < n; i++) {
        LogTensor *r = &row->tensor[i];
        *r = (LogTensor){.name = t[i].name,
                         .dtype = state_dtype_text(file_dtype(&t[i], form)),
                         .bytes = file_bytes(&t[i], form)};
        state_stored_shape(t[i].row, r->shape, &r->ndim);
        out[i] = (StOut){.name = r->name, .dtype = r->dtype, .ndim = r->ndim, .bytes = r->bytes};
        memcpy(out[i].shape, r->shape, sizeof out[i].shape);
    }
    if (!put_header(f, l->a, out, n, meta, 1, d)) return false;
    for (uint32_t i = 0; i < n; i++)
        if (!put_data(f, v, &t[i], form, b, &row->tensor[i], d)) return false;
    return true;
}

static bool write_one(FileLog *l, const char *name, const StateView *v, const OutTensor *t, uint32_t n,
                      const SetForm *form, const Buffers *b, Diags *d) {
    NewFile f;
    LogFile *row = name ? log_add(l, name, d) : NULL;
    if (!row) return false;
    row->ntensor = n;
    if (!new_open(&f, l->env, join(l->a, l->dir, name), d)) return false;
    bool ok = write_tensors(&f, l, row, v, t, form, b, d);
    if (!new_close(&f, ok, d)) return false;
    row->bytes = f.bytes;
    hash128_end(&f.hash, row->hash);
    return true;
}

static bool write_index(FileLog *l, const LogFile *file, uint32_t n, const SetForm *form, Diags *d) {
    Sbuf b;
    int64_t total = 0;
    bool first = true;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < file[i].ntensor; k++) total += file[i].tensor[k].bytes;
    sb_init(&b, l->a);
    sb_fmt(&b, "{\n  \"metadata\": {\"total_size\": %lld},\n  \"weight_map\": {", (long long)total);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < file[i].ntensor; k++, first = false) {
            sb_str(&b, first ? "\n    " : ",\n    ");
            json_quote(&b, file[i].tensor[k].name, strlen(file[i].tensor[k].name));
            sb_fmt(&b, ": \"%s\"", file[i].name);
        }
    }
    sb_str(&b, "\n  }\n}\n");
    const char *name = arena_fmt(l->a, "%s.safetensors.index.json", form->set);
    if (b.failed || !name) return diag_fail(d, R006, NOLOC, "no memory for the index of %s", form->set);
    return log_write(l, name, b.s, b.len, d);
}

static bool take_buffers(Env *env, const OutTensor *t, uint32_t n, const SetForm *form, Buffers *b,
                         Diags *d) {
    int64_t stored = 0, cast = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!state_as_stored(t[i].row, form->style) && state_bytes(t[i].row) > stored)
            stored = state_bytes(t[i].row);
        if (file_dtype(&t[i], form) != t[i].row->dtype && file_bytes(&t[i], form) > cast)
            cast = file_bytes(&t[i], form);
    }
    *b = (Buffers){0};
    if (stored) b->stored = env->alloc(env, (size_t)stored);
    if (cast) b->cast = env->alloc(env, (size_t)cast);
    if ((!stored || b->stored) && (!cast || b->cast)) return true;
    return diag_fail(d, R006, NOLOC, "no memory for a buffer of %lld bytes to write %s",
                     (long long)(stored + cast), form->set);
}

bool set_write(FileLog *l, const StateView *v, OutTensor *t, uint32_t n, const SetForm *form, Diags *d) {
    Buffers b;
    uint32_t files = 0, file = 0, first = l->n;
    if (n) qsort(t, n, sizeof *t, by_name);
    for (uint32_t i = 1; i < n; i++)
        if (!strcmp(t[i - 1].name, t[i].name))
            return diag_fail(d, I001, NOLOC, "two states are called '%s' in %s", t[i].name, form->set);
    for (uint32_t i = 0; i < n; i += cut_at(&t[i], n - i, form)) files++;
    bool ok = take_buffers(l->env, t, n, form, &b, d);
    for (uint32_t i = 0, k; ok && i < n; i += k) {
        k = cut_at(&t[i], n - i, form);
        const char *name = form->cut
                               ? arena_fmt(l->a, "%s-%05u-of-%05u.safetensors", form->set, ++file, files)
                               : arena_fmt(l->a, "%s.safetensors", form->set);
        ok = write_one(l, name, v, &t[i], k, form, &b, d);
    }
    l->env->free(l->env, b.stored);
    l->env->free(l->env, b.cast);
    return ok && (!form->cut || write_index(l, l->file + first, l->n - first, form, d));
}
