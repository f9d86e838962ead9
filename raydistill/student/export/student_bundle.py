"""A student to the files of its bundle, after a check of the scorer against torch; no Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.pieces import pieces_of, read_pieces
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import judged_shards
from raydistill.serving.bundle import BUNDLE_FORMAT, bundle_files
from raydistill.serving.native.emit.model_file import model_bytes
from raydistill.serving.native.layout import aligned
from raydistill.serving.scorer import Scorer
from raydistill.student.export.golden_pairs import check_scores, explain_pairs, golden_pairs
from raydistill.student.export.model_card import model_card
from raydistill.student.export.table_type import ChosenTable, choose_table
from raydistill.student.fit_files import load_student
from raydistill.teachers.judged_logits import read_groups


def bundle_settings(run: Run, role: str) -> dict[str, Any]:
    """The content of bundle.json; the baseline on judged labels only has temperature 1."""
    config = run.config
    return {
        "format": BUNDLE_FORMAT,
        "student": run.train_fingerprint(role),
        "ngrams": asdict(spec_of(run)),
        "temperature": config.soft_labels.temperature if role == "student" else 1.0,
        "threshold": 0.5,
        "max_query_chars": config.pairs.max_query_chars,
        "max_title_chars": config.pairs.max_title_chars,
        "single_texts": not config.judged.query,
    }


class Exported(NamedTuple):
    """A bundle that is not written yet."""

    name: str  # its fingerprint
    files: dict[str, bytes]
    table: ChosenTable
    num_golden: int  # pairs in golden.json


def export_bundle(run: Run) -> Exported:
    """The files of the student's bundle, bundle.json last, after a check against torch.

    Raises:
        UserError: the student is not trained yet.
        RuntimeError: torch and the scorer give a golden pair different scores.
    """
    arrays, settings = bundle_arrays(run, "student"), bundle_settings(run, "student")
    pairs = golden_pairs(run)
    check_scores(run, scorer_of(settings, arrays), pairs)
    table = choose_table(
        run.config.export.table,
        score=lambda kind: score_split(run, scorer_of(settings, arrays, table=kind), "dev"),
        groups_B=read_groups(run, "dev"),
        relevant_at=run.config.judged.relevant_at,
    )
    settings["threshold"] = table.threshold
    model = model_of(settings, arrays, table=table.name)
    golden = explain_pairs(settings, model, pairs)
    card = model_card(run, settings, table=table, num_bytes=len(model), num_golden=len(golden))
    name, files = bundle_files(settings, model, golden=golden, card=card)
    return Exported(name, files, table, len(golden))


def scorer_of(
    settings: dict[str, Any], arrays: Mapping[str, NDArray[Any]], *, table: str = "float32"
) -> Scorer:
    """The scorer of a student in memory, as its bundle would be served."""
    return Scorer(settings, aligned(model_of(settings, arrays, table=table)))


def model_of(settings: dict[str, Any], arrays: Mapping[str, NDArray[Any]], *, table: str) -> bytes:
    """The content of model.rdm with a type of table; the word vectors are int8 where it is."""
    vectors = table if table == "int8" else "float16"
    return model_bytes(settings, arrays, table=table, vectors=vectors)


def bundle_arrays(run: Run, role: str) -> dict[str, NDArray[np.float32]]:
    """The arrays of a student under the scorer's names for them.

    Raises:
        UserError: the student is not trained yet.
    """
    folder = run.student(role)
    if folder.success() is None:
        raise UserError(f"no student in {folder} yet: run `train` first")
    return student_arrays(run, folder)


def student_arrays(run: Run, folder: Folder) -> dict[str, NDArray[np.float32]]:
    """The arrays of the student in a folder of the run, under the scorer's names for them."""
    arrays = {name: value.numpy() for name, value in load_student(folder).items()}
    return {**arrays, **load_lexicon(run).to_arrays()}


def score_split(
    run: Run, scorer: Scorer, split: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores and labels of a judged split, in shard order."""
    scores, labels = [np.empty(0, np.float32)], [np.empty(0, np.float32)]
    folder: Folder = run.judged(split)
    for rows in read_pieces(folder, pieces_of(judged_shards(run, split))):
        scores.append(scorer.score_texts(rows["query"], rows["title"]))
        labels.append(rows["label"].to_numpy())
    return np.concatenate(scores), np.concatenate(labels)
