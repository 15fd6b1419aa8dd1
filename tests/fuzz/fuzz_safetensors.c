/* safetensors from hostile bytes: st_open must refuse or give tensors whose every byte can be read. */
#include "runtime/runtime.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An Env whose only file is the input. */
typedef struct {
    Env env;
    const uint8_t *data;
    size_t size;
} Memory;

static int mem_open(Env *e, const char *path, int *err) {
    (void)e, (void)path, (void)err;
    return 100;
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

static int64_t mem_pread(Env *e, int fd, void *p, size_t n, int64_t off, int *err) {
    const Memory *m = (const Memory *)(const void *)e;
    (void)fd, (void)err;
    if (off < 0 || (size_t)off >= m->size) return 0;
    size_t left = m->size - (size_t)off;
    if (n > left) n = left;
    if (n > 7) n = n / 2 + 1; /* short reads */
    memcpy(p, m->data + off, n);
    return (int64_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Memory m = {*env_posix(), data, size};
    m.env.open_read = mem_open;
    m.env.close = mem_close;
    m.env.fstat = mem_fstat;
    m.env.pread = mem_pread;
    Diags *d = diags_open(&m.env);
    StFile *f = st_open(&m.env, "fuzz.safetensors", d);
    if (!f && !d->nerror) __builtin_trap();
    int64_t sum = 0;
    for (uint32_t i = 0; f && i < st_count(f); i++) {
        const StTensor *t = st_tensor(f, i);
        int64_t bytes = t->end - t->begin;
        void *p = malloc(bytes ? (size_t)bytes : 1);
        sum += bytes;
        if (!p || !st_read(f, t, p, 0, bytes, d) || st_find(f, t->name) != t) __builtin_trap();
        free(p);
    }
    if (sum > (int64_t)size) __builtin_trap();
    st_close(f);
    diags_close(d);
    return 0;
}
