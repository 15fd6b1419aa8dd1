/* json.c: strict JSON for everything that reads it (data, headers, manifests), and the little that writing
 * needs.
 *
 * jansson parses; this is the only file that knows it. Its depth is counted beforehand because it
 * recurses, duplicate keys and trailing text are refused, integers are exact or refused. The result is
 * copied into one block of our own: arrays and members are then reached by index in file order, and large
 * objects by binary search, whatever the keys. */
#include <jansson.h>

#include "runtime/runtime.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SORTED_FROM = 12, DEPTH_MOST = 128 };

typedef struct Member Member;
struct Json {
    JsonKind kind;
    size_t n; /* bytes of a string, items, members */
    union {
        bool b;
        int64_t i;
        double r;
        const char *s;
        Json *item;
        struct {
            Member *member;
            const Member **sorted;
        } o;
    } u;
};
struct Member {
    const char *key;
    Json value;
};
typedef struct {
    Env *env;
    Json top;
} Root;
typedef struct {
    char *at;
} Block;

/* Position of byte `at` as line and column, for errors found before jansson runs. */
static Loc place(const char *text, size_t at, const char *file, uint32_t line0) {
    Loc loc = {.file = file, .line = line0, .col = 1, .at = (uint32_t)at, .len = 1};
    for (size_t i = 0; i < at; i++) {
        loc.col++;
        if (text[i] == '\n') {
            loc.line++;
            loc.col = 1;
        }
    }
    return loc;
}

static bool depth_ok(const char *text, size_t len, int max_depth, size_t *at) {
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if ((c == '{' || c == '[') && ++depth > max_depth) {
            *at = i;
            return false;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return true;
}

static size_t rounded(size_t n) {
    return (n + 15) & ~(size_t)15;
}

/* Bytes that fill() will take for what hangs below j. Every term is smaller than a constant times the
 * text. */
static size_t measure(json_t *j) {
    size_t bytes = 0;
    if (json_is_string(j)) return rounded(json_string_length(j) + 1);
    if (json_is_array(j)) {
        size_t n = json_array_size(j);
        bytes = rounded(n * sizeof(Json));
        for (size_t i = 0; i < n; i++) bytes += measure(json_array_get(j, i));
    } else if (json_is_object(j)) {
        size_t n = json_object_size(j);
        bytes = rounded(n * sizeof(Member)) + (n >= SORTED_FROM ? rounded(n * sizeof(Member *)) : 0);
        for (void *it = json_object_iter(j); it; it = json_object_iter_next(j, it))
            bytes += rounded(strlen(json_object_iter_key(it)) + 1) + measure(json_object_iter_value(it));
    }
    return bytes;
}

static void *take(Block *b, size_t bytes) {
    void *p = b->at;
    b->at += rounded(bytes);
    return p;
}

static const char *take_text(Block *b, const char *s, size_t len) {
    char *p = take(b, len + 1);
    memcpy(p, s, len);
    p[len] = 0;
    return p;
}

static int by_key(const void *x, const void *y) {
    const Member *const *a = x, *const *b = y;
    return strcmp((*a)->key, (*b)->key);
}

static void fill(Block *b, json_t *j, Json *out);

static void fill_object(Block *b, json_t *j, Json *out) {
    out->kind = J_OBJECT;
    out->n = json_object_size(j);
    out->u.o.member = take(b, out->n * sizeof(Member));
    out->u.o.sorted = NULL;
    size_t i = 0;
    for (void *it = json_object_iter(j); it; it = json_object_iter_next(j, it), i++) {
        const char *key = json_object_iter_key(it);
        out->u.o.member[i].key = take_text(b, key, strlen(key));
        fill(b, json_object_iter_value(it), &out->u.o.member[i].value);
    }
    if (out->n < SORTED_FROM) return;
    out->u.o.sorted = take(b, out->n * sizeof(Member *));
    for (i = 0; i < out->n; i++) out->u.o.sorted[i] = &out->u.o.member[i];
    qsort(out->u.o.sorted, out->n, sizeof(Member *), by_key);
}

static void fill(Block *b, json_t *j, Json *out) {
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        fill_object(b, j, out);
        break;
    case JSON_ARRAY:
        out->kind = J_ARRAY;
        out->n = json_array_size(j);
        out->u.item = take(b, out->n * sizeof(Json));
        for (size_t i = 0; i < out->n; i++) fill(b, json_array_get(j, i), &out->u.item[i]);
        break;
    case JSON_STRING:
        out->kind = J_STRING;
        out->n = json_string_length(j);
        out->u.s = take_text(b, json_string_value(j), out->n);
        break;
    case JSON_INTEGER:
        out->kind = J_INT;
        out->u.i = json_integer_value(j);
        break;
    case JSON_REAL:
        out->kind = J_REAL;
        out->u.r = json_real_value(j);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        out->kind = J_BOOL;
        out->u.b = json_is_true(j);
        break;
    case JSON_NULL:
        out->kind = J_NULL;
        break;
    }
}

/* Parses one value that is the whole text. Errors go to `code` with file, line (counted from line0) and
 * column. max_depth counts nested arrays and objects. Free the result with json_free. */
Json *json_parse(const char *text, size_t len, const char *file, uint32_t line0, int max_depth, Diags *d,
                 Code code) {
    size_t at = 0;
    if (max_depth > DEPTH_MOST) max_depth = DEPTH_MOST;
    if (!depth_ok(text, len, max_depth, &at)) {
        (void)diag_fail(d, code, place(text, at, file, line0), "JSON nested deeper than %d", max_depth);
        return NULL;
    }
    json_error_t e;
    json_t *j = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (!j) {
        if (json_error_code(&e) == json_error_out_of_memory) {
            (void)diag_fail(d, R006, NOLOC, "no memory to parse %s (%zu bytes)", file, len);
            return NULL;
        }
        Loc loc = {.file = file, .line = line0, .col = 1, .at = 0, .len = 1};
        if (e.line > 0) loc.line = line0 + (uint32_t)e.line - 1;
        if (e.column > 0) loc.col = (uint32_t)e.column;
        if (e.position > 0) loc.at = (uint32_t)e.position;
        (void)diag_fail(d, code, loc, "not JSON: %s", e.text);
        return NULL;
    }
    Env *env = arena_env(d->arena);
    Root *root = env->alloc(env, rounded(sizeof(Root)) + measure(j));
    if (root) {
        Block b = {(char *)root + rounded(sizeof(Root))};
        root->env = env;
        fill(&b, j, &root->top);
    } else {
        (void)diag_fail(d, R006, NOLOC, "no memory to parse %s (%zu bytes)", file, len);
    }
    json_decref(j);
    return root ? &root->top : NULL;
}

/* Frees what json_parse returned (the top value only). NULL is fine. */
void json_free(Json *j) {
    if (!j) return;
    Root *root = (Root *)(void *)((char *)j - offsetof(Root, top));
    root->env->free(root->env, root);
}

/* Kind of a value; J_NULL for NULL, so that a chain of json_get needs no checks in between. */
JsonKind json_kind(const Json *j) {
    return j ? j->kind : J_NULL;
}

bool json_bool(const Json *j) {
    return json_kind(j) == J_BOOL && j->u.b;
}

int64_t json_int(const Json *j) {
    return json_kind(j) == J_INT ? j->u.i : 0;
}

double json_real(const Json *j) {
    if (json_kind(j) == J_INT) return (double)j->u.i;
    return json_kind(j) == J_REAL ? j->u.r : 0;
}

/* Text of a string, NUL-terminated; NULL for another kind. len may be NULL. */
const char *json_string(const Json *j, size_t *len) {
    if (json_kind(j) != J_STRING) return NULL;
    if (len) *len = j->n;
    return j->u.s;
}

size_t json_size(const Json *j) {
    return json_kind(j) == J_ARRAY || json_kind(j) == J_OBJECT ? j->n : 0;
}

const Json *json_at(const Json *j, size_t i) {
    return json_kind(j) == J_ARRAY && i < j->n ? &j->u.item[i] : NULL;
}

static const Json *member(const Json *j, const char *key, size_t len) {
    if (json_kind(j) != J_OBJECT) return NULL;
    if (!j->u.o.sorted) {
        for (size_t i = 0; i < j->n; i++) {
            const Member *m = &j->u.o.member[i];
            if (!strncmp(m->key, key, len) && !m->key[len]) return &m->value;
        }
        return NULL;
    }
    size_t lo = 0, hi = j->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const char *at = j->u.o.sorted[mid]->key;
        int c = strncmp(at, key, len);
        if (!c) c = at[len] ? 1 : 0;
        if (!c) return &j->u.o.sorted[mid]->value;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const Json *json_get(const Json *j, const char *key) {
    return member(j, key, strlen(key));
}

const Json *json_path(const Json *j, const char *dotted) {
    while (j) {
        size_t len = strcspn(dotted, ".");
        j = member(j, dotted, len);
        if (!dotted[len]) break;
        dotted += len + 1;
    }
    return j;
}

const char *json_key_at(const Json *j, size_t i, const Json **value) {
    if (json_kind(j) != J_OBJECT || i >= j->n) return NULL;
    if (value) *value = &j->u.o.member[i].value;
    return j->u.o.member[i].key;
}

/* Appends s as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD, one for each. */
void json_quote(Sbuf *out, const char *s, size_t len) {
    sb_chr(out, '"');
    while (len) {
        size_t good = len;
        (void)text_utf8_ok(s, len, &good);
        if (good > len) good = len;
        for (size_t i = 0; i < good; i++) {
            unsigned char c = (unsigned char)s[i];
            if (c == '"' || c == '\\') {
                sb_chr(out, '\\');
                sb_chr(out, (char)c);
            } else if (c == '\n') {
                sb_str(out, "\\n");
            } else if (c < 0x20 || c == 0x7f) {
                sb_fmt(out, "\\u%04x", c);
            } else {
                sb_chr(out, (char)c);
            }
        }
        s += good;
        len -= good;
        if (!len) break;
        sb_str(out, "\\ufffd");
        s++;
        len--;
    }
    sb_chr(out, '"');
}

void json_number(Sbuf *out, double v) {
    if (v == 0 && signbit(v))
        sb_str(out, "-0.0"); /* "-0" would read back as the integer 0 */
    else if (isfinite(v))
        sb_double(out, v);
    else
        sb_str(out, "null");
}
