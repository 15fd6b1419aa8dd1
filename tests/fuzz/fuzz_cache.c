/* Cache entries from hostile bytes: pack_parse must refuse all that pack_footer did not write, and never read
 * outside. The first byte chooses: 0, the bytes are an entry; else they become the object and source of an
 * entry that must parse. */
#include "codegen/pack.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *data;
    size_t size;
    Arena *a;
} Job;

static bool one(void *ctx, Guard *g) {
    Job *j = ctx;
    Arena *a = j->a = arena_open(env_posix(), g);
    Pack p;
    char *bytes = arena_copy(a, j->data, j->size);
    if (!j->size) return true;
    if (bytes[0] == 0) {
        pack_parse(a, bytes + 1, j->size - 1, &p);
        return true;
    }
    size_t cut = j->size / 2;
    KernelSource s[2] = {{bytes, cut}, {bytes + cut, j->size - cut}};
    const uint32_t which[2] = {1, 0};
    Sbuf out;
    sb_init(&out, a);
    sb_put(&out, bytes, cut);
    pack_footer(&out, bytes, cut, "identity", s, which, 2);
    if (!pack_parse(a, out.s, out.len, &p) || p.n != 2 || p.source[1].len != cut) __builtin_trap();
    if (memcmp(p.source[1].source, bytes, cut) != 0) __builtin_trap();
    out.s[out.len / 2] ^= 1;
    if (pack_parse(a, out.s, out.len, &p)) __builtin_trap();
    Sbuf unit;
    sb_init(&unit, a);
    pack_unit(a, &unit, s, which, 2);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Diags *d = diags_open(env_posix());
    Job j = {data, size, NULL};
    if (d) guard_run(one, &j, d);
    arena_close(j.a);
    diags_close(d);
    return 0;
}
