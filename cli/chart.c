/* chart.c: curves as text for a terminal and as SVG. Colours of the curves are told apart by lightness too.
 */
#include "cli/draw.h"

#include <math.h>
#include <string.h>

typedef struct {
    double x0, x1, y0, y1;
} Box;

static Box bounds(const Curve *c, uint32_t n) {
    Box b = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (uint32_t k = 0; k < n; k++)
        for (uint32_t i = 0; i < c[k].n; i++) {
            if (!isfinite(c[k].y[i])) continue;
            b.x0 = fmin(b.x0, c[k].x[i]), b.x1 = fmax(b.x1, c[k].x[i]);
            b.y0 = fmin(b.y0, c[k].y[i]), b.y1 = fmax(b.y1, c[k].y[i]);
        }
    if (!(b.x1 > b.x0)) b.x1 = b.x0 + 1;
    if (!(b.y1 > b.y0)) b.y1 = b.y0 + 1;
    return b;
}

void chart_text(Sbuf *out, const Curve *curve, uint32_t n, int columns, int rows) {
    static const char mark[] = "*o+x#@";
    Box b = bounds(curve, n);
    char *cell = NEWN(out->a, char, columns *rows);
    memset(cell, ' ', (size_t)(columns * rows));
    for (uint32_t k = 0; k < n; k++) /* later curves lie on top */
        for (uint32_t i = 0; i < curve[k].n; i++) {
            if (!isfinite(curve[k].y[i])) continue;
            int x = (int)((curve[k].x[i] - b.x0) / (b.x1 - b.x0) * (columns - 1) + 0.5);
            int y = (int)((b.y1 - curve[k].y[i]) / (b.y1 - b.y0) * (rows - 1) + 0.5);
            cell[y * columns + x] = mark[k % (sizeof mark - 1)];
        }
    for (int y = 0; y < rows; y++) {
        double v = b.y1 - (b.y1 - b.y0) * y / (rows - 1);
        if (y % 4 == 0 || y == rows - 1)
            sb_fmt(out, "%9.3f |", v);
        else
            sb_str(out, "          |");
        int end = columns;
        while (end > 0 && cell[y * columns + end - 1] == ' ') end--;
        sb_put(out, cell + y * columns, (size_t)end);
        sb_chr(out, '\n');
    }
    sb_str(out, "          +");
    for (int x = 0; x < columns; x++) sb_chr(out, '-');
    sb_fmt(out, "\n           %-*.0f%*.0f step\n", columns / 2, b.x0, columns - columns / 2, b.x1);
    for (uint32_t k = 0; k < n; k++)
        sb_fmt(out, "           %c %s\n", mark[k % (sizeof mark - 1)], curve[k].name);
}

void chart_svg(Sbuf *out, const char *title, const Curve *curve, uint32_t n) {
    static const char *const color[] = {"#0b5cad", "#d1620e", "#1f8a4c", "#8c2f8c", "#555555", "#b8860b"};
    enum { W = 760, H = 400, L = 70, R = 180, T = 40, B = 50 };
    Box b = bounds(curve, n);
    sb_fmt(out,
           "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
           "font-size=\"12\">\n",
           W, H);
    sb_fmt(out,
           "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n<text x=\"%d\" y=\"24\" font-size=\"15\">", W,
           H, L);
    for (const char *s = title; *s; s++)
        sb_str(out, *s == '<' ? "&lt;" : *s == '&' ? "&amp;" : (char[]){*s, 0});
    sb_str(out, "</text>\n");
    for (int i = 0; i <= 4; i++) {
        double v = b.y0 + (b.y1 - b.y0) * i / 4, y = H - B - (H - T - B) * i / 4.0,
               xv = b.x0 + (b.x1 - b.x0) * i / 4, x = L + (W - L - R) * i / 4.0;
        sb_fmt(out,
               "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/><text x=\"%d\" "
               "y=\"%.1f\" text-anchor=\"end\">%.4g</text>\n",
               L, W - R, y, y, L - 8, y + 4, v);
        sb_fmt(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%.0f</text>\n", x, H - B + 20, xv);
    }
    sb_fmt(out, "<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">optimizer step</text>\n", (L + W - R) / 2,
           H - 10);
    for (uint32_t k = 0; k < n; k++) {
        bool few = curve[k].n <= 60;
        sb_fmt(out, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.6\" points=\"",
               color[k % WM_LEN(color)]);
        for (uint32_t i = 0; i < curve[k].n; i++)
            if (isfinite(curve[k].y[i]))
                sb_fmt(out, "%.1f,%.1f ", L + (W - L - R) * (curve[k].x[i] - b.x0) / (b.x1 - b.x0),
                       H - B - (H - T - B) * (curve[k].y[i] - b.y0) / (b.y1 - b.y0));
        sb_str(out, "\"/>\n");
        for (uint32_t i = 0; few && i < curve[k].n; i++)
            if (isfinite(curve[k].y[i]))
                sb_fmt(out, "<circle r=\"2.4\" fill=\"%s\" cx=\"%.1f\" cy=\"%.1f\"/>",
                       color[k % WM_LEN(color)], L + (W - L - R) * (curve[k].x[i] - b.x0) / (b.x1 - b.x0),
                       H - B - (H - T - B) * (curve[k].y[i] - b.y0) / (b.y1 - b.y0));
        sb_fmt(out,
               "<line x1=\"%d\" x2=\"%d\" y1=\"%u\" y2=\"%u\" stroke=\"%s\" stroke-width=\"3\"/><text "
               "x=\"%d\" y=\"%u\">%s</text>\n",
               W - R + 14, W - R + 34, 50 + 20 * k, 50 + 20 * k, color[k % WM_LEN(color)], W - R + 40,
               54 + 20 * k, curve[k].name);
    }
    sb_str(out, "</svg>\n");
}
