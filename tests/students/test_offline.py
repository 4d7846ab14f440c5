"""Scores of fixed traces, written once and read as often as wanted."""

from __future__ import annotations

import json
import math
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from raydistill.config.models import ModelConfig
from raydistill.errors import InputError
from raydistill.models.load import load_model
from raydistill.models.preflight import ModelRef, inspect_model
from raydistill.scoring.forward import TokenTopK
from raydistill.scoring.score import Scorer, ScorerSpec
from raydistill.students.batches import pad
from raydistill.students.data import Reader, Trace
from raydistill.students.distil import completion_logits
from raydistill.students.job import make_reader
from raydistill.students.losses import TopK, jsd_loss, teacher_topk, topk_jsd_loss
from raydistill.students.offline import OfflineTeacher
from raydistill.students.offline_card import Scoring, TeacherCard
from raydistill.students.offline_writer import Scored, score_traces, scoring_of, write_offline

K = 5
TRACES = [
    Trace("7+5-9=", "7+5=2;2-9=3;#3", True),
    Trace("1+1=", "", True),
    Trace("1+1=", "", False),
    Trace("2+2+2=", "2+2=4;4+2", False),
    Trace("1+1=", "1+1=2;#2", True),
    Trace("3+4=", "3+4=7;#7" * 3, True),
]


def reader_of(folder: Path) -> Reader:
    return make_reader(inspect_model(ModelRef("teacher", str(folder))), ModelConfig(model=str(folder)))


def write(model: Path, folder: Path, k: int = K, temperature: float = 1.0, shard_tokens: int = 40) -> TeacherCard:
    config = ModelConfig(model=str(model))
    facts = inspect_model(ModelRef("teacher", str(model)))
    scorer = Scorer(ScorerSpec(str(model)))
    scored = score_traces(lambda *pairs: scorer.token_topk(*pairs, k, temperature), make_reader(facts, config), TRACES, batch=4)
    return write_offline(folder, scoring_of(facts, config, k, temperature), scored, shard_tokens)


@pytest.fixture(scope="module")
def written(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards, scored by a model with random weights."""
    folder = tmp_path_factory.mktemp("offline") / "teacher"
    write(untrained / "teacher", folder)
    return folder


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    """One to be broken."""
    return shutil.copytree(written, tmp_path / "copy")


def _logits_of(model: Any, reader: Reader, traces: list[Trace]) -> Tensor:
    return completion_logits(model, pad([reader.trace(trace) for trace in traces])).detach()


def test_what_is_read_is_what_the_teacher_says(written: Path, untrained: Path) -> None:
    """Against the model itself, one trace a time and several at once."""
    teacher, reader = OfflineTeacher.open(written), reader_of(untrained / "teacher")
    model = load_model(untrained / "teacher")
    assert teacher.traces == tuple(TRACES)
    assert len(list(written.glob("*.safetensors"))) == teacher.card.shards == 2
    for index, trace in enumerate(TRACES):
        scored = teacher.scored(index)
        assert tuple(scored.token_ids_T.tolist()) == reader.trace(trace).completion_ids
        _assert_as_said(scored.logprobs_T, scored.topk, _logits_of(model, reader, [trace]), scored.token_ids_T)
    indices = [5, 0, 2, 5]
    joined = teacher.joined(indices)
    _assert_as_said(joined.logprobs_T, joined.topk, _logits_of(model, reader, [TRACES[index] for index in indices]), joined.token_ids_T)


def _assert_as_said(logprobs_M: Tensor, topk: TopK, logits_MV: Tensor, ids_M: Tensor) -> None:
    exact_MV = logits_MV.log_softmax(-1)
    torch.testing.assert_close(logprobs_M, exact_MV.gather(-1, ids_M[:, None])[:, 0], atol=1e-5, rtol=0)
    assert topk.logprobs_MK.shape == topk.ids_MK.shape == (len(ids_M), K)
    assert (topk.logprobs_MK.dtype, topk.ids_MK.dtype) == (torch.float32, torch.int64)
    torch.testing.assert_close(topk.logprobs_MK, exact_MV.gather(-1, topk.ids_MK), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(topk.logprobs_MK.exp().sum(-1), exact_MV.topk(K).values.exp().sum(-1), atol=1e-6, rtol=0)


def test_the_card(written: Path, untrained: Path) -> None:
    card = OfflineTeacher.open(written).card
    reader = reader_of(untrained / "teacher")
    tokens = sum(len(reader.trace(trace).completion_ids) for trace in TRACES)
    assert (card.traces, card.trace_tokens, card.k, card.temperature, card.vocabulary) == (len(TRACES), tokens, K, 1.0, 39)
    assert (card.template, card.prompt_format, card.end_id) == ("plain", "{prompt}", reader.end_id)
    assert card.bytes_per_token == pytest.approx(sum(file.stat().st_size for file in written.glob("*.safetensors")) / tokens, abs=0.05)


def test_a_student_learns_from_the_folder_as_from_the_teacher(untrained: Path, tmp_path: Path) -> None:
    """With all tokens kept the loss and gradient are those of the whole divergence at that temperature."""
    write(untrained / "teacher", tmp_path / "whole", k=39, temperature=2.0)
    reader = reader_of(untrained / "student")
    teacher = OfflineTeacher.open(tmp_path / "whole", reader=reader, temperature=2.0)
    student_MV = _logits_of(load_model(untrained / "student"), reader, TRACES).requires_grad_()
    teacher_MV = _logits_of(load_model(untrained / "teacher"), reader, TRACES)
    loss = topk_jsd_loss(student_MV, teacher.joined(range(len(TRACES))).topk, 0.5, 2.0).loss
    exact = jsd_loss(student_MV, teacher_MV, 0.5, 2.0)
    assert loss.item() == pytest.approx(exact.item(), rel=2e-3)
    gradients = [torch.autograd.grad(value, student_MV)[0] for value in (loss, exact)]
    torch.testing.assert_close(*gradients, atol=2e-5, rtol=1e-2)


def stored(folder: Path, logits_MV: Tensor, k: int) -> tuple[TeacherCard, OfflineTeacher]:
    """One trace with the scores that these logits give."""
    exact = teacher_topk(logits_MV, k)
    topk = TokenTopK(exact.logprobs_MK.numpy(), exact.ids_MK.int().numpy(), np.zeros(len(logits_MV), np.float32))
    card = write_offline(folder, scoring(logits_MV.shape[1], k), [Scored(TRACES[0], (0,) * len(logits_MV), topk)])
    return card, OfflineTeacher.open(folder)


def scoring(vocabulary: int, k: int) -> Scoring:
    names = {"teacher": "t", "weights": "w" * 64, "tokens": "v" * 64, "template": "plain", "prompt_format": "{prompt}"}
    return Scoring(**names, end_id=0, vocabulary=vocabulary, k=k, temperature=1.0)


def test_64_of_262144_tokens_take_less_than_300_bytes(tmp_path: Path) -> None:
    ids_TK = np.random.default_rng(0).integers(0, 262_144, (2000, 64), dtype=np.int32)
    topk = TokenTopK(np.full((2000, 64), -6, np.float32), ids_TK, np.zeros(2000, np.float32))
    card = write_offline(tmp_path / "t", scoring(262_144, 64), [Scored(TRACES[0], (262_143,) * 2000, topk)])
    assert 284 <= card.bytes_per_token < 285
    np.testing.assert_array_equal(OfflineTeacher.open(tmp_path / "t").scored(0).topk.ids_MK.numpy(), ids_TK)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 4.0, 12.0])
def test_what_rounding_costs_the_loss(tmp_path: Path, beta: float, scale: float) -> None:
    """From uniform teachers to nearly certain ones: the loss of a student near the teacher, and its gradient."""
    stream = torch.Generator().manual_seed(0)
    teacher_MV = scale * torch.randn(200, 1000, generator=stream)
    student_MV = (teacher_MV + torch.randn(200, 1000, generator=stream)).requires_grad_()
    _, offline = stored(tmp_path / "t", teacher_MV, 64)
    loss = topk_jsd_loss(student_MV, offline.scored(0).topk, beta).loss
    exact = topk_jsd_loss(student_MV, teacher_topk(teacher_MV, 64), beta).loss
    assert abs(loss - exact) / 200 < 1e-4
    gradients = [torch.autograd.grad(value, student_MV)[0] for value in (loss, exact)]
    torch.testing.assert_close(*gradients, atol=5e-4, rtol=0)


def test_the_tail_survives_tokens_whose_rounding_adds_up(tmp_path: Path) -> None:
    """In float16 alone, a mass of 0.999 over 60 equal tokens comes to more than 1, and a tail of 1e-3 to none at all."""
    logits_MV = torch.full((2, 1000), math.log(1e-3 / 940))
    logits_MV[:, :60] = math.log(0.999 / 60)
    exact = teacher_topk(logits_MV, 60)
    assert (exact.logprobs_MK.half().float().exp().sum(-1) > 1).all()
    _, offline = stored(tmp_path / "t", logits_MV, 60)
    tail_M = 1 - offline.scored(0).topk.logprobs_MK.exp().sum(-1)
    torch.testing.assert_close(tail_M, torch.full((2,), 1e-3), atol=1e-6, rtol=0)


@given(st.integers(0, 1000), st.integers(1, 40), st.floats(0, 40))
def test_any_distribution_comes_back(tmp_path_factory: pytest.TempPathFactory, seed: int, k: int, scale: float) -> None:
    """Ids exactly, probabilities to float16's rounding, the mass to float32's; also where a token has no probability at all."""
    logits_MV = scale * torch.randn(3, 40, generator=torch.Generator().manual_seed(seed))
    logits_MV[0, :20] = -1e5
    folder = tmp_path_factory.mktemp("any") / "t"
    found, exact = stored(folder, logits_MV, k)[1].scored(0).topk, teacher_topk(logits_MV, k)
    assert torch.equal(found.ids_MK, exact.ids_MK)
    assert found.logprobs_MK.isfinite().all()
    torch.testing.assert_close(found.logprobs_MK.exp(), exact.logprobs_MK.exp(), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.logprobs_MK.exp().sum(-1), exact.logprobs_MK.exp().sum(-1), atol=2e-6, rtol=0)


def test_memory_does_not_grow_with_the_traces(tmp_path: Path) -> None:
    def stream(count: int) -> Iterator[Scored]:
        for _ in range(count):
            ids_TK = np.zeros((100, 64), np.int32)
            yield Scored(TRACES[0], (1,) * 100, TokenTopK(np.full((100, 64), -6, np.float32), ids_TK, np.zeros(100, np.float32)))

    peaks = []
    for count in (20, 200):
        tracemalloc.start()
        card = write_offline(tmp_path / str(count), scoring(262_144, 64), stream(count), shard_tokens=1000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert card.shards == count / 10
    assert peaks[1] < 1.5 * peaks[0]


def test_a_trace_is_in_one_shard_however_long(written: Path, untrained: Path, tmp_path: Path) -> None:
    card = write(untrained / "teacher", tmp_path / "t", shard_tokens=1)
    one_each = OfflineTeacher.open(tmp_path / "t")
    whole = OfflineTeacher.open(written)
    assert card.shards == 5
    for index in range(len(TRACES)):
        for found, expected in zip(one_each.scored(index), whole.scored(index), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_failure_leaves_nothing_behind(untrained: Path, tmp_path: Path) -> None:
    def broken() -> Iterator[Scored]:
        yield Scored(TRACES[0], (0,), TokenTopK(np.zeros((1, 3), np.float32), np.zeros((1, 3), np.int32), np.zeros(1, np.float32)))
        raise RuntimeError("the scorer died")

    with pytest.raises(RuntimeError, match="the scorer died"):
        write_offline(tmp_path / "t", scoring(39, 3), broken())
    with pytest.raises(ValueError, match=r"^scores of 1 tokens at k = 4 have the shapes"):
        write_offline(tmp_path / "t", scoring(39, 4), broken())
    for nothing in (
        [],
        [Scored(TRACES[2], (), TokenTopK(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32), np.zeros(0, np.float32)))],
    ):
        with pytest.raises(InputError, match=r"/t: there is no token to score; give traces that are not empty$"):
            write_offline(tmp_path / "t", scoring(39, 3), nothing)
    with pytest.raises(InputError, match=r"/t: k is 40, but the vocabulary has 39 tokens; score the traces again with a lower k$"):
        write_offline(tmp_path / "t", scoring(39, 40), [])
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_written_over(written: Path) -> None:
    with pytest.raises(InputError, match=r"/teacher: is there already; remove it, or write to another folder$"):
        write_offline(written, scoring(39, 3), [])


def refused(folder: Path, match: str, **expected: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        OfflineTeacher.open(folder, **expected)
    assert str(caught.value).startswith(f"{folder}/")
    assert "\n" not in str(caught.value)


def _change(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "teacher.json"
        content = json.loads(file.read_text()) | fields
        file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return change


def _cut(name: str, by: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by]) and None  # type: ignore[func-returns-value]


def _move_a_trace(folder: Path) -> None:
    file = folder / "traces.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[3]["start"] += 1
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _swap_shards(folder: Path) -> None:
    (folder / "traces-00000.safetensors").write_bytes((folder / "traces-00001.safetensors").read_bytes())


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (
            lambda folder: (folder / "teacher.json").unlink(),
            r"teacher\.json: cannot be read \(No such file.*give the folder of an offline teacher",
        ),
        (_cut("teacher.json", 9), r"teacher\.json: is not readable JSON \(.*copy the folder again, or score the traces again$"),
        (lambda folder: (folder / "teacher.json").write_text("[]"), r"teacher\.json: is not of an offline teacher \(kind\)"),
        (_change(kind="student"), r"teacher\.json: is not of an offline teacher \(kind\); give the folder of one"),
        (_change(version=2), r"teacher\.json: version is 2, and this raydistill reads 1; score the traces again with it$"),
        (_change(version=None), r"teacher\.json: version is None"),
        (_change(k=None), r"teacher\.json: k is not as it was written \(Field required\); copy the folder again"),
        (_change(k="5"), r"teacher\.json: k is not as it was written \(Input should be a valid integer"),
        (_change(temperature=-1.0), r"teacher\.json: temperature is not as it was written"),
        (_change(more=1), r"teacher\.json: more is not as it was written \(Extra inputs are not permitted\)"),
        (_change(k=40), r"teacher\.json: k is 40, but the vocabulary has 39 tokens; score the traces again with a lower k$"),
        (_change(traces=0), r"teacher\.json: traces is not as it was written \(Input should be greater than"),
        (_change(traces=7), r"traces\.jsonl: holds 6 traces of \d+ tokens, and teacher\.json counts 7 of \d+; copy the folder again"),
        (_change(shards=1), r"traces\.jsonl: line 6 does not begin where the one before ends; copy the folder again"),
        (_move_a_trace, r"traces\.jsonl: line 4 does not begin where the one before ends"),
        (_change(k=4), r"traces-00000\.safetensors: does not hold the \d+ tokens that traces\.jsonl places there"),
        (lambda folder: (folder / "traces.jsonl").unlink(), r"traces\.jsonl: cannot be read \(No such file"),
        (lambda folder: (folder / "traces.jsonl").write_text(""), r"traces\.jsonl: holds 0 traces of 0 tokens"),
        (_cut("traces.jsonl", 9), r"traces\.jsonl: line 6 is no trace \(.*copy the folder again"),
        (lambda folder: (folder / "traces-00001.safetensors").unlink(), r"traces-00001\.safetensors: is missing or damaged \("),
        (_cut("traces-00000.safetensors", 1), r"traces-00000\.safetensors: is missing or damaged \(.*copy the folder again, or score the"),
        (_swap_shards, r"traces-00000\.safetensors: does not hold the \d+ tokens"),
    ],
)
def test_damage_is_refused(copy: Path, damage: Callable[[Path], None], match: str) -> None:
    damage(copy)
    refused(copy, match)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none", r"none/teacher\.json: cannot be read \(No such file")


def test_another_teacher_is_refused(written: Path, untrained: Path) -> None:
    digests = [
        scoring_of(inspect_model(ModelRef("teacher", str(untrained / role))), ModelConfig(model=str(untrained / role)), K).weights
        for role in ("teacher", "student")
    ]
    assert OfflineTeacher.open(written, weights=digests[0])
    refused(written, rf"teacher\.json: weights are those of another teacher, .*/teacher \(.*, not {digests[1][:12]}\)", weights=digests[1])


def test_another_temperature_is_refused(written: Path) -> None:
    assert OfflineTeacher.open(written, temperature=1)
    refused(written, r"teacher\.json: temperature is 1, but the method's is 2; set the method's", temperature=2.0)


def test_another_tokenizer_is_refused(written: Path, untrained: Path, tmp_path: Path) -> None:
    """Also one of the same tokens under other ids, and one that ends its answers otherwise."""
    folder = shutil.copytree(untrained / "student", tmp_path / "student")
    assert OfflineTeacher.open(written, reader=reader_of(folder))
    end = reader_of(folder)
    refused(
        written,
        r"teacher\.json: end_id is '<eos>', but .*/student ends an answer with '<bos>'; choose a model with the teacher's chat template$",
        reader=Reader(end.tokenizer, end.template, end.prompt_format, end.tokenizer.bos_token_id),
    )
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    refused(written, r"teacher\.json: tokens are those of .*/teacher, and .*/student has another vocabulary", reader=reader_of(folder))
