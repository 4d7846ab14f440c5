"""How models read a task: with what would pass for a collapse later refused, or warned of, before anything starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from raydistill.errors import InputError
from raydistill.models.text import encode_completion
from raydistill.students.data import Reader

LOOKED_AT = 32
"""Texts, the longest ones, by which it is told how models read a task."""


def require_readable(field: str, reader: Reader, prompts: Sequence[str]) -> None:
    """Raises InputError where two of the prompts become the same tokens, or one begins with <bos> twice. `field` is a config section.

    What is dropped or unknown is so throughout a task: the longest prompts are enough to tell.
    """
    seen: dict[tuple[int, ...], str] = {}
    for text in sorted(dict.fromkeys(prompts), key=len)[-LOOKED_AT:]:
        ids = reader.prompt(text)
        bos = reader.tokenizer.bos_token_id
        if bos is not None and ids[:2] == (bos, bos):
            raise InputError(
                f"{field}.prompt_format: a prompt begins with {reader.tokenizer.bos_token} twice, as the tokenizer puts it there itself; "
                "take it out of prompt_format or the chat template"
            )
        if ids in seen:
            raise InputError(
                f"{field}.model: its tokenizer makes the same tokens of different prompts, {seen[ids][:60]!r} and {text[:60]!r}; "
                "choose a model whose tokenizer knows the characters of the task"
            )
        seen[ids] = text


def unknown_characters(field: str, reader: Reader, texts: Sequence[str]) -> list[str]:
    """A warning if the tokenizer writes its unknown token for parts of the task's texts."""
    unknown = reader.tokenizer.unk_token_id
    spoilt = [text for text in texts if unknown is not None and unknown in encode_completion(reader.tokenizer, text)]
    if not spoilt:
        return []
    return [
        f"{field}.model: its tokenizer does not know all characters of {len(spoilt)} of {len(texts)} texts of the task, such as "
        f"{spoilt[0][:60]!r}, and reads {reader.tokenizer.unk_token} there; choose a model whose tokenizer does"
    ]


def longer_completions(
    readers: Mapping[str, Reader],
    contexts: Mapping[str, int | None],
    longest: Mapping[str, int],
    golds: Sequence[str],
    new: int,
    limit: str,
) -> list[str]:
    """A warning for each model whose context the teacher's longest completions would not fit, in that model's own tokens.

    The teacher is first among `readers`, by config section; `new` is the most tokens that it samples, as the config field
    `limit` says; `longest` are tokens of the longest prompt. How many tokens a model makes of one of the teacher's is measured on
    gold completions.
    """
    (_, teacher), *others = readers.items()
    written = sum(len(encode_completion(teacher.tokenizer, gold)) for gold in golds)
    warnings = []
    for field, reader in others:
        rate = sum(len(encode_completion(reader.tokenizer, gold)) for gold in golds) / max(1, written)
        most, context, prompt = math.ceil(rate * new), contexts[field], longest[field]
        if context is not None and most > new and prompt + most > context:
            warnings.append(
                f"{field}.model: writes {rate:.1f} tokens for one of the teacher's, so that completions of {new} become some {most} "
                f"and, with a prompt of {prompt}, do not fit its context ({context}); lower {limit}"
            )
    return warnings
