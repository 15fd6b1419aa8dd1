/* fmt.c: puts the spaces of a `.wg` file in order (wmtpc fmt). Tokens and comments stay as they are, and so
 * do lines.
 *
 * A statement stands two columns deeper for each { around it; a line that goes on moves with its statement.
 * Two or more spaces are alignment, which the writer chose and keeps; a single one is ours. At the end the
 * tokens of the result are compared with those of the source, so that formatting can never change what a file
 * means. */
#include "frontend/frontend.h"
#include "frontend/parse.h"

#include <string.h>

#include "frontend/wg_parser.h"

enum { TAB = 4, STEP = 2, ONE = 1, NO_SPACE = 0, KEEP = -1 };

typedef struct {
    bool curly, list;
} Open; /* list: the braces of match and dim, whose lines are separated by commas */
typedef struct {
    const char *text;
    const LexToken *t; /* the token to be written */
    Sbuf *out;
    Open open[MAX_NESTING];
    uint32_t nopen, curly; /* open brackets; the braces among them */
    uint32_t matches;      /* `match` whose brace is still to come */
    int last;              /* the token before, comments left out */
    bool last_unary;
    uint32_t base_old, base_new; /* indentation of the statement: as it was, as it is written */
} Fmt;

static bool is_operand_end(int t) {
    return t == NAME || t == NUMBER || t == STRING || t == TRUE || t == FALSE || t == ')' || t == ']' ||
           t == '}';
}

static bool inside(const Fmt *f, bool curly) {
    return f->nopen && f->open[f->nopen - 1].curly == curly;
}

/* Columns of the blanks in text[from, to). */
static uint32_t columns(const Fmt *f, uint32_t from, uint32_t to) {
    uint32_t n = 0;
    for (uint32_t i = from; i < to; i++) n += f->text[i] == '\t' ? TAB : 1;
    return n;
}

/* Spaces between the last token and t on one line: ONE, NO_SPACE, or KEEP. */
static int spacing(const Fmt *f, int t) {
    int l = f->last;
    if (t == ',' || t == ')' || t == ']' || l == '(' || l == '[') return NO_SPACE;
    if (t == '.' || l == '.' || t == '^' || l == '^' || t == DOTS || l == DOTS) return NO_SPACE;
    if (l == '{' || t == '}') return KEEP;
    if (f->last_unary) return NO_SPACE;
    if (t == '=' || l == '=') return inside(f, false) ? (f->open[f->nopen - 1].list ? KEEP : NO_SPACE) : ONE;
    if (t == '(' || t == '[') return is_operand_end(l) && l != STRING && l != NUMBER ? NO_SPACE : ONE;
    if (t == ':' && l == STRING) return NO_SPACE;
    return ONE;
}

static void put_spaces(Sbuf *b, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) sb_chr(b, ' ');
}

/* A line that goes on keeps its place relative to the first line of its statement. */
static uint32_t moved(const Fmt *f, uint32_t old, bool closing) {
    uint32_t least = f->base_new + (closing ? 0 : STEP);
    int64_t n = (int64_t)old + (int64_t)f->base_new - (int64_t)f->base_old;
    return n < (int64_t)least ? least : (uint32_t)n;
}

static bool starts_line(const Fmt *f) {
    if (f->last == NL || f->last == 0) return true;
    if (!inside(f, true)) return false;
    return f->last == '{' || (f->last == ',' && f->open[f->nopen - 1].list) || f->t->token == '}';
}

static void put_indent(Fmt *f, uint32_t line_at) {
    int t = f->t->token;
    uint32_t old = columns(f, line_at, f->t->loc.at);
    bool closing = t == ')' || t == ']' || t == '}';
    if (!starts_line(f)) {
        put_spaces(f->out, moved(f, old, closing));
        return;
    }
    uint32_t level = f->curly - (t == '}' && f->curly > 0);
    f->base_old = old;
    f->base_new = level * STEP;
    put_spaces(f->out, f->base_new);
}

static void put_gap(Fmt *f, uint32_t end) {
    int t = f->t->token, want = t == COMMENT_TOKEN ? ONE + 1 : spacing(f, t);
    uint32_t gap = columns(f, end, f->t->loc.at);
    if (want == KEEP)
        put_spaces(f->out, gap);
    else if (want == NO_SPACE)
        return;
    else
        put_spaces(f->out, gap > (uint32_t)want ? gap : (uint32_t)want);
}

/* Brackets and what the next spacing depends on. */
static void note_token(Fmt *f, int t) {
    if (t == COMMENT_TOKEN) return;
    if (t == MATCH) f->matches++;
    if (t == '(' || t == '[' || t == '{') {
        bool curly = t == '{', list = curly ? f->matches > 0 || f->last == '=' : t == '[';
        if (curly && f->matches > 0) f->matches--;
        f->open[f->nopen++] = (Open){curly, list};
        f->curly += curly;
    }
    if ((t == ')' || t == ']' || t == '}') && f->nopen) f->curly -= f->open[--f->nopen].curly;
    f->last_unary = t == '-' && !is_operand_end(f->last);
    f->last = t;
}

static void put_token(Fmt *f) {
    const char *s = f->text + f->t->loc.at;
    uint32_t len = f->t->loc.len;
    while (f->t->token == COMMENT_TOKEN && len &&
           (s[len - 1] == ' ' || s[len - 1] == '\t' || s[len - 1] == '\r'))
        len--;
    sb_put(f->out, s, len);
}

static void format(Fmt *f, const LexTokens *tokens) {
    uint32_t line = 0, end = 0;
    for (uint32_t i = 0; i < tokens->n; i++) {
        f->t = &tokens->item[i];
        if (f->t->token == NL) {
            note_token(f, NL);
            continue;
        }
        if (f->t->loc.line != line) {
            if (line) sb_chr(f->out, '\n');
            if (line && f->t->loc.line > line + 1) sb_chr(f->out, '\n');
            put_indent(f, f->t->loc.at - (f->t->loc.col - 1));
        } else {
            put_gap(f, end);
        }
        put_token(f);
        note_token(f, f->t->token);
        line = f->t->loc.line;
        end = f->t->loc.at + f->t->loc.len;
    }
    if (line) sb_chr(f->out, '\n');
}

static const LexToken *next_token(const LexTokens *t, uint32_t *i) {
    while (*i < t->n && t->item[*i].token == COMMENT_TOKEN) (*i)++;
    return *i < t->n ? &t->item[(*i)++] : NULL;
}

/* Kinds and bytes of the tokens, comments left out. */
static bool same_tokens(const LexTokens *a, const char *as, const LexTokens *b, const char *bs) {
    uint32_t i = 0, k = 0;
    while (true) {
        const LexToken *x = next_token(a, &i), *y = next_token(b, &k);
        if (!x || !y) return !x && !y;
        if (x->token != y->token || x->loc.len != y->loc.len) return false;
        if (x->loc.len && memcmp(as + x->loc.at, bs + y->loc.at, x->loc.len) != 0) return false;
    }
}

bool wg_format(Arena *a, const char *path, const char *text, size_t len, Sbuf *out, Diags *d) {
    LexTokens tokens = {0}, again = {0};
    if (!parse_file(a, path, text, len, &tokens, d)->ok) return false;
    Sbuf b;
    sb_init(&b, a);
    sb_str(&b, "");
    Fmt *f = NEW(a, Fmt);
    f->text = text;
    f->out = &b;
    format(f, &tokens);
    if (!parse_file(a, path, b.s, b.len, &again, d)->ok)
        wm_check(a, false, "fmt: the result of %s does not parse", path);
    wm_check(a, same_tokens(&tokens, text, &again, b.s), "fmt: the result of %s means something else", path);
    sb_put(out, b.s, b.len);
    return true;
}
