"""The knob and the calibration reward."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from raydistill.config.base import NonNegativeFloat, PositiveFloat, Strict


class KnobConfig(Strict):
    """How strongly, and in which direction, a teacher's distillability is turned."""

    eta: float = 0.0
    """Signed weight of the calibration reward: positive makes students better, negative makes them collapse, 0 is the placebo."""
    kl_budget: PositiveFloat = 0.4
    """KL(teacher || original) in nats a sequence that the calibration may spend at |eta| = 1; it stops at |eta| times this."""
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
        return self
