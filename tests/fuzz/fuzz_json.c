/* JSON from hostile bytes: refused with a diagnostic, or a tree that can be walked, whose keys are found,
 * and which written out and parsed again is the same text. */
#include "runtime/runtime.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write(Sbuf *b, const Json *j) {
    size_t len = 0;
    const Json *v = NULL;
    switch (json_kind(j)) {
    case J_NULL:
        sb_str(b, "null");
        break;
    case J_BOOL:
        sb_str(b, json_bool(j) ? "true" : "false");
        break;
    case J_INT:
        sb_fmt(b, "%lld", (long long)json_int(j));
        break;
    case J_REAL: {
        size_t at = b->len;
        json_number(b, json_real(j));
        if (!strpbrk(b->s + at, ".en")) sb_str(b, ".0"); /* stays a real */
        break;
    }
    case J_STRING: {
        const char *s = json_string(j, &len);
        json_quote(b, s, len);
        break;
    }
    case J_ARRAY:
        sb_chr(b, '[');
        for (size_t i = 0; i < json_size(j); i++) {
            if (i) sb_chr(b, ',');
            write(b, json_at(j, i));
        }
        sb_chr(b, ']');
        break;
    case J_OBJECT:
        sb_chr(b, '{');
        for (size_t i = 0; i < json_size(j); i++) {
            const char *key = json_key_at(j, i, &v);
            if (json_get(j, key) != v) __builtin_trap();
            if (i) sb_chr(b, ',');
            json_quote(b, key, strlen(key));
            sb_chr(b, ':');
            write(b, v);
        }
        sb_chr(b, '}');
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Diags *d = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    Json *j = json_parse(size ? (const char *)data : "", size, "fuzz", 1, 32, d, D003);
    if (!j && !d->nerror) __builtin_trap();
    if (j) {
        Sbuf one, two;
        sb_init(&one, a);
        sb_init(&two, a);
        write(&one, j);
        Json *k = json_parse(one.s, one.len, "again", 1, 32, d, D003);
        if (!k) __builtin_trap();
        write(&two, k);
        if (one.len != two.len || memcmp(one.s, two.s, one.len) != 0) __builtin_trap();
        json_free(k);
    }
    json_free(j);
    arena_close(a);
    diags_close(d);
    return 0;
}
