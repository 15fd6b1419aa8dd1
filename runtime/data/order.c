/* order.c: what an epoch holds and in which order: a pure function of (seed, epoch, position).
 *
 * A permutation of n things sorts them by a 64-bit word of Philox (counter: index, epoch, stream
 * "order:NAME"), ties by index. A draw of m from n takes whole rounds of all n, then the first m mod n of a
 * permutation. */
#include "runtime/data/set.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    uint64_t key;
    int64_t i;
} Keyed;

static int by_key(const void *a, const void *b) {
    const Keyed *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? -1 : 1;
    return x->i < y->i ? -1 : x->i > y->i;
}

/* salt keeps the draws of one epoch apart: 0 the final order, then the pools. */
static Keyed *permutation(const DataSet *s, Arena *a, int64_t epoch, uint32_t salt, int64_t n) {
    Keyed *k = NEWN(a, Keyed, n + 1);
    if (!k) return NULL;
    uint32_t stream = stream_of(arena_fmt(a, "order:%s#%u", s->o.name, salt));
    for (int64_t i = 0; i < n; i++) {
        uint32_t w[4];
        philox4x32(s->o.seed, (uint64_t)i, (uint32_t)epoch, stream, w);
        k[i] = (Keyed){(uint64_t)w[0] << 32 | w[1], i};
    }
    if (s->o.shuffle) qsort(k, (size_t)n, sizeof *k, by_key);
    return k;
}

typedef struct {
    int64_t *v;
    int64_t n;
} Answers;

/* Appends m numbers drawn from a pool (width numbers an entry). */
static bool draw(DataSet *s, Arena *a, int64_t epoch, uint32_t salt, Answers p, int64_t m, int64_t *out,
                 int64_t *nout, Diags *d) {
    if (m == 0) return true;
    if (p.n == 0)
        return diag_fail(d, D003, NOLOC,
                         "%s: nothing to draw from: a class or difficulty bin that has a share has no sample",
                         s->path);
    int64_t w = s->o.width;
    for (int64_t r = 0; r < m / p.n; r++, *nout += p.n)
        memcpy(out + *nout * w, p.v, (size_t)(p.n * w) * sizeof *out);
    Keyed *k = permutation(s, a, epoch, salt, p.n);
    if (!k) return diag_fail(d, R006, NOLOC, "%s: out of memory", s->path);
    for (int64_t i = 0; i < m % p.n; i++, ++*nout)
        memcpy(out + *nout * w, p.v + k[i].i * w, (size_t)w * sizeof *out);
    return true;
}

static bool in_bin(const DataSet *s, const Problem *p, uint32_t bin) {
    return s->o.nbin == 0 || (p->difficulty >= s->o.bin[bin].lo && p->difficulty <= s->o.bin[bin].hi);
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Single answers of a bin: side 0 right and wrong, 1 right only, 2 wrong only. In file order. */
static Answers singles(const DataSet *s, Arena *a, uint32_t bin, int side) {
    Answers p = {NEWN(a, int64_t, s->nline + 1), 0};
    if (!p.v) return p;
    for (int64_t i = 0; i < s->nproblem; i++) {
        const Problem *q = &s->problem[i];
        if (!in_bin(s, q, bin)) continue;
        for (int64_t k = 0; side != 2 && k < q->nright && p.n < s->nline; k++) p.v[p.n++] = q->right[k];
        for (int64_t k = 0; side != 1 && k < q->nwrong && p.n < s->nline; k++) p.v[p.n++] = q->wrong[k];
    }
    qsort(p.v, (size_t)p.n, sizeof *p.v, by_number);
    return p;
}

static int64_t pairs_of(const DataSet *s, const Problem *q) {
    int64_t all = q->nright * q->nwrong, most = s->o.max_pairs_per_problem;
    return most > 0 && most < all ? most : all;
}

/* (right, wrong) pairs: of each problem up to max_pairs_per_problem, drawn anew in each epoch. */
static Answers pairs(const DataSet *s, Arena *a, int64_t epoch, uint32_t bin) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->nproblem; i++)
        n += in_bin(s, &s->problem[i], bin) ? pairs_of(s, &s->problem[i]) : 0;
    Answers p = {NEWN(a, int64_t, 2 * n + 1), 0};
    for (int64_t i = 0; p.v && i < s->nproblem; i++) {
        const Problem *q = &s->problem[i];
        if (!in_bin(s, q, bin) || q->nright * q->nwrong == 0) continue;
        Keyed *k = permutation(s, a, epoch, (uint32_t)(1000 + i), q->nright * q->nwrong);
        for (int64_t j = 0; k && j < pairs_of(s, q); j++, p.n++) {
            p.v[2 * p.n] = q->right[k[j].i / q->nwrong];
            p.v[2 * p.n + 1] = q->wrong[k[j].i % q->nwrong];
        }
    }
    return p;
}

/* Groups of `width` answers to one problem: floor(answers / width) of them, at least one (then with
 * repetition). */
static Answers groups(const DataSet *s, Arena *a, int64_t epoch, uint32_t bin) {
    int64_t n = 0, w = s->o.width;
    for (int64_t i = 0; i < s->nproblem; i++) n += (s->problem[i].nright + s->problem[i].nwrong) / w + 1;
    Answers p = {NEWN(a, int64_t, n * w + 1), 0};
    for (int64_t i = 0; p.v && i < s->nproblem; i++) {
        const Problem *q = &s->problem[i];
        int64_t all = q->nright + q->nwrong, most = all / w > 1 ? all / w : 1;
        if (!in_bin(s, q, bin) || all == 0) continue;
        Keyed *k = permutation(s, a, epoch, (uint32_t)(1000 + i), all);
        for (int64_t j = 0; k && j < most * w; j++) {
            int64_t c = k[j % all].i;
            p.v[p.n * w + j] = c < q->nright ? q->right[c] : q->wrong[c - q->nright];
        }
        p.n += most;
    }
    return p;
}

static Answers pool_of(const DataSet *s, Arena *a, int64_t epoch, uint32_t bin, int side) {
    if (s->o.draw == DRAW_PAIR) return pairs(s, a, epoch, bin);
    if (s->o.draw == DRAW_GROUP) return groups(s, a, epoch, bin);
    return singles(s, a, bin, s->o.correct_only ? 1 : side);
}

/* Shares of n by weights, by largest remainder, ties to the first. */
static void shares(const double *weight, uint32_t nw, int64_t n, int64_t *out) {
    double sum = 0;
    int64_t given = 0;
    for (uint32_t i = 0; i < nw; i++) sum += weight[i];
    for (uint32_t i = 0; i < nw; i++) given += out[i] = sum > 0 ? (int64_t)((double)n * weight[i] / sum) : 0;
    while (given < n && sum > 0) {
        uint32_t best = 0;
        double far = -1e300;
        for (uint32_t i = 0; i < nw; i++) {
            double rest = weight[i] > 0 ? (double)n * weight[i] / sum - (double)out[i] : -1e300;
            if (rest > far) far = rest, best = i;
        }
        out[best]++;
        given++;
    }
}

static double bin_weight(const DataSet *s, int64_t epoch, uint32_t b) {
    if (s->o.nbin == 0) return 1;
    if (s->o.ncurriculum == 0) return s->o.bin[b].weight;
    int64_t row = epoch < s->o.ncurriculum ? epoch : s->o.ncurriculum - 1;
    return s->o.curriculum[row * s->o.nbin + b];
}

int64_t order_count(const DataSet *s) {
    if (s->o.n_samples > 0) return s->o.n_samples;
    Arena *a = arena_open(s->env, NULL);
    int64_t n = 0;
    for (uint32_t b = 0; a && b < (s->o.nbin ? s->o.nbin : 1); b++) n += pool_of(s, a, 0, b, 0).n;
    arena_close(a);
    return n;
}

static bool collect(DataSet *s, Arena *a, int64_t epoch, int64_t *out, Diags *d) {
    uint32_t nb = s->o.nbin ? s->o.nbin : 1;
    double *weight = NEWN(a, double, nb);
    int64_t *share = NEWN(a, int64_t, nb), n = 0;
    if (s->o.nbin == 0 && s->o.n_samples == 0 && !s->o.balance_correct) { /* everything once */
        Answers p = pool_of(s, a, epoch, 0, 0);
        return draw(s, a, epoch, 1, p, s->items, out, &n, d);
    }
    for (uint32_t b = 0; b < nb; b++) weight[b] = bin_weight(s, epoch, b);
    shares(weight, nb, s->items, share);
    for (uint32_t b = 0; b < nb; b++) {
        bool two = s->o.balance_correct && s->o.draw == DRAW_ONE && !s->o.correct_only;
        double part[2] = {s->o.correct_ratio, 1 - s->o.correct_ratio};
        int64_t m[2] = {share[b], 0};
        if (two) shares(part, 2, share[b], m);
        for (int side = 0; side < (two ? 2 : 1); side++)
            if (m[side] && !draw(s, a, epoch, 1 + 2 * b + (uint32_t)side,
                                 pool_of(s, a, epoch, b, two ? side + 1 : 0), m[side], out, &n, d))
                return false;
    }
    return n == s->items || diag_fail(d, D003, NOLOC, "%s: all difficulty bins have weight 0", s->path);
}

bool order_make(DataSet *s, int64_t epoch, Diags *d) {
    if (s->order_epoch == epoch) return true;
    Arena *a = arena_open(s->env, NULL);
    int64_t w = s->o.width;
    int64_t *drawn = a ? NEWN(a, int64_t, s->items * w + 1) : NULL;
    bool ok =
        drawn ? collect(s, a, epoch, drawn, d) : diag_fail(d, R006, NOLOC, "%s: out of memory", s->path);
    Keyed *k = ok ? permutation(s, a, epoch, 0, s->items) : NULL;
    if (ok && !k) ok = diag_fail(d, R006, NOLOC, "%s: out of memory", s->path);
    for (int64_t i = 0; ok && i < s->items; i++)
        memcpy(s->order + i * w, drawn + k[i].i * w, (size_t)w * sizeof *drawn);
    arena_close(a);
    s->order_epoch = ok ? epoch : -1;
    return ok;
}
