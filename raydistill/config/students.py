"""What is distilled from the calibrated teacher and, as the paired control, from the original one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raydistill.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Strict
from raydistill.config.models import ModelConfig

Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0.01)]


class Method(Strict):
    """How long a student is trained, and on how much."""

    steps: PositiveInt = 250
    """Optimiser steps."""
    batch: PositiveInt = 32
    """Completions a step."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate."""
    samples: PositiveInt = 2048
    """Traces, one for each of as many train prompts, drawn again in order where there are fewer prompts."""

    @property
    def traces(self) -> int:
        """How many of the teacher's completions a student is given."""
        return self.samples

    @property
    def completions(self) -> int:
        """How many different completions, whoever sampled them, a student learns from; on average where that is left to chance."""
        return min(self.samples, self.steps * self.batch)


class SeqKD(Method):
    """Supervised fine-tuning on the teacher's sampled completions. `sft_gold` is the same on the task's gold completions."""

    method: Literal["seqkd"]
    """Selects this method."""


class _Matching(Method):
    """A divergence between the student's and the teacher's distributions at each token of a completion."""

    on_policy: Share
    """GKD's lambda: how likely a step is to use completions that the student samples now, and not the teacher's of `samples`."""
    jsd_beta: Share
    """Generalised JSD: 0 is KL(teacher || student), 1 is KL(student || teacher)."""
    temperature: Temperature = 1.0
    """Softens both distributions. The student samples at 1 all the same."""
    top_k: PositiveInt | None = None
    """How many of the teacher's likeliest tokens the student is told of, all others together as one; missing, the whole vocabulary."""

    @property
    def traces(self) -> int:
        return self.samples if self.on_policy < 1 else 0

    @property
    def completions(self) -> int:
        fresh = round(self.on_policy * self.steps * self.batch)
        return fresh + min(self.traces, self.steps * self.batch - fresh)


class KD(_Matching):
    """Teacher-forced: on the teacher's sampled completions, by default with the forward KL(teacher || student)."""

    method: Literal["kd"]
    """Selects this method."""
    on_policy: Literal[0] = 0
    """The student samples nothing."""
    jsd_beta: Share = 0.0
    """Generalised JSD: 0 is KL(teacher || student), 1 is KL(student || teacher)."""


class GKD(_Matching):
    """On-policy distillation: on completions that the student samples, by default with the reverse KL(student || teacher)."""

    method: Literal["gkd"]
    """Selects this method."""
    on_policy: Share = 1.0
    """GKD's lambda: how likely a step is to use completions that the student samples now, and not the teacher's of `samples`."""
    jsd_beta: Share = 1.0
    """Generalised JSD: 0 is KL(teacher || student), 1 is KL(student || teacher)."""


class OnPolicyRKL(_Matching):
    """GKD with every completion sampled by the student, and the reverse KL(student || teacher)."""

    method: Literal["on_policy_rkl"]
    """Selects this method."""
    on_policy: Literal[1] = 1
    """All completions are the student's."""
    jsd_beta: Literal[1] = 1
    """KL(student || teacher)."""


Matching = KD | GKD | OnPolicyRKL
MethodConfig = Annotated[SeqKD | KD | GKD | OnPolicyRKL, Field(discriminator="method")]


class StudentsConfig(Strict):
    """The students of a run. Seed k distils from the teacher that was calibrated with seed k."""

    model: ModelConfig
    """The student before distillation."""
    methods: Annotated[tuple[MethodConfig, ...], Field(min_length=1)]
    """Ways to distil, each with a student from the calibrated and one from the original teacher for every seed."""
    micro_batch_tokens: PositiveInt = 8192
    """Tokens, padding included, in one forward and backward pass."""
    parallel: PositiveInt = 2
    """Students trained at once, a process each."""
    cpus: NonNegativeFloat = 0.5
    """Logical CPUs that Ray reserves for each student."""
    gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for each student."""

    @property
    def seqkd(self) -> SeqKD | None:
        """The method of that name, where it is one of them."""
        return next((method for method in self.methods if isinstance(method, SeqKD)), None)

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, value: tuple[MethodConfig, ...]) -> tuple[MethodConfig, ...]:
        if len({method.method for method in value}) != len(value):
            raise ValueError("a method is given twice; its students would have the same names: use a run for each")
        return value


class MeasuredOn(Strict):
    """Prompts to measure on."""

    split: Literal["tune", "report"] = "report"
    """Prompts to measure on. Choices are made on tune; report is for figures alone."""
    prompts: PositiveInt | None = None
    """Use only the first this many prompts of the split; all if missing."""


class EvaluationConfig(MeasuredOn):
    """How scores are measured."""

    teacher_samples: PositiveInt = 4
    """Completions of each prompt, at temperature 1, for a teacher."""
    student_samples: PositiveInt = 2
    """Completions of each prompt, at temperature 1, for a student."""
