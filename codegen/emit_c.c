/* emit_c.c: a loop nest as C. Three shapes:
 *
 *   element-wise   pieces are blocks of the vector loop, or rows where it cannot take in the other loops
 *   rows           pieces are rows; a pass writes blocks of what it reduces into a buffer, and the buffer is
 * folded into 16 lanes (element i of the last reduced dim into lane i % 16), which meet in a fixed tree
 *   columns        pieces are blocks of columns; a block's sums stand in an array, rows are added one after
 * the other
 *
 * Loops carry `ivdep`: a result may lie on an operand, but then at the same element (no `restrict`). */
#include "codegen/group.h"

#include <string.h>

enum { BLOCK = 256, EW_BLOCK = 4096, MAX_USED = 64 };

typedef struct {
    const Nest *n;
    CpuLevel level;
    Sbuf body, head;
    const char *used[MAX_USED];
    uint32_t nused;
    uint32_t folds;        /* bit op kind * NDTYPE + dtype: fold functions printed */
    bool *need;            /* items that the running pass needs */
    int64_t columns;       /* columns of a block */
    const char *vec_index; /* text of the vector loop's index */
} Print;

#define P(...) sb_fmt(&p->body, __VA_ARGS__)

static const char *local_type(DType dt) {
    if (dt == DT_BOOL) return "_Bool";
    return c_type(dt == DT_BF16 ? DT_F32 : dt);
}
static DType local_dt(DType dt) {
    return dt == DT_BF16 ? DT_F32 : dt;
}

static void use(Print *p, const char *name) {
    for (uint32_t i = 0; i < p->nused; i++)
        if (strcmp(p->used[i], name) == 0) return;
    p->used[p->nused++] = name;
}

/* Index of a value in memory: its strides times the running loop indices. */
static void put_index(Print *p, const Item *t) {
    const Nest *n = p->n;
    uint32_t all = n->nouter + n->ninner, vec = n->column ? n->nouter - 1 : all - 1;
    bool any = false;
    for (uint32_t i = 0; i < all; i++) {
        if (t->stride[i] == 0) continue;
        if (any) sb_str(&p->body, " + ");
        any = true;
        if (i == vec)
            sb_str(&p->body, p->vec_index);
        else
            P("i%u", i);
        if (t->stride[i] != 1) P(" * %lld", (long long)t->stride[i]);
    }
    if (!any) sb_chr(&p->body, '0');
}

/* The C text of an item where it is an operand. */
static const char *ref(Print *p, uint32_t k) {
    const Item *t = &p->n->item[k];
    if (t->kind == IT_CONST) {
        Sbuf s;
        sb_init(&s, p->body.a);
        c_const(&s, local_dt(t->dt), t->value);
        return s.s;
    }
    if (p->n->column && !t->inner) return arena_fmt(p->body.a, "r%u[c]", k);
    return arena_fmt(p->body.a, "t%u", k);
}

/* Declares t<k>: a load or an expression. */
static void put_value(Print *p, uint32_t k) {
    const Item *t = &p->n->item[k];
    P("%s t%u = ", local_type(t->dt), k);
    if (t->kind == IT_LOAD) {
        if (t->dt == DT_BF16) use(p, "bf16"), P("bf16_load(");
        P("a%d[", t->arg_in);
        put_index(p, t);
        P(t->dt == DT_BF16 ? "]);\n" : t->dt == DT_BOOL ? "] != 0;\n" : "];\n");
        return;
    }
    const char *x[3] = {"", "", ""};
    for (uint32_t i = 0; i < t->nin; i++) x[i] = ref(p, t->in[i]);
    const Item *first = &p->n->item[t->in[0]];
    DType dt = local_dt(dtype_real(t->dt) ? t->dt : first->dt);
    if (t->dt == DT_BF16) use(p, "bf16"), P("bf16_round(");
    expr_put(&p->body, op_info[t->op].expr, dt, x, p->used, &p->nused);
    P(t->dt == DT_BF16 ? ");\n" : ";\n");
}

static void put_store(Print *p, uint32_t k, const char *value) {
    const Item *t = &p->n->item[k];
    P("a%d[", t->arg_out);
    put_index(p, t);
    if (t->dt == DT_BF16)
        use(p, "bf16"), P("] = bf16_store(%s);\n", value);
    else
        P("] = %s;\n", value);
}

/* ---- reductions */
/* Smallest or largest number, or 0, by the combiner's comparison. */
static double identity(Op op) {
    const char *expr = op_info[op].expr;
    return strchr(expr, '>') ? -__builtin_inf() : strchr(expr, '<') ? __builtin_inf() : 0;
}
static void put_identity(Sbuf *out, Op op, DType dt) {
    double v = identity(op);
    if (dt == DT_I32 && v != 0) v = v < 0 ? -0x1p31 : 0x1p31 - 1;
    c_const(out, dt, v);
}

static void combine(Print *p, Sbuf *out, Op op, DType dt, const char *x0, const char *x1) {
    const char *x[3] = {x0, x1, ""};
    expr_put(out, op_info[op].expr, dt, x, p->used, &p->nused);
}

/* The combiner over vectors: `x1 > x0 ? x1 : x0` has no vector form in C, so the choice is made by masks. */
static void vector_combine(Sbuf *out, Op op, const char *dt, const char *a, const char *b) {
    double id = identity(op);
    if (id == 0)
        sb_fmt(out, "        %s = %s + %s;\n", a, a, b);
    else
        sb_fmt(out, "        { m_%s m = (m_%s)(%s %c %s); %s = (v_%s)((m & (m_%s)%s) | (~m & (m_%s)%s)); }\n",
               dt, dt, b, id < 0 ? '>' : '<', a, a, dt, dt, b, dt, a);
}

/* fold_<op>_<dt>: a block of m elements (padded with the identity) into 16 lanes; tree_<op>_<dt>: lanes into
 * one. */
static void need_fold(Print *p, Op op, DType dt) {
    uint32_t bit = 1u << ((identity(op) == 0 ? 0u : identity(op) < 0 ? 1u : 2u) * NDTYPE + dt);
    if (p->folds & bit) return;
    bool types = false;
    for (uint32_t k = 0; k < 3; k++) types |= (p->folds >> (k * NDTYPE + dt) & 1) != 0;
    p->folds |= bit;
    Sbuf *h = &p->head;
    const char *c = c_type(dt), *d = dtype_name[dt], *o = op_info[op].name;
    if (!types) {
        sb_fmt(h, "typedef %s v_%s __attribute__((vector_size(64), may_alias));\n", c, d);
        sb_fmt(h, "typedef %s m_%s __attribute__((vector_size(64), may_alias));\n",
               dt == DT_F64 ? "long" : "int", d);
    }
    int nv = LANES * dtype_bytes[dt] / 64;
    sb_fmt(h, "static inline __attribute__((always_inline)) void fold_%s_%s(%s *acc, %s *b, long m) {\n", o,
           d, c, c);
    sb_fmt(h, "    for (long q = m; q & %d; q++) b[q] = ", LANES - 1);
    put_identity(h, op, dt);
    sb_str(h, ";\n");
    for (int v = 0; v < nv; v++) sb_fmt(h, "    v_%s x%d = ((v_%s *)acc)[%d];\n", d, v, d, v);
    sb_fmt(h, "    for (long q = 0; q < m; q += %d) {\n", LANES);
    for (int v = 0; v < nv; v++) sb_fmt(h, "        v_%s y%d = ((v_%s *)(b + q))[%d];\n", d, v, d, v);
    for (int v = 0; v < nv; v++) {
        const char a[3] = {'x', (char)('0' + v), 0}, b[3] = {'y', (char)('0' + v), 0};
        vector_combine(h, op, d, a, b);
    }
    sb_str(h, "    }\n");
    for (int v = 0; v < nv; v++) sb_fmt(h, "    ((v_%s *)acc)[%d] = x%d;\n", d, v, v);
    sb_fmt(h, "}\nstatic inline __attribute__((always_inline)) %s tree_%s_%s(%s *acc) {\n", c, o, d, c);
    sb_fmt(h,
           "    for (int n = %d; n > 0; n /= 2)\n        for (int l = 0; l < n; l++) acc[l] = ", LANES / 2);
    combine(p, h, op, dt, "acc[l]", "acc[l + n]");
    sb_str(h, ";\n    return acc[0];\n}\n");
}

static void mark(Print *p, uint32_t k) {
    const Item *t = &p->n->item[k];
    if (!t->inner || p->need[k]) return;
    p->need[k] = true;
    for (uint32_t i = 0; i < t->nin && t->kind == IT_EW; i++) mark(p, t->in[i]);
}

static bool reduces_in(const Item *t, uint32_t pass) {
    return t->kind == IT_REDUCE && t->level == pass + 1;
}
static bool stores_in(const Nest *n, const Item *t, uint32_t pass) {
    return t->arg_out >= 0 && t->full && pass + 1 == n->nloop;
}

/* Items that pass `pass` computes: what its reductions and, in the last pass, its results are made of. */
static void need_of(Print *p, uint32_t pass) {
    const Nest *n = p->n;
    memset(p->need, 0, n->nitem * sizeof *p->need);
    for (uint32_t k = 0; k < n->nitem; k++) {
        if (reduces_in(&n->item[k], pass)) mark(p, n->item[k].in[0]);
        if (stores_in(n, &n->item[k], pass)) mark(p, k);
    }
}

static void put_ivdep(Print *p) {
    P("IVDEP\n");
}

/* ---- element-wise and row nests */
static void row_values(Print *p, uint32_t level) {
    for (uint32_t k = 0; k < p->n->nitem; k++) {
        const Item *t = &p->n->item[k];
        if (!t->inner && t->level == level && (t->kind == IT_EW || t->kind == IT_LOAD)) put_value(p, k);
    }
}

static void vector_body(Print *p, uint32_t pass) {
    const Nest *n = p->n;
    for (uint32_t k = 0; k < n->nitem; k++)
        if (p->need[k] && n->item[k].vec) put_value(p, k);
    for (uint32_t k = 0; k < n->nitem; k++)
        if (reduces_in(&n->item[k], pass)) P("b%u[q] = %s;\n", k, ref(p, n->item[k].in[0]));
    for (uint32_t k = 0; k < n->nitem; k++)
        if (stores_in(n, &n->item[k], pass)) put_store(p, k, ref(p, k));
}

/* One pass over the inner loops of a row. */
static void row_pass(Print *p, uint32_t pass) {
    const Nest *n = p->n;
    uint32_t last = n->nouter + n->ninner - 1;
    int64_t size = n->size[last], block = size <= 2 * BLOCK ? size : BLOCK;
    need_of(p, pass);
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (!reduces_in(t, pass)) continue;
        DType dt = local_dt(t->dt);
        need_fold(p, t->op, dt);
        P("%s s%u[%d] __attribute__((aligned(64)));\nfor (int l = 0; l < %d; l++) s%u[l] = ", c_type(dt), k,
          LANES, LANES, k);
        put_identity(&p->body, t->op, dt);
        P(";\n");
    }
    for (uint32_t i = n->nouter; i < last; i++)
        P("for (long i%u = 0; i%u < %lld; i%u++) {\n", i, i, (long long)n->size[i], i);
    for (uint32_t k = 0; k < n->nitem; k++)
        if (p->need[k] && !n->item[k].vec) put_value(p, k);
    P("for (long j = 0; j < %lld; j += %lld) {\n", (long long)size, (long long)(block ? block : 1));
    if (block && size % block == 0)
        P("const long m = %lld;\n", (long long)block);
    else
        P("const long m = %lld - j < %lld ? %lld - j : %lld;\n", (long long)size, (long long)block,
          (long long)size, (long long)block);
    for (uint32_t k = 0; k < n->nitem; k++)
        if (reduces_in(&n->item[k], pass))
            P("%s b%u[%lld] __attribute__((aligned(64)));\n", c_type(local_dt(n->item[k].dt)), k,
              (long long)((block + LANES) / LANES * LANES));
    put_ivdep(p);
    P("for (long q = 0; q < m; q++) {\n");
    vector_body(p, pass);
    P("}\n");
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (reduces_in(t, pass))
            P("fold_%s_%s(s%u, b%u, m);\n", op_info[t->op].name, dtype_name[local_dt(t->dt)], k, k);
    }
    for (uint32_t i = n->nouter; i < last + 1; i++) P("}\n");
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (!reduces_in(t, pass)) continue;
        bool half = t->dt == DT_BF16;
        if (half) use(p, "bf16");
        P("%s t%u = %stree_%s_%s(s%u)%s;\n", local_type(t->dt), k, half ? "bf16_round(" : "",
          op_info[t->op].name, dtype_name[local_dt(t->dt)], k, half ? ")" : "");
    }
}

/* for w over the pieces of this part, and the outer indices 0 .. count - 1 from w / div. */
static void open_pieces(Print *p, int64_t pieces) {
    P("const long w0 = %lldL * part / nparts, w1 = %lldL * (part + 1) / nparts;\n", (long long)pieces,
      (long long)pieces);
    P("for (long w = w0; w < w1; w++) {\n");
}
static void outer_indices(Print *p, uint32_t count, int64_t div) {
    for (uint32_t i = count; i-- > 0;) {
        P("const long i%u = w / %lld %% %lld;\n", i, (long long)(div ? div : 1),
          (long long)(p->n->size[i] ? p->n->size[i] : 1));
        div *= p->n->size[i];
    }
}
static int64_t product(const int64_t *v, uint32_t n) {
    int64_t r = 1;
    for (uint32_t i = 0; i < n; i++) r *= v[i];
    return r;
}

static void print_rows(Print *p) {
    const Nest *n = p->n;
    p->vec_index = "(j + q)";
    open_pieces(p, product(n->size, n->nouter));
    outer_indices(p, n->nouter, 1);
    for (uint32_t pass = 0; pass < n->nloop; pass++) {
        row_values(p, pass);
        row_pass(p, pass);
    }
    row_values(p, n->nloop);
    for (uint32_t k = 0; k < n->nitem; k++)
        if (n->item[k].arg_out >= 0 && !n->item[k].full) put_store(p, k, ref(p, k));
    P("}\n");
}

static void print_elements(Print *p) {
    const Nest *n = p->n;
    int64_t size = n->size[n->nouter], block = size <= 2 * EW_BLOCK ? size : EW_BLOCK,
            per = block ? (size + block - 1) / block : 0;
    p->vec_index = "q";
    open_pieces(p, product(n->size, n->nouter) * per);
    outer_indices(p, n->nouter, per);
    if (per > 1)
        P("const long q0 = w %% %lld * %lld, q1 = q0 + %lld < %lld ? q0 + %lld : %lld;\n", (long long)per,
          (long long)block, (long long)block, (long long)size, (long long)block, (long long)size);
    row_values(p, 0);
    need_of(p, 0);
    if (size != 1) put_ivdep(p);
    if (per > 1)
        P("for (long q = q0; q < q1; q++) {\n");
    else if (size == 1)
        P("{\nconst long q = 0;\n");
    else
        P("for (long q = 0; q < %lld; q++) {\n", (long long)size);
    vector_body(p, 0);
    P("}\n}\n");
}

/* ---- column nests */
static void column_rows(Print *p, uint32_t level) {
    const Nest *n = p->n;
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (t->inner || t->level != level || (t->kind != IT_EW && t->kind != IT_LOAD)) continue;
        P("%s r%u[%lld];\n", local_type(t->dt), k, (long long)p->columns);
        put_ivdep(p);
        P("for (long c = 0; c < C; c++) {\n");
        put_value(p, k);
        P("r%u[c] = t%u;\n}\n", k, k);
    }
}

static void column_pass(Print *p, uint32_t pass) {
    const Nest *n = p->n;
    uint32_t all = n->nouter + n->ninner;
    need_of(p, pass);
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (!reduces_in(t, pass)) continue;
        P("%s r%u[%lld] __attribute__((aligned(64)));\nfor (long c = 0; c < C; c++) r%u[c] = ",
          local_type(t->dt), k, (long long)p->columns, k);
        put_identity(&p->body, t->op, local_dt(t->dt));
        P(";\n");
    }
    for (uint32_t i = n->nouter; i < all; i++)
        P("for (long i%u = 0; i%u < %lld; i%u++) {\n", i, i, (long long)n->size[i], i);
    put_ivdep(p);
    P("for (long c = 0; c < C; c++) {\n");
    for (uint32_t k = 0; k < n->nitem; k++)
        if (p->need[k]) put_value(p, k);
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (!reduces_in(t, pass)) continue;
        const char *acc = arena_fmt(p->body.a, "r%u[c]", k);
        P("%s = ", acc);
        combine(p, &p->body, t->op, local_dt(t->dt), acc, ref(p, t->in[0]));
        P(";\n");
    }
    for (uint32_t k = 0; k < n->nitem; k++)
        if (stores_in(n, &n->item[k], pass)) put_store(p, k, ref(p, k));
    P("}\n");
    for (uint32_t i = n->nouter; i < all; i++) P("}\n");
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (!reduces_in(t, pass) || t->dt != DT_BF16) continue;
        use(p, "bf16");
        P("for (long c = 0; c < C; c++) r%u[c] = bf16_round(r%u[c]);\n", k, k);
    }
}

static void put_arguments(Print *p) {
    const Nest *n = p->n;
    for (uint32_t i = 0; i < n->narg; i++)
        P("%s%s *a%u = p[%u];\n", i < n->narg - n->nwrite ? "const " : "", c_type(n->arg_dt[i]), i, i);
}

static void print_columns(Print *p) {
    const Nest *n = p->n;
    int64_t width = n->size[n->nouter - 1], block = width >= 1024 ? 256 : width < 64 ? width : 64;
    if (block == 0) block = 1;
    int64_t per = (width + block - 1) / block, rest = width % block;
    p->columns = block;
    p->vec_index = "(c0 + c)";
    P("static inline __attribute__((always_inline)) void columns(void *const *p, long w, const long C) {\n");
    put_arguments(p);
    P("const long c0 = w %% %lld * %lld;\n", (long long)(per ? per : 1), (long long)block);
    outer_indices(p, n->nouter - 1, per);
    for (uint32_t pass = 0; pass < n->nloop; pass++) {
        column_rows(p, pass);
        column_pass(p, pass);
    }
    column_rows(p, n->nloop);
    for (uint32_t k = 0; k < n->nitem; k++) {
        if (n->item[k].arg_out < 0 || n->item[k].full) continue;
        P("for (long c = 0; c < C; c++) ");
        put_store(p, k, ref(p, k));
    }
    P("}\nvoid k(void *const *p, int part, int nparts) {\n");
    open_pieces(p, product(n->size, n->nouter - 1) * per);
    if (rest)
        P("if (w %% %lld == %lld) columns(p, w, %lld);\nelse ", (long long)per, (long long)(per - 1),
          (long long)rest);
    P("columns(p, w, %lld);\n}\n}\n", (long long)block);
}

void nest_print(const Nest *n, CpuLevel level, Sbuf *out) {
    Print print = {.n = n, .level = level}, *p = &print;
    sb_init(&p->body, out->a);
    sb_init(&p->head, out->a);
    p->need = NEWN(out->a, bool, n->nitem);
    if (n->column)
        print_columns(p);
    else {
        P("void k(void *const *p, int part, int nparts) {\n");
        put_arguments(p);
        if (n->reduces)
            print_rows(p);
        else
            print_elements(p);
        P("}\n");
    }
    sb_str(out, "#ifdef __clang__\n#define IVDEP _Pragma(\"clang loop vectorize(assume_safety)\")\n#else\n"
                "#define IVDEP _Pragma(\"GCC ivdep\")\n#endif\n");
    mathlib_put(out, DT_F32, p->used, p->nused);
    if (p->head.len) sb_put(out, p->head.s, p->head.len);
    sb_put(out, p->body.s, p->body.len);
}
