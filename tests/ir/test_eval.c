/* test_eval.c: the reference evaluator against known values, its sections against whole graphs, its errors.
 */
#include "ir_test.h"

typedef struct {
    const char *op, *text;
    const double *want;
    size_t n;
} Known;
#define KNOWN(op, text, ...)                                                                                 \
    {op, text, (const double[]){__VA_ARGS__}, sizeof((const double[]){__VA_ARGS__}) / sizeof(double)},
static const Known known[] = {
#include "known.def"
};
static const char head[] = "wir 1\ndim micro=2 a=3 b=4 k=4 v=7 q=4 h=2 n=2 e=0\ngraph \"known\" stage=train "
                           "phase=train micro=micro {\n";
static const EvalInput seeded = {NULL, NULL, 1234567890123, 7};

static Graph *parsed(Arena *a, const char *text, Diags *d) {
    Graph *g = graph_parse(a, "test", text, strlen(text), d);
    cr_assert(g, "%s\n%s", text, d->n ? d->item[d->n - 1]->text : "");
    cr_assert(graph_verify(g, true, d), "%s\n%s", text, d->n ? d->item[d->n - 1]->text : "");
    return g;
}

IR_TEST(eval, known_values) {
    bool seen[NOP] = {false};
    for (size_t k = 0; k < WM_LEN(known); k++) {
        Graph *g = parsed(a, arena_fmt(a, "%s%s}\n", head, known[k].text), d);
        double **v = graph_eval(a, g, &seeded, NULL, 0, d);
        cr_assert(v, "%s", d->n ? d->item[0]->text : "");
        size_t at = 0;
        Op op;
        cr_assert(op_find(known[k].op, &op), "%s", known[k].op);
        seen[op] = true;
        for (uint32_t r = 0; r < g->nresult; r++) {
            int64_t n = type_count(g, value_type(g, g->result[r].v));
            for (int64_t j = 0; j < n; j++, at++) {
                double got = v[g->result[r].v.i][j], want = known[k].want[at];
                cr_expect(got == want || fabs(got - want) <= 1e-9 * (1 + fabs(want)),
                          "%s: result %u [%lld] is %.17g, not %.17g", known[k].op, r, (long long)j, got,
                          want);
            }
        }
        cr_expect(at == known[k].n, "%s: %zu values, %zu known", known[k].op, at, known[k].n);
    }
    static const Op elsewhere[] = {OP_input, OP_param, OP_state, OP_scalar, OP_micro_slice}; /* below */
    for (size_t k = 0; k < WM_LEN(elsewhere); k++) seen[elsewhere[k]] = true;
    for (int k = 0; k < NOP; k++) cr_expect(seen[k], "no known value of %s", op_info[k].name);
}

/* ---- the same program whole and in sections */
static bool fill(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    const char *name = attr_str(g, n, "name");
    (void)ctx;
    if (strcmp(name, "nothing") == 0) return false;
    for (int64_t k = 0; k < count; k++)
        out[k] = strcmp(name, "step") == 0 ? 7 : (double)((k * 37 + (int64_t)strlen(name)) % 11) / 4 - 1;
    return true;
}
static const EvalInput filled = {fill, NULL, 1234567890123, 7};

static const char whole[] =
    "wir 1\ndim micro=5 a=3 b=4\ngraph \"s\" stage=train phase=train micro=micro {\n"
    "%0 = input name=\"x\" : f64[micro,a,b]\n%1 = param model=\"m\" name=\"w\" hf=\"\" axes=\"b\" "
    "init=\"const:1\" opt=-1 decay=false stream=0 : f64[b]\n"
    "%2 = sum %0 over=[a,b] : f64[micro]\n%3 = micro_sum %2 : f64[]\n%4 = div %0, %3 : f64[micro,a,b]\n"
    "%5 = mul %4, %1 : f64[micro,a,b]\n%6 = uniform stream=3 : f64[micro,a]\n%7 = iota dim=micro base=1 : "
    "f64[micro]\n"
    "%8 = sum %5 over=[b] : f64[micro,a]\n%9 = mul %8, %6 : f64[micro,a]\n%10 = mul %9, %7 : f64[micro,a]\n"
    "%11 = micro_stack %10 : f64[micro,a]\n%12 = max_of %11 over=[micro,a] : f64[]\n%13 = micro_sum %10 : "
    "f64[a]\n"
    "%14 = gt %0, %8 : bool[micro,a,b]\n%15 = shuffle %0, %14 over=b stream=9 : f64[micro,a,b]\n%16 = mul "
    "%15, %0 : f64[micro,a,b]\n"
    "%17 = sum %16 over=[a,b] : f64[micro]\n%18 = micro_sum %17 : f64[]\n"
    "%19 = scalar name=\"step\" : f64[]\n%20 = mul %12, %19 : f64[]\n%21 = normal stream=4 : f64[micro]\n%22 "
    "= micro_sum %21 : f64[]\n"
    "result value \"max\" %20\nresult value \"sum\" %13\nresult value \"stack\" %11\nresult value "
    "\"shuffled\" %18\nresult value \"n\" %22\n}\n";
static const char local[] =
    "wir 1\ndim micro=5 a=3 b=4\ngraph \"s\" stage=local phase=train micro=micro {\n"
    "%0 = input name=\"x\" : f64[micro,a,b]\n%1 = param model=\"m\" name=\"w\" hf=\"\" axes=\"b\" "
    "init=\"const:1\" opt=-1 decay=false stream=0 : f64[b]\n"
    "%2 = micro_slice %0 : f64[a,b] section=1\n%3 = sum %2 over=[a,b] : f64[] section=1\n"
    "%4 = micro_sum %3 : f64[] section=2\n"
    "%5 = micro_slice %0 : f64[a,b] section=3\n%6 = div %5, %4 : f64[a,b] section=3\n%7 = mul %6, %1 : "
    "f64[a,b] section=3\n"
    "%8 = uniform stream=3 : f64[a] section=3\n%9 = scalar name=\"micro\" : f64[] section=3\n%10 = const "
    "value=1 : f64[] section=3\n"
    "%11 = add %9, %10 : f64[] section=3\n%12 = sum %7 over=[b] : f64[a] section=3\n%13 = mul %12, %8 : "
    "f64[a] section=3\n"
    "%14 = mul %13, %11 : f64[a] section=3\n%15 = micro_stack %14 : f64[micro,a] section=3\n"
    "%16 = gt %5, %12 : bool[a,b] section=3\n%17 = shuffle %5, %16 over=b stream=9 : f64[a,b] section=3\n%18 "
    "= mul %17, %5 : f64[a,b] section=3\n"
    "%19 = sum %18 over=[a,b] : f64[] section=3\n%20 = normal stream=4 : f64[] section=3\n"
    "%21 = micro_stack %14 : f64[micro,a] section=4\n%22 = max_of %15 over=[micro,a] : f64[] section=4\n%23 "
    "= micro_sum %14 : f64[a] section=4\n"
    "%24 = micro_sum %19 : f64[] section=4\n%25 = scalar name=\"step\" : f64[] section=4\n%26 = mul %22, %25 "
    ": f64[] section=4\n%27 = micro_sum %20 : f64[] section=4\n"
    "result value \"max\" %26\nresult value \"sum\" %23\nresult value \"stack\" %21\nresult value "
    "\"shuffled\" %24\nresult value \"n\" %27\n}\n";
IR_TEST(eval, sections_equal_whole) {
    Graph *g = parsed(a, whole, d), *h = parsed(a, local, d);
    double **v = graph_eval(a, g, &filled, NULL, 0, d), **w = graph_eval(a, h, &filled, NULL, 0, d);
    cr_assert(v && w, "%s", d->n ? d->item[0]->text : "");
    for (uint32_t k = 0; k < g->nresult; k++) {
        ValueId x = g->result[k].v, y = graph_find_result(h, "value", g->result[k].name)->v;
        for (int64_t j = 0; j < type_count(g, value_type(g, x)); j++)
            cr_expect(v[x.i][j] == w[y.i][j], "%s[%lld]: %.17g %.17g", g->result[k].name, (long long)j,
                      v[x.i][j], w[y.i][j]);
    }
    const double *p = v[10]; /* the tree of five is ((0+1)+(2+3))+4 */
    cr_assert_eq(v[13][0], ((p[0] + p[3]) + (p[6] + p[9])) + p[12]);
    cr_assert(v[13][0] != 0 && v[18][0] != 0 && v[12][0] != 0);
}

/* Rounding tells the trees apart: ((0+1)+(2+3))+4 gives 1, halves would give 2, left to right 2. */
IR_TEST(eval, canonical_tree) {
    Graph *g = parsed(a,
                      "wir 1\ndim micro=5\ngraph \"t\" stage=train phase=train micro=micro {\n"
                      "%0 = tensor values=[1e16,1,-1e16,1,1] : f64[micro]\n%1 = micro_sum %0 : f64[]\nresult "
                      "value \"y\" %1\n}",
                      d);
    double **v = graph_eval(a, g, NULL, NULL, 0, d);
    cr_assert(v && v[1][0] == 1, "%g", v ? v[1][0] : NAN);
}

IR_TEST(eval, wants_only_what_is_asked) {
    Graph *g = parsed(a, whole, d);
    ValueId want = {3};
    double **v = graph_eval(a, g, &filled, &want, 1, d);
    cr_assert(v && v[3] && v[2] && v[0] && !v[1] && !v[4] && !v[20]);
}

IR_TEST(eval, errors) {
    static const struct {
        const char *text, *error;
    } bad[] = {
        {"%0 = input name=\"nothing\" : f64[a]\nresult value \"x\" %0\n",
         "no value was given for input `nothing`"},
        {"%0 = tensor values=[1,2,3] : f64[a]\n%1 = tensor values=[3] : i32[]\n%2 = gather %0, %1 cls=a : "
         "f64[]\nresult value \"x\" %2\n",
         "token 3 is outside"},
        {"%0 = tensor values=[1,2,3] : f64[a]\n%1 = tensor values=[-1] : i32[]\n%2 = cross_entropy %0, %1 "
         "cls=a : f64[]\nresult value \"x\" %2\n",
         "token -1 is outside"},
    };
    for (size_t k = 0; k < WM_LEN(bad); k++) {
        Graph *g = parsed(a, arena_fmt(a, "%s%s}\n", head, bad[k].text), d);
        uint32_t n = d->n;
        cr_assert_null(graph_eval(a, g, &filled, NULL, 0, d));
        cr_assert(d->n == n + 1 && strstr(d->item[n]->text, bad[k].error), "%s", d->item[n]->text);
    }
}
