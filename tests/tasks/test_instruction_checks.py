"""Each rule against texts of which anyone can see whether they meet it, and by properties."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from raydistill.config.checks import Check
from raydistill.tasks.instruction_checks import is_met, share_met

CHECK: TypeAdapter[Check] = TypeAdapter(Check)


def met(text: str, /, **check: object) -> bool:
    return is_met(CHECK.validate_python(check), text)


@pytest.mark.parametrize(
    ("kind", "text", "count"),
    [
        ("words", "", 0),
        ("words", "one, two - three!", 3),
        ("words", "λόγος и слово", 3),
        ("sentences", "", 0),
        ("sentences", "No end", 1),
        ("sentences", "One. Two! Three?", 3),
        ("sentences", "It costs 3.50, e.g. here.", 2),  # an abbreviation before a space ends a sentence: no language is known
        ("sentences", "Wait... what?! Yes.", 3),
        ("sentences", "一。二！三？", 3),
        ("paragraphs", "", 0),
        ("paragraphs", "a\nb", 1),
        ("paragraphs", "a\n\nb\n \n\n\nc\n\n", 3),
        ("bullets", "no bullet", 0),
        ("bullets", "- a\n  * b\n+ c\n• d\n-e\n**bold** f", 4),
    ],
)
def test_counts(kind: str, text: str, count: int) -> None:
    assert met(text, kind=kind, at_least=count, at_most=count)
    assert not met(text, kind=kind, at_least=count + 1)
    if count:
        assert not met(text, kind=kind, at_most=count - 1)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ({"kind": "contains", "keywords": ["Cat", "dog"]}, "DOGS and cats", "only cats"),
        ({"kind": "excludes", "keywords": ["cat", "dog"]}, "a bird", "a bird and a DOG"),
        ({"kind": "case", "case": "lower"}, "all lower, 1 2 3", "Not lower"),
        ({"kind": "case", "case": "upper"}, "ÄLL UPPER!", "ALL UPPEr"),
        ({"kind": "case", "case": "lower"}, "a", "123"),
        ({"kind": "starts_with", "text": "Dear"}, "  Dear all", "My Dear"),
        ({"kind": "ends_with", "text": "Yours."}, "the end. Yours.\n", "Yours. Bye"),
        ({"kind": "json"}, ' {"a": [1, 2]} ', "{'a': 1}"),
        ({"kind": "json"}, '```json\n{"a": 1}\n```', "```json\nnothing\n```"),
        ({"kind": "json"}, "[]", ""),
        ({"kind": "json"}, "1", "[" * 100_000),
        ({"kind": "matches", "pattern": r"^\d{4}$"}, "1984", "in 1984"),
    ],
)
def test_rules(check: dict[str, object], good: str, bad: str) -> None:
    assert met(good, **check)
    assert not met(bad, **check)


@given(st.text(), st.text(min_size=1))
def test_a_text_contains_or_excludes_a_keyword(text: str, keyword: str) -> None:
    assert met(text, kind="contains", keywords=[keyword]) != met(text, kind="excludes", keywords=[keyword])
    assert met(text + keyword, kind="contains", keywords=[keyword])


@given(st.lists(st.text(st.characters(categories=["Ll", "Lu"]), min_size=1)))
def test_words_are_counted_whatever_stands_between(words: list[str]) -> None:
    assert met(" - ".join(words), kind="words", at_least=len(words), at_most=len(words))


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_whatever_json_writes_is_json(value: object) -> None:
    assert met(json.dumps(value), kind="json")


@given(st.lists(st.booleans(), min_size=1))
def test_the_reward_is_the_share_that_is_met(wanted: list[bool]) -> None:
    asked = [CHECK.validate_python({"kind": "contains", "keywords": ["x" if good else "y"]}) for good in wanted]
    assert share_met(asked, "x") == sum(wanted) / len(wanted)


def test_a_share_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no checks"):
        share_met([], "a")


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ({"kind": "rhymes"}, "rhymes"),
        ({"kind": "words"}, "no bound"),
        ({"kind": "words", "at_least": 3, "at_most": 2}, "nothing meets"),
        ({"kind": "contains", "keywords": []}, "at least 1"),
        ({"kind": "matches", "pattern": "("}, "not a regular expression"),
        ({"kind": "json", "text": "a"}, "unknown field"),
    ],
)
def test_bad_checks_are_refused(check: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        CHECK.validate_python(check)


@pytest.mark.parametrize("text", ["." * 10**6 + "x", "\n" * 10**6 + "x", " " * 10**6, "- " * 10**6, "```\n" + "\n" * 10**6, "x" * 10**6])
@pytest.mark.parametrize("kind", ["words", "sentences", "paragraphs", "bullets", "json"])
def test_rules_take_time_in_proportion_to_the_text(kind: str, text: str) -> None:
    start = time.process_time()
    met(text, kind=kind, **({} if kind == "json" else {"at_least": 1}))
    assert time.process_time() - start < 1.0
