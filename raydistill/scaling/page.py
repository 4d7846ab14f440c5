"""The tables of docs/scaling.md, from `configs/paper/`: `python -m raydistill.scaling.page` prints them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from raydistill.config.distill import Distill
from raydistill.config.load import load_job, load_run
from raydistill.config.run import Run
from raydistill.models.shapes import KNOWN
from raydistill.plan import BYTES
from raydistill.scaling.arithmetic import (
    ASSUMED_LINK,
    GIB,
    GPUS_PER_NODE,
    H100,
    gather_seconds,
    kv_bytes,
    sync_bytes,
    sync_seconds,
    zero3_state,
)
from raydistill.scaling.memory import trained_memory
from raydistill.scaling.outline import Outline, outline_distill, outline_run

PRESETS = Path("configs/paper")
FAMILIES = ("gemma3", "qwen3")
PAPER_CALIBRATION, PAPER_STUDENT = 141.5, 196.8
"""H100-hours that the paper reports: a calibration, and one student by on-policy GKD with the reverse KL."""
_GPUS = (1, 2, 4, 8, 16, 32, 64)
_SCORERS = 1
"""GPUs for anchor, current teacher and proxy: there is one actor of each, however many GPUs there are."""


def tables() -> Iterator[str]:
    """In the order of the page, each with its heading."""
    yield "### What a model is\n\n" + _models()
    for family in FAMILIES:
        run = load_run(PRESETS / f"{family}-bigmath4.yaml")
        yield f"### {run.teacher.model}: a ZeRO-3 process\n\n" + _zero3(run)
        yield f"### {run.teacher.model}: weights on their way\n\n" + _sync(run)
        yield f"### {family}-bigmath4 on 1 to 64 GPUs\n\n" + _scaled(run)
    yield "### Beside the paper's cost\n\n" + _paper()


def _models() -> str:
    rows = [
        [
            name,
            f"{shape.text_parameters / 1e9:.2f}",
            f"{shape.extra / 1e9:.2f}",
            f"{2 * shape.parameters / GIB:.1f}",
            f"{kv_bytes(shape, 1, 2, windows=False) / 2**10:g}",
            f"{kv_bytes(shape, 3072, 2, windows=False) / 2**20:.0f}",
            f"{kv_bytes(shape, 3072, 2) / 2**20:.0f}",
        ]
        for name, shape in KNOWN.items()
    ]
    heads = ["model", "text, B", "vision, B", "bfloat16, GiB", "KV a token, KiB", "KV of 3,072 tokens, MiB", "with windows, MiB"]
    return _table(heads, rows)


def _zero3(run: Run) -> str:
    """By number of processes, with the preset's adapters and with all weights trained."""
    shape, width = KNOWN[run.teacher.model], BYTES[run.learner.dtype]
    rows = []
    for processes in _GPUS:
        row = [str(processes)]
        for lora in (run.learner.lora, None):
            adapters = shape.adapters(lora.rank) if lora else 0
            state = zero3_state(shape.parameters + adapters, adapters or shape.parameters, processes, width)
            held = trained_memory(run.learner.model_copy(update={"processes": processes, "lora": lora}), shape)
            fits = "" if held.total <= H100.memory else ", does not fit"
            row += [f"{state.total / GIB:.1f}", f"{held.total / GIB:.1f}{fits}"]
        rows.append(row)
    return _table(["processes", "LoRA: state, GiB", "LoRA: in all, GiB", "all weights: state, GiB", "all weights: in all, GiB"], rows)


def _sync(run: Run) -> str:
    """One version, to engines on as many nodes as the GPUs fill."""
    shape, width = KNOWN[run.teacher.model], BYTES[run.learner.dtype]
    own = sync_bytes(shape, width)
    rows = []
    for gpus in _GPUS:
        nodes, processes = math.ceil(gpus / GPUS_PER_NODE), max(1, gpus // 2)
        link = H100.link if nodes == 1 else H100.network
        rows.append(
            [
                str(gpus),
                f"{own / 1e9:.1f}",
                f"{own * (nodes - 1) / 1e9:.1f}",
                f"{gather_seconds(shape, width, processes, H100):.2f}",
                f"{sync_seconds(shape, width, nodes - 1, processes, H100):.0f}",
                f"{own / (link * ASSUMED_LINK):.2f}",
            ]
        )
    heads = ["GPUs", "GB a version", "GB between nodes", "gathered, s", "through Ray's object store, s", "if GPUs sent to GPUs, s"]
    return _table(heads, rows)


def _scaled(run: Run) -> str:
    """The preset's run on so many GPUs: half of them for the learner, one for the scorers, the others for engines. On one GPU all would
    share it; on two, learner and scorers would share one."""
    rows = []
    for gpus in _GPUS:
        learners, engines = max(1, gpus // 2), max(1, gpus // 2 - _SCORERS)
        outline = outline_of(_resized(run, learners, engines))
        if gpus < learners + engines + _SCORERS:
            rows.append([str(gpus), "shared", _shared(outline, gpus), *["-"] * 7])
        else:
            rows.append([str(gpus), f"{learners} + {engines} + {_SCORERS}", *_cells(outline)])
    heads = ["GPUs", "learner + engines + scorers", "fullest GPU, GiB", "rollout, s", "score, s", "learn, s", "sync, s", "hours"]
    return _table([*heads, "GPU-hours", "of them busy"], rows)


def _resized(run: Run, learners: int, engines: int) -> Run:
    learner = run.learner.model_copy(update={"processes": learners})
    return run.model_copy(update={"learner": learner, "rollout": run.rollout.model_copy(update={"workers": engines})})


def _shared(outline: Outline, gpus: int) -> str:
    """Memory of the GPU that holds the most, where there is not one for each."""
    held = sum(memory.total for name, memory in outline.memory.items() if gpus == 1 or name != "rollout")
    return f"{held / GIB:.1f}{', does not fit' if held > H100.memory else ''}"


def outline_of(run: Run) -> Outline:
    """Of a preset, by the known shapes."""
    found = {"teacher": KNOWN[run.teacher.model]} | ({"proxy": KNOWN[run.proxy.model]} if run.proxy else {})
    return outline_run(run, found, H100)


def _cells(outline: Outline) -> list[str]:
    assert outline.hours is not None  # noqa: S101
    seconds = {phase.name: phase.seconds for phase in outline.hours.phases}
    fullest = max(card.memory for card in outline.cards)
    hours = outline.hours
    return [
        f"{fullest / GIB:.1f}",
        *(f"{seconds[name]:.0f}" for name in ("rollout", "score", "learn", "sync")),
        f"{hours.wall:.1f}",
        f"{hours.reserved:.0f}",
        f"{hours.busy:.0f}",
    ]


def _paper() -> str:
    rows = []
    for family in FAMILIES:
        run = load_run(PRESETS / f"{family}-bigmath4.yaml")
        rows.append(_compared(f"{run.name}, calibration", outline_of(run), run.calibration.steps, "rollout", PAPER_CALIBRATION))
        job = load_job(Distill, PRESETS / f"distill-{family}-bigmath4.yaml")
        assert job.teacher is not None  # noqa: S101
        shapes = {"teacher": KNOWN[job.teacher.model], "student": KNOWN[job.student.model]}
        rows.append(_compared(f"{job.name}, one student", outline_distill(job, shapes, H100), job.method.steps, "learn", PAPER_STUDENT))
    return _table(["preset", "steps", "GPU-hours", "of them busy", "the paper's H100-hours", "steps that those would pay for"], rows)


def _compared(name: str, outline: Outline, steps: int, repeated: str, paper: float) -> list[str]:
    """`repeated` is a phase of each step."""
    hours = outline.hours
    assert hours is not None  # noqa: S101
    times = next(phase.times for phase in hours.phases if phase.name == repeated)
    a_step = sum(phase.seconds for phase in hours.phases if phase.times == times) * hours.gpus / 3600
    once = hours.reserved - times * a_step
    return [name, str(steps), f"{hours.reserved:.0f}", f"{hours.busy:.0f}", f"{paper:g}", f"{(paper - once) / a_step:.0f}"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, ["---"] * len(heads), *rows))


if __name__ == "__main__":
    print("\n\n".join(tables()))
