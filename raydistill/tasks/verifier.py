"""The task reward, in worker processes with a hard time limit for each sample.

A check may loop for ever (also inside C code, where no Python timer reaches), crash its process or eat all memory: that
sample gets an outcome of its own, the worker is replaced, and no other sample is affected. Pool libraries limit a whole
chunk or pay a round trip a sample, so the loop is written here: chunks go out, outcomes come back one by one, and each
outcome starts the clock of the next sample.
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from raydistill.errors import RunError
from raydistill.tasks import verifier_worker
from raydistill.tasks.outcome import Checked, Graded, Outcome

if TYPE_CHECKING:
    from raydistill.tasks.prompt import Prompt, Task

logger = logging.getLogger(__name__)

_START_SECONDS = 120.0
"""A worker starts in a tenth of a second and some tasks import for a second or two; beyond this it never will."""
_CHUNK_CHARACTERS = 2**20
_CHUNKS_PER_WORKER = 4
_LAUNCH = "import sys; from raydistill.tasks.verifier_worker import serve; serve(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))"


class _Worker:
    """One worker process, the samples it still owes an outcome for, and when it must have said something."""

    def __init__(self, task: bytes, timeout: float, memory_bytes: int) -> None:
        # A program of its own rather than multiprocessing's spawn, which would import the caller's main module again.
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-c", _LAUNCH, str(theirs.fileno()), str(2 * timeout + 5), str(memory_bytes)]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # so that whatever a check starts can be killed with it
            )
        self.connection = Connection(ours.detach())
        self.ready = False
        self.owed: deque[int] = deque()
        self._timeout = timeout
        self.deadline = time.monotonic() + _START_SECONDS
        try:
            self.connection.send_bytes(task)
        except OSError:
            logger.debug("the worker died before it had its task; the pipe will say so")

    @property
    def idle(self) -> bool:
        return self.ready and not self.owed

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def assign(self, samples: Iterable[int], chunk: verifier_worker.Chunk) -> None:
        """Send a chunk. The time of its first sample starts when the worker says that it has it in hand."""
        self.owed.extend(samples)
        self.deadline = time.monotonic() + _START_SECONDS
        try:
            self.connection.send(chunk)
        except OSError:
            logger.debug("the worker died before it had its chunk; the pipe will say so")

    def receive(self) -> bytes:
        """The next message, or b"" if the process is gone."""
        try:
            message = self.connection.recv_bytes()
        except (EOFError, OSError):
            return b""
        self.deadline = time.monotonic() + self._timeout
        return message

    def kill(self) -> int:
        """End the process and whatever it started. Returns its exit code, negative for a signal."""
        self.connection.close()
        code = self._process.poll()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            logger.debug("the worker's processes are gone already")
        self._process.wait()
        return self._process.returncode if code is None else code


class Verifier:
    """Checks completions of one task in `workers` processes; no check takes longer than `timeout` seconds.

    `task` is pickled into the workers, which import its module and nothing else. It may have a method `warm_up()` for slow
    imports. Each worker may use `memory_bytes` of address space. Use as a context manager, or call `close`.
    """

    def __init__(self, task: Task, workers: int, timeout: float, memory_bytes: int = 2**31) -> None:
        if workers < 1 or not timeout > 0:
            raise ValueError(f"a verifier needs at least one worker and a positive timeout, not {workers} and {timeout}")
        self._task = pickle.dumps(task)
        self._timeout = timeout
        self._memory_bytes = memory_bytes
        self._workers = [self._start() for _ in range(workers)]

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers. A closed verifier cannot be used again."""
        while self._workers:
            self._workers.pop().kill()

    def verify(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Checked]:
        """The outcome of each completion of the prompt at the same place, in order.

        Raises RunError if workers cannot be started.
        """
        if not self._workers:
            raise RuntimeError("the verifier is closed")
        samples = list(zip(prompts, completions, strict=True))
        outcomes: dict[int, Checked] = {}
        queue = deque(self._chunks(samples))
        self._replace(worker for worker in self._workers if worker.idle and not worker.alive)
        try:
            while len(outcomes) < len(samples):
                self._hand_out(queue, samples)
                for worker in self._wait():
                    self._read(worker, queue, samples, outcomes)
        except BaseException:
            # What they still owe must not be taken for outcomes of the next call.
            self._replace(worker for worker in self._workers if worker.owed)
            raise
        return [outcomes[index] for index in range(len(samples))]

    def _start(self) -> _Worker:
        return _Worker(self._task, self._timeout, self._memory_bytes)

    def _chunks(self, samples: verifier_worker.Chunk) -> Iterable[list[int]]:
        """Indices of `samples` in chunks: large enough to save round trips, small enough to spread and to be sent again."""
        most = math.ceil(len(samples) / (len(self._workers) * _CHUNKS_PER_WORKER))
        chunk: list[int] = []
        characters = 0
        for index, (_, completion) in enumerate(samples):
            if chunk and (len(chunk) == most or characters + len(completion) > _CHUNK_CHARACTERS):
                yield chunk
                chunk, characters = [], 0
            chunk.append(index)
            characters += len(completion)
        if chunk:
            yield chunk

    def _hand_out(self, queue: deque[list[int]], samples: verifier_worker.Chunk) -> None:
        for worker in self._workers:
            if worker.idle and queue:
                chunk = queue.popleft()
                worker.assign(chunk, [samples[index] for index in chunk])

    def _wait(self) -> list[_Worker]:
        """The workers that have said something, died, or let their deadline pass; waits for the first of them."""
        active = {worker.connection: worker for worker in self._workers if not worker.idle}
        earliest = min(worker.deadline for worker in active.values())
        speaking = [active[connection] for connection in wait(list(active), timeout=max(0.0, earliest - time.monotonic()))]  # type: ignore[index]
        now = time.monotonic()
        return speaking + [worker for worker in active.values() if worker.deadline <= now and worker not in speaking]

    def _read(self, worker: _Worker, queue: deque[list[int]], samples: verifier_worker.Chunk, outcomes: dict[int, Checked]) -> None:
        """Take in one message of a worker that `_wait` named, or bury it."""
        if not worker.connection.poll():
            self._bury(worker, queue, samples, outcomes, overdue=True)
            return
        message = worker.receive()
        kind = message[:1]
        if not message:
            self._bury(worker, queue, samples, outcomes, overdue=False)
        elif kind == verifier_worker.READY:
            worker.ready = True
        elif kind != verifier_worker.BEGIN:
            index = worker.owed.popleft()
            outcomes[index] = _OUTCOMES[kind] if kind in _OUTCOMES else Graded(verifier_worker.unpacked(message))
            if kind == verifier_worker.RAISED:
                logger.warning("the check of a completion of prompt %s raised %s", samples[index][0].id, message[1:].decode())

    def _bury(
        self, worker: _Worker, queue: deque[list[int]], samples: verifier_worker.Chunk, outcomes: dict[int, Checked], overdue: bool
    ) -> None:
        """Replace a worker that died or ran over its time: its current sample has failed, the ones behind it are handed out again."""
        code = worker.kill()
        if not worker.ready:
            raise RunError(f"the verifier's worker process does not start (exit code {code}); its error is on stderr above")
        index = worker.owed.popleft()
        outcomes[index] = Outcome.TIMEOUT if overdue or code == -signal.SIGALRM else Outcome.CRASHED
        logger.warning("the check of a completion of prompt %s: %s (exit code %s)", samples[index][0].id, outcomes[index], code)
        if worker.owed:
            queue.appendleft(list(worker.owed))
        self._workers[self._workers.index(worker)] = self._start()

    def _replace(self, workers: Iterable[_Worker]) -> None:
        for worker in list(workers):
            worker.kill()
            self._workers[self._workers.index(worker)] = self._start()


_OUTCOMES = {
    verifier_worker.RIGHT: Outcome.RIGHT,
    verifier_worker.WRONG: Outcome.WRONG,
    verifier_worker.RAISED: Outcome.CRASHED,
}
