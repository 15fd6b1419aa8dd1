/* The order of samples, balance, pairs, groups, bins, and the tokens of a micro-batch against values written
 * by hand. */
#include "runtime/data.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const train = WM_SOURCE_DIR "/data/train.jsonl";
static DataOptions options(void) {
    return (DataOptions){.name = "train",
                         .width = 1,
                         .template_name = "plain",
                         .max_length = 64,
                         .vocab = 259,
                         .seed = 7,
                         .shuffle = true,
                         .correct_ratio = 0.5};
}
static Diags *d;
static void setup(void) {
    d = diags_open(env_posix());
}
static void teardown(void) {
    diags_close(d);
}
TestSuite(data, .init = setup, .fini = teardown);

static bool
right_of(DataSet *s,
         int64_t n) { /* the file lists right answers in its metadata; here: by the text of the line */
    (void)s;
    char *text;
    size_t len;
    cr_assert(file_read_all(env_posix(), d->arena, train, 1 << 30, &text, &len, d));
    for (int64_t i = 0; i < n; i++) text = strchr(text, '\n') + 1;
    const char *at = strstr(text, "\"is_correct\": ");
    return strncmp(at + 14, "true", 4) == 0;
}

Test(data, every_sample_once_per_epoch_and_another_order_each_epoch) {
    DataOptions o = options();
    DataSet *s = data_open(env_posix(), train, &o, NULL, 0, d);
    cr_assert_not_null(s);
    int64_t n = data_items(s), same = 0, v, w;
    cr_assert_eq(n, data_samples(s));
    int *seen = arena_alloc(d->arena, (wm_size)n * 4);
    for (int64_t i = 0; i < n; i++) cr_assert(data_item(s, 0, i, &v, d) && seen[v]++ == 0);
    for (int64_t i = 0; i < n; i++) cr_assert(data_item(s, 1, i, &v, d) && seen[v]++ == 1);
    for (int64_t i = 0; i < 50; i++) {
        data_item(s, 0, i, &v, d);
        data_item(s, 1, i, &w, d);
        same += v == w;
    }
    cr_assert_lt(same, 10);
    DataSet *t = data_open(env_posix(), train, &o, NULL, 0, d); /* asked in another order: the same answers */
    cr_assert(data_item(t, 1, 7, &w, d) && data_item(s, 1, 7, &v, d) && v == w);
    data_close(t);
    data_close(s);
}

Test(data, balance_and_correct_only) {
    DataOptions o = options();
    o.n_samples = 40;
    o.balance_correct = true;
    o.correct_ratio = 0.25;
    DataSet *s = data_open(env_posix(), train, &o, NULL, 0, d);
    int right = 0;
    for (int64_t i = 0, v; i < 40; i++) right += data_item(s, 0, i, &v, d) && right_of(s, v);
    cr_assert_eq(right, 10);
    data_close(s);
    o.correct_only = true;
    s = data_open(env_posix(), train, &o, NULL, 0, d);
    for (int64_t i = 0, v; i < 40; i++) cr_assert(data_item(s, 3, i, &v, d) && right_of(s, v));
    data_close(s);
}

Test(data, pairs_hold_a_right_and_a_wrong_answer) {
    DataOptions o = options();
    o.draw = DRAW_PAIR;
    o.width = 2;
    o.max_pairs_per_problem = 2;
    DataSet *s = data_open(env_posix(), train, &o, NULL, 0, d);
    cr_assert_eq(data_items(s), 2 * 279);
    for (int64_t i = 0; i < 20; i++) {
        int64_t v[2];
        cr_assert(data_item(s, 0, i, v, d) && right_of(s, v[0]) && !right_of(s, v[1]));
    }
    data_close(s);
    o.draw = DRAW_GROUP;
    o.width = 8;
    s = data_open(env_posix(), train, &o, NULL, 0, d);
    cr_assert_eq(data_items(s), 279);
    data_close(s);
}

Test(data, tokens_labels_and_truncation) {
    int32_t t[8], l[8];
    cr_assert_eq(tokenize_sample("ab", 2, "c", 1, 8, t, l), 5);
    const int32_t want[8] = {1, 'a' + 3, 'b' + 3, 'c' + 3, 2, 0, 0, 0},
                  label[8] = {-100, -100, -100, 'c' + 3, 2, -100, -100, -100};
    cr_assert(memcmp(t, want, sizeof t) == 0 && memcmp(l, label, sizeof l) == 0);
    cr_assert_eq(tokenize_sample("ab", 2, "cdefgh", 6, 5, t, l),
                 5); /* cut at the end: 'd' is then the last answer token */
    cr_assert(t[4] == 'd' + 3 && l[4] == 'd' + 3);
    cr_assert_eq(tokenize_sample("\xff", 1, "", 0, 8, t, l), 3);
    cr_assert(t[1] == 258 && l[1] == -100 && l[2] == 2);
}

static DataSet *of_text(const char *text, DataOptions *o) {
    char path[64]; /* one for each test: they run at the same time */
    snprintf(path, sizeof path, "/tmp/wm_test_data-%d.jsonl", (int)getpid());
    cr_assert(file_write_atomic(env_posix(), path, text, strlen(text), d));
    DataSet *s = data_open(env_posix(), path, o, NULL, 0, d);
    unlink(path);
    return s;
}

Test(data, damaged_lines_name_line_and_byte) {
    DataOptions o = options();
    cr_assert_null(of_text("{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": 3}\n", &o));
    cr_assert(d->item[0]->code == D003 && d->item[0]->span[0].loc.line == 2);
    cr_assert_null(of_text("{\"instruction\": \"a\", \"output\": \"b\"}", &o)); /* no newline: cut off */
    cr_assert_null(of_text("", &o));
    cr_assert_null(of_text("{\"instruction\": \"a\", \"output\": \"b\"\n", &o));
    cr_assert_eq(diags_exit(d), EXIT_DAMAGED);
    DataSet *s = of_text("{\"instruction\": \"a\", \"output\": \"b\"}\r\n", &o);
    cr_assert(s && data_items(s) == 1);
    data_close(s);
}

Test(data, asked_for_more_than_there_is_whole_rounds_then_a_draw) {
    DataOptions o = options();
    o.n_samples = 7;
    DataSet *s = of_text("{\"instruction\": \"a\", \"output\": \"1\"}\n{\"instruction\": \"a\", \"output\": "
                         "\"2\"}\n{\"instruction\": \"a\", \"output\": \"3\"}\n",
                         &o);
    int n[3] = {0};
    for (int64_t i = 0, v; i < 7; i++) cr_assert(data_item(s, 0, i, &v, d) && n[v]++ < 3);
    cr_assert(n[0] + n[1] + n[2] == 7 && n[0] >= 2 && n[1] >= 2 && n[2] >= 2);
    data_close(s);
}
