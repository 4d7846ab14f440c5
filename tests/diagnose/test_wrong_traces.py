from dataclasses import replace

import pytest

from raydistill.diagnose.preference import auc, paired_rate
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.wrong_traces import FEWEST_PROMPTS, wrong_traces
from tests.diagnose.samples import sampled

KINDS = [[("1+1=2;#2", True), ("1+1=3;#3", False), ("1+1=4;#4", False)], [("2+2=4;#4", True), ("2+2=4;#4", True)]]
ROWS = sampled(KINDS)
MANY = sampled(KINDS[:1] * FEWEST_PROMPTS + KINDS[1:])


def anything(place: int, text: str) -> bool:
    return True


def test_the_teachers_own_where_there_are_enough():
    found = wrong_traces(MANY, "arithmetic", 20, seed=1, fits=anything)
    assert (found.source, found.pairs, found.own_prompts) == ("own", 20, FEWEST_PROMPTS)
    rivals, *_, alone = found.rivals([-1.0, -2.0, -1.5] * FEWEST_PROMPTS + [-0.5])
    assert rivals.pairs == [(-1.0, -1.5), (-2.0, -1.5)]
    assert (alone.wrong, alone.right, alone.pairs) == ((), (-0.5,), [])


def test_a_prompt_without_a_trace_has_no_part():
    rows = sampled([[("1+1=2;#2", True), ("#3", False)]] * FEWEST_PROMPTS + [[("", False)], [("#5", False)] * 2])
    found = wrong_traces(rows, "arithmetic", 1, seed=1, fits=anything).rivals([-1.0, -2.0] * FEWEST_PROMPTS + [-3.0])
    assert [(one.wrong, one.right) for one in found] == [((-1.0,), (-2.0,))] * FEWEST_PROMPTS + [((-3.0,), ())]
    assert (paired_rate(found).n, auc(found).n) == (FEWEST_PROMPTS, FEWEST_PROMPTS + 1)
    assert auc(found).mean == pytest.approx(FEWEST_PROMPTS / (FEWEST_PROMPTS + 1))  # the last prompt's wrong trace is below


def test_many_pairs_of_few_prompts_are_not_enough():
    few = sampled([[(f"1+1={at};#2", True) for at in range(20)] + [(f"#{at}", False) for at in range(20)]] * (FEWEST_PROMPTS - 1))
    found = wrong_traces(few, "arithmetic", 100, seed=1, fits=anything)
    assert (found.source, found.own_pairs, found.own_prompts) == ("corrupted", 400 * (FEWEST_PROMPTS - 1), FEWEST_PROMPTS - 1)


def test_corrupted_ones_where_there_are_not():
    found = wrong_traces(ROWS, "arithmetic", 3, seed=1, fits=anything)
    assert (found.source, found.own_pairs, found.pairs) == ("corrupted", 2, 2)  # the repeated trace counts once
    assert found.right_BG == (("1+1=2;#2",), ("2+2=4;#4",))
    assert all(len(wrong) == len(right) and wrong != right for (wrong,), (right,) in zip(found.wrong_BG, found.right_BG, strict=True))
    assert len(found.texts()) == 4


def test_gold_ones_where_the_teachers_right_ones_are_too_few():
    gold = tuple(replace(prompt, gold="3+4=7;#7" if place else "") for place, prompt in enumerate(MANY.prompts))
    weak = replace(MANY, prompts=gold)
    found = wrong_traces(weak, "arithmetic", 10, seed=1, fits=anything)
    assert (found.source, found.pairs) == ("own", 2 * FEWEST_PROMPTS)
    few = replace(ROWS, prompts=gold[:2])
    assert wrong_traces(few, "arithmetic", 2, seed=1, fits=anything).source == "corrupted"
    none_right = sampled([[("1+1=3;#3", False)]] * 3)
    weak = replace(none_right, prompts=gold[:3])
    found = wrong_traces(weak, "arithmetic", 2, seed=1, fits=anything)
    assert (found.source, found.pairs, found.own_pairs) == ("gold", 2, 0)
    assert found.right_BG == ((), ("3+4=7;#7",), ("3+4=7;#7",))
    assert all(wrong != right for (wrong,), (right,) in zip(found.wrong_BG[1:], found.right_BG[1:], strict=True))
    assert len(found.rivals([-2.0, -1.0] * 2)) == 2
    assert all(rivals.paired for rivals in found.rivals([-2.0, -1.0] * 2))
    assert wrong_traces(weak, "arithmetic", 9, seed=1, fits=lambda place, text: place != 1).pairs == 1


def test_samples_are_read_back(tmp_path):
    path = tmp_path / "teacher.json"
    path.write_text(ROWS.to_json())
    assert Sampled.read(path, ROWS.prompts) == ROWS
