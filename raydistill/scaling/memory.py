"""What the processes of a run or a distillation take of their GPUs, which share one, and whether that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydistill.cluster import Kind
from raydistill.config.calibration import RolloutConfig, ZeroConfig
from raydistill.config.distill import Distill
from raydistill.config.run import Run
from raydistill.config.shadows import ShadowsConfig
from raydistill.config.students import Matching, StudentsConfig
from raydistill.config.task import TaskConfig, reward_config
from raydistill.errors import InputError
from raydistill.models.shapes import Shape
from raydistill.plan import BYTES, Part, Size, student_logits
from raydistill.scaling.arithmetic import (
    ASSUMED_CONTEXT,
    ASSUMED_GRAPHS,
    GIB,
    Gpu,
    Memory,
    activation_bytes,
    engine_memory,
    gathered_bytes,
    kv_bytes,
    logits_bytes,
    scorer_memory,
    zero3_state,
)

Shapes = Mapping[str, Shape]
"""By the config's section, such as `teacher` or `students.model`."""
TIGHT = 0.9
"""Share of a GPU above which fragments alone may be what is missing."""
SAMPLED_AT_ONCE = 128
"""Sequences that transformers samples at once (raydistill/rollout/transformers_engine.py)."""
_CURES = {
    "rollout": "lower rollout.kv_cache_mib",
    "learner": "lower learner.micro_batch_tokens, raise learner.processes, or set learner.lora and learner.gradient_checkpointing",
    "anchor": "raise scorer.gpus, so that fewer share a GPU, or lower scorer.batch_tokens",
    "scorer": "raise scorer.gpus, so that fewer share a GPU, or lower scorer.batch_tokens",
    "reward": "raise task.reward.gpus, so that fewer share a GPU, or lower task.reward.batch_tokens",
    "train": "lower train.micro_batch_tokens, raise train.processes, or set train.lora and train.gradient_checkpointing",
    "student": "set students=null and use `raydistill distill`, whose processes share a student",
    "shadow": "use a smaller shadow, or lower shadows.micro_batch_tokens",
}


@dataclass(frozen=True)
class Card:
    """GPUs that hold the same processes."""

    resource: Kind
    """The custom resource of the nodes they are on."""
    processes: tuple[str, ...]
    count: int
    memory: float
    """Bytes on each, of all processes together."""


def run_memory(run: Run, shapes: Shapes) -> dict[str, Memory]:
    """Of a run's processes, each on its GPU, by the name of the part; `Memory.total` is at its peak."""
    width, teacher, scored = BYTES[run.learner.dtype], shapes["teacher"], run.scorer.batch_tokens
    found = {
        "rollout": _engine_memory(run.rollout, teacher, width),
        "learner": trained_memory(run.learner, teacher),
        "anchor": scorer_memory(teacher, scored, width),
        "current": scorer_memory(teacher, scored, width),
    }
    if run.proxy:
        found["proxy"] = scorer_memory(shapes["proxy"], scored, width)
    if run.shadows:
        largest = max((shape for section, shape in shapes.items() if section.startswith("shadows.")), key=lambda shape: shape.parameters)
        found["shadow"] = _shadow_memory(run.shadows, largest)
    if run.students:
        found["student"] = _student_memory(run.students, shapes["students.model"], teacher, run.rollout.max_model_len)
    return found | _reward_memory(run.task, shapes)


def distill_memory(job: Distill, shapes: Shapes) -> dict[str, Memory]:
    """Of a distillation's processes, likewise."""
    width = BYTES[job.train.dtype]
    both = [shape for section, shape in shapes.items() if section != "task.reward"]
    held = max(both, key=lambda shape: shape.parameters)  # engines hold the teacher, then the student
    found = {
        "rollout": _engine_memory(job.rollout, held, width),
        "train": trained_memory(job.train, shapes["student"]),
    }
    if "teacher" in shapes:
        found["scorer"] = scorer_memory(shapes["teacher"], job.scorer.batch_tokens, width)
    return found | _reward_memory(job.task, shapes)


def _reward_memory(task: TaskConfig, shapes: Shapes) -> dict[str, Memory]:
    reward = reward_config(task)
    return {"reward": scorer_memory(shapes["task.reward"], reward.batch_tokens, BYTES[reward.dtype])} if reward else {}


def _engine_memory(rollout: RolloutConfig, shape: Shape, width: int) -> Memory:
    if rollout.engine == "vllm":
        return engine_memory(shape, rollout.kv_cache_mib * 2**20, width)
    return Memory(weights=width * shape.parameters, kv_cache=SAMPLED_AT_ONCE * kv_bytes(shape, rollout.max_model_len, width))


def trained_memory(config: ZeroConfig, shape: Shape) -> Memory:
    """Of one ZeRO-3 process."""
    width = BYTES[config.dtype]
    adapters = shape.adapters(config.lora.rank) if config.lora else 0
    state = zero3_state(shape.parameters + adapters, adapters or shape.parameters, config.processes, width)
    return Memory(
        weights=state.weights,
        gradients=state.gradients,
        optimiser=state.optimiser,
        gathered=gathered_bytes(shape, width),
        activations=activation_bytes(shape, config.micro_batch_tokens, width, config.gradient_checkpointing),
        logits=logits_bytes(shape, config.micro_batch_tokens),
    )


def _student_memory(students: StudentsConfig, shape: Shape, teacher: Shape, length: int) -> Memory:
    """Of a student of the main job: one process, float32, all weights trained, a copy that samples, the teacher beside it where matched."""
    matched = any(isinstance(method, Matching) for method in students.methods)
    state = zero3_state(shape.parameters, shape.parameters, 1, 4)
    return Memory(
        weights=2 * state.weights + (4 * teacher.parameters if matched else 0),
        gradients=state.gradients,
        optimiser=8 * shape.parameters,  # no masters: the weights are in float32 themselves
        activations=activation_bytes(shape, students.micro_batch_tokens, 4, checkpointing=False),
        logits=student_logits(students.micro_batch_tokens, Size(shape.parameters, shape.vocabulary, shape.hidden)),
        kv_cache=SAMPLED_AT_ONCE * kv_bytes(shape, length, 4),
    )


def _shadow_memory(shadows: ShadowsConfig, shape: Shape) -> Memory:
    """As in `plan`: shadow and twin with gradients and moments; copies that score and sample, the served weights, the direction."""
    return Memory(
        weights=(2 * 4 + 4 * 4) * shape.parameters,
        gradients=2 * 4 * shape.parameters,
        optimiser=2 * 8 * shape.parameters,
        activations=activation_bytes(shape, shadows.micro_batch_tokens, 4, checkpointing=False),
        logits=logits_bytes(shape, shadows.micro_batch_tokens),
    )


def cards(kinds: Sequence[Part], memory: Mapping[str, Memory]) -> list[Card]:
    """The GPUs of a plan. Processes that ask for less than one share, those of one resource, each taking the first that has room left.

    A process works on one GPU, however many it asks for.
    """
    whole: list[Card] = []
    shared: dict[Kind, list[tuple[float, list[str]]]] = {}
    for part in kinds:
        if part.kind is None or not part.gpus:
            continue
        if part.gpus >= 1:
            whole.append(Card(part.kind, (part.name,), round(part.processes * part.gpus), memory[part.name].total))
            continue
        for _ in range(part.processes):
            _put(shared.setdefault(part.kind, []), part)
    together: dict[tuple[Kind, tuple[str, ...]], int] = {}
    for kind, held in shared.items():
        for _, names in held:
            together[kind, tuple(names)] = together.get((kind, tuple(names)), 0) + 1
    return whole + [Card(kind, names, count, sum(memory[name].total for name in names)) for (kind, names), count in together.items()]


def _put(held: list[tuple[float, list[str]]], part: Part) -> None:
    for place, (used, names) in enumerate(held):
        if used + part.gpus <= 1 + 1e-9:
            held[place] = used + part.gpus, [*names, part.name]
            return
    held.append((part.gpus, [part.name]))


def verdict(card: Card, gpu: Gpu) -> str:
    """Whether a GPU's processes fit it."""
    if card.memory > gpu.memory:
        return "does not fit"
    return "tight" if card.memory > TIGHT * gpu.memory else "fits"


def require_fit(found: Sequence[Card], gpu: Gpu) -> None:
    """Raises InputError for the first GPU that is asked to hold more than it can, by the estimate."""
    for card in found:
        if card.memory > gpu.memory:
            raise InputError(
                f"{' + '.join(card.processes)}: about {card.memory / GIB:.1f} GiB on one GPU, and an {gpu.name} has "
                f"{gpu.memory / GIB:.1f}; {_cure(card)}"
            )


def memory_assumptions() -> list[str]:
    """In words, a line each, what the memory of processes rests on."""
    return [
        f"{ASSUMED_CONTEXT / GIB:g} GiB of each process for the CUDA context, NCCL and libraries, "
        f"{ASSUMED_GRAPHS / GIB:g} GiB of an engine for CUDA graphs",
        "not counted: what the allocator cannot use between tensors",
    ]


def _cure(card: Card) -> str:
    return next((_CURES[name] for name in card.processes if name in _CURES), _CURES["anchor"])
