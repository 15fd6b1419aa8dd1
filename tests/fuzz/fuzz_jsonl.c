/* Data sets from hostile bytes. The first byte chooses what is drawn; a NUL byte, where there is one, parts
 * the lines from the metadata beside them. Refused with a diagnostic, or every item of two epochs names
 * samples that there are, and each sample becomes tokens that the vocabulary holds. */
#include "runtime/data/set.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An Env of two files: x.jsonl and, if meta is set, x_metadata.json. */
typedef struct {
    Env env;
    const char *text[2];
    size_t size[2], at[2];
} Memory;

static int which(const Memory *m, const char *path) {
    if (strcmp(path, "x.jsonl") == 0) return 0;
    return strcmp(path, "x_metadata.json") == 0 && m->text[1] ? 1 : -1;
}

static int mem_open(Env *e, const char *path, int *err) {
    Memory *m = (Memory *)(void *)e;
    int k = which(m, path);
    if (k < 0) return *err = ENOENT, -1;
    m->at[k] = 0;
    return k;
}

static int mem_close(Env *e, int fd, int *err) {
    (void)e, (void)fd, (void)err;
    return 0;
}

static int mem_fstat(Env *e, int fd, EnvStat *st, int *err) {
    (void)err;
    *st = (EnvStat){.size = (int64_t)((Memory *)(void *)e)->size[fd], .is_file = true};
    return 0;
}

static int mem_stat(Env *e, const char *path, EnvStat *st, int *err) {
    int k = which((Memory *)(void *)e, path);
    if (k < 0) return *err = ENOENT, -1;
    return mem_fstat(e, k, st, err);
}

static int64_t mem_read(Env *e, int fd, void *p, size_t n, int *err) {
    Memory *m = (Memory *)(void *)e;
    (void)err;
    if (n > m->size[fd] - m->at[fd]) n = m->size[fd] - m->at[fd];
    if (n) memcpy(p, m->text[fd] + m->at[fd], n);
    m->at[fd] += n;
    return (int64_t)n;
}

enum { PLACES = 48 };

static void same(bool yes) {
    if (!yes) __builtin_trap();
}

static void tokens(DataSet *s, Arena *a, int64_t n, Diags *d) {
    Sample x;
    Sbuf prompt;
    int32_t t[PLACES], l[PLACES];
    if (!sample_read(s, n, &x, d)) return;
    sb_init(&prompt, a);
    same(template_prompt(&prompt, "alpaca", x.instruction, x.input));
    int64_t k = tokenize_sample(prompt.s, prompt.len, x.output, x.noutput, PLACES, t, l);
    same(k >= 1 && k <= PLACES);
    for (int64_t i = 0; i < PLACES; i++)
        same(t[i] >= 0 && t[i] < BYTE_VOCAB && (l[i] == TOKEN_IGNORE || l[i] == t[i]));
    json_free(x.json);
}

static void walk(DataSet *s, int64_t width, Diags *d) {
    int64_t n[4];
    Arena *a = arena_open(env_posix(), NULL);
    for (int64_t epoch = 0; epoch < 2; epoch++)
        for (int64_t i = 0; i < data_items(s) && i < 50; i++) {
            if (!data_item(s, epoch, i, n, d)) {
                same(d->nerror != 0);
                break;
            }
            for (int64_t k = 0; k < width; k++) same(n[k] >= 0 && n[k] < data_samples(s));
            tokens(s, a, n[0], d);
        }
    arena_close(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const DifficultyBin bin[] = {{0, 1, 0.5}, {2, 9, 0.5}};
    if (!size) return 0;
    const char *text = (const char *)data + 1, *cut = memchr(text, 0, size - 1);
    Memory m = {
        *env_posix(), {text, cut ? cut + 1 : NULL}, {cut ? (size_t)(cut - text) : size - 1, 0}, {0, 0}};
    if (cut) m.size[1] = size - 2 - m.size[0];
    m.env.open_read = mem_open;
    m.env.close = mem_close;
    m.env.fstat = mem_fstat;
    m.env.stat = m.env.lstat = mem_stat;
    m.env.read = mem_read;
    static const DrawKind kind[] = {DRAW_ONE, DRAW_PAIR, DRAW_GROUP, DRAW_ONE};
    int64_t width[] = {1, 2, 4, 1};
    DataOptions o = {.name = "train",
                     .draw = kind[data[0] & 3],
                     .width = width[data[0] & 3],
                     .template_name = "alpaca",
                     .max_length = PLACES,
                     .vocab = BYTE_VOCAB,
                     .seed = 7,
                     .shuffle = true,
                     .correct_ratio = 0.5,
                     .balance_correct = data[0] & 4,
                     .correct_only = data[0] & 8,
                     .n_samples = data[0] & 16 ? 9 : 0,
                     .bin = bin,
                     .nbin = data[0] & 32 ? 2 : 0,
                     .max_pairs_per_problem = 3};
    Diags *d = diags_open(env_posix());
    DataSet *s = data_open(&m.env, "x.jsonl", &o, NULL, 0, d);
    same(s || d->nerror);
    if (s) walk(s, o.width, d);
    data_close(s);
    diags_close(d);
    return 0;
}
