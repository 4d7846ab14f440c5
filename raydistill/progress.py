"""What a person sees on the terminal while a run goes on; on stderr, so that stdout stays for results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_SILENCE_SECONDS = 60.0
"""In a log, so much time without a line looks like a run that hangs."""


class Advance(Protocol):
    """To be called after each step."""

    def __call__(self, to: int | None = None, note: str = "") -> None:
        """`to` is the number of steps that are done; missing, one more than before. A run that goes on does not begin with step 0."""
        ...


class Console:
    """Progress bars on a terminal; where there is none lines: as a phase starts and ends, at each tenth of it, and once a minute."""

    def __init__(self, file: IO[str] | None = None) -> None:
        """Writes to `file` instead of stderr where one is given."""
        self._rich = RichConsole(file=file, stderr=file is None, highlight=False, width=None if file is None else 200)

    def say(self, text: str) -> None:
        self._rich.print(text, markup=False, soft_wrap=True)  # a log has no width, and a path that is broken cannot be copied

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """A spinner around something that has no steps."""
        with self._phase(text), self._progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
            progress.add_task(text, total=None)
            yield

    @contextmanager
    def steps(self, text: str, total: int) -> Iterator[Advance]:
        """A bar of `total` steps."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with self._phase(text), self._progress(*columns) as progress:
            task = progress.add_task(text, total=total, note="")
            done, said = 0, time.monotonic()

            def advance(to: int | None = None, note: str = "") -> None:
                nonlocal done, said
                before, done = done, done + 1 if to is None else to
                progress.update(task, completed=done, note=note)
                now = time.monotonic()
                if not self._rich.is_terminal and (done * 10 // total > before * 10 // total or now - said >= _SILENCE_SECONDS):
                    self.say(f"{text}: {done}/{total}  {note}".rstrip())
                    said = now

            yield advance

    @contextmanager
    def _phase(self, text: str) -> Iterator[None]:
        started = time.monotonic()
        if not self._rich.is_terminal:
            self.say(f"{text} ...")
        yield
        self.say(f"{text}: done in {time.monotonic() - started:.0f} s")

    def _progress(self, *columns: Any) -> Progress:
        return Progress(*columns, console=self._rich, transient=True, disable=not self._rich.is_terminal)
