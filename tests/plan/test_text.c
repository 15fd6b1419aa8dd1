/* The text of a plan: printed, read back and printed again it is the same; damaged ones are refused, with a
 * place. */
#include "plan_test.h"

#include <criterion/criterion.h>
#include <stdio.h>

static char *text_of(Arena *a, const Plan *p, size_t *len) {
    Sbuf b;
    sb_init(&b, a);
    plan_print(p, &b);
    *len = b.len;
    return b.s;
}
static Plan *read(Arena *a, const char *text, size_t len, Diags *d) {
    return plan_parse(a, "hand.plan", text, len, d);
}

/* Puts the right hash into a changed text, so that the grammar and the checks are reached. */
static void rehash(char *text, size_t len) {
    char *from = strstr(text, "hash ") + 5, key[33];
    hash128_hex(from + 33, len - (size_t)(from + 33 - text), key);
    memcpy(from, key, 32);
}

Test(text, print_parse_print) {
    Diags *d = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    size_t n, m;
    for (int64_t micro = 1; micro < 10; micro++) {
        Plan *p = hand_plan(a, micro);
        char *text = text_of(a, p, &n);
        Plan *q = read(a, text, n, d);
        cr_assert_not_null(q, "%s", d->n ? d->item[0]->text : "");
        char *again = text_of(a, q, &m);
        cr_assert(n == m && memcmp(text, again, n) == 0);
        cr_assert_eq(q->program[0].section[2].ninstr, 2);
        cr_assert_str_eq(q->program[0].ir, "no ir\n");
        cr_assert_str_eq(q->graph_name, "by \"hand\"\n");
    }
    arena_close(a);
    diags_close(d);
}

Test(text, every_changed_byte_and_every_cut_is_refused) {
    Diags *d = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    size_t n;
    char *text = text_of(a, hand_plan(a, 3), &n);
    for (size_t i = 0; i < n; i++) {
        char old = text[i];
        text[i] = (char)(old ^ 1);
        cr_assert_null(read(a, text, n, d), "byte %zu", i);
        text[i] = old;
        cr_assert_null(read(a, text, i, d), "cut at %zu", i);
    }
    cr_assert_eq(diags_exit(d), EXIT_DAMAGED);
    arena_close(a);
    diags_close(d);
}

static void refused(const char *from, const char *to, const char *message) {
    Diags *d = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    size_t n;
    char *text = text_of(a, hand_plan(a, 3), &n), *at = strstr(text, from);
    cr_assert_not_null(at, "%s", from);
    Sbuf b;
    sb_init(&b, a);
    sb_put(&b, text, (size_t)(at - text));
    sb_str(&b, to);
    sb_str(&b, at + strlen(from));
    rehash(b.s, b.len);
    cr_assert_null(read(a, b.s, b.len, d), "accepted: %s -> %s", from, to);
    cr_assert_geq(d->n, 1);
    cr_assert(strstr(d->item[0]->text, message), "'%s' does not say '%s'", d->item[0]->text, message);
    cr_assert_eq(d->item[0]->code, P001);
    arena_close(a);
    diags_close(d);
}

Test(text, refusals) {
    refused("wplan 1", "wplan 2", "expected wplan 1");
    refused("args=1+1024@20,1+0,1+64", "args=1+4092@20,1+0,1+64", "behind its arena");
    refused("args=1+1024@20", "args=1+1024@2000", "behind its arena");
    refused("args=1+1024@20", "args=1+512@9223372036854775807", "overflows");
    refused("args=1+1024@20,1+0,1+64", "args=1+1024@20,1+0", "number of arguments");
    refused("args=1+1024@20", "args=7+512", "an arena, 0 or 1");
    refused("launch k0", "launch k1", "no such kernel");
    refused("bytes=20,8,20", "bytes=20,8,9000", "behind its arena");
    refused("writes=1", "writes=4", "writes more");
    refused("at=0+0", "at=0+64", "behind its arena");
}

Test(text, sizes_and_states) {
    refused("type=f32[\"n\"=5] at=0+0", "type=f32[\"n\"=5000000000000000] at=0+0", "size overflows");
    refused("type=f32[\"n\"=5] at=0+0", "type=f32[\"n\"=5,\"k\"=4611686018427387904] at=0+0",
            "size overflows");
    refused("micro=3", "micro=0", "number of micro-batches");
    refused("micro=3", "micro=1", "accum outside");
    refused("micro=3", "micro=4", "or three with levels");
    refused("work=4096", "work=4097", "more than the work arena");
    refused("arena 1 work bytes=4096", "arena 1 work bytes=4000", "more than the work arena");
    refused("count=5 args=1+128,1+64", "count=50000 args=1+128,1+64", "behind its arena");
    refused("accum dtype=f32", "accum dtype=i32", "accum sums f64 or f32");
    refused("check dtype=f32 count=1 args=1+128", "check dtype=f32 count=1 args=1+4096", "behind its arena");
    refused("launch k0 args=1+1024@20,1+0,1+64", "launch k0 args=1+1024@20,1+0,0+0",
            "written before the check");
    refused("ir 6 {", "ir 7 {", "expected }");
    refused("end\n", "", "expected end");
    refused("end\n", "end\n\n", "the end of the file");
    refused("seq=5", "seq=05", "a number in range");
    refused("kind=\"data\"", "kind=\"date\"", "kind of input");
}
