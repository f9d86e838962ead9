"""What the kinds share whose logits a model of a folder computes."""

from __future__ import annotations

from raydistill.files.model_files import PinnedModel
from raydistill.teachers.base import Needs, TeacherKind
from raydistill.teachers.transformer.trial_pairs import Trial


class ModelKind(TeacherKind):
    """A teacher with a model, which runs as `[label]` says."""

    @property
    def needs(self) -> Needs:
        """As `[label]` says."""
        settings = self.run.config.label
        return Needs(settings.num_gpus, settings.num_actors)

    def model(self) -> PinnedModel:
        """The model's folder.

        Raises:
            UserError: the model does not exist, or is not fine-tuned yet.
        """
        return self.run.teacher_model(self.name)

    @property
    def trial_settings(self) -> Trial:
        """A trial with the settings of `label`, without pairs."""
        config = self.run.config
        return Trial(
            has_query=bool(config.pairs.query),
            trusts_code=config.teachers[self.name].trust_remote_code,
            label_dtype=config.label.dtype,
        )
