/* safetensors.c: opens one safetensors file and trusts nothing in it.
 *
 * u64 length, JSON header, data. The length is held against a cap and the file before anything is read;
 * names, dtypes, shapes and offsets are checked one by one with checked products, and the tensors, sorted
 * by offset, must cover the data from its first byte to its last: no hole, no overlap, no tail. After
 * st_open every StTensor is safe to read. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct StFile {
    Env *env;
    int fd;
    char *path;
    Json *header;
    const Json *meta;
    int64_t bytes, data; /* of the file; where the data begin */
    StTensor *tensor;    /* in byte order of the names */
    uint32_t n;
};

static const struct {
    const char *name;
    int bytes;
} st_dtype[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
                {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
                {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static const char *dtype_name_of(const char *s, int *bytes) {
    for (size_t i = 0; i < WM_LEN(st_dtype); i++) {
        if (strcmp(st_dtype[i].name, s)) continue;
        *bytes = st_dtype[i].bytes;
        return st_dtype[i].name;
    }
    return NULL;
}

int st_dtype_bytes(const char *dtype) {
    int bytes = 0;
    return dtype_name_of(dtype, &bytes) ? bytes : 0;
}

const char *shown(Diags *d, const char *text) {
    return text ? text_escape(d->arena, text, strlen(text)) : "";
}

bool pread_full(Env *env, int fd, void *p, size_t n, int64_t at, int *err) {
    char *out = p;
    while (n) {
        int64_t k = env->pread(env, fd, out, n < (size_t)1 << 30 ? n : (size_t)1 << 30, at, err);
        if (k < 0 && *err == EINTR) continue;
        if (k == 0) *err = 0;
        if (k <= 0) return false;
        out += k;
        at += k;
        n -= (size_t)k;
    }
    return true;
}

static bool read_at(StFile *f, void *p, size_t n, int64_t at, Diags *d) {
    int err = 0;
    if (pread_full(f->env, f->fd, p, n, at, &err)) return true;
    if (err) return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, f->path), errno_text(err));
    return diag_fail(d, D001, NOLOC, "%s: the file ends before byte %lld", shown(d, f->path),
                     (long long)at + (long long)n);
}

/* Shape and byte count of a tensor. The product is checked over all dims that are not 0, so a 0 hides no
 * overflow. */
static bool parse_shape(const Json *shape, int elem, StTensor *t, int64_t *bytes) {
    size_t n = json_size(shape);
    if (json_kind(shape) != J_ARRAY || n > PLAN_MAX_DIMS) return false;
    wm_size product = (wm_size)elem;
    bool empty = false;
    for (size_t i = 0; i < n; i++) {
        const Json *j = json_at(shape, i);
        int64_t dim = json_int(j);
        if (json_kind(j) != J_INT || dim < 0) return false;
        t->shape[i] = dim;
        empty |= dim == 0;
        if (dim && !wm_mul(product, (wm_size)dim, &product)) return false;
    }
    if (product > INT64_MAX) return false;
    t->ndim = (uint32_t)n;
    *bytes = empty ? 0 : (int64_t)product;
    return true;
}

static bool parse_offsets(const Json *pair, int64_t limit, StTensor *t) {
    const Json *b = json_at(pair, 0), *e = json_at(pair, 1);
    if (json_size(pair) != 2 || json_kind(b) != J_INT || json_kind(e) != J_INT) return false;
    t->begin = json_int(b);
    t->end = json_int(e);
    return t->begin >= 0 && t->begin <= t->end && t->end <= limit;
}

static bool parse_tensor(const StFile *f, const char *name, const Json *j, StTensor *t, Diags *d) {
    const char *path = shown(d, f->path), *tensor = shown(d, name);
    const char *dtype = json_string(json_get(j, "dtype"), NULL);
    int elem = 0;
    int64_t bytes = 0;
    size_t len = strlen(name);
    if (len > ST_NAME_MOST)
        return diag_fail(d, D001, NOLOC, "%s: a tensor has a name of %zu bytes, at most %d are read", path,
                         len, ST_NAME_MOST);
    if (json_kind(j) != J_OBJECT || json_size(j) != 3 || !dtype || !json_get(j, "shape") ||
        !json_get(j, "data_offsets"))
        return diag_fail(d, D001, NOLOC,
                         "%s: tensor '%s': the header must give dtype, shape and data_offsets, nothing else",
                         path, tensor);
    t->name = name;
    t->dtype = dtype_name_of(dtype, &elem);
    if (!t->dtype)
        return diag_fail(d, D001, NOLOC, "%s: tensor '%s': unknown dtype '%s'", path, tensor,
                         shown(d, dtype));
    if (!parse_shape(json_get(j, "shape"), elem, t, &bytes))
        return diag_fail(d, D001, NOLOC,
                         "%s: tensor '%s': the shape is no list of at most %d sizes whose product fits", path,
                         tensor, PLAN_MAX_DIMS);
    if (!parse_offsets(json_get(j, "data_offsets"), f->bytes - f->data, t))
        return diag_fail(d, D001, NOLOC,
                         "%s: tensor '%s': data_offsets are no range inside %lld bytes of data", path, tensor,
                         (long long)(f->bytes - f->data));
    if (t->end - t->begin != bytes)
        return diag_fail(d, D001, NOLOC, "%s: tensor '%s': %lld bytes of data, dtype and shape need %lld",
                         path, tensor, (long long)(t->end - t->begin), (long long)bytes);
    return true;
}

static bool parse_meta(const StFile *f, Diags *d) {
    if (!f->meta) return true;
    const Json *v = NULL;
    for (size_t i = 0; json_key_at(f->meta, i, &v); i++)
        if (!json_string(v, NULL))
            return diag_fail(d, D001, NOLOC, "%s: __metadata__ holds other things than strings",
                             shown(d, f->path));
    if (json_kind(f->meta) == J_OBJECT) return true;
    return diag_fail(d, D001, NOLOC, "%s: __metadata__ is no object", shown(d, f->path));
}

static int by_offset(const void *x, const void *y) {
    const StTensor *a = x, *b = y;
    if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static int by_name(const void *x, const void *y) {
    return strcmp(((const StTensor *)x)->name, ((const StTensor *)y)->name);
}

/* The tensors must follow each other without hole or overlap from 0 to the end of the file. */
static bool check_cover(StFile *f, Diags *d) {
    int64_t at = 0;
    if (f->n) qsort(f->tensor, f->n, sizeof *f->tensor, by_offset);
    for (uint32_t i = 0; i < f->n; i++) {
        const StTensor *t = &f->tensor[i];
        if (t->begin != at)
            return diag_fail(
                d, D001, NOLOC,
                "%s: tensor '%s' begins at byte %lld of the data, the one before it ends at %lld",
                shown(d, f->path), shown(d, t->name), (long long)t->begin, (long long)at);
        at = t->end;
    }
    if (at != f->bytes - f->data)
        return diag_fail(d, D001, NOLOC, "%s: %lld bytes of data belong to no tensor", shown(d, f->path),
                         (long long)(f->bytes - f->data - at));
    if (f->n) qsort(f->tensor, f->n, sizeof *f->tensor, by_name);
    return true;
}

static bool parse_header(StFile *f, Diags *d) {
    size_t rows = json_size(f->header);
    const Json *v = NULL;
    if (json_kind(f->header) != J_OBJECT)
        return diag_fail(d, D001, NOLOC, "%s: the header is no JSON object", shown(d, f->path));
    if (rows > ST_TENSORS_MOST)
        return diag_fail(d, D001, NOLOC, "%s: %zu tensors, at most %d are read", shown(d, f->path), rows,
                         ST_TENSORS_MOST);
    f->meta = json_get(f->header, "__metadata__");
    f->tensor = f->env->alloc(f->env, (rows + 1) * sizeof *f->tensor);
    if (!f->tensor) return diag_fail(d, R006, NOLOC, "%s: no memory for the header", shown(d, f->path));
    if (!parse_meta(f, d)) return false;
    for (size_t i = 0; i < rows; i++) {
        const char *name = json_key_at(f->header, i, &v);
        if (v == f->meta) continue;
        if (!parse_tensor(f, name, v, &f->tensor[f->n], d)) return false;
        f->n++;
    }
    return check_cover(f, d);
}

/* Reads and parses the header text. */
static bool read_header(StFile *f, Diags *d) {
    unsigned char prefix[8];
    uint64_t len = 0;
    if (f->bytes < 8)
        return diag_fail(d, D001, NOLOC, "%s: %lld bytes are no safetensors file", shown(d, f->path),
                         (long long)f->bytes);
    if (!read_at(f, prefix, 8, 0, d)) return false;
    for (int i = 0; i < 8; i++) len |= (uint64_t)prefix[i] << 8 * i;
    if (len > ST_HEADER_MOST || (int64_t)len > f->bytes - 8 || len < 2)
        return diag_fail(d, D001, NOLOC, "%s: a header of %llu bytes in a file of %lld; at most %d are read",
                         shown(d, f->path), (unsigned long long)len, (long long)f->bytes, ST_HEADER_MOST);
    f->data = 8 + (int64_t)len;
    char *text = f->env->alloc(f->env, (size_t)len + 1);
    if (!text)
        return diag_fail(d, R006, NOLOC, "%s: no memory for a header of %llu bytes", shown(d, f->path),
                         (unsigned long long)len);
    bool ok = read_at(f, text, (size_t)len, 8, d);
    size_t last = (size_t)len;
    while (ok && last && text[last - 1] == ' ') last--;
    if (ok && (text[0] != '{' || last < 2 || text[last - 1] != '}'))
        ok = diag_fail(d, D001, NOLOC, "%s: the header must begin with '{' and end with '}' and spaces",
                       shown(d, f->path));
    if (ok) {
        f->header = json_parse(text, last, f->path, 1, ST_DEPTH_MOST, d, D001);
        ok = f->header != NULL;
    }
    f->env->free(f->env, text);
    return ok;
}

StFile *st_open(Env *env, const char *path, Diags *d) {
    int err = 0;
    EnvStat st;
    StFile *f = env->alloc(env, sizeof *f);
    size_t len = strlen(path);
    if (f) {
        *f = (StFile){.env = env, .fd = -1, .path = env->alloc(env, len + 1)};
        if (f->path) memcpy(f->path, path, len + 1);
    }
    if (!f || !f->path) {
        (void)diag_fail(d, R006, NOLOC, "no memory to open %s", path);
        goto failed;
    }
    f->fd = env->open_read(env, path, &err);
    if (f->fd < 0) {
        bool gone = err == ENOENT || err == ENOTDIR;
        (void)diag_fail(d, gone ? D002 : R001, NOLOC, "%s: %s", shown(d, path), errno_text(err));
        goto failed;
    }
    if (env->fstat(env, f->fd, &st, &err) < 0) {
        (void)diag_fail(d, R001, NOLOC, "%s: %s", shown(d, path), errno_text(err));
        goto failed;
    }
    f->bytes = st.size;
    if (!st.is_file) {
        (void)diag_fail(d, D001, NOLOC, "%s: not a regular file", shown(d, path));
        goto failed;
    }
    if (read_header(f, d) && parse_header(f, d)) return f;
failed:
    st_close(f);
    return NULL;
}

void st_close(StFile *f) {
    if (!f) return;
    Env *env = f->env;
    int err = 0;
    if (f->fd >= 0) (void)env->close(env, f->fd, &err);
    json_free(f->header);
    env->free(env, f->tensor);
    env->free(env, f->path);
    env->free(env, f);
}

uint32_t st_count(const StFile *f) {
    return f->n;
}

/* Tensor i in byte order of the names. */
const StTensor *st_tensor(const StFile *f, uint32_t i) {
    return &f->tensor[i];
}

const StTensor *st_find(const StFile *f, const char *name) {
    StTensor key = {.name = name};
    return f->n ? bsearch(&key, f->tensor, f->n, sizeof *f->tensor, by_name) : NULL;
}

const char *st_meta(const StFile *f, const char *key) {
    return json_string(json_get(f->meta, key), NULL);
}

const char *st_path(const StFile *f) {
    return f->path;
}

int64_t st_file_bytes(const StFile *f) {
    return f->bytes;
}

/* Reads `bytes` of a tensor's data from its byte `at` on. */
bool st_read(StFile *f, const StTensor *t, void *out, int64_t at, int64_t bytes, Diags *d) {
    int64_t size = t->end - t->begin;
    if (at < 0 || bytes < 0 || at > size || bytes > size - at)
        return diag_fail(d, I001, NOLOC, "%s: bytes %lld + %lld of tensor '%s' were asked for, it has %lld",
                         f->path, (long long)at, (long long)bytes, t->name, (long long)size);
    return read_at(f, out, (size_t)bytes, f->data + t->begin + at, d);
}
