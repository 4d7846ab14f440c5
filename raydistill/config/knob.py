"""The knob and the calibration reward."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from raydistill.config.base import NonNegativeFloat, PositiveFloat, Strict
from raydistill.config.target import TargetConfig


class KnobConfig(Strict):
    """How strongly, and in which direction, a teacher's distillability is turned."""

    eta: float = 0.0
    """Signed weight of the calibration reward: positive makes students better, negative makes them collapse, 0 is the placebo.
    With a target it is what the controller adds at first to what the target calls for."""
    target: TargetConfig | None = None
    """Closed loop: asks for an outcome and moves eta after it; eta stays where it is if missing."""
    kl_budget: PositiveFloat = 0.4
    """KL(teacher || original) in nats a sequence that the calibration may spend at |eta| = 1; it stops at |eta| times this.
    With a target, whose eta moves, at max_eta times this."""
    denominator: Literal["anchor", "current", "none"] = "anchor"
    """What a score is compared with: the original teacher, the current one (eta > 0 only) or nothing (an ablation, and for influence)."""
    normalization: Literal["per_byte", "per_token", "per_sequence"] = "per_byte"
    """Unit in which a sequence score is divided before the two scores are compared."""
    cal_on: Literal["right", "all"] = "right"
    """Which samples take part in the calibration reward: those verified right, or all."""
    scale: Literal["std", "none"] = "std"
    """Divide a group's calibration reward by its standard deviation, or only subtract its mean (an ablation)."""
    min_spread: NonNegativeFloat = 1e-3
    """A group whose calibration rewards have a standard deviation below this, in units of `normalization`, contributes 0."""

    @model_validator(mode="after")
    def _bounded_objective(self) -> KnobConfig:
        if self.denominator == "current" and self.eta < 0:
            raise ValueError("denominator 'current' with eta < 0 has an unbounded objective; use denominator 'anchor'")
        if self.denominator == "current" and self.target:
            # whatever is asked for: past the target the way back needs the other sign
            raise ValueError("denominator 'current' with a target, which turns eta to both sides, has an unbounded objective; use 'anchor'")
        return self

    @model_validator(mode="after")
    def _starts_within_bounds(self) -> KnobConfig:
        if self.target and abs(self.eta) > self.target.max_eta:
            raise ValueError(f"eta {self.eta:g} is beyond target.max_eta ({self.target.max_eta:g}); start nearer to 0 or raise the bound")
        return self

    @property
    def kl_limit(self) -> float:
        """KL(teacher || original), nats a sequence, at which a calibration stops; infinite for the placebo."""
        return (self.target.max_eta if self.target else abs(self.eta)) * self.kl_budget or float("inf")
