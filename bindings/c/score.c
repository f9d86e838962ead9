/* Scores (query, title) pairs with a raydistill model file: one pair a line, query TAB title.
 *
 *     score MODEL [PAIRS]                PAIRS: a file; without it, standard input
 *     score --bench MODEL PAIRS SECONDS  times calls, prints a line of JSON
 *
 * Prints a score a line. In a text \t \n \r \0 \\ stand for tab, line feed, carriage return, NUL
 * and backslash. Build with a folder that `python -m raydistill.serving.native native` has made:
 *     cc -O2 -I native score.c -L native -lraydistill -Wl,-rpath,"$PWD/native" -o score
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <time.h>

#include "scorer.h"

#define ALLOWED "\\t \\n \\r \\0 and \\\\ are allowed\n"

enum { BATCH = 100, WARM_UP = 200 };

typedef struct {
    Text *queries, *titles;
    int64_t num, capacity;
} Pairs;

static void stop(const char *name, const char *problem) {
    fprintf(stderr, "%s: %s\n", name, problem);
    exit(1);
}

static void *checked(void *memory) {
    if (memory == NULL) stop("score", "no memory");
    return memory;
}

/* Replaces escapes in the bytes from `start` to `end`, where they are. */
static Text unescaped(char *start, const char *end, long line) {
    static const char names[] = "tnr0\\", values[] = "\t\n\r\0\\";
    char *out = start;
    for (const char *at = start; at < end; at++) {
        const char *name = "";
        if (*at == '\\') name = ++at < end ? memchr(names, *at, 5) : NULL;
        if (name == NULL) {
            fprintf(stderr, "line %ld has a wrong escape: " ALLOWED, line);
            exit(1);
        }
        *out++ = *name ? values[name - names] : *at;
    }
    return (Text){start, out - start};
}

/* Reads the next pair into `line`, which it replaces; 0 at the end. */
static int next_pair(FILE *file, char **line, size_t *capacity, Text *query, Text *title) {
    static long number = 0;
    ssize_t length = getline(line, capacity, file);
    if (length < 0) return 0;
    number++;
    char *start = *line, *end = start + length - (start[length - 1] == '\n');
    char *tab = memchr(start, '\t', (size_t)(end - start));
    if (tab == NULL || memchr(tab + 1, '\t', (size_t)(end - tab - 1)) != NULL) {
        fprintf(stderr, "line %ld has %s tab\n", number, tab == NULL ? "no" : "more than one");
        exit(1);
    }
    *query = unescaped(start, tab, number);
    *title = unescaped(tab + 1, end, number);
    return 1;
}

static int compare(const void *a, const void *b) {
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static double now_us(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

/* Sorted microseconds of calls with `size` titles, for so many seconds. */
static double *times_us(Worker *worker, const Pairs *pairs, int64_t size, double seconds,
                        int64_t *num) {
    int64_t capacity = 1 << 20, calls = -WARM_UP / size, at = 0;
    double *found = checked(malloc((size_t)capacity * sizeof *found)), end = 0;
    float scores[BATCH];
    for (*num = 0; calls < 1 || (now_us() < end && *num < capacity); calls++, at += size) {
        if (at + size > pairs->num) at = 0;
        if (calls == 0) end = now_us() + seconds * 1e6;
        double start = now_us();
        if (worker_score(worker, pairs->queries[at], pairs->titles + at, size, scores) != RD_OK)
            stop("score", "a call failed");
        if (calls >= 0) found[(*num)++] = now_us() - start;
    }
    qsort(found, (size_t)*num, sizeof *found, compare);
    return found;
}

static void bench(Worker *worker, FILE *file, double seconds) {
    static Pairs pairs;
    Text query, title;
    char *line = NULL; /* a new one for each pair: the texts stay in it */
    for (size_t size = 0; next_pair(file, &line, &size, &query, &title); line = NULL, size = 0) {
        if (pairs.num == pairs.capacity) {
            pairs.capacity = 2 * pairs.capacity + BATCH;
            size_t bytes = (size_t)pairs.capacity * sizeof(Text);
            pairs.queries = checked(realloc(pairs.queries, bytes));
            pairs.titles = checked(realloc(pairs.titles, bytes));
        }
        pairs.queries[pairs.num] = query;
        pairs.titles[pairs.num++] = title;
    }
    free(line);
    if (pairs.num < BATCH) stop("score", "--bench needs 100 pairs");
    int64_t alone, batches;
    double *alone_us = times_us(worker, &pairs, 1, seconds / 2, &alone);
    double *batch_us = times_us(worker, &pairs, BATCH, seconds / 2, &batches);
    printf("{\"language\": \"c\", \"alone_us\": %.3f, \"alone_p99_us\": %.3f, \"batch_us\": %.4f, "
           "\"pairs\": %lld}\n", alone_us[alone / 2], alone_us[alone * 99 / 100],
           batch_us[batches / 2] / BATCH, (long long)(alone + batches * BATCH));
    free(alone_us);
    free(batch_us);
}

int main(int argc, char **argv) {
    int is_bench = argc > 1 && strcmp(argv[1], "--bench") == 0;
    if (is_bench ? argc != 5 : argc < 2 || argc > 3) {
        fprintf(stderr, "usage: score MODEL [PAIRS] | score --bench MODEL PAIRS SECONDS\n");
        return 2;
    }
    const char *model = argv[1 + is_bench], *name = argc > 2 ? argv[2 + is_bench] : NULL;
    Scorer scorer;
    const char *problem = scorer_open(&scorer, model);
    if (problem != NULL) stop(model, problem);
    FILE *file = name != NULL ? fopen(name, "rb") : stdin;
    if (file == NULL) stop(name, strerror(errno));
    Worker *worker = checked(worker_new(&scorer));
    if (is_bench) bench(worker, file, atof(argv[4]));
    char *line = NULL;
    size_t capacity = 0;
    Text query, title;
    while (!is_bench && next_pair(file, &line, &capacity, &query, &title)) {
        float score;
        if (worker_score(worker, query, &title, 1, &score) != RD_OK) stop(model, "a call failed");
        printf("%.7f\n", score);
    }
    if (fflush(stdout) != 0) stop("standard output", strerror(errno));
    free(line);
    worker_free(worker);
    scorer_close(&scorer);
    return 0;
}
