"""Generative rerankers as teachers: `causal`, scored by the logits of yes and no."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

import torch

from raydistill.config.prompt import Question
from raydistill.config.teachers import LabelConfig
from raydistill.files.model_files import PinnedModel, load_model
from raydistill.runs.run_folder import Run
from raydistill.teachers.base import Steps, this_worker
from raydistill.teachers.causal import CausalTeacher, check_causal
from raydistill.teachers.generative.causal_tokenizer import CausalTokenizer, load_causal_tokenizer
from raydistill.teachers.kinds.model_kind import ModelKind
from raydistill.teachers.scoring_steps import ScoreTokens, read_with
from raydistill.teachers.shards.texts import Item
from raydistill.teachers.transformer.trial_pairs import Pairs, Trial


@dataclass(frozen=True)
class CausalTrial:
    """A trial of a generative reranker."""

    model: PinnedModel
    settings: Trial
    max_length: int
    question: Question
    gpus_each: float

    @property
    def label_dtype(self) -> str:
        """The dtype in which `label` scores."""
        return self.settings.label_dtype

    def here(self, pairs: Pairs, *, device: str, dtype: str) -> bool:
        """Whether prompts may be padded, and their beginnings computed once.

        Raises:
            UserError: see `check_causal`.
        """
        trial = replace(self.settings, pairs=pairs, device=device, dtype=dtype)
        folder = load_model(self.model)
        return check_causal(folder, max_length=self.max_length, question=self.question, trial=trial)


class CausalKind(ModelKind):
    """A ready-made generative reranker."""

    def trial(self) -> CausalTrial:
        """A trial with the settings of `label`."""
        config = self.run.config
        settings = self.trial_settings
        label, question = config.label, question_of(self.run, self.name)
        return CausalTrial(self.model(), settings, label.max_length, question, label.num_gpus)

    def steps(self, *, verdict: bool | None) -> Steps:
        """`verdict`: whether prompts may be padded."""
        settings, question = self.run.config.label, question_of(self.run, self.name)
        model = self.model()
        return Steps(
            before=partial(_read, model=model, max_length=settings.max_length, question=question),
            make=partial(_make, model=model, settings=settings, question=question, pads=verdict),
            after=self.write,
        )


def question_of(run: Run, name: str) -> Question:
    """What the run file says of a teacher's prompt and answers."""
    teacher = run.config.teachers[name]
    return Question(teacher.prompt, teacher.instruction, teacher.yes, teacher.no)


def _read(
    item: Item, _: bytes, *, model: PinnedModel, max_length: int, question: Question
) -> tuple[Item, bytes]:
    return read_with(item, _tokenizer(model, max_length, question))


@cache
def _tokenizer(model: PinnedModel, max_length: int, question: Question) -> CausalTokenizer:
    """The tokenizer, loaded once a process: a process runs many tasks."""
    tokenise = load_causal_tokenizer(
        load_model(model), max_length=max_length, question=question, trusts_code=model.trusts_code
    )
    load_model(model)  # verify that the files did not change during the load
    return tokenise


def _make(
    device: str,
    *,
    model: PinnedModel,
    settings: LabelConfig,
    question: Question,
    pads: bool | None,
) -> ScoreTokens:
    """The scoring step of an actor: on its GPU, else on one core."""
    if device == "cpu":
        torch.set_num_threads(1)  # one actor a core is faster than one actor on all cores
    teacher = CausalTeacher(
        load_model(model),
        device=device,
        dtype=settings.dtype,
        max_length=settings.max_length,
        question=question,
        tokens_per_batch=settings.tokens_per_batch,
        trusts_code=model.trusts_code,
        pads=pads,
    )
    load_model(model)  # verify that the files did not change during the load
    return ScoreTokens.of(teacher, settings=settings, worker=this_worker())
