/* Plan text from hostile bytes. What is accepted must print back to the same bytes. The hash hides the
 * grammar from random bytes, so it is put right before parsing, where there is a line for it. */
#include "runtime/runtime.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char head[] = "wplan 1\nhash ";
    enum { HASH = sizeof head - 1, BODY = HASH + 33 };
    Diags *d = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    char *text = arena_str(a, "", 0);
    if (size) text = arena_str(a, (const char *)data, size);
    if (size >= BODY && memcmp(text, head, HASH) == 0) {
        char key[33];
        hash128_hex(text + BODY, size - BODY, key);
        memcpy(text + HASH, key, 32);
    }
    Plan *p = plan_parse(a, "fuzz", text, size, d);
    if (!p && d->nerror == 0) __builtin_trap();
    if (p) {
        Sbuf b;
        sb_init(&b, a);
        plan_print(p, &b);
        if (b.len != size || memcmp(b.s, text, size) != 0) __builtin_trap();
    }
    arena_close(a);
    diags_close(d);
    return 0;
}
