"""Measures one model on one split: sampled at temperature 1 and greedy, every completion checked by the task's verifier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raydistill.evaluate.evaluation import Evaluation
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.tasks.outcome import Checked, Checker, Outcome

if TYPE_CHECKING:
    from raydistill.tasks.prompt import Prompt, Task

Generate = Callable[[Sequence[TokenPrompt], Sampling], list[list[Completion]]]
"""`Sampling.samples` completions of each prompt, in order: a pool's `generate`, or an engine's at one version."""


def measure(
    generate: Generate,
    task: Task,
    verifier: Checker,
    prompts: Sequence[Prompt],
    token_prompts: Sequence[TokenPrompt],
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> Evaluation:
    """Outcomes of `samples` completions a prompt at temperature 1 and of the greedy one.

    `token_prompts` are `prompts` as the model reads them, in the same order. A completion with a special token inside is
    wrong, whatever its text says; one whose check times out or crashes is wrong and counted.
    Wrong is a reward of 0 where the task is graded.
    """
    sampled_BG = generate(token_prompts, Sampling(samples, max_new_tokens, seed=seed))
    greedy_B1 = generate(token_prompts, Sampling(1, max_new_tokens, greedy=True))
    checks_BG = check_completions(verifier, prompts, sampled_BG)
    checks_B1 = check_completions(verifier, prompts, greedy_B1)
    rewards_BG = tuple(tuple(outcome.reward for outcome in row) for row in checks_BG)
    styles_N = [task.style(completion.text) for row in sampled_BG for completion in row]
    styles, style_accuracy = by_style(styles_N, [reward for row in rewards_BG for reward in row])
    total = len(styles_N)
    return Evaluation(
        prompt_ids=tuple(prompt.id for prompt in prompts),
        sampled_BG=rewards_BG,
        greedy_B=tuple(outcome.reward for (outcome,) in checks_B1),
        styles=styles,
        style_accuracy=style_accuracy,
        length=sum(len(completion.token_ids) for row in sampled_BG for completion in row) / total,
        truncated=sum(completion.truncated for row in sampled_BG for completion in row) / total,
        verifier_failures=sum(outcome.failed for row in (*checks_BG, *checks_B1) for outcome in row),
    )


def check_completions(verifier: Checker, prompts: Sequence[Prompt], completions_BG: Sequence[Sequence[Completion]]) -> list[list[Checked]]:
    """The outcome of every completion; one with a special token inside is wrong without a check.

    Its tokens could read as another text once a tokenizer has decoded them: what was sampled is not what would be checked.
    """
    pairs = [(prompt, completion) for prompt, row in zip(prompts, completions_BG, strict=True) for completion in row]
    clean = [(prompt, completion.text) for prompt, completion in pairs if not completion.has_special]
    checked = iter(verifier.verify([prompt for prompt, _ in clean], [text for _, text in clean]))
    return [[Outcome.WRONG if completion.has_special else next(checked) for completion in row] for row in completions_BG]


def by_style(styles_N: Sequence[str], rewards_N: Sequence[float]) -> tuple[dict[str, float], dict[str, float]]:
    """Each style's share of the completions, and the mean reward (share of right ones) within it; in alphabetical order."""
    by_style: dict[str, list[float]] = defaultdict(list)
    for style, reward in sorted(zip(styles_N, rewards_N, strict=True)):
        by_style[style].append(reward)
    shares = {style: len(rewards) / len(styles_N) for style, rewards in by_style.items()}
    return shares, {style: sum(rewards) / len(rewards) for style, rewards in by_style.items()}
