"""An estimate of what a run or a distillation takes in GPU-hours, phase by phase."""

from __future__ import annotations

import math
from dataclasses import dataclass

from raydistill.config.calibration import ZeroConfig
from raydistill.config.distill import SFT, Distill, SampledRKL
from raydistill.config.run import Run
from raydistill.config.students import Matching
from raydistill.models.shapes import Shape
from raydistill.plan import BYTES
from raydistill.scaling.arithmetic import (
    ASSUMED_DECODING,
    ASSUMED_DIGEST,
    ASSUMED_HOST,
    ASSUMED_LINK,
    ASSUMED_OBJECTS,
    ASSUMED_UTILISATION,
    ENGINE_SEQUENCES,
    GPUS_PER_NODE,
    Gpu,
    compute_seconds,
    decode_seconds,
    exchange_seconds,
    forward_flops,
    gather_seconds,
    kv_bytes,
    sync_seconds,
    training_passes,
)
from raydistill.scaling.memory import Shapes

ASSUMED_PROMPT = 150
"""Tokens of a prompt in its template. The data are not looked at."""
ASSUMED_SHARE = 0.5
"""Mean length of a completion as a share of max_new_tokens. With each group of samples one is taken to come to the end of it."""
PROBED_PROMPTS = 256
"""As in raydistill/teachers.py, which is not imported: it takes seconds."""


@dataclass(frozen=True)
class Phase:
    """Something that is done `times` over, one after the other."""

    name: str
    seconds: float
    """Each time."""
    gpus: float
    """That are busy; the others wait. None is in a sync, most of which is copies and digests on CPUs."""
    times: float


@dataclass(frozen=True)
class Hours:
    """Of a whole job."""

    phases: tuple[Phase, ...]
    gpus: int
    """Reserved from the beginning to the end."""

    @property
    def wall(self) -> float:
        """Hours by the clock."""
        return sum(phase.seconds * phase.times for phase in self.phases) / 3600

    @property
    def reserved(self) -> float:
        """GPU-hours that are paid for."""
        return self.wall * self.gpus

    @property
    def busy(self) -> float:
        """GPU-hours in which a GPU has something to do."""
        return sum(phase.seconds * phase.times * phase.gpus for phase in self.phases) / 3600


@dataclass(frozen=True)
class _Sampling:
    """What engines do."""

    shape: Shape
    width: int
    workers: int
    kv_cache: float
    longest: int
    """max_new_tokens."""

    @property
    def mean(self) -> float:
        return ASSUMED_SHARE * self.longest

    def seconds(self, sequences: float, gpu: Gpu) -> float:
        """Of sampling so many completions on all engines."""
        at_once = min(ENGINE_SEQUENCES, self.kv_cache // kv_bytes(self.shape, ASSUMED_PROMPT + self.longest, self.width))
        return decode_seconds(
            self.shape, math.ceil(sequences / self.workers), at_once, ASSUMED_PROMPT, self.mean, self.longest, self.width, gpu
        )


def run_hours(run: Run, shapes: Shapes, gpus: int, gpu: Gpu) -> Hours:
    """Of a run at its full number of steps, students and shadows apart. One phase waits for the one before it, as in
    `raydistill/calibrate.py`. Without `evaluation.prompts`, which a split then decides, what is measured on it is left out."""
    calibration, teacher, width = run.calibration, shapes["teacher"], BYTES[run.learner.dtype]
    sampling = _Sampling(teacher, width, run.rollout.workers, run.rollout.kv_cache_mib * 2**20, calibration.max_new_tokens)
    completions = calibration.prompts * calibration.samples
    steps = calibration.steps * len(run.seeds)
    anchor = 2 * completions * forward_flops(teacher, ASSUMED_PROMPT, sampling.mean)  # for the KL and for the reward
    proxy = completions * forward_flops(shapes["proxy"], ASSUMED_PROMPT, sampling.mean) if "proxy" in shapes else 0.0
    measured = (run.evaluation.prompts or 0) * run.evaluation.teacher_samples + PROBED_PROMPTS * calibration.samples
    # The KL of a step is measured by a pass before it.
    learn = trained_seconds(run.learner, teacher, completions, sampling.mean, gpu) + passed_seconds(
        run.learner, teacher, completions, sampling.mean, gpu
    )
    return Hours(
        (
            Phase("rollout", sampling.seconds(completions, gpu), run.rollout.workers, steps),
            Phase("score", compute_seconds(anchor + proxy, 1, gpu), 1, steps),
            Phase("learn", learn, run.learner.processes, steps),
            Phase("sync", _sync(teacher, width, run.learner, gpus, gpu), 0, steps),
            Phase("measure the teacher", sampling.seconds(measured, gpu), run.rollout.workers, 1 + len(run.seeds)),
        ),
        gpus,
    )


def distill_hours(job: Distill, shapes: Shapes, gpus: int, gpu: Gpu) -> Hours:
    """Of a distillation: what the teacher samples and scores beforehand, the steps, what is measured."""
    method, student, width = job.method, shapes["student"], BYTES[job.train.dtype]
    kv_cache = job.rollout.kv_cache_mib * 2**20
    own = _Sampling(student, width, job.rollout.workers, kv_cache, job.max_new_tokens)
    fresh = 1.0 if isinstance(method, SampledRKL) else method.on_policy if isinstance(method, Matching) else 0.0
    steps = method.steps
    phases = [
        Phase("sync", _sync(student, width, job.train, gpus, gpu), 0, steps * fresh),
        Phase("sample", own.seconds(method.batch, gpu), job.rollout.workers, steps * fresh),
        Phase("learn", trained_seconds(job.train, student, method.batch, own.mean, gpu), job.train.processes, steps),
    ]
    measured = job.evaluation.prompts or 0
    if "teacher" in shapes and not isinstance(method, SFT):
        teacher = _Sampling(shapes["teacher"], width, job.rollout.workers, kv_cache, job.max_new_tokens)
        scored = forward_flops(teacher.shape, ASSUMED_PROMPT, own.mean)
        traces = 0 if job.offline else method.traces
        score = compute_seconds(method.batch * scored, job.scorers, gpu)
        phases += [
            Phase("score", score, job.scorers, steps * fresh),
            Phase("sample traces", teacher.seconds(traces, gpu) if traces else 0.0, job.rollout.workers, 1),
            Phase("score traces", compute_seconds(traces * scored, job.scorers, gpu), job.scorers, float(isinstance(method, Matching))),
            Phase("measure the teacher", teacher.seconds(measured * job.evaluation.teacher_samples, gpu), job.rollout.workers, 1),
        ]
    phases.append(Phase("measure the student", own.seconds(measured * job.evaluation.student_samples, gpu), job.rollout.workers, 2))
    return Hours(tuple(phase for phase in phases if phase.seconds * phase.times), gpus)


def trained_seconds(config: ZeroConfig, shape: Shape, completions: float, mean: float, gpu: Gpu) -> float:
    """Of one optimiser step by ZeRO-3 processes: what is computed, or what they exchange for it where that takes longer. Each micro-batch
    gathers all parameters for its forward pass, and again on the way back, where it also reduces the gradients of what is trained."""
    passes = training_passes(config.lora is not None, config.gradient_checkpointing)
    width, trained = BYTES[config.dtype], shape.adapters(config.lora.rank) if config.lora else shape.parameters
    exchanged = 2 * gather_seconds(shape, width, config.processes, gpu) + exchange_seconds(trained, width, config.processes, gpu)
    return _zero3_seconds(config, shape, completions, mean, passes, exchanged, gpu)


def passed_seconds(config: ZeroConfig, shape: Shape, completions: float, mean: float, gpu: Gpu) -> float:
    """Of one pass without gradients, likewise."""
    exchanged = gather_seconds(shape, BYTES[config.dtype], config.processes, gpu)
    return _zero3_seconds(config, shape, completions, mean, 1, exchanged, gpu)


def _zero3_seconds(config: ZeroConfig, shape: Shape, completions: float, mean: float, passes: int, exchanged: float, gpu: Gpu) -> float:
    """`exchanged` are the seconds that a micro-batch's exchanges take."""
    compute = compute_seconds(passes * completions * forward_flops(shape, ASSUMED_PROMPT, mean), config.processes, gpu)
    micro_batches = math.ceil(completions * (ASSUMED_PROMPT + mean) / config.processes / config.micro_batch_tokens)
    return max(compute, micro_batches * exchanged)


def _sync(shape: Shape, width: int, config: ZeroConfig, gpus: int, gpu: Gpu) -> float:
    """Nodes are filled one after the other; the first has the learner's first process."""
    return sync_seconds(shape, width, math.ceil(gpus / GPUS_PER_NODE) - 1, config.processes, gpu)


def assumptions(gpu: Gpu) -> list[str]:
    """In words, a line each, what the hours rest on."""
    return [
        f"{ASSUMED_UTILISATION:.0%} of {gpu.flops / 1e12:,.0f} TFLOP/s in training and scoring, {ASSUMED_DECODING:.0%} of "
        f"{gpu.bandwidth / 1e12:.2f} TB/s in decoding, {ASSUMED_LINK:.0%} of {gpu.link / 1e9:.0f} GB/s within a node and of "
        f"{gpu.network / 1e9:.0f} GB/s a GPU between nodes of {GPUS_PER_NODE}",
        f"prompts of {ASSUMED_PROMPT} tokens, completions of {ASSUMED_SHARE:.0%} of max_new_tokens on average, one as long as it may be",
        f"a sync at {ASSUMED_HOST / 1e9:g} GB/s a copy, {ASSUMED_DIGEST / 1e9:g} GB/s a SHA-256, "
        f"{ASSUMED_OBJECTS / 1e9:g} GB/s to each other node",
        "not counted: start-up, compiling, verifying, checkpoints, failures; in the main job students and shadows",
    ]
