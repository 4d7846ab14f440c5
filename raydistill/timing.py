"""Seconds of each phase of a step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


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
