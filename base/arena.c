/* arena.c: bump allocation in blocks that double up to 4 MiB. Everything of one compilation lives in one
 * arena and is freed as a whole. An exhausted system escapes through the guard with exit code 71, or returns
 * NULL without one. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

typedef struct Block Block;
struct Block {
    Block *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};
struct Arena {
    Env *env;
    Guard *guard;
    Block *head;
    size_t next_size;
    wm_size bytes,
        limit; /* taken from the system; at most half of the machine's memory: refused, not swapped */
};

Arena *arena_open(Env *env, Guard *guard) {
    Arena *a = env->alloc(env, sizeof *a);
    if (!a) {
        if (guard) guard_escape(guard, EXIT_MEMORY, "out of memory: %zu bytes were refused", sizeof *a);
        return NULL;
    }
    a->env = env;
    a->guard = guard;
    a->next_size = 1 << 14;
    int64_t machine = env->memory_bytes ? env->memory_bytes(env) : 0;
    a->limit = machine > 0 ? (wm_size)machine / 2 : UINT64_MAX;
    return a;
}

void arena_close(Arena *a) {
    if (!a) return;
    Env *env = a->env;
    for (Block *b = a->head, *next; b; b = next) {
        next = b->next;
        env->free(env, b);
    }
    env->free(env, a);
}

static void *exhausted(Arena *a, wm_size bytes) {
    if (a->guard)
        guard_escape(a->guard, EXIT_MEMORY, "out of memory: %llu bytes were refused",
                     (unsigned long long)bytes);
    return NULL;
}

void *arena_alloc(Arena *a, wm_size bytes) {
    wm_size size;
    if (!wm_add(bytes, 15, &size) || size > SIZE_MAX / 2) return exhausted(a, bytes);
    size &= ~(wm_size)15;
    if (!size) size = 16;
    Block *b = a->head;
    if (!b || b->size - b->used < size) {
        size_t want = size > a->next_size ? (size_t)size : a->next_size;
        if (a->bytes + want > a->limit) return exhausted(a, bytes);
        b = a->env->alloc(a->env, sizeof *b + want);
        if (!b) return exhausted(a, bytes);
        b->size = want;
        a->bytes += sizeof *b + want;
        if (a->next_size < (1 << 22)) a->next_size *= 2;
        if (a->head && size > a->next_size / 2) { /* a large piece of its own: keep filling the old block */
            b->next = a->head->next;
            a->head->next = b;
        } else {
            b->next = a->head;
            a->head = b;
        }
    }
    void *p = b->data + b->used;
    b->used += (size_t)size;
    return p;
}

void *arena_copy(Arena *a, const void *p, wm_size bytes) {
    void *q = arena_alloc(a, bytes);
    if (q && bytes) memcpy(q, p, (size_t)bytes);
    return q;
}

char *arena_str(Arena *a, const char *s, size_t len) {
    char *q = arena_alloc(a, (wm_size)len + 1);
    if (q && len) memcpy(q, s, len);
    return q;
}

char *arena_vfmt(Arena *a, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, again);
    va_end(again);
    char *s = arena_alloc(a, (wm_size)(n < 0 ? 0 : n) + 1);
    if (s && n > 0) vsnprintf(s, (size_t)n + 1, fmt, ap);
    return s;
}

char *arena_fmt(Arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *s = arena_vfmt(a, fmt, ap);
    va_end(ap);
    return s;
}

Guard *arena_guard(const Arena *a) {
    return a->guard;
}
Env *arena_env(const Arena *a) {
    return a->env;
}
wm_size arena_bytes(const Arena *a) {
    return a->bytes;
}

void *arena_grow(Arena *a, const void *p, wm_size elem, uint32_t n, uint32_t *cap) {
    wm_size want = *cap ? (wm_size)*cap * 2 : 8, bytes;
    if (want <= n) want = (wm_size)n + 1;
    if (want > UINT32_MAX || !wm_mul(want, elem, &bytes)) return exhausted(a, UINT64_MAX);
    void *q = arena_alloc(a, bytes);
    if (q && p) memcpy(q, p, (size_t)(*cap * elem));
    if (q) *cap = (uint32_t)want;
    return q;
}
