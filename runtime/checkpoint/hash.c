/* hash.c: XXH3-128 over pieces, with its state on the caller's stack: hashing allocates nothing and cannot
 * fail. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "runtime/checkpoint/files.h"

_Static_assert(sizeof(XXH3_state_t) <= sizeof(Hash128), "Hash128 holds a state of xxHash");

static XXH3_state_t *state(Hash128 *h) {
    return (XXH3_state_t *)(void *)h->opaque;
}

void hash128_start(Hash128 *h) {
    (void)XXH3_128bits_reset(state(h));
}

void hash128_put(Hash128 *h, const void *p, size_t bytes) {
    if (bytes) (void)XXH3_128bits_update(state(h), p, bytes);
}

void hash128_end(Hash128 *h, char hex[33]) {
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(state(h)));
    bytes_hex(c.digest, 16, hex);
}
