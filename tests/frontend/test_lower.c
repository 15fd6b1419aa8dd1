/* Lowering against recorded numbers: losses, metrics, next states and bindings of step 0 in f64; the shipped
 * graphs lower; their in-file tests pass; `expand` gives the same graph. */
#include "tests/frontend/lower_case.h"

static void show(const Diags *d) {
    for (uint32_t i = 0; i < d->n; i++)
        fprintf(stderr, "%s:%u:%u: %s\n", d->item[i]->span[0].loc.file ? d->item[i]->span[0].loc.file : "",
                d->item[i]->span[0].loc.line, d->item[i]->span[0].loc.col, d->item[i]->text);
}

typedef struct {
    const char *name;
    void (*fn)(Arena *a, Diags *d, const char *name);
} Job;
static Diags *job_diags;

static bool run_job(void *ctx, Guard *g) {
    Job *j = ctx;
    Arena *a = arena_open(env_posix(), g);
    j->fn(a, job_diags, j->name);
    arena_close(a);
    return true;
}

static void in_arena(const char *name, void (*fn)(Arena *a, Diags *d, const char *name)) {
    Job j = {name, fn};
    job_diags = diags_open(env_posix());
    bool ok = guard_run(run_job, &j, job_diags);
    if (!ok) show(job_diags);
    cr_assert(ok, "%s", name);
    diags_close(job_diags);
}

/* ---- recorded cases */

static void compare_group(Case *x, const Graph *g, double **v, const Json *rec, const char *kind,
                          const char *name) {
    for (size_t i = 0; i < json_size(rec); i++) {
        const Json *want;
        const char *key = json_key_at(rec, i, &want);
        const Result *r = graph_find_result(g, kind, key);
        cr_assert_not_null(r, "%s: no %s %s", name, kind, key);
        double got = v[r->v.i][0], ref = json_real(want);
        cr_assert(fabs(got - ref) <= 1e-10 * (1 + fabs(ref)), "%s: %s %s is %.17g, recorded %.17g", name,
                  kind, key, got, ref);
    }
    (void)x;
}

/* Places of the record are [micro, ..dims]; a value may have them in another order, or lack some. */
static void compare_value(Case *x, const Graph *g, double **v, StFile *expect, const char *key,
                          const Json *dims, const char *name) {
    const Result *r = graph_find_result(g, "value", key);
    cr_assert_not_null(r, "%s: no value %s", name, key);
    const Type *t = value_type(g, r->v);
    int64_t count, stride[MAX_DIMS] = {0}, size[MAX_DIMS] = {0}, n = 1;
    double *ref = read_f64(x, expect, key, &count), worst = 0, most = 0;
    cr_assert_not_null(ref);
    int nd = (int)json_size(dims);
    for (int k = 0; k < nd; k++) {
        DimId d;
        cr_assert(graph_find_dim(g, json_string(json_at(dims, (size_t)k), NULL), &d));
        size[k] = g->dim[d.i].size;
        for (int j = t->ndim - 1, s = 1; j >= 0; s *= (int)g->dim[t->dim[j].i].size, j--)
            if (t->dim[j].i == d.i) stride[k] = s;
        n *= size[k];
    }
    cr_assert_eq(n, count);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = 0, rest = i;
        for (int k = nd - 1; k >= 0; k--) {
            at += rest % size[k] * stride[k];
            rest /= size[k];
        }
        worst = fmax(worst, fabs(v[r->v.i][at] - ref[i]));
        most = fmax(most, fabs(ref[i]));
    }
    cr_assert(worst <= 1e-10 * (1 + most), "%s: value %s is off by %g", name, key, worst);
}

static void case_matches(Arena *a, Diags *d, const char *name) {
    Case x;
    case_open(&x, a, name, d);
    const Json *dims = json_get(x.c, "dims"), *log = json_at(json_get(x.c, "log"), 0);
    const char *want[16];
    uint32_t n = 0;
    for (size_t i = 0; i < json_size(dims); i++) want[n++] = json_key_at(dims, i, NULL);
    GraphInfo info;
    Graph *g = case_lower(&x, want, n, &info);
    if (!g) show(d);
    cr_assert_not_null(g, "%s does not lower", name);
    cr_assert(graph_verify(g, false, d), "%s does not verify", name);
    EvalInput in = {.leaf = case_leaf, .ctx = &x};
    double **v = graph_eval(a, g, &in, NULL, 0, d);
    if (!v) show(d);
    cr_assert_not_null(v);
    const Result *total = graph_find_result(g, "total", "total");
    double loss = json_real(json_get(log, "loss"));
    cr_assert(fabs(v[total->v.i][0] - loss) <= 1e-10 * (1 + fabs(loss)), "%s: loss %.17g, recorded %.17g",
              name, v[total->v.i][0], loss);
    compare_group(&x, g, v, json_get(log, "losses"), "loss", name);
    compare_group(&x, g, v, json_get(log, "metrics"), "metric", name);
    compare_group(&x, g, v, json_get(log, "states"), "next", name);
    StFile *expect = st_open(env_posix(), arena_fmt(a, "%s/expect.safetensors", x.dir), d);
    cr_assert_not_null(expect);
    for (uint32_t i = 0; i < n; i++) compare_value(&x, g, v, expect, want[i], json_get(dims, want[i]), name);
}

Test(lower, baseline_gqa) {
    in_arena("baseline_gqa", case_matches);
}
Test(lower, baseline_ntp) {
    in_arena("baseline_ntp", case_matches);
}
Test(lower, critic) {
    in_arena("critic", case_matches);
}
Test(lower, critic_pairwise) {
    in_arena("critic_pairwise", case_matches);
}
Test(lower, verifiable) {
    in_arena("verifiable", case_matches);
}
Test(lower, verifiable_ema) {
    in_arena("verifiable_ema", case_matches);
}
Test(lower, rho1) {
    in_arena("rho1", case_matches);
}

/* ---- the shipped files */

static const char *const graph_files[] = {
    "baseline",          "critic",
    "critic_pairwise",   "rho1",
    "verifiable",        "verifiable_ema",
    "examples/entropy",  "examples/focal",
    "examples/grpo",     "examples/parallel",
    "examples/qk",       "examples/random_matched",
    "examples/shuffled",
};
static const char *const library[] = {"mtp", "rl", "stats", "heads", "llama", "llama_mtp"};
static const char *const search[] = {WM_SOURCE_DIR "/graphs"};

static LowerOptions small(void) {
    return (LowerOptions){.phase = "train",
                          .micro = 2,
                          .batch = 2,
                          .seq = 16,
                          .path = search,
                          .npath = 1,
                          .assume_sizes = true};
}

static void shipped_lower(Arena *a, Diags *d, const char *phase) {
    for (size_t i = 0; i < WM_LEN(graph_files); i++) {
        LowerOptions o = small();
        o.phase = phase;
        GraphInfo info;
        Graph *g =
            frontend_lower(a, arena_fmt(a, "%s/graphs/%s.wg", WM_SOURCE_DIR, graph_files[i]), &o, &info, d);
        if (!g || d->n) show(d);
        cr_assert_not_null(g, "%s", graph_files[i]);
        cr_assert_eq(d->n, 0, "%s has messages", graph_files[i]);
        cr_assert(graph_verify(g, false, d), "%s", graph_files[i]);
        cr_assert_eq(g->nopt > 0, !strcmp(phase, "train"));
        for (uint32_t k = 0; k < g->nresult && strcmp(phase, "train"); k++)
            cr_assert(strcmp(g->result[k].kind, "next"), "%s: validation changes %s", graph_files[i],
                      g->result[k].name);
    }
}
Test(lower, all_shipped_train) {
    in_arena("train", shipped_lower);
}
Test(lower, all_shipped_val) {
    in_arena("val", shipped_lower);
}

static void shipped_tests(Arena *a, Diags *d, const char *name) {
    (void)name;
    uint32_t passed = 0;
    for (size_t i = 0; i < WM_LEN(graph_files) + WM_LEN(library); i++) {
        bool lib = i >= WM_LEN(graph_files);
        const char *file = lib ? library[i - WM_LEN(graph_files)] : graph_files[i];
        LowerOptions o = small();
        TestCount n;
        bool ok = frontend_test(a, arena_fmt(a, "%s/graphs/%s%s.wg", WM_SOURCE_DIR, lib ? "lib/" : "", file),
                                &o, &n, d);
        if (!ok) show(d);
        cr_assert(ok && n.failed == 0, "tests of %s", file);
        passed += n.passed;
    }
    cr_assert_eq(passed, 11, "%u tests passed", passed);
    LowerOptions o = small();
    TestCount n;
    bool ok = frontend_test(a, WM_SOURCE_DIR "/tests/frontend/builtins.wg", &o, &n, d);
    if (!ok) show(d);
    cr_assert(ok && n.passed == 9 && n.failed == 0);
}
Test(lower, in_file_tests) {
    in_arena("", shipped_tests);
}

static Graph *lower_text(Arena *a, Diags *d, const char *name, const char *text) {
    const char *dir = WM_BINARY_DIR "/tests/flat", *file = arena_fmt(a, "%s/%s.wg", dir, name);
    cr_assert(path_make_dirs(env_posix(), dir, d) &&
              file_write_atomic(env_posix(), file, text, strlen(text), d));
    LowerOptions o = small();
    GraphInfo info;
    return frontend_lower(a, file, &o, &info, d);
}

/* The flat text is a graph of its own, and the same graph. */
static void expands(Arena *a, Diags *d, const char *unused) {
    (void)unused;
    for (size_t i = 0; i < WM_LEN(graph_files); i++) {
        LowerOptions o = small();
        GraphInfo info;
        const char *file = arena_fmt(a, "%s/graphs/%s.wg", WM_SOURCE_DIR, graph_files[i]),
                   *slash = strrchr(graph_files[i], '/');
        Graph *g = frontend_lower(a, file, &o, &info, d);
        Sbuf flat, x, y;
        sb_init(&flat, a);
        sb_init(&x, a);
        sb_init(&y, a);
        cr_assert(frontend_expand(a, file, &o, &flat, d));
        cr_assert_null(strstr(flat.s, " extends "));
        Graph *h = lower_text(a, d, slash ? slash + 1 : graph_files[i], flat.s);
        if (!h) show(d);
        cr_assert_not_null(h, "%s", flat.s);
        for (uint32_t k = 0; k < g->nresult; k++)
            cr_assert_not_null(graph_find_result(h, g->result[k].kind, g->result[k].name), "%s: %s", file,
                               g->result[k].name);
        cr_assert_eq(g->nnode, h->nnode, "%s: %u nodes, flat %u", file, g->nnode, h->nnode);
        cr_assert_eq(g->nresult, h->nresult);
    }
}
Test(lower, expand_is_the_same_graph) {
    in_arena("", expands);
}

/* ---- scopes, empty slots and micro-batches, with numbers by hand */

static bool scope_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    static const double r[] = {1, 3, 5, 99, 99, 99}, present[] = {1, 1, 1, 0, 0, 0};
    (void)ctx;
    if (n->op == OP_state) {
        for (int64_t i = 0; i < count; i++) out[i] = attr_float(g, n, "init");
        return true;
    }
    const double *from = !strcmp(attr_str(g, n, "name"), "present") ? present : r;
    if (n->op != OP_input || count != 6) return false;
    memcpy(out, from, sizeof r);
    return true;
}

static const char scope_graph[] = "graph scopes\n"
                                  "input r : f32[batch]\n"
                                  "hyper s : scope = micro\n"
                                  "loss step_mean = mean(r)\n"
                                  "loss micro_mean = mean(r, scope=s)\n"
                                  "metric kept = mean(r, where=r > 2)\n"
                                  "metric above = count(r > 2)\n"
                                  "metric above_micro = count(r > 2, scope=micro)\n"
                                  "metric middle = quantile(r, 0.5)\n"
                                  "metric middle_micro = quantile(r, 0.5, scope=micro)\n"
                                  "metric apart = mean(abs(r - mean(r, scope=micro)))\n"
                                  "metric spread = std(r, ddof=0)\n"
                                  "metric most = max_of(r)\n"
                                  "metric high = any(r > 50)\n"
                                  "metric low = all(r < 50)\n"
                                  "metric square = sum(r^2, scope=ranks)\n"
                                  "metric tail = mean(first(r == 3, over=batch))\n"
                                  "dim k = 2..3\n"
                                  "metric part = mean(expand(r, k) * k, per=k)\n"
                                  "state n : f32[k] = 7.0 next n + k * count(r > 0)\n"
                                  "state b : bool = true next b and any(r > 50)\n";

static void scopes(Arena *a, Diags *d, const char *unused) {
    (void)unused;
    const char *dir = WM_BINARY_DIR "/tests/flat", *file = WM_BINARY_DIR "/tests/flat/scopes.wg";
    cr_assert(path_make_dirs(env_posix(), dir, d) &&
              file_write_atomic(env_posix(), file, scope_graph, strlen(scope_graph), d));
    static const char *const want[] = {"r"};
    LowerOptions o = {.phase = "train", .micro = 3, .batch = 2, .seq = 4, .want = want, .nwant = 1};
    static const char *const no[] = {"W202", "W063"};
    o.no_warn = no;
    o.nno_warn = 2;
    GraphInfo info;
    Graph *g = frontend_lower(a, file, &o, &info, d);
    show(d);
    cr_assert(g && d->n == 0);
    EvalInput in = {.leaf = scope_leaf};
    double **v = graph_eval(a, g, &in, NULL, 0, d);
    cr_assert_not_null(v);
    static const struct {
        const char *kind, *name;
        double value;
    } expect[] = {
        {"loss", "step_mean", 3},
        {"loss", "micro_mean", 3.5},
        {"total", "total", 6.5},
        {"metric", "kept", 4},
        {"metric", "above", 2},
        {"metric", "above_micro", 1},
        {"metric", "middle", 3},
        {"metric", "middle_micro", 3.5},
        {"metric", "apart", 2.0 / 3},
        {"metric", "spread", 1.632993161855452},
        {"metric", "most", 5},
        {"metric", "high", 0},
        {"metric", "low", 1},
        {"metric", "square", 17.5},
        {"metric", "tail", 1.0 / 3},
        {"metric", "part.2", 6},
        {"metric", "part.3", 9},
        {"next", "n", 13},
        {"next", "b", 0},
    };
    for (size_t i = 0; i < WM_LEN(expect); i++) {
        const Result *r = graph_find_result(g, expect[i].kind, expect[i].name);
        cr_assert_not_null(r, "%s", expect[i].name);
        cr_assert(fabs(v[r->v.i][0] - expect[i].value) < 1e-12, "%s is %.17g", expect[i].name, v[r->v.i][0]);
    }
    cr_assert_eq(v[graph_find_result(g, "next", "n")->v.i][1], 16);
    cr_assert(info.nhyper == 1 && info.ninput == 1 && !strcmp(info.hyper[0].value.str, "micro"));
}
Test(lower, scopes_and_empty_slots) {
    in_arena("", scopes);
}

static const char rate_graph[] = "graph rates\n"
                                 "input r : f32[batch]\n"
                                 "loss l = mean(r)\n"
                                 "metric cos_ = cosine(2.0, warmup=10%, floor=0.1)\n"
                                 "metric cos_bare = cosine(2.0)\n"
                                 "metric lin = linear(3.0, warmup=25%, floor=0.2)\n"
                                 "metric hold = hold_decay(1.0, 0.5, hold=10, decay=20)\n"
                                 "metric flat = constant(0.25)\n";

static bool rate_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    const double *step = ctx;
    const char *name = attr_str(g, n, "name");
    for (int64_t i = 0; i < count; i++)
        out[i] = strcmp(name, "steps") == 0 ? 43 : strcmp(name, "step") == 0 ? *step : 1;
    return true;
}
/* Warm-up over floor(43 * share) steps from 0, then the fall from the peak to its floor over the rest. */
static double rate(double t, double peak, double warm, double floor_, bool cosine) {
    if (t < warm) return peak * t / warm;
    double down = (t - warm) / (43 - warm), left = cosine ? (1 + cos(acos(-1.0) * down)) / 2 : 1 - down;
    return peak * (floor_ + (1 - floor_) * left);
}
static void rates(Arena *a, Diags *d, const char *unused) {
    (void)unused;
    const char *dir = WM_BINARY_DIR "/tests/flat", *file = WM_BINARY_DIR "/tests/flat/rates.wg";
    cr_assert(path_make_dirs(env_posix(), dir, d) &&
              file_write_atomic(env_posix(), file, rate_graph, strlen(rate_graph), d));
    static const char *const want[] = {"r"};
    LowerOptions o = {.phase = "train", .micro = 1, .batch = 2, .seq = 4, .want = want, .nwant = 1};
    GraphInfo info;
    Graph *g = frontend_lower(a, file, &o, &info, d);
    show(d);
    cr_assert_not_null(g);
    for (double t = 0; t < 43; t++) {
        EvalInput in = {.leaf = rate_leaf, .ctx = &t};
        double **v = graph_eval(a, g, &in, NULL, 0, d);
        cr_assert_not_null(v);
        const struct {
            const char *name;
            double value;
        } expect[] = {
            {"cos_", rate(t, 2, 4, 0.1, true)},
            {"cos_bare", rate(t, 2, 0, 0, true)},
            {"lin", rate(t, 3, 10, 0.2, false)},
            {"hold", t < 10   ? 1
                     : t < 30 ? 1 - (t - 10) / 20 * 0.5
                              : 0.5},
            {"flat", 0.25},
        };
        for (size_t i = 0; i < WM_LEN(expect); i++) {
            const Result *r = graph_find_result(g, "metric", expect[i].name);
            cr_assert_not_null(r, "%s", expect[i].name);
            cr_assert(fabs(v[r->v.i][0] - expect[i].value) < 1e-13, "%s at step %g is %.17g, not %.17g",
                      expect[i].name, t, v[r->v.i][0], expect[i].value);
        }
    }
}
Test(lower, schedules_at_every_step) {
    in_arena("", rates);
}
