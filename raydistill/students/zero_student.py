"""A student in ZeRO-3 partitions as one of its processes sees it: one optimiser step after the other, on lessons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from raydistill.learner.microbatch import spread
from raydistill.learner.zero_model import ZeroModel
from raydistill.students.batches import pad
from raydistill.students.compare import Comparison, Lesson
from raydistill.students.offline import ScoredTrace

Plan = list[list[int]]
"""Places of the lessons in each of a rank's forward passes; a pass may have none."""


class ZeroStudent(ZeroModel):
    """A `ZeroModel` that learns from lessons."""

    def plan(self, lessons: Sequence[Lesson]) -> Plan:
        """This rank's share of a step's lessons."""
        own = [lesson.own for lesson in lessons]
        return spread(own, range(len(own)), self._world_size, self._zero.micro_batch_tokens)[self._rank]

    def step(
        self, lessons: Sequence[Lesson], plan: Plan, said: dict[int, ScoredTrace], compare: Comparison, lr: float
    ) -> dict[str, float | None]:
        """One optimiser step on all ranks' shares of the lessons, of which there is at least one token; its metrics.

        `said` has what the teacher says of the lessons of this rank's plan, by place; it may be empty where `compare` does not ask.
        Metrics, over all ranks: `loss` in nats a token of the student's; `teacher_mass`, the mean probability of the tokens that the
        student is told of, None where it is told of none; `grad_norm` before clipping; `tokens`.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr
        tokens = sum(len(lesson.own.completion_ids) for lesson in lessons)
        sums = torch.zeros(2, dtype=torch.float64, device=self._engine.device)
        norm = self._descend(self._losses(lessons, plan, said, compare, tokens, sums), len(plan))
        torch.distributed.all_reduce(sums)
        loss, mass = (sums / tokens).tolist()
        return {"loss": loss, "teacher_mass": None if math.isnan(mass) else mass, "grad_norm": norm, "tokens": tokens}

    def _losses(
        self, lessons: Sequence[Lesson], plan: Plan, said: dict[int, ScoredTrace], compare: Comparison, tokens: int, sums: Tensor
    ) -> Iterator[Tensor]:
        """The terms of a step's loss a token; their values, and the teacher's mass, are added to `sums`."""
        for rows in plan:
            taken = [lessons[row] for row in rows]
            logits_KV = self._completion_logits(taken)
            if not taken:  # the other ranks are not done, and partitions are gathered together
                yield logits_KV.sum()
                continue
            loss, mass = compare(logits_KV, taken, [said[row] for row in rows if row in said])
            sums += torch.tensor([float(loss.detach()), mass], dtype=torch.float64, device=sums.device)
            yield loss / tokens

    def _completion_logits(self, lessons: Sequence[Lesson]) -> Tensor:
        """(K, V); without lessons one pass over a single token, and K = 0."""
        if not lessons:
            ids_NT, places_K = torch.zeros((1, 1), dtype=torch.long), torch.zeros(0, dtype=torch.long)
        else:
            batch = pad([lesson.own for lesson in lessons])
            ids_NT, places_K = batch.ids_NT, batch.is_completion_NT.roll(-1, dims=1).flatten().nonzero()[:, 0]
        device = self._engine.device
        return self._logits(ids_NT.to(device), None, places_K.to(device))
