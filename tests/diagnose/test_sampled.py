"""What a model wrote, as it is kept and handed on."""

from __future__ import annotations

from pathlib import Path

from raydistill.diagnose.sampled import Sampled
from raydistill.tasks.prompt import Prompt
from tests.diagnose.samples import completion

PROMPTS = tuple(Prompt(str(place), f"prompt {place}", "", "") for place in range(2))
FIRST, SPECIAL, LAST = (
    completion("1", [2], [-0.1]),
    completion("2", [3], [-0.2], special=True),
    completion("3", [4], [-0.3], truncated=True),
)
SAMPLED = Sampled(PROMPTS, ((FIRST, SPECIAL), (SPECIAL, LAST)), ((1.0, 0.0), (0.0, 1.0)), verifier_failures=3)


def test_completions_with_a_special_token_inside_are_not_clean() -> None:
    assert SAMPLED.clean() == [(0, FIRST, 1.0), (1, LAST, 1.0)]
    assert [one for _, one, _ in SAMPLED.rows()] == [FIRST, SPECIAL, SPECIAL, LAST]


def test_all_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "teacher.json").write_text(SAMPLED.to_json())
    assert Sampled.read(tmp_path / "teacher.json", PROMPTS) == SAMPLED
