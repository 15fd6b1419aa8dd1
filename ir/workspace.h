/* workspace.h: shapes that node_workspace() and the kernels of codegen/custom/ must see alike.
 *
 * A matmul over named dims is turned into groups (outer, M, N, K) of collapsed runs with a stride per
 * operand; the loss family, attention and scatter_add have a fixed layout of their scratch. Nothing here
 * depends on the CPU: panels are counted for the widest tile (32 columns), rows for tiles of 14 and 6. */
#ifndef WM_WORKSPACE_H
#define WM_WORKSPACE_H

#include "ir/ir.h"

enum { WS_PANEL = 32, WS_ROWS = 42 /* multiple of every tile height */, WS_MAX_CHUNKS = 1024 };

/* One run of collapsed dims: its size and the element stride in x0, x1 and the result (0: not there). */
typedef struct {
    int64_t size, sx, sy, sc;
} MatDim;
typedef struct {
    MatDim outer[MAX_DIMS * 2];
    uint32_t nouter; /* batch dims and the runs of M and N beside the main one */
    MatDim kouter[MAX_DIMS];
    uint32_t nkouter; /* runs of K beside the main one: summed one after the other */
    MatDim m, n, k;   /* main runs; size 1 and strides 0 where there is none */
    bool gemm;        /* register tiles; else plain loops */
    bool pack;        /* x1 goes to scratch in panels first */
    int64_t packed;   /* elements of scratch for the panels */
} MatShape;
void matmul_shape(const Graph *g, const Node *n, MatShape *s);
/* The same groups before a main run is chosen: every run of M, N and K. For plain loops. */
typedef struct {
    MatDim out[MAX_DIMS * 2];
    uint32_t nout; /* in the order of the result */
    MatDim k[MAX_DIMS];
    uint32_t nk;
} MatLoops;
void matmul_loops(const Graph *g, const Node *n, MatLoops *s);

/* Scratch of the linear_ce and linear_kl family, byte offsets. [0] policy, [1] the second model of a kl. */
typedef struct {
    int64_t left, rows;    /* rows of one slice; left slices one after the other */
    int64_t cls, over[2];  /* V and d */
    int64_t chunk, nchunk; /* rows of a chunk: a multiple of WS_ROWS */
    int64_t ldl, ldh[2];   /* row strides (elements) of logits and of gathered rows */
    int64_t count, list;   /* i32 */
    int64_t hg[2], logits[2], panel[2], panel_t[2], dhg[2];
    int64_t total;
} LossShape;
void loss_shape(const Graph *g, const Node *n, LossShape *s);

/* Attention: x0 [batch.., along, query heads?, over]; see the row of the op. Strides in elements, 0 where
 * absent. */
typedef struct {
    int64_t seq, nq, nk, d, e; /* e: size of what replaces `over` in v */
    uint32_t nbatch;
    int64_t batch[MAX_DIMS];
    DimId bdim[MAX_DIMS], sdim, qdim, kdim, ddim, edim; /* qdim, kdim: index UINT32_MAX when there are none */
    int64_t seq_pad, d_pad, e_pad;                      /* rounded up to WS_PANEL * 7 and WS_PANEL */
    int64_t kt, vp, kp; /* byte offsets: K^T panels; V panels (V^T in the gradient); K panels */
    int64_t total;
} AttentionShape;
void attention_shape(const Graph *g, const Node *n, AttentionShape *s);

/* scatter_add: rows sorted by token. */
typedef struct {
    int64_t left, rows, cls, start, list, total;
} ScatterShape;
void scatter_shape(const Graph *g, const Node *n, ScatterShape *s);

#endif
