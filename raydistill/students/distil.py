"""Trains one student in place: on the tokens of given traces (SeqKD, sft_gold), or towards a teacher's distributions (KD, GKD)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from raydistill.errors import RunError
from raydistill.models.head import has_plain_logits, hidden_at, only_at
from raydistill.rollout.completion import Sampling, TokenPrompt, sample_seed
from raydistill.students.batches import Batch, pad, seeded_order
from raydistill.students.data import Encoded
from raydistill.students.fused import fused_jsd_loss, fused_sft_loss, fused_topk_jsd_loss
from raydistill.students.losses import jsd_loss, sft_loss, teacher_topk, topk_jsd_loss

if TYPE_CHECKING:
    from raydistill.rollout.engine import Engine

_WARMUP = 0.1
"""Share of the steps over which the learning rate rises."""
_MAX_GRAD_NORM = 1.0
LARGEST_LOGITS = 2**26
"""Elements, 256 MiB in float32, above which a pass's logits are made a few positions at a time. With fewer there is little to be saved."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train."""

    steps: int
    batch: int
    """Sequences a step."""
    lr: float
    """Peak learning rate of AdamW: reached after a tenth of the steps, and 0 after the last one."""
    seed: int
    """Sets the order of the data and, on-policy, what the student samples."""
    micro_batch_tokens: int = 8192
    """Tokens, padding included, in one forward and backward pass."""


@dataclass(frozen=True)
class PromptPair:
    """A prompt as the student reads it and as the teacher does: they may have different templates."""

    student_ids: tuple[int, ...]
    teacher_ids: tuple[int, ...]


@dataclass(frozen=True)
class TracePair:
    """A trace of the teacher's, after the prompt as the student reads it and as the teacher does."""

    student: Encoded
    teacher: Encoded


@dataclass(frozen=True)
class Objective:
    """What a student minimises towards its teacher, and on whose completions."""

    jsd_beta: float
    """As in `jsd_loss`: 0 is KL(teacher || student), 1 is KL(student || teacher)."""
    on_policy: float
    """GKD's lambda (Agarwal et al. 2024, algorithm 1): how likely a step is to use completions that the student samples."""
    temperature: float = 1.0
    """Of both distributions in the divergence; the student samples at 1."""
    top_k: int | None = None
    """The teacher's likeliest tokens that the student is told of, as in `topk_jsd_loss`; all where it is None."""


@dataclass(frozen=True)
class Turn:
    """What a step learns from."""

    fresh: bool
    """Completions that the student samples now, of the prompts in `rows`; otherwise the traces in `rows`."""
    rows: list[int]


def turns(prompts: int, traces: int, recipe: Recipe, on_policy: float) -> Iterator[Turn]:
    """What each step of a recipe learns from, by chance (GKD's algorithm 1): the same for the same seed and the same numbers."""
    coin = random.Random(sample_seed(recipe.seed, "coin", 0))
    asked, given = _order(prompts, recipe), _order(traces, recipe)
    for _ in range(recipe.steps):
        fresh = coin.random() < on_policy
        yield Turn(fresh, next(asked if fresh else given))


def learning_rate_factor(step: int, steps: int) -> float:
    """Factor of the peak learning rate at `step` (from 0): up in a line over the first tenth, then down in a line towards 0."""
    warmup = math.ceil(_WARMUP * steps)
    return (step + 1) / warmup if step < warmup else (steps - step) / (steps - warmup + 1)


def sft(model: Any, traces: Sequence[Encoded], recipe: Recipe) -> list[float]:
    """Train `model` (a causal language model in evaluation mode: no dropout) on traces by cross-entropy.

    Returns the loss of each step, in nats a token. Raises RunError if it stops being a number.
    """
    data = pad(traces)
    optimiser = Optimiser(model, recipe.lr, lambda step: learning_rate_factor(step, recipe.steps))
    return [optimiser.step(sft_pieces(model, data.rows(rows), recipe.micro_batch_tokens)) for rows in _order(len(traces), recipe)]


def match_teacher(
    model: Any,
    engine: Engine,
    teacher: Any,
    prompts: Sequence[PromptPair],
    traces: Sequence[TracePair],
    recipe: Recipe,
    objective: Objective,
    max_new_tokens: int,
) -> list[float]:
    """Train `model` by the exact divergence from `teacher`, both over the whole vocabulary, at each token of a step's completions.

    A step has the student complete `prompts` or takes `traces`, by chance (GKD): with `on_policy` at 0, which is teacher-forced KD,
    the prompts are not needed, and at 1 the traces are not.
    `engine` holds a copy of the model and is given its weights before it samples. Both models are in evaluation mode and share the
    vocabulary. Returns the loss of each step, in nats a token. Raises RunError if it stops being a number.
    """
    optimiser = Optimiser(model, recipe.lr, lambda step: learning_rate_factor(step, recipe.steps))
    losses = []
    for step, turn in enumerate(turns(len(prompts), len(traces), recipe, objective.on_policy)):
        if turn.fresh:
            engine.load_weights(step, model.named_parameters())
            sampling = Sampling(1, max_new_tokens, seed=sample_seed(recipe.seed, "on-policy", step))
            pairs = _on_policy(engine, [prompts[row] for row in turn.rows], sampling, step)
        else:
            pairs = [traces[row] for row in turn.rows]
        own, teachers = pad([pair.student for pair in pairs]), pad([pair.teacher for pair in pairs])
        losses.append(optimiser.step(divergence_pieces(model, own, teacher, teachers, objective, recipe.micro_batch_tokens)))
    return losses


def _on_policy(engine: Engine, prompts: Sequence[PromptPair], sampling: Sampling, version: int) -> list[TracePair]:
    """One completion of each prompt. Its stream is set by its place, so that a prompt may occur twice in a step."""
    asked = [TokenPrompt(str(place), prompt.student_ids) for place, prompt in enumerate(prompts)]
    sampled = [samples[0].token_ids for samples in engine.generate(asked, sampling, version)]
    return [TracePair(Encoded(p.student_ids, ids), Encoded(p.teacher_ids, ids)) for p, ids in zip(prompts, sampled, strict=True)]


def completion_logits(model: Any, batch: Batch) -> Tensor:
    """Logits (M, V) from which each of the batch's M completion tokens was, or could have been, drawn; sequence by sequence."""
    with only_at(model.get_output_embeddings(), _places(batch).to(model.device)):
        return _pass(model, batch)[0]


def _completion_hidden(model: Any, batch: Batch) -> Tensor:
    """Likewise the states (M, D) of which the output layer makes these logits."""
    with hidden_at(model.get_output_embeddings(), _places(batch).to(model.device)) as entered:
        _pass(model, batch)
    return entered[0]


def _places(batch: Batch) -> Tensor:
    return batch.is_completion_NT[:, 1:].flatten().nonzero()[:, 0]


def _pass(model: Any, batch: Batch) -> Tensor:
    return model(input_ids=batch.ids_NT[:, :-1].to(model.device), use_cache=False).logits


def _in_chunks(models: Sequence[Any], tokens: int) -> bool:
    """Whether the logits of a pass of so many tokens would be large, and the losses can do without them."""
    rows = max(len(model.get_output_embeddings().weight) for model in models)
    return tokens * rows > LARGEST_LOGITS and all(has_plain_logits(model) for model in models)


def _order(count: int, recipe: Recipe) -> Iterator[list[int]]:
    return seeded_order(count, recipe.batch, recipe.steps, recipe.seed)


def sft_pieces(model: Any, batch: Batch, micro_batch_tokens: int) -> Iterator[Tensor]:
    """The mean cross-entropy a token of a batch, in nats, as terms that add up to it."""
    loss = _fused_sft if _in_chunks([model], micro_batch_tokens) else _sft
    for rows in batch.pieces(micro_batch_tokens):
        yield loss(model, batch.rows(rows)) / batch.tokens


def _sft(model: Any, piece: Batch) -> Tensor:
    logits_MV = completion_logits(model, piece)
    return sft_loss(logits_MV, piece.completion_ids.to(logits_MV.device))


def _fused_sft(model: Any, piece: Batch) -> Tensor:
    hidden_MD = _completion_hidden(model, piece)
    return fused_sft_loss(hidden_MD, model.get_output_embeddings().weight, piece.completion_ids.to(hidden_MD.device))


def divergence_pieces(
    model: Any, own: Batch, teacher: Any, teachers: Batch, objective: Objective, micro_batch_tokens: int
) -> Iterator[Tensor]:
    """The mean divergence a token, likewise; `own` and `teachers` hold the same completions, after the prompt as either reads it."""
    loss = _fused_divergence if _in_chunks([model, teacher], micro_batch_tokens) else _divergence
    wider = max(own, teachers, key=lambda batch: batch.ids_NT.shape[1])
    for rows in wider.pieces(micro_batch_tokens):
        yield loss(model, own.rows(rows), teacher, teachers.rows(rows), objective) / own.tokens


def _divergence(model: Any, own: Batch, teacher: Any, teachers: Batch, objective: Objective) -> Tensor:
    """The sum over a piece's tokens. Logits are let go of before it is descended."""
    with torch.no_grad():
        teacher_MV = completion_logits(teacher, teachers)
    student_MV = completion_logits(model, own)
    # Models with one tokenizer may fill up their vocabularies to different sizes; no text has tokens from up there.
    shared = min(student_MV.shape[1], teacher_MV.shape[1])
    student_MV, teacher_MV = student_MV[:, :shared], teacher_MV[:, :shared]
    if objective.top_k is None:
        return jsd_loss(student_MV, teacher_MV, objective.jsd_beta, objective.temperature)
    told = teacher_topk(teacher_MV, min(objective.top_k, shared), objective.temperature)
    return topk_jsd_loss(student_MV, told, objective.jsd_beta, objective.temperature).loss


def _fused_divergence(model: Any, own: Batch, teacher: Any, teachers: Batch, objective: Objective) -> Tensor:
    """`_divergence` without the logits of the whole piece, of models that have plain ones."""
    with torch.no_grad():
        teacher_ME = _completion_hidden(teacher, teachers)
    student_MD = _completion_hidden(model, own)
    heads = [each.get_output_embeddings().weight for each in (model, teacher)]
    shared = min(map(len, heads))
    # A slice of all would cost a copy of the gradient.
    student_VD, teacher_VE = (head if len(head) == shared else head[:shared] for head in heads)
    if objective.top_k is None:
        return fused_jsd_loss(student_MD, student_VD, teacher_ME, teacher_VE, objective.jsd_beta, objective.temperature)
    k = min(objective.top_k, shared)
    return fused_topk_jsd_loss(student_MD, student_VD, teacher_ME, teacher_VE, k, objective.jsd_beta, objective.temperature).loss


class Optimiser:
    """AdamW without weight decay, clipped gradients, and a learning rate that follows a schedule."""

    def __init__(self, model: Any, lr: float, factor: Callable[[int], float]) -> None:
        """`factor` of the number of steps done gives the next one's share of the peak learning rate `lr`."""
        self._parameters = list(model.parameters())
        self._optimizer = torch.optim.AdamW(self._parameters, lr=lr, weight_decay=0.0, fused=True)
        self._lr, self._factor, self._done = lr, factor, 0

    def step(self, losses: Iterable[Tensor]) -> float:
        """One update by the gradient of the sum of `losses`, which it returns. Raises RunError if it is not finite."""
        self._optimizer.zero_grad()
        total = 0.0
        for loss in losses:
            loss.backward()
            total += float(loss.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, _MAX_GRAD_NORM))
        if not math.isfinite(total + norm):
            raise RunError(f"a student's training diverged (loss {total}, gradient norm {norm}); lower the lr")
        for group in self._optimizer.param_groups:
            group["lr"] = self._lr * self._factor(self._done)
        self._optimizer.step()
        self._done += 1
        return total

    def state(self) -> dict[str, Tensor]:
        """Steps done and the moments, by names of our own, for `restore`."""
        moments = self._optimizer.state_dict()["state"]
        named = {f"{place}.{name}": tensor for place, tensors in moments.items() for name, tensor in tensors.items()}
        return named | {"done": torch.tensor(self._done)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state` was taken, to the bit."""
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            place, _, moment = name.partition(".")
            if moment:
                moments.setdefault(int(place), {})[moment] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self._done = int(state["done"])
