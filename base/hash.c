/* hash.c: XXH3 and the string map over it. The map never decides an order. */
#include "base/base.h"

#include <string.h>
#include <xxhash.h>

uint64_t hash_bytes(const void *p, size_t n) {
    return XXH3_64bits(p, n);
}

void hash128_hex(const void *p, size_t n, char out[33]) {
    static const char digit[] = "0123456789abcdef";
    XXH128_hash_t h = XXH3_128bits(p, n);
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, h);
    for (int i = 0; i < 16; i++) {
        out[2 * i] = digit[c.digest[i] >> 4];
        out[2 * i + 1] = digit[c.digest[i] & 15];
    }
    out[32] = 0;
}

uint32_t stream_of(const char *name) {
    return (uint32_t)hash_bytes(name, strlen(name));
}

typedef struct {
    const char *key; /* NULL: empty */
    uint64_t hash;
    uint32_t value;
} Slot;
struct StrMap {
    Arena *a;
    Slot *slot;
    uint32_t cap, n; /* cap: a power of two */
};

StrMap *strmap_new(Arena *a) {
    StrMap *m = NEW(a, StrMap);
    if (!m) return NULL;
    m->a = a;
    m->cap = 16;
    m->slot = NEWN(a, Slot, m->cap);
    return m;
}

static Slot *find(const StrMap *m, const char *key, uint64_t h) {
    for (uint32_t i = (uint32_t)h;; i++) {
        Slot *s = &m->slot[i & (m->cap - 1)];
        if (!s->key || (s->hash == h && strcmp(s->key, key) == 0)) return s;
    }
}

bool strmap_get(const StrMap *m, const char *key, uint32_t *value) {
    const Slot *s = find(m, key, hash_bytes(key, strlen(key)));
    if (!s->key) return false;
    if (value) *value = s->value;
    return true;
}

static void rehash(StrMap *m) {
    Slot *old = m->slot;
    uint32_t n = m->cap;
    m->cap *= 2;
    m->slot = NEWN(m->a, Slot, m->cap);
    for (uint32_t i = 0; i < n; i++)
        if (old[i].key) *find(m, old[i].key, old[i].hash) = old[i];
}

bool strmap_put(StrMap *m, const char *key, uint32_t value) {
    size_t len = strlen(key);
    uint64_t h = hash_bytes(key, len);
    if (m->n * 2 >= m->cap) rehash(m);
    Slot *s = find(m, key, h);
    bool fresh = !s->key;
    if (fresh) {
        s->key = arena_str(m->a, key, len);
        s->hash = h;
        m->n++;
    }
    s->value = value;
    return fresh;
}
