"""Where a worker's lessons come from, and what the teacher says of them: read from a folder, or asked of engines and scorers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.distributed as dist

from raydistill.errors import InputError, RunError
from raydistill.learner.group import put_weights
from raydistill.models.weights import Weights
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt, sample_seed
from raydistill.students.compare import ByGOLD, BySample, BySpan, ByToken, ByULD, Comparison, Lesson, WithTokens, partners
from raydistill.students.data import Encoded, Reader, Trace
from raydistill.students.distil import Turn, turns
from raydistill.students.job import read_model
from raydistill.students.losses import TopK
from raydistill.students.offline import OfflineTeacher, ScoredTrace
from raydistill.students.scoring_task import ask
from raydistill.students.spelling import read_spelling
from raydistill.students.train import TrainJob
from raydistill.students.zero_student import Plan, ZeroStudent


class Lessons:
    """The lessons of every step, as one worker needs them. `take` is a collective call."""

    def __init__(self, job: TrainJob, student: ZeroStudent, rank: int) -> None:
        """Raises InputError where the models or the scored traces do not fit."""
        self._job, self._student, self._rank = job, student, rank
        self._reader = read_model("student", job.student)
        self._teachers = read_model("teacher", job.teacher) if job.teacher else None
        self._same = self._teachers is None or same_tokens(self._reader, self._teachers)
        self._offline = OfflineTeacher.open(job.scored) if job.scored else None
        traces = self._offline.traces if self._offline else job.traces
        self._given = [Lesson(self._reader.trace(t), t.prompt_text, t.completion_text, t.ended) for t in traces]
        self.compare = self._comparison()

    def _comparison(self) -> Comparison:
        if self._job.objective is None:
            return WithTokens()
        if self._job.by == "sample":
            return BySample()
        if self._teachers is None or self._job.by == "token":
            return ByToken(self._job.objective)
        student, teacher = (read_spelling(f"{s}.model", r.tokenizer) for s, r in (("student", self._reader), ("teacher", self._teachers)))
        spans = BySpan(student, teacher)
        if self._job.by == "uld":
            return ByULD(spans)
        return ByGOLD(spans, partners(student, teacher, self._reader.end_id, self._teachers.end_id)) if self._job.by == "gold" else spans

    def turns(self) -> Iterator[Turn]:
        """What each step learns from."""
        on_policy = self._job.objective.on_policy if self._job.objective else 0.0
        return turns(len(self._job.prompts), len(self._given), self._job.recipe, on_policy)

    def take(self, turn: Turn, step: int) -> list[Lesson]:
        """The lessons of a step, the same on every rank. Raises RunError where the student samples nothing to learn from."""
        if not turn.fresh:
            return [self._given[row] for row in turn.rows]
        prompts = [self._job.prompts[row] for row in turn.rows]
        lessons = self._sampled(prompts, step)
        if not lessons:
            raise RunError(
                f"step {step}: none of the student's {len(prompts)} completions can be read by the teacher; train it by seqkd first"
            )
        return lessons

    def said(self, turn: Turn, lessons: Sequence[Lesson], plan: Plan) -> dict[int, ScoredTrace]:
        """What the teacher says of the lessons of this rank's plan, by place; nothing where it is not asked."""
        places = [place for rows in plan for place in rows]
        if isinstance(self.compare, WithTokens) or not places:
            return {}
        if turn.fresh:
            scored = self._asked([lessons[place] for place in places])
        else:
            assert self._offline is not None  # noqa: S101
            scored = [self._offline.scored(turn.rows[place]) for place in places]
            if isinstance(self.compare, ByToken):
                self._require_same_tokens([lessons[place] for place in places], scored)
        return dict(zip(places, scored, strict=True))

    @staticmethod
    def _require_same_tokens(lessons: Sequence[Lesson], scored: Sequence[ScoredTrace]) -> None:
        """Two tokenizers may have one vocabulary and cut, or normalise, a text differently."""
        for lesson, one in zip(lessons, scored, strict=True):
            if one.token_ids_T.tolist() != list(lesson.own.completion_ids):
                raise InputError(
                    f"student.model: its tokenizer has the teacher's vocabulary, but reads {lesson.text[:40]!r} as other tokens; "
                    "use seqkd, or a student with the teacher's tokenizer.json"
                )

    # --- on-policy

    def _sampled(self, prompts: Sequence[str], step: int) -> list[Lesson]:
        """One completion of each prompt by the student as it is now; those that the teacher could not read are left out."""
        weights = put_weights(self._student, self._job.bucket_bytes)
        probe = self._probe()
        probe_logprobs = self._student.token_logprobs(probe)
        lessons: list[Lesson | None] = [None] * len(prompts)
        if self._rank == 0:
            assert self._job.pool is not None  # noqa: S101
            self._job.pool.sync(Weights(step, *weights), probe, probe_logprobs, self._job.sync_tolerance)
            # Its place, and not its text, sets a completion's stream, so that a prompt may occur twice in a step.
            asked = [TokenPrompt(str(place), self._reader.prompt(prompt)) for place, prompt in enumerate(prompts)]
            sampling = Sampling(1, self._job.max_new_tokens, seed=sample_seed(self._job.recipe.seed, "on-policy", step))
            groups = self._job.pool.generate(asked, sampling)
            lessons = [self._lesson(prompt, completion) for prompt, (completion,) in zip(prompts, groups, strict=True)]
        dist.broadcast_object_list(lessons, src=0)
        return [lesson for lesson in lessons if lesson is not None]

    def _lesson(self, prompt: str, completion: Completion) -> Lesson | None:
        """None for what has no text that another tokenizer could read."""
        lesson = Lesson(Encoded(completion.prompt_ids, completion.token_ids), prompt, completion.text, completion.has_end)
        if self._same:
            return lesson
        lost = bool(completion.text) and len(self._for_teacher(lesson).completion_ids) == lesson.ended
        return None if completion.has_special or lost else lesson

    def _probe(self) -> list[int]:
        """A fixed text on which student and engines must agree."""
        ids = self._reader.prompt(self._job.prompts[0])
        return [*ids, *ids][: len(ids) + self._job.max_new_tokens - 1]  # engines add a token

    def _asked(self, lessons: Sequence[Lesson]) -> list[ScoredTrace]:
        """What the scorers say: each worker asks those that fall to it, or shares one."""
        objective = self._job.objective
        assert objective is not None  # noqa: S101
        assert objective.top_k is not None  # noqa: S101
        scorers = self._job.scorers[self._rank :: dist.get_world_size()] or (self._job.scorers[self._rank % len(self._job.scorers)],)
        pairs = [self._for_teacher(lesson) for lesson in lessons]
        prompts, completions = [pair.prompt_ids for pair in pairs], [pair.completion_ids for pair in pairs]
        found = ask(scorers, prompts, completions, objective.top_k, objective.temperature)
        return [
            ScoredTrace(_tensor(pair.completion_ids), _tensor(one.logprobs_T), TopK(_tensor(one.logprobs_TK), _tensor(one.ids_TK).long()))
            for pair, one in zip(pairs, found, strict=True)
        ]

    def _for_teacher(self, lesson: Lesson) -> Encoded:
        """The lesson as the teacher reads it: the student's own tokens where it has them too."""
        assert self._teachers is not None  # noqa: S101
        if self._same:
            return Encoded(self._teachers.prompt(lesson.prompt), lesson.own.completion_ids)
        return self._teachers.trace(Trace(lesson.prompt, lesson.text, lesson.ended))


def same_tokens(student: Reader, teacher: Reader) -> bool:
    """Whether two models can be compared token by token: they have one vocabulary, and end an answer with the same token."""
    return student.end_id == teacher.end_id and student.tokenizer.get_vocab() == teacher.tokenizer.get_vocab()


def _tensor(values: object) -> torch.Tensor:
    """A copy: what comes out of the object store is read-only."""
    return torch.tensor(np.array(values))
