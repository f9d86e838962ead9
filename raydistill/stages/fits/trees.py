"""The part of `label` that fits the trees on the judged pairs."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.cluster.tasks import Item, run_tasks
from raydistill.config.teachers import TREES
from raydistill.evaluation.metrics.pair_metrics import auc
from raydistill.files.folder import SUCCESS
from raydistill.files.pieces import pieces_of
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import split_shards
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import NUM_DENSE
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.student.batches import Loader
from raydistill.teachers.judged_logits import read_groups
from raydistill.teachers.soft_labels import Targets
from raydistill.teachers.trees import MODELS, described, fit_trees

logger = logging.getLogger("raydistill")
_MOST_THREADS = 8  # of the fit; more are no faster on so few pairs


def fit(run: Run) -> None:
    """Fit the trees if they are not complete.

    Raises:
        UserError: there are too few judged pairs.
    """
    if run.teacher(TREES).success() is not None:
        return
    write_lexicon(run.for_trees)
    (done,) = run_tasks([{}], partial(_fit, run=run), cpus=1)
    logger.info(
        "label     trees: %d a fold of %s judged pairs, dev AUC %.4f, %.0f s",
        *(done["num_trees"], f"{done['rows_in']:,}", done["dev_auc"], done["seconds"]),
    )


def _fit(item: Item, *, run: Run) -> Item:
    """Fit the trees and write them; the task requests one core, so that any machine can run it."""
    start_s = time.monotonic()
    lexicon, spec = load_lexicon(run.for_trees), spec_of(run.for_trees)
    features_BF, labels_B = _read(run, "train", spec=spec, lexicon=lexicon)
    num_threads = min(_MOST_THREADS, os.cpu_count() or 1)
    trees = fit_trees(
        features_BF,
        labels_B,
        groups_B=read_groups(run, "train"),
        settings=run.config.trees,
        num_threads=num_threads,
    )
    dev_BF, dev_labels_B = _read(run, "dev", spec=spec, lexicon=lexicon)
    dev_auc = auc(
        trees.logits(dev_BF), dev_labels_B, relevant_at=run.config.judged_rules.relevant_at
    )
    folder = run.teacher(TREES)
    folder.write_json(MODELS, {"models": trees.models})
    summary: dict[str, Any] = {
        "fingerprint": run.trees_fingerprint(),
        "rows_in": len(labels_B),
        "rows_out": len(labels_B),
        "quarantined": 0,
        "seconds": round(time.monotonic() - start_s, 1),
        "cores": num_threads,
        "num_trees": trees.num_trees,
        "dev_auc": dev_auc,
    }
    folder.write_json(SUCCESS, summary)
    return summary


def _read(
    run: Run, split: str, *, spec: NgramSpec, lexicon: Lexicon
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The trees' features of a judged split, and its labels."""
    loader = Loader(run.judged(split), Targets(), spec=spec, lexicon=lexicon)
    dense, labels = [np.empty((0, NUM_DENSE), np.float32)], [np.empty(0, np.float32)]
    for piece in pieces_of(split_shards(run, split)):
        features, label = loader.piece(piece)
        dense.append(described(features))
        labels.append(label)
    return np.concatenate(dense), np.concatenate(labels)
