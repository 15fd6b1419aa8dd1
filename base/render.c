/* render.c: diagnostics as text with carets, or as JSON lines; `check`, editors and logs all print these.
 *
 * A source line becomes a row of cells, each some bytes and the columns they take: tabs are four, Korean
 * letters two, control bytes are spelled out. Carets count cells, so they stand under what they mean. Nothing
 * that a user wrote reaches the terminal unescaped. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

enum { TAB_COLUMNS = 4, LINE_COLUMNS = 120, LEAD_COLUMNS = 50 };

typedef enum { INK_NONE, INK_ERROR, INK_WARNING, INK_NOTE, INK_GUTTER, INK_HELP, INK_BOLD } Ink;
static const char *const ink_code[] = {"",           "\033[1;31m", "\033[1;33m", "\033[1;36m",
                                       "\033[1;34m", "\033[1;32m", "\033[1m"};
static const char *const level_name[] = {"error", "warning", "note"};
static const Ink level_ink[] = {INK_ERROR, INK_WARNING, INK_NOTE};

typedef struct {
    const Diags *d;
    Sbuf *out;
    bool color;
    uint32_t gutter; /* digits of the largest line number shown */
} Page;

static void put_ink(const Page *p, Ink ink, const char *s) {
    if (p->color && ink != INK_NONE) sb_str(p->out, ink_code[ink]);
    sb_str(p->out, s);
    if (p->color && ink != INK_NONE) sb_str(p->out, "\033[0m");
}

static void put_times(Sbuf *b, char c, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) sb_chr(b, c);
}

/* A message: escaped but for line breaks, after which it is indented. */
static void put_message(const Page *p, Ink ink, const char *s, uint32_t indent) {
    while (true) {
        size_t n = strcspn(s, "\n");
        put_ink(p, ink, text_escape(p->out->a, s, n));
        if (!s[n]) return;
        s += n + 1;
        sb_chr(p->out, '\n');
        put_times(p->out, ' ', indent);
    }
}

/* ---- lines and cells */
typedef struct {
    const char *s;
    size_t len;
} Line;

/* The registered text of a file, without a byte order mark. */
static bool find_source(const Diags *d, const char *file, Line *whole) {
    uint32_t i = 0;
    while (i < d->nsource && file && strcmp(d->source[i].file, file) != 0) i++;
    if (!file || i == d->nsource || !d->source[i].text) return false;
    *whole = (Line){d->source[i].text, d->source[i].len};
    if (whole->len >= 3 && !memcmp(whole->s, "\xef\xbb\xbf", 3)) whole->s += 3, whole->len -= 3;
    return true;
}

static bool find_line(const Diags *d, const char *file, uint32_t line, Line *l) {
    Line whole;
    if (!line || !find_source(d, file, &whole)) return false;
    const char *s = whole.s, *end = s + whole.len;
    for (; line > 1; line--) {
        const char *next = s < end ? memchr(s, '\n', (size_t)(end - s)) : NULL;
        if (!next) return false;
        s = next + 1;
    }
    const char *stop = s < end ? memchr(s, '\n', (size_t)(end - s)) : NULL;
    if (!stop) stop = end;
    if (stop > s && stop[-1] == '\r') stop--;
    *l = (Line){s, (size_t)(stop - s)};
    return true;
}

static size_t char_bytes(const char *s, size_t n) {
    size_t k = 1;
    while (k < n && k < 4 && ((unsigned char)s[k] & 0xc0) == 0x80) k++;
    return (unsigned char)s[0] < 0x80 ? 1 : k;
}

/* The next cell of a line: its bytes are returned, its columns set, its text appended to b unless that is
 * NULL. */
static size_t cell(Arena *a, Sbuf *b, const char *s, size_t n, uint32_t *columns) {
    size_t k = char_bytes(s, n);
    if (*s == '\t') {
        *columns = TAB_COLUMNS;
        if (b) put_times(b, ' ', TAB_COLUMNS);
        return k;
    }
    if ((unsigned char)*s >= 0x20 && (unsigned char)*s < 0x7f) {
        *columns = 1;
        if (b) sb_chr(b, *s);
        return k;
    }
    const char *text = text_escape(a, s, k);
    size_t len = strlen(text);
    int width = text_width(text, len);
    *columns = width > 0 ? (uint32_t)width : 0;
    if (b) sb_put(b, text, len);
    return k;
}

/* Columns before byte `at` of a line. */
static uint32_t column_of(Arena *a, Line l, size_t at) {
    uint32_t sum = 0, columns;
    for (size_t i = 0; i < at && i < l.len;) {
        i += cell(a, NULL, l.s + i, l.len - i, &columns);
        sum += columns;
    }
    return sum;
}

/* The part of a line that is shown: bytes [from, to) of `line`, which begins `base` bytes into the real one
 * and is `shift` columns to the left. Of a line of many kilobytes only the neighbourhood of the focus is
 * looked at. */
typedef struct {
    Line line;
    size_t base, from, to;
    uint32_t shift;
    bool more;
} View;

static View view_line(Arena *a, Line l, size_t focus) {
    enum { NEAR_BYTES = 1024 };
    View v = {.line = l};
    if (focus > l.len) focus = l.len;
    if (focus > NEAR_BYTES) {
        v.base = focus - NEAR_BYTES;
        while (v.base < focus && ((unsigned char)l.s[v.base] & 0xc0) == 0x80) v.base++;
        v.line = (Line){l.s + v.base, l.len - v.base};
        focus -= v.base;
    }
    v.more = v.line.len > focus + NEAR_BYTES;
    if (v.more) v.line.len = focus + NEAR_BYTES;
    while (v.more && v.line.len > focus && ((unsigned char)v.line.s[v.line.len] & 0xc0) == 0x80) v.line.len--;
    v.to = v.line.len;
    if (!v.base && !v.more && column_of(a, v.line, v.line.len) <= LINE_COLUMNS) return v;
    uint32_t at = column_of(a, v.line, focus), columns, sum = 0;
    uint32_t skip = at > LINE_COLUMNS - LEAD_COLUMNS ? at - LEAD_COLUMNS : 0;
    while (v.from < v.line.len && sum < skip) {
        v.from += cell(a, NULL, v.line.s + v.from, v.line.len - v.from, &columns);
        sum += columns;
    }
    v.shift = sum;
    for (v.to = v.from, sum = 0; v.to < v.line.len && sum < LINE_COLUMNS;) {
        v.to += cell(a, NULL, v.line.s + v.to, v.line.len - v.to, &columns);
        sum += columns;
    }
    v.more = v.more || v.to < v.line.len;
    return v;
}

static void put_gutter(const Page *p, const char *number, const char *sign) {
    Sbuf b;
    sb_init(&b, p->out->a);
    sb_fmt(&b, "%*s %s", (int)p->gutter, number, sign);
    put_ink(p, INK_GUTTER, b.s);
}

static void put_source_line(const Page *p, uint32_t number, const View *v) {
    put_gutter(p, arena_fmt(p->out->a, "%u", number), "|");
    sb_chr(p->out, ' ');
    if (v->from || v->base) sb_str(p->out, "...");
    uint32_t columns;
    for (size_t i = v->from; i < v->to;) i += cell(p->out->a, p->out, v->line.s + i, v->to - i, &columns);
    if (v->more) sb_str(p->out, "...");
    while (p->out->len && p->out->s[p->out->len - 1] == ' ') p->out->s[--p->out->len] = 0;
    sb_chr(p->out, '\n');
}

/* Marks bytes [from, from + len) of the line in a row of its own. */
static void put_marks(const Page *p, const View *v, size_t from, size_t len, char mark, Ink ink,
                      const char *label) {
    size_t to = from + len > v->base ? from + len - v->base : 0;
    from = from > v->base ? from - v->base : 0;
    if (from < v->from) from = v->from;
    if (from > v->to) from = v->to;
    if (to > v->to) to = v->to;
    if (to < from) to = from;
    uint32_t left = column_of(p->out->a, v->line, from), right = column_of(p->out->a, v->line, to);
    uint32_t lead = v->from || v->base ? 3 : 0, width = right > left ? right - left : 1;
    put_gutter(p, "", "|");
    put_times(p->out, ' ', left - v->shift + lead + 1);
    Sbuf b;
    sb_init(&b, p->out->a);
    put_times(&b, mark, width);
    put_ink(p, ink, b.s);
    if (label && *label) {
        sb_chr(p->out, ' ');
        put_message(p, ink, label, p->gutter + 4 + left - v->shift + lead + width);
    }
    sb_chr(p->out, '\n');
}

/* ---- spans */
static bool same_file(const Loc *a, const Loc *b) {
    return a->file && b->file && !strcmp(a->file, b->file);
}

static void put_place(const Page *p, const char *arrow, const Loc *l) {
    put_times(p->out, ' ', p->gutter);
    put_ink(p, INK_GUTTER, arrow);
    sb_fmt(p->out, " %s", text_escape(p->out->a, l->file, strlen(l->file)));
    if (l->line) sb_fmt(p->out, ":%u:%u", l->line, l->col ? l->col : 1);
    sb_chr(p->out, '\n');
}

/* One line of the source with the marks of every span on it. */
static void put_span_line(const Page *p, const Diag *g, const Loc *where, Line l) {
    size_t focus = 0;
    for (uint32_t i = g->nspan; i-- > 0;) /* the first span decides what part of a long line is shown */
        if (same_file(&g->span[i].loc, where) && g->span[i].loc.line == where->line && g->span[i].loc.col)
            focus = g->span[i].loc.col - 1;
    View v = view_line(p->out->a, l, focus);
    put_source_line(p, where->line, &v);
    for (uint32_t i = 0; i < g->nspan; i++) {
        const Loc *at = &g->span[i].loc;
        if (!same_file(at, where) || at->line != where->line) continue;
        Ink ink = i ? INK_GUTTER : level_ink[g->level];
        put_marks(p, &v, at->col ? at->col - 1 : 0, at->len, i ? '-' : '^', ink, g->span[i].label);
    }
}

/* All spans in the file of span `first`, by line. */
static void put_file(const Page *p, const Diag *g, uint32_t first) {
    const Loc *home = &g->span[first].loc;
    uint32_t shown = 0;
    Line l;
    put_place(p, first ? ":::" : "-->", home);
    while (true) {
        const Loc *next = NULL;
        for (uint32_t i = 0; i < g->nspan; i++) {
            const Loc *at = &g->span[i].loc;
            if (same_file(at, home) && at->line > shown && (!next || at->line < next->line)) next = at;
        }
        if (!next || !find_line(p->d, next->file, next->line, &l)) return;
        if (!shown)
            put_gutter(p, "", "|\n");
        else if (next->line > shown + 1)
            put_ink(p, INK_GUTTER, "...\n");
        shown = next->line;
        put_span_line(p, g, next, l);
    }
}

static void put_spans(const Page *p, const Diag *g) {
    for (uint32_t i = 0; i < g->nspan; i++) {
        bool seen = !g->span[i].loc.file;
        for (uint32_t k = 0; k < i && !seen; k++) seen = same_file(&g->span[k].loc, &g->span[i].loc);
        if (!seen) put_file(p, g, i);
    }
}

/* ---- fixes */
/* The line as it is after the fix; every line of a text with several. */
static void put_fixed(const Page *p, const Diag *g, Line l) {
    size_t from = g->replace.col ? g->replace.col - 1 : 0, cut = g->replace.len;
    size_t added = strlen(g->replacement);
    Sbuf b;
    put_gutter(p, "", "|\n");
    if (!added) {
        View v = view_line(p->out->a, l, from);
        put_source_line(p, g->replace.line, &v);
        put_marks(p, &v, from, cut, '-', INK_ERROR, "remove");
        return;
    }
    sb_init(&b, p->out->a);
    sb_put(&b, l.s, from);
    sb_put(&b, g->replacement, added);
    sb_put(&b, l.s + from + cut, l.len - from - cut);
    size_t start = 0, new_to = from + added;
    for (uint32_t number = g->replace.line; start <= b.len; number++) {
        const char *stop = memchr(b.s + start, '\n', b.len - start);
        Line part = {b.s + start, stop ? (size_t)(stop - b.s) - start : b.len - start};
        size_t lo = from > start ? from - start : 0, hi = new_to > start ? new_to - start : 0;
        View v = view_line(p->out->a, part, lo);
        put_source_line(p, number, &v);
        if (hi > part.len) hi = part.len;
        if (hi > lo) put_marks(p, &v, lo, hi - lo, cut ? '~' : '+', INK_HELP, NULL);
        start += part.len + 1;
    }
}

static bool fix_line(const Diags *d, const Diag *g, Line *l) {
    if (!g->replacement || !find_line(d, g->replace.file, g->replace.line, l)) return false;
    size_t from = g->replace.col ? g->replace.col - 1 : 0;
    return from <= l->len && g->replace.len <= l->len - from;
}

static uint32_t digits(uint32_t n) {
    uint32_t k = 1;
    while (n >= 10) n /= 10, k++;
    return k;
}

static void put_diag(Page *p, const Diag *g) {
    Line l;
    p->gutter = 1;
    for (uint32_t i = 0; i < g->nspan; i++)
        if (digits(g->span[i].loc.line) > p->gutter) p->gutter = digits(g->span[i].loc.line);
    bool fix = fix_line(p->d, g, &l);
    if (fix && digits(g->replace.line) > p->gutter) p->gutter = digits(g->replace.line);
    put_ink(p, level_ink[g->level],
            arena_fmt(p->out->a, "%s[%s]", level_name[g->level], code_info[g->code].name));
    put_ink(p, INK_BOLD, ": ");
    put_message(p, INK_BOLD, g->text ? g->text : "", 2);
    sb_chr(p->out, '\n');
    put_spans(p, g);
    if (g->help || fix) {
        put_ink(p, INK_HELP, "help");
        sb_str(p->out, ": ");
        put_message(p, INK_NONE, g->help ? g->help : "write it like this", 6);
        sb_chr(p->out, '\n');
        if (fix) put_fixed(p, g, l);
    }
    for (uint32_t i = 0; i < g->nnote; i++) {
        put_times(p->out, ' ', p->gutter + 1);
        put_ink(p, INK_GUTTER, "=");
        sb_str(p->out, " note: ");
        put_message(p, INK_NONE, g->note[i], p->gutter + 9);
        sb_chr(p->out, '\n');
    }
    sb_chr(p->out, '\n');
}

/* "2 errors, 1 warning" */
static void put_count(const Diags *d, Sbuf *out) {
    uint32_t warnings = 0, errors = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        errors += d->item[i]->level == LEVEL_ERROR;
        warnings += d->item[i]->level == LEVEL_WARNING;
    }
    if (d->nerror) sb_fmt(out, "%u error%s", d->nerror, d->nerror == 1 ? "" : "s");
    if (d->nerror > errors) sb_fmt(out, " (%u shown)", errors);
    if (d->nerror && warnings) sb_str(out, ", ");
    if (warnings) sb_fmt(out, "%u warning%s", warnings, warnings == 1 ? "" : "s");
    if (d->nerror || warnings) sb_chr(out, '\n');
}

void diags_render(const Diags *d, Sbuf *out, bool color) {
    Page p = {.d = d, .out = out, .color = color};
    for (uint32_t i = 0; i < d->n; i++) put_diag(&p, d->item[i]);
    put_count(d, out);
}

/* ---- JSON */
static void put_json(Sbuf *out, const char *s) {
    size_t n = strlen(s);
    sb_chr(out, '"');
    for (size_t i = 0; i < n;) {
        size_t k = char_bytes(s + i, n - i);
        const char *shown = text_escape(out->a, s + i, k);
        if (s[i] == '"' || s[i] == '\\') {
            sb_chr(out, '\\');
            sb_chr(out, s[i]);
        } else if (s[i] == '\n') {
            sb_str(out, "\\n");
        } else {
            bool spelled = strlen(shown) != k || memcmp(shown, s + i, k) != 0;
            if (!spelled)
                sb_put(out, s + i, k);
            else if (shown[1] == 'u')
                sb_fmt(out, "\\u%04lx", strtoul(shown + 3, NULL, 16));
            else
                sb_str(out, "\\ufffd");
        }
        i += k;
    }
    sb_chr(out, '"');
}

/* Line and column (from 1, in bytes) after the last byte of a place. */
static void put_end(const Diags *d, Sbuf *out, const Loc *at) {
    uint32_t line = at->line, col = at->col ? at->col : 1;
    Line l, whole = {0};
    if (!find_line(d, at->file, line, &l) || !find_source(d, at->file, &whole)) l = (Line){0};
    for (uint32_t i = 0; i < at->len; i++) {
        const char *s = l.s ? l.s + (at->col ? at->col - 1 : 0) + i : NULL;
        col++;
        if (s && s < whole.s + whole.len && *s == '\n') line++, col = 1;
    }
    sb_fmt(out, "{\"line\": %u, \"column\": %u}", line, col);
}

static void put_json_place(const Diags *d, Sbuf *out, const Loc *at) {
    if (!at->file) {
        sb_str(out, "\"file\": null");
        return;
    }
    sb_str(out, "\"file\": ");
    put_json(out, at->file);
    sb_fmt(out, ", \"line\": %u, \"column\": %u, \"end\": ", at->line, at->col ? at->col : 1);
    put_end(d, out, at);
}

static void put_json_text(Sbuf *out, const char *key, const char *s) {
    sb_fmt(out, ", \"%s\": ", key);
    if (s)
        put_json(out, s);
    else
        sb_str(out, "null");
}

static void put_json_diag(const Diags *d, Sbuf *out, const Diag *g) {
    sb_fmt(out, "{\"code\": \"%s\", \"level\": \"%s\", ", code_info[g->code].name, level_name[g->level]);
    put_json_place(d, out, &g->span[0].loc);
    put_json_text(out, "text", g->text ? g->text : "");
    put_json_text(out, "label", g->span[0].label);
    sb_str(out, ", \"spans\": [");
    for (uint32_t i = 1; i < g->nspan; i++) {
        sb_str(out, i > 1 ? ", {" : "{");
        put_json_place(d, out, &g->span[i].loc);
        put_json_text(out, "label", g->span[i].label);
        sb_chr(out, '}');
    }
    sb_chr(out, ']');
    put_json_text(out, "help", g->help);
    sb_str(out, ", \"notes\": [");
    for (uint32_t i = 0; i < g->nnote; i++) {
        if (i) sb_str(out, ", ");
        put_json(out, g->note[i]);
    }
    sb_str(out, "], \"fix\": ");
    if (g->replacement) {
        sb_chr(out, '{');
        put_json_place(d, out, &g->replace);
        put_json_text(out, "text", g->replacement);
        sb_fmt(out, ", \"sure\": %s}", g->sure ? "true" : "false");
    } else {
        sb_str(out, "null");
    }
    sb_str(out, "}\n");
}

void diags_render_json(const Diags *d, Sbuf *out) {
    for (uint32_t i = 0; i < d->n; i++) put_json_diag(d, out, d->item[i]);
}
