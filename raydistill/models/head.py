"""A model's output layer, made to see some positions only: logits of all of them would take the most time and memory of a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear, Module

_PROBE = 100.0
"""Largest of the logits that a model is given: capping and scaling change it, whatever the model's own would be."""


@contextmanager
def only_at(head: Module, positions_K: Tensor) -> Iterator[None]:
    """Logits at K places among the N * T, as one sequence (1, K, V)."""
    with _before(head, lambda hidden_NTD: hidden_NTD.flatten(0, 1)[positions_K].unsqueeze(0)):
        yield


@contextmanager
def hidden_at(head: Module, positions_K: Tensor) -> Iterator[list[Tensor]]:
    """A list to which each pass adds what enters the layer at K places among the N * T, (K, D). The layer itself sees the first alone."""
    entered: list[Tensor] = []

    def select(hidden_NTD: Tensor) -> Tensor:
        entered.append(hidden_NTD.flatten(0, 1)[positions_K])
        return hidden_NTD[:1, :1]

    with _before(head, select):
        yield entered


@contextmanager
def only_at_end(head: Module) -> Iterator[None]:
    """Logits of each sequence's last position, (N, 1, V)."""
    with _before(head, lambda hidden_NTD: hidden_NTD[:, -1:]):
        yield


@contextmanager
def _before(head: Module, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """A hook rather than a call of the layer by itself, so that what the model does to its logits (capping, scaling) is kept."""
    hook = head.register_forward_pre_hook(lambda _, inputs: (select(inputs[0]), *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()


def has_plain_logits(model: Any) -> bool:
    """Whether a causal language model's logits are hidden @ weight.T of its output layer: no bias, adapter, capping or scale.

    Costs a pass of one token, in which the model is shown what to make logits of in place of the layer's output.
    """
    head = model.get_output_embeddings()
    if type(head) is not Linear or head.bias is not None:
        return False
    weight = head.weight
    shown_11V = torch.linspace(-_PROBE, _PROBE, len(weight), dtype=weight.dtype, device=weight.device)[None, None]
    # A copy: what is done in place must not reach what it is compared with.
    hook = head.register_forward_hook(lambda *_: shown_11V.clone())
    try:
        with torch.no_grad():
            made = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=weight.device), use_cache=False).logits
    finally:
        hook.remove()
    return torch.equal(made.to(weight.dtype), shown_11V)
