/* set.h: private to runtime/data/. */
#ifndef WM_DATA_SET_H
#define WM_DATA_SET_H

#include "runtime/data.h"

typedef struct {
    int64_t begin, end;
} Line; /* bytes of the file, without the newline */
typedef struct {
    const char *id;
    double difficulty;
    int64_t *right, *wrong;
    int64_t nright, nwrong;
} Problem;

struct DataSet {
    Env *env;
    Arena *a;
    DataOptions o;
    const char *path;
    const DataField *field;
    uint32_t nfield;
    char *text;
    size_t len;
    Line *line;
    int64_t nline;
    Problem *problem;
    int64_t nproblem;
    int64_t items;
    /* the order of one epoch: items x width sample numbers */
    int64_t *order;
    int64_t order_epoch;      /* -1: none yet */
    int32_t *tokens, *labels; /* one sample */
    double *numbers;          /* one per-token field */
};

/* order.c */
bool order_make(DataSet *s, int64_t epoch, Diags *d);
int64_t order_count(const DataSet *s);
/* index.c */
bool index_lines(DataSet *s, Diags *d);
bool index_problems(DataSet *s, Diags *d);
/* One parsed line with the fields every sample has; the caller frees `json`. */
typedef struct {
    Json *json;
    const char *instruction, *input, *output;
    size_t noutput;
} Sample;
bool sample_read(const DataSet *s, int64_t n, Sample *out, Diags *d);

#endif
