/* guard.c: the only setjmp of the project. A broken invariant (70) or an exhausted arena (71) anywhere in a
 * compiler folder ends up here, as a diagnostic of the public entry point that was called. */
#include "base/base.h"

#include <stdio.h>

bool guard_run(bool (*fn)(void *ctx, Guard *g), void *ctx, Diags *d) {
    Guard g;
    g.diags = d;
    if (setjmp(g.out)) return false;
    return fn(ctx, &g);
}

_Noreturn void guard_escape(Guard *g, int exit_code, const char *fmt, ...) {
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!g) __builtin_trap(); /* an arena of a compiler folder was opened without a guard */
    diag_add(g->diags, exit_code == EXIT_MEMORY ? R006 : I001, NOLOC, "%s", text);
    longjmp(g->out, 1);
}
