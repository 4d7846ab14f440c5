"""The gap both ways, and without completions that one model's context does not hold in its own tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from raydistill.config.diagnose import Diagnose
from raydistill.config.load import load_job
from raydistill.diagnose import text_by_text
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnosis_plan import Pair, pair_of
from raydistill.errors import RunError
from raydistill.models.text import encode_completion
from raydistill.pair_job import _Here
from raydistill.scoring.score import SequenceScore
from raydistill.tasks.arithmetic import Arithmetic
from tests.diagnose.samples import sampled

TASK = Arithmetic()
PROMPTS = TASK.prompts("tune")[:12]
# The proxy reads pairs of characters, the teacher of the demo each alone; both have a context of 128.
JOB = load_job(Diagnose, Path("configs/diagnose.yaml"), ["teacher.model=demo:proxy", "student.model=demo:teacher", "wrong_pairs=4"])
STEP, LONG = "1+1=2;#2", "1+1=2;" * 20 + "#2"


def wrote(rows: list[list[tuple[str, bool]]]) -> Sampled:
    return replace(sampled(rows), prompts=tuple(PROMPTS[: len(rows)]))


@pytest.fixture(scope="module")
def pair() -> Pair:
    return pair_of(JOB, TASK, PROMPTS)


@pytest.fixture(scope="module")
def hands(pair: Pair) -> _Here:
    return _Here(JOB, TASK, None, 1)


def test_a_text_that_one_model_alone_reads_is_left_out_and_counted(pair: Pair, hands: _Here) -> None:
    tokens = [len(encode_completion(reader.tokenizer, LONG)) for reader in (pair.teacher_reader, pair.student_reader)]
    assert tokens[0] < 80 < 121 < tokens[1]
    rows = [[(STEP, True), (LONG, True), (LONG + "3", False)], [(STEP, True), ("1+1=3;#3", False)]] * 5
    found = text_by_text.gap(JOB, pair, hands, wrote(rows), wrote([[(STEP, True)]] * 9 + [[(LONG, True)]]))
    assert found["too_long"] == {"teacher": 10, "student": 1}
    kept = [[(text, right) for text, right in row if len(text) < 20] for row in rows]
    alone = text_by_text.gap(JOB, pair, hands, wrote(kept), wrote([[(STEP, True)]] * 9 + [[]]))
    assert alone == found | {"too_long": {"teacher": 0, "student": 0}}
    assert (found["on_teacher"]["n"], found["on_student"]["n"]) == (10, 9)
    with pytest.raises(RunError, match="does not fit"):
        hands.score(pair, [([PROMPTS[0].text], [LONG])])


def test_what_just_fits_is_scored(pair: Pair, hands: _Here) -> None:
    left = 128 - len(pair.student_reader.prompt(PROMPTS[0].text))
    for size, left_out in ((left, 0), (left + 1, 1)):
        text = ("1+1=2;" * 30)[: size - 2] + "#2"
        found = text_by_text.gap(JOB, pair, hands, wrote([[(text, True), (STEP, True)]]), wrote([[(STEP, True)]]))
        assert found["too_long"] == {"teacher": left_out, "student": 0}


def test_a_corrupted_trace_that_becomes_too_long_takes_its_right_one_along(
    pair: Pair, hands: _Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = wrote([[(STEP, True), ("3+4=7;#7", True)]] * 4)
    monkeypatch.setattr(text_by_text, "_fits", lambda pair: lambda place, text: text in (STEP, "3+4=7;#7") or text.startswith("3+4"))
    found = text_by_text.gap(JOB, pair, hands, rows, rows)
    assert (found["wrong_trace_preference"]["wrong_traces"], found["wrong_trace_preference"]["pairs"]) == ("corrupted", 4)


def test_nothing_that_fits_is_no_gap(pair: Pair, hands: _Here) -> None:
    found = text_by_text.gap(JOB, pair, hands, wrote([[(LONG, True)]]), wrote([[(STEP, True)]]))
    assert found["not measured"] == "no completion without a special token inside that fits both contexts"
    assert found["on_student"]["n"] == 1


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
    role = SimpleNamespace(facts=SimpleNamespace(context=None))
    models = SimpleNamespace(prompts=TEACHER.prompts, teacher=role, student=role, teacher_reader=None, student_reader=None)
    found = text_by_text.gap(job, models, Scores(), TEACHER, STUDENT)
    assert found["value"] == found["on_teacher"]["value"] == pytest.approx(((0.5 + 1.5) / 2 + 3.0) / 2)
    assert found["on_student"]["value"] == pytest.approx(((3.0 + 4.0) / 2 + 1.0) / 2)
    assert "not measured" in found["wrong_trace_preference"]
