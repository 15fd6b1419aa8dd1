/* loss.c: linear_ce, linear_ce_grad, linear_ce_fb: losses of logits = h.W, which are never stored whole.
 *
 * A list of the rows that matter is made first; chunks of that list are gathered, multiplied with W (packed
 * once a node) and reduced row by row. The gradient has the logits of a chunk turned in place into dlogits,
 * then dh = dlogits.W (scattered back through the list) and dW += dlogits^T.h. Launches of chunks beyond the
 * list return at once. Rows outside the list get zeros. Row sums have 16 lanes and a fixed final order. */
#include "codegen/custom/loss.h"

#include <string.h>

void loss_open(Kern *k, Loss *l, Emit *e, NodeId id) {
    kern_open(k, e, id);
    loss_shape(k->g, k->n, &l->s);
    l->dt = kern_ty(k, kern_in(k, 0))->dt;
    l->size = dtype_bytes[l->dt];
    l->mr = gemm_rows(e);
    l->nr = gemm_cols(e, l->dt);
}

/* Defines that all launches of the family share. */
void loss_define(Kern *k, const Loss *l) {
    kern_int(k, "ROWS", l->s.rows);
    kern_int(k, "V", l->s.cls);
    kern_int(k, "CHUNK", l->s.chunk);
    kern_int(k, "LDL", l->s.ldl);
}

/* The argument that says how many rows chunk c has and whether it is the first one; and its part of the list.
 * That these are addresses and not literals lets all chunks share their kernels. */
void loss_read_count(Kern *k, const Loss *l, int64_t c) {
    loss_read(k, l->s.count + 8 * c, 8);
}
void loss_read_list(Kern *k, const Loss *l, int64_t c) {
    int64_t first = c * l->s.chunk, n = l->s.rows - first < l->s.chunk ? l->s.rows - first : l->s.chunk;
    loss_read(k, l->s.list + 4 * first, 4 * n);
}

uint32_t loss_read(Kern *k, int64_t off, int64_t bytes) {
    return kern_read_at(k, emit_scratch(k->e, k->n, off), bytes);
}
uint32_t loss_write(Kern *k, int64_t off, int64_t bytes) {
    return kern_write_at(k, emit_scratch(k->e, k->n, off), bytes);
}

/* ---- W in panels */
static const char panel_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    pack(p[0], p[1], UNITS * part / nparts, UNITS * (part + 1) / nparts);
});

/* transposed false: B(k = over, n = cls) for the logits; true: B(k = cls, n = over) for dh. */
void loss_panels(Emit *e, NodeId id, int which, bool transposed) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    ValueId w = kern_in(&k, which ? 3 : 1);
    int64_t d = l.s.over[which], v = l.s.cls, kk = transposed ? v : d, n = transposed ? d : v;
    int64_t units = (n + l.nr - 1) / l.nr;
    gemm_define(&k, l.dt);
    gemm_pack(&k, l.dt, "pack", kk, kk, n, transposed ? d : 1, transposed ? 1 : d);
    kern_int(&k, "UNITS", units);
    kern_text(&k, panel_text);
    kern_read(&k, w);
    loss_write(&k, transposed ? l.s.panel_t[which] : l.s.panel[which], units * l.nr * kk * l.size);
    kern_close(&k, transposed ? "panels of W, transposed" : "panels of W");
}

/* ---- gather rows of h through the list; scatter the dh of the chunk before */
static const char gather_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const int *count = p[0];
    const int *list = p[1];
    const T *h = p[2];
    T *hg = p[3];
    long n = *count;
    long pad = (n + 41) / 42 * 42;
    for (long r = pad * part / nparts; r < pad * (part + 1) / nparts; r++) {
        T *b = hg + r * LDH;
        if (r < n) {
            const T *a = h + (long)list[r] * D;
            for (long j = 0; j < D; j++) b[j] = a[j];
        } else {
            for (long j = 0; j < D; j++) b[j] = 0;
        }
        for (long j = D; j < LDH; j++) b[j] = 0;
    }
});

void loss_gather(Emit *e, NodeId id, int which, int64_t slice, int64_t chunk) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    int64_t d = l.s.over[which];
    kern_type(&k, "T", l.dt);
    loss_define(&k, &l);
    kern_int(&k, "D", d);
    kern_int(&k, "LDH", l.s.ldh[which]);
    kern_text(&k, gather_text);
    loss_read_count(&k, &l, chunk);
    loss_read_list(&k, &l, chunk);
    kern_read_part(&k, kern_in(&k, which ? 2 : 0), slice * l.s.rows * d, l.s.rows * d);
    loss_write(&k, l.s.hg[which], l.s.chunk * l.s.ldh[which] * l.size);
    kern_close(&k, "rows of a loss chunk");
}

static const char spread_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const int *count = p[0];
    const int *list = p[1];
    const T *x = p[2];
    T *dh = p[3];
    long n = *count;
    for (long r = n * part / nparts; r < n * (part + 1) / nparts; r++) {
        const T *a = x + r * LDH;
        T *b = dh + (long)list[r] * D;
        for (long j = 0; j < D; j++) b[j] = a[j];
    }
});

static void loss_spread(Emit *e, NodeId id, int which, ValueId dh, int64_t slice, int64_t chunk) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    int64_t d = l.s.over[which];
    kern_type(&k, "T", l.dt);
    loss_define(&k, &l);
    kern_int(&k, "D", d);
    kern_int(&k, "LDH", l.s.ldh[which]);
    kern_text(&k, spread_text);
    loss_read_count(&k, &l, chunk);
    loss_read_list(&k, &l, chunk);
    loss_read(&k, l.s.dhg[which], l.s.chunk * l.s.ldh[which] * l.size);
    kern_write_part(&k, dh, slice * l.s.rows * d, l.s.rows * d);
    kern_close(&k, "dh of a loss chunk");
}

/* ---- products. A panel of W stays in the cache while all rows of the chunk pass it. */
static const char logits_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    long n = *(const int *)p[0];
    if (n)
        block(p[1], p[2], p[3], n, D, 0, (n + MR - 1) / MR, UNITS * part / nparts,
              UNITS * (part + 1) / nparts, 1);
});

void loss_logits(Emit *e, NodeId id, int which, int64_t chunk) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    int64_t d = l.s.over[which], units = (l.s.cls + l.nr - 1) / l.nr;
    gemm_define(&k, l.dt);
    loss_define(&k, &l);
    GemmBlock b = {.name = "block", .am = l.s.ldh[which], .ak = 1, .cm = l.s.ldl, .n_panels = units};
    gemm_block(&k, l.dt, &b);
    kern_int(&k, "D", d);
    kern_int(&k, "UNITS", units);
    kern_text(&k, logits_text);
    loss_read_count(&k, &l, chunk);
    loss_read(&k, l.s.hg[which], l.s.chunk * l.s.ldh[which] * l.size);
    loss_read(&k, l.s.panel[which], units * l.nr * d * l.size);
    loss_write(&k, l.s.logits[which], l.s.chunk * l.s.ldl * l.size);
    kern_close(&k, arena_fmt(e->a, "gemm %dx%d: logits of a loss chunk, %lld rows", l.mr, l.nr,
                             (long long)l.s.chunk));
}

static const char dh_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    long n = *(const int *)p[0], tiles = (n + MR - 1) / MR;
    long lo = tiles * UNITS * part / nparts, hi = tiles * UNITS * (part + 1) / nparts;
    while (lo < hi) {
        long j = lo / tiles, t0 = lo % tiles, t1 = hi - j * tiles < tiles ? hi - j * tiles : tiles;
        block(p[1], p[2], p[3], n, V, t0, t1, j, j + 1, 1);
        lo += t1 - t0;
    }
});

static void loss_dh(Emit *e, NodeId id, int which, int64_t chunk) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    int64_t d = l.s.over[which], units = (d + l.nr - 1) / l.nr;
    gemm_define(&k, l.dt);
    loss_define(&k, &l);
    GemmBlock b = {.name = "block", .am = l.s.ldl, .ak = 1, .cm = l.s.ldh[which], .n_panels = units};
    gemm_block(&k, l.dt, &b);
    kern_int(&k, "UNITS", units);
    kern_text(&k, dh_text);
    loss_read_count(&k, &l, chunk);
    loss_read(&k, l.s.logits[which], l.s.chunk * l.s.ldl * l.size);
    loss_read(&k, l.s.panel_t[which], units * l.nr * l.s.cls * l.size);
    loss_write(&k, l.s.dhg[which], l.s.chunk * l.s.ldh[which] * l.size);
    kern_close(&k, "gemm: dh of a loss chunk");
}

static const char dw_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    long n = *(const int *)p[0];
    int first = ((const int *)p[0])[1];
    if (n || first)
        block(p[1], p[2], p[3], V, n, UNITS * part / nparts, UNITS * (part + 1) / nparts, 0, PANELS, first);
});

static void loss_dw(Emit *e, NodeId id, int which, ValueId dw, int64_t slice, int64_t chunk) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    int64_t d = l.s.over[which], v = l.s.cls, panels = (d + l.nr - 1) / l.nr;
    gemm_define(&k, l.dt);
    loss_define(&k, &l);
    GemmBlock b = {.name = "block",
                   .am = 1,
                   .ak = l.s.ldl,
                   .bk = l.s.ldh[which],
                   .cm = d,
                   .m_tail = v % l.mr,
                   .n_tail = d % l.nr,
                   .n_panels = panels};
    gemm_block(&k, l.dt, &b);
    kern_int(&k, "UNITS", (v + l.mr - 1) / l.mr);
    kern_int(&k, "PANELS", panels);
    kern_text(&k, dw_text);
    loss_read_count(&k, &l, chunk);
    loss_read(&k, l.s.logits[which], l.s.chunk * l.s.ldl * l.size);
    loss_read(&k, l.s.hg[which], l.s.chunk * l.s.ldh[which] * l.size);
    kern_write_part(&k, dw, slice * v * d, v * d);
    kern_close(&k, "gemm: dW of a loss chunk");
}

void loss_backward(Emit *e, NodeId id, int which, ValueId dh, ValueId dw, int64_t slice, int64_t chunk) {
    Kern k;
    kern_open(&k, e, id);
    if (kern_wanted(&k, dh)) {
        loss_dh(e, id, which, chunk);
        loss_spread(e, id, which, dh, slice, chunk);
    }
    if (kern_wanted(&k, dw)) loss_dw(e, id, which, dw, slice, chunk);
}

/* ---- the list of rows. USED(r) says which; CLEAR(r) writes what rows outside get. */
static const char list_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    ARGS for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) if (!(USED)) {
        CLEAR
    }
    if (part) return;
    int *count = p[NARG - 2];
    int *list = p[NARG - 1];
    int n = 0;
    for (long r = 0; r < ROWS; r++)
        if (USED) list[n++] = (int)r;
    for (long c = 0; c < NCHUNK; c++) {
        long left = n - c * CHUNK;
        count[2 * c] = left < 0 ? 0 : left > CHUNK ? (int)CHUNK : (int)left;
        count[2 * c + 1] = c == 0;
    }
});

void loss_list(Kern *k, const Loss *l, const char *args, const char *used, const char *clear) {
    loss_define(k, l);
    kern_line(k, "#define ARGS %s\n#define USED %s\n#define CLEAR %s", args, used, clear);
    loss_write(k, l->s.count, 8 * l->s.nchunk);
    loss_write(k, l->s.list, 4 * l->s.rows);
    kern_int(k, "NCHUNK", l->s.nchunk);
    kern_int(k, "NARG", k->narg);
    kern_text(k, list_text);
    kern_close(k, "rows of a loss");
}

/* ---- rows of linear_ce */
const char loss_lanes_text[] = TEXT(
    static inline T row_max(const T *x) {
        T m[16];
        for (int u = 0; u < 16; u++) m[u] = -__builtin_inff();
        long i = 0;
        for (; i + 16 <= V; i += 16)
            for (int u = 0; u < 16; u++) m[u] = x[i + u] > m[u] ? x[i + u] : m[u];
        for (int u = 0; u < 16 && i < V; i++, u++) m[u] = x[i] > m[u] ? x[i] : m[u];
        T r = m[0];
        for (int u = 1; u < 16; u++) r = m[u] > r ? m[u] : r;
        return r;
    } static inline T lanes(const T *s) {
        T r = s[0];
        for (int u = 1; u < 16; u++) r += s[u];
        return r;
    });

/* lse = m + log S with S = sum exp(l - m); entropy = log S - sum(exp(l - m) (l - m)) / S. With STORE the
 * exponentials replace the logits. */
static const char ce_row_text[] = TEXT(static inline T row_sums(T * x, T m, T *second) {
    T s[16] = {0};
    T q[16] = {0};
    long i = 0;
    for (; i + 16 <= V; i += 16)
        for (int u = 0; u < 16; u++) {
            T z = x[i + u] - m;
            T w = EXP(z);
            s[u] += w;
            if (ENTROPY) q[u] += w * z;
            if (STORE) x[i + u] = w;
        }
    for (int u = 0; u < 16 && i < V; i++, u++) {
        T z = x[i] - m;
        T w = EXP(z);
        s[u] += w;
        if (ENTROPY) q[u] += w * z;
        if (STORE) x[i] = w;
    }
    *second = lanes(q);
    return lanes(s);
});

static const char ce_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const int *list = p[1];
    const int *target = p[2];
    const T *seed = p[3];
    T *lg = p[4];
    T *ce = p[5];
    T *lse = p[6];
    T *ent = p[7];
    int *arg = p[8];
    (void)seed;
    (void)ce;
    (void)lse;
    (void)ent;
    (void)arg;
    long n = *(const int *)p[0];
    for (long i = part; i < n; i += nparts) {
        T *x = lg + i * LDL;
        long r = list[i];
        long t = target[r];
        T m = row_max(x);
        T hit = t >= 0 && t < V ? x[t] : 0;
        if (HAS_ARG) {
            long a = 0;
            while (a < V - 1 && x[a] != m) a++;
            arg[r] = (int)a;
        }
        T second;
        T sum = row_sums(x, m, &second);
        T z = LOG(sum);
        if (HAS_CE) ce[r] = t >= 0 && t < V ? (z - hit) + m : 0;
        if (HAS_LSE) lse[r] = m + z;
        if (ENTROPY) ent[r] = z - second / sum;
        if (STORE) {
            T w = t >= 0 && t < V ? seed[r] : 0;
            T f = w / sum;
            for (long j = 0; j < V; j++) x[j] *= f;
            if (t >= 0 && t < V) x[t] -= w;
        }
    }
});

/* A result that nothing reads has no memory: the argument is then the count's, and is not touched. */
static void write_or_none(Kern *k, const Loss *l, ValueId v, int64_t slice) {
    if (kern_wanted(k, v))
        kern_write_part(k, v, slice * l->s.rows, l->s.rows);
    else
        loss_write(k, l->s.count, 4);
}

static const char *const loss_math[] = {"exp", "log"};

/* Statistics of a chunk; with `seed` (form B) also dlogits in place. */
static void ce_rows(Emit *e, NodeId id, bool store, int64_t slice, int64_t chunk) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    kern_math(&k, l.dt, loss_math, 2);
    kern_type(&k, "T", l.dt);
    loss_define(&k, &l);
    kern_line(&k, "#define EXP exp_%s\n#define LOG log_%s", dtype_name[l.dt], dtype_name[l.dt]);
    kern_int(&k, "STORE", store);
    kern_int(&k, "HAS_CE", kern_wanted(&k, kern_out(&k, 0)));
    kern_int(&k, "HAS_LSE", kern_wanted(&k, kern_out(&k, 1)));
    kern_int(&k, "ENTROPY", kern_wanted(&k, kern_out(&k, 2)));
    kern_int(&k, "HAS_ARG", kern_wanted(&k, kern_out(&k, 3)));
    kern_text(&k, loss_lanes_text);
    kern_text(&k, ce_row_text);
    kern_text(&k, ce_text);
    loss_read_count(&k, &l, chunk);
    loss_read_list(&k, &l, chunk);
    kern_read_part(&k, kern_in(&k, 2), slice * l.s.rows, l.s.rows);
    if (store)
        kern_read_part(&k, kern_in(&k, 3), slice * l.s.rows, l.s.rows);
    else
        loss_read(&k, l.s.count, 4);
    loss_write(&k, l.s.logits[0], l.s.chunk * l.s.ldl * l.size);
    for (uint32_t i = 0; i < 4; i++) write_or_none(&k, &l, kern_out(&k, i), slice);
    kern_close(&k, store ? "losses and dlogits of a chunk" : "losses of a chunk");
}

/* Rows of linear_ce (and _fb): all when something besides ce is read; else those with a target, or (form B
 * without a reader of ce) with a seed. */
static void ce_list(Emit *e, NodeId id, bool fb, int64_t slice) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    bool ce = kern_wanted(&k, kern_out(&k, 0)), all = false, dh = fb && kern_wanted(&k, kern_out(&k, 4));
    for (uint32_t i = 1; i < 4; i++) all |= kern_wanted(&k, kern_out(&k, i));
    kern_type(&k, "T", l.dt);
    kern_int(&k, "D", l.s.over[0]);
    kern_read_part(&k, kern_in(&k, 2), slice * l.s.rows, l.s.rows);
    if (fb) kern_read_part(&k, kern_in(&k, 3), slice * l.s.rows, l.s.rows);
    uint32_t at_ce = 0, at_dh = 0;
    if (ce) at_ce = kern_write_part(&k, kern_out(&k, 0), slice * l.s.rows, l.s.rows);
    if (dh)
        at_dh = kern_write_part(&k, kern_out(&k, 4), slice * l.s.rows * l.s.over[0], l.s.rows * l.s.over[0]);
    const char *valid = "target[r] >= 0 && target[r] < V";
    const char *used = all ? "1" : !fb || ce ? valid : arena_fmt(e->a, "%s && seed[r] != 0", valid);
    const char *args = arena_fmt(e->a, "const int *target = p[0]; (void)target; %s %s %s",
                                 fb ? "const T *seed = p[1]; (void)seed;" : "",
                                 ce ? arena_fmt(e->a, "T *ce = p[%u];", at_ce) : "",
                                 dh ? arena_fmt(e->a, "T *dh = p[%u];", at_dh) : "");
    const char *clear = arena_fmt(e->a, "%s %s", ce ? "ce[r] = 0;" : "",
                                  dh ? "for (long j = 0; j < D; j++) dh[r * D + j] = 0;" : "");
    loss_list(&k, &l, args, used, clear);
}

/* ir_infer holds h [rows.., over] and W [cls, over] to that order; the slices of a gradient must be in front.
 */
void loss_check(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    const Type *h = kern_ty(&k, kern_in(&k, 0));
    const DimId *row, *over;
    uint32_t nrow = attr_dims(k.g, k.n, "row", &row), nover = attr_dims(k.g, k.n, "over", &over);
    if (op_info[k.n->op].nattr < 3 ||
        strcmp(op_info[k.n->op].attr[op_info[k.n->op].nattr - 1].name, "row") != 0)
        return;
    uint32_t left = h->ndim - nover - nrow;
    for (uint32_t i = 0; i < left; i++)
        for (uint32_t j = 0; j < nrow; j++)
            wm_check(e->a, h->dim[i].i != row[j].i, "node %u: %s sums rows that do not come last", id.i,
                     op_info[k.n->op].name);
}

static bool ce_node(Emit *e, NodeId id, bool fb) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    loss_check(e, id);
    loss_panels(e, id, 0, false);
    if (fb) loss_panels(e, id, 0, true);
    for (int64_t slice = 0; slice < l.s.left; slice++) {
        ce_list(e, id, fb, slice);
        for (int64_t c = 0; c < l.s.nchunk; c++) {
            loss_gather(e, id, 0, slice, c);
            loss_logits(e, id, 0, c);
            ce_rows(e, id, fb, slice, c);
            if (fb) loss_backward(e, id, 0, kern_out(&k, 4), kern_out(&k, 5), slice, c);
        }
    }
    return true;
}

bool custom_linear_ce(Emit *e, NodeId id) {
    return ce_node(e, id, false);
}
bool custom_linear_ce_fb(Emit *e, NodeId id) {
    return ce_node(e, id, true);
}

/* ---- linear_ce_grad: h, W, target, lse, dce [, entropy, dentropy] -> dh, dW */
static const char grad_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const int *list = p[1];
    const int *target = p[2];
    const T *lse = p[3];
    const T *dce = p[4];
    T *lg = p[NARG - 1];
    long n = *(const int *)p[0];
    for (long i = part; i < n; i += nparts) {
        T *x = lg + i * LDL;
        long r = list[i];
        long t = target[r];
        int hit = t >= 0 && t < V;
        T w = hit ? dce[r] : 0;
        T z = lse[r];
        if (ENTROPY) {
            T dh = ((const T *)p[6])[r];
            T h = ((const T *)p[5])[r];
            for (long j = 0; j < V; j++) {
                T q = x[j] - z;
                x[j] = EXP(q) * (w - dh * (q + h));
            }
        } else {
            for (long j = 0; j < V; j++) x[j] = w * EXP(x[j] - z);
        }
        if (hit) x[t] -= w;
    }
});

static void grad_rows(Emit *e, NodeId id, int64_t slice, int64_t chunk) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    kern_math(&k, l.dt, loss_math, 1);
    kern_type(&k, "T", l.dt);
    loss_define(&k, &l);
    kern_line(&k, "#define EXP exp_%s", dtype_name[l.dt]);
    kern_int(&k, "ENTROPY", k.n->nin == 7);
    loss_read_count(&k, &l, chunk);
    loss_read_list(&k, &l, chunk);
    for (uint32_t i = 2; i < k.n->nin; i++) kern_read_part(&k, kern_in(&k, i), slice * l.s.rows, l.s.rows);
    loss_write(&k, l.s.logits[0], l.s.chunk * l.s.ldl * l.size);
    kern_int(&k, "NARG", k.narg);
    kern_text(&k, grad_text);
    kern_close(&k, "dlogits of a chunk");
}

static void grad_list(Emit *e, NodeId id, int64_t slice) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    bool entropy = k.n->nin == 7, dh = kern_wanted(&k, kern_out(&k, 0));
    kern_type(&k, "T", l.dt);
    kern_int(&k, "D", l.s.over[0]);
    kern_read_part(&k, kern_in(&k, 2), slice * l.s.rows, l.s.rows);
    kern_read_part(&k, kern_in(&k, 4), slice * l.s.rows, l.s.rows);
    if (entropy) kern_read_part(&k, kern_in(&k, 6), slice * l.s.rows, l.s.rows);
    uint32_t at = 0;
    if (dh) at = kern_write_part(&k, kern_out(&k, 0), slice * l.s.rows * l.s.over[0], l.s.rows * l.s.over[0]);
    const char *args =
        arena_fmt(e->a, "const int *target = p[0]; const T *seed = p[1]; %s %s",
                  entropy ? "const T *dent = p[2];" : "", dh ? arena_fmt(e->a, "T *dh = p[%u];", at) : "");
    loss_list(&k, &l, args,
              entropy ? "(seed[r] != 0 && target[r] >= 0 && target[r] < V) || dent[r] != 0"
                      : "seed[r] != 0 && target[r] >= 0 && target[r] < V",
              dh ? "for (long j = 0; j < D; j++) dh[r * D + j] = 0;" : "");
}

bool custom_linear_ce_grad(Emit *e, NodeId id) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    loss_check(e, id);
    loss_panels(e, id, 0, false);
    loss_panels(e, id, 0, true);
    for (int64_t slice = 0; slice < l.s.left; slice++) {
        grad_list(e, id, slice);
        for (int64_t c = 0; c < l.s.nchunk; c++) {
            loss_gather(e, id, 0, slice, c);
            loss_logits(e, id, 0, c);
            grad_rows(e, id, slice, c);
            loss_backward(e, id, 0, kern_out(&k, 0), kern_out(&k, 1), slice, c);
        }
    }
    return true;
}
