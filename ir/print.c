/* print.c: the text form. Ids are dense and in order and every type is written, so equal graphs print equally
 * and a line-wise diff of two stages shows what a pass did. Locations print only on request and do not count.
 */
#include "ir/internal.h"

#include <string.h>

bool ir_bare_name(const char *s) {
    for (size_t k = 0; s[k]; k++) {
        bool letter = (s[k] >= 'a' && s[k] <= 'z') || (s[k] >= 'A' && s[k] <= 'Z') || s[k] == '_';
        if (!letter && !(k > 0 && ((s[k] >= '0' && s[k] <= '9') || s[k] == '.'))) return false;
    }
    return s[0] != 0 && strcmp(s, "graph") != 0; /* that word ends the line of dims */
}

/* Control bytes, and all bytes beyond ASCII of text that is not UTF-8, as \xHH. */
static void put_quoted(Sbuf *b, const char *s) {
    size_t n = strlen(s), bad;
    bool utf8 = text_utf8_ok(s, n, &bad);
    sb_chr(b, '"');
    for (size_t k = 0; k < n; k++) {
        unsigned char c = (unsigned char)s[k];
        if (c == '"' || c == '\\') {
            sb_chr(b, '\\');
            sb_chr(b, s[k]);
        } else if (c < 32 || c == 127 || (c > 127 && !utf8)) {
            sb_fmt(b, "\\x%02x", c);
        } else {
            sb_chr(b, s[k]);
        }
    }
    sb_chr(b, '"');
}
static void put_name(Sbuf *b, const char *s) {
    if (ir_bare_name(s))
        sb_str(b, s);
    else
        put_quoted(b, s);
}
static void put_dim(Sbuf *b, const Graph *g, DimId d) {
    put_name(b, g->dim[d.i].name);
}
static void put_type(Sbuf *b, const Graph *g, const Type *t) {
    sb_str(b, dtype_name[t->dt]);
    sb_chr(b, '[');
    for (int k = 0; k < t->ndim; k++) {
        if (k) sb_chr(b, ',');
        put_dim(b, g, t->dim[k]);
    }
    sb_chr(b, ']');
}

static void put_list(Sbuf *b, const Graph *g, const Attr *a) {
    sb_chr(b, '[');
    for (uint32_t k = 0; k < a->u.list.n; k++) {
        uint32_t i = a->u.list.at + k;
        if (k) sb_chr(b, ',');
        if (a->kind == AT_DIMS) put_dim(b, g, g->dimlist[i]);
        if (a->kind == AT_INTS) sb_fmt(b, "%lld", (long long)g->intlist[i]);
        if (a->kind == AT_FLOATS) sb_double(b, g->floatlist[i]);
    }
    sb_chr(b, ']');
}
static void put_attr(Sbuf *b, const Graph *g, const char *name, const Attr *a) {
    if (a->kind == AT_NONE) return;
    sb_fmt(b, " %s=", name);
    switch (a->kind) {
    case AT_INT:
        sb_fmt(b, "%lld", (long long)a->u.i);
        break;
    case AT_FLOAT:
        sb_double(b, a->u.f);
        break;
    case AT_BOOL:
        sb_str(b, a->u.b ? "true" : "false");
        break;
    case AT_STR:
        put_quoted(b, a->u.s);
        break;
    case AT_DIM:
        put_dim(b, g, a->u.dim);
        break;
    case AT_DT:
        sb_str(b, dtype_name[a->u.dt]);
        break;
    case AT_DIMS:
    case AT_INTS:
    case AT_FLOATS:
        put_list(b, g, a);
        break;
    case AT_NONE:
        break;
    }
}

static void put_loc(Sbuf *b, const Loc *l) {
    sb_str(b, " @");
    put_quoted(b, l->file);
    sb_fmt(b, ":%u:%u:%u:%u", l->line, l->col, l->at, l->len);
}

static void put_labels(Sbuf *b, const Graph *g, const Node *n) {
    static const struct {
        unsigned bit;
        const char *name;
    } flags[] = {{N_BWD, " bwd"}, {N_REMAT, " remat"}};
    for (size_t k = 0; k < WM_LEN(flags); k++)
        if (n->flags & flags[k].bit) sb_str(b, flags[k].name);
    if (n->section) sb_fmt(b, " section=%u", n->section);
    if (n->group) sb_fmt(b, " group=%u", n->group);
    if (n->origin >= 0) sb_fmt(b, " origin=%%%u", g->node[n->origin].out0);
    if (n->ws_bytes || n->ws_off) sb_fmt(b, " ws=%lld+%lld", (long long)n->ws_bytes, (long long)n->ws_off);
}

static void put_node(Sbuf *b, const Graph *g, const Node *n, bool with_loc) {
    const OpInfo *f = &op_info[n->op];
    for (uint32_t k = 0; k < n->nout; k++) sb_fmt(b, k ? ", %%%u" : "  %%%u", n->out0 + k);
    sb_fmt(b, " = %s", f->name);
    for (uint32_t k = 0; k < n->nin; k++) sb_fmt(b, k ? ", %%%u" : " %%%u", g->operand[n->in0 + k].i);
    for (int k = 0; k < f->nattr; k++) put_attr(b, g, f->attr[k].name, &n->attr[k]);
    sb_str(b, " :");
    for (uint32_t k = 0; k < n->nout; k++) {
        const Value *v = &g->value[n->out0 + k];
        sb_str(b, k ? ", " : " ");
        put_type(b, g, &v->ty);
        if (v->arena >= 0 || v->off || v->stride) sb_fmt(b, " at=%d+%lld", v->arena, (long long)v->off);
        if (v->stride) sb_fmt(b, "~%lld", (long long)v->stride);
    }
    put_labels(b, g, n);
    if (n->path[0]) {
        sb_str(b, " @");
        put_quoted(b, n->path);
    }
    if (with_loc && n->loc.file) put_loc(b, &n->loc);
    sb_chr(b, '\n');
}

static void put_dims(Sbuf *b, const Graph *g) {
    if (g->ndim) sb_str(b, "dim");
    for (uint32_t k = 0; k < g->ndim; k++) {
        const Dim *d = &g->dim[k];
        sb_chr(b, ' ');
        put_name(b, d->name);
        sb_fmt(b, "=%lld", (long long)d->size);
        if (d->padded != d->size) sb_fmt(b, "/%lld", (long long)d->padded);
        if (d->ragged) sb_str(b, ":ragged");
    }
    if (g->ndim) sb_chr(b, '\n');
}

static void put_header(Sbuf *b, const Graph *g) {
    sb_str(b, "graph ");
    put_quoted(b, g->name);
    sb_fmt(b, " stage=%s phase=", stage_name[g->stage]);
    put_name(b, g->phase);
    if (g->micro.i < g->ndim) {
        sb_str(b, " micro=");
        put_dim(b, g, g->micro);
    }
    if (g->batch.i < g->ndim) {
        sb_str(b, " batch=");
        put_dim(b, g, g->batch);
    }
    if (g->clip_norm != 0) {
        sb_str(b, " clip_norm=");
        sb_double(b, g->clip_norm);
    }
    if (g->arena_bytes[0] || g->arena_bytes[1])
        sb_fmt(b, " state=%lld work=%lld", (long long)g->arena_bytes[0], (long long)g->arena_bytes[1]);
    sb_str(b, " {\n");
}

static void put_opt(Sbuf *b, const Opt *o, bool with_loc) {
    const struct {
        const char *name;
        double v;
    } f[] = {{"b1", o->b1}, {"b2", o->b2}, {"eps", o->eps}, {"wd", o->wd}, {"momentum", o->momentum}};
    sb_str(b, "  opt ");
    put_name(b, o->kind);
    if (value_is(o->lr)) sb_fmt(b, " lr=%%%u", o->lr.i);
    for (size_t k = 0; k < WM_LEN(f); k++) {
        sb_fmt(b, " %s=", f[k].name);
        sb_double(b, f[k].v);
    }
    if (with_loc && o->loc.file) put_loc(b, &o->loc);
    sb_chr(b, '\n');
}

void graph_print(const Graph *g, Sbuf *b, bool with_loc) {
    sb_str(b, "wir 1\n");
    put_dims(b, g);
    put_header(b, g);
    for (uint32_t k = 0; k < g->nnode; k++) put_node(b, g, &g->node[k], with_loc);
    for (uint32_t k = 0; k < g->nresult; k++) {
        const Result *r = &g->result[k];
        sb_str(b, "  result ");
        put_name(b, r->kind);
        sb_chr(b, ' ');
        put_quoted(b, r->name);
        sb_fmt(b, " %%%u", r->v.i);
        if (with_loc && r->loc.file) put_loc(b, &r->loc);
        sb_chr(b, '\n');
    }
    for (uint32_t k = 0; k < g->nopt; k++) put_opt(b, &g->opt[k], with_loc);
    for (uint32_t k = 0; k < g->nnote; k++) {
        sb_str(b, "  note ");
        put_quoted(b, g->note[k]);
        sb_chr(b, '\n');
    }
    sb_str(b, "}\n");
}
