"""Encoding of traces."""

from __future__ import annotations

from raydistill.models.trio import EOS, PAD, character_tokenizer
from raydistill.students.data import Reader, Trace

TOKENIZER = character_tokenizer()
PLAIN = Reader(TOKENIZER, "plain", "{prompt}", TOKENIZER.eos_token_id)


def test_an_ended_trace_carries_the_end_token_and_a_truncated_one_does_not() -> None:
    ended = PLAIN.trace(Trace("1+2+3=", "1+2=3", ended=True))
    truncated = PLAIN.trace(Trace("1+2+3=", "1+2=3", ended=False))
    assert ended.completion_ids == (*truncated.completion_ids, TOKENIZER.eos_token_id)
    assert TOKENIZER.eos_token_id not in truncated.completion_ids
    assert TOKENIZER.decode(truncated.completion_ids) == "1+2=3"
    assert ended.prompt_ids[0] == TOKENIZER.bos_token_id
    assert TOKENIZER.decode(ended.prompt_ids[1:]) == "1+2+3="


def test_the_prompt_format_is_applied_to_the_prompt_alone() -> None:
    encoded = Reader(TOKENIZER, "plain", "#{prompt};", 9).trace(Trace("1+2=", "#3", ended=False))
    assert TOKENIZER.decode(encoded.prompt_ids[1:]) == "#1+2=;"
    assert TOKENIZER.decode(encoded.completion_ids) == "#3"


def test_a_special_token_written_out_in_a_trace_stays_text() -> None:
    special = {TOKENIZER.convert_tokens_to_ids(token) for token in (PAD, EOS)}
    encoded = PLAIN.trace(Trace("1+2=", f"1{PAD}{EOS}2", ended=False))
    assert special.isdisjoint(encoded.completion_ids)
