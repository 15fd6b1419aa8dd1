/* kl.c: linear_kl and its gradient: KL(softmax(h.W) || softmax(h2.W2)), both logits in chunks. See loss.c. */
#include "codegen/custom/loss.h"

static const char *const kl_math[] = {"exp", "log"};

static void kl_begin(Kern *k, Loss *l, Emit *e, NodeId id) {
    loss_open(k, l, e, id);
    kern_math(k, l->dt, kl_math, 2);
    kern_type(k, "T", l->dt);
    loss_define(k, l);
    kern_line(k, "#define EXP exp_%s\n#define LOG log_%s", dtype_name[l->dt], dtype_name[l->dt]);
}

static void kl_both(Emit *e, NodeId id, int64_t slice, int64_t chunk) {
    for (int i = 0; i < 2; i++) {
        loss_gather(e, id, i, slice, chunk);
        loss_logits(e, id, i, chunk);
    }
}

/* kl = sum p (a - b) with a = l - lse, b the same of the second model. */
static const char kl_text[] = TEXT(
    static T row_lse(const T *x) {
        T m = row_max(x);
        T s[16] = {0};
        long i = 0;
        for (; i + 16 <= V; i += 16)
            for (int u = 0; u < 16; u++) s[u] += EXP(x[i + u] - m);
        for (int u = 0; u < 16 && i < V; i++, u++) s[u] += EXP(x[i] - m);
        return m + LOG(lanes(s));
    } static T row_kl(const T *x, T z, const T *y, T w) {
        T s[16] = {0};
        long i = 0;
        for (; i + 16 <= V; i += 16)
            for (int u = 0; u < 16; u++) {
                T a = x[i + u] - z;
                s[u] += EXP(a) * (a - (y[i + u] - w));
            }
        for (int u = 0; u < 16 && i < V; i++, u++) {
            T a = x[i] - z;
            s[u] += EXP(a) * (a - (y[i] - w));
        }
        return lanes(s);
    });

static const char kl_rows_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const int *list = p[1];
    const T *x = p[2];
    const T *y = p[3];
    T *kl = p[4];
    T *lse = p[5];
    T *lse2 = p[6];
    (void)kl;
    (void)lse;
    (void)lse2;
    long n = *(const int *)p[0];
    for (long i = part; i < n; i += nparts) {
        long r = list[i];
        T z = row_lse(x + i * LDL);
        T w = row_lse(y + i * LDL);
        if (HAS_KL) kl[r] = row_kl(x + i * LDL, z, y + i * LDL, w);
        if (HAS_LSE) lse[r] = z;
        if (HAS_LSE2) lse2[r] = w;
    }
});

static void kl_rows(Emit *e, NodeId id, int64_t chunk) {
    Kern k;
    Loss l;
    static const char *const has[] = {"HAS_KL", "HAS_LSE", "HAS_LSE2"};
    kl_begin(&k, &l, e, id);
    for (uint32_t i = 0; i < 3; i++) kern_int(&k, has[i], kern_wanted(&k, kern_out(&k, i)));
    kern_text(&k, loss_lanes_text);
    kern_text(&k, kl_text);
    kern_text(&k, kl_rows_text);
    loss_read_count(&k, &l, chunk);
    loss_read_list(&k, &l, chunk);
    for (int i = 0; i < 2; i++) loss_read(&k, l.s.logits[i], l.s.chunk * l.s.ldl * l.size);
    for (uint32_t i = 0; i < 3; i++) kern_write_wanted(&k, kern_out(&k, i), emit_scratch(e, k.n, l.s.count));
    kern_close(&k, "divergences of a chunk");
}

bool custom_linear_kl(Emit *e, NodeId id) {
    Kern k;
    Loss l;
    loss_check(e, id);
    for (int i = 0; i < 2; i++) loss_panels(e, id, i, false);
    loss_open(&k, &l, e, id);
    loss_list(&k, &l, "", "1", "");
    for (int64_t c = 0; c < l.s.nchunk; c++) {
        kl_both(e, id, 0, c);
        kl_rows(e, id, c);
    }
    return true;
}

/* d l1 = seed p1 ((a - b) - kl), d l2 = seed (p2 - p1), in place. */
static const char kl_grad_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const int *list = p[1];
    const T *lse = p[2];
    const T *lse2 = p[3];
    const T *seed = p[4];
    T *lx = p[5];
    T *ly = p[6];
    long n = *(const int *)p[0];
    for (long i = part; i < n; i += nparts) {
        long r = list[i];
        T *x = lx + i * LDL;
        T *y = ly + i * LDL;
        T z = lse[r];
        T w = lse2[r];
        T f = seed[r];
        T d = row_kl(x, z, y, w);
        for (long j = 0; j < V; j++) {
            T a = x[j] - z;
            T b = y[j] - w;
            T q = EXP(a);
            x[j] = f * q * ((a - b) - d);
            y[j] = f * (EXP(b) - q);
        }
    }
});

static void kl_grad_rows(Emit *e, NodeId id, int64_t slice, int64_t chunk) {
    Kern k;
    Loss l;
    kl_begin(&k, &l, e, id);
    kern_text(&k, loss_lanes_text);
    kern_text(&k, kl_text);
    kern_text(&k, kl_grad_text);
    loss_read_count(&k, &l, chunk);
    loss_read_list(&k, &l, chunk);
    for (uint32_t i = 4; i < 7; i++) kern_read_part(&k, kern_in(&k, i), slice * l.s.rows, l.s.rows);
    for (int i = 0; i < 2; i++) loss_write(&k, l.s.logits[i], l.s.chunk * l.s.ldl * l.size);
    kern_close(&k, "dlogits of a chunk");
}

static void kl_grad_list(Emit *e, NodeId id, int64_t slice) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    kern_type(&k, "T", l.dt);
    const char *args = "const T *seed = p[0];", *clear = "";
    kern_read_part(&k, kern_in(&k, 6), slice * l.s.rows, l.s.rows);
    for (uint32_t i = 0; i < 2; i++) {
        ValueId dh = kern_out(&k, 2 * i);
        if (!kern_wanted(&k, dh)) continue;
        int64_t d = l.s.over[i];
        uint32_t at = kern_write_part(&k, dh, slice * l.s.rows * d, l.s.rows * d);
        args = arena_fmt(e->a, "%s T *dh%u = p[%u];", args, i, at);
        clear = arena_fmt(e->a, "%s for (long j = 0; j < %lldL; j++) dh%u[r * %lldL + j] = 0;", clear,
                          (long long)d, i, (long long)d);
    }
    loss_list(&k, &l, args, "seed[r] != 0", clear);
}

bool custom_linear_kl_grad(Emit *e, NodeId id) {
    Kern k;
    Loss l;
    loss_open(&k, &l, e, id);
    loss_check(e, id);
    for (int i = 0; i < 4; i++) loss_panels(e, id, i / 2, i % 2);
    for (int64_t slice = 0; slice < l.s.left; slice++) {
        kl_grad_list(e, id, slice);
        for (int64_t c = 0; c < l.s.nchunk; c++) {
            kl_both(e, id, slice, c);
            kl_grad_rows(e, id, slice, c);
            for (uint32_t i = 0; i < 2; i++)
                loss_backward(e, id, (int)i, kern_out(&k, 2 * i), kern_out(&k, 2 * i + 1), slice, c);
        }
    }
    return true;
}
