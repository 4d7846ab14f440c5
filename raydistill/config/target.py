"""The closed loop: the outcome that is asked for, and how eta is moved until it is there."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raydistill.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Strict
from raydistill.config.students import Method


class TargetConfig(Strict):
    """Students at so many times the control: measured on students distilled anew while the teacher is calibrated; eta follows."""

    student_ratio: PositiveFloat
    """Score of students of the calibrated teacher over that of students of the original one, sampled at temperature 1."""
    tolerance: PositiveFloat = 0.04
    """The calibration stops once the measured ratio is within this of the one asked for, and a second measurement agrees."""
    max_eta: PositiveFloat = 1.0
    """Bound of |eta|; max_eta * kl_budget nats a sequence is what the calibration may spend."""
    gain: PositiveFloat = 1.5
    """Eta for an error of 1 in the logarithm of the ratio, as it will be at the next measurement if it goes on as it does."""
    integral: NonNegativeFloat = 0.5
    """What such an error adds to eta at each measurement while it lasts: it wins where the KL anchor holds the teacher back."""
    measure_every: PositiveInt = 5
    """Steps between two measurements."""
    students: Annotated[int, Field(ge=1, le=100)] = 2
    """Students distilled for a measurement, and as many again where it is to be confirmed; each has a twin of the original teacher."""
    budget: Method | None = None
    """How long they are trained, and on how much; missing, as the run's own `seqkd` students are."""
    prompts: PositiveInt = 400
    """Prompts of the tune split on which they are measured."""
    samples: PositiveInt = 4
    """Completions of each of these prompts, at temperature 1. More cost little beside the training of a student."""
    patience: PositiveInt = 3
    """Measurements, eta at its bound all the while, without coming nearer: then the target cannot be reached."""
