/* ir.h: the graph of named-dim tensors that every pass reads and writes.
 *
 * SSA, append-only arrays, ids not pointers; node order is execution order; a pass is Graph -> Graph. Node
 * order is topological at every stage: an operand's value is defined by an earlier node. The text form is the
 * graph: parse(print(g)) == g. What a value's dims mean: distinct, slowest first, which is also the layout in
 * memory. */
#ifndef WM_IR_H
#define WM_IR_H

#include "base/base.h"

enum { MAX_DIMS = 8, MAX_ATTR = 9, MAX_OUT = 6, NONE = -1 };

typedef struct {
    uint32_t i;
} DimId;
typedef struct {
    uint32_t i;
} ValueId;
typedef struct {
    uint32_t i;
} NodeId;
typedef uint8_t AxisSet; /* bit a = mesh axis a: pp dp fsdp cp tp */
#define NOVALUE ((ValueId){UINT32_MAX})
static inline bool value_is(ValueId v) {
    return v.i != UINT32_MAX;
}

typedef enum { DT_F64, DT_F32, DT_BF16, DT_I32, DT_BOOL, NDTYPE } DType;
extern const char *const dtype_name[NDTYPE];
extern const int dtype_bytes[NDTYPE]; /* 8 4 2 4 1 */
static inline bool dtype_real(DType t) {
    return t <= DT_BF16;
}

typedef struct {
    const char *name; /* "batch", "hidden", "hidden.ref" */
    int64_t size;
    int64_t padded; /* = size until there are ranks */
    bool ragged;
} Dim;

typedef struct {
    DType dt;
    uint8_t ndim;
    AxisSet partial;         /* axes over which this is an unreduced sum; 0 on one rank */
    AxisSet split[MAX_DIMS]; /* axes that split each dim; 0 on one rank */
    DimId dim[MAX_DIMS];
} Type;

typedef struct {
    Type ty;
    NodeId def;
    uint8_t out;    /* which result of def */
    int32_t arena;  /* -1 until ST_PLANNED */
    int64_t off;    /* byte offset */
    int64_t stride; /* bytes from one micro-batch to the next for values that keep all of them; else 0 */
} Value;

typedef enum {
#define OP(name, ...) OP_##name,
#include "ir/ops.def"
#undef OP
    NOP
} Op;

typedef enum {
    K_LEAF,
    K_EW,
    K_REDUCE,
    K_GEMM,
    K_VIEW,
    K_COPY,
    K_GATHER,
    K_SCAN,
    K_CUSTOM,
    K_TREE,
    K_COLL
} OpKind;
enum { F_LEAF = 1, F_COMM = 2, F_BOOL = 4, F_LIN_ALL = 8, F_LIN_ONE = 16, F_LIN_0 = 32 };
typedef enum {
    AT_NONE,
    AT_INT,
    AT_FLOAT,
    AT_BOOL,
    AT_STR,
    AT_DIM,
    AT_DIMS,
    AT_INTS,
    AT_FLOATS,
    AT_DT
} AttrKind;

typedef struct {
    uint32_t at, n;
} List; /* into Graph.dimlist, Graph.intlist or Graph.floatlist */
typedef struct {
    AttrKind kind; /* AT_NONE: absent */
    union {
        int64_t i;
        double f;
        bool b;
        const char *s;
        DimId dim;
        List list;
        DType dt;
    } u;
} Attr;

typedef struct {
    const char *name;
    int nin, nout;
    unsigned flags;
    int nattr;
    struct {
        const char *name;
        AttrKind kind;
        bool optional;
    } attr[MAX_ATTR];
    const char *rule;
    OpKind kind;
    const char *expr, *ref, *vjp, *cost, *sample, *doc;
} OpInfo;
extern const OpInfo op_info[NOP];
bool op_find(const char *name, Op *op);

enum { N_BWD = 1, N_REMAT = 2 }; /* of the backward pass; made again instead of kept */
typedef struct {
    Op op;
    uint16_t flags;
    uint8_t nout;
    uint8_t section; /* 0 before localize; then even: once per step, odd: once per micro-batch */
    uint16_t nin;
    uint32_t in0, out0; /* Graph.operand[in0 ..], Graph.value[out0 ..] */
    uint32_t group;     /* fusion group; 0 = none. After fuse: nodes of one group stand together */
    int64_t ws_bytes,
        ws_off;     /* scratch that its kernels need, and where (work arena); node_workspace() gives bytes */
    int32_t origin; /* node this one was cloned from or is the gradient of, -1 none */
    const char *path;    /* "policy.body.3/attention", "loss", "" */
    Loc loc;             /* the .wg text behind it */
    Attr attr[MAX_ATTR]; /* in the order of op_info[op].attr */
} Node;

/* What a graph is for. kind: loss (f64 or real scalar), total, metric, value (a binding asked for by name),
 * grad (of MODEL/NAME, before clipping), grad_norm, next (new value of a param or state, by its full name),
 * check (a bool that must hold), lr (learning rate of Graph.opt row `name`). */
typedef struct {
    const char *kind, *name;
    ValueId v;
    Loc loc;
} Result;

/* One `train` line: how its parameters step. */
typedef struct {
    const char *kind; /* "adamw" or "sgd" */
    ValueId lr;       /* scalar */
    double b1, b2, eps, wd, momentum;
    Loc loc;
} Opt;

typedef enum {
    ST_MATH,
    ST_TRAIN,
    ST_SHARDED,
    ST_COLLECTIVE,
    ST_LOCAL,
    ST_SCHEDULED,
    ST_PLANNED,
    NSTAGE
} Stage;
extern const char *const stage_name[NSTAGE];

typedef struct Graph {
    Arena *arena;
    const char *name;
    Stage stage;
    const char *phase;  /* "train" or "val" */
    DimId micro, batch; /* micro has size G; index UINT32_MAX when the graph has none */
    double clip_norm;   /* 0: none */
    Dim *dim;
    uint32_t ndim, dim_cap;
    Node *node;
    uint32_t nnode, node_cap;
    Value *value;
    uint32_t nvalue, value_cap;
    ValueId *operand;
    uint32_t noperand, operand_cap;
    DimId *dimlist;
    uint32_t ndimlist, dimlist_cap;
    int64_t *intlist;
    uint32_t nintlist, intlist_cap;
    double *floatlist;
    uint32_t nfloatlist, floatlist_cap;
    Result *result;
    uint32_t nresult, result_cap;
    Opt *opt;
    uint32_t nopt, opt_cap;
    const char **note;
    uint32_t nnote, note_cap; /* printed in the plan: "loss ce: denominator early, form B" */
    int64_t arena_bytes[2];   /* ST_PLANNED: state, work */
    /* where build_* put what they append (context of the running lowering or pass) */
    Loc loc;
    const char *path;
    uint16_t flags;
    int32_t origin;
} Graph;

/* ---- building (build.c). Each appends a node, infers its type and returns its first result; a type error is
 * a broken invariant (wm_check), so callers check user input first, with ir_infer where they need to. */
Graph *graph_new(Arena *a, const char *name, Stage stage);
DimId graph_dim(Graph *g, const char *name, int64_t size); /* finds (same size) or appends */
bool graph_find_dim(const Graph *g, const char *name, DimId *d);
ValueId build(Graph *g, Op op, const ValueId *in, uint32_t nin, const Attr *attr,
              uint32_t nattr); /* attrs in row order */
ValueId build_leaf(Graph *g, Op op, Type ty, const Attr *attr, uint32_t nattr);
/* shorthands */
ValueId b_ew1(Graph *g, Op op, ValueId x);
ValueId b_ew2(Graph *g, Op op, ValueId x, ValueId y);
ValueId b_ew3(Graph *g, Op op, ValueId x, ValueId y, ValueId z);
ValueId b_const(Graph *g, DType dt, double v);
ValueId b_cast(Graph *g, ValueId x, DType to); /* x itself if it has that dtype */
ValueId b_over(Graph *g, Op op, ValueId x, const DimId *over,
               uint32_t n); /* sum, max_of, min_of; x itself if n is 0 */
ValueId b_matmul(Graph *g, ValueId x, ValueId y, const DimId *over, uint32_t n);
ValueId b_expand(Graph *g, ValueId x, const DimId *dims, uint32_t n); /* x itself if n is 0 */
ValueId b_out(const Graph *g, ValueId first, uint32_t k); /* result k of the node that defines `first` */
Attr at_int(int64_t v);
Attr at_float(double v);
Attr at_bool(bool v);
Attr at_str(Graph *g, const char *s);
Attr at_dim(DimId d);
Attr at_dims(Graph *g, const DimId *d, uint32_t n);
Attr at_ints(Graph *g, const int64_t *v, uint32_t n);
Attr at_floats(Graph *g, const double *v, uint32_t n);
Attr at_dt(DType d);
Attr at_none(void);
void graph_result(Graph *g, const char *kind, const char *name, ValueId v);
const Result *graph_find_result(const Graph *g, const char *kind, const char *name);
void graph_note(Graph *g, const char *fmt, ...)
    WM_PRINTF(2, 3); /* a note that is there already is not added again */

/* ---- reading */
static inline const Node *value_node(const Graph *g, ValueId v) {
    return &g->node[g->value[v.i].def.i];
}
static inline const Type *value_type(const Graph *g, ValueId v) {
    return &g->value[v.i].ty;
}
const Attr *node_attr(const Graph *g, const Node *n,
                      const char *name);                           /* never NULL; kind AT_NONE if absent */
int64_t attr_int(const Graph *g, const Node *n, const char *name); /* absent: 0; likewise below */
double attr_float(const Graph *g, const Node *n, const char *name);
bool attr_bool(const Graph *g, const Node *n, const char *name);
const char *attr_str(const Graph *g, const Node *n, const char *name); /* absent: "" */
DimId attr_dim(const Graph *g, const Node *n, const char *name);
uint32_t attr_dims(const Graph *g, const Node *n, const char *name, const DimId **d);

Type type_make(DType dt, const DimId *d, uint32_t n);
bool type_has(const Type *t, DimId d);
int type_index(const Type *t, DimId d); /* -1: not there */
bool type_equal(const Type *a, const Type *b);
bool type_holds(const Type *a, const Type *b); /* dims of a hold those of b */
int64_t type_count(const Graph *g, const Type *t);
int64_t type_bytes(const Graph *g, const Type *t);
const char *type_text(Arena *a, const Graph *g, const Type *t);
/* Types of the results (out: room for MAX_OUT; the written type of a leaf is handed in as out[0] and
 * checked). attr has all attributes of the row, in order. false with the reason in *why (arena text) if the
 * operands do not fit the row. Localized graphs: values of odd sections lack `micro`. */
bool ir_infer(const Graph *g, Op op, const Type *in, uint32_t nin, const Attr *attr, Type *out,
              uint32_t *nout, const char **why);

/* uses: nodes that read each value, in node order; use0[v] .. use0[v+1] index use[]. */
typedef struct {
    uint32_t *use0;
    NodeId *use;
} Uses;
Uses graph_uses(Arena *a, const Graph *g);

/* ---- copying: for passes. `map` has one ValueId per old value, NOVALUE until copied. */
Graph *graph_like(Arena *a, const Graph *g); /* same dims, name, phase, clip; no nodes, results, opts */
Attr attr_copy(Graph *g, const Graph *from, const Attr *a); /* with its list or string in g */
bool attr_equal(const Graph *a, const Graph *b, const Attr *x, const Attr *y); /* x of a, y of b; equal.c */
/* Appends a copy of node `n` of `from` with operands through map, attributes copied, and fills map for its
 * results. */
NodeId graph_copy_node(Graph *g, const Graph *from, NodeId n, ValueId *map);
/* Copies results, opts and notes through map. */
void graph_copy_results(Graph *g, const Graph *from, const ValueId *map);
bool graph_equal(const Graph *a, const Graph *b, const char **difference);

/* ---- text (print.c, parse.c) */
void graph_print(const Graph *g, Sbuf *out, bool with_loc);
/* NULL with P002 diagnostics (file, line, column) on anything that is not a legal graph. Never trusts its
 * input. */
Graph *graph_parse(Arena *a, const char *file, const char *text, size_t len, Diags *d);

/* ---- verify.c: rules by stage; false with I001 (or P002 when from_file) diagnostics. */
bool graph_verify(const Graph *g, bool from_file, Diags *d);

/* ---- cost.c */
double node_flops(const Graph *g,
                  const Node *n); /* for one execution of the node over its whole logical result */
int64_t node_bytes(const Graph *g, const Node *n);
/* workspace.c: scratch bytes (64-byte aligned total) that the CPU kernels of a localized node need: packed
 * panels, logits chunks, row lists. Written beside the kernels' templates; a function of op, types and
 * attributes alone. */
int64_t node_workspace(const Graph *g, const Node *n);

/* ---- eval.c: the f64 reference evaluator. Logical: every value whole, real numbers in double, tokens and
 * masks as double too (ignore is -100, masks 0 and 1), row-major in the value's own order of dims. */
typedef struct {
    /* Fills `out` (count doubles) for a leaf: input, param, state, scalar. false: the evaluator reports P002.
     */
    bool (*leaf)(void *ctx, const Graph *g, const Node *n, double *out, int64_t count);
    void *ctx;
    uint64_t seed;
    int64_t step;
} EvalInput;
/* One array per value, NULL for those that `want` (NULL: all results) does not need. */
double **graph_eval(Arena *a, const Graph *g, const EvalInput *in, const ValueId *want, uint32_t nwant,
                    Diags *d);

#endif
