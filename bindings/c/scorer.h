/* A scorer for C: one model, mapped and checked, and a worker for each thread.
 *
 *     Scorer scorer;
 *     const char *problem = scorer_open(&scorer, "model.rdm");   NULL, or why it cannot be used
 *     Worker *worker = worker_new(&scorer);                      one a thread; NULL: no memory
 *     Text titles[] = {text_of("Sofa, grey"), text_of("Sofa cover")};
 *     float scores[2];
 *     int64_t code = worker_score(worker, text_of("grey sofa"), titles, 2, scores);   RD_OK
 *     worker_free(worker);
 *     scorer_close(&scorer);                                     after its workers
 *
 * A scorer is only read: any number of threads and processes share one. A worker belongs to one
 * thread at a time. Whoever has the titles in one piece of memory calls rd_score (raydistill.h),
 * which copies nothing, with worker->scratch.
 */
#ifndef RAYDISTILL_SCORER_H
#define RAYDISTILL_SCORER_H
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "raydistill.h"

typedef struct {
    const char *start; /* UTF-8; NUL may be among the bytes */
    int64_t bytes;
} Text;

typedef struct {
    const void *model;
    int64_t bytes;
} Scorer;

typedef struct {
    const void *model;
    void *scratch;
    char *joined; /* titles one after another, and where they start */
    int64_t *offsets, joined_bytes, num_offsets;
} Worker;

static inline Text text_of(const char *string) { return (Text){string, (int64_t)strlen(string)}; }

static inline void scorer_close(Scorer *scorer) {
    if (scorer->model != NULL) munmap((void *)scorer->model, (size_t)scorer->bytes);
    scorer->model = NULL;
}

/* Maps a model file: processes that score with one model share its memory. A file in use is
 * replaced by a rename, not written over. Returns NULL, or what is wrong. */
static inline const char *scorer_open(Scorer *scorer, const char *path) {
    struct stat about;
    int file = open(path, O_RDONLY);
    *scorer = (Scorer){NULL, 0};
    if (file < 0) return strerror(errno);
    void *model = MAP_FAILED;
    if (fstat(file, &about) == 0 && about.st_size > 0)
        model = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (model == MAP_FAILED) return "no model file";
    *scorer = (Scorer){model, about.st_size};
    int64_t code = rd_check(model, about.st_size);
    if (code == RD_OK) return NULL;
    scorer_close(scorer);
    return code == RD_NO_MODEL       ? "no model file"
           : code == RD_OTHER_FORMAT ? "a model file for another version of the library"
           : code == RD_CUT_SHORT    ? "not complete"
                                     : "a number in it is out of range";
}

static inline void worker_free(Worker *worker) {
    if (worker == NULL) return;
    free(worker->scratch);
    free(worker->joined);
    free(worker->offsets);
    free(worker);
}

static inline Worker *worker_new(const Scorer *scorer) {
    Worker *worker = calloc(1, sizeof *worker);
    if (worker == NULL) return NULL;
    worker->model = scorer->model;
    worker->scratch = aligned_alloc(64, (size_t)rd_scratch_bytes(scorer->model));
    if (worker->scratch != NULL) return worker;
    worker_free(worker);
    return NULL;
}

/* Makes room for texts of so many bytes and for so many offsets; 0: no memory. */
static inline int worker_grow(Worker *worker, int64_t bytes, int64_t num_offsets) {
    if (bytes > worker->joined_bytes) {
        char *joined = realloc(worker->joined, (size_t)(2 * bytes));
        if (joined == NULL) return 0;
        worker->joined = joined;
        worker->joined_bytes = 2 * bytes;
    }
    if (num_offsets > worker->num_offsets) {
        int64_t *offsets = realloc(worker->offsets, (size_t)(2 * num_offsets) * sizeof *offsets);
        if (offsets == NULL) return 0;
        worker->offsets = offsets;
        worker->num_offsets = 2 * num_offsets;
    }
    return 1;
}

/* Scores in 0..1 of one query's titles, in their order: RD_OK, RD_ARGUMENT for a
 * negative number, or RD_FAILED where memory is missing. For a student of single texts the query is empty. */
static inline int64_t worker_score(Worker *worker, Text query, const Text *titles, int64_t num,
                                   float *scores) {
    int64_t bytes = 1; /* an address for titles that are all empty */
    if (num < 0) return RD_ARGUMENT;
    for (int64_t at = 0; at < num; at++) bytes += titles[at].bytes;
    if (!worker_grow(worker, bytes, num + 1)) return RD_FAILED;
    worker->offsets[0] = 0;
    for (int64_t at = 0; at < num; at++) {
        int64_t start = worker->offsets[at];
        if (titles[at].bytes > 0) /* an empty text may have no address */
            memcpy(worker->joined + start, titles[at].start, (size_t)titles[at].bytes);
        worker->offsets[at + 1] = start + titles[at].bytes;
    }
    return rd_score(worker->model, worker->scratch, query.start, query.bytes, worker->joined,
                    worker->offsets, num, scores);
}
#endif
