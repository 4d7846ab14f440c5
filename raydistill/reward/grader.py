"""The task reward by a reward model, where the verifier's processes would otherwise check."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from raydistill.config.task import TaskConfig, VerifierConfig, reward_config
from raydistill.models.reward_model import inspect_reward_model
from raydistill.reward.actor import RemoteReward, start_reward
from raydistill.reward.model import RewardModel
from raydistill.tasks.outcome import Checked, Graded, Outcome
from raydistill.tasks.verifier import Verifier

if TYPE_CHECKING:
    from raydistill.tasks.prompt import Prompt, Task

logger = logging.getLogger(__name__)


class Grader:
    """Grades completions by a reward model. As a context manager, or by `close`, it ends the model's process if it has one."""

    def __init__(self, model: RewardModel, center: float = 0.0, scale: float = 1.0) -> None:
        self._model, self._center, self._scale = model, center, scale

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if isinstance(self._model, RemoteReward):
            self._model.stop()

    def verify(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Checked]:
        """The reward of each completion of the prompt at the same place, in order; without a finite score its check has failed.

        Raises RunError where the model's process died.
        """
        scores = self._model.score([prompt.text for prompt in prompts], completions)
        return [self._outcome(prompt, score) for prompt, score in zip(prompts, scores, strict=True)]

    def _outcome(self, prompt: Prompt, score: float) -> Checked:
        if not math.isfinite(score):
            logger.warning("the reward model gives a completion of prompt %s a score of %s", prompt.id, score)
            return Outcome.CRASHED
        return Graded(sigmoid((score - self._center) / self._scale))


def sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def start_checker(task: Task, config: TaskConfig, verifier: VerifierConfig) -> Verifier | Grader:
    """What checks a task's completions: worker processes or, needing Ray, a reward model. A context manager."""
    reward = reward_config(config)
    if reward is None:
        return Verifier(task, verifier.workers, verifier.timeout)
    return Grader(start_reward(reward, str(inspect_reward_model(reward.model).folder)), reward.center, reward.scale)
