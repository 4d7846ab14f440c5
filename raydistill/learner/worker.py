"""One ZeRO-3 process of the learner. Works by itself as well as in a Ray actor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from raydistill.errors import RunError
from raydistill.learner import folders, losses, microbatch
from raydistill.learner.batch import LearnerSpec, Sample, batch_tokens
from raydistill.learner.export import Exporter
from raydistill.learner.metrics import BEFORE, EMPTY, Totals
from raydistill.learner.microbatch import Anchor, MicroBatch
from raydistill.learner.zero import join_process_group, start_engine
from raydistill.models.weights import Bucket, pack

if TYPE_CHECKING:
    from torch.nn import Module


@contextmanager
def _only_at(head: Module, positions_K: Tensor) -> Iterator[None]:
    """Let the output layer see these positions only: logits of a whole micro-batch would fill the memory at real vocabularies.

    A hook rather than a call of the layer by itself, so that what the model does to its logits (capping, scaling) is kept.
    """

    def select(_: Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, 1)[positions_K].unsqueeze(0), *inputs[1:])

    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


class LearnerWorker:
    """Rank `rank` of `world_size` processes that share one model's parameters, gradients and optimiser state.

    Every method is a collective call: all ranks must make it, with the same arguments, in the same order.
    """

    def __init__(self, spec: LearnerSpec, rank: int = 0, world_size: int = 1, address: str = "127.0.0.1", port: int = 29400) -> None:
        """Joins the group whose rank 0 listens on `address:port`, and loads the model. Raises InputError for an unusable model."""
        join_process_group(rank, world_size, address, port)
        self._spec = spec
        self._rank, self._world_size = rank, world_size
        self._engine, model = start_engine(spec)
        self._head = model.get_output_embeddings()
        self._vocabulary = model.config.get_text_config().vocab_size if spec.kl_estimator == "exact" else None
        self._exporter = Exporter(model, Path(spec.model))
        self._initial = [value.to("cpu", copy=True) for value in self._masters()]

    # --- learning

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
        with _only_at(self._head, micro.positions_K):
            output = self._engine(input_ids=micro.ids_NT, attention_mask=micro.attention_NT, use_cache=False)
        logprobs_KV = torch.log_softmax(output.logits[0].float(), dim=-1)
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
        for n, micro in enumerate(batches):
            self._engine.set_gradient_accumulation_boundary(n == len(batches) - 1)
            loss = self._loss(micro, None if old is None else old[n], tokens, totals)
            # DeepSpeed averages gradients over ranks; this loss is a share of one global mean, to be added up.
            self._engine.backward(loss * self._world_size)
        self._engine.step()
        if not self._engine.was_step_applied():
            raise RunError("the gradient is not finite, and no step was made: lower learner.lr, or look for log-probabilities of -inf")
        return float(self._engine.get_global_grad_norm())

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

    # --- weights

    def export(self, bucket_bytes: int) -> Iterator[Bucket]:
        """The weights in buckets of at most `bucket_bytes` (or of one larger tensor), LoRA merged; nothing except on rank 0.

        Must be exhausted on every rank.
        """
        for tensors in self._exporter.gather(bucket_bytes):
            yield from pack(tensors.items(), bucket_bytes)

    @torch.no_grad()
    def token_logprobs(self, ids: Sequence[int]) -> list[float]:
        """Log-probability, in nats, of each token after the first given those before it (len(ids) - 1 values)."""
        probe = Sample(tuple(ids[:1]), tuple(ids[1:]), (0.0,) * (len(ids) - 1), advantage=0.0)
        micro = microbatch.collate([probe], [torch.zeros(len(ids) - 1).numpy()], [0], self._engine.device)
        return self._logprobs(micro)[0].tolist()

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder that vLLM and transformers load, LoRA merged; an older one there is replaced."""
        folders.save_model(self._exporter, Path(self._spec.model), self._spec.dtype, Path(folder))

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

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write parameters and optimiser state, in DeepSpeed's format; an older checkpoint there is replaced."""
        folders.save_checkpoint(self._engine, self._spec, Path(folder))

    def load_checkpoint(self, folder: str | Path) -> None:
        """Go on from `save_checkpoint` of as many ranks, to the bit. Raises InputError if the folder is none of ours."""
        folders.load_checkpoint(self._engine, self._spec, Path(folder))
