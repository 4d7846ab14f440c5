"""What is measured of a teacher, before and after: its score, how far it moved, its score gap, and the traces it gives its students."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from raydistill.calibrate import prompts_of_step, step_seed
from raydistill.config.run import Run
from raydistill.config.shadows import ShadowsConfig
from raydistill.crew import Crew
from raydistill.errors import RunError
from raydistill.evaluate.evaluation import Evaluation
from raydistill.evaluate.measure import measure
from raydistill.files import write_whole
from raydistill.scoring.actor import answers
from raydistill.students.data import Answer
from raydistill.students.shadow_group import OriginalTraces
from raydistill.tasks.prompt import Prompt
from raydistill.traces import TraceSet, sample_traces

PROBED_PROMPTS = 256
"""Prompts, with as many completions each as in calibration, on which KL and score gap are measured; traces without students."""
EXAMPLES = 3


@dataclass(frozen=True)
class TeacherMeasurement:
    """A teacher on the evaluation split."""

    evaluation: Evaluation
    kl_per_sequence: float
    """KL(teacher || original), nats a sequence."""
    gap: float
    """Mean score gap of its own completions, its own score as the denominator."""
    examples: tuple[tuple[str, str], ...]
    """(prompt, completion)."""

    @classmethod
    def read(cls, path: Path) -> TeacherMeasurement:
        data = json.loads(path.read_text())
        evaluation = Evaluation.from_dict(data.pop("evaluation"))
        examples = tuple((prompt, text) for prompt, text in data.pop("examples"))
        return cls(evaluation=evaluation, examples=examples, **data)


def evaluation_prompts(run: Run, crew: Crew) -> list[Prompt]:
    return crew.task.prompts(run.evaluation.split)[: run.evaluation.prompts]


def measure_teacher(run: Run, crew: Crew, seed: int, path: Path) -> TeacherMeasurement:
    """Measure the teacher whose weights were synced last; read back from `path` where it was measured before."""
    if path.exists():
        return TeacherMeasurement.read(path)
    prompts = evaluation_prompts(run, crew)
    evaluation = measure(
        crew.pool.generate,
        crew.task,
        crew.verifier,
        prompts,
        crew.token_prompts(prompts),
        run.evaluation.teacher_samples,
        run.calibration.max_new_tokens,
        seed=evaluation_seed(seed),
    )
    batch = crew.sample(prompts[:PROBED_PROMPTS], seed=evaluation_seed(seed))
    crew.verify(batch)
    gap = crew.own_gap(batch)
    examples = tuple((prompt.text, batch.completions[i * batch.samples].text) for i, prompt in enumerate(prompts[:EXAMPLES]))
    measurement = TeacherMeasurement(evaluation, crew.kl(batch), gap, examples)
    write_whole(path, json.dumps(asdict(measurement)))
    return measurement


def evaluation_seed(seed: int) -> int:
    """The sampling seed of an evaluation: apart from those of training, the same for all teachers with a run's seed."""
    return 7_000_000_000 + seed


def fresh_traces(crew: Crew, prompts: Sequence[Prompt], seed: int) -> TraceSet:
    """One trace of each prompt, sampled from the teacher whose weights were synced last."""
    return sample_traces(crew.generate, crew.task, crew.verifier, prompts, crew.run.calibration.max_new_tokens, seed)


def collect_traces(crew: Crew, prompts: Sequence[Prompt], seed: int, path: Path) -> TraceSet:
    """`fresh_traces`, read back where it was done before. Raises RunError where that leaves nothing for a run's students."""
    if path.exists():
        return TraceSet.read(path)
    found = fresh_traces(crew, prompts, seed)
    if crew.run.students and not found.traces:
        raise RunError(f"every trace of seed {seed}'s teacher has a special token inside: nothing is left for its students")
    write_whole(path, found.to_json())
    return found


def collect_original(crew: Crew, shadows: ShadowsConfig, seed: int, path: Path) -> OriginalTraces:
    """What a seed's shadow students need, sampled from the original, which was synced last; read back where it was done before.

    Twins get what the original would have answered in each step, by the step's own prompts and streams. Raises RunError where
    influence is asked for and no answer on a tune prompt is right.
    """
    if path.exists():
        return OriginalTraces.read(path)
    calibration, train = crew.run.calibration, crew.task.prompts("train")
    twin = [
        tuple(crew.sample(prompts_of_step(train, calibration.prompts, seed, step), step_seed(seed, step)).traces())
        for step in range(calibration.steps)
    ]
    held_out = _right_answers(crew, crew.task.prompts("tune")[: shadows.held_out], seed) if shadows.use == "influence" else ()
    if shadows.use == "influence" and not held_out:
        raise RunError(f"shadows.held_out: none of the original's answers to {shadows.held_out} tune prompts is right; raise it")
    found = OriginalTraces(tuple(twin), held_out)
    write_whole(path, json.dumps(asdict(found)))
    return found


def _right_answers(crew: Crew, prompts: Sequence[Prompt], seed: int) -> tuple[Answer, ...]:
    """The right and whole ones among as many completions of each prompt as a step samples."""
    batch = crew.sample(prompts, seed=9_000_000_000 + seed)
    crew.verify(batch)
    taken = batch.calibrated(only_right=True).flatten()
    traces = [trace for trace, right in zip(batch.traces(), taken, strict=True) if trace and right]
    (scores,) = answers([crew.anchor.score.remote([trace.prompt_text for trace in traces], [trace.completion_text for trace in traces])])
    logprobs = [(score.with_end() if trace.ended else score).logprob for trace, score in zip(traces, scores, strict=True)]
    return tuple(Answer(trace, logprob) for trace, logprob in zip(traces, logprobs, strict=True))
