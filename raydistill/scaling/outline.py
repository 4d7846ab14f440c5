"""A job on GPUs as its config and its models' shapes tell of it: processes, the GPUs they share, memory, hours. Nothing is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raydistill import distill_plan, plan
from raydistill.config.distill import Distill
from raydistill.config.run import Run
from raydistill.models.shapes import Shape
from raydistill.plan import Part, Size
from raydistill.scaling.arithmetic import Gpu, Memory
from raydistill.scaling.hours import Hours, distill_hours, run_hours
from raydistill.scaling.memory import Card, Shapes, cards, distill_memory, run_memory


@dataclass(frozen=True)
class Outline:
    """Of one job."""

    kinds: tuple[Part, ...]
    memory: dict[str, Memory]
    """Of each process on its GPU, by the part's name."""
    cards: tuple[Card, ...]
    hours: Hours | None
    """None where it is not vLLM's engines, or something that takes part in every step has no GPU."""


def outline_run(run: Run, shapes: Shapes, gpu: Gpu) -> Outline:
    """`shapes` are those of the config's sections."""
    kinds = plan.parts_of_sizes(run, {section: _size(shape) for section, shape in shapes.items()})
    memory = run_memory(run, shapes)
    found = cards(kinds, memory)
    timed = run.rollout.engine == "vllm" and run.rollout.gpus and run.learner.gpus and run.scorer.gpus
    return Outline(tuple(kinds), memory, tuple(found), run_hours(run, shapes, _gpus(found), gpu) if timed else None)


def outline_distill(job: Distill, shapes: Shapes, gpu: Gpu) -> Outline:
    """Likewise."""
    teacher = shapes["teacher"].parameters if "teacher" in shapes else 0
    reward = shapes["task.reward"].parameters if "task.reward" in shapes else 0
    kinds = distill_plan.parts_of_sizes(job, shapes["student"].parameters, teacher, reward)
    memory = distill_memory(job, shapes)
    found = cards(kinds, memory)
    scored = job.scorer.gpus or not distill_plan.needs_scorers(job)
    timed = job.rollout.engine == "vllm" and job.rollout.gpus and job.train.gpus and scored
    return Outline(tuple(kinds), memory, tuple(found), distill_hours(job, shapes, _gpus(found), gpu) if timed else None)


def _gpus(found: Sequence[Card]) -> int:
    return sum(card.count for card in found)


def _size(shape: Shape) -> Size:
    return Size(shape.parameters, shape.vocabulary, shape.hidden)
