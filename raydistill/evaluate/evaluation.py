"""What was measured of one model on one split: a reward for every completion, so that comparisons can be paired by prompt."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """Outcomes of one model. A completion whose check timed out or crashed counts as wrong here, as 0 where the task is graded."""

    prompt_ids: tuple[str, ...]
    sampled_BG: tuple[tuple[float, ...], ...]
    """Whether each completion sampled at temperature 1 is right; its reward from 0 to 1 where the task is graded."""
    greedy_B: tuple[float, ...]
    """The same of the greedy completion."""
    styles: dict[str, float]
    """Share of the sampled completions in each style of the task; sums to 1."""
    style_accuracy: dict[str, float]
    """Mean reward (share of right ones) of the sampled completions of each style that occurs."""
    length: float
    """Mean tokens of a sampled completion, its end-of-turn token included."""
    truncated: float
    """Share of sampled completions that were cut off."""
    verifier_failures: int
    """Checks that timed out or crashed."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """The evaluation written to `path` by `to_json`."""
        return cls.from_dict(json.loads(path.read_text()))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Evaluation:
        """From what JSON made of it: lists become tuples again."""
        rows = tuple(tuple(row) for row in data["sampled_BG"])
        return cls(**data | {"prompt_ids": tuple(data["prompt_ids"]), "sampled_BG": rows, "greedy_B": tuple(data["greedy_B"])})
