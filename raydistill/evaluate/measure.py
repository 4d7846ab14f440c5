"""Measures one model on one split: sampled at temperature 1 and greedy, every completion checked by the task's verifier."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raydistill.evaluate.evaluation import Evaluation
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.tasks.verifier import Outcome, Verifier

if TYPE_CHECKING:
    from raydistill.tasks.prompt import Prompt, Task

Generate = Callable[[Sequence[TokenPrompt], Sampling], list[list[Completion]]]
"""`Sampling.samples` completions of each prompt, in order: a pool's `generate`, or an engine's at one version."""


def measure(
    generate: Generate,
    task: Task,
    verifier: Verifier,
    prompts: Sequence[Prompt],
    token_prompts: Sequence[TokenPrompt],
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> Evaluation:
    """Outcomes of `samples` completions a prompt at temperature 1 and of the greedy one.

    `token_prompts` are `prompts` as the model reads them, in the same order. A completion with a special token inside is
    wrong, whatever its text says; one whose check times out or crashes is wrong and counted.
    """
    sampled_BG = generate(token_prompts, Sampling(samples, max_new_tokens, seed=seed))
    greedy_B1 = generate(token_prompts, Sampling(1, max_new_tokens, greedy=True))
    checks_BG = check_completions(verifier, prompts, sampled_BG)
    checks_B1 = check_completions(verifier, prompts, greedy_B1)
    right_BG = tuple(tuple(outcome is Outcome.RIGHT for outcome in row) for row in checks_BG)
    styles_N = [task.style(completion.text) for row in sampled_BG for completion in row]
    styles, style_accuracy = by_style(styles_N, [right for row in right_BG for right in row])
    total = len(styles_N)
    return Evaluation(
        prompt_ids=tuple(prompt.id for prompt in prompts),
        sampled_BG=right_BG,
        greedy_B=tuple(outcome is Outcome.RIGHT for (outcome,) in checks_B1),
        styles=styles,
        style_accuracy=style_accuracy,
        length=sum(len(completion.token_ids) for row in sampled_BG for completion in row) / total,
        truncated=sum(completion.truncated for row in sampled_BG for completion in row) / total,
        verifier_failures=sum(outcome.failed for row in (*checks_BG, *checks_B1) for outcome in row),
    )


def check_completions(verifier: Verifier, prompts: Sequence[Prompt], completions_BG: Sequence[Sequence[Completion]]) -> list[list[Outcome]]:
    """The outcome of every completion; one with a special token inside is wrong without a check.

    Its tokens could read as another text once a tokenizer has decoded them: what was sampled is not what would be checked.
    """
    pairs = [(prompt, completion) for prompt, row in zip(prompts, completions_BG, strict=True) for completion in row]
    clean = [(prompt, completion.text) for prompt, completion in pairs if not completion.has_special]
    checked = iter(verifier.verify([prompt for prompt, _ in clean], [text for _, text in clean]))
    return [[Outcome.WRONG if completion.has_special else next(checked) for completion in row] for row in completions_BG]


def by_style(styles_N: Sequence[str], right_N: Sequence[bool]) -> tuple[dict[str, float], dict[str, float]]:
    """Each style's share of the completions, and the share of right ones within it; in alphabetical order."""
    by_style: dict[str, list[bool]] = defaultdict(list)
    for style, right in sorted(zip(styles_N, right_N, strict=True)):
        by_style[style].append(right)
    shares = {style: len(rights) / len(styles_N) for style, rights in by_style.items()}
    return shares, {style: sum(rights) / len(rights) for style, rights in by_style.items()}
