/* loss.h: private to codegen/custom/: launches that linear_ce and linear_kl share. `which`: 0 (h, W) or 1
 * (h2, W2) of a kl; `slice`: which of the rows left over; `chunk`: which rows of the list. */
#ifndef WM_LOSS_H
#define WM_LOSS_H

#include "codegen/custom/kern.h"

typedef struct {
    LossShape s;
    DType dt;
    int size, mr, nr;
} Loss;

void loss_open(Kern *k, Loss *l, Emit *e, NodeId id);
void loss_define(Kern *k, const Loss *l);
uint32_t loss_read(Kern *k, int64_t off, int64_t bytes); /* scratch */
uint32_t loss_write(Kern *k, int64_t off, int64_t bytes);
void loss_read_count(Kern *k, const Loss *l, int64_t c);
void loss_read_list(Kern *k, const Loss *l, int64_t c);
void loss_check(Emit *e, NodeId id);
void loss_panels(Emit *e, NodeId id, int which, bool transposed);
/* Closes a launch that lists the rows r with `used` and runs `clear` for the others; `args` declares what
 * both name. */
void loss_list(Kern *k, const Loss *l, const char *args, const char *used, const char *clear);
void loss_gather(Emit *e, NodeId id, int which, int64_t slice, int64_t chunk);
void loss_logits(Emit *e, NodeId id, int which, int64_t chunk);
void loss_backward(Emit *e, NodeId id, int which, ValueId dh, ValueId dw, int64_t slice, int64_t chunk);
extern const char loss_lanes_text[]; /* row_max(x), lanes(s): 16 lanes, then in order */

#endif
