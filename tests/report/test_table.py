"""The knob's table on the terminal."""

from dataclasses import replace

from rich.console import Console

from raydistill.report.card import report_card
from raydistill.report.table import knob_table
from tests.report.synthetic_facts import some_facts


def printed(*facts) -> list[str]:
    console = Console(width=250)
    with console.capture() as capture:
        console.print(knob_table([report_card(one) for one in facts]))
    return capture.get().splitlines()


def test_a_row_for_each_knob_setting_with_what_its_report_says():
    facts = [some_facts(-1.0), some_facts(1.0)]
    *_, low, high, _ = printed(*facts)
    assert low.split("│")[1].strip() == "-1"
    assert high.split("│")[1].strip() == "+1"
    student = report_card(facts[1])["students"][0]
    assert f"{student['calibrated']['sampled']['mean']:.3f} ({student['calibrated']['greedy']['mean']:.3f})" in high
    assert f"x{student['ratio']:.2f} [{student['ratio_ci95'][0]:.2f}, {student['ratio_ci95'][1]:.2f}]" in high


def test_without_students_or_score_gap():
    facts = some_facts(0.0)
    nothing = replace(facts, students=(), teacher=replace(facts.teacher, calibrated_gap=(float("nan"),) * 3))
    assert " - " in printed(nothing)[-2]
    assert "x" not in printed(nothing)[-2]
