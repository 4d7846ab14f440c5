"""A partitioned model's weights, gathered piece by piece and named as in its Hugging Face checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from raydistill.errors import InputError
from raydistill.learner.zero import ADAPTER

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class _Entry:
    """One tensor of the checkpoint: a parameter or a buffer, and the LoRA layer that adds to it, if any."""

    name: str
    tensor: Tensor
    adapted: Any = None

    @property
    def parameters(self) -> list[Tensor]:
        """All that must be gathered to compute the value."""
        factors = [self.adapted.lora_A[ADAPTER].weight, self.adapted.lora_B[ADAPTER].weight] if self.adapted else []
        return [self.tensor, *factors]

    @property
    def bytes(self) -> int:
        return sum(getattr(p, "ds_numel", p.numel()) * p.element_size() for p in self.parameters)

    def value(self) -> Tensor:
        """A copy on the CPU, adapters merged in float32; call it while `parameters` are gathered."""
        if self.adapted is None:
            return self.tensor.detach().to("cpu", copy=True)
        merged = self.tensor.detach().float() + self.adapted.get_delta_weight(ADAPTER).detach().float()
        return merged.to(self.tensor.dtype).cpu()

    def like(self) -> Tensor:
        """The value's shape and type without its content."""
        return torch.empty(getattr(self.tensor, "ds_shape", self.tensor.shape), dtype=self.tensor.dtype, device="meta")


def _entries(model: PreTrainedModel) -> list[_Entry]:
    """Parameters and persistent buffers in order; tied ones once, under their first name; adapters only within their base."""
    modules = dict(model.named_modules())
    entries: list[_Entry] = []
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in seen or ".lora_" in name:
            continue
        seen.add(id(tensor))
        owner = name.rpartition(".base_layer.")[0]
        adapted = modules[owner] if owner and name.endswith(".weight") else None
        entries.append(_Entry(name.replace(".base_layer.", "."), tensor, adapted))
    return entries


def _groups(entries: Iterable[_Entry], max_bytes: int) -> list[list[_Entry]]:
    """Runs of entries of at most `max_bytes` together, or of one entry where that alone is larger."""
    groups: list[list[_Entry]] = []
    size = 0
    for entry in entries:
        if not groups or size + entry.bytes > max_bytes:
            groups.append([])
            size = 0
        groups[-1].append(entry)
        size += entry.bytes
    return groups


def checkpoint_names(folder: Path) -> set[str]:
    """Names of the tensors in a Hugging Face folder's safetensors. Raises InputError where there are none."""
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return set(json.loads(index.read_text())["weight_map"])
    try:
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            return set(file.keys())
    except FileNotFoundError:
        raise InputError(f"{folder}: has no model.safetensors; weights in another format are not read") from None


class Exporter:
    """Names and gathers the weights of one model; every method that gathers is a collective call."""

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        """`folder` is where the model was loaded from.

        Raises InputError if some weight would leave under a name that the folder's checkpoint does not have: an engine
        that loaded the folder could not take it.
        """
        self._model = model
        self._entries = _entries(model)
        own = {entry.name: entry.like() for entry in self._entries}
        known = checkpoint_names(folder)
        self._renamed = not own.keys() <= known
        unknown = self._as_in_checkpoint(own).keys() - known
        if unknown:
            raise InputError(
                f"{folder}: transformers loads this checkpoint under other names ({min(unknown)}) and they cannot be led back; "
                "save the model anew with transformers' save_pretrained"
            )

    def _as_in_checkpoint(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """transformers renames and fuses tensors of some models while loading; this undoes it."""
        if not self._renamed:
            return tensors
        from transformers.core_model_loading import revert_weight_conversion

        return revert_weight_conversion(self._model, tensors)

    def gather(self, max_bytes: int) -> Iterator[dict[str, Tensor]]:
        """CPU copies of the weights by name, at most about `max_bytes` of them at a time; empty except on rank 0."""
        import deepspeed

        for group in _groups(self._entries, max_bytes):
            with deepspeed.zero.GatheredParameters([parameter for entry in group for parameter in entry.parameters]):
                values = {entry.name: entry.value() for entry in group} if dist.get_rank() == 0 else {}
            yield self._as_in_checkpoint(values)

    def group_count(self, max_bytes: int) -> int:
        """How many times `gather` will yield."""
        return len(_groups(self._entries, max_bytes))
