"""What a command's processes hold together while it runs."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.e2e.conftest import ENVIRONMENT

_EVERY = 1.0
"""Seconds between two looks."""


@dataclass(frozen=True)
class Watched:
    """A command that has ended well."""

    seconds: float
    peak: int
    """Bytes of all its processes together at the worst moment, as PSS: a page that several share counts once."""
    kinds: dict[str, int]
    """The same, by kind of process, largest first."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {size / 2**30:.2f}" for kind, size in self.kinds.items())
        return f"{self.seconds:.0f} s, {self.peak / 2**30:.2f} GiB at most: {kinds}"


def watched(arguments: Sequence[str], log: Path) -> Watched:
    """Run a command to its end, its stderr going to `log`; fails the test with that if the command fails."""
    started, peak = time.monotonic(), Counter[str]()
    with log.open("w") as file, subprocess.Popen(arguments, stderr=file, env=ENVIRONMENT) as process:
        while process.poll() is None:
            now = held(process.pid)
            peak = max(peak, now, key=Counter.total)
            time.sleep(_EVERY)
    assert process.returncode == 0, log.read_text()
    return Watched(time.monotonic() - started, peak.total(), dict(peak.most_common()))


def held(pid: int) -> Counter[str]:
    """Bytes (PSS) by kind of process: of this one and all below it, Ray's actors included where it has started Ray itself."""
    kinds: Counter[str] = Counter()
    with suppress(psutil.Error):
        for process in [*(parent := psutil.Process(pid)).children(recursive=True), parent]:
            with suppress(psutil.Error):
                kinds["the command" if process.pid == pid else _kind(process)] += process.memory_full_info().pss
    return kinds


def _kind(process: psutil.Process) -> str:
    words = process.cmdline()
    title = words[0] if words else process.name()
    return title.partition(".")[0] if title.startswith("ray::") else process.name()
