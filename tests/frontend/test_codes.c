/* The examples of every message code: the wrong one gives exactly that code, the right one nothing. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frontend/frontend.h"

typedef struct {
    const char *file;
    bool sizes;
    const char *on;
    Diags *d;
    Arena *a;
    const char *text;
} Job;

/* Sizes as a configuration would give them; without (assume_sizes) lints that depend on sizes are silent. */
static const Setting sizes[] = {
    {"hidden", {VAL_NUMBER, 16, NULL, true}, "test"},
    {"ffn", {VAL_NUMBER, 32, NULL, true}, "test"},
    {"vocab", {VAL_NUMBER, 64, NULL, true}, "test"},
    {"n_layers", {VAL_NUMBER, 4, NULL, true}, "test"},
    {"n_heads", {VAL_NUMBER, 2, NULL, true}, "test"},
    {"n_future_tokens", {VAL_NUMBER, 2, NULL, true}, "test"},
    {"norm_eps", {VAL_NUMBER, 1e-5, NULL, false}, "test"},
    {"rope_theta", {VAL_NUMBER, 1e4, NULL, false}, "test"},
};
static const char *const path[] = {WM_SOURCE_DIR "/graphs", WM_SOURCE_DIR "/graphs/lib"};

static bool compile(void *ctx, Guard *g) {
    Job *j = ctx;
    j->a = arena_open(env_posix(), g);
    ModelSource policy = {.model = "policy", .yaml = sizes, .nyaml = WM_LEN(sizes)};
    LowerOptions o = {
        .phase = "train", .micro = 2, .batch = 2, .seq = 16, .path = path, .npath = WM_LEN(path)};
    o.warn = &j->on;
    o.nwarn = 1;
    if (j->sizes)
        o.model = &policy, o.nmodel = 1;
    else
        o.assume_sizes = true;
    GraphInfo info;
    Graph *graph = frontend_lower(j->a, j->file, &o, &info, j->d);
    TestCount count;
    if (graph && strstr(j->text, "\ntest ")) frontend_test(j->a, j->file, &o, &count, j->d);
    return true;
}

/* Codes of the errors and warnings of a text, joined by spaces. */
static void codes_of(const char *text, int code, char *out, size_t room) {
    char dir[] = "/tmp/wmtpc-codes-XXXXXX", file[128];
    cr_assert(mkdtemp(dir) != NULL);
    snprintf(file, sizeof file, "%s/mine.wg", dir);
    FILE *f = fopen(file, "wb");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0);
    Job j = {.file = file,
             .sizes = code == W063 || code == W065,
             .on = code_info[code].name,
             .d = diags_open(env_posix()),
             .text = text};
    guard_run(compile, &j, j.d);
    out[0] = 0;
    for (uint32_t i = 0; i < j.d->n; i++)
        if (j.d->item[i]->level != LEVEL_NOTE)
            snprintf(out + strlen(out), room - strlen(out), "%s%s", i ? " " : "",
                     code_info[j.d->item[i]->code].name);
    if (j.a) arena_close(j.a);
    diags_close(j.d);
    unlink(file);
    rmdir(dir);
}

Test(codes, examples) {
    int shown = 0;
    for (int i = 0; i < NCODE; i++) {
        const CodeInfo *k = &code_info[i];
        cr_expect_eq(k->wrong[0] == 0, k->right[0] == 0, "%s: both examples or none", k->name);
        if (!k->wrong[0]) continue;
        char got[256];
        shown++;
        codes_of(k->wrong, i, got, sizeof got);
        cr_expect_str_eq(got, k->name, "%s: the wrong example gives '%s'", k->name, got);
        codes_of(k->right, i, got, sizeof got);
        cr_expect_str_eq(got, "", "%s: the right example gives '%s'", k->name, got);
    }
    cr_expect(shown >= 49, "%d codes have examples", shown);
}

Test(codes, texts) {
    for (int i = 0; i < NCODE; i++) {
        const CodeInfo *k = &code_info[i];
        cr_expect(strlen(k->explain) > 60, "%s has no text", k->name);
        if (k->name[0] == 'W')
            cr_expect_eq(k->exit, 0, "%s", k->name);
        else
            cr_expect_neq(k->exit, 0, "%s", k->name);
    }
}
