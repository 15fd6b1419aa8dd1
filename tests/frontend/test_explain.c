/* The examples of `wmtpc explain`: the wrong one of each code of the language gives that code, the right one
 * nothing. */
#include "frontend/frontend.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Code code;
    const char *id, *wrong, *right;
} Row;
static const Row rows[] = {
#define CODE(id, exit, title, explain, wrong, right) {id, #id, wrong, right},
#include "base/codes.def"
#undef CODE
};

typedef struct {
    const Row *row;
    const char *text;
    Diags *d;
} Ctx;
static const char *const path[] = {WM_SOURCE_DIR "/graphs"};

/* The file has the name that its header says. */
static const char *header_name(Arena *a, const char *text) {
    const char *s = strstr(text, "graph "), *m = strstr(text, "module ");
    if (!s || (m && m < s)) s = m ? m + 1 : "module t";
    s += 6;
    return arena_str(a, s, strcspn(s, " \n#"));
}

static bool lower_text(void *ctx, Guard *g) {
    Ctx *x = ctx;
    Arena *a = arena_open(env_posix(), g);
    const char *dir = arena_fmt(a, "%s/tests/explain/%s%s", WM_BINARY_DIR, x->row->id,
                                x->text == x->row->wrong ? "w" : "r");
    const char *file = arena_fmt(a, "%s/%s.wg", dir, x->row->code == E016 ? "mine" : header_name(a, x->text));
    cr_assert(path_make_dirs(env_posix(), dir, x->d) &&
              file_write_atomic(env_posix(), file, x->text, strlen(x->text), x->d));
    bool few = x->row->code == W063 || x->row->code == W065;
    LowerOptions o = {
        .phase = "train", .micro = 2, .batch = 2, .seq = 16, .path = path, .npath = 1, .assume_sizes = !few};
    o.warn = &x->row->id;
    o.nwarn = 1;
    static const Setting sizes[] = {
        {"n_layers", {VAL_NUMBER, 4, NULL, true}, "test"},
        {"n_heads", {VAL_NUMBER, 2, NULL, true}, "test"},
        {"n_future_tokens", {VAL_NUMBER, 2, NULL, true}, "test"},
        {"dim", {VAL_NUMBER, 8, NULL, true}, "test"},
        {"hidden_dim", {VAL_NUMBER, 8, NULL, true}, "test"},
        {"vocab_size", {VAL_NUMBER, 8, NULL, true}, "test"},
    };
    ModelSource policy = {.model = "policy", .json = sizes, .njson = WM_LEN(sizes)};
    if (few) o.model = &policy, o.nmodel = 1; /* assumed sizes are no reason for W063 */
    GraphInfo info;
    TestCount n;
    if (strncmp(x->text, "module", 6) && !strstr(x->text, "\nmodule "))
        frontend_lower(a, file, &o, &info, x->d);
    if (!x->d->nerror) frontend_test(a, file, &o, &n, x->d);
    return true;
}

static bool has_code(const Diags *d, Code code) {
    for (uint32_t i = 0; i < d->n; i++)
        if (d->item[i]->code == code) return true;
    return false;
}

static void show(const Row *r, const char *text, const Diags *d) {
    fprintf(stderr, "%s: %s\n", r->id, text);
    for (uint32_t i = 0; i < d->n; i++)
        fprintf(stderr, "  %s at %u:%u: %s\n", rows[d->item[i]->code].id, d->item[i]->span[0].loc.line,
                d->item[i]->span[0].loc.col, d->item[i]->text);
}

Test(explain, examples_do_what_they_say) {
    int bad = 0;
    for (size_t i = 0; i < WM_LEN(rows); i++) {
        if ((rows[i].id[0] != 'E' && rows[i].id[0] != 'W') || !rows[i].wrong[0]) continue;
        for (int k = 0; k < 2; k++) {
            Ctx x = {&rows[i], k ? rows[i].right : rows[i].wrong, diags_open(env_posix())};
            bool ok = guard_run(lower_text, &x, x.d) &&
                      (k ? !x.d->nerror && !has_code(x.d, rows[i].code) : has_code(x.d, rows[i].code));
            if (!ok) show(&rows[i], x.text, x.d);
            bad += !ok;
            diags_close(x.d);
        }
    }
    cr_assert_eq(bad, 0, "%d examples differ", bad);
}
