"""The embedded demo: the main job at several knob settings, with the same actors, controls and baselines, and the knob's curve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from raydistill.config.load import parse_run
from raydistill.config.run import Run
from raydistill.errors import InputError
from raydistill.files import write_whole
from raydistill.runfolder import RunFolder


def run_demo(run: Run, etas: Sequence[float], folder: Path) -> None:
    """The main job at each of `etas`; then `summary.json`, the knob's curve as `report.html` and `knob.svg`, a table on the terminal.

    What is complete is not redone.
    """
    folder = folder.absolute()  # workers on a cluster have another working directory
    if run.knob.target:
        raise InputError("knob.target: the demo draws a curve over eta, and a target moves it; use `raydistill calibrate`")
    runs = [(at(run, eta), folder / f"eta{eta:+g}") for eta in sorted(etas)]
    if not all(RunFolder(out, run.seeds[0]).holds(each) for each, out in runs):
        from raydistill.jobs import run_main_jobs
        from raydistill.plan import check

        run_main_jobs(runs, check(run), resume=True, baselines=folder / "baselines")
    from rich.console import Console

    from raydistill.report.html import knob_curve_html
    from raydistill.report.knob_curve import knob_curve_svg
    from raydistill.report.table import knob_table

    reports = [json.loads((out / "report.json").read_text()) for _, out in runs]
    write_whole(folder / "summary.json", json.dumps({"reports": reports}, indent=2) + "\n")
    write_whole(folder / "report.html", knob_curve_html(reports))
    write_whole(folder / "knob.svg", knob_curve_svg(reports))
    Console().print(knob_table(reports))


def at(run: Run, eta: float) -> Run:
    """The same run at another knob setting, checked anew."""
    return parse_run(run.model_dump() | {"name": f"{run.name}-eta{eta:+g}", "knob": run.knob.model_dump() | {"eta": eta}}, f"--eta {eta}")
