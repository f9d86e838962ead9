"""label: each teacher scores the shards that it has no logits for; one logits file a shard.

A shard is the unit of commit: its logits file is complete or does not exist. The remaining work is
the list of shards minus the list of logits files.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from raydistill.cluster.calibration import calibrate
from raydistill.cluster.connection import Cluster
from raydistill.cluster.pools.pieces import Losses
from raydistill.cluster.tasks import FAILED, Item, Step, run_chain
from raydistill.cluster.teacher_trial import check_teacher, verdict_on
from raydistill.cluster.workers.assigned_gpu import make_step
from raydistill.config.teachers import TREES
from raydistill.errors import UserError, WorkError
from raydistill.files import retry
from raydistill.files.folder import SUCCESS
from raydistill.progress import Progress
from raydistill.runs.fingerprints import LABELED_BY
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import Shard, awaited, is_labeled, missing_shards, shards_to_score
from raydistill.stages.fits.scores import check_coverage, index_scores
from raydistill.teachers.kinds.registry import teacher_of
from raydistill.teachers.shards.logits import count_bad, too_many_bad
from raydistill.teachers.transformer.device import merge_uses, use_text

logger = logging.getLogger("raydistill")
_ATTEMPTS = 3  # at a shard, before the stage fails and names it


def label_stage(run: Run, cluster: Cluster) -> bool:
    """Score the missing shards of each teacher; False if no shard was scored.

    The trees run first, then scores from files: they take seconds or minutes, and a mistake in
    their input costs no GPU time. A teacher that learns from another one waits until that has
    scored and `finetune` has run.

    Raises:
        UserError: there are no pairs yet, or a teacher is not fine-tuned yet, is no cross-encoder
            or is broken.
        WorkError: shards failed 3 times; the other shards are complete.
    """
    shards_to_score(run)  # raises unless prepare is complete
    is_partial = run.config.is_partial
    ready = [name for name in run.config.teacher_names if _is_ready(run, name)]
    for name in ready:  # all teachers are tried before the first one scores
        if name != TREES and not is_labeled(run, name):
            check_teacher(run, name, connect=lambda: cluster)
    # The trees are last in this list.
    names = sorted(ready, key=lambda n: (n != TREES, not is_partial(n)))
    left = [name for name in names if not is_labeled(run, name)]
    for name in left:
        with run.begin(f"label-{name}"):
            if not is_labeled(run, name):  # false if another job has scored the last shard
                _label(run, name, cluster)
    return bool(left)


def _is_ready(run: Run, name: str) -> bool:
    """Whether a teacher waits for no other one; a line says so if it does."""
    source = awaited(run, name)
    if source is not None:
        logger.info("label     %s waits: it learns from %s, which has not scored all pairs yet; "
                    "run `finetune` and `label` again after that", name, source)  # fmt: skip
    return source is None


def _label(run: Run, name: str, cluster: Cluster) -> None:
    shards, left = shards_to_score(run), missing_shards(run, name)
    logits = run.logits(name)
    _make_ready(run, name, cluster)
    record_model(run, name)
    work = _Work.of(run, name, cluster)
    logger.info(
        "label     %s: %d of %d shards are there; %s pairs to score, %d actors at most",
        name,
        len(shards) - len(left),
        len(shards),
        f"{sum(shard.num_rows for shard in left):,}",
        work.num_actors,
    )
    tally = _Tally(name, left, num_actors=work.num_actors)
    _score(left, work, tally)
    tally.log_losses()
    still = missing_shards(run, name)
    if still:
        raise WorkError(
            f"{len(still)} shards were scored but are not in {logits}, {still[0].target} among "
            "them; do all machines see the run folder?"
        )
    num_rows, num_bad = count_rows(run, name)
    coverage = check_coverage(run, name) if run.config.is_partial(name) else {}
    summary = {
        "fingerprint": run.label_fingerprint(name),
        "rows_in": num_rows,
        "rows_out": num_rows - num_bad,
        "quarantined": num_bad,
        "shards": len(shards),
        **coverage,
        **tally.summary(),
        **retry.for_success(),
    }
    logits.write_json(SUCCESS, summary)


def _make_ready(run: Run, name: str, cluster: Cluster) -> None:
    """What some kinds need before they can score; nothing is done where it is complete."""
    teacher = teacher_of(run, name)  # raises if a library is missing
    kind = run.config.teacher_kind(name)
    if kind == TREES:
        from raydistill.stages.fits.trees import fit  # LightGBM takes 1 s

        fit(run)
    elif kind == "bi_encoder":
        calibrate(run, name, cluster, verdict=verdict_on(run, teacher))
    elif kind == "scores":
        index_scores(run, name)


def record_model(run: Run, name: str) -> None:
    """Write the fingerprint of the model whose logits a folder gets, before the first shard.

    Raises:
        UserError: the folder has logits of another model: a refitted teacher has other weights
            although its inputs are the same.
    """
    logits = run.logits(name)
    model = teacher_of(run, name).model()
    there = logits.read_json(LABELED_BY)
    if there is None:
        logits.write_json(LABELED_BY, {"model": model.fingerprint, "source": model.source})
    elif there["model"] != model.fingerprint:
        raise UserError(
            f"{logits} holds logits of another {name} (its model had the fingerprint "
            f"{there['model']}, the one in {model.source} has {model.fingerprint}): the teacher "
            f"was fitted again; delete {logits} and {run.rejected_logits(name)} to have all pairs "
            "scored by the new one, or restore the old one"
        )


def count_rows(run: Run, name: str) -> tuple[int, int]:
    """Number of pairs of all shards, and of those that the teacher has no logit for.

    Raises:
        UserError: more than `label.max_bad_fraction` of the pairs have no logit.
    """
    shards, rejected = shards_to_score(run), run.rejected_logits(name)
    num_rows = sum(shard.num_rows for shard in shards)
    num_bad = count_bad(rejected, [shard.target for shard in shards])
    allowed = run.config.label.max_bad_fraction
    if num_bad > allowed * num_rows:
        raise UserError(
            f"teacher {name}: {too_many_bad(num_bad, num_rows, allowed)}; "
            f"the pairs and reasons are in {rejected}"
        )
    return num_rows, num_bad


@dataclass(frozen=True)
class _Work:
    """The steps for a shard, and the number of actors."""

    before: Step
    make: Callable[[], Step]
    after: Step
    num_actors: int
    gpus: float

    @staticmethod
    def of(run: Run, name: str, cluster: Cluster) -> _Work:
        teacher = teacher_of(run, name)
        needs, steps = teacher.needs, teacher.steps(verdict=verdict_on(run, teacher))
        return _Work(
            before=steps.before,
            make=partial(make_step, steps),
            after=steps.after,
            num_actors=needs.num_actors or cluster.num_actors(gpus_each=needs.gpus_each),
            gpus=needs.gpus_each if cluster.num_gpus else 0.0,
        )


def _score(shards: list[Shard], work: _Work, tally: _Tally) -> None:
    """Score the shards; failed shards are tried again after all others.

    Raises:
        WorkError: shards failed in all attempts; the message has the first shard's last error.
    """
    left = {s.target: {"folder": s.folder.uri, "name": s.name, "target": s.target} for s in shards}
    errors: dict[str, str] = {}
    for _ in range(_ATTEMPTS):
        errors = dict.fromkeys(left, "its worker was lost")
        for result in run_chain(
            list(left.values()),
            before=work.before,
            make=work.make,
            after=work.after,
            num_actors=work.num_actors,
            gpus=work.gpus,
            on_lost=partial(_note_lost, errors),
            losses=tally.losses,
        ):
            if FAILED in result:
                errors[result["target"]] = result[FAILED]
                logger.warning("label     %s failed: %s", result["target"], result[FAILED])
                continue
            del errors[result["target"]]
            tally.add(result)
        left = {target: left[target] for target in errors}
        if not left:
            return
    names = ", ".join(sorted(left))
    first = errors[min(errors)]
    raise WorkError(f"{len(left)} shards failed {_ATTEMPTS} times: {names}; the first: {first}")


def _note_lost(errors: dict[str, str], item: Item, cause: str) -> None:
    errors[item["target"]] = cause
    logger.warning("label     %s failed: %s", item["target"], cause)


@dataclass
class _Tally:
    """Counts of this attempt and its progress lines."""

    name: str
    shards: list[Shard]
    num_actors: int
    tokens: int = 0
    padded_tokens: int = 0
    busy_s: float = 0.0
    most_actors: int = 0
    out_of_memory: int = 0
    uses: list[dict[str, str]] = field(default_factory=list)  # distinct device uses
    losses: Losses = field(default_factory=Losses)
    _progress: Progress = field(init=False)
    _workers: deque[str] = field(init=False)

    def __post_init__(self) -> None:
        rows = sum(shard.num_rows for shard in self.shards)
        self._progress = Progress("label", num_items=len(self.shards), num_rows=rows, unit="shards")
        # Actors that wrote one of the last shards are active; two rounds, as some are slower.
        self._workers = deque(maxlen=2 * self.num_actors)

    def add(self, result: Item) -> None:
        """Count a completed shard."""
        self.tokens += result["tokens"]
        self.padded_tokens += result["padded_tokens"]
        self.busy_s += result["read_s"] + result["score_s"]
        self._note_memory(result)
        use = result.get("use")  # not set by the trees
        if use and use not in self.uses:
            self.uses.append(use)
        self._workers.append(result["worker"])
        actors = len(set(self._workers))
        self.most_actors = max(self.most_actors, actors)
        self._progress.add(
            rows=result["rows"],
            note=f"{self.name}, {self._speed()}{actors} actors{self._where()}",
        )

    @property
    def wasted_rows(self) -> int:
        """Pairs of the shards that were in an actor, or not yet written, when it was lost."""
        num_rows = {shard.target: shard.num_rows for shard in self.shards}
        return sum(num_rows[item["target"]] for item in self.losses.wasted)

    def log_losses(self) -> None:
        """Log a line if machines or processes were lost."""
        if self.losses:
            logger.warning(
                "label     %s: %d machines were lost; %d shards in work (%s pairs) began again",
                *(self.name, len(self.losses.machines), len(self.losses.wasted)),
                f"{self.wasted_rows:,}",
            )

    def _note_memory(self, result: Item) -> None:
        num = result.get("out_of_memory", 0)  # not set by the trees: they have no batches
        self.out_of_memory += num
        if num:
            logger.warning(
                "label     %s: out of memory %d times, %s; it continues with smaller batches",
                result["target"],
                num,
                result["worker"],
            )

    def _speed(self) -> str:
        if not self.tokens:  # the trees count none
            return ""
        return f"{self._tokens_per_s():,.0f} tokens/s, {self._padding():.1%} padding, "

    def _where(self) -> str:
        return f" on {use_text(merge_uses(self.uses))}" if self.uses else ""

    def _padding(self) -> float:
        return 1 - self.tokens / max(self.padded_tokens, 1)

    def _tokens_per_s(self) -> float:
        if not self._progress.rows:  # the first shard: no rate yet
            return self.tokens / max(self._progress.seconds, 1e-9)
        return self._progress.rate() * self.tokens / self._progress.rows

    def summary(self) -> dict[str, Any]:
        """The attempt's counts for _SUCCESS.json."""
        rows, of_tokens = self._progress.rows, {}
        if self.tokens:  # the trees count none
            of_tokens = {
                "tokens": self.tokens,
                "tokens_per_s": round(self._tokens_per_s()),
                "padding": round(self._padding(), 4),
                "out_of_memory": self.out_of_memory,
            }
        return {
            "seconds": round(self._progress.seconds, 1),
            "rows_scored": rows,
            "rows_per_s": round(self._progress.rate()) if rows else 0,
            **of_tokens,
            **merge_uses(self.uses),
            "actors": self.most_actors,
            "lost_machines": len(self.losses.machines),
            "wasted_rows": self.wasted_rows,
            "actor_us_per_pair": round(1e6 * self.busy_s / rows, 1) if rows else None,
        }
