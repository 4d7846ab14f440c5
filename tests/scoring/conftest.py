"""Two tiny models with random weights and tokenizers of their own, which cover all of UTF-8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.scoring.score import Scorer, ScorerSpec

TRAINING_TEXTS = [
    "the answer is 42, and the question is what the answer is the answer to",
    "Natalia sold 48 clips in April and half as many in May; how many in all?",
    "日本語のテキスト、 καὶ ἑλληνικά, и русский текст, naïve café 🙂🙂",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<turn>{{ message['role'] }}\n{{ message['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def _tokenizer(kind: str, vocabulary: int, bos: bool, chat: bool) -> Any:
    """Byte-level BPE, or BPE over words with bytes to fall back on. Special tokens: <eos>, <bos>, <turn>, <end>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<eos>", "<bos>", "<turn>", "<end>"]
    if kind == "byte-level":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        core = Tokenizer(models.BPE(byte_fallback=True, unk_token=None))
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = []
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(TRAINING_TEXTS, trainer)
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<end>" if chat else "<eos>",
        bos_token="<bos>" if bos else None,
        pad_token="<eos>",
        additional_special_tokens=["<turn>", "<end>"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE if chat else None
    return tokenizer


def _save(folder: Path, tokenizer: Any, seed: int, hidden: int) -> Path:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=32,
        max_position_embeddings=512,
        initializer_range=0.2,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this small only wait for each other's threads."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`chat`: byte-level, chat template, no <bos>. `plain`: word BPE with byte fallback, <bos>, no template."""
    root = tmp_path_factory.mktemp("scoring")
    return {
        "chat": _save(root / "chat", _tokenizer("byte-level", 400, bos=False, chat=True), seed=1, hidden=64),
        "plain": _save(root / "plain", _tokenizer("words", 360, bos=True, chat=False), seed=2, hidden=48),
    }


@pytest.fixture(scope="session")
def scorer(models: dict[str, Path]) -> Callable[..., Scorer]:
    """A new scorer of one of `models`, or of a folder."""

    def start(name: str | Path, **settings: Any) -> Scorer:
        return Scorer(ScorerSpec(str(models.get(str(name), name)), **settings))

    return start
