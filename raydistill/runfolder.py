"""Where everything of a run lies; see docs/outputs.md."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydistill.config.run import Job
from raydistill.errors import InputError
from raydistill.files import whole_folder, write_whole
from raydistill.track.secrets import public_yaml


@dataclass(frozen=True)
class SeedFolder:
    """What one seed's calibration leaves behind."""

    root: Path

    @property
    def teacher(self) -> Path:
        return self.root / "teacher"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:05}"

    def shadows(self, step: int) -> Path:
        """The shadow students' part of a checkpoint: written before the learner's, which makes it one."""
        return self.checkpoints / f"shadows-{step:05}"

    def best(self, step: int) -> Path:
        """The learner's checkpoint of the teacher nearest to a target, measured after so many steps."""
        return self.checkpoints / f"best-{step:05}"

    def last_checkpoint(self) -> int | None:
        """The step of the newest whole checkpoint."""
        steps = [int(folder.name[5:]) for folder in self.checkpoints.glob("step-*") if folder.name[5:].isdigit()]
        return max(steps, default=None)

    def drop_checkpoints_before(self, step: int) -> None:
        """Only the newest checkpoint is ever read, apart from that of a target's best teacher."""
        for older in self.checkpoints.glob("s*-*"):
            if older not in (self.checkpoint(step), self.shadows(step)):
                shutil.rmtree(older)

    def begin_at(self, other: SeedFolder) -> None:
        """Take over what another calibration has done, where nothing is done here yet."""
        if self.last_checkpoint() is None and other.checkpoints.exists():
            shutil.copy2(other.metrics, self.metrics)
            with whole_folder(self.checkpoints) as partial:
                shutil.copytree(other.checkpoints, partial, dirs_exist_ok=True)

    def keep_rows(self, count: int) -> None:
        """Drop the lines of steps that will be done again."""
        lines = self.metrics.read_text().splitlines(keepends=True) if self.metrics.exists() else []
        write_whole(self.metrics, "".join(lines[:count]))

    def append_row(self, row: dict[str, Any]) -> None:
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.metrics.read_text().splitlines()]


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. The first seed's calibration lies at the top, the others' under `seeds/K/`."""

    root: Path
    first_seed: int

    def seed(self, seed: int) -> SeedFolder:
        return SeedFolder(self.root if seed == self.first_seed else self.root / "seeds" / str(seed))

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def report(self) -> Path:
        return self.root / "report.json"

    def student(self, name: str) -> Path:
        return self.root / "students" / name

    def holds(self, run: Job) -> bool:
        """Whether this very run lies here and is complete."""
        return self.report.exists() and self.config.exists() and self.config.read_text() == public_yaml(run)

    def is_complete(self, run: Job, resume: bool) -> bool:
        """Whether this very run lies here, complete; writes nothing.

        Without `resume`, an unfinished run is refused, so that nothing is mixed up by accident. Raises InputError for that, and
        where another run's config or something else lies there.
        """
        if not self.is_claimed(run):
            return False
        if not self.report.exists() and not resume:
            raise self.unfinished()
        return self.report.exists()

    def is_claimed(self, run: Job) -> bool:
        """Whether this very run was begun here. Raises InputError where another run's config or something else lies here."""
        if not self.config.exists():
            if self.root.exists() and any(self.root.iterdir()):
                raise InputError(f"--out {self.root}: not empty and not a run's folder; name another")
            return False
        if self.config.read_text() != public_yaml(run):
            raise InputError(f"--out {self.root}: holds a run with another config; name another folder or delete that one")
        return True

    def unfinished(self) -> InputError:
        """To be raised where a run may not go on by accident."""
        return InputError(f"--out {self.root}: holds an unfinished run; add --resume to go on, or delete it")
