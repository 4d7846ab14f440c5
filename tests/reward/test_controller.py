"""The controller of a target on plants whose answer is known: a teacher that moves as eta says, and students that follow it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.config.target import TargetConfig
from raydistill.reward.controller import Controller, nearest, within

ratios = st.floats(0.0, 20.0)


@dataclass
class Plant:
    """ratio = exp(reach * tanh(displacement)); the displacement follows eta with momentum, by a power of it, and may leak."""

    reach: float = 1.2
    speed: float = 0.035
    """Displacement a step at eta 1."""
    power: float = 1.0
    """Adam hides most of a gradient's scale: there it is about 0.3."""
    momentum: float = 0.9
    leak: float = 0.0
    """Share of the displacement that the KL anchor takes back in a step."""
    noise: float = 0.0
    """Standard deviation of the logarithm of a measured ratio."""
    displacement: float = 0.0
    velocity: float = 0.0

    def step(self, eta: float) -> None:
        self.velocity = self.momentum * self.velocity + (1 - self.momentum) * math.copysign(abs(eta) ** self.power, eta)
        self.displacement += self.speed * self.velocity - self.leak * self.displacement

    @property
    def ratio(self) -> float:
        return math.exp(self.reach * math.tanh(self.displacement))


class FirstOrderLag(Plant):
    """The ratio goes a tenth of the way to where eta would leave it: nothing integrates but the controller."""

    def step(self, eta: float) -> None:
        self.displacement += 0.1 * (eta - self.displacement)


def measured(plant: Plant, controller: Controller, rng: random.Random, every: int = 5) -> float:
    for _ in range(every):
        plant.step(controller.eta)
    return plant.ratio * math.exp(rng.gauss(0, plant.noise))


def settled(plant: Plant, config: TargetConfig, seed: int = 0, looks: int = 40) -> tuple[float | None, Controller]:
    """The true ratio where two measurements in a row were within the tolerance on average, None where that never was."""
    controller, rng = Controller(config), random.Random(seed)
    for _ in range(looks):
        ratio = measured(plant, controller, rng)
        if within(config, ratio):
            ratio = (ratio + plant.ratio * math.exp(rng.gauss(0, plant.noise))) / 2
        controller.take(ratio)
        if within(config, ratio):
            return plant.ratio, controller
        if controller.stuck:
            break
    return None, controller


@given(st.floats(0.05, 10).filter(lambda asked: abs(math.log(asked)) > 0.01))
def test_eta_starts_towards_the_target(asked: float) -> None:
    assert Controller(TargetConfig(student_ratio=asked)).eta * math.log(asked) > 0


@given(st.floats(0.1, 8), ratios)
def test_a_measured_error_that_lasts_gives_eta_its_sign(asked: float, ratio: float) -> None:
    """The same measurement again and again, on either side of the target: eta is on the target's side, and ends at its bound."""
    config = TargetConfig(student_ratio=asked)
    controller, error = Controller(config), math.log(asked / max(ratio, 0.01))
    if abs(error) < 0.01:
        return
    etas = []
    for _ in range(1000):
        controller.take(ratio)
        etas.append(controller.eta)
    assert all(eta * error > 0 for eta in etas[2:])
    assert etas[-1] == pytest.approx(math.copysign(config.max_eta, error))


@given(st.floats(0.1, 8), st.floats(0.1, 2), st.floats(0.1, 10), st.lists(ratios, max_size=30))
def test_eta_is_bounded_whatever_is_measured(asked: float, bound: float, gain: float, seen: list[float]) -> None:
    controller = Controller(TargetConfig(student_ratio=asked, max_eta=bound, gain=gain))
    for ratio in seen:
        assert abs(controller.eta) <= bound
        controller.take(ratio)
    assert abs(controller.eta) <= bound


def test_the_integral_does_not_wind_up_at_the_bound() -> None:
    """However long eta was at its bound, one measurement beyond the target turns it round."""
    for waits in (1, 50):
        controller = Controller(TargetConfig(student_ratio=0.5, patience=100))
        for ratio in (*[1.0] * waits, 0.3):
            controller.take(ratio)
        assert controller.eta == 1.0


@pytest.mark.parametrize(
    "plant",
    [
        Plant(),
        Plant(power=0.3),
        Plant(power=0.3, speed=0.1),
        Plant(momentum=0.0, speed=0.01),
        Plant(power=0.3, leak=0.02),
        FirstOrderLag(reach=1.5),
    ],
    ids=["momentum", "adam", "adam, fast", "slow", "leaking", "first-order lag"],
)
@pytest.mark.parametrize("asked", [0.5, 0.8, 1.3])
def test_it_converges_without_noise(plant: Plant, asked: float) -> None:
    ratio, _ = settled(replace(plant), TargetConfig(student_ratio=asked))
    assert ratio == pytest.approx(asked, abs=0.0401)


@pytest.mark.parametrize("asked", [0.5, 0.8, 1.3])
def test_it_converges_with_the_noise_of_students(asked: float) -> None:
    """Ratios that are 4 % off: whatever the seed, it stops, and within 0.1 of the target."""
    for seed in range(40):
        ratio, _ = settled(Plant(power=0.3, noise=0.04), TargetConfig(student_ratio=asked), seed)
        assert ratio == pytest.approx(asked, abs=0.1)


@pytest.mark.parametrize(("asked", "sign"), [(0.2, -1), (6.0, 1)])
@pytest.mark.parametrize("noise", [0.0, 0.06])
def test_a_plant_that_saturates_before_the_target_is_unreachable(asked: float, sign: int, noise: float) -> None:
    plant = Plant(reach=0.7, speed=0.1, noise=noise)
    ratio, controller = settled(plant, TargetConfig(student_ratio=asked), looks=200)
    assert ratio is None
    assert controller.stuck
    assert controller.eta == sign
    assert math.log(plant.ratio) == pytest.approx(sign * 0.7, abs=0.1)


def test_the_nearest_ratio_is_that_of_the_smallest_factor() -> None:
    assert nearest(TargetConfig(student_ratio=1.0), [0.5, 1.9, 2.0]) == 1
    assert nearest(TargetConfig(student_ratio=0.5), [1.0, 0.0, 0.25]) == 0


def test_a_ratio_that_met_the_target_is_nearer_than_any_that_did_not() -> None:
    """0.15 is the smaller factor from 0.1, and outside the tolerance."""
    assert nearest(TargetConfig(student_ratio=0.1), [0.15, 0.065]) == 1
