"""The trials of a sweep: which there are, under which names, and which share what does not depend on the knob."""

import json

import pytest
import yaml

from raydistill.config.load import load_job
from raydistill.config.sweep import Sweep
from raydistill.errors import InputError
from raydistill.files import lock_of
from raydistill.looks import look_steps
from raydistill.trials import sweep_json, trials_of, unmoved

MINIMAL = {"name": "s", "teacher": {"model": "demo:teacher"}, "proxy": {"model": "demo:proxy"}}
STUDENTS = "students={model: {model: 'demo:student'}, methods: [{method: seqkd}]}"
PBT = [STUDENTS, "sweep.eta=[1]", "sweep.over={learner.lr: [1e-3, 2e-3]}", "sweep.scheduler={kind: pbt}"]


def sweep(tmp_path, *overrides):
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(MINIMAL))
    return load_job(Sweep, path, overrides)


def trials(tmp_path, *overrides):
    return trials_of(sweep(tmp_path, *overrides), tmp_path / "out")


def test_a_list_or_a_range_of_etas_crossed_with_other_fields(tmp_path):
    found = trials(tmp_path, "sweep.eta=[1, -1, 0.5]", "sweep.over={learner.lr: [1e-3, 2e-3], seeds: [[1], [1, 2]]}")
    assert len(found) == 12
    assert [trial.run.knob.eta for trial in found[:3]] == [-1, 0.5, 1]
    first = found[0]
    assert first.overrides == {"knob.eta": -1.0, "learner.lr": 0.001, "seeds": [1]}
    assert (first.run.learner.lr, first.run.seeds) == (0.001, (1,))
    assert first.id.startswith("eta-1-lr0.001-seeds")
    assert first.run.name == f"s-{first.id}"
    assert first.folder.root == tmp_path / "out" / "trials" / first.id
    assert len({trial.id for trial in found}) == 12
    ranged = trials(tmp_path, "sweep.eta={low: -2, high: 2, count: 9}")
    assert [trial.run.knob.eta for trial in ranged] == [-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2]
    assert [trial.id for trial in ranged[3:6]] == ["eta-0.5", "eta+0", "eta+0.5"]


def test_one_eta_and_nested_fields_are_taken_as_they_are_meant(tmp_path):
    found = trials(tmp_path, "sweep.eta=1", "sweep.over.learner.lr=[1e-3, 2e-3]")
    assert [trial.id for trial in found] == ["eta+1-lr0.001", "eta+1-lr0.002"]


def test_no_two_trials_have_one_lock(tmp_path):
    found = trials(tmp_path, "sweep.eta=[0, 0.25, 0.5]", "sweep.over={learner.lr: [1e-3, 2e-3]}")
    assert len({lock_of(trial.folder.root) for trial in found}) == len(found)


def test_a_trial_that_is_over_before_its_first_look_is_refused(tmp_path):
    looks = [STUDENTS, "sweep.eta=[1]", "sweep.scheduler={kind: asha, first_look: 5}"]
    with pytest.raises(InputError, match=r"eta\+1-steps4: sweep\.scheduler\.first_look \(5\) comes after calibration\.steps \(4\)"):
        trials(tmp_path, *looks, "sweep.over={calibration.steps: [40, 4]}")


def test_trials_share_what_does_not_depend_on_how_the_teacher_is_moved(tmp_path):
    shared = trials(tmp_path, "sweep.eta=[-1, 1]", "sweep.over={learner.lr: [1e-3, 2e-3], knob.kl_budget: [0.4, 0.5]}")
    assert len({trial.baselines for trial in shared}) == 1
    apart = trials(tmp_path, "sweep.eta=[-1, 1]", STUDENTS, "sweep.over={students.methods.0.steps: [10, 20], seeds: [[1], [2]]}")
    assert len({trial.baselines for trial in apart}) == 4
    assert {trial.run.students.methods[0].steps for trial in apart} == {10, 20}
    assert unmoved(shared[0].run) == unmoved(shared[-1].run)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["sweep.eta=[]"], ["sweep.eta", "at least 1"]),
        (["sweep.eta=[a]"], ["sweep.eta.0: ", "number"]),
        (["sweep.eta={low: 2, high: -2, count: 3}"], ["sweep.eta: low (2)", "below high"]),
        (["sweep.eta=[1, 0.5, 1]"], ["sweep.eta", "1 is given twice"]),
        (["sweep.eta={low: 1, high: 1, count: 3}"], ["sweep.eta", "below high"]),
        (["sweep.eta={low: 0, high: 1, count: 1}"], ["sweep.eta", "greater than or equal to 2"]),
        (["sweep.over={learner.lr: []}"], ["sweep.over.learner.lr", "at least 1"]),
        (["sweep.over={knob.eta: [1, 2]}"], ["sweep.over", "'knob.eta'", "sweep.eta"]),
        (["sweep.over={sweep.retries: [1, 2]}"], ["sweep.over", "'sweep.retries'"]),
        (["sweep.over={track.uri: [null]}"], ["sweep.over", "'track.uri'"]),
        (["sweep.scheduler={kind: asha}"], ["asha", "students"]),
        (["sweep.scheduler={kind: asha, first_look: 50}", STUDENTS], ["first_look (50)", "calibration.steps (40)"]),
        (["sweep.scheduler={kind: asha, keep: best}", STUDENTS], ["sweep.scheduler.keep", "'high' or 'low'"]),
        (["sweep.scheduler={kind: asha, metric: beauty}", STUDENTS], ["sweep.scheduler", "'metric'", "known fields"]),
        (["sweep.scheduler={kind: pbt}", "sweep.eta=[1]", STUDENTS], ["sweep.over", "learner.lr and learner.kl_coef", "none is given"]),
        ([*PBT, "sweep.over={seeds: [[1], [2]]}"], ["sweep.over", "learner.lr and learner.kl_coef", "seeds"]),
        ([*PBT, "sweep.eta=[-1, 1]"], ["sweep.eta", "one eta"]),
        ([*PBT, "sweep.scheduler.every=50"], ["every (50)", "calibration.steps (40)"]),
        ([*PBT, "learner.schedule=[{after: 3, lr: 1}]"], ["learner.schedule", "leave it out"]),
        (["knob.target={student_ratio: 0.8}", STUDENTS], ["knob.target", "a sweep sets it"]),
        (["sweep.etas=[1]"], ["'etas'", "did you mean 'eta'"]),
    ],
)
def test_what_is_refused_names_the_field_on_a_line(tmp_path, overrides, names):
    with pytest.raises(InputError) as error:
        sweep(tmp_path, *overrides)
    assert all(name in str(error.value) for name in names), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("over", "names"),
    [
        ("{learner.lrr: [1e-3]}", ["learner", "'lrr'", "did you mean 'lr'"]),
        ("{learner.lr: [-1]}", ["learner.lr", "greater than 0"]),
        ("{learner.lr: [1e-3, 0.001]}", ["two trials would be called eta-1-lr0.001"]),
        ("{learner.lr: [1e-3], learner: [{}]}", ["'learner'", "'learner.lr'", "a part of it"]),
        ("{knob: [{cal_on: all}]}", ["'knob'", "'knob.eta'"]),
        ("{knob.target.student_ratio: [0.8]}", ["knob.target", "moves eta"]),
        ("{name.first: [1]}", ["'name' holds 's'"]),
        ("{'': [1]}", ["looks like knob.eta"]),
    ],
)
def test_a_field_to_cross_with_must_be_one_and_take_its_values(tmp_path, over, names):
    with pytest.raises(InputError) as error:
        trials(tmp_path, "sweep.eta=[-1]", f"sweep.over={over}")
    assert all(name in str(error.value) for name in names), error.value


def test_what_became_of_a_trial_is_told_by_its_folder(tmp_path):
    done, stopped, failed, never = trials(tmp_path, "sweep.eta=[1, 2, 3, 4]")
    for trial in (done, stopped, failed):
        trial.folder.root.mkdir(parents=True)
    from raydistill.track.secrets import public_yaml

    done.folder.config.write_text(public_yaml(done.run))
    done.folder.report.write_text('{"knob": {"eta": 1}}')
    stopped.stopped.write_text('{"steps": 5, "student": 0.1}')
    failed.failed.write_text("it broke\n")
    assert [trial.is_over() for trial in (done, stopped, failed, never)] == [True, True, False, False]
    entries = sweep_json("s", [done, stopped, failed, never])["trials"]
    assert [entry["status"] for entry in entries] == ["done", "stopped", "failed", "failed"]
    assert [entry["report"] for entry in entries] == [{"knob": {"eta": 1}}, None, None, None]
    assert [entry["error"] for entry in entries] == [None, None, "it broke", None]
    assert json.dumps(entries)


def test_looks_come_at_multiples(tmp_path):
    job = sweep(tmp_path, STUDENTS, "sweep.scheduler={kind: asha, first_look: 5}")
    assert look_steps(job.sweep.scheduler, 41) == [5, 10, 20, 40]
    assert look_steps(job.sweep.scheduler, 40) == [5, 10, 20]
    assert look_steps(job.sweep.scheduler, 6) == [5]
