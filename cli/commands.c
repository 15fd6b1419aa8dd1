/* commands.c: the table of commands, expanded from cmd.def. */
#include "cli/commands.h"

const Command command[] = {
#define CMD(name, fn, args, flags, help, example) {name, args, flags, help, example, fn},
#include "cli/cmd.def"
#undef CMD
};
const uint32_t ncommand = WM_LEN(command);
