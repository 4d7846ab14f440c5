"""A sweep: the main job at many settings of the knob, crossed with any other field."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from raydistill.config.base import PositiveInt, Strict
from raydistill.config.run import Run
from raydistill.config.students import Method

Etas = Annotated[tuple[float, ...], Field(min_length=1)]


class EtaRange(Strict):
    """Evenly spaced settings of the knob."""

    low: float
    """The least eta."""
    high: float
    """The greatest eta."""
    count: Annotated[int, Field(ge=2)]
    """How many, both ends among them."""

    @model_validator(mode="after")
    def _ascends(self) -> EtaRange:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self

    def values(self) -> tuple[float, ...]:
        step = (self.high - self.low) / (self.count - 1)
        return tuple(round(self.low + place * step, 12) for place in range(self.count))


ListOrRange = Annotated[
    Annotated[Etas, Tag("list")] | Annotated[EtaRange, Tag("range")],
    Discriminator(lambda value: "range" if isinstance(value, dict | EtaRange) else "list"),
]


class LookedAt(Method):
    """The budget of a student that is only looked at."""

    steps: PositiveInt = 100
    """Optimiser steps."""
    samples: PositiveInt = 1024
    """Traces, one for each of as many train prompts, drawn again in order where there are fewer prompts."""


class ASHA(Strict):
    """Asynchronous successive halving: trials whose students do badly, by a cheap look at them on the way, are stopped early."""

    kind: Literal["asha"]
    """Selects this scheduler."""
    keep: Literal["high", "low"] = "high"
    """Trials go on whose students score high, for the best student; or low, for protection."""
    first_look: PositiveInt = 5
    """Steps before the first look. Each further one comes after `factor` times as many."""
    factor: Annotated[int, Field(ge=2)] = 2
    """At each look one trial of so many goes on."""
    students: LookedAt = LookedAt()
    """What a look is: one student, distilled by SeqKD from the teacher of the moment, with this budget."""
    prompts: PositiveInt = 200
    """Prompts of the tune split on which it is measured."""


class SweepConfig(Strict):
    """Which trials there are, and how many run at once."""

    eta: ListOrRange = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
    """Settings of the knob: a list, or a range such as {low: -2, high: 2, count: 9}."""
    over: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}  # noqa: RUF012 - pydantic copies it
    """Other fields and their values, such as {learner.lr: [1e-3, 2e-3]}; every combination with every eta is a trial."""
    scheduler: ASHA | None = None
    """Stops trials early; all run to their end if missing."""
    trials_at_once: PositiveInt | None = None
    """Trials that run side by side; as many as there is room for if missing."""
    beside: str | None = None
    """Folder of another sweep that is finished; its curve is drawn beside this one's."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How many times a trial that failed is started again. It goes on where it was; bad input is not tried again."""

    @property
    def etas(self) -> tuple[float, ...]:
        return self.eta.values() if isinstance(self.eta, EtaRange) else self.eta

    @field_validator("eta")
    @classmethod
    def _etas_differ(cls, value: Etas | EtaRange) -> Etas | EtaRange:
        if isinstance(value, tuple) and len(set(value)) != len(value):
            repeated = next(eta for eta in value if value.count(eta) > 1)
            raise ValueError(f"{repeated:g} is given twice; give different ones")
        return value

    @field_validator("over")
    @classmethod
    def _eta_has_its_own_list(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for field in value:
            if field in ("knob.eta", "name") or field.partition(".")[0] in ("sweep", "track"):
                raise ValueError(f"{field!r} cannot be crossed with eta: it is the sweep's own; values of eta go into sweep.eta")
        return value


class Sweep(Run):
    """The main job at many settings. All fields but `sweep` are those of the main job; `knob.eta` is set by the sweep."""

    sweep: SweepConfig = SweepConfig()
    """The trials."""

    @model_validator(mode="after")
    def _sets_eta_itself(self) -> Sweep:
        if self.knob.target:
            raise ValueError("knob.target: moves eta, and a sweep sets it; set knob.target=null, or use `raydistill calibrate`")
        return self

    @model_validator(mode="after")
    def _has_what_its_scheduler_needs(self) -> Sweep:
        scheduler = self.sweep.scheduler
        if scheduler and self.students is None:
            raise ValueError("sweep.scheduler: asha looks at students, and the config has none; set students, or scheduler=null")
        if scheduler and scheduler.first_look > self.calibration.steps:
            raise ValueError(
                f"sweep.scheduler.first_look ({scheduler.first_look}) comes after calibration.steps ({self.calibration.steps}) are over"
            )
        return self
