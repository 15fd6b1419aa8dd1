/* A hostile graph through the whole frontend: messages or a graph that verifies, and its flat text lowers
 * too. The bytes are the file graphs/NAME.wg, NAME as their header says, which exists in memory alone; the
 * library is the real one. */
#include "frontend/frontend.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MEMORY_FD = 1 << 28 };
typedef struct {
    Env env;
    Env *real;
    const char *path, *text;
    size_t size, at;
    Arena *a;
} MemEnv;

static MemEnv *mem_of(Env *e) {
    return e->self;
}

static int mem_stat(Env *e, const char *path, EnvStat *st, int *err) {
    MemEnv *m = mem_of(e);
    if (strcmp(path, m->path) != 0) return m->real->stat(m->real, path, st, err);
    *st = (EnvStat){.size = (int64_t)m->size, .dev = UINT64_MAX, .ino = 1, .is_file = true};
    return 0;
}

static int mem_open(Env *e, const char *path, int *err) {
    MemEnv *m = mem_of(e);
    m->at = 0;
    return strcmp(path, m->path) ? m->real->open_read(m->real, path, err) : MEMORY_FD;
}

static int mem_fstat(Env *e, int fd, EnvStat *st, int *err) {
    MemEnv *m = mem_of(e);
    return fd == MEMORY_FD ? mem_stat(e, m->path, st, err) : m->real->fstat(m->real, fd, st, err);
}

static int64_t mem_read(Env *e, int fd, void *p, size_t n, int *err) {
    MemEnv *m = mem_of(e);
    if (fd != MEMORY_FD) return m->real->read(m->real, fd, p, n, err);
    if (n > m->size - m->at) n = m->size - m->at;
    memcpy(p, m->text + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static int mem_close(Env *e, int fd, int *err) {
    MemEnv *m = mem_of(e);
    return fd == MEMORY_FD ? 0 : m->real->close(m->real, fd, err);
}

static bool one(void *ctx, Guard *g) {
    MemEnv *m = ctx;
    static const char *const path[] = {"graphs"};
    LowerOptions o = {.phase = m->size % 2 ? "train" : "val",
                      .micro = 2,
                      .batch = 2,
                      .seq = 4,
                      .path = path,
                      .npath = 1,
                      .assume_sizes = true};
    GraphInfo info;
    Sbuf flat;
    Arena *a = m->a = arena_open(&m->env, g);
    Graph *r = frontend_lower(a, m->path, &o, &info, g->diags);
    if (r && !graph_verify(r, false, g->diags)) __builtin_trap();
    if (r && !g->diags->nerror) {
        sb_init(&flat, a);
        if (!frontend_expand(a, m->path, &o, &flat, g->diags)) __builtin_trap();
    }
    sb_init(&flat, a);
    diags_render(g->diags, &flat, false);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[128];
    MemEnv m = {.real = env_posix(), .path = path, .text = (const char *)data, .size = size};
    m.env = *m.real;
    m.env.self = &m;
    m.env.stat = mem_stat;
    m.env.open_read = mem_open;
    m.env.fstat = mem_fstat;
    m.env.read = mem_read;
    m.env.close = mem_close;
    size_t n = 0;
    if (size > 6 && !memcmp(data, "graph ", 6))
        while (n < 64 && 6 + n < size && (data[6 + n] == '_' || (data[6 + n] >= 'a' && data[6 + n] <= 'z')))
            n++;
    memcpy(path, "graphs/", 7);
    memcpy(path + 7, n ? (const char *)data + 6 : "fuzz", n ? n : 4);
    memcpy(path + 7 + (n ? n : 4), ".wg", 4);
    Diags *d = diags_open(m.real);
    bool ok = d && guard_run(one, &m, d);
    /* an exhausted arena (71) is no bug; a broken invariant (70) is */
    for (uint32_t i = 0; d && !ok && i < d->n; i++)
        if (d->item[i]->code == I001) __builtin_trap();
    if (m.a) arena_close(m.a);
    diags_close(d);
    return 0;
}
