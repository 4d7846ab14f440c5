"""What either model finds of texts, each in its own tokens: the gap."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from raydistill.config.diagnose import Diagnose
from raydistill.config.task import is_graded
from raydistill.diagnose import findings
from raydistill.diagnose.findings import Json, not_measured
from raydistill.diagnose.hands import Hands
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.wrong_traces import FEWEST_PROMPTS, NO_WRONG_TRACES, Fits, Text, WrongTraces, wrong_traces
from raydistill.diagnosis_plan import Pair
from raydistill.models.text import encode_completion
from raydistill.students.data import Reader


def gap(job: Diagnose, pair: Pair, hands: Hands, teacher: Sampled, student: Sampled) -> Json:
    """The gap both ways, with wrong-trace preference. Completions that a model's context does not hold are left out, and counted."""
    fits = _fits(pair)
    wrong = NO_WRONG_TRACES if is_graded(job.task) else wrong_traces(teacher, job.task.kind, job.wrong_pairs, job.seed, fits)
    wrote = [_texts(teacher), _texts(student)]
    texts = [*([text for text in some if fits(*text)] for some in wrote), wrong.texts()]
    too_long = [len(some) - len(kept) for some, kept in zip(wrote, texts, strict=False)]
    by_teacher, by_student = _scores(pair, hands, texts)
    (own, others), (back, own_back) = ([_rows(s[at], texts[at], len(teacher.prompts)) for s in (by_teacher, by_student)] for at in (0, 1))
    return findings.gap(
        findings.score_gap(own, others),
        findings.score_gap(own_back, back),
        _preference(job, wrong, by_student[2], by_teacher[2]),
    ) | {"too_long": dict(zip(("teacher", "student"), too_long, strict=True))}


def _fits(pair: Pair) -> Fits:
    """Whether the completion of the prompt at a place fits both models' contexts: in another's own tokens it may be longer."""
    both = ((pair.teacher, pair.teacher_reader), (pair.student, pair.student_reader))
    limited = [(reader, role.facts.context) for role, reader in both if role.facts.context is not None]

    @cache
    def room(place: int) -> list[tuple[Reader, int]]:
        return [(reader, context - len(reader.prompt(pair.prompts[place].text))) for reader, context in limited]

    @cache  # the teacher's texts are asked about as completions, and again as wrong and right traces
    def fits(place: int, text: str) -> bool:
        return all(len(encode_completion(reader.tokenizer, text)) <= left for reader, left in room(place))

    return fits


def _scores(pair: Pair, hands: Hands, texts: Sequence[Sequence[Text]]) -> list[list[list[float]]]:
    """For teacher and student, scores of each list of texts, in nats a byte."""
    found = hands.score(pair, [([pair.prompts[place].text for place, _ in one], [text for _, text in one]) for one in texts])
    scores = [[score.per_byte for score in one] for one in found]
    return [scores[: len(texts)], scores[len(texts) :]]


def _preference(job: Diagnose, wrong: WrongTraces, student: Sequence[float], teacher: Sequence[float]) -> Json:
    if is_graded(job.task):
        return not_measured(findings.NOT_RIGHT_OR_WRONG)
    if wrong.pairs < job.wrong_pairs:
        return not_measured(
            f"{wrong.own_pairs} pairs of the teacher's own wrong traces of {wrong.own_prompts} prompts and {wrong.pairs} with a corrupted "
            f"step, where wrong_pairs asks for {job.wrong_pairs}, and own ones of {FEWEST_PROMPTS} prompts"
        )
    own = {"own": {"pairs": wrong.own_pairs, "prompts": wrong.own_prompts}}
    return findings.preference(wrong.rivals(student), wrong.rivals(teacher), wrong.source, wrong.pairs) | own


def _texts(sampled: Sampled) -> list[Text]:
    return [(place, completion.text) for place, completion, _ in sampled.clean()]


def _rows(scores: Sequence[float], texts: Sequence[Text], prompts: int) -> list[list[float]]:
    rows: list[list[float]] = [[] for _ in range(prompts)]
    for (place, _), score in zip(texts, scores, strict=True):
        rows[place].append(score)
    return rows
