"""How often tokens are written: by the teacher, in the completions that it was sampled for a diagnosis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CLASSES = ("never", "rare", "common")
"""Not once; of what is written, the last tenth; and the tokens that make up the first nine tenths."""
COMMON = 0.9
"""Share of all written tokens that the common ones make up together."""


@dataclass(frozen=True)
class Frequencies:
    """Of each of V tokens."""

    count_V: np.ndarray
    """How often it was written."""
    class_V: np.ndarray
    """Its place in CLASSES, int8."""

    def name(self, token: int) -> str:
        return CLASSES[self.class_V[token]]

    def sizes(self) -> dict[str, tuple[int, float]]:
        """For each class how many tokens it has, and their share of all that was written."""
        written = max(1, int(self.count_V.sum()))
        held = {name: self.class_V == place for place, name in enumerate(CLASSES)}
        return {name: (int(is_V.sum()), int(self.count_V[is_V].sum()) / written) for name, is_V in held.items()}


def frequencies(completions: Iterable[Sequence[int]], vocabulary: int) -> Frequencies:
    """From the token ids of completions; ids from `vocabulary` on are left out.

    Common are the fewest tokens, the most written first, that together are COMMON of what was written; of equally often written ones, those
    with the smaller ids.
    """
    count_V = np.zeros(vocabulary, dtype=np.int64)
    for ids in completions:
        count_V += np.bincount([token for token in ids if token < vocabulary], minlength=vocabulary)
    order_V = np.argsort(-count_V, kind="stable")
    before_V = np.cumsum(count_V[order_V]) - count_V[order_V]
    class_V = np.zeros(vocabulary, dtype=np.int8)
    class_V[order_V] = np.where(before_V < COMMON * count_V.sum(), CLASSES.index("common"), CLASSES.index("rare"))
    class_V[count_V == 0] = CLASSES.index("never")
    return Frequencies(count_V, class_V)
