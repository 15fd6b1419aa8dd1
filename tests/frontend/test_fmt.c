/* The formatter: what it changes, what it leaves, and that a second run changes nothing. */
#include <criterion/criterion.h>
#include <string.h>

#include "frontend/ast.h"
#include "frontend/frontend.h"

typedef struct {
    const char *text;
    size_t len;
    Sbuf out;
    Arena *a;
    Diags *d;
    bool ok;
} Job;

static bool run(void *ctx, Guard *g) {
    Job *j = ctx;
    j->a = arena_open(env_posix(), g);
    sb_init(&j->out, j->a);
    sb_str(&j->out, "");
    j->ok = wg_format(j->a, "t.wg", j->text, j->len, &j->out, j->d);
    return true;
}

static Job format(const char *text) {
    Job j = {.text = text, .len = strlen(text), .d = diags_open(env_posix())};
    cr_assert(guard_run(run, &j, j.d), "%s: %s", text, j.d->n ? j.d->item[0]->text : "");
    return j;
}

static void close_job(Job *j) {
    arena_close(j->a);
    diags_close(j->d);
}

static void expect_format(const char *text, const char *want) {
    Job j = format(text);
    cr_assert(j.ok, "%s: %s", text, j.d->n ? j.d->item[0]->text : "");
    cr_expect_str_eq(j.out.s, want, "got:\n%s\nwant:\n%s", j.out.s, want);
    Job k = format(j.out.s);
    cr_expect_str_eq(k.out.s, j.out.s, "the second run differs");
    close_job(&k);
    close_job(&j);
}

Test(fmt, spaces) {
    expect_format("graph g\na=b+c*-d ^ 2 -1\n", "graph g\na = b + c * -d^2 - 1\n");
    expect_format("graph g\na = f ( x,y , over = [ head,seq ] )\n",
                  "graph g\na = f(x, y, over=[head, seq])\n");
    expect_format("graph g\na = x [ seq+1 ] . b( )\n", "graph g\na = x[seq + 1].b()\n");
    expect_format("graph g\ndim k=1 .. 4 from \"a\"|\"b\"\n", "graph g\ndim k = 1..4 from \"a\" | \"b\"\n");
    expect_format("graph g\nhyper k:f32=0.5 in(0,1]\"text\"\n",
                  "graph g\nhyper k : f32 = 0.5 in (0, 1] \"text\"\n");
    expect_format("graph g\na = not(b)and c<=d\n", "graph g\na = not (b) and c <= d\n");
    expect_format("graph g\na = match m {\"x\" :1, \"y\":(2)}\n",
                  "graph g\na = match m {\"x\": 1, \"y\": (2)}\n");
    expect_format("graph g\na = x[side = pos] + x[side=pos]\n", "graph g\na = x[side = pos] + x[side=pos]\n");
    expect_format("graph g\na = if b then -1 else(2)\n", "graph g\na = if b then -1 else (2)\n");
}

Test(fmt, lines_and_comments) {
    expect_format("\n\ngraph g# name\n\n\n\n# a\n   ## b  \na = 1\n\n",
                  "graph g  # name\n\n# a\n## b\na = 1\n");
    expect_format("\xef\xbb\xbfgraph g\r\n\ta = 1 \t# c\r\n", "graph g\na = 1     # c\n");
    expect_format("graph g", "graph g\n");
    expect_format("graph g\nab = 1      # one\nb  = 20     # two\n",
                  "graph g\nab = 1      # one\nb  = 20     # two\n");
}

Test(fmt, indentation) {
    expect_format("module m\nblock b(y) {\n      t = y\n# c\n  return f(t,\n      y)\n    }\n",
                  "module m\nblock b(y) {\n  t = y\n  # c\n  return f(t,\n      y)\n}\n");
    expect_format("graph g\n  a = match m {\n\"x\": sum(b,\n c),\n    \"y\": 2\n  }\n",
                  "graph g\na = match m {\n  \"x\": sum(b,\n    c),\n  \"y\": 2\n}\n");
    expect_format("graph g\na =\nb +\n      c\n", "graph g\na =\n  b +\n      c\n");
    expect_format("graph g\na = (\n  b\n)\n", "graph g\na = (\n  b\n)\n");
}

Test(fmt, text_with_errors_is_refused) {
    Job j = format("graph g\na = \n");
    cr_expect(!j.ok && j.d->nerror == 1 && j.out.len == 0);
    close_job(&j);
}

Test(fmt, shipped_files_are_formatted) {
    static const char *const files[] = {
        "graphs/baseline.wg",
        "graphs/critic.wg",
        "graphs/critic_pairwise.wg",
        "graphs/rho1.wg",
        "graphs/verifiable.wg",
        "graphs/verifiable_ema.wg",
        "graphs/lib/heads.wg",
        "graphs/lib/llama.wg",
        "graphs/lib/llama_mtp.wg",
        "graphs/lib/mtp.wg",
        "graphs/lib/rl.wg",
        "graphs/lib/stats.wg",
        "graphs/examples/entropy.wg",
        "graphs/examples/focal.wg",
        "graphs/examples/grpo.wg",
        "graphs/examples/lora.wg",
        "graphs/examples/parallel.wg",
        "graphs/examples/parallel_llama.wg",
        "graphs/examples/qk.wg",
        "graphs/examples/qk_norm.wg",
        "graphs/examples/random_matched.wg",
        "graphs/examples/shuffled.wg",
    };
    for (uint32_t i = 0; i < WM_LEN(files); i++) {
        Diags *d = diags_open(env_posix());
        Arena *a = arena_open(env_posix(), NULL);
        char *text;
        size_t len;
        cr_assert(file_read_all(env_posix(), a, files[i], 1 << 24, &text, &len, d), "%s", files[i]);
        expect_format(text, text);
        arena_close(a);
        diags_close(d);
    }
}
