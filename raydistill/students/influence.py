"""Training influence: how much a small step of training on one text would help a model to answer held-out prompts.

What is held out are right answers that another model q, the original teacher, gave when it was sampled, and how well a model does is
the mean over prompts of

    L = log sum over a prompt's right answers y of p(y | x) / q(y | x),

up to a constant an estimate of the log-probability of being right: the sum, over the number of samples, is the importance-sampling
estimate of the sum of p over *all* right answers that q can give. Without the division an answer with letters drawn at random would
hardly count, since each that was sampled is one of thousands like it. And not the mean of log p over the answers: that would call for
those which the model finds hardest, whether or not it needs them, and training on what it can learn would seem to do harm.

A step on a text moves the weights w along the gradient of its score s, and what that does to L is, to first order, the product of both
gradients. With g the gradient of L scaled to length 1, it is the slope of s along g,

    ( s_{w + eps g}(y | x) - s_{w - eps g}(y | x) ) / (2 eps),

in the unit of s a unit of length of weights; two forward passes give it for any number of texts at once, where gradients would need a
backward pass for each. Divided by the length of the gradient, it compares texts, not models.

Axes: N, held-out answers; T, positions; V, vocabulary; M, completion tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from raydistill.scoring.score import SequenceScore
from raydistill.students.batches import Batch, pad
from raydistill.students.data import Encoded
from raydistill.students.distil import completion_logits


@dataclass(frozen=True)
class HeldOut:
    """Right answers to held-out prompts."""

    answers: Batch
    prompt_N: Tensor
    """Which prompt each answers, from 0."""
    log_weight_N: Tensor
    """What it counts in its prompt's sum, as a logarithm."""

    @classmethod
    def of(cls, answers: Sequence[Encoded], logprobs: Sequence[float]) -> HeldOut:
        """From samples, which may repeat, and the log-probability, in nats, that each had where it was sampled."""
        sampled: dict[Encoded, list[float]] = {}
        for answer, logprob in zip(answers, logprobs, strict=True):
            sampled.setdefault(answer, []).append(-logprob)
        places = {prompt: place for place, prompt in enumerate(dict.fromkeys(answer.prompt_ids for answer in sampled))}
        weights = [torch.tensor(each).logsumexp(0).item() for each in sampled.values()]
        return cls(pad(list(sampled)), torch.tensor([places[answer.prompt_ids] for answer in sampled]), torch.tensor(weights))


def sequence_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each of the batch's completions, (N,), in nats."""
    logits_MV = completion_logits(model, batch)
    logprobs_M = logits_MV.log_softmax(-1).gather(-1, batch.completion_ids[:, None].to(logits_MV.device))[:, 0]
    rows_M = batch.is_completion_NT.nonzero()[:, 0].to(logprobs_M.device)
    return logprobs_M.new_zeros(len(batch.ids_NT)).index_add(0, rows_M, logprobs_M)


def unit_gradient(model: Any, held_out: HeldOut, micro_batch_tokens: int) -> dict[str, Tensor]:
    """The gradient of L by the model's parameters, scaled to length 1 over all of them; 0 where it vanishes.

    `model` is in evaluation mode: no dropout. Its `grad` fields are left alone.
    """
    parameters = dict(model.named_parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters.values()]
    pieces = held_out.answers.pieces(micro_batch_tokens)
    logprobs_N = total[0].new_empty(len(held_out.prompt_N))
    with torch.no_grad():
        for rows in pieces:
            logprobs_N[rows] = sequence_logprobs(model, held_out.answers.rows(rows))
    weights_N = _shares(logprobs_N + held_out.log_weight_N.to(logprobs_N), held_out.prompt_N.to(logprobs_N.device))
    for rows in pieces:
        weighted = (weights_N[rows] * sequence_logprobs(model, held_out.answers.rows(rows))).sum()
        for added, part in zip(total, torch.autograd.grad(weighted, list(parameters.values()), materialize_grads=True), strict=True):
            added += part
    length = sum(float(gradient.double().square().sum()) for gradient in total) ** 0.5
    return {name: gradient / (length or 1.0) for name, gradient in zip(parameters, total, strict=True)}


def _shares(logs_N: Tensor, prompt_N: Tensor) -> Tensor:
    """Softmax over the answers of each prompt: what the gradient of a log of a sum weighs the terms with."""
    shares_N = torch.empty_like(logs_N)
    for prompt in prompt_N.unique():
        shares_N[prompt_N == prompt] = logs_N[prompt_N == prompt].softmax(0)
    return shares_N


def shifted(weights: Mapping[str, Tensor], direction: Mapping[str, Tensor], distance: float) -> Iterator[tuple[str, Tensor]]:
    """Named weights, moved by `distance` along `direction`."""
    for name, tensor in weights.items():
        yield name, tensor + distance * direction[name]


def slopes(ahead: Sequence[SequenceScore], behind: Sequence[SequenceScore], eps: float) -> list[SequenceScore]:
    """From scores at w + eps g and at w - eps g: the slope of every log-probability, which normalises as a score does."""
    return [
        replace(plus, logprob=(plus.logprob - minus.logprob) / (2 * eps), end_logprob=(plus.end_logprob - minus.end_logprob) / (2 * eps))
        for plus, minus in zip(ahead, behind, strict=True)
    ]
