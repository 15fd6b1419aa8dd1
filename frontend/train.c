/* train.c: `train` lines and plan hints.
 *
 * Rows go first: a parameter node carries the row of the optimizer that steps it, so patterns are matched
 * against the names of the model before anything is lowered. Whether a loss reaches a model is read off the
 * graph at the end. */
#include "frontend/sema.h"

#include <string.h>

/* ---- rows */

static Inst *trained_model(Cx *cx, const TrainGroup *t) {
    Entry *e = entry_find(cx, t->model);
    if (!e || e->kind != S_INSTANCE) {
        const char *cand[64];
        size_t n = 0;
        for (uint32_t i = 0; i < cx->nentry && n < WM_LEN(cand); i++)
            if (cx->entry[i].kind == S_INSTANCE) cand[n++] = cx->entry[i].name;
        const char *near = text_nearest(t->model, cand, n);
        Diag *g = sema_error(cx, E010, t->loc, "the graph has no model `%s`", t->model);
        if (near) diag_help(cx->d, g, "did you mean `%s`?", near);
        return NULL;
    }
    e->used = true;
    if (!e->st->frozen) return e->inst;
    Diag *g = sema_error(cx, E051, t->loc, "model `%s` is frozen", t->model);
    diag_span(cx->d, g, e->st->loc, "declared here");
    diag_help(cx->d, g, "remove `frozen` there, or the model from this line");
    return NULL;
}

static void match_rows(Cx *cx, TrainGroup *t, Inst *i) {
    param_walk(cx, i);
    for (uint32_t k = 0; k < i->nparam; k++) {
        if (t->pattern && !pattern_match(cx, t->pattern, i->param[k].name)) continue;
        i->param[k].row = t->row;
        t->hit = true;
    }
    for (uint32_t k = 0; k < cx->nmisc; k++)
        if (cx->misc[k]->kind == S_ADAPT)
            return; /* its parameters would come from there; E080 says that they do not */
    if (t->hit || (!t->pattern && i->nparam == 0)) return;
    Diag *g =
        sema_error(cx, E056, t->loc, "the pattern \"%s\" matches no parameter of `%s`", t->pattern, t->model);
    if (i->nparam)
        diag_note(cx->d, g, "its parameters are %s%s%s, .. (%u in all)", i->param[0].name,
                  i->nparam > 1 ? ", " : "", i->nparam > 1 ? i->param[i->nparam - 1].name : "", i->nparam);
}

void train_rows(Cx *cx) {
    int row = 0;
    for (uint32_t k = 0; k < cx->ntrain; k++) {
        TrainGroup *t = &cx->train[k];
        t->row = -1;
        for (uint32_t j = 0; j < k; j++)
            if (cx->train[j].st == t->st) t->row = cx->train[j].row;
        if (t->row < 0) t->row = row++;
        Inst *i = trained_model(cx, t);
        if (i) match_rows(cx, t, i);
    }
    /* no_decay is a constant of the optimizer: read now, since parameters are made with it */
    for (uint32_t k = 0; k < cx->ntrain; k++) {
        const Expr *e = cx->train[k].st->e;
        Entry *m = entry_find(cx, cx->train[k].model);
        for (uint32_t j = 0; m && m->inst && e->kind == X_CALL && j < e->list.n; j++) {
            const NamedExpr *x = &e->list.item[j];
            if (!x->name || strcmp(x->name, "no_decay") || x->e->kind != X_STR) continue;
            for (uint32_t q = 0; q < m->inst->nparam; q++)
                if (m->inst->param[q].row == cx->train[k].row &&
                    pattern_match(cx, x->e->name, m->inst->param[q].name))
                    m->inst->param[q].decay = false;
        }
    }
}

/* ---- optimizers */

static Opt opt_of(Cx *cx, const OptRec *o) {
    Opt r = {.kind = o->kind,
             .b1 = o->b1,
             .b2 = o->b2,
             .eps = o->eps,
             .wd = o->wd,
             .momentum = o->momentum,
             .loc = o->loc};
    r.lr = as_real(cx, o->lr, DT_F64);
    return r;
}

static void make_opts(Cx *cx) {
    Graph *g = cx->g;
    bool train = !strcmp(cx->o->phase, "train");
    int done = -1;
    for (uint32_t k = 0; k < cx->ntrain; k++) {
        TrainGroup *t = &cx->train[k];
        if (t->row <= done) continue;
        done = t->row;
        g->path = "train";
        Val v = eval(cx, &cx->graph_scope, t->st->e);
        Opt o = {.kind = "sgd"};
        if (v.kind == VK_OPTIM)
            o = opt_of(cx, v.u.opt);
        else if (v.kind != VK_POISON)
            sema_error(cx, E015, t->st->e->loc, "`train` takes adamw(..) or sgd(..), not %s",
                       val_text(cx, &v));
        g->path = "";
        if (!train || v.kind != VK_OPTIM) continue;
        GROW(cx->a, g->opt, g->nopt, g->opt_cap);
        g->opt[g->nopt++] = o;
    }
    if (!cx->clip) return;
    Val c = eval(cx, &cx->graph_scope, cx->clip->e);
    if (c.kind == VK_POISON) return;
    if (!val_is_number(&c) || !(c.num > 0))
        sema_error(cx, E015, cx->clip->e->loc, "clip_norm is a number above 0 that is known when compiling");
    else if (train)
        g->clip_norm = c.num;
}

/* ---- does a loss reach each trained model? */

static void mark_reached(const Graph *g, bool *reached) {
    const Result *total = graph_find_result(g, "total", "total");
    if (!total) return;
    reached[total->v.i] = true;
    for (uint32_t i = g->nnode; i-- > 0;) {
        const Node *n = &g->node[i];
        bool any = false;
        for (uint32_t k = 0; k < n->nout; k++) any |= reached[n->out0 + k];
        if (!any || !strcmp(op_info[n->op].vjp, "stop")) continue;
        for (uint32_t k = 0; k < n->nin; k++) {
            ValueId v = g->operand[n->in0 + k];
            if (dtype_real(value_type(g, v)->dt)) reached[v.i] = true;
        }
    }
}

static void check_reached(Cx *cx) {
    Graph *g = cx->g;
    if (strcmp(cx->o->phase, "train") || cx->d->nerror) return;
    bool *reached = NEWN(cx->a, bool, g->nvalue + 1);
    mark_reached(g, reached);
    for (uint32_t k = 0; k < cx->ntrain; k++) {
        bool hit = false;
        for (uint32_t i = 0; i < g->nnode; i++) {
            const Node *n = &g->node[i];
            if (n->op != OP_param || !reached[n->out0] || attr_int(g, n, "opt") < 0) continue;
            hit |= !strcmp(attr_str(g, n, "model"), cx->train[k].model);
        }
        if (hit) continue;
        Diag *d = sema_error(cx, E052, cx->train[k].loc, "model `%s` is trained, but no loss reaches it",
                             cx->train[k].model);
        diag_help(cx->d, d,
                  "a loss has to depend on it other than through stop_grad, a comparison or a count");
    }
}

static void check_best(Cx *cx) {
    const Stmt *st = cx->best;
    if (!st) return;
    if (strcmp(st->name, "min") && strcmp(st->name, "max")) {
        sema_error(cx, E015, st->name_loc, "`best` is min or max of a metric, not `%s`", st->name);
        return;
    }
    const char *dot = st->pattern ? strchr(st->pattern, '.') : NULL;
    if (!dot) return;
    bool phase = !strncmp(st->pattern, "val.", 4) || !strncmp(st->pattern, "train.", 6),
         known = !strcmp(dot + 1, "loss");
    for (uint32_t i = 0; i < cx->g->nresult; i++) {
        const Result *r = &cx->g->result[i];
        known |= (!strcmp(r->kind, "metric") || !strcmp(r->kind, "loss")) && !strcmp(r->name, dot + 1);
    }
    if ((phase && known) || cx->d->nerror) return;
    Diag *g = sema_error(cx, E010, st->loc, "there is no metric `%s`", st->pattern);
    diag_help(cx->d, g, "train.NAME or val.NAME of a metric, or val.loss");
}

void train_finish(Cx *cx) {
    make_opts(cx);
    check_reached(cx);
    check_best(cx);
}

/* ---- plan hints: the words of each, `M` a model, `#` a number, `a|b` a choice */

typedef struct {
    const char *word[4];
} Hint;
static const Hint hint_rows[] = {
    {{"shard", "M", "NO_SHARD|SHARD_OPT|SHARD_GRAD_OP|FULL_SHARD", NULL}},
    {{"recompute", "S", "every", "#"}},
    {{"recompute", "S", "never", NULL}},
    {{"chunk", "logits", "#", NULL}},
    {{"precision", "M", "f32|bf16", NULL}},
    {{"offload", "M", "parameters|optimizer", NULL}},
    {{"bucket", "#", "MiB", NULL}},
    {{"prefetch", "#", NULL, NULL}},
    {{"reduce", "canonical|fast", NULL, NULL}},
};

static bool choice_has(const char *choice, const char *word) {
    size_t n = strlen(word);
    for (const char *s = choice; *s;) {
        size_t len = strcspn(s, "|");
        if (len == n && !strncmp(s, word, n)) return true;
        s += len + (s[len] == '|');
    }
    return false;
}

static bool model_named(Cx *cx, const char *path, bool stack) {
    size_t n = strcspn(path, ".");
    Entry *e = entry_find(cx, arena_str(cx->a, path, n));
    if (!e || e->kind != S_INSTANCE || !e->inst) return false;
    if (!stack) return path[n] == 0;
    if (!path[n]) return false;
    const char *name = path + n + 1;
    const Stmt *m = owner_member(e->inst->top, arena_str(cx->a, name, strcspn(name, ".")));
    return m && m->kind == S_STACK;
}

static bool word_fits(Cx *cx, const char *rule, const char *word) {
    double v;
    if (!strcmp(rule, "M")) return model_named(cx, word, false);
    if (!strcmp(rule, "S")) return model_named(cx, word, true);
    if (!strcmp(rule, "#")) return text_double(word, strlen(word), &v) && v > 0;
    return choice_has(rule, word);
}

static bool hint_fits(Cx *cx, const Hint *h, const char *const *word, uint32_t n, uint32_t *bad) {
    for (uint32_t i = 0; i < 4; i++) {
        bool end = !h->word[i];
        if (end && i == n) return true;
        if (end || i >= n || !word_fits(cx, h->word[i], word[i])) {
            if (i > *bad) *bad = i;
            return false;
        }
    }
    return n == 4;
}

static void check_hint(Cx *cx, const char *const *word, const Loc *loc, uint32_t n) {
    const char *first[WM_LEN(hint_rows)];
    uint32_t bad = 0;
    const Hint *near = NULL;
    for (size_t i = 0; i < WM_LEN(hint_rows); i++) {
        first[i] = hint_rows[i].word[0];
        if (!strcmp(first[i], word[0])) near = &hint_rows[i];
        if (!hint_fits(cx, &hint_rows[i], word, n, &bad)) continue;
        Sbuf b;
        sb_init(&b, cx->a);
        for (uint32_t k = 0; k < n; k++) sb_fmt(&b, " %s", word[k]);
        graph_note(cx->g, "plan hint without effect on one rank:%s", b.s);
        return;
    }
    Diag *g = sema_error(cx, E080, loc[bad < n ? bad : n - 1],
                         near ? "plan hint `%s` does not fit here" : "unknown plan hint `%s`",
                         word[near && bad < n ? bad : 0]);
    const char *guess = near ? NULL : text_nearest(word[0], first, WM_LEN(first));
    if (guess) diag_help(cx->d, g, "did you mean `%s`?", guess);
    if (near)
        diag_help(cx->d, g, "it is: %s %s %s %s", near->word[0], near->word[1] ? near->word[1] : "",
                  near->word[2] ? near->word[2] : "", near->word[2] && near->word[3] ? near->word[3] : "");
}

void hints_check(Cx *cx) {
    for (uint32_t i = 0; i < cx->nmisc; i++) {
        const Stmt *st = cx->misc[i];
        if (st->kind == S_ADAPT) {
            Diag *g = sema_error(cx, E080, st->loc, "this version has no adapters (`adapt`)");
            diag_help(cx->d, g, "train parameters in full by pattern: train %s \"..\" with ..", st->model);
        }
        for (uint32_t k = 0; st->kind == S_PLAN && k < st->nhint; k++)
            if (st->hint[k].n) check_hint(cx, st->hint[k].word, st->hint[k].loc, st->hint[k].n);
    }
}
