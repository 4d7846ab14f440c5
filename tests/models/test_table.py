"""The table of a run's models, and how their vocabularies relate."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from raydistill.models.preflight import ModelRef, inspect_model
from raydistill.models.table import models_table
from raydistill.models.vocabulary import relation

Model = Callable[..., Path]


def lines(references: list[ModelRef], width: int) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(models_table([inspect_model(reference) for reference in references]))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def cells(references: list[ModelRef], width: int) -> dict[str, list[str]]:
    """By property; a folded cell is put together again."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines(references, width):
        parts = [part.strip() for part in line.strip("│┃").split("│")]
        if line.startswith("│"):
            name = parts[0] or name
            found[name] = [a + b for a, b in zip(found.get(name, [""] * len(parts[1:])), parts[1:], strict=True)]
    return found


TRIO = [ModelRef("teacher", "demo:teacher"), ModelRef("proxy", "demo:proxy"), ModelRef("students.model", "demo:student")]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_column_a_model_whatever_the_width(width: int) -> None:
    assert max(map(len, lines(TRIO, width))) <= width
    found = cells(TRIO, width)
    assert [Path(path).name for path in found.pop("path")] == ["teacher", "proxy", "student"]
    found["tokenizer"] = [cell.replace(" ", "") for cell in found["tokenizer"]]
    assert found == {
        "type": ["llama"] * 3,
        "parameters": ["105,664", "19,872", "43,000"],
        "vocabulary": ["39", "113", "39"],
        "embedding rows": ["39", "113", "39"],
        "context": ["128"] * 3,
        "template": ["plain"] * 3,
        "bos": ["<bos>"] * 3,
        "end of turn": ["<eos>"] * 3,
        "stops at": ["<eos>"] * 3,
        "tokenizer": ["theteacher's", "shares39of113tokens", "same"],
    }


def test_two_models_with_what_a_model_may_lack(model: Model, edit: Callable[..., None]) -> None:
    """Tokens that look like markup are tokens."""
    folder = model("m")
    edit(folder / "tokenizer_config.json", bos_token=None)
    edit(folder / "config.json", max_position_embeddings=None)
    edit(folder / "generation_config.json", eos_token_id=[2, 3])
    tokenizer = (folder / "tokenizer.json").read_text().replace("<unk>", "[/INST]")
    (folder / "tokenizer.json").write_text(tokenizer)
    edit(folder / "tokenizer_config.json", unk_token="[/INST]")
    found = cells([TRIO[0], ModelRef("student", str(folder))], 100)
    assert found["bos"] == ["<bos>", "-"]
    assert found["context"] == ["128", "not stated"]
    assert found["stops at"] == ["<eos>", "<eos> [/INST]"]
    assert found["tokenizer"] == ["the teacher's", "shares 38 of 39 tokens"]


vocabularies = st.permutations(range(6)).map(lambda ids: {f"t{place}": id_ for place, id_ in enumerate(ids)})


@given(vocabularies, vocabularies)
def test_a_permuted_vocabulary_is_not_the_same(one: dict[str, int], other: dict[str, int]) -> None:
    moved = sum(one[token] != other[token] for token in one)
    assert relation(one, other) == (f"same tokens, {moved} under other ids" if moved else "same")


def test_tokens_are_shared_whatever_their_ids() -> None:
    assert relation({"a": 0, "b": 1, "c": 2}, {"b": 0, "c": 2}) == "shares 2 of 3 tokens"
    assert relation({"a": 0}, {"b": 0}) == "shares 0 of 1 tokens"
