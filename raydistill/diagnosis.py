"""Diagnose one teacher and one student: sample from both, score what they wrote, and say which trap a distillation would fall into."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydistill.cluster import connect
from raydistill.config.diagnose import Diagnose
from raydistill.config.task import is_graded, score_unit
from raydistill.crew import engine_spec, scorer_actor
from raydistill.diagnose import findings
from raydistill.diagnose.comparer import BINS, start_comparer
from raydistill.diagnose.confidence import answers as sure_answers
from raydistill.diagnose.findings import Json, not_measured
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.tail_noise import sizes
from raydistill.diagnose.verdict import TITLES, figure_in_words, verdict
from raydistill.diagnose.wrong_traces import NO_WRONG_TRACES, Text, WrongTraces, wrong_traces
from raydistill.diagnosis_plan import Pair, parts
from raydistill.errors import InputError
from raydistill.evaluate.measure import check_completions
from raydistill.files import write_whole
from raydistill.jobs import explained, resume_command
from raydistill.models.lineup import Role
from raydistill.plan import BYTES, check_room
from raydistill.progress import Console
from raydistill.reward.grader import start_checker
from raydistill.rollout.completion import Sampling, TokenPrompt
from raydistill.rollout.pool import RolloutPool
from raydistill.runfolder import RunFolder
from raydistill.scoring.actor import answers
from raydistill.scoring.score import ScorerSpec
from raydistill.students.data import Reader
from raydistill.students.spelling import read_spelling
from raydistill.timing import Phases
from raydistill.track.secrets import public_yaml

_SEED = 9_000_000_000
"""Added to the seed: what is sampled here is sampled nowhere else."""
_NOT_RIGHT_OR_WRONG = "completions of this task are better or worse, not right or wrong"


@dataclass(frozen=True)
class DiagnosisFolder(RunFolder):
    """The folder of one diagnosis."""

    @property
    def report(self) -> Path:
        return self.root / "diagnosis.json"

    @property
    def page(self) -> Path:
        return self.root / "diagnosis.html"


def run_diagnosis(job: Diagnose, pair: Pair, folder: DiagnosisFolder, resume: bool) -> None:
    """The whole job, from its folder to its page. Raises InputError or RunError; what is done by then stays and can be resumed."""
    from raydistill.report.diagnosis_html import diagnosis_html

    console = Console()
    if not folder.is_complete(job, resume):
        for warning in pair.warnings:
            console.say(f"warning: {warning}")
        connect(weights_bytes=BYTES[job.dtype] * max(facts.parameters for facts in pair.facts))
        check_room(parts(job, pair))
        write_whole(folder.config, public_yaml(job))
        with explained(folder, resume_command()):
            found = Diagnosis(job, pair, folder, console).run()
            write_whole(folder.page, diagnosis_html(found, public_yaml(job)))
            write_whole(folder.report, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _say(json.loads(folder.report.read_text()))
    console.say(f"{folder.root}: all figures are in {folder.report}, plots in {folder.page}")


class Diagnosis:
    """One diagnosis. What was sampled lies in the folder: a second call does not sample again."""

    def __init__(self, job: Diagnose, pair: Pair, folder: DiagnosisFolder, console: Console) -> None:
        self.job, self.pair, self.folder, self.console = job, pair, folder, console
        self.phases = Phases(dict.fromkeys(("sample", "score", "compare"), 0.0))
        self._bin_width = math.ceil(job.max_new_tokens / BINS)

    def run(self) -> Json:
        """The content of diagnosis.json."""
        job, pair = self.job, self.pair
        teacher = self._sampled(pair.teacher, pair.teacher_reader, job.evaluation.teacher_samples)
        student = self._sampled(pair.student, pair.student_reader, job.evaluation.student_samples)
        noise, instability = self._divergences(teacher, student)
        found = {
            "run": job.name,
            "task": job.task.kind,
            "split": job.evaluation.split,
            "prompts": len(pair.prompts),
            "seed": job.seed,
            "models": {"teacher": job.teacher.model, "student": job.student.model},
            "score": {name: findings.score(one, score_unit(job.task)) for name, one in (("teacher", teacher), ("student", student))},
            "traps": {"tail_noise": noise, "off_policy_instability": instability, "gap": self._gap(teacher, student)},
            "symptoms": {
                "overconfident_hallucination": self._overconfidence(teacher, student),
                "self_correction_collapse": findings.self_correction_collapse(),
                "local_decoding_degradation": findings.local_decoding_degradation(student, teacher),
            },
        }
        return found | {"verdict": verdict(found), "seconds": dict(self.phases.seconds)}

    # --- what both write

    def _sampled(self, role: Role, reader: Reader, samples: int) -> Sampled:
        path, prompts = self.folder.root / "completions" / f"{role.facts.section}.json", self.pair.prompts
        if path.exists():
            return Sampled.read(path, prompts)
        asked = [TokenPrompt(prompt.id, reader.prompt(prompt.text)) for prompt in prompts]
        with self.phases("sample"), self._engines(role) as pool, self.console.busy(f"sampling from the {role.facts.section}"):
            completions = pool.generate(asked, Sampling(samples, self.job.max_new_tokens, seed=_SEED + self.job.seed))
            with start_checker(self.pair.task, self.job.task, self.job.verifier) as verifier:
                outcomes = check_completions(verifier, prompts, completions)
        right = tuple(tuple(outcome.reward for outcome in row) for row in outcomes)
        found = Sampled(tuple(prompts), tuple(map(tuple, completions)), right)
        write_whole(path, found.to_json())
        return found

    @contextmanager
    def _engines(self, role: Role) -> Iterator[RolloutPool]:
        rollout = self.job.rollout
        spec = engine_spec(rollout, self.job.dtype, role.config.model)
        pool = RolloutPool(spec, rollout.workers, num_cpus=rollout.cpus, num_gpus=rollout.gpus)
        try:
            pool.ready()
            yield pool
        finally:
            pool.shutdown()

    # --- token by token

    def _divergences(self, teacher: Sampled, student: Sampled) -> tuple[Json, Json]:
        """Tail noise and off-policy instability."""
        if not self.pair.same_tokens:
            return not_measured("the tokenizers differ"), not_measured("the tokenizers differ")
        import ray

        ks = sizes(self.pair.shared_ids)
        scorer = self.job.scorer
        actor = start_comparer(self._spec(self.pair.teacher), self._spec(self.pair.student), scorer.cpus, scorer.gpus)
        try:
            with self.phases("compare"), self.console.busy("comparing token by token"):
                flat = answers([actor.compare.remote(*self._tokens(one), ks, self._bin_width) for one in (teacher, student)])
        finally:
            ray.kill(actor)
        on_teacher, on_student = (_by_prompt(found, one) for found, one in zip(flat, (teacher, student), strict=True))
        return findings.tail_noise(on_teacher, ks), findings.off_policy_instability(on_teacher, on_student, self._bin_width)

    def _tokens(self, sampled: Sampled) -> tuple[list[Any], list[Any], list[Any]]:
        """Each completion's prompt as the teacher and as the student reads it, and its tokens."""
        rows = list(sampled.rows())
        by_reader = [
            [reader.prompt(prompt.text) for prompt, _, _ in rows] for reader in (self.pair.teacher_reader, self.pair.student_reader)
        ]
        return by_reader[0], by_reader[1], [completion.token_ids for _, completion, _ in rows]

    def _spec(self, role: Role) -> ScorerSpec:
        scorer = self.job.scorer
        return ScorerSpec(role.config.model, dtype=self.job.dtype, batch_tokens=scorer.batch_tokens, threads=max(1, int(scorer.cpus)))

    # --- text by text

    def _gap(self, teacher: Sampled, student: Sampled) -> Json:
        wrong = NO_WRONG_TRACES if is_graded(self.job.task) else wrong_traces(teacher, self.job.wrong_pairs, self.job.seed)
        texts = [_texts(teacher), _texts(student), wrong.texts()]
        by_teacher, by_student = self._scores(texts)
        (own, others), (back, own_back) = (
            [_rows(s[at], texts[at], len(teacher.prompts)) for s in (by_teacher, by_student)] for at in (0, 1)
        )
        return findings.gap(
            findings.score_gap(own, others), findings.score_gap(own_back, back), self._preference(wrong, by_student[2], by_teacher[2])
        )

    def _scores(self, texts: Sequence[Sequence[Text]]) -> list[list[list[float]]]:
        """For teacher and student, scores of each list of texts, in nats a byte."""
        import ray

        roles = (self.pair.teacher, self.pair.student)
        actors = [scorer_actor(role.config, self.job.scorer, self.job.dtype) for role in roles]
        split = [([self.pair.prompts[place].text for place, _ in one], [text for _, text in one]) for one in texts]
        try:
            with self.phases("score"), self.console.busy("scoring texts"):
                found = answers([actor.score.remote(prompts, ones) for actor in actors for prompts, ones in split])
        finally:
            for actor in actors:
                ray.kill(actor)
        scores = [[score.per_byte for score in one] for one in found]
        return [scores[: len(texts)], scores[len(texts) :]]

    def _preference(self, wrong: WrongTraces, student: Sequence[float], teacher: Sequence[float]) -> Json:
        if is_graded(self.job.task):
            return not_measured(_NOT_RIGHT_OR_WRONG)
        if wrong.pairs < self.job.wrong_pairs:
            return not_measured(
                f"{wrong.own_pairs} pairs of the teacher's own wrong traces and {wrong.pairs} with a corrupted step, "
                f"where wrong_pairs asks for {self.job.wrong_pairs}"
            )
        return findings.preference(wrong.rivals(student), wrong.rivals(teacher), wrong.source, wrong.pairs)

    def _overconfidence(self, teacher: Sampled, student: Sampled) -> Json:
        task = self.job.task.kind
        if is_graded(self.job.task):
            return not_measured(_NOT_RIGHT_OR_WRONG)
        try:
            spellings = [
                read_spelling(f"{section}.model", reader.tokenizer)
                for section, reader in (("student", self.pair.student_reader), ("teacher", self.pair.teacher_reader))
            ]
        except InputError as error:  # which tokens write the answer is not known then; all else is
            return not_measured(str(error))
        return findings.overconfident_hallucination(sure_answers(student, task, spellings[0]), sure_answers(teacher, task, spellings[1]))


def _by_prompt(flat: Sequence[Any], sampled: Sampled) -> list[list[Any]]:
    """One value a completion, regrouped."""
    values = iter(flat)
    return [[next(values) for _ in row] for row in sampled.completions_BG]


def _texts(sampled: Sampled) -> list[Text]:
    return [(place, completion.text) for place, completion, _ in sampled.clean()]


def _rows(scores: Sequence[float], texts: Sequence[Text], prompts: int) -> list[list[float]]:
    rows: list[list[float]] = [[] for _ in range(prompts)]
    for (place, _), score in zip(texts, scores, strict=True):
        rows[place].append(score)
    return rows


def _say(found: Json) -> None:
    """Figures and verdict on the terminal."""
    from rich.console import Console as RichConsole
    from rich.table import Table

    table = Table(
        "", "measured", "reference", title=f"{found['models']['student']} beside {found['models']['teacher']}, {found['prompts']} prompts"
    )
    for kind in ("traps", "symptoms"):
        for name, one in found[kind].items():
            reference = one.get("reference")
            table.add_row(TITLES[name], figure_in_words(one), "" if reference is None else f"{reference:.3f}")
    console = RichConsole()
    console.print(table, markup=False)
    for sentence in found["verdict"]:
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
