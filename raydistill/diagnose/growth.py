"""Off-policy instability: whether the distance of teacher and student grows along a completion."""

from __future__ import annotations

from raydistill.diagnose.findings import Json, Rows, figure, not_measured
from raydistill.diagnose.tail_noise import NO_KL
from raydistill.evaluate.ratios import ratio_of_ratios


def growth(on_teacher: Rows, on_student: Rows) -> Json:
    """KL(teacher || student) a token in the late half of a completion over that in its early half, on either kind of prefixes.

    Halves are each completion's own: of places within all completions, the late ones would be those of the long completions alone.
    """
    return {"teacher_prefixes": _late_over_early(on_teacher), "student_prefixes": _late_over_early(on_student)}


def _late_over_early(rows: Rows) -> Json:
    tokens = [sum(one.tokens // 2 for one in row) for row in rows]
    early, late = ([sum(one.forward_by_half[half] for one in row) for row in rows] for half in (0, 1))
    if min(sum(early), sum(late)) < NO_KL * max(1, sum(tokens)):
        return not_measured("KL(teacher || student) is about 0 in a half, or no completion has two tokens")
    held = [place for place, count in enumerate(tokens) if count]
    first, second = (([half[place] for place in held], [tokens[place] for place in held]) for half in (late, early))
    return figure(ratio_of_ratios(first, second), "ratio", 1.0)
