"""What a diagnosis will start: checked against the machine before anything does, and shown by `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raydistill.config.diagnose import Diagnose
from raydistill.config.task import is_graded
from raydistill.diagnose.wrong_traces import too_few_pairs
from raydistill.models.checkpoint import Checkpoint
from raydistill.models.lineup import Role, inspected
from raydistill.models.preflight import ModelFacts, check_ends
from raydistill.models.reward_model import reward_checkpoint
from raydistill.models.table import models_table
from raydistill.plan import (
    BYTES,
    TORCH_BYTES,
    Part,
    actor_table,
    check_room,
    checking_part,
    engine_bytes,
    longest_prompt,
    measured_prompts,
    require_context,
    totals,
)
from raydistill.reading import longer_completions, require_readable
from raydistill.students.data import Reader
from raydistill.students.job import make_reader
from raydistill.tasks.make import make_task, task_warnings
from raydistill.tasks.prompt import Prompt, Task

_IN_TURN = ("rollout", "scorer", "comparer")
"""Parts of which one is there at a time."""


@dataclass(frozen=True)
class Pair:
    """A teacher and a student, checked, and how they read texts."""

    teacher: Role
    student: Role
    teacher_reader: Reader
    student_reader: Reader
    task: Task
    prompts: tuple[Prompt, ...]
    warnings: tuple[str, ...]
    reward: Checkpoint | None
    """The reward model, where one grades completions."""
    after: Pair | None = None
    """The same teacher with the student after distillation."""

    @property
    def facts(self) -> list[ModelFacts]:
        """Of all models."""
        return [self.teacher.facts, self.student.facts, *([self.after.student.facts] if self.after else [])]

    @property
    def students(self) -> list[Pair]:
        """This pair and, where there is one, that of the student after distillation."""
        return [self, *([self.after] if self.after else [])]

    @property
    def same_tokens(self) -> bool:
        """Whether the models can be compared token by token."""
        from raydistill.students.lessons import same_tokens

        return same_tokens(self.student_reader, self.teacher_reader)

    @property
    def shared_ids(self) -> int:
        """How many token ids, from 0, the tokenizer has and both models know: the vocabulary over which they are compared."""
        from raydistill.models.text import id_count

        return min(id_count(self.teacher_reader.tokenizer), *(role.facts.embedding_rows for role in (self.teacher, self.student)))


def check(job: Diagnose) -> Pair:
    """Everything that can be checked without starting an actor. Raises InputError for the first thing that is wrong."""
    pair = check_without_room(job)
    require_room(job, pair)
    return pair


def require_room(job: Diagnose, pair: Pair) -> None:
    """Raises InputError where the machine, or the cluster once joined, has no room for the actors that are there at once."""
    for some in _at_once(parts(job, pair)):
        check_room(some)


def check_without_room(job: Diagnose) -> Pair:
    """The models and the task, wherever they are to be measured. Raises InputError for the first thing that is wrong."""
    task = make_task(job.task)
    return pair_of(job, task, measured_prompts(task, job.evaluation))


def pair_of(job: Diagnose, task: Task, prompts: Sequence[Prompt]) -> Pair:
    """The models, and how they read these prompts of the task. Raises InputError for the first thing that is wrong."""
    given = {"teacher": job.teacher, "student": job.student, "after": job.after}
    roles = [inspected(section, config) for section, config in given.items() if config]
    readers = {role.facts.section: make_reader(role.facts, role.config) for role in roles}
    reading = _check_reading(job, roles, readers, prompts)
    (teacher, *students), (own, *others) = roles, readers.values()
    warnings = [warning for role in roles for warning in role.facts.warnings]
    warnings += [*check_ends(teacher.facts, [student.facts for student in students]), *task_warnings(task), *reading]
    if not is_graded(job.task):
        warnings += too_few_pairs("", job.wrong_pairs, len(prompts), job.evaluation.teacher_samples)
    pairs = [
        Pair(teacher, student, own, reader, task, tuple(prompts), tuple(warnings), reward_checkpoint(job.task))
        for student, reader in zip(students, others, strict=True)
    ]
    return replace(pairs[0], after=pairs[1]) if pairs[1:] else pairs[0]


def _check_reading(job: Diagnose, roles: Sequence[Role], readers: Mapping[str, Reader], prompts: Sequence[Prompt]) -> list[str]:
    """Warnings about how the models read the prompts. Raises InputError where a prompt does not fit, or cannot be told from another."""
    texts, golds = [prompt.text for prompt in prompts], [prompt.gold for prompt in prompts if prompt.gold]
    contexts = {role.facts.section: role.facts.context for role in roles}
    longest = {section: longest_prompt(reader, texts) for section, reader in readers.items()}
    for section, reader in readers.items():
        limits = [(f"the context of {section}.model", contexts[section]), ("rollout.max_model_len", job.rollout.max_model_len)]
        require_context("max_new_tokens", job.max_new_tokens, longest[section], limits)
        require_readable(section, reader, texts)
    return longer_completions(readers, contexts, longest, golds, job.max_new_tokens, "max_new_tokens")


def parts(job: Diagnose, pair: Pair) -> list[Part]:
    """The processes of a diagnosis, which are not all there at once."""
    width = BYTES[job.dtype]
    largest = max(facts.parameters for facts in pair.facts)
    same = [one for one in pair.students if one.same_tokens]
    engine = engine_bytes(job.rollout, width * largest)
    one = TORCH_BYTES + width * largest
    cpus, gpus = job.scorer.cpus, job.scorer.gpus
    kinds = [
        Part("rollout", job.rollout.workers, job.rollout.cpus, job.rollout.gpus, engine, "samples, teacher then student", "rollout"),
        Part("scorer", 2, cpus, gpus, one, "teacher and student, say how likely they find a text", "rollout"),
        checking_part(job.task, job.verifier, pair.reward.parameters if pair.reward else 0),
    ]
    compared = [one.teacher.facts.parameters + one.student.facts.parameters * (2 if job.gradient_probe else 1) for one in same]
    if compared:
        size = TORCH_BYTES + width * max(compared)
        kinds.append(Part("comparer", 1, 2 * cpus, gpus, size, "both models, compared token by token", "rollout"))
    return kinds


def _at_once(kinds: Sequence[Part]) -> list[list[Part]]:
    """Those that are there at the same time: engines, with what checks answers; both scorers; or the comparer."""
    checks = [part for part in kinds if part.name not in _IN_TURN]
    return [[part, *(checks if part.name == "rollout" else [])] for part in kinds if part.name in _IN_TURN]


def show(job: Diagnose, pair: Pair, folder: Path) -> None:
    """Print what a diagnosis would do."""
    from rich.console import Console

    console = Console()
    console.print(f"diagnosis [bold]{job.name}[/bold] in {folder}: task {job.task.kind}", highlight=False)
    console.print(models_table(pair.facts))
    kinds = parts(job, pair)
    console.print(actor_table(kinds))
    samples = f"{job.evaluation.teacher_samples} completions of the teacher and {job.evaluation.student_samples} of the student"
    console.print(f"{totals(kinds)}, but {', '.join(_IN_TURN)} are there one after the other", highlight=False)
    console.print(f"{len(pair.prompts)} prompts of {job.evaluation.split}, {samples} each", highlight=False)
    if not all(one.same_tokens for one in pair.students):
        console.print("the tokenizers differ: tail noise and off-policy instability will not be measured", highlight=False)
    for warning in pair.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
