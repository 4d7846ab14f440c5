"""report.json and report.html in a run's folder, each whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from raydistill.files import write_whole
from raydistill.report.card import report_card
from raydistill.report.facts import Facts
from raydistill.report.html import run_html
from raydistill.report.scores import Json


def write_report(folder: Path, facts: Facts, rows: Mapping[int, Sequence[Json]]) -> Json:
    """Write both files and return the content of report.json. `rows` are the lines of metrics.jsonl of each seed.

    report.json comes last: where it lies, the report is complete.
    """
    report = report_card(facts)
    write_whole(folder / "report.html", run_html(report, facts, rows))
    write_whole(folder / "report.json", json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return report
