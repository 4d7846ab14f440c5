"""Seconds of each phase of a step, or of a job."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from raydistill.files import write_whole


class Phases:
    """Collects wall-clock seconds by phase: `with phases("rollout"): ...`; a phase entered again adds up."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        """`seconds` is what earlier processes took."""
        self.seconds: dict[str, float] = dict(seconds or {})

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class KeptPhases(Phases):
    """The phases of a job, over all its attempts: their seconds lie in a file."""

    def __init__(self, path: Path, names: Iterable[str]) -> None:
        """`names` are there from the start, with 0 seconds."""
        known = json.loads(path.read_text()) if path.exists() else {}
        super().__init__(dict.fromkeys(names, 0.0) | known)
        self._path = path

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Writes the file at the end, however that comes."""
        try:
            yield
        finally:
            write_whole(self._path, json.dumps(self.seconds))
