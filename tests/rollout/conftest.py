"""Engines for the tests, each in a process of its own, and a plain transformers model to check them against."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from raydistill.models import trio
from raydistill.rollout.completion import TokenPrompt
from raydistill.rollout.engine import EngineSpec, start_engine

MAX_MODEL_LEN = 64
SECOND_EOS = 38
"""A letter that ends a turn too, as chat models have several such tokens."""


@pytest.fixture(scope="session")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights, which samples every token, special ones too.

    Its generation_config.json asks for a distribution that training must not see.
    """
    folder = tmp_path_factory.mktemp("wild")
    tokenizer = trio.character_tokenizer()
    trio.new_model("teacher", tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    asked = {"do_sample": True, "temperature": 0.3, "top_k": 2, "top_p": 0.5, "repetition_penalty": 3.0, "max_new_tokens": 2}
    (folder / "generation_config.json").write_text(json.dumps(asked | {"eos_token_id": [tokenizer.eos_token_id, SECOND_EOS]}))
    return folder


@pytest.fixture(scope="session")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose output head is its embedding, as in most small models."""
    folder = tmp_path_factory.mktemp("tied")
    tokenizer = trio.character_tokenizer()
    config = trio.llama_config("teacher", tokenizer)
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stop_ids() -> set[int]:
    return {trio.SPECIAL_TOKENS.index(trio.EOS), SECOND_EOS}


@pytest.fixture(scope="session")
def wild_model(wild: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(wild, dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def teacher_model() -> LlamaForCausalLM:
    """The demo teacher. It has the shape of the wild model, whose engines can therefore take its weights."""
    return AutoModelForCausalLM.from_pretrained(trio.demo_model("teacher"), dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def prompts() -> list[TokenPrompt]:
    """Prompts of different lengths."""
    tokenizer = trio.character_tokenizer()
    texts = ["7+5-9=", "1-1+0=", "3+3+3=", "9-8-7=", "0+1=", "4-4=", "12+34-56=", "2="]
    return [TokenPrompt(text, tuple(tokenizer(text)["input_ids"])) for text in texts]


@pytest.fixture(scope="session")
def forward_logprobs() -> Callable[[Any, Sequence[int]], torch.Tensor]:
    """A plain forward pass: log-probabilities (T - 1, V) of what comes after each token but the last."""

    def forward(model: Any, token_ids: Sequence[int]) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([list(token_ids)])).logits[0, :-1].log_softmax(-1)

    return forward


@pytest.fixture(scope="session")
def start_host(ray_cluster: None) -> Callable[[str, Path], Any]:
    """Starts an engine in an actor, which passes calls on to it."""
    import ray

    from raydistill.rollout.environment import engine_environment

    class Host:
        def __init__(self, spec: EngineSpec) -> None:
            self.engine = start_engine(spec)

        def call(self, method: str, *args: Any) -> Any:
            return getattr(self.engine, method)(*args)

        def load_some(self, version: int, named: list[tuple[str, torch.Tensor]], error: Exception) -> None:
            """A load in which `error` is raised after the given tensors."""

            def tensors() -> Iterator[tuple[str, torch.Tensor]]:
                yield from named
                raise error

            self.engine.load_weights(version, tensors())

        def version(self) -> int:
            return self.engine.weights_version

    def start(kind: Any, model: Path) -> Any:
        spec = EngineSpec(kind=kind, model=str(model), max_model_len=MAX_MODEL_LEN, kv_cache_bytes=2**26)
        return ray.remote(Host).options(num_cpus=0.5, runtime_env={"env_vars": engine_environment(spec)}).remote(spec)

    return start


@pytest.fixture(scope="session")
def hosts(start_host: Callable[[str, Path], Any], wild: Path, tied: Path) -> dict[str, Any]:
    """An actor for each kind of engine with the wild model, and for vLLM with the tied one; started together."""
    return {"vllm": start_host("vllm", wild), "transformers": start_host("transformers", wild), "vllm tied": start_host("vllm", tied)}
