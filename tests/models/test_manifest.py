"""What counts as all of a model's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from raydistill.models.manifest import Manifest
from raydistill.models.weights import WeightsError


def _model(tied: bool) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=10, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, tie_word_embeddings=tied
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("tied", [True, False])
def test_all_parameters_pass_through_unchanged(tied: bool, tmp_path: Path) -> None:
    model = _model(tied)
    model.save_pretrained(tmp_path)
    named = list(model.named_parameters())
    passed = list(Manifest.of_folder(str(tmp_path)).checked(named))
    assert [name for name, _ in passed] == [name for name, _ in named]
    assert all(out is tensor for (_, out), (_, tensor) in zip(passed, named, strict=True))


def test_a_tied_head_may_come_or_stay_away(tmp_path: Path) -> None:
    model = _model(tied=True)
    assert "lm_head.weight" not in dict(model.named_parameters())
    assert len(list(Manifest(model).checked(model.state_dict().items()))) == len(model.state_dict())


def test_a_head_of_its_own_must_come() -> None:
    model = _model(tied=False)
    with pytest.raises(WeightsError, match=r"1 of 12 parameters did not arrive, such as lm_head\.weight"):
        list(Manifest(model).checked((name, tensor) for name, tensor in model.named_parameters() if name != "lm_head.weight"))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.norm.bias", torch.zeros(8), r"no parameter model\.norm\.bias"),
        ("model.norm.weight", torch.zeros(9), r"model\.norm\.weight arrived as torch\.float32 \(9,\); the model has floating-point \(8,\)"),
        ("model.norm.weight", torch.zeros(8, dtype=torch.int64), "arrived as torch.int64"),
    ],
)
def test_a_foreign_tensor_is_refused_before_it_is_passed_on(name: str, tensor: torch.Tensor, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        next(Manifest(_model(tied=False)).checked([(name, tensor)]))
