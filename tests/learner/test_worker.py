"""One process: real DeepSpeed against a plain torch model that sees one sequence at a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from raydistill.errors import RunError
from raydistill.learner import losses
from raydistill.learner.batch import Sample, batch_tokens

SGD = {"optimizer": "sgd", "lr": 1.0, "max_grad_norm": 0.0}
Weights = dict[str, torch.Tensor]


def weights(worker) -> Weights:
    """Gathered weights of a learner by their name in the checkpoint."""
    from raydistill.models.weights import unpack

    return {name: tensor for bucket in worker.export(2**30) for name, tensor in unpack(bucket)}


def distance(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def _sequence_logprobs(model: torch.nn.Module, sample: Sample) -> torch.Tensor:
    """(T, V) of one sequence by itself: no padding, no batch."""
    logits = model(torch.tensor([sample.prompt_ids + sample.completion_ids])).logits[0]
    return torch.log_softmax(logits, -1)[len(sample.prompt_ids) - 1 : -1]


def plain_gradient(folder: str, samples: list[Sample], anchor: list[np.ndarray], kl_coef: float, exact: bool) -> tuple[Weights, float]:
    """Gradient and value of the step's loss from one backward pass over the whole batch in plain torch."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    policy, kl = [], []
    for sample, anchor_row in zip(samples, anchor, strict=True):
        if not sample.completion_ids:
            continue
        logprobs_TV = _sequence_logprobs(model, sample)
        logprobs_T = logprobs_TV[range(len(sample.completion_ids)), list(sample.completion_ids)]
        weight_T = torch.exp(logprobs_T.detach() - torch.tensor(sample.rollout_logprobs)).clamp(max=2.0)
        policy.append(-weight_T * sample.advantage * torch.exp(logprobs_T - logprobs_T.detach()))
        reference = torch.from_numpy(anchor_row)
        kl.append(losses.kl_exact(logprobs_TV, reference) if exact else losses.kl_k3(logprobs_T, reference))
    loss = (torch.cat(policy).sum() + kl_coef * torch.cat(kl).sum()) / batch_tokens(samples)
    loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}, loss.item()


@pytest.mark.parametrize("exact", [False, True], ids=["k3", "exact"])
@pytest.mark.parametrize("budget", [1, 60, 100_000])
def test_gradient_is_that_of_the_whole_batch_whatever_the_micro_batches(worker, tiny_model, make_batch, exact: bool, budget: int) -> None:
    samples, anchor = make_batch(seed=3, size=14, exact=exact)
    learner = worker(**SGD, micro_batch_tokens=budget, kl_estimator="exact" if exact else "k3")
    before = weights(learner)
    report = learner.update(samples, anchor)
    after = weights(learner)
    gradient, loss = plain_gradient(tiny_model, samples, anchor, kl_coef=0.1, exact=exact)
    assert distance({name: before[name] - after[name] for name in before}, gradient) < 1e-5
    assert report["loss"] == pytest.approx(loss, abs=1e-5)
    norm = torch.cat([value.flatten() for value in gradient.values()]).norm().item()
    assert report["grad_norm"] == pytest.approx(norm, rel=1e-4)


def test_gradient_checkpointing_and_partitioned_parameters_change_nothing(worker, make_batch) -> None:
    samples, anchor = make_batch(seed=4, size=10)
    plain = worker(**SGD)
    other = worker(**SGD, gradient_checkpointing=True, persistence_threshold=0)
    passes = []
    for learner in (plain, other):
        passes.append(0)
        learner._engine.module.model.layers[0].self_attn.register_forward_pre_hook(lambda *_: passes.append(passes.pop() + 1))
        learner.update(samples, anchor)
    assert passes == [1, 2]  # the second one computed its activations again
    assert distance(weights(plain), weights(other)) < 1e-6


def test_clipping_scales_the_gradient_to_the_norm_and_reports_it_before(worker, make_batch) -> None:
    samples, anchor = make_batch(seed=5, size=10)
    free, clipped = worker(**SGD), worker(**SGD | {"max_grad_norm": 0.01})
    start = weights(free)
    assert free.update(samples, anchor)["grad_norm"] == clipped.update(samples, anchor)["grad_norm"] > 0.02
    after = weights(clipped)
    moved = torch.cat([(start[name] - after[name]).flatten() for name in start]).norm().item()
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_adamw_is_torchs_with_no_decay(worker, tiny_model, make_batch) -> None:
    samples, anchor = make_batch(seed=6, size=10)
    learner = worker(optimizer="adamw", lr=1e-2, max_grad_norm=0.0)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0)
    gradient, _ = plain_gradient(tiny_model, samples, anchor, kl_coef=0.1, exact=False)
    for name, parameter in model.named_parameters():
        parameter.grad = gradient[name]
    optimizer.step()
    learner.update(samples, anchor)
    got = weights(learner)
    # Adam's first step is lr * g / (|g| + eps): only where g is not itself rounding can it be compared.
    for name, parameter in model.named_parameters():
        sure = gradient[name].abs() > 1e-6
        assert (got[name] - parameter.detach())[sure].abs().max() < 1e-5


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_settings_that_are_set_on_the_way_are_those_of_a_learner_that_began_with_them(worker, make_batch, tmp_path, optimizer: str) -> None:
    """Also after a checkpoint, which brings the learning rate that it was saved with."""
    samples, anchor = make_batch(seed=6, size=10)
    begun, moved = worker(optimizer=optimizer, lr=2e-3, kl_coef=0.7), worker(optimizer=optimizer, lr=9.0, kl_coef=0.0)
    moved.save_checkpoint(tmp_path / "start")
    moved.set(lr=0.5, kl_coef=0.2)
    moved.update(samples, anchor)
    moved.load_checkpoint(tmp_path / "start")
    moved.set(lr=2e-3, kl_coef=0.7)
    assert moved.update(samples, anchor) == begun.update(samples, anchor)
    assert distance(weights(moved), weights(begun)) == 0


def test_metrics_are_those_of_before_the_update(worker, tiny_model, make_batch) -> None:
    samples, anchor = make_batch(seed=7, size=12, exact=True)
    learner = worker(kl_estimator="exact", kl_coef=10.0)
    measured = learner.measure([replace(sample, advantage=0.0) for sample in samples], anchor)
    report = learner.update(samples, anchor)
    assert measured == {name: report[name] for name in measured}
    assert learner.measure(samples, anchor)["kl_anchor"] < report["kl_anchor"]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    kl, k3, difference = [], [], []
    for sample, anchor_TV in zip(samples, anchor, strict=True):
        with torch.no_grad():
            logprobs_TV = _sequence_logprobs(model, sample)
        tokens_T = logprobs_TV[range(len(sample.completion_ids)), list(sample.completion_ids)]
        kl.append((logprobs_TV.exp() * (logprobs_TV - torch.from_numpy(anchor_TV))).sum().item())
        d_T = tokens_T - torch.tensor(sample.rollout_logprobs)
        k3.append(torch.exp(d_T) - 1 - d_T)
        difference.append(d_T)
    every = torch.cat(difference)
    assert report["kl_anchor"] == pytest.approx(np.mean(kl), rel=1e-5)
    assert report["mismatch_kl"] == pytest.approx(torch.cat(k3).mean().item(), rel=1e-4)
    assert report["mismatch_max"] == pytest.approx(every.abs().max().item(), rel=1e-5)
    assert report["truncation_share"] == pytest.approx((every.exp() > 2).double().mean().item())
    assert report["clip_share"] == 0
    assert report["loss"] == report["loss_policy"] + report["loss_anchor"]
    assert (report["tokens"], report["sequences"]) == (batch_tokens(samples), len(samples))


def test_a_policy_at_its_anchor_and_its_engine_has_no_kl_and_no_mismatch(worker, make_batch) -> None:
    samples, _ = make_batch(seed=8, size=6)
    learner = worker()
    logprobs = [learner.token_logprobs(s.prompt_ids + s.completion_ids)[len(s.prompt_ids) - 1 :] for s in samples]
    samples = [replace(s, rollout_logprobs=tuple(row)) for s, row in zip(samples, logprobs, strict=True)]
    report = learner.update(samples, [np.array(row, dtype=np.float32) for row in logprobs])
    assert report["kl_anchor"] == pytest.approx(0, abs=1e-9)
    assert report["mismatch_kl"] == pytest.approx(0, abs=1e-9)
    assert report["mismatch_max"] < 1e-5


def test_token_logprobs_are_those_of_transformers(worker, tiny_model) -> None:
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        expected = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)[range(7), ids[1:]]
    assert worker().token_logprobs(ids) == pytest.approx(expected.tolist(), abs=1e-5)


def test_nothing_to_learn_from_makes_no_step(worker) -> None:
    learner = worker()
    before = weights(learner)
    for samples, anchor in ([], []), ([Sample((1, 2), (), (), 1.0)], [np.zeros(0, dtype=np.float32)]):
        report = learner.update(samples, anchor)
        assert set(report.values()) == {0.0}
        assert {"loss", "grad_norm", "kl_anchor", "mismatch_kl", "tokens"} <= report.keys()
        assert set(learner.measure(samples, anchor).values()) == {0.0}
    assert distance(before, weights(learner)) == 0


def test_a_gradient_that_is_not_finite_stops_the_run(worker, make_batch) -> None:
    samples, _ = make_batch(seed=9, size=4)
    bad = replace(samples[0], completion_ids=(1,), rollout_logprobs=(float("nan"),))
    learner = worker()
    with pytest.raises(RunError, match="not finite"):
        learner.update([bad], [np.zeros(1, dtype=np.float32)])


def test_bfloat16_follows_float32(worker, make_batch) -> None:
    """The GPU's number format through the same code: slow on a CPU, and near enough."""
    samples, anchor = make_batch(seed=10, size=4)
    low, high = worker(**SGD, dtype="bfloat16"), worker(**SGD)
    one, other = low.update(samples, anchor), high.update(samples, anchor)
    assert one["loss"] == pytest.approx(other["loss"], abs=0.05)
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=0.1)
    assert weights(low)["lm_head.weight"].dtype == torch.bfloat16
