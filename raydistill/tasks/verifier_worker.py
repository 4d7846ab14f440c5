"""The other side of `Verifier`: a process that checks completions and may die of it. Imports nothing heavy.

Protocol, over one pipe: the parent sends the pickled task, then chunks, each a list of (prompt, completion). The worker
answers READY once it can check, BEGIN when it has a chunk in hand, and then a message a completion, in order.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import struct
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill.tasks.prompt import Prompt, Task

READY, BEGIN, RIGHT, WRONG, GRADED, RAISED = b"s", b"b", b"r", b"w", b"g", b"x"
"""GRADED is followed by the reward, RAISED by the exception as text."""

_OUT_OF_MEMORY = 12  # errno.ENOMEM

Chunk = Sequence[tuple["Prompt", str]]


def _check(task: Task, prompt: Prompt, completion: str) -> bytes:
    try:
        found = task.verify(prompt, completion)
        return _packed(found) if isinstance(found, float) else RIGHT if found else WRONG
    except MemoryError:
        os._exit(_OUT_OF_MEMORY)  # what was half built stays so: this process is not to be trusted with another sample
    except Exception as error:
        return RAISED + f"{type(error).__name__}: {error}".encode(errors="replace")[:500]


def _packed(reward: float) -> bytes:
    if not 0 <= reward <= 1:  # NaN is not, either
        raise ValueError(f"a reward must be from 0 to 1, not {reward}")
    return GRADED + struct.pack("d", reward)


def unpacked(message: bytes) -> float:
    """The reward in a message that begins with GRADED."""
    (reward,) = struct.unpack("d", message[1:])
    return reward


def _warm_up(task: Task) -> None:
    """Let a task with slow imports (an optional method `warm_up`) do them now, so that no sample's time pays for them."""
    warm_up: Callable[[], None] | None = getattr(task, "warm_up", None)
    if warm_up is not None:
        warm_up()


def serve(descriptor: int, last_resort: float, memory_bytes: int) -> None:
    """Check chunks until the parent closes the pipe.

    `last_resort` is a number of seconds after which the kernel ends a check that nobody stopped: the parent enforces the
    time limit, but a parent that was killed cannot. SIGALRM is left at its default action, which no Python code delays.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(descriptor)
    try:
        task = pickle.loads(connection.recv_bytes())  # noqa: S301 - from the parent process, over a private pipe
        _warm_up(task)
        connection.send_bytes(READY)
        while True:
            chunk: Chunk = connection.recv()
            connection.send_bytes(BEGIN)
            for prompt, completion in chunk:
                signal.setitimer(signal.ITIMER_REAL, last_resort)
                connection.send_bytes(_check(task, prompt, completion))
                signal.setitimer(signal.ITIMER_REAL, 0)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)  # the parent has closed the pipe or is gone
