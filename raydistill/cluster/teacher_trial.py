"""Load each teacher of a run and score trial pairs, before any stage prepares data for it.

Runs on the driver. A model that exceeds the driver's memory or needs a GPU runs in one Ray task
with the resources of a `label` actor.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa

from raydistill.cluster.connection import Cluster
from raydistill.cluster.places import guarded
from raydistill.cluster.workers.assigned_gpu import has_gpu
from raydistill.cluster.workers.worker_exits import error_line
from raydistill.config.data import TextRules
from raydistill.data.manifest import RawFile, find_files
from raydistill.data.pairs import clean
from raydistill.errors import UserError, WorkError
from raydistill.files.folder import Folder
from raydistill.files.inputs.raw_rows import flat_names
from raydistill.files.inputs.readers import read_raw
from raydistill.files.model_files import PinnedModel, load_model, model_bytes
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import is_labeled
from raydistill.student.lexicon.builder import check_encoder
from raydistill.teachers.base import ModelTrial, TeacherKind
from raydistill.teachers.kinds.cross_encoder import trial_of_base
from raydistill.teachers.kinds.registry import teacher_of
from raydistill.teachers.transformer.device import free_memory_bytes
from raydistill.teachers.transformer.model_loading import read_config
from raydistill.teachers.transformer.trial_pairs import Pairs

Connect = Callable[[], Cluster | None]
_NUM_FILES, _NUM_ROWS = 2, 200  # of each dataset, as a sample of the user's pairs
_TEXTS = ("query", "title")
_HEAD_BYTES = 1 << 16
_SHARE = 0.7  # of the free memory, for weights: activations and Ray need the rest

# Verdicts of the trials of this process, by run folder (each run has its own pairs) and trial.
_tried: dict[tuple[str, ModelTrial], bool] = {}
_encoders: set[PinnedModel] = set()


def check_teachers(run: Run, stages: tuple[str, ...], *, connect: Connect) -> None:
    """Try each teacher, and the encoder of word vectors, that one of `stages` loads.

    `connect` returns the cluster; called only if a trial needs one.

    Raises:
        UserError: a teacher or the encoder cannot be used.
    """
    for name, teacher in run.config.teachers.items():
        if teacher.base is not None and run.teacher(name).success() is None:
            if "finetune" in stages:
                check_base(run, name, connect=connect)
        elif "label" in stages and not is_labeled(run, name):
            check_teacher(run, name, connect=connect)
    if "train" in stages:
        check_words(run)


def check_teacher(run: Run, name: str, *, connect: Connect = lambda: None) -> None:
    """Raise UserError unless the teacher exists and can score the run's pairs."""
    teacher = teacher_of(run, name)
    teacher.check()
    trial = teacher.trial()
    if trial is not None:
        _try(run, trial, connect=connect)


def verdict_on(run: Run, teacher: TeacherKind) -> bool | None:
    """The verdict of a teacher's trial; None: not tried in this process."""
    trial = teacher.trial()
    return None if trial is None else _tried.get((run.root.uri, trial))


def check_base(run: Run, name: str, *, connect: Connect = lambda: None) -> None:
    """Raise UserError unless a teacher's `base` is an encoder that finetune can train."""
    _try(run, trial_of_base(run, name), connect=connect)


def check_words(run: Run) -> None:
    """Raise UserError unless the encoder of the word vectors works, if the run uses one."""
    source = run.word_encoder
    if source is None or run.lexicon.files():
        return
    model = run.model(source)
    if model in _encoders:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_encoder(load_model(model), trusts_code=model.trusts_code)
    except UserError as error:
        raise UserError(
            f"word vectors (ngrams.word_encoder, by default the first teacher's model): {error}; "
            "name another encoder, or set ngrams.word_dim = 0"
        ) from error
    _encoders.add(model)


def _try(run: Run, trial: ModelTrial, *, connect: Connect) -> None:
    """Try a model, once a process."""
    load_model(trial.model)  # raises if the model changed since it was pinned
    key = (run.root.uri, trial)
    if key not in _tried:
        _tried[key] = _Attempt(trial, sample_pairs(run)).run(connect)


@dataclass(frozen=True)
class _Attempt:
    """A trial of a model with some pairs, in this process or in a Ray task."""

    trial: ModelTrial
    pairs: Pairs

    def run(self, connect: Connect) -> bool:
        """The trial's verdict.

        Raises:
            UserError: the model cannot score the pairs.
            WorkError: the task's process ended.
        """
        dtype = self._dtype_here()
        if dtype is None:
            return self._in_task(connect())
        try:
            return self.here("cpu", dtype)
        except UserError as error:
            if not self._is_quantised() or isinstance(error.__cause__, ImportError):
                raise
            cluster = connect()  # quantised weights may need a GPU
            if cluster is None or not cluster.num_gpus:
                raise
            return self._in_task(cluster)

    def _dtype_here(self) -> str | None:
        """The dtype in which the model fits in the driver's memory, float32 first; else None."""
        num_bytes = model_bytes(load_model(self.trial.model))
        free_bytes = _SHARE * free_memory_bytes()
        if 2 * num_bytes < free_bytes:  # the file may hold 2 bytes a weight, float32 takes 4
            return "float32"
        return self.trial.label_dtype if num_bytes < free_bytes else None

    def _is_quantised(self) -> bool:
        model = self.trial.model
        config = read_config(load_model(model), trusts_code=model.trusts_code)
        return getattr(config, "quantization_config", None) is not None

    def here(self, device: str, dtype: str) -> bool:
        """Try the model in this process."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries' warnings ask for no action by the user
            return self.trial.here(self.pairs, device=device, dtype=dtype)

    def _in_task(self, cluster: Cluster | None) -> bool:
        """Try the model with a worker's resources; without a cluster in this process."""
        import ray
        from ray.exceptions import RayError

        if cluster is None:
            return self.here("cpu", self.trial.label_dtype)
        gpus_each = self.trial.gpus_each
        has_gpus = bool(cluster.num_gpus and gpus_each)
        resources = {"num_gpus": gpus_each, "num_cpus": 0} if has_gpus else {"num_cpus": 1}
        task = ray.remote(max_retries=0, **resources)(_verdict)
        start_s = time.time()
        try:
            problem, verdict = ray.get(task.remote(guarded(self._there)))
        except RayError as error:
            cause = error_line(error, since_s=start_s)
            raise WorkError(f"{self.trial.model.source} could not be tried: {cause}") from error
        if problem:
            raise UserError(problem)
        return bool(verdict)

    def _there(self) -> bool:
        """Try the model in a worker's process."""
        return self.here("cuda" if has_gpu() else "cpu", self.trial.label_dtype)


def _verdict(attempt: Callable[[], bool]) -> tuple[str, bool]:
    """(error text or "", verdict): Ray would add pages of its own stack to an exception."""
    try:
        return "", attempt()
    except UserError as error:
        return str(error), False


def sample_pairs(run: Run) -> Pairs:
    """Some clean pairs of the run: from its first shard, or from its raw files before prepare."""
    done = run.pairs.success()
    shards = sorted(done["shards"]) if done else []  # the folder may hold a stranger's file
    tables = [_head_of_shard(run.pairs, name) for name in shards[:1]] or _heads_of_files(run)
    pairs: dict[tuple[str, str], None] = {}
    for table in tables:
        columns = (table[name].to_pylist() for name in _TEXTS)
        pairs.update(dict.fromkeys(zip(*columns, strict=True)))
    return tuple(pairs)


def _head_of_shard(folder: Folder, name: str) -> pa.Table:
    return folder.read_rows(name, 0, _NUM_ROWS, columns=[*_TEXTS])


def _heads_of_files(run: Run) -> list[pa.Table]:
    files = [
        (file, rules) for rules in run.rules.values() for file in find_files(rules)[:_NUM_FILES]
    ]
    return [_head_of_file(file, rules) for file, rules in files]


def _head_of_file(file: RawFile, rules: TextRules) -> pa.Table:
    """The clean texts of a raw file's first rows."""
    columns = {ours: theirs for ours, theirs in file.columns.items() if ours in _TEXTS}
    nothing = rules.model_copy(update={"source": None, "input": ()})  # without the source column
    blocks = read_raw(file.input, columns=flat_names(columns), max_block_bytes=_HEAD_BYTES)
    heads = []
    for block in islice(blocks, 1):
        head = block.table.slice(0, _NUM_ROWS)
        rows = block.rows[: head.num_rows]
        heads.append(clean(head, rows=rows, columns=columns, rules=nothing, source=file.uri).pairs)
    return pa.concat_tables(heads) if heads else pa.table({"query": [], "title": []})
