"""What a person sees on the terminal while a run goes on; on stderr, so that stdout stays for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Console:
    """Progress bars on a terminal; one line a phase where there is none."""

    def __init__(self) -> None:
        self._rich = RichConsole(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        self._rich.print(text, markup=False)

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """A spinner around something that has no steps."""
        with self._progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as progress:
            progress.add_task(text, total=None)
            yield
        self.say(text)

    @contextmanager
    def steps(self, text: str, total: int) -> Iterator[Callable[[dict[str, Any]], None]]:
        """A bar of `total` steps; call what it gives after each, with the step's metrics or an empty dict."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with self._progress(*columns) as progress:
            task = progress.add_task(text, total=total, note="")

            def advance(row: dict[str, Any]) -> None:
                note = f"right {row['task_reward']:.3f}  KL {row['kl_anchor']:.3f}" if row else ""
                progress.update(task, advance=1, note=note)

            yield advance
        self.say(f"{text}: done")

    def _progress(self, *columns: Any) -> Progress:
        return Progress(*columns, console=self._rich, transient=True, disable=not self._rich.is_terminal)
