import pytest

from raydistill.diagnose import findings, tail_findings
from raydistill.diagnose.comparer import BINS, Tail, TraceDivergence
from raydistill.diagnose.frequency import frequencies

KS, TAIL_KS = (1, 10, 50, 200), (10, 50)
WRITTEN = frequencies([[1] * 95 + [2] * 5], 200)


def trace(kl, at_10, at_50, by_class_10, by_class_50):
    """In reverse all is twice as much, and its classes change places."""
    forward = (0.0, at_10, at_50, kl)
    by_class = (by_class_10, by_class_50)
    reverse = tuple(tuple(2 * one for one in row[::-1]) for row in by_class)
    by_bin = (kl, *[0.0] * (BINS - 1)), (10, *[0] * (BINS - 1))
    return TraceDivergence(10, forward, tuple(2 * one for one in forward), *by_bin, (0.5, 0.7), (by_class, reverse))


ROWS = [
    [trace(2.0, 1.0, 1.8, (0.1, 0.7, 0.2), (0.1, 0.05, 0.05))],
    [trace(4.0, 3.0, 3.8, (0.5, 0.3, 0.2), (0.1, 0.05, 0.05))],
]
TAIL = Tail(TAIL_KS, ((((7, 1.0), (2, 0.5)), ((7, 0.1), (9, 0.0))), (((2, 1.0),), ((2, 0.2),))))
TEXTS = [[["x", "y"], ["x", "z"]], [["y"], ["y"]]]


def test_classes_sum_to_the_share_beyond_k():
    found = tail_findings.beyond(ROWS, KS, TAIL, WRITTEN, TEXTS)
    shares = findings.tail_noise(ROWS, KS)["share_beyond"]["forward"]
    for k in ("10", "50"):
        parts = found["by_frequency"][k]
        assert sum(one["value"] for one in parts.values()) == pytest.approx(shares[k]["value"])
        assert all(one["ci95"][0] <= one["value"] <= one["ci95"][1] and one["n"] == 2 for one in parts.values())
    assert found["by_frequency"]["10"]["rare"]["value"] == pytest.approx(1.0 / 6)
    assert (found["by_frequency"]["10"]["rare"]["tokens"], found["by_frequency"]["10"]["rare"]["written"]) == (1, 0.05)


def test_heaviest_have_their_share_of_the_tail_and_those_without_any_are_left_out():
    found = tail_findings.beyond(ROWS, KS, TAIL, WRITTEN, TEXTS)["heaviest"]
    assert found["10"] == [
        {"token": "x", "id": 7, "share": 0.5, "written": 0, "class": "never"},
        {"token": "y", "id": 2, "share": 0.25, "written": 5, "class": "rare"},
    ]
    (only,) = found["50"]
    assert only["share"] == pytest.approx(0.1 / 0.4)


def test_the_other_direction_has_its_own():
    found = tail_findings.beyond(ROWS, KS, TAIL, WRITTEN, TEXTS)
    reverse = found["reverse"]
    assert reverse["by_frequency"]["10"]["common"]["value"] == pytest.approx(found["by_frequency"]["10"]["never"]["value"])
    (first,) = reverse["heaviest"]["10"]
    assert (first["token"], first["share"]) == ("y", pytest.approx(1.0 / 4))
    shares = findings.tail_noise(ROWS, KS)["share_beyond"]["reverse"]
    assert sum(one["value"] for one in reverse["by_frequency"]["50"].values()) == pytest.approx(shares["50"]["value"])


def test_losses_are_a_token():
    first, second = tail_findings.beyond(ROWS, KS, TAIL, WRITTEN, TEXTS)["losses"]
    assert [first[name]["value"] for name in ("renormalised", "tail_bucket", "whole")] == pytest.approx([0.05, 0.2, 0.3])
    assert (second["k"], second["tail_bucket"]["value"]) == (50, pytest.approx(0.28))


def test_where_the_kl_is_about_0_nothing_has_a_share():
    rows = [[trace(1e-9, 0.0, 0.0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))]] * 2
    found = tail_findings.beyond(rows, KS, TAIL, WRITTEN, TEXTS)
    assert found["by_frequency"] == found["heaviest"] == found["reverse"]["by_frequency"] == {}
    assert found["losses"][0]["whole"]["value"] < 1e-9
