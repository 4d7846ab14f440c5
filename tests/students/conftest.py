"""Tiny models with random weights, as Hugging Face folders: the tests of this folder need no pretrained ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from raydistill.models.trio import character_tokenizer, new_model

# Models of this size gain nothing from more, and wait for each other where cores are shared.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `student` and `teacher`, which share a tokenizer."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = character_tokenizer()
    for seed, role in enumerate(("student", "teacher")):
        new_model(role, tokenizer, seed).save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
    return folder
