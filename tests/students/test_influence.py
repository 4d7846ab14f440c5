"""The training influence where the gradient is known by hand, against autograd, and by what training then does."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from raydistill.models.trio import character_tokenizer, new_model
from raydistill.scoring.score import SequenceScore
from raydistill.students.batches import Batch, pad
from raydistill.students.data import Encoded, Reader, Trace
from raydistill.students.influence import HeldOut, sequence_logprobs, shifted, slopes, unit_gradient

A, B, C, D = range(4)
TOKENIZER = character_tokenizer()
READER = Reader(TOKENIZER, "plain", "{prompt}", TOKENIZER.eos_token_id)
HELD_OUT = [Trace("1+2+3=", "1+2=3;3+3=6;#6", True), Trace("1+2+3=", "~AB #6", True), Trace("4+4-1=", "4+4=8;8-1=7;#7", True)]


class Bigram(torch.nn.Module):
    """p(next | token) = softmax of the token's row: the gradient of log p(b | a) is e_b - p in row a, and 0 elsewhere."""

    def __init__(self, logits_VV: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(logits_VV)
        self.head = torch.nn.Identity()
        self.device = torch.device("cpu")

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.head(self.table[input_ids]))


def texts(*pairs: tuple[int, int]) -> Batch:
    return pad([Encoded((first,), (then,)) for first, then in pairs])


def held(*pairs: tuple[int, int], sampled: float = 0.25) -> HeldOut:
    """Answers to prompts of one token, each as likely as the others where it was sampled."""
    return HeldOut.of([Encoded((first,), (then,)) for first, then in pairs], [math.log(sampled)] * len(pairs))


def mean_logprob(model: Any, batch: Batch) -> torch.Tensor:
    return sequence_logprobs(model, batch).mean()


def log_right(model: Any, answers: dict[int, tuple[int, ...]]) -> torch.Tensor:
    """Mean over prompts of the log-probability of one of the right answers, written out for a bigram."""
    probabilities_VV = model.table.softmax(-1)
    return torch.stack([probabilities_VV[prompt, list(right)].sum().log() for prompt, right in answers.items()]).mean()


def slope_along(model: Any, direction: dict[str, torch.Tensor], batch: Batch, eps: float) -> float:
    """By two forward passes, in float64 where the model is."""
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    ends = []
    for distance in (eps, -eps):
        model.load_state_dict(dict(shifted(weights, direction, distance)), strict=False)
        ends.append(mean_logprob(model, batch).item())
    model.load_state_dict(weights, strict=False)
    return (ends[0] - ends[1]) / (2 * eps)


def test_the_direction_is_the_gradient_by_hand() -> None:
    model = Bigram(torch.zeros(4, 4, dtype=torch.float64))
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[A] = torch.tensor([-0.25, 0.75, -0.25, -0.25]) / 0.75**0.5
    torch.testing.assert_close(unit_gradient(model, held((A, B)), 10_000)["table"], expected)
    expected[A] = torch.tensor([-0.25, 0.25, -0.25, 0.25]) / 0.5  # two right answers, either will do
    torch.testing.assert_close(unit_gradient(model, held((A, B), (A, D)), 10_000)["table"], expected)
    assert model.table.grad is None


def test_the_influence_and_its_sign_by_hand() -> None:
    """Held out: b follows a. Training on that helps, on another text after a it hurts, after another token it does neither."""
    model = Bigram(torch.zeros(4, 4, dtype=torch.float64))
    direction = unit_gradient(model, held((A, B)), 10_000)
    found = [slope_along(model, direction, texts(pair), eps=1e-4) for pair in ((A, B), (A, C), (D, B))]
    assert found == pytest.approx([0.75**0.5, -0.25 / 0.75**0.5, 0.0], abs=1e-6)


def test_of_two_right_answers_the_one_that_the_model_can_give_helps_it() -> None:
    """b comes to it easily and d does not: more of d would cost it more b than it would win."""
    model = Bigram(torch.tensor([[0.0, 2.0, 0.0, -2.0]] * 4, dtype=torch.float64))
    direction = unit_gradient(model, held((A, B), (A, D)), 10_000)
    assert slope_along(model, direction, texts((A, B)), eps=1e-4) > 0 > slope_along(model, direction, texts((A, D)), eps=1e-4)


@pytest.mark.parametrize("pair", [(A, B), (A, C), (A, D), (B, A), (D, B)])
def test_training_on_a_text_moves_the_chance_of_a_right_answer_as_its_influence_says(pair: tuple[int, int]) -> None:
    model = Bigram(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    answers = {A: (B, D), B: (A,)}
    influence = slope_along(model, unit_gradient(model, held((A, B), (B, A), (A, D)), 10_000), texts(pair), eps=1e-4)
    before = log_right(model, answers).item()
    length = float(torch.autograd.grad(log_right(model, answers), model.table)[0].norm())
    mean_logprob(model, texts(pair)).backward()
    assert model.table.grad is not None
    with torch.no_grad():
        model.table += 1e-3 * model.table.grad
    moved = log_right(model, answers).item() - before
    assert moved == pytest.approx(1e-3 * influence * length, rel=0.02, abs=1e-9)
    assert (influence > 0) == (moved > 0)


@pytest.mark.parametrize("eps", [1e-3, 1e-2])
@pytest.mark.parametrize("micro_batch_tokens", [1, 10_000])
def test_finite_differences_are_the_directional_derivative_of_autograd(eps: float, micro_batch_tokens: int) -> None:
    model = new_model("student", TOKENIZER, 0).eval().requires_grad_(True)
    answers = [READER.trace(trace) for trace in HELD_OUT]
    direction = unit_gradient(model, HeldOut.of(answers, [-2.0, -4.5, -1.0]), micro_batch_tokens)
    first, second, third = (mean_logprob(model, pad([answer])) for answer in answers)
    expected = torch.autograd.grad(torch.logaddexp(first + 2.0, second + 4.5) + third, list(model.parameters()))
    length = torch.cat([gradient.flatten() for gradient in expected]).norm()
    for found, gradient in zip(direction.values(), expected, strict=True):
        torch.testing.assert_close(found, gradient / length, atol=1e-5, rtol=1e-3)
    text = pad([READER.trace(Trace("7-5+2=", "7-5=2;2+2=4;#4", True))])
    slopes_of = torch.autograd.grad(mean_logprob(model, text), list(model.parameters()))
    exact = sum(float((g * d).sum()) for g, d in zip(slopes_of, direction.values(), strict=True))
    assert slope_along(model, direction, text, eps) == pytest.approx(exact, rel=2e-2)


def test_samples_stand_for_all_right_answers_that_could_have_been_sampled() -> None:
    """One right answer is likely, ten others are not, and together they are as likely: a few samples of them count for them all.

    The gradient of the estimate is that of the log of the sum over all of them, on average over what is sampled.
    """
    vocabulary, right = 24, list(range(1, 12))
    rng = torch.Generator().manual_seed(0)
    teacher = torch.full((vocabulary,), 1e-3, dtype=torch.float64)
    teacher[1], teacher[2:12] = 0.5, 0.05
    teacher /= teacher.sum()
    model = Bigram(torch.randn(vocabulary, vocabulary, dtype=torch.float64, generator=rng))
    exact = torch.autograd.grad(model.table[0].log_softmax(0)[right].logsumexp(0), model.table)[0]
    samples = torch.multinomial(teacher, 100_000, replacement=True, generator=rng).tolist()
    taken = [token for token in samples if token in right]
    held_out = HeldOut.of([Encoded((0,), (token,)) for token in taken], [teacher[token].log().item() for token in taken])
    found = unit_gradient(model, held_out, 10_000)["table"]
    torch.testing.assert_close(found, exact / exact.norm(), atol=0.02, rtol=0)
    plain = HeldOut.of([Encoded((0,), (token,)) for token in dict.fromkeys(taken[:8])], [0.0] * len(set(taken[:8])))
    assert (unit_gradient(model, plain, 10_000)["table"] - exact / exact.norm()).abs().max() > 0.05


def test_slopes_normalise_as_scores_do() -> None:
    ahead, behind = [SequenceScore(-2.0, 4, 8, -0.5)], [SequenceScore(-2.4, 4, 8, -0.6)]
    (slope,) = slopes(ahead, behind, eps=0.1)
    assert slope.per_byte == pytest.approx((ahead[0].per_byte - behind[0].per_byte) / 0.2)
    assert slope.with_end().per_sequence == pytest.approx(2.5)
    assert (slope.tokens, slope.bytes) == (4, 8)
