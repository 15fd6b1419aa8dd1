/* JSON: what is accepted, what is refused with its place, order and lookup, and text that reads back. */
#include "ckpt_test.h"

#include <math.h>

typedef struct {
    Env *env;
    Diags *d;
} Fix;
static void begin(Fix *f) {
    f->env = env_posix(), f->d = diags_open(f->env);
}

static Json *parse(Fix *f, const char *s) {
    return json_parse(s, strlen(s), "x.json", 1, 4, f->d, D003);
}

Test(json, kinds_order_and_paths) {
    Fix f;
    begin(&f);
    Json *j = parse(
        &f,
        "{\"z\": 1, \"a\": [true, null, -2.5e3, \"h\\u00e9\\n\"], \"m\": {\"d\": 9223372036854775807}} \n");
    cr_assert(j && json_kind(j) == J_OBJECT && json_size(j) == 3);
    const Json *v;
    cr_assert(!strcmp(json_key_at(j, 0, &v), "z") && json_kind(v) == J_INT && json_int(v) == 1 &&
              json_real(v) == 1);
    cr_assert(!strcmp(json_key_at(j, 1, &v), "a") && json_size(v) == 4 && json_key_at(j, 3, &v) == NULL);
    const Json *a = json_get(j, "a");
    size_t len = 0;
    cr_assert(json_bool(json_at(a, 0)) && json_kind(json_at(a, 1)) == J_NULL &&
              json_real(json_at(a, 2)) == -2500);
    cr_assert(!strcmp(json_string(json_at(a, 3), &len), "h\xc3\xa9\n") && len == 4 && json_at(a, 4) == NULL);
    cr_assert(json_int(json_path(j, "m.d")) == INT64_MAX && !json_path(j, "m.e") && !json_path(j, "m.d.e") &&
              !json_path(j, "a.d"));
    cr_assert(json_get(a, "z") == NULL && json_at(j, 0) == NULL && json_kind(NULL) == J_NULL &&
              json_string(NULL, NULL) == NULL);
    json_free(j);
    json_free(NULL);
    diags_close(f.d);
}

/* Lookup goes through a sorted index from a dozen keys on: every key is found, its neighbours are not. */
Test(json, large_objects) {
    Fix f;
    begin(&f);
    char *text = malloc(1 << 20), key[32];
    size_t n = 0;
    text[n++] = '{';
    for (int i = 0; i < 5000; i++)
        n += (size_t)sprintf(text + n, "%s\"k%d\":%d", i ? "," : "", (i * 7919) % 5000, i);
    text[n++] = '}';
    Json *j = json_parse(text, n, "x", 1, 4, f.d, D003);
    cr_assert(j && json_size(j) == 5000);
    for (int i = 0; i < 5000; i++) {
        sprintf(key, "k%d", (i * 7919) % 5000);
        cr_assert(json_int(json_get(j, key)) == i && json_kind(json_get(j, key)) == J_INT);
        strcat(key, "x");
        cr_assert(json_get(j, key) == NULL);
    }
    cr_assert(!json_get(j, "k") && !json_get(j, "") && json_int(json_path(j, "k4999")) > 0);
    free(text);
    json_free(j);
    diags_close(f.d);
}

Test(json, refused_with_code_and_place) {
    static const struct {
        const char *text;
        uint32_t line, col;
    } row[] = {{"", 1, 0},
               {"{\"a\": 1,}", 1, 0},
               {"{\"a\": 1, \"a\": 2}", 1, 0},
               {"{} x", 1, 0},
               {"[1,\n 2,\n 03]", 3, 0},
               {"[99999999999999999999]", 1, 0},
               {"[1e999]", 1, 0},
               {"[NaN]", 1, 0},
               {"[\"\\u0000\"]", 1, 0},
               {"[\"\xff\"]", 1, 0},
               {"\xef\xbb\xbf{}", 1, 0},
               {"[\"\x01\"]", 1, 0},
               {"[[[[\n  []]]]]", 2, 3},
               {"{\"a\":[{\"b\":[[1]]}]}", 1, 13},
               {"[\"\\ud800\"]", 1, 0},
               {"'a'", 1, 0}};
    for (size_t i = 0; i < WM_LEN(row); i++) {
        Fix f;
        begin(&f);
        cr_assert(parse(&f, row[i].text) == NULL, "row %zu", i);
        cr_assert(f.d->nerror == 1 && f.d->item[0]->code == D003 && diags_exit(f.d) == 65, "row %zu", i);
        cr_assert(f.d->item[0]->span[0].loc.line == row[i].line, "row %zu: line %u", i,
                  f.d->item[0]->span[0].loc.line);
        if (row[i].col)
            cr_assert(f.d->item[0]->span[0].loc.col == row[i].col, "row %zu: column %u", i,
                      f.d->item[0]->span[0].loc.col);
        diags_close(f.d);
    }
}

Test(json, line_numbers_count_from_the_given_one) {
    Fix f;
    begin(&f);
    cr_assert(!json_parse("[1 2]", 5, "data.jsonl", 417, 4, f.d, D003) &&
              f.d->item[0]->span[0].loc.line == 417);
    diags_close(f.d);
}

/* A million brackets are refused by counting, not by recursion. */
Test(json, deep_nesting_is_cheap) {
    Fix f;
    begin(&f);
    size_t n = 1000000;
    char *text = malloc(n);
    memset(text, '[', n);
    cr_assert(!json_parse(text, n, "x", 1, 64, f.d, D003) && diags_say(f.d, "deeper than 64"));
    memcpy(text, "\"[[[[[[\\\"[[[\"", 13); /* brackets inside a string do not count */
    Json *j = json_parse(text, 13, "x", 1, 1, f.d, D003);
    cr_assert(j && !strcmp(json_string(j, NULL), "[[[[[[\"[[["));
    json_free(j);
    free(text);
    diags_close(f.d);
}

Test(json, what_is_written_reads_back) {
    Fix f;
    begin(&f);
    Arena *a = arena_open(f.env, NULL);
    Sbuf b;
    char all[256];
    for (int i = 0; i < 255; i++) all[i] = (char)(i < 127 ? i + 1 : 0x41);
    memcpy(all + 130, "\xed\x95\x9c", 3);
    sb_init(&b, a);
    sb_chr(&b, '[');
    json_quote(&b, all, 255);
    sb_chr(&b, ',');
    json_quote(&b,
               "a\xff\xfe"
               "b",
               4);
    static const double number[] = {0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 123456789};
    for (size_t i = 0; i < WM_LEN(number); i++) {
        sb_chr(&b, ',');
        json_number(&b, number[i]);
    }
    sb_chr(&b, ',');
    json_number(&b, NAN);
    sb_chr(&b, ',');
    json_number(&b, -INFINITY);
    sb_chr(&b, ']');
    Json *j = json_parse(b.s, b.len, "x", 1, 4, f.d, D003);
    show(f.d);
    size_t len;
    cr_assert(j && !memcmp(json_string(json_at(j, 0), &len), all, 255) && len == 255);
    cr_assert(!strcmp(json_string(json_at(j, 1), NULL), "a\xef\xbf\xbd\xef\xbf\xbd"
                                                        "b"));
    for (size_t i = 0; i < WM_LEN(number); i++) {
        double x = json_real(json_at(j, 2 + i));
        cr_assert(!memcmp(&x, &number[i], 8), "number %zu", i);
    }
    cr_assert(json_kind(json_at(j, 8)) == J_NULL && json_kind(json_at(j, 9)) == J_NULL);
    json_free(j);
    arena_close(a);
    diags_close(f.d);
}

Test(json, no_memory) {
    Fault fault;
    fault_open(&fault);
    Diags *d = diags_open(&fault.env);
    fault.alloc_at = fault.allocs + 1;
    cr_assert(!json_parse("{\"a\": 1}", 8, "x", 1, 4, d, D003) && diags_exit(d) == 71);
    diags_close(d);
}
