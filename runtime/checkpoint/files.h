/* files.h: what the files of runtime/checkpoint/ share, not for other folders. */
#ifndef WM_CHECKPOINT_FILES_H
#define WM_CHECKPOINT_FILES_H

#include "runtime/runtime.h"

/* ---- names.c */
extern const int plan_dtype_bytes[5];
const char *state_name(const PlanState *s, NameStyle style);
bool state_is(const PlanState *s, const char *role);
bool state_as_stored(const PlanState *s, NameStyle style);   /* memory is already in the form of the file */
const char *state_dtype_text(PlanDType t);                   /* "F64" .. as safetensors spells it */
void bytes_hex(const unsigned char *p, size_t n, char *hex); /* 2 n digits and a NUL */
typedef struct {
    int bytes;
    bool bf16;
} RealDType;                                     /* F64, F32, BF16 (true) and F16 */
bool real_dtype(const char *name, RealDType *t); /* of a safetensors dtype; f16 only to read */
void reals_convert(RealDType from, const void *in, RealDType to, void *out, int64_t count);

/* ---- hash.c */
typedef struct {
    _Alignas(64) unsigned char opaque[640];
} Hash128;
void hash128_start(Hash128 *h);
void hash128_put(Hash128 *h, const void *p, size_t bytes);
void hash128_end(Hash128 *h, char hex[33]);

/* ---- safetensors.c */
enum { ST_HEADER_MOST = 64 << 20, ST_TENSORS_MOST = 1 << 20, ST_NAME_MOST = 1024, ST_DEPTH_MOST = 8 };
int st_dtype_bytes(const char *dtype); /* 0: unknown */
int64_t st_file_bytes(const StFile *f);
bool pread_full(Env *env, int fd, void *p, size_t n, int64_t at, int *err); /* err 0: the file ends before */
const char *shown(Diags *d, const char *text);                              /* escaped, for messages */

/* ---- set.c */
bool plain_name(const char *s); /* stays in its directory */
const char *join(Arena *a, const char *dir, const char *name);

/* ---- write.c: every new file goes through it. A directory that is being filled, and what was put there. */
typedef struct {
    const char *name, *dtype;
    int64_t shape[PLAN_MAX_DIMS];
    uint32_t ndim;
    int64_t bytes;
    char hash[33];
} LogTensor;
typedef struct {
    const char *name;
    int64_t bytes;
    char hash[33];
    LogTensor *tensor;
    uint32_t ntensor;
} LogFile;
typedef struct {
    Env *env;
    Arena *a;
    const char *dir;
    LogFile *file;
    uint32_t n, cap;
} FileLog;
/* Writes DIR/NAME, fsyncs and closes it, and notes it. */
bool log_write(FileLog *l, const char *name, const void *p, size_t bytes, Diags *d);
void log_remove(const FileLog *l); /* the files and the directory, as far as the disk allows */
/* A tensor to be written: a row of the view under `name`. */
typedef struct {
    const char *name;
    const PlanState *row;
    uint32_t index;
} OutTensor;
typedef struct {
    const char *set; /* SET-00001-of-00002.safetensors, SET.safetensors.index.json; one file NAME.safetensors
                        if !cut */
    bool cut;
    int64_t cut_bytes;
    NameStyle style;
    bool own_dtype; /* else `as` */
    PlanDType as;
} SetForm;
/* Writes tensors, sorted by name, as safetensors files cut by size alone, and their index. */
bool set_write(FileLog *l, const StateView *v, OutTensor *t, uint32_t n, const SetForm *form, Diags *d);

/* ---- manifest.c */
typedef struct {
    int64_t step, epoch;
    const char *run, *graph, *plan;
    LogFile *file;
    uint32_t n;
} Manifest;
bool manifest_write(FileLog *l, const Manifest *m, const StateView *v, Diags *d); /* lists l's files */
bool manifest_read(Env *env, Arena *a, const char *dir, Manifest *m, Diags *d);   /* checks its hash; D001 */
bool real_entry(Env *env, const char *path, bool dir, EnvStat *st, Diags *d);     /* no symbolic link; D001 */

/* ---- commit.c: what a checkpoint is called and made of */
bool step_name(const char *name, int64_t *step); /* exactly step-NNNNNN */
bool model_trained(const StateView *v, const char *model);
const char *first_model(const StateView *v, const CkptInfo *info); /* "" if there is none */
const char *model_set(const StateView *v, const CkptInfo *info,
                      const char *model); /* "model" or its own name */
/* The row under which a moment or a state is stored: axes, halves and second name are those of its
 * parameter. */
const PlanState *stored_row(Arena *a, const StateView *v, uint32_t i);
/* Name of a row that is no parameter: exp_avg.MODEL/NAME; a state of the graph has its own name. */
const char *extra_name(Arena *a, const PlanState *s);
bool info_write(FileLog *l, const StateView *v, const CkptInfo *info, Diags *d); /* state.json */

/* ---- prune.c */
bool remove_flat(Env *env, Arena *a, const char *dir, Diags *d); /* a directory of plain files */

/* ---- weights.c */
/* One tensor of a file into the memory of its row; the shapes agree already. */
bool row_load(Env *env, const PlanState *s, NameStyle style, StFile *file, const StTensor *t, void *mem,
              Diags *d);

/* ---- export.c */
#define CUT_BYTES ((int64_t)2 << 30)
const char *parent_path(Arena *a, const char *path);
bool model_tensors(Arena *a, const StateView *v, const char *model, NameStyle style, OutTensor **out,
                   uint32_t *n, Diags *d);

#endif
