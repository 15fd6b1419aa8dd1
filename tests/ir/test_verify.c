/* test_verify.c: what the verifier must accept and refuse: a localized and a planned graph, each rule broken
 * once; and random graphs through all passes, which at every stage must verify and give the same results. */
#include "passes/passes.h"
#include "tests/passes/pass_test.h"

#include <string.h>

static Graph *parsed(Arena *a, const char *text, Diags *d) {
    Graph *g = graph_parse(a, "test", text, strlen(text), d);
    cr_assert(g != NULL, "%s\n%s", text, first_diag(d));
    return g;
}

#define LOCAL                                                                                                \
    "wir 1\ndim micro=2 batch=2 a=4\ngraph \"g\" stage=local phase=train micro=micro {\n"                    \
    "%0 = input name=\"x\" : f64[micro,a]\n%1 = micro_slice %0 : f64[a] section=1\n%2 = neg %1 : f64[a] "    \
    "section=1\n"
#define PLANNED                                                                                              \
    "wir 1\ndim micro=2 a=4\ngraph \"g\" stage=planned phase=train micro=micro state=64 work=256 {\n"        \
    "%0 = input name=\"x\" : f64[micro,a] at=1+0\n%1 = micro_slice %0 : f64[a] section=1\n"
static const struct {
    const char *text, *error;
} cases[] = {
    {LOCAL "%3 = micro_sum %2 : f64[a] section=2\nresult value \"y\" %3\n}", NULL},
    {LOCAL "%3 = micro_stack %2 : f64[micro,a] section=1\n%4 = neg %3 : f64[micro,a] section=2\n}", NULL},
    {LOCAL "%3 = neg %2 : f64[a] section=2\n}", "without micro_sum or micro_stack"},
    {LOCAL "%3 = neg %2 : f64[a] section=3\n}", "without micro_sum or micro_stack"},
    {LOCAL "%3 = neg %2 : f64[a]\n}", "later section 1"},
    {LOCAL "%3 = neg %0 : f64[micro,a] section=1\n}", "has dim micro"},
    {LOCAL "%3 = micro_sum %2 : f64[a] section=1\n}", "micro-batch section"},
    {LOCAL "%3 = const value=1 : f64[]\n%4 = micro_sum %3 : f64[] section=2\n}", "no micro-batches to sum"},
    {LOCAL "result value \"y\" %2\n}", "piece per micro-batch"},
    {LOCAL "%3 = neg %1 : f64[a] section=1 group=1\n%4 = neg %2 : f64[a] section=1\n%5 = neg %1 : f64[a] "
           "section=1 group=1\n}",
     "stand together"},
    {LOCAL "%3 = neg %1 : f64[a] section=1 group=1\n%4 = micro_sum %3 : f64[a] section=2 group=1\n}",
     "two sections"},
    {LOCAL "%3 = entropy %2 cls=a : f64[] section=1\n}", "linear_ce removes"},
    {LOCAL "%3 = micro_sum %2 : f64[a] section=2\nresult loss \"y\" %3\n}", "not one real number"},
    {LOCAL "%3 = const value=1 : f64[]\nresult check \"y\" %3\n}", "not bool"},
    {LOCAL "%3 = const value=1 : f64[]\nresult what \"y\" %3\n}", "unknown kind"},
    {LOCAL "%3 = const value=1 : f64[]\nresult value \"y\" %3\nresult value \"y\" %3\n}", "twice"},
    {LOCAL "%3 = const value=1 : f64[]\nopt lion lr=%3 b1=0 b2=0 eps=0 wd=0 momentum=0\n}",
     "unknown kind lion"},
    {LOCAL "opt sgd lr=%0 b1=0 b2=0 eps=0 wd=0 momentum=0\n}", "no scalar"},
    {LOCAL "%3 = const value=1 : f64[]\n%4 = param model=\"m\" name=\"n\" hf=\"\" axes=\"\" init=\"\" opt=1 "
           "decay=true stream=0 : f64[a]\n"
           "opt sgd lr=%3 b1=0 b2=0 eps=0 wd=0 momentum=0\n}",
     "no optimizer row 1"},
    {"wir 1\ndim micro=2 a=4\ngraph \"g\" stage=math phase=train micro=micro {\n%0 = input name=\"x\" : "
     "f64[micro,a]\n%1 = neg %0 : f64[micro,a] section=2\n}",
     "before pass localize"},
    {"wir 1\ndim micro=2 a=4\ngraph \"g\" stage=math phase=train micro=micro {\n%0 = input name=\"x\" : "
     "f64[micro,a]\n%1 = micro_slice %0 : f64[a]\n}",
     "before pass localize"},
    {"wir 1\ndim micro=2 a=4\ngraph \"g\" stage=math phase=train micro=micro {\n%0 = input name=\"x\" : "
     "f64[a]\n%1 = micro_sum %0 : f64[a]\n}",
     "no micro-batches to sum"},
    {PLANNED "%2 = neg %1 : f64[a] at=1+64 section=1\n%3 = micro_sum %2 : f64[a] at=1+128 section=2\nresult "
             "value \"y\" %3\n}",
     NULL},
    {PLANNED "%2 = neg %1 : f64[a] section=1\n%3 = micro_sum %2 : f64[a] at=1+128 section=2\n}",
     "no place in memory"},
    {PLANNED "%2 = neg %1 : f64[a] section=1 group=1\n%3 = neg %2 : f64[a] at=1+128 section=1 group=1\n}",
     NULL},
    {PLANNED "%2 = neg %1 : f64[a] at=1+232 section=1\n}", "ends at byte 264"},
    {PLANNED "%2 = neg %1 : f64[a] at=0+64 section=1\n}", "ends at byte 96"},
    {PLANNED "%2 = neg %1 : f64[a] at=1+60 section=1\n}", "odd offset"},
    {PLANNED "%2 = neg %1 : f64[a] at=1+64 section=1 ws=128+192\n}", "scratch"},
    {PLANNED "%2 = neg %1 : f64[a] at=1+64 section=1\n%3 = const value=1 : f64[]\n}", "after section 1"},
};
static void each_rule(Arena *a, Diags *d, uint64_t seed) {
    (void)d;
    (void)seed;
    for (size_t k = 0; k < WM_LEN(cases); k++) {
        Diags *e = diags_open(env_posix());
        bool ok = graph_verify(parsed(a, cases[k].text, e), true, e);
        cr_expect(ok == !cases[k].error, "%s\n  %s", cases[k].text, first_diag(e));
        if (!ok && cases[k].error)
            cr_expect(e->item[0]->code == P002 && strstr(e->item[0]->text, cases[k].error), "%s\n  says: %s",
                      cases[k].text, first_diag(e));
        diags_close(e);
    }
}
Test(verify, each_rule) {
    guarded(each_rule, 0);
}

/* What only a pass can break: the arrays themselves. */
static void corrupt(Arena *a, Diags *d, uint64_t at) {
    static const char *const error[] = {"inference gives",
                                        "not defined before",
                                        "does not know its node",
                                        "no dim",
                                        "next values",
                                        "beyond the list",
                                        "origin",
                                        "partial",
                                        "results of nodes",
                                        "flags"};
    Graph *g =
        parsed(a,
               "wir 1\ndim a=4 b=3\ngraph \"g\" stage=math phase=train {\n%0 = input name=\"x\" : f64[a]\n"
               "%1 = neg %0 : f64[a]\n%2 = sum %1 over=[a] : f64[]\n}",
               d);
    cr_assert(graph_verify(g, false, d));
    if (at == 0) g->value[1].ty.dt = DT_F32;
    if (at == 1) g->operand[0].i = 2;
    if (at == 2) g->value[1].def.i = 0;
    if (at == 3) g->dimlist[0].i = 1;
    if (at == 4) g->node[1].out0 = 2;
    if (at == 5) g->node[1].in0 = 9;
    if (at == 6) g->node[1].origin = 3;
    if (at == 7) g->value[1].ty.partial = 1;
    if (at == 8) g->nvalue++;
    if (at == 9) g->node[1].flags = 64;
    cr_assert(!graph_verify(g, false, d) && d->item[0]->code == I001, "corruption %d was not seen", (int)at);
    cr_assert(strstr(d->item[0]->text, error[at]) != NULL, "%d: %s", (int)at, first_diag(d));
}
Test(verify, corrupt) {
    for (uint64_t k = 0; k < 10; k++) guarded(corrupt, k);
}

/* ---- all stages */
typedef struct {
    Arena *a;
    Diags *d;
    uint64_t seed;
    double **last;
    int local;
} Watch;
static void after_pass(void *ctx, int index, const char *pass, const Graph *before, const Graph *after) {
    Watch *w = ctx;
    cr_assert(graph_verify(after, false, w->d), "seed %llu, %s: %s", (unsigned long long)w->seed, pass,
              first_diag(w->d));
    double **v = evaluate(w->a, after, w->seed, w->d);
    same_results(w->a, before, w->last, after, v, pass_table[index].exact ? 0 : 1e-10, pass, w->seed);
    w->last = v;
    w->local += after->stage >= ST_LOCAL;
}
static void all_stages(Arena *a, Diags *d, uint64_t seed) {
    Graph *g = random_graph(a, seed, false);
    Watch w = {a, d, seed, evaluate(a, g, seed, d), 0};
    PassOptions o = {.real = seed % 3 ? DT_F64 : DT_F32,
                     .keep_grads = true,
                     .check_roundtrip = true,
                     .after = after_pass,
                     .ctx = &w,
                     .off_linear_ce = seed % 5 == 4,
                     .off_classes = seed % 7 == 6};
    cr_assert(passes_run(a, g, &o, d) != NULL, "seed %llu: %s", (unsigned long long)seed, first_diag(d));
    cr_assert(w.local >= 3, "seed %llu was not localized", (unsigned long long)seed);
}
Test(verify, all_stages_give_the_same) {
    for (uint64_t k = 50000; k < 50400; k++) guarded(all_stages, k);
}
