/* emit_plan.c: ST_PLANNED graphs to a Plan: instructions in the order of the nodes, one row per distinct
 * kernel source, state rows, inputs and outputs. The graph has decided everything; nothing is chosen here. */
#include "codegen/emit.h"

#include <string.h>

typedef struct {
    Arena *a;
    Plan *p;
    Emit e;
    const Graph *g;
    PlanProgram *program;
    StrMap *kernels, *states; /* source, "MODEL/NAME role" -> row */
    KernelSource *source;
    uint32_t source_cap, kernel_cap, state_cap, instr_cap, addr_cap;
    Uses uses;
    bool checked; /* the I_CHECKs of this program stand */
} EmitPlan;

static PlanDType plan_dtype(DType t) {
    return (PlanDType)t;
}
static PlanAddr whole(PlanAddr p) {
    return (PlanAddr){p.arena, p.off, 0};
}
static bool is_state(Op op) {
    return op == OP_param || op == OP_state;
}
static int64_t micro_of(const Graph *g) {
    return g->micro.i < g->ndim ? g->dim[g->micro.i].size : 1;
}

/* Dims and sizes of a value without micro; true if it had micro. */
static bool put_type(EmitPlan *x, const Type *t, uint32_t *ndim, const char **dim, int64_t *size) {
    const Graph *g = x->g;
    bool micro = false;
    *ndim = 0;
    for (uint32_t k = 0; k < t->ndim; k++) {
        if (t->dim[k].i == g->micro.i) {
            micro = true;
            continue;
        }
        dim[*ndim] = arena_str(x->a, g->dim[t->dim[k].i].name, strlen(g->dim[t->dim[k].i].name));
        size[(*ndim)++] = g->dim[t->dim[k].i].size;
    }
    return micro;
}

/* ---- state rows */
static const char *state_key(EmitPlan *x, const char *model, const char *name, const char *role) {
    return arena_fmt(x->a, "%s/%s %s", model, name, role);
}

/* The row of a leaf, without its offset. Moments take names, axes and halves from the parameter that they
 * belong to. */
static PlanState state_row(EmitPlan *x, const Node *n) {
    const Graph *g = x->g;
    PlanState s = {
        .model = "", .hf = "", .axes = "", .halves = "", .stream = (uint32_t)attr_int(g, n, "stream")};
    const Type *t = &g->value[n->out0].ty;
    put_type(x, t, &s.ndim, s.dim, s.size);
    s.dtype = plan_dtype(t->dt);
    s.name = attr_str(g, n, "name");
    s.role = n->op == OP_param ? "param" : attr_str(g, n, "role");
    if (n->op == OP_state) {
        Sbuf b;
        sb_init(&b, x->a);
        sb_str(&b, "const:");
        sb_double(&b, attr_float(g, n, "init"));
        s.init = b.s;
        const char *of = attr_str(g, n, "of"), *slash = strchr(of, '/');
        for (uint32_t i = 0; slash && i < g->nnode; i++) {
            const Node *p = &g->node[i];
            size_t len = (size_t)(slash - of);
            const char *model = p->op == OP_param ? attr_str(g, p, "model") : "";
            if (p->op != OP_param || strlen(model) != len || strncmp(model, of, len) != 0) continue;
            if (strcmp(attr_str(g, p, "name"), slash + 1) != 0) continue;
            n = p;
            break;
        }
    } else {
        s.init = attr_str(g, n, "init");
    }
    if (n->op == OP_param) {
        s.model = attr_str(g, n, "model");
        s.name = attr_str(g, n, "name");
        s.hf = attr_str(g, n, "hf");
        s.axes = attr_str(g, n, "axes");
        s.halves = attr_str(g, n, "halves");
        s.trained = attr_int(g, n, "opt") >= 0;
    }
    return s;
}

/* Rows of the states that no program before has; in the second program known ones move to where the first put
 * them. */
static void add_states(EmitPlan *x, Graph *g) {
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (!is_state(n->op)) continue;
        PlanState s = state_row(x, n);
        Value *v = &g->value[n->out0];
        const char *key = state_key(x, s.model, s.name, s.role);
        int64_t old = v->off;
        uint32_t row;
        if (strmap_get(x->states, key, &row)) {
            const PlanState *k = &x->p->state[row];
            wm_check(x->a, k->dtype == s.dtype && k->ndim == s.ndim,
                     "the programs disagree on the type of %s", key);
            s.off = k->off;
        } else {
            int64_t bytes = (type_bytes(g, &v->ty) + 63) / 64 * 64;
            s.off = x->p->arena_bytes[ARENA_STATE];
            x->p->arena_bytes[ARENA_STATE] += bytes;
            GROW(x->a, x->p->state, x->p->nstate, x->state_cap);
            strmap_put(x->states, key, x->p->nstate);
            x->p->state[x->p->nstate++] = s;
        }
        if (s.off == old) continue;
        v->off = s.off; /* only a program without updates comes second: nothing else lies on a state */
        for (uint32_t k = 0; k < g->nresult && x->p->nprogram; k++)
            wm_check(x->a, strcmp(g->result[k].kind, "next") != 0, "a second program that writes states");
    }
}

/* ---- instructions */
static PlanInstr *add_instr(EmitPlan *x, PlanOp op, const PlanAddr *arg, uint32_t narg, uint32_t node) {
    Plan *p = x->p;
    GROW(x->a, p->instr, p->ninstr, x->instr_cap);
    PlanInstr *in = &p->instr[p->ninstr++];
    *in = (PlanInstr){.op = op, .arg0 = p->naddr, .narg = narg, .node = node};
    for (uint32_t k = 0; k < narg; k++) {
        GROW(x->a, p->addr, p->naddr, x->addr_cap);
        p->addr[p->naddr++] = arg[k];
    }
    x->program->section[x->program->nsection - 1].ninstr++;
    return in;
}

static uint32_t kernel_row(EmitPlan *x, const Launch *l) {
    Plan *p = x->p;
    uint32_t row;
    if (strmap_get(x->kernels, l->source, &row)) {
        PlanKernel *k = &p->kernel[row];
        wm_check(x->a, k->narg == l->narg && k->nwrite == l->nwrite, "one source with %u and %u arguments",
                 k->narg, l->narg);
        for (uint32_t i = 0; i < l->narg; i++)
            if (l->arg_bytes[i] > k->arg_bytes[i]) k->arg_bytes[i] = l->arg_bytes[i];
        return row;
    }
    row = p->nkernel;
    uint32_t cap = x->kernel_cap;
    GROW(x->a, p->kernel, p->nkernel, x->kernel_cap);
    GROW(x->a, x->source, p->nkernel, cap);
    PlanKernel *k = &p->kernel[p->nkernel++];
    *k = (PlanKernel){.what = l->what, .narg = l->narg, .nwrite = l->nwrite};
    k->arg_bytes = arena_copy(x->a, l->arg_bytes, l->narg * sizeof *l->arg_bytes);
    hash128_hex(l->source, l->len, k->key);
    x->source[row] = (KernelSource){l->source, l->len};
    strmap_put(x->kernels, l->source, row);
    return row;
}

/* One check each of the sum of the losses and of the gradient norm, before the first instruction that writes
 * a state. */
static void add_checks(EmitPlan *x) {
    static const char *const kind[] = {"total", "grad_norm"};
    static const char *const text[] = {"the loss", "the gradient norm"};
    const Graph *g = x->g;
    if (x->checked) return;
    x->checked = true;
    for (uint32_t c = 0; c < WM_LEN(kind); c++) {
        for (uint32_t k = 0; k < g->nresult; k++) {
            const Result *r = &g->result[k];
            if (strcmp(r->kind, kind[c]) != 0) continue;
            PlanAddr at = emit_value(&x->e, r->v);
            PlanInstr *in = add_instr(x, I_CHECK, &at, 1, g->value[r->v.i].def.i);
            in->dtype = plan_dtype(value_type(g, r->v)->dt);
            in->count = 1;
            in->name = text[c];
        }
    }
}

static void add_launches(EmitPlan *x) {
    for (uint32_t i = 0; i < x->e.nlaunch; i++) {
        const Launch *l = &x->e.launch[i];
        for (uint32_t k = l->narg - l->nwrite; k < l->narg; k++)
            if (l->arg[k].arena == ARENA_STATE) add_checks(x);
        uint32_t row = kernel_row(x, l);
        PlanInstr *in = add_instr(x, I_LAUNCH, l->arg, l->narg, l->node.i);
        in->kernel = row;
    }
    x->e.nlaunch = 0;
}

/* The leaf v was just made: join it to the sums that read it. */
static void add_sums(EmitPlan *x, ValueId v) {
    const Graph *g = x->g;
    if (micro_of(g) == 1) return;
    for (uint32_t k = x->uses.use0[v.i]; k < x->uses.use0[v.i + 1]; k++) {
        NodeId id = x->uses.use[k];
        const Node *n = &g->node[id.i];
        if (n->op != OP_micro_sum || !emit_has_memory(&x->e, (ValueId){n->out0})) continue;
        PlanAddr arg[3] = {
            emit_value(&x->e, (ValueId){n->out0}), emit_value(&x->e, v), {ARENA_WORK, n->ws_off, 0}};
        PlanInstr *in =
            add_instr(x, I_ACCUM, arg, micro_of(g) > 3 ? 3 : 2, id.i); /* deeper than the sum itself */
        in->dtype = plan_dtype(value_type(g, v)->dt);
        in->count = type_count(g, &g->value[n->out0].ty);
    }
}

static bool needs_kernel(const EmitPlan *x, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++) {
        const Node *n = &x->g->node[i];
        if (is_state(n->op) || n->op == OP_input || n->op == OP_scalar || op_info[n->op].kind == K_TREE)
            continue;
        for (uint32_t k = 0; k < n->nout; k++)
            if (emit_has_memory(&x->e, (ValueId){n->out0 + k})) return true;
    }
    return false;
}

static bool add_unit(EmitPlan *x, uint32_t first, uint32_t count) {
    const Graph *g = x->g;
    const Node *n = &g->node[first];
    OpKind kind = op_info[n->op].kind;
    if (needs_kernel(x, first, count)) {
        bool group = count > 1 || kind == K_EW || kind == K_REDUCE;
        if (!(group ? emit_group(&x->e, (NodeId){first}, count) : emit_custom(&x->e, (NodeId){first})))
            return false;
        add_launches(x);
    }
    for (uint32_t i = first; i < first + count; i++)
        for (uint32_t k = 0; k < g->node[i].nout; k++) add_sums(x, (ValueId){g->node[i].out0 + k});
    return true;
}

/* Next values that do not lie on their state are copied at the end of the step. */
static void add_copies(EmitPlan *x) {
    const Graph *g = x->g;
    for (uint32_t k = 0; k < g->nresult; k++) {
        const Result *r = &g->result[k];
        if (strcmp(r->kind, "next") != 0) continue;
        for (uint32_t i = 0; i < g->nnode; i++) {
            const Node *n = &g->node[i];
            const char *name = !is_state(n->op)    ? NULL
                               : n->op == OP_state ? attr_str(g, n, "name")
                                                   : arena_fmt(x->a, "%s/%s", attr_str(g, n, "model"),
                                                               attr_str(g, n, "name"));
            if (!name || strcmp(name, r->name) != 0) continue;
            PlanAddr arg[2] = {emit_value(&x->e, (ValueId){n->out0}), emit_value(&x->e, r->v)};
            if (arg[0].arena == arg[1].arena && arg[0].off == arg[1].off) break;
            add_checks(x);
            PlanInstr *in = add_instr(x, I_COPY, arg, 2, g->value[r->v.i].def.i);
            in->dtype = plan_dtype(value_type(g, r->v)->dt);
            in->count = type_count(g, value_type(g, r->v));
            wm_check(x->a, type_equal(value_type(g, (ValueId){n->out0}), value_type(g, r->v)),
                     "the next value of %s has another type", r->name);
            break;
        }
    }
}

static bool add_sections(EmitPlan *x) {
    const Graph *g = x->g;
    PlanProgram *p = x->program;
    uint32_t n = 0;
    for (uint32_t i = 0; i < g->nnode; i++)
        if (g->node[i].section + 1u > n) n = g->node[i].section + 1u;
    p->section = NEWN(x->a, PlanSection, n + 1);
    for (uint32_t s = 0, i = 0; s < n; s++) {
        p->section[p->nsection++] = (PlanSection){s & 1, x->p->ninstr, 0};
        while (i < g->nnode && g->node[i].section == s) {
            uint32_t first = i++;
            while (i < g->nnode && g->node[first].group && g->node[i].group == g->node[first].group) i++;
            if (!add_unit(x, first, i - first)) return false;
        }
    }
    if (!n) p->section[p->nsection++] = (PlanSection){false, x->p->ninstr, 0};
    add_copies(x);
    return true;
}

/* ---- inputs, outputs */
static void add_input(EmitPlan *x, const Node *n) {
    PlanProgram *p = x->program;
    ValueId v = {n->out0};
    const Value *val = &x->g->value[v.i];
    if (!emit_has_memory(&x->e, v)) return;
    PlanInput *in = &p->input[p->ninput++];
    *in = (PlanInput){.kind = n->op == OP_input ? "data" : "scalar",
                      .name = attr_str(x->g, n, "name"),
                      .dtype = plan_dtype(val->ty.dt),
                      .at = {val->arena, val->off, n->op == OP_input ? val->stride : 0}};
    put_type(x, &val->ty, &in->ndim, in->dim, in->size);
}

static void add_outputs(EmitPlan *x) {
    const Graph *g = x->g;
    PlanProgram *p = x->program;
    p->input = NEWN(x->a, PlanInput, g->nnode + 1);
    p->output = NEWN(x->a, PlanOutput, g->nresult + 1);
    for (uint32_t i = 0; i < g->nnode; i++)
        if (g->node[i].op == OP_input || g->node[i].op == OP_scalar) add_input(x, &g->node[i]);
    for (uint32_t k = 0; k < g->nresult; k++) {
        const Result *r = &g->result[k];
        if (strcmp(r->kind, "next") == 0) continue;
        const Value *v = &g->value[r->v.i];
        PlanOutput *out = &p->output[p->noutput++];
        *out = (PlanOutput){.kind = r->kind,
                            .name = r->name,
                            .dtype = plan_dtype(v->ty.dt),
                            .at = whole(emit_value(&x->e, r->v))};
        out->per_micro = put_type(x, &v->ty, &out->ndim, out->dim, out->size);
        if (out->per_micro) out->at.stride = v->stride;
    }
}

/* ---- programs */
static bool add_program(EmitPlan *x, const char *name, const Graph *planned, CpuLevel level, Diags *d) {
    Graph *g = NEW(x->a, Graph);
    *g = *planned;
    g->value = arena_copy(x->a, planned->value, planned->nvalue * sizeof *g->value);
    x->g = g;
    add_states(x, g);
    x->e = (Emit){.a = x->a, .g = g, .level = level, .d = d};
    x->uses = graph_uses(x->a, g);
    x->checked = false;
    x->program = &x->p->program[x->p->nprogram++];
    *x->program = (PlanProgram){.name = name, .micro = micro_of(g), .work_bytes = g->arena_bytes[1]};
    add_outputs(x);
    if (!add_sections(x)) return false;
    for (uint32_t i = 0; i < g->nnode; i++)
        x->program->flops +=
            node_flops(g, &g->node[i]) * (g->node[i].section & 1 ? (double)x->program->micro : 1);
    x->program->note = g->note;
    x->program->nnote = g->nnote;
    Sbuf ir;
    sb_init(&ir, x->a);
    graph_print(g, &ir, false);
    x->program->ir = ir.s;
    if (g->arena_bytes[1] > x->p->arena_bytes[ARENA_WORK]) x->p->arena_bytes[ARENA_WORK] = g->arena_bytes[1];
    return true;
}

bool codegen_emit(Arena *a, const EmitInput *in, Plan *plan, KernelSource **source, Diags *d) {
    EmitPlan x = {.a = a, .p = plan, .kernels = strmap_new(a), .states = strmap_new(a)};
    *plan = (Plan){.built = WM_VERSION,
                   .graph_name = in->train->name,
                   .graph_hash = in->graph_hash ? in->graph_hash : "",
                   .config_hash = in->config_hash ? in->config_hash : "",
                   .seq = in->seq,
                   .real = PD_F32};
    plan->program = NEWN(a, PlanProgram, 2);
    const Graph *g = in->train;
    plan->batch = g->batch.i < g->ndim ? g->dim[g->batch.i].size : 1;
    for (uint32_t i = g->nnode; i-- > 0;)
        if (g->node[i].op == OP_param) plan->real = plan_dtype(g->value[g->node[i].out0].ty.dt);
    if (!add_program(&x, g->phase, g, in->level, d)) return false;
    if (in->val && !add_program(&x, "val", in->val, in->level, d)) return false;
    plan->option = NEWN(a, const char *, in->noption + 1);
    for (uint32_t k = 0; k < in->noption; k++) plan->option[k] = in->option[k];
    plan->noption = in->noption;
    *source = x.source;
    plan_hash(a, plan);
    return true;
}
