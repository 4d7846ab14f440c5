"""Diagnose one teacher and one student: sample from both, score what they wrote, and say which trap a distillation would fall into."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from raydistill.cluster import connect
from raydistill.config.diagnose import Diagnose
from raydistill.config.task import is_graded, score_unit
from raydistill.diagnose import findings, text_by_text
from raydistill.diagnose.before_after import Student, differences
from raydistill.diagnose.calibration_error import Answer
from raydistill.diagnose.confidence import answers as sure_answers
from raydistill.diagnose.findings import Json, not_measured
from raydistill.diagnose.hands import Hands, OnRay
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.self_correction import Continued, Cut, continuations, cut_traces, fitting, self_correction_collapse
from raydistill.diagnose.token_by_token import TokenByToken
from raydistill.diagnose.verdict import TITLES, figure_in_words, number_in_words, verdict
from raydistill.diagnosis_plan import Pair, require_room
from raydistill.errors import InputError
from raydistill.evaluate.measure import Generate
from raydistill.evaluate.no_signal import no_signal
from raydistill.files import write_whole
from raydistill.models.lineup import Role
from raydistill.progress import Console
from raydistill.report.diagnosis_counts import counted
from raydistill.rollout.completion import Sampling
from raydistill.runfolder import RunFolder
from raydistill.runlog import explained, resume_command
from raydistill.sampling import checked
from raydistill.students.data import Reader
from raydistill.students.spelling import read_spelling
from raydistill.timing import KeptPhases
from raydistill.track.diagnosis_record import recorded, send_unsent
from raydistill.track.secrets import public_yaml

_SEED = 9_000_000_000
"""Added to the seed: what is sampled here is sampled nowhere else."""


@dataclass(frozen=True)
class DiagnosisFolder(RunFolder):
    """The folder of one diagnosis."""

    @property
    def report(self) -> Path:
        return self.root / "diagnosis.json"

    @property
    def page(self) -> Path:
        return self.root / "diagnosis.html"

    def completions(self, section: str) -> Path:
        """What the teacher, or a student, wrote; with `-continued`, how it went on from cut traces."""
        return self.root / "completions" / f"{section}.json"

    @property
    def seconds(self) -> Path:
        """Of all attempts, by phase."""
        return self.root / "seconds.json"


def run_diagnosis(job: Diagnose, pair: Pair, folder: DiagnosisFolder, resume: bool) -> None:
    """The whole job, from its folder to its page. Raises InputError or RunError; what is done by then stays and can be resumed."""
    from raydistill.report.diagnosis_html import diagnosis_html

    console = Console()
    if folder.is_complete(job, resume):
        send_unsent(job, folder.root)
    else:
        for warning in pair.warnings:
            console.say(f"warning: {warning}")
        connect()  # models come from their folders, not by the object store
        require_room(job, pair)
        with recorded(job, folder.root) as record, explained(folder, resume_command()):
            write_whole(folder.config, public_yaml(job))
            found = Diagnosis(job, pair, folder, console, OnRay(job, pair.task)).run()
            write_whole(folder.page, diagnosis_html(found, public_yaml(job)))
            write_whole(folder.report, json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            record.finish(found)
    _say(json.loads(folder.report.read_text()))
    console.say(f"{folder.root}: all figures are in {folder.report}, plots in {folder.page}")


@dataclass(frozen=True)
class Wrote:
    """What a model wrote by itself, and how it went on from cut traces."""

    sampled: Sampled
    back: list[Continued]

    @property
    def failures(self) -> Json:
        """Checks that failed of either."""
        return {"completions": self.sampled.verifier_failures, "continuations": sum(one.failed for one in self.back)}


class Diagnosis:
    """One diagnosis. What was sampled lies in the folder: a second call does not sample again."""

    def __init__(self, job: Diagnose, pair: Pair, folder: DiagnosisFolder, console: Console, hands: Hands) -> None:
        self.job, self.pair, self.folder, self.console, self._hands = job, pair, folder, console, hands
        self.phases = KeptPhases(folder.seconds, ("total", "sample", "score", "compare"))

    def run(self) -> Json:
        """The content of diagnosis.json."""
        with self.phases.kept(), self.phases("total"):
            found = self._found()
        return found | {"verdict": verdict(found), "seconds": dict(self.phases.seconds)}

    def _found(self) -> Json:
        job, pair = self.job, self.pair
        with self._hands.engines(pair.teacher) as generate:
            sampled = self._sampled(generate, pair.teacher, pair.teacher_reader, job.evaluation.teacher_samples)
            cuts = self._cuts(sampled)
            teacher = Wrote(sampled, self._continued(generate, pair.teacher, pair.teacher_reader, cuts))
        student = self._student(pair, teacher)
        found = {
            "run": job.name,
            "task": job.task.kind,
            "split": job.evaluation.split,
            "prompts": len(pair.prompts),
            "seed": job.seed,
            "models": {"teacher": job.teacher.model, "student": job.student.model},
            **student.found,
            "score": {"teacher": findings.score(sampled, score_unit(job.task)), "student": student.found["score"]},
            "verifier_failures": {"teacher": teacher.failures, "student": student.found["verifier_failures"]},
        }
        if pair.after is None or job.after is None:
            return found
        after = self._student(pair.after, teacher)
        found["models"]["after"] = job.after.model
        return found | {"after": after.found | {"differences": differences(student, after, score_unit(job.task))}}

    def _student(self, pair: Pair, teacher: Wrote) -> Student:
        """All that is measured of the pair's student."""
        with self._hands.engines(pair.student) as generate:
            sampled = self._sampled(generate, pair.student, pair.student_reader, self.job.evaluation.student_samples)
            back = self._continued(generate, pair.student, pair.student_reader, [one.cut for one in teacher.back])
        noise, instability = self._token_by_token(pair, teacher.sampled, sampled)
        with self.phases("score"), self.console.busy("scoring texts"):
            gap = text_by_text.gap(self.job, pair, self._hands, teacher.sampled, sampled)
        answers_BG, hallucination = self._overconfidence(pair, teacher.sampled, sampled)
        found = {
            "score": findings.score(sampled, score_unit(self.job.task)),
            "verifier_failures": Wrote(sampled, back).failures,
            "traps": {"tail_noise": noise, "off_policy_instability": instability, "gap": gap},
            "symptoms": {
                "overconfident_hallucination": hallucination,
                "self_correction_collapse": self._collapse(teacher, sampled, back),
                "local_decoding_degradation": findings.local_decoding_degradation(sampled, teacher.sampled),
            },
        }
        return Student(sampled, answers_BG, found)

    # --- what both write

    def _sampled(self, generate: Generate, role: Role, reader: Reader, samples: int) -> Sampled:
        path, prompts = self.folder.completions(role.facts.section), self.pair.prompts
        if path.exists():
            return Sampled.read(path, prompts)
        sampling = Sampling(samples, self.job.max_new_tokens, seed=_SEED + self.job.seed)
        with self.phases("sample"), self.console.busy(f"sampling from the {role.facts.section}"), self._hands.checker() as checker:
            found = checked(generate, checker, prompts, reader, sampling)
        if warning := no_signal(f"the {role.facts.section}", found.right_BG, found.verifier_failures):
            self.console.say(f"warning: {warning}")
        write_whole(path, found.to_json())
        return found

    def _cuts(self, teacher: Sampled) -> list[Cut]:
        """Beginnings of right traces that leave all models room to go on."""
        job, pair = self.job, self.pair
        cuts = [] if is_graded(job.task) else cut_traces(teacher, job.task.kind, job.seed)
        readers = [(pair.teacher, pair.teacher_reader), *((one.student, one.student_reader) for one in pair.students)]
        for role, reader in readers:
            room = min(job.rollout.max_model_len, role.facts.context or job.rollout.max_model_len)
            cuts = fitting(cuts, pair.prompts, reader, job.max_new_tokens, room)
        return cuts

    def _continued(self, generate: Generate, role: Role, reader: Reader, cuts: list[Cut]) -> list[Continued]:
        if not cuts:
            return []
        path = self.folder.completions(f"{role.facts.section}-continued")
        if path.exists():
            return [Continued(cut, *outcome) for cut, outcome in zip(cuts, json.loads(path.read_text()), strict=True)]
        told, seed = f"letting the {role.facts.section} go on from a wrong step", _SEED + self.job.seed
        with self.phases("sample"), self.console.busy(told), self._hands.checker() as checker:
            found = continuations(generate, reader, self.pair.prompts, cuts, checker, self.job.max_new_tokens, seed)
        write_whole(path, json.dumps([(one.recovered, one.kept, one.failed) for one in found]))
        return found

    # --- what it shows

    def _token_by_token(self, pair: Pair, teacher: Sampled, student: Sampled) -> tuple[Json, Json]:
        """Tail noise and off-policy instability."""
        if not pair.same_tokens:
            return not_measured("the tokenizers differ"), not_measured("the tokenizers differ")
        with self._hands.comparer(pair) as ask:
            models = TokenByToken(self.job, pair, ask)
            with self.phases("compare"), self.console.busy("comparing token by token"):
                noise, instability = models.divergences(teacher, student)
            with self.phases("gradients"), self.console.busy("probing gradients"):
                return noise, instability | {"gradient_norm": models.gradients(teacher, student)}

    def _collapse(self, teacher: Wrote, student: Sampled, back: list[Continued]) -> Json:
        if is_graded(self.job.task):
            return not_measured(findings.NOT_RIGHT_OR_WRONG)
        return self_correction_collapse(student, teacher.sampled, back, teacher.back, self.job.task.kind)

    def _overconfidence(self, pair: Pair, teacher: Sampled, student: Sampled) -> tuple[list[list[Answer]] | None, Json]:
        """The student's answers, and the symptom."""
        task = self.job.task.kind
        if is_graded(self.job.task):
            return None, not_measured(findings.NOT_RIGHT_OR_WRONG)
        consistency = {"self_consistency": findings.self_consistency(student, teacher, task)}
        try:
            own, teachers = (
                sure_answers(sampled, task, read_spelling(f"{role.facts.section}.model", reader.tokenizer))
                for role, reader, sampled in (
                    (pair.student, pair.student_reader, student),
                    (pair.teacher, pair.teacher_reader, teacher),
                )
            )
        except InputError as error:  # which tokens write the answer is not known then; all else is
            return None, not_measured(str(error)) | consistency
        return own, findings.overconfident_hallucination(own, teachers) | consistency


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
            table.add_row(TITLES[name], figure_in_words(one), "" if reference is None else number_in_words(reference))
    console = RichConsole()
    console.print(table, markup=False)
    for sentence in (*counted(found), *found["verdict"]):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
