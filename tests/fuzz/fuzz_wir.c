/* IR text from hostile bytes. What parses must print and parse back to an equal graph; what the verifier then
 * accepts must be safe to count, and to evaluate where it is small. */
#include "ir/ir.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const uint8_t *data;
    size_t size;
    Arena *a;
    Diags *d;
} Job;

static bool leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    (void)ctx;
    bool real = dtype_real(g->value[n->out0].ty.dt);
    for (int64_t k = 0; k < count; k++) out[k] = real ? (double)k / 4 - 1 : (double)(k % 2);
    return true;
}

static void use(Job *j, const Graph *g) {
    int64_t total = 0, micro = g->micro.i < g->ndim ? g->dim[g->micro.i].size : 1;
    double work = 0;
    graph_uses(j->a, g);
    for (uint32_t k = 0; k < g->nnode; k++) {
        work += node_flops(g, &g->node[k]) + (double)node_bytes(g, &g->node[k]);
        for (uint32_t r = 0; r < g->node[k].nout && total < 1 << 20; r++)
            total += type_count(g, &g->value[g->node[k].out0 + r].ty);
    }
    if (total > 4000 || micro > 8 || g->nnode > 300 || !(work < 1e6)) return;
    EvalInput in = {leaf, NULL, 1, 2};
    uint32_t before = j->d->nerror;
    if (!graph_eval(j->a, g, &in, NULL, 0, j->d) && j->d->nerror == before) __builtin_trap();
}

static bool one(void *ctx, Guard *guard) {
    Job *j = ctx;
    Sbuf b;
    j->a = arena_open(env_posix(), guard);
    Graph *g = graph_parse(j->a, "fuzz", (const char *)j->data, j->size, j->d);
    if (!g) {
        if (j->d->nerror == 0) __builtin_trap();
        return true;
    }
    sb_init(&b, j->a);
    graph_print(g, &b, true);
    Graph *again = graph_parse(j->a, "again", b.s, b.len, j->d);
    if (!again || !graph_equal(g, again, NULL)) __builtin_trap();
    bool ok = graph_verify(g, true, j->d);
    if (!ok && j->d->nerror == 0) __builtin_trap();
    if (ok) use(j, g);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Job j = {data, size, NULL, diags_open(env_posix())};
    if (!guard_run(one, &j, j.d) && diags_exit(j.d) == EXIT_INTERNAL) __builtin_trap();
    if (j.a) arena_close(j.a);
    diags_close(j.d);
    return 0;
}
