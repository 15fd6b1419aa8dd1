/* parse_error.c: syntax errors in words: what was found, what may stand there, and what was probably meant.
 *
 * bison gives the exact set of tokens that may follow; the table below folds it into a few words. */
#include "frontend/parse.h"

#include <string.h>

#include "frontend/wg_parser.h"

Diag *parse_error(Parser *p, Code code, Loc loc, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *text = arena_vfmt(p->a, fmt, ap);
    va_end(ap);
    p->error_line = loc.line;
    if (++p->nerror >= MAX_SYNTAX_ERRORS) p->stop = true;
    return diag_add(p->d, code, loc, "%s", text);
}

/* ---- expected */
typedef struct {
    const char *if_has, *and_has, *words;
    const char *const *members;
} Group;
static const char *const expression_tokens[] = {
    "name", "number", "string", "true", "false", "if", "match", "not", "'('", "'['", "'-'", NULL,
};
static const char *const operator_tokens[] = {
    "'+'", "'-'", "'*'", "'/'", "'^'", "==",  "!=",  "'<'", "<=",
    "'>'", ">=",  "and", "or",  "'('", "'['", "'.'", NULL,
};
static const char *const statement_tokens[] = {
    "config", "block",     "param", "stack",  "from",   "dim",  "input",       "hyper", "frozen",
    "model",  "state",     "def",   "return", "open",   "loss", "metric",      "best",  "train",
    "adapt",  "clip_norm", "plan",  "test",   "expect", "name", "end of file", NULL,
};
/* `=` and `:` follow a name that begins an argument or arm; beside operators they are no help. */
static const char *const after_operand[] = {"'='", "':'", NULL};
/* Tried from the top; a group stands for its members where both its marks are expected. */
static const Group group[] = {
    {"hyper", "metric", "a statement", statement_tokens},
    {"number", "true", "an expression", expression_tokens},
    {"'*'", "'/'", "an operator", operator_tokens},
};
static const struct {
    const char *token, *words;
} in_words[] = {
    {"name", "a name"},
    {"number", "a number"},
    {"string", "text in \" \""},
    {"end of line", "end of line"},
    {"end of file", "end of file"},
};

static bool has(const char *const *set, uint32_t n, const char *s) {
    for (uint32_t i = 0; i < n; i++)
        if (set[i] && !strcmp(set[i], s)) return true;
    return false;
}

static void remove_members(const char **set, uint32_t n, const char *const *members) {
    for (uint32_t i = 0; i < n; i++)
        for (const char *const *m = members; set[i] && *m; m++)
            if (!strcmp(set[i], *m)) set[i] = NULL;
}

static void put_token(Sbuf *b, const char *token) {
    for (size_t i = 0; i < WM_LEN(in_words); i++)
        if (!strcmp(in_words[i].token, token)) {
            sb_str(b, in_words[i].words);
            return;
        }
    size_t n = strlen(token);
    bool quoted = n > 2 && token[0] == '\'';
    sb_chr(b, '`');
    sb_put(b, token + quoted, n - 2 * quoted);
    sb_chr(b, '`');
}

/* "`,`, `)` or an operator" */
static const char *expected_text(Parser *p, const char *const *expected, uint32_t n) {
    enum { SHOWN = 8 };
    const char **set = arena_copy(p->a, expected, (n + 1) * sizeof *expected);
    const char *words[WM_LEN(group)];
    uint32_t nwords = 0, left = 0;
    for (size_t i = 0; i < WM_LEN(group); i++)
        if (has(set, n, group[i].if_has) && has(set, n, group[i].and_has)) {
            remove_members(set, n, group[i].members);
            words[nwords++] = group[i].words;
        }
    if (nwords && !strcmp(words[nwords - 1], "an operator")) remove_members(set, n, after_operand);
    for (uint32_t i = 0; i < n; i++)
        if (set[i]) set[left++] = set[i];
    if (left > SHOWN) left = SHOWN;
    Sbuf b;
    sb_init(&b, p->a);
    for (uint32_t i = 0; i < left + nwords; i++) {
        if (i) sb_str(&b, i + 1 == left + nwords ? " or " : ", ");
        if (i < left)
            put_token(&b, set[i]);
        else
            sb_str(&b, words[i - left]);
    }
    return left + nwords ? b.s : "something else";
}

/* ---- found */
static const char *found_text(Parser *p, Loc loc) {
    enum { SHOWN = 40 };
    if (p->last == NL || !loc.len) return p->at_end ? "end of file" : "end of line";
    uint32_t n = loc.len;
    if (n > SHOWN)
        for (n = SHOWN; ((unsigned char)p->text[loc.at - p->base.at + n] & 0xc0) == 0x80;) n--;
    const char *s = text_escape(p->a, p->text + (loc.at - p->base.at), n), *more = n < loc.len ? ".." : "";
    return arena_fmt(p->a, "%s`%s%s`", p->last == NAME ? "name " : "", s, more);
}

static bool keyword_found(const Parser *p) {
    return p->last >= GRAPH && p->last <= FALSE;
}

/* A statement that begins with a name that is nearly a keyword. */
static bool misspelt(Parser *p, const char *const *expected, uint32_t n) {
    static const char *const header[] = {"graph", "module"};
    bool at_header = has(expected, n, "graph");
    if (p->first_token != NAME || !p->file) return false;
    if (!at_header && p->ntoken != (p->last == NL ? 1u : 2u)) return false;
    if (!at_header && (p->last == ':' || p->last == '=' || p->last == '(')) return false;
    const char *word = source_text(p, p->first);
    const char *near = at_header ? text_nearest(word, header, WM_LEN(header))
                                 : text_nearest(word, statement_words, nstatement_words);
    if (!near) return false;
    Diag *g =
        parse_error(p, E003, p->first, "`%s` begins no statement", text_escape(p->a, word, strlen(word)));
    diag_help(p->d, g, "did you mean `%s`?", near);
    diag_fix(p->d, g, p->first, false, "%s", near);
    return true;
}

/* The bracket that was never closed, where that is the likely cause. */
static void show_unclosed(Parser *p, Diag *g, Loc loc) {
    uint32_t n = p->nopen;
    if (n && (p->last == '(' || p->last == '[' || p->last == '{')) n--; /* it was just opened */
    if (p->has_unclosed) {
        diag_span(p->d, g, p->unclosed, "this `%c` is not closed", p->unclosed_char);
        return;
    }
    bool other_line = n && p->open[n - 1].loc.line != loc.line;
    if (n && (p->last == NL || (other_line && p->open[n - 1].c != '{')))
        diag_span(p->d, g, p->open[n - 1].loc, "this `%c` is not closed", p->open[n - 1].c);
}

/* Called by the parser; `expected` are bison's names of tokens. The brackets are forgotten, so that the
 * statement ends with its line and the parser goes on there. */
void parse_syntax_error(Parser *p, Loc loc, const char *const *expected, uint32_t n) {
    bool said = (p->nerror && p->error_line == loc.line) || (p->stop && p->nerror);
    if (!said && !misspelt(p, expected, n)) {
        const char *found = found_text(p, loc);
        Diag *g = parse_error(p, E003, loc, "expected %s, found %s", expected_text(p, expected, n), found);
        if (keyword_found(p) && has(expected, n, "name"))
            diag_note(p->d, g, "%s is a keyword of the language and cannot be a name", found);
        if (p->ntoken == 2 && p->last == '=' && p->first_token >= GRAPH && p->first_token <= FALSE)
            diag_note(p->d, g, "`%s` is a keyword of the language and cannot be a name",
                      source_text(p, p->first));
        show_unclosed(p, g, loc);
    }
    p->nopen = 0;
    p->has_unclosed = false;
}

void parse_too_deep(Parser *p, Loc loc) {
    if (p->stop) return;
    Diag *g = parse_error(p, E003, loc,
                          "this is nested too deeply or too long; an expression has at most %d levels",
                          MAX_EXPR_DEPTH);
    diag_help(p->d, g, "give parts of it names of their own");
    p->stop = true;
}

/* a < b < c: the tree goes on as a < b and b < c, the file is refused. */
void parse_chained(Parser *p, const Expr *first, const Expr *second, Loc op) {
    Diag *g = parse_error(p, E005, op, "comparisons do not chain");
    const Expr *middle = first->b;
    const char *text = text_escape(p->a, source_text(p, middle->loc), middle->loc.len);
    Loc at = op;
    at.len = 0;
    diag_label(g, "the second comparison");
    diag_help(p->d, g, "write both comparisons, joined by `and`");
    if (memchr(text, '\n', strlen(text)) || middle->loc.line != second->loc.line) return;
    diag_fix(p->d, g, at, false, "and %s ", text);
}

void parse_best_mode(Parser *p, const char *mode, Loc loc) {
    if (!strcmp(mode, "min") || !strcmp(mode, "max")) return;
    parse_error(p, E003, loc, "expected `min` or `max`, found name `%s`", mode);
}
