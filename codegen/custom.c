/* custom.c: every node that is not element-wise or a reduction. One row per op; codegen/custom/ holds the
 * templates. */
#include "codegen/custom/kern.h"

typedef bool (*CustomFn)(Emit *e, NodeId id);

static const CustomFn custom_of[NOP] = {
#define X(op) [OP_##op] = custom_##op,
    CUSTOM_OPS(X)
#undef X
        [OP_const] = custom_const,
};

bool emit_custom(Emit *e, NodeId n) {
    const Node *node = &e->g->node[n.i];
    CustomFn fn = custom_of[node->op];
    wm_check(e->a, fn != NULL, "node %u: no kernel for op %s", n.i, op_info[node->op].name);
    return fn(e, n);
}
