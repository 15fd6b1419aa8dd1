/* cmd_show.c: `show RUN`: the curves of metrics.jsonl; `model show` and `model export`. */
#include "cli/commands.h"
#include "cli/draw.h"

#include <string.h>

/* Numbers of one key over the lines of a log, in order. */
static Curve series(Cli *c, Json *const *line, uint32_t n, const char *key) {
    Curve s = {.name = key};
    double *x = NEWN(c->a, double, n + 1), *y = NEWN(c->a, double, n + 1);
    for (uint32_t i = 0; i < n; i++) {
        const Json *v = json_get(line[i], key), *step = json_get(line[i], "step");
        if (!v || !step || (json_kind(v) != J_REAL && json_kind(v) != J_INT)) continue;
        x[s.n] = json_real(step);
        y[s.n++] = json_real(v);
    }
    s.x = x;
    s.y = y;
    return s;
}

/* A running mean over a twentieth of the curve, so that the trend of noisy steps is seen. */
static Curve smooth(Cli *c, Curve s, const char *name) {
    uint32_t w = s.n / 20 > 1 ? s.n / 20 : 1;
    double *y = NEWN(c->a, double, s.n + 1), sum = 0;
    for (uint32_t i = 0; i < s.n; i++) {
        sum += s.y[i] - (i >= w ? s.y[i - w] : 0);
        y[i] = sum / (i + 1 < w ? i + 1 : w);
    }
    return (Curve){name, s.x, y, s.n};
}

static Json **read_lines(Cli *c, const char *path, uint32_t *n) {
    char *text;
    size_t len;
    if (!file_read_all(c->env, c->a, path, (wm_size)1 << 30, &text, &len, c->d)) {
        if (c->d->n)
            diag_help(c->d, c->d->item[c->d->n - 1],
                      "`show` takes the directory of a run: its checkpoint.save_dir");
        return NULL;
    }
    uint32_t cap = 0;
    for (size_t i = 0; i < len; i++) cap += text[i] == '\n';
    Json **line = NEWN(c->a, Json *, cap + 1);
    *n = 0;
    for (char *s = text, *nl; (nl = memchr(s, '\n', len - (size_t)(s - text))) != NULL; s = nl + 1)
        if ((line[*n] = json_parse(s, (size_t)(nl - s), path, *n + 1, 16, c->d, D001)) == NULL)
            return NULL;
        else
            ++*n;
    return line;
}

int cmd_show(Cli *c) {
    if (!c->narg) return diag_add(c->d, R007, NOLOC, "show: a run directory is missing"), EXIT_USAGE;
    uint32_t n = 0, k = 0;
    Json **line = read_lines(c, arena_fmt(c->a, "%s/metrics.jsonl", c->arg[0]), &n);
    if (!line) return diags_exit(c->d);
    Curve curve[6], train = series(c, line, n, "train.loss"), val = series(c, line, n, "val.loss");
    if (train.n) curve[k++] = smooth(c, train, "train.loss");
    if (val.n) curve[k++] = val;
    for (uint32_t i = 0; i < n; i++) json_free(line[i]);
    if (!k)
        return diag_add(c->d, D001, NOLOC, "%s/metrics.jsonl holds no steps yet", c->arg[0]), EXIT_DAMAGED;
    Sbuf b;
    sb_init(&b, c->a);
    if (c->out) {
        chart_svg(&b, c->arg[0], curve, k);
        return file_write_atomic(c->env, c->out, b.s, b.len, c->d) ? EXIT_DONE : diags_exit(c->d);
    }
    chart_text(&b, curve, k, 64, 17);
    for (uint32_t i = 0; i < k; i++)
        sb_fmt(&b, "%s: %.4f at step %.0f, %.4f at step %.0f\n", curve[i].name, curve[i].y[0], curve[i].x[0],
               curve[i].y[curve[i].n - 1], curve[i].x[curve[i].n - 1]);
    return put_out(c, b.s, b.len) ? EXIT_DONE : EXIT_IO;
}
