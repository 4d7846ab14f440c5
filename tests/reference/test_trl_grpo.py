"""The policy gradient and the KL anchor against TRL's GRPO trainer: its own `_compute_loss`, its own forward pass."""

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed reads it when it is first imported

from raydistill.learner import losses
from raydistill.learner.batch import LearnerSpec, Sample, batch_tokens

VOCABULARY = 40
BETA, CLIP_LOW, CLIP_HIGH, CAP = 0.3, 0.1, 0.25, 1.5
Samples = list[Sample]
Rows = list[np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llama")
    words = {f"t{i}": i for i in range(VOCABULARY - 2)} | {"<pad>": VOCABULARY - 2, "<eos>": VOCABULARY - 1}
    core = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 32}
    LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.15, tie_word_embeddings=False, **shape)).save_pretrained(folder)
    return folder


@pytest.fixture
def trainer(folder: Path, tmp_path: Path):
    """A real trainer. It is only told afterwards that vLLM samples, because that would start an engine."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=2,
        num_generations=2,
        gradient_accumulation_steps=1,
        steps_per_generation=1,
        loss_type="dapo",
        beta=BETA,
        epsilon=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        use_bias_correction_kl=False,  # TRL's default multiplies k3 by the ratio; ours is the plain estimator
        gradient_checkpointing=False,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["t1"] * 4}),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def _pad(rows: list, left: bool, value: float = 0) -> torch.Tensor:
    width = max(len(row) for row in rows)
    fill = [[value] * (width - len(row)) for row in rows]
    return torch.tensor([[*pad, *row] if left else [*row, *pad] for row, pad in zip(rows, fill, strict=True)])


def _trl_loss(trainer, samples: Samples, old: Rows, anchor: Rows) -> torch.Tensor:
    """TRL's loss of these samples: prompts padded on the left, completions on the right."""
    prompts = [list(sample.prompt_ids) for sample in samples]
    completions = [list(sample.completion_ids) for sample in samples]
    old_NT = _pad(old, left=False)
    ratio_NT = torch.exp(old_NT - _pad([sample.rollout_logprobs for sample in samples], left=False))
    inputs = {
        "prompt_ids": _pad(prompts, left=True),
        "prompt_mask": _pad([[1] * len(row) for row in prompts], left=True),
        "completion_ids": _pad(completions, left=False),
        "completion_mask": _pad([[1] * len(row) for row in completions], left=False),
        "advantages": torch.tensor([sample.advantage for sample in samples]),
        "old_per_token_logps": old_NT,
        "ref_per_token_logps": _pad(anchor, left=False),
        "importance_sampling_ratio": torch.clamp(ratio_NT, max=CAP),  # vllm_importance_sampling_mode="token_truncate"
        "num_items_in_batch": torch.tensor(float(batch_tokens(samples))),
    }
    return trainer._compute_loss(trainer.model, inputs)


def _logprobs(model: torch.nn.Module, sample: Sample) -> torch.Tensor:
    """(T,) of one sequence by itself."""
    logits = model(torch.tensor([sample.prompt_ids + sample.completion_ids])).logits[0]
    every = torch.log_softmax(logits, -1)[len(sample.prompt_ids) - 1 : -1]
    return every[range(len(sample.completion_ids)), list(sample.completion_ids)]


@pytest.fixture(scope="module")
def step(folder: Path) -> tuple[Samples, Rows]:
    """Twelve samples whose rollout engine and anchor are a noisy copy of the model, and the anchor's log-probabilities."""
    from transformers import AutoModelForCausalLM

    model, rng, samples, anchor = AutoModelForCausalLM.from_pretrained(folder), np.random.default_rng(0), [], []
    for _ in range(12):
        prompt, length = rng.integers(1, 8), rng.integers(1, 12)
        ids = tuple(rng.integers(0, VOCABULARY, prompt + length).tolist())
        bare = Sample(ids[:prompt], ids[prompt:], (0.0,) * length, float(rng.normal()))
        with torch.no_grad():
            true = _logprobs(model, bare).numpy()
        samples.append(Sample(bare.prompt_ids, bare.completion_ids, tuple((true + rng.normal(0, 0.5, length)).tolist()), bare.advantage))
        anchor.append((true + rng.normal(0, 0.5, length)).astype(np.float32))
    return samples, anchor


def _gradient(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_loss_and_gradient_where_many_tokens_clip_and_truncate(trainer, step) -> None:
    samples, anchor = step
    rng = np.random.default_rng(1)
    old = [_logprobs(trainer.model, s).detach().numpy() + rng.normal(0, 0.4, len(s.completion_ids)).astype(np.float32) for s in samples]
    expected = _trl_loss(trainer, samples, old, anchor)
    expected_gradient = _gradient(trainer.model, expected)

    new_K = torch.cat([_logprobs(trainer.model, sample) for sample in samples])
    old_K, anchor_K = torch.tensor(np.concatenate(old)), torch.tensor(np.concatenate(anchor))
    rollout_K = torch.tensor(np.concatenate([sample.rollout_logprobs for sample in samples]), dtype=torch.float32)
    advantages_K = torch.cat([torch.full((len(s.completion_ids),), s.advantage) for s in samples])
    policy_K = losses.policy_losses(new_K, old_K, rollout_K, advantages_K, clip_low=CLIP_LOW, clip_high=CLIP_HIGH, importance_cap=CAP)
    tokens = batch_tokens(samples)
    loss = policy_K.sum() / tokens + BETA * losses.kl_k3(new_K, anchor_K).sum() / tokens
    gradient = _gradient(trainer.model, loss)

    assert losses.is_clipped(new_K, old_K, advantages_K, CLIP_LOW, CLIP_HIGH).float().mean() >= 0.1
    assert losses.is_truncated(old_K, rollout_K, CAP).float().mean() >= 0.1
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert _distance(gradient, expected_gradient) < 1e-5


def _worker(folder: Path, **fields: object):
    from raydistill.learner.worker import LearnerWorker

    defaults = {
        "kl_coef": BETA,
        "kl_estimator": "k3",
        "optimizer": "sgd",
        "max_grad_norm": 0.0,
        "clip_low": CLIP_LOW,
        "clip_high": CLIP_HIGH,
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return LearnerWorker(LearnerSpec(model=str(folder), importance_cap=CAP, **(defaults | fields)), port=port)


def _weights(worker) -> dict[str, torch.Tensor]:
    from raydistill.models.weights import unpack

    return {name: tensor for bucket in worker.export(2**30) for name, tensor in unpack(bucket)}


def test_an_update_of_the_learner_moves_along_trls_gradient(trainer, folder, step) -> None:
    samples, anchor = step
    old = [_logprobs(trainer.model, sample).detach().numpy() for sample in samples]
    expected = _trl_loss(trainer, samples, old, anchor)
    gradient = _gradient(trainer.model, expected)
    worker = _worker(folder, lr=1.0, micro_batch_tokens=40)
    before = _weights(worker)
    report = worker.update(samples, anchor)
    after = _weights(worker)
    assert report["truncation_share"] >= 0.1
    assert report["loss"] == pytest.approx(expected.item(), abs=1e-5)
    assert _distance({name: before[name] - after[name] for name in before}, gradient) < 1e-5


def test_two_updates_on_one_step_clip_as_trls_do(trainer, folder, step) -> None:
    """The second half of the samples is learnt from by a policy that the first half has moved: ratios are not 1."""
    samples, anchor = step
    old = [_logprobs(trainer.model, sample).detach().numpy() for sample in samples]
    expected = []
    for half in (slice(0, 6), slice(6, 12)):
        loss = _trl_loss(trainer, samples[half], old[half], anchor[half])
        gradient = _gradient(trainer.model, loss)
        expected.append(loss.item())
        with torch.no_grad():
            for name, parameter in trainer.model.named_parameters():
                parameter -= 0.5 * gradient[name]
    worker = _worker(folder, lr=0.5, updates_per_step=2, micro_batch_tokens=40)
    report = worker.update(samples, anchor)
    assert report["clip_share"] >= 0.1
    assert report["truncation_share"] >= 0.1
    assert report["loss"] == pytest.approx(np.mean(expected), abs=1e-5)
    assert _distance(_weights(worker), {name: p.detach() for name, p in trainer.model.named_parameters()}) < 1e-5
