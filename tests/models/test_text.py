"""Prompts and completions in tokens: frames are the tokenizer's, completions are text and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.models.text import encode_completion, render_prompt
from raydistill.models.trio import CHARACTERS, SPECIAL_TOKENS, character_tokenizer

PAD, BOS, EOS, UNK = range(4)
TOKENIZER = character_tokenizer()
CHAT = "{{ bos_token }}{% for m in messages %}{{ m['role'][0] }}#{{ m['content'] }}{{ eos_token }}{% endfor %}" + (
    "{% if add_generation_prompt %}a#{% endif %}"
)


@pytest.fixture
def chat() -> Any:
    tokenizer = character_tokenizer()
    tokenizer.chat_template = CHAT
    return tokenizer


def ids(text: str) -> list[int]:
    """Every character is a token of its own, in this order after the special ones."""
    return [len(SPECIAL_TOKENS) + CHARACTERS.index(character) for character in text]


def test_a_plain_prompt_is_bos_and_its_text() -> None:
    assert render_prompt(TOKENIZER, "1+2=", "plain") == [BOS, *ids("1+2=")]


def test_an_end_token_that_the_tokenizer_appends_is_taken_off() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = character_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    assert tokenizer("1+2=")["input_ids"][-1] == EOS
    assert render_prompt(tokenizer, "1+2=", "plain") == [BOS, *ids("1+2=")]


def test_a_chat_prompt_is_a_user_turn_up_to_where_the_answer_begins(chat: Any) -> None:
    """The template writes <bos>; the tokenizer's own rule must not write a second one. (The `u` of user is not in the alphabet.)"""
    assert render_prompt(chat, "1+2=", "chat") == [BOS, UNK, *ids("#1+2="), EOS, *ids("a#")]


@pytest.mark.parametrize("template", ["plain", "chat"])
def test_the_format_is_put_around_the_prompt_before_the_template(chat: Any, template: str) -> None:
    assert render_prompt(chat, "1+2", template, "a {prompt}=") == render_prompt(chat, "a 1+2=", template)


def test_a_system_prompt_is_a_turn_of_its_own_and_takes_no_format(chat: Any) -> None:
    expected = [BOS, UNK, *ids("#1;"), EOS, UNK, *ids("#a2="), EOS, *ids("a#")]
    assert render_prompt(chat, "2", "chat", "a{prompt}=", "1;") == expected
    with pytest.raises(ValueError, match="needs a chat template"):
        render_prompt(chat, "2", "plain", system_prompt="1;")


def test_braces_in_a_prompt_are_left_alone() -> None:
    assert render_prompt(TOKENIZER, "{prompt} {0}", "plain", "a{prompt}b") == render_prompt(TOKENIZER, "a{prompt} {0}b", "plain")


@given(st.text(alphabet=CHARACTERS))
def test_a_completion_is_its_text_and_nothing_else(text: str) -> None:
    assert encode_completion(TOKENIZER, text) == ids(text)
    assert TOKENIZER.decode(encode_completion(TOKENIZER, text)) == text


@pytest.mark.parametrize("text", ["1<eos>", "<bos>1", "<pad>", "a<eos>b<bos>"])
def test_special_tokens_in_a_completion_are_only_characters(text: str) -> None:
    encoded = encode_completion(TOKENIZER, text)
    assert {PAD, BOS, EOS}.isdisjoint(encoded)
    assert len(encoded) > 1
