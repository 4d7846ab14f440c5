"""Population-based training: which settings of the learner each trial of a sweep goes on with after a look at all of their students.

Jaderberg et al. 2017 (arXiv 1711.09846), with truncation selection: the worst go on from the teachers of the best, with settings near
theirs. A generation is looked at as a whole, and each is a run of trials on Tune. Tune's own scheduler is not used: in its synchronous
form a trial that ends early leaves the others waiting for ever, and what its asynchronous form decides depends on which trial is faster,
so that a sweep that was killed could not go on as it would have gone on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from itertools import pairwise

from raydistill.config.calibration import Change
from raydistill.config.run import Run
from raydistill.config.sweep import PBT

Settings = Mapping[str, float]
"""Field of the learner and value."""
Lineage = tuple[Settings, ...]
"""The settings of each generation that led to a teacher, those it goes on with last."""


def next_generation(
    lineages: Mapping[str, Lineage], scores: Mapping[str, float | None], values: Mapping[str, Sequence[float]], pbt: PBT, seed: int
) -> dict[str, Lineage]:
    """What each trial goes on from and with, by its id; the same for the same seed.

    `scores` are those of the students, None where a trial failed, which is replaced too; one at least must be known. `values` are those
    that a field may take.
    """
    known = {id_: score for id_, score in scores.items() if score is not None}
    ranked = sorted(known, key=lambda id_: known[id_], reverse=pbt.keep == "high")
    count = min(math.ceil(len(lineages) * pbt.replace), len(ranked) // 2)
    best, worst = ranked[: max(count, 1)], {*ranked[len(ranked) - count :], *(lineages.keys() - known.keys())}
    found = {}
    for id_, lineage in lineages.items():
        chance = random.Random(f"{seed}:{len(lineage)}:{id_}")
        if id_ in worst:
            lineage = lineages[chance.choice(best)]
            found[id_] = (*lineage, {field: _explored(value, values[field], pbt, chance) for field, value in lineage[-1].items()})
        else:
            found[id_] = (*lineage, lineage[-1])
    return found


def _explored(value: float, values: Sequence[float], pbt: PBT, chance: random.Random) -> float:
    """A value of the list beside the present one, or any of them."""
    ordered = sorted(set(values))
    if chance.random() < pbt.resample or len(ordered) == 1:
        return chance.choice(ordered)
    place = ordered.index(value)
    return chance.choice([ordered[near] for near in (place - 1, place + 1) if 0 <= near < len(ordered)])


def with_lineage(run: Run, lineage: Lineage, every: int) -> Run:
    """The run whose learner has these settings, each for `every` steps and the last from then on."""
    changes = tuple(
        Change.model_validate({"after": every * generation} | _short(settings))
        for generation, (before, settings) in enumerate(pairwise(lineage), start=1)
        if settings != before
    )
    return run.model_copy(update={"learner": run.learner.model_copy(update={**_short(lineage[0]), "schedule": changes})})


def _short(settings: Settings) -> dict[str, float]:
    return {field.removeprefix("learner."): value for field, value in settings.items()}
