/* workspace.c: scratch of the CPU kernels of a localized node, and the shapes behind it.
 *
 * What is in scratch and where is decided here once; codegen/custom/ reads the same structs, so the planner's
 * bytes and the kernels' bytes cannot drift apart. */
#include "ir/workspace.h"

static int64_t round_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* Element stride of dim d in a row-major value; 0 when it lacks the dim. */
static int64_t dim_stride(const Graph *g, const Type *t, DimId d) {
    int64_t s = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->dim[i].i == d.i) return s;
        s *= g->dim[t->dim[i].i].size;
    }
    return 0;
}

static ValueId operand(const Graph *g, const Node *n, uint32_t i) {
    return g->operand[n->in0 + i];
}
static const Type *in_type(const Graph *g, const Node *n, uint32_t i) {
    return value_type(g, operand(g, n, i));
}
static const Type *out_type(const Graph *g, const Node *n, uint32_t i) {
    return &g->value[n->out0 + i].ty;
}

static int64_t take(int64_t *total, int64_t bytes) {
    int64_t at = *total;
    *total += round_up(bytes, 64);
    return at;
}

/* ---- matmul */
static bool listed(const DimId *d, uint32_t n, DimId x) {
    for (uint32_t i = 0; i < n; i++)
        if (d[i].i == x.i) return true;
    return false;
}

/* Appends a dim to a list of runs, joining it with the last run where all strides allow. */
static void add_run(MatDim *run, uint32_t *n, MatDim d) {
    if (d.size == 1) return;
    if (*n > 0) {
        MatDim *o = &run[*n - 1];
        if (o->sx == d.sx * d.size && o->sy == d.sy * d.size && o->sc == d.sc * d.size) {
            o->size *= d.size;
            o->sx = d.sx;
            o->sy = d.sy;
            o->sc = d.sc;
            return;
        }
    }
    run[(*n)++] = d;
}

typedef struct {
    MatDim b[MAX_DIMS], m[MAX_DIMS], n[MAX_DIMS], k[MAX_DIMS];
    uint32_t nb, nm, nn, nk;
} Groups;

static MatDim mat_dim(const Graph *g, const Node *n, DimId d) {
    return (MatDim){g->dim[d.i].size, dim_stride(g, in_type(g, n, 0), d), dim_stride(g, in_type(g, n, 1), d),
                    dim_stride(g, out_type(g, n, 0), d)};
}

static void groups(const Graph *g, const Node *n, Groups *s) {
    *s = (Groups){.nb = 0};
    const Type *x = in_type(g, n, 0), *y = in_type(g, n, 1), *c = out_type(g, n, 0);
    const DimId *over;
    uint32_t nover = attr_dims(g, n, "over", &over);
    for (uint32_t i = 0; i < c->ndim; i++) {
        DimId d = c->dim[i];
        bool inx = type_has(x, d), iny = type_has(y, d);
        if (inx && iny)
            add_run(s->b, &s->nb, mat_dim(g, n, d));
        else if (inx)
            add_run(s->m, &s->nm, mat_dim(g, n, d));
        else
            add_run(s->n, &s->nn, mat_dim(g, n, d));
    }
    for (uint32_t i = 0; i < y->ndim; i++)
        if (listed(over, nover, y->dim[i])) add_run(s->k, &s->nk, mat_dim(g, n, y->dim[i]));
}

void matmul_loops(const Graph *g, const Node *n, MatLoops *s) {
    *s = (MatLoops){.nout = 0};
    const Type *y = in_type(g, n, 1), *c = out_type(g, n, 0);
    const DimId *over;
    uint32_t nover = attr_dims(g, n, "over", &over);
    for (uint32_t i = 0; i < c->ndim; i++) add_run(s->out, &s->nout, mat_dim(g, n, c->dim[i]));
    for (uint32_t i = 0; i < y->ndim; i++)
        if (listed(over, nover, y->dim[i])) add_run(s->k, &s->nk, mat_dim(g, n, y->dim[i]));
}

/* The largest run becomes the main one, the others go to `rest`. `last`: only the last run may be it. */
static MatDim main_run(const MatDim *run, uint32_t n, bool last, MatDim *rest, uint32_t *nrest) {
    if (n == 0) return (MatDim){1, 0, 0, 0};
    uint32_t at = n - 1;
    for (uint32_t i = 0; i < n && !last; i++)
        if (run[i].size > run[at].size) at = i;
    for (uint32_t i = 0; i < n; i++)
        if (i != at) rest[(*nrest)++] = run[i];
    return run[at];
}

void matmul_shape(const Graph *g, const Node *n, MatShape *s) {
    *s = (MatShape){.nouter = 0};
    Groups r;
    groups(g, n, &r);
    for (uint32_t i = 0; i < r.nb; i++) s->outer[s->nouter++] = r.b[i];
    s->m = main_run(r.m, r.nm, false, s->outer, &s->nouter);
    s->n = main_run(r.n, r.nn, true, s->outer, &s->nouter);
    s->k = main_run(r.k, r.nk, false, s->kouter, &s->nkouter);
    s->gemm = s->m.size >= 8 && s->n.size >= 16 && s->k.size >= 8 && s->n.sc == 1;
    if (!s->gemm) return;
    s->pack = s->n.sy != 1 || s->n.size % WS_PANEL != 0 || s->m.size >= 64;
    if (!s->pack) return;
    s->packed = round_up(s->n.size, WS_PANEL) * s->k.size;
    for (uint32_t i = 0; i < s->nkouter; i++) s->packed *= s->kouter[i].size;
    for (uint32_t i = 0; i < s->nouter; i++)
        if (s->outer[i].sy != 0) s->packed *= s->outer[i].size;
}

static int64_t matmul_scratch(const Graph *g, const Node *n) {
    MatShape s;
    matmul_shape(g, n, &s);
    return s.packed * dtype_bytes[in_type(g, n, 0)->dt];
}

/* ---- losses */
static int64_t count_of(const Graph *g, const DimId *d, uint32_t n) {
    int64_t c = 1;
    for (uint32_t i = 0; i < n; i++) c *= g->dim[d[i].i].size;
    return c;
}

void loss_shape(const Graph *g, const Node *n, LossShape *s) {
    bool kl = n->op == OP_linear_kl || n->op == OP_linear_kl_grad;
    bool grad = n->op == OP_linear_ce_grad || n->op == OP_linear_ce_fb || n->op == OP_linear_kl_grad;
    const Type *h = in_type(g, n, 0);
    int64_t size = dtype_bytes[h->dt];
    const DimId *over, *row;
    uint32_t nover = attr_dims(g, n, "over", &over);
    *s = (LossShape){.left = 1};
    s->cls = g->dim[attr_dim(g, n, "cls").i].size;
    s->over[0] = count_of(g, over, nover);
    int64_t all = type_count(g, h) / s->over[0];
    if (kl) s->over[1] = count_of(g, over, attr_dims(g, n, "over2", &over));
    if (grad) {
        uint32_t nrow = attr_dims(g, n, "row", &row);
        s->left = all / count_of(g, row, nrow);
    }
    s->rows = all / s->left;
    s->nchunk = (s->rows + 128) / 256;
    if (s->nchunk < 1) s->nchunk = 1;
    if (s->nchunk > WS_MAX_CHUNKS) s->nchunk = WS_MAX_CHUNKS; /* each is a few launches of the plan */
    s->chunk = round_up((s->rows + s->nchunk - 1) / s->nchunk, WS_ROWS);
    if (s->chunk < WS_ROWS) s->chunk = WS_ROWS;
    s->nchunk = (s->rows + s->chunk - 1) / s->chunk;
    /* 16 elements beyond the panels: rows a power of two apart would share their cache sets */
    s->ldl = round_up(s->cls, WS_PANEL) + 16;
    s->count = take(&s->total, 8 * s->nchunk); /* a chunk: its rows, and whether it is the first */
    s->list = take(&s->total, 4 * s->rows);
    for (int i = 0; i < 1 + (int)kl; i++) {
        int64_t d_pad = round_up(s->over[i], WS_PANEL), v_pad = round_up(s->cls, WS_PANEL);
        s->ldh[i] = d_pad + 16;
        s->hg[i] = take(&s->total, s->chunk * s->ldh[i] * size);
        s->logits[i] = take(&s->total, s->chunk * s->ldl * size);
        s->panel[i] = take(&s->total, v_pad * s->over[i] * size);
        if (!grad) continue;
        s->panel_t[i] = take(&s->total, d_pad * s->cls * size);
        s->dhg[i] = take(&s->total, s->chunk * s->ldh[i] * size);
    }
}

static int64_t loss_scratch(const Graph *g, const Node *n) {
    LossShape s;
    loss_shape(g, n, &s);
    return s.total;
}

/* ---- attention */
void attention_shape(const Graph *g, const Node *n, AttentionShape *s) {
    const Type *q = in_type(g, n, 0), *k = in_type(g, n, 1), *v = in_type(g, n, 2);
    const DimId none = {UINT32_MAX};
    *s = (AttentionShape){.nq = 1, .nk = 1, .qdim = none, .kdim = none};
    s->sdim = attr_dim(g, n, "along");
    s->ddim = s->edim = attr_dim(g, n, "over");
    for (uint32_t i = 0; i < q->ndim; i++) {
        DimId d = q->dim[i];
        if (d.i == s->sdim.i || d.i == s->ddim.i) continue;
        if (type_has(k, d)) {
            s->bdim[s->nbatch] = d;
            s->batch[s->nbatch++] = g->dim[d.i].size;
        } else {
            s->qdim = d;
            s->nq = g->dim[d.i].size;
        }
    }
    for (uint32_t i = 0; i < k->ndim; i++)
        if (!type_has(q, k->dim[i])) {
            s->kdim = k->dim[i];
            s->nk = g->dim[k->dim[i].i].size;
        }
    for (uint32_t i = 0; i < v->ndim; i++)
        if (!type_has(k, v->dim[i])) s->edim = v->dim[i];
    s->seq = g->dim[s->sdim.i].size;
    s->d = g->dim[s->ddim.i].size;
    s->e = g->dim[s->edim.i].size;
    int64_t size = dtype_bytes[q->dt], heads = s->nk;
    for (uint32_t i = 0; i < s->nbatch; i++) heads *= s->batch[i];
    s->seq_pad = round_up(s->seq, WS_PANEL);
    s->d_pad = round_up(s->d, WS_PANEL);
    s->e_pad = round_up(s->e, WS_PANEL);
    s->kt = take(&s->total, heads * s->seq_pad * s->d * size);
    if (n->op == OP_attention) {
        s->vp = take(&s->total, heads * s->seq_pad * s->e_pad * size);
    } else {
        s->vp = take(&s->total, heads * s->seq_pad * s->e * size);
        s->kp = take(&s->total, heads * s->seq_pad * s->d_pad * size);
    }
}

static int64_t attention_scratch(const Graph *g, const Node *n) {
    AttentionShape s;
    attention_shape(g, n, &s);
    return s.total;
}

/* ---- the rest */
void scatter_shape(const Graph *g, const Node *n, ScatterShape *s) {
    const DimId *over;
    uint32_t nover = attr_dims(g, n, "over", &over);
    *s = (ScatterShape){.left = 1};
    s->rows = count_of(g, over, nover);
    s->left = type_count(g, in_type(g, n, 1)) / s->rows;
    s->cls = g->dim[attr_dim(g, n, "cls").i].size;
    s->start = take(&s->total, 4 * s->left * (s->cls + 1));
    s->list = take(&s->total, 4 * s->left * s->rows);
}

static int64_t scatter_scratch(const Graph *g, const Node *n) {
    ScatterShape s;
    scatter_shape(g, n, &s);
    return s.total;
}

/* quantile sorts the chosen values of a row: 64-bit keys, twice. shuffle: key and place of each, twice. */
static int64_t quantile_scratch(const Graph *g, const Node *n) {
    const DimId *over;
    uint32_t nover = attr_dims(g, n, "over", &over);
    return 16 * count_of(g, over, nover) * type_count(g, out_type(g, n, 0));
}
static int64_t shuffle_scratch(const Graph *g, const Node *n) {
    return 32 * type_count(g, out_type(g, n, 0));
}

static int64_t (*const scratch_of[NOP])(const Graph *, const Node *) = {
    [OP_matmul] = matmul_scratch,       [OP_linear_ce] = loss_scratch,
    [OP_linear_ce_grad] = loss_scratch, [OP_linear_ce_fb] = loss_scratch,
    [OP_linear_kl] = loss_scratch,      [OP_linear_kl_grad] = loss_scratch,
    [OP_attention] = attention_scratch, [OP_attention_grad] = attention_scratch,
    [OP_scatter_add] = scatter_scratch, [OP_quantile] = quantile_scratch,
    [OP_shuffle] = shuffle_scratch,
};

int64_t node_workspace(const Graph *g, const Node *n) {
    return scratch_of[n->op] ? round_up(scratch_of[n->op](g, n), 64) : 0;
}
