"""Make a run's lexicon before training: words and n-grams, shared by all students of the run.

With `ngrams.vocabulary_rows`, Ray tasks count the n-grams of the whole transfer set. Each task
counts some shards and writes one file; a resume skips the shards with a file.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.data.pairs import features_of
from raydistill.files.folder import Folder
from raydistill.files.model_files import load_model
from raydistill.files.pieces import pieces_of, read_pieces
from raydistill.progress import Progress
from raydistill.runs.lexicon_file import has_lexicon, save_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import pair_shards
from raydistill.serving.feature_spec import VOCABULARY_BITS, NgramSpec
from raydistill.serving.lexicon import Lexicon

logger = logging.getLogger("raydistill")
_COUNTS = "counts"
_ROWS_A_TASK = 1 << 19  # 524,288 pairs, some 3 s of a core; a larger shard is one task


def write_lexicon(run: Run) -> None:
    """Make the run's lexicon if it does not exist."""
    if has_lexicon(run):
        return
    import torch  # with transformers 2 s, which the tasks that count do not wait for

    from raydistill.student.lexicon.builder import make_lexicon

    encoder, settings = run.word_encoder, run.config.ngrams
    if settings.num_columns and encoder is None:
        logger.info(
            "lexicon   no word vectors: no teacher has an encoder; ngrams.word_encoder names one"
        )
    lexicon = make_lexicon(
        run.pairs,
        pair_shards(run),
        encoder=load_model(run.model(encoder)) if encoder else None,
        num_words=settings.num_words,
        dim=settings.word_dim,
        units=settings.normalizes_units,
        extra_units=settings.unit_names,
        device="cuda" if torch.cuda.is_available() else "cpu",
        trusts_code=encoder is not None and run.model(encoder).trusts_code,
    )
    if encoder:
        load_model(run.model(encoder))  # verify that the files did not change during the load
    if settings.vocabulary_rows:
        lexicon = lexicon.with_ngrams(_frequent_ngrams(run, lexicon))
    save_lexicon(run, lexicon)


def _frequent_ngrams(run: Run, lexicon: Lexicon) -> NDArray[np.int32]:
    """Ids of the most frequent n-grams of the transfer set, ascending."""
    groups = groups_of(pair_shards(run))
    folder = run.lexicon / _COUNTS
    done = set(folder.shards())
    items: list[Item] = [{"shards": group} for group in groups if min(group) not in done]
    spec = spec_of(run).uncut
    work = partial(_count, folder=folder, pairs=run.pairs, spec=spec, lexicon=lexicon)
    progress = Progress("train", num_items=len(items), num_rows=None, unit="groups of shards")
    for item in run_tasks(items, work, cpus=1):
        progress.add(rows=item["rows"], note="n-grams counted")
    ids = most_frequent(folder, num=run.config.ngrams.vocabulary_rows or 0)
    folder.delete()
    return ids


def groups_of(shards: Mapping[str, int]) -> list[dict[str, int]]:
    """Shards of each task in sorted order: at most 524,288 rows, or one larger shard."""
    groups: list[dict[str, int]] = []
    num_rows = 0
    for name in sorted(shards):
        if not groups or num_rows + shards[name] > _ROWS_A_TASK:
            groups.append({})
            num_rows = 0
        groups[-1][name] = shards[name]
        num_rows += shards[name]
    return groups


def _count(item: Item, *, folder: Folder, pairs: Folder, spec: NgramSpec, lexicon: Lexicon) -> Item:
    """Write the counts of the n-gram ids in some shards, to a file named after the first shard."""
    counts, num_rows = np.zeros(spec.num_rows, np.int64), 0
    pieces = pieces_of(item["shards"])
    for rows in read_pieces(pairs, pieces, columns=["query", "title"]):
        features = features_of(rows, spec=spec, lexicon=lexicon)
        counts += np.bincount(features.ids_N, minlength=len(counts))
        num_rows += rows.num_rows
    ids = np.flatnonzero(counts)
    table = pa.table({"id": ids.astype(np.int32), "num": counts[ids]})
    folder.write_table(min(item["shards"]), table)
    return {"rows": num_rows}


def most_frequent(folder: Folder, *, num: int) -> NDArray[np.int32]:
    """The `num` ids with the largest counts summed over all files, ascending."""
    counts = np.zeros(1 << VOCABULARY_BITS, np.int64)
    for name in folder.shards():
        table = folder.read_table(name)
        counts[table["id"].to_numpy()] += table["num"].to_numpy()
    return top_ids(counts, num=num)


def top_ids(counts: NDArray[np.int64] | Sequence[int], *, num: int) -> NDArray[np.int32]:
    """Indices of the `num` largest counts above 0, ascending; of equal counts the lower index."""
    counts = np.asarray(counts)
    order = np.argsort(-counts, kind="stable")[:num]
    return np.sort(order[counts[order] > 0]).astype(np.int32)
