"""What a run will start: checked against the machine before anything does, and shown by `--dry-run`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.cluster import Kind, capacity
from raydistill.config.calibration import RolloutConfig
from raydistill.config.run import Run
from raydistill.config.shadows import ShadowsConfig
from raydistill.config.students import Matching, MeasuredOn
from raydistill.config.task import TaskConfig, VerifierConfig, is_graded, reward_config
from raydistill.diagnose.wrong_traces import too_few_pairs
from raydistill.errors import InputError
from raydistill.models.lineup import Lineup, line_up
from raydistill.models.table import models_table
from raydistill.reading import LOOKED_AT, longer_completions, require_readable, unknown_characters
from raydistill.scoring.score import LARGEST_DISTRIBUTION
from raydistill.students.data import Reader
from raydistill.tasks.prompt import Prompt, Split, Task

if TYPE_CHECKING:
    from rich.table import Table
    from transformers import PreTrainedTokenizerBase

    from raydistill.models.checkpoint import Checkpoint

GIB = 2**30
# Resident memory of a process before its model, measured on Linux with CPU builds.
VLLM_BYTES, TORCH_BYTES = 0.9 * GIB, 0.5 * GIB
BYTES = {"float32": 4, "bfloat16": 2}
_COUNTED = 4096
"""Texts whose tokens are counted: a data set may have a million."""


@dataclass(frozen=True)
class Part:
    """One kind of process of a run."""

    name: str
    processes: int
    cpus: float
    gpus: float
    memory: float
    """Bytes each, estimated."""
    does: str
    kind: Kind | None
    """Of Ray's processes, where they are placed."""


@dataclass(frozen=True)
class Size:
    """What of a model counts for the memory of a process."""

    parameters: int
    rows: int
    """Of the embedding."""
    hidden: int


def check(run: Run) -> Lineup:
    """Everything that can be checked without starting an actor. Raises InputError for the first thing that is wrong."""
    lineup = check_without_room(run)
    check_room(parts(run, lineup))
    return lineup


def check_without_room(run: Run) -> Lineup:
    """The models and the task, wherever they are to run. Raises InputError for the first thing that is wrong."""
    from raydistill.students.job import make_reader
    from raydistill.tasks.make import make_task, task_warnings

    lineup = line_up(run)
    task = make_task(run.task)
    _require_small_vocabulary(run, lineup)
    readers = {role.facts.section: make_reader(role.facts, role.config) for role in lineup.roles()}
    _require_comparable_students(run, readers)
    prompts: list[Prompt] = []
    splits: list[Split] = ["train", run.evaluation.split]
    if run.shadows or run.knob.target:
        splits.append("tune")
    for split in dict.fromkeys(splits):
        some = task.prompts(split)
        if not some:
            raise InputError(f"task: the {split} split has no prompts")
        prompts += some
    longest = _check_context(run, lineup, readers, [prompt.text for prompt in prompts])
    warnings = _check_reading(run, lineup, readers, sorted(prompts, key=lambda prompt: len(prompt.text))[-LOOKED_AT:], longest)
    return replace(lineup, warnings=(*lineup.warnings, *warnings, *task_warnings(task), *_check_diagnosis(run, task)))


def _check_diagnosis(run: Run, task: Task) -> list[str]:
    """Warnings about what a run's diagnosis cannot measure."""
    if run.diagnosis is None or not run.diagnosed:
        return []
    prompts = task.prompts(run.evaluation.split)[: run.evaluation.prompts][: run.diagnosis.prompts]
    few = too_few_pairs("diagnosis.", run.diagnosis.wrong_pairs, len(prompts), run.diagnosis.samples)
    return [] if is_graded(run.task) else few


def _require_small_vocabulary(run: Run, lineup: Lineup) -> None:
    vocabulary = lineup.teacher.facts.embedding_rows
    if run.learner.kl_estimator == "exact" and vocabulary > LARGEST_DISTRIBUTION:
        raise InputError(
            f"learner.kl_estimator: 'exact' sums over the vocabulary, and teacher.model has {vocabulary:,} tokens; "
            f"use 'k3' above {LARGEST_DISTRIBUTION:,}"
        )


def _require_comparable_students(run: Run, readers: dict[str, Reader]) -> None:
    from raydistill.students.job import require_comparable

    compared = [method for method in (run.students.methods if run.students else ()) if isinstance(method, Matching)]
    if compared:
        require_comparable(compared[0].method, readers["students.model"], readers["teacher"])


def _check_context(run: Run, lineup: Lineup, readers: dict[str, Reader], texts: list[str]) -> dict[str, int]:
    """Tokens of the longest prompt, by model."""
    longest = {section: longest_prompt(reader, texts) for section, reader in readers.items()}
    for role in lineup.roles():
        limits = [(f"the context of {role.facts.section}.model", role.facts.context)]
        if role is lineup.teacher or (run.diagnosed and role is lineup.student):
            limits.append(("rollout.max_model_len", run.rollout.max_model_len))
        require_context("calibration.max_new_tokens", run.calibration.max_new_tokens, longest[role.facts.section], limits)
    return longest


def longest_prompt(reader: Reader, texts: Sequence[str]) -> int:
    """Tokens of the longest of some prompts, with what goes around them."""
    return max(len(reader.prompt(text)) for text in most_tokens(reader.tokenizer, texts))


def most_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> list[str]:
    """The LOOKED_AT of some texts that have the most tokens by themselves, among the _COUNTED that have the most bytes."""
    distinct = sorted(set(texts), key=lambda text: (len(text.encode()), text))[-_COUNTED:]
    counts = [len(ids) for ids in tokenizer(distinct, add_special_tokens=False, verbose=False)["input_ids"]]
    return [text for _, text in sorted(zip(counts, distinct, strict=True))[-LOOKED_AT:]]


def require_context(field: str, new: int, prompt: int, limits: Sequence[tuple[str, int | None]]) -> None:
    """Raises InputError, naming the field that says how many tokens are `new`, where a prompt and those are more than a limit."""
    for name, context in limits:
        if context is not None and prompt + new > context:
            raise InputError(
                f"{field}: {new} and the longest prompt, {prompt} tokens, are more than {name} ({context}); "
                "lower it, choose shorter prompts, or raise the limit"
            )


def _check_reading(run: Run, lineup: Lineup, readers: dict[str, Reader], prompts: list[Prompt], longest: dict[str, int]) -> list[str]:
    """Warnings about how the models read the task; `longest` are `_check_context`'s. Raises InputError as `require_readable` does."""
    texts, golds = [prompt.text for prompt in prompts], [prompt.gold for prompt in prompts if prompt.gold]
    warnings = []
    for section, reader in readers.items():
        require_readable(section, reader, texts)
        warnings += unknown_characters(section, reader, texts + golds)
    contexts = {role.facts.section: role.facts.context for role in lineup.roles()}
    return warnings + longer_completions(readers, contexts, longest, golds, run.calibration.max_new_tokens, "calibration.max_new_tokens")


def parts(run: Run, lineup: Lineup) -> list[Part]:
    """The processes of a run."""
    sizes = {role.facts.section: _size(role.facts.checkpoint) for role in lineup.roles()}
    return parts_of_sizes(run, sizes | ({"task.reward": _size(lineup.reward)} if lineup.reward else {}))


def _size(checkpoint: Checkpoint) -> Size:
    return Size(checkpoint.parameters, checkpoint.embedding_rows, int(checkpoint.text_config.get("hidden_size", 0)))


def engine_bytes(rollout: RolloutConfig, weights: float) -> float:
    """Memory of an engine, with a model of so many bytes."""
    return (VLLM_BYTES if rollout.engine == "vllm" else TORCH_BYTES) + weights + rollout.kv_cache_mib * 2**20


def measured_prompts(task: Task, on: MeasuredOn) -> list[Prompt]:
    """The prompts to measure on. Raises InputError where there are none."""
    if prompts := task.prompts(on.split)[: on.prompts]:
        return prompts
    raise InputError(f"task: the {on.split} split has no prompts; name data that has some, or another evaluation.split")


def checking_part(task: TaskConfig, verifier: VerifierConfig, reward_parameters: int) -> Part:
    """What checks completions: worker processes, or a reward model of so many parameters."""
    reward = reward_config(task)
    if reward is None:
        return Part("verifier", verifier.workers, 0, 0, 0.1 * GIB, "checks answers", None)
    memory = TORCH_BYTES + BYTES[reward.dtype] * reward_parameters
    return Part("reward", 1, reward.cpus, reward.gpus, memory, "grades completions", "rollout")


def parts_of_sizes(run: Run, sizes: Mapping[str, Size]) -> list[Part]:
    """The processes of a run, by the sizes of the models of its sections."""
    width = BYTES[run.learner.dtype]
    teacher = sizes["teacher"].parameters
    # weights, gradients, float32 master copy, its copy for a reset, two moments; adapters are few, and only they have all but the first
    trained = width + (0 if run.learner.lora else width + 16)
    kinds = [
        Part(
            "rollout",
            run.rollout.workers,
            run.rollout.cpus,
            run.rollout.gpus,
            engine_bytes(run.rollout, width * teacher),
            f"{run.rollout.engine}, samples from the teacher",
            "rollout",
        ),
        Part(
            "learner",
            run.learner.processes,
            run.learner.cpus,
            run.learner.gpus,
            TORCH_BYTES + trained * teacher / run.learner.processes,
            "DeepSpeed ZeRO-3, trains the teacher",
            "learner",
        ),
        Part("anchor", 1, run.scorer.cpus, run.scorer.gpus, TORCH_BYTES + width * teacher, "scores under the original teacher", "rollout"),
        Part(
            "current", 1, run.scorer.cpus, run.scorer.gpus, TORCH_BYTES + width * teacher, "scores under the calibrated teacher", "rollout"
        ),
        checking_part(run.task, run.verifier, sizes["task.reward"].parameters if reward_config(run.task) else 0),
    ]
    if run.proxy is not None:
        memory = TORCH_BYTES + width * sizes["proxy"].parameters
        kinds.append(Part("proxy", 1, run.scorer.cpus, run.scorer.gpus, memory, "scores under the calibration model", "rollout"))
    if run.shadows is not None:
        sections = [f"shadows.models.{place}" for place in range(len(run.shadows.models))]
        kinds += [_shadow(run.shadows, section, sizes[section]) for section in sections]
    if run.students is not None:
        # float32: weights, gradients, two moments, and a copy that samples; the teacher's weights
        student = sizes["students.model"]
        both = 20 * student.parameters + 4 * teacher + student_logits(run.students.micro_batch_tokens, student)
        kinds.append(
            Part(
                "student",
                run.students.parallel,
                run.students.cpus,
                run.students.gpus,
                TORCH_BYTES + both,
                "distils and evaluates",
                "student",
            )
        )
    return kinds


def student_logits(micro_batch_tokens: int, student: Size) -> int:
    """Bytes: the logits of a micro-batch some four times, or of a chunk some six and the output layer's gradient twice more.

    Models that cap or scale their logits have the former even where it is large, which only the models themselves can tell.
    """
    from raydistill.students.distil import LARGEST_LOGITS
    from raydistill.students.fused import CHUNK

    if micro_batch_tokens * student.rows <= LARGEST_LOGITS:
        return 4 * 4 * micro_batch_tokens * student.rows
    return 4 * student.rows * (6 * CHUNK + 2 * student.hidden)


def _shadow(shadows: ShadowsConfig, section: str, size: Size) -> Part:
    # float32: shadow and twin with gradients and two moments each; copies that score and sample, the served weights, the direction
    logits = 4 * 4 * shadows.micro_batch_tokens * size.rows
    memory = TORCH_BYTES + (2 * 16 + 4 * 4) * size.parameters + logits
    return Part("shadow", 1, shadows.cpus, shadows.gpus, memory, f"distils {section} as the teacher changes", "student")


def check_room(kinds: Sequence[Part]) -> None:
    """Raises InputError where the actors need more than the machine, or the cluster once joined, has; before that it cannot tell."""
    there = capacity()
    if there is None:
        return
    for resource, field in (("CPU", "cpus"), ("GPU", "gpus")):
        wanted = sum(part.processes * getattr(part, field) for part in kinds)
        available = there.get(resource, 0.0)
        if wanted > available + 1e-9:
            each = ", ".join(f"{part.name} {part.processes} x {getattr(part, field):g}" for part in kinds if getattr(part, field))
            raise InputError(
                f"more actors than there is room for: {wanted:g} {resource}s wanted ({each}), {available:g} available; "
                f"lower the numbers of workers or their '{field}', or use a larger cluster"
            )


def show_plan(run: Run, lineup: Lineup, folder: Path) -> None:
    """Print what a run would do."""
    from rich.console import Console

    console = Console()
    console.print(f"run [bold]{run.name}[/bold] in {folder}: task {run.task.kind}, {asked(run)}, seeds {list(run.seeds)}", highlight=False)
    console.print(models_table([role.facts for role in lineup.roles()]))
    kinds = parts(run, lineup)
    console.print(actor_table(kinds))
    console.print(f"{totals(kinds)}; {steps(run)}", highlight=False)
    for warning in lineup.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False)


def actor_table(kinds: Sequence[Part]) -> Table:
    """The processes of a run."""
    from rich.table import Table

    actors = Table("actor", "processes", "CPUs each", "GPUs each", "GiB each", "does", title="actors", title_justify="left")
    for part in kinds:
        actors.add_row(part.name, str(part.processes), f"{part.cpus:g}", f"{part.gpus:g}", f"{part.memory / GIB:.1f}", part.does)
    return actors


def totals(kinds: Sequence[Part]) -> str:
    """What they need together."""
    cpus = sum(part.processes * part.cpus for part in kinds)
    gpus = sum(part.processes * part.gpus for part in kinds)
    memory = sum(part.processes * part.memory for part in kinds) / GIB
    return f"in all {cpus:g} CPUs, {gpus:g} GPUs, about {memory:.1f} GiB"


def asked(run: Run) -> str:
    """The knob's setting in words."""
    target = run.knob.target
    return f"students at {target.student_ratio:g} of the control, |eta| up to {target.max_eta:g}" if target else f"eta {run.knob.eta:g}"


def steps(run: Run) -> str:
    """How much there is to do, in words."""
    calibration = run.calibration
    todo = f"{len(run.seeds)} x at most {calibration.steps} steps of {calibration.prompts} prompts x {calibration.samples} samples"
    methods = [method.method for method in run.students.methods] if run.students else []
    students = len(run.seeds) * (2 * len(methods) + 1) if run.students else 0
    pairs = f"; {1 + len(run.seeds) * (2 * len(methods) + 1)} pairs of a teacher and a student diagnosed" if run.diagnosed else ""
    return f"{todo}; at most {students} students ({', '.join(methods) or 'none'}){_looks(run)}{pairs}"


def _looks(run: Run) -> str:
    target = run.knob.target
    if target is None:
        return ""
    looks = -(-run.calibration.steps // target.measure_every)
    return f"; for the target at most {looks} measurements a seed, of {target.students} students and as many again where one is confirmed"
