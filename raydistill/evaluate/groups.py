"""Questions by a name that several share, such as a level, a category or the letter of the right option."""

from __future__ import annotations

import re
from collections.abc import Sequence

from raydistill.errors import InputError

MOST_GROUPS = 100
"""More are no levels or categories, and a table of them says nothing."""
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def places_by(names: Sequence[str]) -> dict[str, list[int]]:
    """The places of each name, in natural order: Level 2 stands before Level 10. The empty name, which stands for none, comes last."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    return {name: places[name] for name in sorted(places, key=_natural)}


def require_few_groups(field: str, names: Sequence[str]) -> None:
    """Raises InputError, naming the config field that names their column, where there are more than `MOST_GROUPS`."""
    if (count := len(set(names))) > MOST_GROUPS:
        raise InputError(
            f"{field}: its column has {count:,} different values in {len(names):,} prompts, more than {MOST_GROUPS}; "
            "name one with few values, such as a level or a category"
        )


def _natural(name: str) -> tuple[bool, list[tuple[float, str]], str]:
    parts = _NUMBER.split(name)  # texts and numbers by turns
    pairs = [(float(number), text.casefold()) for number, text in zip(["0", *parts[1::2]], parts[::2], strict=True)]
    return not name, pairs, name
