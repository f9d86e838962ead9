"""What a row is: column names and Arrow schemas of every dataset, written once."""

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
# Made-up pairs of `candidates`: raw rows that [pairs] reads.
CANDIDATES = pa.schema(
    [
        ("query", pa.string()),
        ("title", pa.string()),
        ("source", pa.string()),  # "top", "middle" or "random"
        ("rank", pa.int32()),  # among the titles found for the query, from 1; null for random
    ]
)
SOURCE = pa.field("source", pa.string())  # the last column, where `source` names one
# How much more often known pairs occurred in files that came later: rows of shards, by position.
WEIGHTS = pa.schema([("shard", pa.string()), ("row", pa.int32()), ("weight", pa.float32())])
QUARANTINE = pa.schema(
    [
        ("source", pa.string()),  # the input file
        ("row", pa.int64()),  # counted from 0 in that file, the header not counted
        ("reason", pa.string()),
        ("query", pa.string()),  # the first 200 characters of what was found
        ("title", pa.string()),
    ]
)
# Of raw files: with the line of the file, from 1 as editors count; null where it has no lines.
RAW_QUARANTINE = QUARANTINE.append(pa.field("line", pa.int64()))
# What becomes of a stage's rows: the first is the sum of the others.
COUNTS = ("rows_in", "rows_out", "duplicates", "quarantined", "held_out")
# And of prepare's: the lines of text files (a row of any other file counts as one), without the
# header and blank ones; rows whose quotes or escapes are not RFC 4180, read as they are meant.
EXTRAS = ("lines_in", "mended")
SPLITS = ("train", "dev", "test")


def check_schema(found: pa.Schema, expected: pa.Schema, *, what: str) -> None:
    """Raise ValueError, with both schemas, when a file does not hold what its folder promises.

    Columns beyond those expected (`source`) may follow.
    """
    first = pa.schema(list(found)[: len(expected)])
    if not first.equals(expected, check_metadata=False):
        raise ValueError(f"{what} has another schema.\nfound:\n{found}\nexpected:\n{expected}")
