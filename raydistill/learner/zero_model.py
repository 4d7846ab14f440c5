"""A model in ZeRO-3 partitions as one of its processes sees it: log-probabilities, optimiser steps, weights that leave, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from raydistill.errors import RunError
from raydistill.learner import folders
from raydistill.learner.batch import ZeroSpec
from raydistill.learner.export import Exporter
from raydistill.learner.zero import join_process_group, start_engine
from raydistill.models.head import only_at
from raydistill.models.weights import Bucket, pack


class ZeroModel:
    """Rank `rank` of `world_size` processes that share one model's parameters, gradients and optimiser state.

    Every method is a collective call: all ranks must make it, with the same arguments, in the same order.
    """

    def __init__(self, spec: ZeroSpec, rank: int, world_size: int, address: str, port: int, local_rank: int = 0) -> None:
        """Joins the group whose rank 0 listens on `address:port`, and loads the model. Raises InputError for an unusable model."""
        join_process_group(rank, world_size, address, port, local_rank)
        self._zero = spec
        self._rank, self._world_size = rank, world_size
        self._engine, self._model = start_engine(spec)
        self._head = self._model.get_output_embeddings()
        self._exporter = Exporter(self._model, Path(spec.model))

    def _logits(self, ids_NT: Tensor, attention_NT: Tensor | None, positions_K: Tensor) -> Tensor:
        """Logits in float32, (K, V), at places among the N * T. Rows that are padded on the right need no mask."""
        with only_at(self._head, positions_K):
            output = self._engine(input_ids=ids_NT, attention_mask=attention_NT, use_cache=False)
        return output.logits[0].float()

    def _descend(self, losses: Iterator[Tensor], passes: int) -> float:
        """One optimiser step by the gradient of the sum of `losses` over all ranks; its norm before clipping.

        Each loss is asked for, and its graph dropped, before the next: `passes` of them, the same number on every rank. Raises
        RunError if the gradient is not finite.
        """
        for number in range(1, passes + 1):
            self._engine.set_gradient_accumulation_boundary(number == passes)
            # DeepSpeed averages gradients over ranks; this loss is a share of one global mean, to be added up.
            self._engine.backward(next(losses) * self._world_size)
        self._engine.step()
        if not self._engine.was_step_applied():
            raise RunError("the gradient is not finite, and no step was made: lower the lr, or look for log-probabilities of -inf")
        return float(self._engine.get_global_grad_norm())

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
        ids_1T = torch.tensor([list(ids)], device=self._engine.device)
        places_K = torch.arange(len(ids) - 1, device=ids_1T.device)
        logprobs_KV = self._logits(ids_1T, torch.ones_like(ids_1T), places_K).log_softmax(-1)
        return logprobs_KV.gather(1, ids_1T[0, 1:, None])[:, 0].tolist()

    def save(self, folder: str | Path) -> None:
        """Write a Hugging Face folder that vLLM and transformers load, LoRA merged; an older one there is replaced."""
        folders.save_model(self._exporter, Path(self._zero.model), self._zero.dtype, Path(folder))

    # --- state

    def save_checkpoint(self, folder: str | Path) -> None:
        """Write parameters and optimiser state, in DeepSpeed's format; an older checkpoint there is replaced."""
        folders.save_checkpoint(self._engine, self._zero, Path(folder))

    def load_checkpoint(self, folder: str | Path) -> None:
        """Go on from `save_checkpoint` of as many ranks, to the bit. Raises InputError if the folder is none of ours."""
        folders.load_checkpoint(self._engine, self._zero, Path(folder))
