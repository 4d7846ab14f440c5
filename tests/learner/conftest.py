"""A tiny random Llama, and steps of random samples for it."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed reads it when it is first imported

from raydistill.learner.batch import LearnerSpec, Sample

VOCABULARY = 40
Batch = tuple[list[Sample], list[np.ndarray]]


def save_tiny_llama(folder: Path, tied: bool) -> str:
    """A folder as models come in: weights, config, generation config, tokenizer files."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=128,
        initializer_range=0.15,
        tie_word_embeddings=tied,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text('{"any": "tokenizer"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    return str(folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_llama(tmp_path_factory.mktemp("untied"), tied=False)


@pytest.fixture(scope="session")
def tied_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_llama(tmp_path_factory.mktemp("tied"), tied=True)


def random_batch(seed: int, size: int, exact: bool = False) -> Batch:
    """Samples of 2 to 9 prompt and 0 to 12 completion tokens, with noisy rollout and random anchor log-probabilities."""
    rng = np.random.default_rng(seed)
    samples, anchor = [], []
    for _ in range(size):
        prompt, length = rng.integers(2, 10), rng.integers(0, 13)
        ids = rng.integers(0, VOCABULARY, prompt + length)
        logits = rng.normal(0, 1.5, (length, VOCABULARY))
        full = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        tokens = full[np.arange(length), ids[prompt:]] if length else np.zeros(0)
        rollout = tuple((tokens + rng.normal(0, 0.5, length)).tolist())
        samples.append(Sample(tuple(ids[:prompt].tolist()), tuple(ids[prompt:].tolist()), rollout, float(rng.normal())))
        anchor.append((full if exact else tokens).astype(np.float32))
    return samples, anchor


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    return random_batch


@pytest.fixture(scope="session")
def make_spec(tiny_model: str) -> Callable[..., LearnerSpec]:
    """A spec for the tiny model; anything can be set by name."""

    def make(**fields: object) -> LearnerSpec:
        defaults = {"model": tiny_model, "lr": 1e-3, "kl_coef": 0.1, "kl_estimator": "k3"}
        return LearnerSpec(**(defaults | fields))

    return make


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="session")
def free_ports() -> Callable[[], int]:
    return free_port


@pytest.fixture(scope="session")
def worker(make_spec: Callable[..., LearnerSpec]) -> Callable[..., object]:
    """Builds learners of one process inside the test's own process; they share its process group."""
    port = free_port()

    def build(**fields: object) -> object:
        from raydistill.learner.worker import LearnerWorker

        return LearnerWorker(make_spec(**fields), rank=0, world_size=1, port=port)

    return build
