"""Teacher and student side by side in one process: how far they are apart at each token, without a distribution ever leaving it.

Axes: P, positions of several traces; D, hidden units; V, the vocabulary; K, the sizes of `tail_noise.sizes`; T, a trace's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from raydistill.cluster import placement
from raydistill.diagnose.frequency import CLASSES
from raydistill.diagnose.tail_noise import kl_at_k, side_by_side
from raydistill.diagnose.tail_tokens import Heaviest, TailSums
from raydistill.environment import process_environment
from raydistill.models.load import load_model
from raydistill.scoring.forward import Forward, Pair
from raydistill.scoring.score import ScorerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CHUNK_ELEMENTS = 2**21
"""Log-probabilities of one model that are held at once: 16 MiB in double, of which some ten are needed."""
BINS = 16
"""Places within a completion are told apart by so many bins."""
HEAVIEST = 20
"""Tokens of the tail that are named."""


@dataclass(frozen=True)
class TraceDivergence:
    """How far teacher and student are apart along one trace: sums over its tokens, in nats."""

    tokens: int
    forward: tuple[float, ...]
    """KL@k of KL(teacher || student), for each size."""
    reverse: tuple[float, ...]
    """KL@k of KL(student || teacher)."""
    forward_by_bin: tuple[float, ...]
    """KL(teacher || student) by place in the completion."""
    tokens_by_bin: tuple[int, ...]
    renormalised: tuple[float, ...] = ()
    """KL(teacher || student) renormalised over the teacher's top k, for each k of the tail that was asked for."""
    beyond_by_class: tuple[tuple[tuple[float, ...], ...], ...] = ()
    """For KL(teacher || student), then KL(student || teacher), and each of these k, what the tokens of each of `frequency.CLASSES`
    contribute beyond it."""
    forward_by_half: tuple[float, float] = (0.0, 0.0)
    """KL(teacher || student) of the completion's first tokens // 2 tokens and of its last."""


@dataclass(frozen=True)
class Tail:
    """What lies beyond k = `ks`, over all traces."""

    ks: tuple[int, ...]
    heaviest: tuple[Heaviest, Heaviest]
    """For KL(teacher || student) and KL(student || teacher); nats are summed over all positions."""


class TwoModels:
    """Two models with one vocabulary."""

    def __init__(self, teacher: PreTrainedModel, student: PreTrainedModel, batch_tokens: int) -> None:
        self._teacher, self._student = Forward(teacher, batch_tokens), Forward(student, batch_tokens)
        self.device = teacher.device

    def divergences(
        self, teacher: Sequence[Pair], student: Sequence[Pair], ks: Sequence[int], tail: TailSums | None = None
    ) -> list[tuple[np.ndarray, ...]]:
        """KL@k in both directions, (T, K) each, at the completion's tokens, for each pair of prompt and completion.

        `student` has the same completions after the prompt as the student reads it. The largest k is the vocabulary: what models have
        beyond it, both leave out. With `tail`, which sums over tokens, also what its `add` returns for each token of the completion.
        Raises RunError for a pair that does not fit a context.
        """
        found = [self._nothing(ks, tail)] * len(teacher)
        for batch in self._teacher.batches(teacher):
            for index in batch:
                self._student.require_length(len(student[index][0]) + len(student[index][1]) - 1)
            chunks = self._chunks([teacher[index] for index in batch], [student[index] for index in batch], ks, tail)
            ends = np.cumsum([len(teacher[index][1]) for index in batch])
            columns = [np.split(column, ends[:-1]) for column in _gathered(chunks, ends[-1])]
            for index, *arrays in zip(batch, *columns, strict=True):
                found[index] = tuple(arrays)
        return found

    @staticmethod
    def _nothing(ks: Sequence[int], tail: TailSums | None) -> tuple[np.ndarray, ...]:
        """Of a completion without a token."""
        both = (np.zeros((0, len(ks))), np.zeros((0, len(ks))))
        return both if tail is None else (*both, np.zeros((0, len(tail.ks))), np.zeros((0, 2, len(tail.ks), tail.classes)))

    @torch.inference_mode()
    def _chunks(
        self, teacher: Sequence[Pair], student: Sequence[Pair], ks: Sequence[int], tail: TailSums | None
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Positions a few at a time, so that memory does not grow with positions x vocabulary."""
        theirs_PD, own_PD = self._teacher.hidden(teacher), self._student.hidden(student)
        step = max(1, _CHUNK_ELEMENTS // max(ks))
        for start in range(0, len(theirs_PD), step):
            part = slice(start, start + step)
            teacher_PV, student_PV = _logprobs(self._teacher, theirs_PD[part], max(ks)), _logprobs(self._student, own_PD[part], max(ks))
            both = side_by_side(teacher_PV, student_PV, (*ks, *(tail.ks if tail else ())))
            yield (*kl_at_k(both, ks), *(tail.add(both) if tail else ()))


def _gathered(chunks: Iterator[tuple[torch.Tensor, ...]], rows: int) -> list[np.ndarray]:
    """Chunks of rows as one array for each of their tensors.

    Copied as they come: small tensors that are kept while large ones come and go leave holes too small for the next large one, and the
    process grows by most of a chunk's logits each time.
    """
    columns: list[np.ndarray] = []
    start = 0
    for parts in chunks:
        columns = columns or [np.empty((rows, *part.shape[1:])) for part in parts]
        for column, part in zip(columns, parts, strict=True):
            column[start : start + len(part)] = part.cpu().numpy()
        start += len(parts[0])
    return columns


def _logprobs(model: Forward, hidden_PD: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """(P, V), normalised over the first V tokens, in double: a KL of float32 is mostly rounding where models agree."""
    return model.logits(hidden_PD)[:, :vocabulary].double().log_softmax(-1)


def by_bin(forward_T: np.ndarray, width: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Sums and counts over BINS bins of `width` tokens each; what lies beyond the last is counted there."""
    places_T = np.minimum(np.arange(len(forward_T)) // width, BINS - 1)
    sums = np.bincount(places_T, weights=forward_T, minlength=BINS)
    return tuple(map(float, sums)), tuple(map(int, np.bincount(places_T, minlength=BINS)))


def by_half(forward_T: np.ndarray) -> tuple[float, float]:
    """Sums over the first T // 2 tokens and over the last T // 2: as many of each, so that a middle one is in neither."""
    half = len(forward_T) // 2
    return float(forward_T[:half].sum()), float(forward_T[len(forward_T) - half :].sum())


class ComparerActor:
    """Hosts both models."""

    def __init__(self, teacher: ScorerSpec, student: ScorerSpec) -> None:
        torch.set_num_threads(teacher.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._teacher, self._student = (load_model(spec.model, spec.dtype).to(device) for spec in (teacher, student))  # type: ignore[arg-type]
        self._models = TwoModels(self._teacher, self._student, teacher.batch_tokens)

    def compare(
        self,
        teacher_prompts: Sequence[Sequence[int]],
        student_prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        ks: Sequence[int],
        bin_width: int,
    ) -> list[TraceDivergence]:
        """How far the models are apart along each completion."""
        first, second = (list(zip(prompts, completions, strict=True)) for prompts in (teacher_prompts, student_prompts))
        return [_summary(bin_width, *arrays) for arrays in self._models.divergences(first, second, ks)]

    def compare_with_tail(
        self,
        teacher_prompts: Sequence[Sequence[int]],
        student_prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        ks: Sequence[int],
        bin_width: int,
        tail_ks: Sequence[int],
        class_V: np.ndarray,
    ) -> tuple[list[TraceDivergence], Tail]:
        """Likewise, with what lies beyond each of `tail_ks`, by class of token and by token."""
        first, second = (list(zip(prompts, completions, strict=True)) for prompts in (teacher_prompts, student_prompts))
        tail = TailSums(tail_ks, torch.tensor(class_V, device=self._models.device), len(CLASSES))
        traces = [_summary(bin_width, *arrays) for arrays in self._models.divergences(first, second, ks, tail)]
        return traces, Tail(tail.ks, tail.heaviest(HEAVIEST))

    def gradient_norms(
        self,
        teacher_prompts: Sequence[Sequence[int]],
        student_prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        batch: int,
        micro_batch_tokens: int,
    ) -> list[float]:
        """Of each `batch` completions, one after another, as `gradient_probe.gradient_norms` has it; a rest is left out."""
        from raydistill.diagnose.gradient_probe import gradient_norms
        from raydistill.students.data import Encoded
        from raydistill.students.distil import TracePair

        pairs = [
            TracePair(Encoded(tuple(own), tuple(ids)), Encoded(tuple(theirs), tuple(ids)))
            for theirs, own, ids in zip(teacher_prompts, student_prompts, completions, strict=True)
        ]
        batches = [pairs[start : start + batch] for start in range(0, len(pairs) - batch + 1, batch)]
        return gradient_norms(self._student, self._teacher, batches, micro_batch_tokens)


def _summary(
    bin_width: int,
    forward_TK: np.ndarray,
    reverse_TK: np.ndarray,
    renormalised_TK: np.ndarray | None = None,
    by_class_T2KC: np.ndarray | None = None,
) -> TraceDivergence:
    sums, counts = by_bin(forward_TK[:, -1], bin_width)
    renormalised = () if renormalised_TK is None else tuple(renormalised_TK.sum(0).tolist())
    by_class = () if by_class_T2KC is None else tuple(tuple(map(tuple, way)) for way in by_class_T2KC.sum(0).tolist())
    forward, reverse = (tuple(each.sum(0).tolist()) for each in (forward_TK, reverse_TK))
    return TraceDivergence(len(forward_TK), forward, reverse, sums, counts, renormalised, by_class, by_half(forward_TK[:, -1]))


def start_comparer(teacher: ScorerSpec, student: ScorerSpec, num_cpus: float, num_gpus: float) -> Any:
    """Start a ComparerActor without waiting for it; placed as scorers are."""
    import ray

    environment = {"env_vars": process_environment(teacher.threads, num_gpus)}
    options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": placement("rollout"), "runtime_env": environment}
    return ray.remote(ComparerActor).options(**options).remote(teacher, student)
