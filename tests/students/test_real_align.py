"""A real pair: Gemma-3-270M teaches SmolLM2-135M on the gold answers of GSM8K."""

from __future__ import annotations

import json
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from raydistill.models.text import encode_completion
from raydistill.students.align import Span, align, token_places
from raydistill.students.batches import pad
from raydistill.students.compare import partners
from raydistill.students.cross_losses import gold_loss, span_kl_loss, span_logprobs, span_starts, uld_loss
from raydistill.students.data import Reader, Trace
from raydistill.students.distil import completion_logits
from raydistill.students.losses import teacher_topk
from raydistill.students.spelling import Spelling, read_spelling, shared_ids
from tests.real import GEMMA, SMOL, real_model, shared

pytestmark = pytest.mark.real

ODD_TEXTS = [
    " leading space, café, e\u0301, 日本語 𠮷 and 🙂👩‍👩‍👧‍👦\r\n",
    "<eos><bos><|im_end|>\n\n\n   <h1>\t1,000</h1>",
    "힣각 ꙮ 𒐫 \x00 ﬁ ½ Ω",
]
ENDS = {SMOL: 2, GEMMA: 1}


@cache
def tokenizer(name: str) -> Any:
    return AutoTokenizer.from_pretrained(real_model(name))


@cache
def spelling(name: str) -> Spelling:
    return read_spelling("m", tokenizer(name))


@cache
def answers() -> list[str]:
    return [json.loads(line)["answer"] for line in shared("data/gsm8k/test.jsonl").read_text().splitlines()]


def tokens_of(name: str, text: str) -> list[bytes]:
    return spelling(name).spell(encode_completion(tokenizer(name), text))


def spans_of(text: str) -> list[Span]:
    return align(tokens_of(SMOL, text), tokens_of(GEMMA, text), text, ended=False)


@pytest.mark.parametrize("name", [SMOL, GEMMA])
def test_tokens_spell_their_text(name: str) -> None:
    for text in [*answers(), *ODD_TEXTS]:
        assert b"".join(tokens_of(name, text)) == text.encode()


@pytest.mark.parametrize("name", [SMOL, GEMMA])
def test_every_token_is_spelled_as_it_is_decoded_after_another(name: str) -> None:
    (before,) = encode_completion(tokenizer(name), "a")
    decoded = tokenizer(name).batch_decode([[before, id_] for id_ in range(len(spelling(name).bytes_V))])
    whole = [(spelled.decode(), text[1:]) for spelled, text in zip(spelling(name).bytes_V, decoded, strict=True) if "�" not in text]
    assert [pair for pair in whole if pair[0] != pair[1]] == []
    assert len(whole) > 0.95 * len(decoded)


@pytest.mark.parametrize("name", [SMOL, GEMMA])
def test_tokens_begin_where_the_tokenizer_reports_or_inside_of_a_character(name: str) -> None:
    for text in [*answers()[:200], *ODD_TEXTS]:
        offsets = tokenizer(name)(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)["offset_mapping"]
        reported = {len(text[:start].encode()): place + 1 for place, ((_, end), (start, _)) in enumerate(pairwise(offsets)) if end == start}
        size, given = len(text.encode()), text.encode()
        places = token_places(tokens_of(name, text), text)
        assert {place: places[place] for place in reported} == reported
        assert all(given[place] & 0xC0 == 0x80 for place in places.keys() - reported.keys() - {0, size})


def test_how_far_the_tokenisations_agree_on_gsm8k() -> None:
    spans = [span for text in answers() for span in spans_of(text)]
    total = sum(len(text.encode()) for text in answers())
    single = sum(len(span.bytes) for span in spans if len(span.student) == len(span.teacher) == 1)
    longest = max(len(span.bytes) for span in spans)
    print(f"{len(answers())} answers of {total} bytes, {len(spans)} spans of {total / len(spans):.3f} bytes, the longest of {longest}")
    print(f"{100 * single / total:.2f} % of the bytes are in spans of one token on each side")
    print("tokens:", {side: sum(len(getattr(span, side)) for span in spans) for side in ("student", "teacher")})
    assert sum(len(span.bytes) for span in spans) == total
    assert 0.9 < single / total < 1
    assert longest < 60


def test_most_tokens_of_the_student_are_among_the_teachers() -> None:
    student, teacher = spelling(SMOL), spelling(GEMMA)
    students, teachers = shared_ids(student, teacher, ENDS[SMOL], ENDS[GEMMA])
    print(f"{len(students)} tokens shared, of {len(student.bytes_V)} and {len(teacher.bytes_V)}")
    assert 0.9 < len(students) / len(student.bytes_V) < 1
    assert student.spell(students[:-1]) == teacher.spell(teachers[:-1])
    used = {*(id_ for text in answers()[:200] for id_ in encode_completion(tokenizer(GEMMA), text))}
    common = {*student.bytes_V} & {*teacher.bytes_V}
    assert {id_ for id_ in used if teacher.bytes_V[id_] in common} <= {*teachers}


def test_losses_of_the_real_models_have_gradients() -> None:
    torch.set_num_threads(1)
    traces = [Trace("What is 2 + 2?", "2 + 2 = 4 🙂\n#### 4", True), Trace("Sell 48 clips?", "In May she sold 48 / 2 = 24 clips", False)]
    readers = [Reader(tokenizer(SMOL), "chat", "{prompt}", ENDS[SMOL]), Reader(tokenizer(GEMMA), "plain", "{prompt}", ENDS[GEMMA])]
    batches = [pad([reader.trace(trace) for trace in traces]) for reader in readers]
    spans = []
    for trace in traces:
        ids = [reader.trace(trace).completion_ids for reader in readers]
        spans += align(spelling(SMOL).spell(ids[0]), spelling(GEMMA).spell(ids[1]), trace.completion_text, trace.ended)
    lengths = [torch.tensor([len(getattr(span, side)) for span in spans]) for side in ("student", "teacher")]
    student, teacher = (AutoModelForCausalLM.from_pretrained(real_model(name), dtype=torch.float32) for name in (SMOL, GEMMA))
    logits = [completion_logits(model, batch) for model, batch in zip((student, teacher), batches, strict=True)]
    logprobs_S, logits_SV = [], []
    for logits_MV, batch, lengths_S in zip(logits, batches, lengths, strict=True):
        logprobs_S.append(span_logprobs(logits_MV.log_softmax(-1).gather(1, batch.completion_ids[:, None])[:, 0], lengths_S))
        logits_SV.append(logits_MV[span_starts(lengths_S)])
    student_ids_W = partners(spelling(SMOL), spelling(GEMMA), ENDS[SMOL], ENDS[GEMMA])
    losses = {"span kl": span_kl_loss(*logprobs_S)}
    vocabulary = min(len(student_ids_W), logits_SV[1].shape[1])
    for k in (64, vocabulary):
        told = teacher_topk(logits_SV[1][:, :vocabulary], k)
        losses |= {f"uld of {k}": uld_loss(logits_SV[0], told), f"gold of {k}": gold_loss(logits_SV[0], told, student_ids_W)}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss / len(spans), list(student.parameters()), retain_graph=True)
        norm = torch.nn.utils.get_total_norm(gradients).item()
        print(f"{name}: {loss.item() / len(spans):.3f} a span over {len(spans)} spans, gradient norm {norm:.2f}")
        assert 0 < loss.item() < float("inf")
        assert 0 < norm < float("inf")
        assert torch.autograd.grad(loss, list(teacher.parameters()), retain_graph=True, allow_unused=True) == (None,) * len(
            list(teacher.parameters())
        )
