/* pack.h: private to codegen/. A cache entry: one shared object with the sources of its kernels, in one file.
 */
#ifndef WM_PACK_H
#define WM_PACK_H

#include "codegen/codegen.h"

enum { PACK_MAX_BYTES = 256 << 20, PACK_MAX_KERNELS = 4096, PACK_TRAILER = 128 };

typedef struct {
    size_t object_bytes;
    const char *identity;
    size_t identity_len;
    uint32_t n;
    KernelSource *source; /* borrowed from the bytes */
} Pack;

/* Footer and trailer that go behind an object of these bytes. */
void pack_footer(Sbuf *out, const void *object, size_t object_bytes, const char *identity,
                 const KernelSource *source, const uint32_t *which, uint32_t n);
/* Reads a whole entry; false for anything that pack_footer did not write behind just this object. Trusts
 * nothing. */
bool pack_parse(Arena *a, const char *bytes, size_t n, Pack *p);
/* One compile unit of several kernels: what kernel i names at file scope gets the suffix _i; its entry is
 * k_<i>. */
void pack_unit(Arena *a, Sbuf *out, const KernelSource *source, const uint32_t *which, uint32_t n);

#endif
