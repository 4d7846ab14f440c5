"""The command line. Heavy modules are imported inside the commands, so that `--help` answers at once."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from raydistill.config.describe import help_text, json_schema
from raydistill.config.diagnose import Diagnose
from raydistill.config.distill import Distill
from raydistill.config.evaluate import Evaluate
from raydistill.config.load import load_job, load_run
from raydistill.config.run import Job, Run
from raydistill.config.sweep import Sweep
from raydistill.errors import InputError, Interrupted, RunError, reason

DEFAULT_CONFIG = Path("configs/demo.yaml")
_UPLOADED = "working_dir_files"
"""The folder in which Ray keeps what `ray job submit --working-dir` sent."""

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def _root() -> None:
    """Set how well other models can be distilled from an LLM teacher, with one signed knob.

    Start with `raydistill doctor`, then `raydistill calibrate --dry-run`.
    """


@app.command(epilog=help_text())
def calibrate(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Set config fields, such as knob.eta=-1")
    ] = None,
    config: Annotated[Path, typer.Option(help="YAML config")] = DEFAULT_CONFIG,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default")] = None,
    eta: Annotated[float | None, typer.Option(help="Shorthand for knob.eta=ETA")] = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything that can be checked without starting, and print the plan")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was interrupted")] = False,
) -> None:
    """Calibrate one teacher at one knob setting, distil and evaluate students, report."""
    run = load_run(config, _with_flags(overrides, {"knob.eta": eta}))
    folder = _folder(out, run.name)
    if dry_run:
        from raydistill import dry_run as dry
        from raydistill.runfolder import RunFolder

        RunFolder(folder, run.seeds[0]).is_complete(run, resume)
        dry.dry_run(run, folder)
        return
    from raydistill.jobs import run_main_jobs
    from raydistill.plan import check

    with _interruptible():
        run_main_jobs([(run, folder)], check(run), resume=resume)


@app.command(epilog=help_text(Distill))
def distill(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Set config fields, such as method.lr=1e-3")
    ] = None,
    config: Annotated[Path, typer.Option(help="YAML config")] = Path("configs/distill.yaml"),
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default")] = None,
    offline: Annotated[str | None, typer.Option(help="Shorthand for offline=OFFLINE")] = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything that can be checked without starting, and print the plan")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was interrupted")] = False,
) -> None:
    """Distil one student from one teacher, by any method, and measure both."""
    job = load_job(Distill, config, _with_flags(overrides, {"offline": offline}))
    folder = _folder(out, job.name)
    if dry_run:
        from raydistill import dry_run as dry
        from raydistill.runfolder import RunFolder

        RunFolder(folder, job.seed).is_complete(job, resume)
        dry.dry_run_distill(job, folder)
        return
    from raydistill.distill import run_distillation
    from raydistill.distill_plan import check

    with _interruptible():
        run_distillation(job, check(job), folder, resume)


@app.command(epilog=help_text(Diagnose))
def diagnose(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Set config fields, such as evaluation.prompts=200")
    ] = None,
    config: Annotated[Path, typer.Option(help="YAML config")] = Path("configs/diagnose.yaml"),
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default")] = None,
    teacher: Annotated[str | None, typer.Option(help="Shorthand for teacher.model=TEACHER")] = None,
    student: Annotated[str | None, typer.Option(help="Shorthand for student.model=STUDENT")] = None,
    after: Annotated[str | None, typer.Option(help="Shorthand for after.model=AFTER, the student after distillation")] = None,
    task: Annotated[str | None, typer.Option(help="Shorthand for task.kind=TASK")] = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything that can be checked without starting, and print the plan")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with a diagnosis that was interrupted")] = False,
) -> None:
    """Say why a student learns badly from a teacher: traps, symptoms, and what to try."""
    flags: dict[str, object] = {"teacher.model": teacher, "student.model": student, "after.model": after, "task.kind": task}
    job = load_job(Diagnose, config, _with_flags(overrides, flags))
    from raydistill.diagnosis import DiagnosisFolder, run_diagnosis
    from raydistill.diagnosis_plan import check, show

    folder = DiagnosisFolder(_folder(out, job.name), job.seed)
    if dry_run:
        folder.is_complete(job, resume)
        show(job, check(job), folder.root)
        return
    with _interruptible():
        run_diagnosis(job, check(job), folder, resume)


@app.command(epilog=help_text(Evaluate))
def evaluate(
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Set config fields, such as evaluation.samples=8")
    ] = None,
    config: Annotated[Path, typer.Option(help="YAML config")] = Path("configs/evaluate.yaml"),
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/NAME by default")] = None,
    model: Annotated[str | None, typer.Option(help="Shorthand for model.model=MODEL")] = None,
    task: Annotated[str | None, typer.Option(help="Shorthand for task.kind=TASK")] = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything that can be checked without starting, and print the plan")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with an evaluation that was interrupted")] = False,
) -> None:
    """Measure one model on one task: sampled, greedy, and by the likelihood of options."""
    job = load_job(Evaluate, config, _with_flags(overrides, {"model.model": model, "task.kind": task}))
    from raydistill.evaluation import EvaluationFolder, run_evaluation
    from raydistill.evaluation_plan import check, show

    folder = EvaluationFolder(_folder(out, job.name), job.seed)
    if dry_run:
        folder.is_complete(job, resume)
        show(job, check(job), folder.root)
        return
    with _interruptible():
        run_evaluation(job, check(job), folder, resume)


@app.command(epilog=help_text(Sweep))
def sweep(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FIELD=VALUE]...", help="Set config fields, such as sweep.over={learner.lr: [1e-3, 2e-3]}"),
    ] = None,
    config: Annotated[Path, typer.Option(help="YAML config: that of a run of the main job, and what is under `sweep`")] = DEFAULT_CONFIG,
    out: Annotated[Path | None, typer.Option(help="The sweep's folder; runs/NAME by default")] = None,
    eta: Annotated[list[float] | None, typer.Option(help="A setting of the knob; several make sweep.eta")] = None,
    dry_run: Annotated[bool, typer.Option(help="Check everything that can be checked without starting, and print the plan")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with a sweep that was interrupted, and try again what failed")] = False,
) -> None:
    """Run the main job at many settings of the knob, crossed with any other field, and say which setting suits whom."""
    job = load_job(Sweep, config, _with_flags(overrides, {"sweep.eta": eta}))
    folder = _folder(out, job.name)
    if dry_run:
        from raydistill import dry_run as dry

        if dry.dry_run_sweep(job, folder, resume):
            return
    from raydistill.sweep import check_sweep, is_complete, run_sweep, show_sweep

    trials, lineups = check_sweep(job, folder)
    if dry_run:
        is_complete(job, folder, trials, resume)
        show_sweep(job, trials, lineups, folder)
        return
    with _interruptible():
        run_sweep(job, trials, lineups, folder, resume)


@app.command()
def demo(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Set config fields")] = None,
    config: Annotated[Path, typer.Option(help="YAML config")] = DEFAULT_CONFIG,
    out: Annotated[Path, typer.Option(help="Folder of the runs and of the knob's curve")] = Path("runs/demo"),
    eta: Annotated[list[float] | None, typer.Option(help="A knob setting; give it several times. -1, 0 and 1 by default")] = None,
) -> None:
    """Run the main job at several knob settings and draw the knob's curve; what is complete is not redone."""
    run = load_run(config, overrides or [])
    from raydistill.demo import run_demo

    with _interruptible():
        run_demo(run, eta or (-1.0, 0.0, 1.0), _folder(out, run.name))


@app.command()
def doctor() -> None:
    """Check this machine and name the cure of what is wrong; exit code 2 if a run could not work."""
    from rich.console import Console
    from rich.table import Table

    from raydistill.doctor import examine

    table = Table("check", "found", "cure")
    findings = examine()
    for finding in findings:
        table.add_row(finding.name, finding.state, finding.cure or "ok", style="red" if finding.fails else None)
    Console().print(table)
    failing = [f"{f.name}: {f.state}; {f.cure}" for f in findings if f.fails]
    if failing:
        raise InputError(failing[0] + (f" (and {len(failing) - 1} more)" if len(failing) > 1 else ""))


@app.command()
def build_ops() -> None:
    """Build DeepSpeed's C++ ops once, instead of at the first run."""
    from raydistill.doctor import build_ops as build

    build()


@app.command()
def schema(
    job: Annotated[Literal["calibrate", "distill", "diagnose", "evaluate", "sweep"], typer.Argument(help="Whose config")] = "calibrate",
) -> None:
    """Print the JSON schema of a config, for editors."""
    kinds: dict[str, type[Job]] = {"calibrate": Run, "distill": Distill, "diagnose": Diagnose, "evaluate": Evaluate, "sweep": Sweep}
    print(json.dumps(json_schema(kinds[job]), indent=2))


def _with_flags(overrides: list[str] | None, flags: dict[str, object]) -> list[str]:
    """Overrides, and flags that were given as further ones."""
    return [*(overrides or []), *(f"{field}={value}" for field, value in flags.items() if value is not None)]


def _folder(out: Path | None, name: str) -> Path:
    """Where everything goes. Absolute, since workers on a cluster have another working directory."""
    folder = (out or Path("runs") / name).absolute()
    if _UPLOADED in folder.parts:
        print(
            f"raydistill: warning: --out {folder}: lies in the copy of the working directory that Ray made for this job and may delete "
            "after it; name a folder by its absolute path, one that every node reaches",
            file=sys.stderr,
        )
    return folder


@contextmanager
def _interruptible() -> Iterator[None]:
    """KeyboardInterrupt, and what Ray makes of a SIGTERM, such as that of `ray job stop`, become Interrupted, another exit RunError."""
    interrupted = Interrupted("interrupted; the same command, `demo` apart with --resume, goes on")
    try:
        yield
    except KeyboardInterrupt:  # Typer would make it exit code 1
        raise interrupted from None
    except SystemExit as error:
        if _by_ray(error):
            raise interrupted from None
        why = reason(error) if isinstance(error.code, str) else f"exit code {error.code or 0}"
        raise RunError(f"something that the run called ended the process: {why}") from error


def _by_ray(error: SystemExit) -> bool:
    """Whether Ray made it of a SIGTERM: with the signal's number in its handler, with 1 where the driver was waiting for an answer."""
    raised = traceback.extract_tb(error.__traceback__)[-1].filename
    return raised.startswith("python/ray/") or f"{os.sep}ray{os.sep}_private{os.sep}" in raised


def run_command(command: Callable[[], None]) -> None:
    """Run a command and leave the process with the contract's exit codes: 0, 2 (bad input), 3 (failed run), 130 (interrupted)."""
    try:
        command()
    except InputError as error:
        _leave(error, 2)
    except RunError as error:
        _leave(error, 3)
    except Interrupted as error:
        _leave(error, 130)


def _leave(message: object, code: int) -> None:
    print(f"raydistill: {message}", file=sys.stderr)
    raise SystemExit(code)


def main() -> None:
    """Entry point of `raydistill`."""
    if not (sys.stdout.isatty() or sys.stderr.isatty()):
        os.environ.setdefault("COLUMNS", "200")  # a log has no width, and tables would be squeezed into 80 columns
    run_command(app)


def verb(name: str) -> None:
    """Entry point of the scripts in `workflows/`: one verb of the command line."""
    sys.argv.insert(1, name)
    main()
