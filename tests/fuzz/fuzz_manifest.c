/* Manifests, state.json and owner.json from hostile bytes. The first byte chooses the reader; for the
 * manifest the own hash is made to fit, so that the text behind it is reached. */
#include "runtime/checkpoint/files.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An Env in which every path is one file with the input, or a folder where none is asked for by name. */
typedef struct {
    Env env;
    const char *text;
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

static int mem_lstat(Env *e, const char *path, EnvStat *st, int *err) {
    (void)err;
    size_t n = strlen(path);
    bool file = n > 5 && !strcmp(path + n - 5, ".json");
    *st = (EnvStat){.size = (int64_t)((Memory *)(void *)e)->size, .is_file = file, .is_dir = !file};
    return 0;
}

static int64_t mem_read(Env *e, int fd, void *p, size_t n, int *err) {
    Memory *m = (Memory *)(void *)e;
    (void)fd, (void)err;
    if (n > m->size) n = m->size;
    memcpy(p, m->text, n);
    m->text += n;
    m->size -= n;
    return (int64_t)n;
}

static void manifest(Memory *m, Arena *a, Diags *d) {
    static const char key[] = ",\n \"hash\": \"", end[] = "\"\n}\n";
    Manifest out;
    char hash[33];
    Sbuf b;
    sb_init(&b, a);
    sb_put(&b, m->text, m->size);
    hash128_hex(b.s, b.len, hash);
    sb_fmt(&b, "%s%s%s", key, hash, end);
    m->text = b.s;
    m->size = b.len;
    if (!manifest_read(&m->env, a, "dir", &out, d)) {
        if (!d->nerror) __builtin_trap();
        return;
    }
    for (uint32_t i = 0; i < out.n; i++) {
        if (!plain_name(out.file[i].name) || strlen(out.file[i].hash) != 32 || out.file[i].bytes < 0)
            __builtin_trap();
        for (uint32_t k = 0; k < out.file[i].ntensor; k++)
            if (!out.file[i].tensor[k].name || out.file[i].tensor[k].ndim > PLAN_MAX_DIMS) __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    Memory m = {*env_posix(), (const char *)data + 1, size - 1};
    m.env.open_read = mem_open;
    m.env.close = mem_close;
    m.env.fstat = mem_fstat;
    m.env.lstat = m.env.stat = mem_lstat;
    m.env.read = mem_read;
    Diags *d = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    CkptInfo info;
    ModelKey *key;
    uint32_t nkey;
    const char *file;
    if (data[0] == 'm')
        manifest(&m, a, d);
    else if (data[0] == 's')
        (void)ckpt_read_info(&m.env, "dir", a, &info, d);
    else
        (void)model_keys_read(&m.env, a, "dir", "", &key, &nkey, &file, d);
    arena_close(a);
    diags_close(d);
    return 0;
}
