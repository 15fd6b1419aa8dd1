/* export.c: one model as a directory of its own, under either set of names. Exported and imported again,
 * in the same dtype, it has the same bits. The directory appears whole, by one rename. */
#include "runtime/checkpoint/files.h"

#include <errno.h>
#include <string.h>

const char *parent_path(Arena *a, const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return ".";
    return slash == path ? "/" : arena_str(a, path, (size_t)(slash - path));
}

/* The parameters of one model under the names of `style`. */
bool model_tensors(Arena *a, const StateView *v, const char *model, NameStyle style, OutTensor **out,
                   uint32_t *n, Diags *d) {
    *n = 0;
    *out = NEWN(a, OutTensor, v->n + 1);
    if (!*out) return diag_fail(d, R006, NOLOC, "no memory to write model '%s'", model);
    for (uint32_t i = 0; i < v->n; i++) {
        const PlanState *s = &v->row[i];
        if (state_is(s, "param") && !strcmp(s->model, model))
            (*out)[(*n)++] = (OutTensor){state_name(s, style), s, i};
    }
    return *n > 0 || diag_fail(d, C003, NOLOC, "there is no model '%s' with parameters", model);
}

static bool fill(FileLog *l, const StateView *v, OutTensor *t, uint32_t n, const SetForm *form,
                 const char *config, Diags *d) {
    int err = 0;
    if (!set_write(l, v, t, n, form, d)) return false;
    const char *name = form->style == NAMES_HF ? "config.json" : "params.json";
    if (config && !log_write(l, name, config, strlen(config), d)) return false;
    return l->env->fsync_dir(l->env, l->dir, &err) == 0 ||
           diag_fail(d, R001, NOLOC, "%s: %s", l->dir, errno_text(err));
}

static bool publish(FileLog *l, const char *dir, Diags *d) {
    int err = 0;
    EnvStat st;
    const char *parent = parent_path(l->a, dir);
    if (l->env->lstat(l->env, dir, &st, &err) == 0)
        return diag_fail(d, R008, NOLOC, "%s: exists already", shown(d, dir));
    if (!parent) return diag_fail(d, R006, NOLOC, "no memory to write %s", dir);
    if (l->env->rename(l->env, l->dir, dir, &err) == 0 && l->env->fsync_dir(l->env, parent, &err) == 0)
        return true;
    return diag_fail(d, R001, NOLOC, "%s: %s", shown(d, dir), errno_text(err));
}

bool model_export(Env *env, const char *dir, const StateView *v, const char *model, NameStyle style,
                  PlanDType as, const char *config, int64_t cut_bytes, Diags *d) {
    Arena *a = arena_open(env, NULL);
    OutTensor *t = NULL;
    uint32_t n = 0;
    int err = 0;
    int64_t total = 0;
    EnvStat st;
    if (!a) return diag_fail(d, R006, NOLOC, "no memory to write %s", dir);
    SetForm form = {
        .set = "model", .cut_bytes = cut_bytes > 0 ? cut_bytes : CUT_BYTES, .style = style, .as = as};
    FileLog l = {.env = env, .a = a, .dir = arena_fmt(a, "%s.tmp-%lld", dir, (long long)env->pid(env))};
    bool ok = l.dir || diag_fail(d, R006, NOLOC, "no memory to write %s", dir);
    if (ok && env->lstat(env, dir, &st, &err) == 0)
        ok = diag_fail(d, R008, NOLOC, "%s: exists already", shown(d, dir));
    ok = ok && (as <= PD_BF16 || diag_fail(d, C003, NOLOC, "a model is exported as f64, f32 or bf16"));
    ok = ok && model_tensors(a, v, model, style, &t, &n, d);
    for (uint32_t i = 0; ok && i < n; i++) total += state_elements(t[i].row) * plan_dtype_bytes[as];
    form.cut = total > form.cut_bytes;
    if (ok && env->mkdir(env, l.dir, 0777, &err) < 0)
        ok = diag_fail(d, R001, NOLOC, "%s: %s", shown(d, l.dir), errno_text(err));
    else if (ok && !(fill(&l, v, t, n, &form, config, d) && publish(&l, dir, d))) {
        ok = false;
        log_remove(&l);
    }
    arena_close(a);
    return ok;
}
