/* eval.h: shared by the files of the reference evaluator. */
#ifndef WM_IR_EVAL_H
#define WM_IR_EVAL_H

#include "ir/ir.h"

enum { IGNORE = -100, EVAL_IN = 8, SPACE_DIMS = 2 * MAX_DIMS };

typedef struct {
    const Graph *g;
    const EvalInput *in;
    Arena *a;
    Diags *d;
    double **v;     /* by value; G pieces one after the other for values of odd sections */
    int64_t pieces; /* G */
    int64_t piece;  /* the running micro-batch; 0 in even sections */
} Eval;

/* One run of one node. x: the first EVAL_IN operands, y: the results (the running piece of each). */
typedef struct {
    Eval *e;
    const Graph *g;
    const Node *n;
    const double *x[EVAL_IN];
    const Type *tx[EVAL_IN];
    double *y[MAX_OUT];
    const Type *ty[MAX_OUT];
} Cell;

const double *eval_operand(const Eval *e, const Node *n, uint32_t k);
bool eval_error(Cell *c, const char *fmt, ...) WM_PRINTF(2, 3);

/* A walk over all coordinates of some dims, row-major, with the offset of each coordinate in several tensors.
 */
typedef struct {
    const Graph *g;
    int n, ntensor;
    DimId dim[SPACE_DIMS];
    int64_t i[SPACE_DIMS], size[SPACE_DIMS], stride[EVAL_IN][SPACE_DIMS], at[EVAL_IN];
    bool end;
} Space;
void space_start(Space *s, const Graph *g);
void space_dims(Space *s, const Type *t,
                const Type *without);      /* without may be NULL; dims already there are skipped */
int space_tensor(Space *s, const Type *t); /* after the dims; at[returned] follows the walk */
void space_first(Space *s);
void space_next(Space *s);
int64_t dim_stride(const Graph *g, const Type *t, DimId d); /* 0 if t lacks d */
Type type_of_dims(const Graph *g, const Node *n,
                  const char *attr); /* DIM or DIMS attribute as dims of a type */
bool eval_token(Cell *c, double token, int64_t size, int64_t *index, bool *ignored);

#define OP(name, nin, nout, flags, attrs, rule, kind, expr, ref, vjp, cost, sample, doc)                     \
    bool eval_##ref(Cell *c);
#include "ir/ops.def"
#undef OP

#endif
