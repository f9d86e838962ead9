/* Threads that score with one scorer of bindings/c, each with its worker: threads MODEL. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>

#include "scorer.h"

enum { THREADS = 4, CALLS = 25000, TITLES = 3 };

static Scorer scorer;
static float expected[TITLES];

static int64_t score(Worker *worker, int64_t num, float *scores) {
    Text titles[] = {text_of("Sofa, grey"), {NULL, 0}, {"oak\0table\xff", 10}};
    return worker_score(worker, text_of("grey sofa"), titles, num, scores);
}

static void *calls(void *wrong) {
    Worker *worker = worker_new(&scorer);
    for (int call = 0; call < CALLS; call++) {
        float scores[TITLES];
        int64_t num = call % (TITLES + 1);
        int is_wrong = score(worker, num, scores) != RD_OK;
        *(int *)wrong += is_wrong || memcmp(scores, expected, (size_t)num * sizeof *scores) != 0;
    }
    worker_free(worker);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    int wrong[THREADS] = {0}, total = 0;
    const char *problem = argc > 1 ? scorer_open(&scorer, argv[1]) : "no model";
    if (problem != NULL) return fprintf(stderr, "%s\n", problem), 1;
    Worker *worker = worker_new(&scorer);
    if (score(worker, -1, expected) != RD_ARGUMENT) return 1;
    if (score(worker, TITLES, expected) != RD_OK || expected[0] == expected[2]) return 1;
    worker_free(worker);
    for (int at = 0; at < THREADS; at++) pthread_create(&threads[at], NULL, calls, &wrong[at]);
    for (int at = 0; at < THREADS; at++) {
        pthread_join(threads[at], NULL);
        total += wrong[at];
    }
    scorer_close(&scorer);
    scorer_close(&scorer); /* again: nothing happens */
    printf("100,000 calls, %d wrong\n", total);
    return total > 0;
}
