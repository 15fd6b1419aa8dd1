/* eval_move.c: the reference evaluator: contraction, moving data, order and scans.
 *
 * Each op is one or two walks over coordinates; where an op works along a dim, `line` gives the lines of it.
 */
#include "ir/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void clear(Cell *c, uint32_t k) {
    memset(c->y[k], 0, (size_t)type_count(c->g, c->ty[k]) * sizeof(double));
}
static int64_t size_of(const Cell *c, DimId d) {
    return c->g->dim[d.i].size;
}

bool eval_matmul(Cell *c) {
    Space s;
    clear(c, 0);
    space_start(&s, c->g);
    space_dims(&s, c->ty[0], NULL);
    space_dims(&s, c->tx[0], NULL);
    int y = space_tensor(&s, c->ty[0]), p = space_tensor(&s, c->tx[0]), q = space_tensor(&s, c->tx[1]);
    for (space_first(&s); !s.end; space_next(&s)) c->y[0][s.at[y]] += c->x[0][s.at[p]] * c->x[1][s.at[q]];
    return true;
}

/* ---- by token */
bool eval_gather(Cell *c) {
    DimId cls = attr_dim(c->g, c->n, "cls");
    int64_t stride = dim_stride(c->g, c->tx[0], cls), k;
    Space s;
    space_start(&s, c->g);
    space_dims(&s, c->ty[0], NULL);
    int y = space_tensor(&s, c->ty[0]), table = space_tensor(&s, c->tx[0]),
        token = space_tensor(&s, c->tx[1]);
    for (space_first(&s); !s.end; space_next(&s)) {
        bool ignored;
        if (!eval_token(c, c->x[1][s.at[token]], size_of(c, cls), &k, &ignored)) return false;
        c->y[0][s.at[y]] = ignored ? 0 : c->x[0][s.at[table] + k * stride];
    }
    return true;
}
bool eval_scatter_add(Cell *c) {
    DimId cls = attr_dim(c->g, c->n, "cls");
    int64_t stride = dim_stride(c->g, c->ty[0], cls), k;
    Space s;
    clear(c, 0);
    space_start(&s, c->g);
    space_dims(&s, c->tx[1], NULL);
    space_dims(&s, c->tx[0], NULL);
    int y = space_tensor(&s, c->ty[0]), x = space_tensor(&s, c->tx[0]), token = space_tensor(&s, c->tx[1]);
    for (space_first(&s); !s.end; space_next(&s)) {
        bool ignored;
        if (!eval_token(c, c->x[1][s.at[token]], size_of(c, cls), &k, &ignored)) return false;
        if (!ignored) c->y[0][s.at[y] + k * stride] += c->x[0][s.at[x]];
    }
    return true;
}

/* ---- shifts. `wide` has the added dims; t + by + sum factor * e is a place of the narrow side. */
static bool shift(Cell *c, const Type *wide, const Type *narrow, bool grad) {
    const Graph *g = c->g;
    DimId dim = attr_dim(g, c->n, "dim");
    Type add = type_of_dims(g, c->n, "add");
    const Attr *factor = node_attr(g, c->n, "factor");
    int64_t stride = dim_stride(g, narrow, dim), by = attr_int(g, c->n, "by");
    Space s;
    if (grad) clear(c, 0);
    space_start(&s, g);
    space_dims(&s, wide, NULL);
    int w = space_tensor(&s, wide), r = space_tensor(&s, narrow);
    for (space_first(&s); !s.end; space_next(&s)) {
        int64_t t = 0, to = by;
        for (int k = 0; k < s.n; k++) {
            if (s.dim[k].i == dim.i) t = s.i[k];
            int e = type_index(&add, s.dim[k]);
            if (e >= 0) to += g->intlist[factor->u.list.at + (uint32_t)e] * s.i[k];
        }
        bool inside = t + to >= 0 && t + to < size_of(c, dim);
        int64_t at = s.at[r] + to * stride;
        if (grad && inside) c->y[0][at] += c->x[0][s.at[w]];
        if (!grad) c->y[0][s.at[w]] = inside ? c->x[0][at] : attr_float(g, c->n, "fill");
    }
    return true;
}
bool eval_shift(Cell *c) {
    return shift(c, c->ty[0], c->tx[0], false);
}
bool eval_shift_grad(Cell *c) {
    return shift(c, c->tx[0], c->ty[0], true);
}

/* ---- pieces of a dim */
/* Walks the dims of `part` and copies between it and the slice `index` of dim in `whole`. */
static void slice_copy(Cell *c, const Type *part, const Type *whole, DimId dim, int64_t index,
                       const double *from, double *to, bool to_whole) {
    Space s;
    int64_t start = index * dim_stride(c->g, whole, dim);
    space_start(&s, c->g);
    space_dims(&s, part, NULL);
    int p = space_tensor(&s, part), w = space_tensor(&s, whole);
    for (space_first(&s); !s.end; space_next(&s)) {
        if (to_whole)
            to[start + s.at[w]] = from[s.at[p]];
        else
            to[s.at[p]] = from[start + s.at[w]];
    }
}
bool eval_select(Cell *c) {
    DimId dim = attr_dim(c->g, c->n, "dim");
    slice_copy(c, c->ty[0], c->tx[0], dim, attr_int(c->g, c->n, "index"), c->x[0], c->y[0], false);
    return true;
}
bool eval_place(Cell *c) {
    clear(c, 0);
    slice_copy(c, c->tx[0], c->ty[0], attr_dim(c->g, c->n, "dim"), attr_int(c->g, c->n, "index"), c->x[0],
               c->y[0], true);
    return true;
}
bool eval_stack(Cell *c) {
    for (uint32_t k = 0; k < c->n->nin; k++)
        slice_copy(c, c->tx[0], c->ty[0], attr_dim(c->g, c->n, "dim"), k, eval_operand(c->e, c->n, k),
                   c->y[0], true);
    return true;
}
bool eval_transpose(Cell *c) {
    Space s;
    space_start(&s, c->g);
    space_dims(&s, c->ty[0], NULL);
    int y = space_tensor(&s, c->ty[0]), x = space_tensor(&s, c->tx[0]);
    for (space_first(&s); !s.end; space_next(&s)) c->y[0][s.at[y]] = c->x[0][s.at[x]];
    return true;
}

bool eval_rope(Cell *c) {
    DimId over = attr_dim(c->g, c->n, "over");
    int64_t step = dim_stride(c->g, c->tx[0], over);
    double sign = attr_bool(c->g, c->n, "inverse") ? -1 : 1;
    Type gone = type_make(DT_F64, &over, 1);
    Space s;
    space_start(&s, c->g);
    space_dims(&s, c->tx[0], &gone);
    int x = space_tensor(&s, c->tx[0]), table = space_tensor(&s, c->tx[1]);
    for (space_first(&s); !s.end; space_next(&s)) {
        for (int64_t k = 0; k + 1 < size_of(c, over); k += 2) {
            const double *p = c->x[0] + s.at[x] + k * step, *angle = c->x[1] + s.at[table] + k;
            double *y = c->y[0] + s.at[x] + k * step, co = angle[0], si = sign * angle[1];
            y[0] = p[0] * co - p[step] * si;
            y[step] = p[0] * si + p[step] * co;
        }
    }
    return true;
}

/* ---- lines along `over`: a walk over the other dims of `t`; at[k] is where the line of operand k begins */
typedef struct {
    Space s;
    int64_t n, step[EVAL_IN];
    int out;
} Lines;
static void lines_start(Lines *l, Cell *c, const Type *t) {
    DimId over = attr_dim(c->g, c->n, "over");
    Type gone = type_make(DT_F64, &over, 1);
    space_start(&l->s, c->g);
    space_dims(&l->s, t, &gone);
    l->n = size_of(c, over);
    for (uint32_t k = 0; k < c->n->nin; k++) {
        int at = space_tensor(&l->s, c->tx[k]);
        l->step[at] = dim_stride(c->g, c->tx[k], over);
    }
    l->out = space_tensor(&l->s, c->ty[0]);
    l->step[l->out] = dim_stride(c->g, c->ty[0], over);
}
static int64_t spot(const Lines *l, int tensor, int64_t t) {
    return l->s.at[tensor] + t * l->step[tensor];
}

static bool first_or_last(Cell *c, bool last) {
    Lines l;
    clear(c, 0);
    lines_start(&l, c, c->ty[0]);
    for (space_first(&l.s); !l.s.end; space_next(&l.s)) {
        for (int64_t k = 0; k < l.n; k++) {
            int64_t t = last ? l.n - 1 - k : k;
            if (c->x[0][spot(&l, 0, t)] == 0) continue;
            c->y[0][spot(&l, l.out, t)] = 1;
            break;
        }
    }
    return true;
}
bool eval_first(Cell *c) {
    return first_or_last(c, false);
}
bool eval_last(Cell *c) {
    return first_or_last(c, true);
}

bool eval_cumsum(Cell *c) {
    Lines l;
    bool reverse = attr_bool(c->g, c->n, "reverse");
    lines_start(&l, c, c->ty[0]);
    for (space_first(&l.s); !l.s.end; space_next(&l.s)) {
        double sum = 0;
        for (int64_t k = 0; k < l.n; k++) {
            int64_t t = reverse ? l.n - 1 - k : k;
            sum += c->x[0][spot(&l, 0, t)];
            c->y[0][spot(&l, l.out, t)] = sum;
        }
    }
    return true;
}

bool eval_argmax(Cell *c) {
    Lines l;
    double base = (double)attr_int(c->g, c->n, "base");
    lines_start(&l, c, c->tx[0]);
    for (space_first(&l.s); !l.s.end; space_next(&l.s)) {
        int64_t best = 0;
        for (int64_t t = 1; t < l.n; t++)
            if (c->x[0][spot(&l, 0, t)] > c->x[0][spot(&l, 0, best)]) best = t;
        c->y[0][l.s.at[l.out]] = base + (double)best;
    }
    return true;
}

/* ---- scan. Operands: 0 init, 1 a, 2 b, 3 mask. */
bool eval_scan(Cell *c) {
    Lines l;
    bool reverse = attr_bool(c->g, c->n, "reverse");
    clear(c, 0);
    lines_start(&l, c, c->ty[0]);
    for (space_first(&l.s); !l.s.end; space_next(&l.s)) {
        bool begun = false;
        double carry = 0;
        for (int64_t k = 0; k < l.n; k++) {
            int64_t t = reverse ? l.n - 1 - k : k;
            if (c->x[3][spot(&l, 3, t)] == 0) continue;
            carry = begun ? c->x[1][spot(&l, 1, t)] * carry + c->x[2][spot(&l, 2, t)] : c->x[0][l.s.at[0]];
            begun = true;
            c->y[0][spot(&l, l.out, t)] = carry;
        }
    }
    return true;
}
/* Further operands: 4 result, 5 its gradient. From the last place visited to the first. */
bool eval_scan_grad(Cell *c) {
    Lines l;
    bool reverse = attr_bool(c->g, c->n, "reverse");
    for (uint32_t k = 0; k < 3; k++) clear(c, k);
    lines_start(&l, c, c->tx[3]);
    for (space_first(&l.s); !l.s.end; space_next(&l.s)) {
        double adj = 0;
        for (int64_t k = l.n; k-- > 0;) {
            int64_t t = reverse ? l.n - 1 - k : k, before = -1;
            if (c->x[3][spot(&l, 3, t)] == 0) continue;
            for (int64_t j = k; j-- > 0 && before < 0;) {
                int64_t u = reverse ? l.n - 1 - j : j;
                if (c->x[3][spot(&l, 3, u)] != 0) before = u;
            }
            adj += c->x[5][spot(&l, 5, t)];
            if (before < 0) {
                c->y[0][l.s.at[0]] += adj;
                break;
            }
            c->y[1][spot(&l, 1, t)] += adj * c->x[4][spot(&l, 4, before)];
            c->y[2][spot(&l, 2, t)] += adj;
            adj *= c->x[1][spot(&l, 1, t)];
        }
    }
    return true;
}

/* ---- order */
static int by_value(const void *x, const void *y) {
    double p = *(const double *)x, q = *(const double *)y;
    return p < q ? -1 : p > q;
}
static double quantile(double *v, int64_t n, double q) {
    if (n == 0) return 0;
    qsort(v, (size_t)n, sizeof *v, by_value);
    double p = q * (double)(n - 1), whole = nearbyint(p);
    if (fabs(p - whole) < 1e-9) p = whole;
    int64_t lo = (int64_t)floor(p), hi = (int64_t)ceil(p);
    return v[lo] + (v[hi] - v[lo]) * (p - floor(p));
}
bool eval_quantile(Cell *c) {
    Type over = type_of_dims(c->g, c->n, "over");
    int64_t most = type_count(c->g, &over);
    double *v = NEWN(c->e->a, double, most + 1);
    Space s, inner;
    space_start(&s, c->g);
    space_dims(&s, c->ty[0], NULL);
    int y = space_tensor(&s, c->ty[0]), x = space_tensor(&s, c->tx[0]), m = space_tensor(&s, c->tx[1]);
    space_start(&inner, c->g);
    space_dims(&inner, &over, NULL);
    int ix = space_tensor(&inner, c->tx[0]), im = space_tensor(&inner, c->tx[1]);
    for (space_first(&s); !s.end; space_next(&s)) {
        int64_t n = 0;
        for (space_first(&inner); !inner.end; space_next(&inner))
            if (c->x[1][s.at[m] + inner.at[im]] != 0) v[n++] = c->x[0][s.at[x] + inner.at[ix]];
        c->y[0][s.at[y]] = quantile(v, n, attr_float(c->g, c->n, "q"));
    }
    return true;
}

typedef struct {
    uint64_t key;
    int64_t place;
} Draw;
static int by_key(const void *x, const void *y) {
    const Draw *p = x, *q = y;
    if (p->key != q->key) return p->key < q->key ? -1 : 1;
    return p->place < q->place ? -1 : p->place > q->place;
}
/* The key of an element: words 2i and 2i + 1 of its stream, the first one the low half. */
static uint64_t shuffle_key(const Cell *c, int64_t i) {
    uint32_t w[4];
    uint64_t word = 2 * (uint64_t)i;
    philox4x32(c->e->in->seed, word >> 2, (uint32_t)c->e->in->step, (uint32_t)attr_int(c->g, c->n, "stream"),
               w);
    return w[word & 2] | (uint64_t)w[(word & 2) + 1] << 32;
}
bool eval_shuffle(Cell *c) {
    Lines l;
    bool inverse = attr_bool(c->g, c->n, "inverse");
    int64_t start = c->n->section % 2 ? c->e->piece * type_count(c->g, c->ty[0]) : 0;
    if (!c->e->in) return eval_error(c, "no seed was given");
    lines_start(&l, c, c->ty[0]);
    Draw *draw = NEWN(c->e->a, Draw, l.n + 1);
    int64_t *place = NEWN(c->e->a, int64_t, l.n + 1);
    for (space_first(&l.s); !l.s.end; space_next(&l.s)) {
        int64_t n = 0;
        for (int64_t t = 0; t < l.n; t++) {
            c->y[0][spot(&l, l.out, t)] = c->x[0][spot(&l, 0, t)];
            if (c->x[1][spot(&l, 1, t)] == 0) continue;
            place[n] = t;
            draw[n++] = (Draw){shuffle_key(c, start + spot(&l, l.out, t)), t};
        }
        qsort(draw, (size_t)n, sizeof *draw, by_key);
        for (int64_t k = 0; k < n; k++) {
            int64_t to = inverse ? draw[k].place : place[k], from = inverse ? place[k] : draw[k].place;
            c->y[0][spot(&l, l.out, to)] = c->x[0][spot(&l, 0, from)];
        }
    }
    return true;
}
