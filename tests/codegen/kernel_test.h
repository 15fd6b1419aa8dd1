/* What tests of generated kernels share: an arena that ends the test when a guard is reached, a cache of its
 * own. */
#ifndef WM_KERNEL_TEST_H
#define WM_KERNEL_TEST_H

#include "codegen/emit.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Guard test_guard;
static Diags *diags;
static Arena *arena;
static Toolchain tool;
static Cache *cache;

static void kernels_open(void) {
    diags = diags_open(env_posix());
    test_guard.diags = diags;
    if (setjmp(test_guard.out)) cr_assert_fail("%s", diags->item[0]->text);
    arena = arena_open(env_posix(), &test_guard);
    if (!toolchain_cc(arena, env_posix(), cpu_level(), &tool, diags))
        cr_assert_fail("%s", diags->item[0]->text);
    cache = cache_open(env_posix(), arena_fmt(arena, "%s/kernel-cache", WM_TEST_CACHE), &tool, diags);
    cr_assert(cache, "%s", diags->n ? diags->item[0]->text : "");
}
static void kernels_close(void) {
    cache_close(cache);
    arena_close(arena);
    diags_close(diags);
}
static inline KernelFn kernel_of(const char *source) {
    KernelSource s = {source, strlen(source)};
    KernelFn fn;
    if (!cache_get(cache, &s, 1, &fn, NULL, diags)) cr_assert_fail("%s\n%s", diags->item[0]->text, source);
    return fn;
}
#endif
