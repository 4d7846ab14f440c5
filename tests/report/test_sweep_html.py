"""The page of a sweep and its table: self-contained, the same bytes each time, whole whatever became of the trials."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from raydistill.report.card import report_card
from raydistill.report.facts import Facts
from raydistill.report.knob_curve import eta_text, mark
from raydistill.report.scores import Json
from raydistill.report.sweep_html import sweep_html
from raydistill.report.sweep_plots import curve_svgs, pareto_svg
from raydistill.report.table import sweep_table
from tests.report.synthetic_facts import exact, run_config, some_facts, teacher_facts
from tests.report.test_report_html import Page, assert_loads_nothing

ATTACK = "</td></svg><script>alert('x')</script><img src=x onerror=alert(1)>&amp;{{ 7*7 }}[red]$x^2$"


def trial(eta: float, facts: Facts | None = None, **over: Any) -> Json:
    """Done; synthetic facts of that eta unless `facts` are given."""
    id_ = "-".join([f"eta{eta:+g}", *(f"{field}{value}" for field, value in over.items())])
    report = report_card(facts or some_facts(eta))
    return {"id": id_, "overrides": {"knob.eta": eta, **over}, "eta": eta, "status": "done", "report": report, "error": None}


def without_report(eta: float, status: str, error: str | None = None, **over: Any) -> Json:
    return {**trial(eta, some_facts(0.0, (1,)), **over), "status": status, "report": None, "error": error}


def without_students(eta: float) -> Facts:
    return Facts(run_config(eta, (1,), students=None), teacher_facts(exact(90), (exact(90),)), None, (), (), {"total": 1.0})


def text_of(html: str) -> str:
    return " ".join(Page(html).text.split())


@pytest.fixture(scope="module")
def sweep() -> Json:
    trials = [trial(eta) for eta in (-1.0, 0.0, 0.5, 1.0)]
    return {"sweep": "mine", "trials": [*trials, without_report(2.0, "failed", "no room for the teacher"), without_report(4.0, "stopped")]}


@pytest.fixture(scope="module")
def crossed() -> Json:
    fields: list[Json] = [{"learner.lr": 0.001}, {"learner.lr": 0.002}]
    trials = [trial(eta, some_facts(eta * (1 + place)), **over) for place, over in enumerate(fields) for eta in (-1.0, 1.0)]
    for one in trials:
        one["report"]["knob"]["eta"] = one["eta"]
    return {"sweep": "crossed", "trials": [*trials, without_report(1.0, "failed", "lost", **{"learner.lr": 0.004})]}


@pytest.fixture(scope="module")
def html(sweep: Json) -> str:
    return sweep_html(sweep)


def test_loads_nothing(html: str, sweep: Json, crossed: Json) -> None:
    for text in (html, sweep_html(crossed, sweep)):
        assert_loads_nothing(text)


def test_shows_every_trial_with_its_eta_and_what_became_of_it(html: str, sweep: Json) -> None:
    text = text_of(html)
    assert "6 trials: 4 done, 1 failed, 1 stopped." in text
    for one in sweep["trials"]:
        assert f"{one['id']}eta {eta_text(one['eta'])}" in text
    assert "failed: no room for the teacher" in text
    assert "stopped" in text
    assert "A trial that was stopped early was not measured" in text


def test_shows_recommendations_order_fronts_and_pictures(html: str) -> None:
    page, text = Page(html), text_of(html)
    assert page.tags.count("svg") == 2
    assert "Best student eta+1, eta +1 Its seqkd students score" in text
    assert "Protection at no cost to the teacher eta-1, eta −1" in text
    assert "Balance eta+1, eta +1 KL 0.42 nats" in text
    assert "choose on the tune split" in text
    assert "the same 300 prompts of the report split" in text
    assert "seqkd: Spearman's rank correlation of eta with the students' mean score is 1.00 sampled" in text
    assert "No reversal: from no eta to the next (6 pairs)" in text
    assert "For protection, where the teacher scores high and students low: eta-1" in text


def test_the_same_input_gives_the_same_bytes(html: str, sweep: Json, crossed: Json) -> None:
    before = copy.deepcopy(sweep)
    assert sweep_html(sweep) == html
    assert sweep == before
    assert sweep_html(crossed, sweep) == sweep_html(crossed, sweep)


def test_ids_that_are_kept_are_referred_to(html: str) -> None:
    assert all(f"#{name}" in html for name in re.findall(r' id="([^"]+)"', html))


def test_what_others_wrote_is_escaped(sweep: Json) -> None:
    first, second, *others = sweep["trials"]
    first = first | {"id": ATTACK, "overrides": {"knob.eta": -1.0, "learner.lr": ATTACK}}
    hostile = {"sweep": ATTACK, "trials": [first, second, *others, without_report(3.0, "failed", ATTACK)]}
    page = Page(sweep_html(hostile, {**sweep, "sweep": ATTACK}))
    assert not {"script", "img"} & set(page.tags)
    assert "onerror" not in {name for name, _ in page.attributes}
    assert f"failed: {ATTACK}" in page.text
    assert page.text.count(ATTACK) >= 5


def test_reversals_are_told_with_their_interval() -> None:
    turned = [
        trial(eta, replace(some_facts(other), run=run_config(eta))) for eta, other in ((0.0, 0.0), (0.5, 1.0), (1.0, 0.5), (2.0, 2.0))
    ]
    text = text_of(sweep_html({"sweep": "turned", "trials": turned}))
    assert re.search(
        r"seqkd: a reversal from eta \+0\.5 to \+1, where the sampled score changes by −0\.14\d \(\[−.*?\] over seeds, beyond", text
    )
    assert "Of 6 pairs of neighbouring etas 2 go down, 2 beyond the interval" in text
    alone = [trial(eta, replace(some_facts(other, (1,)), run=run_config(eta, (1,)))) for eta, other in ((0.0, 1.0), (1.0, 0.0))]
    text = text_of(sweep_html({"sweep": "alone", "trials": alone}))
    assert "no interval, for they share fewer than two seeds" in text
    assert "2 etas, too few for a rank correlation" in text


def test_crossed_fields_make_a_picture_for_each_method(crossed: Json) -> None:
    page, text = Page(sweep_html(crossed)), text_of(sweep_html(crossed))
    assert page.tags.count("svg") == 3
    for label in ("seqkd student, learner.lr 0.001", "gkd student, learner.lr 0.002", "teacher, learner.lr 0.002"):
        assert label in text
    assert "hollow black ones their teachers" in text
    assert "learner.lr 0.004" in text
    assert "student, learner.lr 0.004" not in text


def test_lines_are_told_apart_without_colour() -> None:
    assert len({(mark(index).marker, mark(index).line) for index in range(32)}) == 32
    assert len({mark(index).marker for index in range(8)}) == 8


def test_another_sweep_stands_beside_the_first(sweep: Json, crossed: Json) -> None:
    shadowed = {"sweep": "with-shadows", "trials": [trial(eta) for eta in (-1.0, 3.0)]}
    text = text_of(sweep_html(sweep, shadowed))
    assert "seqkd student, with-shadows" in text
    assert "gkd student, with-shadows" not in text
    assert "Beside them, seqkd students of sweep with-shadows." in text
    assert "+3" in "".join(curve_svgs(sweep, shadowed))
    first, second = curve_svgs(crossed, shadowed)
    assert "with-shadows" in first
    assert "with-shadows" not in second
    empty = {"sweep": "empty", "trials": [without_report(1.0, "failed")]}
    assert "Sweep empty has no students to stand beside these." in text_of(sweep_html(sweep, empty))
    assert "seqkd student, crossed, learner.lr 0.001" in text_of(sweep_html(sweep, crossed))


@pytest.mark.parametrize("trials", [[], [without_report(1.0, "failed", "lost"), without_report(2.0, "stopped")]])
def test_a_sweep_in_which_nothing_is_done(trials: list[Json], sweep: Json) -> None:
    for beside in (None, sweep):
        html = sweep_html({"sweep": "lost", "trials": trials}, beside)
        assert Page(html).tags.count("svg") == 0
        assert "Best student none No trial that is done has students." in text_of(html)
        assert all(one["id"] in html for one in trials)


def test_a_single_trial() -> None:
    html = sweep_html({"sweep": "single", "trials": [trial(1.0)]})
    assert Page(html).tags.count("svg") == 2
    assert "1 trial: 1 done." in text_of(html)
    assert "partly the luckiest" not in html


def test_one_seed() -> None:
    text = text_of(sweep_html({"sweep": "one", "trials": [trial(eta, some_facts(eta, (1,))) for eta in (-1.0, 1.0)]}))
    assert "It rests on 1 seed." in text
    assert "say nothing about another seed" in text
    assert "Fewer than 8 seeds" in text


def test_a_trial_without_students(sweep: Json) -> None:
    odd = trial(3.0, without_students(3.0))
    text = text_of(sweep_html({"sweep": "some", "trials": [odd, *sweep["trials"]]}))
    assert "Without students of seqkd, and so not chosen from: eta+3." in text
    assert "Trials differ in task, split or number of prompts" in text
    html = sweep_html({"sweep": "none", "trials": [odd, trial(2.0, without_students(2.0))]}, sweep)
    assert Page(html).tags.count("svg") == 1
    assert "Without students of any method, and so not chosen from: eta+3, eta+2." in text_of(html)
    assert pareto_svg([odd]) is None
    several = {"sweep": "several", "trials": [trial(eta, without_students(eta), seeds=place) for place, eta in enumerate((1.0, 2.0))]}
    assert Page(sweep_html(several)).tags.count("svg") == 1


def test_a_kl_that_was_not_measured(sweep: Json) -> None:
    odd = copy.deepcopy(sweep)
    odd["trials"][0]["report"]["teacher"]["kl_per_sequence"] = None
    assert "at a KL of – nats" in text_of(sweep_html(odd))
    assert any(" - " in line for line in printed(odd) if "eta-1" in line)


def printed(sweep: Json) -> list[str]:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(sweep_table(sweep))
    return capture.get().splitlines()


def test_the_table_has_a_row_for_each_trial_by_curve_and_eta(sweep: Json) -> None:
    shuffled = {**sweep, "trials": sweep["trials"][::-1]}
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed(shuffled) if line.startswith("│")]
    assert [row[0] for row in rows] == ["eta-1", "eta+0", "eta+0.5", "eta+1", "eta+2", "eta+4"]
    assert [row[1] for row in rows] == ["-1", "+0", "+0.5", "+1", "+2", "+4"]
    assert [row[2] for row in rows] == ["done"] * 4 + ["failed: no room for the teacher", "stopped"]
    student = sweep["trials"][0]["report"]["students"][0]
    assert rows[0][-2].startswith(f"{student['calibrated']['sampled']['mean']:.3f} ({student['calibrated']['greedy']['mean']:.3f}), x")
    assert rows[-1][3:] == [""] * 6


def test_the_table_shows_brackets_as_they_are() -> None:
    assert any("failed: out of memory [rank 0][/red]" in line for line in printed({"sweep": "s", "trials": [HOSTILE]}))
    assert len(printed({"sweep": "s", "trials": []})) >= 3


HOSTILE = {
    "id": "[bold]x",
    "overrides": {"knob.eta": 1.0},
    "eta": 1.0,
    "status": "failed",
    "report": None,
    "error": "out of memory [rank 0][/red]",
}
