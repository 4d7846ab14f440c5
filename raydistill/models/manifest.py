"""Which tensors a model is made of: an engine takes all of them or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from raydistill.models.weights import WeightsError

if TYPE_CHECKING:
    import torch


class Manifest:
    """Names and shapes of a model's parameters, as in its Hugging Face checkpoint.

    vLLM itself only warns about a parameter that never arrives, and keeps the old one.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._required = frozenset(name for name, _ in model.named_parameters())
        # A tied tensor is required under one of its names and welcome under the other.
        self._shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}

    @classmethod
    def of_folder(cls, model: str) -> Manifest:
        """The manifest of a Hugging Face folder, without reading its weights."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            return cls(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model, trust_remote_code=False)))

    def checked(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The same tensors, one by one. Raises WeightsError at a tensor that does not belong, and at the end if one is missing."""
        missing = set(self._required)
        for name, tensor in named_tensors:
            self._check(name, tensor)
            missing.discard(name)
            yield name, tensor
        if missing:
            raise WeightsError(f"{len(missing)} of {len(self._required)} parameters did not arrive, such as {min(missing)}")

    def _check(self, name: str, tensor: torch.Tensor) -> None:
        shape = self._shapes.get(name)
        if shape is None:
            raise WeightsError(f"the model has no parameter {name}")
        if tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise WeightsError(f"{name} arrived as {tensor.dtype} {tuple(tensor.shape)}; the model has floating-point {shape}")
