/* Scores of (query, title) pairs with a raydistill model file (model.rdm), on a CPU.
 *
 * No Python, no allocation, no global state, no locks, no signals, no output.
 *
 * Memory: the caller maps or reads the model to an address that is a multiple of 64, and keeps it
 * there, unchanged, as long as it calls these functions. The model is only read: any number of
 * threads and processes share one. Scratch memory is written: each thread has its own, of
 * rd_scratch_bytes(model) bytes at a multiple of 64. It needs no clearing, holds nothing between
 * calls, and most of its pages are never touched: take it from mmap, or from aligned_alloc.
 *
 * Texts: UTF-8, of any length, not terminated, not cleaned; invalid bytes are read as U+FFFD.
 * HTML entities, NFKC and the model's limits of length are applied inside. Of a text with n allowed
 * characters the first 16 n + 4096 bytes are read.
 *
 * Safety: a model that rd_check accepts makes no function read or write outside of the model, the
 * scratch memory and the arguments, even if it was falsified. Call it once for each model, before
 * any other function.
 */
#ifndef RAYDISTILL_H
#define RAYDISTILL_H
#include <stdint.h>
#ifdef __cplusplus
extern "C" {
#endif

enum {
    RD_OK = 0,
    RD_NO_MODEL = 1,     /* the bytes are not a model file */
    RD_OTHER_FORMAT = 2, /* a model file for another version of this library */
    RD_CUT_SHORT = 3,    /* the file has another length than it says */
    RD_BROKEN = 4,       /* a number, an offset or an index in the file is out of range */
    RD_DAMAGED = 5,      /* the checksum differs: some byte has changed */
    RD_ARGUMENT = 6,     /* a null or unaligned address, a negative size, falling offsets */
    RD_FAILED = -1       /* an index out of range, in a library built with checks */
};

/* The version of model files that this library reads. */
int64_t rd_format(void);

/* Whether `bytes` at `model` are a model file that this library reads: RD_OK, or why not. Reads the
 * index tables, not the whole file: under a millisecond. */
int64_t rd_check(const void *model, int64_t bytes);

/* rd_check, and the checksum over the whole file: for a file that was copied. */
int64_t rd_verify(const void *model, int64_t bytes);

/* Bytes of scratch memory of one thread, a multiple of 64. */
int64_t rd_scratch_bytes(const void *model);

/* Scores in 0..1 of one query's `num` titles, written to `scores`. Title i is the bytes
 * titles[offsets[i]] up to titles[offsets[i + 1]]; `offsets` has num + 1 numbers that do not fall.
 * The query is read once. RD_OK, RD_ARGUMENT or RD_FAILED. */
int64_t rd_score(const void *model, void *scratch, const char *query, int64_t query_bytes,
                 const char *titles, const int64_t *offsets, int64_t num, float *scores);

/* The same for `num` pairs, each with its query; equal queries in succession are read once. For
 * single texts every query is empty. */
int64_t rd_score_pairs(const void *model, void *scratch, const char *queries,
                       const int64_t *query_offsets, const char *titles, const int64_t *offsets,
                       int64_t num, float *scores);

/* Writes a text as the model reads it, cleaned and truncated, to `out`: for comparisons. Returns
 * the number of its bytes, of which the first `capacity` are written; RD_FAILED for a false
 * argument. `is_query`: whether the limit of queries holds, not that of titles. */
int64_t rd_clean(const void *model, void *scratch, const char *text, int64_t bytes,
                 int64_t is_query, char *out, int64_t capacity);

/* The library has one more function, rd_python, for raydistill's own use from Python. */

#ifdef __cplusplus
}
#endif
#endif
