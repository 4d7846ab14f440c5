"""Population-based training: who goes on from whom and with which settings, and the schedule it comes to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.config.calibration import Change, LearnerConfig
from raydistill.config.run import Run
from raydistill.config.sweep import PBT
from raydistill.population import next_generation, with_lineage

LR = "learner.lr"
VALUES = {LR: [1.0, 2.0, 3.0, 4.0, 5.0]}


def population(*values):
    return {f"t{place}": ({LR: value},) for place, value in enumerate(values)}


def step(lineages, scores, seed=0, **pbt):
    return next_generation(lineages, dict(zip(lineages, scores, strict=True)), VALUES, PBT(kind="pbt", **pbt), seed)


def test_the_worst_goes_on_from_the_best_with_a_setting_beside_its():
    before = population(1.0, 2.0, 3.0, 4.0)
    for seed in range(20):
        after = step(before, [0.5, 0.1, 0.9, 0.6], seed, resample=0)
        assert after["t1"][0] == {LR: 3.0}
        assert after["t1"][1][LR] in (2.0, 4.0)
        assert all(after[id_] == (*before[id_], before[id_][-1]) for id_ in ("t0", "t2", "t3"))


def test_low_scores_are_the_better_ones_for_protection():
    after = step(population(1.0, 5.0), [0.1, 0.9], replace=0.5, keep="low")
    assert after["t0"] == ({LR: 1.0}, {LR: 1.0})
    assert after["t1"][0] == {LR: 1.0}


def test_at_the_end_of_the_list_there_is_one_neighbour():
    assert step(population(5.0, 1.0), [1, 0], replace=0.5, resample=0)["t1"] == ({LR: 5.0}, {LR: 4.0})


def test_a_trial_that_failed_is_replaced_even_if_only_one_is_left():
    after = step(population(1.0, 2.0, 3.0), [None, 0.5, None])
    assert [after[id_][0][LR] for id_ in after] == [2.0, 2.0, 2.0]
    assert after["t1"] == ({LR: 2.0}, {LR: 2.0})


@given(
    st.lists(st.tuples(st.sampled_from(VALUES[LR]), st.none() | st.floats(0, 1)), min_size=2, max_size=9),
    st.floats(0.01, 0.5),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_selection_is_by_truncation(members, replace, resample, seed):
    """Against what Tune's scheduler takes for its quantiles: so many at each end, rounded up, and never more than half."""
    lineages, scores = population(*(value for value, _ in members)), [score for _, score in members]
    known = sorted(score for score in scores if score is not None)
    if not known:
        return
    after = step(lineages, scores, seed, replace=replace, resample=resample)
    assert after == step(lineages, scores, seed, replace=replace, resample=resample)
    count = min(math.ceil(len(members) * replace), len(known) // 2)
    best = {
        lineages[id_][0][LR] for id_, score in zip(lineages, scores, strict=True) if score is not None and score >= known[-max(count, 1)]
    }
    changed = 0
    for (id_, lineage), score in zip(lineages.items(), scores, strict=True):
        assert len(after[id_]) == 2
        assert after[id_][1][LR] in VALUES[LR]
        if score is None or (count and score < known[count - 1]):
            assert after[id_][0][LR] in best
        if score is not None and score > (known[count - 1] if count else -1):
            assert after[id_] == (*lineage, lineage[-1])
            changed += 1
    assert changed <= len(members) - min(count, 1)


def run(**learner):
    return Run.model_validate({"teacher": {"model": "t"}, "proxy": {"model": "p"}, "learner": learner})


def test_a_lineage_is_a_schedule_of_what_changes():
    lineage = ({LR: 1.0, "learner.kl_coef": 0.1}, {LR: 1.0, "learner.kl_coef": 0.1}, {LR: 2.0, "learner.kl_coef": 0.1})
    found = with_lineage(run(lr=7), lineage, every=5)
    assert (found.learner.lr, found.learner.kl_coef) == (1.0, 0.1)
    assert found.learner.schedule == (Change(after=10, lr=2.0, kl_coef=0.1),)
    assert Run.model_validate(found.model_dump(mode="json")) == found
    assert with_lineage(found, lineage, every=5) == found


def test_settings_are_those_of_the_last_change_that_is_due():
    learner = LearnerConfig.model_validate({"lr": 1, "kl_coef": 0.5, "schedule": [{"after": 2, "lr": 3}, {"after": 4, "kl_coef": 0}]})
    assert [learner.settings(steps) for steps in (0, 1, 2, 3, 4, 9)] == [(1, 0.5), (1, 0.5), (3, 0.5), (3, 0.5), (3, 0), (3, 0)]


def test_changes_that_do_not_ascend_are_refused():
    with pytest.raises(ValueError, match="ascending order"):
        LearnerConfig.model_validate({"schedule": [{"after": 2, "lr": 3}, {"after": 2, "kl_coef": 0}]})
