"""Local decoding degradation: completions that go round in circles, are cut off, or are no text. All by the text, so across tokenizers."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

_WORD = re.compile(r"\w+|[^\w\s]")
_CUT = re.compile("\ufffd{1,3}\\Z")
REPEATED, DISTINCT = 4, 2
"""n of the n-grams that are counted as repeated (seq-rep-4, Welleck et al. 2020) and as distinct (distinct-2, Li et al. 2016)."""


def words(text: str) -> list[str]:
    """Runs of letters and digits, and every other sign by itself: the same for any model."""
    return _WORD.findall(text)


def repeated_share(text: str, n: int = REPEATED) -> float:
    """1 - distinct n-grams / n-grams of one completion: 0 where none repeats, and where it is shorter than n."""
    grams = _grams(text, n)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_share(texts: Sequence[str], n: int = DISTINCT) -> float | None:
    """Distinct n-grams / n-grams over all completions: falls as there are more of them, so compare equal numbers. None without any."""
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else None


def compression_ratio(texts: Sequence[str]) -> float | None:
    """UTF-8 bytes of all completions, a line each, over their bytes after zlib (level 9): higher means more alike. None without text.

    zlib looks back over 32 KiB. Compare equal numbers of completions (Shaib et al. 2024).
    """
    data = "\n".join(texts).encode()
    return len(data) / len(zlib.compress(data, 9)) if data else None


def is_invalid_utf8(text: str, truncated: bool = False) -> bool:
    """Whether decoding met bytes that are no UTF-8: it writes U+FFFD for them.

    What was cut off may end within a character, of which up to three bytes are left: decoders write one sign for these or one for each.
    """
    return "\ufffd" in (_CUT.sub("", text) if truncated else text)


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return list(zip(*(found[start:] for start in range(n)), strict=False))
