"""Spans against brute force over byte strings, TRL's alignment, and the offsets that tokenizers report."""

from __future__ import annotations

from functools import cache
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.errors import InputError
from raydistill.models.text import encode_completion
from raydistill.students.align import Span, align, token_places
from raydistill.students.spelling import Spelling, read_spelling
from tests.students.small_tokenizers import EXACT, SPACED, small_tokenizer

ALL = [*EXACT, *SPACED, "normalising", "character"]
KINDS = st.sampled_from(ALL)
TEXTS = st.text(st.sampled_from(" \n▁aAeht42+<>é\u0301ﬁ日本語🙂🙃\u200d") | st.characters(codec="utf-8"), min_size=1, max_size=30)


@cache
def spelling(kind: str) -> Spelling:
    return read_spelling("m", small_tokenizer(kind))


def tokens_of(kind: str, text: str) -> list[bytes]:
    return spelling(kind).spell(encode_completion(small_tokenizer(kind), text))


def pieces(spans: list[Span], tokens: list[bytes], side: str) -> list[bytes]:
    return [b"".join(tokens[place] for place in getattr(span, side)) for span in spans]


def assert_tiles(spans: list[Span], student: list[bytes], teacher: list[bytes], text: str) -> None:
    """All bytes and tokens, in order, without a gap; no span without tokens."""
    for side, size in (("student", len(student)), ("teacher", len(teacher)), ("bytes", len(text.encode()))):
        ranges = [getattr(span, side) for span in spans]
        assert [place for range_ in ranges for place in range_] == list(range(size))
    assert all(span.student and span.teacher for span in spans)


@st.composite
def _tilings(draw: st.DrawFn) -> tuple[str, list[bytes], list[bytes]]:
    """A text and two ways to cut its bytes, also inside of characters."""
    text = draw(st.text(min_size=1, max_size=20))
    given_ = text.encode()
    cuts = st.sets(st.integers(1, len(given_) - 1)) if len(given_) > 1 else st.just(set())
    one, other = ([given_[a:b] for a, b in pairwise([0, *sorted(draw(cuts)), len(given_)])] for _ in range(2))
    return text, one, other


@given(_tilings(), st.booleans())
def test_spans_are_those_of_brute_force(tiling: tuple[str, list[bytes], list[bytes]], ended: bool) -> None:
    text, student, teacher = tiling
    common = [(i, j) for i in range(len(student) + 1) for j in range(len(teacher) + 1) if b"".join(student[:i]) == b"".join(teacher[:j])]
    expected = [(range(i, k), range(j, m)) for (i, j), (k, m) in pairwise(common)]
    end = [b"<eos>"] * ended
    if ended:
        expected.append((range(len(student), len(student) + 1), range(len(teacher), len(teacher) + 1)))
    spans = align([*student, *end], [*teacher, *end], text, ended)
    assert [(span.student, span.teacher) for span in spans] == expected
    assert_tiles(spans, [*student, *end], [*teacher, *end], text)
    assert pieces(spans[: len(common) - 1], student, "student") == pieces(spans[: len(common) - 1], teacher, "teacher")


@pytest.fixture(scope="module")
def trl() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
        from trl.experimental.gold import gold_trainer
    return gold_trainer


@given(tiling=_tilings())
def test_spans_are_those_of_trl(trl: Any, tiling: tuple[str, list[bytes], list[bytes]]) -> None:
    text, student, teacher = tiling
    offsets = [list(pairwise(accumulate(map(len, tokens), initial=0))) for tokens in (student, teacher)]
    students, teachers = trl.ULDLoss._align_by_byte_offsets(*offsets)
    spans = align(student, teacher, text, ended=False)
    assert [list(span.student) for span in spans] == students
    assert [list(span.teacher) for span in spans] == teachers


@settings(max_examples=1000)
@given(student=KINDS, teacher=KINDS, text=TEXTS, ended=st.booleans())
def test_spans_of_real_tokenizers(student: str, teacher: str, text: str, ended: bool) -> None:
    """They tile, are the same from the other side, and none could be cut again."""
    end = [b"<eos>"] * ended
    one, other = [*tokens_of(student, text), *end], [*tokens_of(teacher, text), *end]
    spans = align(one, other, text, ended)
    assert_tiles(spans, one, other, text)
    swapped = align(other, one, text, ended)
    assert [(span.student, span.teacher, span.bytes) for span in spans] == [(span.teacher, span.student, span.bytes) for span in swapped]
    common = token_places(one[: len(one) - ended], text).keys() & token_places(other[: len(other) - ended], text).keys()
    assert not any(span.bytes.start < place < span.bytes.stop for span in spans for place in common)
    if student in EXACT and teacher in EXACT and "▁" not in text:
        given_ = text.encode()
        spelled = [given_[span.bytes.start : span.bytes.stop] for span in spans[: len(spans) - ended]]
        assert spelled == pieces(spans[: len(spans) - ended], one, "student") == pieces(spans[: len(spans) - ended], other, "teacher")


@pytest.mark.parametrize("kind", ["byte-level", "bytes", "prefix space", "words", "words with space", "normalising", "character"])
@given(text=TEXTS)
def test_places_agree_with_the_offsets_that_tokenizers_report(kind: str, text: str) -> None:
    """Offsets count characters, and may know other places than bytes do; where both know one, it begins the same token."""
    tokenizer, places = small_tokenizer(kind), token_places(tokens_of(kind, text), text)
    offsets = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]
    reported = {
        len(text[:end].encode()): place + 1
        for place, ((_, end), (start, _)) in enumerate(pairwise(offsets))
        if end == start and 0 < end < len(text)
    }
    known = {place: token for place, token in places.items() if place in reported}
    assert known == {place: reported[place] for place in known}
    if kind in EXACT and "▁" not in text:
        given_ = text.encode()
        assert reported.keys() <= places.keys()
        assert all(given_[place] & 0xC0 == 0x80 for place in places.keys() - reported.keys() - {0, len(given_)})


@pytest.mark.parametrize("kind", ALL)
@given(text=TEXTS)
def test_the_same_tokenizer_on_both_sides_gives_spans_of_one_token(kind: str, text: str) -> None:
    tokens = tokens_of(kind, text)
    spans = align(tokens, tokens, text, ended=False)
    assert_tiles(spans, tokens, tokens, text)
    assert all(span.student == span.teacher for span in spans)
    if kind in EXACT and "▁" not in text:
        assert len(spans) == len(tokens)


def spelled_spans(student: str, teacher: str, text: str) -> list[str]:
    given_ = text.encode()
    spans = align(tokens_of(student, text), tokens_of(teacher, text), text, ended=False)
    return [given_[span.bytes.start : span.bytes.stop].decode(errors="backslashreplace") for span in spans]


@pytest.mark.parametrize(
    ("student", "teacher", "text", "expected"),
    [
        ("byte-level", "words", "the🙂", ["the", "🙂"]),  # one side cuts inside of the character
        ("byte-level", "bytes", "🙂", ["\\xf0\\x9f\\x99", "\\x82"]),  # both do
        ("byte-level", "unigram", "日本語🙂", ["日本語", "\\xf0\\x9f\\x99", "\\x82"]),
        ("unigram", "words", "日本語🙂", ["日本語", "🙂"]),
        ("unigram", "words with space", " é", [" ", "é"]),  # one side puts another space before
        ("byte-level", "prefix space", "the answer", ["the", " answer"]),
        ("byte-level", "words with space", "the  answer", ["the", " ", " answer"]),
        ("trimmed", "byte-level", " the\n answer", [" the", "\n", " answer"]),
        ("bytes", "character", "a<unk>b", ["a", "<unk>", "b"]),
        ("bytes", "character", "1+é=2", ["1", "+", "é", "=", "2"]),  # what is unknown is as long as it must be
        ("bytes", "character", "1+éé=2", ["1", "+", "éé", "=", "2"]),
        ("bytes", "normalising", "1 e\u0301A 1", ["1", " ", "e\u0301A", " ", "1"]),  # becomes éa, two tokens, neither of these lengths
        ("bytes", "words", "1▁2", ["1", "▁", "2"]),  # becomes a space
        ("words", "unigram", "<eos>1", ["<", "e", "o", "s", ">", "1"]),
    ],
)
def test_spans_by_hand(student: str, teacher: str, text: str, expected: list[str]) -> None:
    assert spelled_spans(student, teacher, text) == expected


def test_a_tokenizer_that_puts_bos_before_texts_puts_none_into_a_completion() -> None:
    tokenizer = small_tokenizer("words")
    assert tokenizer("the answer")["input_ids"][0] == tokenizer.bos_token_id
    assert spelled_spans("byte-level", "words", "the answer") == ["the", " answer"]


def test_end_tokens_are_a_span_without_bytes() -> None:
    spans = align([b"a", b"b", b"<eos>"], [b"ab", b"<|im_end|>"], "ab", ended=True)
    assert spans == [Span(range(2), range(1), range(2)), Span(range(2, 3), range(1, 2), range(2, 2))]
    assert align([b"<eos>"], [b"<|im_end|>"], "", ended=True) == [Span(range(1), range(1), range(0))]
    assert align([], [], "", ended=False) == []


def test_the_name_of_the_end_token_in_a_text_is_text() -> None:
    text = "a<eos>"
    spans = align([*text.encode().split(b"<"), b"<eos>"], [b"a", b"<eos>", b"<eos>"], text, ended=True)
    assert [span.bytes for span in spans] == [range(6), range(6, 6)]  # without its "<" the one side is unknown
    cut = [b"a", b"<", b"eos>", b"<eos>"]
    assert [len(span.student) for span in align(cut, [b"a", b"<eos>", b"<eos>"], text, ended=True)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("tokens", "text", "places"),
    [
        ([b"ab", b"c"], "abc", {0: 0, 2: 1, 3: 2}),
        ([b" ab", b"c"], "abc", {0: 0, 2: 1, 3: 2}),
        ([b" ", b" a"], " a", {0: 0, 2: 2}),
        ([b"a", b"b"], "a?b", {0: 0, 3: 2}),  # whose the dropped byte is, is not known
        ([b"a", b"<x>", b"b"], "ab", {0: 0, 1: 1, 2: 3}),  # a token that the text does not show
        ([b"a", b"b", b"c", b"a", b"b", b"c"], "abc", {0: 0, 3: 6}),
        ([b"x", b"y"], "ab", {0: 0, 2: 2}),
        ([b"a", b"", b"b"], "ab", {0: 0, 1: 1, 2: 3}),
    ],
)
def test_only_places_that_are_sure_count(tokens: list[bytes], text: str, places: dict[int, int]) -> None:
    assert token_places(tokens, text) == places


@given(st.lists(st.binary(max_size=3).filter(bytes.isascii), min_size=1, max_size=8), st.text("ab \x00", min_size=1, max_size=8))
def test_places_rise_whatever_the_tokens_spell(tokens: list[bytes], text: str) -> None:
    places = token_places(tokens, text)
    assert list(places) != []
    rising = sorted(places.items())
    assert all(token < later for (_, token), (_, later) in pairwise(rising))
    assert (rising[0], rising[-1]) == ((0, 0), (len(text), len(tokens)))


@pytest.mark.parametrize(("student", "teacher"), [([], [b"a"]), ([b"a"], [])])
def test_a_text_without_tokens_is_refused(student: list[bytes], teacher: list[bytes]) -> None:
    with pytest.raises(InputError, match=r"a text of 1 bytes becomes 0 tokens and cannot be aligned; its tokenizer must know it: 'a'"):
        align(student, teacher, "a", ended=False)


def test_places_of_byte_level_tokenizers_are_those_of_trl(trl: Any) -> None:
    for kind in ("byte-level", "bytes"):
        tokenizer: Any = small_tokenizer(kind)
        texts = ["the answer 🙂🙃 is", " 日本語の\n\n42", "é e\u0301 <3"]
        for text, (ids, offsets) in zip(texts, trl.encode_with_byte_offsets(tokenizer.backend_tokenizer, texts), strict=True):
            expected = {start: place for place, (start, _) in enumerate(offsets)} | {len(text.encode()): len(ids)}
            assert token_places(tokens_of(kind, text), text) == expected
