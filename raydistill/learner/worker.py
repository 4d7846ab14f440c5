"""One ZeRO-3 process of the learner. Works by itself as well as in a Ray actor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from raydistill.learner import losses, microbatch
from raydistill.learner.batch import LearnerSpec, Sample, batch_tokens
from raydistill.learner.metrics import BEFORE, EMPTY, Totals
from raydistill.learner.microbatch import Anchor, MicroBatch
from raydistill.learner.zero_model import ZeroModel


class LearnerWorker(ZeroModel):
    """One process of the learner: a `ZeroModel` that takes policy-gradient steps, and can be set back to where it began."""

    def __init__(self, spec: LearnerSpec, rank: int = 0, world_size: int = 1, address: str = "127.0.0.1", port: int = 29400) -> None:
        super().__init__(spec, rank, world_size, address, port)
        self._spec = spec
        self._vocabulary = self._model.config.get_text_config().vocab_size if spec.kl_estimator == "exact" else None
        self._initial = [value.to("cpu", copy=True) for value in self._masters()]

    # --- learning

    def set(self, lr: float, kl_coef: float) -> None:
        """Step with these from now on. A checkpoint that is loaded brings its own learning rate, so set it after that."""
        self._spec = replace(self._spec, lr=lr, kl_coef=kl_coef)
        for group in self._engine.optimizer.optimizer.param_groups:
            group["lr"] = lr

    def update(self, samples: Sequence[Sample], anchor: Anchor) -> dict[str, float]:
        """One step on these samples: `updates_per_step` optimiser steps, each on a part of them. Returns the metrics.

        `anchor` holds the frozen original's log-probabilities, see `microbatch.Anchor`. Metrics: `loss` and its components
        `loss_policy` and `loss_anchor` (kl_coef included); `grad_norm` before clipping; `kl_anchor`, KL(policy || anchor)
        summed over a sequence, mean over sequences, in nats; `mismatch_kl`, KL(rollout engine || learner) a token, and
        `mismatch_max`, the largest difference of a token's log-probability; `clip_share` and `truncation_share` of tokens;
        `tokens`, `sequences`. KL and mismatch are those before the step; losses and grad_norm are means over its optimiser
        steps. Without a token to learn from no step is made and all are 0.

        Raises ValueError if samples and anchor do not match, RunError if a gradient is not finite.
        """
        microbatch.check(samples, anchor, self._vocabulary)
        parts = microbatch.split(samples, self._spec.updates_per_step)
        if not parts:
            return dict(EMPTY)
        batches = [self._micro_batches(samples, anchor, part) for part in parts]
        totals = Totals(self._spec, self._engine.device)
        # With one update the old policy is the current one, which the training pass computes anyway.
        old = [self._old_logprobs(part, totals) for part in batches] if len(parts) > 1 else [None]
        norms = []
        for indices, part, old_part in zip(parts, batches, old, strict=True):
            tokens = batch_tokens([samples[i] for i in indices])
            norms.append(self._step(part, old_part, tokens, totals))
        return totals.report(batch_tokens(samples), len(samples), len(parts)) | {"grad_norm": sum(norms) / len(norms)}

    def measure(self, samples: Sequence[Sample], anchor: Anchor) -> dict[str, float]:
        """What `update` reports of the policy before its step, without a step: KL and mismatch; advantages are not looked at."""
        microbatch.check(samples, anchor, self._vocabulary)
        report = EMPTY
        if batch_tokens(samples):
            totals = Totals(self._spec, self._engine.device)
            self._old_logprobs(self._micro_batches(samples, anchor, range(len(samples))), totals)
            report = totals.report(batch_tokens(samples), len(samples), updates=1)
        return {name: report[name] for name in BEFORE}

    def _micro_batches(self, samples: Sequence[Sample], anchor: Anchor, indices: Sequence[int]) -> list[MicroBatch]:
        plan = microbatch.spread(samples, indices, self._world_size, self._spec.micro_batch_tokens)[self._rank]
        return [microbatch.collate(samples, anchor, rows, self._engine.device) for rows in plan]

    def _logprobs(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """Log-probabilities, in float32, of the completion tokens (K,) and of the vocabulary at their places (K, V)."""
        logprobs_KV = self._logits(micro.ids_NT, micro.attention_NT, micro.positions_K).log_softmax(dim=-1)
        return logprobs_KV.gather(1, micro.targets_K.unsqueeze(1)).squeeze(1), logprobs_KV

    def _kl(self, micro: MicroBatch, logprobs_K: Tensor, logprobs_KV: Tensor) -> Tensor:
        if self._spec.kl_estimator == "k3":
            return losses.kl_k3(logprobs_K, micro.anchor)
        return losses.kl_exact(logprobs_KV, micro.anchor)

    @torch.no_grad()
    def _old_logprobs(self, batches: Sequence[MicroBatch], totals: Totals) -> list[Tensor]:
        old = []
        for micro in batches:
            old_K, logprobs_KV = self._logprobs(micro)
            totals.add_before(micro, old_K, self._kl(micro, old_K, logprobs_KV))
            old.append(old_K)
        return old

    def _step(self, batches: Sequence[MicroBatch], old: Sequence[Tensor] | None, tokens: int, totals: Totals) -> float:
        """One optimiser step over micro-batches of `tokens` completion tokens on all ranks; its gradient norm before clipping."""
        terms = (self._loss(micro, None if old is None else old[n], tokens, totals) for n, micro in enumerate(batches))
        return self._descend(terms, len(batches))

    def _loss(self, micro: MicroBatch, old_K: Tensor | None, tokens: int, totals: Totals) -> Tensor:
        spec = self._spec
        logprobs_K, logprobs_KV = self._logprobs(micro)
        kl_K = self._kl(micro, logprobs_K, logprobs_KV)
        if old_K is None:
            old_K = logprobs_K.detach()
            totals.add_before(micro, old_K, kl_K)
        policy_K = losses.policy_losses(
            logprobs_K,
            old_K,
            micro.rollout_K,
            micro.advantages_K,
            clip_low=spec.clip_low,
            clip_high=spec.clip_high,
            importance_cap=spec.importance_cap,
        )
        policy, anchor = policy_K.sum() / tokens, spec.kl_coef * kl_K.sum() / tokens
        totals.add_loss(policy, anchor, losses.is_clipped(logprobs_K, old_K, micro.advantages_K, spec.clip_low, spec.clip_high))
        return policy + anchor

    # --- state

    def _trained(self) -> list[Any]:
        """Trained parameters, with the attributes that DeepSpeed gives them."""
        return [parameter for parameter in self._engine.module.parameters() if parameter.requires_grad]

    def _masters(self) -> list[Tensor]:
        """This rank's float32 partition of each trained parameter."""
        from deepspeed.utils import safe_get_local_fp32_param

        return [safe_get_local_fp32_param(parameter) for parameter in self._trained()]

    def reset(self) -> None:
        """Back to the initial weights and a fresh optimiser, in place."""
        from deepspeed.utils import safe_set_local_fp32_param

        self._engine.optimizer.empty_partition_cache()  # drops whole copies of small parameters, so that they are gathered anew
        for parameter, initial in zip(self._trained(), self._initial, strict=True):
            # The masters, from which the next step would restore the partition, and the partition that computes.
            safe_set_local_fp32_param(parameter, initial)
            parameter.ds_tensor.data.copy_(initial)
        self._engine.optimizer.optimizer.state.clear()
