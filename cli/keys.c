/* keys.c: one table of a model's sizes. `params.json` counts all L blocks, our `config.json` the L - n + 1 of
 * `layers`: a model whose modules know n_future_tokens gets L, any other L - n + 1, whichever file it is. */
#include "cli/keys.h"

#include <string.h>

/* name in the modules of the library, in params.json, in config.json */
static const char *const size_key[][3] = {
    {"hidden", "dim", "hidden_size"},
    {"ffn", "hidden_dim", "intermediate_size"},
    {"vocab", "vocab_size", "vocab_size"},
    {"n_layers", "n_layers", "num_hidden_layers"},
    {"n_heads", "n_heads", "num_attention_heads"},
    {"n_kv_heads", "n_kv_heads", "num_key_value_heads"},
    {"norm_eps", "norm_eps", "rms_norm_eps"},
    {"rope_theta", "rope_theta", "rope_theta"},
    {"n_future_tokens", "n_future_tokens", "n_future_tokens"},
    {"hd", "head_dim", "head_dim"},
    {"tied", "tie_word_embeddings", "tie_word_embeddings"},
};

/* Keys that change what a model computes, with the value that changes nothing (NULL: any value but false
 * counts). */
static const struct {
    const char *key, *harmless;
} changes[] = {
    {"rope_scaling.type", NULL},
    {"rope_scaling.rope_type", "default"},
    {"rope_scaling.factor", NULL},
    {"rope_parameters.factor", NULL},
    {"rope_parameters.rope_type", "default"},
    {"sliding_window", NULL},
    {"attention_bias", NULL},
    {"mlp_bias", NULL},
    {"use_scaled_rope", NULL},
    {"tie_word_embeddings", NULL},
    {"hidden_act", "silu"},
};

static bool reads(const GraphModel *m, const char *key) {
    for (uint32_t i = 0; i < m->nkey; i++)
        if (strcmp(m->key[i], key) == 0) return true;
    return false;
}

static bool ignored(const ConfigModel *cm, const char *key) {
    for (uint32_t i = 0; i < cm->nignore; i++)
        if (strcmp(cm->ignore[i], key) == 0 ||
            (strncmp(cm->ignore[i], key, strlen(cm->ignore[i])) == 0 && key[strlen(cm->ignore[i])] == '.'))
            return true;
    return false;
}

static bool honest(Cli *c, const GraphModel *m, const ConfigModel *cm, const ModelKey *k, const char *file) {
    for (size_t i = 0; i < WM_LEN(changes); i++) {
        if (strcmp(changes[i].key, k->key) != 0) continue;
        bool off = k->kind == J_BOOL && k->num == 0;
        bool same = changes[i].harmless && k->kind == J_STRING && strcmp(k->str, changes[i].harmless) == 0;
        if (off || same || reads(m, k->key) || ignored(cm, k->key)) return true;
        Diag *g =
            diag_add(c->d, D013, cm->loc, "%s: `%s` changes what the model computes, and %s does not read it",
                     file, k->key, m->kind);
        diag_help(c->d, g, "use a model that reads it, or say `models.%s.ignore: [%s]`", m->name, k->key);
        return false;
    }
    return true;
}

bool keys_read(Cli *c, const GraphModel *m, const ConfigModel *cm, ModelSource *out) {
    ModelKey *key;
    uint32_t n;
    const char *file = NULL;
    if (!model_keys_read(c->env, c->a, cm->path, "", &key, &n, &file, c->d)) return false;
    if (!file) return true;
    double future = 1;
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(key[i].key, "n_future_tokens") == 0 && key[i].num >= 1) future = key[i].num;
    Setting *s = NEWN(c->a, Setting, n + 1);
    bool knows = reads(m, "n_future_tokens");
    for (uint32_t i = 0; i < n; i++) {
        if (!honest(c, m, cm, &key[i], file)) return false;
        s[i].key = key[i].key;
        s[i].origin = file;
        s[i].v = (ConstValue){key[i].kind == J_STRING ? VAL_STRING
                              : key[i].kind == J_BOOL ? VAL_BOOL
                                                      : VAL_NUMBER,
                              key[i].num, key[i].str, key[i].kind == J_INT};
        if (strcmp(key[i].key, "n_layers") == 0 && !knows) s[i].v.num -= future - 1;
        if (strcmp(key[i].key, "num_hidden_layers") == 0 && knows) s[i].v.num += future - 1;
    }
    out->json = s;
    out->njson = n;
    out->json_path = file;
    return true;
}

static const Setting *find(const Setting *s, uint32_t n, const char *key) {
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(s[i].key, key) == 0) return &s[i];
    return NULL;
}

/* A size: YAML, then the file's names, then the dim of the graph. */
static bool size_of(const ModelSource *src, const Graph *g, const char *const row[3], const char *model,
                    double *v) {
    const Setting *s = find(src->yaml, src->nyaml, row[0]);
    if (!s) s = find(src->json, src->njson, row[1]);
    if (!s) s = find(src->json, src->njson, row[2]);
    DimId d;
    Arena *a = g->arena;
    if (s && s->v.kind != VAL_STRING) return *v = s->v.num, true;
    if (!graph_find_dim(g, arena_fmt(a, "%s.%s", row[0], model), &d) && !graph_find_dim(g, row[0], &d))
        return false;
    return *v = (double)g->dim[d.i].size, true;
}

/* What our modules take where nothing is said and other readers of config.json take something else. */
static bool default_of(const char *name, double *v) {
    if (strcmp(name, "norm_eps") == 0) return *v = 1e-5, true;
    if (strcmp(name, "rope_theta") == 0) return *v = 10000.0, true;
    return false;
}

const char *keys_config_json(Cli *c, const GraphModel *m, const ModelSource *src, const Graph *g) {
    Sbuf b;
    double v, future = 1;
    sb_init(&b, c->a);
    sb_str(&b, "{\n  \"architectures\": [\"LlamaForCausalLM\"],\n  \"model_type\": \"llama\"");
    if (reads(m, "n_future_tokens")) size_of(src, g, size_key[8], m->name, &future);
    for (size_t i = 0; i < WM_LEN(size_key); i++) {
        if (!reads(m, size_key[i][1]) && !reads(m, size_key[i][2])) continue;
        if (!size_of(src, g, size_key[i], m->name, &v) && !default_of(size_key[i][0], &v)) continue;
        if (strcmp(size_key[i][0], "n_layers") == 0) v -= future - 1;
        sb_fmt(&b, ",\n  \"%s\": ", size_key[i][2]);
        if (strcmp(size_key[i][0], "tied") == 0)
            sb_str(&b, v != 0 ? "true" : "false");
        else
            json_number(&b, v);
    }
    for (uint32_t i = 0; i < src->nyaml; i++) { /* sizes that only this model's modules know */
        bool known = false;
        for (size_t k = 0; k < WM_LEN(size_key); k++)
            known = known || strcmp(size_key[k][0], src->yaml[i].key) == 0;
        if (known || src->yaml[i].v.kind == VAL_STRING) continue;
        sb_str(&b, ",\n  ");
        json_quote(&b, src->yaml[i].key, strlen(src->yaml[i].key));
        sb_str(&b, ": ");
        if (src->yaml[i].v.kind == VAL_BOOL)
            sb_str(&b, src->yaml[i].v.num != 0 ? "true" : "false");
        else
            json_number(&b, src->yaml[i].v.num);
    }
    sb_str(&b, ",\n  \"hidden_act\": \"silu\"\n}\n");
    return b.s;
}

const char *keys_export_json(Cli *c, const ModelKey *key, uint32_t n, bool meta, int64_t heads) {
    Sbuf b;
    double future = 1;
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(key[i].key, "n_future_tokens") == 0) future = key[i].num;
    if (heads > 0) future = (double)heads;
    sb_init(&b, c->a);
    sb_str(&b, meta ? "{" : "{\n  \"architectures\": [\"LlamaForCausalLM\"]");
    bool first = meta;
    for (uint32_t i = 0; i < n; i++) {
        const char *name = key[i].key;
        double v = key[i].num;
        bool known = false;
        for (size_t k = 0; k < WM_LEN(size_key) && !known; k++) {
            known = strcmp(size_key[k][2], name) == 0;
            if (known && meta) name = size_key[k][1];
        }
        if (strcmp(key[i].key, "num_hidden_layers") == 0 && meta) v += future - 1;
        if (strcmp(key[i].key, "n_future_tokens") == 0) v = future;
        if (meta && !known && key[i].kind == J_STRING)
            continue; /* architectures, model_type, hidden_act: not Meta's */
        sb_fmt(&b, "%s\n  ", first ? "" : ",");
        first = false;
        json_quote(&b, name, strlen(name));
        sb_str(&b, ": ");
        if (key[i].kind == J_STRING)
            json_quote(&b, key[i].str, strlen(key[i].str));
        else if (key[i].kind == J_BOOL)
            sb_str(&b, v != 0 ? "true" : "false");
        else
            json_number(&b, v);
    }
    sb_str(&b, "\n}\n");
    return b.s;
}
