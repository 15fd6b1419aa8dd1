/* The parser: every shipped file, the shape of the tree, every kind of syntax error, the limits. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "frontend/ast.h"

typedef struct {
    Env *env;
    Diags *d;
    Arena *a;
    AstFile *f;
    Expr *e;
    const char *text;
    size_t len;
    bool expr;
} Case;

static bool parse_guarded(void *ctx, Guard *g) {
    Case *c = ctx;
    c->a = arena_open(c->env, g);
    if (c->expr)
        c->e =
            wg_parse_expr(c->a, c->text, c->len, (Loc){.file = "t.wg", .line = 7, .col = 5, .at = 90}, c->d);
    else
        c->f = wg_parse(c->a, "t.wg", c->text, c->len, c->d);
    return true;
}

static Case open_case(const char *text, size_t len, bool expr) {
    Case c = {.env = env_posix(), .text = text, .len = len, .expr = expr};
    c.d = diags_open(c.env);
    cr_assert(guard_run(parse_guarded, &c, c.d), "the parser escaped on %.60s", text);
    return c;
}

static void close_case(Case *c) {
    arena_close(c->a);
    diags_close(c->d);
}

/* ---- shape */
static void show_list(Sbuf *b, const ExprList *l);
static void show(Sbuf *b, const Expr *e) {
    static const char *const op[] = {"+", "-", "*", "/", "^", "==", "!=", "<", "<=", ">", ">=", "and", "or"};
    switch (e->kind) {
    case X_NUM:
        sb_double(b, e->num);
        if (!e->is_int) sb_chr(b, 'f');
        return;
    case X_BOOL:
        sb_str(b, e->num > 0 ? "true" : "false");
        return;
    case X_STR:
        sb_fmt(b, "'%s'", e->name);
        return;
    case X_NAME:
        sb_str(b, e->name);
        return;
    case X_DOT:
        sb_str(b, "(. ");
        show(b, e->a);
        sb_fmt(b, " %s)", e->name);
        return;
    case X_NEG:
        sb_str(b, "(neg ");
        show(b, e->a);
        sb_chr(b, ')');
        return;
    case X_NOT:
        sb_str(b, "(not ");
        show(b, e->a);
        sb_chr(b, ')');
        return;
    case X_BIN:
        sb_fmt(b, "(%s ", op[e->op]);
        show(b, e->a);
        sb_chr(b, ' ');
        show(b, e->b);
        sb_chr(b, ')');
        return;
    case X_IF:
        sb_str(b, "(if ");
        show(b, e->a);
        sb_chr(b, ' ');
        show(b, e->b);
        sb_chr(b, ' ');
        show(b, e->c);
        sb_chr(b, ')');
        return;
    case X_LIST:
        sb_str(b, e->bracket ? "[list" : "(list");
        break;
    case X_CALL:
        sb_str(b, "(call ");
        show(b, e->a);
        break;
    case X_INDEX:
        sb_str(b, "(index ");
        show(b, e->a);
        break;
    case X_MATCH:
        sb_str(b, "(match ");
        show(b, e->a);
        break;
    }
    show_list(b, &e->list);
    sb_chr(b, ')');
}

static void show_list(Sbuf *b, const ExprList *l) {
    for (uint32_t i = 0; i < l->n; i++) {
        sb_chr(b, ' ');
        if (l->item[i].name) sb_fmt(b, "%s=", l->item[i].name);
        show(b, l->item[i].e);
    }
}

static void expect_shape(const char *text, const char *shape) {
    Case c = open_case(text, strlen(text), true);
    cr_assert(c.e != NULL, "%s: %s", text, c.d->n ? c.d->item[0]->text : "?");
    Sbuf b;
    sb_init(&b, c.a);
    show(&b, c.e);
    cr_expect_str_eq(b.s, shape, "%s is %s", text, b.s);
    close_case(&c);
}

Test(parse, precedence) {
    expect_shape("-x^2", "(neg (^ x 2))");
    expect_shape("x^-2^y", "(^ x (neg (^ 2 y)))");
    expect_shape("a - b - c * d / e", "(- (- a b) (/ (* c d) e))");
    expect_shape("a or not b and c < d + 1", "(or a (and (not b) (< c (+ d 1))))");
    expect_shape("if a then b else if c then d else e + 1", "(if a b (if c d (+ e 1)))");
    expect_shape("(a + b)[seq + 1].x(1, k=2)", "(call (. (index (+ a b) (+ seq 1)) x) 1 k=2)");
    expect_shape("x[side = pos, fill = 0]", "(index x side=pos fill=0)");
    expect_shape("match m { \"a\": 1, \"b\": (2, 3) }", "(match m a=1 b=(list 2 3))");
    expect_shape("f([a, b], (c), [])", "(call f [list a b) c [list))");
    expect_shape("not not a == b", "(not (not (== a b)))");
}

Test(parse, numbers) {
    expect_shape("3%", "0.03f");
    expect_shape("0.1%", "0.001f");
    expect_shape("1_000", "1000");
    expect_shape("1e-5", "1e-05f");
    expect_shape("2.50", "2.5f");
    expect_shape("1e2%", "1f");
    expect_shape("true", "true");
    expect_shape("\"a\\\"b\\\\c\"", "'a\"b\\c'");
}

Test(parse, places_of_an_expression_in_a_string) {
    Case c = open_case("i + nn", 6, true);
    cr_expect_eq(c.e->loc.line, 7u);
    cr_expect_eq(c.e->loc.col, 5u);
    cr_expect_eq(c.e->loc.at, 90u);
    cr_expect_eq(c.e->loc.len, 6u);
    cr_expect_eq(c.e->b->loc.col, 9u);
    cr_expect_eq(c.e->b->loc.at, 94u);
    close_case(&c);
    c = open_case("i +", 3, true);
    cr_expect(c.e == NULL);
    cr_expect_eq(c.d->item[0]->span[0].loc.col, 8u);
    close_case(&c);
}

Test(parse, statements) {
    const char *text = "## The file.\n"
                       "graph g extends base\n"
                       "from m import a, b\n"
                       "dim side = {pos,\n  neg}\n"
                       "dim k = 1..4 ragged from \"a\" | \"b\"\n"
                       "input x, y : f32[batch, seq] from \"f\"\n"
                       "## What it is.\n## More.\n"
                       "hyper h : \"a\" | \"b\" = \"a\"\n"
                       "hyper r : f32 = 0.5 in (0, 1] \"text\"   ## no doc\n"
                       "frozen model ref : llama(unit=l)\n"
                       "state n : int = 0 next n + 1\n"
                       "def f(a, b=1) { c = a + b\n d = c\n return d }\n"
                       "open w : f32[seq] = 1\n"
                       "open loss ce = x\n"
                       "metric a, b\n"
                       "best min val.loss\n"
                       "train m \"*.w\", n with sgd(1)\n"
                       "plan {\n  shard m FULL_SHARD\n  recompute m.body.3 every 2\n}\n"
                       "test \"t\" {\n  x = 1\n  model v : k\n  expect a == b\n  expect a ~= b\n}\n";
    Case c = open_case(text, strlen(text), false);
    for (uint32_t i = 0; i < c.d->n; i++)
        cr_log_error("%u: %s", c.d->item[i]->span[0].loc.line, c.d->item[i]->text);
    cr_assert(c.f->ok);
    cr_expect_str_eq(c.f->doc, "The file.");
    cr_expect_str_eq(c.f->base, "base");
    static const StmtKind kinds[] = {S_IMPORT,   S_DIM,   S_DIM,  S_INPUT, S_HYPER, S_HYPER,
                                     S_INSTANCE, S_STATE, S_DEF,  S_LET,   S_LOSS,  S_METRIC_NAMES,
                                     S_BEST,     S_TRAIN, S_PLAN, S_TEST};
    cr_assert_eq(c.f->body.n, WM_LEN(kinds));
    Stmt **s = c.f->body.item;
    for (uint32_t i = 0; i < WM_LEN(kinds); i++) cr_expect_eq(s[i]->kind, kinds[i], "statement %u", i);
    cr_expect_eq(s[1]->names.n, 2u);
    cr_expect(s[2]->ragged && s[2]->keys.n == 2 && s[2]->e2->num == 4);
    cr_expect_str_eq(s[3]->from, "f");
    cr_expect_str_eq(s[4]->doc, "What it is.\nMore.");
    cr_expect_eq(s[4]->htype.choice.n, 2u);
    cr_expect(s[5]->has_range && s[5]->lo_open && !s[5]->hi_open);
    cr_expect_str_eq(s[5]->doc, "text");
    cr_expect(s[6]->frozen && s[6]->has_args && s[6]->args.n == 1);
    cr_expect_eq(s[6]->loc.len, strlen("frozen model ref : llama(unit=l)"));
    cr_expect(s[6]->doc == NULL, "a comment behind a statement is no doc");
    cr_expect(s[8]->body.n == 2 && s[8]->params.n == 2 && s[8]->params.item[1].dflt->num == 1);
    cr_expect_eq(s[8]->body.item[1]->loc.col, 2u);
    cr_expect(s[9]->is_open && s[9]->has_type);
    cr_expect_str_eq(s[12]->pattern, "val.loss");
    cr_expect_eq(s[13]->ngroup, 2u);
    cr_expect_eq(s[14]->nhint, 2u);
    cr_expect_str_eq(s[14]->hint[1].word[1], "m.body.3");
    cr_expect_eq(s[15]->body.n, 4u);
    cr_expect_eq(s[15]->body.item[3]->kind, S_NEAR);
    close_case(&c);
}

Test(parse, members) {
    const char *text =
        "module m\n"
        "config n : int = 3 from \"a.b\"\n"
        "block b(y) {\n  ## Weight.\n  param w : [(qh, hd), hidden, 1] = normal(std=0.02) \"w\" | \"q\" "
        "halves hd\n"
        "  t = y\n  return t\n}\n"
        "model llama(unit=layer) {\n  stack s : unit[n] \"l.{i}\" | \"m.{i}\", \"x\"\n  block z : b \"z\"\n"
        "  def call(t) = s(t)\n}\n"
        "model plain { def call(t) = t\n}\n";
    Case c = open_case(text, strlen(text), false);
    cr_assert(c.f->ok, "%s", c.d->n ? c.d->item[0]->text : "");
    cr_expect(c.f->is_module);
    Stmt *b = c.f->body.item[1], *m = c.f->body.item[2], *w = b->body.item[0];
    cr_expect_str_eq(w->doc, "Weight.");
    cr_expect(w->naxis == 3 && w->axis[0].dims.n == 2 && w->axis[2].unit);
    cr_expect(w->stored[0].n == 2 && !strcmp(w->stored[0].alt[1].halves, "hd"));
    cr_expect(b->body.n == 2 && b->e && b->e->kind == X_NAME);
    cr_expect(m->has_params && m->body.n == 3 && m->body.item[0]->nstored == 2);
    cr_expect(!c.f->body.item[3]->has_params);
    close_case(&c);
}

Test(parse, newlines_and_bytes) {
    static const char *const same[] = {
        "graph g\r\na = 1\r\nb = (2,\r\n3)[0]\r\n", "\xef\xbb\xbfgraph g\na = 1\nb = (2, # c\n\n 3)[0]",
        "\n\n# c\ngraph g\n\n\ta = 1\n\n\nb =\n (2,3)\n[0]\n", /* the last line begins no statement: an error
                                                                */
    };
    for (uint32_t i = 0; i < WM_LEN(same); i++) {
        Case c = open_case(same[i], strlen(same[i]), false);
        cr_expect_eq(c.f->ok, i < 2, "%u", i);
        cr_expect_eq(c.f->body.n, 2u, "%u: %u statements", i, c.f->body.n);
        if (i == 1) cr_expect_eq(c.f->name_loc.col, 7u, "a byte order mark has no column");
        close_case(&c);
    }
}

Test(parse, names_in_nfc) {
    const char *text =
        "graph g\n\xce\xb2 = 1\ncafe\xcc\x81 = 2\n\xed\x95\x9c = 3\n"; /* beta; e + acute; a Korean letter */
    Case c = open_case(text, strlen(text), false);
    cr_assert(c.f->ok);
    cr_expect_str_eq(c.f->body.item[1]->name, "caf\xc3\xa9");
    close_case(&c);
}

Test(parse, shipped_files) {
    static const char *const files[] = {
        "graphs/baseline.wg",
        "graphs/critic.wg",
        "graphs/critic_pairwise.wg",
        "graphs/rho1.wg",
        "graphs/verifiable.wg",
        "graphs/verifiable_ema.wg",
        "graphs/lib/heads.wg",
        "graphs/lib/llama.wg",
        "graphs/lib/llama_mtp.wg",
        "graphs/lib/mtp.wg",
        "graphs/lib/rl.wg",
        "graphs/lib/stats.wg",
        "graphs/examples/entropy.wg",
        "graphs/examples/focal.wg",
        "graphs/examples/grpo.wg",
        "graphs/examples/lora.wg",
        "graphs/examples/parallel.wg",
        "graphs/examples/parallel_llama.wg",
        "graphs/examples/qk.wg",
        "graphs/examples/qk_norm.wg",
        "graphs/examples/random_matched.wg",
        "graphs/examples/shuffled.wg",
    };
    for (uint32_t i = 0; i < WM_LEN(files); i++) {
        Diags *d = diags_open(env_posix());
        Arena *a = arena_open(env_posix(), NULL);
        char *text;
        size_t len;
        cr_assert(file_read_all(env_posix(), a, files[i], 1 << 24, &text, &len, d), "%s", files[i]);
        Case c = open_case(text, len, false);
        cr_expect(c.f->ok, "%s: %s", files[i], c.d->n ? c.d->item[0]->text : "");
        cr_expect(c.f->name != NULL && c.f->body.n > 0);
        close_case(&c);
        arena_close(a);
        diags_close(d);
    }
}

/* ---- errors: one row each; line 1 is the header */
static const struct {
    const char *text;
    const char *code;
    uint32_t line, col;
    const char *says;
    uint32_t count;
} wrong[] = {
    {"a = f(1, 2\nmetric b = 3\n", "E003", 2, 11, "found end of line", 1},
    {"a = \nmetric b = 3\n", "E003", 2, 4, "expected an expression, found end of line", 1},
    {"a = b c\n", "E003", 2, 7, "expected end of line or an operator, found name `c`", 1},
    {"metrc x = 1\n", "E003", 2, 1, "`metrc` begins no statement", 1},
    {"metric loss = 1\n", "E003", 2, 8, "expected a name, found `loss`", 1},
    {"a = f(1]\n", "E003", 2, 8, "found `]`", 1},
    {"a = 1 }\n", "E003", 2, 7, "found `}`", 1},
    {"a = b < c == d\n", "E005", 2, 11, "comparisons do not chain", 1},
    {"a = b < c < d < e\n", "E005", 2, 11, "comparisons do not chain", 1},
    {"a = \"x\n", "E002", 2, 5, "no closing", 1},
    {"a = \"x\\n\"\n", "E002", 2, 7, "no such escape", 1},
    {"a = 3abc\n", "E002", 2, 5, "neither a number nor a name", 1},
    {"a = 1e\n", "E002", 2, 5, "neither a number nor a name", 1},
    {"a = 1. + 2\n", "E002", 2, 5, "a digit must follow", 1},
    {"a = 1__0\n", "E002", 2, 5, "between two digits", 1},
    {"a = 9007199254740993000\n", "E002", 2, 5, "whole number", 1},
    {"a = 1e999\n", "E002", 2, 5, "too large", 1},
    {"a = b \xe2\x89\xa4 c\n", "E001", 2, 7, "U+2264", 1},
    {"a = b; c = d\n", "E001", 2, 6, "`;`", 1},
    {"a = b \x01\n", "E001", 2, 7, "U+0001", 1},
    {"a = b\rc\n", "E001", 2, 6, "U+000D", 1},
    {"best most val.loss\n", "E003", 2, 6, "`min` or `max`", 1},
    {"plan {\n  shard ( \n}\na = \n", "E003", 3, 9, "found `(`", 2},
    {"test \"t\" {\n  a = \n  expect b =\n}\nc = d e\n", "E003", 3, 6, "an expression", 3},
    {"a = match x { \"b\": 1\nmetric c = 1\nd = 2\n", "E003", 3, 1, "found `metric`", 1},
    {"hyper k : f32 = 1 in (0, 1\nmetric c = 1\n", "E003", 2, 27, "found end of line", 1},
    {"a = (b\n", "E003", 2, 7, "found end of file", 1},
    {"= 3\n", "E003", 2, 1, "expected a statement", 1},
};

Test(parse, errors) {
    for (uint32_t i = 0; i < WM_LEN(wrong); i++) {
        char text[256];
        snprintf(text, sizeof text, "graph g\n%s", wrong[i].text);
        Case c = open_case(text, strlen(text), false);
        cr_expect(!c.f->ok, "%s", text);
        cr_expect_eq(c.d->nerror, wrong[i].count, "%s: %u errors", text, c.d->nerror);
        cr_assert(c.d->n > 0, "%s", text);
        const Diag *g = c.d->item[0];
        cr_expect_str_eq(code_info[g->code].name, wrong[i].code, "%s: %s", text, code_info[g->code].name);
        cr_expect(g->span[0].loc.line == wrong[i].line && g->span[0].loc.col == wrong[i].col, "%s: at %u:%u",
                  text, g->span[0].loc.line, g->span[0].loc.col);
        cr_expect(strstr(g->text, wrong[i].says) != NULL, "%s: %s", text, g->text);
        close_case(&c);
    }
}

Test(parse, header) {
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "expected `graph` or `module`, found end of file"},
        {"metric a = 1\n", "expected `graph` or `module`, found `metric`"},
        {"grpah g\na = 1\n", "`grpah` begins no statement"},
        {"graph \n", "expected a name"},
    };
    for (uint32_t i = 0; i < WM_LEN(rows); i++) {
        Case c = open_case(rows[i].text, strlen(rows[i].text), false);
        cr_assert(!c.f->ok && c.d->n == 1);
        cr_expect(strstr(c.d->item[0]->text, rows[i].says) != NULL, "%s", c.d->item[0]->text);
        close_case(&c);
    }
}

Test(parse, statements_after_an_error_are_kept) {
    const char *text = "graph g\na = \nb = 2\nc = (3\nmetric d = 4\ne = \"5\nf = 6\n";
    Case c = open_case(text, strlen(text), false);
    cr_expect_eq(c.d->nerror, 3u);
    bool f = false, b = false, d = false;
    for (uint32_t i = 0; i < c.f->body.n; i++) {
        f = f || !strcmp(c.f->body.item[i]->name, "f");
        b = b || !strcmp(c.f->body.item[i]->name, "b");
        d = d || !strcmp(c.f->body.item[i]->name, "d");
    }
    cr_expect(f && d && !b, "`a =` goes on at the next line; `metric` ends an open bracket");
    close_case(&c);
}

Test(parse, unclosed_bracket_is_shown) {
    const char *text = "graph g\na = f(1,\n  2\nmetric b = 3\n";
    Case c = open_case(text, strlen(text), false);
    cr_assert_eq(c.d->n, 1u);
    const Diag *g = c.d->item[0];
    cr_assert_eq(g->nspan, 2u);
    cr_expect(g->span[1].loc.line == 2 && g->span[1].loc.col == 6);
    cr_expect(g->span[0].loc.line == 3 && g->span[0].loc.col == 4);
    close_case(&c);
}

Test(parse, bytes_refused) {
    static const struct {
        const char *text;
        size_t len;
        uint32_t line, col;
    } rows[] = {{"graph g\na = \xff\n", 14, 2, 5},
                {"graph g\n# \xed\xa0\x80\n", 14, 2, 3},
                {"graph g\n\0\n", 10, 2, 1}};
    for (uint32_t i = 0; i < WM_LEN(rows); i++) {
        Case c = open_case(rows[i].text, rows[i].len, false);
        cr_assert(!c.f->ok && c.d->n == 1);
        cr_expect_eq(c.d->item[0]->code, E001);
        cr_expect(c.d->item[0]->span[0].loc.line == rows[i].line &&
                      c.d->item[0]->span[0].loc.col == rows[i].col,
                  "%u", i);
        close_case(&c);
    }
}

/* ---- limits, at the bound and beyond */
static Case repeated(const char *head, const char *unit, size_t n, const char *tail, char **text) {
    size_t u = strlen(unit), h = strlen(head), t = strlen(tail), len = h + n * u + t;
    *text = malloc(len + 1);
    memcpy(*text, head, h);
    for (size_t i = 0; i < n; i++) memcpy(*text + h + i * u, unit, u);
    memcpy(*text + h + n * u, tail, t + 1);
    return open_case(*text, len, false);
}

static void expect_limit(const char *head, const char *unit, size_t n, const char *tail, const char *says) {
    char *text;
    Case c = repeated(head, unit, n, tail, &text);
    cr_expect_eq(c.f->ok, says == NULL, "%s x %zu: %s", unit, n, c.d->n ? c.d->item[0]->text : "no error");
    if (says)
        cr_expect(c.d->n == 1 && strstr(c.d->item[0]->text, says), "%s: %s", unit,
                  c.d->n ? c.d->item[0]->text : "");
    close_case(&c);
    free(text);
}

Test(parse, limits) {
    expect_limit("graph g\na = ", "f(", 200, "", "expected");
    expect_limit("graph g\na = ", "f(", 201, "", "nested more than 200 deep");
    expect_limit("graph g\na = 1", " + 1", 999, "\n", NULL);
    expect_limit("graph g\na = 1", " + 1", 1000, "\n", "at most 1000 levels");
    expect_limit("graph g\na = ", "- ", 999, "1\n", NULL);
    expect_limit("graph g\na = ", "- ", 100000, "1\n", "nested too deeply");
    expect_limit("graph g\na = ", "not ", 100000, "b\n", "nested too deeply");
    expect_limit("graph g\na = ", "if b then c else ", 100000, "d\n", "nested too deeply");
    expect_limit("graph g\na = b", "^b", 100000, "\n", "nested too deeply");
    expect_limit("graph g\n", "n", 128, " = 1\n", NULL);
    expect_limit("graph g\n", "n", 129, " = 1\n", "limit is 128");
    expect_limit("graph g\n", "a = 1\n", 20000, "", NULL);
    expect_limit("graph g\n", "# 16 bytes long\n", (16u << 20) / 16, "", "limit is 16 MiB");
    char *text;
    Case c = repeated("graph g\n", "a = b c\n", 1000, "", &text);
    cr_expect_eq(c.d->nerror, 20u, "the parser stops at 20 errors");
    close_case(&c);
    free(text);
}
