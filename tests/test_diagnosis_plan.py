"""What a diagnosis asks of the machine, and says before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill import diagnosis_plan
from raydistill.config.diagnose import Diagnose
from raydistill.config.load import load_job
from raydistill.errors import InputError
from raydistill.tasks.arithmetic import Arithmetic

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
    assert sum(part.processes * part.cpus for part in diagnosis_plan.parts(wide, pair)) == 6


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize("too_much", ["rollout.cpus=2.5", "scorer.cpus=1.5"])
def test_what_is_there_at_once_has_to_fit(too_much: str) -> None:
    with pytest.raises(InputError, match="more actors than there is room for"):
        diagnosis_plan.check(job(too_much))


def test_too_few_pairs_are_said_and_do_not_end_it() -> None:
    (warning,) = [one for one in diagnosis_plan.check(job("evaluation.prompts=3")).warnings if "wrong_pairs" in one]
    assert warning.startswith("wrong_pairs: 200, but 3 prompts of 4 samples have at most 12 pairs")
    assert not any("wrong_pairs" in one for one in diagnosis_plan.check(job()).warnings)


class _NoTune(Arithmetic):
    """A task whose data leave nothing for a split."""

    def prompts(self, split):
        return [] if split == "tune" else super().prompts(split)


def test_a_split_without_prompts_is_one_line(monkeypatch):
    monkeypatch.setattr(diagnosis_plan, "make_task", lambda config: _NoTune())
    with pytest.raises(InputError, match=r"^task: the tune split has no prompts; .*evaluation\.split$"):
        diagnosis_plan.check(job())
    assert diagnosis_plan.check(job("evaluation.split=report", "evaluation.prompts=60")).prompts


def test_too_few_questions_for_a_split_are_one_line(tmp_path):
    file = tmp_path / "few.jsonl"
    file.write_text("".join(f'{{"question": "{n}+1?", "answer": "{n + 1}"}}\n' for n in range(5)))
    with pytest.raises(InputError, match=r"task\.data\.tune: no prompt is left"):
        diagnosis_plan.check(job(f"task={{kind: maths, data: {{train: '{file}'}}}}"))


def test_a_student_after_distillation_is_checked_and_makes_a_pair_of_its_own():
    pair = diagnosis_plan.check(job("after.model=demo:proxy", "evaluation.prompts=60"))
    assert [one.same_tokens for one in pair.students] == [True, False]
    assert [facts.section for facts in pair.facts] == ["teacher", "student", "after"]
    assert pair.after.prompts == pair.prompts
    with pytest.raises(InputError, match=r"after\.model"):
        diagnosis_plan.check(job("after.model=demo:nobody"))


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["rollout.max_model_len=38"], r"rollout\.max_model_len \(38\)"),
        (["max_new_tokens=127", "rollout.max_model_len=1000"], r"the context of teacher\.model \(128\)"),
        (["student.prompt_format=" + "1+1=" * 30 + "{prompt}", "rollout.max_model_len=1000"], r"the context of student\.model \(128\)"),
        (
            ["after={model: demo:proxy, prompt_format: '" + "xy" * 60 + "{prompt}'}", "rollout.max_model_len=1000"],
            r"the context of after\.model",
        ),
    ],
)
def test_prompts_longer_than_a_context_are_one_line(overrides: list[str], names: str) -> None:
    with pytest.raises(InputError, match=rf"^max_new_tokens: \d+ and the longest prompt, \d+ tokens, are more than {names}") as caught:
        diagnosis_plan.check(job(*overrides))
    assert "\n" not in str(caught.value)


def test_completions_too_long_for_a_student_are_warned_of() -> None:
    """The demo's teacher reads each character alone, its proxy pairs."""
    models = ["teacher.model=demo:proxy", "student.model=demo:teacher", "rollout.max_model_len=1000"]
    (warning,) = [one for one in diagnosis_plan.check(job(*models, "max_new_tokens=90")).warnings if "do not fit" in one]
    assert warning.startswith("student.model: writes 1.")
    assert warning.endswith("do not fit its context (128); lower max_new_tokens")
    assert not any("do not fit" in one for one in diagnosis_plan.check(job(*models)).warnings)


def test_gradients_need_room_in_the_process_that_holds_both_models():
    pair = diagnosis_plan.check(job("evaluation.prompts=60"))
    (probed,), (plain,) = (
        [one for one in diagnosis_plan.parts(each, pair) if one.name == "comparer"] for each in (job(), job("gradient_probe=null"))
    )
    assert probed.memory - plain.memory == 4 * pair.student.facts.parameters


@pytest.mark.usefixtures("two_cpus")
def test_what_checks_answers_is_there_with_the_engines_alone() -> None:
    wide = job("rollout.cpus=0.5", "scorer.cpus=1")
    kinds = [[part.name for part in some] for some in diagnosis_plan._at_once(diagnosis_plan.parts(wide, diagnosis_plan.check(wide)))]
    assert kinds == [["rollout", "verifier"], ["scorer"], ["comparer"]]


def test_a_run_says_what_its_diagnosis_will_not_measure() -> None:
    from raydistill import plan
    from raydistill.config.load import load_run

    demo = Path("configs/demo.yaml")
    warnings = plan.check(load_run(demo, ["diagnosis={prompts: 3, samples: 1}"])).warnings
    assert any(one.startswith("diagnosis.wrong_pairs: 200, but 3 prompts of 1 samples have at most 3 pairs") for one in warnings)
    assert not any("wrong_pairs" in one for one in plan.check(load_run(demo, [])).warnings)
    with pytest.raises(InputError, match=r"calibration\.max_new_tokens: 32 .* rollout\.max_model_len \(60\)"):
        plan.check(load_run(demo, ["rollout.max_model_len=60", "students.model.prompt_format='11111111111111111111111111111111{prompt}'"]))
