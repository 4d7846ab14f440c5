"""What a distillation will start: checked against the machine before anything does, and shown by `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from raydistill.calibrate import prompts_of_step
from raydistill.config.distill import SFT, Distill, GKDAcross, KDAcross, SampledRKL
from raydistill.config.students import Matching, OnPolicyRKL
from raydistill.errors import InputError
from raydistill.models.checkpoint import Checkpoint
from raydistill.models.lineup import Role, settled
from raydistill.models.preflight import ModelFacts, ModelRef, check_ends, inspect_model
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
    require_context,
    totals,
)
from raydistill.reading import require_readable
from raydistill.scoring.score import LARGEST_DISTRIBUTION
from raydistill.students.data import Reader, Trace
from raydistill.students.job import make_reader
from raydistill.students.spelling import read_spelling
from raydistill.students.train import Comparing
from raydistill.tasks.make import make_task, task_warnings
from raydistill.tasks.prompt import Task

TOLD = 64
"""The teacher's likeliest tokens that a student is told of where the vocabulary is too large to send whole."""


@dataclass(frozen=True)
class Models:
    """The models of a distillation, checked, and how they read texts."""

    student: Role
    student_reader: Reader
    teacher: Role | None
    teacher_reader: Reader | None
    task: Task
    warnings: tuple[str, ...]
    reward: Checkpoint | None
    """The reward model, where one grades completions."""

    @property
    def facts(self) -> list[ModelFacts]:
        """The teacher's first, if there is one."""
        return [role.facts for role in (self.teacher, self.student) if role is not None]

    @property
    def same_tokens(self) -> bool:
        """Whether student and teacher can be compared token by token."""
        from raydistill.students.lessons import same_tokens

        return self.teacher_reader is None or same_tokens(self.student_reader, self.teacher_reader)


def check(job: Distill) -> Models:
    """Everything that can be checked without starting an actor. Raises InputError for the first thing that is wrong."""
    models = check_without_room(job)
    check_room(parts(job, models))
    return models


def check_without_room(job: Distill) -> Models:
    """The models and the task, wherever they are to run. Raises InputError for the first thing that is wrong."""
    task = make_task(job.task)
    train, measured = task.prompts("train"), task.prompts(job.evaluation.split)
    student = _role("student", job)
    teacher = _role("teacher", job) if job.teacher else None
    models = Models(
        student,
        make_reader(student.facts, student.config),
        teacher,
        make_reader(teacher.facts, teacher.config) if teacher else None,
        task,
        (*_warnings(student, teacher), *task_warnings(task)),
        reward_checkpoint(job.task),
    )
    for split, prompts in (("train", train), (job.evaluation.split, measured)):
        if not prompts:
            raise InputError(f"task: the {split} split has no prompts")
    if isinstance(job.method, SFT) and not any(prompt.gold for prompt in train):
        raise InputError("method: 'sft' learns from gold completions, and the task has none; name task.gold, or use seqkd")
    if isinstance(job.method, SFT):
        require_lessons_fit(models, gold(job, models))
    _check_comparison(job, models)
    if job.offline:
        _check_offline(job, models, Path(job.offline))
    texts = [prompt.text for prompt in (*train, *measured)]
    for role, reader in ((student, models.student_reader), (teacher, models.teacher_reader)):
        if role is not None and reader is not None:
            limits = [
                (f"the context of {role.facts.section}.model", role.facts.context),
                ("rollout.max_model_len", job.rollout.max_model_len),
            ]
            require_context("max_new_tokens", job.max_new_tokens, longest_prompt(reader, texts), limits)
            require_readable(role.facts.section, reader, texts)
    return models


def _role(section: str, job: Distill) -> Role:
    config = getattr(job, section)
    facts = inspect_model(ModelRef(section, config.model, config.template, config.system_prompt))
    return Role(facts, settled(config, facts))


def _warnings(student: Role, teacher: Role | None) -> list[str]:
    """Raises InputError for a teacher that does not stop where its template ends a turn."""
    alone = [warning for role in (teacher, student) if role is not None for warning in role.facts.warnings]
    return alone + (check_ends(teacher.facts, [student.facts]) if teacher else [])


def _check_comparison(job: Distill, models: Models) -> None:
    """Raises InputError where the method cannot compare these two models."""
    method = job.method
    if isinstance(method, KDAcross | GKDAcross) and method.across != "span" and models.same_tokens:
        raise InputError(
            f"method.across: {method.across!r} is for different tokenizers, but the student is compared token by token with this teacher; "
            "drop it"
        )
    if not isinstance(method, Matching | SampledRKL) or models.same_tokens:
        return
    assert models.teacher_reader is not None  # noqa: S101
    for section, reader in (("student", models.student_reader), ("teacher", models.teacher_reader)):
        read_spelling(f"{section}.model", reader.tokenizer)
    if isinstance(method, OnPolicyRKL | SampledRKL):
        raise InputError(
            f"method: {method.method!r} compares token by token, but student and teacher have different tokenizers; "
            "use gkd with method.jsd_beta=0, or seqkd"
        )
    for field, value, only in (("jsd_beta", method.jsd_beta, 0), ("temperature", method.temperature, 1)):
        if value != only:
            raise InputError(
                f"method.{field}: {value}, but student and teacher have different tokenizers, which only KL(teacher || student) at "
                f"temperature 1 is for; set method.{field}={only}, or use seqkd"
            )
    if method.across == "span" and method.top_k is not None:
        raise InputError(
            f"method.top_k: {method.top_k}, but student and teacher have different tokenizers, and spans of bytes have no likeliest "
            "tokens; set method.top_k=null, or method.across=gold"
        )


def _check_offline(job: Distill, models: Models, folder: Path) -> None:
    """Raises InputError where the scored traces are not the teacher's, or not for this student and method."""
    from raydistill.models.checkpoint import weights_digest
    from raydistill.students.offline import OfflineTeacher

    weights = weights_digest(models.teacher.facts.checkpoint) if models.teacher else None
    reader = models.student_reader if models.same_tokens else models.teacher_reader
    temperature = job.method.temperature if isinstance(job.method, Matching) else None
    scored = OfflineTeacher.open(folder, weights, reader, temperature)
    if isinstance(job.method, Matching) and job.method.top_k not in (None, scored.card.k):
        raise InputError(
            f"method.top_k: {job.method.top_k}, but {folder} has the teacher's {scored.card.k} likeliest tokens; "
            "set it to null, or score again"
        )
    require_lessons_fit(models, scored.traces)


def require_lessons_fit(models: Models, traces: Iterable[Trace]) -> None:
    """Raises InputError where a trace after its prompt is longer than the student's context."""
    context, reader = models.student.facts.context, models.student_reader
    if context is None:
        return
    for trace in traces:
        read = reader.trace(trace)
        if (length := len(read.prompt_ids) + len(read.completion_ids)) > context:
            raise InputError(
                f"student.model: its context is {context}, and one of the texts to learn from has {length} of its tokens "
                f"({trace.prompt_text[:40]!r}); choose a student with a longer one, or lower max_new_tokens"
            )


def gold(job: Distill, models: Models) -> list[Trace]:
    """The gold completions that `sft` learns from."""
    prompts = prompts_of_step(models.task.prompts("train"), job.method.samples, job.seed, step=0)
    return [Trace(prompt.text, prompt.gold, True) for prompt in prompts if prompt.gold]


def told(job: Distill, models: Models) -> int:
    """How many of the teacher's likeliest tokens a student is told of."""
    assert models.teacher is not None  # noqa: S101
    vocabulary = min(models.teacher.facts.vocab, models.teacher.facts.embedding_rows)
    wanted = job.method.top_k if isinstance(job.method, Matching) else None
    return min(vocabulary, wanted or (vocabulary if vocabulary <= LARGEST_DISTRIBUTION else TOLD))


def compared_by(job: Distill, models: Models) -> Comparing:
    """What a student with a teacher is compared by."""
    if isinstance(job.method, SampledRKL):
        return "sample"
    return job.method.across if isinstance(job.method, KDAcross | GKDAcross) and not models.same_tokens else "token"


def parts(job: Distill, models: Models) -> list[Part]:
    """The processes of a distillation; those that are not there at the same time are counted together all the same."""
    teacher, reward = (one.parameters if one else 0 for one in (models.teacher and models.teacher.facts, models.reward))
    return parts_of_sizes(job, models.student.facts.parameters, teacher, reward)


def parts_of_sizes(job: Distill, student: int, teacher: int, reward: int = 0) -> list[Part]:
    """The processes of a distillation by its models' parameters; a teacher or reward model that is missing has none."""
    width = BYTES[job.train.dtype]
    trained = width + (0 if job.train.lora else width + 12)  # weights, gradients, float32 master copy and two moments
    kinds = [
        Part(
            "rollout",
            job.rollout.workers,
            job.rollout.cpus,
            job.rollout.gpus,
            engine_bytes(job.rollout, width * max(student, teacher)),
            f"{job.rollout.engine}, samples from the teacher, then from the student",
            "rollout",
        ),
        Part(
            "train",
            job.train.processes,
            job.train.cpus,
            job.train.gpus,
            TORCH_BYTES + trained * student / job.train.processes,
            "Ray Train and DeepSpeed ZeRO-3, trains the student",
            "student",
        ),
        checking_part(job.task, job.verifier, reward),
    ]
    if needs_scorers(job):
        memory = TORCH_BYTES + width * teacher
        kinds.append(
            Part("scorer", job.scorers, job.scorer.cpus, job.scorer.gpus, memory, "says how likely the teacher finds a token", "rollout")
        )
    return kinds


def needs_scorers(job: Distill) -> bool:
    return isinstance(job.method, Matching | SampledRKL) and not job.offline


def show(job: Distill, models: Models, folder: Path) -> None:
    """Print what a distillation would do."""
    from rich.console import Console

    console = Console()
    method = job.method
    console.print(f"distillation [bold]{job.name}[/bold] in {folder}: task {job.task.kind}, method {method.method}", highlight=False)
    console.print(models_table(models.facts))
    kinds = parts(job, models)
    console.print(actor_table(kinds))
    console.print(f"{totals(kinds)}; {method.steps} steps of {method.batch} completions", highlight=False)
    if isinstance(method, Matching | SampledRKL):
        console.print(_compared(job, models), highlight=False)
    for warning in models.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def _compared(job: Distill, models: Models) -> str:
    from raydistill.students.offline_card import read_card

    by = compared_by(job, models)
    if by == "sample":
        return "compared by the student's sampled tokens alone"
    if by == "span":
        return "compared by spans of bytes: the tokenizers differ"
    k = read_card(Path(job.offline)).k if job.offline else told(job, models)
    if by == "token":
        return f"compared by token: the teacher's {k} likeliest and all others as one"
    return f"compared by {by}, with the teacher's {k} likeliest tokens where spans of bytes start: the tokenizers differ"
