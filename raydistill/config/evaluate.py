"""The config of an evaluation: how well one model does one task."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raydistill.config.base import PositiveInt, Strict
from raydistill.config.calibration import Dtype, RolloutConfig, ScorerConfig
from raydistill.config.models import ModelConfig
from raydistill.config.run import Job
from raydistill.config.students import MeasuredOn
from raydistill.config.track import TrackConfig


class OptionsConfig(Strict):
    """Multiple choice by likelihood: the option that the model finds likeliest is its answer, and nothing is generated."""

    continuations: Literal["letters", "texts"] = "texts"
    """What is scored after the prompt: each option's letter or its text."""
    lead: str = " "
    """What stands between prompt and option: a space after a plain text such as `... Answer:`, nothing at the start of a chat turn."""


class Measured(MeasuredOn):
    """What is measured, and on which prompts."""

    samples: Annotated[int, Field(ge=0)] = 4
    """Completions of each prompt, at temperature 1; 0 for none."""
    greedy: bool = True
    """Whether there is a greedy completion of each prompt, too."""
    options: OptionsConfig | None = None
    """For multiple choice: how likely the model finds each option; missing, this is not measured."""


class Evaluate(Job):
    """Measure one model on one task."""

    seed: int = 1
    """Sets what is sampled."""
    model: ModelConfig
    """The model to measure."""
    evaluation: Measured = Measured()
    """What is measured, and on which prompts."""
    track: TrackConfig = TrackConfig(uri=None)
    """An evaluation is not recorded in MLflow: `uri` must stay null."""
    max_new_tokens: PositiveInt = 32
    """Tokens at which a completion is cut off."""
    dtype: Dtype = "float32"
    """Type of the weights."""
    rollout: RolloutConfig = RolloutConfig()
    """Engines that sample from the model."""
    scorer: ScorerConfig = ScorerConfig()
    """The model where it says how likely it finds an option."""

    @model_validator(mode="after")
    def _can_be_measured(self) -> Evaluate:
        if self.track.uri is not None:
            raise ValueError("track.uri: an evaluation is not recorded in MLflow; drop it")
        if not (self.generates or self.evaluation.options):
            raise ValueError("evaluation: measures nothing; set evaluation.greedy=true, evaluation.samples or evaluation.options")
        self.rollout.require_room("max_new_tokens", self.max_new_tokens)
        return self

    @property
    def generates(self) -> bool:
        """Whether engines are needed."""
        return self.evaluation.greedy or self.evaluation.samples > 0
