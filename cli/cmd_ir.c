/* cmd_ir.c: commands about graphs: opt, eval, ops, graph. */
#include "cli/commands.h"
#include "cli/draw.h"

#include <string.h>

static Graph *read_wir(Cli *c) {
    char *text;
    size_t len;
    if (!c->narg) {
        diag_add(c->d, R007, NOLOC, "%s: a .wir file is missing", c->command);
        return NULL;
    }
    size_t end = strlen(c->arg[0]);
    if (end > 3 && strcmp(c->arg[0] + end - 3, ".wg") == 0) {
        Diag *h = diag_add(c->d, R007, NOLOC, "%s: %s takes the text of a graph (.wir), not a .wg file",
                           c->command, c->arg[0]);
        diag_help(c->d, h, "wmtpc plan %s -c CONFIG.yaml --dump-dir=dump writes one after each pass",
                  c->arg[0]);
        return NULL;
    }
    if (!file_read_all(c->env, c->a, c->arg[0], (wm_size)1 << 30, &text, &len, c->d)) return NULL;
    diag_source(c->d, c->arg[0], text, len);
    Graph *g = graph_parse(c->a, c->arg[0], text, len, c->d);
    return g && graph_verify(g, true, c->d) ? g : NULL;
}

static int put_graph(Cli *c, const Graph *g) {
    Sbuf b;
    sb_init(&b, c->a);
    graph_print(g, &b, c->verbose);
    if (c->out) return file_write_atomic(c->env, c->out, b.s, b.len, c->d) ? EXIT_DONE : diags_exit(c->d);
    return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
}

int cmd_opt(Cli *c) {
    PassOptions o = {.real = DT_F32};
    Graph *g = read_wir(c);
    if (!g || !cli_passes(c, &o)) return diags_exit(c->d);
    for (uint32_t i = 0; i < g->nnode; i++) /* parameters have the dtype of the computation */
        if (g->node[i].op == OP_param) o.real = value_type(g, (ValueId){g->node[i].out0})->dt;
    if (!c->pass) return (g = passes_run(c->a, g, &o, c->d)) ? put_graph(c, g) : diags_exit(c->d);
    for (const char *p = c->pass; *p;) {
        const char *comma = strchr(p, ',');
        const char *name = arena_str(c->a, p, comma ? (size_t)(comma - p) : strlen(p));
        const Pass *pass = pass_find(name);
        if (!pass) {
            const char *names[64];
            for (int i = 0; i < npass; i++) names[i] = pass_table[i].name;
            Diag *x = diag_add(c->d, R007, NOLOC, "opt: there is no pass '%s'", name);
            const char *near = text_nearest(name, names, (size_t)npass);
            if (near) diag_help(c->d, x, "did you mean %s?", near);
            return EXIT_USAGE;
        }
        if (g->stage != pass->in)
            return diag_add(c->d, P002, NOLOC, "%s works on stage %s, the graph is at %s", name,
                            stage_name[pass->in], stage_name[g->stage]),
                   EXIT_USER;
        if (!(g = pass->fn(c->a, g, &o, c->d)) || !graph_verify(g, false, c->d)) return diags_exit(c->d);
        p = comma ? comma + 1 : p + strlen(p);
    }
    return put_graph(c, g);
}

/* Leaves of `eval`: uniform numbers in (-1, 1) by Philox of the leaf's name; tokens small, masks mostly true.
 */
static bool eval_leaf(void *ctx, const Graph *g, const Node *n, double *out, int64_t count) {
    (void)ctx;
    const char *name = attr_str(g, n, "name");
    const Type *t = &g->value[n->out0].ty;
    if (n->op == OP_scalar) {
        out[0] = strcmp(name, "steps") == 0 ? 100 : 0;
        return true;
    }
    for (int64_t i = 0; i < count; i++) {
        uint32_t w[4];
        philox4x32(0, (uint64_t)i, 0, stream_of(name), w);
        double u = philox_unit(w[0]);
        bool last = strcmp(name, "present") == 0;
        out[i] = t->dt == DT_I32     ? (u < 0.2 ? -100 : (double)(w[1] % 8))
                 : t->dt == DT_BOOL  ? (last || u < 0.7)
                 : n->op == OP_state ? attr_float(g, n, "init")
                                     : 0.2 * (2 * u - 1);
    }
    return true;
}

int cmd_eval(Cli *c) {
    Graph *g = read_wir(c);
    if (!g) return diags_exit(c->d);
    EvalInput in = {.leaf = eval_leaf};
    double **v = graph_eval(c->a, g, &in, NULL, 0, c->d);
    if (!v) return diags_exit(c->d);
    Sbuf b;
    sb_init(&b, c->a);
    for (uint32_t i = 0; i < g->nresult; i++) {
        const Result *r = &g->result[i];
        const Type *t = value_type(g, r->v);
        int64_t n = type_count(g, t);
        sb_fmt(&b, "%s \"%s\" : %s", r->kind, r->name, type_text(c->a, g, t));
        for (int64_t k = 0; k < n && k < 8; k++) {
            sb_chr(&b, ' ');
            sb_double(&b, v[r->v.i][k]);
        }
        sb_str(&b, n > 8 ? " ..\n" : "\n");
    }
    return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
}

int cmd_ops(Cli *c) {
    static const char *const kind[] = {"leaf",   "element-wise", "reduction", "gemm", "view",      "copy",
                                       "gather", "scan",         "custom",    "tree", "collective"};
    Sbuf b;
    sb_init(&b, c->a);
    Op only = NOP;
    if (c->narg && !op_find(c->arg[0], &only)) {
        const char *names[NOP];
        for (int i = 0; i < NOP; i++) names[i] = op_info[i].name;
        Diag *g = diag_add(c->d, R007, NOLOC, "ops: there is no op '%s'", c->arg[0]);
        const char *near = text_nearest(c->arg[0], names, NOP);
        if (near) diag_help(c->d, g, "did you mean %s?", near);
        return EXIT_USAGE;
    }
    if (c->json) sb_str(&b, "[");
    for (int i = 0; i < NOP; i++) {
        const OpInfo *o = &op_info[i];
        if (c->narg && i != (int)only) continue;
        if (c->json) {
            sb_fmt(&b,
                   "%s\n {\"name\": \"%s\", \"operands\": %d, \"results\": %d, \"kind\": \"%s\", \"vjp\": "
                   "\"%s\", \"doc\": ",
                   b.len > 1 ? "," : "", o->name, o->nin, o->nout, kind[o->kind], o->vjp);
            json_quote(&b, o->doc, strlen(o->doc));
            sb_chr(&b, '}');
            continue;
        }
        sb_fmt(&b, "%-16s %-12s %2d -> %d  %s\n", o->name, kind[o->kind], o->nin, o->nout, o->doc);
        if (!c->narg) continue;
        for (int k = 0; k < o->nattr; k++)
            sb_fmt(&b, "  attribute %s%s\n", o->attr[k].name, o->attr[k].optional ? " (may be absent)" : "");
        sb_fmt(&b, "  rule %s\n  gradient %s\n  cost %s FLOPs an element\n", o->rule, o->vjp, o->cost);
        if (o->expr[0]) sb_fmt(&b, "  expression %s\n", o->expr);
    }
    if (c->json) sb_str(&b, "\n]\n");
    return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
}

int cmd_graph(Cli *c) {
    Session s;
    Sbuf b;
    sb_init(&b, c->a);
    bool ok;
    GraphInfo info;
    Graph *g = NULL;
    if (c->config) {
        ok = session_open(c, &s, DATA_NONE);
        LowerOptions lo = {.phase = "train",
                           .micro = s.build.micro,
                           .batch = s.build.batch,
                           .seq = s.build.seq,
                           .hyper = s.build.hyper,
                           .nhyper = s.build.nhyper,
                           .model = s.build.model,
                           .nmodel = s.build.nmodel,
                           .path = s.build.path,
                           .npath = s.build.npath};
        g = ok ? frontend_lower(c->a, s.file, &lo, &info, c->d) : NULL;
        session_close(&s);
    } else if (c->narg) {
        LowerOptions lo = {.phase = "train", .micro = 2, .batch = 2, .seq = 16, .assume_sizes = true};
        lo.path = cli_search_path(c, &lo.npath);
        g = frontend_lower(c->a, c->arg[0], &lo, &info, c->d);
    } else {
        diag_add(c->d, R007, NOLOC, "graph: a .wg file is missing");
    }
    if (!g) return diags_exit(c->d);
    return draw_graph(c, g);
}
