/* Each mistake of the language: its code, at the line and column where it is. A row is a whole small file. */
#include "frontend/frontend.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    Code code;
    uint32_t line, col;
    const char *name, *text;
} Row;

#define HEAD "graph t\ninput tokens, labels : token[batch, seq]\ninput r : f32[batch]\nloss l = mean(r)\n"
#define MTP                                                                                                  \
    "graph t\nfrom llama_mtp import llama_mtp, head\nmodel policy : llama_mtp\ninput tokens, labels : "      \
    "token[batch, seq]\n"
#define LOGITS                                                                                               \
    MTP "logits = policy.heads(policy.trunk(tokens))\nloss l = mean(cross_entropy(logits, labels[seq + "     \
        "head]), where=true)\n"

static const Row rows[] = {
    /* names */
    {E010, 5, 5, "t", HEAD "a = rr + 1\n"},
    {E010, 5, 7, "t", HEAD "train modle with sgd(1.0)\n"},
    {E011, 6, 1, "t", HEAD "a = 1\na = 2\n"},
    {E012, 3, 1, "t",
     "graph t extends baseline\nhyper x : f32 = 1.0\nvalid = labels != ignore\nmetric m = x\n"},
    {E013, 6, 5, "t", HEAD "a = b\nb = a\n"},
    {E013, 5, 16, "t", HEAD "def f(x) = x + f(x)\na = f(r)\n"},
    {E014, 5, 1, "t", HEAD "mean = 1\n"},
    {E014, 5, 7, "t", HEAD "def f(step) = step\n"},
    {E015, 5, 12, "t", HEAD "a = exp(r, r)\n"},
    {E015, 5, 13, "t", HEAD "a = mean(r, axis=batch)\n"},
    {E015, 6, 5, "t", HEAD "def f(x, y) = x + y\na = f(r)\n"},
    {E015, 5, 5, "t", HEAD "a = scan(seq, init=r, where=labels != ignore)\n"},
    {E016, 2, 6, "t", "graph t\nfrom nosuch import a\ninput r : f32[batch]\nloss l = mean(r)\n"},
    {E016, 1, 17, "t", "graph t extends nosuch\n"},
    {E016, 1, 7, "t", "graph other\ninput r : f32[batch]\nloss l = mean(r)\n"},
    {E017, 2, 16, "t", "graph t\nfrom rl import td_eror\ninput r : f32[batch]\nloss l = mean(r)\n"},
    {E017, 2, 19, "t", "graph t\nfrom llama import n_layers\ninput r : f32[batch]\nloss l = mean(r)\n"},
    {E017, 2, 19, "t", "graph t\nfrom llama import rms_norm\ninput r : f32[batch]\nloss l = mean(r)\n"},
    {E017, 5, 12, "t", MTP "h = policy.trunc(tokens)\nloss l = 1.0\n"},
    {E017, 5, 12, "t", MTP "h = policy.embed\nloss l = 1.0\n"},
    {E017, 5, 5, "t", MTP "h = policy(tokens)\nloss l = 1.0\n"},
    {E018, 5, 1, "t", HEAD "config n : int = 3\n"},
    {E018, 2, 1, "t", "module t\nhyper n : int = 3\n"},
    /* dims */
    {E020, 5, 18, "t", HEAD "a = mean(r, over=head)\n"},
    {E020, 5, 12, "t", HEAD "a = labels[side = pos]\n"},
    {E021, 5, 7, "t", HEAD "a = r + count(labels != ignore, per=seq)\n"},
    {E022, 5, 12, "t", HEAD "a = labels[seq + seq]\n"},
    {E022, 5, 7, "t", HEAD "a = r[seq + 1]\n"},
    {E022, 5, 18, "t", HEAD "a = labels[seq + r]\n"},
    {E023, 6, 28, "t", HEAD "dim side = {pos, neg}\na = expand(r, side)[side = left]\n"},
    {E024, 5, 12, "t", HEAD "a = tensor([1, 2, 3], [batch])\n"},
    {E025, 5, 5, "t", HEAD "a : f32[batch, seq] = r\n"},
    {E025, 5, 5, "t", HEAD "a = if phase == \"train\" then r else 1.0\n"},
    /* dtypes */
    {E026, 7, 27, "t", LOGITS "a = cross_entropy(logits, labels != ignore)\n"},
    {E026, 5, 5, "t", HEAD "a : f64[batch] = r\n"},
    {E026, 5, 7, "t", HEAD "a = r + \"x\"\n"},
    {E030, 5, 5, "t", HEAD "a = mean(labels == 3)\n"},
    {E031, 5, 19, "t", HEAD "a = mean(r, where=r)\n"},
    {E031, 5, 7, "t", HEAD "a = r and r\n"},
    {E031, 5, 5, "t", HEAD "a = where(r, 1, 2)\n"},
    {E031, 5, 11, "t", HEAD "a = count(r)\n"},
    {E032, 5, 12, "t", HEAD "a = labels + 1\n"},
    {E032, 5, 10, "t", HEAD "a = mean(labels, where=true)\n"},
    {E033, 7, 5, "t", LOGITS "a = logits + 1\n"},
    {E033, 7, 10, "t", LOGITS "a = mean(logits, where=true)\n"},
    /* results */
    {E040, 3, 6, "t", "graph t\ninput r : f32[batch]\nloss l = r * 2\n"},
    {E040, 5, 8, "t", HEAD "metric m = r\n"},
    {E041, 5, 26, "t", HEAD "state n : f32 = 0.0 next mean(r, scope=micro)\n"},
    {E043, 5, 8, "t", HEAD "a = if r > 0 then 1 else 2\n"},
    {E043, 5, 11, "t", HEAD "a = match r { \"x\": 1 }\n"},
    {E050, 5, 58, "t", HEAD "a = scan(seq, init=r, where=labels != ignore, step=carry * carry)\n"},
    {E053, 1, 7, "t", "graph t\ninput r : f32[batch]\nmetric m = mean(r)\n"},
    /* training */
    {E051, 7, 7, "t",
     "graph t\nfrom llama_mtp import llama_mtp, head\nfrozen model policy : llama_mtp\ninput tokens, labels "
     ": token[batch, seq]\n"
     "nll = cross_entropy(policy.heads(policy.trunk(tokens)), labels[seq + head])\nloss l = mean(nll, "
     "where=true)\ntrain policy with sgd(1.0)\n"},
    {E052, 7, 7, "t",
     MTP
     "h = policy.trunk(tokens)\nloss l = mean(count(labels != ignore) * 1.0)\ntrain policy with sgd(1.0)\n"},
    {E055, 8, 7, "t", LOGITS "train policy with sgd(1.0)\ntrain policy \"out*\" with sgd(2.0)\n"},
    {E056, 7, 7, "t", LOGITS "train policy \"nosuch.*\" with sgd(1.0)\n"},
    /* hypers and configuration */
    {E060, 5, 17, "t", HEAD "hyper h : f32 = 3.0 in (0, 1]\nmetric m = h\n"},
    {E061, 5, 17, "t", HEAD "hyper h : int = 3.5\nmetric m = h\n"},
    {E061, 5, 23, "t", HEAD "hyper h : \"a\" | \"b\" = \"c\"\nmetric m = if h == \"a\" then 1 else 2\n"},
    {E063, 2, 7, "t", "graph t extends baseline\ninput tokens : token[batch]\n"},
    {E064, 5, 11, "t", HEAD "dim g   = 2.5\nmetric m = size(g)\n"},
    {E064, 3, 35, "t",
     "graph t\nfrom llama_mtp import llama_mtp, head\nmodel policy : llama_mtp(n_layers=2.5)\ninput tokens : "
     "token[batch, seq]\n"
     "h = policy.trunk(tokens)\nloss l = mean(sum(h, over=hidden), where=true)\n"},
    {E080, 6, 3, "t", HEAD "plan {\n  shrad policy FULL_SHARD\n}\n"},
    {E080, 7, 16, "t",
     MTP "loss l = mean(cross_entropy(policy.heads(policy.trunk(tokens)), labels[seq + head]), "
         "where=true)\nplan {\n  shard policy FULL\n}\n"},
    {E080, 7, 1, "t", LOGITS "adapt policy \"layers.*\" with lora(rank=4, alpha=8)\n"},
    /* in-file tests */
    {E070, 6, 3, "t", HEAD "test \"x\" {\n  expect 1 ~= 2\n}\n"},
    {E071, 5, 5, "t",
     MTP "h = policy.trunk(tokens)\nloss l = 1.0\ntest \"x\" {\n  tokens = tensor([[1, 2]], [batch, seq])\n  "
         "expect mean(h, where=true) ~= 2\n}\n"},
    /* lints */
    {W063, 5, 12, "t", HEAD "metric m = std(r)\n"},
    {W060, 7, 58, "t",
     LOGITS "loss l2 = mean(cross_entropy(logits, labels[seq + head]) * softplus(entropy(logits)), "
            "where=true)\ntrain policy with sgd(1.0)\n"},
    {W062, 5, 7, "t", HEAD "hyper h : int = 3\n"},
    {W064, 5, 17, "t", HEAD "metric m = mean(exp(r))\n"},
    {W202, 5, 12, "t", HEAD "metric m = mean(r, scope=ranks)\n"},
    {W069, 5, 43, "t", HEAD "metric m = mean(sum(r * 2, over=[], scope=micro))\n"},
};

typedef struct {
    const Row *row;
    Diags *d;
} Ctx;

static const char *const path[] = {WM_SOURCE_DIR "/graphs"};

static bool lower_row(void *ctx, Guard *g) {
    Ctx *x = ctx;
    Arena *a = arena_open(env_posix(), g);
    const char *dir = arena_fmt(a, "%s/tests/errors/%u", WM_BINARY_DIR, (unsigned)(x->row - rows));
    const char *file = arena_fmt(a, "%s/%s.wg", dir, x->row->name);
    cr_assert(path_make_dirs(env_posix(), dir, x->d) &&
              file_write_atomic(env_posix(), file, x->row->text, strlen(x->row->text), x->d));
    LowerOptions o = {.phase = "train",
                      .micro = 2,
                      .batch = 2,
                      .seq = 16,
                      .path = path,
                      .npath = 1,
                      .assume_sizes = x->row->code != W063};
    GraphInfo info;
    TestCount n;
    if (strncmp(x->row->text, "module", 6) == 0 || strstr(x->row->text, "\ntest "))
        frontend_test(a, file, &o, &n, x->d);
    else
        frontend_lower(a, file, &o, &info, x->d);
    return true; /* the arena stays: messages point into it; the process ends soon */
}

static const char *print(const Diags *d, char *buf, size_t size) {
    size_t n = 0;
    buf[0] = 0;
    for (uint32_t i = 0; i < d->n && n < size; i++) {
        const Diag *g = d->item[i];
        n += (size_t)snprintf(buf + n, size - n, "  code %d at %u:%u: %s\n", (int)g->code,
                              g->span[0].loc.line, g->span[0].loc.col, g->text);
    }
    return buf;
}

Test(errors, each_at_its_place) {
    int bad = 0;
    for (size_t i = 0; i < WM_LEN(rows); i++) {
        Ctx x = {&rows[i], diags_open(env_posix())};
        bool ok = guard_run(lower_row, &x, x.d);
        const Diag *g = x.d->n ? x.d->item[0] : NULL;
        bool fits = ok && x.d->n == 1 && g->code == rows[i].code && g->span[0].loc.line == rows[i].line &&
                    g->span[0].loc.col == rows[i].col;
        char buf[4096];
        if (!fits)
            fprintf(stderr, "row %zu: expected code %d at %u:%u in\n%s%s", i, (int)rows[i].code, rows[i].line,
                    rows[i].col, rows[i].text, print(x.d, buf, sizeof buf));
        bad += !fits;
        diags_close(x.d);
    }
    cr_assert_eq(bad, 0, "%d rows differ", bad);
}

/* Every code of the language that this half gives has a row. */
Test(errors, every_code_has_a_row) {
    static const Code codes[] = {E010, E011, E012, E013, E014, E015, E016, E017, E018, E020, E021,
                                 E022, E023, E024, E025, E026, E030, E031, E032, E033, E040, E041,
                                 E043, E050, E051, E052, E053, E055, E056, E060, E061, E063, E064,
                                 E070, E071, E080, W060, W062, W063, W064, W069, W202};
    for (size_t k = 0; k < WM_LEN(codes); k++) {
        bool found = false;
        for (size_t i = 0; i < WM_LEN(rows); i++) found |= rows[i].code == codes[k];
        cr_assert(found, "code %d has no row", (int)codes[k]);
    }
}
