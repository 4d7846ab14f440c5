"""A sweep: the main job at many settings of the knob, crossed with any other field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from raydistill.config.base import PositiveInt, Strict
from raydistill.config.run import Run
from raydistill.config.students import Method

SCHEDULED = ("learner.lr", "learner.kl_coef")
"""What `learner.schedule` can change."""

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


class Looking(Strict):
    """Cheap looks at students on the way, of the first seed, that tell which trials are worth their time."""

    keep: Literal["high", "low"] = "high"
    """The better trials are those whose students score high, for the best student; or low, for protection."""
    students: LookedAt = LookedAt()
    """What a look is: one student, distilled by SeqKD from the teacher of the moment, with this budget."""
    prompts: PositiveInt = 200
    """Prompts of the tune split on which it is measured."""


class ASHA(Looking):
    """Asynchronous successive halving: trials whose students do badly are stopped early."""

    kind: Literal["asha"]
    """Selects this scheduler."""
    first_look: PositiveInt = 5
    """Steps before the first look. Each further one comes after `factor` times as many."""
    factor: Annotated[int, Field(ge=2)] = 2
    """At each look one trial of so many goes on."""


class PBT(Looking):
    """Population-based training of the learner's settings in `sweep.over`: trials whose students do badly go on from the teacher of one
    that does well, with its settings changed a little. What is found is a schedule of settings, which the other seeds then follow."""

    kind: Literal["pbt"]
    """Selects this scheduler."""
    every: PositiveInt = 5
    """Steps from one look to the next."""
    replace: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Share of the trials that is replaced after a look, rounded up."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Probability of any value of the field's list rather than one beside the present one."""


class SweepConfig(Strict):
    """Which trials there are, and how many run at once."""

    eta: ListOrRange = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
    """Settings of the knob: a list, or a range such as {low: -2, high: 2, count: 9}."""
    over: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}  # noqa: RUF012 - pydantic copies it
    """Other fields and their values, such as {learner.lr: [1e-3, 2e-3]}; every combination with every eta is a trial."""
    scheduler: Annotated[ASHA | PBT, Field(discriminator="kind")] | None = None
    """Stops trials early (asha) or lets them learn from one another (pbt); all run to their end, as they are, if missing."""
    trials_at_once: PositiveInt | None = None
    """Trials that run side by side; as many as there is room for if missing."""
    beside: str | None = None
    """Folder of another sweep that is finished; its curve is drawn beside this one's."""
    retries: Annotated[int, Field(ge=0)] = 1
    """How many times a trial that failed is started again. It goes on where it was; bad input is not tried again."""

    @property
    def etas(self) -> tuple[float, ...]:
        return self.eta.values() if isinstance(self.eta, EtaRange) else self.eta

    def require_time_to_look(self, steps: int) -> None:
        """Raises ValueError where a calibration of so many steps is over before its scheduler has looked at it."""
        if self.scheduler is None:
            return
        name, first = ("every", self.scheduler.every) if isinstance(self.scheduler, PBT) else ("first_look", self.scheduler.first_look)
        if first >= steps:
            raise ValueError(f"sweep.scheduler.{name} ({first}) comes after calibration.steps ({steps}) are over")

    @field_validator("eta", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("eta")
    @classmethod
    def _etas_differ(cls, value: Etas | EtaRange) -> Etas | EtaRange:
        if isinstance(value, tuple) and len(set(value)) != len(value):
            repeated = next(eta for eta in value if value.count(eta) > 1)
            raise ValueError(f"{repeated:g} is given twice; give different ones")
        return value

    @field_validator("over", mode="before")
    @classmethod
    def _fields_may_be_nested(cls, value: Any) -> Any:
        return dict(_flat(value)) if isinstance(value, dict) else value

    @field_validator("over")
    @classmethod
    def _fields_are_apart(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for field in value:
            part = next((other for other in ("knob.eta", "knob.target", *value) if other.startswith(f"{field}.")), None)
            if part:
                raise ValueError(f"{field!r} cannot be crossed with {part!r}, which is a part of it")
        return value

    @field_validator("over")
    @classmethod
    def _eta_has_its_own_list(cls, value: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        for field in value:
            if field.startswith("knob.target"):
                raise ValueError(f"{field!r} moves eta, and a sweep sets it; use `raydistill calibrate` for a target")
            if field in ("knob.eta", "name") or field.partition(".")[0] in ("sweep", "track"):
                raise ValueError(f"{field!r} cannot be crossed with eta: it is the sweep's own; values of eta go into sweep.eta")
        return value


def _flat(fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values, as `sweep.over.learner.lr=[1e-3]` on a command line nests them."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


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
        if scheduler is None:
            return self
        if self.students is None:
            raise ValueError(
                f"sweep.scheduler: {scheduler.kind} looks at students, and the config has none; set students, or scheduler=null"
            )
        self.sweep.require_time_to_look(self.calibration.steps)
        return self

    @model_validator(mode="after")
    def _is_a_population(self) -> Sweep:
        if not isinstance(self.sweep.scheduler, PBT):
            return self
        if len(self.sweep.etas) > 1:
            raise ValueError("sweep.eta: pbt compares students of one eta, as others are meant to differ; give one")
        strange = next((field for field in self.sweep.over if field not in SCHEDULED), None)
        if strange or not self.sweep.over:
            raise ValueError(f"sweep.over: pbt changes {' and '.join(SCHEDULED)}, {strange or 'and none is given'}")
        if self.learner.schedule:
            raise ValueError("learner.schedule: is what pbt is to find; leave it out")
        return self
