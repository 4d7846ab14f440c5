"""A fleet of engines behind one call; a worker that dies is replaced and nobody notices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from raydistill.cluster import placement
from raydistill.errors import RunError, last_line
from raydistill.models.weights import Weights, WeightsError
from raydistill.rollout.actor import Probe, RolloutActor
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.environment import engine_environment

logger = logging.getLogger(__name__)

_START_TIMEOUT = 600.0
"""Seconds. An actor that Ray finds no room for would otherwise wait for ever."""


class RolloutPool:
    """Workers with an engine each, all with the same weights.

    A prompt always goes to the same worker, and every sample has a random stream of its own: completions depend neither on
    the number of workers nor on whether one died meanwhile (up to rounding, which differs between batches).
    """

    def __init__(self, spec: EngineSpec, workers: int, num_cpus: float, num_gpus: float = 0.0, max_replacements: int = 3) -> None:
        """Starts the workers without waiting for them. `num_cpus` and `num_gpus` are what Ray reserves for each."""
        self.replacements = 0
        """Workers that died and were replaced."""
        self._spec = replace(spec, gpu=num_gpus > 0)
        # Asked once: a worker that is replaced after its node was lost waits for a node of the kind.
        self._resources = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": placement("rollout")}
        self._max_replacements = max_replacements
        self._version: int | None = 0
        self._synced: tuple[Weights, Probe] | None = None
        self._actors = [self._start() for _ in range(workers)]

    def ready(self, timeout: float = _START_TIMEOUT) -> None:
        """Waits until every engine is up. Raises RunError if one fails, or has not come up after `timeout` seconds."""
        self._await_start(self._actors, timeout)

    def generate(self, prompts: Sequence[TokenPrompt], sampling: Sampling) -> list[list[Completion]]:
        """`sampling.samples` completions of each prompt, in the order of the prompts, by the weights of the last sync."""
        version, workers = self._version, len(self._actors)
        if version is None:
            raise RunError("rollout workers have no verified weights: the last sync failed, or they were shut down")
        shards = [prompts[worker::workers] for worker in range(workers)]
        parts = self._on(range(workers), lambda worker: self._actors[worker].generate.remote(shards[worker], sampling, version))
        completions: list[list[Completion]] = [[] for _ in prompts]
        for worker, part in enumerate(parts):
            completions[worker::workers] = part
        return completions

    def sync(self, weights: Weights, probe_ids: Sequence[int], probe_logprobs: Sequence[float], tolerance: float = 1e-3) -> float:
        """Gives every worker new weights; the largest difference between its and the learner's log-probabilities of the probe.

        `probe_logprobs` are in nats, of each of `probe_ids` after the first. Raises RunError where the difference is over the
        tolerance or the weights did not arrive as they were sent; then no worker serves until a sync succeeds.
        """
        self._version, self._synced = None, None
        probe = Probe(tuple(probe_ids), tuple(probe_logprobs), tolerance)
        worst = self._deliver(range(len(self._actors)), weights, probe)
        self._version, self._synced = weights.version, (weights, probe)
        return worst

    def pids(self) -> list[int]:
        """Process ids of the workers, on whatever node each is."""
        return self._on(range(len(self._actors)), lambda worker: self._actors[worker].pid.remote())

    def shutdown(self) -> None:
        """Ends the workers. The pool cannot be used afterwards."""
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._version, self._synced = [], None, None

    def _start(self) -> Any:
        import ray

        environment = {"env_vars": engine_environment(self._spec)}
        return ray.remote(RolloutActor).options(runtime_env=environment, **self._resources).remote(self._spec)

    def _await_start(self, actors: Sequence[Any], timeout: float) -> None:
        import ray

        try:
            ray.get([actor.pid.remote() for actor in actors], timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            raise RunError(
                f"rollout workers were not up after {timeout:.0f} s: {len(actors)} wanted, with {self._resources} each; "
                f"free now are {ray.available_resources()}"
            ) from None
        except ray.exceptions.RayActorError as error:
            raise RunError(f"a rollout worker could not start: {last_line(error)}") from error

    def _deliver(self, workers: Sequence[int], weights: Weights, probe: Probe) -> float:
        """Gives weights to some workers and checks that they hold them; the largest deviation from the probe."""
        try:
            measured = self._on(workers, lambda worker: self._actors[worker].sync.remote(weights, probe.token_ids))
            return max(map(probe.deviation, measured))
        except WeightsError as error:
            self._version, self._synced = None, None
            raise RunError(f"weights {weights.version} did not reach the rollout workers: {error}") from error

    def _on(self, workers: Sequence[int], call: Callable[[int], Any]) -> list[Any]:
        """Results of `call(worker)`, which returns an object reference, from several workers at once."""
        references = [call(worker) for worker in workers]
        return [self._result(worker, reference, call) for worker, reference in zip(workers, references, strict=True)]

    def _result(self, worker: int, reference: Any, call: Callable[[int], Any]) -> Any:
        """What `reference` stands for; should the worker die, what the call gives on its substitute."""
        import ray

        while True:
            try:
                return ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error
            except ray.exceptions.RayActorError as error:
                self._replace(worker, error)
            reference = call(worker)

    def _replace(self, worker: int, error: Any) -> None:
        """A new worker in the place of a dead one, with the weights of the last sync."""
        import ray

        if error.actor_init_failed:
            raise RunError(f"a rollout worker could not start: {last_line(error)}") from error
        if self.replacements >= self._max_replacements:
            raise RunError(f"a rollout worker died after {self.replacements} replacements: {last_line(error)}") from error
        self.replacements += 1
        logger.warning("rollout worker %d died and is replaced: %s", worker, last_line(error))
        ray.kill(self._actors[worker])  # it may be alive and only out of reach
        self._actors[worker] = self._start()
        self._await_start([self._actors[worker]], _START_TIMEOUT)
        if self._synced:
            self._deliver([worker], *self._synced)
