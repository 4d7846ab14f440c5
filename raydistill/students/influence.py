"""Training influence: how much a small step of training on one text would help a model to find other texts likely.

A step on y moves the weights w along the gradient of s(y | x), and what that does to the held-out log-likelihood L is, to first order,
the product of both gradients. With g the gradient of L scaled to length 1, it is the slope of s(y | x) along g,

    ( s_{w + eps g}(y | x) - s_{w - eps g}(y | x) ) / (2 eps),

in the unit of s a unit of length of weights; two forward passes give it for any number of texts at once, where gradients would need a
backward pass for each. Divided by the length of the gradient that it leaves out, it compares texts, not models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from raydistill.scoring.score import SequenceScore
from raydistill.students.batches import Batch
from raydistill.students.distil import sft_pieces


def unit_gradient(model: Any, held_out: Batch, micro_batch_tokens: int) -> dict[str, Tensor]:
    """The gradient of the mean log-likelihood of a held-out token, scaled to length 1 over all parameters; 0 where it vanishes.

    `model` is in evaluation mode: no dropout. Its `grad` fields are left alone.
    """
    parameters = dict(model.named_parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters.values()]
    for loss in sft_pieces(model, held_out, micro_batch_tokens):
        for added, part in zip(total, torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True), strict=True):
            added -= part
    length = sum(float(gradient.double().square().sum()) for gradient in total) ** 0.5
    return {name: gradient / (length or 1.0) for name, gradient in zip(parameters, total, strict=True)}


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
