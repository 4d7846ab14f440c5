from pathlib import Path

import pytest

from raydistill import diagnosis_plan
from raydistill.config.diagnose import Diagnose
from raydistill.config.load import load_job
from raydistill.diagnosis_plan import check, parts
from raydistill.errors import InputError
from raydistill.tasks.arithmetic import Arithmetic


def job(*overrides):
    return load_job(Diagnose, Path("configs/diagnose.yaml"), overrides)


class _NoTune(Arithmetic):
    """A task whose data leave nothing for a split."""

    def prompts(self, split):
        return [] if split == "tune" else super().prompts(split)


def test_a_split_without_prompts_is_one_line(monkeypatch):
    monkeypatch.setattr(diagnosis_plan, "make_task", lambda config: _NoTune())
    with pytest.raises(InputError, match=r"^task: the tune split has no prompts; .*evaluation\.split$"):
        check(job())
    assert check(job("evaluation.split=report", "evaluation.prompts=60")).prompts


def test_too_few_questions_for_a_split_are_one_line(tmp_path):
    file = tmp_path / "few.jsonl"
    file.write_text("".join(f'{{"question": "{n}+1?", "answer": "{n + 1}"}}\n' for n in range(5)))
    with pytest.raises(InputError, match=r"task\.data\.tune: no prompt is left"):
        check(job(f"task={{kind: maths, data: {{train: '{file}'}}}}"))


def test_a_student_after_distillation_is_checked_and_makes_a_pair_of_its_own():
    pair = check(job("after.model=demo:proxy", "evaluation.prompts=60"))
    assert [one.same_tokens for one in pair.students] == [True, False]
    assert [facts.section for facts in pair.facts] == ["teacher", "student", "after"]
    assert pair.after.prompts == pair.prompts
    with pytest.raises(InputError, match=r"after\.model"):
        check(job("after.model=demo:nobody"))


def test_gradients_need_room_in_the_process_that_holds_both_models():
    pair = check(job("evaluation.prompts=60"))
    (probed,), (plain,) = ([one for one in parts(each, pair) if one.name == "comparer"] for each in (job(), job("gradient_probe=null")))
    assert probed.memory - plain.memory == 4 * pair.student.facts.parameters
