/* memplan: ST_SCHEDULED -> ST_PLANNED. Gives every value its arena, offset and stride, every node its
 * scratch. Exact.
 *
 * Values that must be one memory form a buffer: a value and its micro_stack and micro_slices, a leaf of a
 * micro-batch and its micro_sum when G = 1, a parameter and its next value when the update is the last to
 * read the old one, an operand and the result of an element-wise unit in which it dies. A buffer lives over
 * units (a fusion group or a node); what outlives a micro-batch lives over its whole section. Buffers are
 * placed one after the other (largest first, longest first, ..: the best of a few orders), each into the
 * smallest gap that holds it. Ties by id. */
#include "passes/passes.h"

#include <string.h>

enum { STATE = 0, WORK = 1, ALIGN = 64 };
typedef struct {
    int64_t bytes, off;
    uint32_t from, to;
    bool used, state, stacked;
} Buffer;
typedef struct {
    uint32_t first, count, section;
} Unit;

typedef struct {
    Arena *a;
    const Graph *g;
    const PassOptions *o;
    Graph *r;
    int64_t micro;
    Unit *unit;
    uint32_t nunit, nsection;
    uint32_t *unit_of;     /* by node */
    uint32_t *begin, *end; /* by section: its first and last unit */
    Uses uses;
    bool *is_result; /* by value */
    bool *bare;      /* by value: has no memory */
    uint32_t *join;  /* by value: union-find */
    Buffer *buffer;  /* by representative value, then scratch by node */
    uint32_t nbuffer;
} Memplan;

static const Node *node_of(const Memplan *m, ValueId v) {
    return value_node(m->g, v);
}
static uint32_t unit_at(const Memplan *m, ValueId v) {
    return m->unit_of[m->g->value[v.i].def.i];
}
static bool has_micro(const Memplan *m, const Type *t) {
    return m->g->micro.i < m->g->ndim && type_has(t, m->g->micro);
}
static uint32_t find(const Memplan *m, uint32_t v) {
    while (m->join[v] != v) v = m->join[v] = m->join[m->join[v]];
    return v;
}
static void unite(Memplan *m, ValueId a, ValueId b) {
    uint32_t x = find(m, a.i), y = find(m, b.i);
    if (x < y)
        m->join[y] = x;
    else
        m->join[x] = y;
}
static bool is_view(Op op) {
    return op == OP_micro_stack || op == OP_micro_slice;
}
static bool is_state(Op op) {
    return op == OP_param || op == OP_state;
}

static void find_units(Memplan *m) {
    const Graph *g = m->g;
    m->unit = NEWN(m->a, Unit, g->nnode + 1);
    m->unit_of = NEWN(m->a, uint32_t, g->nnode + 1);
    m->nsection = graph_sections(g);
    m->begin = NEWN(m->a, uint32_t, m->nsection + 1);
    m->end = NEWN(m->a, uint32_t, m->nsection + 1);
    memset(m->begin, 0xff, m->nsection * sizeof *m->begin);
    for (uint32_t i = 0; i < g->nnode; i++) {
        uint32_t s = g->node[i].section;
        if (i == 0 || !g->node[i].group || g->node[i].group != g->node[i - 1].group)
            m->unit[m->nunit++] = (Unit){i, 0, s};
        m->unit[m->nunit - 1].count++;
        m->unit_of[i] = m->nunit - 1;
        if (m->begin[s] == UINT32_MAX) m->begin[s] = m->nunit - 1;
        m->end[s] = m->nunit - 1;
    }
}

/* ---- which values have memory */
static bool inline_reader(const Node *n) {
    return op_info[n->op].kind == K_EW || op_info[n->op].kind == K_REDUCE;
}

static bool has_no_memory(const Memplan *m, ValueId v) {
    const Graph *g = m->g;
    const Node *n = node_of(m, v);
    if (m->is_result[v.i] || n->op == OP_input || n->op == OP_scalar || is_state(n->op)) return false;
    for (uint32_t k = m->uses.use0[v.i]; k < m->uses.use0[v.i + 1]; k++) {
        const Node *reader = &g->node[m->uses.use[k].i];
        bool inside = n->group && reader->group == n->group && reader->section == n->section;
        if (!inside && !(n->op == OP_const && inline_reader(reader))) return false;
    }
    return true;
}

/* ---- buffers: which values are one memory */
static bool same_element(const Memplan *m, const Node *n, const Type *t) {
    return op_info[n->op].kind == K_EW && n->op != OP_expand && type_equal(&m->g->value[n->out0].ty, t);
}

/* May the next value nv lie on the state v? The unit that makes it must be element-wise throughout, the last
 * reader of the old value, and run after everything that is checked. */
static bool on_state(const Memplan *m, ValueId v, ValueId nv, uint32_t checked) {
    const Graph *g = m->g;
    uint32_t u = unit_at(m, nv);
    const Type *t = value_type(g, v), *tn = value_type(g, nv);
    if (m->o->off_memplan || m->is_result[v.i] || u <= checked || is_state(node_of(m, nv)->op)) return false;
    if (t->dt != tn->dt || t->ndim != tn->ndim || !type_equal(t, tn)) return false;
    for (uint32_t k = m->uses.use0[v.i]; k < m->uses.use0[v.i + 1]; k++)
        if (m->unit_of[m->uses.use[k].i] > u) return false;
    for (uint32_t i = m->unit[u].first; i < m->unit[u].first + m->unit[u].count; i++) {
        const Node *n = &g->node[i];
        bool reads = false;
        for (uint32_t k = 0; k < n->nin; k++) reads |= g->operand[n->in0 + k].i == v.i;
        if (n->op == OP_const) continue;
        if (op_info[n->op].kind != K_EW) return false;
        if (reads && !same_element(m, n, t)) return false;
    }
    return same_element(m, node_of(m, nv), t);
}

/* The leaf whose value a result `next NAME` replaces. Parameters are MODEL/NAME, states go by their name. */
static bool is_next_of(Memplan *m, const Node *n, const char *name) {
    const Graph *g = m->g;
    if (n->op == OP_state) return strcmp(attr_str(g, n, "name"), name) == 0;
    if (n->op != OP_param) return false;
    size_t len = strlen(attr_str(g, n, "model"));
    return strncmp(name, attr_str(g, n, "model"), len) == 0 && name[len] == '/' &&
           strcmp(name + len + 1, attr_str(g, n, "name")) == 0;
}

static void join_next(Memplan *m) {
    const Graph *g = m->g;
    uint32_t checked = 0;
    bool *taken = NEWN(m->a, bool, g->nvalue + 1);
    StrMap *leaf = strmap_new(m->a);
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (n->op == OP_param)
            strmap_put(leaf, arena_fmt(m->a, "%s/%s", attr_str(g, n, "model"), attr_str(g, n, "name")), i);
        if (n->op == OP_state) strmap_put(leaf, attr_str(g, n, "name"), i);
    }
    for (uint32_t k = 0; k < g->nresult; k++) {
        const char *kind = g->result[k].kind;
        if (strcmp(kind, "total") != 0 && strcmp(kind, "loss") != 0 && strcmp(kind, "grad_norm") != 0)
            continue;
        if (unit_at(m, g->result[k].v) > checked) checked = unit_at(m, g->result[k].v);
    }
    for (uint32_t k = 0; k < g->nresult; k++) {
        const Result *x = &g->result[k];
        uint32_t i;
        if (strcmp(x->kind, "next") != 0) continue;
        wm_check(m->a, strmap_get(leaf, x->name, &i) && is_next_of(m, &g->node[i], x->name),
                 "next value of '%s', which is neither a parameter nor a state", x->name);
        ValueId v = {g->node[i].out0};
        if (taken[x->v.i] || !on_state(m, v, x->v, checked)) continue;
        taken[x->v.i] = true;
        unite(m, v, x->v);
    }
}

/* Is the unit nothing but element-wise nodes? */
static bool element_wise(const Memplan *m, uint32_t u) {
    for (uint32_t i = m->unit[u].first; i < m->unit[u].first + m->unit[u].count; i++)
        if (m->g->node[i].op != OP_const && op_info[m->g->node[i].op].kind != K_EW) return false;
    return true;
}

/* Does v die in unit u, which reads it at the element that it writes, and in which it was made in the same
 * section? */
static bool dies_in(const Memplan *m, ValueId v, uint32_t u) {
    const Graph *g = m->g;
    const Node *def = node_of(m, v);
    const Type *t = value_type(g, v);
    OpKind kind = op_info[def->op].kind;
    if (m->bare[v.i] || m->is_result[v.i] || kind == K_LEAF || kind == K_TREE ||
        m->unit_of[g->value[v.i].def.i] == u)
        return false;
    if (def->section != m->unit[u].section) return false;
    for (uint32_t k = m->uses.use0[v.i]; k < m->uses.use0[v.i + 1]; k++) {
        uint32_t r = m->uses.use[k].i;
        if (op_info[g->node[r].op].kind == K_TREE || m->unit_of[r] > u) return false;
        if (m->unit_of[r] == u && !same_element(m, &g->node[r], t)) return false;
    }
    return true;
}

static bool is_stacked(const Memplan *m, ValueId v) {
    for (uint32_t k = m->uses.use0[v.i]; k < m->uses.use0[v.i + 1]; k++)
        if (is_view(m->g->node[m->uses.use[k].i].op)) return true;
    return is_view(node_of(m, v)->op);
}

/* A result of an element-wise unit takes over the memory of an operand that dies there: w += d needs no third
 * array. */
static void join_in_place(Memplan *m) {
    const Graph *g = m->g;
    bool *taken = NEWN(m->a, bool, g->nvalue + 1);
    for (uint32_t i = 0; i < g->nnode && !m->o->off_memplan; i++) {
        const Node *n = &g->node[i];
        ValueId v = {n->out0};
        uint32_t u = m->unit_of[i];
        if (op_info[n->op].kind != K_EW || m->bare[v.i] || find(m, v.i) != v.i || is_stacked(m, v) ||
            !element_wise(m, u))
            continue;
        for (uint32_t j = m->unit[u].first; j < m->unit[u].first + m->unit[u].count && !taken[v.i]; j++) {
            for (uint32_t k = 0; k < g->node[j].nin && !taken[v.i]; k++) {
                ValueId w = g->operand[g->node[j].in0 + k];
                if (taken[w.i] || !type_equal(value_type(g, w), value_type(g, v)) || !dies_in(m, w, u))
                    continue;
                unite(m, v, w);
                taken[w.i] = taken[v.i] = true;
            }
        }
        taken[v.i] = false; /* as an operand it may be taken over in its turn */
    }
}

static void join_values(Memplan *m) {
    const Graph *g = m->g;
    for (uint32_t v = 0; v < g->nvalue; v++) m->join[v] = v;
    for (uint32_t i = 0; i < g->nnode; i++) {
        const Node *n = &g->node[i];
        if (is_view(n->op) || (n->op == OP_micro_sum && m->micro == 1))
            unite(m, g->operand[n->in0], (ValueId){n->out0});
    }
    join_next(m);
    join_in_place(m);
}

/* ---- lifetimes */
static void live(Buffer *b, uint32_t from, uint32_t to) {
    if (!b->used) {
        b->from = from;
        b->to = to;
    }
    b->used = true;
    if (from < b->from) b->from = from;
    if (to > b->to) b->to = to;
}

/* v is read in unit q. What was not made in the same micro-batch must outlive the section. */
static void live_use(const Memplan *m, Buffer *b, ValueId v, uint32_t q) {
    uint32_t s = m->unit[q].section, def = m->unit[unit_at(m, v)].section;
    bool view = is_view(node_of(m, v)->op);
    live(b, q, q);
    if ((s & 1) && (def != s || view)) live(b, q, m->end[s]);
}

static void live_value(const Memplan *m, ValueId v) {
    const Graph *g = m->g;
    const Node *n = node_of(m, v);
    Buffer *b = &m->buffer[find(m, v.i)];
    uint32_t u = unit_at(m, v), last = m->nunit - 1;
    int64_t bytes = type_bytes(g, value_type(g, v));
    if (bytes > b->bytes) b->bytes = bytes;
    if (is_state(n->op)) b->state = true;
    if (has_micro(m, value_type(g, v))) b->stacked = true;
    live(b, u, u);
    if (n->op == OP_input) live(b, 0, u);
    if (n->op == OP_scalar || m->is_result[v.i]) live(b, n->op == OP_scalar ? 0 : u, last);
    if (n->op == OP_micro_sum) {
        uint32_t leaf = unit_at(m, g->operand[n->in0]), ls = m->unit[leaf].section;
        live(b, m->micro == 1 ? leaf : m->begin[ls], m->end[ls]);
    }
    if (n->op == OP_micro_stack) {
        uint32_t made = m->unit[unit_at(m, g->operand[n->in0])].section;
        live(b, m->begin[made], m->end[made]);
    }
    for (uint32_t k = m->uses.use0[v.i]; k < m->uses.use0[v.i + 1]; k++) {
        NodeId reader = m->uses.use[k];
        Op op = g->node[reader.i].op;
        if (is_view(op)) continue;
        if (op == OP_micro_sum)
            live(b, u, u); /* added right after it was made */
        else
            live_use(m, b, v, m->unit_of[reader.i]);
    }
    if (m->o->off_memplan) live(b, 0, last);
}

/* The stack of partial sums is floor(log2 G) deep; the sum itself is its lowest. */
static int64_t level_bytes(const Memplan *m, const Node *n) {
    int64_t levels = 0;
    while (m->micro >> (levels + 2)) levels++;
    return levels * type_bytes(m->g, &m->g->value[n->out0].ty);
}

/* Scratch of node i: buffer nvalue + i. The levels of a sum over micro-batches are its scratch too. */
static void live_scratch(Memplan *m, uint32_t i) {
    const Node *n = &m->g->node[i];
    Buffer *b = &m->buffer[m->g->nvalue + i];
    uint32_t u = m->unit_of[i];
    if (n->op == OP_micro_sum) {
        uint32_t s = m->unit[unit_at(m, m->g->operand[n->in0])].section;
        b->bytes = level_bytes(m, n);
        if (b->bytes) live(b, m->begin[s], m->end[s]);
    } else {
        b->bytes = node_workspace(m->g, n);
        if (b->bytes) live(b, u, u);
    }
    if (m->o->off_memplan && b->bytes) live(b, 0, m->nunit - 1);
}

/* ---- offsets */
/* Orders in which buffers are placed; the one that needs the least memory is kept. All end in ties by id. */
typedef double (*KeyFn)(const Buffer *b);
static double by_bytes(const Buffer *b) {
    return (double)b->bytes;
}
static double by_area(const Buffer *b) {
    return (double)b->bytes * ((double)(b->to - b->from) + 1);
}
static double by_life(const Buffer *b) {
    return (double)(b->to - b->from) + (double)b->bytes * 1e-15;
}
static double by_start(const Buffer *b) {
    return -(double)b->from;
}

typedef struct {
    double key;
    uint32_t id;
} Keyed;
static bool goes_first(Keyed x, Keyed y) {
    return x.key != y.key ? x.key > y.key : x.id < y.id;
}

/* Merge sort: the order must not depend on the C library. */
static void sort_keyed(Keyed *item, Keyed *tmp, uint32_t n) {
    if (n < 2) return;
    uint32_t h = n / 2, i = 0, j = h, k = 0;
    sort_keyed(item, tmp, h);
    sort_keyed(item + h, tmp, n - h);
    while (i < h && j < n) tmp[k++] = goes_first(item[j], item[i]) ? item[j++] : item[i++];
    while (i < h) tmp[k++] = item[i++];
    while (j < n) tmp[k++] = item[j++];
    memcpy(item, tmp, n * sizeof *item);
}

/* `placed` is sorted by offset. The smallest gap among the buffers that live at the same time, or behind them
 * all. */
static int64_t best_gap(const Memplan *m, const uint32_t *placed, uint32_t nplaced, const Buffer *b) {
    int64_t top = 0, best = -1, best_size = INT64_MAX;
    for (uint32_t k = 0; k < nplaced; k++) {
        const Buffer *c = &m->buffer[placed[k]];
        if (c->to < b->from || b->to < c->from) continue;
        int64_t gap = c->off - top;
        if (gap >= b->bytes && gap < best_size) {
            best = top;
            best_size = gap;
        }
        if (c->off + c->bytes > top) top = c->off + c->bytes;
    }
    return best >= 0 ? best : top;
}

/* Places the buffers in the order of `key`; the bytes needed. */
static int64_t place_by(Memplan *m, KeyFn key, Keyed *item, Keyed *tmp, uint32_t *placed) {
    uint32_t n = 0, nplaced = 0;
    int64_t total = 0;
    for (uint32_t k = 0; k < m->nbuffer; k++)
        if (m->buffer[k].used && !m->buffer[k].state) item[n++] = (Keyed){key(&m->buffer[k]), k};
    sort_keyed(item, tmp, n);
    for (uint32_t k = 0; k < n; k++) {
        Buffer *b = &m->buffer[item[k].id];
        b->off = best_gap(m, placed, nplaced, b);
        uint32_t at = nplaced++;
        for (; at > 0 && m->buffer[placed[at - 1]].off > b->off; at--) placed[at] = placed[at - 1];
        placed[at] = item[k].id;
        if (b->off + b->bytes > total) total = b->off + b->bytes;
    }
    return total;
}

static int64_t place_work(Memplan *m) {
    static const KeyFn keys[] = {by_bytes, by_area, by_life, by_start};
    Keyed *item = NEWN(m->a, Keyed, m->nbuffer + 1), *tmp = NEWN(m->a, Keyed, m->nbuffer + 1);
    uint32_t *placed = NEWN(m->a, uint32_t, m->nbuffer + 1);
    int64_t least = INT64_MAX, total = 0;
    KeyFn best = keys[0], last = NULL;
    for (size_t k = 0; k < WM_LEN(keys); k++) {
        total = place_by(m, last = keys[k], item, tmp, placed);
        if (total >= least) continue;
        least = total;
        best = keys[k];
    }
    return best == last ? total : place_by(m, best, item, tmp, placed);
}

static int64_t place_state(Memplan *m) {
    int64_t total = 0;
    for (uint32_t i = 0; i < m->g->nnode; i++) {
        if (!is_state(m->g->node[i].op)) continue;
        Buffer *b = &m->buffer[find(m, m->g->node[i].out0)];
        b->off = total;
        total += b->bytes;
    }
    return total;
}

/* ---- result */
static void write_back(Memplan *m) {
    Graph *r = m->r;
    for (uint32_t v = 0; v < r->nvalue; v++) {
        if (m->bare[v]) continue;
        const Buffer *b = &m->buffer[find(m, v)];
        Value *x = &r->value[v];
        bool whole = has_micro(m, &x->ty);
        int64_t bytes = type_bytes(r, &x->ty);
        x->arena = b->state ? STATE : WORK;
        x->off = b->off;
        x->stride = m->micro == 1 || !b->stacked ? 0 : whole ? bytes / m->micro : bytes;
    }
    for (uint32_t i = 0; i < r->nnode; i++) {
        const Buffer *b = &m->buffer[r->nvalue + i];
        r->node[i].ws_bytes = b->bytes;
        r->node[i].ws_off = b->off;
    }
}

static Graph *copy_graph(Arena *a, const Graph *g) {
    Graph *r = graph_like(a, g);
    ValueId *map = NEWN(a, ValueId, g->nvalue + 1);
    for (uint32_t i = 0; i < g->nnode; i++) graph_copy_node(r, g, (NodeId){i}, map);
    for (uint32_t i = 0; i < g->nnode; i++) r->node[i].origin = g->node[i].origin;
    graph_copy_results(r, g, map);
    r->stage = ST_PLANNED;
    return r;
}

Graph *pass_memplan(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    (void)d;
    Memplan m = {.a = a,
                 .g = g,
                 .o = o,
                 .r = copy_graph(a, g),
                 .uses = graph_uses(a, g),
                 .nbuffer = g->nvalue + g->nnode};
    m.micro = g->micro.i < g->ndim ? g->dim[g->micro.i].size : 1;
    m.is_result = NEWN(a, bool, g->nvalue + 1);
    m.bare = NEWN(a, bool, g->nvalue + 1);
    m.join = NEWN(a, uint32_t, g->nvalue + 1);
    m.buffer = NEWN(a, Buffer, m.nbuffer + 1);
    find_units(&m);
    for (uint32_t k = 0; k < g->nresult; k++) m.is_result[g->result[k].v.i] = true;
    for (uint32_t v = 0; v < g->nvalue; v++) m.bare[v] = has_no_memory(&m, (ValueId){v});
    join_values(&m);
    for (uint32_t v = 0; v < g->nvalue; v++)
        if (!m.bare[v]) live_value(&m, (ValueId){v});
    for (uint32_t i = 0; i < g->nnode; i++) live_scratch(&m, i);
    for (uint32_t k = 0; k < m.nbuffer; k++)
        m.buffer[k].bytes = (m.buffer[k].bytes + ALIGN - 1) / ALIGN * ALIGN;
    m.r->arena_bytes[STATE] = place_state(&m);
    m.r->arena_bytes[WORK] = place_work(&m);
    write_back(&m);
    return m.r;
}
