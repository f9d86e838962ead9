/* Times rd_score: for `raydistill bench`.
 *
 *     bench MODEL PAIRS SECONDS TITLES SKIP
 *
 * PAIRS has lines of query<TAB>title. A call scores the next TITLES titles with the next query, as if
 * SKIP calls had been before: no title is of the call before. Prints the nanoseconds of each call, a
 * line each: by the wall clock, or the CPU time of this process if that is less. Exit code 1: a
 * message on stderr.
 */
#define _GNU_SOURCE
#include "raydistill.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ALIGN = 64, WARM_UP = 200 };

typedef struct {
    char *start;
    int64_t bytes;
} Text;

static void stop(const char *what, const char *name) {
    fprintf(stderr, "%s: %s\n", name, what);
    exit(1);
}

static Text map_file(const char *name) {
    struct stat about;
    int file = open(name, O_RDONLY);
    if (file < 0 || fstat(file, &about) || about.st_size == 0) stop("cannot be read", name);
    void *start = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, file, 0);
    if (start == MAP_FAILED) stop("cannot be mapped", name);
    close(file);
    return (Text){start, about.st_size};
}

static void *room(size_t bytes) {
    void *start = malloc(bytes);
    if (start == NULL) stop("no memory", "bench");
    return start;
}

static int64_t now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int num_args, char **args) {
    if (num_args != 6) stop("MODEL PAIRS SECONDS TITLES SKIP", args[0]);
    Text model = map_file(args[1]), pairs = map_file(args[2]);
    int64_t code = rd_check(model.start, model.bytes);
    if (code != RD_OK) {
        fprintf(stderr, "%s: rd_check returns %lld\n", args[1], (long long)code);
        return 1;
    }
    double seconds = atof(args[3]);
    int64_t num = atoll(args[4]), skip = atoll(args[5]), lines = 0;
    for (int64_t at = 0; at < pairs.bytes; at++) lines += pairs.start[at] == '\n';
    if (lines == 0 || num < 1) stop("no pairs", args[2]);

    /* Titles of all lines, and of the first `num` again: titles of any `num` lines are in order. */
    Text *queries = room((size_t)lines * sizeof *queries);
    Text *titles = room((size_t)lines * sizeof *titles);
    char *line = pairs.start, *end = pairs.start + pairs.bytes;
    for (int64_t at = 0; at < lines; at++) {
        char *next = memchr(line, '\n', (size_t)(end - line));
        char *tab = memchr(line, '\t', (size_t)(next - line));
        if (tab == NULL) stop("a line without a tab", args[2]);
        queries[at] = (Text){line, tab - line};
        titles[at] = (Text){tab + 1, next - tab - 1};
        line = next + 1;
    }
    int64_t *offsets = room((size_t)(lines + num + 1) * sizeof *offsets);
    offsets[0] = 0;
    for (int64_t at = 0; at < lines + num; at++)
        offsets[at + 1] = offsets[at] + titles[at % lines].bytes;
    char *joined = room((size_t)offsets[lines + num] + 1);
    for (int64_t at = 0; at < lines + num; at++)
        memcpy(joined + offsets[at], titles[at % lines].start, (size_t)titles[at % lines].bytes);

    float *scores = room((size_t)num * sizeof *scores);
    void *scratch = aligned_alloc(ALIGN, (size_t)rd_scratch_bytes(model.start));
    if (scratch == NULL) stop("no memory", "scratch");
    int64_t calls = -(num == 1 ? WARM_UP : 1), stop_ns = 0;
    int64_t first = skip * num % lines; /* the first title of the call */
    for (int64_t at = skip % lines; calls < 1 || now_ns(CLOCK_MONOTONIC) < stop_ns; calls++) {
        if (calls == 0) stop_ns = now_ns(CLOCK_MONOTONIC) + (int64_t)(1e9 * seconds);
        int64_t cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID), wall_ns = now_ns(CLOCK_MONOTONIC);
        code = rd_score(model.start, scratch, queries[at].start, queries[at].bytes, joined,
                        offsets + first, num, scores);
        wall_ns = now_ns(CLOCK_MONOTONIC) - wall_ns;
        cpu_ns = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_ns;
        if (code != RD_OK) stop("rd_score fails", args[1]);
        if (calls >= 0) printf("%lld\n", (long long)(wall_ns < cpu_ns ? wall_ns : cpu_ns));
        at = (at + 1) % lines;
        first = (first + num) % lines;
    }
    return 0;
}
