/* config.h: YAML under a schema, with the origin of every leaf.
 * Layers: schema defaults < files under `defaults:` < the file < key=value. Maps merge, lists replace. */
#ifndef WM_CONFIG_H
#define WM_CONFIG_H

#include "frontend/frontend.h"

typedef struct Config Config;
/* path NULL: no file. override: "a.b=v" sets a key, "keep=0.5" (no dot) a hyper of the graph. NULL with
 * C001..C003. */
Config *config_load(Arena *a, Env *env, const char *path, const char *const *override, uint32_t n, Diags *d);
/* Typed access to keys of the schema; an unset key gives 0, false, "". Types and defaults were checked by
 * config_load. */
double config_num(const Config *c, const char *key);
int64_t config_int(const Config *c, const char *key);
bool config_bool(const Config *c, const char *key);
const char *config_str(const Config *c, const char *key);
bool config_is_set(const Config *c, const char *key);        /* by a file or the command line */
const char *config_origin(const Config *c, const char *key); /* "rho1.yaml:2", "command line", "default" */
Loc config_loc(const Config *c, const char *key);
/* A list key as rows of numbers: [1, 2] has one row, [[1, 2], [3, 4]] two. Rows must be equally long. */
bool config_rows(const Config *c, Arena *a, const char *key, double **v, uint32_t *nrow, uint32_t *ncol,
                 Diags *d);
/* graph.NAME and bare overrides. */
const Setting *config_hypers(const Config *c, uint32_t *n);
/* models.NAME: the names, in order; path, prefix, missing, ignore; everything else as settings of its
 * modules. */
typedef struct {
    const char *name, *path, *prefix, *missing;
    const char *const *ignore;
    uint32_t nignore;
    const Setting *set;
    const Loc *set_loc;
    uint32_t nset;
    Loc loc;
} ConfigModel;
const ConfigModel *config_models(const Config *c, uint32_t *n);
const ConfigModel *config_model(const Config *c, const char *name); /* NULL */
/* "key: value   # origin", every leaf; with_defaults: those too. As YAML it reads back to the same
 * configuration. */
void config_show(const Config *c, Sbuf *out, bool with_defaults);
/* Names of the schema, for did-you-mean and help. */
typedef struct {
    const char *path, *type, *dflt, *where, *help;
} ConfigKey;
extern const ConfigKey config_key[];
extern const uint32_t config_nkey;

#endif
