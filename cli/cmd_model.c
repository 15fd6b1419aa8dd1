/* cmd_model.c: `model show PATH`: what weights hold; `model export`: a checkpoint's model as Meta's or
 * Hugging Face's tools read it. An export needs names and row orders, which only a plan's state rows know: it
 * reads the plan of the run. */
#include "cli/commands.h"
#include "cli/keys.h"

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
static void *row_memory(void *ctx, uint32_t row) {
    return ((void **)ctx)[row];
}

/* Rows without the blocks of heads beyond the first `heads`: `extra_heads.K` is head K + 2. --heads 1 is a
 * plain Llama. */
static StateView only_heads(Cli *c, const StateView *v, int64_t heads) {
    PlanState *row = NEWN(c->a, PlanState, v->n + 1);
    void **mem = NEWN(c->a, void *, v->n + 1);
    uint32_t n = 0;
    for (uint32_t i = 0; i < v->n; i++) {
        const char *name = v->row[i].name,
                   *dot = strchr(name + 12 < name + strlen(name) ? name + 12 : name, '.');
        int64_t k;
        if (strncmp(name, "extra_heads.", 12) == 0 && dot &&
            text_int(name + 12, (size_t)(dot - name) - 12, &k) && k + 2 > heads)
            continue;
        row[n] = v->row[i];
        mem[n++] = v->mem(v->ctx, i);
    }
    return (StateView){row, n, row_memory, mem};
}

static int export(Cli *c, const char *path) {
    bool hf = !c->to || strcmp(c->to, "hf") == 0;
    if (c->to && !hf && strcmp(c->to, "meta") != 0)
        return diag_add(c->d, R007, NOLOC, "--to %s: hf or meta", c->to), EXIT_USAGE;
    if (!c->out) return diag_add(c->d, R007, NOLOC, "model export: -o DIR is missing"), EXIT_USAGE;
    const char *slash = strrchr(path, '/');
    const char *file = slash ? arena_fmt(c->a, "%.*s/F.plan", (int)(slash - path), path) : "F.plan";
    char *text;
    size_t len;
    if (!file_read_all(c->env, c->a, file, (wm_size)1 << 30, &text, &len, c->d)) return diags_exit(c->d);
    Plan *p = plan_parse(c->a, file, text, len, c->d);
    if (!p || !plan_check(p, file, c->d) || !ckpt_verify(c->env, path, c->d)) return diags_exit(c->d);
    void **mem = NEWN(c->a, void *, p->nstate + 1);
    for (uint32_t i = 0; i < p->nstate; i++)
        mem[i] = arena_alloc(c->a, (wm_size)state_elements(&p->state[i]) * 8);
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
    ModelKey *key;
    uint32_t nkey = 0;
    const char *from = NULL, *config = NULL;
    ok = ok && model_keys_read(c->env, c->a, path, "", &key, &nkey, &from, c->d);
    if (ok && from) config = keys_export_json(c, key, nkey, !hf, c->heads);
    if (c->heads > 0) v = only_heads(c, &v, c->heads);
    ok = ok && model_export(c->env, c->out, &v, model, hf ? NAMES_HF : NAMES_META, p->real, config, 0, c->d);
    return ok ? EXIT_DONE : diags_exit(c->d);
}

int cmd_model(Cli *c) {
    if (c->narg >= 2 && strcmp(c->arg[0], "show") == 0) return show(c, c->arg[1]);
    if (c->narg >= 2 && strcmp(c->arg[0], "export") == 0) return export(c, c->arg[1]);
    diag_add(
        c->d, R007, NOLOC,
        "model: `wmtpc model show PATH`, or `wmtpc model export RUN/step-N [MODEL] -o DIR --to hf|meta`");
    return EXIT_USAGE;
}
