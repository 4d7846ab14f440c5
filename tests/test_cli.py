"""How a command ends whose work is cut short."""

from __future__ import annotations

import os
import signal
import subprocess
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


WAITING = """
import os, signal, threading, time
import ray
from raydistill.cli import _interruptible
from raydistill.errors import Interrupted

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGTERM)).start()
try:
    with _interruptible():
        ray.get(ray.remote(lambda: time.sleep(60)).remote())
except Interrupted:
    print("interrupted", flush=True)
"""


def test_a_sigterm_while_waiting_for_ray_is_an_interruption_too() -> None:
    """There Ray exits with 1, and may abort the process at its end, so that it is one of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert "interrupted" in done.stdout, done.stderr


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
