/* fuse.h: private to fuse.c and recompute.c. */
#ifndef WM_FUSE_H
#define WM_FUSE_H

#include "passes/rewrite.h"

/* Same block of the model, by path ("policy.tail.1" of "policy.tail.1.att"), or both outside of any. */
bool fuse_same_lane(const Node *x, const Node *y);
/* Is node i element-wise and read by sums over leading dims alone? Then it belongs into their kernel. */
bool fuse_for_columns(const Graph *g, const Uses *uses, uint32_t i);
/* g with cheap heavy values made again where keeping them would cost memory. Exact. */
Graph *fuse_recompute(Arena *a, const Graph *g);

#endif
