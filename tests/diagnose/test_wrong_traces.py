from raydistill.diagnose.preference import auc, paired_rate
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.wrong_traces import wrong_traces
from tests.diagnose.samples import sampled

ROWS = sampled([[("1+1=2;#2", True), ("1+1=3;#3", False), ("1+1=4;#4", False)], [("2+2=4;#4", True), ("2+2=4;#4", True)]])


def test_the_teachers_own_where_there_are_enough():
    found = wrong_traces(ROWS, 2, seed=1)
    assert (found.source, found.pairs) == ("own", 2)
    rivals, alone = found.rivals([-1.0, -2.0, -1.5, -0.5])
    assert rivals.pairs == [(-1.0, -1.5), (-2.0, -1.5)]
    assert (alone.wrong, alone.right, alone.pairs) == ((), (-0.5,), [])


def test_a_prompt_without_a_trace_has_no_part():
    rows = sampled([[("1+1=2;#2", True), ("#3", False)], [("", False)], [("#5", False)]])
    found = wrong_traces(rows, 1, seed=1).rivals([-1.0, -2.0, -3.0])
    assert [(one.wrong, one.right) for one in found] == [((-1.0,), (-2.0,)), ((-3.0,), ())]
    assert (paired_rate(found).n, auc(found).n) == (1, 2)
    assert auc(found).mean == 0.5  # the other prompt's wrong trace is below


def test_corrupted_ones_where_there_are_not():
    found = wrong_traces(ROWS, 3, seed=1)
    assert (found.source, found.own_pairs, found.pairs) == ("corrupted", 2, 2)  # the repeated trace counts once
    assert found.right_BG == (("1+1=2;#2",), ("2+2=4;#4",))
    assert all(len(wrong) == len(right) and wrong != right for (wrong,), (right,) in zip(found.wrong_BG, found.right_BG, strict=True))
    assert len(found.texts()) == 4


def test_samples_are_read_back(tmp_path):
    path = tmp_path / "teacher.json"
    path.write_text(ROWS.to_json())
    assert Sampled.read(path, ROWS.prompts) == ROWS
