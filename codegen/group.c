/* group.c: a fusion group (or one element-wise or reducing node) as a loop nest over one iteration space.
 *
 * The space has outer dims, which every result keeps and which are cut into pieces, and inner dims, which all
 * reductions of the group remove. Values follow one another in levels: a reduction ends a pass over the inner
 * dims, what depends on it belongs to the next. What several passes need is computed again in each:
 * element-wise work on a row in the cache costs less than a buffer. Results are stored in the last pass only,
 * so a result may lie on an operand of equal shape. How a reduction is ordered follows from its node alone,
 * never from its neighbours: fusing changes no bit. */
#include "codegen/group.h"

#include <string.h>

typedef struct {
    Emit *e;
    const Graph *g;
    Nest *n;
    DimId dim[MAX_DIMS]; /* loops before merging: outer, then inner; dims of size 1 have none */
    uint32_t nouter, ninner;
    NodeId first;
    uint32_t count;
} Build;

static const Node *node_at(const Build *b, uint32_t i) {
    return &b->g->node[b->first.i + i];
}
static OpKind kind_of(const Node *n) {
    return op_info[n->op].kind;
}
static int64_t dim_size(const Build *b, DimId d) {
    return b->g->dim[d.i].size;
}

static bool in_list(const DimId *d, uint32_t n, DimId x) {
    for (uint32_t i = 0; i < n; i++)
        if (d[i].i == x.i) return true;
    return false;
}

/* ---- items */
static int32_t item_of(const Build *b, ValueId v) {
    for (uint32_t i = 0; i < b->n->nitem; i++)
        if (b->n->item[i].v.i == v.i) return (int32_t)i;
    return NONE;
}

static uint32_t new_item(Build *b, ItemKind kind, ValueId v) {
    uint32_t i = b->n->nitem++;
    b->n->item[i] =
        (Item){.kind = kind, .v = v, .dt = value_type(b->g, v)->dt, .arg_in = NONE, .arg_out = NONE};
    return i;
}

static uint32_t operand_item(Build *b, ValueId v) {
    int32_t have = item_of(b, v);
    if (have >= 0) return (uint32_t)have;
    const Node *def = value_node(b->g, v);
    uint32_t i = new_item(b, def->op == OP_const ? IT_CONST : IT_LOAD, v);
    if (def->op == OP_const) {
        b->n->item[i].value = attr_float(b->g, def, "value");
        return i;
    }
    b->n->item[i].arg_in = (int32_t)b->n->narg;
    b->n->arg_dt[b->n->narg] = b->n->item[i].dt;
    b->n->arg[b->n->narg++] = v;
    return i;
}

static void add_node(Build *b, const Node *node) {
    uint32_t in[3] = {0};
    wm_check(b->e->a, node->nin <= 3 && node->nout == 1, "%s in a fusion group", op_info[node->op].name);
    for (uint32_t k = 0; k < node->nin; k++) in[k] = operand_item(b, b->g->operand[node->in0 + k]);
    uint32_t i = new_item(b, kind_of(node) == K_EW ? IT_EW : IT_REDUCE, (ValueId){node->out0});
    Item *t = &b->n->item[i];
    t->op = node->op;
    t->nin = node->nin;
    memcpy(t->in, in, sizeof in);
    if (t->kind == IT_REDUCE) b->n->reduces = true;
}

/* ---- the space */
static void find_space(Build *b) {
    const Type *space = NULL;
    const DimId *over = NULL;
    uint32_t nover = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        const Node *node = node_at(b, i);
        const Type *out = value_type(b->g, (ValueId){node->out0});
        if (kind_of(node) == K_REDUCE) {
            space = value_type(b->g, b->g->operand[node->in0]);
            nover = attr_dims(b->g, node, "over", &over);
            break;
        }
        if (!space || out->ndim > space->ndim) space = out;
    }
    DimId inner[MAX_DIMS];
    for (uint32_t i = 0; i < space->ndim; i++) {
        DimId d = space->dim[i];
        if (dim_size(b, d) == 1) continue;
        if (in_list(over, nover, d))
            inner[b->ninner++] = d;
        else
            b->dim[b->nouter++] = d;
    }
    if (!b->n->reduces && b->nouter > 0) inner[b->ninner++] = b->dim[--b->nouter];
    memcpy(b->dim + b->nouter, inner, b->ninner * sizeof *inner);
    uint32_t last = space->ndim;
    while (last > 0 && dim_size(b, space->dim[last - 1]) == 1) last--;
    b->n->column = b->n->reduces && b->ninner > 0 && last > 0 && !in_list(over, nover, space->dim[last - 1]);
}

static bool is_full(const Build *b, const Type *t) {
    for (uint32_t i = 0; i < b->ninner; i++)
        if (type_has(t, b->dim[b->nouter + i])) return true;
    return b->ninner == 0 && !b->n->reduces;
}

/* The rules that pass fuse keeps. */
static void check_item(const Build *b, const Item *t) {
    const Type *ty = value_type(b->g, t->v);
    uint32_t have = 0, all = b->nouter + b->ninner;
    for (uint32_t i = 0; i < ty->ndim; i++) {
        if (dim_size(b, ty->dim[i]) == 1) continue;
        wm_check(b->e->a, in_list(b->dim, all, ty->dim[i]), "group: value %u has a dim outside the space",
                 t->v.i);
        have++;
    }
    if (t->arg_out >= 0)
        wm_check(b->e->a, have == all || (b->n->reduces && have == b->nouter && !is_full(b, ty)),
                 "group: result %u covers neither the space nor its outer dims", t->v.i);
    if (t->kind != IT_REDUCE) return;
    const Node *node = value_node(b->g, t->v);
    const DimId *over;
    uint32_t nover = attr_dims(b->g, node, "over", &over), at = b->nouter, kept = 0;
    const Type *x = value_type(b->g, b->g->operand[node->in0]);
    int last = -1;
    for (uint32_t i = 0; i < x->ndim; i++) { /* inner dims in the order of the loops */
        if (dim_size(b, x->dim[i]) == 1) continue;
        last = in_list(over, nover, x->dim[i]);
        if (last)
            wm_check(b->e->a, at < all && b->dim[at++].i == x->dim[i].i,
                     "group: reductions over different dims");
        else
            kept++;
    }
    wm_check(b->e->a, at == all && kept == b->nouter, "group: reductions over different dims");
    wm_check(b->e->a, b->ninner == 0 || b->n->column == (last == 0),
             "group: reductions along and across the last dim");
}

/* ---- loops */
static bool in_memory(const Item *t) {
    return t->arg_in >= 0 || t->arg_out >= 0;
}

static void drop_loop(Nest *n, uint32_t at) {
    uint32_t all = n->nouter + n->ninner;
    for (uint32_t i = at; i + 1 < all; i++) n->size[i] = n->size[i + 1];
    for (uint32_t k = 0; k < n->nitem; k++)
        for (uint32_t i = at; i + 1 < all; i++) n->item[k].stride[i] = n->item[k].stride[i + 1];
}

static bool can_merge(const Nest *n, uint32_t i) {
    for (uint32_t k = 0; k < n->nitem; k++) {
        const Item *t = &n->item[k];
        if (in_memory(t) && t->stride[i] != t->stride[i + 1] * n->size[i + 1]) return false;
    }
    return true;
}

static void merge(Nest *n, uint32_t i) { /* loops i and i + 1 become one */
    n->size[i + 1] *= n->size[i];
    drop_loop(n, i);
}

/* Loops merge where all values in memory allow. In a reduction the last inner loop decides the lanes, so it
 * only takes in others if its lanes are full either way; without reductions all loops are free, and the last
 * one is the vector loop. */
static void make_loops(Build *b) {
    Nest *n = b->n;
    n->nouter = b->nouter;
    n->ninner = b->ninner;
    for (uint32_t i = 0; i < b->nouter + b->ninner; i++) n->size[i] = dim_size(b, b->dim[i]);
    for (uint32_t k = 0; k < n->nitem; k++)
        if (in_memory(&n->item[k]))
            emit_strides(b->e, n->item[k].v, b->dim, b->nouter + b->ninner, n->item[k].stride);
    if (n->ninner == 0) n->size[n->nouter + n->ninner++] = 1;
    for (uint32_t i = n->nouter + n->ninner - 1; i-- > 0;) {
        bool inner = i >= n->nouter, border = i + 1 == n->nouter;
        bool lanes = n->reduces && inner && i + 2 == n->nouter + n->ninner && n->size[i + 1] % LANES != 0 &&
                     !n->column;
        if ((border && n->reduces) || lanes || !can_merge(n, i)) continue;
        merge(n, i);
        if (inner || border)
            n->ninner -= inner, n->nouter -= border;
        else
            n->nouter--;
    }
}

/* What changes along which loop, from the operands upwards; levels; number of passes. */
static void classify(Build *b) {
    Nest *n = b->n;
    uint32_t vec = n->column ? n->nouter - 1 : n->nouter + n->ninner - 1;
    for (uint32_t k = 0; k < n->nitem; k++) {
        Item *t = &n->item[k];
        t->full = is_full(b, value_type(b->g, t->v));
        if (t->kind == IT_LOAD) {
            for (uint32_t i = n->nouter; i < n->nouter + n->ninner; i++) t->inner |= t->stride[i] != 0;
            t->vec = t->stride[vec] != 0;
        }
        for (uint32_t i = 0; i < t->nin; i++) {
            const Item *x = &n->item[t->in[i]];
            if (t->kind == IT_EW) t->inner |= x->inner, t->vec |= x->vec;
            if (x->level > t->level) t->level = x->level;
        }
        if (t->kind == IT_REDUCE) t->vec = n->column, t->level++;
        uint32_t loops = t->kind == IT_REDUCE ? t->level : t->arg_out >= 0 && t->full ? t->level + 1u : 0;
        if (loops > n->nloop) n->nloop = loops;
    }
}

static void add_outputs(Build *b) {
    Nest *n = b->n;
    for (uint32_t i = 0; i < b->count; i++) {
        ValueId v = {node_at(b, i)->out0};
        if (!emit_has_memory(b->e, v)) continue;
        Item *t = &n->item[item_of(b, v)];
        t->arg_out = (int32_t)n->narg;
        n->arg_dt[n->narg] = t->dt;
        n->arg[n->narg++] = v;
        n->nwrite++;
    }
}

static bool finish(Build *b) {
    Nest *n = b->n;
    Emit *e = b->e;
    Sbuf source;
    sb_init(&source, e->a);
    nest_print(n, e->level, &source);
    PlanAddr *arg = NEWN(e->a, PlanAddr, n->narg);
    int64_t *bytes = NEWN(e->a, int64_t, n->narg);
    for (uint32_t i = 0; i < n->narg; i++) {
        arg[i] = emit_value(e, n->arg[i]);
        bytes[i] = type_bytes(b->g, value_type(b->g, n->arg[i]));
    }
    const Node *node = node_at(b, 0);
    const char *shape = !n->reduces ? "" : n->column ? ", columns" : ", rows";
    const char *what = b->count == 1 ? arena_fmt(e->a, "%s %s%s", op_info[node->op].name,
                                                 dtype_name[n->item[n->nitem - 1].dt], shape)
                                     : arena_fmt(e->a, "fused %u nodes%s", b->count, shape);
    emit_launch(e, b->first, what, &source, arg, bytes, n->narg, n->nwrite);
    return true;
}

bool emit_group(Emit *e, NodeId first, uint32_t count) {
    Build b = {.e = e, .g = e->g, .n = NEW(e->a, Nest), .first = first, .count = count};
    wm_size most = 4 * (wm_size)count; /* a node brings itself and three operands */
    b.n->item = NEWN(e->a, Item, most);
    b.n->arg = NEWN(e->a, ValueId, most);
    b.n->arg_dt = NEWN(e->a, DType, most);
    for (uint32_t i = 0; i < count; i++) {
        const Node *node = node_at(&b, i);
        wm_check(e->a, kind_of(node) == K_EW || kind_of(node) == K_REDUCE, "%s in a fusion group",
                 op_info[node->op].name);
        add_node(&b, node);
    }
    add_outputs(&b);
    if (b.n->nwrite == 0) return true; /* nothing reads what it makes */
    find_space(&b);
    for (uint32_t k = 0; k < b.n->nitem; k++) check_item(&b, &b.n->item[k]);
    make_loops(&b);
    classify(&b);
    return finish(&b);
}
