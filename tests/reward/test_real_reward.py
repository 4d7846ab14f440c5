"""The door on a real tokenizer, template and backbone. The head is random: no trained reward model is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raydistill.models.reward_model import inspect_reward_model
from raydistill.reward.model import RewardSpec, SequenceClassifier
from tests.real import SMOL, real_model, shared
from tests.reward.test_reward_model import direct

pytestmark = pytest.mark.real


def test_a_real_tokenizer_s_turns_are_scored_as_by_a_direct_call(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_model(SMOL))
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(real_model(SMOL), num_labels=1, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    del model
    assert inspect_reward_model(str(tmp_path)).embedding_rows == len(tokenizer)
    lines = shared("data/instructions/mt_bench_80.jsonl").read_text().splitlines()[:4]
    prompts = [json.loads(line)["turns"][0] for line in lines]
    texts = ["Aloha!", "", "Subject: Report\n\nDear all,", "It costs $3."]
    found = SequenceClassifier(RewardSpec(str(tmp_path), batch_tokens=1024)).score(prompts, texts)
    assert found == pytest.approx([direct(tmp_path, *pair) for pair in zip(prompts, texts, strict=True)], abs=1e-3)
    assert len(set(found)) == 4
