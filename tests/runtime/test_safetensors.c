/* safetensors: files that are right are read, files that are wrong in one way each are refused with 65. */
#include "ckpt_test.h"

typedef struct {
    Env *env;
    Diags *d;
    Arena *a;
    char dir[256], path[300];
} Fix;

static void begin(Fix *f) {
    f->env = env_posix();
    f->d = diags_open(f->env);
    f->a = arena_open(f->env, NULL);
    scratch(f->dir);
    snprintf(f->path, sizeof f->path, "%s/x.safetensors", f->dir);
}
static void end(Fix *f) {
    arena_close(f->a);
    diags_close(f->d);
    wipe(f->dir);
}

/* Header text and a number of data bytes; len: what the prefix says, -1 the truth. */
static void make(const char *path, const char *header, int64_t len, size_t data) {
    size_t n = strlen(header);
    uint64_t prefix = len < 0 ? n : (uint64_t)len;
    char *p = calloc(1, 8 + n + data);
    for (int i = 0; i < 8; i++) p[i] = (char)(prefix >> 8 * i);
    memcpy(p + 8, header, n);
    for (size_t i = 0; i < data; i++) p[8 + n + i] = (char)(i + 1);
    spit(path, p, 8 + n + data);
    free(p);
}

#define T(name, dtype, shape, b, e)                                                                          \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #b "," #e "]}"

Test(safetensors, reads_what_is_right) {
    Fix f;
    begin(&f);
    make(f.path,
         "{" T("b", "F32", "[2]", 8, 16) ",\"__metadata__\":{\"format\":\"pt\"}," T(
             "a", "I64", "[1,1]", 0, 8) "," T("e", "F16", "[0,7]", 16, 16) "," T("s", "U8", "[]", 16,
                                                                                 17) "}    ",
         -1, 17);
    StFile *s = st_open(f.env, f.path, f.d);
    show(f.d);
    cr_assert(s && st_count(s) == 4 && !strcmp(st_tensor(s, 0)->name, "a") &&
              !strcmp(st_meta(s, "format"), "pt") && !st_meta(s, "x"));
    const StTensor *b = st_find(s, "b");
    unsigned char x[8];
    cr_assert(b && !strcmp(b->dtype, "F32") && b->ndim == 1 && b->shape[0] == 2 &&
              st_read(s, b, x, 2, 6, f.d) && x[0] == 11 && x[5] == 16);
    cr_assert(!st_find(s, "c") && st_find(s, "e")->begin == st_find(s, "e")->end &&
              st_find(s, "s")->ndim == 0);
    cr_assert(!st_read(s, b, x, 2, 7, f.d) && !st_read(s, b, x, -1, 2, f.d) &&
              !st_read(s, b, x, INT64_MAX, INT64_MAX, f.d));
    cr_assert(f.d->n == 3 && f.d->item[2]->code == I001, "refused before anything is read");
    st_close(s);
    end(&f);
}

/* Each row is wrong in one way: one for each link of the chain from bytes to offsets. */
static const struct {
    const char *header;
    int64_t len;
    size_t data;
    const char *says;
} wrong[] = {
    {"{" T("a", "F32", "[2]", 0, 8) "}", 1000, 8, "header of 1000 bytes"},
    {"{" T("a", "F32", "[2]", 0, 8) "}", (int64_t)1 << 62, 8, "header of"},
    {"{" T("a", "F32", "[2]", 0, 8) "}", INT64_MAX, 8, "header of"},
    {"{}", 0, 0, "header of 0"},
    {" {}", -1, 0, "must begin"},
    {"[]", -1, 0, "must begin"},
    {"{}\n", -1, 0, "must begin"},
    {"{", -1, 1, "header of 1"},
    {"{ ", -1, 1, "must begin"},
    {"{} {}", -1, 0, "JSON"},
    {"{\"a\":1}", -1, 0, "dtype, shape and data_offsets"},
    {"{" T("a", "F32", "[2]", 0, 8) "," T("a", "F32", "[2]", 0, 8) "}", -1, 8, "JSON"},
    {"{" T("a", "F33", "[2]", 0, 8) "}", -1, 8, "unknown dtype 'F33'"},
    {"{" T("a", "F32", "[2]", 0, 8) "}", -1, 9, "belong to no tensor"},
    {"{" T("a", "F32", "[2]", 0, 8) "}", -1, 7, "no range"},
    {"{" T("a", "F32", "[2]", 1, 9) "}", -1, 9, "begins at byte 1"},
    {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 4, 12) "}", -1, 12, "begins at byte 4"},
    {"{" T("a", "F32", "[2]", 0, 8) "," T("b", "F32", "[2]", 12, 20) "}", -1, 20, "begins at byte 12"},
    {"{" T("a", "F32", "[2]", 8, 0) "}", -1, 8, "no range"},
    {"{" T("a", "F32", "[2]", -8, 0) "}", -1, 8, "no range"},
    {"{" T("a", "F32", "[2]", 0, 8.0) "}", -1, 8, "no range"},
    {"{" T("a", "F32", "[3]", 0, 8) "}", -1, 8, "need 12"},
    {"{" T("a", "F32", "[-2]", 0, 8) "}", -1, 8, "shape"},
    {"{" T("a", "F32", "[2.0]", 0, 8) "}", -1, 8, "shape"},
    {"{" T("a", "F32", "2", 0, 8) "}", -1, 8, "shape"},
    {"{" T("a", "F32", "[1,1,1,1,1,1,1,1,2]", 0, 8) "}", -1, 8, "shape"},
    {"{" T("a", "U8", "[4194305,4194305,211106198978564]", 0, 4) "}", -1, 4, "shape"},
    {"{" T("a", "F64", "[1152921504606846976,2]", 0, 0) "}", -1, 0, "shape"},
    {"{" T("a", "U8", "[0,4294967296,4294967296,4294967296]", 0, 0) "}", -1, 0, "shape"},
    {"{" T("a", "U8", "[4294967296,4294967296,4294967296,0]", 0, 0) "}", -1, 0, "shape"},
    {"{" T("a", "U8", "[9223372036854775807]", 0, 0) "}", -1, 0, "need"},
    {"{" T("a", "U8", "[9223372036854775808]", 0, 0) "}", -1, 0, "JSON"},
    {"{" T("a", "F32", "[2]", 0, 9223372036854775807) "}", -1, 8, "no range"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", -1, 8, "no range"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", -1, 8, "nothing else"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", -1, 8, "data_offsets"},
    {"{\"a\":{\"dtype\":4,\"shape\":[2],\"data_offsets\":[0,8]}}", -1, 8, "dtype"},
    {"{\"__metadata__\":{\"a\":1}}", -1, 0, "other things than strings"},
    {"{\"__metadata__\":\"a\"}", -1, 0, "no object"},
    {"{\"__metadata__\":[[[[[[[[[]]]]]]]]]}", -1, 0, "deeper"},
    {"{\"a\\u0000b\":1}", -1, 0, "JSON"},
};

Test(safetensors, refuses_what_is_wrong) {
    Fix f;
    begin(&f);
    for (size_t i = 0; i < WM_LEN(wrong); i++) {
        Diags *d = diags_open(f.env);
        make(f.path, wrong[i].header, wrong[i].len, wrong[i].data);
        cr_assert(st_open(f.env, f.path, d) == NULL, "row %zu", i);
        cr_assert(diags_exit(d) == 65, "row %zu: exit %d", i, diags_exit(d));
        if (!diags_say(d, wrong[i].says)) show(d);
        cr_assert(diags_say(d, wrong[i].says), "row %zu", i);
        diags_close(d);
    }
    end(&f);
}

Test(safetensors, long_names_missing_files_and_folders) {
    Fix f;
    begin(&f);
    char *header = malloc(4000), name[1200];
    memset(name, 'n', sizeof name);
    for (int extra = 0; extra < 2; extra++) {
        sprintf(header, "{\"%.*s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1024 + extra,
                name);
        make(f.path, header, -1, 1);
        StFile *s = st_open(f.env, f.path, f.d);
        cr_assert((s != NULL) == (extra == 0));
        st_close(s);
    }
    free(header);
    Diags *d = diags_open(f.env);
    cr_assert(!st_open(f.env, "/nonexistent/x.safetensors", d) && diags_exit(d) == 66);
    diags_close(d);
    d = diags_open(f.env);
    cr_assert(!st_open(f.env, f.dir, d) && diags_exit(d) == 65);
    diags_close(d);
    end(&f);
}

/* Every truncation of a good file is refused, and every change of a header byte is refused or harmless to
 * memory. */
Test(safetensors, every_truncation_and_every_byte) {
    Fix f;
    begin(&f);
    size_t n;
    make(f.path, "{" T("a", "F32", "[2]", 0, 8) "," T("bc", "BF16", "[1,2]", 8, 12) "}", -1, 12);
    char *whole = slurp(f.path, &n);
    for (size_t cut = 0; cut < n; cut++) {
        Diags *d = diags_open(f.env);
        spit(f.path, whole, cut);
        cr_assert(!st_open(f.env, f.path, d) && diags_exit(d) == 65, "cut at %zu", cut);
        diags_close(d);
    }
    for (size_t at = 0; at < n - 12; at++)
        for (int bit = 0; bit < 8; bit++) {
            Diags *d = diags_open(f.env);
            whole[at] ^= (char)(1 << bit);
            spit(f.path, whole, n);
            whole[at] ^= (char)(1 << bit);
            StFile *s = st_open(f.env, f.path, d);
            for (uint32_t i = 0; s && i < st_count(s); i++) {
                unsigned char x[12];
                const StTensor *t = st_tensor(s, i);
                cr_assert(t->end - t->begin <= 12 && st_read(s, t, x, 0, t->end - t->begin, d));
            }
            st_close(s);
            diags_close(d);
        }
    free(whole);
    end(&f);
}

Test(safetensors, written_files_read_back_and_are_never_overwritten) {
    Fix f;
    begin(&f);
    float x[3] = {1, -2, 3};
    double y = 0.1;
    char hash[33], again[33];
    size_t n;
    StOut t[2] = {
        {.name = "f\"\xed\x95\x9c", .dtype = "F32", .shape = {3, 1}, .ndim = 2, .data = x, .bytes = 12},
        {.name = "y", .dtype = "F64", .data = &y, .bytes = 8}};
    StMeta m = {"k", "v\n"};
    cr_assert(st_write(f.env, f.path, t, 2, &m, 1, hash, f.d));
    char *p = slurp(f.path, &n);
    hash128_hex(p, n, again);
    cr_assert(!strcmp(hash, again) && n % 4 == 0);
    free(p);
    StFile *s = st_open(f.env, f.path, f.d);
    double z;
    cr_assert(s && st_count(s) == 2 && st_find(s, t[0].name)->shape[1] == 1 &&
              st_read(s, st_find(s, "y"), &z, 0, 8, f.d) && z == y);
    cr_assert(!strcmp(st_meta(s, "k"), "v\n"));
    st_close(s);
    cr_assert(!st_write(f.env, f.path, t, 2, NULL, 0, NULL, f.d) && diags_exit(f.d) == 74);
    cr_assert(access(f.path, R_OK) == 0, "a file that was there stays");
    end(&f);
}

/* ---- sets */

static void one(Fix *f, const char *name, const char *tensor) {
    char path[600], header[300];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}",
             tensor);
    make(path, header, -1, 1);
}

static void text(Fix *f, const char *name, const char *s) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    spit(path, s, strlen(s));
}

Test(set, directories_of_every_shape) {
    Fix f;
    begin(&f);
    StSet s;
    StFile *file;
    one(&f, "consolidated.00.safetensors", "only");
    cr_assert(st_open_set(f.env, f.a, f.dir, NULL, &s, f.d) && s.n == 1 && st_set_find(&s, "only", &file));
    st_close_set(&s);
    one(&f, "model-00001-of-00002.safetensors", "a");
    one(&f, "model-00002-of-00002.safetensors", "b");
    cr_assert(st_open_set(f.env, f.a, f.dir, "value", &s, f.d) && s.n == 2 && st_set_find(&s, "b", &file) &&
              !st_set_find(&s, "only", NULL));
    st_close_set(&s);
    one(&f, "value-00001-of-00001.safetensors", "v");
    cr_assert(st_open_set(f.env, f.a, f.dir, "value", &s, f.d) && s.n == 1 && st_set_find(&s, "v", NULL));
    const StTensor **list;
    cr_assert(st_set_list(&s, f.a, &list) == 1 && !strcmp(list[0]->name, "v"));
    st_close_set(&s);
    text(&f, "model.safetensors.index.json",
         "{\"metadata\":{},\"weight_map\":{\"b\":\"model-00002-of-00002.safetensors\"}}");
    cr_assert(st_open_set(f.env, f.a, f.dir, NULL, &s, f.d) && s.n == 1 && !st_set_find(&s, "a", NULL),
              "the index says which files");
    st_close_set(&s);
    end(&f);
}

Test(set, indices_that_lie_are_refused) {
    static const char *const bad[] = {"{}",
                                      "{\"weight_map\":{\"a\":\"../x.safetensors\"}}",
                                      "{\"weight_map\":{\"a\":\"/etc/x.safetensors\"}}",
                                      "{\"weight_map\":{\"a\":1}}",
                                      "{\"weight_map\":{\"b\":\"model-1.safetensors\"}}",
                                      "{\"weight_map\":{\"a\":\"\"}}",
                                      "{\"weight_map\":{\"a\":\"model-1.bin\"}}",
                                      "{\"weight_map\":{\"a\":\"x/model-1.safetensors\"}}",
                                      "[",
                                      "{\"weight_map\":{\"a\":\"..\"}}",
                                      "{\"weight_map\":{\"a\":\"model-1.safetensors\\n\"}}"};
    Fix f;
    begin(&f);
    StSet s;
    one(&f, "model-1.safetensors", "a");
    for (size_t i = 0; i < WM_LEN(bad); i++) {
        Diags *d = diags_open(f.env);
        text(&f, "model.safetensors.index.json", bad[i]);
        cr_assert(!st_open_set(f.env, f.a, f.dir, NULL, &s, d) && diags_exit(d) == 65, "row %zu", i);
        diags_close(d);
    }
    end(&f);
}

Test(set, twice_the_same_tensor_nothing_at_all_and_pickles) {
    Fix f;
    begin(&f);
    StSet s;
    Diags *d = diags_open(f.env);
    text(&f, "pytorch_model.bin", "x");
    cr_assert(!st_open_set(f.env, f.a, f.dir, NULL, &s, d) && diags_exit(d) == 66 &&
              diags_say(d, "save_file"));
    diags_close(d);
    one(&f, "model-1.safetensors", "a");
    one(&f, "model-2.safetensors", "a");
    d = diags_open(f.env);
    cr_assert(!st_open_set(f.env, f.a, f.dir, NULL, &s, d) && diags_say(d, "is also in"));
    diags_close(d);
    d = diags_open(f.env);
    cr_assert(!st_open_set(f.env, f.a, "/nonexistent", NULL, &s, d) && diags_exit(d) == 66);
    diags_close(d);
    end(&f);
}
