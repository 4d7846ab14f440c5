"""One student from base model to evaluation, in one process: what the pool sends to its workers."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.config.models import ModelConfig
from raydistill.config.students import Matching, MethodConfig, SeqKD
from raydistill.config.task import VerifierConfig
from raydistill.errors import InputError
from raydistill.evaluate.evaluation import Evaluation
from raydistill.files import whole_folder
from raydistill.students.data import Reader, Trace
from raydistill.tasks.prompt import Prompt, Task

if TYPE_CHECKING:
    from raydistill.models.preflight import ModelFacts
    from raydistill.reward.grader import Grader
    from raydistill.rollout.engine import Engine
    from raydistill.tasks.outcome import Checker

EVALUATION_FILE = "evaluation.json"
_DIGEST_FILE = "job.sha256"


@dataclass(frozen=True)
class StudentJob:
    """Distil one student and evaluate it. Equal jobs give equal students, to the bit."""

    out: Path
    """Folder for the student, its evaluation included. Its name stands for the student in messages."""
    student: ModelConfig
    """The student before distillation."""
    method: MethodConfig | None
    """None evaluates the student as it is. SeqKD is also what `sft_gold` is done by, with gold traces."""
    seed: int
    task: Task
    prompts: tuple[Prompt, ...]
    """What to evaluate on."""
    samples: int
    """Completions of each prompt, at temperature 1, in the evaluation."""
    max_new_tokens: int
    """Of a completion, in the evaluation and on-policy."""
    ends_before: str = ""
    """A text before which its completions end, see `EngineSpec`."""
    micro_batch_tokens: int = 8192
    """Tokens, padding included, in one forward and backward pass."""
    verifier: VerifierConfig = field(default_factory=VerifierConfig)
    traces: tuple[Trace, ...] = ()
    """Where the method wants any; at least one."""
    teacher: ModelConfig | None = None
    """For methods that match a teacher."""
    train_prompts: tuple[str, ...] = ()
    """On-policy: texts of the prompts that the student completes."""
    grader: Grader | None = None
    """Grades completions in the place of the task's verifier."""

    def __post_init__(self) -> None:
        if self.method and self.method.traces and not self.traces:
            raise ValueError(f"{self.method.method} needs traces")
        if isinstance(self.method, Matching) and not self.teacher:
            raise ValueError(f"{self.method.method} needs a teacher")
        if isinstance(self.method, Matching) and self.method.on_policy and not self.train_prompts:
            raise ValueError(f"{self.method.method} needs train prompts")

    @property
    def title(self) -> str:
        return f"student {self.out.name}"

    def run(self, threads: int = 1) -> Evaluation:
        return run_job(self, threads)

    @property
    def digest(self) -> str:
        """Tells whether a finished student is this job's. Where it is stored, and how it is checked, make no difference."""
        parts = [repr(getattr(self, part.name)) for part in fields(self) if part.name not in ("out", "task", "verifier", "grader")]
        return hashlib.sha256("\n".join([self.task.name, *parts]).encode()).hexdigest()


def run_job(job: StudentJob, threads: int = 1) -> Evaluation:
    """Train, evaluate and write one student; one that is there already is read back.

    The folder holds the student as a Hugging Face folder (unless `method` is None) and its evaluation, and is whole or
    absent. Uses a GPU where one is visible. Raises InputError if the folder is something else, or the method and the models
    do not fit; RunError if the training diverges.
    """
    if job.out.exists():
        return _finished(job)
    with whole_folder(job.out) as unfinished:
        evaluation = _distil(job, unfinished, threads)
        (unfinished / EVALUATION_FILE).write_text(evaluation.to_json())
        (unfinished / _DIGEST_FILE).write_text(job.digest)
    return evaluation


def _finished(job: StudentJob) -> Evaluation:
    digest = job.out / _DIGEST_FILE
    if not digest.exists() or digest.read_text() != job.digest:
        raise InputError(f"{job.out}: holds something other than this run's student; remove it, or write to another folder")
    return Evaluation.read(job.out / EVALUATION_FILE)


def _distil(job: StudentJob, folder: Path, threads: int) -> Evaluation:
    """Train the student, write it to `folder`, evaluate it."""
    import torch

    from raydistill.models.load import load_model
    from raydistill.rollout.engine import EngineSpec
    from raydistill.rollout.transformers_engine import TransformersEngine

    gpu = torch.cuda.is_available()
    reader = read_model("students", job.student)
    longest = max(len(reader.prompt(text)) for text in (*job.train_prompts, *(prompt.text for prompt in job.prompts)))
    length = longest + job.max_new_tokens
    engine = TransformersEngine(
        EngineSpec("transformers", job.student.model, length, threads=threads, ends_before=job.ends_before, gpu=gpu)
    )
    if job.method is not None:
        model: Any = load_model(job.student.model)
        model.requires_grad_(True).to("cuda" if gpu else "cpu")
        _train(job, job.method, reader, model, engine)
        engine.load_weights(job.method.steps, model.named_parameters())
        model.save_pretrained(folder)
        reader.tokenizer.save_pretrained(folder)
    return _evaluate(job, reader, engine)


def read_model(section: str, config: ModelConfig) -> Reader:
    """How the model of a config's section reads texts. Raises InputError as `inspect_model` does."""
    from raydistill.models.preflight import ModelRef, inspect_model

    return make_reader(inspect_model(ModelRef(section, config.model, config.template, config.system_prompt)), config)


def make_reader(facts: ModelFacts, config: ModelConfig) -> Reader:
    """How a model that was inspected reads texts."""
    from raydistill.models.load import load_tokenizer

    tokenizer = load_tokenizer(config.model)
    # A chat template can end a turn with a token at which no engine stops, because the model's files do not name it as one.
    end_id = facts.end_of_turn_id if facts.end_of_turn_id in facts.eos_ids else tokenizer.eos_token_id
    return Reader(tokenizer, facts.template, config.prompt_format, end_id, config.system_prompt)


def _train(job: StudentJob, method: MethodConfig, reader: Reader, model: Any, engine: Engine) -> None:
    from raydistill.models.load import load_model
    from raydistill.students.data import Encoded
    from raydistill.students.distil import Objective, PromptPair, Recipe, TracePair, match_teacher, sft

    recipe = Recipe(method.steps, method.batch, method.lr, job.seed, job.micro_batch_tokens)
    encoded = [reader.trace(trace) for trace in job.traces]
    if isinstance(method, SeqKD):
        sft(model, encoded, recipe)
        return
    assert job.teacher is not None  # noqa: S101
    teachers = read_model("teacher", job.teacher)
    require_comparable(method.method, reader, teachers)
    pairs = [PromptPair(reader.prompt(text), teachers.prompt(text)) for text in job.train_prompts]
    read = [Encoded(teachers.prompt(trace.prompt_text), own.completion_ids) for trace, own in zip(job.traces, encoded, strict=True)]
    traces = [TracePair(own, other) for own, other in zip(encoded, read, strict=True)]
    teacher: Any = load_model(job.teacher.model)
    objective = Objective(method.jsd_beta, method.on_policy, method.temperature, method.top_k)
    match_teacher(model, engine, teacher.to(model.device), pairs, traces, recipe, objective, job.max_new_tokens)


def require_comparable(method: str, student: Reader, teacher: Reader) -> None:
    """Raises InputError where two models cannot be compared token by token: other vocabularies, or other ends of an answer."""
    own, other = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    cure = "use seqkd, or a student of the teacher's family"
    if own != other:
        raise InputError(
            f"students.model: {method} needs the teacher's vocabulary, but the student shares {len(own.items() & other.items())} of its "
            f"{len(own)} tokens with the teacher's {len(other)}; {cure}"
        )
    if student.end_id != teacher.end_id:
        ends = [reader.tokenizer.convert_ids_to_tokens(reader.end_id) for reader in (student, teacher)]
        raise InputError(
            f"students.model: {method} would teach the student to end an answer with {ends[1]!r}, but it stops at {ends[0]!r} alone; "
            f"{cure} with the same chat template"
        )


def student_checker(task: Task, verifier: VerifierConfig, grader: Grader | None) -> AbstractContextManager[Checker]:
    """What checks a student's completions: processes of its own, or the run's reward model, which it leaves running."""
    from raydistill.tasks.verifier import Verifier

    return nullcontext(grader) if grader else Verifier(task, verifier.workers, verifier.timeout)


def _evaluate(job: StudentJob, reader: Reader, engine: Engine) -> Evaluation:
    from raydistill.evaluate.measure import measure
    from raydistill.rollout.completion import TokenPrompt

    asked = [TokenPrompt(prompt.id, reader.prompt(prompt.text)) for prompt in job.prompts]
    generate = partial(engine.generate, version=engine.weights_version)
    with student_checker(job.task, job.verifier, job.grader) as verifier:
        return measure(generate, job.task, verifier, job.prompts, asked, job.samples, job.max_new_tokens, job.seed)
