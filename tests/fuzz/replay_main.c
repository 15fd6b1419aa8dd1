/* Replays files (or all files of directories) through a fuzz target, for compilers without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path) {
    struct stat st;
    if (stat(path, &st)) return perror(path), 1;
    if (S_ISDIR(st.st_mode)) {
        DIR *d = opendir(path);
        int bad = !d;
        char full[4096];
        for (struct dirent *e; d && (e = readdir(d));) {
            if (e->d_name[0] == '.') continue;
            snprintf(full, sizeof full, "%s/%s", path, e->d_name);
            bad |= replay(full);
        }
        if (d) closedir(d);
        return bad;
    }
    FILE *f = fopen(path, "rb");
    size_t n = (size_t)st.st_size;
    uint8_t *data = malloc(n ? n : 1);
    if (!f || !data || fread(data, 1, n, f) != n) return perror(path), 1;
    fclose(f);
    LLVMFuzzerTestOneInput(data, n);
    free(data);
    return 0;
}

int main(int argc, char **argv) {
    int bad = 0;
    for (int i = 1; i < argc; i++) bad |= replay(argv[i]);
    return bad;
}
