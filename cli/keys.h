/* keys.h: names of a model's sizes in params.json, in config.json and in our modules. */
#ifndef WM_KEYS_H
#define WM_KEYS_H

#include "cli/cli.h"

/* Reads the keys beside a model's weights into the rows that the frontend looks at; counts of blocks
 * corrected, keys that the model cannot honour refused (D013). */
bool keys_read(Cli *c, const GraphModel *m, const ConfigModel *cm, ModelSource *out);
/* Text of the config.json that a checkpoint of this model gets: Hugging Face's names. */
const char *keys_config_json(Cli *c, const GraphModel *m, const ModelSource *src, const Graph *g);

/* Text of params.json (meta) or config.json for an exported model, from the keys of a config.json; `heads` >
 * 0 sets n_future_tokens. The counts of blocks follow the file: params.json has all L, config.json those of
 * `layers`. */
const char *keys_export_json(Cli *c, const ModelKey *key, uint32_t n, bool meta, int64_t heads);

#endif
