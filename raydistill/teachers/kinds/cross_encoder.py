"""Cross-encoders as teachers: `base`, fine-tuned on the judged pairs, and ready-made `model`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch

from raydistill.config.teachers import LabelConfig
from raydistill.files.model_files import PinnedModel, load_model
from raydistill.runs.run_folder import Run
from raydistill.teachers.base import Steps, this_worker
from raydistill.teachers.cross_encoder import check_model
from raydistill.teachers.heads.class_gains import GivenGains
from raydistill.teachers.kinds.model_kind import ModelKind
from raydistill.teachers.scoring_steps import ScoreTokens, read_tokens
from raydistill.teachers.transformer.trial_pairs import Pairs, Trial


@dataclass(frozen=True)
class CrossEncoderTrial:
    """A trial of a cross-encoder, or of an encoder that is to be fine-tuned."""

    model: PinnedModel
    settings: Trial
    max_length: int
    prompt: str | None
    gpus_each: float
    gains: GivenGains | None = None

    @property
    def label_dtype(self) -> str:
        """The dtype in which `label` scores."""
        return self.settings.label_dtype

    def here(self, pairs: Pairs, *, device: str, dtype: str) -> bool:
        """Whether the model's pairs may be padded.

        Raises:
            UserError: see `check_model`.
        """
        trial = replace(self.settings, pairs=pairs, device=device, dtype=dtype)
        folder = load_model(self.model)
        return check_model(
            folder,
            max_length=self.max_length,
            prompt=self.prompt,
            gains=self.gains,
            trial=trial,
        )


class CrossEncoderKind(ModelKind):
    """A cross-encoder that is ready-made, or that `finetune` has made."""

    def trial(self) -> CrossEncoderTrial:
        """A trial with the settings of `label`."""
        config = self.run.config
        settings = self.trial_settings
        teacher, label = config.teachers[self.name], config.label
        return CrossEncoderTrial(
            self.model(),
            settings,
            label.max_length,
            teacher.prompt,
            label.num_gpus,
            teacher.named_gains,
        )

    def steps(self, *, verdict: bool | None) -> Steps:
        """`verdict`: whether pairs may be padded."""
        settings = self.run.config.label
        # A ready-made teacher is passed by its name: its folder differs between machines.
        model, teacher = self.model(), self.run.config.teachers[self.name]
        prompt, gains = teacher.prompt, teacher.named_gains
        make = partial(make_scorer, model=model, settings=settings, prompt=prompt, gains=gains)
        return Steps(
            before=partial(read_tokens, model=model, max_length=settings.max_length, prompt=prompt),
            make=partial(make, pads=verdict),
            after=self.write,
        )


def make_scorer(
    device: str,
    *,
    model: PinnedModel,
    settings: LabelConfig,
    prompt: str | None = None,
    gains: GivenGains | None = None,
    pads: bool | None = None,
) -> ScoreTokens:
    """The scoring step of an actor: on its GPU, else on one core."""
    if device == "cpu":
        torch.set_num_threads(1)  # one actor a core is faster than one actor on all cores
    return ScoreTokens(
        model=model,
        settings=settings,
        device=device,
        worker=this_worker(),
        prompt=prompt,
        gains=gains,
        pads=pads,
    )


def trial_of_base(run: Run, name: str) -> CrossEncoderTrial:
    """The trial of a teacher's `base` as an encoder that `finetune` can train.

    The encoder must take the longest pairs of `finetune` and of `label`.
    """
    teacher, config = run.config.teachers[name], run.config
    if teacher.base is None:
        raise ValueError(f"teacher {name} has no base: there is nothing to try")
    settings = Trial(
        has_query=bool(config.pairs.query), trusts_code=teacher.trust_remote_code, is_base=True
    )
    longest = max(config.finetune.max_length, config.label.max_length)
    gpus_each = config.finetune.num_gpus
    return CrossEncoderTrial(run.model(teacher.base), settings, longest, None, gpus_each)
