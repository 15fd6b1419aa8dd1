/* commands.h: one function per row of cmd.def. Each returns the exit code; diagnostics are in c->d. */
#ifndef WM_COMMANDS_H
#define WM_COMMANDS_H

#include "cli/cli.h"

#define CMD(name, fn, most, args, flags, help, example) int fn(Cli *c);
#include "cli/cmd.def"
#undef CMD

#endif
