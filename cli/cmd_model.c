/* cmd_model.c: `model show PATH`: what weights hold; `model export`: a checkpoint's model as Meta's or Hugging Face's tools
 * read it. An export needs names and row orders, which only a plan's state rows know: it reads the plan of the run. */
#include "cli/commands.h"

#include <string.h>

static int show(Cli *c, const char *path) {
    StSet set;
    if (!st_open_set(c->env, c->a, path, NULL, &set, c->d)) return diags_exit(c->d);
    const StTensor **t;
    uint32_t n = st_set_list(&set, c->a, &t);
    Sbuf b;
    sb_init(&b, c->a);
    int64_t total = 0;
    for (uint32_t i = 0; i < n; i++) {
        sb_fmt(&b, "%-60s %-4s [", text_escape(c->a, t[i]->name, strlen(t[i]->name)), t[i]->dtype);
        int64_t count = 1;
        for (uint32_t k = 0; k < t[i]->ndim; k++) {
            sb_fmt(&b, "%s%lld", k ? ", " : "", (long long)t[i]->shape[k]);
            count *= t[i]->shape[k];
        }
        sb_str(&b, "]\n");
        total += count;
    }
    sb_fmt(&b, "%u tensors, %lld numbers\n", n, (long long)total);
    st_close_set(&set);
    return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
}

/* State in plain memory, for commands that train nothing. */
static void *row_memory(void *ctx, uint32_t row) { return ((void **)ctx)[row]; }

static int export(Cli *c, const char *path) {
    bool hf = !c->to || strcmp(c->to, "hf") == 0;
    if (c->to && !hf && strcmp(c->to, "meta") != 0) return diag_add(c->d, R007, NOLOC, "--to %s: hf or meta", c->to), EXIT_USAGE;
    if (!c->out) return diag_add(c->d, R007, NOLOC, "model export: -o DIR is missing"), EXIT_USAGE;
    const char *slash = strrchr(path, '/');
    const char *file = slash ? arena_fmt(c->a, "%.*s/F.plan", (int)(slash - path), path) : "F.plan";
    char *text;
    size_t len;
    if (!file_read_all(c->env, c->a, file, (wm_size)1 << 30, &text, &len, c->d)) return diags_exit(c->d);
    Plan *p = plan_parse(c->a, file, text, len, c->d);
    if (!p || !plan_check(p, file, c->d) || !ckpt_verify(c->env, path, c->d)) return diags_exit(c->d);
    void **mem = NEWN(c->a, void *, p->nstate + 1);
    for (uint32_t i = 0; i < p->nstate; i++) mem[i] = arena_alloc(c->a, (wm_size)state_elements(&p->state[i]) * 8);
    StateView v = {p->state, p->nstate, row_memory, mem};
    const char *model = c->narg > 2 ? c->arg[2] : NULL;
    for (uint32_t i = 0; !model && i < p->nstate; i++)
        if (p->state[i].trained) model = p->state[i].model;
    if (!model) return diag_add(c->d, D002, NOLOC, "%s: the run trained no model", path), EXIT_MISSING;
    StSet set;
    const char **extra;
    uint32_t nextra;
    if (!st_open_set(c->env, c->a, path, model, &set, c->d)) return diags_exit(c->d);
    bool ok = weights_load_view(c->env, &v, model, &set, "", false, c->a, NULL, &extra, &nextra, c->d);
    st_close_set(&set);
    const char *config = NULL;
    EnvStat st;
    int err;
    const char *cfg = arena_fmt(c->a, "%s/config.json", path);
    if (ok && hf && c->env->stat(c->env, cfg, &st, &err) == 0) {
        char *t;
        ok = file_read_all(c->env, c->a, cfg, 1 << 20, &t, &len, c->d);
        config = t;
    }
    ok = ok && model_export(c->env, c->out, &v, model, hf ? NAMES_HF : NAMES_META, p->real, config, 0, c->d);
    return ok ? EXIT_DONE : diags_exit(c->d);
}

int cmd_model(Cli *c) {
    if (c->narg >= 2 && strcmp(c->arg[0], "show") == 0) return show(c, c->arg[1]);
    if (c->narg >= 2 && strcmp(c->arg[0], "export") == 0) return export(c, c->arg[1]);
    diag_add(c->d, R007, NOLOC, "model: `wmtpc model show PATH`, or `wmtpc model export RUN/step-N [MODEL] -o DIR --to hf|meta`");
    return EXIT_USAGE;
}
