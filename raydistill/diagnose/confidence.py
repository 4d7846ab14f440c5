"""How sure a model was of the answers that it sampled."""

from __future__ import annotations

import math

from raydistill.diagnose.calibration_error import Answer
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.self_consistency import answer_text
from raydistill.rollout.completion import Completion
from raydistill.students.align import token_places
from raydistill.students.spelling import Spelling
from raydistill.tasks.answers import answer_span


def answers(sampled: Sampled, task: str, spelling: Spelling) -> list[list[Answer]]:
    """By prompt, the answers of completions that have one; a truncated completion, or one with a special token inside, has none."""
    rows = []
    for completions, rights in zip(sampled.completions_BG, sampled.right_BG, strict=True):
        found = [(confidence(one, task, spelling), right, answer_text(one, task)) for one, right in zip(completions, rights, strict=True)]
        rows.append([Answer(sure, bool(right), text or "") for sure, right, text in found if sure is not None])
    return rows


def confidence(completion: Completion, task: str, spelling: Spelling) -> float | None:
    """Probability of the answer given the prompt and all of the trace before it: the product over the tokens that write the answer.

    By the log-probabilities at which they were sampled. None without an answer.
    """
    if completion.truncated or completion.has_special:
        return None
    span = answer_span(task, completion.text)
    if span is None:
        return None
    written = completion.token_ids[:-1] if completion.has_end else completion.token_ids
    places = token_places(spelling.spell(written), completion.text)
    first = places[max(byte for byte in places if byte <= span[0])]
    end = places[min(byte for byte in places if byte >= span[1])]
    return min(1.0, math.exp(math.fsum(completion.logprobs[first:end])))
