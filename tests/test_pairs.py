"""Which pairs of a run are diagnosed, and what they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.config.load import load_run
from raydistill.models.lineup import line_up
from raydistill.pair_job import PairJob
from raydistill.pairs import Pairs
from raydistill.runfolder import RunFolder
from raydistill.tasks.arithmetic import Arithmetic


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    run = load_run(Path("configs/demo.yaml"), ["seeds=[1,2]", "evaluation.prompts=50"])
    root = tmp_path_factory.mktemp("pairs")
    task = Arithmetic()
    return Pairs(run, line_up(run), RunFolder(root / "run", 1), root / "baselines", task, task.prompts("report")[:50])


def names(stages: list[list[PairJob]]) -> list[list[str]]:
    return [[job.out.stem for job in jobs] for jobs in stages]


def flat(stages: list[list[PairJob]]) -> list[PairJob]:
    return [job for jobs in stages for job in jobs]


def test_every_student_is_paired_with_its_own_teacher_and_the_base_with_all(pairs: Pairs) -> None:
    assert names(pairs.shared()) == [["base"], ["control-seqkd-1", "control-gkd-1", "control-seqkd-2", "control-gkd-2"]]
    assert names(pairs.own()) == [["base-1", "base-2"], ["seqkd-1", "gkd-1", "seqkd-2", "gkd-2"]]
    by_name = {job.out.stem: job.diagnose for job in flat([*pairs.shared(), *pairs.own()])}
    assert by_name["gkd-2"].teacher.model == str(pairs.folder.seed(2).teacher)
    assert by_name["gkd-2"].student.model == str(pairs.folder.student("gkd-2"))
    assert by_name["control-gkd-2"].student.model == str(pairs.baselines / "students" / "control-gkd-2")
    assert by_name["control-gkd-2"].teacher == by_name["base"].teacher
    assert by_name["base-2"].student == by_name["base"].student
    assert by_name["gkd-2"].seed == 2


def test_no_two_jobs_of_a_stage_write_the_same_file_and_later_ones_find_what_earlier_ones_sampled(pairs: Pairs) -> None:
    written: set[Path] = set()
    for jobs in (*pairs.shared(), *pairs.own()):
        fresh = [path for job in jobs for path in (job.out, *job.completions) if path not in written]
        assert len(set(fresh)) == len(fresh)
        written |= set(fresh)
    assert len(written) == 11 + (1 + 2) + (1 + 4 + 4)  # diagnoses; of teachers; of base, controls and students


def test_what_does_not_depend_on_the_knob_lies_with_the_baselines(pairs: Pairs) -> None:
    for job in flat(pairs.shared()):
        assert all(pairs.baselines in path.parents for path in (job.out, *job.completions))
    assert all(pairs.folder.root in job.out.parents for job in flat(pairs.own()))


def test_prompts_are_the_run_s_and_no_more_than_it_measures_on(pairs: Pairs) -> None:
    config = pairs.shared()[0][0].diagnose
    assert [prompt.id for prompt in pairs.shared()[0][0].prompts] == [prompt.id for prompt in Arithmetic().prompts("report")[:50]]
    assert (config.evaluation.split, config.evaluation.prompts, config.evaluation.student_samples) == ("report", 50, 4)
    assert (config.max_new_tokens, config.task) == (pairs.run.calibration.max_new_tokens, pairs.run.task)


def test_facts_put_base_first_and_seeds_in_order(pairs: Pairs) -> None:
    jobs = flat([*pairs.shared(), *pairs.own()])
    facts = pairs.facts({job.out: {"name": job.out.stem} for job in jobs})
    assert [one.student for one in facts] == ["base", "seqkd", "gkd"]
    assert [one["name"] for one in facts[0].original] == ["base"]
    assert [one["name"] for one in facts[2].original] == ["control-gkd-1", "control-gkd-2"]
    assert [one["name"] for one in facts[2].calibrated] == ["gkd-1", "gkd-2"]
