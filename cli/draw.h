/* draw.h: pictures of a graph and of a run. */
#ifndef WM_DRAW_H
#define WM_DRAW_H

#include "cli/cli.h"

/* Writes c->out as .dot, or as .svg laid out by graphviz's `dot` (69 if it is not installed). Nodes of one
 * block are one box; repeated layers are drawn once, with their count. Exit code. */
int draw_graph(Cli *c, const Graph *g);

/* One curve of a chart. */
typedef struct {
    const char *name;
    const double *x, *y;
    uint32_t n;
} Curve;
/* A chart of `rows` lines in text, and as SVG. */
void chart_text(Sbuf *out, const Curve *curve, uint32_t n, int columns, int rows);
void chart_svg(Sbuf *out, const char *title, const Curve *curve, uint32_t n);

#endif
