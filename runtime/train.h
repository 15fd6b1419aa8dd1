/* train.h: the training loop: epochs, validation, checkpoints, metrics, stopping and going on. */
#ifndef WM_TRAIN_H
#define WM_TRAIN_H

#include "runtime/checkpoint.h"
#include "runtime/data.h"

typedef struct {
    const char *dir; /* run directory; exists and is owned */
    Owner *owner;
    double n_epochs;
    int64_t log_interval;  /* steps between two lines for people; metrics.jsonl has every step */
    double validate_every; /* epochs; 0: only after the last step */
    double save_every;     /* epochs; 0: only after the last step */
    bool save_best;
    int64_t save_total_limit;
    const char *best_mode;   /* "min" or "max" */
    const char *best_metric; /* "val.loss", "train.ce" .. */
    uint64_t seed;
    const CkptInfo *info;     /* models, config text and hashes that every checkpoint carries */
    const volatile int *stop; /* set by a signal handler: save at the step's end and return EXIT_AGAIN */
    bool tty;                 /* one line rewritten in place, with a bar */
    void (*say)(void *ctx, const char *line, bool stays); /* a line for people, without newline */
    void *ctx;
    int64_t
        max_steps; /* stop (done) after that many steps of this start; 0: no limit. For timing and tests. */
} TrainOptions;

typedef struct {
    int64_t step, steps;  /* done, and of the whole run */
    int64_t resumed_from; /* -1: a fresh start */
    int64_t best_step;    /* -1: none */
    double best, last_loss, first_step_s, median_step_s, tokens_per_s;
    char sha256[65];
} TrainResult;

/* Steps of an epoch: ceil(items / (batch * G)); of the run: ceil(n_epochs * that). */
int64_t train_epoch_steps(int64_t items, int64_t batch, int64_t micro);
int64_t train_total_steps(double n_epochs, int64_t epoch_steps);
/* Is there an event of every `every` epochs (0: none) after `done` steps? It falls after steps ceil(j * every
 * * E). */
bool train_event(int64_t done, double every, int64_t epoch_steps, int64_t total);

/* Resumes from the newest checkpoint of dir, if any, and trains to the end. val may be NULL. Returns the exit
 * code: 0, 75 stopped by a signal (saved), 79 non-finite (nothing saved since), or that of the error in d. */
int train_run(Env *env, Exec *e, const Plan *plan, DataSet *train, DataSet *val, const TrainOptions *o,
              TrainResult *r, Diags *d);

/* ---- metrics.jsonl (observe/metrics.c): one object a line, by step */
typedef struct Metrics Metrics;
/* Opens DIR/metrics.jsonl for appending after cutting what lies beyond `step` (and a half-written last line).
 */
Metrics *metrics_open(Env *env, const char *dir, int64_t step, Diags *d);
bool metrics_line(Metrics *m, const char *text, size_t len, Diags *d); /* a whole object without newline */
void metrics_close(Metrics *m);

#endif
