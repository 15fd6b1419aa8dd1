/* attention.c: causal attention with online softmax, and its gradient from the kept lse.
 *
 * K and V go to scratch in panels first, per (batch, key head). Forward: a piece is a tile of QT queries of
 * one head, which meets tiles of KT keys in order; tiles above the diagonal are skipped. Backward: a piece is
 * one (batch, key head): tiles of keys outside, query heads of the group and tiles of queries inside, all in
 * order, so dK, dV and dQ have a fixed order of sums. Scores are recomputed, nothing of size S x S is kept.
 */
#include "codegen/custom/kern.h"

typedef struct {
    AttentionShape s;
    DType dt;
    int size, mr, nr;
    int64_t batch;
} Att;

static void att_open(Kern *k, Att *t, Emit *e, NodeId id) {
    kern_open(k, e, id);
    attention_shape(k->g, k->n, &t->s);
    t->dt = kern_ty(k, kern_in(k, 0))->dt;
    t->size = dtype_bytes[t->dt];
    t->mr = gemm_rows(e);
    t->nr = gemm_cols(e, t->dt);
    t->batch = 1;
    /* tiles lie on the stack of a thread */
    wm_check(e->a, t->s.d <= 512 && t->s.e <= 512,
             "node %u: attention with heads of %lld and %lld numbers; at most 512", id.i, (long long)t->s.d,
             (long long)t->s.e);
    for (uint32_t i = 0; i < t->s.nbatch; i++) t->batch *= t->s.batch[i];
    uint32_t ve = kern_ty(k, kern_in(k, 2))->ndim, known = t->s.nbatch + 2 + (t->s.kdim.i != UINT32_MAX);
    wm_check(e->a, ve == known, "node %u: attention whose values have %u dims of their own; one is supported",
             id.i, ve - known + 1);
}

static int64_t stride_of(const Kern *k, ValueId v, DimId d) {
    return d.i == UINT32_MAX ? 0 : kern_stride(k, v, d);
}

/* NAME_b(batch), NAME_s, NAME_h, NAME_d: offsets and strides of one value. */
static void att_value(Kern *k, const Att *t, const char *name, ValueId v, DimId head, DimId last) {
    kern_offset_fn(k, arena_fmt(k->e->a, "%s_b", name), v, t->s.bdim, t->s.nbatch);
    kern_int(k, arena_fmt(k->e->a, "%s_s", name), kern_stride(k, v, t->s.sdim));
    kern_int(k, arena_fmt(k->e->a, "%s_h", name), stride_of(k, v, head));
    kern_int(k, arena_fmt(k->e->a, "%s_d", name), stride_of(k, v, last));
}

static void att_define(Kern *k, const Att *t, int64_t key_tile) {
    kern_int(k, "S", t->s.seq);
    kern_int(k, "D", t->s.d);
    kern_int(k, "E", t->s.e);
    kern_int(k, "SP", t->s.seq_pad);
    kern_int(k, "NQ", t->s.nq);
    kern_int(k, "NK", t->s.nk);
    kern_int(k, "BATCH", t->batch);
    kern_int(k, "DPANELS", (t->s.d + t->nr - 1) / t->nr);
    kern_int(k, "EPANELS", (t->s.e + t->nr - 1) / t->nr);
    kern_int(k, "QT", 84);
    kern_int(k, "KT", key_tile);
    kern_line(k, "#define LS (KT + 16)\n#define DL (DPANELS * NR + 16)\n#define EL (EPANELS * NR + 16)");
}

/* ---- panels. out[head][panel of columns][row][NR] = x(row, column), zeros beyond. */
static const char pack_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    T *out = p[1];
    for (long u = HEADS * PANELS * part / nparts; u < HEADS * PANELS * (part + 1) / nparts; u++) {
        long h = u / PANELS;
        pack(x + x_b(h / NK) + h % NK * x_h, out + h * PANELS * ROWS * NR, u % PANELS, u % PANELS + 1);
    }
});

/* keys: columns are keys (K^T, V^T), rows the last dim; else the other way round. */
static void att_pack(Emit *e, NodeId id, uint32_t in, bool keys, int64_t off) {
    Kern k;
    Att t;
    att_open(&k, &t, e, id);
    ValueId v = kern_in(&k, in);
    DimId last = in == 1 ? t.s.ddim : t.s.edim;
    int64_t size = kern_size(&k, last), rows = keys ? size : t.s.seq_pad;
    int64_t panels = keys ? t.s.seq_pad / t.nr : (size + t.nr - 1) / t.nr;
    int64_t along = kern_stride(&k, v, t.s.sdim), within = kern_stride(&k, v, last);
    gemm_define(&k, t.dt);
    if (keys)
        gemm_pack(&k, t.dt, "pack", size, size, t.s.seq, within, along);
    else
        gemm_pack(&k, t.dt, "pack", t.s.seq, t.s.seq_pad, size, along, within);
    kern_int(&k, "HEADS", t.batch * t.s.nk);
    kern_int(&k, "NK", t.s.nk);
    kern_int(&k, "PANELS", panels);
    kern_int(&k, "ROWS", rows);
    att_value(&k, &t, "x", v, t.s.kdim, last);
    kern_text(&k, pack_text);
    kern_read(&k, v);
    kern_write_at(&k, emit_scratch(e, k.n, off), t.batch * t.s.nk * panels * rows * t.nr * t.size);
    kern_close(&k, keys ? "attention: panels of keys" : "attention: panels of features");
}

/* ---- pieces that both directions use */
static const char att_text[] = TEXT(
    /* Rows q0 .. of one head, times f, zeros beyond. */
    static INLINE void load(T *to, long ld, const T *x, long ss, long sd, long n, long rows, T f) {
        for (long i = 0; i < QT; i++) {
            if (i < rows)
                for (long j = 0; j < n; j++) to[i * ld + j] = x[i * ss + j * sd] * f;
            else
                for (long j = 0; j < n; j++) to[i * ld + j] = 0;
            for (long j = n; j < ld; j++) to[i * ld + j] = 0;
        }
    }
    /* C[tiles x MR][panels x NR] (+)= A B, B in panels of `ldp` elements. */
    static INLINE void product(long tiles, long panels, long kk, const T *A, long am, long ak, const T *B,
                               long ldp, long ldb, T *C, long ldc, int first) {
        for (long j = 0; j < panels; j++)
            for (long t = 0; t < tiles; t++)
                g_tile(MR, kk, A + t * MR * am, am, ak, B + j * ldp, ldb, C + t * MR * ldc + j * NR, ldc,
                       first);
    });

static const char forward_text[] = TEXT(
    /* One row of scores: n of them count. Returns the sum of exp(x - m); x becomes it, zeros up to `pad`. */
    static T row_exp(T * x, long n, long pad, T m) {
        T s[16] = {0};
        long i = 0;
        for (; i < n; i += 16)
            for (int u = 0; u < 16; u++) {
                T w = EXP(x[i + u] - m);
                w = i + u < n ? w : 0;
                s[u] += w;
                x[i + u] = w;
            }
        for (; i < pad; i++) x[i] = 0;
        T r = s[0];
        for (int u = 1; u < 16; u++) r += s[u];
        return r;
    } static T row_max(const T *x, long n, T first) {
        T m[16];
        for (int u = 0; u < 16; u++) m[u] = first;
        for (long i = 0; i < n; i += 16)
            for (int u = 0; u < 16; u++) m[u] = i + u < n && x[i + u] > m[u] ? x[i + u] : m[u];
        T r = m[0];
        for (int u = 1; u < 16; u++) r = m[u] > r ? m[u] : r;
        return r;
    } static void piece(const T *q, const T *kt, const T *vp, T *o, T *lse, long q0) {
        T Q[QT * DL] ALIGN;
        T P[QT * LS] ALIGN;
        T O[QT * EL] ALIGN;
        T top[QT];
        T sum[QT];
        long rows = S - q0 < QT ? S - q0 : QT;
        long tiles = (rows + MR - 1) / MR;
        load(Q, DL, q + q0 * q_s, q_s, q_d, D, rows, SCALE);
        for (long i = 0; i < QT * EL; i++) O[i] = 0;
        for (long i = 0; i < QT; i++) {
            top[i] = -__builtin_inff();
            sum[i] = 0;
        }
        for (long k0 = 0; k0 < q0 + rows; k0 += KT) {
            long nk = q0 + rows - k0 < KT ? q0 + rows - k0 : KT;
            long panels = (nk + NR - 1) / NR;
            product(tiles, panels, D, Q, DL, 1, kt + k0 * D, D * NR, NR, P, LS, 1);
            for (long i = 0; i < rows; i++) {
                long n = q0 + i - k0 + 1 < nk ? q0 + i - k0 + 1 : nk;
                T *x = P + i * LS;
                if (n <= 0) {
                    for (long j = 0; j < panels * NR; j++) x[j] = 0;
                    continue;
                }
                T m = row_max(x, n, top[i]);
                T s = row_exp(x, n, panels * NR, m);
                if (k0 > 0) {
                    T f = EXP(top[i] - m);
                    sum[i] = sum[i] * f + s;
                    for (long j = 0; j < EPANELS * NR; j++) O[i * EL + j] *= f;
                } else {
                    sum[i] = s;
                }
                top[i] = m;
            }
            product(tiles, EPANELS, panels * NR, P, LS, 1, vp + k0 * NR, SP * NR, NR, O, EL, 0);
        }
        for (long i = 0; i < rows; i++) {
            T f = 1 / sum[i];
            for (long j = 0; j < E && HAS_O; j++) o[(q0 + i) * o_s + j * o_d] = O[i * EL + j] * f;
            if (HAS_LSE) lse[(q0 + i) * lse_s] = top[i] + LOG(sum[i]);
        }
    } void k(void *const *p, int part, int nparts) {
        const T *q = p[0];
        const T *kt = p[1];
        const T *vp = p[2];
        T *o = p[3];
        T *lse = p[4];
        for (long u = part; u < BATCH * NQ * QTILES; u += nparts) {
            long h = u / QTILES % NQ;
            long b = u / QTILES / NQ;
            long g = b * NK + h * NK / NQ;
            piece(q + q_b(b) + h * q_h, kt + g * SP * D, vp + g * EPANELS * SP * NR, o + o_b(b) + h * o_h,
                  lse + lse_b(b) + h * lse_h, (QTILES - 1 - u % QTILES) * QT);
        }
    });

static void att_math(Kern *k, const Att *t) {
    kern_math(k, t->dt, (const char *const[]){"exp", "log"}, 2);
    kern_line(k, "#define EXP exp_%s\n#define LOG log_%s\n#define ALIGN __attribute__((aligned(64)))",
              dtype_name[t->dt], dtype_name[t->dt]);
    kern_real(k, "SCALE", t->dt, 1 / __builtin_sqrt((double)t->s.d));
}

static int64_t heads_bytes(const Att *t, int64_t one) {
    return t->batch * t->s.nk * one * t->size;
}

bool custom_attention(Emit *e, NodeId id) {
    Kern k;
    Att t;
    att_open(&k, &t, e, id);
    ValueId q = kern_in(&k, 0), o = kern_out(&k, 0), lse = kern_out(&k, 1);
    int64_t eps = (t.s.e + t.nr - 1) / t.nr * t.nr;
    att_pack(e, id, 1, true, t.s.kt);
    att_pack(e, id, 2, false, t.s.vp);
    gemm_define(&k, t.dt);
    att_math(&k, &t);
    att_define(&k, &t, 256);
    kern_int(&k, "QTILES", (t.s.seq + 83) / 84);
    kern_int(&k, "HAS_O", kern_wanted(&k, o));
    kern_int(&k, "HAS_LSE", kern_wanted(&k, lse));
    att_value(&k, &t, "q", q, t.s.qdim, t.s.ddim);
    att_value(&k, &t, "o", o, t.s.qdim, t.s.edim);
    att_value(&k, &t, "lse", lse, t.s.qdim, (DimId){UINT32_MAX});
    kern_text(&k, att_text);
    kern_text(&k, forward_text);
    kern_read(&k, q);
    kern_read_at(&k, emit_scratch(e, k.n, t.s.kt), heads_bytes(&t, t.s.seq_pad * t.s.d));
    kern_read_at(&k, emit_scratch(e, k.n, t.s.vp), heads_bytes(&t, t.s.seq_pad * eps));
    kern_write_wanted(&k, o, emit_scratch(e, k.n, t.s.kt));
    kern_write_wanted(&k, lse, emit_scratch(e, k.n, t.s.kt));
    kern_close(&k, arena_fmt(e->a, "attention %dx%d, 84 queries by 256 keys", t.mr, t.nr));
    return true;
}

/* ---- backward */
static const char backward_text[] = TEXT(
    /* P = exp(scores - lse) where the key counts, dS = P (dP - delta); zeros elsewhere up to `pad`. */
    static INLINE void row_grad(T *x, T *w, long n, long pad, T lse, T delta) {
        for (long j = 0; j < pad; j++) {
            T v = EXP(x[j] - lse);
            x[j] = j < n ? v : 0;
            w[j] = j < n ? v * (w[j] - delta) : 0;
        }
    }
    /* What one head's queries q0 .. and keys k0 .. give. dk and dv are sums so far; dq is written by the
       first tile of keys. */
    static void tile(const T *q, const T *o, const T *lse, const T *go, const T *kt, const T *vt, const T *kp,
                     T *dq, T *dk, T *dv, long q0, long k0) {
        T Q[QT * DL] ALIGN;
        T G[QT * EL] ALIGN;
        T P[QT * LS] ALIGN;
        T W[QT * LS] ALIGN;
        T X[QT * DL] ALIGN;
        long rows = S - q0 < QT ? S - q0 : QT;
        long nk = q0 + rows - k0 < KT ? q0 + rows - k0 : KT;
        long panels = (nk + NR - 1) / NR;
        long tiles = (rows + MR - 1) / MR;
        long ktiles = (panels * NR + MR - 1) / MR;
        load(Q, DL, q + q0 * q_s, q_s, q_d, D, rows, SCALE);
        load(G, EL, go + q0 * o_s, o_s, o_d, E, rows, 1);
        product(tiles, panels, D, Q, DL, 1, kt + k0 * D, D * NR, NR, P, LS, 1);
        product(tiles, panels, E, G, EL, 1, vt + k0 * E, E * NR, NR, W, LS, 1);
        for (long i = 0; i < rows; i++) {
            T s[16] = {0};
            const T *a = o + (q0 + i) * o_s;
            for (long j0 = 0; j0 + 16 <= E; j0 += 16)
                for (int u = 0; u < 16; u++) s[u] += a[(j0 + u) * o_d] * G[i * EL + j0 + u];
            for (long j = E / 16 * 16; j < E; j++) s[j & 15] += a[j * o_d] * G[i * EL + j];
            T delta = s[0];
            for (int u = 1; u < 16; u++) delta += s[u];
            row_grad(P + i * LS, W + i * LS, q0 + i - k0 + 1, ktiles * MR, lse[(q0 + i) * lse_s], delta);
        }
        if (HAS_DV) product(ktiles, EPANELS, rows, P, 1, LS, G, NR, EL, dv, EL, 0);
        if (HAS_DK) product(ktiles, DPANELS, rows, W, 1, LS, Q, NR, DL, dk, DL, 0);
        if (!HAS_DQ) return;
        for (long i = rows; i < tiles * MR; i++)
            for (long j = 0; j < panels * NR; j++) W[i * LS + j] = 0;
        product(tiles, DPANELS, panels * NR, W, LS, 1, kp + k0 * NR, SP * NR, NR, X, DL, 1);
        for (long i = 0; i < rows; i++) {
            T *b = dq + (q0 + i) * q_s;
            if (k0 == 0)
                for (long j = 0; j < D; j++) b[j * q_d] = X[i * DL + j] * SCALE;
            else
                for (long j = 0; j < D; j++) b[j * q_d] += X[i * DL + j] * SCALE;
        }
    } void k(void *const *p, int part, int nparts) {
        const T *q = p[0];
        const T *o = p[1];
        const T *lse = p[2];
        const T *go = p[3];
        const T *kt = p[4];
        const T *vt = p[5];
        const T *kp = p[6];
        T *dq = p[7];
        T *dk = p[8];
        T *dv = p[9];
        T DK[KT * DL] ALIGN;
        T DV[KT * EL] ALIGN;
        for (long g = part; g < BATCH * NK; g += nparts) {
            long b = g / NK;
            for (long k0 = 0; k0 < S; k0 += KT) {
                for (long i = 0; i < KT * DL; i++) DK[i] = 0;
                for (long i = 0; i < KT * EL; i++) DV[i] = 0;
                for (long h = g % NK * (NQ / NK); h < (g % NK + 1) * (NQ / NK); h++) {
                    long at = o_b(b) + h * o_h;
                    for (long q0 = k0 / QT * QT; q0 < S; q0 += QT)
                        tile(q + q_b(b) + h * q_h, o + at, lse + lse_b(b) + h * lse_h, go + at,
                             kt + g * SP * D, vt + g * SP * E, kp + g * DPANELS * SP * NR,
                             dq + q_b(b) + h * q_h, DK, DV, q0, k0);
                }
                for (long i = 0; i < KT && k0 + i < S; i++) {
                    T *x = dk + k_b(b) + g % NK * k_h + (k0 + i) * k_s;
                    T *y = dv + v_b(b) + g % NK * v_h + (k0 + i) * v_s;
                    for (long j = 0; j < D && HAS_DK; j++) x[j * k_d] = DK[i * DL + j];
                    for (long j = 0; j < E && HAS_DV; j++) y[j * v_d] = DV[i * EL + j];
                }
            }
        }
    });

/* A tile of keys is whole tiles of rows and of columns. */
static int64_t key_tile(const Att *t) {
    int64_t both = t->mr * t->nr / 2; /* one of the two is even once only: 14 x 32, 14 x 16, 6 x 16, 6 x 8 */
    return both < 112 ? both * (192 / both) : both;
}

bool custom_attention_grad(Emit *e, NodeId id) {
    Kern k;
    Att t;
    att_open(&k, &t, e, id);
    int64_t dps = (t.s.d + t.nr - 1) / t.nr * t.nr;
    att_pack(e, id, 1, true, t.s.kt);
    att_pack(e, id, 2, true, t.s.vp);
    att_pack(e, id, 1, false, t.s.kp);
    gemm_define(&k, t.dt);
    att_math(&k, &t);
    att_define(&k, &t, key_tile(&t));
    att_value(&k, &t, "q", kern_in(&k, 0), t.s.qdim, t.s.ddim);
    att_value(&k, &t, "k", kern_in(&k, 1), t.s.kdim, t.s.ddim);
    att_value(&k, &t, "v", kern_in(&k, 2), t.s.kdim, t.s.edim);
    att_value(&k, &t, "o", kern_in(&k, 3), t.s.qdim, t.s.edim);
    att_value(&k, &t, "lse", kern_in(&k, 4), t.s.qdim, (DimId){UINT32_MAX});
    static const char *const has[] = {"HAS_DQ", "HAS_DK", "HAS_DV"};
    for (uint32_t i = 0; i < 3; i++) kern_int(&k, has[i], kern_wanted(&k, kern_out(&k, i)));
    kern_text(&k, att_text);
    kern_text(&k, backward_text);
    kern_read(&k, kern_in(&k, 0));
    for (uint32_t i = 3; i < 6; i++) kern_read(&k, kern_in(&k, i));
    kern_read_at(&k, emit_scratch(e, k.n, t.s.kt), heads_bytes(&t, t.s.seq_pad * t.s.d));
    kern_read_at(&k, emit_scratch(e, k.n, t.s.vp), heads_bytes(&t, t.s.seq_pad * t.s.e));
    kern_read_at(&k, emit_scratch(e, k.n, t.s.kp), heads_bytes(&t, t.s.seq_pad * dps));
    for (uint32_t i = 0; i < 3; i++) kern_write_wanted(&k, kern_out(&k, i), emit_scratch(e, k.n, t.s.kt));
    kern_close(&k, arena_fmt(e->a, "attention backward %dx%d, 84 queries by %lld keys", t.mr, t.nr,
                             (long long)key_tile(&t)));
    return true;
}
