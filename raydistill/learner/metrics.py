"""What an update reports, summed over micro-batches and processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from raydistill.learner import losses
from raydistill.learner.batch import LearnerSpec
from raydistill.learner.microbatch import MicroBatch

_SUMS = ("loss_policy", "loss_anchor", "kl_anchor", "mismatch_kl", "clip_share", "truncation_share")
EMPTY = dict.fromkeys(("loss", *_SUMS, "mismatch_max", "grad_norm", "tokens", "sequences"), 0.0)
"""The report of an update without a single token: no step was made."""
BEFORE = ("kl_anchor", "mismatch_kl", "mismatch_max", "truncation_share", "tokens", "sequences")
"""The part of a report that does not depend on a step."""


class Totals:
    """Running sums of one update on one process; `report` adds up those of all processes (a collective call)."""

    def __init__(self, spec: LearnerSpec, device: torch.device) -> None:
        self._spec = spec
        self._sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in _SUMS}
        self._largest = torch.zeros((), dtype=torch.float64, device=device)

    def _add(self, name: str, values_K: Tensor) -> None:
        self._sums[name] += values_K.detach().double().sum()

    def add_before(self, micro: MicroBatch, old_K: Tensor, kl_K: Tensor) -> None:
        """What holds before the update: distance to the anchor, and of the learner from the engine that sampled."""
        self._add("kl_anchor", kl_K)
        self._add("mismatch_kl", losses.kl_k3(micro.rollout_K, old_K))
        self._add("truncation_share", losses.is_truncated(old_K, micro.rollout_K, self._spec.importance_cap))
        if old_K.numel():
            self._largest = torch.maximum(self._largest, (old_K - micro.rollout_K).abs().max().double())

    def add_loss(self, policy: Tensor, anchor: Tensor, clipped_K: Tensor) -> None:
        """The loss components of a micro-batch, each already divided by its token count."""
        self._add("loss_policy", policy)
        self._add("loss_anchor", anchor)
        self._add("clip_share", clipped_K)

    def report(self, tokens: int, sequences: int, updates: int) -> dict[str, float]:
        """Means over all processes: losses over `updates` optimiser steps, kl_anchor over sequences, the rest over tokens."""
        sums = torch.stack(list(self._sums.values()))
        dist.all_reduce(sums)
        dist.all_reduce(self._largest, op=dist.ReduceOp.MAX)
        divisors = {"loss_policy": updates, "loss_anchor": updates, "kl_anchor": sequences}
        means = {name: value / divisors.get(name, tokens) for name, value in zip(_SUMS, sums.tolist(), strict=True)}
        return {
            "loss": means["loss_policy"] + means["loss_anchor"],
            **means,
            "mismatch_max": self._largest.item(),
            "tokens": float(tokens),
            "sequences": float(sequences),
        }
