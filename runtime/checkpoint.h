/* checkpoint.h: what outlives a run. Ownership of a run directory, checkpoints, weights of models, hashes
 * of state.
 *
 * Everything here sees state as a StateView: the rows of a plan and where each lies in memory. Files are
 * safetensors in directories shaped like Hugging Face's, unsharded and cut by the model alone, so their
 * bytes do not depend on how the run was spread. A checkpoint exists once its directory has the name
 * step-NNNNNN: rename after fsync is the commit.
 *
 * In a run:  owner_take -> exec_open -> exec_init_states -> weights_load_view (models with a path) ->
 * ckpt_clean -> ckpt_find -> ckpt_verify -> ckpt_load -> steps, ckpt_save, ckpt_prune -> owner_release */
#ifndef WM_CHECKPOINT_H
#define WM_CHECKPOINT_H

#include "runtime/runtime.h"

/* ---- state rows and their memory */
typedef struct {
    const PlanState *row;
    uint32_t n;
    void *(*mem)(void *ctx, uint32_t row); /* the row's memory, in the order of its dims */
    void *ctx;
} StateView;
StateView exec_view(Exec *e, const Plan *p);
int64_t state_elements(const PlanState *s); /* elements */
int64_t state_bytes(const PlanState *s);
bool state_axes_ok(
    const PlanState *s); /* axes and halves parse and name each dim once: a plan is checked for it */
/* The key of a row in logs, hashes and files: MODEL/NAME, or NAME for a state of the graph. */
const char *state_key(Arena *a, const PlanState *s, NameStyle style);
/* Fills one row with its initial value: element i of the memory order takes word i & 3 of Philox
 * block i >> 2 at step 0; a normal takes words 2k and 2k + 1 (Box and Muller). exec_init_states does it
 * for all rows. D001: bad init text. */
bool state_init(const PlanState *s, uint64_t seed, void *mem, Diags *d);
/* SHA-256 of the trained parameters, in byte order of MODEL/NAME: `MODEL/NAME`, NUL, `F32` or `F64`, NUL,
 * the stored axes as `512,64`, NUL, the little-endian bytes in the row order of the first name. Equal runs
 * have equal hashes. */
bool state_sha256(const StateView *v, Env *env, char hex[65], Diags *d);
/* XXH3-128 over one model's parameters in the same form, trained or not: names a frozen model in a
 * checkpoint. */
bool model_hash(const StateView *v, Env *env, const char *model, char hex[33], Diags *d);

/* ---- the run directory (owner.c). One owner at a time: host, boot, pid and its start; a dead one is
 * succeeded with a raised epoch; one on another host counts as live while owner_beat was called within 60 s.
 */
typedef struct Owner Owner;
Owner *owner_take(Env *env, const char *dir,
                  Diags *d);               /* the directory must exist; NULL with R002 (73) if it is owned */
bool owner_still_ours(Owner *o, Diags *d); /* false with R002 if somebody else took over */
bool owner_beat(Owner *o, Diags *d);       /* writes at most every 15 s; call it once a step */
const char *owner_run_id(const Owner *o);  /* 16 hex digits */
int64_t owner_epoch(const Owner *o);
void owner_release(Owner *o); /* NULL is fine */

/* ---- checkpoints (commit.c, resume.c) */
typedef struct {
    const char *name;
    const char *config; /* text of config.json for its directory (the graph's first model), or NULL */
    const char *path;   /* where its weights came from, or NULL */
    char hash[33];      /* model_hash of a frozen model; "" for a trained one (ckpt_save fills it where it is
                           empty) */
} CkptModel;
typedef struct {
    const char *name;
    const void *data;
    size_t bytes;
} CkptFile;
typedef struct {
    int64_t step;          /* optimizer steps done */
    int64_t steps;         /* of the whole run */
    int64_t epoch, sample; /* data cursor: next epoch and position in it */
    uint64_t seed;
    const char *config; /* resolved configuration, text */
    const char *graph_hash, *plan_hash, *built,
        *machine;            /* machine: compiler, flags, CPU features; any may be NULL */
    const char *best_metric; /* NULL: no best yet */
    double best;
    int64_t best_step;
    const char *extra;      /* what else the loop keeps, its own text; NULL: nothing */
    const CkptModel *model; /* in graph order: the first one is the one whose files are called model-* */
    uint32_t nmodel;
    bool replace; /* a checkpoint of this step with other contents is exchanged for this one; saving only */
    const CkptFile *file; /* files to lay beside (tokenizer.json ..); plain names; saving only */
    uint32_t nfile;
} CkptInfo;

/* Writes DIR/step-NNNNNN by the commit protocol: temporary directory, fsync, owner checked again, rename,
 * fsync. An existing checkpoint of that step with the same files is success, with others R008. false:
 * nothing was committed and the temporary directory is gone as far as the disk allows. cut_bytes: size at
 * which files are cut; 0: 2 GiB. */
bool ckpt_save(Env *env, const char *dir, Owner *o, const StateView *v, const CkptInfo *info,
               int64_t cut_bytes, Diags *d);
/* Removes what dead runs left half-written (the owner calls it once, after owner_take). */
bool ckpt_clean(Env *env, const char *dir, const Owner *o, Diags *d);
/* Path of the newest checkpoint older than step `below` (INT64_MAX: the newest); *path NULL if there is
 * none. */
bool ckpt_find(Env *env, const char *dir, int64_t below, Arena *a, const char **path, int64_t *step,
               Diags *d);
/* Checks manifest, sizes, hashes and headers. D001 (65) names file and tensor; D002 (66): no checkpoint
 * there. */
bool ckpt_verify(Env *env, const char *path, Diags *d);
/* Reads only what stands in state.json (and MANIFEST.json); texts in a. */
bool ckpt_read_info(Env *env, const char *path, Arena *a, CkptInfo *info, Diags *d);
/* Restores parameters, moments and states, bit for bit, and info. R008 if the graph's states are others
 * than the checkpoint's, or a frozen model is another one; memory is then untouched. Call ckpt_verify
 * before. */
bool ckpt_load(Env *env, const char *path, const StateView *v, Arena *a, CkptInfo *info, Diags *d);
/* Removes the oldest checkpoints until at most `limit` are left (0: no limit), never those of best_step
 * and final_step (-1: none) nor the last two. Touches only what it recognises: name, manifest and listing
 * agree. */
bool ckpt_prune(Env *env, const char *dir, Owner *o, int64_t limit, int64_t best_step, int64_t final_step,
                Diags *d);

/* ---- weights and configurations of models (weights.c, export.c) */
/* Like weights_load, over any rows. `names`: what the file turned out to have (may be NULL). */
bool weights_load_view(Env *env, const StateView *v, const char *model, const StSet *set, const char *prefix,
                       bool missing_init, Arena *a, NameStyle *names, const char ***extra, uint32_t *nextra,
                       Diags *d);
/* One leaf of params.json or config.json: dotted key, kind J_BOOL, J_INT, J_REAL or J_STRING (nulls and
 * lists are left out). */
typedef struct {
    const char *key;
    JsonKind kind;
    double num;
    int64_t i;
    const char *str;
} ModelKey;
/* Reads PATH/params.json or PATH/config.json (PATH may be a file: then beside it). *file NULL, and
 * success, if neither exists. Both exist: config.json if the weights have Hugging Face names is for the
 * caller to say, by `prefer` ("" : params.json). */
bool model_keys_read(Env *env, Arena *a, const char *path, const char *prefer, ModelKey **key, uint32_t *nkey,
                     const char **file, Diags *d);
/* All tensors of a set, by name order. */
uint32_t st_set_list(const StSet *s, Arena *a, const StTensor ***tensor);
/* Writes one model as a directory that Meta's or Hugging Face's tools read: safetensors, index, and
 * `config` as params.json or config.json (NULL: none). The directory must not exist. as: dtype in the
 * file; PD_F32, PD_F64, PD_BF16. */
bool model_export(Env *env, const char *dir, const StateView *v, const char *model, NameStyle style,
                  PlanDType as, const char *config, int64_t cut_bytes, Diags *d);

#endif
