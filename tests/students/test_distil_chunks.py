"""Students whose logits are made a few positions at a time against the same ones with whole logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, LlamaConfig

from raydistill.students import distil
from raydistill.students.data import Encoded
from raydistill.students.distil import Objective, Recipe, TracePair, match_teacher, sft

VOCABULARY = 300
TRACES = [Encoded((5, 6, 7), (8, 9, 10, 299)), Encoded((9,), (10, 11)), Encoded((1, 2), tuple(range(20, 60)))]
PAIRS = [TracePair(trace, Encoded((4, *trace.prompt_ids), trace.completion_ids)) for trace in TRACES]
RECIPE = Recipe(steps=1, batch=3, lr=1e-3, seed=0, micro_batch_tokens=50)
SIZES = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}


def model(seed: int, kind: type = LlamaConfig, **settings: Any) -> Any:
    """With the logits of a model that has learnt something: random ones are nearly 0."""
    torch.manual_seed(seed)
    config = kind(**SIZES | {"vocab_size": VOCABULARY, "initializer_range": 0.5, "pad_token_id": None} | settings)
    return AutoModelForCausalLM.from_config(config).eval()


def step(student: Any, teacher: Any, objective: Objective | None) -> tuple[Tensor, dict[str, Tensor], list[int]]:
    """The loss of a step, the student's gradients, and how many positions its output layer saw in each pass with gradients."""
    seen: list[int] = []
    student.get_output_embeddings().register_forward_hook(
        lambda _, inputs, __: seen.append(inputs[0].shape[:-1].numel()) if torch.is_grad_enabled() else None
    )
    if objective is None:
        (loss,) = sft(student, TRACES, RECIPE)
    else:
        (loss,) = match_teacher(student, None, teacher, [], PAIRS, RECIPE, objective, max_new_tokens=0)  # type: ignore[arg-type]
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    return torch.tensor(loss), gradients, seen


OBJECTIVES = [None, *(Objective(beta, on_policy=0, temperature=2, top_k=k) for beta in (0.0, 0.5, 1.0) for k in (None, 5, 1000))]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("tied", [False, True])
def test_loss_and_gradients_are_those_of_whole_logits(monkeypatch: pytest.MonkeyPatch, objective: Objective | None, tied: bool) -> None:
    """A tied weight is in use twice, as embedding and as output layer. The teacher is wider, and its vocabulary is filled up further."""
    students, teacher = [model(0, tie_word_embeddings=tied) for _ in range(2)], model(1, hidden_size=12, vocab_size=VOCABULARY + 20)
    loss, gradients, seen = step(students[0], teacher, objective)
    monkeypatch.setattr(distil, "LARGEST_LOGITS", 1000)
    chunked_loss, chunked_gradients, chunked_seen = step(students[1], teacher, objective)
    assert (sum(seen), chunked_seen) == (46, [1] * len(seen))
    assert ("lm_head.weight" in gradients) != tied
    torch.testing.assert_close(chunked_loss, loss, rtol=1e-5, atol=0)
    for name, gradient in gradients.items():
        torch.testing.assert_close(chunked_gradients[name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.parametrize("capped", ["student", "teacher"])
def test_capped_logits_are_made_whole(monkeypatch: pytest.MonkeyPatch, capped: str) -> None:
    def models() -> list[Any]:
        kinds = {name: Gemma2Config if name == capped else LlamaConfig for name in ("student", "teacher")}
        return [model(seed, kind, final_logit_softcapping=3.0, head_dim=4) for seed, kind in enumerate(kinds.values())]

    objective = Objective(0.5, on_policy=0)
    loss, gradients, _ = step(*models(), objective)
    monkeypatch.setattr(distil, "LARGEST_LOGITS", 1000)
    again, gradients_again, seen = step(*models(), objective)
    assert sum(seen) == 46
    assert again == loss
    assert all(torch.equal(gradients_again[name], gradient) for name, gradient in gradients.items())


def test_a_vocabulary_longer_than_the_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Objective(0.5, on_policy=0)
    longer = [model(0, vocab_size=VOCABULARY + 30) for _ in range(2)]
    loss, gradients, _ = step(longer[0], model(1), objective)
    monkeypatch.setattr(distil, "LARGEST_LOGITS", 1000)
    chunked_loss, chunked_gradients, _ = step(longer[1], model(1), objective)
    torch.testing.assert_close(chunked_loss, loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(chunked_gradients["lm_head.weight"], gradients["lm_head.weight"], rtol=1e-5, atol=1e-6)
    assert chunked_gradients["lm_head.weight"][VOCABULARY:].count_nonzero() == 0


def test_few_logits_are_made_whole() -> None:
    """What all figures of the demo were measured with: 8,192 tokens of a vocabulary of 39."""
    assert Recipe(1, 1, 1e-3, 0).micro_batch_tokens * 39 < distil.LARGEST_LOGITS
    _, _, seen = step(model(0), model(1), Objective(0.0, on_policy=0))
    assert sum(seen) == 46
