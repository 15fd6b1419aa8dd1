/* Checkpoints: what is saved comes back bit for bit; a fault or a kill at any call leaves the old or the new
 * one whole; whatever is cut, flipped or linked elsewhere is refused; one owner at a time; only what is
 * recognised is pruned. */
#include "ckpt_test.h"

#include <math.h>
#include <sys/wait.h>
#include <time.h>

static const CkptModel models[] = {{.name = "policy", .config = "{\"hidden_size\": 6}"},
                                   {.name = "value"},
                                   {.name = "ref", .path = "models/ref"}};

static CkptInfo info_of(int64_t step) {
    static const CkptFile extra[] = {{"tokenizer.json", "{}", 2}};
    return (CkptInfo){.step = step,
                      .steps = 100,
                      .epoch = 3,
                      .sample = 17,
                      .seed = 18446744073709551615u,
                      .config = "a: 1\nb: \"\\\xed\x95\x9c\"\n",
                      .graph_hash = "0123",
                      .plan_hash = "4567",
                      .best_metric = "val.loss",
                      .best = 0.1 + 0.2,
                      .best_step = 5,
                      .extra = "window 1",
                      .model = models,
                      .nmodel = 3,
                      .file = extra,
                      .nfile = 1};
}

static bool save(Env *env, const char *dir, Owner *o, TestView *t, int64_t step, Diags *d) {
    CkptInfo info = info_of(step);
    return ckpt_save(env, dir, o, &t->v, &info, 0, d);
}

/* Loads `path` into a view of other numbers; NULL if it is refused. */
static TestView *load(const char *path, Diags *d, CkptInfo *info, Arena *a) {
    TestView *t = test_view(99);
    if (ckpt_verify(env_posix(), path, d) && ckpt_load(env_posix(), path, &t->v, a, info, d)) return t;
    test_view_free(t);
    return NULL;
}

typedef struct {
    char dir[256];
    Env *env;
    Diags *d;
    Arena *a;
    Owner *o;
    TestView *one, *two;
} Fix;

static void begin(Fix *f) {
    f->env = env_posix();
    scratch(f->dir);
    f->d = diags_open(f->env);
    f->a = arena_open(f->env, NULL);
    f->o = owner_take(f->env, f->dir, f->d);
    cr_assert(f->o != NULL);
    f->one = test_view(1);
    f->two = test_view(2);
}

static void end(Fix *f) {
    owner_release(f->o);
    test_view_free(f->one);
    test_view_free(f->two);
    arena_close(f->a);
    diags_close(f->d);
    wipe(f->dir);
}

Test(checkpoint, comes_back_bit_for_bit) {
    Fix f;
    begin(&f);
    const char *path;
    int64_t step;
    CkptInfo got;
    bool ok = save(f.env, f.dir, f.o, f.one, 400, f.d);
    show(f.d);
    cr_assert(ok && ckpt_find(f.env, f.dir, INT64_MAX, f.a, &path, &step, f.d) && path && step == 400);
    TestView *t = load(path, f.d, &got, f.a);
    show(f.d);
    cr_assert(t && same_view(t, f.one) && !same_view(t, f.two));
    CkptInfo want = info_of(400);
    cr_assert(got.step == 400 && got.steps == 100 && got.epoch == 3 && got.sample == 17 &&
              got.seed == want.seed && got.best == want.best);
    cr_assert(got.best_step == 5 && !strcmp(got.best_metric, "val.loss") &&
              !strcmp(got.config, want.config) && !strcmp(got.extra, "window 1"));
    cr_assert(!strcmp(got.graph_hash, "0123") && !strcmp(got.plan_hash, "4567") && got.built == NULL &&
              got.nmodel == 3);
    cr_assert(got.model[0].hash[0] == 0 && strlen(got.model[2].hash) == 32 &&
              !strcmp(got.model[2].path, "models/ref"));
    test_view_free(t);
    end(&f);
}

/* The layout of D17, readable by other tools: HF names, an index, config.json, moments by name. */
Test(checkpoint, layout) {
    Fix f;
    begin(&f);
    char path[400];
    StSet s;
    float meta[48], hf[48];
    cr_assert(save(f.env, f.dir, f.o, f.one, 7, f.d));
    snprintf(path, sizeof path, "%s/step-000007", f.dir);
    cr_assert(st_open_set(f.env, f.a, path, "policy", &s, f.d), "no policy-*: the set is model-*");
    StFile *file;
    const StTensor *q = st_set_find(&s, "model.layers.0.self_attn.q_proj.weight", &file);
    cr_assert(q && q->ndim == 2 && q->shape[0] == 8 && q->shape[1] == 6 &&
              st_read(file, q, hf, 0, sizeof hf, f.d));
    memcpy(meta, f.one->mem[0], sizeof meta);
    for (int r = 0; r < 8; r++)
        for (int k = 0; k < 6; k++)
            cr_assert(hf[r * 6 + k] == meta[(r / 4 * 4 + 2 * (r % 2) + r % 4 / 2) * 6 + k]);
    cr_assert(st_set_find(&s, "lm_head.weight", NULL) && !st_set_find(&s, "linear.weight", NULL));
    cr_assert(!strcmp(st_meta(s.file[0], "format"), "pt"));
    st_close_set(&s);
    cr_assert(st_open_set(f.env, f.a, path, "value", &s, f.d) &&
              st_set_find(&s, "linear.weight", NULL)->shape[0] == 1);
    st_close_set(&s);
    cr_assert(st_open_set(f.env, f.a, path, "optimizer", &s, f.d));
    cr_assert(st_set_find(&s, "exp_avg.policy/model.layers.0.self_attn.q_proj.weight", NULL) != NULL);
    cr_assert(st_set_find(&s, "momentum.value/linear.weight", NULL) &&
              st_set_find(&s, "exp_avg_sq.policy/model.norm.weight", NULL));
    st_close_set(&s);
    static const char *const there[] = {"config.json",
                                        "tokenizer.json",
                                        "state.json",
                                        "MANIFEST.json",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00001.safetensors",
                                        "state.safetensors"};
    for (size_t i = 0; i < WM_LEN(there); i++) {
        snprintf(path, sizeof path, "%s/step-000007/%s", f.dir, there[i]);
        cr_assert(access(path, R_OK) == 0, "%s", path);
    }
    end(&f);
}

/* Model files are cut by their size alone and load the same. */
Test(checkpoint, files_cut_by_size) {
    Fix f;
    begin(&f);
    char path[400];
    CkptInfo info = info_of(3), got;
    cr_assert(ckpt_save(f.env, f.dir, f.o, &f.one->v, &info, 100, f.d));
    snprintf(path, sizeof path, "%s/step-000003/model-00003-of-00003.safetensors", f.dir);
    cr_assert(access(path, R_OK) == 0);
    snprintf(path, sizeof path, "%s/step-000003", f.dir);
    TestView *t = load(path, f.d, &got, f.a);
    cr_assert(t && same_view(t, f.one));
    test_view_free(t);
    end(&f);
}

/* By number, not by name: step-1000000 comes after step-999999. */
Test(checkpoint, newest_is_the_largest_step) {
    Fix f;
    begin(&f);
    const char *path;
    int64_t step;
    cr_assert(ckpt_find(f.env, f.dir, INT64_MAX, f.a, &path, &step, f.d) && path == NULL);
    for (int64_t k = 999999; k <= 1000000; k++) cr_assert(save(f.env, f.dir, f.o, f.one, k, f.d));
    cr_assert(ckpt_find(f.env, f.dir, INT64_MAX, f.a, &path, &step, f.d) && step == 1000000);
    cr_assert(ckpt_find(f.env, f.dir, 1000000, f.a, &path, &step, f.d) && step == 999999 &&
              strstr(path, "step-999999"));
    end(&f);
}

Test(checkpoint, same_step_again) {
    Fix f;
    begin(&f);
    cr_assert(save(f.env, f.dir, f.o, f.one, 9, f.d));
    cr_assert(save(f.env, f.dir, f.o, f.one, 9, f.d), "the same again is success");
    cr_assert(!save(f.env, f.dir, f.o, f.two, 9, f.d) && diags_exit(f.d) == 1 &&
              diags_say(f.d, "other contents"));
    char path[400];
    CkptInfo got;
    snprintf(path, sizeof path, "%s/step-000009", f.dir);
    TestView *t = load(path, f.d, &got, f.a);
    cr_assert(t && same_view(t, f.one));
    test_view_free(t);
    end(&f);
}

/* ---- faults */

typedef struct {
    int n, temporary, steps;
} Count;

static bool count_entry(void *ctx, const char *name) {
    Count *c = ctx;
    c->n++;
    c->temporary += strstr(name, ".tmp-") != NULL;
    c->steps += strncmp(name, "step-", 5) == 0 && !strstr(name, ".tmp-");
    return true;
}

static Count look(const char *dir) {
    Count c = {0};
    int err;
    cr_assert(env_posix()->list(env_posix(), dir, count_entry, &c, &err) == 0);
    return c;
}

/* Saves step 2 over step 1 with one fault; true if the fault was reached. */
static bool one_fault(int64_t at, bool dead, int err, bool alloc) {
    char dir[256];
    Fault fault;
    CkptInfo got;
    const char *path;
    int64_t step;
    scratch(dir);
    fault_open(&fault);
    Env *env = &fault.env;
    Diags *d = diags_open(env_posix()), *after = diags_open(env_posix());
    Arena *a = arena_open(env_posix(), NULL);
    TestView *one = test_view(1), *two = test_view(2);
    Owner *o = owner_take(env, dir, d);
    cr_assert(o && save(env, dir, o, one, 1, d));
    fault.calls = fault.allocs = 0;
    fault.err = err;
    fault.dead = dead;
    if (alloc)
        fault.alloc_at = at;
    else
        fault.at = at;
    bool ok = save(env, dir, o, two, 2, d);
    bool reached = alloc ? fault.allocs >= at : fault.calls >= at;
    fault.at = fault.alloc_at = 0;
    Count c = look(dir);
    cr_assert(ckpt_find(env_posix(), dir, INT64_MAX, a, &path, &step, after) && path);
    cr_assert(!ok || step == 2, "call %lld: saved, but not there", (long long)at);
    TestView *t = load(path, after, &got, a);
    show(after);
    cr_assert(t != NULL, "call %lld: step %lld is not whole", (long long)at, (long long)step);
    cr_assert(same_view(t, step == 2 ? two : one), "call %lld: a mixture", (long long)at);
    if (!ok)
        cr_assert(diags_exit(d) == (alloc ? 71 : 74), "call %lld: exit %d", (long long)at, diags_exit(d));
    if (!ok && !dead) cr_assert(c.temporary == 0 || step == 1, "call %lld", (long long)at);
    if (alloc) cr_assert(c.temporary == 0, "allocation %lld left a temporary directory", (long long)at);
    cr_assert(ckpt_clean(env_posix(), dir, o, after));
    test_view_free(t);
    test_view_free(one);
    test_view_free(two);
    owner_release(o);
    arena_close(a);
    diags_close(d);
    diags_close(after);
    wipe(dir);
    return reached;
}

Test(checkpoint, killed_at_every_call) {
    int64_t k = 1;
    while (one_fault(k, true, EIO, false)) k++;
    cr_assert(k > 60, "only %lld calls", (long long)k);
}

Test(checkpoint, disk_full_at_every_call) {
    int64_t k = 1;
    while (one_fault(k, false, ENOSPC, false)) k++;
    cr_assert(k > 60);
}

Test(checkpoint, no_memory_at_every_allocation) {
    int64_t k = 1;
    while (one_fault(k, false, 0, true)) k++;
    cr_assert(k > 4);
}

/* Disk full from the first write on: the directory goes, the old checkpoint stays, 74. */
Test(checkpoint, disk_full_removes_the_temporary_directory) {
    Fix f;
    begin(&f);
    Fault fault;
    fault_open(&fault);
    cr_assert(save(f.env, f.dir, f.o, f.one, 1, f.d));
    fault.at = 3; /* mkdir and open went well, the first write does not */
    fault.err = ENOSPC;
    cr_assert(!save(&fault.env, f.dir, f.o, f.two, 2, f.d) && diags_exit(f.d) == 74 &&
              diags_say(f.d, "No space"));
    Count c = look(f.dir);
    cr_assert(c.temporary == 0 && c.steps == 1);
    end(&f);
}

/* Each file is fsynced, then the folder, and only then comes the rename, and the parent after it: without any
 * one of these a power loss could take a checkpoint that was reported. */
Test(checkpoint, order_of_what_makes_it_last) {
    Fix f;
    begin(&f);
    Fault fault;
    fault_open(&fault);
    cr_assert(save(&fault.env, f.dir, f.o, f.one, 1, f.d));
    size_t n = 0;
    while (fault.trace[n] == 'o' && fault.trace[n + 1] == 's') n += 2;
    cr_assert(n == 2 * 11 && !strcmp(fault.trace + n, "drd"), "%s", fault.trace);
    end(&f);
}

/* ---- damage */

typedef struct {
    const char *name[64];
    int n;
    Arena *a;
} Listing;

static bool keep(void *ctx, const char *name) {
    Listing *l = ctx;
    l->name[l->n++] = arena_str(l->a, name, strlen(name));
    return true;
}

static bool refused(Fix *f, const char *path) {
    CkptInfo info;
    Diags *d = diags_open(f->env);
    TestView *t = load(path, d, &info, f->a);
    bool no = !t && diags_exit(d) == 65;
    if (t) test_view_free(t);
    diags_close(d);
    return no;
}

Test(checkpoint, every_file_cut_or_flipped_is_refused) {
    Fix f;
    begin(&f);
    char path[400], file[700];
    Listing l = {.a = f.a};
    int err;
    cr_assert(save(f.env, f.dir, f.o, f.one, 1, f.d));
    snprintf(path, sizeof path, "%s/step-000001", f.dir);
    cr_assert(f.env->list(f.env, path, keep, &l, &err) == 0 && l.n == 11, "%d files", l.n);
    cr_assert(!refused(&f, path));
    for (int i = 0; i < l.n; i++) {
        size_t n;
        snprintf(file, sizeof file, "%s/%s", path, l.name[i]);
        char *whole = slurp(file, &n);
        for (size_t cut = 0; cut < n; cut += 1 + n / 97) {
            spit(file, whole, cut);
            cr_assert(refused(&f, path), "%s cut at %zu", l.name[i], cut);
        }
        for (size_t at = 0; at < n; at += 1 + n / 97) {
            whole[at] ^= 4;
            spit(file, whole, n);
            whole[at] ^= 4;
            cr_assert(refused(&f, path), "%s flipped at %zu", l.name[i], at);
        }
        unlink(file);
        cr_assert(refused(&f, path), "%s removed", l.name[i]);
        spit(file, whole, n);
        free(whole);
    }
    cr_assert(!refused(&f, path));
    end(&f);
}

Test(checkpoint, damage_names_file_and_tensor) {
    Fix f;
    begin(&f);
    char file[400], path[300];
    size_t n;
    cr_assert(save(f.env, f.dir, f.o, f.one, 1, f.d));
    snprintf(path, sizeof path, "%s/step-000001", f.dir);
    snprintf(file, sizeof file, "%s/optimizer-00001-of-00001.safetensors", path);
    char *p = slurp(file, &n);
    p[n - 1] ^= 64; /* the last tensor in byte order of the names */
    spit(file, p, n);
    free(p);
    cr_assert(!ckpt_verify(f.env, path, f.d) && diags_exit(f.d) == 65);
    cr_assert(diags_say(
        f.d, "optimizer-00001-of-00001.safetensors: tensor 'momentum.value/linear.weight' is damaged"));
    end(&f);
}

Test(checkpoint, symbolic_links_are_refused) {
    Fix f;
    begin(&f);
    char path[300], file[400], away[400];
    cr_assert(save(f.env, f.dir, f.o, f.one, 1, f.d));
    snprintf(path, sizeof path, "%s/step-000001", f.dir);
    static const char *const name[] = {"model-00001-of-00001.safetensors", "MANIFEST.json", "state.json"};
    for (size_t i = 0; i < WM_LEN(name); i++) {
        snprintf(file, sizeof file, "%s/%s", path, name[i]);
        snprintf(away, sizeof away, "%s/elsewhere", f.dir);
        cr_assert(rename(file, away) == 0 && symlink(away, file) == 0);
        cr_assert(refused(&f, path), "%s", name[i]);
        cr_assert(rename(away, file) == 0);
    }
    cr_assert(!refused(&f, path));
    snprintf(away, sizeof away, "%s/step-000002", f.dir);
    cr_assert(symlink(path, away) == 0 && refused(&f, away));
    end(&f);
}

/* ---- states that differ */

typedef void (*Change)(TestView *);
static void other_shape(TestView *t) {
    t->row[2].size[0] = 5;
}
static void other_dtype(TestView *t) {
    t->row[13].dtype = PD_F64;
}
static void other_name(TestView *t) {
    t->row[12].name = "median";
}
static void fewer(TestView *t) {
    t->v.n = 13;
}
static void other_frozen(TestView *t) {
    ((float *)t->mem[11])[0] += 1;
}
static void now_frozen(TestView *t) {
    t->row[9].trained = false;
}

Test(checkpoint, other_states_do_not_continue) {
    static const struct {
        Change change;
        const char *says;
    } row[] = {{other_shape, "another shape"},
               {other_dtype, "another dtype"},
               {other_name, "'median' (user) of this run is not"},
               {fewer, "'cut' (state) is in the checkpoint"},
               {other_frozen, "frozen model 'ref' is another one"},
               {now_frozen, "'value' was trained"}};
    Fix f;
    begin(&f);
    char path[300];
    cr_assert(save(f.env, f.dir, f.o, f.one, 1, f.d));
    snprintf(path, sizeof path, "%s/step-000001", f.dir);
    for (size_t i = 0; i < WM_LEN(row); i++) {
        TestView *t = test_view(5), *before = test_view(5);
        CkptInfo info;
        Diags *d = diags_open(f.env);
        row[i].change(t);
        row[i].change(before);
        cr_assert(!ckpt_load(f.env, path, &t->v, f.a, &info, d) && diags_exit(d) == 1, "row %zu", i);
        if (!diags_say(d, row[i].says)) show(d);
        cr_assert(diags_say(d, row[i].says), "row %zu", i);
        cr_assert(same_view(t, before), "row %zu: memory was touched", i);
        diags_close(d);
        test_view_free(t);
        test_view_free(before);
    }
    end(&f);
}

/* ---- owners */

Test(owner, one_at_a_time) {
    Fix f;
    begin(&f);
    cr_assert(owner_epoch(f.o) == 1 && strlen(owner_run_id(f.o)) == 16 && owner_still_ours(f.o, f.d) &&
              owner_beat(f.o, f.d));
    cr_assert(owner_take(f.env, f.dir, f.d) == NULL && diags_exit(f.d) == 73);
    owner_release(f.o);
    Diags *d = diags_open(f.env);
    f.o = owner_take(f.env, f.dir, d);
    cr_assert(f.o && owner_epoch(f.o) == 2);
    diags_close(d);
    end(&f);
}

/* A process that died without a word is succeeded; the zombie that still runs then cannot commit. */
Test(owner, dead_owner_is_succeeded_and_zombies_cannot_commit) {
    Fix f;
    begin(&f);
    owner_release(f.o);
    pid_t child = fork();
    if (child == 0) _exit(owner_take(f.env, f.dir, f.d) ? 0 : 1);
    int status;
    cr_assert(waitpid(child, &status, 0) == child && status == 0);
    Owner *zombie = owner_take(f.env, f.dir, f.d);
    cr_assert(zombie && owner_epoch(zombie) == 3);
    char file[300];
    size_t n;
    snprintf(file, sizeof file, "%s/owner.json", f.dir);
    char *text = slurp(file, &n);
    char *start =
        strstr(text, "\"start\": "); /* the pid lives, but began at another time: it was used again */
    cr_assert(start != NULL);
    start[9] = start[9] == '9' ? '8' : (char)(start[9] + 1);
    spit(file, text, n);
    free(text);
    f.o = owner_take(f.env, f.dir, f.d);
    show(f.d);
    cr_assert(f.o && owner_epoch(f.o) == 4);
    Diags *d = diags_open(f.env);
    cr_assert(!save(f.env, f.dir, zombie, f.one, 1, d) && diags_exit(d) == 73);
    Count c = look(f.dir);
    cr_assert(c.steps == 0 && c.temporary == 0);
    diags_close(d);
    owner_release(zombie);
    cr_assert(owner_still_ours(f.o, f.d), "the zombie's release changed nothing");
    end(&f);
}

Test(owner, other_hosts_live_by_their_beat) {
    Fix f;
    begin(&f);
    owner_release(f.o);
    char file[300];
    snprintf(file, sizeof file, "%s/owner.json", f.dir);
    const char *text = "{\"run\": \"0123456789abcdef\", \"epoch\": 41, \"host\": \"elsewhere\", \"boot\": "
                       "\"b\", \"pid\": 1, \"start\": 1, \"released\": false}\n";
    spit(file, text, strlen(text));
    Diags *d = diags_open(f.env);
    cr_assert(owner_take(f.env, f.dir, d) == NULL && diags_exit(d) == 73 && diags_say(d, "elsewhere"));
    struct timespec old[2] = {{.tv_sec = time(NULL) - 120}, {.tv_sec = time(NULL) - 120}};
    cr_assert(utimensat(AT_FDCWD, file, old, 0) == 0);
    f.o = owner_take(f.env, f.dir, d);
    cr_assert(f.o && owner_epoch(f.o) == 42);
    diags_close(d);
    end(&f);
}

Test(owner, damaged_record) {
    Fix f;
    begin(&f);
    owner_release(f.o);
    char file[300];
    snprintf(file, sizeof file, "%s/owner.json", f.dir);
    spit(file, "{\"run\": 1}", 10);
    Diags *d = diags_open(f.env);
    cr_assert(owner_take(f.env, f.dir, d) == NULL && diags_exit(d) == 65);
    spit(file, "", 0); /* made, never filled */
    f.o = owner_take(f.env, f.dir, d);
    cr_assert(f.o != NULL);
    diags_close(d);
    end(&f);
}

/* ---- cleaning and pruning */

static bool there(const char *dir, const char *name) {
    char path[500];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

Test(prune, keeps_best_final_and_the_last_two) {
    Fix f;
    begin(&f);
    for (int64_t s = 1; s <= 6; s++) cr_assert(save(f.env, f.dir, f.o, f.one, s, f.d));
    cr_assert(ckpt_prune(f.env, f.dir, f.o, 4, 2, -1, f.d));
    cr_assert(!there(f.dir, "step-000001") && there(f.dir, "step-000002") && !there(f.dir, "step-000003") &&
              there(f.dir, "step-000004"));
    cr_assert(ckpt_prune(f.env, f.dir, f.o, 1, 2, 4, f.d));
    Count c = look(f.dir);
    cr_assert(c.steps == 4 && there(f.dir, "step-000004") && there(f.dir, "step-000005") &&
              there(f.dir, "step-000006"));
    end(&f);
}

Test(prune, nothing_foreign_is_removed) {
    Fix f;
    begin(&f);
    char cmd[900];
    for (int64_t s = 1; s <= 4; s++) cr_assert(save(f.env, f.dir, f.o, f.one, s, f.d));
    snprintf(
        cmd, sizeof cmd,
        "cd '%s' && cp -r step-000001 step-000001.bak && cp -r step-000001 step-000000 && mkdir step-1 "
        "step-000009 && "
        "echo mine > step-000002/notes.txt && mkdir step-000001.tmp-mine step-000003.tmp-0123456789abcdef && "
        "echo x > step-000003.tmp-0123456789abcdef/model-00001-of-00001.safetensors && "
        "mkdir -p step-000005.tmp-0123456789abcdee/sub && echo x > owner.json.tmp-123 && echo x > "
        "owner.json.tmp-x && echo x > a.tmp-123",
        f.dir);
    cr_assert(system(cmd) == 0);
    cr_assert(ckpt_prune(f.env, f.dir, f.o, 1, -1, -1, f.d));
    static const char *const kept[] = {
        "step-000001.bak",      "step-000000", "step-1",      "step-000009",      "step-000002/notes.txt",
        "step-000001.tmp-mine", "step-000003", "step-000004", "owner.json.tmp-x", "a.tmp-123"};
    cr_assert(!there(f.dir, "step-000001"));
    Diags *d = diags_open(f.env);
    (void)ckpt_clean(f.env, f.dir, f.o, d); /* the one with a folder inside is named and left */
    cr_assert(!there(f.dir, "owner.json.tmp-123"));
    cr_assert(diags_say(d, "sub"));
    cr_assert(!there(f.dir, "step-000003.tmp-0123456789abcdef") &&
              there(f.dir, "step-000005.tmp-0123456789abcdee/sub") && there(f.dir, "step-000001.tmp-mine"));
    for (size_t i = 0; i < WM_LEN(kept); i++) cr_assert(there(f.dir, kept[i]), "%s", kept[i]);
    diags_close(d);
    end(&f);
}

/* ---- export and import */

Test(model, export_then_import_is_bit_equal) {
    Fix f;
    begin(&f);
    for (int i = 0; i < 4; i++) {
        char out[300];
        StSet s;
        NameStyle style = i & 1 ? NAMES_HF : NAMES_META, got;
        const char **extra;
        uint32_t nextra;
        snprintf(out, sizeof out, "%s/export%d", f.dir, i);
        bool ok = model_export(f.env, out, &f.one->v, "policy", style, PD_F32,
                               "{\"dim\": 6, \"a\": {\"b\": 1e-5}, \"n\": null, \"t\": true}",
                               i & 2 ? 100 : 0, f.d);
        TestView *t = test_view(50);
        ok = ok && st_open_set(f.env, f.a, out, NULL, &s, f.d);
        ok = ok && weights_load_view(f.env, &t->v, "policy", &s, "", false, f.a, &got, &extra, &nextra, f.d);
        show(f.d);
        cr_assert(ok && got == style && nextra == 0 && s.n == (i & 2 ? 3 : 1));
        for (uint32_t r = 0; r < 3; r++)
            cr_assert(!memcmp(t->mem[r], f.one->mem[r], (size_t)state_bytes(&t->row[r])), "row %u", r);
        st_close_set(&s);
        test_view_free(t);
        ModelKey *key;
        uint32_t nkey;
        const char *file;
        cr_assert(model_keys_read(f.env, f.a, out, "", &key, &nkey, &file, f.d) && file && nkey == 3);
        cr_assert(!strcmp(key[0].key, "dim") && key[0].kind == J_INT && key[0].i == 6 &&
                  !strcmp(key[1].key, "a.b") && key[1].num == 1e-5);
        cr_assert(key[2].kind == J_BOOL && key[2].num == 1);
        cr_assert(!model_export(f.env, out, &f.one->v, "policy", style, PD_F32, NULL, 0, f.d), "it exists");
    }
    end(&f);
}

Test(model, other_dtypes_are_widened_and_rounded) {
    Fix f;
    begin(&f);
    char out[300];
    StSet s;
    snprintf(out, sizeof out, "%s/bf16", f.dir);
    cr_assert(model_export(f.env, out, &f.one->v, "policy", NAMES_HF, PD_BF16, NULL, 0, f.d));
    TestView *t = test_view(50);
    cr_assert(st_open_set(f.env, f.a, out, NULL, &s, f.d) &&
              weights_load_view(f.env, &t->v, "policy", &s, "", false, f.a, NULL, NULL, NULL, f.d));
    for (int i = 0; i < 48; i++) {
        float x = ((float *)f.one->mem[0])[i], y = ((float *)t->mem[0])[i];
        cr_assert(y != x || (x == 0), "bf16 rounds");
        cr_assert((y - x) <= 0.00391f * (x < 0 ? -x : x) && (x - y) <= 0.00391f * (x < 0 ? -x : x));
    }
    st_close_set(&s);
    snprintf(out, sizeof out, "%s/f16.safetensors", f.dir);
    static const uint16_t half[6] = {0x3c00, 0xc000, 0x7bff,
                                     0x0001, 0x8000, 0x7c00}; /* 1 -2 65504 2^-24 -0 inf */
    static const double value[6] = {1, -2, 65504, 0x1p-24, -0.0, INFINITY};
    StOut tensor = {
        .name = "linear.weight", .dtype = "F16", .shape = {1, 6}, .ndim = 2, .data = half, .bytes = 12};
    cr_assert(st_write(f.env, out, &tensor, 1, NULL, 0, NULL, f.d));
    cr_assert(st_open_set(f.env, f.a, out, NULL, &s, f.d) &&
              weights_load_view(f.env, &t->v, "value", &s, "", false, f.a, NULL, NULL, NULL, f.d));
    cr_assert(!memcmp(t->mem[9], value, sizeof value));
    st_close_set(&s);
    test_view_free(t);
    end(&f);
}

Test(model, missing_and_misshapen_parameters) {
    Fix f;
    begin(&f);
    char path[300];
    StSet s;
    float x[6] = {1, 2, 3, 4, 5, 6};
    snprintf(path, sizeof path, "%s/w.safetensors", f.dir);
    StOut t[3] = {
        {.name = "norm.weight", .dtype = "F32", .shape = {6}, .ndim = 1, .data = x, .bytes = 24},
        {.name = "lm_head.weight", .dtype = "F32", .shape = {6}, .ndim = 1, .data = x, .bytes = 24},
        {.name = "output.weight", .dtype = "F32", .shape = {6, 1}, .ndim = 2, .data = x, .bytes = 24}};
    cr_assert(st_write(f.env, path, t, 3, NULL, 0, NULL, f.d) &&
              st_open_set(f.env, f.a, path, NULL, &s, f.d));
    TestView *v = test_view(3), *same = test_view(3);
    const char **extra;
    uint32_t nextra;
    cr_assert(!weights_load_view(f.env, &v->v, "policy", &s, "", true, f.a, NULL, &extra, &nextra, f.d));
    cr_assert(diags_say(f.d, "'output.weight' has the shape [6, 1], model 'policy' declares [5, 6]") &&
              same_view(v, same));
    Diags *d = diags_open(f.env);
    cr_assert(!weights_load_view(f.env, &v->v, "policy", &s, "", false, f.a, NULL, &extra, &nextra, d) &&
              diags_exit(d) == 1);
    cr_assert(diags_say(d, "'layers.0.attention.wq.weight' of model 'policy' is not there"));
    cr_assert(weights_load_view(f.env, &v->v, "ref", &s, "", false, f.a, NULL, &extra, &nextra, d));
    cr_assert(nextra == 2 && !strcmp(extra[0], "lm_head.weight") && ((float *)v->mem[11])[5] == 6);
    diags_close(d);
    st_close_set(&s);
    test_view_free(v);
    test_view_free(same);
    end(&f);
}

/* ---- hashes and initial values */

/* Python: sha256(b"m/a\\0F64\\0" b"2\\0" + pack("<2d", 3, 4) + b"m/b\\0F32\\0" b"2\\0" + pack("<2f", 1, 2))
 */
#define SHA_BY_HAND "75a8bbb0ca5066de0eaf5691c0d140edb5e23a7b7d75e419fbb805fffc4c7661"

Test(state, sha256_by_hand) {
    static const char *const dim[] = {"x"};
    static const int64_t size[] = {2};
    TestView t = {.n = 0};
    float b[2] = {1, 2};
    double a[2] = {3, 4};
    Diags *d = diags_open(env_posix());
    char hex[65], other[33], again[33];
    dims(add_row(&t, "m", "b", "", "x", "", "param", true, PD_F32), 1, dim, size);
    dims(add_row(&t, "m", "a", "", "x", "", "param", true, PD_F64), 1, dim, size);
    dims(add_row(&t, "frozen", "a", "", "x", "", "param", false, PD_F64), 1, dim, size);
    t.mem[0] = b, t.mem[1] = t.mem[2] = a;
    t.v = (StateView){t.row, t.n, test_mem, &t};
    cr_assert(state_sha256(&t.v, env_posix(), hex, d));
    cr_assert(!strcmp(hex, SHA_BY_HAND), "%s", hex);
    cr_assert(model_hash(&t.v, env_posix(), "frozen", other, d) &&
              model_hash(&t.v, env_posix(), "m", again, d) && strcmp(other, again));
    a[1] = 5;
    cr_assert(state_sha256(&t.v, env_posix(), hex, d) && strcmp(hex, SHA_BY_HAND));
    diags_close(d);
}

Test(state, initial_values_follow_the_counter) {
    Diags *d = diags_open(env_posix());
    PlanState s = {.model = "m",
                   .name = "w",
                   .init = "uniform:-1,3",
                   .stream = 77,
                   .dtype = PD_F64,
                   .ndim = 1,
                   .dim = {"x"},
                   .size = {10}};
    double u[10], n[10];
    float n32[10];
    cr_assert(state_init(&s, 5, u, d));
    for (int i = 0; i < 10; i++) {
        uint32_t w[4];
        philox4x32(5, (uint64_t)i / 4, 0, 77, w);
        cr_assert(u[i] == -1 + 4 * philox_unit(w[i % 4]));
    }
    s.init = "normal:2,0.5";
    s.size[0] = 10;
    cr_assert(state_init(&s, 5, n, d));
    s.dtype = PD_F32;
    cr_assert(state_init(&s, 5, n32, d));
    for (int i = 0; i < 10; i++) cr_assert(n32[i] == (float)n[i]);
    cr_assert(n[0] != n[1] && n[1] != n[4]);
    enum { MANY = 40000 };
    double *many = malloc(MANY * sizeof *many), sum = 0, square = 0;
    s.dtype = PD_F64;
    s.size[0] = MANY;
    cr_assert(state_init(&s, 11, many, d));
    for (int i = 0; i < MANY; i++) sum += many[i], square += (many[i] - 2) * (many[i] - 2);
    cr_assert(sum / MANY > 1.99 && sum / MANY < 2.01 && square / MANY > 0.245 && square / MANY < 0.255);
    free(many);
    s.init = "gauss:0,1";
    cr_assert(!state_init(&s, 5, u, d));
    diags_close(d);
}
