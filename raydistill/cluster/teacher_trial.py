"""Every teacher of a run is loaded and tried once, before anything is prepared for it.

On the driver; a model for which it has no memory, or that needs a GPU, in one Ray task with what an
actor of `label` gets.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice

import pyarrow as pa

from raydistill.cluster.connection import Cluster
from raydistill.cluster.placement import has_gpu
from raydistill.cluster.worker_exits import error_line
from raydistill.config.data import TextRules
from raydistill.data.manifest import RawFile, find_files
from raydistill.data.pairs import clean
from raydistill.errors import UserError, WorkError
from raydistill.files.folder import Folder
from raydistill.files.inputs.readers import read_raw
from raydistill.files.model_files import PinnedModel, load_model, model_bytes
from raydistill.runs.run_folder import Run
from raydistill.runs.shards import missing_shards
from raydistill.runs.sources import DATASETS
from raydistill.student.lexicon_builder import check_encoder
from raydistill.teachers.cross_encoder import check_model
from raydistill.teachers.transformer.device import free_memory_bytes
from raydistill.teachers.transformer.model_loading import read_config
from raydistill.teachers.transformer.trial_pairs import Pairs, Trial

Connect = Callable[[], Cluster | None]
_NUM_FILES, _NUM_ROWS = 2, 200  # of each dataset, as a sample of the user's texts
_TEXTS = ("query", "title")
_HEAD_BYTES = 1 << 16
_SHARE = 0.7  # of the free memory that weights may take: activations and Ray need some

# What was tried in this process, for which run folder (another run has other texts), and whether
# its pairs may be padded.
_tried: dict[tuple[str, PinnedModel, Trial, int, str | None], bool] = {}
_encoders: set[PinnedModel] = set()


def check_teachers(run: Run, stages: tuple[str, ...], *, connect: Connect) -> None:
    """Try every teacher, and the encoder of word vectors, that one of the stages will load.

    `connect` gives the cluster, if one is needed.

    Raises:
        UserError: a teacher that cannot do its work.
    """
    for name, teacher in run.config.teachers.items():
        if teacher.base is not None and run.teacher(name).success() is None:
            if "finetune" in stages:
                check_base(run, name, connect=connect)
        elif "label" in stages and not is_labeled(run, name):
            check_teacher(run, name, connect=connect)
    if "train" in stages:
        check_words(run)


def is_labeled(run: Run, name: str) -> bool:
    """Whether a teacher has scored every shard."""
    return run.logits(name).success() is not None and not missing_shards(run, name)


def check_teacher(run: Run, name: str, *, connect: Connect = lambda: None) -> None:
    """Raise UserError unless the teacher is there and can score the run's pairs."""
    max_length, trial = _as_labeled(run, name)
    model = run.teacher_model(name)
    prompt = run.config.teachers[name].prompt
    _try(run, model, trial, max_length=max_length, prompt=prompt, connect=connect)


def may_pad(run: Run, name: str) -> bool | None:
    """Whether a teacher's pairs may be padded; None where it was not tried in this process."""
    max_length, trial = _as_labeled(run, name)
    prompt = run.config.teachers[name].prompt
    key = (run.root.uri, run.teacher_model(name), trial, max_length, prompt)
    return _tried.get(key)


def _as_labeled(run: Run, name: str) -> tuple[int, Trial]:
    label = run.config.label
    trial = Trial(
        has_query=bool(run.config.pairs.query),
        trusts_code=run.config.teachers[name].trust_remote_code,
        label_dtype=label.dtype,
    )
    return label.max_length, trial


def check_base(run: Run, name: str, *, connect: Connect = lambda: None) -> None:
    """Raise UserError unless a teacher's `base` is an encoder that finetune can train.

    It must hold the pairs of `finetune` and, as it will score them, those of `label`.
    """
    teacher, config = run.config.teachers[name], run.config
    if teacher.base is None:
        raise ValueError(f"teacher {name} has no base: there is nothing to try")
    trial = Trial(
        has_query=bool(config.pairs.query), trusts_code=teacher.trust_remote_code, is_base=True
    )
    longest = max(config.finetune.max_length, config.label.max_length)
    _try(run, run.model(teacher.base), trial, max_length=longest, prompt=None, connect=connect)


def check_words(run: Run) -> None:
    """Raise UserError unless the encoder of the word vectors, where the run has one, encodes."""
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


def _try(
    run: Run,
    model: PinnedModel,
    trial: Trial,
    *,
    max_length: int,
    prompt: str | None,
    connect: Connect,
) -> None:
    """Try a model that was not tried in this process yet."""
    load_model(model)  # as the driver saw it
    key = (run.root.uri, model, trial, max_length, prompt)
    if key not in _tried:
        with_pairs = replace(trial, pairs=sample_pairs(run))
        settings = run.config.finetune if trial.is_base else run.config.label
        attempt = _Attempt(model, with_pairs, max_length, prompt, settings.num_gpus)
        _tried[key] = attempt.run(connect)


@dataclass(frozen=True)
class _Attempt:
    """A trial of a model, here or in a task."""

    model: PinnedModel
    trial: Trial
    max_length: int
    prompt: str | None
    gpus_each: float  # of a worker

    def run(self, connect: Connect) -> bool:
        """Whether the model's pairs may be padded.

        Raises:
            UserError: as `check_model`.
            WorkError: the process of the task died.
        """
        dtype = self._dtype_here()
        if dtype is None:
            return self._in_task(connect())
        try:
            return self.here("cpu", dtype)
        except UserError as error:
            if not self._is_quantised() or isinstance(error.__cause__, ImportError):
                raise
            cluster = connect()  # such weights may need a GPU
            if cluster is None or not cluster.num_gpus:
                raise
            return self._in_task(cluster)

    def _dtype_here(self) -> str | None:
        """In which type the driver has the memory to load the model: float32 if it can."""
        num_bytes, room = model_bytes(load_model(self.model)), _SHARE * free_memory_bytes()
        if 2 * num_bytes < room:  # they may be stored in 2 bytes a weight
            return "float32"
        return self.trial.label_dtype if num_bytes < room else None

    def _is_quantised(self) -> bool:
        config = read_config(load_model(self.model), trusts_code=self.model.trusts_code)
        return getattr(config, "quantization_config", None) is not None

    def here(self, device: str, dtype: str) -> bool:
        """Try the model in this process."""
        trial = replace(self.trial, device=device, dtype=dtype)
        folder = load_model(self.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries; a user can do nothing about them
            return check_model(folder, max_length=self.max_length, prompt=self.prompt, trial=trial)

    def _in_task(self, cluster: Cluster | None) -> bool:
        """Try the model where a worker would have it; without a cluster here all the same."""
        import ray
        from ray.exceptions import RayError

        if cluster is None:
            return self.here("cpu", self.trial.label_dtype)
        has_gpus = bool(cluster.num_gpus and self.gpus_each)
        resources = {"num_gpus": self.gpus_each, "num_cpus": 0} if has_gpus else {"num_cpus": 1}
        task = ray.remote(max_retries=0, **resources)(_verdict)
        start_s = time.time()
        try:
            problem, pads = ray.get(task.remote(self))
        except RayError as error:
            cause = error_line(error, since_s=start_s)
            raise WorkError(f"{self.model.source} could not be tried: {cause}") from error
        if problem:
            raise UserError(problem)
        return bool(pads)


def _verdict(attempt: _Attempt) -> tuple[str, bool]:
    """What is wrong with a model, or "": an error would come back in pages of Ray's own stack."""
    try:
        return "", attempt.here("cuda" if has_gpu() else "cpu", attempt.trial.label_dtype)
    except UserError as error:
        return str(error), False


def sample_pairs(run: Run) -> Pairs:
    """Some clean pairs of the run: of its shards, or before there are any of its raw files."""
    shards = run.pairs.shards() if run.pairs.success() else []
    tables = [_head_of_shard(run.pairs, name) for name in shards[:1]] or _heads_of_files(run)
    pairs: dict[tuple[str, str], None] = {}
    for table in tables:
        columns = (table[name].to_pylist() for name in _TEXTS)
        pairs.update(dict.fromkeys(zip(*columns, strict=True)))
    return tuple(pairs)


def _head_of_shard(folder: Folder, name: str) -> pa.Table:
    return folder.read_rows(name, 0, _NUM_ROWS, columns=[*_TEXTS])


def _heads_of_files(run: Run) -> list[pa.Table]:
    rules_of = [run.rules[name] for name in DATASETS]
    files = [(file, rules) for rules in rules_of for file in find_files(rules)[:_NUM_FILES]]
    return [_head_of_file(file, rules) for file, rules in files]


def _head_of_file(file: RawFile, rules: TextRules) -> pa.Table:
    """The clean texts of a raw file's first rows."""
    columns = {ours: theirs for ours, theirs in file.columns.items() if ours in _TEXTS}
    nothing = rules.model_copy(update={"source": None, "input": ()})  # no column of sources
    blocks = read_raw(file.input, columns=list(columns.values()), max_block_bytes=_HEAD_BYTES)
    heads = []
    for block in islice(blocks, 1):
        head = block.table.slice(0, _NUM_ROWS)
        rows = block.rows[: head.num_rows]
        heads.append(clean(head, rows=rows, columns=columns, rules=nothing, source=file.uri).pairs)
    return pa.concat_tables(heads) if heads else pa.table({"query": [], "title": []})
