/* graph.c: storage and reading of graphs: dims, types, attributes, results, uses.
 *
 * Everything is an index into append-only arrays of the graph's arena, so a graph is never freed in parts and
 * a reference never dangles; attribute lists lie in three shared arrays. */
#include "ir/ir.h"

#include <string.h>

Graph *graph_new(Arena *a, const char *name, Stage stage) {
    Graph *g = NEW(a, Graph);
    g->arena = a;
    g->name = arena_str(a, name, strlen(name));
    g->stage = stage;
    g->phase = "train";
    g->micro.i = g->batch.i = UINT32_MAX;
    g->path = "";
    g->origin = NONE;
    return g;
}

bool graph_find_dim(const Graph *g, const char *name, DimId *d) {
    for (uint32_t k = 0; k < g->ndim; k++) {
        if (strcmp(g->dim[k].name, name) == 0) {
            d->i = k;
            return true;
        }
    }
    return false;
}

DimId graph_dim(Graph *g, const char *name, int64_t size) {
    DimId d;
    if (graph_find_dim(g, name, &d)) {
        wm_check(g->arena, g->dim[d.i].size == size, "dim %s has the sizes %lld and %lld", name,
                 (long long)g->dim[d.i].size, (long long)size);
        return d;
    }
    GROW(g->arena, g->dim, g->ndim, g->dim_cap);
    g->dim[g->ndim] = (Dim){arena_str(g->arena, name, strlen(name)), size, size, false};
    return (DimId){g->ndim++};
}

/* ---- attributes of a node */
static int attr_index(const Node *n, const char *name) {
    const OpInfo *f = &op_info[n->op];
    for (int k = 0; k < f->nattr; k++)
        if (strcmp(f->attr[k].name, name) == 0) return k;
    return -1;
}

const Attr *node_attr(const Graph *g, const Node *n, const char *name) {
    static const Attr absent = {AT_NONE, {0}};
    (void)g;
    int k = attr_index(n, name);
    return k < 0 ? &absent : &n->attr[k];
}

int64_t attr_int(const Graph *g, const Node *n, const char *name) {
    const Attr *t = node_attr(g, n, name);
    return t->kind == AT_INT ? t->u.i : 0;
}
double attr_float(const Graph *g, const Node *n, const char *name) {
    const Attr *t = node_attr(g, n, name);
    return t->kind == AT_FLOAT ? t->u.f : 0;
}
bool attr_bool(const Graph *g, const Node *n, const char *name) {
    const Attr *t = node_attr(g, n, name);
    return t->kind == AT_BOOL && t->u.b;
}
const char *attr_str(const Graph *g, const Node *n, const char *name) {
    const Attr *t = node_attr(g, n, name);
    return t->kind == AT_STR ? t->u.s : "";
}
DimId attr_dim(const Graph *g, const Node *n, const char *name) {
    const Attr *t = node_attr(g, n, name);
    return t->kind == AT_DIM ? t->u.dim : (DimId){0};
}
uint32_t attr_dims(const Graph *g, const Node *n, const char *name, const DimId **d) {
    const Attr *t = node_attr(g, n, name);
    *d = NULL;
    if (t->kind != AT_DIMS) return 0;
    *d = g->dimlist + t->u.list.at;
    return t->u.list.n;
}

/* ---- types */
Type type_make(DType dt, const DimId *d, uint32_t n) {
    Type t = {0};
    t.dt = dt;
    t.ndim = (uint8_t)n;
    for (uint32_t k = 0; k < n; k++) t.dim[k] = d[k];
    return t;
}

int type_index(const Type *t, DimId d) {
    for (int k = 0; k < t->ndim; k++)
        if (t->dim[k].i == d.i) return k;
    return -1;
}
bool type_has(const Type *t, DimId d) {
    return type_index(t, d) >= 0;
}

bool type_equal(const Type *a, const Type *b) {
    if (a->dt != b->dt || a->ndim != b->ndim || a->partial != b->partial) return false;
    for (int k = 0; k < a->ndim; k++)
        if (a->dim[k].i != b->dim[k].i || a->split[k] != b->split[k]) return false;
    return true;
}

bool type_holds(const Type *a, const Type *b) {
    for (int k = 0; k < b->ndim; k++)
        if (!type_has(a, b->dim[k])) return false;
    return true;
}

int64_t type_count(const Graph *g, const Type *t) {
    int64_t n = 1;
    for (int k = 0; k < t->ndim; k++) n *= g->dim[t->dim[k].i].size;
    return n;
}
int64_t type_bytes(const Graph *g, const Type *t) {
    return type_count(g, t) * dtype_bytes[t->dt];
}

const char *type_text(Arena *a, const Graph *g, const Type *t) {
    Sbuf b;
    sb_init(&b, a);
    sb_str(&b, dtype_name[t->dt]);
    sb_chr(&b, '[');
    for (int k = 0; k < t->ndim; k++) {
        if (k) sb_chr(&b, ',');
        sb_str(&b, g->dim[t->dim[k].i].name);
    }
    sb_chr(&b, ']');
    return b.s;
}

/* ---- results and notes */
void graph_result(Graph *g, const char *kind, const char *name, ValueId v) {
    GROW(g->arena, g->result, g->nresult, g->result_cap);
    g->result[g->nresult++] =
        (Result){arena_str(g->arena, kind, strlen(kind)), arena_str(g->arena, name, strlen(name)), v, g->loc};
}

const Result *graph_find_result(const Graph *g, const char *kind, const char *name) {
    for (uint32_t k = 0; k < g->nresult; k++)
        if (strcmp(g->result[k].kind, kind) == 0 && strcmp(g->result[k].name, name) == 0)
            return &g->result[k];
    return NULL;
}

void graph_note(Graph *g, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    const char *text = arena_vfmt(g->arena, fmt, ap);
    va_end(ap);
    for (uint32_t k = 0; k < g->nnote; k++)
        if (strcmp(g->note[k], text) == 0) return;
    GROW(g->arena, g->note, g->nnote, g->note_cap);
    g->note[g->nnote++] = text;
}

/* Two passes over the operands: count, then place; nodes come out in order as nodes are visited in order. A
 * node that reads a value twice stands twice. */
Uses graph_uses(Arena *a, const Graph *g) {
    Uses u = {NEWN(a, uint32_t, g->nvalue + 2), NEWN(a, NodeId, g->noperand + 1)};
    for (uint32_t n = 0; n < g->nnode; n++)
        for (uint32_t k = 0; k < g->node[n].nin; k++) u.use0[g->operand[g->node[n].in0 + k].i + 2]++;
    for (uint32_t v = 0; v < g->nvalue; v++) u.use0[v + 2] += u.use0[v + 1];
    for (uint32_t n = 0; n < g->nnode; n++)
        for (uint32_t k = 0; k < g->node[n].nin; k++)
            u.use[u.use0[g->operand[g->node[n].in0 + k].i + 1]++] = (NodeId){n};
    return u;
}
