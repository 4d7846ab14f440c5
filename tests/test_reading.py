"""How the demo models, which have tokenizers of their own, read a task."""

from __future__ import annotations

from typing import Any

import pytest

from raydistill.config.models import ModelConfig
from raydistill.errors import InputError
from raydistill.models.preflight import ModelRef, inspect_model
from raydistill.reading import longer_completions, require_readable, unknown_characters
from raydistill.students.data import Reader
from raydistill.students.job import make_reader


def reader(role: str, prompt_format: str = "{prompt}") -> Reader:
    facts = inspect_model(ModelRef(role, f"demo:{role}"))
    return make_reader(facts, ModelConfig(model=str(facts.folder), prompt_format=prompt_format))


def test_different_prompts_must_be_different_tokens() -> None:
    """Characters that the tokenizer does not know are one to it."""
    require_readable("proxy", reader("proxy"), ["1+1=", "1+2=", "1+1="])
    with pytest.raises(InputError, match=r"^proxy\.model: its tokenizer makes the same tokens of different prompts, '1\*1=' and '1/1='; "):
        require_readable("proxy", reader("proxy"), ["1+1=", "1*1=", "1/1="])


def test_a_prompt_begins_once() -> None:
    with pytest.raises(InputError, match=r"^proxy\.prompt_format: a prompt begins with <bos> twice, as the tokenizer puts it there itself"):
        require_readable("proxy", reader("proxy", "<bos>{prompt}"), ["1+1="])


def test_unknown_characters_are_warned_of() -> None:
    assert unknown_characters("proxy", reader("proxy"), ["1+1=", "1+1=2;#2"]) == []
    (warning,) = unknown_characters("proxy", reader("proxy"), ["1+1=", "1*2=", "1/2="])
    assert warning == (
        "proxy.model: its tokenizer does not know all characters of 2 of 3 texts of the task, such as '1*2=', and reads <unk> there; "
        "choose a model whose tokenizer does"
    )


@pytest.mark.parametrize(
    ("teacher", "student", "context", "warned"),
    [("proxy", "teacher", 40, True), ("proxy", "teacher", 400, False), ("proxy", "teacher", None, False), ("teacher", "proxy", 25, False)],
)
def test_completions_that_are_longer_in_another_model_s_tokens(teacher: str, student: str, context: Any, warned: bool) -> None:
    """The proxy reads pairs of characters where the teacher reads each alone. Teachers' own contexts are checked elsewhere."""
    readers = {"teacher": reader(teacher), "students.model": reader(student)}
    golds = ["7+5=2;2-9=3;#3", "1+1=2;2+1=3;#3"]
    rate = sum(len(readers["students.model"].tokenizer(gold)["input_ids"]) - 1 for gold in golds) / sum(
        len(readers["teacher"].tokenizer(gold)["input_ids"]) - 1 for gold in golds
    )
    warnings = longer_completions(readers, {"teacher": 1, "students.model": context}, {"students.model": 7}, golds, 20, "new")
    assert bool(warnings) is warned
    if warned:
        assert rate > 1.3
        assert warnings[0].endswith("and, with a prompt of 7, do not fit its context (40); lower new")
        assert warnings[0].startswith(f"students.model.model: writes {rate:.1f} tokens for one of the teacher's, so that completions of 20")
    assert longer_completions(readers, {"teacher": 1, "students.model": context}, {"students.model": 7}, [], 20, "new") == []
