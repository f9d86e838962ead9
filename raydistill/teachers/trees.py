"""Boosted trees on the match features: a teacher that needs nothing but the judged pairs.

Comes in: dense features, labels and queries of judged pairs. Goes out: models as text, and logits.
A BERT knows what words mean, trees how they match; they are wrong on different pairs, so a stack of
both is better than either. No Ray.

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
from raydistill.teachers.scoring_steps import Item, Step, from_bytes, to_bytes

logger = logging.getLogger("raydistill")
_PATIENCE_TREES = 30  # without a smaller loss on the folds that were left out
_PARAMETERS = "\nparameters:"  # of the fit, as the number of threads: not part of the model
_FIXED = {
    "objective": "cross_entropy",  # takes graded labels; raw scores are logits
    "feature_fraction": 0.3,  # of each tree, as of a forest's: half the time, and no worse
    "bagging_fraction": 0.7,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,  # whatever the number of threads
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Trees:
    """Models in LightGBM's text form, each fitted without one fold; their mean is the teacher."""

    models: tuple[str, ...]

    @cached_property
    def _boosters(self) -> list[lgb.Booster]:
        return [lgb.Booster(model_str=model) for model in self.models]

    def logits(
        self, features_BF: NDArray[np.float32], *, num_threads: int = 1
    ) -> NDArray[np.float32]:
        """Logits of B pairs, float32."""
        total_B = np.zeros(len(features_BF))
        if len(features_BF):
            for booster in self._boosters:
                total_B += booster.predict(features_BF, raw_score=True, num_threads=num_threads)
        return (total_B / len(self.models)).astype(np.float32)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that tell these trees from others of the same settings."""
        digest = hashlib.blake2b(digest_size=8)
        for model in self.models:
            digest.update(hashlib.blake2b(model.encode()).digest())
        return digest.hexdigest()

    @property
    def num_trees(self) -> int:
        """Trees of each model."""
        return int(self._boosters[0].num_trees())


def fit_trees(
    features_BF: NDArray[np.float32],
    labels_B: NDArray[np.float32],
    *,
    groups_B: NDArray[np.int64],
    settings: TreesConfig,
    num_threads: int,
) -> Trees:
    """A model a fold of the queries, all stopped where the mean loss on left-out folds is least.

    Every model sees the others' folds alone, and a pair that was judged, if it is in the transfer
    set too, is scored by one model that has not seen its label.

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
    """For each fold the rows of the other folds and its own; all pairs of a group are in one."""
    _, places_B = np.unique(groups_B, return_inverse=True)
    fold_of = np.random.default_rng(seed).permutation(places_B.max() + 1) % num_folds
    folds_B = fold_of[places_B]
    return [(np.flatnonzero(folds_B != f), np.flatnonzero(folds_B == f)) for f in range(num_folds)]


MODELS = "models.json"


def load_trees(run: Run) -> Trees:
    """The fitted trees of a run.

    Raises:
        UserError: they are not there.
    """
    folder = run.teacher(TREES)
    found = folder.read_json(MODELS)
    if found is None:
        raise UserError(f"no {MODELS} in {folder}; do all machines see the run folder?")
    return Trees(tuple(found["models"]))


def described(features: Features) -> NDArray[np.float32]:
    """What the trees read: how query and title match, and not which words they have.

    With the mean word vectors too they learn the shop's words: no better in a stack with a BERT,
    which knows words, and worse with few judged pairs.
    """
    return np.ascontiguousarray(features.dense_BF[:, :NUM_DENSE])


def make_scorer(*, run: Run, fingerprint: str) -> Step:
    """The step of an actor: pairs of a shard in, their logits out.

    Raises:
        UserError: the trees are not there, or not those of the fingerprint.
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
