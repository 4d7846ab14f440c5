"""What a teacher's students are fed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from raydistill.evaluate.measure import by_style, check_completions
from raydistill.report.facts import TraceFacts
from raydistill.rollout.completion import Completion, Sampling
from raydistill.students.data import Trace
from raydistill.tasks.outcome import Checked, Checker
from raydistill.tasks.prompt import Prompt, Task


@dataclass(frozen=True)
class TraceSet:
    """What a teacher's students are fed."""

    traces: tuple[Trace, ...]
    facts: TraceFacts

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: Path) -> TraceSet:
        data = json.loads(path.read_text())
        return cls(tuple(Trace(**trace) for trace in data["traces"]), TraceFacts(**data["facts"]))


def sample_traces(
    generate: Callable[[Sequence[Prompt], Sampling], list[list[Completion]]],
    task: Task,
    verifier: Checker,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    seed: int,
) -> TraceSet:
    """One trace of each prompt, of which those with a special token inside are left out: its text is not what was sampled.

    Where that leaves none, there are no traces, and the facts are those of all that was sampled.
    """
    tagged = [replace(prompt, id=f"{place}:{prompt.id}") for place, prompt in enumerate(prompts)]
    completions = generate(tagged, Sampling(1, max_new_tokens, seed=8_000_000_000 + seed))
    outcomes = [row[0] for row in check_completions(verifier, prompts, completions)]
    flat = [row[0] for row in completions]
    kept = [index for index, completion in enumerate(flat) if not completion.has_special]
    shown = kept or range(len(flat))
    facts = _trace_facts(task, [flat[i] for i in shown], [outcomes[i] for i in shown], 1 - len(kept) / len(flat))
    return TraceSet(tuple(Trace(prompts[i].text, flat[i].text, flat[i].has_end) for i in kept), facts)


def _trace_facts(task: Task, completions: Sequence[Completion], outcomes: Sequence[Checked], dropped: float) -> TraceFacts:
    rewards = [outcome.reward for outcome in outcomes]
    return TraceFacts(
        accuracy=float(np.mean(rewards)),
        length=float(np.mean([len(c.token_ids) for c in completions])),
        truncated=float(np.mean([c.truncated for c in completions])),
        style=by_style([task.style(c.text) for c in completions], rewards)[0],
        dropped=dropped,
    )
