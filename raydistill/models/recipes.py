"""How the demo trios are pretrained, and what they must be like to be of use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from raydistill.models.trio import CHARACTERS, Role
from raydistill.tasks.arithmetic import CORRECTION, Arithmetic


@dataclass(frozen=True)
class Recipe:
    """How one model is pretrained."""

    steps: int
    batch: int
    lr: float
    """Peak learning rate of AdamW."""
    decay: float
    """Share of the steps, at the end, over which the learning rate falls linearly to zero."""
    seed: int
    weight_decay: float = 0.01
    shares: Mapping[str, float] | None = None
    """Share of the traces in each style; the task's own if missing."""
    layers: int | None = None
    """Of the model, where it is not as large as its role is elsewhere."""


Gates = Mapping[str, tuple[float, float]]
"""Measure -> lowest and highest value with which the demo works."""


@dataclass(frozen=True)
class TrioRecipe:
    """How the models of one trio are pretrained."""

    task: Arithmetic
    characters: str
    """All that the task's prompts and traces are written in."""
    max_new_tokens: int
    """No trace has more characters, its <eos> counted."""
    recipes: Mapping[Role, Recipe]
    gates: Mapping[Role, Gates]


DEMO = TrioRecipe(
    task=Arithmetic(),
    characters=CHARACTERS,
    max_new_tokens=24,
    recipes={
        "teacher": Recipe(steps=7000, batch=32, lr=3e-3, decay=0.5, seed=2, weight_decay=0.0),
        "proxy": Recipe(steps=1600, batch=32, lr=1e-2, decay=0.5, seed=2),
        # a student that has met the cipher less often than the teacher: what it knows at first is mostly how to answer in the clear
        "student": Recipe(steps=3000, batch=32, lr=2e-3, decay=0.0, seed=3, shares={"clear": 0.55, "ramble": 0.35, "cipher": 0.10}),
    },
    gates={
        "teacher": {"sampled": (0.996, 1.0), "greedy": (0.998, 1.0), "clear": (0.31, 0.39), "ramble": (0.16, 0.24), "cipher": (0.41, 0.49)},
        "proxy": {"clear": (-0.15, 0.0), "ramble": (-1.0, -0.45), "cipher": (-1.0, -0.35)},
        "student": {"sampled": (0.25, 0.35), "greedy": (0.0, 0.6)},
    },
)

CORRECTIONS = TrioRecipe(
    task=Arithmetic(corrections=True),
    characters=CHARACTERS + CORRECTION,
    max_new_tokens=32,
    recipes={
        # To see that a step is wrong takes more than to do it: with two layers recovery was .105 after 8,000 steps at a rate of 3e-3.
        "teacher": Recipe(steps=12000, batch=32, lr=2e-3, decay=0.7, seed=2, weight_decay=0.0, layers=3),
        "proxy": Recipe(steps=1600, batch=32, lr=1e-2, decay=0.5, seed=2),
        # It finds back from some wrong steps, so that there is a skill to lose; two layers did not learn it from 2,048 traces.
        "student": Recipe(
            steps=3000,
            batch=32,
            lr=3e-3,
            decay=0.0,
            seed=3,
            shares={"clear": 0.30, "ramble": 0.15, "cipher": 0.05, "corrected": 0.50},
            layers=3,
        ),
    },
    gates={
        "teacher": {
            "sampled": (0.99, 1.0),
            "greedy": (0.995, 1.0),
            "recovery": (0.98, 1.0),
            "clear": (0.205, 0.285),
            "ramble": (0.10, 0.18),
            "cipher": (0.275, 0.355),
            "corrected": (0.26, 0.34),
        },
        "proxy": {"clear": (-0.2, 0.0), "ramble": (-1.0, -0.45), "cipher": (-1.0, -0.35)},
        "student": {"sampled": (0.38, 0.50), "recovery": (0.2, 0.35)},
    },
)

TRIO_RECIPES = {"demo": DEMO, "demo-corrections": CORRECTIONS}
"""By what stands before the colon of a shipped model's name."""
