/* loop.c: steps of the optimizer, and what happens between them. All that a run must remember over a stop is
 * in the checkpoint: states, the step (which is the data cursor: the order of samples is a function of it),
 * the best value so far, and `extra`: the mean loss since the last checkpoint and whether a validation is
 * still owed. */
#include "runtime/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t train_epoch_steps(int64_t items, int64_t batch, int64_t micro) {
    return (items + batch * micro - 1) / (batch * micro);
}

/* ceil of a product of settings: 2.0 * 50 must be 100 whatever the last bit of 2.0 is */
static int64_t ceil_of(double x) {
    return (int64_t)ceil(x - 1e-9);
}

int64_t train_total_steps(double n_epochs, int64_t epoch_steps) {
    return ceil_of(n_epochs * (double)epoch_steps);
}

bool train_event(int64_t done, double every, int64_t epoch_steps, int64_t total) {
    if (done >= total) return true;
    if (every <= 0) return false;
    double length = every * (double)epoch_steps;
    int64_t j = (int64_t)((double)done / length);
    for (int64_t k = j > 1 ? j - 1 : 1; k <= j + 1; k++)
        if (ceil_of((double)k * length) == done) return true;
    return false;
}

typedef struct {
    Env *env;
    Exec *e;
    const Plan *plan;
    DataSet *train, *val;
    const TrainOptions *o;
    TrainResult *r;
    Diags *d;
    StateView view;
    Metrics *metrics;
    int program_train, program_val;
    int64_t epoch_steps;
    double loss_sum; /* since the last checkpoint */
    int64_t loss_n;
    bool owes_validation; /* the stop came before the validation of this step */
    int64_t best_step;
    double best;
    int64_t tokens;  /* of the last step, without padding */
    double *seconds; /* of each step of this start */
    int64_t nseconds;
    int64_t start_ns;
} Loop;

static const PlanProgram *program(const Loop *l, int k) {
    return &l->plan->program[k];
}

static bool stopping(const Loop *l) {
    return l->o->stop && *l->o->stop;
}

static void put_numbers(Loop *l, Sbuf *b, int prog, const char *phase) {
    const PlanProgram *p = program(l, prog);
    for (uint32_t i = 0; i < p->noutput; i++) {
        const PlanOutput *v = &p->output[i];
        bool total = strcmp(v->kind, "total") == 0;
        if (!total && strcmp(v->kind, "loss") != 0 && strcmp(v->kind, "metric") != 0) continue;
        const char *name = total ? "loss" : v->name;
        if (strcmp(v->kind, "metric") == 0 && strcmp(name, "loss") == 0) continue;
        sb_fmt(b, ", \"%s.%s\": ", phase, name);
        json_number(b, exec_number(l->e, prog, v->kind, v->name));
    }
}

/* The value of `val.loss`, `train.ce` .. after the last step of its program; NaN if there is none. */
static double metric_value(Loop *l, const char *full) {
    const char *dot = strchr(full, '.');
    if (!dot) return (double)NAN;
    int prog = strncmp(full, "val.", 4) == 0 ? l->program_val : l->program_train;
    if (prog < 0) return (double)NAN;
    if (strcmp(dot + 1, "loss") == 0) return exec_number(l->e, prog, "total", "total");
    double v = exec_number(l->e, prog, "metric", dot + 1);
    return isnan(v) ? exec_number(l->e, prog, "loss", dot + 1) : v;
}

static bool log_step(Loop *l, Arena *a, int64_t done, double seconds) {
    Sbuf b;
    sb_init(&b, a);
    sb_fmt(&b, "{\"step\": %lld, \"epoch\": ", (long long)done);
    json_number(&b, (double)done / (double)l->epoch_steps);
    put_numbers(l, &b, l->program_train, "train");
    sb_str(&b, ", \"grad_norm\": ");
    json_number(&b, exec_number(l->e, l->program_train, "grad_norm", "grad_norm"));
    const PlanProgram *p = program(l, l->program_train);
    for (uint32_t i = 0; i < p->noutput; i++)
        if (strcmp(p->output[i].kind, "lr") == 0) {
            sb_fmt(&b, ", \"lr.%s\": ", p->output[i].name);
            json_number(&b, exec_number(l->e, l->program_train, "lr", p->output[i].name));
        }
    sb_fmt(&b, ", \"tokens\": %lld, \"tokens_per_s\": %.1f, \"step_s\": %.4f}", (long long)l->tokens,
           (double)l->tokens / seconds, seconds);
    return metrics_line(l->metrics, b.s, b.len, l->d);
}

static void bar(Sbuf *b, int64_t done, int64_t total) {
    static const char *const part[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
    int64_t eighths = total ? done * 8 * 20 / total : 0;
    sb_chr(b, '|');
    for (int i = 0; i < 20; i++) {
        int64_t n = eighths - 8 * i;
        sb_str(b, part[n >= 8 ? 8 : n < 0 ? 0 : n]);
    }
    sb_str(b, "| ");
}

static void say_step(Loop *l, Arena *a, int64_t done, double seconds) {
    bool stays = done % l->o->log_interval == 0 || done == l->r->steps;
    if (!l->o->tty && !stays) return;
    Sbuf b;
    sb_init(&b, a);
    if (l->o->tty) bar(&b, done, l->r->steps);
    sb_fmt(&b, "step %lld/%lld  loss %.4f", (long long)done, (long long)l->r->steps, l->r->last_loss);
    const PlanProgram *p = program(l, l->program_train);
    int shown = 0;
    for (uint32_t i = 0; i < p->noutput && shown < 4; i++)
        if (strcmp(p->output[i].kind, "loss") == 0) {
            sb_fmt(&b, "  %s %.4f", p->output[i].name,
                   exec_number(l->e, l->program_train, "loss", p->output[i].name));
            shown++;
        }
    double left = (double)(l->r->steps - done) * seconds;
    sb_fmt(&b, "  grad %.3g  %.0f tokens/s  %.0f MB",
           exec_number(l->e, l->program_train, "grad_norm", "grad_norm"), (double)l->tokens / seconds,
           (double)(l->plan->arena_bytes[0] + l->plan->arena_bytes[1]) / 1e6);
    if (left >= 3600)
        sb_fmt(&b, "  %.1f h left", left / 3600);
    else if (left >= 60)
        sb_fmt(&b, "  %.0f min left", left / 60);
    else
        sb_fmt(&b, "  %.0f s left", left);
    l->o->say(l->o->ctx, b.s, !l->o->tty || done == l->r->steps);
}

static bool fill(Loop *l, DataSet *s, int prog, int64_t epoch, int64_t first, int64_t *tokens) {
    *tokens = 0;
    for (int64_t m = 0; m < program(l, prog)->micro; m++) {
        int64_t n;
        if (!data_fill(s, l->e, l->plan, prog, m, epoch, first + m * l->plan->batch, &n, l->d)) return false;
        *tokens += n;
    }
    return true;
}

static bool better(const Loop *l, double v) {
    if (isnan(v)) return false;
    return l->best_step < 0 || (strcmp(l->o->best_mode, "max") == 0 ? v > l->best : v < l->best);
}

/* false with an empty d: stopped by a signal before it was done. */
static bool validate(Loop *l, int64_t done) {
    int64_t tokens;
    l->owes_validation = true;
    if (stopping(l) || !fill(l, l->val, l->program_val, 0, 0, &tokens)) return false;
    if (!exec_step(l->e, l->program_val, done, l->r->steps, l->d)) return false;
    l->owes_validation = false;
    Arena *a = arena_open(l->env, NULL);
    Sbuf b;
    sb_init(&b, a);
    sb_fmt(&b, "{\"step\": %lld, \"epoch\": ", (long long)done);
    json_number(&b, (double)done / (double)l->epoch_steps);
    put_numbers(l, &b, l->program_val, "val");
    sb_chr(&b, '}');
    bool ok = metrics_line(l->metrics, b.s, b.len, l->d);
    double v = metric_value(l, l->o->best_metric);
    bool best = better(l, v);
    if (best) l->best = v, l->best_step = done;
    char line[160];
    snprintf(line, sizeof line, "step %lld  val.loss %.4f%s", (long long)done,
             exec_number(l->e, l->program_val, "total", "total"), best ? "  (best so far)" : "");
    l->o->say(l->o->ctx, line, true);
    arena_close(a);
    return ok;
}

static bool save(Loop *l, int64_t done) {
    if (!l->val && l->loss_n && !isnan(l->loss_sum) && better(l, l->loss_sum / (double)l->loss_n)) {
        l->best = l->loss_sum / (double)l->loss_n;
        l->best_step = done;
    }
    char extra[128];
    bool boundary = train_event(done, l->o->save_every, l->epoch_steps, l->r->steps);
    if (boundary) l->loss_sum = 0, l->loss_n = 0;
    snprintf(extra, sizeof extra, "%a %lld %d", l->loss_sum, (long long)l->loss_n, l->owes_validation);
    CkptInfo info = *l->o->info;
    info.step = done;
    info.steps = l->r->steps;
    info.epoch = done / l->epoch_steps;
    info.sample = done % l->epoch_steps * l->plan->batch * program(l, l->program_train)->micro;
    info.seed = l->o->seed;
    info.best_metric = l->best_step >= 0 ? l->o->best_metric : NULL;
    info.best = l->best;
    info.best_step = l->best_step;
    info.extra = extra;
    info.replace = done == l->r->resumed_from; /* the validation that was owed has been done since */
    if (!ckpt_save(l->env, l->o->dir, l->o->owner, &l->view, &info, 0, l->d)) return false;
    int64_t final = done == l->r->steps ? done : -1;
    return ckpt_prune(l->env, l->o->dir, l->o->owner, l->o->save_total_limit, l->best_step, final, l->d);
}

static bool resume(Loop *l, Arena *a, int64_t *done) {
    const char *path = NULL;
    CkptInfo info;
    *done = 0;
    l->r->resumed_from = -1;
    if (!ckpt_clean(l->env, l->o->dir, l->o->owner, l->d) ||
        !ckpt_find(l->env, l->o->dir, INT64_MAX, a, &path, done, l->d))
        return false;
    if (!path) {
        *done = 0;
        return true;
    }
    memset(&info, 0, sizeof info);
    info.model = l->o->info->model;
    info.nmodel = l->o->info->nmodel;
    if (!ckpt_verify(l->env, path, l->d) || !ckpt_load(l->env, path, &l->view, a, &info, l->d)) return false;
    if (info.seed != l->o->seed)
        return diag_fail(l->d, R008, NOLOC, "%s was trained with seed %llu, this run asks for %llu", path,
                         (unsigned long long)info.seed, (unsigned long long)l->o->seed);
    *done = info.step;
    l->r->resumed_from = info.step;
    l->best_step = info.best_metric ? info.best_step : -1;
    l->best = info.best;
    long long n = 0;
    int owes = 0;
    if (info.extra && sscanf(info.extra, "%la %lld %d", &l->loss_sum, &n, &owes) == 3) {
        l->loss_n = n;
        l->owes_validation = owes != 0;
    }
    char line[4200];
    snprintf(line, sizeof line, "resumed from %s", path);
    l->o->say(l->o->ctx, line, true);
    return true;
}

/* What is due after `done` steps. false: error, or stopped in validation (then saved by the caller). */
static bool events(Loop *l, int64_t done) {
    bool best_before = l->best_step == done;
    if (l->val &&
        (l->owes_validation || train_event(done, l->o->validate_every, l->epoch_steps, l->r->steps)) &&
        !validate(l, done))
        return false;
    bool new_best = l->o->save_best && l->best_step == done && !best_before;
    if (new_best || train_event(done, l->o->save_every, l->epoch_steps, l->r->steps)) return save(l, done);
    return true;
}

static bool one_step(Loop *l, int64_t done) {
    int64_t t0 = l->env->now_ns(l->env), micro = program(l, l->program_train)->micro;
    int64_t first = done % l->epoch_steps * micro * l->plan->batch;
    if (!fill(l, l->train, l->program_train, done / l->epoch_steps, first, &l->tokens)) return false;
    if (!exec_step(l->e, l->program_train, done, l->r->steps, l->d)) return false;
    double seconds = (double)(l->env->now_ns(l->env) - t0) * 1e-9;
    l->r->last_loss = exec_number(l->e, l->program_train, "total", "total");
    l->loss_sum += l->r->last_loss;
    l->loss_n++;
    if (l->nseconds < 1 << 16) l->seconds[l->nseconds++] = seconds;
    if (l->nseconds == 1) l->r->first_step_s = seconds;
    Arena *a = arena_open(l->env, NULL);
    bool ok = a && log_step(l, a, done + 1, seconds);
    if (ok) say_step(l, a, done + 1, seconds);
    arena_close(a);
    return ok && owner_beat(l->o->owner, l->d);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static int loop(Loop *l, int64_t done) {
    uint32_t errors = l->d->nerror;
    int64_t began = done;
    exec_stop(l->e, l->o->stop);
    bool ok = !l->owes_validation || events(l, done);
    while (ok && done < l->r->steps && !stopping(l) && (!l->o->max_steps || done - began < l->o->max_steps)) {
        ok = one_step(l, done);
        if (ok) ok = events(l, ++done);
    }
    l->r->step = done;
    if (l->d->nerror > errors) return diags_exit(l->d);
    bool cut_short = done < l->r->steps && !stopping(l); /* max_steps */
    if (cut_short && done > began && !save(l, done)) return diags_exit(l->d);
    if (stopping(l) && (done < l->r->steps || l->owes_validation)) {
        if (!save(l, done)) return diags_exit(l->d);
        char line[96];
        snprintf(line, sizeof line, "stopped by a signal; saved after step %lld", (long long)done);
        l->o->say(l->o->ctx, line, true);
        return EXIT_AGAIN;
    }
    return EXIT_DONE;
}

int train_run(Env *env, Exec *e, const Plan *plan, DataSet *train, DataSet *val, const TrainOptions *o,
              TrainResult *r, Diags *d) {
    memset(r, 0, sizeof *r);
    Arena *a = arena_open(env, NULL);
    if (!a) return diag_fail(d, R006, NOLOC, "out of memory") ? 0 : EXIT_MEMORY;
    Loop l = {.env = env,
              .e = e,
              .plan = plan,
              .train = train,
              .val = val,
              .o = o,
              .r = r,
              .d = d,
              .view = exec_view(e, plan),
              .program_train = exec_program(e, "train"),
              .program_val = exec_program(e, "val"),
              .best_step = -1};
    l.seconds = NEWN(a, double, 1 << 16);
    l.epoch_steps = train_epoch_steps(data_items(train), plan->batch, program(&l, l.program_train)->micro);
    r->steps = train_total_steps(o->n_epochs, l.epoch_steps);
    if (l.program_val < 0) l.val = NULL;
    int64_t done = 0;
    int code = EXIT_INTERNAL;
    if (!resume(&l, a, &done) || (l.metrics = metrics_open(env, o->dir, done, d)) == NULL)
        code = diags_exit(d);
    else
        code = loop(&l, done);
    metrics_close(l.metrics);
    r->best_step = l.best_step;
    r->best = l.best;
    if (l.nseconds > 0) {
        qsort(l.seconds, (size_t)l.nseconds, sizeof *l.seconds, by_value);
        r->median_step_s = l.seconds[l.nseconds / 2];
        r->tokens_per_s = (double)l.tokens / r->median_step_s;
    }
    if ((code == EXIT_DONE || code == EXIT_AGAIN) && !state_sha256(&l.view, env, r->sha256, d))
        code = diags_exit(d);
    arena_close(a);
    return code;
}
