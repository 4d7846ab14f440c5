"""All that a report is made from: what was measured, nothing yet compared."""

from __future__ import annotations

from dataclasses import dataclass

from raydistill.config.run import Run
from raydistill.evaluate.evaluation import Evaluation
from raydistill.report.scores import Json


@dataclass(frozen=True)
class TraceFacts:
    """The completions of a teacher that its students were fed."""

    accuracy: float
    """Share of right ones; mean reward where the task is graded."""
    length: float
    """Mean tokens."""
    truncated: float
    """Share that was cut off."""
    style: dict[str, float]
    """Share in each style."""
    dropped: float = 0.0
    """Share of what was sampled that no student was fed, for it has a special token inside; it is left out of all the above."""


@dataclass(frozen=True)
class TeacherFacts:
    """The teacher before and after; tuples hold one entry for each seed of the run, in order."""

    original: Evaluation
    calibrated: tuple[Evaluation, ...]
    kl_per_sequence: tuple[float, ...]
    """KL(calibrated || original), nats a sequence."""
    original_gap: float
    """Mean score gap of the original's own completions, its own score as the denominator, in the knob's unit."""
    calibrated_gap: tuple[float, ...]
    """The same of each calibrated teacher's own completions and score."""
    traces: tuple[TraceFacts, ...]
    examples: tuple[tuple[str, str, str], ...]
    """(prompt, a completion of the original, one of the first calibrated teacher), same prompt and sampling seed."""


@dataclass(frozen=True)
class StudentFacts:
    """One way to distil; tuples hold one entry for each seed."""

    method: str
    samples: int
    """Traces or student completions that it was trained on."""
    steps: int
    control: tuple[Evaluation, ...]
    """Students of the original teacher."""
    calibrated: tuple[Evaluation, ...]
    """Students of the calibrated teachers."""


@dataclass(frozen=True)
class TargetFacts:
    """How near a calibration with a target came, by the students distilled on the way: one of its seeds."""

    asked: float
    """Ratio to the control."""
    reached: float
    """As it was measured, on tune, of the teacher that was kept: the one nearest to what was asked for."""
    eta: float
    """In force in the last step before."""
    steps: int
    """That this teacher took."""
    ended: str
    """`met`, or why the calibration ended otherwise."""

    @property
    def met(self) -> bool:
        return self.ended == "met"


@dataclass(frozen=True)
class PairFacts:
    """Diagnoses of one student, beside the original teacher and beside the calibrated ones."""

    student: str
    """`base`, the student before distillation, or the method by which either teacher taught it."""
    original: tuple[Json, ...]
    """Contents of diagnosis.json: one for each seed, or a single one where the student is the base."""
    calibrated: tuple[Json, ...]
    """One for each seed."""


@dataclass(frozen=True)
class Facts:
    """Everything measured in one run of the main job."""

    run: Run
    teacher: TeacherFacts
    base: Evaluation | None
    """The student before distillation; None where the run has no students."""
    sft_gold: tuple[Evaluation, ...]
    """Students trained on gold completions, one for each seed; empty where the task has none."""
    students: tuple[StudentFacts, ...]
    seconds: dict[str, float]
    """`total`, `calibrate`, `distil`, `evaluate`."""
    target: tuple[TargetFacts, ...] = ()
    """One for each seed; empty without a target."""
    diagnoses: tuple[PairFacts, ...] = ()
    """The base student first; empty where the run is not diagnosed."""
