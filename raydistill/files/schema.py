"""Column names and Arrow schemas of every dataset; no other module defines them."""

import pyarrow as pa

PAIRS = pa.schema(
    [
        ("pair_id", pa.int64()),  # hash of the normalised (query, title)
        ("query", pa.string()),  # "" where the task has single texts
        ("title", pa.string()),
        ("weight", pa.float32()),  # how often the pair occurred in the input
    ]
)
JUDGED = PAIRS.append(pa.field("label", pa.float32()))  # 0..1, the mean over duplicates
LOGITS = pa.schema([("pair_id", pa.int64()), ("logit", pa.float32())])
# Generated pairs of `candidates`: raw rows that [pairs] reads.
CANDIDATES = pa.schema(
    [
        ("query", pa.string()),
        ("title", pa.string()),
        ("source", pa.string()),  # "top", "middle" or "random"
        ("rank", pa.int32()),  # among the titles found for the query, from 1; null for random
    ]
)
SOURCE = pa.field("source", pa.string())  # the last column, if the run file sets `source`
# Additional weight of pairs that later input files repeat: rows of shards, by position.
WEIGHTS = pa.schema([("shard", pa.string()), ("row", pa.int32()), ("weight", pa.float32())])
QUARANTINE = pa.schema(
    [
        ("source", pa.string()),  # the input file
        ("row", pa.int64()),  # from 0 in that file, without the header
        ("reason", pa.string()),
        ("query", pa.string()),  # the first 200 characters of the value
        ("title", pa.string()),
    ]
)
# Quarantine of raw files: also the line in the file, from 1 as editors count; null without lines.
RAW_QUARANTINE = QUARANTINE.append(pa.field("line", pa.int64()))
# Row counts of a stage: rows_in is the sum of the others.
COUNTS = ("rows_in", "rows_out", "duplicates", "quarantined", "held_out")
# More counts of `prepare`. lines_in: lines of text files, without headers and blank lines (a row of
# any other file counts as one line). mended: rows with quotes or escapes outside RFC 4180 that were
# read as intended.
EXTRAS = ("lines_in", "mended")
# Of the judged pairs also: pairs whose rows have different labels, of which the mean is taken.
CONFLICTS = "conflicting_labels"
SPLITS = ("train", "dev", "test")


def check_schema(found: pa.Schema, expected: pa.Schema, *, what: str) -> None:
    """Raise ValueError, with both schemas, unless `found` begins with the fields of `expected`.

    Further columns (`source`) may follow; metadata is ignored.
    """
    first = pa.schema(list(found)[: len(expected)])
    if not first.equals(expected, check_metadata=False):
        raise ValueError(
            f"{what} has not the expected schema.\nfound:\n{found}\nexpected:\n{expected}"
        )
