/* order.c: ops along one dim or over an order: argmax, first, last, cumsum, scan, quantile, shuffle.
 *
 * The rows (all other dims) are the pieces of work; along a row everything is sequential, so any number of
 * parts gives the same bits. Sorting is a stable radix sort of 64-bit keys in scratch, eight bits a pass,
 * passes of one digit skipped. */
#include "codegen/custom/kern.h"

/* Rows: the dims of t but `over`; prints ROWS, N, and an offset function for each of the values. */
typedef struct {
    DimId d[MAX_DIMS];
    uint32_t n;
    int64_t rows;
} Rows;

static Rows rows_but(Kern *k, const Type *t, DimId over) {
    Rows r = {.n = 0, .rows = 1};
    for (uint32_t i = 0; i < t->ndim; i++)
        if (t->dim[i].i != over.i) {
            r.rows *= kern_size(k, t->dim[i]);
            r.d[r.n++] = t->dim[i];
        }
    kern_int(k, "ROWS", r.rows);
    kern_int(k, "N", kern_size(k, over));
    return r;
}

/* Offset of row r and step along `over` of one value: NAME_at(r), NAME_step. */
static void row_value(Kern *k, const Rows *r, const char *name, ValueId v, DimId over) {
    kern_offset_fn(k, arena_fmt(k->e->a, "%s_at", name), v, r->d, r->n);
    kern_int(k, arena_fmt(k->e->a, "%s_step", name), kern_stride(k, v, over));
}

static const char argmax_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    O *y = p[1];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        const T *a = x + x_at(r);
        long best = 0;
        for (long i = 1; i < N; i++)
            if (a[i * x_step] > a[best * x_step]) best = i;
        y[y_at(r)] = (O)(BASE + best);
    }
});

bool custom_argmax(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), y = kern_out(&k, 0);
    DimId over = attr_dim(k.g, k.n, "over");
    kern_type(&k, "T", kern_ty(&k, x)->dt);
    kern_type(&k, "O", kern_ty(&k, y)->dt);
    Rows r = rows_but(&k, kern_ty(&k, x), over);
    row_value(&k, &r, "x", x, over);
    row_value(&k, &r, "y", y, over);
    kern_int(&k, "BASE", attr_int(k.g, k.n, "base"));
    kern_text(&k, argmax_text);
    kern_read(&k, x);
    kern_write(&k, y);
    kern_close(&k, "place of the largest");
    return true;
}

static const char first_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const unsigned char *x = p[0];
    unsigned char *y = p[1];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        int seen = 0;
        for (long j = 0; j < N; j++) {
            long i = REVERSE ? N - 1 - j : j;
            int m = x[x_at(r) + i * x_step] != 0;
            y[y_at(r) + i * y_step] = m && !seen;
            seen |= m;
        }
    }
});
static const char cumsum_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    T *y = p[1];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        T s = 0;
        for (long j = 0; j < N; j++) {
            long i = REVERSE ? N - 1 - j : j;
            s += x[x_at(r) + i * x_step];
            y[y_at(r) + i * y_step] = s;
        }
    }
});

static bool along_row(Emit *e, NodeId id, const char *text, bool reverse, const char *what) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), y = kern_out(&k, 0);
    DimId over = attr_dim(k.g, k.n, "over");
    kern_type(&k, "T", kern_ty(&k, y)->dt);
    Rows r = rows_but(&k, kern_ty(&k, x), over);
    row_value(&k, &r, "x", x, over);
    row_value(&k, &r, "y", y, over);
    kern_int(&k, "REVERSE", reverse);
    kern_text(&k, text);
    kern_read(&k, x);
    kern_write(&k, y);
    kern_close(&k, what);
    return true;
}

bool custom_first(Emit *e, NodeId id) {
    return along_row(e, id, first_text, false, "first true place");
}
bool custom_last(Emit *e, NodeId id) {
    return along_row(e, id, first_text, true, "last true place");
}
bool custom_cumsum(Emit *e, NodeId id) {
    return along_row(e, id, cumsum_text, attr_bool(e->g, &e->g->node[id.i], "reverse"), "running sum");
}

/* ---- scan */
static const char scan_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *init = p[0];
    const T *a = p[1];
    const T *b = p[2];
    const unsigned char *m = p[3];
    T *y = p[4];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        int seen = 0;
        T c = 0;
        for (long j = 0; j < N; j++) {
            long i = REVERSE ? N - 1 - j : j;
            T o = 0;
            if (m[m_at(r) + i * m_step]) {
                c = seen ? a[a_at(r) + i * a_step] * c + b[b_at(r) + i * b_step] : init[init_at(r)];
                seen = 1;
                o = c;
            }
            y[y_at(r) + i * y_step] = o;
        }
    }
});

static const char *const scan_name[] = {"init", "a", "b", "m", "y", "dy"};

bool custom_scan(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId y = kern_out(&k, 0);
    DimId over = attr_dim(k.g, k.n, "over");
    kern_type(&k, "T", kern_ty(&k, y)->dt);
    Rows r = rows_but(&k, kern_ty(&k, y), over);
    for (uint32_t i = 0; i < 4; i++) row_value(&k, &r, scan_name[i], kern_in(&k, i), over);
    row_value(&k, &r, "y", y, over);
    kern_int(&k, "REVERSE", attr_bool(k.g, k.n, "reverse"));
    kern_text(&k, scan_text);
    for (uint32_t i = 0; i < 4; i++) kern_read(&k, kern_in(&k, i));
    kern_write(&k, y);
    kern_close(&k, "recurrence");
    return true;
}

/* Backwards over the places visited: g is the gradient of the carry. An operand that lacks dims gets the sum
 * over them in row order (then one part does it all: ALONE). */
static const char scan_grad_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *a = p[1];
    const unsigned char *m = p[3];
    const T *y = p[4];
    const T *dy = p[5];
    T *dinit = p[6];
    T *da = p[7];
    T *db = p[8];
    if (ALONE) {
        if (part) return;
        nparts = 1;
        for (long i = 0; i < NINIT && HAS_INIT; i++) dinit[i] = 0;
        for (long i = 0; i < NA && HAS_A; i++) da[i] = 0;
        for (long i = 0; i < NB && HAS_B; i++) db[i] = 0;
    }
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        T g = 0;
        long last = -1;
        if (!ALONE) {
            if (HAS_INIT) dinit[init_at(r)] = 0;
            for (long i = 0; i < N && HAS_A; i++) da[a_at(r) + i * a_step] = 0;
            for (long i = 0; i < N && HAS_B; i++) db[b_at(r) + i * b_step] = 0;
        }
        for (long j = N; j-- > 0;) {
            long i = REVERSE ? N - 1 - j : j;
            if (!m[m_at(r) + i * m_step]) continue;
            if (last >= 0) {
                if (HAS_A) da[a_at(r) + last * a_step] += g * y[y_at(r) + i * y_step];
                if (HAS_B) db[b_at(r) + last * b_step] += g;
                g *= a[a_at(r) + last * a_step];
            }
            g += dy[dy_at(r) + i * dy_step];
            last = i;
        }
        if (HAS_INIT && last >= 0) dinit[init_at(r)] += g;
    }
});

bool custom_scan_grad(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    DimId over = attr_dim(k.g, k.n, "over");
    int64_t full = type_count(k.g, kern_ty(&k, kern_in(&k, 3))), n[3];
    for (uint32_t i = 0; i < 3; i++) n[i] = type_count(k.g, kern_ty(&k, kern_in(&k, i)));
    kern_type(&k, "T", kern_ty(&k, kern_in(&k, 4))->dt);
    Rows r = rows_but(&k, kern_ty(&k, kern_in(&k, 3)), over);
    for (uint32_t i = 0; i < 6; i++) row_value(&k, &r, scan_name[i], kern_in(&k, i), over);
    kern_int(&k, "REVERSE", attr_bool(k.g, k.n, "reverse"));
    kern_int(&k, "ALONE", n[0] != r.rows || n[1] != full || n[2] != full);
    static const char *const has[] = {"HAS_INIT", "HAS_A", "HAS_B"};
    for (uint32_t i = 0; i < 3; i++) kern_int(&k, has[i], kern_wanted(&k, kern_out(&k, i)));
    kern_int(&k, "NINIT", n[0]);
    kern_int(&k, "NA", n[1]);
    kern_int(&k, "NB", n[2]);
    kern_text(&k, scan_grad_text);
    for (uint32_t i = 0; i < 6; i++) kern_read(&k, kern_in(&k, i));
    PlanAddr none = {0};
    for (uint32_t i = 0; i < 3; i++)
        if (kern_wanted(&k, kern_out(&k, i))) none = emit_value(e, kern_out(&k, i));
    for (uint32_t i = 0; i < 3; i++) kern_write_wanted(&k, kern_out(&k, i), none);
    kern_close(&k, "recurrence, backwards");
    return true;
}

/* ---- quantile */
static const char sort_text[] =
    TEXT(typedef unsigned long U;
         /* Sorts key[0..n) (and val beside it if PAIRS), through the second half of the buffers. */
         static void sort(U *key, U *tmp, U *val, U *vtmp, long n) {
             for (int s = 0; s < 64; s += 8) {
                 long at[257] = {0};
                 for (long i = 0; i < n; i++) at[(key[i] >> s & 255) + 1]++;
                 int one = 0;
                 for (int d = 1; d <= 256; d++) one |= at[d] == n;
                 if (one) continue;
                 for (int d = 0; d < 256; d++) at[d + 1] += at[d];
                 for (long i = 0; i < n; i++) {
                     long to = at[key[i] >> s & 255]++;
                     tmp[to] = key[i];
                     if (PAIRS) vtmp[to] = val[i];
                 }
                 for (long i = 0; i < n; i++) {
                     key[i] = tmp[i];
                     if (PAIRS) val[i] = vtmp[i];
                 }
             }
         });

/* Keys grow with the number: the sign bit turned, negative numbers turned whole. Worked in f64: f32 is exact
 * in it. */
static const char quantile_text[] = TEXT(
    static inline U key_of(double v) {
        U u;
        __builtin_memcpy(&u, &v, 8);
        return u >> 63 ? ~u : u | 1ul << 63;
    } static inline double value_of(U u) {
        double v;
        u = u >> 63 ? u & ~(1ul << 63) : ~u;
        __builtin_memcpy(&v, &u, 8);
        return v;
    } void k(void *const *p, int part, int nparts) {
        const T *x = p[0];
        const unsigned char *m = p[1];
        T *y = p[2];
        U *buf = p[3];
        for (long r = part; r < ROWS; r += nparts) {
            U *key = buf + r * 2 * N;
            long n = 0;
            for (long i = 0; i < N; i++)
                if (m[m_row(r) + m_in(i)]) key[n++] = key_of((double)x[x_row(r) + x_in(i)]);
            if (n == 0) {
                y[r] = 0;
                continue;
            }
            sort(key, key + N, key, key, n);
            double at = Q * (double)(n - 1);
            double near = (double)(long)(at + 0.5);
            double d = at - near;
            if (d < 1e-9 && d > -1e-9) at = near;
            long lo = (long)at;
            long hi = (double)lo < at ? lo + 1 : lo;
            double v = value_of(key[lo]);
            y[r] = (T)(v + (value_of(key[hi]) - v) * (at - (double)lo));
        }
    });

bool custom_quantile(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), m = kern_in(&k, 1), y = kern_out(&k, 0);
    const DimId *over;
    uint32_t nover = attr_dims(k.g, k.n, "over", &over);
    const Type *t = kern_ty(&k, y);
    int64_t n = 1, rows = type_count(k.g, t);
    for (uint32_t i = 0; i < nover; i++) n *= kern_size(&k, over[i]);
    kern_type(&k, "T", t->dt);
    kern_int(&k, "PAIRS", 0);
    kern_int(&k, "ROWS", rows);
    kern_int(&k, "N", n);
    kern_real(&k, "Q", DT_F64, attr_float(k.g, k.n, "q"));
    kern_offset_fn(&k, "x_row", x, t->dim, t->ndim);
    kern_offset_fn(&k, "m_row", m, t->dim, t->ndim);
    kern_offset_fn(&k, "x_in", x, over, nover);
    kern_offset_fn(&k, "m_in", m, over, nover);
    kern_text(&k, sort_text);
    kern_text(&k, quantile_text);
    kern_read(&k, x);
    kern_read(&k, m);
    kern_write(&k, y);
    kern_write_at(&k, emit_scratch(e, k.n, 0), 16 * n * rows);
    kern_close(&k, "quantile by sorting");
    return true;
}

/* ---- shuffle */
static const char shuffle_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    const unsigned char *m = p[1];
    U seed = (U) * (const double *)p[2];
    unsigned step = (unsigned)*(const double *)p[3];
    U first = MICRO ? (U) * (const double *)p[4] * (ROWS * N) : 0;
    T *y = p[4 + MICRO];
    U *buf = p[5 + MICRO];
    for (long r = part; r < ROWS; r += nparts) {
        U *key = buf + r * 4 * N;
        U *to = key + 2 * N;
        long n = 0;
        for (long i = 0; i < N; i++) {
            y[y_at(r) + i * y_step] = x[x_at(r) + i * x_step];
            if (!m[m_at(r) + i * m_step]) continue;
            U at = first + (U)(index_at(r) + i * index_step);
            unsigned w[4];
            philox(seed, at >> 1, step, STREAM, w);
            key[n] = WORD(w[2 * (at & 1)], w[2 * (at & 1) + 1]);
            to[n++] = (U)i;
        }
        sort(key, key + N, to, to + N, n);
        long s = 0;
        for (long i = 0; i < N; i++) {
            if (!m[m_at(r) + i * m_step]) continue;
            long j = (long)to[s++];
            if (INVERSE)
                y[y_at(r) + j * y_step] = x[x_at(r) + i * x_step];
            else
                y[y_at(r) + i * y_step] = x[x_at(r) + j * x_step];
        }
    }
});

bool custom_shuffle(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), m = kern_in(&k, 1), y = kern_out(&k, 0);
    DimId over = attr_dim(k.g, k.n, "over");
    const Type *t = kern_ty(&k, y);
    bool micro = kern_has_micro(&k, t);
    kern_type(&k, "T", t->dt);
    kern_int(&k, "PAIRS", 1);
    kern_int(&k, "MICRO", micro);
    kern_int(&k, "INVERSE", attr_bool(k.g, k.n, "inverse"));
    kern_line(&k, "#define STREAM %uu", (unsigned)(uint32_t)attr_int(k.g, k.n, "stream"));
    kern_line(&k, "#define WORD(a, b) ((U)(b) << 32 | (a))");
    Rows r = rows_but(&k, t, over);
    row_value(&k, &r, "x", x, over);
    row_value(&k, &r, "m", m, over);
    row_value(&k, &r, "y", y, over);
    row_value(&k, &r, "index", y, over);
    kern_text(&k, kern_philox_text);
    kern_text(&k, sort_text);
    kern_text(&k, shuffle_text);
    kern_read(&k, x);
    kern_read(&k, m);
    kern_read_at(&k, emit_scalar(e, "seed"), 8);
    kern_read_at(&k, emit_scalar(e, "step"), 8);
    if (micro) kern_read_at(&k, emit_scalar(e, "micro"), 8);
    kern_write(&k, y);
    kern_write_at(&k, emit_scratch(e, k.n, 0), k.n->ws_bytes);
    kern_close(&k, "shuffle");
    return true;
}
