/* env_posix.c: the real Env. The only file of the project that calls the system. */
#include "base/base.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int done(int r, int *err) {
    if (r < 0) *err = errno;
    return r;
}
static void *p_alloc(Env *e, size_t n) {
    (void)e;
    return calloc(1, n ? n : 1);
}
static void p_free(Env *e, void *p) {
    (void)e;
    free(p);
}
static void *p_map(Env *e, size_t n) {
    (void)e;
    void *p = mmap(NULL, n ? n : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, n ? n : 1, MADV_HUGEPAGE);
    return p;
}
static void p_unmap(Env *e, void *p, size_t n) {
    (void)e;
    if (p) munmap(p, n ? n : 1);
}
/* O_NONBLOCK: a FIFO without a writer opens at once and is refused by its kind; files and directories do not
 * notice. */
static int p_open_read(Env *e, const char *path, int *err) {
    (void)e;
    return done(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), err);
}
static int p_open_new(Env *e, const char *path, uint32_t mode, int *err) {
    (void)e;
    return done(open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode), err);
}
static int p_open_append(Env *e, const char *path, uint32_t mode, int *err) {
    (void)e;
    return done(open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, mode), err);
}
static int64_t p_read(Env *e, int fd, void *p, size_t n, int *err) {
    (void)e;
    ssize_t r = read(fd, p, n);
    if (r < 0) *err = errno;
    return r;
}
static int64_t p_pread(Env *e, int fd, void *p, size_t n, int64_t off, int *err) {
    (void)e;
    ssize_t r = pread(fd, p, n, off);
    if (r < 0) *err = errno;
    return r;
}
static int64_t p_write(Env *e, int fd, const void *p, size_t n, int *err) {
    (void)e;
    ssize_t r = write(fd, p, n);
    if (r < 0) *err = errno;
    return r;
}
static int p_truncate(Env *e, int fd, int64_t size, int *err) {
    (void)e;
    return done(ftruncate(fd, size), err);
}
static int p_fsync(Env *e, int fd, int *err) {
    (void)e;
    return done(fsync(fd), err);
}
static int p_close(Env *e, int fd, int *err) {
    (void)e;
    return done(close(fd), err);
}
static void fill(EnvStat *o, const struct stat *s) {
    *o = (EnvStat){.size = s->st_size,
                   .dev = s->st_dev,
                   .ino = s->st_ino,
                   .is_dir = S_ISDIR(s->st_mode),
                   .is_file = S_ISREG(s->st_mode),
                   .is_link = S_ISLNK(s->st_mode),
                   .mode = s->st_mode & 07777,
                   .uid = s->st_uid,
                   .mtime_ns = (int64_t)s->st_mtim.tv_sec * 1000000000 + s->st_mtim.tv_nsec};
}
static int p_fstat(Env *e, int fd, EnvStat *o, int *err) {
    (void)e;
    struct stat s;
    int r = done(fstat(fd, &s), err);
    if (r == 0) fill(o, &s);
    return r;
}
static int p_lstat(Env *e, const char *path, EnvStat *o, int *err) {
    (void)e;
    struct stat s;
    int r = done(lstat(path, &s), err);
    if (r == 0) fill(o, &s);
    return r;
}
static int p_stat(Env *e, const char *path, EnvStat *o, int *err) {
    (void)e;
    struct stat s;
    int r = done(stat(path, &s), err);
    if (r == 0) fill(o, &s);
    return r;
}
static int p_rename(Env *e, const char *a, const char *b, int *err) {
    (void)e;
    return done(rename(a, b), err);
}
static int p_exchange(Env *e, const char *a, const char *b, int *err) {
    (void)e;
    return done(renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE), err);
}
static int p_unlink(Env *e, const char *path, int *err) {
    (void)e;
    return done(unlink(path), err);
}
static int p_mkdir(Env *e, const char *path, uint32_t mode, int *err) {
    (void)e;
    return done(mkdir(path, mode), err);
}
static int p_rmdir(Env *e, const char *path, int *err) {
    (void)e;
    return done(rmdir(path), err);
}
static int p_fsync_dir(Env *e, const char *path, int *err) {
    (void)e;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return done(-1, err);
    int r = done(fsync(fd), err);
    close(fd);
    return r;
}
static int p_lock(Env *e, int fd, bool wait, int *err) {
    (void)e;
    return done(flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)), err);
}

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool collect(DIR *dir, char ***names, size_t *n, int *err) {
    size_t cap = 0;
    for (;;) {
        errno = 0;
        struct dirent *x = readdir(dir);
        if (!x) {
            *err = errno;
            return errno == 0;
        }
        if (strcmp(x->d_name, ".") == 0 || strcmp(x->d_name, "..") == 0) continue;
        if (*n == cap) {
            cap = cap ? cap * 2 : 64;
            char **more = reallocarray(*names, cap, sizeof **names);
            if (!more) break;
            *names = more;
        }
        char *copy = strdup(x->d_name);
        if (!copy) break;
        (*names)[(*n)++] = copy;
    }
    *err = ENOMEM;
    return false;
}

static int p_list(Env *e, const char *path, bool (*fn)(void *, const char *), void *ctx, int *err) {
    (void)e;
    DIR *dir = opendir(path);
    if (!dir) return done(-1, err);
    char **names = NULL;
    size_t n = 0;
    bool ok = collect(dir, &names, &n, err);
    closedir(dir);
    if (ok && n) qsort(names, n, sizeof *names, by_bytes);
    for (size_t i = 0; ok && i < n && fn(ctx, names[i]); i++) {
    }
    for (size_t i = 0; i < n; i++) free(names[i]);
    free(names);
    return ok ? 0 : -1;
}

static int64_t clock_of(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
static int64_t p_now(Env *e) {
    (void)e;
    return clock_of(CLOCK_MONOTONIC);
}
static int64_t p_wall(Env *e) {
    (void)e;
    return clock_of(CLOCK_REALTIME);
}

struct EnvThread {
    pthread_t id;
    void (*fn)(void *);
    void *ctx;
};
static void *thread_main(void *p) {
    EnvThread *t = p;
    t->fn(t->ctx);
    return NULL;
}
static EnvThread *p_thread_start(Env *e, void (*fn)(void *), void *ctx, int cpu, int *err) {
    (void)e;
    EnvThread *t = calloc(1, sizeof *t);
    if (!t) {
        *err = ENOMEM;
        return NULL;
    }
    t->fn = fn;
    t->ctx = ctx;
    int r = pthread_create(&t->id, NULL, thread_main, t);
    if (r) {
        *err = r;
        free(t);
        return NULL;
    }
    if (cpu >= 0) { /* a hint: a thread that cannot be pinned still works */
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET((size_t)cpu, &set);
        pthread_setaffinity_np(t->id, sizeof set, &set);
    }
    return t;
}
static void p_thread_join(Env *e, EnvThread *t) {
    (void)e;
    pthread_join(t->id, NULL);
    free(t);
}
static int p_cpu_count(Env *e) {
    (void)e;
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* The child gets stdin from /dev/null, stdout and stderr to stderr_fd, and limits set as soon as it runs. */
static int p_spawn(Env *e, const char *path, const char *const *argv, const char *const *envp, int stderr_fd,
                   int64_t *pid, int *err) {
    (void)e;
    posix_spawn_file_actions_t fa;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    if (stderr_fd >= 0) {
        posix_spawn_file_actions_adddup2(&fa, stderr_fd, 1);
        posix_spawn_file_actions_adddup2(&fa, stderr_fd, 2);
    }
    pid_t child;
    union {
        const char *const *in;
        char *const *out;
    } args = {argv}, env = {envp};
    int r = posix_spawn(&child, path, &fa, NULL, args.out, env.out);
    posix_spawn_file_actions_destroy(&fa);
    if (r) {
        *err = r;
        return -1;
    }
    /* children are compilers and graphviz: 120 s of processor time and 4 GiB are far more than they need */
    const struct rlimit cpu = {120, 130}, memory = {(rlim_t)4 << 30, (rlim_t)4 << 30};
    prlimit(child, RLIMIT_CPU, &cpu, NULL);
    prlimit(child, RLIMIT_AS, &memory, NULL);
    *pid = child;
    return 0;
}
static int p_wait(Env *e, int64_t pid, int *status, int *err) {
    (void)e;
    int s;
    while (waitpid((pid_t)pid, &s, 0) < 0)
        if (errno != EINTR) return done(-1, err);
    *status = WIFEXITED(s) ? WEXITSTATUS(s) : 128 + WTERMSIG(s);
    return 0;
}
static int64_t p_pid(Env *e) {
    (void)e;
    return getpid();
}
static bool p_pid_alive(Env *e, int64_t pid) {
    (void)e;
    return pid > 0 && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}
static const char *p_getenv(Env *e, const char *name) {
    (void)e;
    return getenv(name);
}

static void *p_dl_open(Env *e, int fd, const char **why) {
    (void)e;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) *why = dlerror();
    return lib;
}
static void *p_dl_sym(Env *e, void *lib, const char *name) {
    (void)e;
    return dlsym(lib, name);
}
static void p_dl_close(Env *e, void *lib) {
    (void)e;
    dlclose(lib);
}

static int64_t p_memory(Env *e) {
    (void)e;
    return (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
}

static const Env posix_env = {
    NULL,        p_alloc,  p_free,         p_map,         p_unmap,     p_open_read, p_open_new, p_open_append,
    p_read,      p_pread,  p_write,        p_truncate,    p_fsync,     p_close,     p_fstat,    p_lstat,
    p_stat,      p_rename, p_unlink,       p_mkdir,       p_rmdir,     p_fsync_dir, p_lock,     p_list,
    p_now,       p_wall,   p_thread_start, p_thread_join, p_cpu_count, p_spawn,     p_wait,     p_pid,
    p_pid_alive, p_getenv, p_dl_open,      p_dl_sym,      p_dl_close,  p_memory,    p_exchange};

Env *env_posix(void) {
    union {
        const Env *in;
        Env *out;
    } u = {&posix_env}; /* no function writes to it */
    return u.out;
}
