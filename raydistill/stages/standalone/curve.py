"""evaluate --curve: students on shares of the transfer set, from the existing logits.

One Ray Train fit trains all students, one after the other: it starts its workers once. After an
interruption only the incomplete students are trained.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray.train

from raydistill.cluster.connection import Cluster
from raydistill.cluster.tasks import Item, run_tasks
from raydistill.cluster.train_job import run_workers
from raydistill.data.pairs import features_of
from raydistill.errors import UserError
from raydistill.evaluation.learning_curve import (
    SHARES,
    curve_markdown,
    curve_svg,
    in_share,
    plan_subset,
)
from raydistill.files.folder import SUCCESS, Folder
from raydistill.files.pieces import PieceReader, pieces_of, read_pieces
from raydistill.progress import Progress
from raydistill.runs.fingerprints import fingerprint
from raydistill.runs.run_folder import CURVE, Run
from raydistill.runs.shards import split_shards
from raydistill.serving.feature_spec import NgramSpec
from raydistill.serving.lexicon import Lexicon
from raydistill.serving.match_features import DENSE_NAMES
from raydistill.stages import train
from raydistill.stages.evaluation.scorers import (
    Scores,
    partial_scorers,
    reference_of,
    teacher_scores,
)
from raydistill.stages.fits.covered import copy_scored
from raydistill.stages.fits.lexicon import write_lexicon
from raydistill.stages.measured import leave_out_unscored, measure_scorers, retained
from raydistill.student.export.student_bundle import (
    bundle_settings,
    score_split,
    scorer_of,
    student_arrays,
)
from raydistill.student.fit import StudentFit
from raydistill.student.fit_files import FEATURES, measure_features, student_fit, write_success
from raydistill.teachers.judged_logits import read_judged
from raydistill.teachers.soft_labels import Targets

logger = logging.getLogger("raydistill")
TABLE, PLOT = "curve.md", "curve.svg"
OVERLAP = "no model: char-trigram overlap"
_SPLITS = ("dev", "test")


@dataclass(frozen=True)
class CurveSettings:
    """The students of a curve: one for each share, preset and seed."""

    shares: tuple[float, ...] = SHARES
    presets: tuple[str, ...] = ()  # empty: the run file's preset
    seeds: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise UserError for a share outside (0, 1]."""
        for share in self.shares:
            if not 0 < share <= 1:
                raise UserError(f"a share of {100 * share:g} %: give more than 0 and at most 100")


@dataclass(frozen=True)
class Point(StudentFit):
    """A student on a share of the pairs."""

    share: float = 1.0

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the student on all pairs, combined with the share."""
        whole = self.run.train_fingerprint("student")
        return whole if self.share == 1 else fingerprint("curve", whole, self.share)

    @property
    def output(self) -> Folder:
        """The student's folder; the student on all pairs is that of `train`."""
        if self.share == 1:
            return self.run.student("student")
        return self.run.root / "curve" / f"student-{self.fingerprint}"

    @property
    def keeps_last(self) -> bool:
        """Only on all pairs: a table of 2^21 rows has 0.5 GB, and a curve has many students."""
        return self.share == 1


def fit_curve(run: Run, settings: CurveSettings, cluster: Cluster) -> dict[str, Any]:
    """Fit the missing students, write `curve/`, and return its figures.

    Raises:
        UserError: shards that a teacher has not scored, or a run without judged dev pairs.
    """
    if not run.config.learns_from_judged:
        raise UserError(
            "evaluate --curve measures students on judged dev and test pairs, and the run has no "
            "judged dev pairs: give [judged] with a dev_share above 0"
        )
    with run.begin("train"):  # excludes a concurrent `train`: its student is a point
        return _curve(run, settings, cluster)


def _curve(run: Run, settings: CurveSettings, cluster: Cluster) -> dict[str, Any]:
    copy_scored(run)
    points = _points(run, settings)
    if any(point.output.success() is None for point in points):
        left = prepare_points(run, settings)
        _fit(left, points, cluster)
        points = _points(run, settings)
    found = _figures(run, points)
    folder = run.root / "curve"
    folder.write_json(CURVE, found)
    folder.write_bytes(PLOT, curve_svg(found))
    folder.write_bytes(TABLE, curve_markdown(found, plot=PLOT).encode())
    (folder / "subsets").delete()
    logger.info("evaluate  %s/%s", folder, TABLE)
    return found


def prepare_points(run: Run, settings: CurveSettings) -> list[Point]:
    """The missing students, with their pairs and the scale of their features written."""
    left = [point for point in _points(run, settings) if point.output.success() is None]
    shares = {point.share for point in left} - {1.0}
    _make_subsets(run, {share: _subset(run, share) for share in shares})
    missing = {point.fingerprint for point in left}
    left = [point for point in _points(run, settings) if point.fingerprint in missing]
    for point in left:
        if not point.shards:
            raise UserError(
                f"no pair in {100 * point.share:g} % of the pairs: leave that share out"
            )
        if not point.output.exists(FEATURES):
            write_lexicon(point.run)
            measure_features(point)
    return left


def _points(run: Run, settings: CurveSettings) -> list[Point]:
    """Every student of the curve."""
    presets = settings.presets or (run.config.ngrams.preset,)
    seeds = settings.seeds or (run.config.train.seed,)
    wholes = [_with(run, preset, seed) for preset in presets for seed in seeds]
    shares = sorted(set(settings.shares))
    subsets = {share: _subset(run, share) for share in shares if share < 1}
    return [_point(one, share, subsets) for one in wholes for share in shares]


def _with(run: Run, preset: str, seed: int) -> Run:
    """The run with another preset and seed."""
    ngrams = run.config.ngrams.model_copy(update={"preset": preset})
    train_ = run.config.train.model_copy(update={"seed": seed})
    changed = run.config.model_copy(update={"ngrams": ngrams, "train": train_})
    return replace(run, config=changed)


# --- subsets


def _subset(run: Run, share: float) -> Folder:
    """The temporary folder of the pairs of a share.

    Their labels are the logits of the soft labels; each loss computes its target from them.
    """
    whole = whole_set(run)
    made_of = [sorted(whole.shards.items()), str(whole.targets), share]
    name = f"{100 * share:g}-{fingerprint('subset', made_of)}"
    return run.root / "curve" / "subsets" / name


def whole_set(run: Run) -> StudentFit:
    """The pairs that subsets are taken from, with the logits of their soft labels as targets.

    Raises:
        UserError: shards that a teacher has not scored.
    """
    whole = student_fit(run, "student")
    return replace(whole, targets=replace(whole.targets, target="logit"))


def _make_subsets(run: Run, subsets: dict[float, Folder]) -> None:
    """Write the incomplete subsets, and the number of pairs of each of their shards."""
    whole = whole_set(run)
    items: list[Item] = []
    missing = {share: folder for share, folder in subsets.items() if folder.success() is None}
    for share, folder in missing.items():
        there = set(folder.shards())
        for number, shards in enumerate(plan_subset(list(whole.shards), share)):
            name = f"part-{number:05d}.parquet"
            item = {"share": share, "name": name, "is_there": name in there, "shards": shards}
            items.append({**item, "to": folder.uri})
    found: dict[str, dict[str, int]] = {folder.uri: {} for folder in missing.values()}
    progress = Progress("curve", num_items=len(items), num_rows=None, unit="shards")
    for result in run_tasks(items, partial(_write_subset, whole=whole), cpus=1):
        if result["rows"]:
            found[result["to"]][result["name"]] = result["rows"]
        progress.add(rows=result["rows"], note="of subsets")
    for folder in missing.values():
        folder.write_json(SUCCESS, {"shards": dict(sorted(found[folder.uri].items()))})


def _write_subset(item: Item, *, whole: StudentFit) -> Item:
    """Write the pairs of a share of some shards that have a soft label, like judged pairs."""
    target, result = Folder(item["to"]), {"name": item["name"], "to": item["to"]}
    if item["is_there"]:
        return {**result, "rows": target.open_table(item["name"]).metadata.num_rows}
    parts = []
    reader = PieceReader()
    for piece in pieces_of({name: whole.shards[name] for name in item["shards"]}):
        pairs = reader.read(whole.folder, piece, columns=["pair_id", "query", "title"])
        labels = whole.targets.for_piece(piece, pairs, reader=reader)
        ids = pairs["pair_id"].combine_chunks().to_numpy()
        mask = in_share(ids, item["share"]) & np.isfinite(labels)
        labeled = pairs.append_column("label", pa.array(labels, pa.float32()))
        parts.append(labeled.filter(pa.array(mask)))
    subset = pa.concat_tables(parts)
    target.write_table(item["name"], subset)
    return {**result, "rows": subset.num_rows}


def _point(run: Run, share: float, subsets: dict[float, Folder]) -> Point:
    whole = student_fit(run, "student")
    if share == 1:
        return Point(run, "student", whole.folder, whole.shards, whole.targets, whole.num_epochs)
    folder = subsets[share]
    shards = (folder.success() or {"shards": {}})["shards"]
    of_whole = whole.targets
    targets = Targets(temperature=of_whole.temperature, target=of_whole.target, holds_logits=True)
    return Point(run, "student", folder, shards, targets, whole.num_epochs, share=share)


# --- fits


def _fit(left: Sequence[Point], points: Sequence[Point], cluster: Cluster) -> None:
    """Train the missing students, one after the other."""
    settings = left[0].settings
    run_workers(
        curve_loop,
        {"points": left},
        name=f"curve-{fingerprint([point.fingerprint for point in points])}",
        storage=left[0].run.root / "_fits",
        cluster=cluster,
        num_workers=settings.num_workers,
        gpus_each=settings.num_gpus,
        num_kept=settings.keep_checkpoints,
    )


def curve_loop(config: dict[str, Any]) -> None:
    """The loop of each Ray Train worker: the students that are incomplete when it starts."""
    is_first = ray.train.get_context().get_world_rank() == 0
    left = [point for point in config["points"] if point.output.success() is None]
    for point in left:
        start_s = time.monotonic()
        config["log"](f"curve     {_name(point)}: {sum(point.shards.values()):,} pairs")
        train.train_loop({**config, "fit": point})
        if is_first:
            write_success(point, seconds=time.monotonic() - start_s)


def _name(point: Point) -> str:
    return f"{point.spec.preset}, {100 * point.share:g} %, seed {point.settings.seed}"


# --- figures


def _figures(run: Run, points: Sequence[Point]) -> dict[str, Any]:
    """Metrics of each student, the teacher, and the scorers without a share, on the test split."""
    teacher = reference_of(run)
    scored: dict[str, Any] = {teacher: teacher_scores(run)[teacher], **_without_model(run)}
    judged_only = run.student("judged_only")
    if judged_only.success() is not None:
        scored["baseline on judged labels only"] = _scores(run, "judged_only", judged_only)
    for point in points:
        scored[_name(point)] = _scores(point.run, "student", point.output)
    judged = {split: read_judged(run, split) for split in _SPLITS}
    labels = {split: found.labels_B for split, found in judged.items()}
    num_unscored, entries = measure_beside(run, scored, labels, teacher=teacher)
    students = {_name(point) for point in points}
    return {
        "student": run.train_fingerprint("student"),
        "num_pairs": len(labels["test"]),
        "num_unscored": num_unscored,
        "num_queries": judged["test"].num_queries,
        "relevant_at": run.config.judged_rules.relevant_at,
        "teacher": teacher,
        "seeds": sorted({point.settings.seed for point in points}),
        "points": [_entry(point, entries[_name(point)]) for point in points],
        "others": {name: one for name, one in entries.items() if name not in students},
    }


def measure_beside(
    run: Run, scored: dict[str, Scores], labels: Scores, *, teacher: str
) -> tuple[int, dict[str, dict[str, Any]]]:
    """The number of test pairs that are left out, and the figures of each scorer.

    Each but the teacher has its `retention`, where the teacher has scores to compare with.
    """
    partial = [name for name in partial_scorers(run) if name in scored]
    num_unscored = leave_out_unscored(scored, labels, but=partial)["test"]
    entries = measure_scorers(run, scored, labels, partial=partial)
    for name in entries:
        kept = retained(run, scored, labels, entries=entries, name=name, reference=teacher)
        if name != teacher and kept:
            entries[name]["retention"] = kept
    return num_unscored, entries


def _entry(point: Point, metrics: dict[str, Any]) -> dict[str, Any]:
    done = point.output.success() or {}
    return {
        "preset": point.spec.preset,
        "share": point.share,
        "seed": point.settings.seed,
        "labeled_pairs": done["rows_in"],
        "seconds": done["seconds"],
        "dev_auc": done["dev_auc"],
        **metrics,
    }


def _scores(run: Run, role: str, folder: Folder) -> dict[str, Any]:
    scorer = scorer_of(bundle_settings(run, role), student_arrays(run, folder))
    return {split: score_split(run, scorer, split)[0] for split in _SPLITS}


def _without_model(run: Run) -> dict[str, Any]:
    """Scores without a model: the share of the query's character trigrams that are in the title.

    Empty for single texts.
    """
    if not run.config.has_query:
        return {}
    spec = NgramSpec("match", 8)
    at = DENSE_NAMES.index("query_trigrams_found")
    lexicon = Lexicon.from_idf(np.ones(1, np.float32))
    found = {}
    for split in _SPLITS:
        folder = run.judged(split)
        parts = [
            features_of(rows, spec=spec, lexicon=lexicon).dense_BF[:, at].copy()
            for rows in read_pieces(folder, pieces_of(split_shards(run, split)))
        ]
        found[split] = np.concatenate([np.empty(0, np.float32), *parts])
    return {OVERLAP: found}
