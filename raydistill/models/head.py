"""A model's output layer, made to see some positions only: logits of all of them would take the most time and memory of a pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


@contextmanager
def only_at(head: Module, positions_K: Tensor) -> Iterator[None]:
    """Logits at K places among the N * T, as one sequence (1, K, V)."""
    with _before(head, lambda hidden_NTD: hidden_NTD.flatten(0, 1)[positions_K].unsqueeze(0)):
        yield


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
