/* rewrite.h: what passes share. A pass copies the graph node by node into a new one; `map` says where each
 * value went.
 *
 * Every helper keeps types by name: a rewritten value has the dims of the old one in the same order, so that
 * readers need no care. Internal to passes/. */
#ifndef WM_REWRITE_H
#define WM_REWRITE_H

#include "passes/passes.h"

typedef struct {
    Arena *a;
    const Graph *from;
    Graph *to;
    ValueId *map; /* per value of `from`; NOVALUE until it has a place in `to` */
} Rewrite;

Rewrite rewrite_begin(Arena *a, const Graph *g);
/* Loc, path, flags and origin of what is appended to r->to from now on: those of node n of r->from. */
void rewrite_at(Rewrite *r, const Node *n);
/* Attributes of n with their lists moved into `to`. */
void rewrite_attrs(Graph *to, const Graph *from, const Node *n, Attr out[MAX_ATTR]);
/* Node n with other operands (values of r->to); types inferred anew. Leaves keep their type. First result. */
ValueId rewrite_with(Rewrite *r, const Node *n, const ValueId *in);
/* Results of node n now live in the node of `first` (same number of results). */
void rewrite_map(Rewrite *r, const Node *n, ValueId first);
/* Node n copied as it is, operands through the map. */
void rewrite_copy(Rewrite *r, const Node *n);
/* Operands of n through the map, into `in` (room for n->nin). */
ValueId *rewrite_operands(Rewrite *r, const Node *n);
/* Results, opts and notes through the map; then dead code goes. */
Graph *rewrite_end(Rewrite *r);

/* g without the nodes that no result, opt or trained parameter needs. Order is kept. */
Graph *graph_live(Arena *a, const Graph *g);

/* The nodes of g in an order in which operands come first even where value v is read as subst[v.i] (NOVALUE:
 * as itself). False if there is a cycle. order has room for g->nnode. */
bool graph_order(Arena *a, const Graph *g, const ValueId *subst, uint32_t *order);
/* g with every reader of v reading subst[v.i] instead, reordered as needed; NULL if that would make a cycle.
 */
Graph *graph_substitute(Arena *a, const Graph *g, const ValueId *subst);

/* v in the order of dims of `like` (same set of dims). */
ValueId v_ordered(Graph *g, ValueId v, const Type *like);
/* Constant of dtype dt spread over dims. */
ValueId v_fill(Graph *g, DType dt, double value, const DimId *dims, uint32_t n);
ValueId v_select(Graph *g, ValueId v, DimId dim, int64_t index);
ValueId v_stack(Graph *g, const ValueId *v, uint32_t n, DimId dim);
bool dims_have(const DimId *d, uint32_t n, DimId x);
bool same_dims(const Type *a, const Type *b);              /* same dims in the same order */
bool v_is_const(const Graph *g, ValueId v, double *value); /* a const leaf, also behind expand and cast */
static inline bool dim_is(DimId a, DimId b) {
    return a.i == b.i;
}

/* By dim: only models have it (parameters, but no data). A value with such a dim is heavy: its memory counts.
 */
bool *model_dims(Arena *a, const Graph *g);
bool type_heavy(const bool *wide, const Type *t);

/* Table from three numbers to a value (memo of a pass). Never decides an order. */
typedef struct {
    uint64_t a, b;
    uint32_t v;
} TripleRow;
typedef struct {
    Arena *a;
    TripleRow *row;
    uint32_t n, cap;
} Triples;
void triples_init(Triples *t, Arena *a);
bool triples_get(const Triples *t, uint64_t a, uint64_t b, uint32_t *v);
void triples_put(Triples *t, uint64_t a, uint64_t b, uint32_t v);

/* slice.c: coordinate i of a dim, pushed down to the stacks, iotas and shifts that made the dim. */
typedef struct {
    Graph *g;
    Triples done, free;
    /* how nodes are made; NULL: build(). simplify hands in its own, so that what a slice makes is simplified
     * too */
    ValueId (*make)(void *ctx, Op op, const ValueId *in, uint32_t nin, const Attr attr[MAX_ATTR]);
    void *ctx;
} Slicer;
void slicer_init(Slicer *s, Graph *g);
/* v at index i of dim, without the dim; v itself if it has no such dim. Always right; at worst a `select`. */
ValueId slice(Slicer *s, ValueId v, DimId dim, int64_t i);
/* Does slicing v along dim end in stacks, iotas, shifts and broadcasts only (no `select` left)? */
bool slice_free(Slicer *s, ValueId v, DimId dim);
/* Does v depend on a `stack` along dim through nodes that slice() goes through? */
bool slice_stack(Slicer *s, ValueId v, DimId dim);

/* simplify.c: what pass_simplify does; drop_stop: stop_grad goes too. */
Graph *simplify_graph(Arena *a, const Graph *g, bool drop_stop, Diags *d);

#endif
