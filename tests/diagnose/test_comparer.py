import numpy as np
import pytest
import torch

from raydistill.diagnose import comparer
from raydistill.diagnose.comparer import BINS, ComparerActor, TwoModels, by_bin, by_half
from raydistill.diagnose.tail_noise import side_by_side
from raydistill.diagnose.tail_tokens import TailSums, tail_parts
from raydistill.models.load import load_model
from raydistill.models.trio import demo_model
from raydistill.scoring.score import ScorerSpec


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


def test_the_tail_of_traces_is_that_of_plain_passes_whatever_the_chunks(models, monkeypatch):
    class_V = torch.tensor([place % 3 for place in range(39)])
    one_hot = torch.nn.functional.one_hot(class_V, 3).double()
    monkeypatch.setattr(comparer, "_CHUNK_ELEMENTS", 2 * 39)
    sums = TailSums((5, 10), class_V, 3)
    found = TwoModels(*models, batch_tokens=64).divergences(PAIRS, PAIRS, (5, 39), sums)
    whole = 0
    for (prompt, completion), (_, _, renormalised_TK, by_class_T2KC) in zip(PAIRS, found, strict=True):
        assert by_class_T2KC.shape == (len(completion), 2, 2, 3)
        if completion:
            ids = torch.tensor([[*prompt, *completion]])
            p, q = (m(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1) for m in models)
            expected = tail_parts(side_by_side(p, q, (5, 10)), (5, 10), one_hot)
            assert np.allclose(renormalised_TK, expected.renormalised_PK, atol=1e-5)
            assert np.allclose(by_class_T2KC, expected.by_class_P2KC, atol=1e-5)
            whole = whole + expected.by_token_2KV
    for way, (row, _) in enumerate(sums.heaviest(3)):
        assert [nats for _, nats in row] == pytest.approx(whole[way, 0].topk(3).values.tolist(), abs=1e-5)


def test_the_actor_returns_sums_only(models):
    actor = ComparerActor(*(ScorerSpec(str(demo_model(role))) for role in ("teacher", "student")))
    prompts, completions = [prompt for prompt, _ in PAIRS], [completion for _, completion in PAIRS]
    class_V = np.array([place % 3 for place in range(39)], dtype=np.int8)
    traces, tail = actor.compare_with_tail(prompts, prompts, completions, (5, 10, 39), 2, (5, 10), class_V)
    plain = actor.compare(prompts, prompts, completions, (5, 10, 39), 2)
    for one, other in zip(traces, plain, strict=True):
        assert (one.forward, one.reverse, one.tokens_by_bin) == (other.forward, other.reverse, other.tokens_by_bin)
        for place in range(2):
            assert sum(one.beyond_by_class[0][place]) == pytest.approx(one.forward[-1] - one.forward[place], abs=1e-9)
            assert sum(one.beyond_by_class[1][place]) == pytest.approx(one.reverse[-1] - one.reverse[place], abs=1e-9)
        if one.tokens % 2 == 0:
            assert sum(one.forward_by_half) == pytest.approx(one.forward[-1])
    assert [[len(row) for row in way] for way in tail.heaviest] == [[20, 20]] * 2


def test_halves_have_as_many_tokens_each():
    assert by_half(np.array([1.0, 2, 4, 8])) == (3, 12)
    assert by_half(np.array([1.0, 2, 4])) == (1, 4)
    assert by_half(np.array([1.0])) == by_half(np.zeros(0)) == (0, 0)


def test_a_vocabulary_without_a_tail_is_compared_too():
    from raydistill.diagnose.tail_noise import sizes, tail_sizes

    assert tail_sizes(8) == ()
    sums = TailSums(tail_sizes(8), torch.zeros(8, dtype=torch.int8), 3)
    models = [load_model(demo_model(role)) for role in ("teacher", "student")]
    found = TwoModels(*models, batch_tokens=64).divergences(PAIRS, PAIRS, sizes(8), sums)
    assert [part.shape[0] for part in found[0]] == [4] * 4
