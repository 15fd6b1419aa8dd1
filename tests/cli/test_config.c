/* Configurations: types and units, unknown keys and their lines, layers, where each leaf comes from, ${..},
 * what is refused, and that what `config show` prints reads back to the same. Files are texts in memory. */
#include "cli/config/tree.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* An Env whose files are the rows of `file` and whose environment is WM_TEST_DIR=here. */
typedef struct {
    const char *path, *text;
} File;
typedef struct {
    Env env;
    const File *file;
    size_t n, at;
    int open;
} Memory;

static Memory *memory(Env *e) {
    return (Memory *)(void *)e;
}

static int mem_open(Env *e, const char *path, int *err) {
    Memory *m = memory(e);
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->file[i].path, path) == 0) return m->at = 0, m->open = (int)i;
    *err = ENOENT;
    return -1;
}

static int mem_close(Env *e, int fd, int *err) {
    (void)e, (void)fd, (void)err;
    return 0;
}

static int mem_fstat(Env *e, int fd, EnvStat *st, int *err) {
    (void)err;
    *st = (EnvStat){.size = (int64_t)strlen(memory(e)->file[fd].text), .is_file = true};
    return 0;
}

static int64_t mem_read(Env *e, int fd, void *p, size_t n, int *err) {
    Memory *m = memory(e);
    size_t left = strlen(m->file[fd].text) - m->at;
    (void)err;
    if (n > left) n = left;
    memcpy(p, m->file[fd].text + m->at, n);
    m->at += n;
    return (int64_t)n;
}

static const char *mem_getenv(Env *e, const char *name) {
    (void)e;
    return strcmp(name, "WM_TEST_DIR") == 0 ? "here" : NULL;
}

enum { MAX_FILES = 12 };
typedef struct {
    Memory m;
    File file[MAX_FILES];
    const char *override[8];
    uint32_t nover;
    Diags *d;
    Arena *a;
    Config *c;
} Case;

static bool load(void *ctx, Guard *g) {
    Case *x = ctx;
    x->a = arena_open(env_posix(), g);
    x->c = config_load(x->a, &x->m.env, x->m.n ? x->file[0].path : NULL, x->override, x->nover, x->d);
    return x->c != NULL;
}

/* Loads c.yaml with `text` (NULL: no file); further files and overrides stand in *x already. */
static bool loads(Case *x, const char *text) {
    if (text) {
        x->file[0] = (File){"c.yaml", text};
        if (!x->m.n) x->m.n = 1;
    }
    x->m.env = *env_posix();
    x->m.file = x->file;
    x->m.env.open_read = mem_open;
    x->m.env.close = mem_close;
    x->m.env.fstat = mem_fstat;
    x->m.env.read = mem_read;
    x->m.env.getenv = mem_getenv;
    x->d = diags_open(env_posix());
    bool ok = guard_run(load, x, x->d);
    cr_assert_eq(ok, x->d->nerror == 0);
    return ok;
}

static void done(Case *x) {
    arena_close(x->a);
    diags_close(x->d);
    *x = (Case){0};
}

static void must_load(Case *x, const char *text) {
    if (loads(x, text)) return;
    Sbuf b;
    sb_init(&b, x->d->arena);
    diags_render(x->d, &b, false);
    cr_assert_fail("%s", b.s);
}

/* The text is refused with `code` at `line`, and a message that says `what`. */
static void refuse(const char *text, Code code, uint32_t line, const char *what) {
    Case x = {0};
    cr_assert(!loads(&x, text), "accepted: %.200s", text);
    cr_expect_eq(x.d->nerror, 1, "%s: %u errors", text, x.d->nerror);
    const Diag *g = x.d->item[0];
    cr_expect_eq(g->code, code, "%s: %s", text, g->text);
    cr_expect_eq(g->span[0].loc.line, line, "%s: line %u", text, g->span[0].loc.line);
    cr_expect(strstr(g->text, what) != NULL, "'%s' was expected in '%s'", what, g->text);
    done(&x);
}

static const char *shown(Case *x, bool with_defaults) {
    Sbuf b;
    sb_init(&b, x->a);
    config_show(x->c, &b, with_defaults);
    return b.s;
}

Test(config, without_a_file_all_is_as_the_schema_says) {
    Case x = {0};
    must_load(&x, NULL);
    cr_assert_eq(config_int(x.c, "training.batch_size"), 8);
    cr_assert_eq(config_num(x.c, "data_sampling.correct_ratio"), 0.5);
    cr_assert(config_bool(x.c, "checkpoint.save_best") && !config_is_set(x.c, "checkpoint.save_best"));
    cr_assert_str_eq(config_str(x.c, "dataset.train"), "");
    cr_assert_str_eq(config_str(x.c, "checkpoint.save_dir"), "runs/run"); /* ${experiment.name} inside */
    cr_assert_str_eq(config_origin(x.c, "training.batch_size"), "default");
    cr_assert_eq(config_loc(x.c, "training.batch_size").line, 0);
    cr_assert_str_eq(shown(&x, false), "");
    done(&x);
}

Test(config, numbers_and_units) {
    static const struct {
        const char *text;
        double v;
    } row[] = {{"7", 7},           {"1_000", 1000},       {"2.5e-3", 0.0025},
               {"50%", 0.5},       {"1e3", 1000},         {"4Ki", 4096},
               {"1.5Mi", 1572864}, {"2Gi", 2147483648.0}, {"1Ti", 1099511627776.0},
               {"0.1", 0.1},       {"7%", 0.07}};
    for (size_t i = 0; i < WM_LEN(row); i++) {
        double v = -1;
        cr_expect(scalar_number(row[i].text, &v) && v == row[i].v, "%s is %.17g", row[i].text, v);
    }
    static const char *const bad[] = {"", "x", "1x", "%", "Ki", "1 000", "0x10", "1,5", "1KiKi", "--1", "1K"};
    double v;
    for (size_t i = 0; i < WM_LEN(bad); i++)
        cr_expect(!scalar_number(bad[i], &v), "'%s' was read as a number", bad[i]);
    char digits[300];
    memset(digits, '1', sizeof digits);
    digits[299] = 0;
    cr_expect(!scalar_number(digits, &v)); /* longer than any number that is meant */
}

Test(config, values_have_the_type_of_their_key) {
    refuse("training:\n  batch_size: many\n", C003, 2, "whole number");
    refuse("training:\n  batch_size: 2.5\n", C003, 2, "'2.5'");
    refuse("training:\n  batch_size: -1\n", C003, 2, "from 0 on");
    refuse("training:\n  batch_size: 1e30\n", C003, 2, "whole number");
    refuse("training:\n  batch_size: inf\n", C003, 2, "whole number");
    refuse("training:\n  n_epochs: nan\n", C003, 2, "number from 0 on");
    refuse("training:\n  n_epochs: inf\n", C003, 2, "number from 0 on");
    refuse("training:\n  batch_size: [1, 2]\n", C003, 2, "a single value");
    refuse("training:\n  batch_size: {a: 1}\n", C003, 2, "a single value");
    refuse("checkpoint:\n  save_best: yes\n", C003, 2, "true or false, not 'yes'");
    refuse("data_sampling:\n  curriculum: 3\n", C003, 2, "a list");
    refuse("training: 3\n", C003, 1, "a map of keys");
    refuse("models:\n  policy: 3\n", C003, 2, "`models.policy` is a map");
    refuse("models:\n  policy: {hidden: [1]}\n", C003, 2, "`models.policy.hidden` is a single value");
    refuse("models:\n  policy: {missing: zero}\n", C003, 2, "init or not set");
    refuse("graph:\n  lr: [1]\n", C003, 2, "a single value");
    refuse("defaults: base.yaml\n", C003, 1, "a list of files");
}

Test(config, unknown_keys_name_their_line_and_the_nearest_key) {
    refuse("# one\n\ntraining:\n  seed: 1\n  n_epoch: 2\n", C002, 5, "`training.n_epoch`");
    refuse("trainig:\n  seed: 1\n", C002, 1, "`trainig`");
    Case x = {0};
    cr_assert(!loads(&x, "training:\n  n_epoch: 2\n"));
    cr_assert_str_eq(x.d->item[0]->help, "did you mean `training.n_epochs`?");
    cr_assert_str_eq(x.d->item[0]->replacement, "n_epochs");
    done(&x);
    cr_assert(!loads(&x, "training:\n  n_epoch: 2\n  sed: 3\n  bach_size: 1\n")); /* all of them at once */
    cr_assert_eq(x.d->nerror, 3);
    done(&x);
    must_load(&x,
              "x-note: {anything: [1, {goes: here}]}\ntraining: {x-why: because, seed: 3}\n"); /* keys of
                                                                                                  one's own */
    cr_assert_eq(config_int(x.c, "training.seed"), 3);
    done(&x);
}

Test(config, what_yaml_has_and_a_configuration_does_not) {
    refuse("training: &t {seed: 1}\n", C001, 1, "anchors");
    refuse("training: {seed: *t}\n", C001, 1, "aliases");
    refuse("training: {seed: !!int 1}\n", C001, 1, "tags");
    refuse("training:\n  seed: 1\n  seed: 2\n", C001, 3, "`seed` stands here twice");
    refuse("training: {seed: 1}\n---\ntraining: {seed: 2}\n", C001, 2, "second document");
    refuse("- a\n- b\n", C001, 1, "a map of keys");
    refuse("just words\n", C001, 1, "a map of keys");
    refuse("? [a]\n: b\n", C001, 1, "a key is a word");
    refuse("training: {seed: 1\n", C001, 2, "");
    refuse("training:\n\tseed: 1\n", C001, 2, "");
    refuse("experiment: {name: \"a\\0b\"}\n", C001, 1, "NUL");
    refuse("experiment: {name: \xff}\n", C001, 1, "not UTF-8");
}

Test(config, limits_of_a_file) {
    static char text[(1 << 20) + 64];
    memset(text, '#', sizeof text - 1);
    refuse(text, C001, 1, "at most 1 MiB");
    size_t n = 0;
    for (int i = 0; i < 70; i++) n += (size_t)snprintf(text + n, sizeof text - n, "{a: ");
    text[n] = 0;
    refuse(text, C001, 1, "deeper than 64");
    n = (size_t)snprintf(text, sizeof text, "x-list: [");
    for (int i = 0; i < 100001; i++) n += (size_t)snprintf(text + n, sizeof text - n, "1,");
    snprintf(text + n, sizeof text - n, "1]\n");
    refuse(text, C001, 1, "100,000 nodes");
    n = (size_t)snprintf(text, sizeof text, "experiment: {name: ");
    memset(text + n, 'a', 65537);
    memcpy(text + n + 65537, "}\n", 3);
    refuse(text, C001, 1, "64 KiB");
}

Test(config, layers_merge_maps_and_remember_what_was_replaced) {
    Case x = {
        .m.n = 3,
        .file[1] = {"base.yaml",
                    "training: {seed: 1, batch_size: 2}\ndata_sampling: {difficulty_weights: [1, 2, 3]}\n"},
        .file[2] = {"more.yaml", "training:\n  seed: 5\nexperiment: {name: m}\n"},
        .override = {"training.batch_size=16", "keep=0.5"},
        .nover = 2};
    must_load(&x, "defaults: [base.yaml, more.yaml]\ntraining:\n  micro_batches: 4\ndata_sampling: "
                  "{difficulty_weights: [9]}\n");
    cr_assert_eq(config_int(x.c, "training.seed"), 5); /* the later file of `defaults` */
    cr_assert_eq(config_int(x.c, "training.batch_size"), 16);
    cr_assert_eq(config_int(x.c, "training.micro_batches"), 4);
    cr_assert_str_eq(config_str(x.c, "checkpoint.save_dir"), "runs/m");
    cr_assert_str_eq(config_origin(x.c, "training.seed"), "more.yaml:2");
    cr_assert_str_eq(config_origin(x.c, "training.micro_batches"), "c.yaml:3");
    cr_assert_str_eq(config_origin(x.c, "training.batch_size"), "command line");
    cr_assert_eq(config_loc(x.c, "training.micro_batches").line, 3);
    double *v;
    uint32_t nrow, ncol, n;
    cr_assert(config_rows(x.c, x.a, "data_sampling.difficulty_weights", &v, &nrow, &ncol, x.d));
    cr_assert(nrow == 1 && ncol == 1 && v[0] == 9); /* lists are replaced as a whole */
    const Setting *h = config_hypers(x.c, &n);
    cr_assert(n == 1 && strcmp(h[0].key, "keep") == 0 && h[0].v.num == 0.5);
    const char *s = shown(&x, false);
    cr_assert(strstr(s, "# more.yaml:2; was 1, base.yaml:1") != NULL, "%s", s);
    cr_assert(strstr(s, "# command line; was 2, base.yaml:1") != NULL, "%s", s);
    done(&x);
}

Test(config, files_lie_beside_the_file_that_names_them) {
    Case x = {.m.n = 3,
              .file[0] = {"dir/c.yaml", "defaults: [sub/base.yaml]\n"},
              .file[1] = {"dir/sub/base.yaml", "defaults: [up.yaml]\n"},
              .file[2] = {"dir/sub/up.yaml", "training: {seed: 3}\n"}};
    must_load(&x, NULL);
    cr_assert_eq(config_int(x.c, "training.seed"), 3);
    done(&x);
    x = (Case){.m.n = 2, .file[1] = {"b.yaml", "defaults: [c.yaml]\n"}};
    cr_assert(!loads(&x, "defaults: [b.yaml]\n"));
    cr_assert(strstr(x.d->item[0]->text, "circle") != NULL, "%s", x.d->item[0]->text);
    done(&x);
    cr_assert(!loads(&x, "defaults: [none.yaml]\n"));
    cr_assert_eq(diags_exit(x.d), EXIT_MISSING);
    done(&x);
    cr_assert(!loads(&x, "defaults: [[a.yaml]]\n")); /* not a file's name */
    cr_assert(x.d->item[0]->code == C003, "%s", x.d->item[0]->text);
    done(&x);
}

Test(config, overrides) {
    static const struct {
        const char *text;
        Code code;
        const char *what;
    } bad[] = {{"seed", R007, "key=value"},
               {"=3", R007, "key=value"},
               {"training.sed=3", C002, "`training.sed`"},
               {"training.seed=x", C003, "whole"},
               {"data_sampling.curriculum=[1", C001, ""}};
    for (size_t i = 0; i < WM_LEN(bad); i++) {
        Case x = {.override = {bad[i].text}, .nover = 1};
        cr_assert(!loads(&x, NULL), "%s was accepted", bad[i].text);
        cr_expect_eq(x.d->item[0]->code, bad[i].code, "%s: %s", bad[i].text, x.d->item[0]->text);
        cr_expect(strstr(x.d->item[0]->text, bad[i].what) != NULL, "%s: %s", bad[i].text, x.d->item[0]->text);
        done(&x);
    }
    Case x = {.override = {"data_sampling.curriculum=[[1, 0], [0.5, 50%]]", "experiment.name=a=b",
                           "models.policy.path=p/q", "models.policy.n_layers=3", "training.seed=1",
                           "training.seed=2", "flag=true", "word=\"7\""},
              .nover = 8};
    must_load(&x, NULL);
    double *v;
    uint32_t nrow, ncol, n;
    cr_assert(config_rows(x.c, x.a, "data_sampling.curriculum", &v, &nrow, &ncol, x.d) && nrow == 2 &&
              ncol == 2);
    cr_assert(v[0] == 1 && v[1] == 0 && v[2] == 0.5 && v[3] == 0.5);
    cr_assert_str_eq(config_str(x.c, "experiment.name"), "a=b");
    cr_assert_eq(config_int(x.c, "training.seed"), 2);
    const ConfigModel *m = config_model(x.c, "policy");
    cr_assert_str_eq(m->path, "p/q");
    cr_assert(m->nset == 1 && strcmp(m->set[0].key, "n_layers") == 0 && m->set[0].v.num == 3);
    cr_assert_null(config_model(x.c, "ref"));
    const Setting *h = config_hypers(x.c, &n);
    cr_assert(n == 2 && h[0].v.kind == VAL_BOOL && h[0].v.num == 1);
    done(&x);
}

Test(config, models) {
    Case x = {0};
    must_load(&x, "models:\n  policy: {path: w, prefix: m., missing: init, ignore: [a, b.*], hidden: 32, "
                  "act: silu, tied: false, base: '10', eps: 1e-5}\n  ref: {}\n");
    uint32_t n;
    const ConfigModel *m = config_models(x.c, &n);
    cr_assert(n == 2 && strcmp(m[1].name, "ref") == 0 && m[1].nset == 0 && m[1].path[0] == 0);
    cr_assert_str_eq(m[0].prefix, "m.");
    cr_assert_str_eq(m[0].missing, "init");
    cr_assert(m[0].nignore == 2 && strcmp(m[0].ignore[1], "b.*") == 0);
    cr_assert(m[0].nset == 5);
    cr_assert(m[0].set[0].v.kind == VAL_NUMBER && m[0].set[0].v.num == 32);
    cr_assert(m[0].set[1].v.kind == VAL_STRING && m[0].set[2].v.kind == VAL_BOOL);
    cr_assert(m[0].set[3].v.kind == VAL_STRING); /* quoted: a word whatever it looks like */
    cr_assert(m[0].set[4].v.num == 1e-5);
    done(&x);
}

Test(config, rows_are_equally_long_and_numbers) {
    static const char *const bad[] = {
        "data_sampling: {curriculum: [[1, 2], [3]]}\n", "data_sampling: {curriculum: [[1, 2], 3]}\n",
        "data_sampling: {curriculum: [1, x]}\n", "data_sampling: {curriculum: [1, [2]]}\n"};
    double *v;
    uint32_t nrow, ncol;
    for (size_t i = 0; i < WM_LEN(bad); i++) {
        Case x = {0};
        must_load(&x, bad[i]);
        cr_expect(!config_rows(x.c, x.a, "data_sampling.curriculum", &v, &nrow, &ncol, x.d),
                  "%s was accepted", bad[i]);
        cr_expect(x.d->nerror == 1 && x.d->item[0]->code == C003 && x.d->item[0]->span[0].loc.line == 1);
        done(&x);
    }
    Case x = {0};
    must_load(&x, "data_sampling: {curriculum: []}\n");
    cr_assert(config_rows(x.c, x.a, "data_sampling.curriculum", &v, &nrow, &ncol, x.d) && nrow == 0);
    cr_assert(config_rows(x.c, x.a, "data_sampling.difficulty_bins", &v, &nrow, &ncol, x.d) && nrow == 0);
    done(&x);
}

Test(config, texts_refer_to_other_keys_and_to_the_environment) {
    Case x = {0};
    must_load(&x, "experiment: {name: 'n-${training.seed}'}\ntraining: {seed: 4}\n"
                  "dataset: {train: '${env:WM_TEST_DIR}/${experiment.name}.jsonl', validation: "
                  "'${oc.env:WM_NONE,other}/${runtime.precision}'}\n");
    cr_assert_str_eq(config_str(x.c, "dataset.train"), "here/n-4.jsonl");
    cr_assert_str_eq(config_str(x.c, "dataset.validation"),
                     "other/f32"); /* a default of the schema can be referred to */
    cr_assert_str_eq(config_str(x.c, "checkpoint.save_dir"), "runs/n-4");
    done(&x);
    must_load(
        &x,
        "training: {seed: '${x-seed}', n_epochs: '${x-half}%'}\nx-seed: 12\nx-half: 50\n"); /* numbers too */
    cr_assert(config_int(x.c, "training.seed") == 12 && config_num(x.c, "training.n_epochs") == 0.5);
    done(&x);
    refuse("experiment: {name: '${experiment.name}'}\n", C003, 1, "refers to itself");
    refuse("experiment:\n  name: '${dataset.train}'\ndataset: {train: '${experiment.name}'}\n", C003, 3,
           "refers to itself");
    refuse("experiment: {name: '${training.seed}'}\ntraining: {seed: '${env:WM_NONE}'}\n", C003, 2,
           "WM_NONE"); /* once, where it is */
    refuse("experiment: {name: '${no.such}'}\n", C003, 1, "no such key");
    refuse("experiment: {name: '${training}'}\ntraining: {seed: 1}\n", C003, 1, "no such key");
    refuse("experiment: {name: '${training.seed'}\n", C003, 1, "without }");
    refuse("experiment: {name: '${env:WM_NONE}'}\n", C003, 1, "WM_NONE");
    refuse("training:\n  seed: '${experiment.name}'\n", C003, 2,
           "'run'"); /* types are checked after ${..} too */
}

/* Each level names the one below ten times: 10^9 copies if nothing stopped it. */
Test(config, references_do_not_multiply) {
    char text[4096];
    size_t n = (size_t)snprintf(text, sizeof text, "x-a: word\n");
    for (int i = 1; i < 10; i++) {
        n += (size_t)snprintf(text + n, sizeof text - n, "x-%c: '", 'a' + i);
        for (int k = 0; k < 10; k++) n += (size_t)snprintf(text + n, sizeof text - n, "${x-%c}", 'a' + i - 1);
        n += (size_t)snprintf(text + n, sizeof text - n, "'\n");
    }
    Case x = {0};
    cr_assert(!loads(&x, text));
    cr_expect(x.d->item[0]->code == C003 && strstr(x.d->item[0]->text, "1 MiB") != NULL, "%s",
              x.d->item[0]->text);
    done(&x);
}

Test(config, what_is_shown_reads_back) {
    static const char text[] =
        "x-note: 'a: b # c'\n"
        "training: {seed: 7, n_epochs: 50%, batch_size: 1_6}\n"
        "dataset: {train: 'it''s here', validation: '- x', template: \"a\\nb\\tc\", max_length: 4Ki}\n"
        "experiment: {name: \"\\u00e9 \\\"q\\\" \\\\ 'x'\"}\n"
        "data_sampling: {curriculum: [[1, 0], [0.5, 0.5]], difficulty_bins: []}\n"
        "models: {policy: {path: '', base: '10', tied: true, word: 'true', ignore: ['a, b', '[c]']}, ref: "
        "{}}\n"
        "graph: {lr: 1e-3, norm: micro, neg: -1, odd: '-', tilde: '~', pct: '%', none: ''}\n";
    for (int all = 0; all < 2; all++) {
        Case x = {0}, y = {0};
        must_load(&x, text);
        const char *s = shown(&x, all == 1);
        must_load(&y, s);
        for (uint32_t i = 0; i < config_nkey; i++) {
            const char *key = config_key[i].path;
            cr_expect_str_eq(config_str(x.c, key), config_str(y.c, key), "%s", key);
            cr_expect(all || config_is_set(x.c, key) == config_is_set(y.c, key), "%s", key);
        }
        uint32_t n, m;
        const Setting *h = config_hypers(x.c, &n), *k = config_hypers(y.c, &m);
        cr_assert_eq(n, m);
        for (uint32_t i = 0; i < n; i++) {
            cr_expect_str_eq(h[i].key, k[i].key);
            cr_expect(h[i].v.kind == k[i].v.kind && h[i].v.num == k[i].v.num, "%s", h[i].key);
        }
        const ConfigModel *p = config_models(x.c, &n), *q = config_models(y.c, &m);
        cr_assert(n == m && n == 2 && p[0].nset == q[0].nset && p[0].nignore == q[0].nignore);
        for (uint32_t i = 0; i < p[0].nset; i++)
            cr_expect(p[0].set[i].v.kind == q[0].set[i].v.kind, "%s", p[0].set[i].key);
        for (uint32_t i = 0; i < p[0].nignore; i++) cr_expect_str_eq(p[0].ignore[i], q[0].ignore[i]);
        cr_expect_str_eq(p[0].path, q[0].path);
        double *v, *w;
        uint32_t r1, c1, r2, c2;
        cr_assert(config_rows(x.c, x.a, "data_sampling.curriculum", &v, &r1, &c1, x.d) &&
                  config_rows(y.c, y.a, "data_sampling.curriculum", &w, &r2, &c2, y.d));
        cr_assert(r1 == r2 && c1 == c2 && memcmp(v, w, r1 * c1 * sizeof *v) == 0);
        done(&x);
        done(&y);
    }
}
