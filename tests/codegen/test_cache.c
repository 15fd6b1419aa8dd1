/* The kernel cache: what is built is what was asked for, a damaged entry is never loaded, an unsafe place is
 * refused. */
#include "codegen/codegen.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    bool (*fn)(void *, Guard *);
} Dummy;
static Diags *diags;
static Arena *arena;
static Toolchain tool;
static char dir[512];

static void setup(void) {
    diags = diags_open(env_posix());
    static Guard g; /* tests stop at the first failed check anyway */
    g.diags = diags;
    cr_assert(setjmp(g.out) == 0, "a guard was reached");
    arena = arena_open(env_posix(), &g);
    cr_assert(toolchain_cc(arena, env_posix(), cpu_level(), &tool, diags));
    snprintf(dir, sizeof dir, "%s/cache-test-%d", WM_BINARY_DIR, (int)getpid());
    char cmd[600];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    cr_assert(system(cmd) == 0);
}
static void teardown(void) {
    char cmd[600];
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    cr_assert(system(cmd) == 0);
    arena_close(arena);
    diags_close(diags);
}
TestSuite(cache, .init = setup, .fini = teardown, .timeout = 1200);

/* Names at file scope are the same in all sources, with another meaning in each. */
static KernelSource numbered(int i) {
    char *s = arena_fmt(arena,
                        "#define TWICE(x) ((x) * %d)\n"
                        "enum { A = %d, B };\ntypedef float vec __attribute__((vector_size(16)));\n"
                        "static int helper(int x) { return TWICE(x) + B; }\n"
                        "void k(void *const *p, int part, int nparts) { int *o = (int *)p[0]; o[0] = "
                        "helper(%d) + part * nparts; }\n",
                        i + 2, i * 10, i);
    return (KernelSource){s, strlen(s)};
}
static int expect(int i) {
    return i * (i + 2) + i * 10 + 1;
}

static void check_all(Cache *c, uint32_t n, uint32_t built) {
    KernelSource *s = NEWN(arena, KernelSource, n);
    KernelFn *fn = NEWN(arena, KernelFn, n);
    CacheStats st = {0, 0, 0};
    for (uint32_t i = 0; i < n; i++) s[i] = numbered((int)i);
    cr_assert(cache_get(c, s, n, fn, &st, diags));
    cr_assert_eq(st.built, built, "built %u, not %u", st.built, built);
    cr_assert_eq(st.hits, n - built);
    for (uint32_t i = 0; i < n; i++) {
        int out = -1;
        void *p[] = {&out};
        fn[i](p, 0, 1);
        cr_assert_eq(out, expect((int)i), "kernel %u: %d", i, out);
    }
}

Test(cache, builds_then_hits) {
    Cache *c = cache_open(env_posix(), dir, &tool, diags);
    cr_assert(c);
    check_all(c, 30, 30);
    check_all(c, 30, 0);
    cache_close(c);
    c = cache_open(env_posix(), dir, &tool, diags);
    check_all(c, 30, 0);
    check_all(c, 33, 3); /* another set: old packs and a new one */
    cache_close(c);
    c = cache_open(env_posix(), dir, &tool, diags);
    check_all(c, 33, 0);
    cache_close(c);
}

static char pack_path[600];
static bool keep_pack(void *ctx, const char *name) {
    (void)ctx;
    if (name[0] != 'p') return true;
    snprintf(pack_path, sizeof pack_path, "%s/%s", dir, name);
    return false;
}

Test(cache, damaged_entries_are_built_again) {
    Cache *c = cache_open(env_posix(), dir, &tool, diags);
    cr_assert(c);
    check_all(c, 2, 2);
    cache_close(c);
    int err;
    cr_assert(env_posix()->list(env_posix(), dir, keep_pack, NULL, &err) == 0);
    struct stat st;
    cr_assert(stat(pack_path, &st) == 0);
    for (long i = 0; i < 12; i++) {
        long at = i == 11 ? st.st_size - 1 : st.st_size * i / 11;
        FILE *f = fopen(pack_path, "r+b");
        cr_assert(f && fseek(f, at, SEEK_SET) == 0);
        int byte = fgetc(f);
        fseek(f, at, SEEK_SET);
        fputc(byte ^ 0x10, f);
        fclose(f);
        c = cache_open(env_posix(), dir, &tool, diags);
        check_all(c, 2, 2);
        cache_close(c);
    }
    cr_assert(truncate(pack_path, st.st_size / 2) == 0);
    c = cache_open(env_posix(), dir, &tool, diags);
    check_all(c, 2, 2);
    cache_close(c);
    cr_assert_eq(diags->n, 0u);
}

Test(cache, equal_sources_are_one_kernel) {
    Cache *c = cache_open(env_posix(), dir, &tool, diags);
    KernelSource s[3] = {numbered(4), numbered(4), numbered(4)};
    KernelFn fn[3];
    CacheStats st = {0, 0, 0};
    cr_assert(cache_get(c, s, 3, fn, &st, diags));
    cr_assert(fn[0] == fn[1] && fn[1] == fn[2] && fn[0]);
    cr_assert_eq(st.built, 1u);
    cache_close(c);
}

Test(cache, one_bad_kernel_is_named) {
    Cache *c = cache_open(env_posix(), dir, &tool, diags);
    static const char bad[] = "void k(void *const *p, int part, int nparts) { undeclared = 1; }\n";
    KernelSource s[3] = {numbered(1), {bad, sizeof bad - 1}, numbered(2)};
    KernelFn fn[3];
    cr_assert_not(cache_get(c, s, 3, fn, NULL, diags));
    cr_assert_eq(diags->nerror, 1u);
    cr_assert(strstr(diags->item[0]->text, "undeclared"), "%s", diags->item[0]->text);
    cr_assert_eq(diags_exit(diags), EXIT_INTERNAL);
    cache_close(c);
}

static void refused(const char *part) {
    cr_assert_null(cache_open(env_posix(), dir, &tool, diags));
    cr_assert_eq(diags_exit(diags), EXIT_UNAVAILABLE);
    cr_assert(strstr(diags->item[0]->text, part), "%s", diags->item[0]->text);
    cr_assert_not_null(diags->item[0]->help);
}
Test(cache, open_to_others) {
    cr_assert(mkdir(dir, 0777) == 0 && chmod(dir, 0777) == 0);
    refused("other users");
}
Test(cache, symbolic_link) {
    cr_assert(symlink("/tmp", dir) == 0);
    refused("symbolic link");
}
Test(cache, a_file) {
    FILE *f = fopen(dir, "w");
    fclose(f);
    refused("not a directory");
}
Test(cache, parent_open_to_others) {
    cr_assert(mkdir(dir, 0700) == 0 && chmod(dir, 0777) == 0);
    strcat(dir, "/below");
    cr_assert_null(cache_open(env_posix(), dir, &tool, diags));
    cr_assert_eq(diags_exit(diags), EXIT_UNAVAILABLE);
    *strrchr(dir, '/') = 0;
}
