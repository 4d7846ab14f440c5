"""What a failed run tells its user, and what may share a folder."""

import sys
from pathlib import Path

import pytest

from raydistill.config.load import load_run
from raydistill.demo import at
from raydistill.errors import InputError
from raydistill.jobs import _claim
from raydistill.runlog import resume_command

DEMO = Path("configs/demo.yaml")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["calibrate", "knob.eta=-1", "--out", "a b"], "calibrate knob.eta=-1 --out 'a b' --resume"),
        (["calibrate", "--resume"], "calibrate --resume"),
        (["demo", "--eta", "1"], "demo --eta 1"),
        (["calibrate", "track.uri=postgresql://me:secret@host/db"], "calibrate 'track.uri=postgresql://me:***@host/db' --resume"),
        (["sweep", "track={uri: postgresql://me:secret@host/db}"], "sweep 'track={uri: postgresql://me:***@host/db}' --resume"),
    ],
)
def test_the_command_that_resumes(given: list[str], shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["workflows/calibrate.py", *given])
    program, _, rest = resume_command().partition(" ")
    assert rest == shown
    assert Path(program).is_file()


def test_baselines_are_shared_by_runs_that_differ_in_the_knob_setting_alone(tmp_path: Path) -> None:
    run = load_run(DEMO)
    _claim(tmp_path / "baselines", at(run, -1.0))
    _claim(tmp_path / "baselines", at(run, 2.0))
    with pytest.raises(InputError, match="baselines of runs with another config"):
        _claim(tmp_path / "baselines", load_run(DEMO, ["calibration.max_new_tokens=16"]))


def test_a_knob_setting_that_the_config_forbids() -> None:
    with pytest.raises(InputError, match=r"--eta -1\.0: knob: denominator 'current' with eta < 0"):
        at(load_run(DEMO, ["knob.denominator=current"]), -1.0)


def test_a_method_given_twice() -> None:
    with pytest.raises(InputError, match=r"students\.methods: a method is given twice"):
        load_run(DEMO, ["students.methods=[{method: seqkd, steps: 10}, {method: seqkd, steps: 20}]"])
