/* move.c: ops that only move data (select, place, stack, transpose, shift, gather, micro copies) and rope.
 *
 * A copy is a list of runs with two strides, joined where both allow. One whose source and destination are
 * the same memory with the same strides is no launch at all: the planner made a view of it. */
#include "codegen/custom/kern.h"

typedef struct {
    int64_t size, from, to;
} Run;
typedef struct {
    Run r[MAX_DIMS];
    uint32_t n;
} Runs;

static void run_add(Runs *s, int64_t size, int64_t from, int64_t to) {
    if (size == 1) return;
    if (s->n > 0) {
        Run *o = &s->r[s->n - 1];
        if (o->from == from * size && o->to == to * size) {
            *o = (Run){o->size * size, from, to};
            return;
        }
    }
    s->r[s->n++] = (Run){size, from, to};
}

static bool same_place(PlanAddr a, PlanAddr b) {
    return a.arena == b.arena && a.off == b.off && a.stride == b.stride;
}

static const char copy_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    T *y = p[1];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        long j0 = CUTS == 1 ? 0 : N * (r % CUTS) / CUTS;
        long j1 = CUTS == 1 ? N : N * (r % CUTS + 1) / CUTS;
        const T *a = x + from(r / CUTS);
        T *b = y + to(r / CUTS);
        for (long j = j0; j < j1; j++) b[j * ST] = a[j * SF];
    }
});

/* The copy that the runs describe; from and to are addresses of their first elements. */
static void copy_launch(Emit *e, NodeId id, DType dt, const Runs *s, PlanAddr from, PlanAddr to) {
    bool same = same_place(from, to);
    for (uint32_t i = 0; i < s->n && same; i++) same = s->r[i].from == s->r[i].to;
    if (same) return;
    Kern k;
    kern_open(&k, e, id);
    kern_type(&k, "T", dt);
    int64_t size[MAX_DIMS], stride[2][MAX_DIMS], rows = 1, reach[2] = {1, 1};
    uint32_t n = s->n ? s->n - 1 : 0;
    Run last = s->n ? s->r[n] : (Run){1, 0, 0};
    for (uint32_t i = 0; i < s->n; i++) {
        reach[0] += (s->r[i].size - 1) * s->r[i].from;
        reach[1] += (s->r[i].size - 1) * s->r[i].to;
    }
    for (uint32_t i = 0; i < n; i++) {
        size[i] = s->r[i].size;
        stride[0][i] = s->r[i].from;
        stride[1][i] = s->r[i].to;
        rows *= size[i];
    }
    for (int t = 0; t < 2; t++) {
        sb_fmt(&k.src, "static inline long %s(long r) { (void)r; return ", t ? "to" : "from");
        kern_offset(&k.src, "r", size, stride[t], n);
        sb_str(&k.src, "; }\n");
    }
    int64_t cuts = rows < 16 && last.size >= 1024 ? 16 : 1;
    kern_int(&k, "CUTS", cuts);
    kern_int(&k, "ROWS", rows * cuts);
    kern_int(&k, "N", last.size);
    kern_int(&k, "SF", last.from);
    kern_int(&k, "ST", last.to);
    kern_text(&k, copy_text);
    kern_read_at(&k, from, reach[0] * dtype_bytes[dt]);
    kern_write_at(&k, to, reach[1] * dtype_bytes[dt]);
    kern_close(&k, "copy");
}

static PlanAddr moved(PlanAddr at, int64_t elements, DType dt) {
    at.off += elements * dtype_bytes[dt];
    return at;
}

/* Copies between x and y over the dims of `t`, in its order. */
static void copy_dims(Kern *k, const Type *t, ValueId x, ValueId y, int64_t x0, int64_t y0) {
    Runs s = {.n = 0};
    for (uint32_t i = 0; i < t->ndim; i++)
        run_add(&s, kern_size(k, t->dim[i]), kern_stride(k, x, t->dim[i]), kern_stride(k, y, t->dim[i]));
    DType dt = kern_ty(k, y)->dt;
    copy_launch(k->e, k->id, dt, &s, moved(emit_value(k->e, x), x0, dt), moved(emit_value(k->e, y), y0, dt));
}

bool custom_transpose(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    copy_dims(&k, kern_ty(&k, kern_out(&k, 0)), kern_in(&k, 0), kern_out(&k, 0), 0, 0);
    return true;
}

bool custom_select(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), y = kern_out(&k, 0);
    int64_t at = attr_int(k.g, k.n, "index") * kern_stride(&k, x, attr_dim(k.g, k.n, "dim"));
    copy_dims(&k, kern_ty(&k, y), x, y, at, 0);
    return true;
}

bool custom_stack(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId y = kern_out(&k, 0);
    int64_t step = kern_stride(&k, y, attr_dim(k.g, k.n, "dim"));
    for (uint32_t i = 0; i < k.n->nin; i++) {
        ValueId x = kern_in(&k, i);
        copy_dims(&k, kern_ty(&k, x), x, y, 0, (int64_t)i * step);
    }
    return true;
}

static const char zero_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    T *y = p[0];
    for (long i = N * part / nparts; i < N * (part + 1) / nparts; i++) y[i] = 0;
});

bool custom_place(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), y = kern_out(&k, 0);
    kern_type(&k, "T", kern_ty(&k, y)->dt);
    kern_int(&k, "N", type_count(k.g, kern_ty(&k, y)));
    kern_text(&k, zero_text);
    kern_write(&k, y);
    kern_close(&k, "zeros");
    copy_dims(&k, kern_ty(&k, x), x, y, 0,
              attr_int(k.g, k.n, "index") * kern_stride(&k, y, attr_dim(k.g, k.n, "dim")));
    return true;
}

/* The side without `micro` says how much one micro-batch is; the piece of the other moves with the
 * micro-batch. */
static bool micro_copy(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), y = kern_out(&k, 0);
    bool stacked = type_has(kern_ty(&k, y), k.g->micro);
    ValueId whole = stacked ? y : x, piece = stacked ? x : y;
    const Type *t = kern_ty(&k, piece);
    const Value *w = &k.g->value[whole.i];
    PlanAddr at[2] = {emit_value(e, piece), {w->arena, w->off, w->stride ? w->stride : type_bytes(k.g, t)}};
    Runs s = {.n = 0};
    run_add(&s, type_count(k.g, t), 1, 1);
    copy_launch(e, id, t->dt, &s, at[!stacked], at[stacked]);
    return true;
}

bool custom_micro_slice(Emit *e, NodeId id) {
    return micro_copy(e, id);
}
bool custom_micro_stack(Emit *e, NodeId id) {
    return micro_copy(e, id);
}

/* ---- shift */
/* Prints `long t = <place of dim d> + by + sum factor * (index of added dim)` for the flat index r over dims.
 */
static void shift_place(Kern *k, const DimId *d, const int64_t *size, uint32_t n) {
    DimId dim = attr_dim(k->g, k->n, "dim");
    const DimId *add;
    uint32_t nadd = attr_dims(k->g, k->n, "add", &add);
    const Attr *f = node_attr(k->g, k->n, "factor");
    sb_str(&k->src, "static inline long place(long r) { (void)r; return (long)BY");
    for (uint32_t i = 0; i < n; i++) {
        int64_t factor = d[i].i == dim.i ? 1 : 0;
        for (uint32_t a = 0; a < nadd; a++)
            if (add[a].i == d[i].i) factor = k->g->intlist[f->u.list.at + a];
        if (factor == 0) continue;
        sb_str(&k->src, " + ");
        kern_coord(&k->src, "r", size, n, i);
        sb_fmt(&k->src, " * (%lldL)", (long long)factor);
    }
    sb_str(&k->src, "; }\n");
}

static bool is_added(const Kern *k, DimId d) {
    const DimId *add;
    uint32_t n = attr_dims(k->g, k->n, "add", &add);
    for (uint32_t i = 0; i < n; i++)
        if (add[i].i == d.i) return true;
    return false;
}

static const char shift_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    T *y = p[1];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        long t = place(r);
        T *b = y + r * N;
        if (t >= 0 && t < SIZE) {
            const T *a = x + base(r) + t * STEP;
            for (long j = 0; j < N; j++) b[j] = a[j];
        } else {
            for (long j = 0; j < N; j++) b[j] = FILL;
        }
    }
});

bool custom_shift(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), y = kern_out(&k, 0);
    const Type *t = kern_ty(&k, y);
    DimId dim = attr_dim(k.g, k.n, "dim");
    uint32_t n = t->ndim;
    int64_t size[MAX_DIMS], stride[MAX_DIMS], rows = 1, inner = 1;
    while (n > 0 && t->dim[n - 1].i != dim.i && !is_added(&k, t->dim[n - 1]))
        inner *= kern_size(&k, t->dim[--n]);
    for (uint32_t i = 0; i < n; i++) {
        size[i] = kern_size(&k, t->dim[i]);
        stride[i] = t->dim[i].i == dim.i ? 0 : kern_stride(&k, x, t->dim[i]);
        rows *= size[i];
    }
    kern_type(&k, "T", t->dt);
    kern_int(&k, "BY", attr_int(k.g, k.n, "by"));
    kern_int(&k, "ROWS", rows);
    kern_int(&k, "N", inner);
    kern_int(&k, "SIZE", kern_size(&k, dim));
    kern_int(&k, "STEP", kern_stride(&k, x, dim));
    kern_real(&k, "FILL", t->dt, attr_float(k.g, k.n, "fill"));
    shift_place(&k, t->dim, size, n);
    sb_str(&k.src, "static inline long base(long r) { (void)r; return ");
    kern_offset(&k.src, "r", size, stride, n);
    sb_str(&k.src, "; }\n");
    kern_text(&k, shift_text);
    kern_read(&k, x);
    kern_write(&k, y);
    kern_close(&k, "shift");
    return true;
}

/* dx[t] = sum over the added dims, in index order, of dy[t - by - sum factor * e, e] where that place is
 * there. */
bool custom_shift_grad(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId dy = kern_in(&k, 0), dx = kern_out(&k, 0);
    const Type *t = kern_ty(&k, dx);
    DimId dim = attr_dim(k.g, k.n, "dim");
    const DimId *add;
    uint32_t nadd = attr_dims(k.g, k.n, "add", &add);
    const Attr *f = node_attr(k.g, k.n, "factor");
    int64_t size[MAX_DIMS], stride[MAX_DIMS];
    uint32_t at = 0;
    for (uint32_t i = 0; i < t->ndim; i++) {
        size[i] = kern_size(&k, t->dim[i]);
        stride[i] = t->dim[i].i == dim.i ? 0 : kern_stride(&k, dy, t->dim[i]);
        if (t->dim[i].i == dim.i) at = i;
    }
    kern_type(&k, "T", t->dt);
    sb_str(&k.src, "static inline long base(long r) { (void)r; return ");
    kern_offset(&k.src, "r", size, stride, t->ndim);
    sb_str(&k.src, "; }\nstatic inline long place(long r) { (void)r; return ");
    kern_coord(&k.src, "r", size, t->ndim, at);
    sb_fmt(&k.src, " - (%lldL); }\n", (long long)attr_int(k.g, k.n, "by"));
    int64_t n = type_count(k.g, t);
    kern_line(&k,
              "void k(void *const *p, int part, int nparts) {\nconst T *x = p[0];\nT *y = p[1];\n"
              "for (long r = %lldL * part / nparts; r < %lldL * (part + 1) / nparts; r++) {\nT s = 0;\n"
              "long q = place(r), o = base(r);",
              (long long)n, (long long)n);
    for (uint32_t i = 0; i < nadd; i++)
        kern_line(&k, "for (long e%u = 0; e%u < %lldL; e%u++) {", i, i, (long long)kern_size(&k, add[i]), i);
    sb_str(&k.src, "long t = q");
    for (uint32_t i = 0; i < nadd; i++)
        sb_fmt(&k.src, " - e%u * (%lldL)", i, (long long)k.g->intlist[f->u.list.at + i]);
    kern_line(&k, ";\nif (t >= 0 && t < %lldL) s += x[o + t * %lldL", (long long)kern_size(&k, dim),
              (long long)kern_stride(&k, dy, dim));
    for (uint32_t i = 0; i < nadd; i++)
        kern_line(&k, " + e%u * %lldL", i, (long long)kern_stride(&k, dy, add[i]));
    kern_line(&k, "];");
    for (uint32_t i = 0; i < nadd; i++) kern_line(&k, "}");
    kern_line(&k, "y[r] = s;\n}\n}");
    kern_read(&k, dy);
    kern_write(&k, dx);
    kern_close(&k, "shift, transposed");
    return true;
}

/* ---- gather: unknown tokens and ignore read 0 */
static const char gather_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    const int *tok = p[1];
    T *y = p[2];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        long t = tok[token(r)];
        T *b = y + r * N;
        if (t >= 0 && t < CLS) {
            const T *a = x + base(r) + t * STEP;
            for (long j = 0; j < N; j++) b[j] = a[j];
        } else {
            for (long j = 0; j < N; j++) b[j] = 0;
        }
    }
});

bool custom_gather(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), tok = kern_in(&k, 1), y = kern_out(&k, 0);
    const Type *t = kern_ty(&k, y);
    DimId cls = attr_dim(k.g, k.n, "cls");
    uint32_t n = t->ndim;
    int64_t inner = 1;
    while (n > 0 && !type_has(kern_ty(&k, tok), t->dim[n - 1]) && kern_stride(&k, x, t->dim[n - 1]) == inner)
        inner *= kern_size(&k, t->dim[--n]);
    int64_t rows = 1;
    for (uint32_t i = 0; i < n; i++) rows *= kern_size(&k, t->dim[i]);
    kern_type(&k, "T", t->dt);
    kern_int(&k, "ROWS", rows);
    kern_int(&k, "N", inner);
    kern_int(&k, "CLS", kern_size(&k, cls));
    kern_int(&k, "STEP", kern_stride(&k, x, cls));
    kern_offset_fn(&k, "base", x, t->dim, n);
    kern_offset_fn(&k, "token", tok, t->dim, n);
    kern_text(&k, gather_text);
    kern_read(&k, x);
    kern_read(&k, tok);
    kern_write(&k, y);
    kern_close(&k, "gather");
    return true;
}

/* ---- rope: pairs (2i, 2i + 1) of `over`, turned by the angles of the table */
static const char rope_text[] = TEXT(void k(void *const *p, int part, int nparts) {
    const T *x = p[0];
    const T *w = p[1];
    T *y = p[2];
    for (long r = ROWS * part / nparts; r < ROWS * (part + 1) / nparts; r++) {
        const T *a = x + base(r);
        const T *t = w + angle(r);
        T *b = y + base(r);
        for (long i = 0; i < PAIRS; i++) {
            T c = t[2 * i * ST];
            T s = SIGN t[(2 * i + 1) * ST];
            T u = a[2 * i * SX];
            T v = a[(2 * i + 1) * SX];
            b[2 * i * SX] = u * c - v * s;
            b[(2 * i + 1) * SX] = u * s + v * c;
        }
    }
});

bool custom_rope(Emit *e, NodeId id) {
    Kern k;
    kern_open(&k, e, id);
    ValueId x = kern_in(&k, 0), w = kern_in(&k, 1), y = kern_out(&k, 0);
    const Type *t = kern_ty(&k, y);
    wm_check(e->a, type_equal(t, kern_ty(&k, x)), "node %u: rope changes the order of dims", id.i);
    DimId over = attr_dim(k.g, k.n, "over"), d[MAX_DIMS];
    uint32_t n = 0;
    int64_t rows = 1;
    for (uint32_t i = 0; i < t->ndim; i++)
        if (t->dim[i].i != over.i) {
            rows *= kern_size(&k, t->dim[i]);
            d[n++] = t->dim[i];
        }
    kern_type(&k, "T", t->dt);
    kern_int(&k, "ROWS", rows);
    kern_int(&k, "PAIRS", kern_size(&k, over) / 2);
    kern_int(&k, "SX", kern_stride(&k, x, over));
    kern_int(&k, "ST", kern_stride(&k, w, over));
    kern_line(&k, "#define SIGN %s", attr_bool(k.g, k.n, "inverse") ? "-" : "");
    kern_offset_fn(&k, "base", x, d, n);
    kern_offset_fn(&k, "angle", w, d, n);
    kern_text(&k, rope_text);
    kern_read(&k, x);
    kern_read(&k, w);
    kern_write(&k, y);
    kern_close(&k, "rope");
    return true;
}
