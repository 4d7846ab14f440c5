"""What every engine owes the rest of the project; the same tests for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray
import scipy.stats
import torch
from ray.exceptions import RayTaskError
from transformers import AutoModelForCausalLM

from raydistill.errors import InputError
from raydistill.models import trio
from raydistill.models.weights import WeightsError
from raydistill.rollout.completion import Completion, Sampling, StopReason, TokenPrompt
from raydistill.rollout.engine import UNKNOWN_VERSION, StaleWeightsError

Forward = Callable[[Any, Sequence[int]], torch.Tensor]
PROBE = tuple(range(1, 30))


class Remote:
    """An engine in another process, with its errors as they were raised there."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.version = 0

    def _get(self, reference: Any) -> Any:
        try:
            return ray.get(reference)
        except RayTaskError as error:
            raise error.cause from error

    def generate(self, prompts: Sequence[TokenPrompt], sampling: Sampling, version: int | None = None) -> list[list[Completion]]:
        return self._get(self._actor.call.remote("generate", prompts, sampling, self.version if version is None else version))

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self._get(self._actor.call.remote("token_logprobs", token_ids))

    def load(self, named: list[tuple[str, torch.Tensor]]) -> None:
        self.version += 1
        self._get(self._actor.call.remote("load_weights", self.version, named))

    def load_some(self, named: list[tuple[str, torch.Tensor]], error: Exception) -> None:
        self._get(self._actor.load_some.remote(self.version + 1, named, error))

    def held_version(self) -> int:
        return self._get(self._actor.version.remote())


@pytest.fixture(scope="module", params=["vllm", "transformers"])
def engine(request: pytest.FixtureRequest, hosts: dict[str, Any]) -> Remote:
    return Remote(hosts[request.param])


@pytest.fixture
def loading(engine: Remote, wild_model: torch.nn.Module) -> Iterator[Remote]:
    """The engine, for tests that give it other weights; afterwards it has the wild ones again."""
    yield engine
    engine.load(_named(wild_model))


def _named(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, parameter.detach()) for name, parameter in model.named_parameters()]


def _perturbed(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    other = type(model)(model.config).eval()
    with torch.no_grad():
        for (name, new), (_, old) in zip(other.named_parameters(), model.named_parameters(), strict=True):
            # The norms are all ones and would hide a mix-up between them.
            noise = torch.randn(old.shape, generator=generator) * (0.3 if "norm" in name else 0.02)
            new.copy_(old + noise)
    return other


def _flat(groups: list[list[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def _token_logprobs(forward: Forward, model: Any, token_ids: Sequence[int]) -> torch.Tensor:
    return forward(model, token_ids).gather(-1, torch.tensor(token_ids[1:])[:, None])[:, 0]


def test_sampled_logprobs_are_those_of_a_forward_pass(
    engine: Remote, wild_model: Any, prompts: list[TokenPrompt], forward_logprobs: Forward
) -> None:
    for completion in _flat(engine.generate(prompts, Sampling(samples=4, max_new_tokens=20))):
        expected = _token_logprobs(forward_logprobs, wild_model, completion.prompt_ids + completion.token_ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected[len(completion.prompt_ids) - 1 :], rtol=0.0, atol=1e-4)


def test_completions_are_in_order_and_labelled(engine: Remote, prompts: list[TokenPrompt]) -> None:
    groups = engine.generate(prompts, Sampling(samples=3, max_new_tokens=5))
    assert [[(c.prompt_id, c.sample, c.prompt_ids) for c in group] for group in groups] == [
        [(prompt.id, sample, prompt.token_ids) for sample in range(3)] for prompt in prompts
    ]
    assert {c.weights_version for c in _flat(groups)} == {engine.version}


def test_nothing_to_do(engine: Remote) -> None:
    assert engine.generate([], Sampling(samples=2, max_new_tokens=5)) == []


def test_samples_do_not_depend_on_the_batch(engine: Remote, prompts: list[TokenPrompt]) -> None:
    sampling = Sampling(samples=4, max_new_tokens=16, seed=3)
    together = {c.prompt_id: c for c in _flat(engine.generate(prompts, sampling)) if c.sample == 2}
    for prompt in reversed(prompts):
        (alone,) = engine.generate([prompt], sampling)
        assert alone[2].token_ids == together[prompt.id].token_ids
        assert alone[2].logprobs == pytest.approx(together[prompt.id].logprobs, abs=1e-4)


def test_more_prompt_than_is_read_at_once(engine: Remote) -> None:
    """vLLM reads 4,096 tokens in a step on a CPU, and would give up a sequence's random numbers where it reads but a part of its prompt."""
    long = [TokenPrompt(f"long-{n}", (1, *(4 + (n + k) % 30 for k in range(49)))) for n in range(120)]
    sampling = Sampling(2, 4, seed=6)
    alone = engine.generate(long[-1:], sampling)
    assert [one.token_ids for one in engine.generate(long, sampling)[-1]] == [one.token_ids for one in alone[0]]


def test_samples_differ_between_indices_prompts_and_seeds(engine: Remote, prompts: list[TokenPrompt]) -> None:
    twins = [TokenPrompt("a", prompts[0].token_ids), TokenPrompt("b", prompts[0].token_ids)]
    drawn = [c.token_ids for seed in (0, 1) for c in _flat(engine.generate(twins, Sampling(samples=8, max_new_tokens=12, seed=seed)))]
    assert len(set(drawn)) == len(drawn)


def test_first_token_follows_the_whole_distribution(
    engine: Remote, wild_model: Any, prompts: list[TokenPrompt], forward_logprobs: Forward
) -> None:
    """Against a generation_config.json that asks for temperature 0.3, two tokens and a penalty."""
    drawn = 4000
    prompt = prompts[0]
    counts = Counter(c.token_ids[0] for c in engine.generate([prompt], Sampling(samples=drawn, max_new_tokens=1, seed=5))[0])
    probabilities = forward_logprobs(wild_model, (*prompt.token_ids, 0))[-1].exp().double()
    expected = (probabilities / probabilities.sum() * drawn).numpy()
    assert expected.min() > 5  # every token, special ones too, is expected often enough for the test to hold
    assert scipy.stats.chisquare([counts[token] for token in range(len(expected))], expected).pvalue > 0.01


def test_later_tokens_follow_the_distribution(
    engine: Remote, wild_model: Any, prompts: list[TokenPrompt], forward_logprobs: Forward
) -> None:
    """The most likely tokens are drawn as often as their probabilities add up to: streams do not repeat along a sequence."""
    hits, mean, variance = 0, 0.0, 0.0
    for completion in _flat(engine.generate(prompts, Sampling(samples=12, max_new_tokens=20, seed=6))):
        start = len(completion.prompt_ids) - 1
        logprobs_TV = forward_logprobs(wild_model, completion.prompt_ids + completion.token_ids)[start:]
        top_TK = logprobs_TV.topk(5)
        chance_T = top_TK.values.exp().sum(-1)
        hits += int((top_TK.indices == torch.tensor(completion.token_ids)[:, None]).sum())
        mean += float(chance_T.sum())
        variance += float((chance_T * (1 - chance_T)).sum())
    assert abs(hits - mean) < 3 * variance**0.5


def test_special_tokens_inside_are_counted_and_shown(engine: Remote, prompts: list[TokenPrompt], stop_ids: set[int]) -> None:
    """<pad> is an ordinary sample: it neither shortens a completion nor vanishes from its text."""
    tokenizer = trio.character_tokenizer()
    completions = _flat(engine.generate(prompts, Sampling(samples=16, max_new_tokens=20, seed=1)))
    for completion in completions:
        body = completion.token_ids[: -1 if completion.stop is StopReason.END else None]
        assert completion.text == "".join(tokenizer.convert_ids_to_tokens(list(body)))
        assert completion.has_special == any(id_ < len(trio.SPECIAL_TOKENS) for id_ in body)
        assert len(completion.logprobs) == len(completion.token_ids)
    padded = [completion for completion in completions if tokenizer.pad_token_id in completion.token_ids[:-1]]
    assert len(padded) > 5
    assert all("<pad>" in completion.text for completion in padded)
    assert any(completion.token_ids[-1] == tokenizer.pad_token_id for completion in completions if completion.truncated)
    assert not all(completion.has_special for completion in completions)


def test_every_eos_ends_a_completion_and_length_truncates(engine: Remote, prompts: list[TokenPrompt], stop_ids: set[int]) -> None:
    completions = _flat(engine.generate(prompts, Sampling(samples=16, max_new_tokens=20, seed=2)))
    for completion in completions:
        assert not stop_ids & set(completion.token_ids[:-1])
        if completion.token_ids[-1] in stop_ids:
            assert completion.stop is StopReason.END
        else:
            assert completion.truncated
            assert len(completion.token_ids) == 20
    assert {completion.token_ids[-1] for completion in completions if not completion.truncated} == stop_ids
    assert any(completion.truncated for completion in completions)


def test_greedy_is_transformers_greedy(loading: Remote, teacher_model: Any, prompts: list[TokenPrompt], stop_ids: set[int]) -> None:
    loading.load(_named(teacher_model))
    for (completion,) in loading.generate(prompts, Sampling(samples=1, max_new_tokens=24, greedy=True)):
        expected = teacher_model.generate(
            torch.tensor([completion.prompt_ids]), do_sample=False, max_new_tokens=24, eos_token_id=sorted(stop_ids), pad_token_id=0
        )
        assert completion.token_ids == tuple(expected[0, len(completion.prompt_ids) :].tolist())


def test_token_logprobs_are_those_of_a_forward_pass(engine: Remote, wild_model: Any, forward_logprobs: Forward) -> None:
    expected = _token_logprobs(forward_logprobs, wild_model, PROBE)
    torch.testing.assert_close(torch.tensor(engine.token_logprobs(PROBE)), expected, rtol=0.0, atol=1e-4)


def test_new_weights_are_used(loading: Remote, wild_model: Any, prompts: list[TokenPrompt], forward_logprobs: Forward) -> None:
    before = torch.tensor(loading.token_logprobs(PROBE))
    for seed in (1, 2):
        other = _perturbed(wild_model, seed)
        loading.load(_named(other))
        after = torch.tensor(loading.token_logprobs(PROBE))
        torch.testing.assert_close(after, _token_logprobs(forward_logprobs, other, PROBE), rtol=0.0, atol=1e-3)
        assert (after - before).abs().max() > 0.05
        (completion,) = loading.generate(prompts[:1], Sampling(samples=1, max_new_tokens=16))[0]
        assert completion.weights_version == loading.version
        expected = _token_logprobs(forward_logprobs, other, completion.prompt_ids + completion.token_ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected[len(completion.prompt_ids) - 1 :], rtol=0.0, atol=1e-3)


def test_a_tied_head_gets_new_weights_too(hosts: dict[str, Any], tied: Path, forward_logprobs: Forward) -> None:
    """vLLM's reload alone would go on with the old head: off by 0.4 nats here, and no error."""
    engine = Remote(hosts["vllm tied"])
    model = AutoModelForCausalLM.from_pretrained(tied, dtype=torch.float32)
    for seed in (1, 2):
        other = _perturbed(model, seed)
        engine.load(_named(other))
        expected = _token_logprobs(forward_logprobs, other, PROBE)
        torch.testing.assert_close(torch.tensor(engine.token_logprobs(PROBE)), expected, rtol=0.0, atol=1e-3)


def test_another_version_is_refused(loading: Remote, wild_model: Any, prompts: list[TokenPrompt]) -> None:
    loading.load(_named(wild_model))
    for version in (loading.version - 1, loading.version + 1):
        with pytest.raises(StaleWeightsError, match=f"holds {loading.version}"):
            loading.generate(prompts, Sampling(samples=1, max_new_tokens=4), version)


def _renamed(named: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
    return [(name.replace("layers.1.mlp.up_proj", "layers.1.mlp.sideways_proj"), tensor) for name, tensor in named]


def _flattened(named: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor.flatten() if "layers.1.mlp.up_proj" in name else tensor) for name, tensor in named]


def _integer(named: list[tuple[str, torch.Tensor]]) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor.int() if "layers.1.mlp.up_proj" in name else tensor) for name, tensor in named]


@pytest.mark.parametrize("spoil", [_renamed, _flattened, _integer, lambda named: named[:-3], lambda named: named[3:], lambda named: []])
def test_wrong_weights_leave_an_engine_that_refuses(loading: Remote, wild_model: Any, spoil: Any, prompts: list[TokenPrompt]) -> None:
    with pytest.raises(WeightsError):
        loading.load(spoil(_named(wild_model)))
    _refuses_until_loaded(loading, wild_model, prompts)


@pytest.mark.parametrize("tensors", [0, 2, 4, 9, 21])
def test_a_load_that_fails_midway_leaves_an_engine_that_refuses(
    loading: Remote, wild_model: Any, tensors: int, prompts: list[TokenPrompt]
) -> None:
    """Some of these cut a layer's q, k and v, or gate and up, apart: a later load must not find the rest of them."""
    spoilt = [(name, torch.full_like(tensor, 7.0)) for name, tensor in _named(wild_model)[:tensors]]
    with pytest.raises(ConnectionError, match="the sender went away"):
        loading.load_some(spoilt, ConnectionError("the sender went away"))
    _refuses_until_loaded(loading, wild_model, prompts)


def _refuses_until_loaded(engine: Remote, model: Any, prompts: list[TokenPrompt]) -> None:
    assert engine.held_version() == UNKNOWN_VERSION
    with pytest.raises(StaleWeightsError, match="load weights first"):
        engine.generate(prompts, Sampling(samples=1, max_new_tokens=4))
    with pytest.raises(StaleWeightsError, match="load weights first"):
        engine.token_logprobs(PROBE)
    engine.load(_named(model))
    with torch.inference_mode():
        logprobs_TV = model(torch.tensor([PROBE])).logits[0, :-1].log_softmax(-1)
    expected = logprobs_TV.gather(-1, torch.tensor(PROBE[1:])[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(engine.token_logprobs(PROBE)), expected, rtol=0.0, atol=1e-3)


def test_a_prompt_without_room_is_refused(engine: Remote, prompts: list[TokenPrompt]) -> None:
    long = TokenPrompt("long", prompts[0].token_ids * 9)
    with pytest.raises(InputError, match=r"'long' has 63 tokens and may get 2 more, over rollout\.max_model_len = 64"):
        engine.generate([*prompts, long], Sampling(samples=1, max_new_tokens=2))
    assert engine.generate([long], Sampling(samples=1, max_new_tokens=1))
