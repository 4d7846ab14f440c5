"""Actors of a group against one process; references stay references; a dead process is told of."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from raydistill.errors import InputError, RunError
from raydistill.learner.batch import LearnerSpec
from raydistill.learner.group import LearnerGroup
from raydistill.models.weights import Digest, unpack


@pytest.fixture(scope="module")
def group(ray_cluster: None, make_spec) -> Iterator[LearnerGroup]:
    group = LearnerGroup(make_spec(persistence_threshold=0), processes=2, num_cpus=0.5)
    group.ready()
    yield group
    group.shutdown()


@pytest.fixture
def fresh(group: LearnerGroup) -> LearnerGroup:
    group.reset()
    return group


def _tensors(weights) -> dict[str, torch.Tensor]:
    import ray

    return {name: tensor for reference in weights.buckets for name, tensor in unpack(ray.get(reference))}


def test_update_is_that_of_one_process(fresh, worker, make_batch) -> None:
    alone = worker()
    for seed in range(3):
        samples, anchor = make_batch(seed=seed, size=9)
        assert fresh.measure(samples, anchor) == pytest.approx(alone.measure(samples, anchor), rel=1e-4, abs=1e-5)
        assert fresh.update(samples, anchor) == pytest.approx(alone.update(samples, anchor), rel=1e-4, abs=1e-5)
    assert fresh.probe([1, 2, 3]) == pytest.approx(alone.token_logprobs([1, 2, 3]), abs=1e-5)


def test_anchor_may_be_one_reference_or_several(fresh, make_batch) -> None:
    import ray

    samples, anchor = make_batch(seed=0, size=9)
    reports = []
    for argument in (anchor, ray.put(anchor), [ray.put(anchor[:4]), ray.put(anchor[4:])]):
        fresh.reset()
        reports.append(fresh.update(samples, argument))
    assert reports[0] == reports[1] == reports[2]
    assert fresh.update([], [])["tokens"] == 0


def test_export_hands_out_references_that_keep_cap_and_digest(fresh, worker, make_batch) -> None:
    import ray

    samples, anchor = make_batch(seed=0, size=9)
    alone = worker()
    alone.update(samples, anchor)
    fresh.update(samples, anchor)
    weights = fresh.export(version=7, bucket_bytes=30_000)
    assert weights.version == 7
    assert len(weights.buckets) > 3
    digest = Digest()
    for bucket in ray.get(list(weights.buckets)):
        assert sum(packed.data.nbytes for packed in bucket) <= 30_000
        digest.add(bucket)
    assert digest.hexdigest() == weights.digest
    expected = {name: tensor for bucket in alone.export(2**30) for name, tensor in unpack(bucket)}
    got = _tensors(weights)
    assert got.keys() == expected.keys()
    # Adam divides by |gradient|, which makes rounding of the smallest ones visible.
    assert max((got[name] - expected[name]).abs().max().item() for name in got) < 1e-4


def test_checkpoint_and_save_write_where_the_caller_says(fresh, make_batch, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples, anchor = make_batch(seed=0, size=9)
    fresh.update(samples, anchor)
    fresh.save_checkpoint("checkpoint")
    following = fresh.update(samples, anchor)
    fresh.load_checkpoint("checkpoint")
    assert fresh.update(samples, anchor) == following
    fresh.save("teacher")
    assert (tmp_path / "teacher" / "model.safetensors").is_file()


def test_a_model_that_cannot_be_read_is_an_input_error(ray_cluster, tmp_path) -> None:
    group = LearnerGroup(LearnerSpec(model=str(tmp_path), lr=1e-3, kl_coef=0.1, kl_estimator="k3"), num_cpus=0.5)
    with pytest.raises(InputError, match=r"no config\.json$"):
        group.ready()


def test_a_dead_process_ends_the_group_with_a_run_error(group, make_batch) -> None:
    """Last, because the group is gone afterwards."""
    import ray

    os.kill(ray.get(group._actors[1].__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    with pytest.raises(RunError, match="learner process 1 of 2 died"):
        group.update(*make_batch(seed=0, size=9))
    with pytest.raises(RunError, match="died"):
        group.probe([1, 2])
