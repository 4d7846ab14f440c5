"""What an offline teacher's folder says of itself, and what is refused by it; `offline` has the layout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from raydistill.errors import InputError, reason
from raydistill.models.text import vocabulary_digest

if TYPE_CHECKING:
    from raydistill.students.data import Reader

KIND, VERSION = "offline teacher", 1
CARD_FILE, TRACES_FILE = "teacher.json", "traces.jsonl"
AGAIN = "score the traces again"


class Scoring(BaseModel):
    """Whose scores they are, and how they are made."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    teacher: str
    """Its folder or hub name, for messages."""
    weights: str
    """`weights_digest` of the teacher."""
    tokens: str
    """`vocabulary_digest` of its tokenizer."""
    template: str
    prompt_format: str
    system_prompt: str = ""
    """Absent from cards of before there were any."""
    end_id: int
    """The token that ends an answer."""
    vocabulary: PositiveInt
    """Ids that the K tokens are chosen from; all of them are lower."""
    k: PositiveInt
    temperature: PositiveFloat
    """Of the K tokens' probabilities."""


class TeacherCard(Scoring):
    """What teacher.json holds."""

    kind: str = KIND
    version: int = VERSION
    traces: PositiveInt
    trace_tokens: PositiveInt
    shards: PositiveInt
    bytes_per_token: float
    """Size of the shards over the number of tokens."""


@dataclass(frozen=True)
class Place:
    """A line of traces.jsonl: a trace and where its tokens are."""

    prompt: str
    completion: str
    ended: bool
    shard: NonNegativeInt
    start: NonNegativeInt
    """Among the shard's tokens."""
    tokens: NonNegativeInt


def shard_name(shard: int) -> str:
    return f"traces-{shard:05d}.safetensors"


def check_scoring(file: Path, scoring: Scoring) -> None:
    """Raises InputError where there are fewer tokens than `k`."""
    if scoring.k > scoring.vocabulary:
        raise InputError(f"{file}: k is {scoring.k}, but the vocabulary has {scoring.vocabulary} tokens; {AGAIN} with a lower k")


def read_card(folder: Path) -> TeacherCard:
    file = folder / CARD_FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); give the folder of an offline teacher") from None
    except ValueError as error:
        raise InputError(f"{file}: is not readable JSON ({reason(error)}); copy the folder again, or {AGAIN}") from None
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise InputError(f"{file}: is not of an {KIND} (kind); give the folder of one")
    if found.get("version") != VERSION:
        raise InputError(f"{file}: version is {found.get('version')!r}, and this raydistill reads {VERSION}; {AGAIN} with it")
    try:
        card = TeacherCard.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"{file}: {name} is not as it was written ({first['msg']}); copy the folder again, or {AGAIN}") from None
    check_scoring(file, card)
    return card


def check_weights(folder: Path, card: TeacherCard, weights: str | None) -> None:
    if weights is not None and weights != card.weights:
        raise InputError(
            f"{folder / CARD_FILE}: weights are those of another teacher, {card.teacher} ({card.weights[:12]}, not {weights[:12]}); "
            f"{AGAIN} with the run's teacher, or name that one"
        )


def check_temperature(folder: Path, card: TeacherCard, temperature: float | None) -> None:
    if temperature is not None and temperature != card.temperature:
        raise InputError(
            f"{folder / CARD_FILE}: temperature is {card.temperature:g}, but the method's is {temperature:g}; "
            f"set the method's to that, or {AGAIN} at {temperature:g}"
        )


def check_tokens(folder: Path, card: TeacherCard, reader: Reader) -> None:
    """As `require_comparable` does where the teacher itself is there."""
    file = folder / CARD_FILE
    name = reader.tokenizer.name_or_path
    if vocabulary_digest(reader.tokenizer) != card.tokens:
        raise InputError(
            f"{file}: tokens are those of {card.teacher}, and {name} has another vocabulary; "
            "choose a model of the teacher's family, or a method that compares texts across tokenizers"
        )
    if reader.end_id != card.end_id:
        raise InputError(
            f"{file}: end_id is {reader.tokenizer.convert_ids_to_tokens(card.end_id)!r}, but {name} ends an answer with "
            f"{reader.tokenizer.convert_ids_to_tokens(reader.end_id)!r}; choose a model with the teacher's chat template"
        )


def read_places(folder: Path, card: TeacherCard) -> list[Place]:
    """The traces, each of which follows the one before, in its shard or as the first of the next.

    Raises InputError where traces.jsonl does not hold what teacher.json says."""
    file = folder / TRACES_FILE
    places: list[Place] = []
    adapter = TypeAdapter(Place)
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                places.append(adapter.validate_json(line, strict=True))  # noqa: PERF401 - its length tells the line that fails
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); copy the folder again, or {AGAIN}") from None
    except ValueError as error:
        raise InputError(f"{file}: line {len(places) + 1} is no trace ({reason(error)}); copy the folder again, or {AGAIN}") from None
    tokens = sum(place.tokens for place in places)
    if (len(places), tokens) != (card.traces, card.trace_tokens):
        raise InputError(
            f"{file}: holds {len(places)} traces of {tokens} tokens, and {CARD_FILE} counts {card.traces} of {card.trace_tokens}; "
            f"copy the folder again, or {AGAIN}"
        )
    filled = [0] * card.shards
    for number, place in enumerate(places, start=1):
        if place.shard >= card.shards or place.start != filled[place.shard]:
            raise InputError(f"{file}: line {number} does not begin where the one before ends; copy the folder again, or {AGAIN}")
        filled[place.shard] += place.tokens
    return places
