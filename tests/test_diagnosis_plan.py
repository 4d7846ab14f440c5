"""What a diagnosis asks of the machine, and says before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill import diagnosis_plan
from raydistill.config.diagnose import Diagnose
from raydistill.config.load import load_job
from raydistill.errors import InputError

CONFIG = Path("configs/diagnose.yaml")


def job(*overrides: str) -> Diagnose:
    return load_job(Diagnose, CONFIG, list(overrides))


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.plan.capacity", lambda: {"CPU": 2.0, "GPU": 0.0})


@pytest.mark.usefixtures("two_cpus")
def test_parts_that_come_one_after_the_other_share_the_machine() -> None:
    wide = job("rollout.cpus=2", "scorer.cpus=1")
    pair = diagnosis_plan.check(wide)
    assert sum(part.processes * part.cpus for part in diagnosis_plan.parts(wide, pair)) == 5


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize("too_much", ["rollout.cpus=2.5", "scorer.cpus=1.5"])
def test_what_is_there_at_once_has_to_fit(too_much: str) -> None:
    with pytest.raises(InputError, match="more actors than there is room for"):
        diagnosis_plan.check(job(too_much))


def test_too_few_pairs_are_said_and_do_not_end_it() -> None:
    (warning,) = [one for one in diagnosis_plan.check(job("evaluation.prompts=3")).warnings if "wrong_pairs" in one]
    assert warning.startswith("wrong_pairs: 200, but 3 prompts of 4 samples have at most 12 pairs")
    assert not any("wrong_pairs" in one for one in diagnosis_plan.check(job()).warnings)


def test_a_split_without_prompts_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text('{"question": "1+1=", "answer": "2"}\n')
    with pytest.raises(InputError, match=r"task.*tune"):
        diagnosis_plan.check(job(f"task={{kind: maths, data: {{train: {data}}}}}"))
