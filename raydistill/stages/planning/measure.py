"""The rate of a teacher, by the steps of `label` on a sample of the user's pairs.

Runs where a teacher would run: here, or in a Ray task with the resources of an actor. Writes to a
temporary folder alone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from raydistill.config.teachers import TREES
from raydistill.files.folder import Folder
from raydistill.files.model_files import PinnedModel, load_model, pin_model
from raydistill.runs.run_folder import Run
from raydistill.teachers.base import Steps
from raydistill.teachers.kinds.bi_encoder import BiEncoderKind, read_calibration
from raydistill.teachers.kinds.cross_encoder import make_scorer
from raydistill.teachers.kinds.registry import teacher_of
from raydistill.teachers.scoring_steps import read_tokens
from raydistill.teachers.shards.logits import write_logits
from raydistill.teachers.shards.texts import Item, Step
from raydistill.teachers.stacking import Calibration
from raydistill.teachers.transformer.model_loading import load_classifier, quiet_transformers
from raydistill.teachers.transformer.padded_model import set_padding
from raydistill.teachers.transformer.pair_tokenizer import load_tokenizer
from raydistill.teachers.transformer.prompt_tokenizer import FINE_TUNED, is_decoder

_WARM_PAIRS = 64  # the first batch loads libraries and tokenizers
_SHARD = "part-00000.parquet"
Figures = dict[str, Any]


def measure_teacher(
    run: Run, name: str, pairs: pa.Table, *, seconds: float, device: str
) -> Figures | None:
    """Seconds of reading, scoring and writing of more and more pairs, until `seconds` are over.

    None: the teacher is fitted by `label` itself, and is not there yet.

    Raises:
        UserError: the teacher cannot score.
    """
    quiet_transformers()
    with tempfile.TemporaryDirectory() as scratch:
        steps = _steps(run, name, Path(scratch))
        if steps is None:
            return None
        start_s = time.monotonic()
        score = steps.make(device)
        load_s = time.monotonic() - start_s
        found: Figures = {}
        for part in _growing(pairs):
            found = _time(part, steps, score, Folder(scratch) / "sample")
            if found["rows"] > _WARM_PAIRS and _total(found) > seconds / 2:
                break
        return {**found, "load_s": load_s, "device": device}


def _growing(pairs: pa.Table) -> Iterator[pa.Table]:
    """The first 64, 256, 512, 1,024, ... pairs: each takes as long as all before it."""
    yield pairs.slice(0, _WARM_PAIRS)
    num = 4 * _WARM_PAIRS
    while num < pairs.num_rows:
        yield pairs.slice(0, num)
        num *= 2
    yield pairs


def _total(found: Figures) -> float:
    return float(found["read_s"] + found["score_s"] + found["write_s"])


def _time(pairs: pa.Table, steps: Steps, score: Step, folder: Folder) -> Figures:
    """The seconds of each step of a shard of these pairs, and the bytes of its logits."""
    folder.write_table(_SHARD, pairs)
    item: Item = {"folder": folder.uri, "name": _SHARD, "target": _SHARD}
    times = [time.monotonic()]
    item, data = steps.before(item, b"")
    times.append(time.monotonic())
    item, data = score(item, data)
    times.append(time.monotonic())
    write_logits(item, data, logits=folder / "logits", quarantine=folder / "bad")
    times.append(time.monotonic())
    read_s, score_s, write_s = (b - a for a, b in pairwise(times))
    return {
        "rows": pairs.num_rows, "read_s": read_s, "score_s": score_s, "write_s": write_s,
        "tokens": item["tokens"], "bytes_each": len((folder / "logits").read_bytes(_SHARD))
        / pairs.num_rows, **item.get("use", {}),
    }  # fmt: skip


def _steps(run: Run, name: str, scratch: Path) -> Steps | None:
    """The steps of a teacher's shards, also before it is fine-tuned or its scale is fitted."""
    kind, is_there = run.config.teacher_kind(name), True
    if kind in (TREES, "scores", "base"):
        is_there = run.teacher(name).success() is not None
    if kind in (TREES, "scores") and not is_there:
        return None
    if kind == "base" and not is_there:
        return _steps_of_base(run, name, scratch / "model")
    teacher = teacher_of(run, name)
    if isinstance(teacher, BiEncoderKind) and read_calibration(run.logits(name)) is None:
        return teacher.steps_with(Calibration(), verdict=None)
    return teacher.steps(verdict=None)


def _steps_of_base(run: Run, name: str, folder: Path) -> Steps:
    """The steps of an encoder with a random head: as fast as the one that `finetune` makes."""
    base = run.model(str(run.config.teachers[name].base))
    source, trusts_code = load_model(base), base.trusts_code
    model = load_classifier(source, dtype=torch.float32, trusts_code=trusts_code, new_head=True)
    if is_decoder(model.config):
        setattr(model.config, FINE_TUNED, "pairs")
    tokenizer = load_tokenizer(source, trusts_code=trusts_code)
    set_padding(model.config, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pinned: PinnedModel = pin_model(str(folder))
    settings = run.config.label
    return Steps(
        partial(read_tokens, model=pinned, max_length=settings.max_length),
        partial(make_scorer, model=pinned, settings=settings),
        partial(write_logits, logits=Folder(str(folder)), quarantine=Folder(str(folder))),
    )
