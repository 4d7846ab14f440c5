"""The bytes of tokens against what the tokenizers themselves decode."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from raydistill.errors import InputError
from raydistill.models.text import encode_completion
from raydistill.students.spelling import read_spelling, shared_ids
from tests.students.small_tokenizers import EXACT, SPACED, small_tokenizer


@pytest.mark.parametrize("kind", [*EXACT, *SPACED, "character"])
def test_a_token_is_spelled_as_it_is_decoded_after_another(kind: str) -> None:
    tokenizer = small_tokenizer(kind)
    spelling, (before,) = read_spelling("m", tokenizer), encode_completion(small_tokenizer(kind), "a")[-1:]
    start = len(tokenizer.decode([before]))
    checked = 0
    for id_, spelled in enumerate(spelling.bytes_V):
        decoded = tokenizer.decode([before, id_])[start:]
        if "�" not in decoded:
            assert spelled.decode() == decoded
            checked += 1
    assert checked > 30


@pytest.mark.parametrize("kind", EXACT)
@given(text=st.text())
def test_tokens_spell_their_text(kind: str, text: str) -> None:
    tokenizer = small_tokenizer(kind)
    spelled = b"".join(read_spelling("m", tokenizer).spell(encode_completion(tokenizer, text)))
    assert spelled == text.replace("▁", " " if kind == "words" else "▁").encode()


@pytest.mark.parametrize("kind", SPACED)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="▁"), min_size=1))
def test_tokens_spell_their_text_with_a_space_before_it(kind: str, text: str) -> None:
    tokenizer = small_tokenizer(kind)
    spelled = b"".join(read_spelling("m", tokenizer).spell(encode_completion(tokenizer, text)))
    assert spelled in (text.encode(), b" " + text.encode())


def test_every_byte_has_a_token_in_a_byte_level_vocabulary() -> None:
    assert {spelled for spelled in read_spelling("m", small_tokenizer("bytes")).bytes_V if len(spelled) == 1} == {
        bytes([byte]) for byte in range(256)
    }


def test_an_id_that_no_token_has_is_spelled_by_nothing() -> None:
    core = Tokenizer(models.BPE({"a": 0, "b": 3}, []))
    core.decoder = decoders.Fuse()
    spelling = read_spelling("m", PreTrainedTokenizerFast(tokenizer_object=core))
    assert spelling.bytes_V[:4] == (b"a", b"", b"", b"b")


def test_an_added_token_is_text_as_it_is() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(small_tokenizer("bytes").backend_tokenizer.to_str()))
    tokenizer.add_tokens(["日 本"])
    ids = encode_completion(tokenizer, "a日 本b")
    assert read_spelling("m", tokenizer).spell(ids) == [b"a", "日 本".encode(), b"b"]


def _pairs(student: str, teacher: str) -> dict[bytes, tuple[int, int]]:
    spellings = [read_spelling("m", small_tokenizer(kind)) for kind in (student, teacher)]
    ends = [small_tokenizer(kind).eos_token_id for kind in (student, teacher)]
    students, teachers = shared_ids(*spellings, *ends)
    assert (students[-1], teachers[-1]) == tuple(ends)
    assert len({*students}) == len({*teachers}) == len(students) == len(teachers)
    for one, other in zip(students[:-1], teachers[:-1], strict=True):
        assert spellings[0].bytes_V[one] == spellings[1].bytes_V[other]
    return {spellings[0].bytes_V[one]: (one, other) for one, other in zip(students[:-1], teachers[:-1], strict=True)}


def test_shared_tokens_have_the_same_bytes_under_other_names() -> None:
    pairs = _pairs("byte-level", "words")
    names = [small_tokenizer(kind).convert_ids_to_tokens(id_) for kind, id_ in zip(("byte-level", "words"), pairs[b" the"], strict=True)]
    assert names == ["Ġthe", "▁the"]
    assert pairs.keys() == {*read_spelling("m", small_tokenizer("byte-level")).bytes_V} & {
        *read_spelling("m", small_tokenizer("words")).bytes_V
    } - {b"<eos>", b"<bos>", b"<unk>"}
    assert set(map(bytes, ([byte] for byte in range(256)))) <= pairs.keys()


def test_of_two_tokens_with_the_same_bytes_the_one_that_texts_use_is_shared() -> None:
    pairs = _pairs("byte-level", "words")
    for character in "the 42":
        (used,) = encode_completion(small_tokenizer("words"), character)
        assert pairs[character.encode()][1] == used


def test_a_byte_token_is_shared_where_it_alone_stands_for_its_byte() -> None:
    """It may come before or after the other token: Gemma has its line break before <0x0A> and its letters after <0x41>."""
    core = Tokenizer(models.BPE({"<end>": 0, "A": 1, "<0x41>": 2, "<0x42>": 3, "B": 4, "<0x43>": 5}, [], byte_fallback=True))
    core.decoder = decoders.ByteFallback()
    spelling = read_spelling("m", PreTrainedTokenizerFast(tokenizer_object=core))
    assert shared_ids(spelling, spelling, 0, 0) == ([1, 4, 5, 0], [1, 4, 5, 0])


def test_a_vocabulary_shares_all_but_its_special_tokens_with_itself() -> None:
    pairs = _pairs("byte-level", "byte-level")
    assert len(pairs) == 400 - 3
    assert all(one == other for one, other in pairs.values())


def _with_decoder(decoder: Any) -> Any:
    core = Tokenizer(models.BPE({"a": 0}, []))
    core.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=core)


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (ByT5Tokenizer(), r"^students\[0\]\.model: its tokenizer \(ByT5Tokenizer\) is a slow one, without byte offsets"),
        (_with_decoder(decoders.WordPiece()), r"^students\[0\]\.model: its tokenizer decodes by WordPiece, .* choose a model with"),
        (_with_decoder(decoders.Replace(Regex("a+"), "b")), r"decodes by Replace, "),
        (_with_decoder(None), r"decodes by nothing, "),
    ],
)
def test_tokenizers_that_cannot_be_aligned_are_refused_in_one_line(tokenizer: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read_spelling("students[0].model", tokenizer)
    assert "\n" not in str(refused.value)
