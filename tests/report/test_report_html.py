"""The pages: self-contained, the same bytes each time, and safe whatever a model writes. Words follow the figures."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from raydistill.report.card import report_card
from raydistill.report.facts import Facts
from raydistill.report.html import knob_curve_html, run_html
from raydistill.report.knob_curve import knob_curve_svg
from raydistill.report.plots import shadows_svg, styles_svg, target_svg
from raydistill.report.scores import Json
from raydistill.report.words import claims_in_words, notes
from raydistill.report.write import write_report
from tests.report.synthetic_facts import exact, run_config, some_facts, some_rows, teacher_facts, with_looks, with_shadows, with_target

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Elements, attributes and visible text of a page; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(facts: Facts) -> str:
    return run_html(report_card(facts), facts, some_rows(facts.run.seeds))


@pytest.fixture(scope="module")
def facts() -> Facts:
    return some_facts(1.0)


@pytest.fixture(scope="module")
def html(facts: Facts) -> str:
    return page_of(facts)


@pytest.fixture(scope="module")
def reports() -> list[Json]:
    return [report_card(some_facts(eta)) for eta in (1.0, -1.0, 0.0, 2.0)]


def loads(page: Page) -> list[tuple[str, str]]:
    """Attributes that would fetch something, or point elsewhere."""
    names = {"src", "href", "xlink:href", "data", "action", "srcset", "poster", "background"}
    return [(name, value) for name, value in page.attributes if name in names and not value.startswith("#")]


def assert_loads_nothing(html: str) -> None:
    page = Page(html)
    assert loads(page) == []
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert "default-src 'none'" in html
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert not re.search(r"https?://|@import|url\((?!#)", without_namespaces)


def test_loads_nothing(html: str, reports: list[Json]) -> None:
    for text in (html, knob_curve_html(reports)):
        assert_loads_nothing(text)


def test_shows_the_claims_the_table_and_the_pictures(html: str, facts: Facts) -> None:
    page, report = Page(html), report_card(facts)
    assert page.tags.count("svg") == 3
    text = " ".join(page.text.split())
    assert "Distillable ✓ claimed" in text
    assert "Collapse ✗ not claimed" in text
    assert "Teacher kept ✓ claimed" in text
    for student in report["students"]:
        low, high = student["ratio_ci95"]
        assert f"×{student['ratio']:.2f}[{low:.3f}, {high:.3f}]" in text
    assert "Di+h=a;a-f=c;#3" in text
    assert "kl_budget: 0.4" in text


def test_the_same_input_gives_the_same_bytes(html: str, facts: Facts, reports: list[Json]) -> None:
    assert page_of(facts) == html
    assert knob_curve_html(reports) == knob_curve_html(reports)
    assert knob_curve_svg(reports) == knob_curve_svg(reports)


def test_does_not_depend_on_the_users_matplotlib_settings(reports: list[Json]) -> None:
    import matplotlib

    expected = knob_curve_svg(reports)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.fonttype": "path"}):
        assert knob_curve_svg(reports) == expected


def test_ids_that_are_kept_are_referred_to(html: str) -> None:
    ids = re.findall(r' id="([^"]+)"', html)
    assert ids
    assert all(f"#{name}" in html for name in ids)


def test_what_models_write_is_escaped(facts: Facts) -> None:
    attack = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>&amp;{{ 7*7 }}$x^2$"
    teacher = replace(facts.teacher, examples=((attack, attack, "fine"),))
    named = replace(facts.students[0], method="<b>m</b>$a_$")
    page = Page(page_of(replace(facts, teacher=teacher, students=(named,))))
    assert not {"script", "img", "b"} & set(page.tags)
    assert page.text.count(attack) == 2
    assert "onerror" not in {name for name, _ in page.attributes}


def test_a_password_in_the_tracking_uri_is_not_shown(facts: Facts) -> None:
    run = run_config(1.0, track={"uri": "https://me:s3cret@host:5000"})
    text = page_of(replace(facts, run=run))
    assert "s3cret" not in text
    assert "me:***@host:5000" in text


def test_a_run_without_students_styles_or_steps() -> None:
    run = run_config(0.0, (1,), students=None)
    facts = Facts(run, teacher_facts(exact(90), (exact(90),)), None, (), (), {"total": 1.0})
    report = report_card(facts)
    assert styles_svg(report) is None
    page = Page(run_html(report, facts, {1: []}))
    assert page.tags.count("svg") == 1
    assert "No students were distilled in this run." in page.text
    assert "no interval" not in page.text


def test_the_knob_curve_is_in_order_of_eta(reports: list[Json]) -> None:
    text = " ".join(Page(knob_curve_html(reports)).text.split())
    places = [text.index(f"eta {eta}: ") for eta in ("−1", "0", "+1", "+2")]
    assert places == sorted(places)
    assert "Spearman's rank correlation of eta with the students' mean score is 1.00 sampled" in text


def test_the_knob_curve_of_runs_without_students() -> None:
    facts = Facts(run_config(0.5, (1,), students=None), teacher_facts(exact(90), (exact(90),)), None, (), (), {"total": 1.0})
    assert "<svg" in knob_curve_html([report_card(facts)])
    with pytest.raises(ValueError, match="at least one report"):
        knob_curve_html([])


def test_svg_stands_alone(reports: list[Json]) -> None:
    from xml.etree import ElementTree

    svg = ElementTree.fromstring(knob_curve_svg(reports))
    assert svg.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(element.itertext()) for element in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"seqkd student", "gkd student", "seqkd control", "teacher", "Greedy", "−1", "+2"} <= texts


def test_words_name_what_a_claim_lacks() -> None:
    placebo = some_facts(0.0)
    by_title = {claim.title: claim for claim in claims_in_words(report_card(placebo))}
    assert not by_title["Distillable"].holds
    assert "seqkd against the control" in by_title["Distillable"].sentence
    assert "placebo" in " ".join(notes(report_card(placebo)))
    without_gold = replace(some_facts(1.0), sft_gold=())
    assert "sft_gold was not measured" in claims_in_words(report_card(without_gold))[0].sentence


def test_words_explain_a_collapse_that_wrong_traces_forbid() -> None:
    facts = some_facts(-1.0)
    assert report_card(facts)["claims"]["collapse"]
    spoilt = tuple(replace(one, accuracy=0.9) for one in facts.teacher.traces)
    report = report_card(replace(facts, teacher=replace(facts.teacher, traces=spoilt)))
    assert not report["claims"]["collapse"]
    assert "right in 90.0% of cases" in claims_in_words(report)[1].sentence


def test_a_gain_that_greedy_does_not_show_is_called_style() -> None:
    facts = some_facts(1.0)
    same = tuple(
        replace(one, greedy_B=control.greedy_B)
        for one, control in zip(facts.students[0].calibrated, facts.students[0].control, strict=True)
    )
    report = report_card(replace(facts, students=(replace(facts.students[0], calibrated=same),)))
    assert any("a gain in style share, not in ability" in note for note in notes(report))
    assert not any("style share" in note for note in notes(report_card(facts)))


@pytest.mark.parametrize(("seeds", "words"), [((1, 2, 3), "Fewer than 8 seeds"), ((1,), "say nothing about another seed")])
def test_notes_tell_how_little_a_few_seeds_say(seeds: tuple[int, ...], words: str) -> None:
    assert words in " ".join(notes(report_card(some_facts(1.0, seeds))))


def test_writes_both_files_and_nothing_else(tmp_path: Path, facts: Facts) -> None:
    report = write_report(tmp_path, facts, some_rows())
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report == report_card(facts)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_the_paired_curves_of_shadow_students(facts: Facts) -> None:
    models = [{"model": "demo:student"}, {"model": "demo:proxy"}]
    run = run_config(1.0, proxy=None, shadows={"models": models})
    shadowed = replace(facts, run=run, teacher=replace(facts.teacher, original_gap=float("nan"), calibrated_gap=(float("nan"),) * 3))
    rows = with_shadows(some_rows(run.seeds))
    text = run_html(report_card(shadowed), shadowed, rows)
    page = Page(text)
    assert page.tags.count("svg") == 4
    assert "Shadow students" in page.text
    assert "twin, fed by the original" in page.text
    assert page.text.count("demo:proxy") >= 2  # the panel's title and the config
    assert run_html(report_card(shadowed), shadowed, rows) == text
    assert shadows_svg(some_rows(run.seeds), ["demo:student"]) is None
    assert "Shadow students" not in page_of(facts)


def test_the_way_to_a_target(facts: Facts) -> None:
    aimed = with_target(facts)
    report, rows = report_card(aimed), with_looks(some_rows(aimed.run.seeds))
    text = run_html(report, aimed, rows)
    assert "teacher calibrated for students at 0.5 of the control" in text
    assert "Towards the target" in text
    assert "Target, seed 1: 0.5 was asked for; 0.500 after 25 steps" in text
    assert "Target, seed 2: 0.5 was not reached; nearest was 0.510 after 25 steps" in text
    assert "eta was at its bound" in text
    assert "eta = 0 is the placebo" not in text
    assert run_html(report, aimed, rows) == text
    assert "Towards the target" not in run_html(report_card(facts), facts, some_rows())
    assert target_svg({1: []}, 0.5) is None
