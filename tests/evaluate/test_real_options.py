"""Multiple choice by likelihood on a real model, against a loop over texts.

The loop does as lm-evaluation-harness: prompt and option are tokenised as one, and the first of the likeliest is chosen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from raydistill.config.task import TaskConfig
from raydistill.evaluate.options import option_accuracy, score_options
from raydistill.scoring.score import Scorer, ScorerSpec
from raydistill.tasks.letters import place_of
from raydistill.tasks.make import make_task
from tests.real import SMOL, real_model, shared

pytestmark = pytest.mark.real
QUESTIONS = 10


def test_texts_of_csqa_by_a_real_model() -> None:
    fields = {"question": "question.stem", "options": "question.choices", "answer": "answerKey", "layout": "{question}\n{options}\nAnswer:"}
    data = {"train": str(shared("data/commonsense_qa/sample_200.jsonl"))}
    config: Any = TypeAdapter(TaskConfig).validate_python({"kind": "choice", "data": data, "limit": QUESTIONS} | fields)
    prompts = make_task(config).prompts("report")
    scorer = Scorer(ScorerSpec(str(real_model(SMOL)), "plain", batch_tokens=512))
    scores = score_options(prompts, scorer.score)
    found = option_accuracy(scores, [place_of(prompt.answer) for prompt in prompts])
    model, tokenizer = scorer._model, scorer._tokenizer
    right, right_norm = 0, 0
    for prompt, row in zip(prompts, scores, strict=True):
        expected = []
        for option in prompt.options:
            context, whole = (tokenizer(text)["input_ids"] for text in (prompt.text, f"{prompt.text} {option}"))
            with torch.no_grad():
                logprobs_TV = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
            expected.append(sum(logprobs_TV[t - 1, whole[t]].item() for t in range(len(context), len(whole))))
        np.testing.assert_allclose([one.logprob for one in row], expected, atol=1e-3)
        right += int(np.argmax(expected)) == place_of(prompt.answer)
        right_norm += int(np.argmax(np.array(expected) / [len(option) for option in prompt.options])) == place_of(prompt.answer)
    assert (found.acc.mean, found.acc_norm.mean) == (pytest.approx(right / len(prompts)), pytest.approx(right_norm / len(prompts)))
    print(found)
