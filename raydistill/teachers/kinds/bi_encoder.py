"""The cosine of a sentence encoder as a teacher: its trial, its steps, its scale and bias."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from raydistill.config.teachers import LabelConfig
from raydistill.errors import UserError
from raydistill.files.folder import Folder
from raydistill.files.model_files import PinnedModel, load_model
from raydistill.runs.run_folder import Run
from raydistill.teachers.base import Steps, this_worker
from raydistill.teachers.bi_encoder import (
    ScoreCosines,
    check_bi_encoder,
    pack_sentences,
    read_sentences,
    sentence_tokenizer,
)
from raydistill.teachers.kinds.model_kind import ModelKind
from raydistill.teachers.shards.texts import Item, Step, from_bytes
from raydistill.teachers.stacking import Calibration, fit_calibration
from raydistill.teachers.transformer.trial_pairs import Pairs, Trial

CALIBRATION = "_calibration.json"  # beside the logits
_SAMPLE_PAIRS = 4_096  # a standard error of 3 % for the scale; 20 s of a core with MiniLM


@dataclass(frozen=True)
class BiEncoderTrial:
    """A trial of a sentence encoder."""

    model: PinnedModel
    settings: Trial
    max_length: int
    gpus_each: float

    @property
    def label_dtype(self) -> str:
        """The dtype in which `label` embeds."""
        return self.settings.label_dtype

    def here(self, pairs: Pairs, *, device: str, dtype: str) -> bool:
        """Whether texts of different length may share a batch.

        Raises:
            UserError: see `check_bi_encoder`.
        """
        trial = replace(self.settings, pairs=pairs, device=device, dtype=dtype)
        return check_bi_encoder(load_model(self.model), max_length=self.max_length, trial=trial)


class BiEncoderKind(ModelKind):
    """A sentence encoder of a run."""

    def trial(self) -> BiEncoderTrial:
        """A trial with the settings of `label`."""
        label = self.run.config.label
        trusts_code = self.run.config.teachers[self.name].trust_remote_code
        settings = Trial(trusts_code=trusts_code, label_dtype=label.dtype)
        return BiEncoderTrial(self.model(), settings, label.max_length, label.num_gpus)

    def steps(self, *, verdict: bool | None) -> Steps:
        """`verdict`: whether texts may be padded.

        Raises:
            UserError: the scale and the bias are not fitted yet.
        """
        calibration = read_calibration(self.run.logits(self.name))
        if calibration is None:
            raise UserError(f"{self.run.logits(self.name)} has no {CALIBRATION}: run `label`")
        return self.steps_with(calibration, verdict=verdict)

    def calibration_steps(self, *, verdict: bool | None) -> Steps:
        """The steps that fit and write the scale and the bias; they take an item with `target`."""
        settings = self.run.config.label
        before = partial(
            _read_sample, run=self.run, model=self.model(), max_length=settings.max_length
        )
        # All pairs may be bad here: the shards' own check names the reason.
        lenient = settings.model_copy(update={"max_bad_fraction": 1.0})
        whole = self.steps_with(Calibration(1.0, 0.0), verdict=verdict, settings=lenient)
        return Steps(before, whole.make, partial(_write_calibration, run=self.run, name=self.name))

    def steps_with(
        self,
        calibration: Calibration,
        *,
        verdict: bool | None,
        settings: LabelConfig | None = None,
    ) -> Steps:
        """The steps with a given scale and bias, and `settings` in place of `[label]`."""
        settings, model = settings or self.run.config.label, self.model()
        make = partial(_make, model=model, settings=settings, calibration=calibration, pads=verdict)
        before = partial(read_sentences, model=model, max_length=settings.max_length)
        return Steps(before, make, self.write)


def _make(
    device: str,
    *,
    model: PinnedModel,
    settings: LabelConfig,
    calibration: Calibration,
    pads: bool | None,
) -> Step:
    if device == "cpu":
        torch.set_num_threads(1)  # one actor a core is faster than one actor on all cores
    return ScoreCosines(
        model=model,
        settings=settings,
        device=device,
        calibration=calibration,
        worker=this_worker(),
        pads=pads,
    )


def read_calibration(logits: Folder) -> Calibration | None:
    """The scale and the bias of the logits in a folder; None: not fitted yet."""
    found = logits.read_json(CALIBRATION)
    return None if found is None else Calibration(**found)


def write_calibration(logits: Folder, calibration: Calibration) -> None:
    """Write the scale and the bias beside the logits."""
    logits.write_json(CALIBRATION, asdict(calibration))


def judged_sample(run: Run) -> pa.Table:
    """At most 4,096 judged train pairs, all those of some random queries: pair_id to label.

    Train, as the stack is fitted on dev and the report is of test.
    """
    folder, columns = run.judged("train"), ["pair_id", "query", "title", "label"]
    parts = [folder.read_table(name, columns=columns) for name in folder.shards()]
    rows = pa.concat_tables(parts).combine_chunks()
    queries = pc.value_counts(rows["query"].combine_chunks())
    order = np.random.default_rng(0).permutation(len(queries))
    sums = np.cumsum(queries.field("counts").to_numpy()[order])
    num_queries = max(1, int(np.searchsorted(sums, _SAMPLE_PAIRS, side="right")))
    kept = queries.field("values").take(pa.array(order[:num_queries]))
    return rows.filter(pc.is_in(rows["query"], value_set=kept))


def _read_sample(
    item: Item, _: bytes, *, run: Run, model: PinnedModel, max_length: int
) -> tuple[Item, bytes]:
    tokenise = sentence_tokenizer(model, max_length)
    return {**item, "read_s": 0.0}, pack_sentences(judged_sample(run), tokenise)


def _write_calibration(item: Item, data: bytes, *, run: Run, name: str) -> tuple[Item, bytes]:
    """Fit scale and bias on the cosines of the sample and write them."""
    scored, sample = from_bytes(data), judged_sample(run)
    cosines_B = scored["logit"].to_numpy().astype(np.float32)  # NaN for null
    groups_B = sample["query"].combine_chunks().dictionary_encode().indices.to_numpy()
    labels_B = sample["label"].to_numpy()
    found = fit_calibration(cosines_B, labels_B, groups_B.astype(np.int64))
    write_calibration(run.logits(name), found)
    return {**item, **asdict(found)}, b""
