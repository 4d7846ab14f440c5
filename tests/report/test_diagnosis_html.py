"""The page of a diagnosis, also where much of it was not measured."""

from xml.etree import ElementTree

import pytest

from raydistill.diagnose import findings, tail_findings
from raydistill.diagnose.before_after import Student, differences
from raydistill.diagnose.calibration_error import Answer
from raydistill.diagnose.comparer import BINS, Tail, TraceDivergence
from raydistill.diagnose.frequency import frequencies
from raydistill.diagnose.growth import growth
from raydistill.diagnose.preference import Rivals
from raydistill.diagnose.self_correction import Continued, Cut, self_correction_collapse
from raydistill.diagnose.verdict import verdict
from raydistill.report.diagnosis_html import diagnosis_html
from tests.diagnose.samples import sampled

KS = (1, 10, 39)


def _trace(kl):
    beyond = (((kl / 4, kl / 8, kl / 8),),) * 2
    return TraceDivergence(
        4, (kl / 4, kl / 2, kl), (kl, kl, 2 * kl), (kl, *[0.0] * (BINS - 1)), (4, *[0] * (BINS - 1)), (kl / 3,), beyond, (kl, kl)
    )


def _noise(rows):
    tail = Tail((10,), ((((7, 0.5), (3, 0.25)),),) * 2)
    return findings.tail_noise(rows, KS) | tail_findings.beyond(rows, KS, tail, frequencies([[1, 1, 2]], 39), [[["<&>", " x"]]] * 2)


def diagnosis(same_tokens=True):
    texts = sampled([[("7+5=2;#2", True), ("#2", True)], [("1+1=3;#3", False), ("#4", True)]])
    rows = [[_trace(1.0)], [_trace(2.0)]]
    different = findings.not_measured("the tokenizers differ")
    gap = findings.score_gap([[-1.0], [-1.0]], [[-2.0], [-1.5]])
    rivals = [Rivals((1.0,), (2.0,), paired=True), Rivals((3.0,), (2.5,), paired=True)]
    gradient = findings.gradient_noise([1.0, 2.0, 4.0], [1.0, 3.0, 2.0])
    consistency = {"self_consistency": findings.self_consistency(texts, texts, "arithmetic")}
    cuts = [Cut(place, source, "1+1=2", "1+1=3") for place in range(12) for source in ("own", "gold")]
    back = [Continued(cut, cut.place % 3 == 0, True) for cut in cuts]
    answers = [[Answer(0.9, True)], [Answer(0.8, False)]]
    found = {
        "run": "a <run>",
        "task": "arithmetic",
        "split": "tune",
        "prompts": 2,
        "seed": 1,
        "models": {"teacher": "t", "student": "s & co"},
        "score": {"teacher": findings.score(texts), "student": findings.score(texts)},
        "traps": {
            "tail_noise": _noise(rows) if same_tokens else different,
            "off_policy_instability": findings.off_policy_instability(rows, rows[::-1], 2)
            | {"growth": growth(rows, rows[::-1]), "gradient_norm": gradient}
            if same_tokens
            else different,
            "gap": findings.gap(
                gap,
                gap,
                findings.preference(rivals, rivals, "corrupted", 2) | {"own": {"pairs": 7, "prompts": 1}} if same_tokens else different,
            )
            | {"too_long": {"teacher": 0, "student": 0}},
        },
        "symptoms": {
            "overconfident_hallucination": findings.overconfident_hallucination(answers if same_tokens else [[]], answers[:1])
            | consistency,
            "self_correction_collapse": self_correction_collapse(texts, texts, back if same_tokens else [], back, "arithmetic"),
            "local_decoding_degradation": findings.local_decoding_degradation(texts, texts),
        },
    }
    return found | {"verdict": verdict(found)}


def distilled():
    """The same with a student after distillation."""
    found = diagnosis()
    texts = sampled([[("#2", True)], [("#3", True)]])
    before, after = (Student(texts, [[Answer(sure, False)], [Answer(0.5, True)]], {}) for sure in (0.9, 0.4))
    found["after"] = {name: found[name] for name in ("traps", "symptoms")} | {"differences": differences(before, after)}
    found["models"]["after"] = "s <after>"
    return found


@pytest.mark.parametrize(("same_tokens", "pictures"), [(True, 9), (False, 5)])
def test_all_figures_are_there_and_names_are_escaped(same_tokens, pictures):
    found = diagnosis(same_tokens)
    page = diagnosis_html(found, "config: {}")
    assert page.count("<svg ") == pictures
    assert "a &lt;run&gt;" in page
    assert "s &amp; co" in page
    assert page.count("not measured: the tokenizers differ") == (0 if same_tokens else 5)  # three figures, two of them in the verdict
    assert all(
        name in page for name in ("tail noise", "off-policy instability", "the gap", "overconfident", "self-correction", "degradation")
    )
    assert page == diagnosis_html(found, "config: {}")


def test_how_many_wrong_traces_the_teacher_has_is_told():
    page = diagnosis_html(diagnosis(), "")
    assert "right traces with one corrupted step, 2 pairs; the teacher&#39;s own are 7, of 1 prompts." in page


def test_failed_checks_are_said_where_there_were_any():
    found = diagnosis()
    found["verifier_failures"] = {name: {"completions": 0, "continuations": 0} for name in ("teacher", "student")}
    assert "Checks that failed" not in diagnosis_html(found, "")
    found["verifier_failures"]["student"] = {"completions": 3, "continuations": 1200}
    page = diagnosis_html(found, "")
    assert page.count("Checks that failed") == 1
    assert "3 of the student&#39;s completions, and 1,200 of its continuations" in page


def test_what_was_left_out_is_said_where_there_was_any():
    found = diagnosis()
    assert "context does not hold" not in diagnosis_html(found, "")
    found["traps"]["gap"]["too_long"] = {"teacher": 1200, "student": 0}
    assert "1,200 completions of the teacher and 0 of the student." in diagnosis_html(found, "")


def test_the_curve_over_places_claims_no_rest():
    page = diagnosis_html(diagnosis(), "")
    assert "Token KL by place. Few completions are long" in page
    assert "all that follows" not in page


def test_overconfidence_is_shown_of_both():
    page = diagnosis_html(diagnosis(), "")
    assert all(f"{name}: overconfidence" in page for name in ("student", "teacher"))


def test_the_tail_is_shown_token_by_token():
    page = diagnosis_html(diagnosis(), "")
    assert "&lt;&amp;&gt;" in page  # the token <&>
    assert "&#39; x&#39;" in page  # a blank before it can be seen
    assert all(text in page for text in ("renormalised over the top k", "share of the tail", "coefficient of variation", "entropy of the"))


def test_a_student_after_distillation_is_shown_below_the_one_before():
    found = distilled()
    found["after"]["verifier_failures"] = {"completions": 5, "continuations": 0}
    found["after"]["traps"] = found["traps"] | {"gap": found["traps"]["gap"] | {"too_long": {"teacher": 0, "student": 7}}}
    page = diagnosis_html(found, "")
    assert page.count("<svg ") == 18
    assert "After distillation: s &lt;after&gt;" in page
    assert "0 completions of the teacher and 7 of the student after distillation." in page
    assert "5 of the student after distillation&#39;s completions" in page
    assert "-0.500" in page.partition("What distillation changed")[2]


def test_pictures_are_whole_and_tell_lines_apart_without_colour():
    page = diagnosis_html(diagnosis(), "")
    svgs = [part.partition("</svg>")[0] for part in page.split("<svg ")[1:]]
    for svg in svgs:
        ElementTree.fromstring(f"<svg {svg}</svg>")
        assert "stroke-dasharray" in svg or "<pattern" in svg  # dashes, or hatching
