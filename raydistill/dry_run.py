"""What `--dry-run` says.

A job without GPUs in its config is for this machine: it is checked as a start would check it, room included. One with GPUs may be for a
cluster elsewhere: what this machine has not got is said below the plan, and only what would fit no such GPU is refused. Of models that
`KNOWN` has the shape of, none is fetched for it: where they are not here, the plan is made from shapes, and says what was not checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from raydistill import distill_plan, plan
from raydistill.config.distill import Distill
from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.config.sweep import Sweep
from raydistill.config.task import RewardConfig, reward_config
from raydistill.errors import InputError
from raydistill.models.checkpoint import read_checkpoint
from raydistill.models.lineup import Lineup
from raydistill.models.load import resolve_folder
from raydistill.models.shapes import KNOWN, Shape, shape_of
from raydistill.plan import BYTES, Part
from raydistill.scaling.arithmetic import H100
from raydistill.scaling.memory import Shapes, require_fit
from raydistill.scaling.outline import Outline, outline_distill, outline_run
from raydistill.scaling.show import show, terminal
from raydistill.sweep import is_complete, trials_to_do
from raydistill.trials import Trial


@dataclass(frozen=True)
class _Look:
    """What a dry run finds out about a run. Of trials for which it is the same, one is told."""

    models: Mapping[str, str]
    unseen: Sequence[str]
    """Sections whose models are not here."""
    lineup: Lineup | None = field(compare=False)
    """None where some are not."""
    kinds: Sequence[Part]
    shapes: Mapping[str, Shape | None]
    """None of a model that has none; empty where nothing is on GPUs."""
    outline: Outline | None
    """Where all have one."""


def dry_run(run: Run, folder: Path) -> None:
    """Check what can be checked of a run, and print its plan. Raises InputError for the first thing that is wrong."""
    found = _look(run, _lineup(run))
    _tell(run, folder, found)
    _require_fit(found)


def dry_run_sweep(sweep: Sweep, folder: Path, resume: bool = False) -> bool:
    """The same of a sweep with trials for GPUs, by one of those that come to the same; False, and nothing printed, for one without."""
    trials = trials_to_do(sweep, folder)
    if not any(_wants_gpus(trial.run) for trial in trials):
        return False
    is_complete(sweep, folder, trials, resume)
    terminal().print(f"sweep {sweep.name} in {folder}: {len(trials)} trials: {', '.join(trial.id for trial in trials)}")
    groups = _grouped(trials)
    for found, alike in groups:
        first = alike[0]
        terminal().print("each as this one:" if len(groups) == 1 else f"{len(alike)} as this one ({', '.join(one.id for one in alike)}):")
        _tell(first.run, first.folder.root, found)
    for found, alike in groups:
        try:
            _require_fit(found)
        except InputError as error:
            raise InputError(f"{alike[0].id}: {error}") from None
    return True


def _grouped(trials: Sequence[Trial]) -> list[tuple[_Look, list[Trial]]]:
    """In order of first appearance."""
    lineups: dict[Path, Lineup | None] = {}  # trials that share baselines have the same models and task
    groups: list[tuple[_Look, list[Trial]]] = []
    for trial in trials:
        if trial.baselines not in lineups:
            lineups[trial.baselines] = _lineup(trial.run)
        found = _look(trial.run, lineups[trial.baselines])
        alike = next((same for known, same in groups if known == found), None)
        if alike is None:
            groups.append((found, [trial]))
        else:
            alike.append(trial)
    return groups


def _lineup(run: Run) -> Lineup | None:
    """What is here, checked: as for a start, or room apart where it may be for a cluster elsewhere. None where models are not here."""
    if not _wants_gpus(run):
        return plan.check(run)
    return None if _unseen(_models_of(run)) else plan.check_without_room(run)


def _look(run: Run, lineup: Lineup | None) -> _Look:
    configs = _models_of(run)
    unseen = [] if lineup else _unseen(configs)
    shapes = _shapes(configs, unseen) if _wants_gpus(run) else {}
    outline = outline_run(run, known, H100) if (known := _all_of(shapes)) else None
    kinds = plan.parts(run, lineup) if lineup else outline.kinds if outline else ()
    return _Look({section: config.model for section, config in configs.items()}, unseen, lineup, tuple(kinds), shapes, outline)


def _tell(run: Run, folder: Path, found: _Look) -> None:
    if found.lineup:
        plan.show_plan(run, found.lineup, folder)
    else:
        first = f"run {run.name} in {folder}: task {run.task.kind}, {plan.asked(run)}, seeds {list(run.seeds)}; {plan.steps(run)}"
        terminal().print(first)
    if found.outline:
        show(found.outline, _all_of(found.shapes), found.unseen, run.rollout, BYTES[run.learner.dtype])
    _tell_unshaped(found.shapes)


def _require_fit(found: _Look) -> None:
    """Raises InputError where a GPU would have to hold more than it can."""
    if found.outline:
        require_fit(found.outline.cards, H100)


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
        terminal().print(f"distillation {job.name} in {folder}: task {job.task.kind}, method {job.method.method}; {steps}")
    else:
        distill_plan.show(job, distill_plan.check_without_room(job), folder)
    shapes = _shapes(configs, unseen)
    if known := _all_of(shapes):
        outline = outline_distill(job, known, H100)
        show(outline, known, unseen, job.rollout, BYTES[job.train.dtype])
        require_fit(outline.cards, H100)
    _tell_unshaped(shapes)


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


def _shapes(configs: Mapping[str, ModelConfig | RewardConfig], unseen: Sequence[str]) -> dict[str, Shape | None]:
    """None of a model that has none."""
    return {
        section: KNOWN[config.model]
        if section in unseen
        else shape_of(read_checkpoint(f"{section}.model", resolve_folder(f"{section}.model", config.model)))
        for section, config in configs.items()
    }


def _all_of(shapes: Mapping[str, Shape | None]) -> Shapes:
    """Empty unless every model has one."""
    found = {section: shape for section, shape in shapes.items() if shape}
    return found if len(found) == len(shapes) else {}


def _tell_unshaped(shapes: Mapping[str, Shape | None]) -> None:
    """Why nothing is estimated, where a model has no shape."""
    if strange := next((section for section, shape in shapes.items() if shape is None), None):
        terminal().print(f"{strange}.model is no plain decoder with gated MLPs: memory of GPUs and GPU-hours are not estimated")
