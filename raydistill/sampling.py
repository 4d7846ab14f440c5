"""What a model writes: engines that are there for a while, and their completions, checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raydistill.config.calibration import Dtype, RolloutConfig
from raydistill.config.task import TaskConfig
from raydistill.crew import rollout_pool
from raydistill.diagnose.sampled import Sampled
from raydistill.evaluate.measure import Generate, check_completions
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.rollout.pool import RolloutPool
from raydistill.students.data import Reader
from raydistill.tasks.outcome import Checker
from raydistill.tasks.prompt import Prompt


@contextmanager
def engines(rollout: RolloutConfig, task: TaskConfig, dtype: Dtype, model: str) -> Iterator[Generate]:
    """Engines of a model, which start when they are first asked. Asking raises RunError where they do not come up."""
    pools: list[RolloutPool] = []

    def generate(prompts: Sequence[TokenPrompt], sampling: Sampling) -> list[list[Completion]]:
        if not pools:
            pools.append(rollout_pool(rollout, task, dtype, model))
            pools[0].ready()
        return pools[0].generate(prompts, sampling)

    try:
        yield generate
    finally:
        for pool in pools:
            pool.shutdown()


def checked(generate: Generate, checker: Checker, prompts: Sequence[Prompt], reader: Reader, sampling: Sampling) -> Sampled:
    """Completions of each prompt as the model reads it, each checked."""
    completions = generate([TokenPrompt(prompt.id, reader.prompt(prompt.text)) for prompt in prompts], sampling)
    outcomes = check_completions(checker, prompts, completions)
    rewards = tuple(tuple(outcome.reward for outcome in row) for row in outcomes)
    failures = sum(outcome.failed for row in outcomes for outcome in row)
    return Sampled(tuple(prompts), tuple(map(tuple, completions)), rewards, failures)
