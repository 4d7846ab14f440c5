"""A diagnosis of one teacher and one student in one process: what a run sends to the pool of its students."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from raydistill.config.diagnose import Diagnose
from raydistill.crew import scorer_spec
from raydistill.diagnose.comparer import ComparerActor, TraceDivergence
from raydistill.diagnose.findings import Json
from raydistill.diagnosis import Diagnosis, DiagnosisFolder
from raydistill.diagnosis_plan import Pair, check_without_room
from raydistill.evaluate.measure import Generate
from raydistill.files import write_whole
from raydistill.models.lineup import Role
from raydistill.progress import Console
from raydistill.rollout.engine import EngineSpec
from raydistill.scoring.score import Scorer, SequenceScore


@dataclass(frozen=True)
class PairJob:
    """Diagnose a pair, and write what is found to `out`. What the two wrote is shared with other pairs of theirs."""

    out: Path
    title: str
    diagnose: Diagnose
    completions: tuple[Path, Path]
    """Where the teacher's and the student's lie, or will."""

    def run(self, threads: int = 1) -> Json:
        """What is found, as in diagnosis.json; read back where it is there already. Raises InputError or RunError."""
        if not self.out.exists():
            folder = _Folder(self.out.parent, self.diagnose.seed, self.completions)
            found = _Here(self.diagnose, check_without_room(self.diagnose), folder, threads).run()
            write_whole(self.out, json.dumps(found, allow_nan=False))
        return json.loads(self.out.read_text())


@dataclass(frozen=True)
class _Folder(DiagnosisFolder):
    paths: tuple[Path, Path]

    def completions(self, section: str) -> Path:
        return self.paths[("teacher", "student").index(section)]


class _Here(Diagnosis):
    """Everything in this process, with a GPU where one is visible; for models that a student's process has room for."""

    def __init__(self, job: Diagnose, pair: Pair, folder: DiagnosisFolder, threads: int) -> None:
        super().__init__(job, pair, folder, Console(io.StringIO()))
        self._threads = threads

    @contextmanager
    def _engines(self, role: Role) -> Iterator[Generate]:
        import torch

        from raydistill.rollout.transformers_engine import TransformersEngine

        context = self.job.rollout.max_model_len
        model, gpu = role.config.model, torch.cuda.is_available()
        engine = TransformersEngine(EngineSpec("transformers", model, context, dtype=self.job.dtype, threads=self._threads, gpu=gpu))
        yield partial(engine.generate, version=engine.weights_version)

    def _compare(self, asked: Sequence[tuple[Any, ...]]) -> list[list[TraceDivergence]]:
        comparer = ComparerActor(self._spec(self.pair.teacher), self._spec(self.pair.student))
        return [comparer.compare(*one) for one in asked]

    def _score(self, asked: Sequence[tuple[list[str], list[str]]]) -> list[list[SequenceScore]]:
        scores = []
        for role in (self.pair.teacher, self.pair.student):
            scorer = Scorer(scorer_spec(role.config, self.job.scorer, self.job.dtype))
            scores += [scorer.score(*one) for one in asked]
        return scores
