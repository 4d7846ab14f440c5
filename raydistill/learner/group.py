"""The learner as the main loop sees it: one ZeRO-3 process an actor, called together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from raydistill.cluster import placement
from raydistill.environment import process_environment
from raydistill.errors import InputError, RunError, last_line
from raydistill.learner.batch import LearnerSpec, Sample
from raydistill.models.weights import Digest, Weights

if TYPE_CHECKING:
    from ray import ObjectRef

    from raydistill.learner.microbatch import Anchor
    from raydistill.learner.worker import LearnerWorker
    from raydistill.learner.zero_model import ZeroModel

_GRACE_SECONDS = 10.0
"""How long the other processes get, after one has failed, to say what they know: the first to fail is seldom the cause."""


class LearnerProcess:
    """A LearnerWorker in an actor: resolves references that came as arguments and leaves weights in Ray's object store."""

    def __init__(self, spec: LearnerSpec, rank: int, world_size: int) -> None:
        self._spec, self._rank, self._world_size = spec, rank, world_size
        self._worker: LearnerWorker

    def address(self) -> tuple[str, int]:
        """Where rank 0 will listen: this node's address and a port that is free now."""
        import socket

        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def start(self, address: tuple[str, int]) -> None:
        from raydistill.learner.worker import LearnerWorker

        self._worker = LearnerWorker(self._spec, self._rank, self._world_size, *address)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the worker whose arguments and result are small."""
        return getattr(self._worker, method)(*arguments)

    def learn(self, method: str, samples: Sequence[Sample], anchor: Anchor | Sequence[ObjectRef]) -> dict[str, float]:
        """`update` or `measure` of the worker, with the anchor fetched here."""
        import ray

        if anchor and isinstance(anchor[0], ray.ObjectRef):
            parts = ray.get(list(cast("Sequence[ObjectRef]", anchor)))
            anchor = [array for part in parts for array in part]
        return getattr(self._worker, method)(samples, cast("Anchor", anchor))

    def export(self, bucket_bytes: int) -> tuple[tuple[ObjectRef, ...], str]:
        """References to the buckets and their digest; none except on rank 0."""
        return put_weights(self._worker, bucket_bytes)


def put_weights(model: ZeroModel, bucket_bytes: int) -> tuple[tuple[ObjectRef, ...], str]:
    """Leave a model's weights in Ray's object store: references to the buckets and their digest; none except on rank 0.

    A collective call, as `ZeroModel.export` is.
    """
    import ray

    digest, references = Digest(), []
    for bucket in model.export(bucket_bytes):
        digest.add(bucket)
        references.append(ray.put(bucket))
    return tuple(references), digest.hexdigest()


class LearnerGroup:
    """`processes` actors that hold one model in ZeRO-3 partitions. Methods block until all of them are done.

    When a process dies or fails, the whole group is killed, because the others would wait for it, and the method raises
    RunError (InputError where the cause is the user's input).
    """

    def __init__(self, spec: LearnerSpec, processes: int = 1, num_cpus: float = 1.0, num_gpus: float = 0.0) -> None:
        """Starts the actors without waiting for them; CPUs and GPUs are what Ray reserves for each process."""
        import ray

        actor = ray.remote(LearnerProcess).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            resources=placement("learner"),
            runtime_env={"env_vars": process_environment(max(1, int(num_cpus)), num_gpus)},
        )
        self._actors: list[Any] = [actor.remote(spec, rank, processes) for rank in range(processes)]
        address = self._actors[0].address.remote()
        self._starting = [process.start.remote(address) for process in self._actors]

    def ready(self) -> None:
        """Wait until every process has loaded its part of the model."""
        self._all(self._starting)

    def update(self, samples: Sequence[Sample], anchor: Anchor | ObjectRef | Sequence[ObjectRef]) -> dict[str, float]:
        """`LearnerWorker.update` on all processes.

        `anchor` may be a reference to the list of arrays, or several whose lists follow one another; the processes fetch
        them, the caller does not.
        """
        return self._learn("update", samples, anchor)

    def measure(self, samples: Sequence[Sample], anchor: Anchor | ObjectRef | Sequence[ObjectRef]) -> dict[str, float]:
        """`LearnerWorker.measure` on all processes; `anchor` as for `update`."""
        return self._learn("measure", samples, anchor)

    def export(self, version: int, bucket_bytes: int) -> Weights:
        """The current weights, as references to buckets that the first process has put into the object store.

        They last while somebody holds the references and the first process lives.
        """
        references, digest = self._all([process.export.remote(bucket_bytes) for process in self._actors])[0]
        return Weights(version, references, digest)

    def probe(self, ids: Sequence[int]) -> list[float]:
        """Log-probability, in nats, of each token after the first given those before it (len(ids) - 1 values)."""
        return self._call("token_logprobs", tuple(ids))

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder, adapters merged. Relative paths are relative to the caller's working directory."""
        self._call("save", Path(folder).absolute())

    def set(self, lr: float, kl_coef: float) -> None:
        """Step with these from now on; see `LearnerWorker.set`."""
        self._call("set", lr, kl_coef)

    def reset(self) -> None:
        """Back to the initial weights and a fresh optimiser, in place."""
        self._call("reset")

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write weights and optimiser state, for as many processes to go on from."""
        self._call("save_checkpoint", Path(folder).absolute())

    def load_checkpoint(self, folder: str | Path) -> None:
        """Go on from a checkpoint of one's own. Raises InputError where the folder is not one of this group's shape."""
        self._call("load_checkpoint", Path(folder).absolute())

    def shutdown(self) -> None:
        """Kill the processes. Exported weights go with them."""
        import ray

        for process in self._actors:
            ray.kill(process)

    def _learn(self, method: str, samples: Sequence[Sample], anchor: Anchor | ObjectRef | Sequence[ObjectRef]) -> dict[str, float]:
        import ray

        batch = ray.put(list(samples))
        return self._all([process.learn.remote(method, batch, anchor) for process in self._actors])[0]

    def _call(self, method: str, *arguments: Any) -> Any:
        """A method of every worker; the first one's result."""
        return self._all([process.call.remote(method, *arguments) for process in self._actors])[0]

    def _all(self, references: Sequence[ObjectRef]) -> list[Any]:
        """All results, in order of rank; waits for whichever comes first, so that a failure is seen while others still wait."""
        import ray

        waiting = list(references)
        while waiting:
            done, waiting = ray.wait(waiting)
            if _failure(done[0]) is not None:
                over, _ = ray.wait(list(references), num_returns=len(references), timeout=_GRACE_SECONDS)
                self.shutdown()
                failures = {references.index(reference): _failure(reference) for reference in over}
                raise _explain({rank: failure for rank, failure in failures.items() if failure is not None}, len(references))
        return ray.get(list(references))


def _failure(reference: ObjectRef) -> Exception | None:
    """What went wrong with a call that is over, None if nothing did."""
    import ray

    try:
        ray.get(reference)
    except ray.exceptions.RayError as failure:
        return failure
    return None


def _explain(failures: dict[int, Exception], processes: int) -> Exception:
    """The error to raise: an input error or a death explains the rest, which are peers that lost their connection."""
    import ray

    dead = [rank for rank, failure in failures.items() if isinstance(failure, ray.exceptions.RayActorError)]
    causes = [getattr(failure, "cause", None) for failure in failures.values()]
    for cause in causes:
        if isinstance(cause, InputError | RunError):
            return type(cause)(str(cause))
    if dead:
        which = ", ".join(str(rank) for rank in dead)
        return RunError(f"learner process {which} of {processes} died (killed, or out of memory); resume from the last checkpoint")
    rank, failure = next(iter(failures.items()))
    error = RunError(f"learner process {rank} of {processes} failed: {last_line(failure)}")
    error.__cause__ = failure
    return error
