/* commands.c: the table of commands, expanded from cmd.def. */
#include "cli/commands.h"

enum { MANY = INT32_MAX };

const Command command[] = {
#define CMD(name, fn, most, args, flags, help, example) {name, args, flags, help, example, most, fn},
#include "cli/cmd.def"
#undef CMD
};
const uint32_t ncommand = WM_LEN(command);
