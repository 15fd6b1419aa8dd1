/* eval_custom.c: the reference evaluator: attention and the losses over a vocabulary.
 *
 * Logits are made a row at a time and thrown away, by the formulas of ops.def: softmax with the largest logit
 * taken out, gradients from the saved log-sum-exp. */
#include "ir/eval.h"

#include <math.h>
#include <string.h>

static void clear(Cell *c, uint32_t k) {
    memset(c->y[k], 0, (size_t)type_count(c->g, c->ty[k]) * sizeof(double));
}

/* ---- softmax of one row */
typedef struct {
    double lse, entropy;
    int64_t best;
} Row;
static Row row_of(const double *z, int64_t n, int64_t step) {
    Row r = {0, 0, 0};
    double sum = 0, dot = 0;
    for (int64_t k = 1; k < n; k++)
        if (z[k * step] > z[r.best * step]) r.best = k;
    double most = z[r.best * step];
    for (int64_t k = 0; k < n; k++) {
        double e = exp(z[k * step] - most);
        sum += e;
        dot += e == 0 ? 0 : e * (z[k * step] - most);
    }
    r.lse = most + log(sum);
    r.entropy = log(sum) - dot / sum;
    return r;
}
static double kl_of(const double *z, const double *z2, int64_t n, int64_t step, int64_t step2, double lse,
                    double lse2) {
    double kl = 0;
    for (int64_t k = 0; k < n; k++) {
        double lp = z[k * step] - lse, p = exp(lp);
        if (p > 0) kl += p * (lp - (z2[k * step2] - lse2));
    }
    return kl;
}

/* ---- plain losses over given logits */
bool eval_cross_entropy(Cell *c) {
    DimId cls = attr_dim(c->g, c->n, "cls");
    int64_t n = c->g->dim[cls.i].size, step = dim_stride(c->g, c->tx[0], cls), k;
    Space s;
    space_start(&s, c->g);
    space_dims(&s, c->ty[0], NULL);
    int y = space_tensor(&s, c->ty[0]), x = space_tensor(&s, c->tx[0]), t = space_tensor(&s, c->tx[1]);
    for (space_first(&s); !s.end; space_next(&s)) {
        bool ignored;
        if (!eval_token(c, c->x[1][s.at[t]], n, &k, &ignored)) return false;
        const double *z = c->x[0] + s.at[x];
        c->y[0][s.at[y]] = ignored ? 0 : row_of(z, n, step).lse - z[k * step];
    }
    return true;
}
static bool over_rows(Cell *c, bool kl) {
    DimId cls = attr_dim(c->g, c->n, "cls");
    int64_t n = c->g->dim[cls.i].size, step = dim_stride(c->g, c->tx[0], cls);
    Space s;
    space_start(&s, c->g);
    space_dims(&s, c->ty[0], NULL);
    int y = space_tensor(&s, c->ty[0]), x = space_tensor(&s, c->tx[0]),
        x2 = kl ? space_tensor(&s, c->tx[1]) : 0;
    if (n == 0) return eval_error(c, "no classes");
    for (space_first(&s); !s.end; space_next(&s)) {
        const double *z = c->x[0] + s.at[x];
        Row r = row_of(z, n, step);
        c->y[0][s.at[y]] = r.entropy;
        if (!kl) continue;
        const double *z2 = c->x[1] + s.at[x2];
        int64_t step2 = dim_stride(c->g, c->tx[1], cls);
        c->y[0][s.at[y]] = kl_of(z, z2, n, step, step2, r.lse, row_of(z2, n, step2).lse);
    }
    return true;
}
bool eval_entropy(Cell *c) {
    return over_rows(c, false);
}
bool eval_kl(Cell *c) {
    return over_rows(c, true);
}

/* ---- heads: h [rows, k], W [cls, k], both dense in this order */
typedef struct {
    const double *h, *w;
    int64_t rows, k, cls;
    double *z;       /* logits of the row at hand */
    double *dh, *dw; /* NULL: not wanted */
    Space left;      /* walk over the rows: at[0] is the offset in dW of what is left of them */
} Head;
static Head head(Cell *c, uint32_t at, const char *over_name) {
    Type over = type_of_dims(c->g, c->n, over_name);
    Head h = {.h = c->x[at], .w = c->x[at + 1], .k = type_count(c->g, &over)};
    h.cls = c->g->dim[attr_dim(c->g, c->n, "cls").i].size;
    h.rows = 1;
    for (int k = 0; k < c->tx[at]->ndim; k++)
        if (!type_has(&over, c->tx[at]->dim[k])) h.rows *= c->g->dim[c->tx[at]->dim[k].i].size;
    h.z = NEWN(c->e->a, double, h.cls + 1);
    return h;
}
static void head_grad(Cell *c, Head *h, uint32_t at, const char *over_name, uint32_t out) {
    Type over = type_of_dims(c->g, c->n, over_name);
    clear(c, out);
    clear(c, out + 1);
    h->dh = c->y[out];
    h->dw = c->y[out + 1];
    space_start(&h->left, c->g);
    space_dims(&h->left, c->tx[at], &over);
    Type row = type_of_dims(c->g, c->n, "row"), dw = *c->ty[out + 1];
    for (int k = 0; k < h->left.n; k++) { /* rows that are summed have stride 0 */
        bool summed = type_has(&row, h->left.dim[k]);
        h->left.stride[0][k] = summed ? 0 : dim_stride(c->g, &dw, h->left.dim[k]);
    }
    h->left.ntensor = 1;
    space_first(&h->left);
}
static Row head_row(Head *h, int64_t r) {
    for (int64_t v = 0; v < h->cls; v++) {
        h->z[v] = 0;
        for (int64_t k = 0; k < h->k; k++) h->z[v] += h->h[r * h->k + k] * h->w[v * h->k + k];
    }
    return row_of(h->z, h->cls, 1);
}
/* Adds what the gradient dz of logit v of row r gives to dh and dW. */
static void head_add(Head *h, int64_t r, int64_t v, double dz) {
    double *dw = h->dw + h->left.at[0];
    for (int64_t k = 0; k < h->k; k++) {
        h->dh[r * h->k + k] += dz * h->w[v * h->k + k];
        dw[v * h->k + k] += dz * h->h[r * h->k + k];
    }
}
static bool ce_forward(Cell *c, Head *h, int64_t r, Row *row) {
    int64_t t;
    bool ignored;
    if (!eval_token(c, c->x[2][r], h->cls, &t, &ignored)) return false;
    *row = head_row(h, r);
    c->y[0][r] = ignored ? 0 : row->lse - h->z[t];
    c->y[1][r] = row->lse;
    c->y[2][r] = row->entropy;
    c->y[3][r] = (double)row->best;
    return true;
}
/* dce (p - onehot) - dentropy p (log p + entropy); a row whose seeds are 0 adds nothing, whatever it holds.
 */
static bool ce_backward(Cell *c, Head *h, int64_t r, double lse, double dce, double entropy,
                        double dentropy) {
    int64_t t;
    bool ignored;
    if (!eval_token(c, c->x[2][r], h->cls, &t, &ignored)) return false;
    if (ignored) dce = 0;
    for (int64_t v = 0; (dce != 0 || dentropy != 0) && v < h->cls; v++) {
        double lp = h->z[v] - lse, p = exp(lp), dz = 0;
        if (dce != 0) dz += dce * (p - (v == t));
        if (dentropy != 0 && p > 0) dz -= dentropy * p * (lp + entropy);
        head_add(h, r, v, dz);
    }
    return true;
}
bool eval_linear_ce(Cell *c) {
    Head h = head(c, 0, "over");
    Row row;
    for (int64_t r = 0; r < h.rows; r++)
        if (!ce_forward(c, &h, r, &row)) return false;
    return true;
}
bool eval_linear_ce_grad(Cell *c) {
    Head h = head(c, 0, "over");
    bool entropy = c->n->nin == 7;
    head_grad(c, &h, 0, "over", 0);
    for (int64_t r = 0; r < h.rows; r++, space_next(&h.left)) {
        head_row(&h, r);
        if (!ce_backward(c, &h, r, c->x[3][r], c->x[4][r], entropy ? c->x[5][r] : 0,
                         entropy ? c->x[6][r] : 0))
            return false;
    }
    return true;
}
bool eval_linear_ce_fb(Cell *c) {
    Head h = head(c, 0, "over");
    Row row;
    head_grad(c, &h, 0, "over", 4);
    for (int64_t r = 0; r < h.rows; r++, space_next(&h.left))
        if (!ce_forward(c, &h, r, &row) || !ce_backward(c, &h, r, row.lse, c->x[3][r], 0, 0)) return false;
    return true;
}
bool eval_linear_kl(Cell *c) {
    Head p = head(c, 0, "over"), q = head(c, 2, "over2");
    for (int64_t r = 0; r < p.rows; r++) {
        c->y[1][r] = head_row(&p, r).lse;
        c->y[2][r] = head_row(&q, r).lse;
        c->y[0][r] = kl_of(p.z, q.z, p.cls, 1, 1, c->y[1][r], c->y[2][r]);
    }
    return true;
}
/* By the logits of p: p (log p - log q - kl); by those of q: q - p. */
bool eval_linear_kl_grad(Cell *c) {
    Head p = head(c, 0, "over"), q = head(c, 2, "over2");
    head_grad(c, &p, 0, "over", 0);
    head_grad(c, &q, 2, "over2", 2);
    for (int64_t r = 0; r < p.rows; r++, space_next(&p.left), space_next(&q.left)) {
        double lse = c->x[4][r], lse2 = c->x[5][r], seed = c->x[6][r];
        if (seed == 0) continue;
        head_row(&p, r);
        head_row(&q, r);
        double kl = kl_of(p.z, q.z, p.cls, 1, 1, lse, lse2);
        for (int64_t v = 0; v < p.cls; v++) {
            double lp = p.z[v] - lse, lq = q.z[v] - lse2, pv = exp(lp);
            head_add(&p, r, v, pv > 0 ? seed * pv * (lp - lq - kl) : 0);
            head_add(&q, r, v, seed * (exp(lq) - pv));
        }
    }
    return true;
}

/* ---- attention */
typedef struct {
    Cell *c;
    DimId along, over, heads;                      /* heads: the dim that only q has */
    int64_t width, nq, nk, kv_heads_k, kv_heads_v; /* strides of the key heads in k and v */
    int64_t q_over, k_over, k_along, v_along;
    double scale;
    Space row;   /* over the dims of q without `over`: at[0] q, [1] k, [2] v, [3] lse, [4] o */
    Space value; /* over the dims that are v's own: at[0] v, [1] o */
} Attn;
static void attn_start(Attn *t, Cell *c, const Type *lse, const Type *o) {
    const Graph *g = c->g;
    memset(t, 0, sizeof *t);
    t->c = c;
    t->along = attr_dim(g, c->n, "along");
    t->over = attr_dim(g, c->n, "over");
    t->heads.i = UINT32_MAX;
    t->nq = t->nk = 1;
    t->width = g->dim[t->over.i].size;
    t->scale = 1 / sqrt((double)t->width);
    const Type *q = c->tx[0], *k = c->tx[1], *v = c->tx[2];
    for (int j = 0; j < q->ndim; j++) {
        if (type_has(k, q->dim[j])) continue;
        t->heads = q->dim[j];
        t->nq = g->dim[q->dim[j].i].size;
    }
    for (int j = 0; j < k->ndim; j++) {
        if (type_has(q, k->dim[j])) continue;
        t->nk = g->dim[k->dim[j].i].size;
        t->kv_heads_k = dim_stride(g, k, k->dim[j]);
        t->kv_heads_v = dim_stride(g, v, k->dim[j]);
    }
    t->q_over = dim_stride(g, q, t->over);
    t->k_over = dim_stride(g, k, t->over);
    t->k_along = dim_stride(g, k, t->along);
    t->v_along = dim_stride(g, v, t->along);
    Type without[1] = {type_make(DT_F64, &t->over, 1)};
    space_start(&t->row, g);
    space_dims(&t->row, q, without);
    const Type *tensors[5] = {q, k, v, lse, o};
    for (int j = 0; j < 5; j++) space_tensor(&t->row, tensors[j]);
    Type own = {0};
    for (int j = 0; j < v->ndim; j++)
        if (v->dim[j].i == t->over.i || !type_has(k, v->dim[j])) own.dim[own.ndim++] = v->dim[j];
    space_start(&t->value, g);
    space_dims(&t->value, &own, NULL);
    space_tensor(&t->value, v);
    space_tensor(&t->value, o);
}
/* Of the row at hand: its place along the sequence, and where its keys and values begin. */
static int64_t attn_row(const Attn *t, int64_t *k, int64_t *v) {
    int64_t place = 0, head = 0;
    for (int j = 0; j < t->row.n; j++) {
        if (t->row.dim[j].i == t->along.i) place = t->row.i[j];
        if (t->row.dim[j].i == t->heads.i) head = t->row.i[j] * t->nk / t->nq;
    }
    *k = t->row.at[1] - place * t->k_along + head * t->kv_heads_k;
    *v = t->row.at[2] - place * t->v_along + head * t->kv_heads_v;
    return place;
}
static double attn_score(const Attn *t, int64_t k) {
    double s = 0;
    for (int64_t j = 0; j < t->width; j++)
        s += t->c->x[0][t->row.at[0] + j * t->q_over] * t->c->x[1][k + j * t->k_over];
    return s * t->scale;
}
bool eval_attention(Cell *c) {
    Attn t;
    attn_start(&t, c, c->ty[1], c->ty[0]);
    double *score = NEWN(c->e->a, double, c->g->dim[t.along.i].size + 1);
    for (space_first(&t.row); !t.row.end; space_next(&t.row)) {
        int64_t k, v, place = attn_row(&t, &k, &v);
        for (int64_t j = 0; j <= place; j++) score[j] = attn_score(&t, k + j * t.k_along);
        double lse = row_of(score, place + 1, 1).lse;
        c->y[1][t.row.at[3]] = lse;
        for (space_first(&t.value); !t.value.end; space_next(&t.value)) {
            double o = 0;
            for (int64_t j = 0; j <= place; j++)
                o += exp(score[j] - lse) * c->x[2][v + j * t.v_along + t.value.at[0]];
            c->y[0][t.row.at[4] + t.value.at[1]] = o;
        }
    }
    return true;
}
/* Operands q k v o lse do. ds = p (dp - sum do o). */
static void attn_pair(Attn *t, int64_t k, int64_t v, double dot) {
    Cell *c = t->c;
    double p = exp(attn_score(t, k) - c->x[4][t->row.at[3]]), dp = 0;
    for (space_first(&t->value); !t->value.end; space_next(&t->value)) {
        double seed = c->x[5][t->row.at[4] + t->value.at[1]];
        dp += seed * c->x[2][v + t->value.at[0]];
        c->y[2][v + t->value.at[0]] += p * seed;
    }
    double ds = p * (dp - dot) * t->scale;
    for (int64_t j = 0; j < t->width; j++) {
        int64_t qi = t->row.at[0] + j * t->q_over, ki = k + j * t->k_over;
        c->y[0][qi] += ds * c->x[1][ki];
        c->y[1][ki] += ds * c->x[0][qi];
    }
}
bool eval_attention_grad(Cell *c) {
    Attn t;
    attn_start(&t, c, c->tx[4], c->tx[3]);
    for (uint32_t k = 0; k < 3; k++) clear(c, k);
    for (space_first(&t.row); !t.row.end; space_next(&t.row)) {
        int64_t k, v, place = attn_row(&t, &k, &v);
        double dot = 0;
        for (space_first(&t.value); !t.value.end; space_next(&t.value)) {
            int64_t at = t.row.at[4] + t.value.at[1];
            dot += c->x[5][at] * c->x[3][at];
        }
        for (int64_t j = 0; j <= place; j++) attn_pair(&t, k + j * t.k_along, v + j * t.v_along, dot);
    }
    return true;
}
