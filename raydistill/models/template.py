"""Chat templates: which one a model's prompts are rendered by, and where an answer ends under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from raydistill.errors import InputError, reason
from raydistill.models.text import turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "plain"]

_QUESTION, _ANSWER = "plugh", "xyzzy"


def resolve_template(tokenizer: PreTrainedTokenizerBase, template: str, field: str = "template") -> Template:
    """`auto` is chat where the tokenizer has a chat template and plain otherwise.

    Raises InputError for chat without a template, and for a template that does not put a question and its answer to the model.
    """
    if template == "plain" or (template == "auto" and not tokenizer.chat_template):
        return "plain"
    if not tokenizer.chat_template:
        raise InputError(f"{field}: 'chat', but the tokenizer has no chat template; use 'plain'")
    _check_chat_template(tokenizer, field)
    return "chat"


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase, template: Template) -> int:
    """The token that ends an answer: the first special one after it in the chat template, else the end token."""
    if template == "chat":
        after = tokenizer(_answered(tokenizer).rpartition(_ANSWER)[2], add_special_tokens=False)["input_ids"]
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        return next((token for token in after if token in special), tokenizer.eos_token_id)
    return tokenizer.eos_token_id


def check_system_prompt(tokenizer: PreTrainedTokenizerBase, template: Template, system_prompt: str, section: str) -> None:
    """Raises InputError naming the field of a config section where the template has no place for this system prompt."""
    if not system_prompt:
        return
    field = f"{section}.system_prompt"
    cure = f"drop it, or put its text into {section}.prompt_format"
    if template != "chat":
        raise InputError(f"{field}: prompts are plain text, which has no system turn; {cure}")
    try:
        rendered = str(tokenizer.apply_chat_template(turns(_QUESTION, system_prompt), add_generation_prompt=True, tokenize=False))
    except Exception as error:  # as in _check_chat_template
        raise InputError(f"{field}: the chat template takes no system turn ({reason(error)}); {cure}") from error
    if system_prompt.strip() not in rendered or _QUESTION not in rendered:
        raise InputError(f"{field}: the chat template leaves out its text; {cure}")


def _check_chat_template(tokenizer: PreTrainedTokenizerBase, field: str) -> None:
    """Each of these would train and measure a model on something else than its prompts, without an error anywhere."""
    try:
        closed, opened = (_asked(tokenizer, opened) for opened in (False, True))
        answered = _answered(tokenizer)
    except Exception as error:  # a template is a program of its author's; it may raise whatever it likes
        raise InputError(f"{field}: the chat template cannot render a single user turn ({reason(error)}); use 'plain'") from error
    for part, content, rendered in (("prompt", _QUESTION, opened), ("answer", _ANSWER, answered)):
        if content not in rendered:
            raise InputError(
                f"{field}: the chat template leaves out the text of the {part}, as one does that wants a list of parts instead of a "
                "text; mend the template or use 'plain'"
            )
    # Where the template has a generation prompt, what else it writes before an answer is its own affair: an empty thought, say.
    header = answered.removeprefix(opened).partition(_ANSWER)[0].strip()
    if opened == closed and answered.startswith(opened) and header:
        raise InputError(
            f"{field}: the chat template ignores add_generation_prompt and ends a prompt before {header!r}, which the model "
            "would have to write itself; mend the template or use 'plain'"
        )


def _asked(tokenizer: PreTrainedTokenizerBase, opened: bool) -> str:
    return str(tokenizer.apply_chat_template([{"role": "user", "content": _QUESTION}], add_generation_prompt=opened, tokenize=False))


def _answered(tokenizer: PreTrainedTokenizerBase) -> str:
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _ANSWER}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))
