/* parse.c: text in, tree of ast.h out; the constructors that the actions of wg.y call.
 *
 * A file is checked for UTF-8 and size before the lexer sees it, so everything after may trust the bytes. */
#include "frontend/parse.h"

#include <string.h>

#include "frontend/wg_parser.h"
#include "frontend/wg_lexer.h"

Loc loc_join(const Loc *rhs, int n) {
    int first = 1, last = n;
    while (first < n && !rhs[first].len) first++;
    while (last > first && !rhs[last].len) last--;
    if (n > 0) {
        Loc l = rhs[first];
        l.len = rhs[last].at + rhs[last].len - l.at;
        return l;
    }
    Loc l = rhs[0]; /* nothing, right after what came before */
    l.at += l.len;
    l.col += l.len;
    l.len = 0;
    return l;
}

const char *doc_below(const Parser *p, uint32_t at) {
    uint32_t lo = 0, hi = p->ndoc;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (p->doc[mid].at < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < p->ndoc && p->doc[lo].at == at ? p->doc[lo].text : NULL;
}

char *source_text(Parser *p, Loc loc) {
    return arena_str(p->a, p->text + (loc.at - p->base.at), loc.len);
}

/* ---- statements */
Stmt *stmt_new(Parser *p, StmtKind kind, Loc loc, const char *name, Loc name_loc) {
    Stmt *s = NEW(p->a, Stmt);
    s->kind = kind;
    s->loc = loc;
    s->name = name;
    s->name_loc = name_loc;
    s->doc = doc_below(p, loc.at);
    return s;
}

void stmts_add(Parser *p, Stmts *s, Stmt *x) {
    if (!x) return;
    GROW(p->a, s->item, s->n, s->cap);
    s->item[s->n++] = x;
}

/* Names has two arrays of one capacity. */
void names_add(Parser *p, Names *s, const char *name, Loc loc) {
    uint32_t cap = s->cap;
    GROW(p->a, s->name, s->n, s->cap);
    GROW(p->a, s->loc, s->n, cap);
    if (cap < s->cap) s->cap = cap;
    s->name[s->n] = name;
    s->loc[s->n++] = loc;
}

void formals_add(Parser *p, Formals *s, const char *name, Expr *dflt, Loc loc) {
    GROW(p->a, s->item, s->n, s->cap);
    s->item[s->n++] = (Formal){name, dflt, loc};
}

void hints_add(Parser *p, Hints *s, Names words) {
    GROW(p->a, s->item, s->n, s->cap);
    s->item[s->n++] = words;
}

static AstAxis *axis_new(Parser *p, Axes *s, Loc loc) {
    GROW(p->a, s->item, s->n, s->cap);
    AstAxis *x = &s->item[s->n++];
    *x = (AstAxis){.loc = loc};
    return x;
}

void axes_add(Parser *p, Axes *s, const char *dim, Loc loc) {
    names_add(p, &axis_new(p, s, loc)->dims, dim, loc);
}

void axes_add_names(Parser *p, Axes *s, Names dims, Loc loc) {
    axis_new(p, s, loc)->dims = dims;
}

/* The only number that is an axis is 1. */
void axes_add_number(Parser *p, Axes *s, double value, Loc loc) {
    axis_new(p, s, loc)->unit = true;
    if (value >= 1 && value <= 1) return;
    Diag *g =
        parse_error(p, E003, loc, "an axis is a dim, dims in ( ), or 1; found `%s`", source_text(p, loc));
    diag_help(p->d, g, "declare a dim of this size and name it here: `dim narrow = %s`", source_text(p, loc));
}

void groups_add(Parser *p, Groups *s, const char *model, const char *pattern, Loc loc) {
    GROW(p->a, s->item, s->n, s->cap);
    s->item[s->n++] = (AstGroup){model, pattern, loc};
}

void stmt_hints(Parser *p, Stmt *s, const Hints *h) {
    for (uint32_t i = 0; i < h->n; i++) {
        GROW(p->a, s->hint, s->nhint, s->hint_cap);
        s->hint[s->nhint].word = h->item[i].name;
        s->hint[s->nhint].loc = h->item[i].loc;
        s->hint[s->nhint].n = h->item[i].n;
        s->hint[s->nhint++].cap = h->item[i].cap;
    }
}

/* ---- expressions */
static void set_depth(Parser *p, Expr *e, const Expr *child) {
    if (!child || child->depth < e->depth) return;
    e->depth = child->depth + 1;
    if (e->depth > MAX_EXPR_DEPTH) parse_too_deep(p, e->loc);
}

Expr *expr_new(Parser *p, ExprKind kind, Loc loc, Expr *a, Expr *b, Expr *c) {
    Expr *e = NEW(p->a, Expr);
    e->kind = kind;
    e->loc = loc;
    e->depth = 1;
    e->a = a;
    e->b = b;
    e->c = c;
    set_depth(p, e, a);
    set_depth(p, e, b);
    set_depth(p, e, c);
    return e;
}

Expr *expr_bin(Parser *p, Loc loc, BinOp op, Loc op_loc, Expr *a, Expr *b) {
    Expr *e = expr_new(p, X_BIN, loc, a, b, NULL);
    e->op = op;
    e->op_loc = op_loc;
    return e;
}

void list_add(Parser *p, ExprList *s, NamedExpr x) {
    GROW(p->a, s->item, s->n, s->cap);
    s->item[s->n++] = x;
}

Expr *expr_list(Parser *p, ExprKind kind, Loc loc, Expr *a, ExprList list) {
    Expr *e = expr_new(p, kind, loc, a, NULL, NULL);
    e->list = list;
    for (uint32_t i = 0; i < list.n; i++) set_depth(p, e, list.item[i].e);
    return e;
}

Expr *expr_num(Parser *p, ExprKind kind, Loc loc, double v, bool is_int) {
    Expr *e = expr_new(p, kind, loc, NULL, NULL, NULL);
    e->num = v;
    e->is_int = is_int;
    return e;
}

Expr *expr_text(Parser *p, ExprKind kind, Loc loc, const char *s) {
    Expr *e = expr_new(p, kind, loc, NULL, NULL, NULL);
    e->name = s;
    return e;
}

/* ---- entry points */
/* Place of a byte, by counting; for messages about text that the lexer has not seen. */
static Loc loc_of(const Parser *p, size_t at) {
    Loc l = p->base;
    for (size_t i = 0; i < at; i++) {
        l.col++;
        if (p->text[i] == '\n') l.line++, l.col = 1;
    }
    l.at += (uint32_t)at;
    l.len = 1;
    return l;
}

static bool bytes_ok(Parser *p) {
    size_t bad = 0;
    if (p->len > MAX_SOURCE_BYTES) {
        parse_error(p, E003, p->base, "this file has %zu bytes; the limit is %d MiB", p->len,
                    MAX_SOURCE_BYTES >> 20);
        return false;
    }
    if (!text_utf8_ok(p->text, p->len, &bad)) {
        Diag *g = parse_error(p, E001, loc_of(p, bad), "byte 0x%02x is no UTF-8",
                              (unsigned)(unsigned char)p->text[bad]);
        diag_help(p->d, g, "save the file as UTF-8");
        return false;
    }
    const char *nul = p->len ? memchr(p->text, 0, p->len) : NULL;
    if (nul) parse_error(p, E001, loc_of(p, (size_t)(nul - p->text)), "byte 0x00 in a text file");
    return !nul;
}

static void parse(Parser *p) {
    if (!bytes_ok(p)) return;
    bool bom = p->file && p->len >= 3 && !memcmp(p->text, "\xef\xbb\xbf", 3);
    uint32_t skip = bom ? 3 : 0;
    p->buf = arena_alloc(p->a, p->len + 2);
    if (p->len) memcpy(p->buf, p->text, p->len);
    if (bom) memset(p->buf, ' ', skip);
    p->line_at = skip;
    p->last = NL;
    sb_init(&p->doc_text, p->a);
    yyscan_t scanner = NULL;
    int failed = wglex_init_extra(p, &scanner);
    wm_check(p->a, !failed, "no lexer");
    YY_BUFFER_STATE buffer = wg_scan_buffer(p->buf, p->len + 2, scanner);
    wm_check(p->a, buffer != NULL, "no buffer");
    failed = wgparse(scanner, p);
    wm_check(p->a, !failed || p->nerror, "syntax error without a message");
    wglex_destroy(scanner);
}

AstFile *parse_file(Arena *a, const char *path, const char *text, size_t len, LexTokens *tokens, Diags *d) {
    Parser *p = NEW(a, Parser);
    p->a = a;
    p->d = d;
    p->text = text;
    p->len = len;
    p->record = tokens;
    p->base = (Loc){.file = path, .line = 1, .col = 1};
    p->file = NEW(a, AstFile);
    p->file->path = path;
    p->file->text = text;
    p->file->len = len;
    parse(p);
    p->file->ok = p->nerror == 0;
    return p->file;
}

AstFile *wg_parse(Arena *a, const char *path, const char *text, size_t len, Diags *d) {
    return parse_file(a, path, text, len, NULL, d);
}

Expr *wg_parse_expr(Arena *a, const char *text, size_t len, Loc where, Diags *d) {
    Parser *p = NEW(a, Parser);
    p->a = a;
    p->d = d;
    p->text = text;
    p->len = len;
    p->base = where;
    p->base.len = 0;
    parse(p);
    return p->nerror ? NULL : p->expr;
}
