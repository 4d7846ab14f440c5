"""The output layer sees the positions that are asked for, and no other afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    PhiConfig,
    PreTrainedConfig,
)

from raydistill.models.head import has_plain_logits, hidden_at, only_at, only_at_end
from raydistill.models.trio import character_tokenizer, new_model
from raydistill.rollout.completion import Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.transformers_engine import TransformersEngine
from raydistill.students.batches import pad
from raydistill.students.data import Encoded
from raydistill.students.distil import completion_logits

IDS_NT = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])


@pytest.fixture
def model() -> Any:
    return new_model("student", character_tokenizer(), seed=0).eval().requires_grad_(False)


def seen(head: Any) -> list[int]:
    """Number of positions in each of the head's passes, filled as it makes them."""
    passes: list[int] = []
    head.register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].shape[:-1].numel()))
    return passes


def test_logits_are_those_of_the_chosen_positions(model: Any) -> None:
    everywhere_NTV = model(IDS_NT).logits
    with only_at(model.lm_head, torch.tensor([6, 1])):
        chosen_1KV = model(IDS_NT).logits
    with only_at_end(model.lm_head):
        last_N1V = model(IDS_NT).logits
    torch.testing.assert_close(chosen_1KV, everywhere_NTV.flatten(0, 1)[None, [6, 1]])
    torch.testing.assert_close(last_N1V, everywhere_NTV[:, -1:])
    assert model(IDS_NT).logits.shape == everywhere_NTV.shape


def test_what_enters_the_layer_makes_the_logits_of_the_chosen_positions(model: Any) -> None:
    passes, everywhere_NTV = seen(model.lm_head), model(IDS_NT).logits
    with hidden_at(model.lm_head, torch.tensor([6, 1])) as entered:
        model(IDS_NT)
        model(IDS_NT.flip(0))
    assert passes == [8, 1, 1]
    assert [hidden_KD.shape for hidden_KD in entered] == [(2, model.lm_head.in_features)] * 2
    torch.testing.assert_close(entered[0] @ model.lm_head.weight.T, everywhere_NTV.flatten(0, 1)[[6, 1]])
    assert model(IDS_NT).logits.shape == everywhere_NTV.shape


SIZES = {"vocab_size": 39, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0}


@pytest.mark.parametrize(
    ("kind", "settings", "plain"),
    [
        (LlamaConfig, {}, True),
        (LlamaConfig, {"tie_word_embeddings": True}, True),
        (Gemma3TextConfig, {"head_dim": 4, "num_key_value_heads": 2}, True),
        (Gemma2Config, {"head_dim": 4, "num_key_value_heads": 2, "final_logit_softcapping": 30.0}, False),
        (GraniteConfig, {"logits_scaling": 8.0}, False),
        (GraniteConfig, {"logits_scaling": 1.0}, True),
        (CohereConfig, {"logit_scale": 0.0625}, False),
        (PhiConfig, {}, False),  # a bias, 0 at first
    ],
)
def test_logits_are_plain_where_nothing_is_done_to_hidden_times_weight(kind: type, settings: dict[str, Any], plain: bool) -> None:
    """The weights are so small that at any position plain logits and others differ by less than rounding would let one see."""
    config: PreTrainedConfig = kind(**SIZES | settings, initializer_range=1e-4)
    model = AutoModelForCausalLM.from_config(config).eval()
    before = model(IDS_NT).logits
    assert has_plain_logits(model) == plain
    assert torch.equal(model(IDS_NT).logits, before)


def _double(_model: Any, _inputs: Any, output: Any) -> None:
    output.logits.mul_(2)


def test_logits_scaled_in_place_are_not_plain(model: Any) -> None:
    assert has_plain_logits(model)
    model.register_forward_hook(_double)
    assert not has_plain_logits(model)


def test_logits_of_a_layer_of_its_own_kind_are_not_plain(model: Any) -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model.lm_head.__class__ = Doubled
    assert not has_plain_logits(model)


def test_an_error_inside_leaves_the_head_as_it_was(model: Any) -> None:
    with pytest.raises(ZeroDivisionError), only_at_end(model.lm_head):
        _ = 1 / 0
    assert model(IDS_NT).logits.shape[1] == IDS_NT.shape[1]


def test_a_student_makes_logits_of_completion_positions_alone(model: Any) -> None:
    batch, passes = pad([Encoded((5, 6, 7), (8,)), Encoded((9,), (10, 11))]), seen(model.lm_head)
    logits_MV = completion_logits(model, batch)
    assert passes == [3]
    alone = [model(torch.tensor([ids])).logits[0] for ids in ([5, 6, 7], [9, 10])]
    torch.testing.assert_close(logits_MV, torch.cat([alone[0][2:], alone[1]]))


def test_an_engine_makes_logits_of_last_positions_alone(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    character_tokenizer().save_pretrained(tmp_path)
    engine = TransformersEngine(EngineSpec("transformers", str(tmp_path), max_model_len=16))
    passes = seen(engine._model.lm_head)
    engine.generate([TokenPrompt("a", (5, 6, 7)), TokenPrompt("b", (8,))], Sampling(1, 4, greedy=True), 0)
    assert set(passes) == {2}
