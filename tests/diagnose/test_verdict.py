import pytest

from raydistill.diagnose.verdict import dominant, figure_in_words, verdict


def figure(value, low=None, unit="u", **more):
    return {"value": value, "unit": unit, "ci95": [value if low is None else low, value], "n": 9, "reference": None} | more


NOTHING = {"not measured": "the tokenizers differ"}


def diagnosis(noise=0.0, instability=1.0, gap=0.0, rate=0.5, error=0.0, repeats=0.0, recovery=0.9, sure=(0.1, 0.2)):
    losses = [
        {"k": k, "tail_bucket": figure(0.7), "whole": figure(1.4), "renormalised": figure(value)} for k, value in ((10, 0.2), (50, 0.1))
    ]
    return {
        "traps": {
            "tail_noise": figure(noise, k=50, losses=losses),
            "off_policy_instability": figure(instability, student_prefixes=figure(0.7)),
            "gap": figure(gap, on_student=figure(0.4), wrong_trace_preference=figure(rate, wrong_traces="own")),
        },
        "symptoms": {
            "overconfident_hallucination": figure(
                error, student={"confidence_when_wrong": figure(0.9), "overconfidence": figure(sure[1], sure[0])}
            )
            | {"reference": 0.02},
            "self_correction_collapse": {
                "student": {"recovery": figure(recovery) | {"reference": 0.7}},
                "teacher": {"recovery": figure(0.95, low=0.9) | {"reference": 0.99}},
            },
            "local_decoding_degradation": figure(repeats),
        },
    }


@pytest.mark.parametrize(
    ("measured", "worst", "cure"),
    [
        ({"noise": 0.5}, "tail_noise", "method.top_k=50"),
        ({"instability": 2.0}, "off_policy_instability", "method.on_policy=0.5"),
        ({"instability": 4.0}, "off_policy_instability", "method.on_policy=1"),
        ({"gap": 0.3, "instability": 2.0}, "gap", "knob.eta=1"),
        ({}, None, "No trap is surely above its level: tail noise 0.000"),
    ],
)
def test_the_trap_that_exceeds_its_level_most_dominates(measured, worst, cure):
    found = diagnosis(**measured)
    assert dominant(found["traps"]) == worst
    assert any(cure in sentence for sentence in verdict(found))


def test_what_is_not_sure_does_not_dominate():
    traps = diagnosis()["traps"] | {"tail_noise": figure(0.9, low=0.05)}
    assert dominant(traps) is None
    assert dominant(traps | {"tail_noise": figure(0.9) | {"ci95": None}}) is None


def test_what_was_not_measured_is_said():
    found = diagnosis()
    found["traps"]["tail_noise"] = NOTHING
    found["traps"]["gap"]["wrong_trace_preference"] = NOTHING
    assert "tail noise" not in verdict(found)[0]
    assert verdict(found)[1] == "Whether one is above it is not known: tail noise not measured: the tokenizers differ."
    found["traps"] |= dict.fromkeys(("off_policy_instability",), NOTHING)
    found["traps"]["gap"] |= {"ci95": None}
    assert verdict(found)[0] == "No trap could be told."


def test_a_trap_dominates_only_those_that_could_be_told() -> None:
    found = diagnosis(gap=0.3)
    assert verdict(found)[0].startswith("The teacher-student gap dominates: 0.300")
    assert not any("not known" in one for one in verdict(found))
    found["traps"]["tail_noise"] = NOTHING
    found["traps"]["off_policy_instability"] = figure(9.0) | {"ci95": None}
    first, second, third = verdict(found)[:3]
    assert first.startswith("The teacher-student gap dominates among the traps that could be told: 0.300")
    assert second == (
        "Whether another is larger is not known: tail noise not measured: the tokenizers differ; off-policy instability 9.000 u, "
        "without an interval."
    )
    assert "knob.eta=1" in third


@pytest.mark.parametrize(
    ("rate", "said"), [(0.2, "mostly prefers the right one"), (0.8, "prefers the wrong one"), (0.5, "surely prefers neither")]
)
def test_wrong_traces(rate, said):
    assert any(said in sentence for sentence in verdict(diagnosis(rate=rate)))


def test_symptoms_are_named_only_where_they_are():
    assert len(verdict(diagnosis())) == 2
    said = " ".join(verdict(diagnosis(error=0.3, repeats=0.1)))
    assert "calibration error 0.300" in said
    assert "0.900" in said
    assert "repeats itself" in said


@pytest.mark.parametrize(
    ("sure", "said"),
    [
        ((0.1, 0.2), "It is overconfident, by 0.200 [0.100, 0.200] u: calibration error 0.300"),
        ((-0.2, -0.1), "It is underconfident, by -0.100 [-0.200, -0.100] u: calibration error 0.300"),
        ((-0.1, 0.1), "Its confidence is off, not surely to one side, by 0.100 [-0.100, 0.100] u: calibration error 0.300"),
    ],
)
def test_a_calibration_error_has_the_sign_of_the_overconfidence(sure, said):
    assert any(sentence.startswith(said) for sentence in verdict(diagnosis(error=0.3, sure=sure)))


def test_a_recovery_surely_below_the_teachers_is_named():
    (said,) = [sentence for sentence in verdict(diagnosis(recovery=0.6)) if "wrong step" in sentence]
    assert said.endswith(
        "than the teacher: 0.600 [0.600, 0.600] u against 0.950 [0.900, 0.950] u; "
        "right after the same step without the slip: 0.700 against 0.990."
    )
    found = diagnosis(recovery=0.6)
    found["symptoms"]["self_correction_collapse"]["teacher"]["recovery"] = NOTHING
    assert len(verdict(found)) == 2


def test_a_symptom_that_was_not_measured_is_no_symptom():
    found = diagnosis()
    found["symptoms"]["overconfident_hallucination"] = NOTHING
    assert len(verdict(found)) == 2


def test_a_symptom_is_named_from_its_level_above_its_reference_on():
    assert len(verdict(diagnosis(error=0.069))) == 2  # noise gives 0.02, and 0.05 more would count
    assert len(verdict(diagnosis(error=0.071))) == 3
    assert len(verdict(diagnosis(repeats=0.0099))) == 2
    assert len(verdict(diagnosis(repeats=0.0101))) == 3


def test_the_top_k_is_that_beyond_which_the_noise_was_told() -> None:
    (said,) = [one for one in verdict(diagnosis(noise=0.5)) if "`kd`" in one]
    assert "method.top_k=50: beyond the teacher's top 50" in said
    assert "its loss is 0.700 [0.700, 0.700] u instead of 1.400 [1.400, 1.400] u" in said
    assert "renormalised over the top 50 it would be 0.100" in said


def test_a_student_after_distillation_has_a_verdict_and_what_surely_changed():
    found = diagnosis(gap=0.3)
    changes = {
        "score": figure(0.2, 0.1),
        "calibration_error": figure(0.3, -0.1),
        "confidence_when_wrong": NOTHING,
        "repeated": figure(-0.01, -0.02),
    }
    found["after"] = diagnosis(instability=2.0) | {"differences": changes}
    said = verdict(found)
    assert said[0].startswith("The teacher-student gap dominates")
    assert "Distillation changed score by 0.200 [0.100, 0.200] u; repeated 4-grams by -0.010 [-0.020, -0.010] u." in said
    assert "Whether it changed confidence on wrong answers is not known." in said
    assert any(one.startswith("After distillation: Off-policy instability dominates") for one in said)
    found["after"]["differences"] = dict.fromkeys(changes, NOTHING)
    said = verdict(found)
    assert "No change by distillation is sure." in said
    assert "Whether it changed score, calibration error, confidence on wrong answers, repeated 4-grams is not known." in said


def test_figures_in_words():
    assert figure_in_words(figure(2e-5, 0.0)) == "2e-05 [0.000, 2e-05] u"
    assert figure_in_words(figure(0.5, 0.25)) == "0.500 [0.250, 0.500] u"
    assert figure_in_words(figure(0.5) | {"ci95": None}) == "0.500 u"
    assert figure_in_words(NOTHING) == "not measured: the tokenizers differ"
    assert figure_in_words(figure(0.0) | {"value": None, "undefined": "no text"}) == "undefined: no text"
