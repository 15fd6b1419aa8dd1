/* runtime.h: everything in a run. Never sees the IR: it reads a Plan. No jumps: functions return false with a
 * Diag, and close what they opened. */
#ifndef WM_RUNTIME_H
#define WM_RUNTIME_H

#include "runtime/plan.h"

/* ---- plan text (plan_text.c, plan_check.c) */
void plan_print(const Plan *p, Sbuf *out);
/* NULL with P001 (position, found, allowed): limits, hash, grammar, every offset inside its arena, every
 * argument as large as its kernel's row says. */
Plan *plan_parse(Arena *a, const char *file, const char *text, size_t len, Diags *d);
bool plan_check(const Plan *p, const char *file, Diags *d);

/* ---- JSON (json.c; the only place that includes jansson) : strict, limits of reliability.md 4 */
#define json_real   wm_json_real /* jansson exports these two names itself */
#define json_string wm_json_string
typedef struct Json Json;
typedef enum { J_NULL, J_BOOL, J_INT, J_REAL, J_STRING, J_ARRAY, J_OBJECT } JsonKind;
Json *json_parse(const char *text, size_t len, const char *file, uint32_t line0, int max_depth, Diags *d,
                 Code code);
void json_free(Json *j);
JsonKind json_kind(const Json *j);
bool json_bool(const Json *j);
int64_t json_int(const Json *j);
double json_real(const Json *j); /* of J_INT too */
const char *json_string(const Json *j, size_t *len);
size_t json_size(const Json *j);
const Json *json_at(const Json *j, size_t i);
const Json *json_get(const Json *j, const char *key);                 /* NULL: not there */
const Json *json_path(const Json *j, const char *dotted);             /* "metadata.difficulty" */
const char *json_key_at(const Json *j, size_t i, const Json **value); /* objects, in file order */
void json_quote(Sbuf *out, const char *s, size_t len);
void json_number(Sbuf *out, double v); /* NaN and infinities: null */

/* ---- threads of a rank and arenas (device/) */
typedef void (*KernelFnRt)(void *const *p, int part, int nparts);
typedef struct Pool Pool;
Pool *pool_open(Env *env, int threads /* 0: cores */, Diags *d);
void pool_close(Pool *p);
int pool_threads(const Pool *p);
void pool_run(Pool *p, KernelFnRt fn, void *const *args); /* all parts; returns when all are done */

/* Device: what an executor needs of the place where it computes. `cpu` here; `cuda` comes as a module. */
typedef struct Device Device;
struct Device {
    void *self;
    const char *name;
    void *(*arena_open)(Device *, int64_t bytes);
    void (*arena_close)(Device *, void *p, int64_t bytes);
    void (*upload)(Device *, void *dst, const void *src, int64_t bytes);
    void (*download)(Device *, void *dst, const void *src, int64_t bytes);
    void (*zero)(Device *, void *dst, int64_t bytes);
    void (*copy)(Device *, void *dst, const void *src, int64_t bytes);
    void (*launch)(Device *, KernelFnRt fn, void *const *args,
                   int64_t bytes); /* bytes of all arguments together */
    void (*accum)(Device *, PlanDType dt, void *dst, const void *left, const void *right,
                  int64_t count); /* dst = left + right */
    bool (*sync)(Device *, Diags *);
    void (*close)(Device *);
};
Device *device_cpu(Env *env, int threads, Diags *d);

/* ---- communication between ranks: the interface only; `threads`, `mpi` and `nccl` will implement it. Counts
 * are elements; an operation completes when all members have posted it. */
typedef struct Comm Comm;
struct Comm {
    void *self;
    int rank, size;
    bool (*all_gather)(Comm *, const void *in, void *out, int64_t count, PlanDType dt, int axis, Diags *);
    bool (*reduce_scatter)(Comm *, const void *in, void *out, int64_t count, PlanDType dt, int axis, Diags *);
    bool (*all_reduce)(Comm *, void *inout, int64_t count, PlanDType dt, int axis, Diags *);
    bool (*all_to_all)(Comm *, const void *in, void *out, int64_t count, PlanDType dt, int axis, Diags *);
    bool (*barrier)(Comm *, Diags *);
    void (*abort)(Comm *, int exit_code);
    void (*close)(Comm *);
};

/* ---- executor (exec/) */
typedef struct Exec Exec;
Exec *exec_open(Env *env, const Plan *plan, const KernelFnRt *kernel, Device *dev, uint64_t seed,
                Diags *d); /* takes the arenas */
void exec_close(Exec *e);
void *exec_state_ptr(Exec *e, uint32_t row); /* PlanState row in ARENA_STATE */
const Plan *exec_plan(const Exec *e);
uint64_t exec_seed(const Exec *e);
bool exec_init_states(
    Exec *e, Diags *d); /* (state.c) initial values from PlanState.init, Philox of (seed, stream, element) */
int exec_program(const Exec *e, const char *name); /* -1: none */
/* Where the caller writes one micro-batch of an input before exec_step. NULL: the program does not read it.
 */
void *exec_input(Exec *e, int program, const char *name, int64_t micro);
/* Runs one step: step is the optimizer step from 0, steps the number of the whole run. Allocates nothing.
 * Exit 79 (R003) when an I_CHECK fails: states are then as before the step. stop: looked at between
 * instructions; may be NULL. */
bool exec_step(Exec *e, int program, int64_t step, int64_t steps, Diags *d);
/* A program other than `train` (validation) ends between two micro-batches, false without a Diag, once *stop
 * is not 0. */
void exec_stop(Exec *e, const volatile int *stop);
/* fn on all threads of the device, as a kernel whose arguments take `bytes`. */
void exec_share(Exec *e, KernelFnRt fn, void *const *args, int64_t bytes);
/* Adds the time of each instruction to ns[0 .. plan->ninstr); NULL: no longer. */
void exec_profile(Exec *e, int64_t *ns);
/* Result of the last step: count elements in *out as double; a per_micro output has all micro-batches in
 * order. */
const PlanOutput *exec_output(Exec *e, int program, const char *kind, const char *name, const void **data);
double exec_number(Exec *e, int program, const char *kind,
                   const char *name); /* a scalar; NaN if there is none */

/* ---- safetensors (checkpoint/safetensors.c) */
typedef struct {
    const char *name;
    const char *dtype; /* "F32" .. */
    int64_t shape[PLAN_MAX_DIMS];
    uint32_t ndim;
    int64_t begin, end;
} StTensor;
typedef struct StFile StFile;
StFile *st_open(Env *env, const char *path, Diags *d); /* checks everything of reliability.md 3; 65, 66 */
void st_close(StFile *f);
uint32_t st_count(const StFile *f);
const StTensor *st_tensor(const StFile *f, uint32_t i);
const StTensor *st_find(const StFile *f, const char *name);
const char *st_meta(const StFile *f, const char *key); /* of __metadata__; NULL */
bool st_read(StFile *f, const StTensor *t, void *out, int64_t at, int64_t bytes, Diags *d);
const char *st_path(const StFile *f);
/* A directory: model.safetensors, or shards by model.safetensors.index.json, or the set NAME-*.safetensors;
 * or one file. */
typedef struct {
    StFile **file;
    uint32_t n;
} StSet;
bool st_open_set(Env *env, Arena *a, const char *path,
                 const char *set /* "model", "value"; NULL: whatever there is */, StSet *s, Diags *d);
void st_close_set(StSet *s);
const StTensor *st_set_find(const StSet *s, const char *name, StFile **file);
typedef struct {
    const char *name, *dtype;
    int64_t shape[PLAN_MAX_DIMS];
    uint32_t ndim;
    const void *data;
    int64_t bytes;
} StOut;
typedef struct {
    const char *key, *value;
} StMeta;
/* Writes path (which must not exist) and fsyncs it. Tensors stand in the order given. hash: XXH3-128 of the
 * file, may be NULL. */
bool st_write(Env *env, const char *path, const StOut *t, uint32_t n, const StMeta *meta, uint32_t nmeta,
              char hash[33], Diags *d);

/* ---- names and orders (checkpoint/names.c): between the memory of a state row and its tensor in a file */
typedef enum { NAMES_META, NAMES_HF } NameStyle;
void state_stored_shape(const PlanState *s, int64_t *shape, uint32_t *ndim);
/* rows as stored under `style`, dtype F32 or F64 or (reading) BF16 and F16 widened; buffers of the whole
 * tensor */
void state_to_stored(const PlanState *s, NameStyle style, const void *mem, void *out);
void state_from_stored(const PlanState *s, NameStyle style, const void *in, void *mem);
/* Reads the parameters of `model` from a set. prefix goes before each name. missing_init: absent ones keep
 * their initial value. D010, D011 otherwise. extra (may be NULL): names in the set that the model does not
 * declare. */
bool weights_load(Exec *e, const Plan *p, const char *model, const StSet *set, const char *prefix,
                  bool missing_init, Arena *a, const char ***extra, uint32_t *nextra, Diags *d);

#include "runtime/checkpoint.h"

#endif
