/* scatter.c: scatter_add, the gradient of a table read by token.
 *
 * Rows are sorted by token (counting sort, stable), then each token's rows are summed in row order: no two
 * parts touch the same row of the result and the order of every sum is fixed. Parts are cut so that rows and
 * tokens weigh the same. */
#include "codegen/custom/kern.h"

static const char sort_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const int *tok = p[0];
    int *all = p[1];
    for (long s = part; s < LEFT; s += nparts) {
        int *start = all + s * (CLS + 1);
        int *list = all + LIST + s * ROWS;
        for (long v = 0; v <= CLS; v++) start[v] = 0;
        for (long r = 0; r < ROWS; r++) {
            long t = tok[token(s * ROWS + r)];
            if (t >= 0 && t < CLS) start[t + 1]++;
        }
        for (long v = 0; v < CLS; v++) start[v + 1] += start[v];
        for (long r = 0; r < ROWS; r++) {
            long t = tok[token(s * ROWS + r)];
            if (t >= 0 && t < CLS) list[start[t]++] = (int)r;
        }
        for (long v = CLS; v > 0; v--) start[v] = start[v - 1];
        start[0] = 0;
    }
});

static const char sum_text[] = TEXT(
    /* First token v with v + (rows before it) >= the part's share of both. */
    static long cut(const int *start, int part, int nparts) {
        long want = (CLS + start[CLS]) * part / nparts, lo = 0, hi = CLS;
        while (lo < hi) {
            long m = (lo + hi) / 2;
            if (m + start[m] >= want)
                hi = m;
            else
                lo = m + 1;
        }
        return lo;
    } void k(void *const *p, int part, int nparts) {
        const T *x = p[0];
        const int *all = p[1];
        T *y = p[2];
        for (long s = 0; s < LEFT; s++) {
            const int *start = all + s * (CLS + 1);
            const int *list = all + LIST + s * ROWS;
            long hi = part + 1 == nparts ? CLS : cut(start, part + 1, nparts);
            for (long v = part ? cut(start, part, nparts) : 0; v < hi; v++)
                for (long o = 0; o < OUTER; o++) {
                    T *c = y + s * YLEFT + v * YCLS + y_rest(o);
                    for (long j = 0; j < N; j++) c[j] = 0;
                    for (long i = start[v]; i < start[v + 1]; i++) {
                        const T *a = x + x_row(s * ROWS + list[i]) + x_rest(o);
                        for (long j = 0; j < N; j++) c[j] += a[j * SX];
                    }
                }
        }
    });

typedef struct {
    ScatterShape s;
    DimId row[MAX_DIMS], rest[MAX_DIMS];
    uint32_t nrow, nrest;
} Scatter;

/* row: what is left of the dims of x1, then those summed, each in the order of x1. rest: dims of x0 alone. */
static void scatter_dims(const Kern *k, Scatter *c) {
    const Type *y = kern_ty(k, kern_out(k, 0)), *tok = kern_ty(k, kern_in(k, 1));
    const DimId *over;
    uint32_t nover = attr_dims(k->g, k->n, "over", &over);
    scatter_shape(k->g, k->n, &c->s);
    c->nrow = c->nrest = 0;
    for (int summed = 0; summed < 2; summed++)
        for (uint32_t i = 0; i < tok->ndim; i++) {
            bool in = false;
            for (uint32_t j = 0; j < nover; j++) in |= over[j].i == tok->dim[i].i;
            if (in == (summed == 1)) c->row[c->nrow++] = tok->dim[i];
        }
    uint32_t cls = attr_dim(k->g, k->n, "cls").i;
    for (uint32_t i = 0; i < y->ndim; i++)
        if (y->dim[i].i != cls && !type_has(tok, y->dim[i])) c->rest[c->nrest++] = y->dim[i];
}

bool custom_scatter_add(Emit *e, NodeId id) {
    Kern k;
    Scatter c;
    kern_open(&k, e, id);
    scatter_dims(&k, &c);
    ValueId x = kern_in(&k, 0), tok = kern_in(&k, 1), y = kern_out(&k, 0);
    DType dt = kern_ty(&k, y)->dt;
    kern_int(&k, "LEFT", c.s.left);
    kern_int(&k, "ROWS", c.s.rows);
    kern_int(&k, "CLS", c.s.cls);
    kern_int(&k, "LIST", (c.s.list - c.s.start) / 4);
    kern_offset_fn(&k, "token", tok, c.row, c.nrow);
    kern_text(&k, sort_text);
    kern_read(&k, tok);
    kern_write_at(&k, emit_scratch(e, k.n, c.s.start), c.s.total - c.s.start);
    kern_close(&k, "rows sorted by token");

    kern_open(&k, e, id);
    int64_t inner = 1, outer = 1, sx = 1;
    uint32_t n = c.nrest;
    if (n > 0) {
        inner = kern_size(&k, c.rest[--n]);
        sx = kern_stride(&k, x, c.rest[n]);
    }
    for (uint32_t i = 0; i < n; i++) outer *= kern_size(&k, c.rest[i]);
    kern_type(&k, "T", dt);
    kern_int(&k, "LEFT", c.s.left);
    kern_int(&k, "ROWS", c.s.rows);
    kern_int(&k, "CLS", c.s.cls);
    kern_int(&k, "LIST", (c.s.list - c.s.start) / 4);
    kern_int(&k, "N", inner);
    kern_int(&k, "SX", sx);
    kern_int(&k, "OUTER", outer);
    int64_t ycls = kern_stride(&k, y, attr_dim(k.g, k.n, "cls"));
    kern_int(&k, "YCLS", ycls);
    kern_int(&k, "YLEFT", c.s.cls * ycls);
    kern_offset_fn(&k, "x_row", x, c.row, c.nrow);
    kern_offset_fn(&k, "x_rest", x, c.rest, n);
    kern_offset_fn(&k, "y_rest", y, c.rest, n);
    kern_text(&k, sum_text);
    kern_read(&k, x);
    kern_read_at(&k, emit_scratch(e, k.n, c.s.start), c.s.total - c.s.start);
    kern_write(&k, y);
    kern_close(&k, "sums of rows by token");
    return true;
}
