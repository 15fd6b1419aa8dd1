/* schedule: ST_LOCAL -> ST_SCHEDULED. The total order of execution. Exact: only the order changes.
 *
 * A list scheduler over units (a fusion group or a single node), section by section. Values without a dim of
 * a model are cheap and come first; then backward before forward, then whatever reads the value made last
 * (depth first), then, of the forward, the highest id: gradients of what heads share are added from the last
 * head on. So a head runs through its loss and its own backward before another begins, and at most one head's
 * activations live. The last section first makes what is checked before a state may change. */
#include "passes/rewrite.h"

#include <string.h>

typedef struct {
    uint32_t first, count, waits;
    bool backward, light, early, sink, leaf;
} Unit;
typedef struct {
    Arena *a;
    const Graph *g;
    Unit *unit;
    uint32_t nunit;
    uint32_t *unit_of; /* by node */
    uint32_t *made;    /* by unit: 1 + its place in the order; 0: not yet */
    uint32_t *order;   /* units in their final order */
    uint32_t norder;
    Uses uses;
} Schedule;

static uint32_t def_unit(const Schedule *s, ValueId v) {
    return s->unit_of[s->g->value[v.i].def.i];
}
static uint32_t section_of(const Schedule *s, uint32_t u) {
    return s->g->node[s->unit[u].first].section;
}

static void find_units(Schedule *s) {
    const Graph *g = s->g;
    s->unit = NEWN(s->a, Unit, g->nnode + 1);
    s->unit_of = NEWN(s->a, uint32_t, g->nnode + 1);
    for (uint32_t i = 0; i < g->nnode; i++) {
        bool joins = i > 0 && g->node[i].group && g->node[i].group == g->node[i - 1].group;
        if (!joins) s->unit[s->nunit++].first = i;
        s->unit[s->nunit - 1].count++;
        s->unit_of[i] = s->nunit - 1;
        wm_check(s->a, !joins || g->node[i].section == g->node[i - 1].section,
                 "group %u lies in two sections", g->node[i].group);
    }
}

static void describe(Schedule *s) {
    const Graph *g = s->g;
    const bool *wide = model_dims(s->a, g);
    for (uint32_t u = 0; u < s->nunit; u++) {
        Unit *x = &s->unit[u];
        x->light = x->sink = true;
        x->leaf = op_info[g->node[x->first].op].flags & F_LEAF && section_of(s, u) == 0;
        for (uint32_t i = x->first; i < x->first + x->count; i++) {
            const Node *n = &g->node[i];
            if (n->flags & N_BWD) x->backward = true;
            for (uint32_t v = n->out0; v < n->out0 + n->nout; v++) {
                const Type *t = &g->value[v].ty;
                if (type_heavy(wide, t)) x->light = false;
                for (uint32_t k = s->uses.use0[v]; k < s->uses.use0[v + 1]; k++) {
                    const Node *reader = &g->node[s->uses.use[k].i];
                    uint32_t ru = s->unit_of[s->uses.use[k].i];
                    if (ru != u && reader->section == n->section) x->sink = false;
                }
            }
        }
    }
}

/* In the last section: what the results other than next values are made of. */
static void mark_early(Schedule *s) {
    const Graph *g = s->g;
    uint32_t last = graph_sections(g) - 1;
    for (uint32_t k = 0; k < g->nresult; k++)
        if (strcmp(g->result[k].kind, "next") != 0) s->unit[def_unit(s, g->result[k].v)].early = true;
    for (uint32_t u = s->nunit; u-- > 0;) {
        if (section_of(s, u) != last) s->unit[u].early = false;
        if (!s->unit[u].early) continue;
        for (uint32_t i = s->unit[u].first; i < s->unit[u].first + s->unit[u].count; i++)
            for (uint32_t k = 0; k < g->node[i].nin; k++)
                s->unit[def_unit(s, g->operand[g->node[i].in0 + k])].early = true;
    }
}

/* Place of the newest operand that this section made; 0: none. */
static uint32_t newest(const Schedule *s, uint32_t u) {
    const Graph *g = s->g;
    uint32_t best = 0;
    for (uint32_t i = s->unit[u].first; i < s->unit[u].first + s->unit[u].count; i++) {
        for (uint32_t k = 0; k < g->node[i].nin; k++) {
            uint32_t p = def_unit(s, g->operand[g->node[i].in0 + k]);
            if (p != u && section_of(s, p) == section_of(s, u) && s->made[p] > best) best = s->made[p];
        }
    }
    return best;
}

typedef struct {
    uint32_t unit, newest;
} Ready;

static bool better(const Schedule *s, Ready a, Ready b) {
    const Unit *x = &s->unit[a.unit], *y = &s->unit[b.unit];
    if (x->leaf != y->leaf) return x->leaf; /* states keep their order, whatever is scheduled */
    if (x->leaf) return a.unit < b.unit;
    if (x->early != y->early) return x->early;
    if (x->light != y->light) return x->light;
    if (x->light) return a.unit < b.unit;
    if (x->backward != y->backward) return x->backward;
    if (a.newest != b.newest) return a.newest > b.newest;
    if (x->sink != y->sink) return x->sink;
    return x->backward ? a.unit < b.unit : a.unit > b.unit;
}

/* The units of one section, in an order that is legal already. */
static void order_section(Schedule *s, const uint32_t *list, uint32_t n) {
    const Graph *g = s->g;
    Ready *ready = NEWN(s->a, Ready, n + 1);
    uint32_t nready = 0, end = s->norder + n;
    uint32_t *seen = NEWN(s->a, uint32_t, s->nunit + 1); /* 1 + the unit whose operands were counted last */
    for (uint32_t j = 0; j < n; j++) {
        uint32_t u = list[j];
        for (uint32_t i = s->unit[u].first; i < s->unit[u].first + s->unit[u].count; i++) {
            for (uint32_t k = 0; k < g->node[i].nin; k++) {
                uint32_t p = def_unit(s, g->operand[g->node[i].in0 + k]);
                if (p == u || section_of(s, p) != section_of(s, u) || seen[p] == u + 1) continue;
                seen[p] = u + 1;
                s->unit[u].waits++;
            }
        }
        if (!s->unit[u].waits) ready[nready++] = (Ready){u, 0};
    }
    memset(seen, 0, (s->nunit + 1) * sizeof *seen);
    while (nready) {
        uint32_t best = 0;
        for (uint32_t k = 1; k < nready; k++)
            if (better(s, ready[k], ready[best])) best = k;
        uint32_t u = ready[best].unit;
        ready[best] = ready[--nready];
        s->order[s->norder++] = u;
        s->made[u] = s->norder;
        for (uint32_t i = s->unit[u].first; i < s->unit[u].first + s->unit[u].count; i++) {
            for (uint32_t v = g->node[i].out0; v < g->node[i].out0 + g->node[i].nout; v++) {
                for (uint32_t k = s->uses.use0[v]; k < s->uses.use0[v + 1]; k++) {
                    uint32_t w = s->unit_of[s->uses.use[k].i];
                    if (w == u || section_of(s, w) != section_of(s, u) || seen[w] == u + 1) continue;
                    seen[w] = u + 1;
                    if (--s->unit[w].waits == 0) ready[nready++] = (Ready){w, newest(s, w)};
                }
            }
        }
    }
    wm_check(s->a, s->norder == end, "the units of a section depend on one another in a circle");
}

static Graph *rebuild(Schedule *s) {
    const Graph *g = s->g;
    Graph *r = graph_like(s->a, g);
    ValueId *map = NEWN(s->a, ValueId, g->nvalue + 1);
    uint32_t *place = NEWN(s->a, uint32_t, g->nnode + 1);
    memset(map, 0xff, (g->nvalue + 1) * sizeof *map);
    for (uint32_t k = 0; k < s->norder; k++) {
        const Unit *x = &s->unit[s->order[k]];
        for (uint32_t i = x->first; i < x->first + x->count; i++)
            place[i] = graph_copy_node(r, g, (NodeId){i}, map).i;
    }
    for (uint32_t i = 0; i < g->nnode; i++) /* an origin may now stand behind */
        r->node[place[i]].origin = g->node[i].origin < 0 ? NONE : (int32_t)place[g->node[i].origin];
    graph_copy_results(r, g, map);
    r->stage = ST_SCHEDULED;
    return r;
}

Graph *pass_schedule(Arena *a, const Graph *g, const PassOptions *o, Diags *d) {
    (void)d;
    Schedule s = {.a = a, .g = g, .uses = graph_uses(a, g)};
    find_units(&s);
    s.made = NEWN(a, uint32_t, s.nunit + 1);
    s.order = NEWN(a, uint32_t, s.nunit + 1);
    describe(&s);
    mark_early(&s);
    uint32_t *list = NEWN(a, uint32_t, s.nunit + 1);
    for (uint32_t section = 0, last = graph_sections(g); section < last; section++) {
        uint32_t n = 0;
        for (uint32_t u = 0; u < s.nunit; u++)
            if (section_of(&s, u) == section) list[n++] = u;
        if (!o->off_schedule)
            order_section(&s, list, n);
        else
            for (uint32_t k = 0; k < n; k++) s.order[s.norder++] = list[k];
    }
    return rebuild(&s);
}
