/* cmd_run.c: `run` and `compile`: plan, kernels, run directory, training, closing lines. */
#include "cli/commands.h"
#include "cli/keys.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    Cli *c;
    Session s;
    Build b;
    Plan *plan; /* b.plan, or the one parsed from a file */
    Kernels k;
    Device *dev;
    Exec *e;
    Owner *owner;
    const char *dir;
    CkptInfo info;
    const volatile int *stop; /* set by a signal */
} Run;

static bool is_plan(const char *file) {
    size_t n = strlen(file);
    return n > 5 && strcmp(file + n - 5, ".plan") == 0;
}

/* "key=value" among the plan's options; NULL. */
static const char *plan_option(const Plan *p, const char *key) {
    size_t n = strlen(key);
    for (uint32_t i = 0; i < p->noption; i++)
        if (strncmp(p->option[i], key, n) == 0 && p->option[i][n] == '=') return p->option[i] + n + 1;
    return NULL;
}

int64_t plan_memory(const Plan *p) {
    return p->arena_bytes[0] + p->arena_bytes[1];
}

/* The bytes that may be used: runtime.memory_limit, or the machine's memory. */
static int64_t memory_limit(Run *r) {
    double limit = config_num(r->s.config, "runtime.memory_limit");
    return limit > 0 ? (int64_t)fmin(limit, 0x1p62) : r->c->env->memory_bytes(r->c->env);
}

static bool fits(Run *r) {
    int64_t need = plan_memory(r->plan), limit = memory_limit(r);
    if (need <= limit) return true;
    Diag *g = diag_add(r->c->d, P004, NOLOC, "the plan takes %.1f MB, there are %.1f MB", (double)need / 1e6,
                       (double)limit / 1e6);
    diag_note(r->c->d, g, "parameters and optimizer %.1f MB, everything else %.1f MB",
              (double)r->plan->arena_bytes[0] / 1e6, (double)r->plan->arena_bytes[1] / 1e6);
    diag_help(
        r->c->d, g,
        "a smaller training.batch_size (with more training.micro_batches) or dataset.max_length takes less");
    return false;
}

/* A plan from a file: its own keys win; another value of one in the configuration is an error. */
static bool open_plan(Run *r, const char *file) {
    Cli *c = r->c;
    char *text;
    size_t len;
    if (!file_read_all(c->env, c->a, file, (wm_size)1 << 30, &text, &len, c->d)) return false;
    r->plan = plan_parse(c->a, file, text, len, c->d);
    if (!r->plan || !plan_check(r->plan, file, c->d) || !build_from_plan(c->a, r->plan, file, &r->b, c->d))
        return false;
    return true;
}

static bool same_keys(Run *r, const char *file) {
    for (uint32_t i = 0; i < config_nkey; i++) {
        const char *key = config_key[i].path, *of_plan = plan_option(r->plan, key);
        if (strcmp(config_key[i].where, "plan") != 0 || !of_plan || !config_is_set(r->s.config, key))
            continue;
        if (strcmp(config_str(r->s.config, key), of_plan) == 0) continue;
        return diag_fail(r->c->d, C003, config_loc(r->s.config, key),
                         "`%s` is '%s' here, the plan %s was made with '%s'; compile it again", key,
                         config_str(r->s.config, key), file, of_plan);
    }
    return true;
}

/* The session of a plan: its own file name is kept in the option `graph.source`. */
static bool session_of_plan(Run *r, const char *file) {
    Cli *c = r->c;
    const char *source = plan_option(r->plan, "graph.source");
    if (!source) return diag_fail(c->d, P001, NOLOC, "%s does not say which graph it was made from", file);
    const char **arg = NEWN(c->a, const char *, 1);
    const char **over = NEWN(c->a, const char *, c->noverride + config_nkey + r->plan->noption);
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->plan->noption; i++) { /* the plan's keys below those of the command line */
        const char *o = r->plan->option[i], *eq = strchr(o, '=');
        const char *key = arena_str(c->a, o, (size_t)(eq - o));
        bool hyper = strncmp(key, "graph.", 6) == 0 && strcmp(key, "graph.source") != 0, known = false;
        for (uint32_t k = 0; k < config_nkey; k++) known = known || strcmp(config_key[k].path, key) == 0;
        if ((hyper || known) && eq[1] && !(known && c->config)) over[n++] = o;
    }
    for (uint32_t i = 0; i < c->noverride; i++) over[n++] = c->override[i];
    arg[0] = source;
    c->arg = arg;
    c->narg = 1;
    c->override = over;
    c->noverride = n;
    return true;
}

static bool prepare(Run *r) {
    Cli *c = r->c;
    const char *file = c->narg ? c->arg[0] : "";
    bool from_plan = is_plan(file);
    if (from_plan && (!open_plan(r, file) || !session_of_plan(r, file))) return false;
    if (!session_open(c, &r->s, DATA_ALL) || (from_plan && !same_keys(r, file))) return false;
    if (from_plan) {
        int v = -1;
        for (uint32_t i = 0; i < r->plan->nprogram; i++)
            if (strcmp(r->plan->program[i].name, "val") == 0) v = (int)i;
        int64_t has = v < 0 ? 0 : r->plan->program[v].micro;
        return has == r->s.build.val_micro ||
               diag_fail(
                   c->d, C003, config_loc(r->s.config, "dataset.validation"),
                   "the plan was made for %lld validation micro-batches, the data has %lld; compile it again",
                   (long long)has, (long long)r->s.build.val_micro);
    }
    if (!build_plan(c->a, &r->s.build, &r->b, c->d)) return false;
    r->plan = &r->b.plan;
    return true;
}

static int64_t vocab_of(const Graph *g) {
    DimId d;
    if (g && graph_find_dim(g, "vocab", &d)) return g->dim[d.i].size;
    return INT64_MAX;
}

static bool load_models(Run *r) {
    Cli *c = r->c;
    for (uint32_t i = 0; i < r->s.info.nmodel; i++) {
        const ModelSource *m = &r->s.build.model[i];
        const char **extra;
        uint32_t nextra;
        if (!m->has_weights) continue;
        if (!weights_load(r->e, r->plan, m->model, &r->s.set[i], m->prefix, m->missing_init, c->a, &extra,
                          &nextra, c->d))
            return false;
        say(c, "%s: weights of %s%s", m->model, r->s.model_path[i],
            nextra ? arena_fmt(c->a, " (%u tensors that it does not declare are left alone)", nextra) : "");
    }
    return true;
}

static bool model_trained(const Plan *p, const char *model) {
    for (uint32_t i = 0; i < p->nstate; i++)
        if (p->state[i].trained && strcmp(p->state[i].model, model) == 0) return true;
    return false;
}

static bool checkpoint_info(Run *r) {
    Cli *c = r->c;
    StateView v = exec_view(r->e, r->plan);
    CkptModel *m = NEWN(c->a, CkptModel, r->s.info.nmodel + 1);
    for (uint32_t i = 0; i < r->s.info.nmodel; i++) {
        m[i].name = r->s.info.model[i].name;
        m[i].path = r->s.model_path[i][0] ? r->s.model_path[i] : NULL;
        m[i].config = keys_config_json(c, &r->s.info.model[i], &r->s.build.model[i], r->b.train);
        if (!model_trained(r->plan, m[i].name) && !model_hash(&v, c->env, m[i].name, m[i].hash, c->d))
            return false;
    }
    Sbuf b;
    sb_init(&b, c->a);
    config_show(r->s.config, &b, true);
    r->info = (CkptInfo){.config = b.s,
                         .graph_hash = r->plan->graph_hash,
                         .plan_hash = r->plan->hash,
                         .built = WM_VERSION,
                         .machine = r->k.toolchain.identity,
                         .model = m,
                         .nmodel = r->s.info.nmodel};
    return true;
}

static bool write_run_json(Run *r, const char *status, const TrainResult *t) {
    Cli *c = r->c;
    Sbuf b;
    sb_init(&b, c->a);
    sb_str(&b, "{\n  \"command\": ");
    const char *line = arena_fmt(c->a, "wmtpc %s %s", c->command, r->s.file);
    json_quote(&b, line, strlen(line));
    sb_fmt(&b, ",\n  \"version\": \"%s\",\n  \"status\": \"%s\",\n  \"graph\": ", WM_VERSION, status);
    json_quote(&b, r->plan->graph_name, strlen(r->plan->graph_name));
    sb_fmt(&b, ",\n  \"plan\": \"%s\",\n  \"steps\": %lld,\n  \"arena_bytes\": %lld", r->plan->hash,
           (long long)r->s.total_steps, (long long)plan_memory(r->plan));
    if (t) {
        sb_fmt(&b, ",\n  \"step\": %lld,\n  \"best_step\": %lld,\n  \"best\": ", (long long)t->step,
               (long long)t->best_step);
        json_number(&b, t->best);
        sb_str(&b, ",\n  \"last_loss\": ");
        json_number(&b, t->last_loss);
        sb_fmt(&b, ",\n  \"tokens_per_s\": %.1f,\n  \"median_step_s\": %.5f,\n  \"first_step_s\": %.4f",
               t->tokens_per_s, t->median_step_s, t->first_step_s);
        if (t->sha256[0]) sb_fmt(&b, ",\n  \"parameters_sha256\": \"%s\"", t->sha256);
    }
    sb_str(&b, "\n}\n");
    return file_write_atomic(c->env, arena_fmt(c->a, "%s/run.json", r->dir), b.s, b.len, c->d);
}

static bool write_files(Run *r) {
    Cli *c = r->c;
    Sbuf b;
    sb_init(&b, c->a);
    if (!file_write_atomic(c->env, arena_fmt(c->a, "%s/config.yaml", r->dir), r->info.config,
                           strlen(r->info.config), c->d))
        return false;
    plan_print(r->plan, &b);
    if (!file_write_atomic(c->env, arena_fmt(c->a, "%s/F.plan", r->dir), b.s, b.len, c->d)) return false;
    LowerOptions lo = {.phase = "train",
                       .micro = r->s.build.micro,
                       .batch = r->s.build.batch,
                       .seq = r->s.build.seq,
                       .path = r->s.build.path,
                       .npath = r->s.build.npath};
    sb_init(&b, c->a);
    if (!frontend_expand(c->a, r->s.file, &lo, &b, c->d)) return false;
    return file_write_atomic(c->env, arena_fmt(c->a, "%s/graph.wg", r->dir), b.s, b.len, c->d);
}

static void progress(void *ctx, const char *line, bool stays) {
    Run *r = ctx;
    if (r->c->quiet) return;
    if (r->c->progress)
        fprintf(stderr, "\r\033[K%s%s", line, stays ? "\n" : "");
    else
        fprintf(stderr, "%s\n", line);
    fflush(stderr);
}

typedef struct {
    int64_t ns, launches;
    double flops;
    int64_t bytes;
    uint32_t kernel;
} KernelTime;

static int by_time(const void *a, const void *b) {
    const KernelTime *x = a, *y = b;
    if (x->ns != y->ns) return x->ns > y->ns ? -1 : 1;
    return x->kernel < y->kernel ? -1 : x->kernel > y->kernel;
}

/* FLOPs and argument bytes of one instruction: those of its node and of the nodes fused with it. */
static double instr_flops(const Graph *g, const PlanInstr *in) {
    const Node *n = &g->node[in->node];
    double f = node_flops(g, n);
    for (uint32_t k = in->node + 1; n->group && k < g->nnode && g->node[k].group == n->group; k++)
        f += node_flops(g, &g->node[k]);
    return f;
}

/* Which launches of a node do its counted work: its products if it has any, else all that do not only lay out
 * operands. */
static int work_rank(const Plan *p, const PlanInstr *in) {
    if (in->op != I_LAUNCH) return 0;
    const char *what = p->kernel[in->kernel].what;
    return strstr(what, "panels") ? 1 : strncmp(what, "gemm", 4) == 0 ? 3 : 2;
}

typedef struct {
    int rank;
    int64_t launches;
} NodeWork;

/* By node of the training graph: the highest rank of its launches, and how many have it. */
static NodeWork *node_work(Run *r) {
    const PlanProgram *p = &r->plan->program[0];
    NodeWork *w = NEWN(r->c->a, NodeWork, r->b.train->nnode + 1);
    for (uint32_t s = 0; s < p->nsection; s++)
        for (uint32_t i = p->section[s].instr0; i < p->section[s].instr0 + p->section[s].ninstr; i++) {
            NodeWork *n = &w[r->plan->instr[i].node];
            int rank = work_rank(r->plan, &r->plan->instr[i]);
            if (rank > n->rank) *n = (NodeWork){rank, 0};
            n->launches += rank == n->rank;
        }
    return w;
}

/* Time by kernel over the steps of this start. The FLOPs of a node of several launches are shared by those
 * that do the work. */
static bool put_profile(Run *r, const int64_t *ns, int64_t steps) {
    Cli *c = r->c;
    const PlanProgram *p = &r->plan->program[0];
    KernelTime *t = NEWN(c->a, KernelTime, r->plan->nkernel + 1);
    const NodeWork *work = node_work(r);
    int64_t total = 0;
    for (uint32_t i = 0; i < r->plan->nkernel; i++) t[i].kernel = i;
    for (uint32_t s = 0; s < p->nsection; s++)
        for (uint32_t i = p->section[s].instr0; i < p->section[s].instr0 + p->section[s].ninstr; i++) {
            const PlanInstr *in = &r->plan->instr[i];
            uint32_t k = in->op == I_LAUNCH ? in->kernel : r->plan->nkernel;
            int64_t times = (p->section[s].micro ? p->micro : 1) * steps;
            t[k].ns += ns[i];
            t[k].launches += times;
            const NodeWork *w = &work[in->node];
            if (w->rank == work_rank(r->plan, in))
                t[k].flops += instr_flops(r->b.train, in) * (double)times / (double)w->launches;
            for (uint32_t b = 0; in->op == I_LAUNCH && b < r->plan->kernel[k].narg; b++)
                t[k].bytes += r->plan->kernel[k].arg_bytes[b] * times;
            total += ns[i];
        }
    t[r->plan->nkernel].kernel = UINT32_MAX;
    qsort(t, r->plan->nkernel + 1, sizeof *t, by_time);
    Sbuf b;
    sb_init(&b, c->a);
    sb_fmt(&b, "%9s %6s %8s %8s %8s  kernel (%.1f ms a step)\n", "ms/step", "share", "launches", "GFLOP/s",
           "GB/s", (double)total * 1e-6 / (double)steps);
    for (uint32_t i = 0; i <= r->plan->nkernel && (i < 40 || c->verbose); i++) {
        if (!t[i].ns) continue;
        double ms = (double)t[i].ns * 1e-6 / (double)steps, s = (double)t[i].ns * 1e-9;
        sb_fmt(&b, "%9.3f %5.1f%% %8lld %8.1f %8.1f  %s\n", ms, 100.0 * (double)t[i].ns / (double)total,
               (long long)(t[i].launches / steps), t[i].flops / s / 1e9, (double)t[i].bytes / s / 1e9,
               t[i].kernel == UINT32_MAX ? "sums over micro-batches, copies"
                                         : r->plan->kernel[t[i].kernel].what);
    }
    return put_out(c, b.s, b.len);
}

static int train(Run *r) {
    Cli *c = r->c;
    Config *k = r->s.config;
    TrainOptions o = {.dir = r->dir,
                      .owner = r->owner,
                      .n_epochs = config_num(k, "training.n_epochs"),
                      .log_interval = config_int(k, "training.log_interval"),
                      .validate_every = config_num(k, "training.validate_every"),
                      .save_every = config_num(k, "checkpoint.save_checkpoint_every"),
                      .save_best = config_bool(k, "checkpoint.save_best"),
                      .save_total_limit = config_int(k, "checkpoint.save_total_limit"),
                      .best_mode = r->s.info.best_mode ? r->s.info.best_mode : "min",
                      .best_metric = r->s.val ? (r->s.info.best_metric ? r->s.info.best_metric : "val.loss")
                                              : "train.loss",
                      .seed = (uint64_t)config_num(k, "training.seed"),
                      .info = &r->info,
                      .stop = r->stop,
                      .tty = c->progress,
                      .say = progress,
                      .ctx = r,
                      .max_steps = c->steps};
    TrainResult t;
    if (!write_run_json(r, "running", NULL)) return diags_exit(c->d);
    int64_t *ns = c->profile ? NEWN(c->a, int64_t, r->plan->ninstr + 1) : NULL;
    exec_profile(r->e, ns);
    int code = train_run(c->env, r->e, r->plan, r->s.train, r->s.val, &o, &t, c->d);
    const char *status = code == EXIT_DONE    ? t.step == t.steps ? "done" : "stopped"
                         : code == EXIT_AGAIN ? "stopped"
                                              : "failed";
    if (!write_run_json(r, status, &t) && code == EXIT_DONE) code = diags_exit(c->d);
    if (code == EXIT_DONE && t.step == t.steps && t.resumed_from == t.steps)
        say(c, "%s is done: %lld steps; more training.n_epochs would go on", r->dir, (long long)t.steps);
    if (c->verbose && t.median_step_s > 0)
        say(c,
            "first step %.3f s, then %.1f ms (median), %.0f tokens/s; kernels: %u from the cache, %u built "
            "in %.2f s",
            t.first_step_s, t.median_step_s * 1e3, t.tokens_per_s, r->k.stats.hits, r->k.stats.built,
            (double)r->k.stats.build_ns * 1e-9);
    int64_t steps = t.step - (t.resumed_from > 0 ? t.resumed_from : 0);
    if (ns && steps > 0 && !put_profile(r, ns, steps)) code = EXIT_IO;
    if (code == EXIT_DONE && t.sha256[0]) {
        const char *line = arena_fmt(c->a, "parameters sha256 %s\n", t.sha256);
        if (!put_out(c, line, strlen(line))) code = EXIT_IO;
    }
    return code;
}

static int run(Run *r) {
    Cli *c = r->c;
    if (!prepare(r) || !fits(r)) return diags_exit(c->d);
    r->dir = config_str(r->s.config, "checkpoint.save_dir");
    if (!path_make_dirs(c->env, r->dir, c->d) || !(r->owner = owner_take(c->env, r->dir, c->d))) {
        cli_because(c, r->s.config, "checkpoint.save_dir");
        return diags_exit(c->d);
    }
    if (!kernels_get(c->a, r->plan, r->b.source, &r->k, c->d)) return diags_exit(c->d);
    if (!(r->dev = device_cpu(c->env, (int)config_int(r->s.config, "runtime.threads"), c->d)))
        return diags_exit(c->d);
    r->e =
        exec_open(c->env, r->plan, r->k.fn, r->dev, (uint64_t)config_num(r->s.config, "training.seed"), c->d);
    if (!r->e || !exec_init_states(r->e, c->d) || !load_models(r) || !checkpoint_info(r) || !write_files(r))
        return diags_exit(c->d);
    data_set_vocab(r->s.train, vocab_of(r->b.train));
    if (r->s.val) data_set_vocab(r->s.val, vocab_of(r->b.train));
    say(c, "%s: %lld steps of %lld x %lld samples, %.1f MB planned, %u kernels (%u built)",
        r->plan->graph_name, (long long)r->s.total_steps, (long long)r->s.build.micro,
        (long long)r->s.build.batch, (double)plan_memory(r->plan) / 1e6, r->plan->nkernel, r->k.stats.built);
    return train(r);
}

static void finish(Run *r) {
    exec_close(r->e);
    if (r->dev) r->dev->close(r->dev);
    kernels_close(&r->k);
    owner_release(r->owner);
    session_close(&r->s);
}

int cmd_run(Cli *c) {
    Run r = {.c = c};
    c->progress = isatty(2) && !c->quiet;
    r.stop =
        signals_install(); /* before anything takes long: compiling and loading are stopped at their end */
    int code = run(&r);
    finish(&r);
    return code;
}

static int compile(Run *r) {
    Cli *c = r->c;
    Sbuf b;
    if (!session_open(c, &r->s, DATA_ALL) || !build_plan(c->a, &r->s.build, &r->b, c->d))
        return diags_exit(c->d);
    if (!kernels_get(c->a, &r->b.plan, r->b.source, &r->k, c->d)) return diags_exit(c->d);
    sb_init(&b, c->a);
    plan_print(&r->b.plan, &b);
    if (!c->out) return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
    if (!file_write_atomic(c->env, c->out, b.s, b.len, c->d)) return diags_exit(c->d);
    say(c, "%s: %u kernels (%u built), %.1f MB", c->out, r->b.plan.nkernel, r->k.stats.built,
        (double)plan_memory(&r->b.plan) / 1e6);
    return EXIT_DONE;
}

int cmd_compile(Cli *c) {
    Run r = {.c = c};
    int code = compile(&r);
    finish(&r);
    return code;
}
