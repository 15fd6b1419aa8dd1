/* gemm.c: register-tiled products. The tile, packing into panels, a blocked product, and op matmul.
 *
 * A tile is MR rows by two vectors of columns: 14 x 2 (AVX-512) or 6 x 2 (AVX2), C in registers, one
 * broadcast and two fused multiply-adds a row. Each element of C is the sum over k in order, in blocks of KC
 * whose borders the shape fixes (C is stored between blocks), so the bits depend on neither threads nor
 * panels. A with a bad k stride (the transposed operand of a weight gradient) is packed per block into the
 * stack. */
#include "codegen/custom/kern.h"

int gemm_rows(const Emit *e) {
    return e->level == CPU_V4 ? 14 : 6;
}
static int lanes(const Emit *e, DType dt) {
    return (e->level == CPU_V4 ? 64 : 32) / dtype_bytes[dt];
}
int gemm_cols(const Emit *e, DType dt) {
    return 2 * lanes(e, dt);
}

static const char tile_text[] = TEXT(
    typedef T VV __attribute__((vector_size(VB)));
    typedef T VU __attribute__((vector_size(VB), aligned(sizeof(T)), may_alias));
    /* C[R][NR] (+)= A[R][kc] B[kc][NR] */
    static INLINE void g_tile(const int R, long kc, const T *A, long am, long ak, const T *B, long ldb, T *C,
                              long ldc, int first) {
        VV c[MR][2];
        UNROLL for (int i = 0; i < R; i++) {
            if (first) {
                c[i][0] = c[i][1] = (VV){0};
            } else {
                c[i][0] = *(const VU *)(C + i * ldc);
                c[i][1] = *(const VU *)(C + i * ldc + L);
            }
        }
        for (long k = 0; k < kc; k++) {
            VV b0 = *(const VU *)(B + k * ldb);
            VV b1 = *(const VU *)(B + k * ldb + L);
            UNROLL for (int i = 0; i < R; i++) {
                T s = A[i * am + k * ak];
                VV a = BC(s);
                c[i][0] = FMA(a, b0, c[i][0]);
                c[i][1] = FMA(a, b1, c[i][1]);
            }
        }
        UNROLL for (int i = 0; i < R; i++) {
            *(VU *)(C + i * ldc) = c[i][0];
            *(VU *)(C + i * ldc + L) = c[i][1];
        }
    }
    /* The same where only `cols` columns of C are there. */
    static INLINE void g_edge(const int R, int cols, long kc, const T *A, long am, long ak, const T *B,
                              long ldb, T *C, long ldc, int first) {
        T buf[MR * NR];
        for (int i = 0; i < R; i++)
            for (int j = 0; j < NR; j++) buf[i * NR + j] = first || j >= cols ? 0 : C[i * ldc + j];
        g_tile(R, kc, A, am, ak, B, ldb, buf, NR, 0);
        for (int i = 0; i < R; i++)
            for (int j = 0; j < cols; j++) C[i * ldc + j] = buf[i * NR + j];
    });

void gemm_define(Kern *k, DType dt) {
    int n = lanes(k->e, dt);
    bool v4 = k->e->level == CPU_V4;
    kern_type(k, "T", dt);
    kern_line(
        k, "#define INLINE inline __attribute__((always_inline))\n#define UNROLL _Pragma(\"GCC unroll 16\")");
    kern_line(k, "#define VB %d\n#define L %d\n#define MR %d\n#define NR %d", n * dtype_bytes[dt], n,
              gemm_rows(k->e), 2 * n);
    sb_str(&k->src, "#define BC(a) (VV){");
    for (int i = 0; i < n; i++) sb_str(&k->src, i ? ",a" : "a");
    const char *s = dt == DT_F64 ? "pd" : "ps";
    if (v4)
        kern_line(k, "}\n#define FMA(a, b, c) __builtin_ia32_vfmadd%s512_mask(a, b, c, -1, 4)", s);
    else
        kern_line(k, "}\n#define FMA(a, b, c) __builtin_ia32_vfmadd%s256(a, b, c)", s);
    kern_text(k, tile_text);
}

/* Transposes v, L vectors of L lanes: at step s the off-diagonal blocks of s x s change places. LO and HI are
 * the lane numbers of a step, printed by define_transpose. */
static void define_transpose(Kern *k, DType dt) {
    int n = lanes(k->e, dt);
    kern_line(k, "static INLINE void g_transpose(VV *v) {\nVV a, b;");
    for (int s = 1; s < n; s *= 2)
        for (int i = 0; i < n; i++) {
            if (i & s) continue;
            kern_line(k, "a = v[%d]; b = v[%d];", i, i + s);
            for (int hi = 0; hi < 2; hi++) {
                sb_fmt(&k->src, "v[%d] = __builtin_shufflevector(a, b", hi ? i + s : i);
                for (int l = 0; l < n; l++) {
                    int at = hi ? (l & s ? n + l : l + s) : (l & s ? n + l - s : l);
                    sb_fmt(&k->src, ", %d", at);
                }
                kern_line(k, ");");
            }
        }
    kern_line(k, "}");
}

static const char pack_text[] = TEXT(
    static INLINE void g_block(const T *b, T *p, long sn) {
        for (int h = 0; h < 2; h++) {
            VV v[L];
            UNROLL for (int i = 0; i < L; i++) v[i] = *(const VU *)(b + (h * L + i) * sn);
            g_transpose(v);
            UNROLL for (int i = 0; i < L; i++) * (VU *)(p + i * NR + h * L) = v[i];
        }
    } static void G_NAME(const T *B, T *P, long j0, long j1) {
        for (long j = j0; j < j1; j++) {
            T *p = P + j * G_ROWS * NR;
            const T *b = B + j * NR * G_SN;
            long n = G_N - j * NR < NR ? G_N - j * NR : NR;
            long k = 0;
            if (G_SK == 1 && n == NR)
                for (; k + L <= G_K; k += L) g_block(b + k, p + k * NR, G_SN);
            for (; k < G_K; k++) {
                if (n == NR)
                    for (int x = 0; x < NR; x++) p[k * NR + x] = b[k * G_SK + x * G_SN];
                else
                    for (int x = 0; x < NR; x++) p[k * NR + x] = x < n ? b[k * G_SK + x * G_SN] : 0;
            }
            for (; k < G_ROWS; k++)
                for (int x = 0; x < NR; x++) p[k * NR + x] = 0;
        }
    });

void gemm_pack(Kern *k, DType dt, const char *name, int64_t kk, int64_t rows, int64_t n, int64_t sk,
               int64_t sn) {
    define_transpose(k, dt);
    kern_line(k, "#define G_NAME %s", name);
    kern_int(k, "G_K", kk);
    kern_int(k, "G_ROWS", rows);
    kern_int(k, "G_N", n);
    kern_int(k, "G_SK", sk);
    kern_int(k, "G_SN", sn);
    kern_text(k, pack_text);
}

/* G_MT, G_NT: rows and columns of the tail tiles, 0 when there are none; NB panels. G_BK 0: B is packed. */
static const char block_text[] = TEXT(static void G_NAME(const T *A, const T *B, T *C, long m, long kk,
                                                         long t0, long t1, long j0, long j1, int first) {
    (void)m;
    long k0 = 0;
    do {
        long kc = kk - k0 < G_KC ? kk - k0 : G_KC;
        int f = first && k0 == 0;
        for (long tb = t0; tb < t1; tb += G_MB) {
            long te = tb + G_MB < t1 ? tb + G_MB : t1;
            G_PACKA
            for (long j = j0; j < j1; j++) {
                const T *b = G_BK ? B + k0 * G_BK + j * NR : B + (j * kk + k0) * NR;
                long ldb = G_BK ? G_BK : NR;
                for (long t = tb; t < te; t++) {
                    const T *a = G_A;
                    T *c = C + t * MR * G_CM + j * NR;
                    if (G_MT && t == m / MR) {
                        if (G_NT && j == G_NB - 1)
                            g_edge(G_MT, G_NT, kc, a, G_AM, G_AK, b, ldb, c, G_CM, f);
                        else
                            g_tile(G_MT, kc, a, G_AM, G_AK, b, ldb, c, G_CM, f);
                    } else {
                        if (G_NT && j == G_NB - 1)
                            g_edge(MR, G_NT, kc, a, G_AM, G_AK, b, ldb, c, G_CM, f);
                        else
                            g_tile(MR, kc, a, G_AM, G_AK, b, ldb, c, G_CM, f);
                    }
                }
            }
        }
        k0 += G_KC;
    } while (k0 < kk);
});

/* Rows beyond m are zeros. */
static const char packa_text[] =
    TEXT(static void G_PACK_A(T *P, const T *A, long kc, long t0, long t1, long m) {
        for (long k = 0; k < kc; k++)
            for (long t = t0; t < t1; t++) {
                const T *a = A + t * MR * G_SM + k * G_SA;
                T *p = P + ((t - t0) * G_KC + k) * MR;
                if (t * MR + MR <= m && G_SM == 1)
                    __builtin_memcpy(p, a, MR * sizeof(T));
                else if (t * MR + MR <= m)
                    for (int i = 0; i < MR; i++) p[i] = a[i * G_SM];
                else
                    for (int i = 0; i < MR; i++) p[i] = t * MR + i < m ? a[i * G_SM] : 0;
            }
    });

void gemm_block(Kern *k, DType dt, const GemmBlock *b) {
    /* rows of A a multiple of 4096 bytes apart share their cache sets */
    bool pack_a = b->ak != 1 || b->am * dtype_bytes[dt] % 4096 == 0;
    int64_t mb = pack_a ? 8 : 16;
    kern_int(k, "G_KC", b->kc ? b->kc : dt == DT_F64 ? 192 : 384);
    kern_int(k, "G_MB", mb);
    if (pack_a) {
        kern_line(k, "#define G_PACK_A %s_a", b->name);
        kern_int(k, "G_SM", b->am);
        kern_int(k, "G_SA", b->ak);
        kern_text(k, packa_text);
        kern_line(k, "#define G_PACKA T pa[G_MB * G_KC * MR] __attribute__((aligned(64))); "
                     "G_PACK_A(pa, A + k0 * G_SA, kc, tb, te, m);");
        kern_line(k, "#define G_A pa + (t - tb) * G_KC * MR\n#define G_AM 1\n#define G_AK MR");
    } else {
        kern_line(k, "#define G_PACKA\n#define G_A A + t * MR * G_AM + k0");
        kern_int(k, "G_AM", b->am);
        kern_line(k, "#define G_AK 1");
    }
    kern_line(k, "#define G_NAME %s", b->name);
    kern_int(k, "G_BK", b->bk);
    kern_int(k, "G_CM", b->cm);
    kern_int(k, "G_MT", b->m_tail);
    kern_int(k, "G_NT", b->n_tail);
    kern_int(k, "G_NB", b->n_panels);
    kern_text(k, block_text);
    if (pack_a) kern_line(k, "#undef G_PACK_A\n#undef G_SM\n#undef G_SA");
    kern_line(
        k, "#undef G_KC\n#undef G_MB\n#undef G_PACKA\n#undef G_A\n#undef G_AM\n#undef G_AK\n#undef G_NAME\n"
           "#undef G_BK\n#undef G_CM\n#undef G_MT\n#undef G_NT\n#undef G_NB");
}

/* ---- op matmul, tiled */
typedef struct {
    MatShape s;
    DType dt;
    int64_t outer, youter, kouter, tiles, panels;
    int mr, nr;
} Mat;

static void mat_fill(const Kern *k, Mat *m) {
    matmul_shape(k->g, k->n, &m->s);
    m->dt = kern_ty(k, kern_in(k, 0))->dt;
    m->mr = gemm_rows(k->e);
    m->nr = gemm_cols(k->e, m->dt);
    m->tiles = (m->s.m.size + m->mr - 1) / m->mr;
    m->panels = (m->s.n.size + m->nr - 1) / m->nr;
    m->outer = m->youter = m->kouter = 1;
    for (uint32_t i = 0; i < m->s.nouter; i++) {
        m->outer *= m->s.outer[i].size;
        if (m->s.outer[i].sy) m->youter *= m->s.outer[i].size;
    }
    for (uint32_t i = 0; i < m->s.nkouter; i++) m->kouter *= m->s.kouter[i].size;
}

/* Prints `static long NAME(long r)` over the outer dims (or those of K), `which`: 0 x0, 1 x1, 2 the result,
 * 3 the number of the packed x1. */
static void outer_fn(Kern *k, const char *name, const MatDim *d, uint32_t n, int which) {
    int64_t size[MAX_DIMS * 2], stride[MAX_DIMS * 2], dense = 1;
    for (uint32_t i = n; i-- > 0;) {
        size[i] = d[i].size;
        stride[i] = which == 0 ? d[i].sx : which == 1 ? d[i].sy : which == 2 ? d[i].sc : d[i].sy ? dense : 0;
        if (d[i].sy) dense *= d[i].size;
    }
    sb_fmt(&k->src, "static inline long %s(long r) { (void)r; return ", name);
    kern_offset(&k->src, "r", size, stride, n);
    sb_str(&k->src, "; }\n");
}

static const char mat_pack_text[] = TEXT(
    /* unit: (outer of x1, outer of K, panel) */
    void k(void *const *p, int part, int nparts) {
        const T *b = p[0];
        T *out = p[1];
        long lo = UNITS * part / nparts, hi = UNITS * (part + 1) / nparts;
        while (lo < hi) {
            long r = lo / PANELS, j0 = lo % PANELS, j1 = hi - r * PANELS < PANELS ? hi - r * PANELS : PANELS;
            pack(b + y_outer(r / KOUTER) + y_k(r % KOUTER), out + r * PANELS * KK * NR, j0, j1);
            lo += j1 - j0;
        }
    });

static void mat_pack(Emit *e, NodeId id, int64_t scratch) {
    Kern k;
    Mat m;
    kern_open(&k, e, id);
    mat_fill(&k, &m);
    gemm_define(&k, m.dt);
    gemm_pack(&k, m.dt, "pack", m.s.k.size, m.s.k.size, m.s.n.size, m.s.k.sy, m.s.n.sy);
    MatDim y[MAX_DIMS * 2];
    uint32_t ny = 0;
    for (uint32_t i = 0; i < m.s.nouter; i++)
        if (m.s.outer[i].sy) y[ny++] = m.s.outer[i];
    outer_fn(&k, "y_outer", y, ny, 1);
    outer_fn(&k, "y_k", m.s.kouter, m.s.nkouter, 1);
    kern_int(&k, "PANELS", m.panels);
    kern_int(&k, "KOUTER", m.kouter);
    kern_int(&k, "KK", m.s.k.size);
    kern_int(&k, "UNITS", m.youter * m.kouter * m.panels);
    kern_text(&k, mat_pack_text);
    kern_read(&k, kern_in(&k, 1));
    kern_write_at(&k, emit_scratch(e, k.n, 0), scratch);
    kern_close(&k, "gemm: panels of the right operand");
}

static const char mat_text[] = TEXT(
    static void part_of(const T *a, const T *b, T *c, long o, long t0, long t1, long j0, long j1) {
        for (long q = 0; q < KOUTER; q++) {
            const T *x = a + x_outer(o) + x_k(q);
            const T *y = PACKED ? b + (y_pack(o) * KOUTER + q) * PANELS * KK * NR : b + y_outer(o) + y_k(q);
            block(x, y, c + c_outer(o), MM, KK, t0, t1, j0, j1, q == 0);
        }
    }
    /* unit: a tile of rows, or a panel of columns where there are few rows */
    void k(void *const *p, int part, int nparts) {
        const T *a = p[0];
        const T *b = p[1];
        T *c = p[2];
        long lo = OUTER * UNITS * part / nparts, hi = OUTER * UNITS * (part + 1) / nparts;
        while (lo < hi) {
            long o = lo / UNITS, u0 = lo % UNITS, u1 = hi - o * UNITS < UNITS ? hi - o * UNITS : UNITS;
            if (BY_PANEL)
                part_of(a, b, c, o, 0, TILES, u0, u1);
            else
                part_of(a, b, c, o, u0, u1, 0, PANELS);
            lo += u1 - u0;
        }
    });

static bool mat_tiled(Emit *e, NodeId id) {
    Kern k;
    Mat m;
    kern_open(&k, e, id);
    mat_fill(&k, &m);
    int64_t scratch = m.s.packed * dtype_bytes[m.dt];
    if (m.s.pack) mat_pack(e, id, scratch);
    gemm_define(&k, m.dt);
    GemmBlock b = {.name = "block",
                   .am = m.s.m.sx,
                   .ak = m.s.k.sx,
                   .bk = m.s.pack ? 0 : m.s.k.sy,
                   .cm = m.s.m.sc,
                   .m_tail = m.s.m.size % m.mr,
                   .n_tail = m.s.n.size % m.nr,
                   .n_panels = m.panels};
    gemm_block(&k, m.dt, &b);
    outer_fn(&k, "x_outer", m.s.outer, m.s.nouter, 0);
    outer_fn(&k, "y_outer", m.s.outer, m.s.nouter, 1);
    outer_fn(&k, "c_outer", m.s.outer, m.s.nouter, 2);
    outer_fn(&k, "y_pack", m.s.outer, m.s.nouter, 3);
    outer_fn(&k, "x_k", m.s.kouter, m.s.nkouter, 0);
    outer_fn(&k, "y_k", m.s.kouter, m.s.nkouter, 1);
    bool by_panel = m.tiles * m.outer < 16 && m.panels > m.tiles;
    kern_int(&k, "KOUTER", m.kouter);
    kern_int(&k, "PACKED", m.s.pack);
    kern_int(&k, "PANELS", m.panels);
    kern_int(&k, "TILES", m.tiles);
    kern_int(&k, "MM", m.s.m.size);
    kern_int(&k, "KK", m.s.k.size);
    kern_int(&k, "OUTER", m.outer);
    kern_int(&k, "BY_PANEL", by_panel);
    kern_int(&k, "UNITS", by_panel ? m.panels : m.tiles);
    kern_text(&k, mat_text);
    kern_read(&k, kern_in(&k, 0));
    if (m.s.pack)
        kern_read_at(&k, emit_scratch(e, k.n, 0), scratch);
    else
        kern_read(&k, kern_in(&k, 1));
    kern_write(&k, kern_out(&k, 0));
    kern_close(&k, arena_fmt(e->a, "gemm %s %s %dx%d m=%lld n=%lld k=%lld%s",
                             e->level == CPU_V4 ? "avx512" : "avx2", dtype_name[m.dt], m.mr, m.nr,
                             (long long)m.s.m.size, (long long)m.s.n.size, (long long)m.s.k.size,
                             m.s.pack ? " packed" : ""));
    return true;
}

/* ---- op matmul, loops: small or degenerate products */
static void mat_loops(Kern *k, const MatDim *d, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        kern_line(k, "for (long k%u = 0; k%u < %lldL; k%u++) {", i, i, (long long)d[i].size, i);
}

static void mat_sum(Kern *k, const MatDim *d, uint32_t n, bool x) {
    for (uint32_t i = 0; i < n; i++) kern_line(k, " + k%u * %lldL", i, (long long)(x ? d[i].sx : d[i].sy));
}

/* Sum over k in 16 lanes along the innermost run, lanes added in order. */
static void mat_dot(Kern *k, const MatLoops *s) {
    uint32_t n = s->nk;
    MatDim in = n ? s->k[n - 1] : (MatDim){1, 0, 0, 0};
    if (n) n--;
    kern_line(k, "static inline T dot(const T *x, const T *y) {\nT s[16] = {0};");
    mat_loops(k, s->k, n);
    kern_line(k, "const T *a = x");
    mat_sum(k, s->k, n, true);
    kern_line(k, ";\nconst T *b = y");
    mat_sum(k, s->k, n, false);
    kern_line(k,
              ";\nlong i = 0;\nfor (; i + 16 <= %lldL; i += 16)\nfor (int u = 0; u < 16; u++)"
              " s[u] += a[(i + u) * %lldL] * b[(i + u) * %lldL];",
              (long long)in.size, (long long)in.sx, (long long)in.sy);
    kern_line(k, "for (int u = 0; u < 16 && i < %lldL; i++, u++) s[u] += a[i * %lldL] * b[i * %lldL];",
              (long long)in.size, (long long)in.sx, (long long)in.sy);
    for (uint32_t i = 0; i < n; i++) kern_line(k, "}");
    kern_line(k, "T r = s[0];\nfor (int u = 1; u < 16; u++) r += s[u];\nreturn r;\n}");
}

/* W columns of the result at once, k in order. */
static void mat_axpy(Kern *k, const MatLoops *s) {
    kern_line(k, "static inline void axpy(const T *x, const T *y, T *c, const long w) {\nT s[W] = {0};");
    mat_loops(k, s->k, s->nk);
    kern_line(k, "const T a = x[0");
    mat_sum(k, s->k, s->nk, true);
    kern_line(k, "];\nconst T *b = y");
    mat_sum(k, s->k, s->nk, false);
    kern_line(k, ";\nfor (long j = 0; j < w; j++) s[j] += a * b[j];");
    for (uint32_t i = 0; i < s->nk; i++) kern_line(k, "}");
    kern_line(k, "for (long j = 0; j < w; j++) c[j] = s[j];\n}");
}

static const char mat_axpy_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    const T *y = p[1];
    T *c = p[2];
    for (long u = ROWS * CUTS * part / nparts; u < ROWS * CUTS * (part + 1) / nparts; u++) {
        long r = u / CUTS;
        long j = u % CUTS * W;
        if (j + W <= N)
            axpy(x + x_off(r), y + y_off(r) + j, c + r * N + j, W);
        else
            axpy(x + x_off(r), y + y_off(r) + j, c + r * N + j, N - j);
    }
});
static const char mat_dot_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    const T *y = p[1];
    T *c = p[2];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++)
        c[r] = dot(x + x_off(r), y + y_off(r));
});

static bool mat_plain(Emit *e, NodeId id) {
    Kern k;
    MatLoops s;
    kern_open(&k, e, id);
    matmul_loops(k.g, k.n, &s);
    kern_type(&k, "T", kern_ty(&k, kern_in(&k, 0))->dt);
    MatDim last = s.nout ? s.out[s.nout - 1] : (MatDim){1, 0, 0, 0};
    bool wide = s.nout > 0 && last.sy == 1 && last.sx == 0 && last.size >= 8;
    uint32_t nrow = wide ? s.nout - 1 : s.nout;
    int64_t rows = 1;
    for (uint32_t i = 0; i < nrow; i++) rows *= s.out[i].size;
    outer_fn(&k, "x_off", s.out, nrow, 0);
    outer_fn(&k, "y_off", s.out, nrow, 1);
    kern_int(&k, "ROWS", rows);
    if (wide) {
        kern_int(&k, "W", last.size < 64 ? last.size : 64);
        kern_int(&k, "N", last.size);
        kern_int(&k, "CUTS", (last.size + 63) / 64);
        mat_axpy(&k, &s);
        kern_text(&k, mat_axpy_text);
    } else {
        mat_dot(&k, &s);
        kern_text(&k, mat_dot_text);
    }
    kern_read(&k, kern_in(&k, 0));
    kern_read(&k, kern_in(&k, 1));
    kern_write(&k, kern_out(&k, 0));
    kern_close(&k, wide ? "product, columns at once" : "product, 16 lanes of k");
    return true;
}

bool custom_matmul(Emit *e, NodeId id) {
    MatShape s;
    matmul_shape(e->g, &e->g->node[id.i], &s);
    return s.gemm ? mat_tiled(e, id) : mat_plain(e, id);
}
