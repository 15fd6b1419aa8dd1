/* Elementary functions of generated code against long double, in units of the last place. WM_SOAK=1: all 2^32
 * floats. */
#include "kernel_test.h"

#include <math.h>

TestSuite(mathlib, .init = kernels_open, .fini = kernels_close, .timeout = 3600);

typedef long double Wide;
static Wide sigmoid_wide(Wide x) {
    return 1 / (1 + expl(-x));
}
typedef struct {
    const char *name;
    Wide (*exact)(Wide);
    double lo, hi, ulp32, ulp64;
} Fn;
static const Fn fns[] = {{"exp", expl, -110, 95, 1.1, 1.1},
                         {"log", logl, 0, 1e30, 1.1, 1.1},
                         {"log1p", log1pl, -0.999999, 1e20, 2, 2},
                         {"tanh", tanhl, -25, 25, 2, 2},
                         {"erf", erfl, -7, 7, 2, 4},
                         {"sigmoid", sigmoid_wide, -104, 100, 2.25, 2.25},
                         {"sin", sinl, -1e5, 1e5, 0.6, 2},
                         {"cos", cosl, -1e5, 1e5, 0.6, 2},
                         {"sqrt", sqrtl, 0, 1e30, 0.5, 0.5},
                         {"floor", floorl, -1e9, 1e9, 0, 0},
                         {"fabs", fabsl, -1e9, 1e9, 0, 0}};

static KernelFn array_fn(const char *name, DType dt, int nin, int n) {
    Sbuf s;
    sb_init(&s, arena);
    mathlib_put(&s, dt, &name, 1);
    const char *t = dt == DT_F32 ? "float" : "double", *x = dt == DT_F32 ? "f32" : "f64";
    sb_fmt(
        &s,
        "void k(void *const *p, int part, int nparts) {\n    const %s *a = p[0], *b = p[1]; %s *o = p[2];\n",
        t, t);
    sb_fmt(
        &s,
        "#ifdef __clang__\n#pragma clang loop vectorize(assume_safety)\n#else\n#pragma GCC ivdep\n#endif\n");
    sb_fmt(&s, "    for (long i = 0; i < %d; i++) o[i] = %s_%s(a[i]%s);\n}\n", n, name, x,
           nin == 2 ? ", b[i]" : "");
    return kernel_of(s.s);
}

static double error32(float got, Wide want) {
    float near = (float)want;
    if (isnan(got) || isnan(near)) return isnan(got) && isnan(near) ? 0 : 1e9;
    if (isinf(got) || isinf(near)) return got == near ? 0 : isinf(got) && fabsf(near) > 3.4028e38f ? 1 : 1e9;
    int e;
    frexpf(near, &e);
    return (double)(fabsl((Wide)got - want) / ldexpl(1, e - 24 < -149 ? -149 : e - 24));
}
static double error64(double got, Wide want) {
    double near = (double)want;
    if (isnan(got) || isnan(near)) return isnan(got) && isnan(near) ? 0 : 1e9;
    if (isinf(got) || isinf(near)) return got == near ? 0 : 1e9;
    int e;
    frexp(near, &e);
    return (double)(fabsl((Wide)got - want) / ldexpl(1, e - 53 < -1074 ? -1074 : e - 53));
}

enum { N = 4096 };
static uint64_t rng(uint64_t *s) {
    return *s = *s * 6364136223846793005u + 1442695040888963407u, *s >> 11;
}
static double unit(uint64_t *s) {
    return (double)rng(s) * 0x1p-53;
}

Test(mathlib, f32) {
    bool soak = getenv("WM_SOAK") != NULL;
    for (size_t f = 0; f < WM_LEN(fns); f++) {
        KernelFn fn = array_fn(fns[f].name, DT_F32, 1, N);
        static float in[N], out[N];
        void *p[] = {in, in, out};
        double worst = 0, at = 0;
        uint64_t bits = 0, seed = 1;
        while (bits < (1ull << 32)) {
            for (int i = 0; i < N;
                 i++) { /* every float, or one in 2^16 and random ones in the range of interest */
                uint32_t b = (uint32_t)bits;
                memcpy(&in[i], &b, 4);
                if (!soak && (i & 1)) in[i] = (float)(fns[f].lo + (fns[f].hi - fns[f].lo) * unit(&seed));
                if (!soak && (i & 2))
                    in[i] = (float)((fns[f].lo < 0 ? 4 * unit(&seed) - 2 : 2 * unit(&seed)));
                if (fns[f].lo == -0.999999 && in[i] < -0.999999f) in[i] = 0.5f;
                bits += soak ? 1 : 16411;
            }
            fn(p, 0, 1);
            for (int i = 0; i < N; i++) {
                bool trig = !strcmp(fns[f].name, "sin") || !strcmp(fns[f].name, "cos");
                if (trig && !(fabsf(in[i]) < 0x1p28f)) continue;
                double e = error32(out[i], fns[f].exact((Wide)in[i]));
                if (e > worst) worst = e, at = in[i];
            }
        }
        cr_log_info("%s_f32: %.3f ulp at %a", fns[f].name, worst, at);
        cr_expect(worst <= fns[f].ulp32, "%s_f32: %.3f ulp at %a", fns[f].name, worst, at);
    }
}

Test(mathlib, f64) {
    for (size_t f = 0; f < WM_LEN(fns); f++) {
        KernelFn fn = array_fn(fns[f].name, DT_F64, 1, N);
        static double in[N], out[N];
        void *p[] = {in, in, out};
        double worst = 0, at = 0;
        uint64_t seed = 7;
        double lo = fns[f].lo, hi = fns[f].hi;
        if (!strcmp(fns[f].name, "exp")) lo = -744, hi = 709.7;
        for (int rep = 0; rep < 200; rep++) {
            for (int i = 0; i < N; i++) {
                in[i] = lo + (hi - lo) * unit(&seed);
                if (rep % 2) in[i] = (lo < 0 ? 2 * unit(&seed) - 1 : 2 * unit(&seed));
                if (rep % 4 == 3) in[i] *= exp2(-30 * unit(&seed));
                if (lo == -0.999999 && in[i] < lo) in[i] = lo;
            }
            fn(p, 0, 1);
            for (int i = 0; i < N; i++) {
                double e = error64(out[i], fns[f].exact((Wide)in[i]));
                if (e > worst) worst = e, at = in[i];
            }
        }
        cr_log_info("%s_f64: %.3f ulp at %a", fns[f].name, worst, at);
        cr_expect(worst <= fns[f].ulp64, "%s_f64: %.3f ulp at %a", fns[f].name, worst, at);
    }
}

static const double edge[] = {0.0, -0.0,      1,         -1,     0.5,    -0.5,   2,        -2,
                              3,   -3,        4,         1e-310, 1e-40,  -1e-40, INFINITY, -INFINITY,
                              NAN, 0x1p-1022, 0x1p-1074, 1e300,  -1e300, 3e38,   1000,     -1000};

Test(mathlib, edges) {
    static double in[64], out[64];
    static float in32[64], out32[64];
    for (size_t i = 0; i < WM_LEN(edge); i++) in[i] = edge[i], in32[i] = (float)edge[i];
    for (size_t f = 0; f < WM_LEN(fns); f++) {
        void *p[] = {in, in, out}, *q[] = {in32, in32, out32};
        array_fn(fns[f].name, DT_F64, 1, WM_LEN(edge))(p, 0, 1);
        array_fn(fns[f].name, DT_F32, 1, WM_LEN(edge))(q, 0, 1);
        for (size_t i = 0; i < WM_LEN(edge); i++) {
            bool trig = !strcmp(fns[f].name, "sin") || !strcmp(fns[f].name, "cos");
            if (trig && fabs(in[i]) > 1e6 && isfinite(in[i])) continue;
            cr_expect(error64(out[i], fns[f].exact((Wide)in[i])) <= 4, "%s_f64(%a) = %a", fns[f].name, in[i],
                      out[i]);
            cr_expect(error32(out32[i], fns[f].exact((Wide)in32[i])) <= 2, "%s_f32(%a) = %a", fns[f].name,
                      in32[i], out32[i]);
        }
    }
}

Test(mathlib, power) {
    static double x[N], y[N], o[N];
    static float x32[N], y32[N], o32[N];
    void *p[] = {x, y, o}, *q[] = {x32, y32, o32};
    KernelFn f64 = array_fn("pow", DT_F64, 2, N), f32 = array_fn("pow", DT_F32, 2, N);
    double w64 = 0, w32 = 0;
    uint64_t seed = 3;
    for (int rep = 0; rep < 200; rep++) {
        for (int i = 0; i < N; i++) {
            x[i] = exp2(40 * unit(&seed) - 20), y[i] = (2 * unit(&seed) - 1) * 700 / (fabs(log(x[i])) + 0.01);
            if (rep % 3 == 1) x[i] = -x[i], y[i] = floor(y[i]);
            if (rep == 0)
                x[i] = edge[(size_t)i % WM_LEN(edge)], y[i] = edge[(size_t)i / WM_LEN(edge) % WM_LEN(edge)];
            x32[i] = (float)x[i], y32[i] = (float)(rep ? y[i] / 8 : y[i]);
        }
        f64(p, 0, 1);
        f32(q, 0, 1);
        for (int i = 0; i < N; i++) {
            double a = error64(o[i], powl((Wide)x[i], (Wide)y[i])),
                   b = error32(o32[i], powl((Wide)x32[i], (Wide)y32[i]));
            if (a > w64) w64 = a;
            if (b > w32) w32 = b;
            cr_expect(a <= 4, "pow_f64(%a, %a) = %a", x[i], y[i], o[i]);
            cr_expect(b <= 1, "pow_f32(%a, %a) = %a", x32[i], y32[i], o32[i]);
        }
    }
    cr_log_info("pow: %.3f ulp in f64, %.3f in f32", w64, w32);
}
