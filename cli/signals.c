/* signals.c: the first SIGINT, SIGTERM, SIGUSR1, SIGUSR2 or SIGXCPU asks the run to save and stop, the second
 * ends it. The flag is the one mutable static of the project: a signal handler has no other way to reach
 * anything. */
#include "cli/cli.h"

#include <signal.h>
#include <unistd.h>

static volatile int stop_flag;

static void on_signal(int sig) {
    (void)sig;
    if (stop_flag) _exit(EXIT_AGAIN);
    stop_flag = 1;
}

const volatile int *signals_install(void) {
    static const int caught[] = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    for (size_t i = 0; i < WM_LEN(caught); i++) sigaction(caught[i], &sa, NULL);
    return &stop_flag;
}

void signals_ignore(void) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}
