/* vjp.h: one function per name in the vjp column of ops.def. Internal to passes/. */
#ifndef WM_VJP_H
#define WM_VJP_H

#include "passes/rewrite.h"

/* One node on the way back. A function fills din[i] for the operands with need[i]. What it puts there may
 * have more dims than the operand (they are summed away) and any order of dims; NOVALUE is a gradient of
 * zero. */
typedef struct {
    Graph *g;
    Diags *d;
    Node n; /* the forward node (a copy: the graph grows meanwhile) */
    const ValueId *in, *out;
    const ValueId *dout; /* adjoints of the results; NOVALUE where zero */
    const bool *need;
    ValueId *din;
    bool failed;
} Vjp;

typedef void (*VjpFn)(Vjp *x);
extern const VjpFn vjp_table[NOP];
bool vjp_is_stop(Op op);
/* v summed to the dims of operand-like type `like`, in its order and dtype. */
ValueId vjp_fit(Graph *g, ValueId v, Type like);

#endif
