"""What is distilled from the calibrated teacher and, as the paired control, from the original one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raydistill.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Strict
from raydistill.config.models import ModelConfig


class SeqKD(Strict):
    """Supervised fine-tuning on the teacher's sampled completions. `sft_gold` is the same on the task's gold completions."""

    method: Literal["seqkd"]
    """Selects this method."""
    samples: PositiveInt = 2048
    """Traces, one for each of as many train prompts, drawn again in order where there are fewer prompts."""
    steps: PositiveInt = 250
    """Optimiser steps."""
    batch: PositiveInt = 32
    """Traces a step."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate."""


class GKD(Strict):
    """On-policy distillation: reverse KL(student || teacher) on completions that the student samples."""

    method: Literal["gkd"]
    """Selects this method."""
    steps: PositiveInt = 250
    """Optimiser steps."""
    batch: PositiveInt = 32
    """Completions a step, one a prompt."""
    lr: PositiveFloat = 2e-3
    """Peak learning rate."""


MethodConfig = Annotated[SeqKD | GKD, Field(discriminator="method")]


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

    @field_validator("methods")
    @classmethod
    def _methods_differ(cls, value: tuple[MethodConfig, ...]) -> tuple[MethodConfig, ...]:
        if len({method.method for method in value}) != len(value):
            raise ValueError("a method is given twice; its students would have the same names: use a run for each")
        return value


class EvaluationConfig(Strict):
    """How scores are measured."""

    split: Literal["tune", "report"] = "report"
    """Prompts to measure on. Choices are made on tune; report is for figures alone."""
    prompts: PositiveInt | None = None
    """Use only the first this many prompts of the split; all if missing."""
    teacher_samples: PositiveInt = 4
    """Completions of each prompt, at temperature 1, for a teacher."""
    student_samples: PositiveInt = 2
    """Completions of each prompt, at temperature 1, for a student."""
