/* replay CASE_DIR --out DIR [--dtype f64|f32] [--off PASS]...: a recorded case through the public path: its
 * graph with the case's hyper-parameters, weights from safetensors, the compiled plan and its kernels. Writes
 * got.json and got.safetensors for compare.py. Where the case has reference_hf.safetensors, step 0 runs again
 * from it and must give the same bits. The format is that of tests/oracle/README.md. */
#include "cli/build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct {
    Arena *a;
    Env *env;
    Diags *d;
    const char *dir, *out;
    DType real;
    const Json *c;
    PassOptions pass;
    Build *b; /* a new one for each start: the executor keeps pointers into its plan */
    Kernels k;
} Replay;

typedef struct {
    Setting *item;
    uint32_t n, cap;
} Settings;

static void setting(Replay *r, Settings *s, const char *key, const Json *v) {
    ConstValue x = {0};
    JsonKind kind = json_kind(v);
    if (kind == J_OBJECT) {
        for (size_t i = 0; i < json_size(v); i++) {
            const Json *w;
            const char *name = json_key_at(v, i, &w);
            setting(r, s, key[0] ? arena_fmt(r->a, "%s.%s", key, name) : name, w);
        }
        return;
    }
    if (kind == J_STRING)
        x = (ConstValue){VAL_STRING, 0, json_string(v, NULL), false};
    else if (kind == J_BOOL)
        x = (ConstValue){VAL_BOOL, json_bool(v), NULL, false};
    else if (kind == J_INT)
        x = (ConstValue){VAL_NUMBER, (double)json_int(v), NULL, true};
    else if (kind == J_REAL)
        x = (ConstValue){VAL_NUMBER, json_real(v), NULL, false};
    else
        return;
    GROW(r->a, s->item, s->n, s->cap);
    s->item[s->n++] = (Setting){key, x, "case.json"};
}

static int64_t num(const Replay *r, const char *key) {
    return json_int(json_get(r->c, key));
}

/* Names of config.json for those of params.json. */
static const char *hf_key(const char *meta) {
    static const char *const pair[][2] = {{"dim", "hidden_size"},
                                          {"n_layers", "num_hidden_layers"},
                                          {"n_heads", "num_attention_heads"},
                                          {"n_kv_heads", "num_key_value_heads"},
                                          {"hidden_dim", "intermediate_size"},
                                          {"norm_eps", "rms_norm_eps"}};
    for (size_t i = 0; i < WM_LEN(pair); i++)
        if (strcmp(pair[i][0], meta) == 0) return pair[i][1];
    return meta;
}

static void shapes(Replay *r, const StSet *set, ModelSource *m) {
    uint32_t n = 0, k = 0;
    for (uint32_t f = 0; f < set->n; f++) n += st_count(set->file[f]);
    StoredShape *s = NEWN(r->a, StoredShape, n + 1);
    for (uint32_t f = 0; f < set->n; f++)
        for (uint32_t i = 0; i < st_count(set->file[f]); i++) {
            const StTensor *t = st_tensor(set->file[f], i);
            s[k].name = t->name;
            s[k].ndim = t->ndim;
            memcpy(s[k++].shape, t->shape, sizeof s->shape);
        }
    m->stored = s;
    m->nstored = n;
}

static ModelSource model_source(Replay *r, const char *name, const StSet *set, bool hf) {
    ModelSource m = {.model = name, .json_path = "case.json", .has_weights = true, .prefix = ""};
    const Json *prefix = json_get(json_get(r->c, "prefix"), name), *cfg = json_get(r->c, "model");
    const Json *reference = json_get(cfg, "reference");
    if (prefix && !hf) m.prefix = json_string(prefix, NULL);
    bool is_ref = strcmp(name, "ref") == 0 && reference;
    Settings s = {0};
    const Json *from = is_ref ? reference : cfg;
    for (size_t i = 0; i < json_size(from); i++) {
        const Json *v;
        const char *key = json_key_at(from, i, &v);
        if (strcmp(key, "reference") != 0) setting(r, &s, hf ? hf_key(key) : key, v);
    }
    m.json = s.item;
    m.njson = s.n;
    shapes(r, set, &m);
    return m;
}

/* The case's optimizer takes the place of the graph's. */
static bool case_optimizer(void *ctx, Graph *g, Diags *d) {
    Replay *r = ctx;
    (void)d;
    const Json *o = json_get(r->c, "optimizer");
    if (strcmp(g->phase, "train") != 0) return true;
    for (uint32_t i = 0; i < g->nnode; i++) {
        Node *n = &g->node[i];
        if (n->op != OP_param || attr_int(g, n, "opt") < 0) continue;
        for (int k = 0; k < op_info[OP_param].nattr; k++) {
            if (strcmp(op_info[OP_param].attr[k].name, "opt") == 0) n->attr[k] = at_int(0);
            if (strcmp(op_info[OP_param].attr[k].name, "decay") == 0) n->attr[k] = at_bool(true);
        }
    }
    const Json *betas = json_get(o, "betas");
    Opt opt = {.kind = "adamw",
               .lr = b_const(g, DT_F64, json_real(json_get(o, "lr"))),
               .b1 = json_real(json_at(betas, 0)),
               .b2 = json_real(json_at(betas, 1)),
               .eps = json_real(json_get(o, "eps")),
               .wd = json_real(json_get(o, "weight_decay"))};
    if (!g->nopt) GROW(g->arena, g->opt, 0, g->opt_cap);
    g->opt[0] = opt;
    g->nopt = 1;
    g->clip_norm = json_real(json_get(o, "clip_norm"));
    return true;
}

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

static const char *graph_path(Replay *r) {
    const char *g = json_string(json_get(r->c, "graph"), NULL);
    size_t n = strlen(g);
    if (n > 3 && strcmp(g + n - 3, ".wg") == 0) return arena_fmt(r->a, "%s/%s", r->dir, g);
    const char *p = arena_fmt(r->a, "%s/graphs/%s.wg", WM_SOURCE_DIR, g);
    return exists(p) ? p : arena_fmt(r->a, "%s/graphs/examples/%s.wg", WM_SOURCE_DIR, g);
}

static bool make_plan(Replay *r, const StSet *weights, const StSet *hf) {
    BuildOptions o = {.file = graph_path(r),
                      .micro = num(r, "micro_batches"),
                      .batch = num(r, "batch"),
                      .seq = num(r, "seq"),
                      .pass = r->pass};
    static const char *const path[] = {WM_SOURCE_DIR "/graphs"};
    o.path = path;
    o.npath = 1;
    Settings s = {0};
    setting(r, &s, "", json_get(r->c, "hyper"));
    o.hyper = s.item;
    o.nhyper = s.n;
    LowerOptions lo = {
        .phase = "train", .micro = o.micro, .batch = o.batch, .seq = o.seq, .path = path, .npath = 1};
    GraphInfo info;
    if (!frontend_info(r->a, o.file, &lo, &info, r->d)) return false;
    ModelSource *m = NEWN(r->a, ModelSource, info.nmodel + 1);
    for (uint32_t i = 0; i < info.nmodel; i++) {
        bool from_hf = hf && strcmp(info.model[i].name, "ref") == 0;
        m[i] = model_source(r, info.model[i].name, from_hf ? hf : weights, from_hf);
    }
    o.model = m;
    o.nmodel = info.nmodel;
    const Json *dims = json_get(r->c, "dims");
    const char **want = NEWN(r->a, const char *, json_size(dims) + 1);
    for (size_t i = 0; i < json_size(dims); i++) want[i] = json_key_at(dims, i, NULL);
    o.want = want;
    o.nwant = (uint32_t)json_size(dims);
    o.edit = case_optimizer;
    o.ctx = r;
    r->b = NEW(r->a, Build);
    return build_plan(r->a, &o, r->b, r->d) && kernels_get(r->a, &r->b->plan, r->b->source, &r->k, r->d);
}

static void put_real(PlanDType dt, void *p, int64_t i, double v) {
    if (dt == PD_F64)
        ((double *)p)[i] = v;
    else if (dt == PD_F32)
        ((float *)p)[i] = (float)v;
    else if (dt == PD_I32)
        ((int32_t *)p)[i] = (int32_t)v;
    else
        ((unsigned char *)p)[i] = v != 0;
}
static double get_real(PlanDType dt, const void *p, int64_t i) {
    if (dt == PD_F64) return ((const double *)p)[i];
    if (dt == PD_F32) return (double)((const float *)p)[i];
    if (dt == PD_I32) return (double)((const int32_t *)p)[i];
    return (double)((const unsigned char *)p)[i];
}

static bool fill_input(Replay *r, Exec *e, const PlanInput *in, StFile *batches, int64_t step) {
    int64_t micro = num(r, "micro_batches"), count = 1;
    for (uint32_t i = 0; i < in->ndim; i++) count *= in->size[i];
    const StTensor *t = NULL;
    bool present = strcmp(in->name, "present") == 0;
    if (!present && !(t = st_find(batches, arena_fmt(r->a, "%s.%lld", in->name, (long long)step))))
        return diag_fail(r->d, D003, NOLOC, "batches.safetensors has no %s.%lld", in->name, (long long)step);
    void *raw = t ? arena_alloc(r->a, (wm_size)(t->end - t->begin)) : NULL;
    if (t && !st_read(batches, t, raw, 0, t->end - t->begin, r->d)) return false;
    for (int64_t k = 0; k < micro; k++) {
        void *p = exec_input(e, 0, in->name, k);
        for (int64_t i = 0; i < count; i++) {
            int64_t at = k * count + i;
            double v = 1;
            if (t)
                v = strcmp(t->dtype, "I64") == 0   ? (double)((int64_t *)raw)[at]
                    : strcmp(t->dtype, "F32") == 0 ? (double)((float *)raw)[at]
                                                   : ((double *)raw)[at];
            put_real(in->dtype, p, i, v);
        }
    }
    return true;
}

static bool run_step(Replay *r, Exec *e, StFile *batches, int64_t step) {
    const PlanProgram *p = &r->b->plan.program[0];
    for (uint32_t i = 0; i < p->ninput; i++)
        if (strcmp(p->input[i].kind, "data") == 0 && !fill_input(r, e, &p->input[i], batches, step))
            return false;
    return exec_step(e, 0, step, 1000, r->d);
}

static void log_group(Replay *r, Exec *e, Sbuf *o, const char *title, const char *kind) {
    const PlanProgram *p = &r->b->plan.program[0];
    sb_fmt(o, ", \"%s\": {", title);
    bool first = true;
    for (uint32_t i = 0; i < p->noutput; i++) {
        if (strcmp(p->output[i].kind, kind) != 0) continue;
        if (!first) sb_str(o, ", ");
        first = false;
        json_quote(o, p->output[i].name, strlen(p->output[i].name));
        sb_str(o, ": ");
        json_number(o, exec_number(e, 0, kind, p->output[i].name));
    }
    sb_chr(o, '}');
}

static int64_t state_count(const PlanState *s) {
    int64_t n = 1;
    for (uint32_t i = 0; i < s->ndim; i++) n *= s->size[i];
    return n;
}

static void log_step(Replay *r, Exec *e, Sbuf *o, int64_t step) {
    const Plan *p = &r->b->plan;
    sb_fmt(o, "%s\n {\"step\": %lld, \"loss\": ", step ? "," : "", (long long)step);
    json_number(o, exec_number(e, 0, "total", "total"));
    sb_str(o, ", \"grad_norm\": ");
    json_number(o, exec_number(e, 0, "grad_norm", "grad_norm"));
    log_group(r, e, o, "losses", "loss");
    log_group(r, e, o, "metrics", "metric");
    sb_str(o, ", \"states\": {");
    bool first = true;
    for (uint32_t i = 0; i < p->nstate; i++) {
        const PlanState *s = &p->state[i];
        if (strcmp(s->role, "user") != 0) continue;
        if (!first) sb_str(o, ", ");
        first = false;
        json_quote(o, s->name, strlen(s->name));
        sb_str(o, s->ndim ? ": [" : ": ");
        for (int64_t k = 0; k < state_count(s); k++) {
            if (k) sb_str(o, ", ");
            json_number(o, get_real(s->dtype, exec_state_ptr(e, i), k));
        }
        if (s->ndim) sb_chr(o, ']');
    }
    sb_str(o, "}}");
}

/* One output as f64 with the dims of the record: `micro` first, then those of `dims`; a dim the value lacks
 * is repeated. */
static void put_value(Replay *r, Exec *e, const char *name, const Json *dims, StOut *out) {
    const void *data;
    const PlanOutput *v = exec_output(e, 0, "value", name, &data);
    if (!v) return;
    int64_t size[PLAN_MAX_DIMS], stride[PLAN_MAX_DIMS], idx[PLAN_MAX_DIMS] = {0}, count = 1, inner = 1;
    for (uint32_t i = 0; i < v->ndim; i++) inner *= v->size[i];
    uint32_t nd = (uint32_t)json_size(dims);
    for (uint32_t i = 0; i < nd; i++) {
        const char *want = json_string(json_at(dims, i), NULL);
        size[i] = 1;
        stride[i] = 0;
        if (strcmp(want, "micro") == 0) {
            size[i] = num(r, "micro_batches");
            stride[i] = v->per_micro ? inner : 0;
        }
        int64_t s = 1;
        for (uint32_t k = v->ndim; k-- > 0; s *= v->size[k])
            if (strcmp(v->dim[k], want) == 0) size[i] = v->size[k], stride[i] = s;
        if (strcmp(want, "batch") == 0) size[i] = num(r, "batch");
        if (strcmp(want, "seq") == 0) size[i] = num(r, "seq");
        count *= size[i];
    }
    double *x = NEWN(r->a, double, count);
    for (int64_t n = 0; n < count; n++) {
        int64_t at = 0;
        for (uint32_t i = 0; i < nd; i++) at += idx[i] * stride[i];
        x[n] = get_real(v->dtype, data, at);
        for (uint32_t i = nd; i-- > 0;) {
            if (++idx[i] < size[i]) break;
            idx[i] = 0;
        }
    }
    *out = (StOut){.name = name, .dtype = "F64", .ndim = nd, .data = x, .bytes = count * 8};
    memcpy(out->shape, size, sizeof size);
}

static StOut put_state(Replay *r, const char *name, const PlanState *s, const void *mem) {
    StOut o = {.name = name, .dtype = "F64"};
    int64_t n = state_count(s);
    state_stored_shape(s, o.shape, &o.ndim);
    void *raw = arena_alloc(r->a, (wm_size)n * 8);
    state_to_stored(s, NAMES_META, mem, raw);
    double *x = NEWN(r->a, double, n);
    for (int64_t i = 0; i < n; i++) x[i] = get_real(s->dtype, raw, i);
    o.data = x;
    o.bytes = n * 8;
    return o;
}

static const char *prefix_of(Replay *r, const char *model) {
    const Json *p = json_get(json_get(r->c, "prefix"), model);
    return p ? json_string(p, NULL) : "";
}

static bool load_weights(Replay *r, Exec *e, const StSet *w, const StSet *hf) {
    for (uint32_t i = 0; i < r->b->info.nmodel; i++) {
        const char *name = r->b->info.model[i].name;
        bool from_hf = hf && strcmp(name, "ref") == 0;
        const char **extra;
        uint32_t nextra;
        if (!weights_load(e, &r->b->plan, name, from_hf ? hf : w, from_hf ? "" : prefix_of(r, name), false,
                          r->a, &extra, &nextra, r->d))
            return false;
    }
    return true;
}

static Exec *start(Replay *r, const StSet *w, const StSet *hf, Device *dev) {
    if (!make_plan(r, w, hf)) return NULL;
    Exec *e = exec_open(r->env, &r->b->plan, r->k.fn, dev, 0, r->d);
    if (!e || !exec_init_states(e, r->d) || !load_weights(r, e, w, hf)) {
        exec_close(e);
        return NULL;
    }
    return e;
}

/* Losses, gradient norm and every value of step 0 from both forms of the reference: the same bits. */
static bool same_outputs(Replay *r, const Plan *pa, Exec *x, const Plan *pb, Exec *y) {
    (void)pb;
    const PlanProgram *p = &pa->program[0];
    for (uint32_t i = 0; i < p->noutput; i++) {
        const void *u, *v;
        const PlanOutput *o = exec_output(x, 0, p->output[i].kind, p->output[i].name, &u);
        if (!exec_output(y, 0, p->output[i].kind, p->output[i].name, &v)) return false;
        int64_t n = o->per_micro ? num(r, "micro_batches") : 1;
        for (uint32_t k = 0; k < o->ndim; k++) n *= o->size[k];
        static const int bytes[] = {8, 4, 2, 4, 1};
        if (memcmp(u, v, (size_t)(n * bytes[o->dtype])) != 0)
            return diag_fail(r->d, D003, NOLOC,
                             "%s %s (%.17g against %.17g) differs in bits when the reference is read under "
                             "its Hugging Face names",
                             o->kind, o->name, get_real(o->dtype, u, 0), get_real(o->dtype, v, 0));
    }
    return true;
}

static bool replay(Replay *r) {
    StSet w, hf;
    const char *hf_path = arena_fmt(r->a, "%s/reference_hf.safetensors", r->dir);
    if (!st_open_set(r->env, r->a, arena_fmt(r->a, "%s/weights.safetensors", r->dir), NULL, &w, r->d))
        return false;
    StFile *batches = st_open(r->env, arena_fmt(r->a, "%s/batches.safetensors", r->dir), r->d);
    Device *dev = device_cpu(r->env, 0, r->d);
    Exec *e = batches && dev ? start(r, &w, NULL, dev) : NULL;
    if (!e) return false;
    Plan plan = r->b->plan;
    Sbuf o;
    sb_init(&o, r->a);
    sb_str(&o, "{\"log\": [");
    uint32_t nout = 0;
    StOut *out = NEWN(r->a, StOut, 2 * plan.nstate + json_size(json_get(r->c, "dims")) + 1);
    for (int64_t step = 0; step < num(r, "steps"); step++) {
        if (!run_step(r, e, batches, step)) return false;
        log_step(r, e, &o, step);
        if (step > 0) continue;
        const Json *dims = json_get(r->c, "dims");
        for (size_t i = 0; i < json_size(dims); i++) {
            const Json *v;
            const char *name = json_key_at(dims, i, &v);
            put_value(r, e, name, v, &out[nout]);
            if (out[nout].name) nout++;
        }
        for (uint32_t i = 0; i < plan.nstate; i++) {
            const PlanState *s = &plan.state[i];
            const void *data;
            if (strcmp(s->role, "param") == 0 &&
                exec_output(e, 0, "grad", arena_fmt(r->a, "%s/%s", s->model, s->name), &data))
                out[nout++] =
                    put_state(r, arena_fmt(r->a, "grad.%s%s", prefix_of(r, s->model), s->name), s, data);
        }
        if (exists(hf_path)) {
            if (!st_open_set(r->env, r->a, hf_path, NULL, &hf, r->d)) return false;
            Build *kept = r->b;
            Kernels k = r->k;
            Exec *e2 = start(r, &w, &hf, dev);
            bool ok = e2 && run_step(r, e2, batches, 0) && same_outputs(r, &plan, e, &r->b->plan, e2);
            exec_close(e2);
            kernels_close(&r->k);
            st_close_set(&hf);
            r->b = kept;
            r->k = k;
            if (!ok) return false;
        }
    }
    for (uint32_t i = 0; i < plan.nstate; i++) {
        const PlanState *s = &plan.state[i];
        if (strcmp(s->role, "param") == 0 && s->trained)
            out[nout++] = put_state(r, arena_fmt(r->a, "final.%s%s", prefix_of(r, s->model), s->name), s,
                                    exec_state_ptr(e, i));
    }
    sb_str(&o, "\n]}\n");
    if (!path_make_dirs(r->env, r->out, r->d)) return false;
    const char *file = arena_fmt(r->a, "%s/got.safetensors", r->out);
    remove(file);
    bool ok = file_write_atomic(r->env, arena_fmt(r->a, "%s/got.json", r->out), o.s, o.len, r->d) &&
              st_write(r->env, file, out, nout, NULL, 0, NULL, r->d);
    exec_close(e);
    dev->close(dev);
    kernels_close(&r->k);
    st_close(batches);
    st_close_set(&w);
    return ok;
}

typedef struct {
    int argc;
    char **argv;
    Diags *d;
    bool shown;
} Args;

static void show(Diags *d) {
    Sbuf b;
    sb_init(&b, d->arena);
    diags_render(d, &b, false);
    if (b.len) fputs(b.s, stderr);
}

static bool off(PassOptions *o, const char *name) {
    if (strcmp(name, "simplify") == 0) return o->off_simplify = true;
    if (strcmp(name, "linear_ce") == 0) return o->off_linear_ce = true;
    if (strcmp(name, "classes") == 0) return o->off_classes = true;
    if (strcmp(name, "fuse") == 0) return o->off_fuse = true;
    if (strcmp(name, "schedule") == 0) return o->off_schedule = true;
    if (strcmp(name, "memplan") == 0) return o->off_memplan = true;
    return false;
}

static bool guarded(void *ctx, Guard *g) {
    Args *x = ctx;
    Arena *a = arena_open(env_posix(), g);
    Replay r = {.a = a, .env = env_posix(), .d = x->d, .real = DT_F64};
    bool ok = true;
    for (int i = 1; i < x->argc && ok; i++) {
        if (strcmp(x->argv[i], "--out") == 0 && i + 1 < x->argc)
            r.out = x->argv[++i];
        else if (strcmp(x->argv[i], "--dtype") == 0 && i + 1 < x->argc)
            r.real = strcmp(x->argv[++i], "f32") == 0 ? DT_F32 : DT_F64;
        else if (strcmp(x->argv[i], "--off") == 0 && i + 1 < x->argc)
            ok = off(&r.pass, x->argv[++i]);
        else if (x->argv[i][0] != '-' && !r.dir)
            r.dir = x->argv[i];
        else
            ok = false;
    }
    if (!ok || !r.dir || !r.out)
        return diag_fail(x->d, R007, NOLOC,
                         "usage: replay CASE_DIR --out DIR [--dtype f64|f32] [--off PASS]");
    r.pass.real = r.real;
    r.pass.keep_grads = true;
    char *text;
    size_t len;
    const char *path = arena_fmt(a, "%s/case.json", r.dir);
    Json *c = file_read_all(r.env, a, path, 64 << 20, &text, &len, x->d)
                  ? json_parse(text, len, path, 1, 64, x->d, D001)
                  : NULL;
    r.c = c;
    ok = c && replay(&r);
    show(x->d); /* while the files that the messages quote are in memory */
    x->shown = true;
    json_free(c);
    arena_close(a);
    return ok;
}

int main(int argc, char **argv) {
    Diags *d = diags_open(env_posix());
    Args x = {argc, argv, d, false};
    bool ok = guard_run(guarded, &x, d);
    if (!x.shown) show(d);
    int code = ok ? 0 : diags_exit(d) ? diags_exit(d) : EXIT_INTERNAL;
    diags_close(d);
    return code;
}
