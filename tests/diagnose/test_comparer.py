import numpy as np
import pytest
import torch

from raydistill.diagnose import comparer
from raydistill.diagnose.comparer import BINS, TwoModels, by_bin
from raydistill.models.load import load_model
from raydistill.models.trio import demo_model


@pytest.fixture(scope="module")
def models():
    return load_model(demo_model("teacher")), load_model(demo_model("student"))


PAIRS = [([1, 5, 6], [7, 8, 9, 10]), ([1, 4], [6]), ([1, 9, 8, 7], [])]


def test_divergences_are_those_of_plain_passes_whatever_the_chunks(models, monkeypatch):
    teacher, student = models
    two = TwoModels(teacher, student, batch_tokens=64)
    whole = two.divergences(PAIRS, PAIRS, (5, 39))
    monkeypatch.setattr(comparer, "_CHUNK_ELEMENTS", 39)  # a position at a time
    chunked = two.divergences(PAIRS, PAIRS, (5, 39))
    for (prompt, completion), found, other in zip(PAIRS, whole, chunked, strict=True):
        assert np.allclose(found[0], other[0], atol=1e-6)
        assert found[0].shape == found[1].shape == (len(completion), 2)
        if completion:
            ids = torch.tensor([[*prompt, *completion]])
            p, q = (m(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for m in (teacher, student))
            assert np.allclose(found[0][:, 1], (p.exp() * (p - q)).sum(-1), atol=1e-5)
            assert np.allclose(found[1][:, 1], (q.exp() * (q - p)).sum(-1), atol=1e-5)


def test_a_model_is_nowhere_apart_from_itself(models):
    ((forward_TK, reverse_TK),) = TwoModels(models[0], models[0], 64).divergences(PAIRS[:1], PAIRS[:1], (5, 39))
    assert forward_TK.max() < 1e-9
    assert reverse_TK.max() < 1e-9


def test_each_model_reads_the_prompt_its_own_way(models):
    two = TwoModels(*models, 64)
    own = [([1, 5], PAIRS[0][1])]
    assert not np.allclose(two.divergences(PAIRS[:1], own, (39,))[0][0], two.divergences(PAIRS[:1], PAIRS[:1], (39,))[0][0])


def test_bins_hold_every_token():
    sums, counts = by_bin(np.arange(2 * BINS + 3, dtype=float), 2)
    assert counts[:2] == (2, 2)
    assert sums[:2] == (1.0, 5.0)
    assert counts[-1] == 5
    assert sum(sums) == sum(range(2 * BINS + 3))
