/* session.c: from a file and a configuration to the options of every folder: the only place that knows both
 * the keys that users write and the structs that the folders take. */
#include "cli/keys.h"

#include <string.h>

bool cli_because(Cli *c, const Config *k, const char *key) {
    Loc loc = config_loc(k, key);
    for (uint32_t i = 0; i < c->d->n; i++) {
        Diag *g = c->d->item[i];
        if (g->level != LEVEL_ERROR || g->span[0].loc.file) continue;
        if (loc.file)
            g->span[0].loc = loc;
        else
            diag_note(c->d, g, "this is `%s`, by default", key);
    }
    return false;
}

bool file_exists(Env *env, const char *path) {
    EnvStat st;
    int err;
    return env->stat(env, path, &st, &err) == 0;
}

const char *cli_file(Cli *c, Config *config) {
    const char *f = c->narg ? c->arg[0] : config ? config_str(config, "graph.file") : "";
    if (f[0]) return f;
    diag_add(c->d, R007, NOLOC, "%s: a .wg file is missing; give it on the command line or as graph.file",
             c->command);
    return NULL;
}

const char *const *cli_search_path(Cli *c, uint32_t *n) {
    const char **list = NEWN(c->a, const char *, 32);
    const char *env = c->env->getenv(c->env, "WMTPC_PATH");
    *n = 0;
    if (c->from) list[(*n)++] = c->from;
    while (env && *env && *n < 28) {
        const char *colon = strchr(env, ':');
        size_t len = colon ? (size_t)(colon - env) : strlen(env);
        if (len) list[(*n)++] = arena_str(c->a, env, len);
        env = colon ? colon + 1 : NULL;
    }
    const char *slash = strrchr(c->self, '/');
    if (slash) list[(*n)++] = arena_fmt(c->a, "%.*s/../graphs", (int)(slash - c->self), c->self);
    list[(*n)++] = "graphs";
    return list;
}

static bool is_warning(const char *name) {
    for (int i = 0; i < NCODE; i++)
        if (name[0] == 'W' && strcmp(code_info[i].name, name) == 0) return true;
    return false;
}

bool cli_warnings(Cli *c, LowerOptions *o) {
    const char **no = NEWN(c->a, const char *, c->nwarn + 1), **on = NEWN(c->a, const char *, c->nwarn + 1);
    o->no_warn = no;
    o->warn = on;
    for (uint32_t i = 0; i < c->nwarn; i++) {
        const char *w = c->warn[i];
        bool off = strncmp(w, "no-", 3) == 0;
        if (strcmp(w, "error") == 0)
            o->werror = true;
        else if (!is_warning(off ? w + 3 : w))
            return diag_fail(c->d, R007, NOLOC,
                             "-W %s: `error`, a warning as in W061, or one to leave out as in no-W063", w);
        else if (off)
            no[o->nno_warn++] = w + 3;
        else
            on[o->nwarn++] = w;
    }
    return true;
}

static bool pass_off(Cli *c, PassOptions *o, const char *name) {
    const struct {
        const char *name;
        bool *off;
    } row[] = {{"simplify", &o->off_simplify}, {"linear_ce", &o->off_linear_ce},
               {"classes", &o->off_classes},   {"fuse", &o->off_fuse},
               {"schedule", &o->off_schedule}, {"memplan", &o->off_memplan}};
    for (size_t i = 0; i < WM_LEN(row); i++)
        if (strcmp(row[i].name, name) == 0) return *row[i].off = true;
    return diag_fail(
        c->d, R007, NOLOC,
        "--skip=%s: only simplify, linear_ce, classes, fuse, schedule and memplan can be left out", name);
}

static void dump_after(void *ctx, int index, const char *pass, const Graph *before, const Graph *after) {
    Cli *c = ctx;
    Sbuf b;
    sb_init(&b, c->a);
    bool want = c->dump_ir && (strcmp(c->dump_ir, "all") == 0 || strcmp(c->dump_ir, pass) == 0);
    if (c->dump_ir && strcmp(c->dump_ir, "changed") == 0) want = !before || !graph_equal(before, after, NULL);
    if (!want && !c->dump_dir) return;
    graph_print(after, &b, c->verbose);
    if (want) {
        const char *head = arena_fmt(c->a, "# after %s (%s)\n", pass, after->phase);
        put_out(c, head, strlen(head));
        put_out(c, b.s, b.len);
    }
    if (c->dump_dir && path_make_dirs(c->env, c->dump_dir, c->d)) {
        const char *phase = strcmp(after->phase, "val") == 0 ? "val-" : "";
        file_write_atomic(c->env, arena_fmt(c->a, "%s/%s%02d-%s.wir", c->dump_dir, phase, index, pass), b.s,
                          b.len, c->d);
    }
}

bool cli_passes(Cli *c, PassOptions *o) {
    for (uint32_t i = 0; i < c->nskip; i++)
        if (!pass_off(c, o, c->skip[i])) return false;
    if (c->stop_after && !pass_find(c->stop_after))
        return diag_fail(c->d, R007, NOLOC, "--stop-after=%s: there is no such pass", c->stop_after);
    if (c->dump_ir && strcmp(c->dump_ir, "all") != 0 && strcmp(c->dump_ir, "changed") != 0 &&
        !pass_find(c->dump_ir))
        return diag_fail(c->d, R007, NOLOC, "--dump-ir=%s: there is no such pass", c->dump_ir);
    o->stop_after = c->stop_after;
    if (c->dump_ir || c->dump_dir) {
        o->after = dump_after;
        o->ctx = c;
    }
    return true;
}

static void stored_shapes(Cli *c, const StSet *set, ModelSource *m) {
    const StTensor **t;
    uint32_t n = st_set_list(set, c->a, &t);
    StoredShape *s = NEWN(c->a, StoredShape, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        s[i].name = t[i]->name;
        s[i].ndim = t[i]->ndim;
        memcpy(s[i].shape, t[i]->shape, sizeof s[i].shape);
    }
    m->stored = s;
    m->nstored = n;
}

/* Every key under models.NAME is a config or a dim of the modules behind that model. */
static bool known_settings(Cli *c, const GraphModel *m, const ConfigModel *cm) {
    bool ok = true;
    for (uint32_t i = 0; i < cm->nset; i++) {
        bool found = false;
        for (uint32_t k = 0; k < m->nsetting; k++)
            found = found || strcmp(m->setting[k], cm->set[i].key) == 0;
        if (found) continue;
        Diag *g = diag_add(c->d, C002, cm->set_loc[i], "unknown key `models.%s.%s`", m->name, cm->set[i].key);
        const char *near = text_nearest(cm->set[i].key, m->setting, m->nsetting);
        Sbuf b;
        sb_init(&b, c->a);
        for (uint32_t k = 0; k < m->nsetting; k++) sb_fmt(&b, "%s%s", k ? ", " : "", m->setting[k]);
        if (near) diag_help(c->d, g, "did you mean `%s`?", near);
        if (near) diag_fix(c->d, g, cm->set_loc[i], false, "%s", near);
        diag_note(c->d, g, "%s reads path, prefix, missing, ignore%s%s", m->kind, m->nsetting ? ", " : "",
                  b.s ? b.s : "");
        ok = false;
    }
    return ok;
}

static bool open_model(Cli *c, Session *s, uint32_t i, ModelSource *out) {
    const GraphModel *m = &s->info.model[i];
    const ConfigModel *cm = config_model(s->config, m->name);
    *out = (ModelSource){.model = m->name, .prefix = ""};
    s->model_path[i] = "";
    if (!cm) return true;
    if (!known_settings(c, m, cm)) return false;
    out->yaml = cm->set;
    out->nyaml = cm->nset;
    out->prefix = cm->prefix;
    out->missing_init = strcmp(cm->missing, "init") == 0;
    if (!cm->path[0]) return true;
    s->model_path[i] = cm->path;
    const char *set = i == 0 ? "model" : m->name;
    if (!keys_read(c, m, cm, out) || !st_open_set(c->env, c->a, cm->path, set, &s->set[i], c->d))
        return cli_because(c, s->config, arena_fmt(c->a, "models.%s.path", m->name));
    out->has_weights = true;
    stored_shapes(c, &s->set[i], out);
    return true;
}

static bool known_models(Cli *c, Session *s) {
    uint32_t n;
    const ConfigModel *cm = config_models(s->config, &n);
    for (uint32_t i = 0; i < n; i++) {
        bool found = false;
        const char **name = NEWN(c->a, const char *, s->info.nmodel + 1);
        for (uint32_t k = 0; k < s->info.nmodel; k++) {
            name[k] = s->info.model[k].name;
            found = found || strcmp(name[k], cm[i].name) == 0;
        }
        if (found) continue;
        /* one configuration may serve several graphs: a model that this one lacks is a warning, a misspelt
         * one an error */
        const char *near = text_nearest(cm[i].name, name, s->info.nmodel);
        bool taken = near && config_model(s->config, near);
        bool typed = cm[i].loc.file && strcmp(cm[i].loc.file, "command line") == 0; /* said for this graph */
        if (!typed && (!near || taken)) {
            if (c->verbose) diag_add(c->d, W062, cm[i].loc, "the graph has no model `%s`", cm[i].name);
            continue;
        }
        Diag *g = diag_add(c->d, C002, cm[i].loc, "the graph has no model `%s`", cm[i].name);
        if (near) diag_help(c->d, g, "did you mean `%s`?", near);
        return false;
    }
    return true;
}

static bool bins(Cli *c, Session *s, DataOptions *o) {
    double *bin = NULL, *weight = NULL, *cur = NULL;
    uint32_t n, two, r, m, rows, cols;
    Config *k = s->config;
    if (!config_rows(k, c->a, "data_sampling.difficulty_bins", &bin, &n, &two, c->d) ||
        !config_rows(k, c->a, "data_sampling.difficulty_weights", &weight, &r, &m, c->d) ||
        !config_rows(k, c->a, "data_sampling.curriculum", &cur, &rows, &cols, c->d))
        return false;
    if (n == 0) return true;
    if (two != 2)
        return diag_fail(c->d, C003, config_loc(k, "data_sampling.difficulty_bins"),
                         "`data_sampling.difficulty_bins` is a list of pairs [lo, hi]");
    if ((m && m != n) || (rows && cols != n))
        return diag_fail(c->d, C003,
                         config_loc(k, rows && cols != n ? "data_sampling.curriculum"
                                                         : "data_sampling.difficulty_weights"),
                         "one weight for each of the %u difficulty bins is needed", n);
    for (uint32_t i = 0; i < m + rows * cols; i++)
        if (!((i < m ? weight[i] : cur[i - m]) >= 0 && (i < m ? weight[i] : cur[i - m]) <= 1e9))
            return diag_fail(
                c->d, C003,
                config_loc(k, i < m ? "data_sampling.difficulty_weights" : "data_sampling.curriculum"),
                "the weight of a difficulty bin is a number from 0 to 1e9");
    DifficultyBin *b = NEWN(c->a, DifficultyBin, n);
    for (uint32_t i = 0; i < n; i++) b[i] = (DifficultyBin){bin[2 * i], bin[2 * i + 1], m ? weight[i] : 1};
    o->bin = b;
    o->nbin = n;
    o->curriculum = cur;
    o->ncurriculum = rows;
    return true;
}

/* What both data sets have in common. */
static DataOptions data_options(Cli *c, Session *s, const char *name) {
    Config *k = s->config;
    if (!s->field) {
        s->field = NEWN(c->a, DataField, s->info.ninput + 1);
        for (uint32_t i = 0; i < s->info.ninput; i++)
            s->field[s->nfield++] = (DataField){
                s->info.input[i].name, s->info.input[i].from ? s->info.input[i].from : s->info.input[i].name,
                s->info.input[i].loc};
    }
    return (DataOptions){.name = name,
                         .draw = s->info.side > 1    ? DRAW_PAIR
                                 : s->info.group > 1 ? DRAW_GROUP
                                                     : DRAW_ONE,
                         .width = s->info.side > 1    ? s->info.side
                                  : s->info.group > 1 ? s->info.group
                                                      : 1,
                         .correct_only = config_bool(k, "data_sampling.correct_only"),
                         .max_pairs_per_problem = config_int(k, "data_sampling.max_pairs_per_problem"),
                         .template_name = config_str(k, "dataset.template"),
                         .max_length = s->build.seq,
                         .vocab = INT64_MAX,
                         .seed = (uint64_t)config_num(k, "training.seed")};
}

/* The validation set, which decides how many micro-batches its program has. */
static bool open_validation(Cli *c, Session *s) {
    const char *val = config_str(s->config, "dataset.validation");
    if (!val[0]) return true;
    DataOptions o = data_options(c, s, "validation");
    if (!(s->val = data_open(c->env, val, &o, s->field, s->nfield, c->d)))
        return cli_because(c, s->config, "dataset.validation");
    s->build.val_micro = (data_items(s->val) + s->build.batch - 1) / s->build.batch;
    return true;
}

static bool open_training(Cli *c, Session *s) {
    Config *k = s->config;
    DataOptions o = data_options(c, s, "train");
    o.n_samples = config_int(k, "data_sampling.n_samples");
    o.balance_correct = config_bool(k, "data_sampling.balance_correct");
    o.correct_ratio = config_num(k, "data_sampling.correct_ratio");
    o.shuffle = true;
    const char *train = config_str(k, "dataset.train");
    if (o.correct_ratio > 1)
        return diag_fail(c->d, C003, config_loc(k, "data_sampling.correct_ratio"),
                         "`data_sampling.correct_ratio` is a share from 0 to 1");
    if (!bins(c, s, &o)) return false;
    if (!train[0]) {
        Diag *g = diag_add(c->d, C003, NOLOC, "`dataset.train` is not set: the JSON lines to train on");
        diag_help(c->d, g,
                  c->config ? "write it into %s, or on the command line: dataset.train=FILE"
                            : "give a configuration, as in -c configs/micro.yaml%s",
                  c->config ? c->config : "");
        return false;
    }
    if (!(s->train = data_open(c->env, train, &o, s->field, s->nfield, c->d)))
        return cli_because(c, k, "dataset.train");
    s->epoch_steps = train_epoch_steps(data_items(s->train), s->build.batch, s->build.micro);
    s->total_steps = train_total_steps(config_num(k, "training.n_epochs"), s->epoch_steps);
    return true;
}

/* A shape is worked out where the data is and where it is not. */
static bool open_data(Cli *c, Session *s, SessionData want) {
    const char *val = config_str(s->config, "dataset.validation");
    if (want == DATA_NONE || (want == DATA_SHAPE && !file_exists(c->env, val))) return true;
    return (want != DATA_ALL || open_training(c, s)) && open_validation(c, s);
}

static bool read_build(Cli *c, Session *s) {
    Config *k = s->config;
    BuildOptions *b = &s->build;
    b->file = s->file;
    b->batch = config_int(k, "training.batch_size");
    b->micro = config_is_set(k, "training.gradient_accumulation_steps")
                   ? config_int(k, "training.gradient_accumulation_steps")
                   : config_int(k, "training.micro_batches");
    b->seq = config_int(k, "dataset.max_length");
    b->hyper = config_hypers(k, &b->nhyper);
    b->path = cli_search_path(c, &b->npath);
    const char *precision = config_str(k, "runtime.precision");
    b->pass.real = strcmp(precision, "f64") == 0 ? DT_F64 : DT_F32;
    const struct {
        const char *key;
        bool ok;
        const char *allowed;
    } check[] = {
        {"training.batch_size", b->batch >= 1, "a whole number from 1 on"},
        {"training.micro_batches", b->micro >= 1, "a whole number from 1 on"},
        {"dataset.max_length", b->seq >= 2, "a whole number from 2 on"},
        {"runtime.precision", strcmp(precision, "f64") == 0 || strcmp(precision, "f32") == 0, "f32 or f64"},
        {"runtime.device", strcmp(config_str(k, "runtime.device"), "cpu") == 0, "cpu in this version"},
        {"runtime.reduce", strcmp(config_str(k, "runtime.reduce"), "canonical") == 0,
         "canonical in this version"},
        {"distributed.sharding_strategy",
         strcmp(config_str(k, "distributed.sharding_strategy"), "NO_SHARD") == 0,
         "NO_SHARD in this version: it runs on one rank"},
        {"training.n_epochs", config_num(k, "training.n_epochs") > 0, "a number above 0"},
        {"training.log_interval", config_int(k, "training.log_interval") >= 1, "a whole number from 1 on"},
    };
    for (size_t i = 0; i < WM_LEN(check); i++)
        if (!check[i].ok)
            return diag_fail(c->d, C003, config_loc(k, check[i].key), "`%s` is %s, not '%s'", check[i].key,
                             check[i].allowed, config_str(k, check[i].key));
    LowerOptions w = {0};
    if (!cli_warnings(c, &w)) return false;
    b->werror = w.werror;
    b->no_warn = w.no_warn;
    b->nno_warn = w.nno_warn;
    b->warn = w.warn;
    b->nwarn = w.nwarn;
    return cli_passes(c, &b->pass);
}

/* What the plan remembers: the keys that shaped it, the fields of its inputs, how many answers an item has.
 */
static void plan_options(Cli *c, Session *s) {
    const char **o = NEWN(c->a, const char *, config_nkey + s->info.ninput + s->build.nhyper + 5);
    uint32_t n = 0;
    for (uint32_t i = 0; i < config_nkey; i++)
        if (strcmp(config_key[i].where, "plan") == 0 && strcmp(config_key[i].path, "graph.file") != 0)
            o[n++] = arena_fmt(c->a, "%s=%s", config_key[i].path, config_str(s->config, config_key[i].path));
    for (uint32_t i = 0; i < s->info.ninput; i++)
        o[n++] = arena_fmt(c->a, "input.%s=%s", s->info.input[i].name,
                           s->info.input[i].from ? s->info.input[i].from : s->info.input[i].name);
    for (uint32_t i = 0; i < s->build.nhyper; i++) {
        const ConstValue *v = &s->build.hyper[i].v;
        Sbuf b;
        sb_init(&b, c->a);
        sb_fmt(&b, "graph.%s=", s->build.hyper[i].key);
        if (v->kind == VAL_STRING)
            sb_str(&b, v->str);
        else if (v->kind == VAL_BOOL)
            sb_str(&b, v->num != 0 ? "true" : "false");
        else
            sb_double(&b, v->num);
        o[n++] = b.s;
    }
    o[n++] = arena_fmt(c->a, "graph.source=%s", s->file);
    o[n++] = arena_fmt(c->a, "draw.side=%lld", (long long)s->info.side);
    o[n++] = arena_fmt(c->a, "draw.group=%lld", (long long)s->info.group);
    s->build.option = o;
    s->build.noption = n;
    Sbuf b;
    sb_init(&b, c->a);
    for (uint32_t i = 0; i < n; i++) sb_fmt(&b, "%s\n", o[i]);
    char *hash = NEWN(c->a, char, 33);
    hash128_hex(b.s, b.len, hash);
    s->build.config_hash = hash;
}

bool session_open(Cli *c, Session *s, SessionData want) {
    memset(s, 0, sizeof *s);
    if (c->ranks > 1)
        return diag_fail(c->d, C003, NOLOC, "-n %lld: this version runs on one rank", (long long)c->ranks);
    s->config = config_load(c->a, c->env, c->config, c->override, c->noverride, c->d);
    if (!s->config || !(s->file = cli_file(c, s->config)) || !read_build(c, s)) return false;
    LowerOptions lo = {.phase = "train",
                       .micro = s->build.micro,
                       .batch = s->build.batch,
                       .seq = s->build.seq,
                       .hyper = s->build.hyper,
                       .nhyper = s->build.nhyper,
                       .path = s->build.path,
                       .npath = s->build.npath};
    if (!frontend_info(c->a, s->file, &lo, &s->info, c->d) || !known_models(c, s)) return false;
    ModelSource *m = NEWN(c->a, ModelSource, s->info.nmodel + 1);
    s->set = NEWN(c->a, StSet, s->info.nmodel + 1);
    s->model_path = NEWN(c->a, const char *, s->info.nmodel + 1);
    s->model_config = NEWN(c->a, const char *, s->info.nmodel + 1);
    for (uint32_t i = 0; i < s->info.nmodel; i++)
        if (!open_model(c, s, i, &m[i])) return false;
    s->build.model = m;
    s->build.nmodel = s->info.nmodel;
    if (!open_data(c, s, want)) return false;
    plan_options(c, s);
    return true;
}

void session_close(Session *s) {
    for (uint32_t i = 0; s->set && i < s->info.nmodel; i++) st_close_set(&s->set[i]);
    data_close(s->train);
    data_close(s->val);
}
