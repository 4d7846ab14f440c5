"""The whole config of one run of the main job, and what all jobs have."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from raydistill.config.base import Strict
from raydistill.config.calibration import CalibrationConfig, LearnerConfig, RolloutConfig, ScorerConfig
from raydistill.config.diagnosis import DiagnosisConfig
from raydistill.config.knob import KnobConfig
from raydistill.config.models import ModelConfig
from raydistill.config.shadows import ShadowsConfig
from raydistill.config.students import EvaluationConfig, MeasuredOn, StudentsConfig
from raydistill.config.task import ArithmeticTask, TaskConfig, VerifierConfig, is_graded
from raydistill.config.track import TrackConfig


class Job(Strict):
    """What the config of every job has."""

    name: str = "run"
    """Name of the run; its folder is `runs/NAME` unless --out says otherwise."""
    task: TaskConfig = ArithmeticTask()
    """Prompts and their verifier."""
    verifier: VerifierConfig = VerifierConfig()
    """Processes that check answers."""
    evaluation: MeasuredOn = MeasuredOn()
    """How models are measured."""
    track: TrackConfig = TrackConfig()
    """Where the run is recorded."""

    @field_validator("name")
    @classmethod
    def _is_a_folder_name(cls, value: str) -> str:
        if not re.fullmatch(r"\w[\w.+-]*", value):
            raise ValueError("must be letters, digits, '_', '-', '+' and '.' only: it names a folder")
        return value


class Run(Job):
    """Calibrate one teacher at one knob setting; distil and evaluate students."""

    evaluation: EvaluationConfig = EvaluationConfig()
    """How models are measured."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
    """Each seed calibrates a teacher and distils its students. Sampling and order follow from it; adapters start from the first one's."""
    teacher: ModelConfig
    """The model to calibrate; as it is before the run it is also the anchor."""
    proxy: ModelConfig | None = None
    """The frozen calibration model, smaller than any student, possibly of another family and tokenizer; never the student itself."""
    shadows: ShadowsConfig | None = None
    """Students distilled during the calibration, in the place of the proxy; none if missing."""
    knob: KnobConfig = KnobConfig()
    """The knob."""
    calibration: CalibrationConfig = CalibrationConfig()
    """Steps and their size."""
    rollout: RolloutConfig = RolloutConfig()
    """Engines that sample from the teacher."""
    scorer: ScorerConfig = ScorerConfig()
    """Proxy and anchor."""
    learner: LearnerConfig = LearnerConfig()
    """Policy gradient and optimiser."""
    students: StudentsConfig | None = None
    """Students to distil; none if missing."""
    diagnosis: DiagnosisConfig | None = None
    """Diagnose teachers and students, for a section of the report; not done if missing, or without students."""

    @property
    def diagnosed(self) -> bool:
        return self.diagnosis is not None and self.students is not None

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value):
            raise ValueError("seeds repeat; give different ones")
        return value

    @model_validator(mode="after")
    def _has_one_source_of_calibration_rewards(self) -> Run:
        if self.proxy is None and self.shadows is None:
            raise ValueError("proxy: missing; name a calibration model, or give shadows, which take its place")
        if self.proxy is not None and self.shadows is not None:
            raise ValueError("proxy: given beside shadows, which take its place; set proxy=null or shadows=null")
        return self

    @model_validator(mode="after")
    def _has_right_answers_where_it_needs_them(self) -> Run:
        if is_graded(self.task) and self.knob.cal_on == "right":
            raise ValueError(
                f"knob.cal_on: 'right', but completions of a task of kind {self.task.kind} are better or worse; set it to 'all'"
            )
        if is_graded(self.task) and self.shadows and self.shadows.use == "influence":
            raise ValueError(
                f"shadows.use: 'influence' is on right answers, and a task of kind {self.task.kind} has better and worse ones; use 'scorer'"
            )
        return self

    @model_validator(mode="after")
    def _can_measure_its_target(self) -> Run:
        if self.knob.target and not (self.students and self.students.seqkd):
            raise ValueError("knob.target: is measured on students of method seqkd, and students.methods has none; add one")
        return self

    @model_validator(mode="after")
    def _fits_the_context(self) -> Run:
        self.rollout.require_room("calibration.max_new_tokens", self.calibration.max_new_tokens)
        return self
