/* kern.c: builds one launch: text, literals, arguments. */
#include "codegen/custom/kern.h"

#include <stdio.h>

void kern_open(Kern *k, Emit *e, NodeId id) {
    *k = (Kern){.e = e, .g = e->g, .id = id, .n = &e->g->node[id.i]};
    sb_init(&k->src, e->a);
}

static uint32_t add_arg(Kern *k, PlanAddr at, int64_t bytes) {
    wm_check(k->e->a, k->narg < KERN_ARGS, "node %u: more than %d arguments of a kernel", k->id.i, KERN_ARGS);
    k->arg[k->narg] = at;
    k->bytes[k->narg] = bytes;
    return k->narg++;
}

uint32_t kern_read_at(Kern *k, PlanAddr at, int64_t bytes) {
    wm_check(k->e->a, k->nwrite == 0, "node %u: an argument to read after one to write", k->id.i);
    return add_arg(k, at, bytes);
}

uint32_t kern_write_at(Kern *k, PlanAddr at, int64_t bytes) {
    k->nwrite++;
    return add_arg(k, at, bytes);
}

uint32_t kern_read(Kern *k, ValueId v) {
    return kern_read_at(k, emit_value(k->e, v), type_bytes(k->g, kern_ty(k, v)));
}
uint32_t kern_write(Kern *k, ValueId v) {
    return kern_write_at(k, emit_value(k->e, v), type_bytes(k->g, kern_ty(k, v)));
}

uint32_t kern_write_wanted(Kern *k, ValueId v, PlanAddr other) {
    return kern_wanted(k, v) ? kern_write(k, v) : kern_write_at(k, other, 1);
}

static PlanAddr part_of(const Kern *k, ValueId v, int64_t first) {
    PlanAddr at = emit_value(k->e, v);
    at.off += first * dtype_bytes[kern_ty(k, v)->dt];
    return at;
}

uint32_t kern_read_part(Kern *k, ValueId v, int64_t first, int64_t count) {
    return kern_read_at(k, part_of(k, v, first), count * dtype_bytes[kern_ty(k, v)->dt]);
}

uint32_t kern_write_part(Kern *k, ValueId v, int64_t first, int64_t count) {
    return kern_write_at(k, part_of(k, v, first), count * dtype_bytes[kern_ty(k, v)->dt]);
}

void kern_int(Kern *k, const char *name, int64_t v) {
    sb_fmt(&k->src, "#define %s (%lldL)\n", name, (long long)v);
}

void kern_real(Kern *k, const char *name, DType dt, double v) {
    sb_fmt(&k->src, "#define %s (", name);
    c_const(&k->src, dt, v);
    sb_str(&k->src, ")\n");
}

void kern_type(Kern *k, const char *name, DType dt) {
    sb_fmt(&k->src, "typedef %s %s;\n", c_type(dt), name);
}
void kern_text(Kern *k, const char *text) {
    sb_str(&k->src, text);
}

void kern_line(Kern *k, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    sb_str(&k->src, arena_vfmt(k->e->a, fmt, ap));
    va_end(ap);
    sb_chr(&k->src, '\n');
}

void kern_math(Kern *k, DType dt, const char *const *names, uint32_t n) {
    const char *full[8];
    wm_check(k->e->a, n <= 8 && dt <= DT_F32, "node %u: functions of a type without mathlib", k->id.i);
    for (uint32_t i = 0; i < n; i++) full[i] = arena_fmt(k->e->a, "%s_%s", names[i], dtype_name[dt]);
    mathlib_put(&k->src, dt, full, n);
}

void kern_close(Kern *k, const char *what) {
    emit_launch(k->e, k->id, what, &k->src, k->arg, k->bytes, k->narg, k->nwrite);
}

ValueId kern_in(const Kern *k, uint32_t i) {
    return k->g->operand[k->n->in0 + i];
}
ValueId kern_out(const Kern *k, uint32_t i) {
    return (ValueId){k->n->out0 + i};
}
const Type *kern_ty(const Kern *k, ValueId v) {
    return value_type(k->g, v);
}
int64_t kern_size(const Kern *k, DimId d) {
    return k->g->dim[d.i].size;
}
bool kern_wanted(const Kern *k, ValueId v) {
    return k->g->value[v.i].arena >= 0;
}

int64_t kern_stride(const Kern *k, ValueId v, DimId d) {
    const Type *t = kern_ty(k, v);
    int64_t s = 1;
    for (int i = t->ndim - 1; i >= 0; i--) {
        if (t->dim[i].i == d.i) return s;
        s *= kern_size(k, t->dim[i]);
    }
    return 0;
}

void kern_coord(Sbuf *out, const char *var, const int64_t *size, uint32_t n, uint32_t at) {
    int64_t below = 1;
    for (uint32_t i = at + 1; i < n; i++) below *= size[i];
    if (at == 0)
        sb_fmt(out, "(%s / %lldL)", var, (long long)below);
    else
        sb_fmt(out, "(%s / %lldL %% %lldL)", var, (long long)below, (long long)size[at]);
}

void kern_offset(Sbuf *out, const char *var, const int64_t *size, const int64_t *stride, uint32_t n) {
    bool any = false;
    for (uint32_t i = 0; i < n; i++) {
        if (stride[i] == 0 || size[i] == 1) continue;
        if (any) sb_str(out, " + ");
        kern_coord(out, var, size, n, i);
        sb_fmt(out, " * %lldL", (long long)stride[i]);
        any = true;
    }
    if (!any) sb_str(out, "0");
}

void kern_offset_fn(Kern *k, const char *name, ValueId v, const DimId *d, uint32_t n) {
    int64_t size[MAX_DIMS * 2], stride[MAX_DIMS * 2];
    for (uint32_t i = 0; i < n; i++) {
        size[i] = kern_size(k, d[i]);
        stride[i] = kern_stride(k, v, d[i]);
    }
    sb_fmt(&k->src, "static inline long %s(long r) { (void)r; return ", name);
    kern_offset(&k->src, "r", size, stride, n);
    sb_str(&k->src, "; }\n");
}

/* Draws over the batch are logically over [micro, batch, ..]; one without batch is the same in every
 * micro-batch. */
bool kern_has_micro(const Kern *k, const Type *t) {
    return (k->n->section & 1) && k->g->batch.i != UINT32_MAX && type_has(t, k->g->batch);
}
