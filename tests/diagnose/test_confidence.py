import math
from dataclasses import replace

import pytest

from raydistill.diagnose.confidence import answers, confidence
from raydistill.models.load import load_tokenizer
from raydistill.models.text import encode_completion
from raydistill.models.trio import demo_model
from raydistill.rollout.completion import StopReason
from raydistill.students.spelling import read_spelling
from tests.diagnose.samples import completion, sampled


@pytest.mark.parametrize("role", ["teacher", "proxy"])  # the proxy has tokens of two characters
def test_it_is_the_probability_of_the_tokens_that_write_the_answer(role):
    tokenizer = load_tokenizer(demo_model(role))
    spelling = read_spelling("teacher.model", tokenizer)
    text = "7+5=2;2-9=3;#3"
    ids = encode_completion(tokenizer, text)
    spelled = [token.decode() for token in spelling.spell(ids)]
    assert "".join(spelled) == text
    logprobs = [-0.01 * (place + 1) for place in range(len(ids))]
    found = confidence(completion(text, [*ids, tokenizer.eos_token_id], [*logprobs, -9.0]), "arithmetic", spelling)
    assert found == pytest.approx(math.exp(logprobs[-1]))
    answered = replace(completion(text, ids, logprobs), stop=StopReason.ANSWERED)  # without an end token
    assert confidence(answered, "arithmetic", spelling) == found


def test_answers_have_the_text_by_which_they_are_one():
    tokenizer = load_tokenizer(demo_model("teacher"))
    both = sampled([[("#3", True), ("none", False)], [("# 4", False)]])
    spelling = read_spelling("teacher.model", tokenizer)
    ids = [(*encode_completion(tokenizer, text), tokenizer.eos_token_id) for text in ("#3", "#4")]
    rows = [[completion(text, one, [-0.1] * len(one))] for text, one in zip(("#3", "#4"), ids, strict=True)]
    found = answers(replace(both, completions_BG=tuple(map(tuple, rows)), right_BG=((True,), (False,))), "arithmetic", spelling)
    assert [[(one.text, one.right) for one in row] for row in found] == [[("3", True)], [("4", False)]]


def test_without_an_answer_there_is_none():
    spelling = read_spelling("teacher.model", load_tokenizer(demo_model("teacher")))
    assert confidence(completion("#3", [1, 2], [-1.0, -1.0], truncated=True), "arithmetic", spelling) is None
    assert confidence(completion("#3", [1, 2], [-1.0, -1.0], special=True), "arithmetic", spelling) is None
    assert confidence(completion("", [2], [-1.0]), "arithmetic", spelling) is None
