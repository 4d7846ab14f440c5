"""The scorer in its Ray actor: the same numbers, weights by reference, and no service with weights that did not arrive whole."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from raydistill.models.weights import Digest, Weights, pack
from raydistill.scoring.actor import start_scorer
from raydistill.scoring.score import Scorer, ScorerSpec

PROMPTS, TEXTS = ["What?", "Why?", "Who?"], ["the answer is 42", "🙂", ""]


@pytest.fixture(scope="module")
def actor(ray_cluster: None, models: dict[str, Path]) -> Iterator[Any]:
    import ray

    handle = start_scorer(ScorerSpec(str(models["plain"])), num_cpus=0.5)
    ray.get(handle.ready.remote())
    yield handle
    ray.kill(handle)


def get(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def published(tensors: dict[str, torch.Tensor], version: int) -> Weights:
    import ray

    digest = Digest()
    buckets = list(pack(tensors.items(), max_bytes=2**14))
    for bucket in buckets:
        digest.add(bucket)
    return Weights(version, tuple(ray.put(bucket) for bucket in buckets), digest.hexdigest())


def test_an_actor_scores_as_the_plain_class_does(actor: Any, scorer: Callable[..., Scorer]) -> None:
    plain = scorer("plain")
    assert get(actor.score.remote(PROMPTS, TEXTS)) == plain.score(PROMPTS, TEXTS)
    prompt_ids, completion_ids = [[1, 5, 6], [1]], [(7, 8, 0, 2), (9,)]
    for method in ("token_logprobs", "token_distributions"):
        results = get(getattr(actor, method).remote(prompt_ids, completion_ids))
        for result, expected in zip(results, getattr(plain, method)(prompt_ids, completion_ids), strict=True):
            np.testing.assert_array_equal(result, expected)
    topk = get(actor.token_topk.remote(prompt_ids, completion_ids, 3, 2.0))
    for result, expected in zip(topk, plain.token_topk(prompt_ids, completion_ids, 3, 2.0), strict=True):
        for column, expected_column in zip(result, expected, strict=True):
            np.testing.assert_array_equal(column, expected_column)


def test_weights_arrive_by_reference(actor: Any, models: dict[str, Path], scorer: Callable[..., Scorer]) -> None:
    original = AutoModelForCausalLM.from_pretrained(models["plain"]).state_dict()
    changed = {name: tensor * 1.1 for name, tensor in original.items()}
    plain = scorer("plain")
    before = plain.score(PROMPTS, TEXTS)
    plain.load_weights(changed.items())
    assert get(actor.sync.remote(published(changed, version=3))) == 3
    assert get(actor.score.remote(PROMPTS, TEXTS)) == plain.score(PROMPTS, TEXTS) != before
    get(actor.sync.remote(published(original, version=4)))
    assert get(actor.score.remote(PROMPTS, TEXTS)) == before


def test_weights_that_did_not_arrive_whole_are_not_served(actor: Any, models: dict[str, Path]) -> None:
    original = AutoModelForCausalLM.from_pretrained(models["plain"]).state_dict()
    weights = published(original, version=5)
    for damaged, message in (
        (dataclasses.replace(weights, digest="0" * 64), "arrived with digest"),
        (dataclasses.replace(weights, buckets=weights.buckets[:-1]), "arrived with digest"),
        (published({name: original[name] for name in list(original)[1:]}, 5), "did not arrive"),
    ):
        with pytest.raises(Exception, match=message):
            get(actor.sync.remote(damaged))
        with pytest.raises(Exception, match="does not serve; sync it again"):
            get(actor.score.remote(PROMPTS, TEXTS))
    get(actor.sync.remote(weights))
    assert len(get(actor.score.remote(PROMPTS, TEXTS))) == 3
