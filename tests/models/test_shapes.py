"""Shapes against transformers' own classes, built without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, Gemma3Config, Gemma3TextConfig, Qwen3Config

from raydistill.models.checkpoint import read_checkpoint
from raydistill.models.shapes import KNOWN, Shape, shape_of
from raydistill.models.trio import demo_model

# As in google/gemma-3-4b-it and -12b-it; the 1B has none.
VISION = {
    "hidden_size": 1152,
    "image_size": 896,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "patch_size": 14,
    "vision_use_head": False,
}


def config_of(name: str) -> Any:
    """Of transformers, by fields that a shape has, and the vision tower where there is one."""
    shape = KNOWN[name]
    fields = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
    }
    if "Qwen3" in name:
        return Qwen3Config(**fields, tie_word_embeddings=shape.tied)
    fields["sliding_window"] = shape.window
    if shape.extra:
        return Gemma3Config(text_config=fields, vision_config=VISION, mm_tokens_per_image=256)
    return Gemma3TextConfig(**fields)


def built(name: str) -> Any:
    config = config_of(name)
    with torch.device("meta"):
        if "Reward" in name:
            config.num_labels = 1
            return AutoModelForSequenceClassification.from_config(config)
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_are_those_of_the_model_to_the_last(name: str) -> None:
    model, shape = built(name), KNOWN[name]
    counted = {key: parameter.numel() for key, parameter in model.named_parameters()}
    assert sum(counted.values()) == shape.parameters
    beside = sum(count for key, count in counted.items() if "vision" in key or "multi_modal" in key or key == "score.weight")
    assert (beside, sum(counted.values()) - beside) == (shape.extra, shape.text_parameters)


@pytest.mark.parametrize(("name", "billions"), [("google/gemma-3-12b-it", 12.19), ("google/gemma-3-4b-it", 4.3), ("Qwen/Qwen3-8B", 8.19)])
def test_parameters_are_what_the_names_say(name: str, billions: float) -> None:
    assert KNOWN[name].parameters / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize("name", ["google/gemma-3-1b-it", "Qwen/Qwen3-8B"])
def test_adapters_are_those_that_peft_adds(name: str) -> None:
    model = get_peft_model(built(name), LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    adapters = sum(parameter.numel() for key, parameter in model.named_parameters() if "lora_" in key)
    assert adapters == KNOWN[name].adapters(16)


@pytest.mark.parametrize("name", [name for name in KNOWN if name.startswith("google")])
def test_layers_that_look_back_on_a_window_are_counted(name: str) -> None:
    kinds = config_of(name).get_text_config().layer_types
    assert kinds.count("full_attention") == KNOWN[name].full_layers


def test_a_model_that_is_here_tells_its_shape() -> None:
    checkpoint = read_checkpoint("teacher.model", demo_model("teacher"))
    shape = shape_of(checkpoint)
    assert shape is not None
    assert (shape.layers, shape.hidden, shape.heads, shape.vocabulary, shape.tied) == (2, 64, 2, 39, False)
    assert shape.parameters == checkpoint.parameters
    assert shape.window is None


def test_windows_are_read_from_a_config(tmp_path: Path) -> None:
    fields = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 7, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Gemma3TextConfig(**fields, head_dim=8, intermediate_size=48, sliding_window=16, pad_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    shape = shape_of(read_checkpoint("teacher.model", tmp_path))
    assert shape == Shape(
        layers=7,
        hidden=32,
        heads=4,
        kv_heads=2,
        head_dim=8,
        intermediate=48,
        vocabulary=64,
        tied=True,
        window=16,
        full_layers=1,
        extra=7 * (4 * 32 + 2 * 8) + 32,
    )


@pytest.mark.parametrize("other", [{"model_type": "gpt2"}, {"model_type": "mixtral"}])
def test_models_of_another_kind_have_no_shape(tmp_path: Path, other: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(other))
    checkpoint = read_checkpoint("teacher.model", demo_model("teacher"))
    assert shape_of(type(checkpoint)(tmp_path, other, checkpoint.tensors)) is None
