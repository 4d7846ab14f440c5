"""The student in ZeRO-3 partitions takes the steps of the plain one."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed reads it when it is first imported

import torch

from raydistill.learner.batch import ZeroSpec
from raydistill.models.load import load_model
from raydistill.models.trio import character_tokenizer
from raydistill.students.compare import ByToken, Comparison, Lesson, WithTokens
from raydistill.students.data import Reader, Trace
from raydistill.students.distil import Objective, Recipe, TracePair, learning_rate_factor, match_teacher, sft, turns
from raydistill.students.losses import teacher_topk
from raydistill.students.offline import ScoredTrace
from raydistill.students.zero_student import ZeroStudent

TOKENIZER = character_tokenizer()
READER = Reader(TOKENIZER, "plain", "{prompt}", TOKENIZER.eos_token_id)
TEXTS = [("1+2=", "#3", True), ("4-1+2=", "4-1=3;#5", True), ("7=", "#7", False), ("2+2+2=", "~AB 2+2=4;", False), ("9-9=", "#0", True)]
LESSONS = [Lesson(READER.trace(Trace(*text)), *text) for text in TEXTS]
RECIPE = Recipe(steps=8, batch=3, lr=2e-3, seed=0)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _student(folder: Path, micro_batch_tokens: int) -> ZeroStudent:
    spec = ZeroSpec(model=str(folder / "student"), lr=RECIPE.lr, micro_batch_tokens=micro_batch_tokens, persistence_threshold=0)
    return ZeroStudent(spec, rank=0, world_size=1, address="127.0.0.1", port=_port())


def _said(teacher: Any, lesson: Lesson, k: int) -> ScoredTrace:
    prompt, ids = lesson.own.prompt_ids, lesson.own.completion_ids
    with torch.no_grad():
        logits_TV = teacher(input_ids=torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
    ids_T = torch.tensor(ids)
    return ScoredTrace(ids_T, logits_TV.log_softmax(-1).gather(-1, ids_T[:, None])[:, 0], teacher_topk(logits_TV, k))


def _learn(student: ZeroStudent, compare: Comparison, said: dict[int, ScoredTrace]) -> list[float]:
    losses = []
    for step, turn in enumerate(turns(0, len(LESSONS), RECIPE, 0.0)):
        taken = [LESSONS[row] for row in turn.rows]
        told = {place: said[row] for place, row in enumerate(turn.rows) if row in said}
        lr = RECIPE.lr * learning_rate_factor(step, RECIPE.steps)
        losses.append(student.step(taken, student.plan(taken), told, compare, lr)["loss"])
    return losses


@pytest.mark.parametrize("micro_batch_tokens", [16, 8192])
def test_sft_is_that_of_the_plain_student(untrained: Path, tmp_path: Path, micro_batch_tokens: int) -> None:
    model = load_model(untrained / "student").requires_grad_(True)
    expected = sft(model, [lesson.own for lesson in LESSONS], RECIPE)
    student = _student(untrained, micro_batch_tokens)
    assert _learn(student, WithTokens(), {}) == pytest.approx(expected, abs=1e-4)
    student.save(tmp_path / "saved")
    saved = load_model(tmp_path / "saved").state_dict()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(saved[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("jsd_beta", [0.0, 0.5])
def test_kd_told_of_the_whole_vocabulary_is_that_of_the_plain_student(untrained: Path, jsd_beta: float) -> None:
    teacher = load_model(untrained / "teacher")
    objective = Objective(jsd_beta, on_policy=0.0)
    model = load_model(untrained / "student").requires_grad_(True)
    pairs = [TracePair(lesson.own, lesson.own) for lesson in LESSONS]
    expected = match_teacher(model, None, teacher, [], pairs, RECIPE, objective, 8)
    vocabulary = teacher.config.vocab_size
    said = {row: _said(teacher, lesson, vocabulary) for row, lesson in enumerate(LESSONS)}
    assert _learn(_student(untrained, 8192), ByToken(objective), said) == pytest.approx(expected, abs=1e-4)


def test_a_process_without_lessons_takes_part_with_nothing(untrained: Path) -> None:
    student = _student(untrained, 8192)
    before = student.token_logprobs([5, 6, 7])
    row = student.step(LESSONS[:1], [[0], []], {}, WithTokens(), lr=1e-3)
    again = _student(untrained, 8192)
    assert row["loss"] == pytest.approx(again.step(LESSONS[:1], [[0]], {}, WithTokens(), lr=1e-3)["loss"], abs=1e-6)
    assert student.token_logprobs([5, 6, 7]) != before
    assert student.token_logprobs([5, 6, 7]) == pytest.approx(again.token_logprobs([5, 6, 7]), abs=1e-6)
