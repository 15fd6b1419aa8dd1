/* data.h: JSON-lines data sets, what is drawn from them in an epoch, and micro-batches of tokens.
 *
 * The order is a pure function of (seed, epoch, position): no generator state, the same for any number of
 * ranks. */
#ifndef WM_DATA_H
#define WM_DATA_H

#include "runtime/runtime.h"

typedef enum {
    DRAW_ONE,
    DRAW_PAIR,
    DRAW_GROUP
} DrawKind; /* one answer; (right, wrong) of a problem; `width` of a problem */
typedef struct {
    double lo, hi, weight;
} DifficultyBin; /* lo <= difficulty <= hi */
typedef struct {
    const char *name; /* "train", "validation": part of the random stream */
    DrawKind draw;
    int64_t width;     /* answers of an item: 1, 2 or the size of `group` */
    int64_t n_samples; /* items of an epoch; 0: all there are */
    bool balance_correct, correct_only;
    double correct_ratio;
    int64_t max_pairs_per_problem; /* 0: no limit */
    const DifficultyBin *bin;
    uint32_t nbin;
    const double *curriculum; /* [ncurriculum][nbin] weights of epoch 0, 1, ..; the last row goes on */
    uint32_t ncurriculum;
    const char *template_name; /* "alpaca", "plain" */
    int64_t max_length;        /* places of a sample: S */
    int64_t vocab;             /* D012 for a token beyond it */
    uint64_t seed;
    bool shuffle; /* false: validation, in file order */
} DataOptions;

typedef struct {
    const char *name, *from;
    Loc loc;
} DataField; /* an input that is not tokens or labels, its JSON path, the
                 line of the graph that declares it */

typedef struct DataSet DataSet;
/* Reads and indexes `path` (JSON lines) and `<stem>_metadata.json` beside it; without that file the samples
 * themselves say what their problem, difficulty and correctness are. Every line is checked when the file is
 * at most 64 MiB, else when it is drawn. 65 with line and byte, 66, 74. */
DataSet *data_open(Env *env, const char *path, const DataOptions *o, const DataField *field, uint32_t nfield,
                   Diags *d);
void data_close(DataSet *s);
void data_set_vocab(DataSet *s, int64_t vocab); /* a larger token is D012 */
int64_t data_items(const DataSet *s);           /* items of an epoch; the same in every epoch */
int64_t data_samples(const DataSet *s);         /* lines of the file */
/* The answers (sample numbers) of the item at `position` of `epoch`; width numbers. The order of an epoch is
 * kept. */
bool data_item(DataSet *s, int64_t epoch, int64_t position, int64_t *sample, Diags *d);
/* Fills all inputs of one micro-batch: items first .. first + batch - 1; slots beyond the epoch are not
 * present. Counts tokens without padding in *tokens (may be NULL). */
bool data_fill(DataSet *s, Exec *e, const Plan *plan, int program, int64_t micro, int64_t epoch,
               int64_t first, int64_t *tokens, Diags *d);

/* ---- tokenizer: byte b is id b + 3; 0 pad, 1 bos, 2 eos */
enum { TOKEN_PAD = 0, TOKEN_BOS = 1, TOKEN_EOS = 2, TOKEN_BYTE0 = 3, TOKEN_IGNORE = -100, BYTE_VOCAB = 259 };
/* bos, prompt, answer, eos into tokens[max]; labels are `ignore` before the answer. What does not fit is cut
 * off at the end; the last answer token kept is then the terminal one. Returns the number of tokens written.
 */
int64_t tokenize_sample(const char *prompt, size_t nprompt, const char *answer, size_t nanswer, int64_t max,
                        int32_t *tokens, int32_t *labels);
/* The prompt of a sample under a template; false for an unknown template. */
bool template_prompt(Sbuf *out, const char *template_name, const char *instruction, const char *input);

#endif
