"""A scorer in a process of its own, as a Ray actor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raydistill.cluster import placement
from raydistill.environment import process_environment
from raydistill.errors import RunError, last_line
from raydistill.models.weights import Weights, arriving
from raydistill.scoring.score import Scorer, ScorerSpec, SequenceScore

if TYPE_CHECKING:
    from raydistill.scoring.forward import Array, TokenTopK


class ScorerActor:
    """Hosts one scorer. What its methods return need not leave the object store: callers may pass the references on."""

    def __init__(self, spec: ScorerSpec) -> None:
        import torch

        torch.set_num_threads(spec.threads)
        self._scorer = Scorer(spec)

    def ready(self) -> None:
        """Returns once the model is loaded."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        return self._scorer.score(prompts, completions)

    def token_logprobs(self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]) -> list[Array]:
        return self._scorer.token_logprobs(prompt_ids, completion_ids)

    def token_distributions(self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]) -> list[Array]:
        return self._scorer.token_distributions(prompt_ids, completion_ids)

    def token_topk(
        self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], k: int, temperature: float = 1.0
    ) -> list[TokenTopK]:
        return self._scorer.token_topk(prompt_ids, completion_ids, k, temperature)

    def sync(self, weights: Weights) -> int:
        """Load new weights and return their version. Raises WeightsError if they are not what was sent or not of this model."""
        self._scorer.load_weights(arriving(weights))
        return weights.version


def answers(references: Sequence[Any]) -> list[Any]:
    """What scorers answer, in order. Raises what a scorer raised, as it raised it, and RunError for one that died."""
    import ray

    try:
        return ray.get(list(references))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayActorError as error:
        raise RunError(f"a scorer died: {last_line(error)}") from error


def start_scorer(spec: ScorerSpec, num_cpus: float = 1.0, num_gpus: float = 0.0) -> Any:
    """Start a ScorerActor without waiting for it; `ready` waits. It runs on the CPU unless GPUs are reserved for it.

    It is placed with the engines: it too reads texts by fixed or newly sent weights, and keeps nothing that a lost node would take along.
    """
    import ray

    environment = process_environment(spec.threads, num_gpus)
    options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": placement("rollout"), "runtime_env": {"env_vars": environment}}
    return ray.remote(ScorerActor).options(**options).remote(spec)
