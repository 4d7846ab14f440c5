"""Tokens as one can read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """What a token stands for; its name in the vocabulary where it is no text by itself, such as half a character. Escaped."""
    text = str(tokenizer.decode([token]))
    if not text or "\ufffd" in text:
        text = str(tokenizer.convert_ids_to_tokens(token) or f"<{token}>")
    return escaped(text)


def escaped(text: str) -> str:
    """`text` with what cannot be printed, such as a line's end, as Python writes it."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
