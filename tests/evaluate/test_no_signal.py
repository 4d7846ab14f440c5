import re

import pytest

from raydistill.evaluate.no_signal import no_signal


@pytest.mark.parametrize(
    ("right_BG", "warning"),
    [
        ([[False] * 4] * 400, r"^all 1,600 completions of the teacher are wrong: the task gives no signal; .*task\.answer_pattern"),
        ([[True, True], [True, True]], r"^all 4 completions of the teacher are right: the task gives no signal; choose harder prompts$"),
    ],
)
def test_a_task_that_never_or_always_passes_is_warned_about(right_BG, warning):
    told = no_signal("the teacher", right_BG, 0)
    assert told is not None
    assert re.search(warning, told)
    assert "\n" not in told


@pytest.mark.parametrize("right_BG", [[[True, False]], [[True, True], [False, False]], []])
def test_a_task_that_tells_completions_apart_is_not(right_BG):
    assert no_signal("the teacher", right_BG, 0) is None


def test_a_graded_task_whose_rewards_are_all_alike_gives_none_either() -> None:
    assert "all 2 completions of the teacher have a reward of 0.5" in str(no_signal("the teacher", [[0.5], [0.5]], 0))
    assert no_signal("the teacher", [[0.5], [0.25]], 0) is None


def test_checks_that_failed_are_said_and_what_to_look_at() -> None:
    told = str(no_signal("the teacher", [[0.0], [0.0]], 1))
    assert told.startswith(
        "all 2 completions of the teacher are wrong, and 1 checks failed: the task gives no signal; look at why they did ("
    )
    assert "a reward model that gives no number" in told
    assert no_signal("the teacher", [[0.0], [1.0]], 1) is None
