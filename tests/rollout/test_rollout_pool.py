"""The fleet: order, versions, and what happens when a worker is killed. Real Ray, and real vLLM where an engine matters."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import pytest
import ray
import torch

from raydistill.errors import InputError, RunError
from raydistill.models.weights import Digest, Weights, WeightsError, pack
from raydistill.rollout.actor import Probe
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.pool import RolloutPool

PROBE = tuple(range(1, 30))
SAMPLING = Sampling(samples=4, max_new_tokens=16, seed=9)


@pytest.fixture(scope="module")
def spec(wild: Path) -> EngineSpec:
    return EngineSpec(kind="vllm", model=str(wild), max_model_len=64, kv_cache_bytes=2**26)


@pytest.fixture(scope="module")
def vllm_pool(ray_cluster: None, spec: EngineSpec) -> Iterator[RolloutPool]:
    pool = RolloutPool(spec, workers=2, num_cpus=0.5)
    pool.ready()
    yield pool
    pool.shutdown()


@pytest.fixture(scope="module")
def small_pool(ray_cluster: None, spec: EngineSpec) -> Iterator[RolloutPool]:
    """Of the engine that starts sooner, for what does not depend on the engine."""
    pool = RolloutPool(replace(spec, kind="transformers"), workers=1, num_cpus=0.1)
    pool.ready()
    yield pool
    pool.shutdown()


@pytest.fixture(scope="module")
def probe_logprobs(wild_model: Any, forward_logprobs: Callable[..., torch.Tensor]) -> list[float]:
    return forward_logprobs(wild_model, PROBE).gather(-1, torch.tensor(PROBE[1:])[:, None])[:, 0].tolist()


def _weights(model: torch.nn.Module, version: int, max_bytes: int = 40_000) -> Weights:
    """What a learner would send: several buckets in the object store, and their digest."""
    digest, references = Digest(), []
    for bucket in pack(model.named_parameters(), max_bytes):
        digest.add(bucket)
        references.append(ray.put(bucket))
    assert len(references) > 3
    return Weights(version, tuple(references), digest.hexdigest())


def _drawn(groups: Sequence[Sequence[Completion]]) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(c.prompt_id, c.sample, c.token_ids) for group in groups for c in group]


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"{pid} is still there")


def test_completions_do_not_depend_on_the_number_of_workers(
    vllm_pool: RolloutPool, hosts: dict[str, Any], prompts: list[TokenPrompt]
) -> None:
    """Seven prompts on two workers against the same on one engine; the weights are those of version 0 in both."""
    alone = ray.get(hosts["vllm"].call.remote("generate", prompts[:7], SAMPLING, ray.get(hosts["vllm"].version.remote())))
    assert _drawn(vllm_pool.generate(prompts[:7], SAMPLING)) == _drawn(alone)


def test_fewer_prompts_than_workers(vllm_pool: RolloutPool, prompts: list[TokenPrompt]) -> None:
    assert vllm_pool.generate([], SAMPLING) == []
    assert [group[0].prompt_id for group in vllm_pool.generate(prompts[:1], SAMPLING)] == [prompts[0].id]


def test_a_worker_killed_during_generate_is_replaced(vllm_pool: RolloutPool, wild_model: Any, prompts: list[TokenPrompt]) -> None:
    """The substitute has the weights of the last sync, not those it started with, and nobody can tell from the completions."""
    other = _scaled(wild_model)
    vllm_pool.sync(_weights(other, version=1), PROBE, _own_logprobs(other))
    sampling = Sampling(samples=128, max_new_tokens=32, seed=10)
    started = time.monotonic()
    undisturbed = vllm_pool.generate(prompts, sampling)
    took = time.monotonic() - started
    killed = vllm_pool.pids()[0]
    timer = Timer(took / 3, os.kill, (killed, signal.SIGKILL))
    timer.start()
    assert vllm_pool.generate(prompts, sampling) == undisturbed
    assert vllm_pool.replacements == 1
    assert killed not in vllm_pool.pids()


def test_a_worker_killed_before_generate_is_replaced(small_pool: RolloutPool, wild_model: Any, prompts: list[TokenPrompt]) -> None:
    other = _scaled(wild_model)
    small_pool.sync(_weights(other, version=1), PROBE, _own_logprobs(other))
    undisturbed = small_pool.generate(prompts, SAMPLING)
    killed, before = small_pool.pids()[0], small_pool.replacements
    os.kill(killed, signal.SIGKILL)
    _wait_until_gone(killed)
    assert small_pool.generate(prompts, SAMPLING) == undisturbed
    assert small_pool.replacements == before + 1


def test_a_worker_killed_before_sync_is_replaced(small_pool: RolloutPool, wild_model: Any, probe_logprobs: Any, prompts: Any) -> None:
    before = small_pool.replacements
    os.kill(small_pool.pids()[0], signal.SIGKILL)
    assert small_pool.sync(_weights(wild_model, version=1), PROBE, probe_logprobs) < 1e-3
    assert small_pool.replacements == before + 1
    assert {c.weights_version for group in small_pool.generate(prompts, SAMPLING) for c in group} == {1}


def test_replacements_are_bounded_and_shutdown_ends_the_rest(ray_cluster: None, spec: EngineSpec, prompts: list[TokenPrompt]) -> None:
    pool = RolloutPool(replace(spec, kind="transformers"), workers=2, num_cpus=0.1, max_replacements=0)
    first, second = pool.pids()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(RunError, match="a rollout worker died after 0 replacements"):
        pool.generate(prompts, SAMPLING)
    pool.shutdown()
    _wait_until_gone(second)
    with pytest.raises(RunError, match="shut down"):
        pool.generate(prompts, SAMPLING)


def _scaled(model: torch.nn.Module) -> torch.nn.Module:
    other = type(model)(model.config).eval()
    other.load_state_dict({name: tensor * 1.1 for name, tensor in model.state_dict().items()})
    return other


def _own_logprobs(model: Any) -> list[float]:
    with torch.inference_mode():
        logprobs_TV = model(torch.tensor([PROBE])).logits[0, :-1].log_softmax(-1)
    return logprobs_TV.gather(-1, torch.tensor(PROBE[1:])[:, None])[:, 0].tolist()


def test_sync_measures_the_deviation(vllm_pool: RolloutPool, wild_model: Any, probe_logprobs: list[float], prompts: Any) -> None:
    assert vllm_pool.sync(_weights(wild_model, version=5), PROBE, probe_logprobs) < 1e-4
    assert {c.weights_version for group in vllm_pool.generate(prompts, SAMPLING) for c in group} == {5}


def test_a_deviating_engine_does_not_serve(vllm_pool: RolloutPool, wild_model: Any, probe_logprobs: list[float], prompts: Any) -> None:
    with pytest.raises(RunError, match=r"differ from the learner's by up to 0\.25\d* nats; at most 0\.001 is allowed"):
        vllm_pool.sync(_weights(wild_model, version=6), PROBE, [*probe_logprobs[:-1], probe_logprobs[-1] + 0.25])
    with pytest.raises(RunError, match="no verified weights"):
        vllm_pool.generate(prompts, SAMPLING)
    vllm_pool.sync(_weights(wild_model, version=7), PROBE, probe_logprobs)
    assert vllm_pool.generate(prompts, SAMPLING)


def test_garbled_weights_are_refused(small_pool: RolloutPool, wild_model: Any, probe_logprobs: list[float], prompts: Any) -> None:
    """One bit of one tensor, which no probe would show."""
    weights = _weights(wild_model, version=11)
    first, *rest = ray.get(weights.buckets[2])
    data = np.array(first.data)
    data[0] ^= 1
    garbled = ray.put((replace(first, data=data), *rest))
    with pytest.raises(RunError, match=r"weights 11 .* arrived with digest"):
        small_pool.sync(replace(weights, buckets=(*weights.buckets[:2], garbled, *weights.buckets[3:])), PROBE, probe_logprobs)
    with pytest.raises(RunError, match="no verified weights"):
        small_pool.generate(prompts, SAMPLING)
    with pytest.raises(RunError, match=r"weights 11 .* arrived with digest"):
        small_pool.sync(replace(weights, buckets=weights.buckets[:-1]), PROBE, probe_logprobs)
    small_pool.sync(weights, PROBE, probe_logprobs)
    assert small_pool.generate(prompts, SAMPLING)


def test_an_input_error_of_a_worker_arrives_as_such(small_pool: RolloutPool, prompts: list[TokenPrompt]) -> None:
    with pytest.raises(InputError, match=r"^prompt '7\+5-9=' has 7 tokens"):
        small_pool.generate(prompts, Sampling(samples=1, max_new_tokens=60))


def test_an_engine_that_cannot_start(ray_cluster: None, spec: EngineSpec, tmp_path: Path) -> None:
    pool = RolloutPool(replace(spec, kind="transformers", model=str(tmp_path)), workers=1, num_cpus=0.1)
    with pytest.raises(RunError, match="a rollout worker could not start: "):
        pool.ready()
    pool.shutdown()


def test_workers_that_get_no_room(ray_cluster: None, spec: EngineSpec) -> None:
    pool = RolloutPool(spec, workers=1, num_cpus=99)
    with pytest.raises(RunError, match=r"not up after 1 s: 1 wanted, with .*99.* each; free now are .*CPU"):
        pool.ready(timeout=1)
    pool.shutdown()


def test_probe() -> None:
    probe = Probe((1, 2, 3), (-1.0, -2.0), tolerance=0.1)
    assert probe.deviation([-1.05, -2.0]) == pytest.approx(0.05)
    for bad in ([-1.0, -2.2], [-1.0, math.nan], [math.nan, -2.0], [-math.inf, -2.0]):
        with pytest.raises(WeightsError):
            probe.deviation(bad)
