/* commit.c: writes a checkpoint so that it is there whole or not at all.
 *
 * Everything goes into step-NNNNNN.tmp-RUN, each file fsynced; then the directory is fsynced, the owner
 * looked at again, and one rename to step-NNNNNN with an fsync of the parent commits. Before the rename a
 * fault leaves only a directory that no reader takes for a checkpoint; after it the checkpoint is whole. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    Env *env;
    const char *dir, *final;
    Owner *owner;
    const StateView *v;
    const CkptInfo *info;
    int64_t cut_bytes;
    FileLog log;
    Diags *d;
} Save;

bool step_name(const char *name, int64_t *step) {
    char again[40];
    if (strncmp(name, "step-", 5) || !text_int(name + 5, strlen(name + 5), step) || *step < 0) return false;
    snprintf(again, sizeof again, "step-%06lld", (long long)*step);
    return !strcmp(again, name);
}

bool model_trained(const StateView *v, const char *model) {
    for (uint32_t i = 0; i < v->n; i++)
        if (v->row[i].trained && state_is(&v->row[i], "param") && !strcmp(v->row[i].model, model))
            return true;
    return false;
}

const char *first_model(const StateView *v, const CkptInfo *info) {
    if (info->nmodel) return info->model[0].name;
    for (uint32_t i = 0; i < v->n; i++)
        if (state_is(&v->row[i], "param")) return v->row[i].model;
    return "";
}

const char *model_set(const StateView *v, const CkptInfo *info, const char *model) {
    return strcmp(first_model(v, info), model) ? model : "model";
}

const PlanState *stored_row(Arena *a, const StateView *v, uint32_t i) {
    const PlanState *s = &v->row[i];
    bool whole = state_is(s, "param") || state_is(s, "user") || (s->axes && s->axes[0]);
    for (uint32_t k = 0; !whole && k < v->n; k++) {
        const PlanState *p = &v->row[k];
        if (!state_is(p, "param") || strcmp(p->model, s->model) || strcmp(p->name, s->name)) continue;
        PlanState *copy = arena_copy(a, s, sizeof *s);
        if (!copy) return NULL;
        copy->hf = p->hf;
        copy->axes = p->axes;
        copy->halves = p->halves;
        return copy;
    }
    return s;
}

const char *extra_name(Arena *a, const PlanState *s) {
    const char *key = state_key(a, s, NAMES_HF);
    return !key || state_is(s, "user") ? key : arena_fmt(a, "%s.%s", s->role, key);
}

static bool no_memory(const Save *s) {
    return diag_fail(s->d, R006, NOLOC, "no memory to write the checkpoint %s", s->final);
}

/* A trained model may not be called like another set of files. */
static bool check_names(const Save *s) {
    static const char *const taken[] = {"model", "optimizer", "state"};
    for (uint32_t i = 0; i < s->v->n; i++) {
        const PlanState *r = &s->v->row[i];
        if (!state_axes_ok(r))
            return diag_fail(s->d, P001, NOLOC,
                             "state '%s/%s': the axes '%s' with halves '%s' do not fit its dims", r->model,
                             r->name, r->axes, r->halves);
        if (!state_is(r, "param") || strcmp(model_set(s->v, s->info, r->model), r->model)) continue;
        for (size_t k = 0; k < WM_LEN(taken); k++)
            if (!strcmp(r->model, taken[k]) && model_trained(s->v, r->model))
                return diag_fail(s->d, C003, NOLOC,
                                 "model '%s': its files in a checkpoint would be called %s-*, which others "
                                 "are; rename the model",
                                 r->model, taken[k]);
    }
    for (uint32_t i = 0; i < s->info->nfile; i++)
        if (!plain_name(s->info->file[i].name))
            return diag_fail(s->d, I001, NOLOC, "'%s' is no name for a file", s->info->file[i].name);
    return true;
}

static bool save_models(Save *s) {
    for (uint32_t i = 0; i < s->v->n; i++) {
        const char *model = s->v->row[i].model;
        bool first = state_is(&s->v->row[i], "param") && model_trained(s->v, model);
        for (uint32_t k = 0; first && k < i; k++)
            first = !(state_is(&s->v->row[k], "param") && !strcmp(s->v->row[k].model, model));
        if (!first) continue;
        OutTensor *t = NULL;
        uint32_t n = 0;
        SetForm form = {.set = model_set(s->v, s->info, model),
                        .cut = true,
                        .cut_bytes = s->cut_bytes,
                        .style = NAMES_HF,
                        .own_dtype = true};
        if (!model_tensors(s->log.a, s->v, model, NAMES_HF, &t, &n, s->d) ||
            !set_write(&s->log, s->v, t, n, &form, s->d))
            return false;
    }
    return true;
}

/* The optimizer's rows or those of the graph. */
static bool save_others(Save *s, bool user) {
    OutTensor *t = NEWN(s->log.a, OutTensor, s->v->n + 1);
    uint32_t n = 0;
    if (!t) return no_memory(s);
    for (uint32_t i = 0; i < s->v->n; i++) {
        if (state_is(&s->v->row[i], "param") || state_is(&s->v->row[i], "user") != user) continue;
        const PlanState *row = stored_row(s->log.a, s->v, i);
        const char *name = row ? extra_name(s->log.a, row) : NULL;
        if (!name) return no_memory(s);
        t[n++] = (OutTensor){name, row, i};
    }
    SetForm form = {.set = user ? "state" : "optimizer",
                    .cut = !user,
                    .cut_bytes = s->cut_bytes,
                    .style = NAMES_HF,
                    .own_dtype = true};
    return n == 0 || set_write(&s->log, s->v, t, n, &form, s->d);
}

static bool save_files(Save *s) {
    const CkptInfo *info = s->info;
    bool first_trained = info->nmodel && model_trained(s->v, info->model[0].name);
    if (first_trained && info->model[0].config &&
        !log_write(&s->log, "config.json", info->model[0].config, strlen(info->model[0].config), s->d))
        return false;
    for (uint32_t i = 0; i < info->nfile; i++)
        if (!log_write(&s->log, info->file[i].name, info->file[i].data, info->file[i].bytes, s->d))
            return false;
    return info_write(&s->log, s->v, info, s->d);
}

static bool write_all(Save *s) {
    Manifest m = {.step = s->info->step,
                  .epoch = owner_epoch(s->owner),
                  .run = owner_run_id(s->owner),
                  .graph = s->info->graph_hash,
                  .plan = s->info->plan_hash};
    int err = 0;
    if (!save_models(s) || !save_others(s, false) || !save_others(s, true) || !save_files(s)) return false;
    if (!manifest_write(&s->log, &m, s->v, s->d)) return false;
    return s->env->fsync_dir(s->env, s->log.dir, &err) == 0 ||
           diag_fail(s->d, R001, NOLOC, "%s: %s", s->log.dir, errno_text(err));
}

/* Whether the checkpoint that is there holds the files just written (its manifest may name another run). */
static bool same_as_there(Save *s) {
    Manifest m;
    if (!manifest_read(s->env, s->log.a, s->final, &m, s->d)) return false;
    bool same = m.n + 1 == s->log.n;
    for (uint32_t i = 0; same && i < m.n; i++)
        same = !strcmp(m.file[i].name, s->log.file[i].name) && !strcmp(m.file[i].hash, s->log.file[i].hash);
    if (same || s->info->replace) return same;
    Diag *g =
        diag_add(s->d, R008, NOLOC, "%s: a checkpoint of this step with other contents is there", s->final);
    diag_help(s->d, g, "it is never overwritten: move it away, or save to another checkpoint.save_dir");
    return false;
}

/* The new checkpoint takes the place of the old one in one operation; the old one, now under the temporary
 * name, goes. */
static bool exchange(Save *s) {
    Env *env = s->env;
    int err = 0;
    if (env->exchange(env, s->log.dir, s->final, &err) < 0 || env->fsync_dir(env, s->dir, &err) < 0)
        return diag_fail(s->d, R001, NOLOC, "%s: %s", s->final, errno_text(err));
    return remove_flat(env, s->log.a, s->log.dir, s->d);
}

/* 1: committed; 0: the same was there already; -1: failed. */
static int publish(Save *s) {
    EnvStat st;
    int err = 0;
    Env *env = s->env;
    if (!owner_still_ours(s->owner, s->d)) return -1;
    if (env->lstat(env, s->final, &st, &err) == 0) {
        if (same_as_there(s)) return 0;
        return s->info->replace && exchange(s) ? 1 : -1;
    }
    if (err != ENOENT || env->rename(env, s->log.dir, s->final, &err) < 0) {
        (void)diag_fail(s->d, R001, NOLOC, "%s: %s", s->final, errno_text(err));
        return -1;
    }
    if (env->fsync_dir(env, s->dir, &err) == 0) return 1;
    (void)diag_fail(s->d, R001, NOLOC, "%s: %s; the checkpoint is complete but may not survive a power loss",
                    s->dir, errno_text(err));
    return -1;
}

static bool save(Save *s) {
    int err = 0;
    Env *env = s->env;
    if (!check_names(s)) return false;
    bool made = env->mkdir(env, s->log.dir, 0777, &err) == 0;
    if (!made && err == EEXIST) /* left by a save of ours that could not clean up */
        made = remove_flat(env, s->log.a, s->log.dir, s->d) && env->mkdir(env, s->log.dir, 0777, &err) == 0;
    if (!made) return diag_fail(s->d, R001, NOLOC, "%s: %s", s->log.dir, errno_text(err));
    int done = write_all(s) ? publish(s) : -1;
    if (done < 1) log_remove(&s->log);
    return done >= 0;
}

bool ckpt_save(Env *env, const char *dir, Owner *o, const StateView *v, const CkptInfo *info,
               int64_t cut_bytes, Diags *d) {
    Arena *a = arena_open(env, NULL);
    Save s = {.env = env,
              .dir = dir,
              .owner = o,
              .v = v,
              .info = info,
              .cut_bytes = cut_bytes > 0 ? cut_bytes : CUT_BYTES,
              .d = d};
    if (!a) return diag_fail(d, R006, NOLOC, "no memory to write a checkpoint");
    s.log = (FileLog){.env = env, .a = a};
    s.final = arena_fmt(a, "%s/step-%06lld", dir, (long long)info->step);
    s.log.dir = s.final ? arena_fmt(a, "%s.tmp-%s", s.final, owner_run_id(o)) : NULL;
    bool ok = s.log.dir ? save(&s) : no_memory(&s);
    arena_close(a);
    return ok;
}
