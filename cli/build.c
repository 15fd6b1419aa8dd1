/* build.c: frontend -> passes -> codegen, for training and, where asked, validation. */
#include "cli/build.h"

#include <string.h>

static Graph *lower(Arena *a, const BuildOptions *o, const char *phase, int64_t micro, GraphInfo *info,
                    Diags *d) {
    LowerOptions lo = {.phase = phase,
                       .micro = micro,
                       .batch = o->batch,
                       .seq = o->seq,
                       .hyper = o->hyper,
                       .nhyper = o->nhyper,
                       .model = o->model,
                       .nmodel = o->nmodel,
                       .want = o->want,
                       .nwant = o->nwant,
                       .path = o->path,
                       .npath = o->npath,
                       .no_warn = o->no_warn,
                       .nno_warn = o->nno_warn,
                       .warn = o->warn,
                       .nwarn = o->nwarn,
                       .werror = o->werror,
                       .assume_sizes = o->assume_sizes};
    Graph *g = frontend_lower(a, o->file, &lo, info, d);
    if (g && o->edit && !o->edit(o->ctx, g, d)) return NULL;
    return g;
}

static void graph_hash_hex(Arena *a, const Graph *g, char out[33]) {
    Sbuf b;
    sb_init(&b, a);
    graph_print(g, &b, false);
    hash128_hex(b.s, b.len, out);
}

static bool emit(Arena *a, Build *b, const EmitInput *in, Diags *d) {
    return codegen_emit(a, in, &b->plan, &b->source, d);
}

bool build_plan(Arena *a, const BuildOptions *o, Build *b, Diags *d) {
    memset(b, 0, sizeof *b);
    b->math = lower(a, o, "train", o->micro, &b->info, d);
    if (!b->math || !(b->train = passes_run(a, b->math, &o->pass, d))) return false;
    if (o->val_micro > 0) {
        GraphInfo ignored;
        uint32_t before = d->n;
        Graph *g = lower(a, o, "val", o->val_micro, &ignored, d);
        if (!g) return false;
        uint32_t kept = before; /* the same warnings were given for training */
        for (uint32_t i = before; i < d->n; i++)
            if (d->item[i]->level == LEVEL_ERROR) d->item[kept++] = d->item[i];
        d->n = kept;
        if (!(b->val = passes_run(a, g, &o->pass, d))) return false;
    }
    char *hash = NEWN(a, char, 33);
    graph_hash_hex(a, b->math, hash);
    EmitInput in = {.train = b->train,
                    .val = b->val,
                    .level = cpu_level(),
                    .option = o->option,
                    .noption = o->noption,
                    .graph_hash = hash,
                    .config_hash = o->config_hash ? o->config_hash : "",
                    .seq = o->seq};
    return emit(a, b, &in, d);
}

bool build_from_plan(Arena *a, const Plan *plan, const char *file, Build *b, Diags *d) {
    memset(b, 0, sizeof *b);
    for (uint32_t i = 0; i < plan->nprogram; i++) {
        const PlanProgram *p = &plan->program[i];
        Graph *g = graph_parse(a, file, p->ir, strlen(p->ir), d);
        if (!g || !graph_verify(g, true, d)) return false;
        if (g->stage != ST_PLANNED)
            return diag_fail(d, P001, NOLOC, "%s: the graph of program %s is not planned", file, p->name);
        if (strcmp(p->name, "train") == 0)
            b->train = g;
        else if (strcmp(p->name, "val") == 0)
            b->val = g;
    }
    if (!b->train) return diag_fail(d, P001, NOLOC, "%s: the plan has no program train", file);
    EmitInput in = {.train = b->train,
                    .val = b->val,
                    .level = cpu_level(),
                    .option = plan->option,
                    .noption = plan->noption,
                    .graph_hash = plan->graph_hash,
                    .config_hash = plan->config_hash,
                    .seq = plan->seq};
    if (!emit(a, b, &in, d)) return false;
    if (strcmp(b->plan.hash, plan->hash) == 0) return true;
    Diag *g =
        diag_add(d, P001, NOLOC, "%s: what the plan says is not what follows from the graph inside it", file);
    diag_note(d, g, "plan %s, derived again %s", plan->hash, b->plan.hash);
    diag_help(d, g, "compile it again with this version on this kind of processor");
    return false;
}

bool kernels_get(Arena *a, const Plan *plan, const KernelSource *source, Kernels *k, Diags *d) {
    memset(k, 0, sizeof *k);
    Env *env = arena_env(a);
    if (!toolchain_cc(a, env, cpu_level(), &k->toolchain, d)) return false;
    k->cache = cache_open(env, NULL, &k->toolchain, d);
    if (!k->cache) return false;
    k->fn = NEWN(a, KernelFn, plan->nkernel + 1);
    return cache_get(k->cache, source, plan->nkernel, k->fn, &k->stats, d);
}

void kernels_close(Kernels *k) {
    if (k->cache) cache_close(k->cache);
}
