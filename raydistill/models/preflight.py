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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.errors import InputError, reason
from raydistill.models.checkpoint import Checkpoint, read_checkpoint, read_json, same_weights
from raydistill.models.load import load_tokenizer, resolve_folder
from raydistill.models.stops import stop_ids
from raydistill.models.template import Template, check_system_prompt, end_of_turn_id, resolve_template
from raydistill.models.text import render_prompt
from raydistill.models.vocabulary import check_embedding, check_special_tokens, check_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BEGINNING = re.compile(
    r"[<\[|｜]*(bos|bos_token|s|begin.?of.?(text|sentence|sequence)|start.?of.?(text|sentence))[|｜>\]]*", re.IGNORECASE
)
_TRAINED_WITHOUT_BOS = ("bloom",)
_CAUSAL = re.compile(r"(CausalLM|LMHeadModel|ForConditionalGeneration)$")


_STOP_CURE = "add {0.end_of_turn_id} to eos_token_id in its generation_config.json, or use the template 'plain'"


@dataclass(frozen=True)
class ModelRef:
    """A model as a config names it."""

    section: str
    """The config section, such as `teacher`: errors name its fields."""
    model: str
    template: str = "auto"
    system_prompt: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """One model that passed."""

    section: str
    folder: Path
    model_type: str
    parameters: int
    vocabulary: Mapping[str, int] = field(repr=False)
    """From tokens to ids."""
    vocab: int
    embedding_rows: int
    template: Template
    eos_ids: tuple[int, ...]
    """Every token that ends a generation, see `stop_ids`."""
    end_of_turn_id: int
    """The token that ends an answer under the template."""
    bos_id: int | None
    """The token that every rendered prompt begins with, if the model needs one."""
    context: int | None
    checkpoint: Checkpoint
    warnings: tuple[str, ...]
    """About this model alone."""

    def token(self, id_: int) -> str:
        """As the vocabulary writes it; an id without a token as a number."""
        return next((token for token, known in self.vocabulary.items() if known == id_), str(id_))


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
    models = (first, *([calibration] if calibration else []), *others, *online)
    warnings = [warning for facts in models for warning in facts.warnings] + check_ends(first, [*others, *online])
    warnings += check_set(first, calibration, others) if calibration else []
    warnings += check_shadows(first, online, others)
    return Preflight(models, tuple(warnings))


def check_ends(teacher: ModelFacts, students: Sequence[ModelFacts]) -> list[str]:
    """Warnings about students that go on behind the end of their turn. Raises InputError for a teacher that does."""
    if problem := _goes_on(teacher):
        raise InputError(f"{problem}, so that its completions would run on until they are cut off; {_STOP_CURE.format(teacher)}")
    return [
        f"{problem}; it is taught to end an answer with {student.token(student.eos_ids[0])} instead, which costs it training: "
        f"{_STOP_CURE.format(student)}"
        for student in students
        if (problem := _goes_on(student))
    ]


def _goes_on(facts: ModelFacts) -> str:
    """What is wrong with a model whose generation does not stop where its template ends a turn, or an empty string."""
    if facts.end_of_turn_id in facts.eos_ids:
        return ""
    stops = ", ".join(map(facts.token, facts.eos_ids))
    return f"{facts.section}.model: its chat template ends a turn with {facts.token(facts.end_of_turn_id)}, but it stops at {stops} alone"


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
    check_vocabulary(field, tokenizer, checkpoint)
    check_special_tokens(field, tokenizer, checkpoint)
    check_embedding(field, checkpoint)
    template = resolve_template(tokenizer, ref.template, f"{ref.section}.template")
    check_system_prompt(tokenizer, template, ref.system_prompt, ref.section)
    eos_ids = _eos_ids(field, tokenizer, folder)
    return ModelFacts(
        section=ref.section,
        folder=folder,
        model_type=checkpoint.model_type,
        parameters=checkpoint.parameters,
        vocabulary=tokenizer.get_vocab(),
        vocab=len(tokenizer),
        embedding_rows=checkpoint.embedding_rows,
        template=template,
        eos_ids=eos_ids,
        end_of_turn_id=end_of_turn_id(tokenizer, template),
        bos_id=_bos_id(field, tokenizer, template, checkpoint),
        context=checkpoint.context,
        checkpoint=checkpoint,
        warnings=tuple(_ordinary_stops(field, tokenizer, eos_ids)),
    )


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


def _eos_ids(field: str, tokenizer: PreTrainedTokenizerBase, folder: Path) -> tuple[int, ...]:
    generation = folder / "generation_config.json"
    if generation.is_file():
        read_json(field, generation)  # transformers passes over one that it cannot read
    try:
        return stop_ids(folder, tokenizer.eos_token_id)
    except Exception as error:  # each model's class checks its fields in its own way
        raise InputError(
            f"{field}: config.json or generation_config.json of {folder} cannot be used ({reason(error)}); copy the model again"
        ) from error


def _ordinary_stops(field: str, tokenizer: PreTrainedTokenizerBase, eos_ids: Sequence[int]) -> list[str]:
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return [
        f"{field}: it stops at {token!r} ({id_}), an ordinary token of its tokenizer, which cuts off every text that has it; "
        "set eos_token_id in its config.json and generation_config.json to its end token, unless that is meant"
        for id_, token in zip(eos_ids, tokenizer.convert_ids_to_tokens(list(eos_ids)), strict=True)
        if token is not None and id_ not in special
    ]


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
