"""What counts as right, and what the shares and means are shares and means of."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from raydistill.evaluate.evaluation import Evaluation
from raydistill.evaluate.measure import measure
from raydistill.rollout.completion import Completion, Sampling, StopReason, TokenPrompt
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.verifier import Verifier

PROMPTS = [Prompt(id=f"p{n}", text=f"{n}?", answer=str(n), gold="") for n in range(3)]
TOKEN_PROMPTS = [TokenPrompt(prompt.id, (n,)) for n, prompt in enumerate(PROMPTS)]


class Echo:
    """Right where the completion ends with the answer; its style is its first letter. `crash` ends the process that checks."""

    name = "echo"

    def prompts(self, split: Split) -> list[Prompt]:
        return PROMPTS

    def verify(self, prompt: Prompt, completion: str) -> bool:
        if completion == "crash":
            os._exit(1)
        return completion.endswith(prompt.answer)

    def style(self, completion: str) -> str:
        return completion[:1]


def _completion(text: str, tokens: int = 2, stop: StopReason = StopReason.END, has_special: bool = False) -> Completion:
    return Completion("p", 0, (1,), (5,) * tokens, (-1.0,) * tokens, text, stop, has_special, weights_version=3)


SAMPLED = [
    [_completion("a0"), _completion("b1", tokens=4)],
    [_completion("a1"), _completion("a1", has_special=True)],
    [_completion("crash", stop=StopReason.LENGTH), _completion("b2", tokens=6, stop=StopReason.LENGTH)],
]
GREEDY = [[_completion("a0")], [_completion("1", has_special=True)], [_completion("crash")]]


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    asked: list[Sampling] = []

    def generate(prompts: Sequence[TokenPrompt], sampling: Sampling) -> list[list[Completion]]:
        assert prompts == TOKEN_PROMPTS
        asked.append(sampling)
        return GREEDY if sampling.greedy else SAMPLED

    with Verifier(Echo(), workers=1, timeout=10.0) as verifier:
        result = measure(generate, Echo(), verifier, PROMPTS, TOKEN_PROMPTS, samples=2, max_new_tokens=9, seed=5)
    assert asked == [Sampling(2, 9, greedy=False, seed=5), Sampling(1, 9, greedy=True)]
    return result


def test_a_special_token_or_a_failed_check_makes_a_completion_wrong(evaluation: Evaluation) -> None:
    assert evaluation.prompt_ids == ("p0", "p1", "p2")
    assert evaluation.sampled_BG == ((True, False), (True, False), (False, True))
    assert evaluation.greedy_B == (True, False, False)


def test_failed_checks_of_both_kinds_of_sampling_are_counted(evaluation: Evaluation) -> None:
    assert evaluation.verifier_failures == 2


def test_styles_lengths_and_truncation_are_of_the_sampled_completions(evaluation: Evaluation) -> None:
    assert evaluation.styles == pytest.approx({"a": 3 / 6, "b": 2 / 6, "c": 1 / 6})
    assert evaluation.style_accuracy == pytest.approx({"a": 2 / 3, "b": 1 / 2, "c": 0})
    assert evaluation.length == pytest.approx((2 + 4 + 2 + 2 + 2 + 6) / 6)
    assert evaluation.truncated == pytest.approx(2 / 6)


def test_an_evaluation_survives_its_file(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(evaluation.to_json())
    assert Evaluation.read(path) == evaluation
