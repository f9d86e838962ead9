"""A ready-made cross-encoder scores pairs on this machine, without a run folder and without Ray."""

from __future__ import annotations

import logging
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raydistill.errors import UserError
from raydistill.files.model_files import load_model, pin_model
from raydistill.progress import Progress
from raydistill.teachers.cross_encoder import Teacher, check_model
from raydistill.teachers.transformer.device import device_use, use_text
from raydistill.teachers.transformer.trial_pairs import Trial

logger = logging.getLogger("raydistill")
_TRIAL_PAIRS = 200
_PIECE_ROWS = 16_384  # sorted by length together: less padding than in small pieces
_NAMED = re.compile(r"([\w.-]+)=(.+)")


@dataclass(frozen=True)
class TeacherModel:
    """A cross-encoder, named as `[teachers.x] model`: a folder, `s3://`, a package or a hub name.

    `max_length`: wordpieces of a pair; longer pairs are cut.
    """

    name: str
    source: str
    max_length: int = 128


@dataclass(frozen=True)
class TeacherLogits:
    """One logit a pair (NaN: none), and the time that a pair took."""

    logits_B: NDArray[np.float32]
    us_per_pair: float


def named_teachers(given: Sequence[str], *, max_length: int) -> list[TeacherModel]:
    """The teachers of options `MODEL` or `NAME=MODEL`; the default name is that of the folder.

    Raises:
        UserError: two teachers have one name, or one has that of the ensemble.
    """
    models: dict[str, TeacherModel] = {}
    for text in given:
        named = _NAMED.fullmatch(text) if not Path(text).exists() else None
        source = named[2] if named else text
        name = named[1] if named else PurePosixPath(source.partition("?")[0]).name
        if name == "ensemble":
            raise UserError(
                f"--teacher {text}: the name is that of the mean of all; give NAME={source}"
            )
        if name in models:
            raise UserError(
                f"--teacher {text}: two teachers have the name {name!r}; give NAME={source}"
            )
        models[name] = TeacherModel(name, source, max_length)
    return list(models.values())


def teacher_logits(
    model: TeacherModel, queries: pa.StringArray, titles: pa.StringArray, *, has_query: bool
) -> TeacherLogits:
    """The logits of a teacher, on a GPU if torch sees one.

    Raises:
        UserError: the model does not exist, is no cross-encoder, or cannot score the pairs.
    """
    try:
        teacher = _load(model, queries, titles, has_query=has_query)
    except UserError as error:
        hint = "; --max-length sets label.max_length" if "label.max_length" in str(error) else ""
        raise UserError(f"--teacher {model.name}: {error}{hint}") from error
    use = use_text(device_use(teacher.device, dtype=teacher.dtype))
    logger.info("teacher   %s: %s pairs on %s", model.name, f"{len(titles):,}", use)
    starts = range(0, len(titles), _PIECE_ROWS)
    progress = Progress("teacher", num_items=len(starts), num_rows=len(titles), unit="pieces")
    parts, start_s = [np.empty(0, np.float32)], time.monotonic()
    for start in starts:
        piece = (texts.slice(start, _PIECE_ROWS).to_pylist() for texts in (queries, titles))
        parts.append(teacher.logits(*piece))
        progress.add(rows=len(parts[-1]), note=model.name)
    logits_B = np.concatenate(parts)
    num_none = int((~np.isfinite(logits_B)).sum())
    if num_none:
        logger.warning(
            "teacher   %s has no finite logit of %s pairs: it is measured on the others",
            model.name, f"{num_none:,}",
        )  # fmt: skip
    us_per_pair = (time.monotonic() - start_s) / max(len(titles), 1) * 1e6
    return TeacherLogits(np.where(np.isfinite(logits_B), logits_B, np.nan), us_per_pair)


def _load(
    model: TeacherModel, queries: pa.StringArray, titles: pa.StringArray, *, has_query: bool
) -> Teacher:
    """The teacher, tried with some of the pairs first as before a run."""
    pinned = pin_model(model.source)
    folder = load_model(pinned)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    some = zip(queries[:_TRIAL_PAIRS].to_pylist(), titles[:_TRIAL_PAIRS].to_pylist(), strict=True)
    trial = Trial(
        pairs=tuple(dict.fromkeys(islice(some, _TRIAL_PAIRS))),
        has_query=has_query, device=device, label_dtype="auto",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries' warnings ask for no action by the user
        pads = check_model(folder, max_length=model.max_length, trial=trial)
        return Teacher(folder, device=device, dtype="auto", max_length=model.max_length, pads=pads)
