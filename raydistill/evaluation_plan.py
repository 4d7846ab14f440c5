"""What an evaluation will start: checked against the machine before anything does, and shown by `--dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raydistill.config.evaluate import Evaluate, OptionsConfig
from raydistill.config.task import DataSetTask
from raydistill.errors import InputError
from raydistill.evaluate.groups import require_few_groups
from raydistill.evaluate.options import written_options
from raydistill.models.checkpoint import Checkpoint
from raydistill.models.lineup import Role, inspected
from raydistill.models.reward_model import reward_checkpoint
from raydistill.models.table import models_table
from raydistill.models.text import encode_completion
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
    most_tokens,
    require_context,
    totals,
)
from raydistill.reading import require_readable, unknown_characters
from raydistill.students.data import Reader
from raydistill.students.job import make_reader
from raydistill.tasks.make import make_task, task_warnings
from raydistill.tasks.prompt import Prompt, Task


@dataclass(frozen=True)
class Subject:
    """A model and a task, checked, and how the one reads the other."""

    role: Role
    reader: Reader
    task: Task
    prompts: tuple[Prompt, ...]
    warnings: tuple[str, ...]
    reward: Checkpoint | None
    """The reward model, where one grades completions."""


def check(job: Evaluate) -> Subject:
    """Everything that can be checked without starting an actor. Raises InputError for the first thing that is wrong."""
    task = make_task(job.task)
    role = inspected("model", job.model)
    facts, reader = role.facts, make_reader(role.facts, role.config)
    prompts = measured_prompts(task, job.evaluation)
    if isinstance(job.task, DataSetTask):
        require_few_groups(f"task.{job.task.given(job.evaluation.split, 'group')[0]}", [prompt.group for prompt in prompts])
    if job.evaluation.options:
        _check_options(job, job.evaluation.options, role.facts.context, reader, prompts)
    texts = [prompt.text for prompt in prompts]
    if job.generates:
        limits = [("the context of model.model", facts.context), ("rollout.max_model_len", job.rollout.max_model_len)]
        require_context("max_new_tokens", job.max_new_tokens, longest_prompt(reader, texts), limits)
    require_readable("model", reader, texts)
    warnings = (*facts.warnings, *unknown_characters("model", reader, texts), *task_warnings(task))
    subject = Subject(role, reader, task, tuple(prompts), warnings, reward_checkpoint(job.task))
    check_room(parts(job, subject))
    return subject


def _check_options(job: Evaluate, config: OptionsConfig, context: int | None, reader: Reader, prompts: Sequence[Prompt]) -> None:
    """Raises InputError for a task without options, and for options that the model's context has no room for."""
    if not all(prompt.options for prompt in prompts):
        raise InputError(f"evaluation.options: the {job.task.kind} task has no options to choose from; drop it, or name another task")
    pairs = [(prompt.text, option) for prompt in prompts for option in written_options(prompt, config.continuations)]
    by_text = {f"{text}\n{option}": (text, option) for text, option in pairs}
    tokens = max(
        len(reader.prompt(text)) + len(encode_completion(reader.tokenizer, config.lead + option))
        for text, option in map(by_text.__getitem__, most_tokens(reader.tokenizer, by_text))
    )
    if context is not None and tokens > context:
        raise InputError(
            f"evaluation.options: the longest prompt with an option, {tokens} tokens, is more than the context of model.model ({context}); "
            "choose shorter prompts, or a model with a longer context"
        )


def parts(job: Evaluate, subject: Subject) -> list[Part]:
    """The processes of an evaluation; engines are gone before a scorer starts, and are counted with it all the same."""
    rollout, scorer, weights = job.rollout, job.scorer, BYTES[job.dtype] * subject.role.facts.parameters
    kinds = []
    if job.generates:
        does = f"{rollout.engine}, samples"
        kinds.append(Part("rollout", rollout.workers, rollout.cpus, rollout.gpus, engine_bytes(rollout, weights), does, "rollout"))
        kinds.append(checking_part(job.task, job.verifier, subject.reward.parameters if subject.reward else 0))
    if job.evaluation.options:
        kinds.append(Part("scorer", 1, scorer.cpus, scorer.gpus, TORCH_BYTES + weights, "says how likely it finds an option", "rollout"))
    return kinds


def show(job: Evaluate, subject: Subject, folder: Path) -> None:
    """Print what an evaluation would do."""
    from rich.console import Console

    console = Console()
    console.print(f"evaluation [bold]{job.name}[/bold] in {folder}: task {job.task.kind}", highlight=False)
    console.print(models_table([subject.role.facts]))
    kinds = parts(job, subject)
    console.print(actor_table(kinds))
    each = f"{job.evaluation.samples} sampled and {int(job.evaluation.greedy)} greedy completions each"
    options = ", the likelihood of each option" if job.evaluation.options else ""
    groups = {prompt.group for prompt in subject.prompts} - {""}
    grouped = f"; {len(groups)} groups" if groups else ""
    console.print(f"{totals(kinds)}; {len(subject.prompts)} prompts of {job.evaluation.split}, {each}{options}{grouped}", highlight=False)
    for warning in subject.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)
