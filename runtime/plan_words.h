/* plan_words.h: words of the plan text that printer and parser share, and the limits of what is read. */
#ifndef WM_PLAN_WORDS_H
#define WM_PLAN_WORDS_H

#include "runtime/plan.h"

extern const char *const plan_dtype_word[5];
enum {
    PLAN_MAX_BYTES = 1 << 30,
    PLAN_MAX_INSTR = 4 << 20,
    PLAN_MAX_ARGS = 4096,
    PLAN_MAX_PROGRAMS = 8,
    PLAN_MAX_SECTIONS = 256,
    PLAN_MAX_MICRO = 1 << 20
};

#endif
