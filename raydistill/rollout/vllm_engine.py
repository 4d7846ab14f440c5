"""The engine for real work: vLLM, in this process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from raydistill.models.manifest import Manifest
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt, sample_seed
from raydistill.rollout.engine import UNKNOWN_VERSION, EngineSpec, require_room, require_version
from raydistill.rollout.environment import engine_environment
from raydistill.rollout.transcriber import Sampled, Transcriber

if TYPE_CHECKING:
    import torch
    from vllm import LLM, RequestOutput, SamplingParams


class VllmEngine:
    """Engine over vLLM's offline LLM class. For tiny models its bookkeeping per request and token dominates, so most of it is off."""

    def __init__(self, spec: EngineSpec) -> None:
        os.environ.update(engine_environment(spec))
        self.weights_version = 0
        self._max_model_len = spec.max_model_len
        self._llm = _start(spec)
        self._transcriber = Transcriber(spec.model, spec.ends_before)
        self._manifest = Manifest.of_folder(spec.model)

    def generate(self, prompts: Sequence[TokenPrompt], sampling: Sampling, version: int) -> list[list[Completion]]:
        require_version(self.weights_version, version)
        require_room(prompts, sampling, self._max_model_len)
        streams = [(prompt, index) for prompt in prompts for index in range(sampling.samples)]
        outputs = self._run(
            [prompt.token_ids for prompt, _ in streams],
            [self._sampling_params(sampling, sample_seed(sampling.seed, prompt.id, index)) for prompt, index in streams],
        )
        return self._transcriber.completions(prompts, sampling, [_sampled(output) for output in outputs], version)

    def load_weights(self, version: int, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        self.weights_version = UNKNOWN_VERSION
        self._llm.collective_rpc("stream_weights", args=(self._manifest.checked(named_tensors),))
        # Cached keys and values belong to the old weights.
        self._llm.reset_prefix_cache()
        self.weights_version = version

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        from vllm import SamplingParams

        require_version(self.weights_version)
        params = SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False)
        flat: Any = self._run([token_ids], [params])[0].prompt_logprobs
        return list(flat.logprobs)

    def _sampling_params(self, sampling: Sampling, seed: int) -> SamplingParams:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=0.0 if sampling.greedy else 1.0,
            seed=None if sampling.greedy else seed,
            max_tokens=sampling.max_new_tokens,
            # One definition of the end of a turn for all engines: vLLM's own leaves out config.json.
            ignore_eos=True,
            stop_token_ids=list(self._transcriber.stop_ids),
            logprobs=0,  # the sampled token's only, of the raw logits
            flat_logprobs=True,
            detokenize=False,
            skip_clone=True,
        )

    def _run(self, prompts: Sequence[Sequence[int]], params: list[SamplingParams]) -> list[RequestOutput]:
        from vllm import TokensPrompt

        requests = [TokensPrompt(prompt_token_ids=list(token_ids)) for token_ids in prompts]
        return self._llm.generate(requests, params, use_tqdm=False)


def _start(spec: EngineSpec) -> LLM:
    from vllm import LLM

    return LLM(
        model=spec.model,
        load_format="safetensors",
        dtype=spec.dtype,
        max_model_len=spec.max_model_len,
        kv_cache_memory_bytes=spec.kv_cache_bytes,
        # The cache's size being given, this only says how much of a GPU must be free at the start, which others may share.
        gpu_memory_utilization=0.01 if spec.gpu else 0.92,
        # "auto" would take temperature, top_k and the like from the model's generation_config.json.
        generation_config="vllm",
        # Worth its bookkeeping only where prompts are longer than a block, which on a CPU has 128 tokens.
        enable_prefix_caching=spec.gpu,
        enforce_eager=not spec.gpu,
        # A request of which a part was read takes back what its stream of random numbers gave, which only CUDA's can.
        enable_chunked_prefill=spec.gpu,
        distributed_executor_backend="uni",
        worker_extension_cls="raydistill.rollout.vllm_reload.ReloadExtension",
        skip_tokenizer_init=True,
        use_tqdm_on_load=False,
    )


def _sampled(output: RequestOutput) -> Sampled:
    completion = output.outputs[0]
    flat: Any = completion.logprobs
    return Sampled(tuple(completion.token_ids), tuple(flat.logprobs))
