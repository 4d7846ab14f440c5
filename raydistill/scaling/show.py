"""A job on GPUs on the terminal: models, processes, memory, placement, hours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from raydistill.cluster import capacity
from raydistill.config.calibration import RolloutConfig
from raydistill.models.shapes import Shape
from raydistill.plan import Part
from raydistill.scaling.arithmetic import GIB, GPUS_PER_NODE, H100, Memory, kv_bytes, sync_bytes
from raydistill.scaling.hours import Hours, assumptions
from raydistill.scaling.memory import Card, Shapes, memory_assumptions, verdict
from raydistill.scaling.outline import Outline

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_UNCHECKED = (
    "models and data were not looked at. Not checked: tokenizers, templates and ends of turn; that models fit together; whether prompts "
    "and completions fit the contexts; the task's data and columns. A start checks all of it, and needs the models"
)


def terminal() -> Console:
    from rich.console import Console

    return Console(highlight=False, markup=False)


def show(outline: Outline, shapes: Shapes, unseen: Sequence[str], rollout: RolloutConfig, width: int) -> None:
    """Print it. `unseen` are the sections whose models are not on this machine."""
    console = terminal()
    if unseen:
        console.print(f"From shapes alone ({', '.join(unseen)} not on this machine): {_UNCHECKED}.", style="yellow")
    console.print(_shape_table(shapes))
    console.print(_process_table(outline.kinds))
    console.print(_memory_table({part.name: outline.memory[part.name] for part in outline.kinds if part.gpus}))
    console.print(_card_table(outline.cards))
    for line in (_where(outline.cards), *_engine_lines(shapes, rollout, width)):
        console.print(line)
    _show_assumed(console, "The memory is an estimate, measured on no GPU. It rests on:", memory_assumptions())
    _show_hours(console, outline.hours)
    console.print(_missing(outline))


def _show_hours(console: Console, hours: Hours | None) -> None:
    if hours is None:
        console.print("GPU-hours: estimated only where vLLM engines, learner and scorers all have GPUs")
        return
    console.print(_hours_table(hours))
    console.print(_hours_words(hours))
    _show_assumed(console, "These are estimates; none was measured on a GPU. They rest on:", assumptions(H100))


def _show_assumed(console: Console, head: str, lines: Sequence[str]) -> None:
    console.print(head)
    for line in lines:
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
