/* cli.h: the commands. Each is a row of cmd.def: name, arguments, flags and help stand there once. */
#ifndef WM_CLI_H
#define WM_CLI_H

#include "cli/build.h"
#include "cli/config/config.h"
#include "runtime/train.h"

/* What a command line says. Flags that a command does not list in cmd.def are refused before it runs. */
typedef struct {
    Env *env;
    Arena *a; /* with a guard */
    Diags *d;
    const char *self; /* path of this program */
    const char *command;
    const char *const *arg;
    uint32_t narg; /* positional */
    const char *const *override;
    uint32_t noverride; /* key=value */
    const char *config, *out, *dump_dir, *dump_ir, *stop_after, *color, *diagnostics, *pass;
    const char *const *skip;
    uint32_t nskip; /* --skip=PASS */
    const char *const *warn;
    uint32_t nwarn; /* -W error, -W no-W063 */
    bool profile, json, quiet, verbose, overwrite, progress;
    int64_t ranks, steps, heads;
    const char *to, *from, *model, *dtype;
} Cli;

typedef struct {
    const char *name, *args, *flags, *help, *example;
    uint32_t most;      /* arguments beside flags and KEY=VALUE */
    int (*run)(Cli *c); /* exit code; diagnostics in c->d */
} Command;
extern const Command command[];
extern const uint32_t ncommand;

/* Output of a command: stdout for results, stderr for people. Exit 74 when stdout is closed. */
bool put_out(Cli *c, const char *s, size_t n);
void say(Cli *c, const char *fmt, ...) WM_PRINTF(2, 3);

/* ---- session.c: file + configuration -> what build_plan wants, with the models' keys and stored shapes read
 */
typedef struct {
    const char *file;
    Config *config;
    BuildOptions build;
    GraphInfo info; /* of frontend_info: models, inputs, hypers */
    StSet *set;     /* by model of `model`; n 0 where a model has no path */
    const char **model_path;
    const char **model_config; /* text of the config.json a checkpoint of it gets, or NULL */
    DataSet *train, *val;
    DataField *field;
    uint32_t nfield;
    int64_t epoch_steps, total_steps;
} Session;
/* Which data sets are opened: a run needs both; what a run takes follows from the size of the validation set
 * (opened where it is there); the rest needs none. */
typedef enum { DATA_NONE, DATA_SHAPE, DATA_ALL } SessionData;
bool session_open(Cli *c, Session *s, SessionData want); /* false with diagnostics */
void session_close(Session *s);
const char *cli_file(Cli *c, Config *config); /* FILE.wg of the command line or graph.file; NULL with R007 */
bool cli_because(Cli *c, const Config *k,
                 const char *key);                       /* errors without a place stand at this key; false */
bool cli_warnings(Cli *c, LowerOptions *o);              /* -W: werror, no_warn, warn; false with R007 */
bool cli_passes(Cli *c, PassOptions *o);                 /* --skip, --stop-after, --dump-* */
const char *const *cli_search_path(Cli *c, uint32_t *n); /* WMTPC_PATH and the graphs beside the program */
bool file_exists(Env *env, const char *path);

int64_t plan_memory(const Plan *p); /* both arenas */

/* ---- signals.c: SIGINT, SIGTERM .. set a flag; a second one ends the process at once with 75 */
/* From the start on: a closed pipe and a full quota of file size are errors of write (74), not the end of the
 * process. */
void signals_ignore(void);
const volatile int *signals_install(void);

#endif
