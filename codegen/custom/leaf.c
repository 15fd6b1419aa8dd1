/* leaf.c: values made from nothing: constants, coordinates, random numbers, the table of rope.
 *
 * Random words are Philox4x32-10 as in base/philox.c: key = seed, counter = (block of four, step, stream).
 * The index counts through the micro-batches, so a draw does not depend on how a step is cut. */
#include "codegen/custom/kern.h"

bool custom_const(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    DType dt = kern_ty(&k, kern_out(&k, 0))->dt;
    kern_type(&k, "T", dt);
    kern_real(&k, "VALUE", dt, attr_float(k.g, k.n, "value"));
    kern_text(&k, TEXT(void k(void *const *p, int part, int nparts) {
        (void)nparts;
        if (part == 0) *(T *)p[0] = VALUE;
    }));
    kern_write(&k, kern_out(&k, 0));
    kern_close(&k, "constant");
    return true;
}

bool custom_tensor(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    const Type *t = kern_ty(&k, kern_out(&k, 0));
    const Attr *v = node_attr(k.g, k.n, "values");
    kern_type(&k, "T", t->dt);
    kern_line(&k, "static const T value[] = {");
    for (uint32_t i = 0; i < v->u.list.n; i++) {
        c_const(&k.src, t->dt, k.g->floatlist[v->u.list.at + i]);
        sb_str(&k.src, ",\n");
    }
    kern_line(&k, "};");
    kern_int(&k, "N", type_count(k.g, t));
    kern_text(&k, TEXT(void k(void *const *p, int part, int nparts) {
        T *y = p[0];
        for (long i = N * part / nparts; i < N * (part + 1) / nparts; i++) y[i] = value[i];
    }));
    kern_write(&k, kern_out(&k, 0));
    kern_close(&k, "constants");
    return true;
}

bool custom_iota(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    const Type *t = kern_ty(&k, kern_out(&k, 0));
    kern_type(&k, "T", t->dt);
    kern_int(&k, "N", type_count(k.g, t));
    kern_int(&k, "BASE", attr_int(k.g, k.n, "base"));
    kern_text(&k, TEXT(void k(void *const *p, int part, int nparts) {
        T *y = p[0];
        for (long i = N * part / nparts; i < N * (part + 1) / nparts; i++) y[i] = (T)(BASE + i);
    }));
    kern_write(&k, kern_out(&k, 0));
    kern_close(&k, "coordinates");
    return true;
}

bool custom_rope_table(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId y = kern_out(&k, 0);
    DimId along = attr_dim(k.g, k.n, "along"), over = attr_dim(k.g, k.n, "over");
    kern_math(&k, DT_F64, (const char *const[]){"pow", "cos", "sin"}, 3);
    kern_type(&k, "T", kern_ty(&k, y)->dt);
    kern_int(&k, "S", kern_size(&k, along));
    kern_int(&k, "D", kern_size(&k, over));
    kern_int(&k, "SA", kern_stride(&k, y, along));
    kern_int(&k, "SO", kern_stride(&k, y, over));
    kern_int(&k, "BASE", attr_int(k.g, k.n, "base"));
    kern_real(&k, "THETA", DT_F64, attr_float(k.g, k.n, "theta"));
    kern_text(&k, TEXT(void k(void *const *p, int part, int nparts) {
        T *y = p[0];
        for (long t = S * part / nparts; t < S * (part + 1) / nparts; t++)
            for (long i = 0; i < D / 2; i++) {
                double a = (double)(BASE + t) * pow_f64(THETA, -2.0 * (double)i / (double)D);
                y[t * SA + 2 * i * SO] = (T)cos_f64(a);
                y[t * SA + (2 * i + 1) * SO] = (T)sin_f64(a);
            }
    }));
    kern_write(&k, y);
    kern_close(&k, "table of rope");
    return true;
}

/* ---- random numbers */
const char kern_philox_text[] = TEXT(
    static inline void philox(unsigned long key, unsigned long block, unsigned step, unsigned stream,
                              unsigned *out) {
        unsigned k0 = (unsigned)key, k1 = (unsigned)(key >> 32);
        unsigned c0 = (unsigned)block, c1 = (unsigned)(block >> 32), c2 = step, c3 = stream;
        for (int round = 0; round < 10; round++) {
            unsigned long p0 = 0xD2511F53ul * c0;
            unsigned long p1 = 0xCD9E8D57ul * c2;
            unsigned n0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
            unsigned n2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
            c1 = (unsigned)p1;
            c3 = (unsigned)p0;
            c0 = n0;
            c2 = n2;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        out[0] = c0;
        out[1] = c1;
        out[2] = c2;
        out[3] = c3;
    } static inline double unit(unsigned w) { return ((double)(w >> 8) + 0.5) * 0x1p-24; });

/* Element i of the running micro-batch; a block of four words is worked out once for the elements that share
 * it. */
static const char draw_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    unsigned long seed = (unsigned long)*(const double *)p[0];
    unsigned step = (unsigned)*(const double *)p[1];
    long first = MICRO ? (long)*(const double *)p[2] * N : 0;
    T *y = p[MICRO ? 3 : 2];
    long lo = first + N * part / nparts, hi = first + N * (part + 1) / nparts;
    for (long b = lo >> 2; b << 2 < hi; b++) {
        unsigned w[4];
        philox(seed, (unsigned long)b, step, STREAM, w);
        for (int j = 0; j < 4; j++) {
            long i = b * 4 + j;
            if (i >= lo && i < hi) y[i - first] = (T)draw(w, j);
        }
    }
});
static const char uniform_text[] =
    TEXT(static inline double draw(const unsigned *w, int j) { return unit(w[j]); });
static const char normal_text[] = TEXT(static inline double draw(const unsigned *w, int j) {
    double r = __builtin_sqrt(-2.0 * log_f64(unit(w[j & ~1])));
    double a = 6.283185307179586476925286766559 * unit(w[j | 1]);
    return r * (j & 1 ? sin_f64(a) : cos_f64(a));
});

static bool draw(Emit *e, NodeId id, bool normal) {
    Kern k;
    kern_open(&k, e, id);
    ValueId y = kern_out(&k, 0);
    bool micro = kern_has_micro(&k, kern_ty(&k, y));
    if (normal) kern_math(&k, DT_F64, (const char *const[]){"log", "cos", "sin"}, 3);
    kern_type(&k, "T", kern_ty(&k, y)->dt);
    kern_int(&k, "N", type_count(k.g, kern_ty(&k, y)));
    kern_line(&k, "#define STREAM %uu", (unsigned)(uint32_t)attr_int(k.g, k.n, "stream"));
    kern_int(&k, "MICRO", micro);
    kern_text(&k, kern_philox_text);
    kern_text(&k, normal ? normal_text : uniform_text);
    kern_text(&k, draw_text);
    kern_read_at(&k, emit_scalar(e, "seed"), 8);
    kern_read_at(&k, emit_scalar(e, "step"), 8);
    if (micro) kern_read_at(&k, emit_scalar(e, "micro"), 8);
    kern_write(&k, y);
    kern_close(&k, normal ? "normal numbers" : "uniform numbers");
    return true;
}

bool custom_uniform(Emit *e, NodeId id) {
    return draw(e, id, false);
}
bool custom_normal(Emit *e, NodeId id) {
    return draw(e, id, true);
}
