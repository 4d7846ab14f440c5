"""What a completion of an open-ended task can be asked for, so that a rule can say whether it is so. None depends on a language."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raydistill.config.base import Strict

Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Keywords = Annotated[tuple[Text, ...], Field(min_length=1)]


class _Counted(Strict):
    """At least one of the bounds is given."""

    at_least: Count | None = None
    """Fewest."""
    at_most: Count | None = None
    """Most."""

    @model_validator(mode="after")
    def _bounded(self) -> _Counted:
        if self.at_least is None and self.at_most is None:
            raise ValueError("has no bound; give at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least ({self.at_least}) is above at_most ({self.at_most}), which nothing meets; swap them")
        return self


class Words(_Counted):
    """Number of words: runs of letters, digits and underscores."""

    kind: Literal["words"]
    """Selects this check."""


class Sentences(_Counted):
    """Number of sentences: what ends in `.`, `!`, `?` or their CJK forms before a space or the end, or at the end of the text."""

    kind: Literal["sentences"]
    """Selects this check."""


class Paragraphs(_Counted):
    """Number of paragraphs, with blank lines between them."""

    kind: Literal["paragraphs"]
    """Selects this check."""


class Bullets(_Counted):
    """Number of lines that begin with `-`, `*`, `+` or `•` and a space."""

    kind: Literal["bullets"]
    """Selects this check."""


class Contains(Strict):
    """All keywords occur, in upper or lower case."""

    kind: Literal["contains"]
    """Selects this check."""
    keywords: Keywords
    """What has to occur."""


class Excludes(Strict):
    """No keyword occurs, in upper or lower case."""

    kind: Literal["excludes"]
    """Selects this check."""
    keywords: Keywords
    """What must not occur."""


class Case(Strict):
    """All letters are of one case; a text without letters is not."""

    kind: Literal["case"]
    """Selects this check."""
    case: Literal["lower", "upper"]
    """Which."""


class StartsWith(Strict):
    """The text begins so, white space before it apart."""

    kind: Literal["starts_with"]
    """Selects this check."""
    text: Text
    """How."""


class EndsWith(Strict):
    """The text ends so, white space behind it apart."""

    kind: Literal["ends_with"]
    """Selects this check."""
    text: Text
    """How."""


class Json(Strict):
    """The whole text is JSON, in a fenced code block or by itself."""

    kind: Literal["json"]
    """Selects this check."""


class Matches(Strict):
    """A regular expression is found in the text. One that takes longer than `verifier.timeout` fails the check of the completion."""

    kind: Literal["matches"]
    """Selects this check."""
    pattern: Text
    """The expression, in Python's syntax."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"is not a regular expression ({error})") from None
        return value


Check = Annotated[
    Words | Sentences | Paragraphs | Bullets | Contains | Excludes | Case | StartsWith | EndsWith | Json | Matches,
    Field(discriminator="kind"),
]
