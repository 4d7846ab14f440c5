"""Small models with random weights, to be broken in one way each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raydistill.models.trio import Role, character_tokenizer, new_model

Model = Callable[..., Path]


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """Saves a new model of the trio's shape under a name; the same role and seed give the same weights."""

    def save(name: str, role: Role = "student", seed: int = 0, **saving: Any) -> Path:
        folder = tmp_path / name
        tokenizer = character_tokenizer()
        new_model(role, tokenizer, seed).save_pretrained(folder, **saving)
        tokenizer.save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def edit() -> Callable[..., None]:
    """Changes fields of a JSON file; None takes a field out."""

    def change(file: Path, **fields: Any) -> None:
        content = json.loads(file.read_text()) | fields
        file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return change
