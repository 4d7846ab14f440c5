"""What can be known of a reward model before it is loaded, and how a prompt and its answer are put to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.config.task import TaskConfig, reward_config
from raydistill.errors import InputError, reason
from raydistill.models.checkpoint import Checkpoint, read_checkpoint
from raydistill.models.load import load_tokenizer, resolve_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECTION = "task.reward.model"
_KIND = "ForSequenceClassification"
_PROMPT, _COMPLETION = "plugh", "xyzzy"


def reward_checkpoint(task: TaskConfig) -> Checkpoint | None:
    """The reward model that grades a task's completions, if one does, checked. Raises InputError as `inspect_reward_model` does."""
    reward = reward_config(task)
    return inspect_reward_model(reward.model) if reward else None


def inspect_reward_model(model: str) -> Checkpoint:
    """What is known of a reward model before it is loaded.

    Raises InputError for one that is missing or broken, is no sequence classifier with one label, or whose tokenizer cannot put
    a prompt and its answer to it.
    """
    from transformers import AutoConfig

    folder = resolve_folder(SECTION, model)
    checkpoint = read_checkpoint(SECTION, folder)
    classes = checkpoint.config.get("architectures") or []
    if not any(name.endswith(_KIND) for name in classes):
        raise InputError(
            f"{SECTION}: {folder} is no sequence classifier but {', '.join(classes) or 'does not say what it is'}; "
            "choose a reward model such as Skywork-Reward-V2, whose architecture ends in " + _KIND
        )
    try:
        labels = AutoConfig.from_pretrained(folder, trust_remote_code=False).num_labels
    except Exception as error:  # each model's class checks its fields in its own way; one that is unknown wants code from the repository
        raise InputError(f"{SECTION}: config.json of {folder} cannot be used ({reason(error)}); choose another model") from error
    if labels != 1:
        raise InputError(f"{SECTION}: {folder} has {labels} labels; a reward model has 1, the score of an answer")
    _check_template(folder)
    return checkpoint


def _check_template(folder: Path) -> None:
    try:
        tokenizer = load_tokenizer(folder)
        text = rendered(tokenizer, _PROMPT, _COMPLETION)
    except Exception as error:  # missing files, no template, a template that raises
        raise InputError(
            f"{SECTION}: the tokenizer of {folder} cannot render a question and its answer ({reason(error)}); "
            "a reward model needs a chat template"
        ) from error
    if _COMPLETION not in text.partition(_PROMPT)[2]:
        raise InputError(f"{SECTION}: the chat template of {folder} leaves out the text of the prompt or of the answer; mend it")


def rendered(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> str:
    """Both as turns of the chat template."""
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def around(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str, str]:
    """What the template writes before a prompt, between it and its answer, and after that."""
    before, _, rest = rendered(tokenizer, _PROMPT, _COMPLETION).partition(_PROMPT)
    between, _, after = rest.partition(_COMPLETION)
    return before, between, after
