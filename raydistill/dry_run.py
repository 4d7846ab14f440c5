"""What `--dry-run` says.

A job without GPUs in its config is for this machine: it is checked as a start would check it, room included. One with GPUs may be for a
cluster elsewhere: what this machine has not got is said below the plan, and only what would fit no such GPU is refused. Of models that
`KNOWN` has the shape of, none is fetched for it: where they are not here, the plan is made from shapes, and says what was not checked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from raydistill import distill_plan, plan
from raydistill.cluster import capacity
from raydistill.config.calibration import RolloutConfig
from raydistill.config.distill import Distill
from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.config.sweep import Sweep
from raydistill.config.task import RewardConfig, reward_config
from raydistill.models.checkpoint import read_checkpoint
from raydistill.models.load import resolve_folder
from raydistill.models.shapes import KNOWN, Shape, shape_of
from raydistill.plan import BYTES, Part
from raydistill.scaling.arithmetic import GIB, GPUS_PER_NODE, H100, Memory, kv_bytes, sync_bytes
from raydistill.scaling.hours import Hours, assumptions
from raydistill.scaling.memory import Card, Shapes, require_fit, verdict
from raydistill.scaling.outline import Outline, outline_distill, outline_run
from raydistill.sweep import is_complete
from raydistill.trials import trials_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNCHECKED = (
    "models and data were not looked at. Not checked: tokenizers, templates and ends of turn; that models fit together; whether prompts "
    "and completions fit the contexts; the task's data and columns. A start checks all of it, and needs the models"
)


def dry_run(run: Run, folder: Path) -> None:
    """Check what can be checked of a run, and print its plan. Raises InputError for the first thing that is wrong."""
    if not _wants_gpus(run):
        plan.show_plan(run, plan.check(run), folder)
        return
    configs = _models_of(run)
    unseen = _unseen(configs)
    if unseen:
        first = f"run {run.name} in {folder}: task {run.task.kind}, {plan.asked(run)}, seeds {list(run.seeds)}; {plan.steps(run)}"
        _console().print(first)
    else:
        plan.show_plan(run, plan.check_without_room(run), folder)
    if shapes := _shapes(configs, unseen):
        _show(outline_run(run, shapes, H100), shapes, unseen, run.rollout, BYTES[run.learner.dtype])


def dry_run_sweep(sweep: Sweep, folder: Path) -> bool:
    """The same of a sweep for GPUs, by its first trial; False, and nothing printed, for one without."""
    if not _wants_gpus(sweep):
        return False
    trials = trials_of(sweep, folder)
    is_complete(sweep, folder, trials, resume=True)  # refuses another's folder
    _console().print(f"sweep {sweep.name} in {folder}: {len(trials)} trials: {', '.join(trial.id for trial in trials)}; each as this one:")
    dry_run(trials[0].run, trials[0].folder.root)
    return True


def dry_run_distill(job: Distill, folder: Path) -> None:
    """The same of a distillation."""
    reward = reward_config(job.task)
    if not any(part.gpus for part in (job.rollout, job.train, job.scorer, reward) if part):
        distill_plan.show(job, distill_plan.check(job), folder)
        return
    sections = (("teacher", job.teacher), ("student", job.student), ("task.reward", reward))
    configs = {section: config for section, config in sections if config}
    unseen = _unseen(configs)
    if unseen:
        steps = f"{job.method.steps} steps of {job.method.batch} completions"
        _console().print(f"distillation {job.name} in {folder}: task {job.task.kind}, method {job.method.method}; {steps}")
    else:
        distill_plan.show(job, distill_plan.check_without_room(job), folder)
    if shapes := _shapes(configs, unseen):
        _show(outline_distill(job, shapes, H100), shapes, unseen, job.rollout, BYTES[job.train.dtype])


def _wants_gpus(run: Run) -> bool:
    parts = (run.rollout, run.learner, run.scorer, run.students, run.shadows, reward_config(run.task))
    return any(part.gpus for part in parts if part)


def _models_of(run: Run) -> dict[str, ModelConfig | RewardConfig]:
    """By section, the teacher's first."""
    shadows = [(f"shadows.models.{place}", model) for place, model in enumerate(run.shadows.models if run.shadows else ())]
    student = ("students.model", run.students and run.students.model)
    all_ = [("teacher", run.teacher), ("proxy", run.proxy), *shadows, student, ("task.reward", reward_config(run.task))]
    return {section: model for section, model in all_ if model}


def _unseen(configs: Mapping[str, ModelConfig | RewardConfig]) -> list[str]:
    """Sections whose models are not on this machine and need not be fetched, as their shapes are known."""
    return [section for section, config in configs.items() if config.model in KNOWN and not _is_here(config.model)]


def _is_here(name: str) -> bool:
    """Whether a hub's model is in the cache, or a folder."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return Path(name).is_dir() or any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def _shapes(configs: Mapping[str, ModelConfig | RewardConfig], unseen: Sequence[str]) -> dict[str, Shape] | None:
    """None, and why is said, where a model has none."""
    found = {}
    for section, config in configs.items():
        field = f"{section}.model"
        known = KNOWN[config.model] if section in unseen else shape_of(read_checkpoint(field, resolve_folder(field, config.model)))
        if known is None:
            _console().print(f"{field} is no plain decoder with gated MLPs: memory of GPUs and GPU-hours are not estimated")
            return None
        found[section] = known
    return found


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def _show(outline: Outline, shapes: Shapes, unseen: Sequence[str], rollout: RolloutConfig, width: int) -> None:
    """Raises InputError, once all is printed, where a GPU would have to hold more than it can."""
    console = _console()
    if unseen:
        console.print(f"From shapes alone ({', '.join(unseen)} not on this machine): {_UNCHECKED}.", style="yellow")
    console.print(_shape_table(shapes))
    console.print(_process_table(outline.kinds))
    console.print(_memory_table({part.name: outline.memory[part.name] for part in outline.kinds if part.gpus}))
    console.print(_card_table(outline.cards))
    for line in (_where(outline.cards), *_engine_lines(shapes, rollout, width)):
        console.print(line)
    _show_hours(console, outline.hours)
    console.print(_missing(outline))
    require_fit(outline.cards, H100)


def _show_hours(console: Console, hours: Hours | None) -> None:
    if hours is None:
        console.print("GPU-hours: estimated only where vLLM engines, learner and scorers all have GPUs")
        return
    console.print(_hours_table(hours))
    console.print(_hours_words(hours))
    console.print("These are estimates; none was measured on a GPU. They rest on:")
    for line in assumptions(H100):
        console.print(f"- {line}")


def _shape_table(shapes: Shapes) -> Table:
    table = _table("model", "parameters", "beside the text", "layers", "hidden", "KV a token, bfloat16", title="models")
    for section, shape in shapes.items():
        full = shape.layers if shape.full_layers is None else shape.full_layers
        windowed = f"; {shape.layers - full} layers keep at most {shape.window} tokens" if full < shape.layers else ""
        kept = f"{kv_bytes(shape, 1, 2) / 2**10:g} KiB{windowed}"
        table.add_row(section, f"{shape.parameters:,}", f"{shape.extra:,}", str(shape.layers), str(shape.hidden), kept)
    return table


def _process_table(kinds: Sequence[Part]) -> Table:
    table = _table("process", "resource", "how many", "CPUs each", "GPUs each", "does", title="processes")
    for part in kinds:
        table.add_row(part.name, part.kind or "any", str(part.processes), f"{part.cpus:g}", f"{part.gpus:g}", part.does)
    return table


def _memory_table(memory: Mapping[str, Memory]) -> Table:
    """What each process takes of a GPU, by what for."""
    table = _table("GiB of a GPU", *memory, title="memory of a process")
    for field in fields(Memory):
        table.add_row(field.name.replace("_", " "), *(f"{getattr(held, field.name) / GIB:.1f}" for held in memory.values()))
    table.add_section()
    table.add_row("in all", *(f"{held.total / GIB:.1f}" for held in memory.values()))
    return table


def _card_table(found: Sequence[Card]) -> Table:
    table = _table("on nodes that offer", "GPUs", "processes on each", "GiB a GPU", f"of {H100.memory / GIB:.1f}", title="placement")
    for card in found:
        table.add_row(card.resource, str(card.count), " + ".join(card.processes), f"{card.memory / GIB:.1f}", verdict(card, H100))
    return table


def _where(found: Sequence[Card]) -> str:
    """How many GPUs of each custom resource, and nodes of them."""
    kinds = dict.fromkeys(card.resource for card in found)
    gpus = {kind: sum(card.count for card in found if card.resource == kind) for kind in kinds}
    each = ", ".join(f"{kind} {count} ({_nodes(count)})" for kind, count in gpus.items())
    total = sum(gpus.values())
    return f"in all {total} GPUs, {_nodes(total)}; where nodes offer the custom resources, which part the kinds: {each}"


def _nodes(gpus: int) -> str:
    count = math.ceil(gpus / GPUS_PER_NODE)
    return f"{count} node{'s' if count > 1 else ''} of {GPUS_PER_NODE}"


def _hours_table(hours: Hours) -> Table:
    table = _table("phase", "seconds", "times", "GPUs busy", "hours", title="time")
    for phase in hours.phases:
        table.add_row(
            phase.name, f"{phase.seconds:.1f}", f"{phase.times:g}", f"{phase.gpus:g}", f"{phase.seconds * phase.times / 3600:.1f}"
        )
    return table


def _hours_words(hours: Hours) -> str:
    return (
        f"about {hours.wall:.1f} hours: {hours.reserved:.0f} {H100.name} GPU-hours reserved, {hours.busy:.0f} of them with something to do "
        "(phases wait for one another)"
    )


def _engine_lines(shapes: Shapes, rollout: RolloutConfig, width: int) -> list[str]:
    """Of the models that engines hold."""
    return [f"{section}: {_engine(shape, rollout, width)}" for section, shape in shapes.items() if section in ("teacher", "student")]


def _engine(shape: Shape, rollout: RolloutConfig, width: int) -> str:
    held = rollout.kv_cache_mib * 2**20
    windowed, whole = (int(held // kv_bytes(shape, rollout.max_model_len, width, windows)) for windows in (True, False))
    without = f" ({whole} if windows were not made use of)" if windowed != whole else ""
    moved = f"{sync_bytes(shape, width) / 1e9:.1f} GB"
    return f"an engine's cache holds {windowed} sequences of {rollout.max_model_len} tokens{without}; a sync moves {moved}"


def _table(*columns: str, title: str) -> Table:
    from rich.table import Table

    return Table(*columns, title=title, title_justify="left")


def _missing(outline: Outline) -> str:
    """What this machine lacks; of a cluster that is known once it is joined."""
    there = capacity()
    if there is None:
        return "Whether the cluster that RAY_ADDRESS names has room is seen when it is joined."
    wanted = {"GPU": sum(card.count for card in outline.cards), "CPU": sum(part.processes * part.cpus for part in outline.kinds)}
    short = [f"{there.get(name, 0.0):g} of {amount:g} {name}s" for name, amount in wanted.items() if amount > there.get(name, 0.0) + 1e-9]
    if not short:
        return "This machine has GPUs and CPUs enough."
    return (
        f"Not here: this machine has {', '.join(short)}. Start it on a cluster that has them, which RAY_ADDRESS names (cluster/README.md)."
    )
