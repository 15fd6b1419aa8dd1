/* Arenas, text, numbers, Philox against the vectors of its authors, the string map, atomic files. */
#include "base/base.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

Test(base, philox_known_answers) { /* kat_vectors of Random123 1.14: philox4x32 10 */
    uint32_t o[4];
    philox4x32(0, 0, 0, 0, o);
    cr_assert(o[0] == 0x6627e8d5 && o[1] == 0xe169c58d && o[2] == 0xbc57ac4c && o[3] == 0x9b00dbd8);
    philox4x32(UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX, o);
    cr_assert(o[0] == 0x408f276d && o[1] == 0x41c83b0e && o[2] == 0xa20bc7c6 && o[3] == 0x6d5451fd);
    philox4x32(0x299f31d0a4093822ull, 0x85a308d3243f6a88ull, 0x13198a2e, 0x03707344, o);
    cr_assert(o[0] == 0xd16cfe09 && o[1] == 0x94fdcceb && o[2] == 0x5001e420 && o[3] == 0x24126ea1);
}

Test(base, doubles_read_back) {
    Arena *a = arena_open(env_posix(), NULL);
    double v[] = {0.1, 1e-300, -0.0, 1.0 / 3, 123456789012345678.0, 5e-324, 2.5, -7, 1e15};
    for (size_t i = 0; i < WM_LEN(v); i++) {
        Sbuf b;
        double r;
        sb_init(&b, a);
        sb_double(&b, v[i]);
        cr_assert(text_double(b.s, b.len, &r), "%s", b.s);
        cr_assert(memcmp(&r, &v[i], sizeof r) == 0, "%s", b.s);
    }
    double r;
    cr_assert(!text_double("0x10", 4, &r) && !text_double("1e", 2, &r) && !text_double("", 0, &r) &&
              !text_double("1 ", 2, &r));
    int64_t k;
    cr_assert(text_int("-9223372036854775808", 20, &k) && k == INT64_MIN &&
              !text_int("9223372036854775808", 19, &k));
    arena_close(a);
}

Test(base, nearest_and_width) {
    const char *c[] = {"keep", "mode", "divide"};
    cr_assert_str_eq(text_nearest("kepe", c, 3), "keep");
    cr_assert_null(text_nearest("xyzw", c, 3));
    cr_assert_eq(text_width("평균", strlen("평균")), 4);
    size_t at = 0;
    cr_assert(!text_utf8_ok("ab\xff", 3, &at) && at == 2);
}

Test(base, map_and_arena) {
    Arena *a = arena_open(env_posix(), NULL);
    StrMap *m = strmap_new(a);
    for (uint32_t i = 0; i < 5000; i++) cr_assert(strmap_put(m, arena_fmt(a, "k%u", i), i));
    uint32_t v;
    for (uint32_t i = 0; i < 5000; i++) cr_assert(strmap_get(m, arena_fmt(a, "k%u", i), &v) && v == i);
    cr_assert(!strmap_get(m, "none", &v) && !strmap_put(m, "k7", 9));
    for (int i = 0; i < 200; i++) { /* large and small pieces: zeroed, aligned, apart */
        size_t n = (size_t)(i % 7 ? i : 100000 + i);
        unsigned char *p = arena_alloc(a, n);
        cr_assert(((uintptr_t)p & 15) == 0);
        for (size_t k = 0; k < n; k++) cr_assert(p[k] == 0);
        memset(p, 0xee, n);
    }
    arena_close(a);
}

static bool breaks(void *ctx, Guard *g) {
    Arena *a = arena_open(env_posix(), g);
    *(Arena **)ctx = a;
    wm_check(a, 1 + 1 == 3, "arithmetic %d", 7);
    return true;
}

Test(base, guard_turns_a_broken_invariant_into_70) {
    Diags *d = diags_open(env_posix());
    Arena *a = NULL;
    cr_assert(!guard_run(breaks, &a, d));
    cr_assert_eq(diags_exit(d), EXIT_INTERNAL);
    cr_assert_str_eq(d->item[0]->text, "arithmetic 7");
    arena_close(a);
    diags_close(d);
}

Test(base, atomic_file) {
    Env *env = env_posix();
    Diags *d = diags_open(env);
    char path[] = "/tmp/wm_base_XXXXXX";
    cr_assert_not_null(mkdtemp(path));
    char file[64];
    snprintf(file, sizeof file, "%s/x/y/f", path);
    char dir[64];
    snprintf(dir, sizeof dir, "%s/x/y", path);
    cr_assert(path_make_dirs(env, dir, d));
    cr_assert(file_write_atomic(env, file, "one", 3, d) && file_write_atomic(env, file, "two!", 4, d));
    char *text;
    size_t n;
    cr_assert(file_read_all(env, d->arena, file, 100, &text, &n, d) && n == 4 &&
              memcmp(text, "two!", 4) == 0);
    cr_assert(!file_read_all(env, d->arena, file, 3, &text, &n, d) && diags_exit(d) == EXIT_DAMAGED);
    int err;
    env->unlink(env, file, &err);
    env->rmdir(env, dir, &err);
    dir[strlen(dir) - 2] = 0;
    env->rmdir(env, dir, &err);
    env->rmdir(env, path, &err);
    diags_close(d);
}

Test(base, diagnostics_outlive_the_name_of_their_file) {
    Diags *d = diags_open(env_posix());
    char name[] = "a.jsonl";
    Loc loc = {.file = name, .line = 3, .col = 1};
    Diag *g = diag_add(d, D003, loc, "damaged");
    diag_span(d, g, loc, "here too");
    diag_fix(d, g, loc, true, "nothing");
    memset(name, 'x', sizeof name - 1);
    cr_assert_str_eq(g->span[0].loc.file, "a.jsonl");
    cr_assert_str_eq(g->span[1].loc.file, "a.jsonl");
    cr_assert_str_eq(g->replace.file, "a.jsonl");
    diags_close(d);
}
