"""The gap both ways, from scores that are set by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raydistill.diagnose.text_by_text import gap
from raydistill.scoring.score import SequenceScore
from tests.diagnose.samples import sampled

TEACHER = sampled([[("abcd", True), ("efgh", False)], [("ijkl", True)]])
STUDENT = sampled([[("mnop", True), ("qrst", False)], [("uvwx", True)]])
PER_BYTE = {
    "teacher": {"abcd": -1.0, "efgh": -2.0, "ijkl": -0.5, "mnop": -4.0, "qrst": -6.0, "uvwx": -2.0},
    "student": {"abcd": -1.5, "efgh": -3.5, "ijkl": -3.5, "mnop": -1.0, "qrst": -2.0, "uvwx": -1.0},
}


class Scores:
    """What either model would give, the teacher's first."""

    def score(self, pair, asked):
        return [
            [SequenceScore(4 * PER_BYTE[model][text], 4, 4, 0.0) for text in texts]
            for model in ("teacher", "student")
            for _, texts in asked
        ]


def test_either_s_texts_cost_the_other_so_much_more() -> None:
    job = SimpleNamespace(task=SimpleNamespace(kind="arithmetic"), wrong_pairs=200, seed=1)
    found = gap(job, SimpleNamespace(prompts=TEACHER.prompts), Scores(), TEACHER, STUDENT)
    assert found["value"] == found["on_teacher"]["value"] == pytest.approx(((0.5 + 1.5) / 2 + 3.0) / 2)
    assert found["on_student"]["value"] == pytest.approx(((3.0 + 4.0) / 2 + 1.0) / 2)
    assert "not measured" in found["wrong_trace_preference"]
