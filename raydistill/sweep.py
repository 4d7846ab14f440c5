"""A sweep: the main job at many settings of the knob, as trials on Ray Tune, and what they come to together."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console as Terminal

from raydistill.cluster import connect
from raydistill.config.sweep import ASHA, PBT, Sweep, SweepConfig
from raydistill.errors import InputError, RunError, reason
from raydistill.evolve import FOLDER, RECORD, Leg, evolve, settled
from raydistill.files import lock_of, write_whole
from raydistill.models.lineup import Lineup
from raydistill.plan import BYTES, Part, check, parts, show_plan
from raydistill.progress import Console
from raydistill.report.scores import Json
from raydistill.report.sweep_analysis import analysis, recommendations
from raydistill.report.sweep_html import sweep_html
from raydistill.report.table import sweep_table
from raydistill.room import Needs, at_once, needs_of, nodes_of_cluster
from raydistill.runfolder import RunFolder
from raydistill.runlog import explained, resume_command
from raydistill.track import marker
from raydistill.track.entries import run_params
from raydistill.track.late import send_unsent
from raydistill.track.link import SweepLink
from raydistill.track.marker import COMPLETE, known_run_id
from raydistill.track.secrets import public_yaml
from raydistill.track.sweep_card import sweep_card
from raydistill.track.sweep_record import SweepRecord
from raydistill.track.tracker import Status, status_after
from raydistill.trial import Assignment
from raydistill.trials import Trial, sweep_json, trials_of


def check_sweep(sweep: Sweep, folder: Path) -> tuple[list[Trial], dict[str, Lineup]]:
    """The trials, and each one's models. Raises InputError for the first thing that is wrong with any of them."""
    trials = trials_to_do(sweep, folder)
    checked: dict[Path, Lineup] = {}  # trials that share baselines have the same models and task
    for trial in trials:
        if trial.baselines not in checked:
            checked[trial.baselines] = check(trial.run)
    return trials, {trial.id: checked[trial.baselines] for trial in trials}


def trials_to_do(sweep: Sweep, folder: Path) -> list[Trial]:
    """Those of a population with the schedules that were found for them, once they are. Their models are not looked at.

    Raises InputError where `sweep` itself is wrong.
    """
    _beside(sweep)
    trials, pbt = trials_of(sweep, folder), sweep.sweep.scheduler
    return settled(sweep, pbt, trials, folder) if isinstance(pbt, PBT) else trials


def _beside(sweep: Sweep) -> Json | None:
    """The sweep that is drawn beside this one. Raises InputError where it cannot be read."""
    if sweep.sweep.beside is None:
        return None
    file = Path(sweep.sweep.beside) / "sweep.json"
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"sweep.beside: {file} cannot be read ({reason(error)}); name the folder of a finished sweep") from None
    if not _is_sweep(found):
        raise InputError(f"sweep.beside: {file} is no sweep's; name the folder of a finished sweep")
    return found


def _is_sweep(found: Any) -> bool:
    """Whether it is the content of a sweep.json."""
    trials = found.get("trials") if isinstance(found, dict) and isinstance(found.get("sweep"), str) else None
    fields = {"id", "overrides", "eta", "status", "report"}
    return isinstance(trials, list) and all(isinstance(trial, dict) and trial.keys() >= fields for trial in trials)


def is_complete(sweep: Sweep, folder: Path, trials: Sequence[Trial], resume: bool) -> bool:
    """Whether this very sweep lies in the folder and nothing is left of it to do. Raises InputError as `RunFolder.is_complete` does."""
    record = RunFolder(folder, sweep.seeds[0])
    over = all(trial.is_over() for trial in trials)
    if record.is_claimed(_claim(sweep)) and not over and not resume:
        raise record.unfinished()
    return over


def _claim(sweep: Sweep) -> Sweep:
    """The sweep without what may be another when it goes on: it changes no result."""
    free = {name: SweepConfig.model_fields[name].default for name in ("trials_at_once", "retries", "beside")}
    return sweep.model_copy(update={"sweep": sweep.sweep.model_copy(update=free)})


def run_sweep(sweep: Sweep, trials: Sequence[Trial], lineups: dict[str, Lineup], folder: Path, resume: bool) -> None:
    """Do the trials that are not over; then sweep.json, its page, a table on the terminal.

    Raises RunError where a trial failed, which the next call with `resume` tries again; InputError where there is no room for one.
    """
    console, beside = Console(), _beside(sweep)
    with _alone(folder):
        if not is_complete(sweep, folder, trials, resume):
            _work(sweep, trials, lineups, folder, beside, console)
            return
        console.say(f"{folder}: complete, see {folder / 'sweep.html'}")
        result = _report(sweep, trials, folder, beside)  # a process that was killed may not have got to it
        if not _is_recorded(sweep, trials, folder):
            with _recorded(sweep, folder) as record:
                _send(sweep, trials, result, folder, record)
        _show(result)


def _work(sweep: Sweep, trials: Sequence[Trial], lineups: dict[str, Lineup], folder: Path, beside: Json | None, console: Console) -> None:
    for warning in dict.fromkeys(warning for lineup in lineups.values() for warning in lineup.warnings):
        console.say(f"warning: {warning}")
    plan = _planned(sweep, trials, lineups)
    console.say(f"{folder}: {len(plan.waiting)} trials to do, {len(plan.over)} are over, {plan.at_once} at once")
    write_whole(folder / "config.yaml", public_yaml(_claim(sweep)))
    with _recorded(sweep, folder) as record, explained(RunFolder(folder, sweep.seeds[0]), resume_command()):
        with _timed(trials, folder, plan.at_once):
            if isinstance(sweep.sweep.scheduler, PBT) and not (folder / RECORD).exists():
                plan = _evolved(sweep, sweep.sweep.scheduler, plan, lineups, folder, console)
                trials = plan.waiting
            _do(sweep, plan, lineups, folder / "tune", record, console)
        result = _report(sweep, trials, folder, beside)
        with console.busy("sending what MLflow has not got yet"):
            _send(sweep, trials, result, folder, record)
        _show(result)
        failed = [trial["id"] for trial in result["trials"] if trial["status"] == "failed"]
        if failed:
            raise RunError(f"{len(failed)} of {len(trials)} trials failed ({', '.join(failed)}), see {folder / 'sweep.json'}")


def _show(result: Json) -> None:
    terminal = Terminal()
    terminal.print(sweep_table(result))
    for one in result["recommendations"]:
        terminal.print(f"{one['for']}: {one['trial'] or 'none'}. {one['reason']}", markup=False, highlight=False)


def show_sweep(sweep: Sweep, trials: Sequence[Trial], lineups: dict[str, Lineup], folder: Path) -> None:
    """Print what a sweep would do."""
    terminal = Terminal()
    over = sum(trial.is_over() for trial in trials)
    terminal.print(f"sweep [bold]{sweep.name}[/bold] in {folder}: {len(trials)} trials, {over} of them over", highlight=False)
    for trial in trials:
        terminal.print(f"  {trial.id}", markup=False, highlight=False)
    alike: dict[tuple[Part, ...], list[Trial]] = {}
    for trial in trials:
        alike.setdefault(tuple(parts(trial.run, lineups[trial.id])), []).append(trial)
    for same in alike.values():
        first = same[0]
        terminal.print("each as this one:" if len(alike) == 1 else f"{len(same)} as this one:")
        show_plan(first.run, lineups[first.id], first.folder.root)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two processes must not work on one sweep."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock_of(folder), timeout=0):
            yield
    except Timeout:
        raise InputError(f"--out {folder}: another process is working on this sweep; wait for it, or name another folder") from None


@contextmanager
def _recorded(sweep: Sweep, folder: Path) -> Iterator[SweepRecord]:
    """MLflow's record of the sweep."""
    record = SweepRecord(sweep.track)
    record.start(sweep.name, run_params(sweep), folder)
    try:
        yield record
    except BaseException as error:
        record.end(status_after(error))
        raise
    if record.end("FINISHED"):
        write_whole(folder / COMPLETE, _digest(folder))


def _digest(folder: Path) -> str:
    """Of what the sweep came to."""
    return hashlib.sha256((folder / "sweep.json").read_bytes()).hexdigest()


def _is_recorded(sweep: Sweep, trials: Sequence[Trial], folder: Path) -> bool:
    """Whether MLflow has it all, by what the folders say."""
    if sweep.track.uri is None:
        return True
    run_id, sent = known_run_id(folder), folder / COMPLETE
    if run_id is None or not sent.exists() or sent.read_text() != _digest(folder):
        return False
    return all(marker.is_complete(trial.run, trial.folder.root, _link(trial, run_id)) for trial in trials)


def _link(trial: Trial, run_id: str | None) -> SweepLink:
    return SweepLink(run_id, trial.id, trial.overrides)


def _send(sweep: Sweep, trials: Sequence[Trial], result: Json, folder: Path, record: SweepRecord) -> None:
    """What MLflow was not there to be told, the sweep's curves and pages, and the best teacher for its registry."""
    if not record.log(result, [folder / "sweep.json", folder / "sweep.html", folder / "config.yaml"]):
        return  # it is away, and would be for the trials
    for trial in trials:
        status: Status = "KILLED" if trial.stopped.exists() else "FAILED"
        send_unsent(trial.run, trial.folder.root, _link(trial, record.run_id), status)
    best = recommendations(result["trials"])[0].trial  # of the best student
    if best is not None:
        record.register(best, sweep.name, sweep_card(best, sweep.name))


@dataclass(frozen=True)
class _Plan:
    """What of a sweep is to do on the cluster that was joined."""

    waiting: list[Trial]
    over: list[Trial]
    needs: dict[str, Needs]
    at_once: int


def _planned(sweep: Sweep, trials: Sequence[Trial], lineups: dict[str, Lineup]) -> _Plan:
    """Joins or starts Ray. Raises InputError where there is no room for one of the trials that wait."""
    over = [trial for trial in trials if trial.is_over()]
    waiting = [trial for trial in trials if trial not in over]
    most = min(sweep.sweep.trials_at_once or len(waiting), len(waiting))
    largest = max(BYTES[trial.run.learner.dtype] * lineups[trial.id].teacher.facts.parameters for trial in waiting)
    connect(weights_bytes=most * largest)
    nodes = nodes_of_cluster()
    needs = {trial.id: needs_of(parts(trial.run, lineups[trial.id]), nodes) for trial in trials}
    return _Plan(waiting, over, needs, at_once([needs[trial.id] for trial in waiting], nodes, most))


def _evolved(sweep: Sweep, pbt: PBT, plan: _Plan, lineups: dict[str, Lineup], folder: Path, console: Console) -> _Plan:
    """The plan with the trials' schedules, which are found first."""
    from raydistill.tuning import run_trials

    alike = plan.waiting[0].id  # trials differ in nothing that their actors or models know

    def run_legs(legs: Sequence[Leg]) -> None:
        assignments = {leg.id: Assignment(leg, lineups[alike], pbt, _link(leg, None)) for leg in legs}
        bundles = {leg.id: plan.needs[alike].bundles for leg in legs}
        run_trials(legs, assignments, bundles, sweep, plan.at_once, folder / "tune", console)

    evolve(sweep, pbt, plan.waiting, folder, run_legs, console)
    return replace(plan, waiting=settled(sweep, pbt, plan.waiting, folder))


def _do(sweep: Sweep, plan: _Plan, lineups: dict[str, Lineup], work: Path, record: SweepRecord, console: Console) -> None:
    from raydistill.tuning import run_trials

    scheduler = sweep.sweep.scheduler
    chosen = [
        *(plan.over if isinstance(scheduler, ASHA) else ()),
        *plan.waiting,
    ]  # a scheduler that is new has to be told what became of those that are over
    assignments = {trial.id: Assignment(trial, lineups[trial.id], scheduler, _link(trial, record.run_id)) for trial in chosen}
    bundles = {trial.id: plan.needs[trial.id].bundles for trial in chosen}
    run_trials(chosen, assignments, bundles, sweep, plan.at_once, work, console)


@contextmanager
def _timed(trials: Sequence[Trial], folder: Path, at_once: int) -> Iterator[None]:
    """Notes the seconds of all attempts at the sweep, and of the trials' own work."""
    started = time.perf_counter()
    try:
        yield
    finally:
        _note_seconds(folder, trials, time.perf_counter() - started, at_once)


def _note_seconds(folder: Path, trials: Sequence[Trial], total: float, at_once: int) -> None:
    file = folder / "seconds.json"
    before = json.loads(file.read_text())["total"] if file.exists() else 0.0
    work = sum(_own_seconds(part) for part in [*(trial.folder.root for trial in trials), *(folder / FOLDER).glob("step*")])
    write_whole(file, json.dumps({"total": before + total, "trials": work, "at_once": at_once}))


def _own_seconds(run: Path) -> float:
    file = run / "seconds.json"
    return float(json.loads(file.read_text())["total"]) if file.exists() else 0.0


def _report(sweep: Sweep, trials: Sequence[Trial], folder: Path, beside: Json | None) -> Json:
    """Writes sweep.json, of which this is the content, and the page."""
    result = sweep_json(sweep.name, trials)
    result |= analysis(result["trials"])
    seconds = folder / "seconds.json"
    if seconds.exists():
        result["seconds"] = json.loads(seconds.read_text())
    write_whole(folder / "sweep.json", json.dumps(result, indent=2) + "\n")
    write_whole(folder / "sweep.html", sweep_html(result, beside))
    shutil.rmtree(folder / "tune", ignore_errors=True)
    if all(trial.is_over() for trial in trials):
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
    return result
