"""One trial of a search: train a student on the sample and report its metrics.

Plain Python on one core; `cluster/tune_trials.py` runs the trials with Ray Tune.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.pieces import PIECE_ROWS, shard_pieces
from raydistill.runs.run_folder import Run
from raydistill.search.results import US_PER_PAIR
from raydistill.search.sample import TrialSample
from raydistill.search.space import Dimension, Values, settings_of, with_settings
from raydistill.serving.lexicon import Lexicon
from raydistill.student.batches import Loader, dense_scale
from raydistill.student.fit import (
    FitCallbacks,
    FitState,
    StudentFit,
    fit_student,
    new_state,
)
from raydistill.teachers.judged_logits import stack_of, targets_of
from raydistill.teachers.stacking import Stack

EVALUATIONS_AN_EPOCH = 4  # ASHA can stop a trial only at an evaluation
Report = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class SearchContext:
    """The inputs that all trials of a search share."""

    run: Run
    sample: TrialSample
    lexicon: Lexicon
    space: tuple[Dimension, ...]
    fitted: Stack

    @property
    def num_pairs(self) -> int:
        """Pairs of the longest trial, over all its epochs."""
        epochs = [self.run.config.tune.max_epochs or self.run.config.train.epochs]
        for dimension in self.space:
            if dimension.name == "train.epochs":
                epochs = [int(choice) for choice in dimension.choices] or [int(dimension.high)]
        return max(epochs) * self.sample.num_pairs


def trial_fit(context: SearchContext, values: Values) -> StudentFit:
    """The fit of a trial: the sample, with the trial's settings.

    Raises:
        UserError: a combination of settings that is not allowed.
    """
    tune = context.run.config.tune
    settings = settings_of(context.run.config, context.space, values, fitted=context.fitted)
    if tune.max_epochs is not None:
        settings = {"train.epochs": tune.max_epochs, **settings}
    config = with_settings(context.run.config, settings)
    if config.train.evaluate_every_pairs is None:
        every = max(1, context.sample.num_pairs // EVALUATIONS_AN_EPOCH)
        config = with_settings(config, {"train.evaluate_every_pairs": every})
    run = replace(context.run, config=config)  # keeps the run's caches of files and models
    stack = stack_of(run, fitted=context.fitted)
    sampled = context.sample.logits  # of the teachers that count
    targets = targets_of(
        run, stack, logits={name: sampled[name] for name in stack.weights if name in sampled}
    )
    sample, epochs = context.sample, config.train.epochs
    return StudentFit(
        run,
        "student",
        sample.pairs,
        sample.shards,
        targets,
        epochs,
        also_measured=(config.tune_metric,),
    )


def run_trial(
    context: SearchContext,
    values: Values,
    *,
    report: Report,
    time_us: Callable[[StudentFit, FitState, Lexicon], float] | None = None,
) -> None:
    """Train a student on the sample; report the metrics of its best weights at each evaluation.

    `time_us` measures µs/pair, if that is an objective too.
    """
    fit = trial_fit(context, values)
    lexicon = lexicon_of(context, fit)
    loader = Loader(fit.folder, fit.targets, spec=fit.spec, lexicon=lexicon)
    state = new_state(fit, _scale(loader, fit.shards), device="cpu")
    speed = {} if time_us is None else {US_PER_PAIR: time_us(fit, state, lexicon)}

    def record(entry: dict[str, float]) -> None:
        found = state.best_dev
        done_share = entry["pairs"] / fit.num_pairs
        report({"pairs": entry["pairs"], "done_share": done_share, **found, **speed})

    callbacks = FitCallbacks(save=lambda _: None, log=lambda _: None, record=record)
    fit_student(fit, state, loader, callbacks=callbacks)


def _scale(loader: Loader, shards: Mapping[str, int]) -> dict[str, NDArray[np.float32]]:
    """The scale of the dense features, from `PIECE_ROWS` to at most twice as many pairs."""
    parts: list[NDArray[np.float32]] = []
    for name, num_rows in shards.items():
        for piece in shard_pieces(name, num_rows):
            if sum(map(len, parts)) < PIECE_ROWS:
                parts.append(loader.piece(piece)[0].dense_BF)
    return dense_scale(np.concatenate(parts))


def lexicon_of(context: SearchContext, fit: StudentFit) -> Lexicon:
    """The search's lexicon with the first `word_dim` columns of its word vectors.

    Raises:
        UserError: more columns than the lexicon has, or a vocabulary of another size.
    """
    known, wanted = context.lexicon, fit.spec
    if wanted.word_dim > known.dim:
        raise UserError(f"ngrams.word_dim = {wanted.word_dim}: the search has {known.dim} columns")
    if wanted.vocabulary_rows != len(known.ngrams_R):
        raise UserError(
            f"ngrams.vocabulary_rows = {wanted.vocabulary_rows}: it cannot be searched, and what "
            f"decides n-grams cannot be beside one of {len(known.ngrams_R)}"
        )
    return known.narrowed(wanted.word_dim)
