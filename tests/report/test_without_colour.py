"""Lines and dots are told apart by markers and line styles: whose a picture's figures are can be read in black and white."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from raydistill.report.card import report_card
from raydistill.report.diagnoses_page import against_eta_svg
from raydistill.report.diagnosis_dots import Panel, beside, dots_svg
from raydistill.report.diagnosis_plots import by_position_svg, gradients_svg, reliability_svg, tail_noise_svg
from raydistill.report.facts import PairFacts
from tests.report.synthetic_facts import some_facts
from tests.report.test_diagnoses import diagnosed, figure

SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
Look = tuple[str, str, str]
"""Colour, dashes, and the marker's outline with its filling."""


def style(element: ElementTree.Element) -> dict[str, str]:
    pairs = (part.split(":", 1) for part in element.get("style", "").split(";") if ":" in part)
    return {key.strip(): value.strip() for key, value in pairs}


def looks(svg: str) -> set[Look]:
    """Of all lines and dots with a marker that has an inside; an interval's bars and caps, and ticks, have none."""
    found = set()
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        lines = [path for path in group.findall(f"{SVG}path") if "stroke" in style(path)]
        for marker in group.findall(f"{SVG}defs/{SVG}path"):
            if not marker.get("d", "").strip().lower().endswith("z"):
                continue
            drawn = style(lines[0]) if lines else {}
            dashes = re.sub(
                r"[\d.]+", lambda width: f"{float(width[0]):.1f}", drawn.get("stroke-dasharray", "whole" if drawn else "no line")
            )
            colour = style(marker).get("stroke", "black")
            hollow = "hollow" if style(marker).get("fill") == "#ffffff" else "full"
            found.add((colour, dashes, f"{marker.get('d')} {hollow}"))
    return found


def told_apart(svg: str, lines: int) -> None:
    found = looks(svg)
    assert len({colour for colour, _, _ in found}) == lines, found
    assert len({marker for _, _, marker in found}) == lines, found
    assert len({dashes for _, dashes, _ in found} - {"no line"}) in (0, lines), found


BINS = [{"confidence": at, "accuracy": at / 2, "n": 5} for at in (0.1, 0.5, 0.9)]
CURVE = [{"k": k, "position": k} | figure(0.1 * k) for k in (1, 2, 4)]


@pytest.mark.parametrize(
    "svg",
    [
        lambda: reliability_svg(BINS, BINS[:2]),
        lambda: tail_noise_svg({"forward": CURVE, "reverse": CURVE}, 4),
        lambda: by_position_svg({"teacher_prefixes": CURVE, "student_prefixes": CURVE}),
        lambda: gradients_svg([1.0, 2.0], [1.0, 3.0]),
        lambda: dots_svg([Panel("share", beside({"a": figure(0.1)}, {"a": figure(0.2)}), (0, 1))], "dots"),
    ],
)
def test_student_and_teacher(svg) -> None:
    told_apart(svg(), 2)


def test_students_against_eta() -> None:
    pairs = tuple(PairFacts(name, (diagnosed(0.3),), (diagnosed(0.4),)) for name in ("base", "seqkd", "gkd", "kd"))
    svg = against_eta_svg([report_card(replace(some_facts(eta), diagnoses=pairs)) for eta in (-1.0, 1.0)])
    told_apart(svg, 3)


def test_a_line_that_differs_by_colour_alone_is_found_out(monkeypatch) -> None:
    from raydistill.report import diagnosis_plots

    student, teacher = diagnosis_plots._LOOKS.values()
    monkeypatch.setattr(diagnosis_plots, "_LOOKS", {"student": student, "teacher": student | {"color": teacher["color"]}})
    with pytest.raises(AssertionError):
        told_apart(reliability_svg(BINS, BINS[:2]), 2)


def test_what_has_no_value_is_left_out_of_the_dots() -> None:
    rows = beside({"a row": figure(0.25)}, {"a row": {"not measured": "why"}, "another": figure(None)})
    svg = dots_svg([Panel("share", rows, (0, 1)), Panel("nats", {"none": {"student": {"not measured": "why"}}})], "what it shows")
    assert svg is not None
    assert 'aria-label="what it shows"' in svg
    assert "a row" in svg
    assert "another" not in svg
    assert "nats" not in svg  # a panel without a dot
    assert dots_svg([Panel("nats", {"none": {"teacher": figure(None)}})], "nothing") is None


def dots(svg: str) -> list[tuple[float, float]]:
    """Where each dot stands, in order of drawing; those of the legend are not clipped to the axes."""
    tree = ElementTree.fromstring(svg)
    markers = {f"#{path.get('id')}" for path in tree.iterfind(f".//{SVG}defs/{SVG}path") if path.get("d", "").strip().endswith("z")}
    used = [one for group in tree.iterfind(f".//{SVG}g[@clip-path]") for one in group.findall(f"{SVG}use")]
    return [(float(one.get("x", "nan")), float(one.get("y", "nan"))) for one in used if one.get(LINK) in markers]


def dotted(svg: str) -> list[list[str]]:
    return [path.get("d", "").split() for path in ElementTree.fromstring(svg).iter(f"{SVG}path") if "stroke-dasharray" in style(path)]


def test_dots_stand_at_their_values_and_references_are_dotted() -> None:
    rows = beside(
        {"a": figure(0.2) | {"reference": 0.5}, "alone": figure(0.5) | {"reference": None}}, {"a": figure(0.8) | {"reference": None}}
    )
    svg = dots_svg([Panel("share", rows)], "dots")
    assert svg is not None
    (student, above), (teacher, below), (middle, alone) = dots(svg)
    (_, x, *ends), _ = dotted(svg)  # the student's reference, and the legend's sample
    assert student < float(x) == float(ends[2]) < teacher
    assert [float(x), middle] == pytest.approx([(student + teacher) / 2] * 2, abs=0.01)
    low, high = sorted([float(ends[0]), float(ends[3])])
    assert low < above < high < below < alone


def test_a_dot_alone_is_in_the_middle_of_its_row() -> None:
    svg = dots_svg([Panel("share", {"a": {"student": figure(0.1)}, "b": {"teacher": figure(0.2)}, "c": {"student": figure(0.3)}})], "dots")
    assert svg is not None
    first, second, third = (y for _, y in dots(svg))
    assert second - first == pytest.approx(third - second)


@pytest.mark.parametrize("value", [0.2, 0.9])
def test_an_axis_has_the_ends_of_its_quantity(value) -> None:
    ends = []
    for within in ((0.0, 1.0), (0.0, None), None):
        svg = dots_svg([Panel("share", beside({"a": figure(value, half=0.001) | {"reference": 0.0}}, {}), within)], "dots")
        assert svg is not None
        ends.append((float(dotted(svg)[0][1]), dots(svg)[0][0]))
    (zero, whole), (same, far), (free, _) = ends
    assert zero == pytest.approx(same, abs=5)
    assert whole < far  # it fills the axis, where there is no upper end
    assert free > zero


def test_rows_of_either_model_keep_their_order() -> None:
    assert beside({"a": {"value": 1}, "b": {"value": 2}}, {"b": {"value": 3}, "c": {"value": 4}}) == {
        "a": {"student": {"value": 1}},
        "b": {"student": {"value": 2}, "teacher": {"value": 3}},
        "c": {"teacher": {"value": 4}},
    }
