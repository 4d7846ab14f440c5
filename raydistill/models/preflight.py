"""What can be known of a run's models before any of them is loaded, and refused in one line.

**The rule about <bos>.** Some models write nonsense without the token that began every text of their training, and a
conversion easily drops the tokenizer's rule that adds it. A rendered prompt must begin with the tokenizer's bos token if

- tokenizer_config.json says `add_bos_token: true`; or
- the model is a Gemma of any version; or
- the bos token is made for beginning a text (<bos>, <s>, <|begin_of_text|> and the like) and tokenizer_config.json does not
  say `add_bos_token: false`. A bos token that has another job (GPT-2's <|endoftext|>, SmolLM2's <|im_start|>) is a
  placeholder, which those models never saw as a beginning. BLOOM names an <s> that it was trained without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from raydistill.errors import InputError, reason
from raydistill.models.checkpoint import Checkpoint, read_checkpoint, read_json, same_weights
from raydistill.models.load import load_tokenizer, resolve_folder
from raydistill.models.text import render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "plain"]

_BEGINNING = re.compile(
    r"[<\[|｜]*(bos|bos_token|s|begin.?of.?(text|sentence|sequence)|start.?of.?(text|sentence))[|｜>\]]*", re.IGNORECASE
)
_TRAINED_WITHOUT_BOS = ("bloom",)
_CAUSAL = re.compile(r"(CausalLM|LMHeadModel|ForConditionalGeneration)$")
_PLACEHOLDER = re.compile(r"image|audio|video", re.IGNORECASE)
_ANSWER = "xyzzy"


@dataclass(frozen=True)
class ModelRef:
    """A model as a config names it."""

    section: str
    """The config section, such as `teacher`: errors name its fields."""
    model: str
    template: str = "auto"


@dataclass(frozen=True)
class ModelFacts:
    """One model that passed."""

    section: str
    folder: Path
    model_type: str
    parameters: int
    vocab: int
    embedding_rows: int
    template: Template
    eos_ids: tuple[int, ...]
    """Every token that may end a generation, by the tokenizer, config.json and generation_config.json."""
    end_of_turn_id: int
    """The token that ends an answer under the template."""
    bos_id: int | None
    """The token that every rendered prompt begins with, if the model needs one."""
    context: int | None
    checkpoint: Checkpoint


@dataclass(frozen=True)
class Preflight:
    models: tuple[ModelFacts, ...]
    warnings: tuple[str, ...]


def preflight(teacher: ModelRef, proxy: ModelRef | None, students: Sequence[ModelRef] = (), shadows: Sequence[ModelRef] = ()) -> Preflight:
    """Check each model and the set. Raises InputError naming the first bad field and its cure."""
    first = inspect_model(teacher)
    calibration = inspect_model(proxy) if proxy else None
    others = [inspect_model(student) for student in students]
    online = [inspect_model(shadow) for shadow in shadows]
    warnings = check_set(first, calibration, others) if calibration else []
    warnings += check_shadows(first, online, others)
    return Preflight((first, *([calibration] if calibration else []), *others, *online), tuple(warnings))


def check_set(teacher: ModelFacts, proxy: ModelFacts, students: Sequence[ModelFacts]) -> list[str]:
    """Warnings about a teacher, its proxy and the students. Raises InputError if the proxy is one of the students."""
    for student in students:
        if same_weights(proxy.checkpoint, student.checkpoint):
            raise InputError(
                f"{proxy.section}.model: is the same model as {student.section}.model; a teacher calibrated on a student itself "
                "proves nothing about others: choose another proxy, smaller than any student"
            )
    warnings = [
        f"{proxy.section}.model: larger than {other.section}.model ({proxy.parameters:,} against {other.parameters:,} parameters); "
        "a proxy stands for small models and is normally smaller than any student"
        for other in (teacher, *students)
        if proxy.parameters > other.parameters
    ]
    if same_weights(proxy.checkpoint, teacher.checkpoint):
        warnings.append(f"{proxy.section}.model: is the teacher itself, so that the calibration reward starts at 0 everywhere")
    return warnings


def check_shadows(teacher: ModelFacts, shadows: Sequence[ModelFacts], students: Sequence[ModelFacts]) -> list[str]:
    """Warnings about shadow students. Unlike a proxy, one may be the student itself: it is a student, and changes as students do."""
    warnings = []
    for place, shadow in enumerate(shadows):
        field = f"{shadow.section}.model"
        warnings += [
            f"{field}: is the same model as {student.section}.model; what is shown of that student is not shown of others"
            for student in students
            if same_weights(shadow.checkpoint, student.checkpoint)
        ]
        warnings += [
            f"{field}: is the same model as {earlier.section}.model, and gives the same rewards"
            for earlier in shadows[:place]
            if same_weights(shadow.checkpoint, earlier.checkpoint)
        ]
        if same_weights(shadow.checkpoint, teacher.checkpoint):
            warnings.append(f"{field}: is the teacher itself, so that the calibration reward starts at 0 everywhere")
        elif shadow.parameters > teacher.parameters:
            warnings.append(
                f"{field}: larger than {teacher.section}.model ({shadow.parameters:,} against {teacher.parameters:,} parameters); "
                "a shadow stands for students, which are normally smaller"
            )
    return warnings


def inspect_model(ref: ModelRef) -> ModelFacts:
    """The facts of one model. Raises InputError naming the bad field of its section and the cure."""
    field = f"{ref.section}.model"
    folder = resolve_folder(field, ref.model)
    checkpoint = read_checkpoint(field, folder)
    _check_architecture(field, checkpoint)
    tokenizer = _tokenizer(field, folder)
    if tokenizer.eos_token_id is None:
        raise InputError(f"{field}: the tokenizer of {folder} has no end token; set eos_token in tokenizer_config.json")
    _check_vocabulary(field, tokenizer, checkpoint)
    template = resolve_template(tokenizer, ref.template, f"{ref.section}.template")
    return ModelFacts(
        section=ref.section,
        folder=folder,
        model_type=checkpoint.model_type,
        parameters=checkpoint.parameters,
        vocab=len(tokenizer),
        embedding_rows=checkpoint.embedding_rows,
        template=template,
        eos_ids=_eos_ids(field, tokenizer, checkpoint),
        end_of_turn_id=end_of_turn_id(tokenizer, template),
        bos_id=_bos_id(field, tokenizer, template, checkpoint),
        context=checkpoint.context,
        checkpoint=checkpoint,
    )


def resolve_template(tokenizer: PreTrainedTokenizerBase, template: str, field: str = "template") -> Template:
    """`auto` is chat where the tokenizer has a chat template and plain otherwise. Raises InputError for chat without one."""
    if template == "plain" or (template == "auto" and not tokenizer.chat_template):
        return "plain"
    if not tokenizer.chat_template:
        raise InputError(f"{field}: 'chat', but the tokenizer has no chat template; use 'plain'")
    try:
        render_prompt(tokenizer, "a", "chat")
    except Exception as error:  # a template is a program of its author's; it may raise whatever it likes
        raise InputError(f"{field}: the chat template cannot render a single user turn ({reason(error)}); use 'plain'") from error
    return "chat"


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase, template: Template) -> int:
    """The token that ends an answer: the first special one after it in the chat template, else the end token."""
    if template == "chat":
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _ANSWER}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False)
        after = tokenizer(str(rendered).rpartition(_ANSWER)[2], add_special_tokens=False)["input_ids"]
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        return next((token for token in after if token in special), tokenizer.eos_token_id)
    return tokenizer.eos_token_id


def _check_architecture(field: str, checkpoint: Checkpoint) -> None:
    """By names alone: the class itself would take seconds to import."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if checkpoint.model_type not in CONFIG_MAPPING_NAMES:
        raise InputError(
            f"{field}: {checkpoint.folder} is of a kind that transformers does not know (model_type {checkpoint.model_type!r}); "
            "choose another model: code from a repository is never run"
        )
    classes = checkpoint.config.get("architectures") or []
    if checkpoint.config.get("is_encoder_decoder") or (classes and not any(_CAUSAL.search(name) for name in classes)):
        raise InputError(
            f"{field}: {checkpoint.folder} is no causal language model but {', '.join(classes)}; choose one that generates text"
        )


def _tokenizer(field: str, folder: Path) -> PreTrainedTokenizerBase:
    try:
        return load_tokenizer(folder)
    except Exception as error:  # missing files, broken JSON, unknown classes: OSError, ValueError, KeyError, bare Exception
        raise InputError(
            f"{field}: {folder} has no usable tokenizer ({reason(error)}); copy its tokenizer.json and tokenizer_config.json"
        ) from error


def _check_vocabulary(field: str, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
    """Every token must have a row in the embedding, but for placeholders of images and sound, which text never becomes."""
    rows = checkpoint.embedding_rows
    beyond = sorted((id_, token) for token, id_ in tokenizer.get_vocab().items() if id_ >= rows and not _PLACEHOLDER.search(token))
    if beyond:
        id_, token = beyond[0]
        raise InputError(
            f"{field}: the tokenizer of {checkpoint.folder} is larger than the embedding ({len(tokenizer)} tokens, {rows} rows; "
            f"the first without a row is {token!r}, {id_}); use the tokenizer it was trained with or resize the embedding"
        )


def _eos_ids(field: str, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> tuple[int, ...]:
    generation = checkpoint.folder / "generation_config.json"
    sources = [checkpoint.config, checkpoint.text_config, read_json(field, generation) if generation.is_file() else {}]
    given = [source.get("eos_token_id") for source in sources]
    ids = [id_ for entry in given if entry is not None for id_ in (entry if isinstance(entry, list) else [entry])]
    return tuple(_unique([tokenizer.eos_token_id, *ids]))


def _unique(ids: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(ids))


def _bos_id(field: str, tokenizer: PreTrainedTokenizerBase, template: Template, checkpoint: Checkpoint) -> int | None:
    """The bos token if this model needs it. Raises InputError where the rule that adds it is lost."""
    why = _needs_bos(field, tokenizer, checkpoint)
    if not why:
        return None
    if render_prompt(tokenizer, "a", template)[:1] != [tokenizer.bos_token_id]:
        raise InputError(
            f"{field}: the tokenizer of {checkpoint.folder} has lost the rule that puts {tokenizer.bos_token} before a text "
            f"({why}); restore the post_processor of its tokenizer.json"
        )
    return tokenizer.bos_token_id


def _needs_bos(field: str, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> str:
    """Why this model's prompts must begin with bos, or an empty string. The rule is in this module's docstring."""
    path = checkpoint.folder / "tokenizer_config.json"
    stated = read_json(field, path).get("add_bos_token") if path.is_file() else None
    if stated:
        return "its tokenizer_config.json says add_bos_token"
    if checkpoint.model_type.startswith("gemma"):
        return "a Gemma writes nonsense without it"
    made_for_it = _BEGINNING.fullmatch(tokenizer.bos_token or "")
    if made_for_it and stated is None and checkpoint.model_type not in _TRAINED_WITHOUT_BOS:
        return "its bos token is made for beginning a text"
    return ""
