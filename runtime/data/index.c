/* index.c: where each line lies, and which answers belong to which problem. */
#include "runtime/data/set.h"

#include <stdlib.h>
#include <string.h>

static Loc at_line(const DataSet *s, int64_t n) {
    return (Loc){.file = s->path, .line = (uint32_t)(n + 1), .col = 1, .at = (uint32_t)s->line[n].begin};
}

bool index_lines(DataSet *s, Diags *d) {
    int64_t n = 0;
    if (s->len && s->text[s->len - 1] != '\n')
        return diag_fail(d, D003, NOLOC, "%s: the last line has no newline: the file may have been cut off",
                         s->path);
    for (size_t i = 0; i < s->len; i++) n += s->text[i] == '\n';
    s->line = NEWN(s->a, Line, n + 1);
    if (!s->line) return diag_fail(d, R006, NOLOC, "%s: no memory for %lld lines", s->path, (long long)n);
    size_t begin = 0;
    if (s->len >= 3 && memcmp(s->text, "\xef\xbb\xbf", 3) == 0) begin = 3;
    for (size_t i = begin; i < s->len; i++) {
        if (s->text[i] != '\n') continue;
        size_t end = i > begin && s->text[i - 1] == '\r' ? i - 1 : i;
        s->line[s->nline++] = (Line){(int64_t)begin, (int64_t)end};
        begin = i + 1;
    }
    return s->nline > 0 || diag_fail(d, D003, NOLOC, "%s: the file holds no samples", s->path);
}

static const char *text_of(const DataSet *s, int64_t n, const Json *j, const char *key, bool need,
                           size_t *len, Diags *d) {
    const Json *v = json_get(j, key);
    if (!v && !need) {
        *len = 0;
        return "";
    }
    if (v && json_kind(v) == J_STRING) return json_string(v, len);
    diag_add(d, D003, at_line(s, n), "sample %lld: \"%s\" %s", (long long)n + 1, key,
             v ? "is not a text" : "is missing");
    return NULL;
}

bool sample_read(const DataSet *s, int64_t n, Sample *out, Diags *d) {
    const Line *l = &s->line[n];
    size_t ignored;
    out->json =
        json_parse(s->text + l->begin, (size_t)(l->end - l->begin), s->path, (uint32_t)(n + 1), 64, d, D003);
    if (!out->json) return false;
    if (json_kind(out->json) != J_OBJECT) {
        diag_add(d, D003, at_line(s, n), "sample %lld is not a JSON object", (long long)n + 1);
    } else if ((out->instruction = text_of(s, n, out->json, "instruction", true, &ignored, d)) != NULL &&
               (out->input = text_of(s, n, out->json, "input", false, &ignored, d)) != NULL &&
               (out->output = text_of(s, n, out->json, "output", true, &out->noutput, d)) != NULL) {
        return true;
    }
    json_free(out->json);
    out->json = NULL;
    return false;
}

static bool indices(DataSet *s, const Json *list, const char *meta, const char *id, int64_t **out, int64_t *n,
                    Diags *d) {
    if (!list || json_kind(list) != J_ARRAY)
        return diag_fail(d, D003, NOLOC,
                         "%s: problem \"%s\" needs the lists correct_indices and incorrect_indices", meta,
                         id);
    *n = (int64_t)json_size(list);
    *out = NEWN(s->a, int64_t, *n + 1);
    if (!*out) return diag_fail(d, R006, NOLOC, "%s: out of memory", meta);
    for (int64_t i = 0; i < *n; i++) {
        const Json *v = json_at(list, (size_t)i);
        if (json_kind(v) != J_INT || json_int(v) < 0 || json_int(v) >= s->nline)
            return diag_fail(d, D003, NOLOC,
                             "%s: problem \"%s\" names a sample that is not one of the %lld lines of %s",
                             meta, id, (long long)s->nline, s->path);
        (*out)[i] = json_int(v);
    }
    return true;
}

static bool from_metadata(DataSet *s, const char *meta, Diags *d) {
    char *text;
    size_t len;
    if (!file_read_all(s->env, s->a, meta, (wm_size)1 << 30, &text, &len, d)) return false;
    Json *j = json_parse(text, len, meta, 1, 8, d, D003);
    if (!j) return false;
    bool ok = json_kind(j) == J_OBJECT ||
              diag_fail(d, D003, NOLOC, "%s: an object from problem to its samples is needed", meta);
    s->nproblem = ok ? (int64_t)json_size(j) : 0;
    s->problem = NEWN(s->a, Problem, s->nproblem + 1);
    for (int64_t i = 0; ok && i < s->nproblem; i++) {
        const Json *v;
        const char *id = json_key_at(j, (size_t)i, &v);
        Problem *p = &s->problem[i];
        p->id = arena_str(s->a, id, strlen(id));
        const Json *df = json_get(v, "difficulty");
        p->difficulty = df && json_kind(df) != J_NULL ? json_real(df) : 0;
        ok = indices(s, json_get(v, "correct_indices"), meta, p->id, &p->right, &p->nright, d) &&
             indices(s, json_get(v, "incorrect_indices"), meta, p->id, &p->wrong, &p->nwrong, d);
    }
    json_free(j);
    return ok;
}

/* Key of a sample's problem: task_id or problem_id, text or number; its own line without either. */
static const char *problem_id(DataSet *s, int64_t n, const Json *j) {
    const Json *v = json_get(j, "problem_id");
    if (!v) v = json_get(j, "task_id");
    if (v && json_kind(v) == J_STRING) return json_string(v, NULL);
    if (v && json_kind(v) == J_INT) return arena_fmt(s->a, "%lld", (long long)json_int(v));
    return arena_fmt(s->a, "line %lld", (long long)n + 1);
}

static bool is_right(const Json *j) {
    const Json *v = json_get(j, "is_correct");
    if (!v) return true;
    return json_kind(v) == J_BOOL                            ? json_bool(v)
           : json_kind(v) == J_INT || json_kind(v) == J_REAL ? json_real(v) > 0.5
                                                             : true;
}

static bool from_samples(DataSet *s, Diags *d) {
    StrMap *m = strmap_new(s->a);
    uint32_t *of = NEWN(s->a, uint32_t, s->nline + 1);
    bool *right = NEWN(s->a, bool, s->nline + 1);
    s->problem = NEWN(s->a, Problem, s->nline + 1);
    if (!m || !of || !right || !s->problem) return diag_fail(d, R006, NOLOC, "%s: out of memory", s->path);
    for (int64_t i = 0; i < s->nline; i++) {
        Sample x;
        if (!sample_read(s, i, &x, d)) return false;
        const char *id = problem_id(s, i, x.json);
        if (!strmap_get(m, id, &of[i])) {
            of[i] = (uint32_t)s->nproblem;
            strmap_put(m, id, of[i]);
            Problem *p = &s->problem[s->nproblem++];
            p->id = arena_str(s->a, id, strlen(id));
            const Json *df = json_path(x.json, "metadata.difficulty");
            p->difficulty = df && (json_kind(df) == J_INT || json_kind(df) == J_REAL) ? json_real(df) : 0;
        }
        right[i] = is_right(x.json);
        *(right[i] ? &s->problem[of[i]].nright : &s->problem[of[i]].nwrong) += 1;
        json_free(x.json);
    }
    for (int64_t i = 0; i < s->nproblem; i++) {
        s->problem[i].right = NEWN(s->a, int64_t, s->problem[i].nright + 1);
        s->problem[i].wrong = NEWN(s->a, int64_t, s->problem[i].nwrong + 1);
        s->problem[i].nright = s->problem[i].nwrong = 0;
    }
    for (int64_t i = 0; i < s->nline; i++) {
        Problem *p = &s->problem[of[i]];
        if (right[i])
            p->right[p->nright++] = i;
        else
            p->wrong[p->nwrong++] = i;
    }
    return true;
}

bool index_problems(DataSet *s, Diags *d) {
    size_t n = strlen(s->path);
    bool jsonl = n > 6 && strcmp(s->path + n - 6, ".jsonl") == 0;
    const char *meta = arena_fmt(s->a, "%.*s_metadata.json", (int)(jsonl ? n - 6 : n), s->path);
    EnvStat st;
    int err;
    return s->env->stat(s->env, meta, &st, &err) == 0 ? from_metadata(s, meta, d) : from_samples(s, d);
}
