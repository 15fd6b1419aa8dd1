/* draw.c: the graph as a picture for people. A box for each binding with its line of source, one for each
 * part of a model, and one for all copies of a stack. What only metrics need is left out (-v: drawn pale).
 * Graphviz's `dot` lays it out.
 *
 * A part of a model that works before and after another (embedding, blocks, unembedding) would be a cycle: it
 * becomes one box for each time that the data come back to it. */
#include "cli/draw.h"

#include <string.h>

enum { MAX_LINE = 64 };
static const uint32_t NOBOX = UINT32_MAX;
typedef struct {
    const char *name, *model; /* model NULL: outside of models */
    ValueId out;              /* what others read from the box, or else its last value */
    bool read, mixed;         /* others read it; and values of several types */
    uint32_t copies;          /* of a stack */
    double flops, params;
    const char *defs; /* of a part that is the model itself: the defs that it stands for, "norm, heads" */
    bool input, state, loss, next; /* next: works out what a state becomes */
    bool needed;                   /* a loss or a state follows from it */
} Box;
typedef struct {
    Cli *c;
    const Graph *g;
    Box *box;
    uint32_t nbox, box_cap;
    uint32_t *of;           /* box of each node, NOBOX for leaves that are not drawn */
    bool *live;             /* node: a loss or a state follows from it */
    StrMap *by_name, *copy; /* boxes; copies of stacks that were counted */
    StrMap *model;          /* models by name: 1 trained, 0 frozen */
} Draw;

/* ---- which node belongs to which box */

static bool is_number(const char *s, size_t n) {
    return n > 0 && strspn(s, "0123456789") >= n;
}

/* policy.body.3.att -> policy.body; *copy is then policy.body.3. Outside of stacks two names remain. */
static const char *part_of_model(Arena *a, const char *path, const char **copy) {
    size_t end = 0, parts = 0;
    *copy = NULL;
    for (const char *s = path; *s && parts < 2;) {
        size_t n = strcspn(s, ".");
        if (is_number(s, n)) break;
        end = (size_t)(s - path) + n;
        parts++;
        s += n + (s[n] != 0);
    }
    const char *rest = path + end + (path[end] != 0);
    size_t n = strcspn(rest, ".");
    if (is_number(rest, n)) *copy = arena_str(a, path, (size_t)(rest - path) + n);
    return arena_str(a, path, end);
}

static bool hidden_leaf(Op op) {
    return op == OP_const || op == OP_scalar || op == OP_iota || op == OP_rope_table || op == OP_param ||
           op == OP_tensor;
}

static void find_models(Draw *d) {
    for (uint32_t i = 0; i < d->g->nnode; i++) {
        const Node *n = &d->g->node[i];
        if (n->op != OP_param) continue;
        uint32_t trained = 0;
        strmap_get(d->model, attr_str(d->g, n, "model"), &trained);
        strmap_put(d->model, attr_str(d->g, n, "model"), trained || attr_int(d->g, n, "opt") >= 0);
    }
}

static void find_live(Draw *d) {
    const Graph *g = d->g;
    for (uint32_t i = 0; i < g->nresult; i++) {
        const Result *r = &g->result[i];
        d->live[g->value[r->v.i].def.i] |= strcmp(r->kind, "loss") == 0 || strcmp(r->kind, "next") == 0;
    }
    for (uint32_t i = g->nnode; i-- > 0;)
        for (uint32_t k = 0; d->live[i] && k < g->node[i].nin; k++)
            d->live[g->value[g->operand[g->node[i].in0 + k].i].def.i] = true;
}

static uint32_t box_of(Draw *d, const char *key, const char *name, const char *model) {
    uint32_t i;
    if (strmap_get(d->by_name, key, &i)) return i;
    GROW(d->c->a, d->box, d->nbox, d->box_cap);
    d->box[d->nbox] = (Box){.name = name, .model = model};
    strmap_put(d->by_name, key, d->nbox);
    return d->nbox++;
}

/* Where the data come back to a part, from outside of it, they enter its next box. came[b] of a value: it
 * follows from box b. */
static uint32_t again(Draw *d, const Node *n, const char *part, const char *model, uint64_t *const *came) {
    const Graph *g = d->g;
    Arena *a = d->c->a;
    for (uint32_t time = 0;; time++) {
        const char *key = time ? arena_fmt(a, "%s#%u", part, time) : part;
        uint32_t b = box_of(d, key, part, model);
        bool back = false;
        for (uint32_t k = 0; k < n->nin && !back; k++) {
            uint32_t def = g->value[g->operand[n->in0 + k].i].def.i;
            back = d->of[def] != b && b < 512 && (came[def][b / 64] >> (b % 64) & 1);
        }
        if (!back) return b;
    }
}

static uint32_t find_box(Draw *d, const Node *n, uint64_t *const *came) {
    Arena *a = d->c->a;
    const char *path = n->path ? n->path : "", *root = arena_str(a, path, strcspn(path, "."));
    uint32_t trained, b;
    if (n->op == OP_input || n->op == OP_state) {
        const char *name = attr_str(d->g, n, "name");
        b = box_of(d, arena_fmt(a, "%s %s", n->op == OP_input ? "input" : "state", name), name, NULL);
        d->box[b].input = n->op == OP_input;
        d->box[b].state = n->op == OP_state;
        return b;
    }
    if (n->op == OP_cast && value_node(d->g, d->g->operand[n->in0])->op == OP_state)
        return d->of[d->g->value[d->g->operand[n->in0].i].def.i];
    if (!strmap_get(d->model, root, &trained)) return box_of(d, root, root, NULL);
    const char *copy, *part = part_of_model(a, path, &copy);
    b = again(d, n, part, root, came);
    if (copy && strmap_put(d->copy, copy, b)) d->box[b].copies++;
    return b;
}

static const char *line_at(const char *text, uint32_t line) {
    const char *s = text;
    for (uint32_t k = 1; k < line && s; k++) s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL;
    return s;
}

/* The def of a model that holds this place; NULL outside of models' defs, which stand deeper than column 1.
 */
static const char *def_at(Draw *d, const Loc *loc) {
    const Diags *g = d->c->d;
    for (uint32_t i = 0; loc->file && i < g->nsource; i++) {
        if (strcmp(g->source[i].file, loc->file) != 0) continue;
        for (uint32_t k = loc->line; k > 0; k--) {
            const char *s = line_at(g->source[i].text, k);
            size_t gap = s ? strspn(s, " ") : 0;
            if (!s || (gap == 0 && *s != '\n' && *s != '}')) return NULL;
            if (strncmp(s + gap, "def ", 4) == 0)
                return arena_str(d->c->a, s + gap + 4, strcspn(s + gap + 4, " ("));
        }
    }
    return NULL;
}

static void note_def(Draw *d, Box *x, const Node *n) {
    if (!x->model || strcmp(x->name, x->model) != 0) return;
    const char *def = def_at(d, &n->loc);
    if (!def || strcmp(def, "call") == 0 || (x->defs && strstr(x->defs, def))) return;
    x->defs = x->defs ? arena_fmt(d->c->a, "%s, %s", x->defs, def) : def;
}

static void note_read(const Draw *d, Box *x, ValueId v) {
    const Type *a = value_type(d->g, x->out), *b = value_type(d->g, v);
    if (x->read)
        x->mixed |= !type_holds(a, b) || !type_holds(b, a);
    else
        x->out = v;
    x->read = true;
}

static void mark_results(Draw *d) {
    const Graph *g = d->g;
    for (uint32_t i = 0; i < g->nresult; i++) {
        const Result *r = &g->result[i];
        uint32_t k = d->of[g->value[r->v.i].def.i];
        if (k == NOBOX || strcmp(r->name, d->box[k].name) != 0) continue;
        d->box[k].loss |= strcmp(r->kind, "loss") == 0;
        d->box[k].next |= strcmp(r->kind, "next") == 0 && !d->box[k].state;
    }
}

static void gather(Draw *d) {
    const Graph *g = d->g;
    uint64_t **came = NEWN(d->c->a, uint64_t *, g->nnode + 1);
    bool *counted = NEWN(d->c->a, bool, g->nnode + 1);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        came[i] = NEWN(d->c->a, uint64_t, 8);
        d->of[i] = NOBOX;
        if (hidden_leaf(n->op)) continue;
        uint32_t k = d->of[i] = find_box(d, n, came);
        Box *x = &d->box[k];
        if (!x->read) x->out = (ValueId){n->out0};
        x->needed |= d->live[i];
        x->flops += node_flops(g, n);
        note_def(d, x, n);
        if (k < 512) came[i][k / 64] |= (uint64_t)1 << (k % 64);
        for (uint32_t o = 0; o < n->nin; o++) {
            uint32_t def = g->value[g->operand[n->in0 + o].i].def.i;
            for (int w = 0; w < 8; w++) came[i][w] |= came[def][w];
            if (d->of[def] != NOBOX && d->of[def] != k)
                note_read(d, &d->box[d->of[def]], g->operand[n->in0 + o]);
            if (g->node[def].op != OP_param || counted[def]) continue;
            counted[def] = true;
            x->params += (double)type_count(g, value_type(g, g->operand[n->in0 + o]));
        }
    }
}

/* ---- text */

static bool shown(const Draw *d, uint32_t b) {
    if (b == NOBOX || !d->box[b].name[0]) return false; /* the sum of all losses has no name */
    if (d->box[b].input && strcmp(d->box[b].name, "present") == 0) return d->c->verbose;
    return d->box[b].needed || d->c->verbose;
}

static void put_html(Sbuf *b, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const char *e = s[i] == '<'   ? "&lt;"
                        : s[i] == '>' ? "&gt;"
                        : s[i] == '&' ? "&amp;"
                        : s[i] == '"' ? "&quot;"
                                      : NULL;
        if (e)
            sb_str(b, e);
        else
            sb_chr(b, s[i]);
    }
}

/* The line that defines a name: `open weight = ..`, `loss ce = ..`, `weight = ..`. NULL if this line does
 * not. */
static const char *defines(const char *line, const char *name) {
    static const char *const word[] = {"open", "loss", "metric", "state", "hyper"};
    for (size_t i = 0; i < WM_LEN(word); i++) {
        size_t n = strlen(word[i]);
        if (strncmp(line, word[i], n) == 0 && line[n] == ' ') line += n + strspn(line + n, " ");
    }
    size_t n = strlen(name), gap = strncmp(line, name, n) == 0 ? strspn(line + n, " ") : 0;
    return strncmp(line, name, n) == 0 && (line[n + gap] == '=' || line[n + gap] == ':') ? line + n + gap
                                                                                         : NULL;
}

/* What stands behind `NAME =` in the graph's files, the first that defines it; runs of blanks as one. */
static const char *source_of(Draw *d, const char *name, bool next) {
    const Diags *g = d->c->d;
    for (uint32_t i = 0; i < g->nsource; i++) {
        for (const char *s = g->source[i].text; s && *s; s = strchr(s, '\n') ? strchr(s, '\n') + 1 : NULL) {
            const char *is = defines(s, name);
            if (!is) continue;
            Sbuf b;
            sb_init(&b, d->c->a);
            size_t n = strcspn(is, "\n#"), from = *is == '=';
            const char *value = *is == ':' ? strstr(is, " = ") : NULL, *doc = strstr(is, "  \"");
            if (value && value < is + n) from = (size_t)(value - is) + 3;
            if (doc && doc < is + n) n = (size_t)(doc - is);
            for (size_t k = 0; next && k + 6 < n; k++)
                if (strncmp(is + k, " next ", 6) == 0) from = k + 6;
            for (size_t k = from; k < n; k++)
                if (is[k] != ' ' || (b.len && b.s[b.len - 1] != ' ')) sb_chr(&b, is[k]);
            while (b.len && b.s[b.len - 1] == ' ') b.len--;
            const char *last = b.len && strchr("{(,", b.s[b.len - 1]) ? " .." : "";
            size_t cut = MAX_LINE;
            while (b.len > MAX_LINE && cut > 0 && b.s[cut] != ' ') cut--;
            if (b.len > MAX_LINE) return arena_fmt(d->c->a, "%.*s ..", (int)cut, b.s);
            return b.len ? arena_fmt(d->c->a, "%.*s%s", (int)b.len, b.s, last) : NULL;
        }
    }
    return NULL;
}

static void put_type(Draw *d, Sbuf *b, const Type *t) {
    static const char *const word[] = {"", "", "", "token", "bool"};
    const Graph *g = d->g;
    bool any = false;
    for (int i = 0; i < t->ndim; i++) {
        if (t->dim[i].i == g->micro.i) continue;
        sb_str(b, any ? ", " : "[");
        put_html(b, g->dim[t->dim[i].i].name, strlen(g->dim[t->dim[i].i].name));
        any = true;
    }
    sb_str(b, any ? "]" : "one number");
    if ((size_t)t->dt < WM_LEN(word) && word[t->dt][0] && any) sb_fmt(b, " %s", word[t->dt]);
}

static void put_count(Sbuf *b, double v, const char *gap, const char *unit, const char *after) {
    static const char *const prefix[] = {"", "k", "M", "G", "T", "P"};
    size_t i = 0;
    for (; v >= 999.5 && i + 1 < WM_LEN(prefix); i++) v /= 1000;
    sb_fmt(b, "%.3g%s%s%s%s", v, gap[0] ? gap : prefix[i], gap[0] ? prefix[i] : " ", unit, after);
}

static const char *fill_of(const Box *x) {
    if (x->loss) return "#ffe3b3";
    if (x->input) return "#dff3e3";
    if (x->state || x->next) return "#f3dff0";
    if (x->model) return x->copies > 1 ? "#c9dcf5" : "#e3edfb";
    return x->needed ? "#ffffff" : "#f7f7f7";
}

static void put_box(Draw *d, Sbuf *b, uint32_t k) {
    const Box *x = &d->box[k];
    const char *src = x->model || x->input || x->state ? NULL : source_of(d, x->name, x->next),
               *dot = x->model ? strrchr(x->name, '.') : NULL;
    const char *title = dot       ? dot + 1
                        : x->defs ? x->defs
                                  : x->name,
               *kind = x->loss    ? "loss "
                       : x->state ? "state "
                       : x->next  ? "next "
                                  : "";
    sb_fmt(b, "    b%u [fillcolor=\"%s\", color=\"%s\", fontcolor=\"%s\"%s, label=<<B>%s", k, fill_of(x),
           x->needed ? "#7a8ba3" : "#cccccc", x->needed ? "#222222" : "#999999",
           x->copies > 1 ? ", peripheries=2" : "", kind);
    put_html(b, title, strlen(title));
    sb_str(b, "</B>");
    if (x->copies > 1) sb_fmt(b, " &#215; %u", x->copies);
    if (src) {
        sb_str(b, "<BR/><FONT FACE=\"monospace\" POINT-SIZE=\"10\">");
        put_html(b, src, strlen(src));
        sb_str(b, "</FONT>");
    }
    sb_str(b, "<BR/><FONT POINT-SIZE=\"9\" COLOR=\"#777777\">");
    if (x->model && x->params > 0) put_count(b, x->params, "", "parameters", x->flops > 0 ? ", " : "<BR/>");
    if (x->model && x->flops > 0) put_count(b, x->flops, " ", "FLOP", "<BR/>");
    if (!x->mixed || !x->model) put_type(d, b, value_type(d->g, x->out));
    sb_str(b, "</FONT>>];\n");
}

/* A dashed edge carries no gradient: the reader takes it through stop_grad. */
static void put_edges(Draw *d, Sbuf *b) {
    const Graph *g = d->g;
    StrMap *solid = strmap_new(d->c->a), *seen = strmap_new(d->c->a);
    for (int pass = 0; pass < 2; pass++)
        for (uint32_t i = 0; i < g->nnode; i++) {
            const Node *n = &g->node[i];
            for (uint32_t k = 0; shown(d, d->of[i]) && k < n->nin; k++) {
                uint32_t def = g->value[g->operand[n->in0 + k].i].def.i;
                if (!shown(d, d->of[def]) || d->of[def] == d->of[i] || (!d->live[i] && !d->c->verbose))
                    continue;
                const char *key = arena_fmt(d->c->a, "%u>%u", d->of[def], d->of[i]);
                uint32_t any;
                if (pass == 0) {
                    if (n->op != OP_stop_grad) strmap_put(solid, key, 1);
                } else if (strmap_put(seen, key, 1)) {
                    const Box *to = &d->box[d->of[i]];
                    sb_fmt(b, "  b%u -> b%u [%s%s];\n", d->of[def], d->of[i],
                           strmap_get(solid, key, &any) ? "" : "style=dashed, ",
                           to->needed ? "" : "color=\"#cccccc\"");
                }
            }
        }
    for (uint32_t i = 0; i < g->nresult; i++) {
        const Result *r = &g->result[i];
        uint32_t from = d->of[g->value[r->v.i].def.i];
        if (strcmp(r->kind, "loss") != 0 || !shown(d, from) || d->box[from].loss) continue;
        sb_fmt(b, "  r%u [fillcolor=\"#ffe3b3\", color=\"#7a8ba3\", label=\"loss ", i);
        put_html(b, r->name, strlen(r->name));
        sb_fmt(b, "\"];\n  b%u -> r%u;\n", from, i);
    }
}

static void put_model(Draw *d, Sbuf *b, const char *model) {
    uint32_t trained = 0;
    strmap_get(d->model, model, &trained);
    sb_fmt(b,
           "  subgraph \"cluster_%s\" {\n    label=<<B>%s</B>%s>; style=\"rounded,filled\"; "
           "color=\"#b8c7de\"; fillcolor=\"#f5f9ff\"; fontname=\"sans-serif\"; fontsize=12;\n",
           model, model, trained ? "" : ", frozen");
    for (uint32_t i = 0; i < d->nbox; i++)
        if (shown(d, i) && d->box[i].model && strcmp(d->box[i].model, model) == 0) put_box(d, b, i);
    sb_str(b, "  }\n");
}

static void dot_text(Draw *d, Sbuf *b) {
    sb_fmt(b, "digraph \"%s\" {\n  rankdir=TB; nodesep=0.35; ranksep=0.35; bgcolor=\"white\";\n", d->g->name);
    sb_str(b, "  node [shape=box, fontname=\"sans-serif\", fontsize=12, style=\"rounded,filled\", "
              "margin=\"0.12,0.06\"];\n"
              "  edge [color=\"#7a8ba3\", arrowsize=0.7];\n");
    StrMap *done = strmap_new(d->c->a);
    for (uint32_t i = 0; i < d->nbox; i++) {
        if (!shown(d, i)) continue;
        if (!d->box[i].model)
            put_box(d, b, i);
        else if (strmap_put(done, d->box[i].model, 1))
            put_model(d, b, d->box[i].model);
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
    const char *in = arena_fmt(c->a, "%s.%lld.dot", c->out, (long long)c->env->pid(c->env)),
               *out = arena_fmt(c->a, "%s.%lld.svg", c->out, (long long)c->env->pid(c->env));
    if (!file_write_atomic(c->env, in, b->s, b->len, c->d)) return diags_exit(c->d);
    const char *argv[] = {dot, "-Tsvg", "-o", out, in, NULL},
               *envp[] = {"PATH=/usr/bin:/bin", "LANG=C.UTF-8", NULL};
    int64_t pid;
    int err = 0, status = 1;
    bool ok = c->env->spawn(c->env, dot, argv, envp, -1, &pid, &err) == 0 &&
              c->env->wait(c->env, pid, &status, &err) == 0 && status == 0;
    ok = ok && c->env->rename(c->env, out, c->out, &err) == 0;
    int ignored;
    c->env->unlink(c->env, in, &ignored);
    if (!ok) c->env->unlink(c->env, out, &ignored);
    if (!ok) diag_add(c->d, R005, NOLOC, "dot failed on %s: %s", c->out, err ? errno_text(err) : "see above");
    return ok ? EXIT_DONE : EXIT_UNAVAILABLE;
}

int draw_graph(Cli *c, const Graph *g) {
    Draw d = {
        .c = c, .g = g, .of = NEWN(c->a, uint32_t, g->nnode + 1), .live = NEWN(c->a, bool, g->nnode + 1)};
    d.by_name = strmap_new(c->a);
    d.copy = strmap_new(c->a);
    d.model = strmap_new(c->a);
    Sbuf b;
    sb_init(&b, c->a);
    find_models(&d);
    find_live(&d);
    gather(&d);
    mark_results(&d);
    dot_text(&d, &b);
    size_t n = c->out ? strlen(c->out) : 0;
    if (!c->out) return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
    if (n > 4 && strcmp(c->out + n - 4, ".svg") == 0) return layout(c, &b);
    if (n > 4 && strcmp(c->out + n - 4, ".dot") == 0)
        return file_write_atomic(c->env, c->out, b.s, b.len, c->d) ? EXIT_DONE : diags_exit(c->d);
    return diag_add(c->d, R007, NOLOC, "graph: -o takes a name that ends in .svg or .dot"), EXIT_USAGE;
}
