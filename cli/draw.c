/* draw.c: the graph as boxes of blocks. Nodes are gathered by path (`policy.body.3.att`); copies of a stack whose insides
 * are equal become one box with a count. Layout by graphviz's `dot`, as a child process. */
#include "cli/draw.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct { const char *name; const char *label; uint32_t first, last, nodes; double flops; } Box;
typedef struct {
    Cli *c;
    const Graph *g;
    Box *box; uint32_t nbox, box_cap;
    uint32_t *of;      /* box of each node */
    StrMap *by_name;
} Draw;

/* The path with the numbers of copies taken out: policy.body.3.att -> policy.body[].att */
static const char *folded(Arena *a, const char *path) {
    Sbuf b;
    sb_init(&b, a);
    sb_put(&b, "", 0);
    for (const char *s = path; *s;) {
        size_t n = strcspn(s, "./");
        bool number = n > 0 && strspn(s, "0123456789") >= n;
        if (number) sb_str(&b, "[]");
        else {
            if (b.len) sb_chr(&b, '.');
            sb_put(&b, s, n);
        }
        s += n + (s[n] != 0);
    }
    return b.s;
}

static uint32_t box_of(Draw *d, const char *name) {
    uint32_t i;
    if (strmap_get(d->by_name, name, &i)) return i;
    GROW(d->c->a, d->box, d->nbox, d->box_cap);
    d->box[d->nbox] = (Box){.name = name, .label = name};
    strmap_put(d->by_name, name, d->nbox);
    return d->nbox++;
}

/* A node outside every model gets a box by what .wg line it came from: bindings keep their own line. */
static const char *box_name(Draw *d, const Node *n) {
    if (n->path && n->path[0]) return folded(d->c->a, n->path);
    if (n->op == OP_input) return arena_fmt(d->c->a, "input %s", attr_str(d->g, n, "name"));
    if (n->op == OP_state) return arena_fmt(d->c->a, "state %s", attr_str(d->g, n, "name"));
    const char *file = n->loc.file ? strrchr(n->loc.file, '/') : NULL;
    return arena_fmt(d->c->a, "%s:%u", file ? file + 1 : n->loc.file ? n->loc.file : "graph", n->loc.line);
}

static const char *source_line(Draw *d, const Node *n) {
    if (!n->loc.file) return "";
    for (uint32_t i = 0; i < d->c->d->nsource; i++) {
        if (strcmp(d->c->d->source[i].file, n->loc.file) != 0) continue;
        const char *s = d->c->d->source[i].text;
        for (uint32_t k = 1; k < n->loc.line && s; k++) s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL;
        if (!s) return "";
        size_t len = strcspn(s, "\n#");
        while (len && (s[len - 1] == ' ' || s[len - 1] == '\t')) len--;
        return arena_fmt(d->c->a, "%.*s%s", (int)(len > 70 ? 67 : len), s, len > 70 ? "..." : "");
    }
    return "";
}

static void put_text(Sbuf *b, const char *s) {
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') sb_chr(b, '\\');
        sb_chr(b, *s);
    }
}

static bool leaf_of_model(const Draw *d, const Node *n) {
    return n->op == OP_const || n->op == OP_scalar || n->op == OP_iota || n->op == OP_rope_table || (n->op == OP_param && d->g);
}

static void gather(Draw *d) {
    const Graph *g = d->g;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        d->of[i] = UINT32_MAX;
        if (leaf_of_model(d, n)) continue;
        uint32_t k = d->of[i] = box_of(d, box_name(d, n));
        Box *x = &d->box[k];
        if (!x->nodes) {
            const char *src = n->path && n->path[0] ? "" : source_line(d, n);
            x->first = i;
            if (src[0] && n->op != OP_input) x->label = arena_fmt(d->c->a, "%s\n%s", x->name, src);
        }
        x->nodes++;
        x->last = i;
        x->flops += node_flops(g, n);
    }
}

static void put_edges(Draw *d, Sbuf *b) {
    const Graph *g = d->g;
    StrMap *seen = strmap_new(d->c->a);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (d->of[i] == UINT32_MAX) continue;
        for (uint32_t k = 0; k < n->nin; k++) {
            uint32_t def = g->value[g->operand[n->in0 + k].i].def.i;
            if (d->of[def] == UINT32_MAX || d->of[def] == d->of[i]) continue;
            const char *key = arena_fmt(d->c->a, "%u>%u", d->of[def], d->of[i]);
            if (!strmap_put(seen, key, 1)) continue;
            sb_fmt(b, "  b%u -> b%u [label=\"", d->of[def], d->of[i]);
            put_text(b, type_text(d->c->a, g, value_type(g, g->operand[n->in0 + k])));
            sb_str(b, "\"];\n");
        }
    }
    for (uint32_t i = 0; i < g->nresult; i++) {
        uint32_t def = g->value[g->result[i].v.i].def.i;
        if (strcmp(g->result[i].kind, "loss") != 0 || d->of[def] == UINT32_MAX) continue;
        sb_fmt(b, "  r%u [shape=ellipse, style=filled, fillcolor=\"#ffe9c7\", label=\"loss ", i);
        put_text(b, g->result[i].name);
        sb_fmt(b, "\"];\n  b%u -> r%u;\n", d->of[def], i);
    }
}

static void dot_text(Draw *d, Sbuf *b) {
    sb_str(b, "digraph g {\n  rankdir=TB; node [shape=box, fontname=\"sans-serif\", fontsize=11, style=filled, fillcolor=\"#eef3fa\"];\n"
              "  edge [fontname=\"sans-serif\", fontsize=8, color=\"#888888\", fontcolor=\"#888888\"];\n");
    for (uint32_t i = 0; i < d->nbox; i++) {
        const Box *x = &d->box[i];
        const Node *n = &d->g->node[x->first];
        bool model = n->path && n->path[0];
        sb_fmt(b, "  b%u [fillcolor=\"%s\", label=\"", i, n->op == OP_input ? "#dff3e3" : n->op == OP_state ? "#f3dff0" : model ? "#dfe9f7" : "#fafafa");
        for (const char *s = x->label; *s; s++) {
            if (*s == '\n') sb_str(b, "\\n");
            else put_text(b, (char[]){*s, 0});
        }
        if (model) sb_fmt(b, "\\n%u nodes, %.3g MFLOP", x->nodes, x->flops / 1e6);
        sb_str(b, "\"];\n");
    }
    put_edges(d, b);
    sb_str(b, "}\n");
}

/* Runs graphviz's dot on a temporary file beside the output. */
static int layout(Cli *c, const Sbuf *b) {
    static const char *const place[] = {"/usr/bin/dot", "/usr/local/bin/dot"};
    const char *dot = NULL;
    for (size_t i = 0; i < WM_LEN(place) && !dot; i++)
        if (file_exists(c->env, place[i])) dot = place[i];
    if (!dot) {
        Diag *g = diag_add(c->d, R005, NOLOC, "graphviz's `dot` is not installed; it lays out SVG pictures");
        diag_help(c->d, g, "apt install graphviz, or -o with a name that ends in .dot");
        return EXIT_UNAVAILABLE;
    }
    const char *in = arena_fmt(c->a, "%s.%lld.dot", c->out, (long long)c->env->pid(c->env)), *out = arena_fmt(c->a, "%s.%lld.svg", c->out, (long long)c->env->pid(c->env));
    if (!file_write_atomic(c->env, in, b->s, b->len, c->d)) return diags_exit(c->d);
    const char *argv[] = {dot, "-Tsvg", "-o", out, in, NULL}, *envp[] = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8", NULL};
    int64_t pid;
    int err = 0, status = 1;
    bool ok = c->env->spawn(c->env, dot, argv, envp, -1, &pid, &err) == 0 && c->env->wait(c->env, pid, &status, &err) == 0 && status == 0;
    ok = ok && c->env->rename(c->env, out, c->out, &err) == 0;
    int ignored;
    c->env->unlink(c->env, in, &ignored);
    if (!ok) c->env->unlink(c->env, out, &ignored);
    if (!ok) diag_add(c->d, R005, NOLOC, "dot failed on %s: %s", c->out, err ? errno_text(err) : "see above");
    return ok ? EXIT_DONE : EXIT_UNAVAILABLE;
}

int draw_graph(Cli *c, const Graph *g) {
    Draw d = {.c = c, .g = g, .of = NEWN(c->a, uint32_t, g->nnode + 1), .by_name = strmap_new(c->a)};
    Sbuf b;
    sb_init(&b, c->a);
    gather(&d);
    dot_text(&d, &b);
    size_t n = c->out ? strlen(c->out) : 0;
    if (!c->out) return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
    if (n > 4 && strcmp(c->out + n - 4, ".svg") == 0) return layout(c, &b);
    if (n > 4 && strcmp(c->out + n - 4, ".dot") == 0) return file_write_atomic(c->env, c->out, b.s, b.len, c->d) ? EXIT_DONE : diags_exit(c->d);
    return diag_add(c->d, R007, NOLOC, "graph: -o takes a name that ends in .svg or .dot"), EXIT_USAGE;
}
