/* info.c: state.json, the part of a checkpoint that is not tensors: where the run stands and what it was
 * made from. A number that must come back with its bits stands beside its decimal form as hex digits. */
#include "runtime/checkpoint/files.h"

#include <string.h>

enum { INFO_MOST = 64 << 20, INFO_DEPTH = 8, MODELS_MOST = 4096 };

static void put_text(Sbuf *b, const char *key, const char *value) {
    sb_fmt(b, ",\n \"%s\": ", key);
    if (value)
        json_quote(b, value, strlen(value));
    else
        sb_str(b, "null");
}

static bool put_model(Sbuf *b, FileLog *l, const StateView *v, const char *name, const CkptModel *m,
                      bool first, Diags *d) {
    char hash[33] = "";
    bool trained = model_trained(v, name);
    if (!trained && m && m->hash[0])
        memcpy(hash, m->hash, 33);
    else if (!trained && !model_hash(v, l->env, name, hash, d))
        return false;
    sb_str(b, first ? "\n  {\"name\": " : ",\n  {\"name\": ");
    json_quote(b, name, strlen(name));
    sb_fmt(b, ", \"trained\": %s, \"hash\": \"%s\", \"path\": ", trained ? "true" : "false", hash);
    if (m && m->path)
        json_quote(b, m->path, strlen(m->path));
    else
        sb_str(b, "null");
    sb_chr(b, '}');
    return true;
}

/* A model of the rows that info does not list, at its first row. */
static bool unlisted(const StateView *v, const CkptInfo *info, uint32_t i) {
    const char *name = v->row[i].model;
    if (!name[0] || !state_is(&v->row[i], "param")) return false;
    for (uint32_t k = 0; k < info->nmodel; k++)
        if (!strcmp(info->model[k].name, name)) return false;
    for (uint32_t k = 0; k < i; k++)
        if (!strcmp(v->row[k].model, name) && state_is(&v->row[k], "param")) return false;
    return true;
}

static bool put_models(Sbuf *b, FileLog *l, const StateView *v, const CkptInfo *info, Diags *d) {
    bool first = true, ok = true;
    sb_str(b, ",\n \"models\": [");
    for (uint32_t i = 0; ok && i < info->nmodel; i++, first = false)
        ok = put_model(b, l, v, info->model[i].name, &info->model[i], first, d);
    for (uint32_t i = 0; ok && i < v->n; i++) {
        if (!unlisted(v, info, i)) continue;
        ok = put_model(b, l, v, v->row[i].model, NULL, first, d);
        first = false;
    }
    sb_chr(b, ']');
    return ok;
}

static void put_best(Sbuf *b, const CkptInfo *info) {
    union {
        double d;
        uint64_t u;
    } bits = {info->best};
    if (!info->best_metric) {
        sb_str(b, ",\n \"best\": null");
        return;
    }
    sb_str(b, ",\n \"best\": {\"metric\": ");
    json_quote(b, info->best_metric, strlen(info->best_metric));
    sb_str(b, ", \"value\": ");
    json_number(b, info->best);
    sb_fmt(b, ", \"bits\": \"%016llx\", \"step\": %lld}", (unsigned long long)bits.u,
           (long long)info->best_step);
}

bool info_write(FileLog *l, const StateView *v, const CkptInfo *info, Diags *d) {
    Sbuf b;
    sb_init(&b, l->a);
    sb_fmt(&b,
           "{\n \"format\": \"wmtpc-state\",\n \"version\": 1,\n \"step\": %lld,\n \"steps\": %lld,\n "
           "\"epoch\": %lld,\n"
           " \"sample\": %lld,\n \"seed\": \"%llu\"",
           (long long)info->step, (long long)info->steps, (long long)info->epoch, (long long)info->sample,
           (unsigned long long)info->seed);
    put_text(&b, "graph", info->graph_hash);
    put_text(&b, "plan", info->plan_hash);
    put_text(&b, "built", info->built);
    put_text(&b, "machine", info->machine);
    put_best(&b, info);
    if (!put_models(&b, l, v, info, d)) return false;
    put_text(&b, "extra", info->extra);
    put_text(&b, "config", info->config);
    sb_str(&b, "\n}\n");
    if (b.failed) return diag_fail(d, R006, NOLOC, "no memory for state.json of %s", l->dir);
    return log_write(l, "state.json", b.s, b.len, d);
}

/* ---- reading */

static const char *copy_text(Arena *a, const Json *j) {
    size_t len = 0;
    const char *s = json_string(j, &len);
    return s ? arena_str(a, s, len) : NULL;
}

static bool parse_seed(const char *s, uint64_t *seed) {
    uint64_t v = 0;
    if (!s || !*s || strlen(s) > 20) return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    *seed = v;
    return true;
}

static bool parse_bits(const char *s, double *out) {
    union {
        double d;
        uint64_t u;
    } bits = {0};
    if (!s || strlen(s) != 16) return false;
    for (; *s; s++) {
        bool digit = *s >= '0' && *s <= '9';
        if (!digit && (*s < 'a' || *s > 'f')) return false;
        bits.u = bits.u << 4 | (uint64_t)(digit ? *s - '0' : *s - 'a' + 10);
    }
    *out = bits.d;
    return true;
}

static bool parse_best(Arena *a, const Json *j, CkptInfo *info) {
    if (json_kind(j) == J_NULL) return true;
    info->best_metric = copy_text(a, json_get(j, "metric"));
    info->best_step = json_int(json_get(j, "step"));
    return info->best_metric && parse_bits(json_string(json_get(j, "bits"), NULL), &info->best);
}

static bool parse_models(Arena *a, const Json *j, CkptInfo *info) {
    size_t n = json_size(j);
    if (json_kind(j) != J_ARRAY || n > MODELS_MOST) return false;
    CkptModel *m = NEWN(a, CkptModel, n + 1);
    if (!m) return false;
    for (size_t i = 0; i < n; i++) {
        const Json *row = json_at(j, i);
        size_t len = 0;
        const char *hash = json_string(json_get(row, "hash"), &len);
        m[i].name = copy_text(a, json_get(row, "name"));
        m[i].path = copy_text(a, json_get(row, "path"));
        if (!m[i].name || !hash || (len && len != 32)) return false;
        memcpy(m[i].hash, hash, len + 1);
    }
    info->model = m;
    info->nmodel = (uint32_t)n;
    return true;
}

static bool parse_info(Arena *a, const Json *j, CkptInfo *info) {
    static const char *const whole[] = {"step", "steps", "epoch", "sample"};
    const char *format = json_string(json_get(j, "format"), NULL);
    if (!format || strcmp(format, "wmtpc-state") || json_int(json_get(j, "version")) != 1) return false;
    for (size_t i = 0; i < WM_LEN(whole); i++)
        if (json_kind(json_get(j, whole[i])) != J_INT || json_int(json_get(j, whole[i])) < 0) return false;
    info->step = json_int(json_get(j, "step"));
    info->steps = json_int(json_get(j, "steps"));
    info->epoch = json_int(json_get(j, "epoch"));
    info->sample = json_int(json_get(j, "sample"));
    info->graph_hash = copy_text(a, json_get(j, "graph"));
    info->plan_hash = copy_text(a, json_get(j, "plan"));
    info->built = copy_text(a, json_get(j, "built"));
    info->machine = copy_text(a, json_get(j, "machine"));
    info->extra = copy_text(a, json_get(j, "extra"));
    info->config = copy_text(a, json_get(j, "config"));
    return parse_seed(json_string(json_get(j, "seed"), NULL), &info->seed) &&
           parse_best(a, json_get(j, "best"), info) && parse_models(a, json_get(j, "models"), info);
}

bool ckpt_read_info(Env *env, const char *path, Arena *a, CkptInfo *info, Diags *d) {
    EnvStat st;
    char *text = NULL;
    size_t len = 0;
    *info = (CkptInfo){0};
    const char *file = join(a, path, "state.json");
    if (!real_entry(env, file, false, &st, d) || !file_read_all(env, a, file, INFO_MOST, &text, &len, d))
        return false;
    Json *j = json_parse(text, len, file, 1, INFO_DEPTH, d, D001);
    if (!j) return false;
    bool ok =
        parse_info(a, j, info) || diag_fail(d, D001, NOLOC, "%s: not a state of version 1", shown(d, file));
    json_free(j);
    return ok;
}
