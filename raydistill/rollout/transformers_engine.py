"""A plain engine: transformers and a sampling loop. For machines without vLLM, and to check vLLM against."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from raydistill.models.head import only_at_end
from raydistill.models.manifest import Manifest
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt, sample_seed
from raydistill.rollout.engine import UNKNOWN_VERSION, EngineSpec, require_room, require_version
from raydistill.rollout.environment import engine_environment
from raydistill.rollout.transcriber import Sampled, Transcriber

if TYPE_CHECKING:
    import torch

_BATCH = 128
"""Sequences that are sampled at once."""


class TransformersEngine:
    """Engine over a Hugging Face model: batched, with a key-value cache, prompts padded on the left."""

    def __init__(self, spec: EngineSpec) -> None:
        os.environ.update(engine_environment(spec))
        import torch

        from raydistill.models.load import load_model

        torch.set_num_threads(spec.threads)
        self.weights_version = 0
        self._max_model_len = spec.max_model_len
        self._device = "cuda" if spec.gpu else "cpu"
        model: Any = load_model(spec.model, spec.dtype)
        self._model = model.to(self._device)
        self._transcriber = Transcriber(spec.model, spec.ends_before)
        self._manifest = Manifest(self._model)

    def generate(self, prompts: Sequence[TokenPrompt], sampling: Sampling, version: int) -> list[list[Completion]]:
        require_version(self.weights_version, version)
        require_room(prompts, sampling, self._max_model_len)
        streams = [(prompt, index) for prompt in prompts for index in range(sampling.samples)]
        sampled: list[Sampled] = []
        for start in range(0, len(streams), _BATCH):
            sampled += self._sample(streams[start : start + _BATCH], sampling)
        return self._transcriber.completions(prompts, sampling, sampled, version)

    def load_weights(self, version: int, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        self.weights_version = UNKNOWN_VERSION
        own = self._model.state_dict()
        for name, tensor in self._manifest.checked(named_tensors):
            own[name].copy_(tensor)
        self.weights_version = version

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        import torch

        require_version(self.weights_version)
        with torch.inference_mode():
            ids_T = torch.tensor(token_ids, device=self._device)
            logprobs_TV = self._model(ids_T[None]).logits[0, :-1].float().log_softmax(-1)
            return logprobs_TV.gather(-1, ids_T[1:, None])[:, 0].tolist()

    def _sample(self, streams: Sequence[tuple[TokenPrompt, int]], sampling: Sampling) -> list[Sampled]:
        """One batch, sampled until every sequence has ended. Sequences that have ended go along, and are ignored."""
        import torch

        seeds = [sample_seed(sampling.seed, prompt.id, index) for prompt, index in streams]
        generators = None if sampling.greedy else [torch.Generator().manual_seed(seed) for seed in seeds]
        stop_ids = torch.tensor(list(self._transcriber.stop_ids), device=self._device)
        ids_NT, mask_NT = self._padded([prompt.token_ids for prompt, _ in streams])
        lengths_N = torch.full((len(streams),), sampling.max_new_tokens, device=self._device)
        steps: list[tuple[torch.Tensor, torch.Tensor]] = []
        cache = None
        with torch.inference_mode(), only_at_end(self._model.get_output_embeddings()):
            for step in range(1, sampling.max_new_tokens + 1):
                positions_NT = (mask_NT.cumsum(-1) - 1).clamp(min=0)[:, -ids_NT.shape[1] :]
                output = self._model(ids_NT, attention_mask=mask_NT, position_ids=positions_NT, past_key_values=cache, use_cache=True)
                cache = output.past_key_values
                logprobs_NV = output.logits[:, -1].float().log_softmax(-1)
                ids_NT = _draw(logprobs_NV, generators)[:, None]
                mask_NT = torch.cat([mask_NT, torch.ones_like(mask_NT[:, :1])], 1)
                steps.append((ids_NT[:, 0], logprobs_NV.gather(-1, ids_NT)[:, 0]))
                lengths_N[torch.isin(ids_NT[:, 0], stop_ids) & (lengths_N > step)] = step
                if bool((lengths_N <= step).all()):
                    break
        return _columns(steps, lengths_N.tolist())

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts filled up on the left with token 0, and a mask with 1 where there is a prompt."""
        import torch

        longest = max(map(len, prompts))
        ids_NT = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in prompts], device=self._device)
        mask_NT = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=self._device)
        return ids_NT, mask_NT


def _draw(logprobs_NV: torch.Tensor, generators: Sequence[torch.Generator] | None) -> torch.Tensor:
    """A token for each sequence: the most likely one, or one from the distribution by one uniform number of its generator."""
    import torch

    if generators is None:
        return logprobs_NV.argmax(-1)
    cumulative_NV = logprobs_NV.double().exp().cumsum(-1)
    uniform_N = torch.stack([torch.rand((), generator=generator, dtype=torch.float64) for generator in generators])
    thresholds_N1 = uniform_N.to(logprobs_NV.device)[:, None] * cumulative_NV[:, -1:]
    ids_N1 = torch.searchsorted(cumulative_NV, thresholds_N1, right=True)
    return ids_N1[:, 0].clamp(max=logprobs_NV.shape[1] - 1)


def _columns(steps: Sequence[tuple[torch.Tensor, torch.Tensor]], lengths: Sequence[int]) -> list[Sampled]:
    """From tokens by step to tokens by sequence, each as long as it is."""
    import torch

    ids = torch.stack([ids_N for ids_N, _ in steps], 1).tolist()
    logprobs = torch.stack([logprobs_N for _, logprobs_N in steps], 1).tolist()
    return [
        Sampled(tuple(ids_T[:length]), tuple(logprobs_T[:length])) for ids_T, logprobs_T, length in zip(ids, logprobs, lengths, strict=True)
    ]
