/* internal.h: what the files of ir/ share and nobody else sees. */
#ifndef WM_IR_INTERNAL_H
#define WM_IR_INTERNAL_H

#include "ir/ir.h"

/* Appends a node as it is: no inference; `attr` has MAX_ATTR entries. Context (loc, path, flags, origin) from
 * g. */
NodeId node_append(Graph *g, Op op, const ValueId *in, uint32_t nin, const Attr *attr, const Type *out,
                   uint32_t nout);
/* A name of the text form that needs no quotes: a letter or _, then letters, digits, _ and dots. */
bool ir_bare_name(const char *s);

#endif
