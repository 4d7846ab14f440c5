"""A model with noise on its weights: another distribution under the same tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def noisy(source: Path, out: Path, share: float, seed: int = 0) -> Path:
    """A copy of `source`, a folder with one safetensors file, each matrix with Gaussian noise of `share` of its standard deviation."""
    shutil.copytree(source, out)
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(source / "model.safetensors")
    for _, tensor in sorted(tensors.items()):
        if tensor.ndim > 1:
            tensor += share * tensor.std() * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out
