"""Tiny reward models with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.students.small_tokenizers import small_tokenizer

TEMPLATE = "{% for message in messages %}<bos>{{ message['role'] }}\n{{ message['content'] }}<eos>\n{% endfor %}"


def save_reward_model(folder: Path, kind: str = "Qwen3", labels: int = 1, padding: bool = True, template: str | None = TEMPLATE) -> Path:
    """A sequence classifier of this kind over a byte-level tokenizer; its end token is its padding token, if it has one."""
    import transformers

    tokenizer: Any = small_tokenizer("byte-level")
    tokenizer.chat_template = template
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128, "initializer_range": 0.3}
    config = getattr(transformers, f"{kind}Config")(
        **sizes, **heads, num_labels=labels, pad_token_id=tokenizer.eos_token_id if padding else None
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_nan_model(folder: Path) -> Path:
    """One whose scores are all NaN."""
    from safetensors.torch import load_file, save_file

    weights = save_reward_model(folder) / "model.safetensors"
    tensors = load_file(weights)
    save_file(tensors | {"score.weight": torch.full_like(tensors["score.weight"], torch.nan)}, weights, {"format": "pt"})
    return folder
