/* frontend.h: `.wg` text to a Graph at ST_MATH, checked. Opens no JSON and no weights: the caller hands over
 * what configuration files say and which tensors are stored. */
#ifndef WM_FRONTEND_H
#define WM_FRONTEND_H

#include "ir/ir.h"

typedef enum { VAL_NUMBER, VAL_BOOL, VAL_STRING } ValueKind;
typedef struct {
    ValueKind kind;
    double num;
    const char *str;
    bool is_int;
} ConstValue; /* VAL_BOOL: num 0 or 1 */

/* One setting, from YAML, the command line, params.json or config.json (nested keys joined by dots). */
typedef struct {
    const char *key;
    ConstValue v;
    const char *origin; /* "rho1.yaml:2", "command line" */
} Setting;
typedef struct {
    const char *name;
    int64_t shape[MAX_DIMS];
    uint32_t ndim;
} StoredShape;

typedef struct {
    const char *model; /* name of the instance in the graph */
    const Setting *yaml;
    uint32_t nyaml; /* models.NAME.KEY that are configs or sizes of its modules */
    const Setting *json;
    uint32_t njson;        /* of the file beside the weights, counts of blocks already corrected */
    const char *json_path; /* for E064; NULL: no such file */
    bool has_weights;      /* a `path` is given: parameters must be found in `stored` */
    bool missing_init;     /* models.NAME.missing: init */
    const char *prefix;    /* models.NAME.prefix, "" */
    const StoredShape *stored;
    uint32_t nstored;
} ModelSource;

typedef struct {
    const char *phase;         /* "train" or "val" */
    int64_t micro, batch, seq; /* G of this phase, samples of a micro-batch, places */
    const Setting *hyper;
    uint32_t nhyper; /* graph.NAME and command line */
    const ModelSource *model;
    uint32_t nmodel;
    const char *const *want;
    uint32_t nwant;    /* bindings to return as results of kind "value" */
    bool assume_sizes; /* `check` without configuration: sizes nothing gives are assumed, with a note */
    const char *const *path;
    uint32_t npath; /* WMTPC_PATH, then the installed library */
    bool werror;
    const char *const *no_warn;
    uint32_t nno_warn; /* -W error, -W no-W063 */
    const char *const *warn;
    uint32_t nwarn; /* -W W061: on that is off by default */
} LowerOptions;

/* What the graph asks of the world, for data, configuration and messages. */
typedef struct {
    const char *name, *dtype, *from;
    const char *dims[MAX_DIMS];
    uint32_t ndim;
    Loc loc;
} GraphInput;
typedef struct {
    const char *name, *type, *doc;
    ConstValue value;
    const char *range, *origin;
    Loc loc;
} GraphHyper;
typedef struct {
    const char *name, *kind;
    bool frozen, trained;
    Loc loc;
    const char *const *key;
    uint32_t nkey; /* every key of params.json or config.json that its modules' configs and dims read
                      (`from`, else the own name); set by frontend_info and frontend_lower */
    const char *const *setting;
    uint32_t nsetting; /* names of these configs and dims: what models.NAME.KEY may be */
} GraphModel;
typedef struct {
    GraphInput *input;
    uint32_t ninput;
    GraphHyper *hyper;
    uint32_t nhyper;
    GraphModel *model;
    uint32_t nmodel;
    const char *best_mode, *best_metric; /* "min", "val.loss" */
    int64_t side, group; /* answers to one problem that tokens ask for; 1 without such a dim */
    const char *const *file;
    uint32_t nfile; /* every .wg file read */
} GraphInfo;

/* Parses FILE with what it imports and extends, checks and lowers it. NULL with diagnostics on error. Results
 * of the graph: loss NAME (one each), total, metric NAME or NAME.COORDINATE, value NAME (from `want`), next
 * STATE (train phase), and Graph.opt with clip_norm. Only hyper-parameters are constants; schedules are nodes
 * over scalar step. */
Graph *frontend_lower(Arena *a, const char *file, const LowerOptions *o, GraphInfo *info, Diags *d);

/* `check`: a graph as frontend_lower does, a module on its own: imports, names, what blocks and models read.
 */
bool frontend_check(Arena *a, const char *file, const LowerOptions *o, Diags *d);

/* What can be known of a graph before any configuration: models, hypers, inputs (for `config` and `data`). */
bool frontend_info(Arena *a, const char *file, const LowerOptions *o, GraphInfo *info, Diags *d);

/* Runs the `test` blocks of a file in the reference evaluator. Each failed expectation is E070. */
typedef struct {
    uint32_t passed, failed;
} TestCount;
bool frontend_test(Arena *a, const char *file, const LowerOptions *o, TestCount *count, Diags *d);

/* The flat graph after `extends` (wmtpc expand), with names and comments kept where a statement survives. */
bool frontend_expand(Arena *a, const char *file, const LowerOptions *o, Sbuf *out, Diags *d);

/* The text with its indentation and spaces in order; lines, comments and alignment by two or more spaces
 * stay. Twice gives the same as once. false with diagnostics where the text does not parse. */
bool wg_format(Arena *a, const char *path, const char *text, size_t len, Sbuf *out, Diags *d);

#endif
