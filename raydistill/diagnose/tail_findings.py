"""The parts of diagnosis.json on what lies beyond k: which tokens it is, and what a loss over the top k sees."""

from __future__ import annotations

from collections.abc import Sequence

from raydistill.diagnose.comparer import Tail, TraceDivergence
from raydistill.diagnose.findings import KL_BOUNDS, Json, Rows, figure
from raydistill.diagnose.frequency import CLASSES, Frequencies
from raydistill.diagnose.tail_noise import NO_KL
from raydistill.evaluate.ratios import ratio_estimate

_DIRECTIONS = ("forward", "reverse")
"""KL(teacher || student) and KL(student || teacher), as `TraceDivergence` has them."""


def beyond(rows: Rows, ks: Sequence[int], tail: Tail, frequencies: Frequencies, texts: Sequence[Sequence[Sequence[str]]]) -> Json:
    """`by_frequency` and `heaviest` of KL(teacher || student), under `reverse` the same of KL(student || teacher), and `losses`, for each k
    of the tail; the first two are empty where the KL is about 0.

    `rows` were compared with that tail, at `ks`; `texts` are those of the tokens in `tail.heaviest`.
    """
    forward, reverse = (_direction(rows, way, tail, frequencies, texts[way]) for way in range(len(_DIRECTIONS)))
    return forward | {"reverse": reverse, "losses": _losses(rows, ks, tail.ks)}


def _direction(rows: Rows, way: int, tail: Tail, frequencies: Frequencies, texts: Sequence[Sequence[str]]) -> Json:
    flat = [one for row in rows for one in row]
    if sum(_whole(one, way) for one in flat) < NO_KL * max(1, sum(one.tokens for one in flat)):
        return {"by_frequency": {}, "heaviest": {}}
    return {
        "by_frequency": _by_frequency(rows, way, tail.ks, frequencies),
        "heaviest": _heaviest(flat, way, tail, frequencies, texts),
    }


def _whole(one: TraceDivergence, way: int) -> float:
    return getattr(one, _DIRECTIONS[way])[-1]


def _by_frequency(rows: Rows, way: int, tail_ks: Sequence[int], frequencies: Frequencies) -> Json:
    """Shares of the whole KL, which over the classes sum to the share beyond k."""
    whole = [sum(_whole(one, way) for one in row) for row in rows]
    sizes = frequencies.sizes()
    found: Json = {}
    for place, k in enumerate(tail_ks):
        found[str(k)] = {}
        for at, name in enumerate(CLASSES):
            parts = [sum(one.beyond_by_class[way][place][at] for one in row) for row in rows]
            tokens, written = sizes[name]
            share = figure(ratio_estimate(parts, whole), "share of the KL", 0.0, (0, 1))
            found[str(k)][name] = share | {"value": max(0.0, share["value"]), "tokens": tokens, "written": written}
    return found


def _heaviest(flat: Sequence[TraceDivergence], way: int, tail: Tail, frequencies: Frequencies, texts: Sequence[Sequence[str]]) -> Json:
    """The tokens that contribute most beyond k, with their share of what lies there and how often the teacher wrote them."""
    found: Json = {}
    for place, (k, row, names) in enumerate(zip(tail.ks, tail.heaviest[way], texts, strict=True)):
        whole = sum(sum(one.beyond_by_class[way][place]) for one in flat)
        found[str(k)] = [
            {
                "token": text,
                "id": token,
                "share": nats / whole,
                "written": int(frequencies.count_V[token]),
                "class": frequencies.name(token),
            }
            for (token, nats), text in zip(row, names, strict=True)
            if nats > 0 < whole
        ]
    return found


def _losses(rows: Rows, ks: Sequence[int], tail_ks: Sequence[int]) -> list[Json]:
    """What is seen of KL(teacher || student), in nats a token, by a loss over the teacher's top k and by that over the vocabulary."""
    tokens = [sum(one.tokens for one in row) for row in rows]

    def per_token(values: Sequence[float]) -> Json:
        return figure(ratio_estimate(values, tokens), "nats a token", 0.0, KL_BOUNDS)

    return [
        {
            "k": k,
            "renormalised": per_token([sum(one.renormalised[place] for one in row) for row in rows]),
            "tail_bucket": per_token([sum(one.forward[ks.index(k)] for one in row) for row in rows]),
            "whole": per_token([sum(one.forward[-1] for one in row) for row in rows]),
        }
        for place, k in enumerate(tail_ks)
    ]
