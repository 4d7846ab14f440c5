"""Training against brute force and on tasks small enough to be learnt in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from raydistill.errors import RunError
from raydistill.models.trio import character_tokenizer, new_model
from raydistill.rollout.completion import Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.transformers_engine import TransformersEngine
from raydistill.students.data import Encoded, Reader, Trace
from raydistill.students.distil import Objective, PromptPair, Recipe, TracePair, learning_rate_factor, match_teacher, sft

TOKENIZER = character_tokenizer()
READER = Reader(TOKENIZER, "plain", "{prompt}", TOKENIZER.eos_token_id)
TRACES = [
    READER.trace(Trace(prompt, completion, ended))
    for prompt, completion, ended in [
        ("1+2=", "#3", True),
        ("4-1+2=", "4-1=3;#5", True),
        ("7=", "#7", False),
        ("2+2+2=", "~AB 2+2=4;", False),
        ("9-9=", "#0", True),
    ]
]
ON_POLICY = Objective(jsd_beta=1.0, on_policy=1.0)
PAIRS = [PromptPair(trace.prompt_ids, trace.prompt_ids) for trace in TRACES]


def student(seed: int = 0) -> Any:
    return new_model("student", TOKENIZER, seed).eval()


def engine(folder: Path) -> TransformersEngine:
    return TransformersEngine(EngineSpec("transformers", str(folder / "student"), max_model_len=64))


def next_token_logits(model: Any, prompt_ids: tuple[int, ...], completion_ids: tuple[int, ...]) -> torch.Tensor:
    """One sequence on its own: no batch, no padding, no mask."""
    return model(input_ids=torch.tensor([prompt_ids + completion_ids])).logits[0, len(prompt_ids) - 1 : -1]


def weights(model: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("micro_batch_tokens", [1, 30, 10_000])
def test_the_sft_step_is_that_of_a_loop_over_single_sequences(micro_batch_tokens: int) -> None:
    model, reference = student(), student()
    (loss,) = sft(model, TRACES, Recipe(steps=1, batch=5, lr=1e-3, seed=0, micro_batch_tokens=micro_batch_tokens))
    total = torch.zeros(())
    for trace in TRACES:
        next_token = Categorical(logits=next_token_logits(reference, trace.prompt_ids, trace.completion_ids))
        total = total - next_token.log_prob(torch.tensor(trace.completion_ids)).sum()
    expected = total / sum(len(trace.completion_ids) for trace in TRACES)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    torch.testing.assert_close(gradient(model), gradient(reference), atol=1e-6, rtol=1e-4)


def test_a_student_learns_a_fixed_mapping_and_where_to_stop() -> None:
    model = student()
    losses = sft(model, TRACES, Recipe(steps=80, batch=5, lr=5e-3, seed=0))
    assert losses[-1] < 0.05 < 2 < losses[0]
    for trace in TRACES:
        predicted = next_token_logits(model, trace.prompt_ids, trace.completion_ids).argmax(-1)
        assert tuple(predicted.tolist()) == trace.completion_ids


def test_same_seed_same_weights_to_the_bit_and_another_seed_others() -> None:
    trained = []
    for seed in (3, 3, 4):
        model = student()
        sft(model, TRACES, Recipe(steps=4, batch=2, lr=1e-3, seed=seed))
        trained.append(weights(model))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_gkd_same_seed_same_weights_to_the_bit_and_another_seed_others(untrained: Path) -> None:
    trained = []
    for seed in (3, 3, 4):
        model = student()
        match_teacher(
            model, engine(untrained), student(9), PAIRS, [], Recipe(steps=3, batch=4, lr=1e-3, seed=seed), ON_POLICY, max_new_tokens=6
        )
        trained.append(weights(model))
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])


def test_the_gkd_loss_is_the_kl_on_what_the_student_sampled_after_either_prompt(untrained: Path) -> None:
    """The teacher reads prompts of other lengths than the student; each step samples from the weights that it starts with."""
    sampler = engine(untrained)
    generate, asked, probes = sampler.generate, [], []

    def remember(prompts: Any, sampling: Sampling, version: int) -> Any:
        completions = generate(prompts, sampling, version)
        asked.append(completions[0][0].token_ids)
        probes.append(sampler.token_logprobs(TRACES[0].prompt_ids))
        return completions

    sampler.generate = remember  # type: ignore[method-assign]
    pairs = [PromptPair(pair.student_ids, (*pair.student_ids, *range(4, 4 + n))) for n, pair in enumerate(PAIRS)]
    teacher = student(5)
    losses = match_teacher(student(), sampler, teacher, pairs[1:2], [], Recipe(2, 1, 1e-2, 0), ON_POLICY, max_new_tokens=7)
    own = next_token_logits(student(), pairs[1].student_ids, asked[0])
    teachers = next_token_logits(teacher, pairs[1].teacher_ids, asked[0])
    expected = kl_divergence(Categorical(logits=own), Categorical(logits=teachers)).mean()
    assert losses[0] == pytest.approx(expected.item(), abs=1e-5)
    assert probes[0] != pytest.approx(probes[1], abs=1e-3)


@pytest.mark.parametrize("jsd_beta", [0.0, 0.5, 1.0])
def test_the_kd_step_is_that_of_a_loop_over_the_teachers_traces(untrained: Path, jsd_beta: float) -> None:
    """Without a student's sample; the teacher reads longer prompts. Inside, the JSD is that of a mixture, here written out."""
    pairs = [TracePair(trace, Encoded((*trace.prompt_ids, 4), trace.completion_ids)) for trace in TRACES]
    model, reference, teacher = student(), student(), student(5)
    objective = Objective(jsd_beta, on_policy=0.0, temperature=2.0)
    recipe = Recipe(steps=1, batch=5, lr=1e-3, seed=0, micro_batch_tokens=30)
    (loss,) = match_teacher(model, None, teacher, [], pairs, recipe, objective, max_new_tokens=0)  # type: ignore[arg-type]
    total = torch.zeros(())
    for pair in pairs:
        own = next_token_logits(reference, pair.student.prompt_ids, pair.student.completion_ids).div(2).softmax(-1)
        other = next_token_logits(teacher, pair.teacher.prompt_ids, pair.teacher.completion_ids).div(2).softmax(-1).detach()
        total = total + _generalised_jsd(own, other, jsd_beta)
    expected = total / sum(len(trace.completion_ids) for trace in TRACES)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
    torch.testing.assert_close(gradient(model), gradient(reference), atol=1e-6, rtol=1e-3)


def test_a_student_that_is_told_of_three_tokens_sees_the_rest_as_one(untrained: Path) -> None:
    """Against the two distributions after merging, written out."""
    pairs = [TracePair(trace, trace) for trace in TRACES]
    model, reference, teacher = student(), student(), student(5)
    recipe = Recipe(steps=1, batch=5, lr=1e-3, seed=0, micro_batch_tokens=30)
    objective = Objective(jsd_beta=0.0, on_policy=0.0, top_k=3)
    (loss,) = match_teacher(model, None, teacher, [], pairs, recipe, objective, max_new_tokens=0)  # type: ignore[arg-type]
    total = 0.0
    for trace in TRACES:
        own, other = (next_token_logits(m, trace.prompt_ids, trace.completion_ids).double().softmax(-1) for m in (reference, teacher))
        told, ids = other.topk(3)
        merged = [torch.cat([p, 1 - p.sum(-1, keepdim=True)], -1) for p in (told, own.gather(-1, ids))]
        total += float(kl_divergence(*map(Categorical, merged)).sum())
    assert loss == pytest.approx(total / sum(len(trace.completion_ids) for trace in TRACES), abs=1e-5)


def _generalised_jsd(own: torch.Tensor, other: torch.Tensor, jsd_beta: float) -> torch.Tensor:
    if jsd_beta in (0, 1):
        first, second = (own, other) if jsd_beta else (other, own)
        return kl_divergence(Categorical(first), Categorical(second)).sum()
    mixture = Categorical(jsd_beta * other + (1 - jsd_beta) * own)
    return (jsd_beta * kl_divergence(Categorical(other), mixture) + (1 - jsd_beta) * kl_divergence(Categorical(own), mixture)).sum()


def test_a_share_of_the_steps_is_on_policy(untrained: Path) -> None:
    sampler = engine(untrained)
    generate, steps = sampler.generate, []

    def count(prompts: Any, sampling: Sampling, version: int) -> Any:
        steps.append(version)
        return generate(prompts, sampling, version)

    sampler.generate = count  # type: ignore[method-assign]
    traces = [TracePair(trace, trace) for trace in TRACES]
    objective = Objective(jsd_beta=0.5, on_policy=0.5)
    match_teacher(student(), sampler, student(5), PAIRS, traces, Recipe(steps=40, batch=1, lr=1e-4, seed=0), objective, max_new_tokens=2)
    assert 12 <= len(steps) <= 28
    assert steps == sorted(set(steps))


def test_a_gkd_step_in_pieces_is_the_same_step(untrained: Path) -> None:
    steps = []
    for micro_batch_tokens in (1, 10_000):
        model = student()
        recipe = Recipe(steps=1, batch=5, lr=1e-3, seed=0, micro_batch_tokens=micro_batch_tokens)
        (loss,) = match_teacher(model, engine(untrained), student(5), PAIRS, [], recipe, ON_POLICY, max_new_tokens=7)
        steps.append((torch.tensor(loss), gradient(model)))
    torch.testing.assert_close(steps[0], steps[1], atol=1e-6, rtol=1e-4)


def test_a_student_equal_to_its_teacher_stays(untrained: Path) -> None:
    model = student()
    losses = match_teacher(model, engine(untrained), student(), PAIRS, [], Recipe(5, 5, 1e-2, 0), ON_POLICY, max_new_tokens=6)
    assert max(losses) < 1e-7
    torch.testing.assert_close(weights(model), weights(student()), atol=1e-4, rtol=0)


def test_gkd_moves_a_student_to_its_teacher(untrained: Path) -> None:
    teacher, model = student(5), student(0)
    traces = [trace for trace in TRACES if trace.completion_ids[-1] == TOKENIZER.eos_token_id]
    sft(teacher, traces, Recipe(steps=60, batch=3, lr=5e-3, seed=0))
    pairs = [PromptPair(trace.prompt_ids, trace.prompt_ids) for trace in traces]
    losses = match_teacher(model, engine(untrained), teacher, pairs, [], Recipe(80, 12, 5e-3, 0), ON_POLICY, max_new_tokens=12)
    assert sum(losses[-5:]) / 5 < 0.1 * losses[0]
    sampler = engine(untrained)
    sampler.load_weights(1, model.named_parameters())
    prompt = TokenPrompt("p", READER.prompt("1+2="))
    (completion,) = sampler.generate([prompt], Sampling(1, 12, greedy=True), 1)[0]
    assert completion.text == "#3"


def test_neither_training_nor_sampling_leaves_a_trace_in_the_teacher(untrained: Path) -> None:
    teacher = student(5)
    before = weights(teacher).clone()
    match_teacher(student(), engine(untrained), teacher, PAIRS, [], Recipe(2, 2, 1e-2, 0), ON_POLICY, max_new_tokens=4)
    assert torch.equal(weights(teacher), before)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_diverging_student_is_an_error_and_not_a_folder_of_nan() -> None:
    model = student()
    with pytest.raises(RunError, match="lower the lr"):
        sft(model, TRACES, Recipe(steps=50, batch=2, lr=1e30, seed=0))


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 250])
def test_the_learning_rate_rises_for_a_tenth_and_falls_to_the_end(steps: int) -> None:
    factors = [learning_rate_factor(step, steps) for step in range(steps)]
    peak = factors.index(1.0)
    assert peak == max(0, -(-steps // 10) - 1)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert learning_rate_factor(steps, steps) == 0 < factors[-1]
