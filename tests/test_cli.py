"""How a command ends whose work is cut short."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from raydistill.cli import _interruptible, run_command
from raydistill.errors import Interrupted, RunError


def test_ctrl_c_is_an_interruption() -> None:
    with pytest.raises(Interrupted, match="--resume"), _interruptible():
        raise KeyboardInterrupt


def test_a_sigterm_is_an_interruption_once_ray_is_there(ray_cluster: None) -> None:
    """Real Ray's handler, as `ray job stop` meets it."""
    assert callable(signal.getsignal(signal.SIGTERM))  # or it would end the tests

    def command() -> None:
        with _interruptible():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    with pytest.raises(Interrupted, match="--resume"):
        command()


@pytest.mark.parametrize(
    ("given", "told"),
    [("no such\ndevice", "no such device"), (3, "exit code 3"), (0, "exit code 0"), (None, "exit code 0")],
)
def test_a_library_that_ends_the_process_is_told_as_a_failure_with_its_reason(
    given: str | int | None, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        with _interruptible():
            sys.exit(given)

    with pytest.raises(RunError, match=f"ended the process: {told}$"):
        command()
    with pytest.raises(SystemExit) as left:
        run_command(command)
    assert left.value.code == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert "resume" not in line


def test_what_ends_well_or_badly_by_itself_is_left_alone() -> None:
    with _interruptible():
        pass
    with pytest.raises(RunError, match=r"^it broke$"), _interruptible():
        raise RunError("it broke")
