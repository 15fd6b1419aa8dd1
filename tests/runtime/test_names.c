/* Names and orders: the stored form of a row against formulas and against a recorded pair of files. */
#include "ckpt_test.h"

#include <math.h>

static const char *const wdim[] = {"qh", "hd", "hidden"};
static const int64_t wsize[] = {2, 4, 3};

static PlanState row(const char *axes, const char *halves) {
    PlanState s = {.model = "m",
                   .name = "w",
                   .hf = "w.hf",
                   .axes = axes,
                   .halves = halves,
                   .role = "param",
                   .dtype = PD_F32,
                   .ndim = 3};
    for (int i = 0; i < 3; i++) s.dim[i] = wdim[i], s.size[i] = wsize[i];
    return s;
}

/* HF row h*hd + c*hd/2 + i = Meta row h*hd + 2*i + c (experience.md 5). */
Test(names, rotary_halves_follow_the_formula) {
    PlanState s = row("(qh,hd),hidden", "hf=hd");
    float mem[24], hf[24], meta[24], back[24];
    for (int i = 0; i < 24; i++) mem[i] = (float)i + 0.5f;
    state_to_stored(&s, NAMES_HF, mem, hf);
    state_to_stored(&s, NAMES_META, mem, meta);
    cr_assert(!memcmp(mem, meta, sizeof mem));
    for (int h = 0; h < 2; h++)
        for (int c = 0; c < 2; c++)
            for (int i = 0; i < 2; i++)
                for (int k = 0; k < 3; k++)
                    cr_assert(hf[(h * 4 + c * 2 + i) * 3 + k] == meta[(h * 4 + 2 * i + c) * 3 + k]);
    state_from_stored(&s, NAMES_HF, hf, back);
    cr_assert(!memcmp(mem, back, sizeof mem));
    PlanState m = row("(qh,hd),hidden", "meta=hd");
    state_to_stored(&m, NAMES_META, mem, back);
    cr_assert(!memcmp(hf, back, sizeof hf));
}

Test(names, axes_in_another_order_than_memory) {
    PlanState s = row("hidden,(qh,hd)", "hf=hd");
    int64_t shape[8];
    uint32_t n;
    float mem[24], out[24], back[24];
    for (int i = 0; i < 24; i++) mem[i] = (float)(i * i);
    state_stored_shape(&s, shape, &n);
    cr_assert(n == 2 && shape[0] == 3 && shape[1] == 8);
    state_to_stored(&s, NAMES_META, mem, out);
    for (int k = 0; k < 3; k++)
        for (int q = 0; q < 8; q++) cr_assert(out[k * 8 + q] == mem[q * 3 + k]);
    state_from_stored(&s, NAMES_META, out, back);
    cr_assert(!memcmp(mem, back, sizeof mem));
    state_to_stored(&s, NAMES_HF, mem, out);
    memset(back, 0, sizeof back);
    state_from_stored(&s, NAMES_HF, out, back);
    cr_assert(!memcmp(mem, back, sizeof mem));
}

Test(names, shapes_with_ones_and_scalars) {
    PlanState s = row("1,(qh,hd),1,hidden", "");
    int64_t shape[8];
    uint32_t n;
    state_stored_shape(&s, shape, &n);
    cr_assert(n == 4 && shape[0] == 1 && shape[1] == 8 && shape[2] == 1 && shape[3] == 3);
    PlanState scalar = {.model = "", .name = "x", .axes = "", .role = "user", .dtype = PD_F64};
    state_stored_shape(&scalar, shape, &n);
    cr_assert(n == 0 && state_elements(&scalar) == 1 && state_axes_ok(&scalar));
}

Test(names, axes_that_do_not_fit_are_refused) {
    static const char *const bad[] = {
        "(qh,hd)",       "(qh,hd),hidden,hidden", "qh,hd,hiddem", "(qh,hd,hidden", "qh,hd,hidden,",
        ",qh,hd,hidden", "(qh,hd))hidden",        "()",           "qh,,hd,hidden"};
    for (size_t i = 0; i < WM_LEN(bad); i++) {
        PlanState s = row(bad[i], "");
        cr_assert(!state_axes_ok(&s), "%s", bad[i]);
    }
    PlanState odd = row("(qh,hd),hidden", "hf=hidden"), what = row("(qh,hd),hidden", "hf=x"),
              other = row("(qh,hd),hidden", "foo=hd");
    cr_assert(!state_axes_ok(&odd) && !state_axes_ok(&what) && !state_axes_ok(&other));
    PlanState good = row("(qh,hd),hidden", "hf=hd");
    cr_assert(state_axes_ok(&good));
}

/* The same numbers recorded under Meta's and under Hugging Face's names. */
static void reference(TestView *t) {
    static const char *const meta[] = {"layers.0.attention.wq.weight", "layers.0.attention.wk.weight",
                                       "layers.0.attention.wv.weight"};
    static const char *const hf[] = {"model.layers.0.self_attn.q_proj.weight",
                                     "model.layers.0.self_attn.k_proj.weight",
                                     "model.layers.0.self_attn.v_proj.weight"};
    static const int64_t size[] = {2, 16, 32};
    memset(t, 0, sizeof *t);
    for (int i = 0; i < 3; i++)
        dims(
            add_row(t, "ref", meta[i], hf[i], "(qh,hd),hidden", i < 2 ? "hf=hd" : "", "param", false, PD_F64),
            3, wdim, size);
    dims(add_row(t, "ref", "norm.weight", "model.norm.weight", "hidden", "", "param", false, PD_F64), 1,
         wdim + 2, size + 2);
    for (uint32_t i = 0; i < t->n; i++) t->mem[i] = calloc(1, (size_t)state_bytes(&t->row[i]));
    t->v = (StateView){t->row, t->n, test_mem, t};
}

Test(names, recorded_pair_loads_to_the_same_numbers) {
    Env *env = env_posix();
    Diags *d = diags_open(env);
    Arena *a = arena_open(env, NULL);
    TestView x, y;
    StSet meta, hf;
    NameStyle sx, sy;
    reference(&x);
    reference(&y);
    const char **extra;
    uint32_t nextra;
    bool ok =
        st_open_set(env, a, WM_SOURCE_DIR "/tests/runtime/data/reference_meta.safetensors", NULL, &meta, d) &&
        st_open_set(env, a, WM_SOURCE_DIR "/tests/runtime/data/reference_hf.safetensors", NULL, &hf, d) &&
        weights_load_view(env, &x.v, "ref", &meta, "reference.", false, a, &sx, &extra, &nextra, d) &&
        weights_load_view(env, &y.v, "ref", &hf, "", false, a, &sy, &extra, &nextra, d);
    show(d);
    cr_assert(ok && sx == NAMES_META && sy == NAMES_HF && nextra == 0);
    cr_assert(same_view(&x, &y));
    double sum = 0;
    for (int i = 0; i < 1024; i++) sum += fabs(((double *)x.mem[0])[i]);
    cr_assert(sum > 1, "the recorded numbers are not zero");
    for (uint32_t i = 0; i < x.n; i++) free(x.mem[i]), free(y.mem[i]);
    st_close_set(&meta);
    st_close_set(&hf);
    arena_close(a);
    diags_close(d);
}
