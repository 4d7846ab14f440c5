"""What is refused before an actor starts."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.config.load import load_run
from raydistill.config.models import ModelConfig
from raydistill.errors import InputError
from raydistill.models.lineup import line_up
from raydistill.models.preflight import ModelRef, inspect_model
from raydistill.models.trio import demo_model
from raydistill.plan import check, longest_prompt, parts, show_plan
from raydistill.students.data import Reader
from raydistill.students.job import make_reader

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


@pytest.fixture(scope="module")
def pairs_of_characters() -> Reader:
    """The proxy's, which makes one token of `1+` and two of `12`."""
    facts = inspect_model(ModelRef("proxy", "demo:proxy"))
    return make_reader(facts, ModelConfig(model=str(facts.folder)))


@given(st.lists(st.text("1+-= \u00e4", min_size=1), min_size=1, max_size=60))
def test_the_longest_prompt_is_the_one_with_the_most_tokens(pairs_of_characters: Reader, texts: list[str]) -> None:
    assert longest_prompt(pairs_of_characters, texts) == max(len(pairs_of_characters.prompt(text)) for text in texts)


def test_many_prompts_of_more_characters_do_not_hide_it(pairs_of_characters: Reader) -> None:
    many = ["".join("12"[int(bit)] + "+" for bit in f"{n:020b}") for n in range(40)]
    assert max(len(pairs_of_characters.prompt(text)) for text in many) < 38
    assert longest_prompt(pairs_of_characters, [*many, "1" * 38]) == len(pairs_of_characters.prompt("1" * 38)) == 39


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


def _copy(role: str, tmp_path: Path, **fields: Any) -> Path:
    """The demo model with other fields in its tokenizer.json."""
    folder = shutil.copytree(demo_model(role), tmp_path / role)  # type: ignore[arg-type]
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | fields))
    return folder


def test_a_tokenizer_that_makes_all_prompts_one(tmp_path: Path) -> None:
    blind = _copy("proxy", tmp_path, normalizer={"type": "Replace", "pattern": {"Regex": "[0-9a-j]"}, "content": "0"})
    with pytest.raises(InputError, match=r"^proxy\.model: its tokenizer makes the same tokens of different prompts, '.*' and '.*'; "):
        check(load_run(DEMO, [f"proxy.model={blind}"]))


def test_a_tokenizer_that_does_not_know_a_character_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unaware = _copy("proxy", tmp_path, normalizer={"type": "Replace", "pattern": {"String": "="}, "content": "?"})
    run = load_run(DEMO, [f"proxy.model={unaware}"])
    lineup = check(run)
    assert any(warning.startswith("proxy.model: its tokenizer does not know all characters of ") for warning in lineup.warnings)
    show_plan(run, lineup, tmp_path)
    assert "warning: proxy.model: its tokenizer does not know" in capsys.readouterr().out


def test_a_prompt_that_begins_twice() -> None:
    with pytest.raises(InputError, match=r"^students\.model\.prompt_format: a prompt begins with <bos> twice"):
        check(load_run(DEMO, ["students.model.prompt_format=<bos>{prompt}"]))


def test_a_student_whose_logits_would_be_large_is_planned_to_make_them_in_chunks() -> None:
    """As its passes grow, so do their logits; above a limit, they are never held at once."""

    def memory(tokens: int) -> float:
        run = load_run(DEMO, [f"students.micro_batch_tokens={tokens}"])
        (student,) = [part for part in parts(run, line_up(run)) if part.name == "student"]
        return student.memory

    rows = 39
    assert memory(20_000) - memory(10_000) == 16 * 10_000 * rows
    limit = 2**26 // rows
    assert memory(limit + 1) == memory(10 * limit) < memory(limit)


def test_the_demo_has_nothing_to_warn_of() -> None:
    assert check(load_run(DEMO)).warnings == ()
