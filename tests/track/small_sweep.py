"""A sweep of synthetic reports, recorded as a driver and its trials' processes do it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from raydistill.config.run import Run
from raydistill.files import write_whole
from raydistill.report.card import report_card
from raydistill.report.scores import Json
from raydistill.track.entries import run_params
from raydistill.track.link import SweepLink
from raydistill.track.marker import RUN_ID, known_run_id
from raydistill.track.secrets import public_yaml
from raydistill.track.sweep_record import SweepRecord
from raydistill.track.tracker import Tracker
from tests.report.synthetic_facts import run_config, some_facts

STEPS = 3


def row(step: int, reward: float = 0.5) -> Json:
    return {"step": step, "task_reward": reward, "cal_reward": None, "kl_anchor": 0.1 * step, "seconds": {"rollout": 0.3, "learn": 0.1}}


@dataclass(frozen=True)
class Trial:
    """A run of the main job and all that lies in its folder when it is over."""

    id: str
    run: Run
    folder: Path
    overrides: dict[str, Any]

    @property
    def report(self) -> Json:
        return report_card(some_facts(self.run.knob.eta, self.run.seeds))

    @property
    def entry(self) -> Json:
        """In sweep.json."""
        return {
            "id": self.id,
            "overrides": self.overrides,
            "eta": self.run.knob.eta,
            "status": "done",
            "report": self.report,
            "error": None,
        }

    def link(self, sweep: str | None) -> SweepLink:
        return SweepLink(sweep, self.id, self.overrides)

    def begin(self) -> None:
        write_whole(self.folder / "config.yaml", public_yaml(self.run))
        for seed in self.run.seeds:
            lines = "".join(json.dumps(row(step, seed / 10)) + "\n" for step in range(STEPS))
            write_whole((self.folder if seed == self.run.seeds[0] else self.folder / "seeds" / str(seed)) / "metrics.jsonl", lines)

    def complete(self) -> None:
        write_whole(self.folder / "teacher" / "config.json", "{}")
        write_whole(self.folder / "report.html", f"<p>{self.id}</p>")
        write_whole(self.folder / "report.json", json.dumps(self.report))

    def record(self, sweep: str | None) -> str | None:
        """As the trial's own process does it, from its start to its end."""
        self.begin()
        tracker = Tracker(self.run.track)
        run_id = tracker.start(self.run, self.folder, known_run_id(self.folder), self.link(sweep), required=False)
        if run_id:
            write_whole(self.folder / RUN_ID, run_id)
        for seed in self.run.seeds:
            tracker.log_step(seed, row(0, seed / 10))
        self.complete()
        tracker.log_report(self.report, self.folder)
        tracker.end("FINISHED")
        return run_id


@dataclass(frozen=True)
class SmallSweep:
    uri: str
    folder: Path
    name: str = "small"
    etas: Sequence[float] = (-1.0, 0.0, 0.5)
    seeds: tuple[int, ...] = (1, 2)
    over: dict[str, Any] = field(default_factory=dict)
    experiment: str = "raydistill"

    @property
    def trials(self) -> list[Trial]:
        return [self._trial(eta) for eta in self.etas]

    def _trial(self, eta: float) -> Trial:
        id_ = f"eta{eta:+g}"
        run = run_config(eta, self.seeds, name=f"{self.name}-{id_}", track={"uri": self.uri, "experiment": self.experiment})
        return Trial(id_, run, self.folder / "trials" / id_, {"knob.eta": eta, **self.over})

    @property
    def result(self) -> Json:
        return {"sweep": self.name, "trials": [trial.entry for trial in self.trials]}

    def files(self) -> list[Path]:
        write_whole(self.folder / "sweep.json", json.dumps(self.result))
        write_whole(self.folder / "sweep.html", "<p>curves</p>")
        write_whole(self.folder / "config.yaml", public_yaml(self.trials[0].run))
        return [self.folder / name for name in ("sweep.json", "sweep.html", "config.yaml")]

    def start(self) -> tuple[SweepRecord, str | None]:
        run = self.trials[0].run
        record = SweepRecord(run.track)
        return record, record.start(self.name, run_params(run), self.folder)
