/* batch.c: data sets open, items become micro-batches. A slot beyond the epoch is not present: no mean counts
 * it. */
#include "runtime/data/set.h"

#include <string.h>

enum { EAGER_BYTES = 64 << 20 };

static bool check_all(DataSet *s, Diags *d) {
    if (s->len > EAGER_BYTES) return true;
    for (int64_t i = 0; i < s->nline; i++) {
        Sample x;
        if (!sample_read(s, i, &x, d)) return false;
        json_free(x.json);
    }
    return true;
}

static bool open_parts(DataSet *s, Diags *d) {
    if (!file_read_all(s->env, s->a, s->path, (wm_size)1 << 40, &s->text, &s->len, d)) return false;
    if (!index_lines(s, d) || !check_all(s, d) || !index_problems(s, d)) return false;
    s->items = order_count(s);
    if (s->items <= 0)
        return diag_fail(d, D003, NOLOC, "%s: these sampling settings leave no sample", s->path);
    s->order = NEWN(s->a, int64_t, s->items * s->o.width + 1);
    s->tokens = NEWN(s->a, int32_t, s->o.max_length + 1);
    s->labels = NEWN(s->a, int32_t, s->o.max_length + 1);
    s->numbers = NEWN(s->a, double, s->o.max_length + 1);
    if (!s->order || !s->tokens || !s->labels || !s->numbers)
        return diag_fail(d, R006, NOLOC, "%s: out of memory", s->path);
    Sbuf b;
    sb_init(&b, s->a);
    if (!template_prompt(&b, s->o.template_name, "", ""))
        return diag_fail(d, C003, NOLOC, "dataset.template: '%s' is neither alpaca nor plain",
                         s->o.template_name);
    return order_make(s, 0, d);
}

DataSet *data_open(Env *env, const char *path, const DataOptions *o, const DataField *field, uint32_t nfield,
                   Diags *d) {
    Arena *a = arena_open(env, NULL);
    DataSet *s = a ? NEW(a, DataSet) : NULL;
    if (!s) {
        diag_add(d, R006, NOLOC, "%s: out of memory", path);
        arena_close(a);
        return NULL;
    }
    *s = (DataSet){.env = env,
                   .a = a,
                   .o = *o,
                   .path = arena_str(a, path, strlen(path)),
                   .field = field,
                   .nfield = nfield,
                   .order_epoch = -1};
    if (open_parts(s, d)) return s;
    data_close(s);
    return NULL;
}

void data_close(DataSet *s) {
    if (s) arena_close(s->a);
}

void data_set_vocab(DataSet *s, int64_t vocab) {
    s->o.vocab = vocab;
}
int64_t data_items(const DataSet *s) {
    return s->items;
}
int64_t data_samples(const DataSet *s) {
    return s->nline;
}

bool data_item(DataSet *s, int64_t epoch, int64_t position, int64_t *sample, Diags *d) {
    if (!order_make(s, epoch, d)) return false;
    memcpy(sample, s->order + position * s->o.width, (size_t)s->o.width * sizeof *sample);
    return true;
}

static void put(PlanDType dt, void *p, int64_t i, double v) {
    if (dt == PD_F64)
        ((double *)p)[i] = v;
    else if (dt == PD_F32)
        ((float *)p)[i] = (float)v;
    else if (dt == PD_I32)
        ((int32_t *)p)[i] = (int32_t)v;
    else
        ((unsigned char *)p)[i] = v != 0;
}

/* Strides of an input: of the slot, of the answer within the item, of the place. */
typedef struct {
    int64_t slot, answer, place, nslot, nanswer, nplace;
} Shape;

static Shape shape_of(const PlanInput *in) {
    Shape h = {.nslot = 1, .nanswer = 1, .nplace = 1};
    int64_t stride = 1;
    for (uint32_t i = in->ndim; i-- > 0; stride *= in->size[i]) {
        if (strcmp(in->dim[i], "batch") == 0)
            h.slot = stride, h.nslot = in->size[i];
        else if (strcmp(in->dim[i], "seq") == 0)
            h.place = stride, h.nplace = in->size[i];
        else
            h.answer = stride, h.nanswer = in->size[i];
    }
    return h;
}

static const char *path_of(const DataSet *s, const char *name) {
    for (uint32_t i = 0; i < s->nfield; i++)
        if (strcmp(s->field[i].name, name) == 0) return s->field[i].from;
    return name;
}

/* Where the graph asks for the field, and the nearest of those that the sample has. */
static void explain_field(const DataSet *s, Diag *g, const char *path, const Json *sample, Diags *d) {
    const char *have[64];
    size_t n = 0;
    const Json *v;
    for (size_t i = 0; sample && i < json_size(sample) && n < WM_LEN(have); i++)
        have[n++] = arena_fmt(d->arena, "%s", json_key_at(sample, i, &v));
    const char *near = text_nearest(path, have, n);
    if (near) diag_help(d, g, "did you mean \"%s\"?", near);
    for (uint32_t i = 0; i < s->nfield; i++)
        if (strcmp(s->field[i].from, path) == 0 && s->field[i].loc.file)
            diag_span(d, g, s->field[i].loc, "the graph reads it here");
}

static bool number_of(const DataSet *s, const Json *v, const char *path, int64_t sample, double *out,
                      Diags *d) {
    if (v && json_kind(v) == J_BOOL)
        *out = json_bool(v);
    else if (v && (json_kind(v) == J_INT || json_kind(v) == J_REAL))
        *out = json_real(v);
    else {
        Loc loc = {
            .file = s->path, .line = (uint32_t)(sample + 1), .col = 1, .at = (uint32_t)s->line[sample].begin};
        return diag_fail(d, v ? D003 : E062, loc, "sample %lld: the graph reads the field \"%s\", which %s",
                         (long long)sample + 1, path,
                         v ? "is neither a number nor a bool here" : "is missing here");
    }
    return true;
}

/* A field with one number for each answer token (eos included), before truncation. */
static bool put_places(DataSet *s, const PlanInput *in, void *p, Shape h, int64_t at, const Json *v,
                       const char *path, int64_t sample, int64_t answer_tokens, Diags *d) {
    Loc loc = {
        .file = s->path, .line = (uint32_t)(sample + 1), .col = 1, .at = (uint32_t)s->line[sample].begin};
    if (!v || json_kind(v) != J_ARRAY)
        return diag_fail(d, v ? D003 : E062, loc,
                         "sample %lld: the graph reads \"%s\" as a list with one number per answer token",
                         (long long)sample + 1, path);
    if ((int64_t)json_size(v) != answer_tokens)
        return diag_fail(
            d, D003, loc,
            "sample %lld: \"%s\" has %zu numbers, the answer %lld tokens (the end mark included)",
            (long long)sample + 1, path, json_size(v), (long long)answer_tokens);
    size_t k = 0;
    for (int64_t t = 0; t < h.nplace; t++) {
        double x = 0;
        if (s->labels[t] != TOKEN_IGNORE && !number_of(s, json_at(v, k++), path, sample, &x, d)) return false;
        put(in->dtype, p, at + t * h.place, x);
    }
    return true;
}

static bool put_values(DataSet *s, const PlanInput *in, void *p, int64_t slot, int64_t answer,
                       const Sample *x, int64_t sample, Diags *d) {
    Shape h = shape_of(in);
    int64_t at = slot * h.slot + answer * h.answer;
    bool tokens = strcmp(in->name, "tokens") == 0;
    if (tokens || strcmp(in->name, "labels") == 0) {
        for (int64_t t = 0; t < h.nplace; t++)
            put(in->dtype, p, at + t * h.place, tokens ? s->tokens[t] : s->labels[t]);
        return true;
    }
    const char *path = path_of(s, in->name);
    const Json *v = json_path(x->json, path);
    if (h.place) return put_places(s, in, p, h, at, v, path, sample, (int64_t)x->noutput + 1, d);
    double number;
    if (!number_of(s, v, path, sample, &number, d)) return false;
    put(in->dtype, p, at, number);
    return true;
}

static bool put_input(DataSet *s, const PlanInput *in, void *p, int64_t slot, int64_t answer, const Sample *x,
                      int64_t sample, Diags *d) {
    uint32_t before = d->n;
    if (put_values(s, in, p, slot, answer, x, sample, d)) return true;
    if (d->n > before) explain_field(s, d->item[before], path_of(s, in->name), x->json, d);
    return false;
}

/* Tokenizes sample `n`; D012 for a token the model has no row for. */
static bool tokenize(DataSet *s, int64_t n, const Sample *x, int64_t *tokens, Diags *d) {
    Arena *a = arena_open(s->env, NULL);
    if (!a) return diag_fail(d, R006, NOLOC, "%s: out of memory", s->path);
    Sbuf b;
    sb_init(&b, a);
    template_prompt(&b, s->o.template_name, x->instruction, x->input);
    int64_t len = tokenize_sample(b.s, b.len, x->output, x->noutput, s->o.max_length, s->tokens, s->labels);
    arena_close(a);
    *tokens += len;
    for (int64_t t = 0; t < len; t++) {
        if (s->tokens[t] < s->o.vocab) continue;
        Loc loc = {.file = s->path, .line = (uint32_t)(n + 1), .col = 1, .at = (uint32_t)s->line[n].begin};
        return diag_fail(
            d, D012, loc,
            "sample %lld: token %d, the model's vocabulary has %lld (the byte tokenizer needs %d)",
            (long long)n + 1, s->tokens[t], (long long)s->o.vocab, BYTE_VOCAB);
    }
    return true;
}

static void put_empty(const PlanInput *in, void *p, int64_t slot, int64_t answer) {
    Shape h = shape_of(in);
    double v = strcmp(in->name, "labels") == 0 ? TOKEN_IGNORE : 0;
    for (int64_t t = 0; t < (h.place ? h.nplace : 1); t++)
        put(in->dtype, p, slot * h.slot + answer * h.answer + t * h.place, v);
}

static bool fill_answer(DataSet *s, Exec *e, const PlanProgram *pp, int program, int64_t micro, int64_t slot,
                        int64_t answer, int64_t sample, int64_t *tokens, Diags *d) {
    Sample x = {0};
    if (sample >= 0 && (!sample_read(s, sample, &x, d) || !tokenize(s, sample, &x, tokens, d))) {
        json_free(x.json);
        return false;
    }
    bool ok = true;
    for (uint32_t i = 0; ok && i < pp->ninput; i++) {
        const PlanInput *in = &pp->input[i];
        if (strcmp(in->kind, "data") != 0) continue;
        void *p = exec_input(e, program, in->name, micro);
        if (strcmp(in->name, "present") == 0)
            put(in->dtype, p, slot, sample >= 0);
        else if (sample < 0)
            put_empty(in, p, slot, answer);
        else
            ok = put_input(s, in, p, slot, answer, &x, sample, d);
    }
    json_free(x.json);
    return ok;
}

bool data_fill(DataSet *s, Exec *e, const Plan *plan, int program, int64_t micro, int64_t epoch,
               int64_t first, int64_t *tokens, Diags *d) {
    int64_t sum = 0;
    if (!order_make(s, epoch, d)) return false;
    for (int64_t b = 0; b < plan->batch; b++)
        for (int64_t k = 0; k < s->o.width; k++) {
            int64_t sample = first + b < s->items ? s->order[(first + b) * s->o.width + k] : -1;
            if (!fill_answer(s, e, &plan->program[program], program, micro, b, k, sample, &sum, d))
                return false;
        }
    if (tokens) *tokens = sum;
    return true;
}
