/* pack.c: the file format of a cache entry, and several kernels as one compile unit.
 *
 * An entry is the object, a footer (identity of the toolchain, the sources) and a trailer of fixed size with
 * sizes and hashes of both: dlopen ignores what follows the object's sections, and a hit can compare sources
 * byte for byte. A unit renames by macros: every name that a kernel declares at file scope is its own, so
 * kernels cannot clash. */
#include "codegen/pack.h"

#include <stdio.h>
#include <string.h>

static void put_trailer(char out[PACK_TRAILER + 1], size_t object_bytes, size_t footer_bytes, const char *oh,
                        const char *fh) {
    char text[PACK_TRAILER + 1];
    int k = snprintf(text, sizeof text, "WMPACK1 %016llx %016llx %s %s", (unsigned long long)object_bytes,
                     (unsigned long long)footer_bytes, oh, fh);
    memset(out, ' ', PACK_TRAILER);
    memcpy(out, text, (size_t)k);
    out[PACK_TRAILER - 1] = '\n';
    out[PACK_TRAILER] = 0;
}

static void put_text(Sbuf *out, const char *s, size_t n) {
    sb_fmt(out, "%08x", (unsigned)n);
    sb_put(out, s, n);
}

void pack_footer(Sbuf *out, const void *object, size_t object_bytes, const char *identity,
                 const KernelSource *source, const uint32_t *which, uint32_t n) {
    size_t at = out->len;
    put_text(out, identity, strlen(identity));
    sb_fmt(out, "%08x", n);
    for (uint32_t i = 0; i < n; i++) put_text(out, source[which[i]].source, source[which[i]].len);
    char oh[33], fh[33], trailer[PACK_TRAILER + 1];
    hash128_hex(object, object_bytes, oh);
    hash128_hex(out->s + at, out->len - at, fh);
    put_trailer(trailer, object_bytes, out->len - at, oh, fh);
    sb_put(out, trailer, PACK_TRAILER);
}

/* Exactly `digits` lower-case hex digits at *at. */
static bool get_hex(const char *s, size_t n, size_t *at, int digits, uint64_t *v) {
    if (n - *at < (size_t)digits) return false;
    *v = 0;
    for (int i = 0; i < digits; i++) {
        char c = s[*at + (size_t)i];
        if ((c < '0' || c > '9') && (c < 'a' || c > 'f')) return false;
        *v = *v << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    *at += (size_t)digits;
    return true;
}

static bool get_text(const char *s, size_t n, size_t *at, const char **text, size_t *len) {
    uint64_t v;
    if (!get_hex(s, n, at, 8, &v) || v > n - *at) return false;
    *text = s + *at;
    *len = (size_t)v;
    *at += (size_t)v;
    return true;
}

static bool parse_footer(Arena *a, const char *s, size_t n, Pack *p) {
    size_t at = 0;
    uint64_t count;
    if (!get_text(s, n, &at, &p->identity, &p->identity_len) || !get_hex(s, n, &at, 8, &count)) return false;
    if (count > PACK_MAX_KERNELS || count > (n - at) / 8) return false;
    p->n = (uint32_t)count;
    p->source = NEWN(a, KernelSource, p->n);
    for (uint32_t i = 0; i < p->n; i++)
        if (!get_text(s, n, &at, &p->source[i].source, &p->source[i].len)) return false;
    return at == n;
}

bool pack_parse(Arena *a, const char *bytes, size_t n, Pack *p) {
    if (n < PACK_TRAILER || n > PACK_MAX_BYTES) return false;
    const char *t = bytes + n - PACK_TRAILER;
    uint64_t object_bytes, footer_bytes;
    size_t at = 8;
    if (memcmp(t, "WMPACK1 ", 8) != 0 || !get_hex(t, PACK_TRAILER, &at, 16, &object_bytes)) return false;
    at++;
    if (!get_hex(t, PACK_TRAILER, &at, 16, &footer_bytes)) return false;
    size_t rest = n - PACK_TRAILER;
    if (object_bytes > rest || footer_bytes != rest - object_bytes) return false;
    p->object_bytes = (size_t)object_bytes;
    char oh[33], fh[33], trailer[PACK_TRAILER + 1];
    hash128_hex(bytes, p->object_bytes, oh);
    hash128_hex(bytes + object_bytes, (size_t)footer_bytes, fh);
    put_trailer(trailer, p->object_bytes, (size_t)footer_bytes, oh, fh);
    if (memcmp(t, trailer, PACK_TRAILER) != 0) return false;
    return parse_footer(a, bytes + object_bytes, (size_t)footer_bytes, p);
}

/* ---- units */
static bool letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}
static bool digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_keyword(const char *s, size_t n) {
    static const char *const word[] = {
        "static",   "inline",   "const",   "volatile", "void",     "int",   "float", "double",  "unsigned",
        "signed",   "char",     "short",   "long",     "struct",   "union", "enum",  "typedef", "extern",
        "register", "restrict", "return",  "sizeof",   "if",       "else",  "for",   "while",   "do",
        "switch",   "case",     "default", "break",    "continue", "goto",  "asm",   "typeof"};
    if (n >= 2 && s[0] == '_' && (s[1] == '_' || (s[1] >= 'A' && s[1] <= 'Z')))
        return true; /* the compiler's own */
    for (size_t i = 0; i < WM_LEN(word); i++)
        if (strlen(word[i]) == n && memcmp(word[i], s, n) == 0) return true;
    return false;
}

typedef struct {
    Arena *a;
    StrMap *seen;
    const char **name;
    uint32_t n, cap;
} Names;

static void names_add(Names *w, const char *s, size_t n) {
    char *text = arena_str(w->a, s, n);
    if (!strmap_put(w->seen, text, 0)) return;
    GROW(w->a, w->name, w->n, w->cap);
    w->name[w->n++] = text;
}

/* End of the parenthesis that opens at or after i; attributes are not declarations. */
static size_t skip_parens(const char *s, size_t n, size_t i) {
    while (i < n && s[i] != '(') i++;
    int depth = 0;
    for (; i < n; i++) {
        depth += (s[i] == '(') - (s[i] == ')');
        if (depth == 0) return i + 1;
    }
    return n;
}

/* Past a directive (with its continued lines); the name of a #define goes to `macro`. */
static size_t skip_directive(const char *s, size_t n, size_t i, Names *macro) {
    size_t b = i + 1;
    while (b < n && s[b] == ' ') b++;
    if (n - b > 7 && memcmp(s + b, "define ", 7) == 0) {
        size_t e = b += 7;
        while (e < n && (letter(s[e]) || digit(s[e]))) e++;
        names_add(macro, s + b, e - b);
    }
    while (i < n && s[i] != '\n') i += s[i] == '\\' && i + 1 < n ? 2 : 1;
    return i;
}

/* Names that a source declares at file scope, constants of its enums included, and the macros that it
 * defines. */
static void collect(const char *s, size_t n, Names *scope, Names *macro) {
    int depth = 0;
    bool line_start = true, in_enum = false;
    for (size_t i = 0; i < n;) {
        char c = s[i];
        if (c == '#' && line_start) {
            i = skip_directive(s, n, i, macro);
            continue;
        }
        if (c != ' ' && c != '\t') line_start = c == '\n';
        if (c == '{' || c == '}') {
            depth += c == '{' ? 1 : -1;
            if (depth == 0) in_enum = false;
        }
        if (digit(c)) {
            while (i < n && (letter(s[i]) || digit(s[i]) || s[i] == '.')) i++;
            continue;
        }
        if (!letter(c)) {
            i++;
            continue;
        }
        size_t b = i;
        while (i < n && (letter(s[i]) || digit(s[i]))) i++;
        if (i - b == 13 && memcmp(s + b, "__attribute__", 13) == 0)
            i = skip_parens(s, n, i);
        else if (depth == 0 && i - b == 4 && memcmp(s + b, "enum", 4) == 0)
            in_enum = true;
        else if ((depth == 0 || (depth == 1 && in_enum)) && !is_keyword(s + b, i - b))
            names_add(scope, s + b, i - b);
    }
}

void pack_unit(Arena *a, Sbuf *out, const KernelSource *source, const uint32_t *which, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        const KernelSource *k = &source[which[i]];
        Names scope = {a, strmap_new(a), NULL, 0, 0}, macro = {a, strmap_new(a), NULL, 0, 0};
        collect(k->source, k->len, &scope, &macro);
        for (uint32_t j = 0; j < scope.n; j++)
            sb_fmt(out, "#define %s %s_%u\n", scope.name[j], scope.name[j], i);
        sb_put(out, k->source, k->len);
        sb_chr(out, '\n');
        for (uint32_t j = 0; j < scope.n; j++) sb_fmt(out, "#undef %s\n", scope.name[j]);
        for (uint32_t j = 0; j < macro.n; j++) sb_fmt(out, "#undef %s\n", macro.name[j]);
    }
}
