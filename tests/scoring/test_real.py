"""Scores and preflight of two pretrained models of different families."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from raydistill.errors import InputError
from raydistill.models.preflight import ModelRef, inspect_model, preflight
from raydistill.scoring.score import Scorer, ScorerSpec, learnt_to_end
from tests.real import GEMMA, SMOL, real_model

pytestmark = pytest.mark.real

QUESTION = "Natalia sold 48 clips in April and half as many in May. How many did she sell?"
TEXTS = [
    "In May she sold 48 / 2 = 24 clips, so 48 + 24 = 72 in all.\n#### 72",
    " leading space, café, e\u0301, 日本語 and 🙂👩‍👩‍👧‍👦",
    "",
    "In May she sold 48 / 2 = 24 cli",
    "<eos><bos><|im_end|>",
    "zq xv 48 jj",
]


@cache
def scorer(name: str) -> Scorer:
    torch.set_num_threads(2)
    return Scorer(ScorerSpec(str(real_model(name)), batch_tokens=512))


@cache
def load(name: str) -> tuple[Any, Any]:
    return AutoTokenizer.from_pretrained(real_model(name)), AutoModelForCausalLM.from_pretrained(real_model(name), dtype=torch.float32)


def brute_force(name: str, text: str) -> tuple[float, int]:
    """One text in one forward pass, with the frames of both models written out."""
    tokenizer, model = load(name)
    if name == SMOL:
        system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
        frame = f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        prompt_ids = tokenizer(frame)["input_ids"]
    else:
        prompt_ids = [2, *tokenizer(QUESTION, add_special_tokens=False)["input_ids"]]
    core = tokenizer.backend_tokenizer
    core.encode_special_tokens = True
    ids = core.encode(text, add_special_tokens=False).ids
    core.encode_special_tokens = False
    with torch.no_grad():
        logits_TV = model(torch.tensor([prompt_ids + ids])).logits[0, len(prompt_ids) - 1 : -1].double()
    logprobs_TV = logits_TV - torch.logsumexp(logits_TV, -1, keepdim=True)
    return sum(logprobs_TV[place, token].item() for place, token in enumerate(ids)), len(ids)


@pytest.mark.parametrize("name", [SMOL, GEMMA])
def test_scores_are_those_of_a_loop(name: str) -> None:
    scores = scorer(name).score([QUESTION] * len(TEXTS), TEXTS)
    for text, score in zip(TEXTS, scores, strict=True):
        logprob, tokens = brute_force(name, text)
        assert (score.tokens, score.bytes) == (tokens, len(text.encode()))
        assert score.per_byte == pytest.approx(logprob / max(1, len(text.encode())), abs=5e-6)
    assert scores[0].per_byte > 2 * scores[-1].per_byte  # both negative: sense is likelier than noise


def test_the_gap_of_a_model_with_itself_is_zero() -> None:
    prompts = [QUESTION] * 2
    again = Scorer(ScorerSpec(str(real_model(SMOL)), batch_tokens=512))
    assert scorer(SMOL).score(prompts, TEXTS[:2]) == again.score(prompts, TEXTS[:2])


def test_only_the_instruct_model_learnt_to_end_its_turn() -> None:
    """The base model never saw an answer end; its text goes on."""
    answers = ["The capital of France is Paris.", "2 + 2 = 4."]
    questions = ["What is the capital of France?", "What is 2 + 2?"]
    assert learnt_to_end(scorer(SMOL).score(questions, answers))
    assert not learnt_to_end(scorer(GEMMA).score(questions, answers))


def test_preflight_of_teacher_and_larger_proxy() -> None:
    result = preflight(ModelRef("teacher", str(real_model(SMOL))), ModelRef("proxy", str(real_model(GEMMA))))
    smol, gemma = result.models
    assert (smol.template, smol.bos_id, smol.vocab, smol.end_of_turn_id) == ("chat", None, 49152, 2)
    assert (gemma.template, gemma.bos_id, gemma.vocab, gemma.end_of_turn_id) == ("plain", 2, 262144, 1)
    assert smol.parameters == 134_515_008
    assert [warning.split(" (")[0] for warning in result.warnings] == ["proxy.model: larger than teacher.model"]


def _edited(name: str, into: Path, **fields: Any) -> Path:
    """A folder like the model's, its weights linked, with other fields in tokenizer.json."""
    into.mkdir()
    for file in real_model(name).iterdir():
        (into / file.name).symlink_to(file)
    (into / "tokenizer.json").unlink()
    tokenizer = json.loads((real_model(name) / "tokenizer.json").read_text()) | fields
    (into / "tokenizer.json").write_text(json.dumps(tokenizer))
    return into


def test_gemma_without_its_bos_rule_is_refused(tmp_path: Path) -> None:
    damaged = _edited(GEMMA, tmp_path / "gemma", post_processor=None)
    with pytest.raises(InputError, match=r"proxy\.model: .* has lost the rule that puts <bos> before a text"):
        inspect_model(ModelRef("proxy", str(damaged)))


def test_gemma_without_bos_is_far_worse() -> None:
    """What the rule protects from."""
    gemma = scorer(GEMMA)
    with_bos, without = ([*prefix, *gemma._tokenizer(QUESTION, add_special_tokens=False)["input_ids"]] for prefix in ([2], []))
    completion = gemma._tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"]
    good, bad = (logprobs.mean() for logprobs in gemma.token_logprobs([with_bos, without], [completion, completion]))
    assert bad < good - 1
