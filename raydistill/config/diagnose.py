"""The config of a diagnosis: why a student does, or would, learn badly from a teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raydistill.config.base import PositiveInt, Strict
from raydistill.config.calibration import Dtype, RolloutConfig, ScorerConfig
from raydistill.config.models import ModelConfig
from raydistill.config.run import Job
from raydistill.config.students import EvaluationConfig


class DiagnoseEvaluation(EvaluationConfig):
    """What is measured on. A diagnosis is for choices, hence the tune split."""

    split: Literal["tune", "report"] = "tune"
    """Prompts to measure on."""


class GradientProbeConfig(Strict):
    """How much the length of the gradient varies, on texts of the teacher and on the student's own; nothing is trained."""

    batches: Annotated[int, Field(ge=3)] = 16
    """Micro-batches of either's completions, of the same prompts; fewer where there are fewer prompts."""
    completions: PositiveInt = 4
    """Completions of a micro-batch, of different prompts."""
    micro_batch_tokens: PositiveInt = 512
    """Tokens, padding included, in one forward and backward pass."""


class Diagnose(Job):
    """Measure traps and symptoms of one teacher and one student."""

    seed: int = 1
    """Sets what is sampled, and which steps are corrupted."""
    teacher: ModelConfig
    """The model to distil from."""
    student: ModelConfig
    """The model that learns, or has learnt, from it."""
    after: ModelConfig | None = None
    """The student after distillation, to be set beside `student`, which is then the one before it; none if missing."""
    evaluation: DiagnoseEvaluation = DiagnoseEvaluation()
    """Prompts, and completions of each by the teacher and by the student."""
    wrong_pairs: PositiveInt = 200
    """Pairs of a wrong and a right trace of one prompt that wrong-trace preference needs; where the teacher's own are fewer, or of fewer
    than 10 prompts, steps of its right traces are corrupted, or of gold completions where those are fewer, too."""
    gradient_probe: GradientProbeConfig | None = GradientProbeConfig()
    """Gradients to measure where the models have one tokenizer; null for none."""
    max_new_tokens: PositiveInt = 32
    """Tokens at which a completion is cut off."""
    dtype: Dtype = "float32"
    """Type of the weights."""
    rollout: RolloutConfig = RolloutConfig()
    """Engines that sample from the teacher, then from the student."""
    scorer: ScorerConfig = ScorerConfig()
    """The teacher, the student, and, where they have one tokenizer, both in one process: an actor each."""

    @model_validator(mode="after")
    def _can_be_measured(self) -> Diagnose:
        self.rollout.require_room("max_new_tokens", self.max_new_tokens)
        return self
