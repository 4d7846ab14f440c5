"""What a model wrote for a diagnosis or an evaluation, checked; kept in the run's folder, so that a resumed one does not sample again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from raydistill.rollout.completion import Completion, StopReason
from raydistill.tasks.prompt import Prompt


@dataclass(frozen=True)
class Sampled:
    """Completions of one model, of each of B prompts."""

    prompts: tuple[Prompt, ...]
    completions_BG: tuple[tuple[Completion, ...], ...]
    right_BG: tuple[tuple[float, ...], ...]
    """Whether each is right; its reward from 0 to 1 where the task is graded."""
    verifier_failures: int = 0
    """Checks that timed out or crashed; their completions count as wrong."""

    def rows(self) -> Iterator[tuple[Prompt, Completion, float]]:
        """Prompt by prompt."""
        for prompt, completions, rights in zip(self.prompts, self.completions_BG, self.right_BG, strict=True):
            for completion, right in zip(completions, rights, strict=True):
                yield prompt, completion, right

    def clean(self) -> list[tuple[int, Completion, float]]:
        """With the prompt's place, those without a special token inside: the others' text is not what was sampled."""
        return [
            (place, completion, right)
            for place, (completions, rights) in enumerate(zip(self.completions_BG, self.right_BG, strict=True))
            for completion, right in zip(completions, rights, strict=True)
            if not completion.has_special
        ]

    def to_json(self) -> str:
        rows = [[asdict(one) for one in row] for row in self.completions_BG]
        return json.dumps({"completions": rows, "right": self.right_BG, "verifier_failures": self.verifier_failures})

    @classmethod
    def read(cls, path: Path, prompts: Sequence[Prompt]) -> Sampled:
        """What `to_json` wrote of completions of these prompts."""
        data = json.loads(path.read_text())
        rows = tuple(tuple(_completion(one) for one in row) for row in data["completions"])
        return cls(tuple(prompts), rows, tuple(map(tuple, data["right"])), data["verifier_failures"])


def _completion(data: dict) -> Completion:
    lists = {name: tuple(data[name]) for name in ("prompt_ids", "token_ids", "logprobs")}
    return Completion(**data | lists | {"stop": StopReason(data["stop"])})
