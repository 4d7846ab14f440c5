"""A shadow student in a process of its own, as a Ray actor that scores while it learns."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.cluster import placement
from raydistill.environment import process_environment

if TYPE_CHECKING:
    from raydistill.rollout.completion import Completion
    from raydistill.scoring.score import SequenceScore
    from raydistill.students.data import Answer
    from raydistill.students.shadow import ShadowSpec, TracePair
    from raydistill.tasks.prompt import Prompt


@dataclass(frozen=True)
class Assignment:
    """What a shadow is to do between two steps: learn from the rollouts of one, and show before the next what it can do."""

    step: int
    """The step that follows."""
    pairs: tuple[TracePair, ...]
    """Empty where a seed begins."""
    prompts: tuple[Prompt, ...]
    """To complete afterwards; empty where nothing is to be measured."""
    max_new_tokens: int


@dataclass(frozen=True)
class Learnt:
    """The answer to a lesson."""

    completions: tuple[list[list[Completion]], list[list[Completion]]] | None
    """Of the shadow and of the twin; None where nothing was to be measured."""
    seconds: float


class ShadowActor:
    """Hosts one shadow. Two calls run at once: one that learns and one that scores; never two lessons."""

    def __init__(self, spec: ShadowSpec) -> None:
        import torch

        from raydistill.students.shadow import Shadow

        torch.set_num_threads(spec.threads)
        self._shadow = Shadow(spec)

    def ready(self) -> None:
        """Returns once the model is loaded."""

    def begin(self, seed: int, held_out: Sequence[Answer], state: Path | None) -> None:
        self._shadow.begin(seed, held_out, state)

    def learn(self, lesson: Assignment) -> Learnt:
        started = time.perf_counter()
        self._shadow.train(lesson.step, lesson.pairs)
        completions = self._shadow.sample(lesson.prompts, lesson.max_new_tokens, lesson.step) if lesson.prompts else None
        return Learnt(completions, time.perf_counter() - started)

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        return self._shadow.score(prompts, completions)

    def influence(self, prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        return self._shadow.influence(prompts, completions)

    def save(self, file: Path) -> None:
        self._shadow.save(file)


def start_shadow(spec: ShadowSpec, num_cpus: float, num_gpus: float) -> Any:
    """Start a ShadowActor without waiting for it; `ready` waits. It runs on the CPU unless GPUs are reserved for it."""
    import ray

    environment = process_environment(spec.threads, num_gpus)
    actor = ray.remote(ShadowActor).options(
        num_cpus=num_cpus, num_gpus=num_gpus, resources=placement("student"), max_concurrency=2, runtime_env={"env_vars": environment}
    )
    return actor.remote(spec)
