/* plan_text.c: Plan -> text. Every field stands in it, in a fixed order, so that plan_print(plan_parse(x)) ==
 * x and the hash (XXH3-128 of everything below its own line) is a hash of the plan. The IR stands verbatim in
 * `ir BYTES { .. }`. */
#include "runtime/plan_words.h"
#include "runtime/runtime.h"

#include <string.h>

const char *const plan_op_name[5] = {"launch", "accum", "copy", "zero", "check"};
const char *const plan_dtype_word[5] = {"f64", "f32", "bf16", "i32", "bool"};

/* Names come from users: quotes, backslashes and control bytes are escaped. */
static void put_quoted(Sbuf *b, const char *s) {
    sb_chr(b, '"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            sb_fmt(b, "\\%c", c);
        else if (c < 32 || c == 127)
            sb_fmt(b, "\\x%02x", c);
        else
            sb_chr(b, *s);
    }
    sb_chr(b, '"');
}
static void put_text(Sbuf *b, const char *key, const char *s) {
    sb_fmt(b, " %s=", key);
    put_quoted(b, s ? s : "");
}
static void put_type(Sbuf *b, PlanDType dt, uint32_t ndim, const char *const *dim, const int64_t *size) {
    sb_fmt(b, " type=%s[", plan_dtype_word[dt]);
    for (uint32_t i = 0; i < ndim; i++) {
        if (i) sb_chr(b, ',');
        put_quoted(b, dim[i]);
        sb_fmt(b, "=%lld", (long long)size[i]);
    }
    sb_chr(b, ']');
}
static void put_addr(Sbuf *b, PlanAddr p) {
    sb_fmt(b, "%d+%lld", (int)p.arena, (long long)p.off);
    if (p.stride) sb_fmt(b, "@%lld", (long long)p.stride);
}

static void put_states(Sbuf *b, const Plan *p) {
    for (uint32_t i = 0; i < p->nstate; i++) {
        const PlanState *s = &p->state[i];
        sb_fmt(b, "state %u", i);
        put_text(b, "model", s->model);
        put_text(b, "name", s->name);
        put_text(b, "hf", s->hf);
        put_text(b, "axes", s->axes);
        put_text(b, "halves", s->halves);
        put_text(b, "role", s->role);
        put_text(b, "init", s->init);
        sb_fmt(b, " stream=%u trained=%d", s->stream, s->trained);
        put_type(b, s->dtype, s->ndim, s->dim, s->size);
        sb_fmt(b, " at=%d+%lld\n", ARENA_STATE, (long long)s->off);
    }
}
static void put_kernels(Sbuf *b, const Plan *p) {
    for (uint32_t i = 0; i < p->nkernel; i++) {
        const PlanKernel *k = &p->kernel[i];
        sb_fmt(b, "kernel %u key=%s writes=%u bytes=", i, k->key, k->nwrite);
        for (uint32_t j = 0; j < k->narg; j++) sb_fmt(b, "%s%lld", j ? "," : "", (long long)k->arg_bytes[j]);
        put_text(b, "what", k->what);
        sb_chr(b, '\n');
    }
}
static void put_instr(Sbuf *b, const Plan *p, const PlanInstr *in) {
    sb_fmt(b, "  %s", plan_op_name[in->op]);
    if (in->op == I_LAUNCH)
        sb_fmt(b, " k%u", in->kernel);
    else
        sb_fmt(b, " dtype=%s count=%lld", plan_dtype_word[in->dtype], (long long)in->count);
    sb_str(b, " args=");
    for (uint32_t j = 0; j < in->narg; j++) {
        if (j) sb_chr(b, ',');
        put_addr(b, p->addr[in->arg0 + j]);
    }
    sb_fmt(b, " node=%u", in->node);
    if (in->op == I_CHECK) put_text(b, "name", in->name);
    sb_chr(b, '\n');
}
static void put_program(Sbuf *b, const Plan *p, const PlanProgram *r) {
    sb_str(b, "program ");
    put_quoted(b, r->name);
    sb_fmt(b, " micro=%lld work=%lld flops=", (long long)r->micro, (long long)r->work_bytes);
    sb_double(b, r->flops);
    sb_chr(b, '\n');
    for (uint32_t i = 0; i < r->nnote; i++) {
        sb_str(b, "note ");
        put_quoted(b, r->note[i]);
        sb_chr(b, '\n');
    }
    for (uint32_t i = 0; i < r->ninput; i++) {
        const PlanInput *x = &r->input[i];
        sb_str(b, "input");
        put_text(b, "kind", x->kind);
        put_text(b, "name", x->name);
        put_type(b, x->dtype, x->ndim, x->dim, x->size);
        sb_str(b, " at=");
        put_addr(b, x->at);
        sb_chr(b, '\n');
    }
    for (uint32_t i = 0; i < r->noutput; i++) {
        const PlanOutput *x = &r->output[i];
        sb_str(b, "output");
        put_text(b, "kind", x->kind);
        put_text(b, "name", x->name);
        put_type(b, x->dtype, x->ndim, x->dim, x->size);
        sb_fmt(b, " each=%d at=", x->per_micro);
        put_addr(b, x->at);
        sb_chr(b, '\n');
    }
    for (uint32_t i = 0; i < r->nsection; i++) {
        const PlanSection *s = &r->section[i];
        sb_fmt(b, "section %u %s\n", i, s->micro ? "micro" : "step");
        for (uint32_t k = 0; k < s->ninstr; k++) put_instr(b, p, &p->instr[s->instr0 + k]);
    }
    size_t len = strlen(r->ir ? r->ir : "");
    sb_fmt(b, "ir %llu {\n", (unsigned long long)len);
    if (len) sb_put(b, r->ir, len);
    sb_str(b, "}\n");
}

/* Everything below the line of the hash. */
static void put_rest(Sbuf *b, const Plan *p) {
    sb_str(b, "built");
    put_text(b, "wmtpc", p->built);
    put_text(b, "graph", p->graph_name);
    put_text(b, "graph_hash", p->graph_hash);
    put_text(b, "config_hash", p->config_hash);
    sb_fmt(b, "\nshape real=%s batch=%lld seq=%lld\n", plan_dtype_word[p->real], (long long)p->batch,
           (long long)p->seq);
    sb_fmt(b, "arena 0 state bytes=%lld\n", (long long)p->arena_bytes[ARENA_STATE]);
    sb_fmt(b, "arena 1 work bytes=%lld\n", (long long)p->arena_bytes[ARENA_WORK]);
    for (uint32_t i = 0; i < p->noption; i++) {
        sb_str(b, "option ");
        put_quoted(b, p->option[i]);
        sb_chr(b, '\n');
    }
    put_states(b, p);
    put_kernels(b, p);
    for (uint32_t i = 0; i < p->nprogram; i++) put_program(b, p, &p->program[i]);
    sb_str(b, "end\n");
}

void plan_print(const Plan *p, Sbuf *out) {
    sb_fmt(out, "wplan 1\nhash %s\n", p->hash);
    put_rest(out, p);
}

void plan_hash(Arena *a, Plan *p) {
    Sbuf b;
    sb_init(&b, a);
    put_rest(&b, p);
    if (b.s) hash128_hex(b.s, b.len, p->hash);
}
