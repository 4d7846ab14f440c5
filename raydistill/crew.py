"""The actors of a run, started at once and kept for all seeds and knob settings: engines, learner, scorers, verifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from raydistill.batch import StepBatch
from raydistill.config.calibration import Dtype, RolloutConfig, ScorerConfig, ZeroConfig
from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.config.shadows import ShadowsConfig
from raydistill.config.task import TaskConfig, is_graded, next_question
from raydistill.evaluate.measure import check_completions
from raydistill.learner.batch import LearnerSpec, LoraSpec
from raydistill.learner.group import LearnerGroup
from raydistill.models.lineup import Lineup, Role
from raydistill.models.text import encode_completion
from raydistill.reward.grader import Grader, start_checker
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.pool import RolloutPool
from raydistill.scoring.actor import answers, start_scorer
from raydistill.scoring.score import LARGEST_DISTRIBUTION, ScorerSpec, SequenceScore, learnt_to_end
from raydistill.students.shadow_group import ShadowGroup
from raydistill.tasks.make import make_task
from raydistill.tasks.prompt import Prompt

SYNC_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""Nats by which an engine's log-probability of a token may differ from the learner's. bfloat16 keeps 8 bits of a logit, steps of
0.125 between 16 and 32; the demo's teacher was up to 0.24 apart."""


class Crew:
    """Everything that works for the main loop. The driver holds completions and references, never a tensor."""

    def __init__(self, run: Run, lineup: Lineup) -> None:
        """Starts all actors without waiting for them."""
        self.run = run
        self.task = make_task(run.task)
        self._teacher = lineup.teacher
        self._exact = exact_kl(run, lineup.teacher.facts.embedding_rows)
        model = self._teacher.config.model
        self.pool = rollout_pool(run.rollout, run.task, run.learner.dtype, model)
        self.learner = LearnerGroup(learner_spec(run, model, self._exact), run.learner.processes, run.learner.cpus, run.learner.gpus)
        self.anchor = self._scorer(lineup.teacher)
        self.proxy = self._scorer(lineup.proxy) if lineup.proxy else None
        self.current = self._scorer(lineup.teacher)
        self.verifier = start_checker(self.task, run.task, run.verifier)
        self.shadows = self._shadows(run.shadows, lineup.shadows) if run.shadows else None

    @property
    def grader(self) -> Grader | None:
        """The reward model that grades completions, where one does; students are graded by it too."""
        return self.verifier if isinstance(self.verifier, Grader) else None

    def _scorer(self, role: Role) -> Any:
        return scorer_actor(role.config, self.run.scorer, self.run.learner.dtype)

    def _shadows(self, config: ShadowsConfig, roles: Sequence[Role]) -> ShadowGroup:
        return ShadowGroup(self.run, config, [(role.config, role.facts) for role in roles], self.task, self.verifier)

    def _scorers(self) -> list[Any]:
        return [scorer for scorer in (self.anchor, self.proxy, self.current) if scorer is not None]

    def ready(self) -> None:
        """Wait until every actor is up."""
        from raydistill.students.job import make_reader

        self._reader = make_reader(self._teacher.facts, self._teacher.config)
        self._probe = self._probe_ids()
        self.pool.ready()
        self.learner.ready()
        answers([scorer.ready.remote() for scorer in self._scorers()])
        if self.shadows:
            self.shadows.ready()
        self._ends_count = self._all_learnt_to_end()

    def _all_learnt_to_end(self) -> bool:
        """Whether original, proxy and shadows end their turns alike: then the end is part of a score.

        By right answers of the original, by all where the task is graded.
        """
        batch = self.sample(self.task.prompts("train")[: self.run.calibration.prompts], seed=0)
        self.verify(batch)
        prompts, texts = batch.texts(batch.calibrated(only_right=not is_graded(self.run.task)))
        judges = [scorer.score.remote(prompts, texts) for scorer in (self.proxy, self.anchor) if scorer is not None]
        shadows = self.shadows.score(prompts, texts) if self.shadows else []
        return all(learnt_to_end(scores) for scores in answers([*judges, *shadows]))

    def token_prompts(self, prompts: Sequence[Prompt]) -> list[TokenPrompt]:
        """The prompts in the teacher's tokens."""
        return [TokenPrompt(prompt.id, self._reader.prompt(prompt.text)) for prompt in prompts]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """Completions of each prompt by the weights of the last sync."""
        return self.pool.generate(self.token_prompts(prompts), sampling)

    def sample(self, prompts: Sequence[Prompt], seed: int) -> StepBatch:
        """G completions of each prompt, as the calibration asks for them."""
        samples = self.run.calibration.samples
        groups = self.generate(prompts, Sampling(samples, self.run.calibration.max_new_tokens, seed=seed))
        repeated = [prompt for prompt in prompts for _ in range(samples)]
        return StepBatch(repeated, [completion for group in groups for completion in group], samples)

    def verify(self, batch: StepBatch) -> None:
        """Fill in the outcomes."""
        rows = check_completions(self.verifier, batch.prompts, [[completion] for completion in batch.completions])
        batch.outcomes = [outcome for (outcome,) in rows]

    def score(self, batch: StepBatch, eta: float) -> None:
        """Fill in the scores of the completions that take part in the calibration reward, all models at once; `eta` as it is now."""
        denominators = {"anchor": self.anchor, "current": self.current, "none": None}
        self._anchor_logprobs(batch)  # starts now, is needed when learning
        influence = self.run.shadows is not None and self.run.shadows.use == "influence"  # no score, nothing to compare it with
        self._score(batch, None if influence else denominators[self.run.knob.denominator], eta)

    def own_gap(self, batch: StepBatch) -> float:
        """Mean score gap of a verified batch, the teacher's own score as the denominator; NaN where no completion takes part.

        NaN without a proxy, too: shadows change, and what two of them said at different times cannot be compared.
        """
        if self.proxy is None:
            return float("nan")
        answers([self.current.sync.remote(self._weights)])
        self._score(batch, self.current, self.run.knob.eta)
        gaps_BG = batch.gaps(self.run.knob.normalization)
        return float(gaps_BG[~np.isnan(gaps_BG)].mean()) if batch.proxy_scores else float("nan")

    def _score(self, batch: StepBatch, denominator: Any, eta: float) -> None:
        taken_BG = batch.calibrated(only_right=self.run.knob.cal_on == "right")
        prompts, texts = batch.texts(taken_BG)
        shadows = self.shadows.rewards(prompts, texts) if self.shadows else []
        others = [None if scorer is None else scorer.score.remote(prompts, texts) for scorer in (self.proxy, denominator)]
        chosen = np.flatnonzero(taken_BG).tolist()

        def by_place(references: Sequence[Any]) -> list[dict[int, SequenceScore]]:
            return [dict(zip(chosen, scores, strict=True)) for scores in answers(references)]

        batch.shadow_scores = by_place(shadows)
        batch.proxy_scores, batch.denominator_scores = (by_place([reference])[0] if reference else {} for reference in others)
        batch.worst_for = eta if self.run.shadows and self.run.shadows.combine == "worst" else None
        batch.ends_count = self._ends_count

    def kl(self, batch: StepBatch) -> float:
        """KL(teacher || original) of the learner's current weights on the kept completions, nats a sequence."""
        return self.learner.measure(batch.learner_samples(), self._anchor_logprobs(batch))["kl_anchor"]

    def update(self, batch: StepBatch) -> dict[str, float]:
        """One step of the learner; its metrics."""
        return self.learner.update(batch.learner_samples(), self._anchor_logprobs(batch))

    def _anchor_logprobs(self, batch: StepBatch) -> list[Any]:
        if batch.anchor_logprobs is None:
            kept = [batch.completions[index] for index in batch.kept()]
            call = self.anchor.token_distributions if self._exact else self.anchor.token_logprobs
            batch.anchor_logprobs = call.remote([c.prompt_ids for c in kept], [c.token_ids for c in kept])
        return [batch.anchor_logprobs]

    def sync(self, version: int) -> float:
        """Give the learner's weights to the engines; the largest deviation of their log-probabilities of a fixed text."""
        self._weights = self.learner.export(version, self.run.learner.bucket_mib * 2**20)
        needed = self.run.knob.denominator == "current"
        delivered = [self.current.sync.remote(self._weights)] if needed else []
        tolerance = SYNC_TOLERANCE[self.run.learner.dtype]
        deviation = self.pool.sync(self._weights, self._probe, self.learner.probe(self._probe), tolerance)
        answers(delivered)
        return deviation

    def _probe_ids(self) -> list[int]:
        """The first train prompt with its gold answer, as far as it fits: a fixed text on which engines and learner must agree."""
        prompt = self.task.prompts("train")[0]
        ids = [*self.token_prompts([prompt])[0].token_ids, *encode_completion(self._reader.tokenizer, prompt.gold or prompt.answer)]
        return ids[: self.run.rollout.max_model_len - 1]

    def shutdown(self) -> None:
        """End all actors and processes."""
        import ray

        self.verifier.close()
        self.pool.shutdown()
        self.learner.shutdown()
        if self.shadows:
            self.shadows.shutdown()
        for scorer in self._scorers():
            ray.kill(scorer)


def exact_kl(run: Run, vocabulary: int) -> bool:
    """Whether the KL anchor is summed over the whole vocabulary."""
    if run.learner.kl_estimator == "auto":
        return vocabulary <= LARGEST_DISTRIBUTION
    return run.learner.kl_estimator == "exact"


def rollout_pool(rollout: RolloutConfig, task: TaskConfig, dtype: Dtype, model: str) -> RolloutPool:
    """Engines of a model, started without waiting for them."""
    return RolloutPool(engine_spec(rollout, task, dtype, model), rollout.workers, num_cpus=rollout.cpus, num_gpus=rollout.gpus)


def engine_spec(rollout: RolloutConfig, task: TaskConfig, dtype: Dtype, model: str) -> EngineSpec:
    return EngineSpec(
        kind=rollout.engine,
        model=model,
        max_model_len=rollout.max_model_len,
        kv_cache_bytes=rollout.kv_cache_mib * 2**20,
        dtype=dtype,
        threads=max(1, int(rollout.cpus)),
        ends_before=next_question(task),
    )


def scorer_actor(config: ModelConfig, scorer: ScorerConfig, dtype: Dtype) -> Any:
    """A scorer of a model, started without waiting for it."""
    return start_scorer(scorer_spec(config, scorer, dtype), scorer.cpus, scorer.gpus)


def scorer_spec(config: ModelConfig, scorer: ScorerConfig, dtype: Dtype) -> ScorerSpec:
    return ScorerSpec(
        model=config.model,
        template=config.template,
        prompt_format=config.prompt_format,
        system_prompt=config.system_prompt,
        dtype=dtype,
        batch_tokens=scorer.batch_tokens,
        threads=max(1, int(scorer.cpus)),
    )


def zero_fields(config: ZeroConfig) -> dict[str, Any]:
    """The fields of a `ZeroSpec` that such a config sets."""
    lora = config.lora
    return {
        "adam_eps": config.adam_eps,
        "max_grad_norm": config.max_grad_norm,
        "micro_batch_tokens": config.micro_batch_tokens,
        "gradient_checkpointing": config.gradient_checkpointing,
        "dtype": config.dtype,
        "persistence_threshold": config.persistence_threshold,
        "lora": LoraSpec(lora.rank, lora.alpha, lora.target_modules) if lora else None,
    }


def learner_spec(run: Run, model: str, exact: bool) -> LearnerSpec:
    return LearnerSpec(
        model=model,
        lr=run.learner.lr,
        kl_coef=run.learner.kl_coef,
        kl_estimator="exact" if exact else "k3",
        optimizer=run.learner.optimizer,
        clip_low=run.learner.clip_low,
        clip_high=run.learner.clip_high,
        importance_cap=run.learner.importance_cap,
        updates_per_step=run.learner.updates_per_step,
        seed=run.seeds[0],
        **zero_fields(run.learner),
    )
