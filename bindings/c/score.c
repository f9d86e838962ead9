/* Scores (query, title) pairs with a raydistill model file: one pair a line, query TAB title.
 *
 *     score MODEL [PAIRS]        PAIRS: a TSV file; without it, standard input
 *
 * Prints a score a line. Build beside the library, which a wheel and the user's cache have, copied
 * here as libraydistill.so:
 *     cc -O2 -I ../../raydistill/serving/native score.c libraydistill.so -Wl,-rpath,'$ORIGIN' -o score
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raydistill.h"

static const char *reason(int64_t code)
{
    switch (code) {
    case RD_NO_MODEL: return "no model file";
    case RD_OTHER_FORMAT: return "a model file for another version of the library";
    case RD_CUT_SHORT: return "not complete";
    case RD_BROKEN: return "a number in it is out of range";
    default: return "not usable";
    }
}

/* Maps a file: processes that score with one model share its memory. */
static const void *map_model(const char *path)
{
    struct stat about;
    int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &about) != 0) {
        perror(path);
        exit(1);
    }
    void *model = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (model == MAP_FAILED) {
        perror(path);
        exit(1);
    }
    int64_t code = rd_check(model, about.st_size);
    if (code != RD_OK) {
        fprintf(stderr, "%s: %s\n", path, reason(code));
        exit(1);
    }
    return model;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: score MODEL [PAIRS]\n");
        return 2;
    }
    const void *model = map_model(argv[1]);
    FILE *pairs = argc == 3 ? fopen(argv[2], "r") : stdin;
    void *scratch = aligned_alloc(64, (size_t)rd_scratch_bytes(model));
    if (pairs == NULL || scratch == NULL) {
        perror(pairs == NULL ? argv[2] : "scratch memory");
        return 1;
    }
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    long number = 0;
    while ((length = getline(&line, &capacity, pairs)) >= 0) {
        number++;
        if (length > 0 && line[length - 1] == '\n')
            length--;
        const char *tab = memchr(line, '\t', (size_t)length);
        if (tab == NULL) {
            fprintf(stderr, "line %ld has no tab\n", number);
            return 1;
        }
        const char *title = tab + 1;
        int64_t offsets[2] = {0, line + length - title};
        float score;
        int64_t code = rd_score(model, scratch, line, tab - line, title, offsets, 1, &score);
        if (code != RD_OK) {
            fprintf(stderr, "line %ld: code %lld\n", number, (long long)code);
            return 1;
        }
        printf("%.7f\n", score);
    }
    free(line);
    free(scratch);
    return 0;
}
