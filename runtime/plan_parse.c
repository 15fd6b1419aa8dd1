/* plan_parse.c: text -> Plan. Trusts nothing: sizes are bounded before anything is allocated, the hash is
 * compared before the grammar is read, every number is checked for its range, and the result goes through
 * plan_check. The grammar is that of plan_text.c, word by word: there is one spelling of a plan. */
#include "runtime/plan_words.h"
#include "runtime/runtime.h"

#include <string.h>

typedef struct {
    Arena *a;
    const char *file, *text, *p, *end;
    Diags *d;
    bool bad;
    Plan *plan;
    uint32_t state_cap, kernel_cap, instr_cap, addr_cap, option_cap, input_cap, output_cap, note_cap;
} Parse;

static Loc here(const Parse *x) {
    Loc l = {.file = x->file, .line = 1, .col = 1, .at = (uint32_t)(x->p - x->text), .len = 1};
    for (const char *q = x->text; q < x->p; q++) {
        l.col++;
        if (*q == '\n') {
            l.line++;
            l.col = 1;
        }
    }
    return l;
}

/* The first mistake alone is told; all that follows returns at once. */
static bool fail(Parse *x, const char *want) {
    if (x->bad) return false;
    x->bad = true;
    size_t n = 0, left = (size_t)(x->end - x->p);
    while (n < left && n < 24 && x->p[n] != '\n') n++;
    const char *found = left ? text_escape(x->a, x->p, n) : "the end of the file";
    return diag_fail(x->d, P001, here(x), "damaged plan: expected %s, found '%s'", want, found ? found : "");
}

static bool word(Parse *x, const char *w) {
    size_t n = strlen(w);
    if (x->bad || (size_t)(x->end - x->p) < n || memcmp(x->p, w, n) != 0)
        return fail(x, w[0] == '\n' ? "the end of the line" : w);
    x->p += n;
    return true;
}
static bool next_is(const Parse *x, const char *w) {
    size_t n = strlen(w);
    return !x->bad && (size_t)(x->end - x->p) >= n && memcmp(x->p, w, n) == 0;
}

/* A decimal number of 0 .. max, no sign, no leading zeros. */
static int64_t number(Parse *x, int64_t max, const char *what) {
    const char *start = x->p, *q = start;
    int64_t v = 0;
    bool fits = true;
    for (; q < x->end && *q >= '0' && *q <= '9'; q++) {
        fits = fits && v <= (INT64_MAX - (*q - '0')) / 10;
        if (fits) v = v * 10 + (*q - '0');
    }
    if (x->bad || q == start || !fits || v > max || (*start == '0' && q > start + 1)) {
        fail(x, what);
        return 0;
    }
    x->p = q;
    return v;
}
static int64_t field(Parse *x, const char *key, int64_t max) {
    word(x, " ");
    word(x, key);
    word(x, "=");
    return number(x, max, "a number in range");
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
static const char *quoted(Parse *x) {
    if (!word(x, "\"")) return "";
    const char *q = x->p;
    while (q < x->end && *q != '"' && *q != '\n') q += *q == '\\' && q + 1 < x->end ? 2 : 1;
    if (q >= x->end || *q != '"') return fail(x, "a closing quote"), "";
    char *s = arena_alloc(x->a, (wm_size)(q - x->p) + 1), *t = s;
    if (!s) return fail(x, "memory"), "";
    while (x->p < q) {
        char c = *x->p++;
        if (c != '\\') {
            if ((unsigned char)c < 32 || c == 127) return x->p--, fail(x, "a printable byte"), "";
            *t++ = c;
        } else if (*x->p == '"' || *x->p == '\\') {
            *t++ = *x->p++;
        } else {
            int hi = q - x->p >= 3 && *x->p == 'x' ? hex(x->p[1]) : -1, lo = hi >= 0 ? hex(x->p[2]) : -1;
            int v = hi * 16 + lo;
            if (hi < 0 || lo < 0 || !v || (v >= 32 && v != 127))
                return fail(x, "an escape: \\\", \\\\ or \\xNN"), "";
            *t++ = (char)v;
            x->p += 3;
        }
    }
    x->p = q + 1;
    return s;
}
static const char *text_field(Parse *x, const char *key) {
    word(x, " ");
    word(x, key);
    word(x, "=");
    return quoted(x);
}
static void hex_key(Parse *x, char out[33]) {
    for (int i = 0; i < 32; i++) {
        if (x->bad || x->p >= x->end || hex(*x->p) < 0) {
            fail(x, "32 hexadecimal digits");
            return;
        }
        out[i] = *x->p++;
    }
    out[32] = 0;
}
static PlanDType dtype(Parse *x) {
    for (int k = 0; k < 5; k++) {
        if (!next_is(x, plan_dtype_word[k])) continue;
        word(x, plan_dtype_word[k]);
        return (PlanDType)k;
    }
    fail(x, "f64, f32, bf16, i32 or bool");
    return PD_F64;
}
static void type(Parse *x, PlanDType *dt, uint32_t *ndim, const char **dim, int64_t *size) {
    word(x, " type=");
    *dt = dtype(x);
    word(x, "[");
    for (*ndim = 0; !x->bad && !next_is(x, "]"); (*ndim)++) {
        if (*ndim == PLAN_MAX_DIMS) {
            fail(x, "at most 8 dims");
            return;
        }
        if (*ndim) word(x, ",");
        dim[*ndim] = quoted(x);
        word(x, "=");
        size[*ndim] = number(x, INT64_MAX, "the size of a dim");
    }
    word(x, "]");
}
static PlanAddr address(Parse *x) {
    PlanAddr p = {0};
    p.arena = (int32_t)number(x, NARENA - 1, "an arena, 0 or 1");
    word(x, "+");
    p.off = number(x, INT64_MAX, "an offset");
    if (next_is(x, "@")) {
        word(x, "@");
        p.stride = number(x, INT64_MAX, "a stride");
        if (!p.stride) fail(x, "a stride above 0, or none");
    }
    return p;
}

/* Room for one more element; a refused allocation is the end of parsing. */
#define MORE(x, p, n, cap) ((n) < (cap) || more((x), &(p), sizeof *(p), (n), &(cap)))
static bool more(Parse *x, void *list, size_t elem, uint32_t n, uint32_t *cap) {
    void *old;
    memcpy(&old, list, sizeof old);
    void *q = x->bad ? NULL : arena_grow(x->a, old, elem, n, cap);
    if (!q) return fail(x, "memory");
    memcpy(list, &q, sizeof q);
    return true;
}

static void state(Parse *x) {
    Plan *p = x->plan;
    word(x, "state ");
    if (number(x, UINT32_MAX, "the number of the state") != p->nstate)
        fail(x, "states numbered from 0 in order");
    if (!MORE(x, p->state, p->nstate, x->state_cap)) return;
    PlanState *s = &p->state[p->nstate++];
    *s = (PlanState){0};
    s->model = text_field(x, "model");
    s->name = text_field(x, "name");
    s->hf = text_field(x, "hf");
    s->axes = text_field(x, "axes");
    s->halves = text_field(x, "halves");
    s->role = text_field(x, "role");
    s->init = text_field(x, "init");
    s->stream = (uint32_t)field(x, "stream", UINT32_MAX);
    s->trained = field(x, "trained", 1) == 1;
    type(x, &s->dtype, &s->ndim, s->dim, s->size);
    word(x, " at=0+");
    s->off = number(x, INT64_MAX, "an offset");
    word(x, "\n");
}

static void kernel(Parse *x) {
    Plan *p = x->plan;
    int64_t bytes[PLAN_MAX_ARGS];
    word(x, "kernel ");
    if (number(x, UINT32_MAX, "the number of the kernel") != p->nkernel)
        fail(x, "kernels numbered from 0 in order");
    if (!MORE(x, p->kernel, p->nkernel, x->kernel_cap)) return;
    PlanKernel *k = &p->kernel[p->nkernel++];
    *k = (PlanKernel){0};
    word(x, " key=");
    hex_key(x, k->key);
    k->nwrite = (uint32_t)field(x, "writes", PLAN_MAX_ARGS);
    word(x, " bytes=");
    for (bool again = !next_is(x, " "); again && !x->bad;) {
        if (k->narg == PLAN_MAX_ARGS) {
            fail(x, "at most 4096 arguments");
            return;
        }
        bytes[k->narg++] = number(x, INT64_MAX, "the size of an argument");
        again = next_is(x, ",");
        if (again) word(x, ",");
    }
    k->arg_bytes = arena_copy(x->a, bytes, k->narg * sizeof *bytes);
    if (!k->arg_bytes) fail(x, "memory");
    k->what = text_field(x, "what");
    word(x, "\n");
}

static PlanOp instr_op(Parse *x) {
    for (int k = 0; k < 5; k++) {
        if (!next_is(x, plan_op_name[k])) continue;
        word(x, plan_op_name[k]);
        return (PlanOp)k;
    }
    fail(x, "launch, accum, copy, zero or check");
    return I_ZERO;
}

static void instr(Parse *x, PlanSection *s) {
    Plan *p = x->plan;
    word(x, "  ");
    PlanOp op = instr_op(x);
    if (p->ninstr == PLAN_MAX_INSTR) fail(x, "at most 4 M instructions");
    if (!MORE(x, p->instr, p->ninstr, x->instr_cap)) return;
    PlanInstr *in = &p->instr[p->ninstr++];
    *in = (PlanInstr){.op = op, .arg0 = p->naddr};
    s->ninstr++;
    if (op == I_LAUNCH) {
        word(x, " k");
        in->kernel = (uint32_t)number(x, UINT32_MAX, "the number of a kernel");
    } else {
        word(x, " dtype=");
        in->dtype = dtype(x);
        in->count = field(x, "count", INT64_MAX);
    }
    word(x, " args=");
    for (bool again = !next_is(x, " "); again && !x->bad;) {
        PlanAddr at = address(x);
        if (in->narg == PLAN_MAX_ARGS) fail(x, "at most 4096 arguments");
        if (!MORE(x, p->addr, p->naddr, x->addr_cap)) return;
        p->addr[p->naddr++] = at;
        in->narg++;
        again = next_is(x, ",");
        if (again) word(x, ",");
    }
    in->node = (uint32_t)field(x, "node", UINT32_MAX);
    if (op == I_CHECK) in->name = text_field(x, "name");
    word(x, "\n");
}

static void input(Parse *x, PlanProgram *r) {
    if (!MORE(x, r->input, r->ninput, x->input_cap)) return;
    PlanInput *in = &r->input[r->ninput++];
    *in = (PlanInput){0};
    word(x, "input");
    in->kind = text_field(x, "kind");
    in->name = text_field(x, "name");
    type(x, &in->dtype, &in->ndim, in->dim, in->size);
    word(x, " at=");
    in->at = address(x);
    word(x, "\n");
}
static void output(Parse *x, PlanProgram *r) {
    if (!MORE(x, r->output, r->noutput, x->output_cap)) return;
    PlanOutput *o = &r->output[r->noutput++];
    *o = (PlanOutput){0};
    word(x, "output");
    o->kind = text_field(x, "kind");
    o->name = text_field(x, "name");
    type(x, &o->dtype, &o->ndim, o->dim, o->size);
    o->per_micro = field(x, "each", 1) == 1;
    word(x, " at=");
    o->at = address(x);
    word(x, "\n");
}

static void sections(Parse *x, PlanProgram *r) {
    r->section = NEWN(x->a, PlanSection, PLAN_MAX_SECTIONS);
    if (!r->section) fail(x, "memory");
    while (next_is(x, "section ")) {
        word(x, "section ");
        if (number(x, PLAN_MAX_SECTIONS - 1, "the number of the section") != r->nsection)
            fail(x, "sections in order");
        if (x->bad) return;
        PlanSection *s = &r->section[r->nsection++];
        *s = (PlanSection){next_is(x, " micro\n"), x->plan->ninstr, 0};
        word(x, s->micro ? " micro\n" : " step\n");
        while (next_is(x, "  ")) instr(x, s);
    }
}

static void flops(Parse *x, PlanProgram *r) {
    word(x, " flops=");
    const char *q = x->p;
    while (q < x->end && *q != '\n') q++;
    if (x->bad || !text_double(x->p, (size_t)(q - x->p), &r->flops)) {
        fail(x, "a number");
        return;
    }
    x->p = q;
    word(x, "\n");
}

static void program(Parse *x) {
    Plan *p = x->plan;
    if (p->nprogram == PLAN_MAX_PROGRAMS) {
        fail(x, "at most 8 programs");
        return;
    }
    PlanProgram *r = &p->program[p->nprogram++];
    x->input_cap = x->output_cap = x->note_cap = 0;
    word(x, "program ");
    r->name = quoted(x);
    r->micro = field(x, "micro", PLAN_MAX_MICRO);
    r->work_bytes = field(x, "work", INT64_MAX);
    flops(x, r);
    while (next_is(x, "note ")) {
        word(x, "note ");
        if (!MORE(x, r->note, r->nnote, x->note_cap)) return;
        r->note[r->nnote++] = quoted(x);
        word(x, "\n");
    }
    while (next_is(x, "input")) input(x, r);
    while (next_is(x, "output")) output(x, r);
    sections(x, r);
    word(x, "ir ");
    int64_t n = number(x, PLAN_MAX_BYTES, "the length of the IR");
    word(x, " {\n");
    if (x->bad || x->end - x->p < n || memchr(x->p, 0, (size_t)n)) {
        fail(x, "as many bytes of IR as announced, without NUL");
        return;
    }
    r->ir = arena_str(x->a, x->p, (size_t)n);
    if (!r->ir) fail(x, "memory");
    x->p += n;
    word(x, "}\n");
}

static void head(Parse *x) {
    Plan *p = x->plan;
    word(x, "built");
    p->built = text_field(x, "wmtpc");
    p->graph_name = text_field(x, "graph");
    p->graph_hash = text_field(x, "graph_hash");
    p->config_hash = text_field(x, "config_hash");
    word(x, "\nshape real=");
    p->real = dtype(x);
    p->batch = field(x, "batch", INT64_MAX);
    p->seq = field(x, "seq", INT64_MAX);
    word(x, "\narena 0 state");
    p->arena_bytes[0] = field(x, "bytes", (int64_t)1 << 48);
    word(x, "\narena 1 work");
    p->arena_bytes[1] = field(x, "bytes", (int64_t)1 << 48);
    word(x, "\n");
    while (next_is(x, "option ")) {
        word(x, "option ");
        if (!MORE(x, p->option, p->noption, x->option_cap)) return;
        p->option[p->noption++] = quoted(x);
        word(x, "\n");
    }
}

Plan *plan_parse(Arena *a, const char *file, const char *text, size_t len, Diags *d) {
    Parse x = {.a = a, .file = file, .text = text, .p = text, .end = text + len, .d = d};
    char actual[33];
    if (len > PLAN_MAX_BYTES) {
        diag_add(d, P001, (Loc){.file = file}, "the plan has %zu bytes, at most %d are read", len,
                 PLAN_MAX_BYTES);
        return NULL;
    }
    x.plan = NEW(a, Plan);
    if (x.plan) x.plan->program = NEWN(a, PlanProgram, PLAN_MAX_PROGRAMS);
    if (!x.plan || !x.plan->program) return fail(&x, "memory"), NULL;
    word(&x, "wplan 1\nhash ");
    const char *hash_at = x.p;
    hex_key(&x, x.plan->hash);
    word(&x, "\n");
    if (x.bad) return NULL;
    hash128_hex(x.p, (size_t)(x.end - x.p), actual);
    if (strcmp(actual, x.plan->hash) != 0) {
        x.p = hash_at;
        diag_add(d, P001, here(&x), "damaged plan: the hash is %s, but the text below has %s", x.plan->hash,
                 actual);
        return NULL;
    }
    head(&x);
    while (next_is(&x, "state ")) state(&x);
    while (next_is(&x, "kernel ")) kernel(&x);
    while (next_is(&x, "program ")) program(&x);
    word(&x, "end\n");
    if (x.p != x.end) fail(&x, "the end of the file");
    if (x.bad || !plan_check(x.plan, file, d)) return NULL;
    return x.plan;
}
