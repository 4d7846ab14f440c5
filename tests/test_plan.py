"""What is refused before an actor starts."""

from pathlib import Path

import pytest

from raydistill.config.load import load_run
from raydistill.errors import InputError
from raydistill.plan import check, parts

DEMO = Path("configs/demo.yaml")


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["rollout.max_model_len=38"], "rollout.max_model_len .38."),
        (["calibration.max_new_tokens=500", "rollout.max_model_len=1000"], "the context of teacher.model"),
        (["proxy.prompt_format=" + "a b c " * 30 + "{prompt}"], "the context of proxy.model"),
        (["students.model.prompt_format=" + "1+1=" * 30 + "{prompt}"], "the context of students.model"),
    ],
)
def test_a_context_too_short_for_prompt_and_completion(overrides: list[str], names: str) -> None:
    with pytest.raises(InputError, match=rf"calibration\.max_new_tokens: .*{names}"):
        check(load_run(DEMO, overrides))


def test_shadows_are_checked_as_other_models_are_and_planned_in_the_proxys_place() -> None:
    run = load_run(Path("configs/shadows.yaml"))
    lineup = check(run)
    names = [part.name for part in parts(run, lineup)]
    assert names.count("shadow") == 1
    assert "proxy" not in names
    assert [role.facts.section for role in lineup.shadows] == ["shadows.models.0"]
    with pytest.raises(InputError, match=r"^shadows\.models\.0\.model: no demo model"):
        check(load_run(Path("configs/shadows.yaml"), ["shadows.models.0.model=demo:shadow"]))
    with pytest.raises(InputError, match=r"shadow 1 x 50"):
        check(load_run(Path("configs/shadows.yaml"), ["shadows.cpus=50"]))


@pytest.mark.parametrize("method", ["kd", "gkd"])
def test_a_student_whose_tokens_are_not_the_teachers(method: str) -> None:
    overrides = ["proxy.model=demo:student", "students.model.model=demo:proxy", f"students.methods=[{{method: {method}}}]"]
    with pytest.raises(InputError, match=rf"^students\.model: {method} needs the teacher's vocabulary"):
        check(load_run(DEMO, overrides))
    check(load_run(DEMO, [*overrides[:2], "students.methods=[{method: seqkd}]"]))
