/* localize: ST_TRAIN -> ST_LOCAL on one rank. `micro` becomes sections: even ones run once a step, odd ones
 * once for each micro-batch. Exact.
 *
 * A walk forward finds the earliest section of each node; a walk backward places each as late as its readers
 * allow, so that a forward pass whose gradient waits for a count of the whole step is not run twice. A node
 * of a micro-batch that several odd sections need is cloned into each if it follows from data alone; kept for
 * all micro-batches (micro_stack, micro_slice) if it has one number per row; else kept when G = 1 and cloned
 * when G > 1. Clones keep origin, path, loc. */
#include "passes/rewrite.h"

#include <string.h>

enum { MAX_SECTIONS = 64, NOT_PLACED = 255 };

typedef struct {
    Arena *a;
    const Graph *g;
    Graph *r;
    int64_t micro;                    /* G; 1 without micro */
    uint8_t *is_micro, *early, *data; /* by node; data: follows from data alone */
    uint8_t *limit;                   /* step nodes: the latest section that their readers allow */
    uint64_t *place;                  /* by node: bit s: an instance in section s */
    uint64_t *hard;                   /* by value: odd sections whose micro nodes read it */
    uint8_t *soft;                    /* by value: latest odd section in which a sum or a stack may take it */
    bool *keep;                       /* by value: needs a micro_stack */
    bool *model_dim;                  /* by dim: width of a model */
    uint8_t last;
    ValueId *cur, *stack, *map; /* latest instance; stack; step values (results: stacks) in r */
    uint8_t *cur_section;
    int32_t *node;  /* first instance of each node in r */
    ValueId number; /* the running micro-batch's index */
} Localize;

static bool has_micro(const Localize *l, const Type *t) {
    return l->g->micro.i < l->g->ndim && type_has(t, l->g->micro);
}
static ValueId operand(const Localize *l, const Node *n, uint32_t k) {
    return l->g->operand[n->in0 + k];
}
static uint32_t def_of(const Localize *l, ValueId v) {
    return l->g->value[v.i].def.i;
}
static bool kept_op(Op op) {
    return op == OP_micro_sum || op == OP_micro_stack;
}
static bool random_op(Op op) {
    return op == OP_uniform || op == OP_normal;
}
static int lowest(uint64_t m) {
    return __builtin_ctzll(m);
}
static bool several(uint64_t m) {
    return (m & (m - 1)) != 0;
}

/* ---- what a node is and when it can run at the earliest */
static bool classify(const Localize *l, const Node *n) {
    bool leaf = op_info[n->op].flags & F_LEAF;
    if (kept_op(n->op)) return false;
    if (leaf && !random_op(n->op) && n->op != OP_iota) return false;
    bool micro = has_micro(l, &l->g->value[n->out0].ty);
    for (uint32_t k = 0; k < n->nin; k++) {
        ValueId v = operand(l, n, k);
        if (value_node(l->g, v)->op == OP_micro_stack) return false;
        micro |= has_micro(l, value_type(l->g, v));
    }
    for (uint32_t k = 1; k < n->nout; k++) micro |= has_micro(l, &l->g->value[n->out0 + k].ty);
    return micro;
}

static bool small(const Localize *l, const Type *t) {
    return !type_heavy(l->model_dim, t);
}

static void find_early(Localize *l) {
    const Graph *g = l->g;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        l->is_micro[i] = classify(l, n);
        uint32_t at = l->is_micro[i] ? 1 : 0;
        bool data = n->op != OP_param && n->op != OP_state;
        for (uint32_t k = 0; k < n->nin; k++) {
            ValueId v = operand(l, n, k);
            uint32_t def = def_of(l, v), e = l->early[def];
            if (l->is_micro[i])
                e += l->is_micro[def] ? 0 : 1;
            else if (l->is_micro[def])
                e += 1;
            else if (n->op == OP_micro_sum && has_micro(l, value_type(g, v)))
                e += 2; /* through a slice */
            if (e > at) at = e;
            data &= l->is_micro[def] ? l->data[def] : small(l, value_type(g, v));
        }
        wm_check(l->a, at + 3 < MAX_SECTIONS, "more than %d sections", MAX_SECTIONS);
        l->early[i] = (uint8_t)at;
        l->data[i] = data;
        uint8_t end = (uint8_t)(at + (at & 1));
        if (end > l->last) l->last = end;
    }
}

/* ---- placing, from the last node to the first */
static void lower(uint8_t *limit, int to) {
    if (to < *limit) *limit = (uint8_t)to;
}

/* A step node in section s reads v. */
static void step_reads(Localize *l, const Node *n, ValueId v, int s) {
    uint32_t def = def_of(l, v);
    if (l->is_micro[def]) {
        lower(&l->soft[v.i], s - 1);
        if (n->op != OP_micro_sum) l->keep[v.i] = true;
    } else if (n->op == OP_micro_sum && has_micro(l, value_type(l->g, v))) {
        l->hard[v.i] |= (uint64_t)1 << (s - 1);
        lower(&l->limit[def], s - 2);
    } else {
        lower(&l->limit[def], s);
    }
}
static void micro_reads(Localize *l, ValueId v, int s) {
    uint32_t def = def_of(l, v);
    l->hard[v.i] |= (uint64_t)1 << s;
    if (!l->is_micro[def]) lower(&l->limit[def], s - 1);
}

static uint64_t instances(Localize *l, uint32_t i) {
    const Node *n = &l->g->node[i];
    uint64_t need = 0;
    int soft = NOT_PLACED;
    for (uint32_t k = 0; k < n->nout; k++) {
        need |= l->hard[n->out0 + k];
        if (l->soft[n->out0 + k] < soft) soft = l->soft[n->out0 + k];
    }
    if (soft != NOT_PLACED && (!need || lowest(need) > soft)) need |= (uint64_t)1 << soft;
    if (!several(need) || l->data[i]) return need;
    uint64_t first = need & (~need + 1), at = first;
    for (uint32_t k = 0; k < n->nout && l->micro > 1; k++)
        if (!small(l, &l->g->value[n->out0 + k].ty)) at |= l->hard[n->out0 + k];
    for (uint32_t k = 0; k < n->nout; k++)
        if (l->hard[n->out0 + k] & ~at) l->keep[n->out0 + k] = true;
    return at;
}

static void place_node(Localize *l, uint32_t i) {
    const Node *n = &l->g->node[i];
    uint64_t at;
    if (l->is_micro[i]) {
        at = instances(l, i);
    } else {
        bool live = l->limit[i] != NOT_PLACED, leaf = op_info[n->op].flags & F_LEAF;
        at = !live ? 0 : leaf ? 1 : (uint64_t)1 << l->limit[i];
    }
    l->place[i] = at;
    wm_check(l->a, !at || lowest(at) >= l->early[i] || (op_info[n->op].flags & F_LEAF),
             "%s of '%s' would run in section %d, before %u", op_info[n->op].name, n->path, lowest(at),
             l->early[i]);
    for (; at; at &= at - 1) {
        int s = lowest(at);
        for (uint32_t k = 0; k < n->nin; k++) {
            if (l->is_micro[i])
                micro_reads(l, operand(l, n, k), s);
            else
                step_reads(l, n, operand(l, n, k), s);
        }
    }
}

static void place(Localize *l) {
    const Graph *g = l->g;
    for (uint32_t k = 0; k < g->nresult; k++) {
        uint32_t def = def_of(l, g->result[k].v);
        if (!l->is_micro[def]) {
            lower(&l->limit[def], l->last);
            continue;
        }
        lower(&l->soft[g->result[k].v.i], l->last - 1);
        l->keep[g->result[k].v.i] = true;
    }
    for (uint32_t k = 0; k < g->nopt; k++)
        if (value_is(g->opt[k].lr)) lower(&l->limit[def_of(l, g->opt[k].lr)], l->last);
    for (uint32_t i = g->nnode; i-- > 0;) place_node(l, i);
}

/* ---- making the new graph */
static DimId *dims_without(Localize *l, const Graph *from, List list, uint32_t *n) {
    DimId *d = NEWN(l->a, DimId, list.n + 1);
    *n = 0;
    for (uint32_t k = 0; k < list.n; k++)
        if (from->dimlist[list.at + k].i != l->g->micro.i) d[(*n)++] = from->dimlist[list.at + k];
    return d;
}

static void copy_attrs(Localize *l, const Node *n, bool local, Attr *out) {
    const Graph *g = l->g;
    for (int k = 0; k < op_info[n->op].nattr; k++) {
        const Attr *t = &n->attr[k];
        uint32_t count;
        out[k] = attr_copy(l->r, g, t);
        if (local && t->kind == AT_DIMS) {
            DimId *d = dims_without(l, g, t->u.list, &count);
            out[k] = at_dims(l->r, d, count);
        }
    }
}

static Type without_micro(const Localize *l, Type t) {
    Type r = {.dt = t.dt};
    for (uint32_t k = 0; k < t.ndim; k++)
        if (t.dim[k].i != l->g->micro.i) r.dim[r.ndim++] = t.dim[k];
    return r;
}

static void mark_new(Localize *l, uint32_t first, int section) {
    for (uint32_t i = first; i < l->r->nnode; i++) l->r->node[i].section = (uint8_t)section;
}

/* All micro-batches of the latest instance of v, made in section s. A step value is its own stack. */
static ValueId stack_of(Localize *l, ValueId v, int s) {
    if (!l->is_micro[def_of(l, v)]) return l->map[v.i];
    if (value_is(l->stack[v.i])) return l->stack[v.i];
    uint32_t first = l->r->nnode;
    const Node *n = value_node(l->g, v);
    l->r->path = n->path;
    l->r->loc = n->loc;
    l->stack[v.i] = build(l->r, OP_micro_stack, &l->cur[v.i], 1, NULL, 0);
    mark_new(l, first, s);
    return l->stack[v.i];
}

/* The running micro-batch's piece of a value that holds them all. Pieces are addressed, so micro must come
 * first. */
static ValueId slice_of(Localize *l, ValueId v, int s) {
    if (l->cur_section[v.i] == s) return l->cur[v.i];
    Graph *r = l->r;
    uint32_t first = r->nnode;
    ValueId whole = l->is_micro[def_of(l, v)] ? l->stack[v.i] : l->map[v.i];
    wm_check(l->a, value_is(whole), "value %u is needed in section %d, but was not kept", v.i, s);
    const Node *n = value_node(l->g, v);
    r->path = n->path;
    r->loc = n->loc;
    wm_check(l->a, value_type(r, whole)->dim[0].i == r->micro.i,
             "the %s of '%s' does not begin with the micro-batch", op_info[n->op].name, n->path);
    l->cur[v.i] = build(r, OP_micro_slice, &whole, 1, NULL, 0);
    l->cur_section[v.i] = (uint8_t)s;
    mark_new(l, first, s);
    return l->cur[v.i];
}

static ValueId operand_in(Localize *l, const Node *n, ValueId v, int s) {
    bool micro = l->is_micro[def_of(l, v)], whole = has_micro(l, value_type(l->g, v));
    if (s & 1) {
        if (!micro && !whole) return l->map[v.i];
        return micro && l->cur_section[v.i] == s ? l->cur[v.i] : slice_of(l, v, s);
    }
    if (n->op == OP_micro_sum && (micro || whole)) return l->cur[v.i];
    return micro ? stack_of(l, v, s) : l->map[v.i];
}

/* iota over micro: the index that the runtime gives. */
static ValueId running_index(Localize *l, const Node *n) {
    if (!value_is(l->number)) {
        Attr name = at_str(l->r, "micro");
        l->number = build_leaf(l->r, OP_scalar, type_make(DT_F64, NULL, 0), &name, 1);
    }
    int64_t base = attr_int(l->g, n, "base");
    ValueId v = l->number;
    if (base) v = b_ew2(l->r, OP_add, v, b_const(l->r, DT_F64, (double)base));
    return b_cast(l->r, v, l->g->value[n->out0].ty.dt);
}

static ValueId make_node(Localize *l, const Node *n, int s) {
    Graph *r = l->r;
    bool local = s & 1;
    ValueId few[8], *in = n->nin <= WM_LEN(few) ? few : NEWN(l->a, ValueId, n->nin);
    Attr attr[MAX_ATTR] = {{AT_NONE, {0}}};
    for (uint32_t k = 0; k < n->nin; k++) in[k] = operand_in(l, n, operand(l, n, k), s);
    r->path = n->path;
    r->loc = n->loc;
    r->flags = n->flags;
    if (n->op == OP_micro_stack) return in[0];
    if (n->op == OP_iota && attr_dim(l->g, n, "dim").i == l->g->micro.i && local) return running_index(l, n);
    copy_attrs(l, n, local, attr);
    uint32_t nattr = (uint32_t)op_info[n->op].nattr;
    if (n->op == OP_expand && local && attr[0].u.list.n == 0) return b_ew1(r, OP_stop_grad, in[0]);
    if (!(op_info[n->op].flags & F_LEAF)) return build(r, n->op, in, n->nin, attr, nattr);
    Type t = l->g->value[n->out0].ty;
    return build_leaf(r, n->op, local ? without_micro(l, t) : t, attr, nattr);
}

static void emit_node(Localize *l, uint32_t i, int s) {
    const Node *n = &l->g->node[i];
    Graph *r = l->r;
    for (uint32_t k = 0; k < n->nin; k++)
        operand_in(l, n, operand(l, n, k), s); /* slices and stacks come before */
    uint32_t first = r->nnode;
    r->origin = NONE;
    ValueId v = make_node(l, n, s);
    mark_new(l, first, s);
    r->flags = 0;
    bool clone = l->node[i] != NONE;
    if (first < r->nnode) {
        Node *c = &r->node[r->nnode - 1];
        if (n->origin >= 0 && l->node[n->origin] != NONE)
            c->origin = l->node[n->origin];
        else if (clone)
            c->origin = l->node[i];
        if (clone) c->flags |= N_REMAT;
        if (!clone) l->node[i] = (int32_t)r->nnode - 1;
    }
    for (uint32_t k = 0; k < n->nout; k++) {
        ValueId nv = {v.i + k};
        if (l->is_micro[i]) {
            l->cur[n->out0 + k] = nv;
            l->cur_section[n->out0 + k] = (uint8_t)s;
        } else {
            l->map[n->out0 + k] = nv;
        }
    }
}

static void emit_section(Localize *l, int s) {
    const Graph *g = l->g;
    l->number = NOVALUE;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        uint64_t first = l->place[i] & (~l->place[i] + 1);
        bool stacks = l->is_micro[i] && first && !(s & 1) && s > 0 && first == (uint64_t)1 << (s - 1);
        for (uint32_t k = 0; k < n->nout; k++) {
            ValueId v = {n->out0 + k};
            if (stacks && l->keep[v.i]) stack_of(l, v, s);
            if ((s & 1) && !l->is_micro[i] && (l->hard[v.i] >> s & 1) && has_micro(l, &g->value[v.i].ty))
                slice_of(l, v, s);
        }
    }
    for (uint32_t i = 0; i < g->nnode; i++)
        if (l->place[i] >> s & 1) emit_node(l, i, s);
}

/* Random ops count with step, seed and micro-batch: numbers of the runtime, not operands. */
static void add_numbers(Localize *l) {
    static const char *const need[] = {"step", "seed", "micro"};
    Graph *r = l->r;
    bool draws = false;
    for (uint32_t i = 0; i < l->g->nnode; i++)
        draws |= (random_op(l->g->node[i].op) || l->g->node[i].op == OP_shuffle) && l->place[i];
    for (uint32_t k = 0; draws && k < WM_LEN(need); k++) {
        bool there = false;
        for (uint32_t i = 0; i < r->nnode; i++)
            there |= r->node[i].op == OP_scalar && strcmp(attr_str(r, &r->node[i], "name"), need[k]) == 0;
        if (there) continue;
        uint32_t first = r->nnode;
        Attr name = at_str(r, need[k]);
        r->path = "";
        build_leaf(r, OP_scalar, type_make(DT_F64, NULL, 0), &name, 1);
        mark_new(l, first, l->last);
    }
}

static void copy_results(Localize *l) {
    const Graph *g = l->g;
    Graph *r = l->r;
    for (uint32_t k = 0; k < g->nresult; k++) {
        ValueId v = g->result[k].v;
        if (l->is_micro[def_of(l, v)]) l->map[v.i] = stack_of(l, v, l->last);
    }
    graph_copy_results(r, g, l->map);
    for (uint32_t k = 0; k < r->nresult; k++) {
        Result *x = &r->result[k];
        Op op = value_node(r, x->v)->op;
        if (op != OP_param && op != OP_state) continue;
        uint32_t first =
            r->nnode; /* the old value, which the end of the step overwrites: a copy of its own */
        ValueId v = b_ew1(r, OP_stop_grad, x->v);
        r->result[k].v = v;
        mark_new(l, first, l->last);
    }
}

static void init(Localize *l, Arena *a, const Graph *g) {
    uint32_t nn = g->nnode + 1, nv = g->nvalue + 1;
    *l = (Localize){.a = a, .g = g, .r = graph_like(a, g), .number = NOVALUE};
    l->r->stage = ST_LOCAL;
    l->micro = g->micro.i < g->ndim ? g->dim[g->micro.i].size : 1;
    l->is_micro = NEWN(a, uint8_t, nn);
    l->early = NEWN(a, uint8_t, nn);
    l->data = NEWN(a, uint8_t, nn);
    l->limit = NEWN(a, uint8_t, nn);
    l->place = NEWN(a, uint64_t, nn);
    l->node = NEWN(a, int32_t, nn);
    l->hard = NEWN(a, uint64_t, nv);
    l->soft = NEWN(a, uint8_t, nv);
    l->keep = NEWN(a, bool, nv);
    l->cur = NEWN(a, ValueId, nv);
    l->stack = NEWN(a, ValueId, nv);
    l->map = NEWN(a, ValueId, nv);
    l->cur_section = NEWN(a, uint8_t, nv);
    l->model_dim = model_dims(a, g);
    memset(l->limit, NOT_PLACED, nn);
    memset(l->soft, NOT_PLACED, nv);
    memset(l->cur_section, NOT_PLACED, nv);
    memset(l->node, 0xff, nn * sizeof *l->node);
    memset(l->cur, 0xff, nv * sizeof *l->cur);
    memset(l->stack, 0xff, nv * sizeof *l->stack);
    memset(l->map, 0xff, nv * sizeof *l->map);
}

Graph *pass_localize(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    (void)o;
    (void)d;
    Localize l;
    init(&l, a, g);
    find_early(&l);
    place(&l);
    for (uint32_t i = 0; i < g->nnode; i++) /* a state that nothing reads: its next value is written to it */
        if (g->node[i].op == OP_state && !l.place[i]) l.place[i] = 1;
    for (int s = 0; s <= l.last; s++) emit_section(&l, s);
    add_numbers(&l);
    copy_results(&l);
    l.r->path = "";
    l.r->loc = NOLOC;
    return l.r;
}

uint32_t graph_sections(const Graph *g) {
    uint32_t n = 1;
    for (uint32_t i = 0; i < g->nnode; i++)
        if (g->node[i].section + 1u > n) n = g->node[i].section + 1u;
    return n;
}
