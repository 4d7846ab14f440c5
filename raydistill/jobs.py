"""What the command line starts: the main job from its folder to its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from raydistill.cluster import connect
from raydistill.config.distill import Distill
from raydistill.config.run import Run
from raydistill.crew import Crew
from raydistill.errors import InputError
from raydistill.experiment import Experiment
from raydistill.files import write_whole
from raydistill.models.lineup import Lineup
from raydistill.plan import BYTES, asked, check_room, parts
from raydistill.progress import Console
from raydistill.report.write import write_report
from raydistill.runfolder import RunFolder
from raydistill.runlog import explained, resume_command
from raydistill.track.link import SweepLink
from raydistill.track.marker import RUN_ID, known_run_id
from raydistill.track.secrets import public_yaml
from raydistill.track.tracker import Tracker, status_after


def run_main_jobs(runs: Sequence[tuple[Run, Path]], lineup: Lineup, resume: bool, baselines: Path | None = None) -> None:
    """Main jobs that differ in nothing but the knob, one after the other with the same actors.

    `baselines` is shared by all of them; without it each keeps its own in its folder. Raises InputError or RunError; what is
    done by then stays and can be resumed.
    """
    console = Console()
    folders = [(run, RunFolder(out, run.seeds[0])) for run, out in runs]
    waiting = [(run, folder) for run, folder in folders if not folder.is_complete(run, resume)]
    for _, folder in folders:
        if folder.report.exists():
            console.say(f"{folder.root}: complete, see {folder.root / 'report.html'}")
    if not waiting:
        return
    for warning in lineup.warnings:
        console.say(f"warning: {warning}")
    run = waiting[0][0]
    if baselines:
        _claim(baselines, run)
    connect(weights_bytes=BYTES[run.learner.dtype] * lineup.teacher.facts.parameters)
    check_room(parts(run, lineup))
    with ExitStack() as actors:
        crew: Crew | None = None
        for run, folder in waiting:
            with tracked(run, folder) as tracker, explained(folder, resume_command()):
                crew = crew or actors.enter_context(_crew(run, lineup, console))
                crew.run = run
                main_job(run, lineup, crew, folder, baselines or folder.root, tracker, console, tracker.log_step)


def _claim(baselines: Path, run: Run) -> None:
    """Baselines belong to runs that differ in name and knob setting alone. Raises InputError where others' lie there."""
    neutral = run.model_copy(update={"name": "baselines", "knob": run.knob.model_copy(update={"eta": 0.0})})
    known, wanted = baselines / "config.yaml", public_yaml(neutral)
    if known.exists() and known.read_text() != wanted:
        raise InputError(f"--out {baselines.parent}: holds the baselines of runs with another config; name another folder or delete it")
    write_whole(known, wanted)


@contextmanager
def _crew(run: Run, lineup: Lineup, console: Console) -> Iterator[Crew]:
    crew = Crew(run, lineup)
    try:
        with console.busy("starting the actors"):
            crew.ready()
        yield crew
    finally:
        crew.shutdown()


def main_job(
    run: Run,
    lineup: Lineup,
    crew: Crew,
    folder: RunFolder,
    baselines: Path,
    tracker: Tracker,
    console: Console,
    on_step: Callable[[int, dict[str, Any]], None],
) -> None:
    """One run, by actors that are there, from its folder to its report; `on_step` gets (seed, metrics row) of each step."""
    console.say(f"{folder.root}: {asked(run)}, seeds {', '.join(map(str, run.seeds))}")
    facts = Experiment(run, lineup, crew, folder, baselines, console).measure(on_step)
    report = write_report(folder.root, facts, {seed: folder.seed(seed).rows() for seed in run.seeds})
    tracker.log_report(report, folder.root)
    console.say(f"{folder.root}: {folder.root / 'report.html'}")


@contextmanager
def tracked(run: Run | Distill, folder: RunFolder, sweep: SweepLink | None = None) -> Iterator[Tracker]:
    """MLflow's record of the run; a resumed run goes on with the one it had.

    Nothing is written where MLflow cannot be used, but for a trial of a sweep, which goes on without.
    """
    tracker = Tracker(run.track)
    run_id = tracker.start(run, folder.root, known_run_id(folder.root), sweep, required=sweep is None)
    write_whole(folder.config, public_yaml(run))
    if run_id:
        write_whole(folder.root / RUN_ID, run_id)
    try:
        yield tracker
    except BaseException as error:
        tracker.end(status_after(error))
        raise
    tracker.end("FINISHED")
