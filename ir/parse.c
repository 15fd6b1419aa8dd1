/* parse.c: text -> graph, by recursive descent over a hostile file.
 *
 * Every count is bounded by the text itself, every id is checked before it is used, and the printed type must
 * be the one that inference gives, so what comes back is a graph as if `build` had made it. The first mistake
 * ends it. */
#include "ir/internal.h"

#include <string.h>

enum { MAX_TEXT = 16 << 20, MAX_DIM_COUNT = 65536, MAX_NODES = 1 << 20, MAX_OPERANDS = 65535 };
static const int64_t max_size = (int64_t)1 << 48;

typedef enum {
    T_END,
    T_WORD,
    T_STRING,
    T_VALUE,
    T_PUNCT
} TokenKind; /* word: letters digits _ . + -   value: %12 */
typedef struct {
    TokenKind kind;
    size_t at, len; /* in the text */
    uint32_t line, col;
    const char *s; /* string: its content */
    uint32_t id;   /* value */
} Token;
typedef struct {
    uint32_t node;
    Token value;
} LateOrigin; /* may name a later node */
typedef struct {
    Graph *g;
    Arena *a;
    Diags *d;
    const char *file, *text;
    size_t len, at;
    uint32_t line;
    size_t line_at;
    Token t; /* the one looked at */
    StrMap *dims;
    LateOrigin *late;
    uint32_t nlate, late_cap;
    bool failed;
} Parser;

/* ---- errors */
static Loc loc_of(const Parser *p, const Token *t) {
    return (Loc){p->file, t->line, t->col, (uint32_t)t->at, (uint32_t)t->len};
}
static const char *found(Parser *p, const Token *t) {
    if (t->kind == T_END) return "the end of the text";
    return arena_fmt(p->a, "`%s`", text_escape(p->a, p->text + t->at, t->len < 60 ? t->len : 60));
}
#define FAIL_AT(p, tok, ...) ((p)->failed = true, diag_fail((p)->d, P002, loc_of(p, tok), __VA_ARGS__))
static bool expected(Parser *p, const char *what) {
    return FAIL_AT(p, &p->t, "found %s; expected %s", found(p, &p->t), what);
}

/* ---- tokens */
static bool word_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '+' || c == '-';
}
static void skip_blank(Parser *p) {
    while (p->at < p->len) {
        char c = p->text[p->at];
        if (c == '#') {
            while (p->at < p->len && p->text[p->at] != '\n') p->at++;
        } else if (c == '\n') {
            p->line++;
            p->line_at = ++p->at;
        } else if (c == ' ' || c == '\t' || c == '\r') {
            p->at++;
        } else {
            return;
        }
    }
}
static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}
static bool lex_string(Parser *p, Token *t) {
    Sbuf b;
    sb_init(&b, p->a);
    sb_put(&b, "", 0);
    for (p->at++;; p->at++) {
        if (p->at >= p->len || (unsigned char)p->text[p->at] < 32) {
            t->len = p->at - t->at;
            return FAIL_AT(p, t, "string without an end on its line");
        }
        char c = p->text[p->at];
        if (c == '"') break;
        if (c == '\\') {
            char e = p->at + 1 < p->len ? p->text[p->at + 1] : 0;
            int hi = -1, lo = -1;
            if (e == 'x' && p->at + 3 < p->len)
                hi = hex_digit(p->text[p->at + 2]), lo = hex_digit(p->text[p->at + 3]);
            t->len = p->at - t->at;
            if (e != '"' && e != '\\' && (hi < 0 || lo < 0 || hi + lo == 0))
                return FAIL_AT(p, t, "bad escape in a string; allowed are \\\" \\\\ and \\x01 to \\xff");
            c = hi >= 0 ? (char)(hi * 16 + lo) : e;
            p->at += hi >= 0 ? 3 : 1;
        }
        sb_chr(&b, c);
    }
    p->at++;
    t->len = p->at - t->at;
    t->s = b.s ? b.s : "";
    return true;
}
static bool next(Parser *p) {
    skip_blank(p);
    p->t = (Token){T_END, p->at, 0, p->line, (uint32_t)(p->at - p->line_at) + 1, NULL, 0};
    Token *t = &p->t;
    if (p->at >= p->len) return true;
    char c = p->text[p->at];
    if (c == '"') {
        t->kind = T_STRING;
        return lex_string(p, t);
    }
    if (c == '%' || word_char(c)) {
        t->kind = c == '%' ? T_VALUE : T_WORD;
        p->at++;
        while (p->at < p->len && word_char(p->text[p->at])) p->at++;
        t->len = p->at - t->at;
        if (c != '%') return true;
        int64_t id;
        if (!text_int(p->text + t->at + 1, t->len - 1, &id) || id < 0 || id >= UINT32_MAX)
            return FAIL_AT(p, t, "found %s; expected a value such as %%12", found(p, t));
        t->id = (uint32_t)id;
        return true;
    }
    t->kind = T_PUNCT;
    t->len = 1;
    p->at++;
    if (!strchr("=,:[]{}@~/", c) || c == 0)
        return FAIL_AT(p, t, "found %s; no such character here", found(p, t));
    return true;
}
static bool is_punct(const Parser *p, char c) {
    return p->t.kind == T_PUNCT && p->text[p->t.at] == c;
}
static bool is_word(const Parser *p, const char *w) {
    return p->t.kind == T_WORD && p->t.len == strlen(w) && memcmp(p->text + p->t.at, w, p->t.len) == 0;
}
static bool take_punct(Parser *p, char c, const char *what) {
    return is_punct(p, c) ? next(p) : expected(p, what);
}
static bool take_word(Parser *p, const char *w) {
    return is_word(p, w) ? next(p) : expected(p, arena_fmt(p->a, "`%s`", w));
}
static const char *token_text(Parser *p, const Token *t) {
    return t->kind == T_STRING ? t->s : arena_str(p->a, p->text + t->at, t->len);
}

/* ---- pieces */
static bool take_int(Parser *p, int64_t lo, int64_t hi, int64_t *v) {
    if (p->t.kind != T_WORD || !text_int(p->text + p->t.at, p->t.len, v))
        return expected(p, "a whole number");
    if (*v < lo || *v > hi)
        return FAIL_AT(p, &p->t, "%lld is out of range; %lld to %lld is allowed", (long long)*v,
                       (long long)lo, (long long)hi);
    return next(p);
}
static bool take_double(Parser *p, double *v) {
    if (p->t.kind != T_WORD || !text_double(p->text + p->t.at, p->t.len, v)) return expected(p, "a number");
    return next(p);
}
static bool take_string(Parser *p, const char **s) {
    if (p->t.kind != T_STRING) return expected(p, "a string");
    *s = p->t.s;
    return next(p);
}
static bool take_name(Parser *p, const char **s) { /* a bare word or a string */
    if (p->t.kind != T_WORD && p->t.kind != T_STRING) return expected(p, "a name");
    *s = token_text(p, &p->t);
    return next(p);
}
static bool take_dim(Parser *p, DimId *d) {
    if (p->t.kind != T_WORD && p->t.kind != T_STRING) return expected(p, "a dim");
    if (!strmap_get(p->dims, token_text(p, &p->t), &d->i))
        return FAIL_AT(p, &p->t, "dim %s is not in the dim line", found(p, &p->t));
    return next(p);
}
static bool take_dtype(Parser *p, DType *dt) {
    for (int k = 0; k < NDTYPE; k++) {
        if (!is_word(p, dtype_name[k])) continue;
        *dt = (DType)k;
        return next(p);
    }
    return expected(p, "a dtype (f64 f32 bf16 i32 bool)");
}
/* "A+B" in one word: arena+offset, bytes+offset. */
static bool take_pair(Parser *p, int64_t *x, int64_t *y) {
    const char *s = p->text + p->t.at;
    const char *plus = p->t.kind == T_WORD ? memchr(s, '+', p->t.len) : NULL;
    if (!plus || !text_int(s, (size_t)(plus - s), x) ||
        !text_int(plus + 1, p->t.len - (size_t)(plus - s) - 1, y) || *y < 0 || *y > max_size || *x > max_size)
        return expected(p, "two numbers such as 1+4096");
    return next(p);
}
static bool take_type(Parser *p, Type *t) {
    *t = (Type){0};
    if (!take_dtype(p, &t->dt) || !take_punct(p, '[', "`[`")) return false;
    while (!is_punct(p, ']')) {
        if (t->ndim && !take_punct(p, ',', "`,` or `]`")) return false;
        if (t->ndim == MAX_DIMS) return FAIL_AT(p, &p->t, "more than %d dims", MAX_DIMS);
        Token at = p->t;
        DimId d;
        if (!take_dim(p, &d)) return false;
        if (type_has(t, d)) return FAIL_AT(p, &at, "dim %s stands twice in this type", found(p, &at));
        t->dim[t->ndim++] = d;
    }
    return next(p);
}
static bool take_loc(Parser *p, Loc *l) { /* after `@"file"`: :line:col:at:len */
    uint32_t *f[4] = {&l->line, &l->col, &l->at, &l->len};
    for (int k = 0; k < 4; k++) {
        int64_t v;
        if (!take_punct(p, ':', "`:`") || !take_int(p, 0, UINT32_MAX, &v)) return false;
        *f[k] = (uint32_t)v;
    }
    return true;
}

/* ---- head */
static bool parse_dims(Parser *p) {
    Graph *g = p->g;
    if (!next(p)) return false;
    while (p->t.kind == T_STRING || (p->t.kind == T_WORD && !is_word(p, "graph")) || p->t.kind == T_PUNCT) {
        Token at = p->t;
        const char *name;
        int64_t size, padded;
        if (!take_name(p, &name) || !take_punct(p, '=', "`=`") || !take_int(p, 0, max_size, &size))
            return false;
        if (at.kind == T_WORD && !ir_bare_name(name))
            return FAIL_AT(p, &at, "found %s; expected a dim", found(p, &at));
        padded = size;
        if (is_punct(p, '/') && (!next(p) || !take_int(p, size, max_size, &padded))) return false;
        bool ragged = is_punct(p, ':');
        if (ragged && (!next(p) || !take_word(p, "ragged"))) return false;
        if (g->ndim == MAX_DIM_COUNT) return FAIL_AT(p, &at, "more than %d dims", MAX_DIM_COUNT);
        if (!strmap_put(p->dims, name, g->ndim)) return FAIL_AT(p, &at, "dim %s stands twice", found(p, &at));
        GROW(g->arena, g->dim, g->ndim, g->dim_cap);
        g->dim[g->ndim++] = (Dim){name, size, padded, ragged};
    }
    return true;
}
static bool parse_stage(Parser *p) {
    for (int k = 0; k < NSTAGE; k++) {
        if (!is_word(p, stage_name[k])) continue;
        p->g->stage = (Stage)k;
        return next(p);
    }
    return expected(p, "a stage (math train sharded collective local scheduled planned)");
}
static bool parse_header(Parser *p) {
    Graph *g = p->g;
    if (!take_word(p, "graph") || !take_string(p, &g->name)) return false;
    if (!take_word(p, "stage") || !take_punct(p, '=', "`=`") || !parse_stage(p)) return false;
    if (!take_word(p, "phase") || !take_punct(p, '=', "`=`") || !take_name(p, &g->phase)) return false;
    while (!is_punct(p, '{')) {
        bool micro = is_word(p, "micro"), batch = is_word(p, "batch"), clip = is_word(p, "clip_norm");
        bool state = is_word(p, "state"), work = is_word(p, "work"), ok = true;
        if (!(micro || batch || clip || state || work))
            return expected(p, "micro, batch, clip_norm, state, work or `{`");
        if (!next(p) || !take_punct(p, '=', "`=`")) return false;
        if (micro) ok = take_dim(p, &g->micro);
        if (batch) ok = take_dim(p, &g->batch);
        if (clip) ok = take_double(p, &g->clip_norm);
        if (state || work) ok = take_int(p, 0, max_size, &g->arena_bytes[work]);
        if (!ok) return false;
    }
    return next(p);
}

/* ---- nodes */
static bool parse_list(Parser *p, AttrKind kind, Attr *a) {
    Graph *g = p->g;
    uint32_t n = 0, at = kind == AT_DIMS ? g->ndimlist : kind == AT_INTS ? g->nintlist : g->nfloatlist;
    if (!take_punct(p, '[', "`[`")) return false;
    for (; !is_punct(p, ']'); n++) {
        DimId d;
        int64_t i;
        double f;
        if (n && !take_punct(p, ',', "`,` or `]`")) return false;
        if (kind == AT_DIMS) {
            if (!take_dim(p, &d)) return false;
            (void)at_dims(g, &d, 1);
        } else if (kind == AT_INTS) {
            if (!take_int(p, INT64_MIN, INT64_MAX, &i)) return false;
            (void)at_ints(g, &i, 1);
        } else {
            if (!take_double(p, &f)) return false;
            (void)at_floats(g, &f, 1);
        }
    }
    *a = (Attr){kind, {.list = {at, n}}};
    return next(p);
}
static bool parse_value(Parser *p, AttrKind kind, Attr *a) {
    a->kind = kind;
    switch (kind) {
    case AT_INT:
        return take_int(p, INT64_MIN, INT64_MAX, &a->u.i);
    case AT_FLOAT:
        return take_double(p, &a->u.f);
    case AT_BOOL:
        a->u.b = is_word(p, "true");
        return a->u.b || is_word(p, "false") ? next(p) : expected(p, "true or false");
    case AT_STR:
        return take_string(p, &a->u.s);
    case AT_DIM:
        return take_dim(p, &a->u.dim);
    case AT_DT:
        return take_dtype(p, &a->u.dt);
    case AT_DIMS:
    case AT_INTS:
    case AT_FLOATS:
        return parse_list(p, kind, a);
    case AT_NONE:
        break;
    }
    return expected(p, "nothing");
}
static bool parse_attrs(Parser *p, Op op, Attr attr[MAX_ATTR]) {
    const OpInfo *f = &op_info[op];
    while (p->t.kind == T_WORD) {
        int k = 0;
        while (k < f->nattr && !is_word(p, f->attr[k].name)) k++;
        if (k == f->nattr) return FAIL_AT(p, &p->t, "%s has no attribute %s", f->name, found(p, &p->t));
        if (attr[k].kind != AT_NONE) return FAIL_AT(p, &p->t, "%s stands twice", found(p, &p->t));
        if (!next(p) || !take_punct(p, '=', "`=`") || !parse_value(p, f->attr[k].kind, &attr[k]))
            return false;
    }
    return true;
}
static bool parse_operands(Parser *p, ValueId **in, uint32_t *n) {
    uint32_t cap = 0;
    *in = NULL;
    for (*n = 0; p->t.kind == T_VALUE;) {
        if (p->t.id >= p->g->nvalue) return FAIL_AT(p, &p->t, "%s is not defined above", found(p, &p->t));
        if (*n == MAX_OPERANDS) return FAIL_AT(p, &p->t, "more than %d operands", MAX_OPERANDS);
        GROW(p->a, *in, *n, cap);
        (*in)[(*n)++] = (ValueId){p->t.id};
        if (!next(p)) return false;
        if (!is_punct(p, ',')) return true;
        if (!next(p)) return false;
        if (p->t.kind != T_VALUE) return expected(p, "an operand");
    }
    return true;
}
static bool parse_memory(Parser *p, Value *v) { /* at=arena+off~stride */
    int64_t arena;
    if (!is_word(p, "at")) return true;
    if (!next(p) || !take_punct(p, '=', "`=`")) return false;
    Token at = p->t;
    if (!take_pair(p, &arena, &v->off)) return false;
    if (arena < -1 || arena > 1) return FAIL_AT(p, &at, "there is no arena %lld", (long long)arena);
    v->arena = (int32_t)arena;
    return !is_punct(p, '~') || (next(p) && take_int(p, 0, max_size, &v->stride));
}
static bool parse_labels(Parser *p, Node *n) {
    static const struct {
        unsigned bit;
        const char *name;
    } flags[] = {{N_BWD, "bwd"}, {N_REMAT, "remat"}};
    while (p->t.kind == T_WORD) {
        bool flag = false;
        for (size_t k = 0; k < WM_LEN(flags) && !flag; k++) {
            if (!is_word(p, flags[k].name)) continue;
            n->flags = (uint16_t)(n->flags | flags[k].bit);
            flag = true;
        }
        if (is_word(p, "result") || is_word(p, "opt") || is_word(p, "note")) return true;
        bool section = is_word(p, "section"), group = is_word(p, "group");
        bool origin = is_word(p, "origin"), ws = is_word(p, "ws");
        int64_t v = 0;
        if (!(flag || section || group || origin || ws))
            return expected(p, "bwd, remat, section, group, origin or ws");
        if (!next(p)) return false;
        if (flag) continue;
        if (!take_punct(p, '=', "`=`")) return false;
        if (origin) {
            if (p->t.kind != T_VALUE) return expected(p, "a value");
            GROW(p->a, p->late, p->nlate, p->late_cap);
            p->late[p->nlate++] = (LateOrigin){p->g->nnode, p->t};
            if (!next(p)) return false;
        } else if (ws) {
            if (!take_pair(p, &n->ws_bytes, &n->ws_off)) return false;
            if (n->ws_bytes < 0) return expected(p, "a size of at least 0");
        } else {
            if (!take_int(p, 0, section ? UINT8_MAX : UINT32_MAX, &v)) return false;
            if (section) n->section = (uint8_t)v;
            if (group) n->group = (uint32_t)v;
        }
    }
    return true;
}
static bool parse_places(Parser *p, Node *n) { /* @"path" and @"file":1:2:3:4 */
    for (int k = 0; k < 2 && is_punct(p, '@'); k++) {
        const char *s = "";
        if (!next(p) || !take_string(p, &s)) return false;
        if (!is_punct(p, ':')) {
            n->path = s;
            continue;
        }
        n->loc.file = s;
        return take_loc(p, &n->loc);
    }
    return true;
}
/* What inference says against what is written. */
static bool check_types(Parser *p, const Token *at, Op op, const ValueId *in, uint32_t nin, const Attr *attr,
                        const Value *written, uint32_t nout) {
    Type *ty = NEWN(p->a, Type, nin + 1), out[MAX_OUT] = {{0}};
    uint32_t n = 0;
    const char *why = "";
    for (uint32_t k = 0; k < nin; k++) ty[k] = p->g->value[in[k].i].ty;
    out[0] = written[0].ty;
    if (!ir_infer(p->g, op, ty, nin, attr, out, &n, &why))
        return FAIL_AT(p, at, "%s: %s", op_info[op].name, why);
    if (n != nout) return FAIL_AT(p, at, "%s has %u results; %u are written", op_info[op].name, n, nout);
    for (uint32_t k = 0; k < n; k++)
        if (!type_equal(&out[k], &written[k].ty))
            return FAIL_AT(p, at, "result %u of %s is %s; %s is written", k, op_info[op].name,
                           type_text(p->a, p->g, &out[k]), type_text(p->a, p->g, &written[k].ty));
    return true;
}
static bool parse_ids(Parser *p, uint32_t *nout) {
    for (*nout = 0;;) {
        if (p->t.kind != T_VALUE) return expected(p, "a value");
        if (p->t.id != p->g->nvalue + *nout)
            return FAIL_AT(p, &p->t, "found %s; the next value is %%%u", found(p, &p->t),
                           p->g->nvalue + *nout);
        if (++*nout > MAX_OUT) return FAIL_AT(p, &p->t, "more than %d results", MAX_OUT);
        if (!next(p)) return false;
        if (is_punct(p, '=')) return next(p);
        if (!take_punct(p, ',', "`,` or `=`")) return false;
    }
}
static bool parse_node(Parser *p) {
    Graph *g = p->g;
    uint32_t nout, nin;
    ValueId *in;
    Value v[MAX_OUT];
    Attr attr[MAX_ATTR] = {{AT_NONE, {0}}};
    Op op;
    if (g->nnode == MAX_NODES) return FAIL_AT(p, &p->t, "more than %d nodes", MAX_NODES);
    if (!parse_ids(p, &nout)) return false;
    Token at = p->t;
    if (at.kind != T_WORD || !op_find(token_text(p, &at), &op)) return expected(p, "an op");
    if (!next(p) || !parse_operands(p, &in, &nin) || !parse_attrs(p, op, attr)) return false;
    if (!take_punct(p, ':', "an attribute or `:`")) return false;
    for (uint32_t k = 0; k < nout; k++) {
        v[k] = (Value){{0}, {0}, 0, NONE, 0, 0};
        if ((k && !take_punct(p, ',', "`,` and another type")) || !take_type(p, &v[k].ty) ||
            !parse_memory(p, &v[k]))
            return false;
    }
    if (!check_types(p, &at, op, in, nin, attr, v, nout)) return false;
    Node labels = {.path = ""};
    if (!parse_labels(p, &labels) || !parse_places(p, &labels)) return false;
    Type ty[MAX_OUT];
    for (uint32_t k = 0; k < nout; k++) ty[k] = v[k].ty;
    NodeId id = node_append(g, op, in, nin, attr, ty, nout);
    Node *n = &g->node[id.i];
    n->flags = labels.flags;
    n->section = labels.section;
    n->group = labels.group;
    n->ws_bytes = labels.ws_bytes;
    n->ws_off = labels.ws_off;
    n->path = labels.path;
    n->loc = labels.loc;
    for (uint32_t k = 0; k < nout; k++) {
        g->value[n->out0 + k].arena = v[k].arena;
        g->value[n->out0 + k].off = v[k].off;
        g->value[n->out0 + k].stride = v[k].stride;
    }
    return true;
}

/* ---- tail */
static bool take_defined(Parser *p, ValueId *v) {
    if (p->t.kind != T_VALUE) return expected(p, "a value");
    if (p->t.id >= p->g->nvalue) return FAIL_AT(p, &p->t, "%s is not defined above", found(p, &p->t));
    v->i = p->t.id;
    return next(p);
}
static bool maybe_loc(Parser *p, Loc *l) {
    if (!is_punct(p, '@')) return true;
    return next(p) && take_string(p, &l->file) && take_loc(p, l);
}
static bool parse_result(Parser *p) {
    Graph *g = p->g;
    Result r = {0};
    if (!next(p) || !take_name(p, &r.kind) || !take_string(p, &r.name) || !take_defined(p, &r.v) ||
        !maybe_loc(p, &r.loc))
        return false;
    GROW(g->arena, g->result, g->nresult, g->result_cap);
    g->result[g->nresult++] = r;
    return true;
}
static bool parse_opt(Parser *p) {
    Graph *g = p->g;
    Opt o = {.lr = NOVALUE};
    const struct {
        const char *name;
        double *v;
    } f[] = {{"b1", &o.b1}, {"b2", &o.b2}, {"eps", &o.eps}, {"wd", &o.wd}, {"momentum", &o.momentum}};
    if (!next(p) || !take_name(p, &o.kind)) return false;
    if (is_word(p, "lr") && (!next(p) || !take_punct(p, '=', "`=`") || !take_defined(p, &o.lr))) return false;
    for (size_t k = 0; k < WM_LEN(f); k++)
        if (!take_word(p, f[k].name) || !take_punct(p, '=', "`=`") || !take_double(p, f[k].v)) return false;
    if (!maybe_loc(p, &o.loc)) return false;
    GROW(g->arena, g->opt, g->nopt, g->opt_cap);
    g->opt[g->nopt++] = o;
    return true;
}
static bool parse_note(Parser *p) {
    const char *s = "";
    if (!next(p) || !take_string(p, &s)) return false;
    graph_note(p->g, "%s", s);
    return true;
}
static bool resolve_origins(Parser *p) {
    for (uint32_t k = 0; k < p->nlate; k++) {
        const Token *t = &p->late[k].value;
        if (t->id >= p->g->nvalue) return FAIL_AT(p, t, "origin %s does not exist", found(p, t));
        if (p->g->value[t->id].out != 0)
            return FAIL_AT(p, t, "origin %s is not the first result of its node", found(p, t));
        p->g->node[p->late[k].node].origin = (int32_t)p->g->value[t->id].def.i;
    }
    return true;
}
static bool parse_graph(Parser *p) {
    if (!next(p) || !take_word(p, "wir") || !take_word(p, "1")) return false;
    if (is_word(p, "dim") && !parse_dims(p)) return false;
    if (!parse_header(p)) return false;
    while (p->t.kind == T_VALUE)
        if (!parse_node(p)) return false;
    for (;;) {
        if (is_word(p, "result")) {
            if (!parse_result(p)) return false;
        } else if (is_word(p, "opt")) {
            if (!parse_opt(p)) return false;
        } else if (is_word(p, "note")) {
            if (!parse_note(p)) return false;
        } else {
            break;
        }
    }
    if (!take_punct(p, '}', "a node, result, opt, note or `}`")) return false;
    return p->t.kind == T_END ? resolve_origins(p) : expected(p, "the end of the text");
}

Graph *graph_parse(Arena *a, const char *file, const char *text, size_t len, Diags *d) {
    Parser p = {.a = a, .d = d, .file = file, .text = text, .len = len, .line = 1};
    if (len > MAX_TEXT) {
        diag_add(d, P002, (Loc){file, 1, 1, 0, 0}, "the text has %zu bytes; at most %d are allowed", len,
                 MAX_TEXT);
        return NULL;
    }
    p.g = graph_new(a, "", ST_MATH);
    p.dims = strmap_new(a);
    return parse_graph(&p) ? p.g : NULL;
}
