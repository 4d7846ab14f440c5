"""What is told of a comparison that has no finite figure."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from raydistill.diagnose import findings
from raydistill.diagnose.comparer import BINS, Tail, TraceDivergence
from raydistill.diagnose.token_by_token import TokenByToken
from tests.diagnose.samples import sampled

INF, NAN = float("inf"), float("nan")
TEXTS = sampled([[("#1", True)], [("#2", True)]])


def trace(forward: float, reverse: float = 1.0) -> TraceDivergence:
    by_class = tuple((((kl / 3,) * 3),) for kl in (forward, reverse))
    kls = [(0.0,) * 6 + (kl,) for kl in (forward, reverse)]
    bins = (forward, *[0.0] * (BINS - 1)), (2, *[0] * (BINS - 1))
    return TraceDivergence(2, *kls, *bins, (forward / 2,), by_class, (forward / 2, forward / 2))


def told(on_teacher: list[TraceDivergence], on_student: list[TraceDivergence]):
    """With an `ask` that has these answers."""
    reader = SimpleNamespace(prompt=lambda text: (1,), tokenizer=None)
    pair = SimpleNamespace(shared_ids=60, teacher_reader=reader, student_reader=reader)
    models = TokenByToken(SimpleNamespace(max_new_tokens=32), pair, lambda asked: [(on_teacher, Tail((10,), (((),), ((),)))), on_student])
    noise, instability = models.divergences(TEXTS, TEXTS)
    json.dumps([noise, instability], allow_nan=False)
    return noise, instability


def test_what_is_finite_is_told_with_its_growth() -> None:
    noise, instability = told([trace(1.0), trace(2.0)], [trace(2.0), trace(4.0)])
    assert noise["curve"]["forward"][-1]["value"] == pytest.approx(3 / 4)
    assert instability["value"] == pytest.approx(2)
    assert instability["growth"]["student_prefixes"]["value"] == pytest.approx(1)


@pytest.mark.parametrize("kl", [INF, NAN])
def test_a_student_that_gives_a_token_of_the_teacher_s_texts_0_has_neither_figure(kl: float) -> None:
    noise, instability = told([trace(1.0), trace(kl)], [trace(2.0), trace(4.0)])
    assert noise == instability
    assert "KL(teacher || student) is not finite in 1 of 2 completions: the student gives" in noise["not measured"]


def test_what_one_direction_or_one_kind_of_text_has_not_is_not_measured_there_alone() -> None:
    noise, instability = told([trace(1.0, INF), trace(2.0)], [trace(2.0), trace(4.0)])
    assert "KL(student || teacher) is not finite" in noise["not measured"]
    assert instability["value"] == pytest.approx(2)
    noise, instability = told([trace(1.0), trace(2.0)], [trace(INF), trace(4.0)])
    assert noise["value"] is not None
    assert "not finite" in instability["not measured"]


def test_gradients_and_gaps_that_are_not_finite_are_not_measured() -> None:
    assert findings.gradient_noise([1.0, 2.0, 3.0], [1.0, NAN, 2.0]) == {"not measured": "a gradient is not finite"}
    assert "probability 0" in findings.score_gap([[-1.0], [-1.0]], [[-INF], [-2.0]])["not measured"]
