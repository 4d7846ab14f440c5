"""What one step knows of its completions, from sampling to the learner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from raydistill.learner.batch import Sample
from raydistill.reward.advantage import Floats, Mask, advantages, calibration_mask, combined, grid, score_gap
from raydistill.students.data import Trace
from raydistill.tasks.outcome import Checked, Outcome

if TYPE_CHECKING:
    from raydistill.config.knob import KnobConfig
    from raydistill.rollout.completion import Completion
    from raydistill.scoring.score import SequenceScore
    from raydistill.tasks.prompt import Prompt


@dataclass
class StepBatch:
    """B prompts with G completions each, flat and prompt by prompt; filled in by one phase after the other."""

    prompts: list[Prompt]
    """One entry a completion: each prompt G times."""
    completions: list[Completion]
    samples: int
    """G."""
    outcomes: list[Checked] = field(default_factory=list)
    proxy_scores: dict[int, SequenceScore] = field(default_factory=dict)
    """By index of the completion, for those that take part in the calibration reward."""
    shadow_scores: list[dict[int, SequenceScore]] = field(default_factory=list)
    """Likewise, for each shadow student; where there are any they take the proxy's place."""
    worst_for: float | None = None
    """The eta whose worst case over the shadows is their reward; their mean if None."""
    denominator_scores: dict[int, SequenceScore] = field(default_factory=dict)
    """Likewise; empty without a denominator."""
    ends_count: bool = False
    """Whether the end of the turn is part of a score."""
    advantages: list[float] = field(default_factory=list)
    anchor_logprobs: Any = None
    """A reference to the original's log-probabilities of the kept completions; it goes from actor to actor."""

    @property
    def verifier_failures(self) -> int:
        return sum(outcome.failed for outcome in self.outcomes)

    def right(self) -> Mask:
        """(B, G): verified right."""
        return grid([outcome is Outcome.RIGHT for outcome in self.outcomes], self.samples, np.bool_)

    def rewards(self) -> Floats:
        """(B, G): r_task, 1 for right and 0 for wrong, or how good where the task is graded."""
        return grid([outcome.reward for outcome in self.outcomes], self.samples)

    def valid(self) -> Mask:
        """(B, G): the check came to a result."""
        return grid([not outcome.failed for outcome in self.outcomes], self.samples, np.bool_)

    def calibrated(self, only_right: bool) -> Mask:
        """(B, G): takes part in the calibration reward."""
        truncated = grid([c.truncated for c in self.completions], self.samples, np.bool_)
        scorable = grid([not c.has_special for c in self.completions], self.samples, np.bool_) & self.valid()
        return calibration_mask(self.right(), truncated, scorable, only_right)

    def texts(self, taken_BG: Mask) -> tuple[list[str], list[str]]:
        """Prompts and completions of those taken, as texts."""
        chosen = np.flatnonzero(taken_BG)
        return [self.prompts[index].text for index in chosen], [self.completions[index].text for index in chosen]

    def gaps(self, normalization: str) -> Floats:
        """(B, G): r_cal in the knob's unit, NaN where a completion was not scored."""
        denominators = self._denominators(normalization)
        return combined([score_gap(self._scores(scores, normalization), denominators) for scores in self._judges()], self.worst_for)

    def compute_advantages(self, knob: KnobConfig) -> None:
        """Fill in `advantages`."""
        gaps_BG = self.gaps(knob.normalization)
        scored_BG = ~np.isnan(gaps_BG)
        result_BG = advantages(self.rewards(), self.valid(), gaps_BG, scored_BG, knob.eta, knob.min_spread, knob.scale == "std")
        self.advantages = result_BG.reshape(-1).tolist()

    def traces(self) -> list[Trace | None]:
        """What a student can be fed, right or wrong; None where a special token is inside."""
        pairs = zip(self.prompts, self.completions, strict=True)
        return [None if c.has_special else Trace(prompt.text, c.text, c.has_end) for prompt, c in pairs]

    def kept(self) -> list[int]:
        """Indices of the completions that the learner sees: all but those whose check failed."""
        return [index for index, outcome in enumerate(self.outcomes) if not outcome.failed]

    def learner_samples(self) -> list[Sample]:
        """The kept completions for the learner, in order; without advantages yet, for measuring alone, they are 0."""
        advantages = self.advantages or [0.0] * len(self.completions)
        kept = [(self.completions[index], advantages[index]) for index in self.kept()]
        return [Sample(c.prompt_ids, c.token_ids, c.logprobs, advantage) for c, advantage in kept]

    def _judges(self) -> list[dict[int, SequenceScore]]:
        return self.shadow_scores or [self.proxy_scores]

    def _scores(self, scores: dict[int, SequenceScore], normalization: str) -> Floats:
        values = np.full(len(self.completions), np.nan)
        for index, score in scores.items():
            ended = self.ends_count and self.completions[index].has_end
            values[index] = getattr(score.with_end() if ended else score, normalization)
        return values.reshape(-1, self.samples)

    def _denominators(self, normalization: str) -> Floats | None:
        return self._scores(self.denominator_scores, normalization) if self.denominator_scores else None

    def end_gap(self) -> float | None:
        """Mean log-probability that proxy or shadows give the end of the turn minus the denominator's, in nats; None without both."""
        scored = [item for scores in self._judges() for item in scores.items() if self.completions[item[0]].has_end]
        pairs = [(score, self.denominator_scores[i]) for i, score in scored if i in self.denominator_scores]
        return float(np.mean([own.end_logprob - other.end_logprob for own, other in pairs])) if pairs else None


def step_metrics(
    step: int, batch: StepBatch, kl: float, update: dict[str, float], deviation: float, normalization: str, seconds: dict[str, float]
) -> dict[str, Any]:
    """One line of metrics.jsonl; the contract names the fields. `cal_reward` is null in a step that scored nothing."""
    valid_BG, gaps_BG = batch.valid(), batch.gaps(normalization)
    scored = gaps_BG[~np.isnan(gaps_BG)]
    return {
        "step": step,
        "weights_version": batch.completions[0].weights_version,
        "task_reward": float(batch.rewards()[valid_BG].mean()) if valid_BG.any() else None,
        "cal_reward": float(scored.mean()) if scored.size else None,
        "end_gap": batch.end_gap(),
        "kl_anchor": kl,
        "mismatch_kl": update["mismatch_kl"],
        "mismatch_max": update["mismatch_max"],
        "sync_deviation": deviation,
        "length": float(np.mean([len(c.token_ids) for c in batch.completions])),
        "truncated": float(np.mean([c.truncated for c in batch.completions])),
        "verifier_failures": batch.verifier_failures,
        "loss": update["loss"],
        "loss_policy": update["loss_policy"],
        "loss_anchor": update["loss_anchor"],
        "grad_norm": update["grad_norm"],
        "clip_share": update["clip_share"],
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
    }
