"""Each label of a diagnosis' page stands beside its own figure: all figures differ here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from itertools import count

import pytest

from raydistill.diagnose.verdict import figure_in_words
from raydistill.report.diagnosis_html import diagnosis_html
from tests.report.test_diagnosis_html import distilled

FORWARD, REVERSE = "KL(teacher || student)", "KL(student || teacher)"
BOTH = ("student", "teacher")


def by_model(symptom: str, names: dict[str, str]) -> dict[str, str]:
    return {f"{who}: {label}": f"{symptom}/{who}/{place}" for label, place in names.items() for who in BOTH}


ROWS = {
    **{
        f"{kl}, beyond k = {k}": f"traps/tail_noise/share_beyond/{way}/{k}"
        for kl, way in ((FORWARD, "forward"), (REVERSE, "reverse"))
        for k in (10, 50, 100)
    },
    f"{FORWARD}, whole": "traps/tail_noise/curve/forward/-1",
    f"{REVERSE}, whole": "traps/tail_noise/curve/reverse/-1",
    "on the student's prefixes / on the teacher's": "traps/off_policy_instability",
    f"{FORWARD} on the teacher's prefixes": "traps/off_policy_instability/teacher_prefixes",
    f"{FORWARD} on the student's prefixes": "traps/off_policy_instability/student_prefixes",
    "late half / early half of a completion, teacher's prefixes": "traps/off_policy_instability/growth/teacher_prefixes",
    "late half / early half of a completion, student's prefixes": "traps/off_policy_instability/growth/student_prefixes",
    "variance on the student's texts / the teacher's": "traps/off_policy_instability/gradient_norm",
    **{
        f"{who}'s texts: {label}": f"traps/off_policy_instability/gradient_norm/{who}_prefixes/{place}"
        for who in BOTH
        for label, place in (("mean", "mean"), ("variance", "variance"), ("coefficient of variation", "variation"))
    },
    "the teacher's completions, read by the student": "traps/gap/on_teacher",
    "the student's completions, read by the teacher": "traps/gap/on_student",
    **by_model("traps/gap/wrong_trace_preference", {"wrong above right, same prompt": "paired_rate", "AUC, any prompt": "auc"}),
    **by_model(
        "symptoms/overconfident_hallucination",
        {
            "calibration error": "calibration_error",
            "overconfidence, mean confidence - share right": "overconfidence",
            "mean confidence on wrong answers": "confidence_when_wrong",
        },
    ),
    **by_model(
        "symptoms/overconfident_hallucination/self_consistency",
        {
            "calibration error of the majority's share": "calibration_error",
            "share of the majority's answer": "majority_share",
            "majority right": "majority_right",
            "entropy of the answers": "entropy",
        },
    ),
    **by_model(
        "symptoms/self_correction_collapse",
        {
            "right after a wrong step": "recovery",
            "after the same, right": "uncorrupted",
            "after a wrong step, in the teacher's traces": "by_source/own",
            "after a wrong step, in gold completions": "by_source/gold",
            "completions with a correction": "corrections/rate",
            "corrections that helped": "corrections/helped",
            "corrections that did harm": "corrections/harmed",
            "right with a correction": "corrections/right_with",
            "right without": "corrections/right_without",
        },
    ),
    "student - teacher, repeated 4-grams": "symptoms/local_decoding_degradation",
    **by_model(
        "symptoms/local_decoding_degradation",
        {
            "repeated 4-grams": "repeated",
            "distinct 2-grams": "distinct",
            "truncated": "truncated",
            "invalid UTF-8": "invalid_utf8",
            "compression ratio": "compression_ratio",
        },
    ),
}
CHANGED = {
    "score": "differences/score",
    "calibration error": "differences/calibration_error",
    "mean confidence on wrong answers": "differences/confidence_when_wrong",
    "repeated 4-grams": "differences/repeated",
}


def told_apart(tree, numbers: Iterator[int]):
    """The same with a value of its own for each figure, also where these few texts leave it unmeasured, and for each token's share."""
    if isinstance(tree, list):
        return [told_apart(one, numbers) for one in tree]
    if not isinstance(tree, dict):
        return tree
    copied = {name: told_apart(one, numbers) for name, one in tree.items()}
    if "token" in tree:
        return copied | {"share": next(numbers) / 1000}
    if "not measured" in tree:
        return {"value": next(numbers) / 1000, "unit": "share", "ci95": None, "n": 2, "reference": None}
    return copied | {"value": next(numbers) / 1000, "ci95": None} if "value" in tree else copied


@pytest.fixture(scope="module")
def found():
    return told_apart(distilled(), count(1))


@pytest.fixture(scope="module")
def pages(found) -> tuple[str, str]:
    """Of the student, and of that after distillation."""
    before, _, after = diagnosis_html(found, "").partition("After distillation:")
    return before, after


def tables(page: str) -> list[tuple[str, list[dict[str, str]]]]:
    """The text above and the rows, by the heads of their columns, in order."""
    whole = re.compile(r'<p class="soft">([^<]*)</p>\s*<div class="wide"><table>\s*<thead>(.*?)</thead>\s*<tbody>(.*?)</tbody>', re.DOTALL)
    return [
        (unescape(text), [dict(zip(cells(heads), cells(row), strict=True)) for row in body.split("</tr>") if row])
        for text, heads, body in whole.findall(page)
    ]


def cells(row: str) -> list[str]:
    return [unescape(cell) for cell in re.findall(r"<t[hd]>(.*?)</t[hd]>", row)]


def figure_rows(page: str) -> list[tuple[str, str]]:
    return sorted((row["figure"], row["measured"]) for _, rows in tables(page) for row in rows if "figure" in row)


def in_words(tree, places: dict[str, str]) -> list[tuple[str, str]]:
    return [(label, figure_in_words(at(tree, place))) for label, place in places.items()]


def at(tree, place: str):
    for name in place.split("/"):
        tree = tree[int(name) if isinstance(tree, list) else name]
    return tree


def test_each_row_has_the_figure_of_its_label(found, pages) -> None:
    assert len({words for _, words in in_words(found, ROWS)}) == len(ROWS)
    assert figure_rows(pages[0]) == sorted(in_words(found, ROWS))
    assert figure_rows(pages[1]) == sorted(in_words(found["after"], ROWS) + in_words(found["after"], CHANGED))
    score = {who: figure_in_words(found["score"][who]) for who in BOTH}
    assert f"Score: teacher {score['teacher']}, student {score['student']}." in " ".join(pages[0].split())


@pytest.mark.parametrize("after", [False, True])
def test_each_table_of_the_tail_has_the_caption_of_its_direction(found, pages, after) -> None:
    noise = (found["after"] if after else found)["traps"]["tail_noise"]
    (about_losses, losses), *directions = [(text, rows) for text, rows in tables(pages[after]) if "figure" not in rows[0]]
    heads = {"renormalised over the top k": "renormalised", "with a tail bucket (KL@k)": "tail_bucket", "whole vocabulary": "whole"}
    assert FORWARD in about_losses
    assert losses == [{"k": str(row["k"])} | {head: figure_in_words(row[way]) for head, way in heads.items()} for row in noise["losses"]]
    shown = iter(directions)
    for kl, one in ((FORWARD, noise), (REVERSE, noise["reverse"])):
        caption, rows = next(shown)
        assert caption.startswith(f"{kl} beyond k, by how often")
        carried = [(k, name, figure_in_words(share)) for k, classes in one["by_frequency"].items() for name, share in classes.items()]
        assert [(row["beyond k"], row["written"], row["carry"]) for row in rows] == carried
        for k, tokens in one["heaviest"].items():
            caption, rows = next(shown)
            assert caption.startswith(f"The tokens that carry most of {kl} beyond k = {k},")
            shares = [(str(token["id"]), f"{100 * token['share']:.2f} %") for token in tokens]
            assert [(row["id"], row["share of the tail"]) for row in rows] == shares
    assert not list(shown)


def test_long_tables_are_folded(found) -> None:
    tokens = found["traps"]["tail_noise"]["heaviest"]["10"][:1] * 20
    noise = found["traps"]["tail_noise"] | {"heaviest": {"10": tokens}}
    page = diagnosis_html(found | {"traps": found["traps"] | {"tail_noise": noise}}, "")
    caption = "The tokens that carry most of KL(teacher || student) beyond k = 10, and their share of it."
    assert page.count(f"<details><summary>{caption}</summary>") == 1
    assert page.count("<details>") == page.count("</details>")
    assert "<details><summary>The tokens" not in diagnosis_html(found, "")
