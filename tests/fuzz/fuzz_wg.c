/* `.wg` text from hostile bytes: the parser always returns a tree, every node lies inside the text, what it
 * has to say can be rendered, and what parses can be formatted. The last byte chooses between a file and an
 * expression. */
#include "frontend/ast.h"
#include "frontend/frontend.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const char *text;
    size_t size;
    Arena *a;
    Diags *d;
} Job;

static void check_loc(const Job *j, Loc l) {
    if (l.at > j->size || l.len > j->size - l.at || !l.line || !l.col) __builtin_trap();
}

static void check_expr(const Job *j, const Expr *e, uint32_t depth) {
    if (!e) return;
    if (depth > 1000) __builtin_trap();
    check_loc(j, e->loc);
    check_expr(j, e->a, depth + 1);
    check_expr(j, e->b, depth + 1);
    check_expr(j, e->c, depth + 1);
    for (uint32_t i = 0; i < e->list.n; i++) check_expr(j, e->list.item[i].e, depth + 1);
}

static void check_stmts(const Job *j, const Stmts *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        const Stmt *x = s->item[i];
        check_loc(j, x->loc);
        check_expr(j, x->e, 0);
        check_expr(j, x->e2, 0);
        check_expr(j, x->lo, 0);
        check_expr(j, x->hi, 0);
        check_stmts(j, &x->body);
    }
}

/* Whatever parses can be formatted, and formatting twice is formatting once. */
static void check_format(Job *j) {
    Sbuf once, twice;
    sb_init(&once, j->a);
    sb_init(&twice, j->a);
    if (!wg_format(j->a, "fuzz.wg", j->text, j->size, &once, j->d)) __builtin_trap();
    if (!wg_format(j->a, "fuzz.wg", once.s, once.len, &twice, j->d)) __builtin_trap();
    if (once.len != twice.len || memcmp(once.s, twice.s, once.len) != 0) __builtin_trap();
}

static bool one(void *ctx, Guard *g) {
    Job *j = ctx;
    j->a = arena_open(env_posix(), g);
    bool expr = j->size && j->text[j->size - 1] == 'x';
    diag_source(j->d, "fuzz.wg", j->text, j->size);
    if (expr) {
        check_expr(
            j, wg_parse_expr(j->a, j->text, j->size, (Loc){.file = "fuzz.wg", .line = 1, .col = 1}, j->d), 0);
    } else {
        AstFile *f = wg_parse(j->a, "fuzz.wg", j->text, j->size, j->d);
        if (f->ok != (j->d->nerror == 0)) __builtin_trap();
        if (f->ok) check_stmts(j, &f->body);
        if (f->ok && j->size < (1 << 16)) check_format(j);
    }
    Sbuf b;
    sb_init(&b, j->a);
    diags_render(j->d, &b, true);
    diags_render_json(j->d, &b);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Diags *d = diags_open(env_posix());
    Job j = {(const char *)data, size, NULL, d};
    if (d && !guard_run(one, &j, d)) __builtin_trap();
    if (j.a) arena_close(j.a);
    diags_close(d);
    return 0;
}
