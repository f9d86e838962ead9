"""Boosted trees on the match features: a teacher fitted on the judged pairs alone.

Input: dense features, labels and queries of judged pairs. Output: models as text, and logits. A
BERT scores what words mean, the trees how they match; their errors differ, so a stack of both is
better than either. No Ray.

Shapes: B pairs, F features.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raydistill.config.teachers import TREES, TreesConfig
from raydistill.data.pairs import features_of
from raydistill.errors import UserError
from raydistill.files.pieces import PIECE_ROWS
from raydistill.runs.lexicon_file import load_lexicon, spec_of
from raydistill.runs.run_folder import Run
from raydistill.serving.feature_spec import Features
from raydistill.serving.match_features import NUM_DENSE
from raydistill.teachers.shards.texts import Item, Step, from_bytes, to_bytes

logger = logging.getLogger("raydistill")
MODELS = "models.json"
_PATIENCE_TREES = 30  # early stopping: trees without a smaller loss on the held-out folds
_PARAMETERS = "\nparameters:"  # settings of the fit follow (such as threads): not the model
_FIXED = {
    "objective": "cross_entropy",  # takes graded labels; raw scores are logits
    "feature_fraction": 0.3,  # per tree, as in a random forest: half the time, no worse
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,  # for any number of threads
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Trees:
    """Models in LightGBM's text form, each fitted without one fold; the teacher is their mean."""

    models: tuple[str, ...]

    @cached_property
    def _boosters(self) -> list[lgb.Booster]:
        return [lgb.Booster(model_str=model) for model in self.models]

    def logits(
        self, features_BF: NDArray[np.float32], *, num_threads: int = 1
    ) -> NDArray[np.float32]:
        """The mean logit of the models, float32, shape B."""
        total_B = np.zeros(len(features_BF))
        if len(features_BF):
            for booster in self._boosters:
                total_B += booster.predict(features_BF, raw_score=True, num_threads=num_threads)
        return (total_B / len(self.models)).astype(np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the models' hash: distinguishes trees fitted with equal settings."""
        digest = hashlib.blake2b(digest_size=8)
        for model in self.models:
            digest.update(hashlib.blake2b(model.encode()).digest())
        return digest.hexdigest()

    @property
    def num_trees(self) -> int:
        """Number of trees of each model."""
        return int(self._boosters[0].num_trees())


def fit_trees(
    features_BF: NDArray[np.float32],
    labels_B: NDArray[np.float32],
    *,
    groups_B: NDArray[np.int64],
    settings: TreesConfig,
    num_threads: int,
) -> Trees:
    """One model a fold of the queries, all with the tree count of the least mean held-out loss.

    Each model is fitted on all folds but one. If a judged pair is also in the transfer set, one
    model in the mean has not been fitted on its label.

    Raises:
        UserError: fewer than two queries.
    """
    num_folds = min(settings.num_folds, len(np.unique(groups_B)))
    if num_folds < 2:
        raise UserError(
            f"the judged train split has {len(labels_B):,} pairs of {num_folds} query; the trees "
            f"need two queries: give more judged pairs, or set {TREES}.enabled = false"
        )
    found = lgb.cv(
        {
            **_FIXED,
            "learning_rate": settings.learning_rate,
            "num_leaves": settings.num_leaves,
            "seed": settings.seed,
            "num_threads": num_threads,
        },
        lgb.Dataset(features_BF, labels_B),
        num_boost_round=settings.max_trees,
        folds=split_folds(groups_B, num_folds=num_folds, seed=settings.seed),
        callbacks=[lgb.early_stopping(_PATIENCE_TREES, verbose=False)],
        return_cvbooster=True,
    )
    folds: Any = found["cvbooster"]
    texts = (booster.model_to_string(folds.best_iteration) for booster in folds.boosters)
    return Trees(tuple(text.partition(_PARAMETERS)[0] for text in texts))


def split_folds(
    groups_B: NDArray[np.int64], *, num_folds: int, seed: int
) -> Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows of the other folds, rows of the fold) for each fold; no group is split."""
    _, places_B = np.unique(groups_B, return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(places_B.max() + 1) % num_folds
    folds_B = fold_of[places_B]
    return [(np.flatnonzero(folds_B != f), np.flatnonzero(folds_B == f)) for f in range(num_folds)]


def load_trees(run: Run) -> Trees:
    """The fitted trees of a run.

    Raises:
        UserError: the run folder has no models.
    """
    folder = run.teacher(TREES)
    found = folder.read_json(MODELS)
    if found is None:
        raise UserError(f"no {MODELS} in {folder}; do all machines see the run folder?")
    return Trees(tuple(found["models"]))


def described(features: Features) -> NDArray[np.float32]:
    """The trees' features: how well query and title match, without the mean word vectors.

    With the word vectors the trees fit the shop's words: no better in a stack with a BERT, which
    already scores meaning, and worse with few judged pairs.
    """
    return np.ascontiguousarray(features.dense_BF[:, :NUM_DENSE])


def make_scorer(*, run: Run, fingerprint: str) -> Step:
    """The scoring step of an actor: the pairs of a shard to their logits.

    Raises:
        UserError: the run folder has no trees, or the trees have another fingerprint.
    """
    worker = f"{socket.gethostname()} {os.getpid()}"
    trees = load_trees(run)
    if trees.fingerprint != fingerprint:
        raise UserError(
            f"{run.teacher(TREES)} on {socket.gethostname()} has trees of the fingerprint "
            f"{trees.fingerprint}, not {fingerprint}; do all machines see the same run folder?"
        )
    features: Callable[[pa.Table], Features]
    lexicon = load_lexicon(run.for_trees)
    features = partial(features_of, spec=spec_of(run.for_trees), lexicon=lexicon)

    def score(item: Item, data: bytes) -> tuple[Item, bytes]:
        start_s, pairs = time.monotonic(), from_bytes(data)
        parts = [pairs.slice(at, PIECE_ROWS) for at in range(0, pairs.num_rows, PIECE_ROWS)]
        logits = [trees.logits(described(features(part))) for part in parts]
        column = pa.array(np.concatenate([np.empty(0, np.float32), *logits]))
        table = pa.table({"pair_id": pairs["pair_id"], "logit": column})
        done = {"rows": table.num_rows, "bad_rows": 0, "tokens": 0, "padded_tokens": 0}
        return {
            **item,
            **done,
            "score_s": time.monotonic() - start_s,
            "worker": worker,
        }, to_bytes(table)

    return score
