"""The UTF-8 bytes that the tokens of a vocabulary stand for: what two tokenizers have in common."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_READABLE = {"ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"}
"""Decoders whose tokens each stand for bytes of their own, whatever their neighbours are, but for a first space that Strip takes off."""


@dataclass(frozen=True)
class Spelling:
    """What each token of a vocabulary stands for."""

    bytes_V: tuple[bytes, ...]
    """By token id. A special token is spelled by its name, and an id that no token has by nothing."""
    special_ids: frozenset[int]
    fallback_ids: frozenset[int]
    """Tokens of a single byte, such as <0x41>, which a text falls back on where no other token, such as A, stands for the same."""

    def spell(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token. Raises IndexError for an id beyond the vocabulary."""
        return [self.bytes_V[id_] for id_ in ids]


def read_spelling(field: str, tokenizer: PreTrainedTokenizerBase) -> Spelling:
    """The spelling of a tokenizer's vocabulary; `field` is the config field that names it.

    Raises InputError for a slow tokenizer, which has no offsets, and for one whose tokens do not stand for bytes of their own.
    """
    core = getattr(tokenizer, "backend_tokenizer", None)
    if core is None:
        raise InputError(
            f"{field}: its tokenizer ({type(tokenizer).__name__}) is a slow one, without byte offsets, by which texts are "
            "aligned across tokenizers; choose a model with a tokenizer.json, or one with the tokenizer of the other side"
        )
    bytes_of = _reader(field, _decoders(json.loads(core.to_str())["decoder"]))
    vocabulary = tokenizer.get_vocab()
    bytes_V = [b""] * (max(vocabulary.values()) + 1)
    for token, id_ in vocabulary.items():
        bytes_V[id_] = bytes_of(token)
    special = (id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special)
    fallback = (id_ for token, id_ in vocabulary.items() if _BYTE_TOKEN.fullmatch(token))
    return Spelling(tuple(bytes_V), frozenset(special), frozenset(fallback))


def shared_ids(student: Spelling, teacher: Spelling, student_end: int, teacher_end: int) -> tuple[list[int], list[int]]:
    """Ids of the tokens that stand for the same bytes in both vocabularies, pair by pair, and of the two end tokens.

    Special tokens stand for no text and are not shared, whatever their names.
    """
    students, teachers = _ids_by_bytes(student, student_end), _ids_by_bytes(teacher, teacher_end)
    common = sorted(students.keys() & teachers.keys())
    return [*(students[spelled] for spelled in common), student_end], [*(teachers[spelled] for spelled in common), teacher_end]


def _ids_by_bytes(spelling: Spelling, end_id: int) -> dict[bytes, int]:
    """Of two tokens with the same bytes, the one that texts do not just fall back on."""
    left_out = {*spelling.special_ids, end_id}
    ids = sorted(range(len(spelling.bytes_V)), key=lambda id_: id_ not in spelling.fallback_ids)
    return {spelling.bytes_V[id_]: id_ for id_ in ids if spelling.bytes_V[id_] and id_ not in left_out}


def _decoders(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a decoder as tokenizer.json describes it."""
    if decoder is None:
        return []
    return [step for part in decoder["decoders"] for step in _decoders(part)] if decoder["type"] == "Sequence" else [decoder]


def _reader(field: str, decoders: list[dict[str, Any]]) -> Callable[[str], bytes]:
    """From a token, as the vocabulary writes it, to its bytes."""
    kinds = {step["type"] for step in decoders}
    replaced = [(step["replacement"], " ") for step in decoders if step["type"] == "Metaspace"]
    replaced += [(step["pattern"].get("String"), step["content"]) for step in decoders if step["type"] == "Replace"]
    if not kinds or not kinds <= _READABLE or any(pattern is None for pattern, _ in replaced):
        raise InputError(
            f"{field}: its tokenizer decodes by {', '.join(sorted(kinds)) or 'nothing'}, from which the bytes of a single token are not "
            "known; choose a model with a byte-level or SentencePiece tokenizer, or one with the tokenizer of the other side"
        )
    if "ByteLevel" in kinds:
        return _of_byte_level

    def bytes_of(token: str) -> bytes:
        if "ByteFallback" in kinds and (byte := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        for written, meant in replaced:
            token = token.replace(written, meant)
        return token.encode()

    return bytes_of


def _byte_level_alphabet() -> dict[str, int]:
    """The character by which byte-level BPE writes each byte (Radford et al. 2019): itself where it can be seen in Latin-1."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_ALPHABET = _byte_level_alphabet()


def _of_byte_level(token: str) -> bytes:
    """Added tokens are text as it is, and may hold characters that the alphabet lacks."""
    return bytes(_ALPHABET[character] for character in token) if _ALPHABET.keys() >= set(token) else token.encode()
