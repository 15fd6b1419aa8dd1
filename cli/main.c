/* main.c: reads the command line, runs one command under the guard, prints the diagnostics, returns the exit
 * code. */
#include "cli/cli.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    int argc;
    char **argv;
    Cli *cli;
    int code;
} Main;

typedef struct {
    const char *name;
    char letter;
    bool value;
    const char *help;
} Flag;
static const Flag flag[] = {
    {"config", 'c', true, "configuration file (YAML)"},
    {"output", 'o', true, "file or directory to write"},
    {"ranks", 'n', true, "ranks; this version runs on 1"},
    {"steps", 's', true, "stop after that many optimizer steps of this start"},
    {"warn", 'W', true,
     "error: warnings are errors; no-W063: one left out; W061: one that is off by default"},
    {"pass", 'p', true, "passes to run, joined by commas"},
    {"to", 't', true, "hf or meta"},
    {"heads", 'H', true, "export that many heads"},
    {"json", 'j', false, "facts as JSON"},
    {"dump-ir", 'd', true, "print the graph after a pass, or `all`, `changed`"},
    {"dump-dir", 'D', true, "write NN-PASS.wir after each pass"},
    {"stop-after", 'S', true, "stop after a pass"},
    {"skip", 'k', true, "leave a pass out: simplify linear_ce classes fuse schedule memplan"},
    {"path", 'I', true, "another folder of graphs and modules"},
    {"profile", 'r', false, "at the end, a table of kernels: time, FLOPs, bytes"},
    {"quiet", 'q', false, "no progress"},
    {"verbose", 'v', false, "more"},
    {"color", 'C', true, "always, never or auto"},
    {"diagnostics", 'J', true, "text or json"},
    {"help", 'h', false, "this text"},
};

static void usage_command(Sbuf *b, const Command *k, bool all) {
    sb_fmt(b, "wmtpc %s %s\n  %s\n", k->name, k->args, k->help);
    for (size_t i = 0; i < WM_LEN(flag); i++) {
        bool common = strchr("qvCJh", flag[i].letter) != NULL;
        bool passes = strchr(k->flags, 'x') && strchr("dDSk", flag[i].letter);
        if (!(strchr(k->flags, flag[i].letter) || passes || (all && common))) continue;
        sb_fmt(b, "  -%c, --%-12s %s\n", flag[i].letter, flag[i].name, flag[i].help);
    }
    sb_fmt(b, "example: %s\n", k->example);
}

static void usage(Sbuf *b) {
    sb_str(b, "wmtpc COMMAND [arguments]: compiles and trains token-weighted multi-token prediction\n\n");
    for (uint32_t i = 0; i < ncommand; i++) sb_fmt(b, "  %-9s %s\n", command[i].name, command[i].help);
    sb_str(
        b,
        "\nwmtpc COMMAND --help says more. Example: wmtpc run graphs/verifiable.wg -c configs/demo.yaml\n");
}

static const Command *find(Cli *c, const char *name) {
    const char *names[64];
    for (uint32_t i = 0; i < ncommand; i++) {
        if (strcmp(command[i].name, name) == 0) return &command[i];
        names[i] = command[i].name;
    }
    Diag *g = diag_add(c->d, R007, NOLOC, "unknown command '%s'", name);
    const char *near = text_nearest(name, names, ncommand);
    if (near)
        diag_help(c->d, g, "did you mean `wmtpc %s`?", near);
    else
        diag_help(c->d, g, "`wmtpc help` lists the commands");
    return NULL;
}

static bool bad_flag(Cli *c, const Command *k, const char *what) {
    const char *names[WM_LEN(flag)];
    for (size_t i = 0; i < WM_LEN(flag); i++) names[i] = flag[i].name;
    Diag *g = diag_add(c->d, R007, NOLOC, "%s: no such flag: '%s'", k->name, what);
    const char *word = what;
    while (*word == '-') word++;
    const char *near = text_nearest(word, names, WM_LEN(flag));
    if (near)
        diag_help(c->d, g, "did you mean --%s?", near);
    else
        diag_help(c->d, g, "`wmtpc %s --help` lists its flags", k->name);
    return false;
}

static bool number(Cli *c, const char *name, const char *text, int64_t *out) {
    return (text_int(text, strlen(text), out) && *out > 0) ||
           diag_fail(c->d, R007, NOLOC, "--%s takes a whole number above 0, not '%s'", name, text);
}

static void append(Cli *c, const char *const **list, uint32_t *n, const char *text) {
    const char **more = NEWN(c->a, const char *, *n + 1);
    if (*n) memcpy(more, *list, *n * sizeof *more);
    more[(*n)++] = text;
    *list = more;
}

static bool take(Cli *c, int letter, const char *v) {
    switch (letter) {
    case 'c':
        c->config = v;
        return true;
    case 'o':
        c->out = v;
        return true;
    case 'n':
        return number(c, "ranks", v, &c->ranks);
    case 's':
        return number(c, "steps", v, &c->steps);
    case 'H':
        return number(c, "heads", v, &c->heads);
    case 'W':
        append(c, &c->warn, &c->nwarn, v);
        return true;
    case 'p':
        c->pass = v;
        return true;
    case 't':
        c->to = v;
        return true;
    case 'j':
        return c->json = true;
    case 'd':
        c->dump_ir = v ? v : "all";
        return true;
    case 'D':
        c->dump_dir = v;
        return true;
    case 'S':
        c->stop_after = v;
        return true;
    case 'k':
        append(c, &c->skip, &c->nskip, v);
        return true;
    case 'I':
        c->from = v;
        return true;
    case 'q':
        return c->quiet = true;
    case 'r':
        return c->profile = true;
    case 'v':
        return c->verbose = true;
    case 'C':
        c->color = v;
        return true;
    case 'J':
        c->diagnostics = v;
        return true;
    default:
        return false;
    }
}

static bool parse(Cli *c, const Command *k, int argc, char **argv, bool *help, bool *all) {
    struct option opts[WM_LEN(flag) + 1] = {{0}};
    char letters[2 * WM_LEN(flag) + 2] = ":";
    size_t n = 1;
    for (size_t i = 0; i < WM_LEN(flag); i++) {
        opts[i] = (struct option){flag[i].name, flag[i].letter == 'd' ? optional_argument : flag[i].value,
                                  NULL, flag[i].letter};
        letters[n++] = flag[i].letter;
        if (flag[i].value && flag[i].letter != 'd') letters[n++] = ':';
    }
    opterr = 0;
    for (int o; (o = getopt_long(argc, argv, letters, opts, NULL)) != -1;) {
        if (o == ':') return diag_fail(c->d, R007, NOLOC, "%s: %s needs a value", k->name, argv[optind - 1]);
        if (o == '?') return bad_flag(c, k, argv[optind - 1]);
        if (o == 'h') {
            *help = true;
            *all = strncmp(argv[optind - 1], "--", 2) == 0;
            continue;
        }
        bool passes = strchr(k->flags, 'x') && strchr("dDSk", o);
        if (!strchr("qvCJ", o) && !strchr(k->flags, o) && !passes) return bad_flag(c, k, argv[optind - 1]);
        if (!take(c, o, optarg)) return false;
    }
    for (int i = optind; i < argc; i++) {
        bool key = strchr(argv[i], '=') != NULL;
        append(c, key ? &c->override : &c->arg, key ? &c->noverride : &c->narg, argv[i]);
    }
    if (c->narg > k->most) {
        Diag *g = diag_add(c->d, R007, NOLOC, "%s: '%s' is one argument too many", k->name, c->arg[k->most]);
        diag_help(c->d, g, "it is: wmtpc %s %s", k->name, k->args);
        return false;
    }
    return true;
}

static bool guarded(void *ctx, Guard *g) {
    Main *m = ctx;
    Cli *c = m->cli;
    c->a = arena_open(c->env, g);
    Sbuf b;
    sb_init(&b, c->a);
    bool top_help = m->argc < 2 || strcmp(m->argv[1], "--help") == 0 || strcmp(m->argv[1], "-h") == 0;
    if (top_help || (m->argc == 2 && strcmp(m->argv[1], "help") == 0)) {
        usage(&b);
        put_out(c, b.s, b.len);
        m->code = m->argc < 2 ? EXIT_USAGE : EXIT_DONE;
        return true;
    }
    if (strcmp(m->argv[1], "--version") == 0) m->argv[1] = (char[]){"version"};
    const Command *k = find(c, m->argv[1]);
    bool help = false, all = false;
    if (!k || !parse(c, k, m->argc - 1, m->argv + 1, &help, &all)) {
        m->code = EXIT_USAGE;
        return true;
    }
    c->command = k->name;
    if (help) {
        usage_command(&b, k, all);
        m->code = put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
        return true;
    }
    m->code = k->run(c);
    return true;
}

bool put_out(Cli *c, const char *s, size_t n) {
    int err = 0;
    return write_full(c->env, 1, s, n, &err) ||
           diag_fail(c->d, R001, NOLOC, "standard output: %s", errno_text(err));
}

void say(Cli *c, const char *fmt, ...) {
    if (c->quiet) return;
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

static void render(Cli *c) {
    Sbuf b;
    sb_init(&b, c->d->arena);
    bool tty = isatty(2) && !c->env->getenv(c->env, "NO_COLOR");
    bool color = c->color ? strcmp(c->color, "always") == 0 || (strcmp(c->color, "auto") == 0 && tty) : tty;
    if (c->diagnostics && strcmp(c->diagnostics, "json") == 0)
        diags_render_json(c->d, &b);
    else
        diags_render(c->d, &b, color);
    int err;
    if (b.len) write_full(c->env, 2, b.s, b.len, &err);
}

int main(int argc, char **argv) {
    signals_ignore();
    Env *env = env_posix();
    Diags *d = diags_open(env);
    if (!d) return EXIT_MEMORY;
    Cli c = {.env = env, .d = d, .self = argc > 0 ? argv[0] : "wmtpc"};
    Main m = {argc, argv, &c, EXIT_INTERNAL};
    if (!guard_run(guarded, &m, d)) m.code = diags_exit(d);
    render(&c);
    if (m.code == EXIT_DONE && d->nerror) m.code = diags_exit(d);
    arena_close(c.a);
    diags_close(d);
    return m.code;
}
