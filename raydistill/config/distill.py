"""The whole config of a distillation: one student from one teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raydistill.config.base import PositiveInt
from raydistill.config.calibration import RolloutConfig, ScorerConfig, ZeroConfig
from raydistill.config.models import ModelConfig
from raydistill.config.run import Job
from raydistill.config.students import GKD, KD, EvaluationConfig, Matching, Method, OnPolicyRKL, SeqKD


class SFT(Method):
    """Supervised fine-tuning on the task's gold completions; no teacher takes part."""

    method: Literal["sft"]
    """Selects this method."""


class KDAcross(KD):
    """Teacher-forced: on the teacher's sampled completions, by default with the forward KL(teacher || student)."""

    across: Literal["span", "uld", "gold"] = "span"
    """What is compared where the tokenizers differ: `span`, KL of spans of bytes; `uld`, cross-entropy and, where spans start, sorted
    probabilities; `gold`, `span` and, where spans start, the probabilities of tokens that both have, and sorted ones of the others, which
    harms a student whose tokenizer cuts otherwise."""


class GKDAcross(GKD):
    """On-policy distillation: on completions that the student samples, by default with the reverse KL(student || teacher)."""

    across: Literal["span", "gold"] = "span"
    """As for kd, but for `uld`: cross-entropy on what the student samples itself teaches it nothing."""


class SampledRKL(Method):
    """On completions that the student samples, KL(student || teacher) estimated by the sampled tokens alone."""

    method: Literal["sampled_rkl"]
    """Selects this method."""

    @property
    def traces(self) -> int:
        return 0

    @property
    def completions(self) -> int:
        return self.steps * self.batch


DistillMethod = Annotated[SFT | SeqKD | KDAcross | GKDAcross | OnPolicyRKL | SampledRKL, Field(discriminator="method")]


class TrainConfig(ZeroConfig):
    """Ray Train's workers, a ZeRO-3 process each."""

    checkpoint_every: PositiveInt = 50
    """Steps between two checkpoints."""
    max_failures: Annotated[int, Field(ge=0)] = 2
    """How many times training that failed, for whatever reason, is started again from the last checkpoint."""


class Distill(Job):
    """Distil one student and measure it, its teacher and what it was before."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """How models are measured."""
    seed: int = 1
    """Sets what is sampled and the order of the data."""
    teacher: ModelConfig | None = None
    """The model to distil from; `sft` has none."""
    student: ModelConfig
    """The model to train."""
    method: DistillMethod
    """How to distil."""
    offline: str | None = None
    """Folder of a teacher's scored traces, such as `scored/` of an earlier run, from which kd learns; the teacher is not started, and need
    not be named where the student has its tokenizer."""
    max_new_tokens: PositiveInt = 32
    """Tokens at which a completion is cut off."""
    rollout: RolloutConfig = RolloutConfig()
    """Engines that sample from the teacher, then from the student."""
    scorer: ScorerConfig = ScorerConfig()
    """The teacher where it says how likely it finds a token."""
    scorers: PositiveInt = 1
    """How many of them, an actor each."""
    train: TrainConfig = TrainConfig()
    """Training of the student."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """As the main job has them."""
        return (self.seed,)

    @model_validator(mode="after")
    def _has_what_the_method_needs(self) -> Distill:
        if self.teacher is None and not isinstance(self.method, SFT) and not self.offline:
            raise ValueError(f"method {self.method.method!r} needs a teacher; set teacher.model")
        if self.teacher is not None and isinstance(self.method, SFT):
            raise ValueError("method 'sft' learns from the task's gold completions and has no teacher; drop it, or use 'seqkd'")
        if self.offline and not (isinstance(self.method, Matching) and not self.method.on_policy):
            raise ValueError("offline holds a teacher's log-probabilities of fixed traces, which only kd learns from; drop it, or use kd")
        self.rollout.require_room("max_new_tokens", self.max_new_tokens)
        return self
