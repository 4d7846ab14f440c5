"""The verifier against checks that hang, crash and blow up: each is a counted outcome and touches no other sample."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from raydistill.errors import RunError
from raydistill.tasks.arithmetic import Arithmetic
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.verifier import Outcome, Verifier

PROMPT = Prompt(id="p", text="?", answer="yes", gold="")
TIMEOUT = 0.5


def _wait_for_file(path: str) -> bool:
    while not Path(path).exists():
        time.sleep(0.01)
    return True


class Minefield:
    """Every completion names what its check does; anything else is right when it equals the answer."""

    name = "minefield"

    def prompts(self, split: Split) -> list[Prompt]:
        return [PROMPT]

    def style(self, completion: str) -> str:
        return "other"

    def verify(self, prompt: Prompt, completion: str) -> bool:
        action, _, argument = completion.partition(":")
        if action == "loop":
            while True:
                pass
        elif action == "regex":
            return re.fullmatch(r"(a+)+b", "a" * 40) is not None
        elif action == "sleep":
            time.sleep(float(argument))
            return True
        elif action == "raise":
            raise ValueError(argument)
        elif action == "exit":
            os._exit(int(argument))
        elif action == "sysexit":
            sys.exit(0)
        elif action == "segfault":
            ctypes.string_at(0)
        elif action == "memory":
            hoard = []
            while True:
                hoard.append(bytearray(2**24))
        elif action == "child":
            child = subprocess.Popen(["sleep", "60"])
            Path(argument).write_text(str(child.pid))
            child.wait()
        elif action == "ignore-alarm":
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            time.sleep(60)
        elif action == "pid":
            Path(argument).write_text(str(os.getpid()))
            time.sleep(60)
        return completion == prompt.answer


def run(completions: list[str], workers: int = 2, timeout: float = TIMEOUT) -> list[Outcome]:
    with Verifier(Minefield(), workers, timeout, memory_bytes=2**28) as verifier:
        return verifier.verify([PROMPT] * len(completions), completions)


@pytest.mark.parametrize(
    ("mine", "outcome"),
    [
        ("loop", Outcome.TIMEOUT),
        ("regex", Outcome.TIMEOUT),
        ("sleep:60", Outcome.TIMEOUT),
        ("ignore-alarm", Outcome.TIMEOUT),
        ("raise:no", Outcome.CRASHED),
        ("exit:0", Outcome.CRASHED),
        ("exit:3", Outcome.CRASHED),
        ("sysexit", Outcome.CRASHED),
        ("segfault", Outcome.CRASHED),
        ("memory", Outcome.CRASHED),
    ],
)
def test_a_mine_is_counted_and_its_neighbours_are_not_touched(mine: str, outcome: Outcome) -> None:
    completions = ["yes", "no", mine, "yes", "no", "yes"]
    expected = [Outcome.RIGHT, Outcome.WRONG, outcome, Outcome.RIGHT, Outcome.WRONG, Outcome.RIGHT]
    assert run(completions, timeout=TIMEOUT if outcome is Outcome.TIMEOUT else 10.0) == expected


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_all_mines_at_once(workers: int) -> None:
    mines = {"loop": "timeout", "exit:1": "crashed", "raise:x": "crashed", "segfault": "crashed", "yes": "right", "no": "wrong"}
    completions = [name for name in mines for _ in range(2)]
    outcomes = run(completions, workers)
    assert outcomes == [mines[name] for name in completions]
    assert Counter(outcome.failed for outcome in outcomes) == {True: 8, False: 4}


def test_a_verifier_serves_on_after_failures() -> None:
    with Verifier(Minefield(), 2, TIMEOUT) as verifier:
        for _ in range(2):
            assert verifier.verify([PROMPT] * 3, ["exit:1", "yes", "loop"]) == [Outcome.CRASHED, Outcome.RIGHT, Outcome.TIMEOUT]
        assert verifier.verify([PROMPT] * 100, ["yes"] * 100) == [Outcome.RIGHT] * 100


def test_the_limit_is_counted_from_the_start_of_each_check() -> None:
    """Six checks of a quarter of the limit each on one worker: together they take longer than the limit and none times out."""
    assert run(["sleep:0.25"] * 6, workers=1, timeout=1.0) == [Outcome.RIGHT] * 6


def test_a_limit_is_kept() -> None:
    with Verifier(Minefield(), 1, TIMEOUT) as verifier:
        assert verifier.verify([PROMPT], ["yes"]) == [Outcome.RIGHT]
        start = time.monotonic()
        assert verifier.verify([PROMPT], ["regex"]) == [Outcome.TIMEOUT]
        assert TIMEOUT <= time.monotonic() - start < TIMEOUT + 3.0


def test_a_long_completion_arrives_whole() -> None:
    long = "x" * (10 * 2**20)
    prompt = Prompt(id="long", text="", answer=long, gold="")
    with Verifier(Minefield(), 2, 5.0) as verifier:
        outcomes = verifier.verify([prompt, prompt, PROMPT, prompt], [long, long[:-1], "yes", long])
    assert outcomes == [Outcome.RIGHT, Outcome.WRONG, Outcome.RIGHT, Outcome.RIGHT]


def test_a_completion_that_does_not_fit_the_memory_limit_fails_alone() -> None:
    assert run(["yes", "x" * 2**28, "yes"], timeout=5.0) == [Outcome.RIGHT, Outcome.CRASHED, Outcome.RIGHT]


def test_nothing_to_verify() -> None:
    assert run([]) == []


def test_lengths_must_agree() -> None:
    with Verifier(Minefield(), 1, TIMEOUT) as verifier, pytest.raises(ValueError, match="zip"):
        verifier.verify([PROMPT], ["yes", "no"])


def test_the_order_is_that_of_the_samples_and_repeats() -> None:
    task = Arithmetic()
    prompts = task.prompts("tune")
    completions = [prompt.gold if index % 3 else prompt.gold + "x" for index, prompt in enumerate(prompts)]
    with Verifier(task, 3, 5.0) as verifier:
        first, second = (verifier.verify(prompts, completions) for _ in range(2))
    assert first == second == [Outcome.RIGHT if index % 3 else Outcome.WRONG for index in range(len(prompts))]


def test_a_worker_that_died_idle_costs_no_sample() -> None:
    with Verifier(Minefield(), 1, TIMEOUT) as verifier:
        verifier.verify([PROMPT], ["yes"])
        process = verifier._workers[0]._process
        process.kill()
        process.wait()
        assert verifier.verify([PROMPT] * 2, ["yes", "no"]) == [Outcome.RIGHT, Outcome.WRONG]


def test_an_interrupted_call_leaves_nothing_behind_for_the_next_one(request: pytest.FixtureRequest) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with Verifier(Minefield(), 1, 30.0) as verifier:
        verifier.verify([PROMPT], ["yes"])
        threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            verifier.verify([PROMPT] * 3, ["no", "sleep:20", "no"])
        assert verifier.verify([PROMPT] * 2, ["yes", "yes"]) == [Outcome.RIGHT] * 2


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def _gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while _alive(pid) and time.monotonic() < end:
        time.sleep(0.05)
    return not _alive(pid)


@pytest.mark.parametrize("action", ["pid", "child"])
def test_a_hanging_check_is_killed_with_its_children_and_close_leaves_no_process(tmp_path: Path, action: str) -> None:
    verifier = Verifier(Minefield(), 2, TIMEOUT)
    assert verifier.verify([PROMPT], [f"{action}:{tmp_path / 'pid'}"]) == [Outcome.TIMEOUT]
    assert _gone_within(int((tmp_path / "pid").read_text()), 1.0)
    pids = [worker._process.pid for worker in verifier._workers]
    verifier.close()
    assert not any(_alive(pid) for pid in pids)
    with pytest.raises(RuntimeError, match="closed"):
        verifier.verify([PROMPT], ["yes"])


def test_a_check_that_outlives_its_driver_is_ended_by_the_kernel(tmp_path: Path) -> None:
    """The driver is killed in the middle of a check, so that nobody is left to enforce the limit (2 x 0.01 + 5 seconds)."""
    script = f"""
import sys
sys.path[:] = {[path or os.getcwd() for path in sys.path]!r}
from {__name__} import Minefield, PROMPT
from raydistill.tasks.verifier import Verifier
verifier = Verifier(Minefield(), 1, 0.01)
verifier._timeout = 60.0
verifier._workers[0]._timeout = 60.0
verifier.verify([PROMPT], ["pid:{tmp_path / "pid"}"])
"""
    driver = subprocess.Popen([sys.executable, "-c", script])
    assert _wait_for_file(str(tmp_path / "pid"))
    time.sleep(0.1)
    driver.kill()
    driver.wait()
    assert _gone_within(int((tmp_path / "pid").read_text()), 8.0)


class CannotStart(Minefield):
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (__import__, ("no_such_module",))


def test_workers_that_cannot_start_end_the_run() -> None:
    with Verifier(CannotStart(), 1, TIMEOUT) as verifier, pytest.raises(RunError, match="does not start"):
        verifier.verify([PROMPT], ["yes"])


class Heavy(Minefield):
    def verify(self, prompt: Prompt, completion: str) -> bool:
        return completion in sys.modules


def test_workers_are_light() -> None:
    with Verifier(Heavy(), 1, 5.0) as verifier:
        names = ["torch", "ray", "transformers", "datasets", "numpy", "raydistill.tasks.prompt"]
        outcomes = verifier.verify([PROMPT] * len(names), names)
    assert outcomes == [Outcome.WRONG] * 5 + [Outcome.RIGHT]


class SlowStart(Minefield):
    def warm_up(self) -> None:
        time.sleep(2 * TIMEOUT)


def test_slow_imports_do_not_count_against_a_sample() -> None:
    with Verifier(SlowStart(), 2, TIMEOUT) as verifier:
        assert verifier.verify([PROMPT] * 4, ["yes", "exit:1", "yes", "no"]) == ["right", "crashed", "right", "wrong"]


def test_a_tiny_task_costs_milliseconds() -> None:
    task = Arithmetic()
    prompts = task.prompts("train")[:128]
    with Verifier(task, 2, 5.0) as verifier:
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            verifier.verify(prompts, [prompt.gold for prompt in prompts])
            seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[10] < 0.1  # 3 ms where nothing else runs
