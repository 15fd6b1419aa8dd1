/* cmd_check.c: commands about the text of a graph: check, test, explain, expand, help, config. */
#include "cli/commands.h"

#include <string.h>

static int finish(Cli *c, const Sbuf *b) {
    return put_out(c, b->s, b->len) ? EXIT_DONE : EXIT_IO;
}

/* Without a configuration file, sizes that nothing gives are assumed; with one, everything is checked as
 * `run` would. */
/* Whether the command line sets keys of the configuration, not only hyper-parameters. */
static bool sets_keys(const Cli *c) {
    for (uint32_t i = 0; i < c->noverride; i++) {
        const char *dot = strchr(c->override[i], '.'), *eq = strchr(c->override[i], '=');
        if (dot && dot < eq) return true;
    }
    return false;
}

static bool check_one(Cli *c, const char *file) {
    uint32_t np;
    const char *const *path = cli_search_path(c, &np);
    if (c->config || sets_keys(c)) {
        Session s;
        GraphInfo info;
        Cli one = *c;
        one.arg = &file;
        one.narg = file[0] != 0;
        bool ok = session_open(&one, &s, DATA_NONE);
        LowerOptions lo = {.phase = "train",
                           .micro = s.build.micro,
                           .batch = s.build.batch,
                           .seq = s.build.seq,
                           .hyper = s.build.hyper,
                           .nhyper = s.build.nhyper,
                           .model = s.build.model,
                           .nmodel = s.build.nmodel,
                           .path = path,
                           .npath = np,
                           .werror = s.build.werror,
                           .no_warn = s.build.no_warn,
                           .nno_warn = s.build.nno_warn,
                           .warn = s.build.warn,
                           .nwarn = s.build.nwarn};
        ok = ok && frontend_lower(c->a, s.file, &lo, &info, c->d);
        session_close(&s);
        return ok;
    }
    Config *k = config_load(c->a, c->env, NULL, c->override, c->noverride, c->d);
    if (!k) return false;
    LowerOptions lo = {
        .phase = "train", .micro = 2, .batch = 2, .seq = 16, .path = path, .npath = np, .assume_sizes = true};
    lo.hyper = config_hypers(k, &lo.nhyper);
    if (!cli_warnings(c, &lo)) return false;
    return frontend_check(c->a, file, &lo, c->d);
}

int cmd_check(Cli *c) {
    if (!c->narg && !c->config)
        return diag_add(c->d, R007, NOLOC, "check: a .wg file is missing"), EXIT_USAGE;
    bool ok = true;
    for (uint32_t i = 0; i < (c->narg ? c->narg : 1); i++) {
        ok = check_one(c, c->narg ? c->arg[i] : "") && ok;
        if (ok && !c->d->nerror) say(c, "%s: no errors", c->narg ? c->arg[i] : c->config);
    }
    return c->d->nerror ? diags_exit(c->d) : EXIT_DONE;
}

enum { MAX_SOURCE = 16 << 20 };

/* Every file is read and formatted before the first is written: one with an error leaves all as they were. */
int cmd_fmt(Cli *c) {
    if (!c->narg) return diag_add(c->d, R007, NOLOC, "fmt: a .wg file is missing"), EXIT_USAGE;
    bool print = c->out && strcmp(c->out, "-") == 0;
    if (c->out && !print && c->narg > 1)
        return diag_add(c->d, R007, NOLOC,
                        "fmt: -o FILE takes one file; without -o each is written in its place"),
               EXIT_USAGE;
    Sbuf *out = NEWN(c->a, Sbuf, c->narg);
    bool *same = NEWN(c->a, bool, c->narg);
    for (uint32_t i = 0; i < c->narg; i++) {
        char *text;
        size_t len;
        sb_init(&out[i], c->a);
        if (!file_read_all(c->env, c->a, c->arg[i], MAX_SOURCE, &text, &len, c->d)) return diags_exit(c->d);
        const char *path = arena_str(c->a, c->arg[i], strlen(c->arg[i]));
        if (!wg_format(c->a, path, text, len, &out[i], c->d)) continue;
        same[i] = out[i].len == len && memcmp(out[i].s, text, len) == 0;
    }
    if (c->d->nerror) return diags_exit(c->d);
    for (uint32_t i = 0; i < c->narg; i++) {
        if (print) {
            if (!put_out(c, out[i].s, out[i].len)) return EXIT_IO;
        } else if (c->out || !same[i]) {
            const char *to = c->out ? c->out : c->arg[i];
            if (!file_write_atomic(c->env, to, out[i].s, out[i].len, c->d)) return diags_exit(c->d);
            say(c, "%s: formatted", to);
        }
    }
    return EXIT_DONE;
}

int cmd_test(Cli *c) {
    if (!c->narg) return diag_add(c->d, R007, NOLOC, "test: a .wg file is missing"), EXIT_USAGE;
    TestCount sum = {0, 0};
    LowerOptions lo = {.phase = "train", .micro = 1, .batch = 2, .seq = 16, .assume_sizes = true};
    lo.path = cli_search_path(c, &lo.npath);
    for (uint32_t i = 0; i < c->narg; i++) {
        TestCount n = {0, 0};
        if (!frontend_test(c->a, c->arg[i], &lo, &n, c->d) && !c->d->nerror) return EXIT_INTERNAL;
        if (n.passed + n.failed == 0 && !c->d->nerror) say(c, "%s has no tests", c->arg[i]);
        sum.passed += n.passed;
        sum.failed += n.failed;
    }
    Sbuf b;
    sb_init(&b, c->a);
    sb_fmt(&b, "%u passed, %u failed\n", sum.passed, sum.failed);
    int code = finish(c, &b);
    return c->d->nerror ? diags_exit(c->d) : sum.failed ? EXIT_USER : code;
}

int cmd_explain(Cli *c) {
    Sbuf b;
    sb_init(&b, c->a);
    if (!c->narg) {
        for (int i = 0; i < NCODE; i++) sb_fmt(&b, "%s  %s\n", code_info[i].name, code_info[i].title);
        return finish(c, &b);
    }
    const char *names[NCODE];
    for (int i = 0; i < NCODE; i++) {
        const CodeInfo *k = &code_info[i];
        names[i] = k->name;
        if (strcmp(k->name, c->arg[0]) != 0) continue;
        sb_fmt(&b, "%s: %s\n", k->name, k->title);
        if (k->exit) sb_fmt(&b, "exit code %d\n", k->exit);
        if (k->explain[0]) sb_fmt(&b, "\n%s\n", k->explain);
        if (k->wrong[0]) sb_fmt(&b, "\nwrong:\n%s\n", k->wrong);
        if (k->right[0]) sb_fmt(&b, "\nright:\n%s\n", k->right);
        return finish(c, &b);
    }
    Diag *g = diag_add(c->d, R007, NOLOC, "explain: there is no code '%s'", c->arg[0]);
    const char *near = text_nearest(c->arg[0], names, NCODE);
    diag_help(c->d, g, near ? "did you mean %s?" : "`wmtpc explain` lists them%s", near ? near : "");
    return EXIT_USAGE;
}

int cmd_expand(Cli *c) {
    if (!c->narg) return diag_add(c->d, R007, NOLOC, "expand: a .wg file is missing"), EXIT_USAGE;
    Sbuf b;
    sb_init(&b, c->a);
    LowerOptions lo = {.phase = "train", .micro = 1, .batch = 2, .seq = 16};
    lo.path = cli_search_path(c, &lo.npath);
    return frontend_expand(c->a, c->arg[0], &lo, &b, c->d) ? finish(c, &b) : diags_exit(c->d);
}

static void help_config(Sbuf *b) {
    for (uint32_t i = 0; i < config_nkey; i++)
        sb_fmt(b, "%-44s %-5s %-24s %s\n", config_key[i].path, config_key[i].type,
               config_key[i].dflt[0] ? config_key[i].dflt : "-", config_key[i].help);
}

static void help_graph(Sbuf *b, const GraphInfo *info) {
    for (uint32_t i = 0; i < info->nhyper; i++) {
        const GraphHyper *h = &info->hyper[i];
        sb_fmt(b, "%-14s %-10s ", h->name, h->type);
        size_t start = b->len;
        if (h->value.kind == VAL_STRING)
            sb_str(b, h->value.str ? h->value.str : "");
        else if (h->value.kind == VAL_BOOL)
            sb_str(b, h->value.num != 0 ? "true" : "false");
        else
            sb_double(b, h->value.num);
        sb_fmt(b, "%*s %-10s %s\n", b->len - start < 12 ? (int)(12 - (b->len - start)) : 0, "",
               h->range ? h->range : "", h->doc ? h->doc : "");
    }
}

int cmd_help(Cli *c) {
    Sbuf b;
    sb_init(&b, c->a);
    sb_put(&b, "", 0);
    if (!c->narg) return EXIT_USAGE;
    if (strcmp(c->arg[0], "config") == 0) {
        help_config(&b);
        return finish(c, &b);
    }
    for (uint32_t i = 0; i < ncommand; i++)
        if (strcmp(command[i].name, c->arg[0]) == 0) {
            sb_fmt(&b, "wmtpc %s %s\n  %s\nexample: %s\n", command[i].name, command[i].args, command[i].help,
                   command[i].example);
            return finish(c, &b);
        }
    GraphInfo info;
    LowerOptions lo = {.phase = "train", .micro = 1, .batch = 2, .seq = 16, .assume_sizes = true};
    lo.path = cli_search_path(c, &lo.npath);
    if (!frontend_info(c->a, c->arg[0], &lo, &info, c->d)) return diags_exit(c->d);
    help_graph(&b, &info);
    return finish(c, &b);
}

int cmd_config(Cli *c) {
    if (!c->narg || strcmp(c->arg[0], "show") != 0)
        return diag_add(c->d, R007, NOLOC, "config: `wmtpc config show FILE.wg -c CONFIG.yaml`"), EXIT_USAGE;
    Config *k = config_load(c->a, c->env, c->config, c->override, c->noverride, c->d);
    if (!k) return diags_exit(c->d);
    Sbuf b;
    sb_init(&b, c->a);
    const char *file = c->narg > 1 ? c->arg[1] : config_str(k, "graph.file");
    if (file[0]) {
        GraphInfo info;
        LowerOptions lo = {.phase = "train", .micro = 1, .batch = 2, .seq = 16, .assume_sizes = true};
        lo.path = cli_search_path(c, &lo.npath);
        lo.hyper = config_hypers(k, &lo.nhyper);
        if (!frontend_info(c->a, file, &lo, &info, c->d)) return diags_exit(c->d);
        for (uint32_t i = 0; i < info.nhyper; i++) {
            const GraphHyper *h = &info.hyper[i];
            size_t start = b.len;
            sb_fmt(&b, "graph.%s: ", h->name);
            if (h->value.kind == VAL_STRING)
                sb_str(&b, h->value.str ? h->value.str : "");
            else if (h->value.kind == VAL_BOOL)
                sb_str(&b, h->value.num != 0 ? "true" : "false");
            else
                sb_double(&b, h->value.num);
            int pad = 44 - (int)(b.len - start);
            if (h->origin && strcmp(h->origin, "default") != 0)
                sb_fmt(&b, "%*s  # %s\n", pad > 0 ? pad : 0, "", h->origin);
            else
                sb_fmt(&b, "%*s  # %s:%u (default)\n", pad > 0 ? pad : 0, "", h->loc.file, h->loc.line);
        }
    }
    config_show(k, &b, true);
    int64_t batch = config_int(k, "training.batch_size"), micro = config_int(k, "training.micro_batches");
    sb_fmt(&b, "# effective batch: %lld (%lld samples x %lld micro-batches)\n", (long long)(batch * micro),
           (long long)batch, (long long)micro);
    return finish(c, &b);
}

int cmd_version(Cli *c) {
    static const char *const level[] = {"below x86-64-v3 (too old: no kernels)", "x86-64-v3 (AVX2)",
                                        "x86-64-v4 (AVX-512)"};
    Sbuf b;
    sb_init(&b, c->a);
    Toolchain t = {0};
    sb_fmt(&b, "wmtpc %s\nprocessor: %s\n", WM_VERSION, level[cpu_level()]);
    if (toolchain_cc(c->a, c->env, cpu_level(), &t, c->d)) sb_fmt(&b, "compiler: %s\n", t.identity);
    return finish(c, &b);
}
