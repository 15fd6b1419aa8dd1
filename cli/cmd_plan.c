/* cmd_plan.c: `plan`: exact memory by class, FLOPs, parameters, and whether it fits. Nothing is compiled or
 * touched. */
#include "cli/commands.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    int64_t params, trained, param_bytes, optimizer_bytes, user_bytes;
} Counts;

static int64_t row_bytes(const PlanState *s) {
    static const int bytes[] = {8, 4, 2, 4, 1};
    return state_elements(s) * bytes[s->dtype];
}

static Counts count(const Plan *p) {
    Counts k = {0};
    for (uint32_t i = 0; i < p->nstate; i++) {
        const PlanState *s = &p->state[i];
        bool param = strcmp(s->role, "param") == 0, user = strcmp(s->role, "user") == 0;
        if (param) k.params += state_elements(s);
        if (param && s->trained) k.trained += state_elements(s);
        *(param ? &k.param_bytes : user ? &k.user_bytes : &k.optimizer_bytes) += row_bytes(s);
    }
    return k;
}

static void put_json(Sbuf *b, const Plan *p, const Counts *k, int64_t limit) {
    sb_fmt(b, "{\"graph\": \"%s\", \"hash\": \"%s\", \"parameters\": %lld, \"trained\": %lld,\n",
           p->graph_name, p->hash, (long long)k->params, (long long)k->trained);
    sb_fmt(b,
           " \"state_bytes\": %lld, \"parameter_bytes\": %lld, \"optimizer_bytes\": %lld, "
           "\"user_state_bytes\": %lld,\n",
           (long long)p->arena_bytes[0], (long long)k->param_bytes, (long long)k->optimizer_bytes,
           (long long)k->user_bytes);
    sb_fmt(b,
           " \"work_bytes\": %lld, \"peak_bytes\": %lld, \"memory_bytes\": %lld, \"fits\": %s,\n "
           "\"kernels\": %u, \"programs\": [",
           (long long)p->arena_bytes[1], (long long)plan_memory(p), (long long)limit,
           plan_memory(p) <= limit ? "true" : "false", p->nkernel);
    for (uint32_t i = 0; i < p->nprogram; i++) {
        const PlanProgram *q = &p->program[i];
        sb_fmt(b,
               "%s\n  {\"name\": \"%s\", \"micro_batches\": %lld, \"flops\": %.0f, \"work_bytes\": %lld, "
               "\"sections\": %u}",
               i ? "," : "", q->name, (long long)q->micro, q->flops, (long long)q->work_bytes, q->nsection);
    }
    sb_str(b, "\n ]}\n");
}

static void put_text(Sbuf *b, const Plan *p, const Counts *k, int64_t limit) {
    double mb = 1e6;
    sb_fmt(b, "graph %s, %s, plan %s\n\n", p->graph_name, p->real == PD_F64 ? "f64" : "f32", p->hash);
    sb_fmt(b, "parameters      %14lld   trained %lld\n\n", (long long)k->params, (long long)k->trained);
    sb_fmt(b, "memory                  MB\n");
    sb_fmt(b, "  parameters    %10.1f\n", (double)k->param_bytes / mb);
    sb_fmt(b, "  optimizer     %10.1f\n", (double)k->optimizer_bytes / mb);
    if (k->user_bytes) sb_fmt(b, "  states        %10.3f\n", (double)k->user_bytes / mb);
    for (uint32_t i = 0; i < p->nprogram; i++)
        sb_fmt(b, "  work, %-8s%10.1f   activations, gradients and scratch at the fullest moment\n",
               p->program[i].name, (double)p->program[i].work_bytes / mb);
    sb_fmt(b, "  peak          %10.1f   state %.1f + work %.1f: what a run takes\n",
           (double)plan_memory(p) / mb, (double)p->arena_bytes[0] / mb, (double)p->arena_bytes[1] / mb);
    sb_fmt(b, "  %s: there are %.1f MB\n\n", plan_memory(p) <= limit ? "fits" : "does NOT fit",
           (double)limit / mb);
    for (uint32_t i = 0; i < p->nprogram; i++) {
        const PlanProgram *q = &p->program[i];
        sb_fmt(b, "program %-6s %lld micro-batches of %lld x %lld places, %u sections, %.3f GFLOP\n", q->name,
               (long long)q->micro, (long long)p->batch, (long long)p->seq, q->nsection, q->flops / 1e9);
        for (uint32_t n = 0; n < q->nnote; n++) sb_fmt(b, "  note %s\n", q->note[n]);
    }
    sb_fmt(b, "kernels         %14u\n", p->nkernel);
}

int cmd_plan(Cli *c) {
    Session s = {0};
    Build build;
    Plan *p = NULL;
    const char *file = c->narg ? c->arg[0] : "";
    size_t n = strlen(file);
    double limit = 0;
    if (n > 5 && strcmp(file + n - 5, ".plan") == 0) {
        char *text;
        size_t len;
        if (!file_read_all(c->env, c->a, file, (wm_size)1 << 30, &text, &len, c->d)) return diags_exit(c->d);
        p = plan_parse(c->a, file, text, len, c->d);
        if (!p || !plan_check(p, file, c->d)) return diags_exit(c->d);
    } else {
        bool ok = session_open(c, &s, DATA_SHAPE) && build_plan(c->a, &s.build, &build, c->d);
        if (ok) limit = config_num(s.config, "runtime.memory_limit");
        const char *val = ok ? config_str(s.config, "dataset.validation") : "";
        if (val[0] && !s.val) say(c, "%s is not there: the plan is without validation", val);
        session_close(&s);
        if (!ok) return diags_exit(c->d);
        p = &build.plan;
    }
    limit = limit > 0 ? fmin(limit, 0x1p62) : (double)c->env->memory_bytes(c->env);
    Counts k = count(p);
    Sbuf b;
    sb_init(&b, c->a);
    if (c->json)
        put_json(&b, p, &k, (int64_t)limit);
    else
        put_text(&b, p, &k, (int64_t)limit);
    if (!put_out(c, b.s, b.len)) return EXIT_IO;
    return plan_memory(p) <= (int64_t)limit ? EXIT_DONE : EXIT_MEMORY;
}
