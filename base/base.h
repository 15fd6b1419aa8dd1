/* base.h: everything that all folders share. Arenas, text, diagnostics, system calls behind one struct.
 *
 * Two kinds of failure, never mixed: a mistake of the user or of the machine becomes a Diag and a false or
 * NULL; a broken invariant (wm_check) or an exhausted arena jumps to the guard of the public entry point,
 * which turns it into a Diag with exit code 70 or 71. Nothing in the library prints, exits or aborts. */
#ifndef WM_BASE_H
#define WM_BASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WM_VERSION      "0.1.0"
#define WM_LEN(a)       (sizeof(a) / sizeof((a)[0]))
#define WM_PRINTF(f, v) __attribute__((format(printf, f, v)))

typedef struct Env Env;
typedef struct Diags Diags;

/* ---- exit codes */
enum {
    EXIT_DONE = 0,
    EXIT_USER = 1,
    EXIT_USAGE = 2,
    EXIT_DAMAGED = 65,
    EXIT_MISSING = 66,
    EXIT_UNAVAILABLE = 69,
    EXIT_INTERNAL = 70,
    EXIT_MEMORY = 71,
    EXIT_OWNED = 73,
    EXIT_IO = 74,
    EXIT_AGAIN = 75,
    EXIT_DISAGREE = 76,
    EXIT_NONFINITE = 79
};

/* ---- checked sizes: false when the result does not fit; the result is then untouched */
typedef uint64_t wm_size;
static inline bool wm_mul(wm_size a, wm_size b, wm_size *r) {
    wm_size t;
    if (__builtin_mul_overflow(a, b, &t)) return false;
    *r = t;
    return true;
}
static inline bool wm_add(wm_size a, wm_size b, wm_size *r) {
    wm_size t;
    if (__builtin_add_overflow(a, b, &t)) return false;
    *r = t;
    return true;
}

/* ---- guard: the one escape to a public entry point (compiler folders only; runtime/ has no jumps) */
typedef struct Guard {
    jmp_buf out;
    Diags *diags;
} Guard;

/* Runs fn(ctx, guard) and returns what it returns; false with a Diag (70 or 71) if it escaped through the
 * guard. */
bool guard_run(bool (*fn)(void *ctx, Guard *g), void *ctx, Diags *d);
_Noreturn void guard_escape(Guard *g, int exit_code, const char *fmt, ...) WM_PRINTF(3, 4);

/* ---- arena: bump allocation, zeroed, 16-byte aligned; freed as a whole. guard may be NULL only if the
 * caller of every allocating function can live with abort-free NULL: compiler folders always have one. */
typedef struct Arena Arena;
Arena *arena_open(Env *env, Guard *guard);
void arena_close(Arena *a);
void *arena_alloc(Arena *a, wm_size bytes);
void *arena_copy(Arena *a, const void *p, wm_size bytes);
char *arena_str(Arena *a, const char *s, size_t len);
char *arena_fmt(Arena *a, const char *fmt, ...) WM_PRINTF(2, 3);
char *arena_vfmt(Arena *a, const char *fmt, va_list ap);
Guard *arena_guard(const Arena *a);
Env *arena_env(const Arena *a);
wm_size arena_bytes(const Arena *a); /* bytes taken from the system */
#define NEW(a, T)     ((T *)arena_alloc((a), sizeof(T)))
#define NEWN(a, T, n) ((T *)arena_alloc((a), (wm_size)(n) * sizeof(T)))
/* Grows a dynamic array living in an arena so that index n is valid: GROW(a, g->node, g->nnode, g->cap). */
#define GROW(a, p, n, cap)                                                                                   \
    ((n) < (cap) ? (void)0 : (void)((p) = arena_grow((a), (p), sizeof *(p), (n), &(cap))))
void *arena_grow(Arena *a, const void *p, wm_size elem, uint32_t n, uint32_t *cap);

#define wm_check(arena, cond, ...)                                                                           \
    ((cond) ? (void)0 : guard_escape(arena_guard(arena), EXIT_INTERNAL, __VA_ARGS__))

/* ---- text buffer in an arena */
typedef struct {
    Arena *a;
    char *s; /* NUL-terminated once something was put */
    size_t len, cap;
    bool failed; /* memory was refused (an arena without a guard): the text is not whole */
} Sbuf;
void sb_init(Sbuf *b, Arena *a);
void sb_put(Sbuf *b, const char *s, size_t len);
void sb_str(Sbuf *b, const char *s);
void sb_chr(Sbuf *b, char c);
void sb_fmt(Sbuf *b, const char *fmt, ...) WM_PRINTF(2, 3);
void sb_double(Sbuf *b,
               double v); /* shortest decimal text that reads back to the same bits; inf, -inf, nan */

/* ---- names and text */
/* Table from strings to uint32_t (open addressing over XXH3; never decides an order). */
typedef struct StrMap StrMap;
StrMap *strmap_new(Arena *a);
bool strmap_get(const StrMap *m, const char *key, uint32_t *value);
bool strmap_put(StrMap *m, const char *key, uint32_t value); /* false if the key was there (value replaced) */

uint64_t hash_bytes(const void *p, size_t n);            /* XXH3-64 */
void hash128_hex(const void *p, size_t n, char out[33]); /* XXH3-128 as 32 hex digits */
bool text_utf8_ok(const char *s, size_t n, size_t *bad_at);
int text_width(const char *s, size_t n);                    /* columns on a terminal (libunistring) */
const char *text_escape(Arena *a, const char *s, size_t n); /* control bytes and bad UTF-8 made visible */
/* Damerau-Levenshtein distance; the best candidate at most a third of the length away, else NULL. */
const char *text_nearest(const char *word, const char *const *cands, size_t n);
bool text_double(const char *s, size_t n, double *v); /* locale-independent; the whole of s */
bool text_int(const char *s, size_t n, int64_t *v);

/* ---- diagnostics */
typedef struct {
    const char *file;
    uint32_t line, col;
    uint32_t at, len;
} Loc; /* 1-based; col in bytes; at: byte offset */
typedef enum {
#define CODE(id, exit, title, explain, wrong, right) id,
#include "base/codes.def"
#undef CODE
    NCODE
} Code;
typedef enum { LEVEL_ERROR, LEVEL_WARNING, LEVEL_NOTE } Level;
typedef struct {
    Loc loc;
    const char *label;
} Span;
typedef struct Diag {
    Code code;
    Level level;
    const char *text;
    Span span[4]; /* span[0] is where it happened; the others are shown below it */
    uint32_t nspan;
    const char *help; /* what to do, or NULL */
    const char *replacement;
    Loc replace;
    bool sure; /* a fix: the text that takes the place of `replace` */
    const char *note[4];
    uint32_t nnote;
} Diag;
struct Diags {
    Arena *arena; /* owned by diags_open */
    Diag **item;
    uint32_t n, cap, nerror;
    uint32_t max_errors; /* 20; further ones are counted, not kept */
    struct {
        const char *file;
        const char *text;
        size_t len;
    } * source;
    uint32_t nsource, source_cap;
};
Diags *diags_open(Env *env);
void diags_close(Diags *d);
/* Registers the text of a file so that the renderer can show lines of it. The text must outlive d. */
void diag_source(Diags *d, const char *file, const char *text, size_t len);
/* Adds an error (level and exit code follow from the code's row; W codes are warnings). Never NULL. */
Diag *diag_add(Diags *d, Code code, Loc loc, const char *fmt, ...) WM_PRINTF(4, 5);
void diag_label(Diag *g, const char *text); /* text under span[0]'s carets; not copied */
void diag_span(Diags *d, Diag *g, Loc loc, const char *fmt, ...) WM_PRINTF(4, 5);
void diag_help(Diags *d, Diag *g, const char *fmt, ...) WM_PRINTF(3, 4);
void diag_note(Diags *d, Diag *g, const char *fmt, ...) WM_PRINTF(3, 4);
void diag_fix(Diags *d, Diag *g, Loc where, bool sure, const char *fmt, ...) WM_PRINTF(5, 6);
/* diag_add and return false, for `return diag_fail(...)`. */
#define diag_fail(d, code, loc, ...) (diag_add((d), (code), (loc), __VA_ARGS__), false)
#define NOLOC                        ((Loc){0})
int diags_exit(const Diags *d); /* exit code of the first error; 0 without errors */
typedef struct {
    const char *name;
    int exit;
    const char *title, *explain, *wrong, *right;
} CodeInfo;
extern const CodeInfo code_info[NCODE];
/* Text (with carets) or JSON lines of all diagnostics. */
void diags_render(const Diags *d, Sbuf *out, bool color);
void diags_render_json(const Diags *d, Sbuf *out);

/* ---- env: the one door to the system. Every function returns -1 (or NULL) and sets *err to an errno value.
 */
typedef struct {
    int64_t size;
    uint64_t dev, ino;
    int64_t mtime_ns;
    bool is_dir, is_file, is_link;
    uint32_t mode, uid;
} EnvStat;
typedef struct EnvThread EnvThread;
struct Env {
    void *self;
    /* memory */
    void *(*alloc)(Env *, size_t bytes); /* zeroed; NULL when there is none */
    void (*free)(Env *, void *);
    void *(*map)(Env *, size_t bytes); /* zeroed pages, huge where possible */
    void (*unmap)(Env *, void *, size_t bytes);
    /* files; paths are relative to the process's directory */
    int (*open_read)(Env *, const char *path, int *err); /* O_CLOEXEC */
    int (*open_new)(Env *, const char *path, uint32_t mode,
                    int *err); /* O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC */
    int (*open_append)(Env *, const char *path, uint32_t mode,
                       int *err); /* O_CREAT|O_APPEND|O_NOFOLLOW|O_CLOEXEC */
    int64_t (*read)(Env *, int fd, void *p, size_t n, int *err);
    int64_t (*pread)(Env *, int fd, void *p, size_t n, int64_t off, int *err);
    int64_t (*write)(Env *, int fd, const void *p, size_t n, int *err);
    int (*truncate)(Env *, int fd, int64_t size, int *err);
    int (*fsync)(Env *, int fd, int *err);
    int (*close)(Env *, int fd, int *err);
    int (*fstat)(Env *, int fd, EnvStat *st, int *err);
    int (*lstat)(Env *, const char *path, EnvStat *st, int *err);
    int (*stat)(Env *, const char *path, EnvStat *st, int *err);
    int (*rename)(Env *, const char *from, const char *to, int *err);
    int (*unlink)(Env *, const char *path, int *err);
    int (*mkdir)(Env *, const char *path, uint32_t mode, int *err);
    int (*rmdir)(Env *, const char *path, int *err);
    int (*fsync_dir)(Env *, const char *path, int *err);
    int (*lock)(Env *, int fd, bool wait, int *err); /* flock exclusive */
    /* calls fn for each entry but . and .., in byte order of the names; stops when fn is false */
    int (*list)(Env *, const char *path, bool (*fn)(void *ctx, const char *name), void *ctx, int *err);
    /* clock */
    int64_t (*now_ns)(Env *);  /* monotonic */
    int64_t (*wall_ns)(Env *); /* since 1970 */
    /* threads */
    EnvThread *(*thread_start)(Env *, void (*fn)(void *), void *ctx, int cpu /* pin; -1: no */, int *err);
    void (*thread_join)(Env *, EnvThread *);
    int (*cpu_count)(Env *);
    /* processes */
    int (*spawn)(Env *, const char *path, const char *const *argv, const char *const *envp, int stderr_fd,
                 int64_t *pid, int *err);
    int (*wait)(Env *, int64_t pid, int *status, int *err); /* status: exit code, or 128 + signal */
    int64_t (*pid)(Env *);
    bool (*pid_alive)(Env *, int64_t pid);
    const char *(*getenv)(Env *, const char *name);
    /* loading objects */
    void *(*dl_open)(Env *, int fd, const char **why); /* RTLD_NOW|RTLD_LOCAL through /proc/self/fd */
    void *(*dl_sym)(Env *, void *lib, const char *name);
    void (*dl_close)(Env *, void *lib);
    int64_t (*memory_bytes)(Env *);                                 /* of the machine */
    int (*exchange)(Env *, const char *a, const char *b, int *err); /* the two names change places at once */
};
Env *env_posix(void); /* a static, immutable Env */
/* Helpers over Env: full loops, clear errors. */
bool file_read_all(Env *env, Arena *a, const char *path, wm_size max, char **text, size_t *len,
                   Diags *d); /* 66, 74, 65 */
/* Writes path whole: temporary name beside it, fsync, rename, fsync of the directory. */
bool file_write_atomic(Env *env, const char *path, const void *p, size_t n, Diags *d);
bool write_full(Env *env, int fd, const void *p, size_t n, int *err);
bool path_make_dirs(Env *env, const char *path, Diags *d); /* mkdir -p */
const char *errno_text(int err);

/* ---- random numbers: Philox4x32-10 (Salmon et al., 2011). key = seed; counter = (block of four, step,
 * stream). */
void philox4x32(uint64_t key, uint64_t block, uint32_t step, uint32_t stream, uint32_t out[4]);
uint32_t
stream_of(const char *name); /* low half of XXH3 of "init:MODEL/NAME", "order:DATASET", "draw:BINDING#k" */
/* Uniform in (0, 1) from one word of Philox, exact in f32 and f64: (w >> 8 + 0.5) * 2^-24. */
static inline double philox_unit(uint32_t w) {
    return ((double)(w >> 8) + 0.5) * 0x1p-24;
}
/* Standard normal from words 2k, 2k+1 of a block by Box and Muller: sqrt(-2 log u0) * cos(2 pi u1), sin for
 * the odd. */

/* ---- the canonical tree: [a,b) splits at the largest power of two below b-a. */
static inline uint32_t tree_split(uint32_t n) { /* n >= 2: size of the left part */
    uint32_t p = 1;
    while (p * 2 < n) p *= 2;
    return p;
}

/* ---- source -> object; implemented by codegen/cc.c and later by runtime/cuda (cli hands over the right one)
 */
typedef struct Toolchain Toolchain;
struct Toolchain {
    void *self;
    const char *identity; /* part of the cache key: compiler, version, flags, CPU level, ABI number */
    bool (*build)(Toolchain *, const char *source, size_t n, const char *object_path, Diags *d);
};

#endif
