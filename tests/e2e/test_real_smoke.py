"""The main job on real models and data: three steps of `configs/real-smoke.yaml`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.models.load import load_model, load_tokenizer
from raydistill.rollout.completion import Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec
from tests.e2e.conftest import command, metrics, report
from tests.e2e.memory import watched
from tests.real import GEMMA, SMOL, real_model, shared

pytestmark = [pytest.mark.real, pytest.mark.slow]

MINUTES, GIB = 15, 10
PROBE = "Natalia sold 48 clips in April and half as many in May. How many did she sell? 72"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run's folder, and what it took."""
    out = tmp_path_factory.mktemp("real") / "run"
    train = shared("data/gsm8k/train.jsonl")
    models = [f"teacher.model={real_model(SMOL)}", f"proxy.model={real_model(GEMMA)}"]
    arguments = command("--config", "configs/real-smoke.yaml", *models, f"task.data.train={train}", "track.uri=null", "--out", str(out))
    return {"out": out, "took": watched(arguments, out.with_name("stderr.log"))}


def test_time_and_memory(finished: dict[str, Any]) -> None:
    print(finished["took"])
    assert finished["took"].seconds < MINUTES * 60
    assert finished["took"].peak < GIB * 2**30


def test_calibration_rewards_vary_and_the_loss_is_finite(finished: dict[str, Any]) -> None:
    rows = metrics(finished["out"])
    assert [row["weights_version"] for row in rows] == [0, 1, 2]
    assert all(math.isfinite(row["loss"]) and row["grad_norm"] > 0 for row in rows)
    assert len({row["cal_reward"] for row in rows}) == 3
    assert all(abs(row["loss_policy"]) > 0 for row in rows)  # 0 where no group's rewards differ
    assert max(row["sync_deviation"] for row in rows) < 1e-3


def test_the_engine_follows_the_learner(finished: dict[str, Any], ray_cluster: None) -> None:
    """The calibrated teacher's log-probabilities of a fixed text differ from the original's, and vLLM's are those of the saved model."""
    from raydistill.rollout.pool import RolloutPool

    ids = load_tokenizer(str(real_model(SMOL)))(PROBE)["input_ids"]
    original, calibrated = (_logprobs(folder, ids) for folder in (real_model(SMOL), finished["out"] / "teacher"))
    assert max(abs(a - b) for a, b in zip(original, calibrated, strict=True)) > 1e-3
    pool = RolloutPool(EngineSpec("vllm", str(finished["out"] / "teacher"), 128, kv_cache_bytes=2**28), workers=1, num_cpus=0.25)
    try:
        pool.ready()
        ((completion,),) = pool.generate([TokenPrompt("p", tuple(ids))], Sampling(1, 16, greedy=True))
        own = _logprobs(finished["out"] / "teacher", [*ids, *completion.token_ids])[len(ids) - 1 :]
        assert list(completion.logprobs) == pytest.approx(own, abs=1e-3)
    finally:
        pool.shutdown()


def _logprobs(folder: Path, ids: list[int]) -> list[float]:
    with torch.inference_mode():
        logprobs_TV = load_model(str(folder))(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return logprobs_TV.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


def test_a_report(finished: dict[str, Any]) -> None:
    data = report(finished["out"])
    assert data["students"] == []
    assert data["teacher"]["kl_per_sequence"] > 0
    assert (finished["out"] / "report.html").stat().st_size > 10_000
    json.dumps(data, allow_nan=False)
