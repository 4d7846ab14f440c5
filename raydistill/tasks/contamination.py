"""Which training questions give away questions that a model is measured on, though they are not the same to the letter.

Two questions overlap if they share 13 words in a row, as in GPT-3's check of its training data (arXiv 2005.14165, appendix C), or if all
their words are the same; words are compared without case and punctuation. Thirteen words that more than ten training questions
have are a phrase of the data set and tell nothing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

NGRAM = 13
FREQUENT = 10
_WORD = re.compile(r"\w+")


def overlaps(train: Sequence[str], measured: Sequence[str], n: int = NGRAM) -> list[tuple[int, int]]:
    """Sorted pairs of places in `train` and in `measured` whose texts overlap, by `n` words in a row.

    A text without words overlaps nothing.
    """
    holders: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(measured):
        for gram in _grams(text, n):
            holders[gram].append(place)
    found: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(train):
        for gram in _grams(text, n):
            if gram in holders:
                found[gram].append(place)
    told = (gram for gram, places in found.items() if gram.startswith("=") or len(places) <= FREQUENT)
    return sorted({(place, other) for gram in told for place in found[gram] for other in holders[gram]})


def _grams(text: str, n: int) -> set[str]:
    """A text's runs of `n` words, and all its words as one, which an equals sign marks."""
    return set(_all_grams(_WORD.findall(text.casefold()), n))


def _all_grams(words: Sequence[str], n: int) -> Iterator[str]:
    if words:
        yield "=" + " ".join(words)
    for start in range(len(words) - n + 1):
        yield " ".join(words[start : start + n])
