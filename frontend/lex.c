/* lex.c: what the bytes that flex matched mean (language.md, section 2).
 *
 * The one clever thing: a newline inside brackets or after an operator is no token, but it is remembered.
 * When a keyword that only begins statements follows, the statement ends at that newline after all; so a
 * forgotten bracket or operand is reported where it is missing and costs no further statement. */
#include <string.h>

#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

#include "frontend/parse.h"
#include "frontend/wg_parser.h"

static const struct {
    const char *word;
    int token;
    bool starts;
} keyword[] = {
    {"graph", GRAPH, true},
    {"module", MODULE, true},
    {"config", CONFIG, true},
    {"block", BLOCK, true},
    {"param", PARAM, true},
    {"stack", STACK, true},
    {"halves", HALVES, false},
    {"extends", EXTENDS, false},
    {"from", FROM, false},
    {"import", IMPORT, false},
    {"dim", DIM, true},
    {"ragged", RAGGED, false},
    {"input", INPUT, true},
    {"hyper", HYPER, true},
    {"in", IN, false},
    {"frozen", FROZEN, true},
    {"model", MODEL, true},
    {"state", STATE, true},
    {"next", NEXT, false},
    {"def", DEF, true},
    {"return", RETURN, true},
    {"open", OPEN, true},
    {"loss", LOSS, true},
    {"metric", METRIC, true},
    {"best", BEST, true},
    {"train", TRAIN, true},
    {"with", WITH, false},
    {"adapt", ADAPT, true},
    {"clip_norm", CLIP_NORM, true},
    {"plan", PLAN, true},
    {"test", TEST, true},
    {"expect", EXPECT, true},
    {"if", IF, false},
    {"then", THEN, false},
    {"else", ELSE, false},
    {"match", MATCH, false},
    {"and", AND, false},
    {"or", OR, false},
    {"not", NOT, false},
    {"true", TRUE, false},
    {"false", FALSE, false},
};
const char *const statement_words[] = {
    "config", "block", "param", "stack",     "from",   "dim",  "input",  "hyper",
    "frozen", "model", "state", "def",       "return", "open", "loss",   "metric",
    "best",   "train", "adapt", "clip_norm", "plan",   "test", "expect",
};
const uint32_t nstatement_words = WM_LEN(statement_words);

/* Tokens after which a line goes on. */
static const int goes_on[] = {
    '+', '-', '*', '/', '^',  '<',  '>', '=', ',', ':',  '|',  '{',
    EQ,  NE,  LE,  GE,  NEAR, DOTS, AND, OR,  NOT, THEN, ELSE, IF,
};

/* Characters that people write or paste; token 0: skipped. */
static const struct {
    const char *s;
    int token;
    const char *instead, *help;
} lookalike[] = {
    {"≤", LE, "<=", NULL},
    {"≥", GE, ">=", NULL},
    {"≠", NE, "!=", NULL},
    {"×", '*', "*", NULL},
    {"·", '*', "*", NULL},
    {"÷", '/', "/", NULL},
    {"−", '-', "-", NULL},
    {"–", '-', "-", NULL},
    {"≈", NEAR, "~=", NULL},
    {"，", ',', ",", NULL},
    {"：", ':', ":", NULL},
    {"（", '(', "(", NULL},
    {"）", ')', ")", NULL},
    {"“", 0, "\"", NULL},
    {"”", 0, "\"", NULL},
    {"'", 0, "\"", "text stands in \" \""},
    {"\u00a0", 0, " ", "this is a no-break space"},
    {"!", NOT, "not ", "write `not x`, or `!=`"},
    {"&", AND, "and", NULL},
    {"%", 0, NULL, "`%` stands right after a number only: `3%` is 0.03"},
    {";", 0, NULL, "a statement ends with its line"},
    {"~", 0, NULL, "`a ~= b` stands in `expect` only; `not x` inverts a mask"},
    {"\r", 0, NULL, "a carriage return stands only before a line feed"},
    {"\\", 0, NULL, "a line goes on by itself inside ( ) and [ ], and after an operator"},
};

Loc lex_loc(const Parser *p, uint32_t at, uint32_t len) {
    Loc l = p->base;
    l.line += p->line;
    l.col = (p->line ? 1 : p->base.col) + at - p->line_at;
    l.at += at;
    l.len = len;
    return l;
}

static bool is_opening(int t) {
    return t == '(' || t == '[' || t == '{';
}
static bool is_closing(int t) {
    return t == ')' || t == ']' || t == '}';
}

static void remember_unclosed(Parser *p) {
    p->nopen--;
    p->has_unclosed = true;
    p->unclosed = p->open[p->nopen].loc;
    p->unclosed_char = p->open[p->nopen].c;
}

static bool push_bracket(Parser *p, int token, Loc loc) {
    if (p->nopen == MAX_NESTING) {
        parse_error(p, E003, loc, "brackets are nested more than %d deep", MAX_NESTING);
        p->stop = true;
        return false;
    }
    p->open[p->nopen].c = (char)token;
    p->open[p->nopen++].loc = loc;
    return true;
}

void lex_record(Parser *p, int token, Loc loc) {
    LexTokens *r = p->record;
    if (!r) return;
    GROW(p->a, r->item, r->n, r->cap);
    r->item[r->n++] = (LexToken){token, loc};
}

/* Books a token and returns it, or 0 where the file cannot be read on. */
int lex_token(Parser *p, int token, Loc loc) {
    if (p->last == NL || p->last == '{') {
        p->ntoken = 0;
        p->first = loc;
        p->first_token = token;
    }
    lex_record(p, token, loc);
    p->has_unclosed = false;
    p->ntoken++;
    p->end = lex_loc(p, loc.at - p->base.at + loc.len, 0);
    p->hidden = false;
    if (p->doc_text.len) {
        GROW(p->a, p->doc, p->ndoc, p->doc_cap);
        p->doc[p->ndoc++] = (Doc){arena_str(p->a, p->doc_text.s, p->doc_text.len), loc.at};
        p->doc_text.len = 0;
    }
    if (is_opening(token) && !push_bracket(p, token, loc)) return 0;
    if (is_closing(token) && p->nopen) {
        char c = p->open[p->nopen - 1].c;
        remember_unclosed(p);
        p->has_unclosed = (c == '{') != (token == '}') || (c == '(') != (token == ')');
    }
    return p->last = token;
}

static bool line_goes_on(const Parser *p) {
    if (p->nopen && p->open[p->nopen - 1].c != '{') return true;
    for (size_t i = 0; i < WM_LEN(goes_on); i++)
        if (goes_on[i] == p->last) return true;
    return false;
}

/* Counts a line; true if the newline is a token. */
bool lex_newline(Parser *p, uint32_t at, uint32_t len, Loc *loc) {
    *loc = p->last == NL ? lex_loc(p, at, 0) : p->end;
    p->line++;
    p->line_at = at + len;
    if (p->last == NL) return false;
    if (!line_goes_on(p)) {
        lex_record(p, NL, *loc);
        p->last = NL;
        return true;
    }
    p->hidden = true;
    return false;
}

/* End of file: an NL if the last line has none, then 0. */
int lex_end(Parser *p, Loc *loc) {
    *loc = p->last == NL ? lex_loc(p, (uint32_t)p->len, 0) : p->end;
    p->at_end = true;
    if (p->last == NL) return 0;
    lex_record(p, NL, *loc);
    return p->last = NL;
}

/* Whether the word begins a statement although the newline before it was no token. */
bool lex_ends_statement(const Parser *p, const char *s, uint32_t n) {
    if (!p->hidden || p->last == '{') return false;
    for (size_t i = 0; i < WM_LEN(keyword); i++)
        if (strlen(keyword[i].word) == n && !memcmp(keyword[i].word, s, n)) return keyword[i].starts;
    return false;
}

int lex_hidden_newline(Parser *p, Loc *loc) {
    while (p->nopen && p->open[p->nopen - 1].c != '{') remember_unclosed(p);
    *loc = p->end;
    p->hidden = false;
    return p->last = NL;
}

/* Keeps the text of `##` lines that stand alone; a gap between them drops the earlier ones. */
void lex_comment(Parser *p, uint32_t at, const char *s, uint32_t len) {
    lex_record(p, COMMENT_TOKEN, lex_loc(p, at, len));
    if (len < 2 || s[1] != '#') return;
    uint32_t first = p->line_at;
    while (first < at && (p->text[first] == ' ' || p->text[first] == '\t')) first++;
    if (first != at) return;
    if (p->doc_text.len && p->doc_line + 1 != p->line) p->doc_text.len = 0;
    p->doc_line = p->line;
    uint32_t from = 2, to = len;
    if (from < to && s[from] == ' ') from++;
    while (to > from && (s[to - 1] == '\r' || s[to - 1] == ' ' || s[to - 1] == '\t')) to--;
    if (p->doc_text.len) sb_chr(&p->doc_text, '\n');
    sb_put(&p->doc_text, s + from, to - from);
}

static bool ascii_name(const char *s, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= 0x80) return false;
    return true;
}

uint32_t lex_name_length(const char *s, uint32_t n) {
    if (ascii_name(s, n)) return n;
    uint32_t i = 0;
    while (i < n) {
        ucs4_t c;
        int k = u8_mbtouc(&c, (const uint8_t *)s + i, n - i);
        bool good = i ? uc_is_property_xid_continue(c) : uc_is_property_xid_start(c) || c == '_';
        if (!good) break;
        i += (uint32_t)k;
    }
    return i;
}

/* Reports the character at s and says which token it was meant to be (0: none); *used: its bytes. */
int lex_bad_char(Parser *p, const char *s, uint32_t n, uint32_t at, uint32_t *used) {
    ucs4_t c;
    *used = (uint32_t)u8_mbtouc(&c, (const uint8_t *)s, n);
    Loc loc = lex_loc(p, at, *used);
    const char *shown = c < 0x20 || c == 0x7f ? "" : arena_fmt(p->a, "`%s` ", text_escape(p->a, s, *used));
    Diag *g = parse_error(p, E001, loc, "character %s(U+%04X) does not belong here", shown, (unsigned)c);
    for (size_t i = 0; i < WM_LEN(lookalike); i++) {
        if (strlen(lookalike[i].s) != *used || memcmp(lookalike[i].s, s, *used)) continue;
        if (lookalike[i].help)
            diag_help(p->d, g, "%s", lookalike[i].help);
        else
            diag_help(p->d, g, "write `%s`", lookalike[i].instead);
        if (lookalike[i].instead) diag_fix(p->d, g, loc, false, "%s", lookalike[i].instead);
        return lookalike[i].token;
    }
    return 0;
}

/* A keyword, or NAME with *name in NFC. */
int lex_word(Parser *p, const char *s, uint32_t n, Loc loc, const char **name) {
    for (size_t i = 0; i < WM_LEN(keyword); i++)
        if (strlen(keyword[i].word) == n && !memcmp(keyword[i].word, s, n)) return keyword[i].token;
    if (n > MAX_NAME_BYTES) {
        parse_error(p, E001, loc, "this name has %u bytes; the limit is %d", n, MAX_NAME_BYTES);
        n = 0;
    }
    *name = arena_str(p->a, s, n);
    if (ascii_name(s, n)) return NAME;
    uint8_t room[4 * MAX_NAME_BYTES];
    size_t length = sizeof room;
    /* NFC grows a text to three times its bytes at most, so the result always fits into room. */
    uint8_t *r = u8_normalize(UNINORM_NFC, (const uint8_t *)s, n, room, &length);
    wm_check(p->a, r == room, "name not normalised");
    *name = arena_str(p->a, (const char *)room, length);
    return NAME;
}

/* Value of digits with `_`, a fraction, an exponent and `%`. */
double lex_number(Parser *p, const char *s, uint32_t n, Loc loc, bool *is_int) {
    bool percent = s[n - 1] == '%', exponent = false;
    *is_int = !percent;
    char *t = arena_alloc(p->a, n + 3);
    uint32_t k = 0;
    for (uint32_t i = 0; i < n - percent; i++) {
        bool digit_next = i + 1 < n && s[i + 1] >= '0' && s[i + 1] <= '9';
        if (s[i] == '_' && !digit_next) {
            parse_error(p, E002, loc, "`_` in a number stands between two digits");
            return 0;
        }
        if (s[i] == '.' || s[i] == 'e' || s[i] == 'E') *is_int = false;
        exponent = exponent || s[i] == 'e' || s[i] == 'E';
        if (s[i] != '_') t[k++] = s[i];
    }
    if (percent && !exponent) memcpy(t + k, "e-2", 3), k += 3; /* rounded once, unlike a division */
    double v = 0;
    if (!text_double(t, k, &v) || !(v <= 1.7976931348623157e308))
        parse_error(p, E002, loc, "this number is too large for f64");
    else if (*is_int && v > 0x1p53)
        parse_error(p, E002, loc,
                    "a whole number is at most 2^53 = 9007199254740992; write a fraction or exponent");
    return percent && exponent ? v / 100 : v;
}

/* The text between the quotes, escapes resolved. */
const char *lex_string(Parser *p, const char *s, uint32_t n, Loc loc, bool closed) {
    if (!closed) {
        Diag *g = parse_error(p, E002, loc, "this text has no closing `\"`");
        diag_help(p->d, g,
                  "a text ends on its line; inside it write \\\" for a quote and \\\\ for a backslash");
    }
    uint32_t end = closed ? n - 1 : n, k = 0;
    char *t = arena_alloc(p->a, n);
    for (uint32_t i = 1; i < end; i++) {
        if (s[i] == '\\' && i + 1 < end) {
            i++;
            if (s[i] != '"' && s[i] != '\\') {
                Loc at = loc;
                at.at += i - 1, at.col += i - 1, at.len = 2;
                Diag *g = parse_error(p, E002, at, "no such escape");
                diag_help(p->d, g, "only \\\" and \\\\ are escapes; write \\\\ for a backslash");
            }
        } else if ((unsigned char)s[i] < 0x20 && s[i] != '\t') {
            parse_error(p, E002, loc, "control character 0x%02x in a text", (unsigned)s[i]);
        }
        t[k++] = s[i];
    }
    return t;
}

/* Digits that run into letters, or a dot that no digit follows. */
void lex_malformed(Parser *p, const char *s, uint32_t n, Loc loc) {
    const char *shown = text_escape(p->a, s, n < 40 ? n : 40);
    if (s[n - 1] == '.') {
        Diag *g = parse_error(p, E002, loc, "a digit must follow the dot of a number");
        diag_fix(p->d, g, loc, true, "%s0", shown);
        diag_help(p->d, g, "write `%s0`", shown);
        return;
    }
    Diag *g = parse_error(p, E002, loc, "`%s` is neither a number nor a name", shown);
    diag_help(p->d, g, "a name begins with a letter or `_`; a product needs `*`; an exponent is `1e-5`");
}
