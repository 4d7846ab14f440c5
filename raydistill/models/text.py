"""From text to token ids, the same way for every model: a prompt under its own template, a completion by itself."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render_prompt(
    tokenizer: PreTrainedTokenizerBase, text: str, template: str, prompt_format: str = "{prompt}", system_prompt: str = ""
) -> list[int]:
    """Token ids of a prompt, up to the point where a completion begins.

    `template` is `chat` (the tokenizer's chat template, as a user turn with the generation prompt) or `plain` (the text
    itself, with whatever the tokenizer puts before a text, such as <bos>). `prompt_format` is applied to the text first.
    A `system_prompt` is a turn before it, which `check_system_prompt` finds to be possible; `plain` has no place for one.
    """
    if system_prompt and template != "chat":
        raise ValueError("a system prompt needs a chat template")
    text = prompt_format.replace("{prompt}", text)
    if template == "chat":
        rendered = tokenizer.apply_chat_template(turns(text, system_prompt), add_generation_prompt=True, tokenize=False)
        return tokenizer(rendered, add_special_tokens=False)["input_ids"]
    ids = tokenizer(text)["input_ids"]
    return ids[:-1] if ids and ids[-1] == tokenizer.eos_token_id else ids


def turns(text: str, system_prompt: str = "") -> list[dict[str, str]]:
    """The turns that a chat template is given for a prompt."""
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    return [*system, {"role": "user", "content": text}]


def encode_completion(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The tokenizer's own, canonical ids of a completion: no special token is added and none is recognised in the text."""
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def id_count(tokenizer: PreTrainedTokenizerBase) -> int:
    """How many ids, from 0, the tokenizer's vocabulary takes up; it may leave some of them out."""
    return max(tokenizer.get_vocab().values()) + 1


def vocabulary_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256, in hex, of which token each id stands for: equal where two models' ids mean the same, however their files are written."""
    pairs = sorted((id_, token) for token, id_ in tokenizer.get_vocab().items())
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
