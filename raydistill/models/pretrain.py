"""Pretrains a demo trio from nothing, and refuses to hand out one that the demo could not work with.

Training sees prompts of the task's train split only, each with a freshly drawn trace; quality is measured on tune; the
report split is never touched.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from raydistill.errors import InputError, RunError
from raydistill.models.recipes import Gates, Recipe, TrioRecipe
from raydistill.models.text import encode_completion, render_prompt
from raydistill.models.trio import ROLES, Role, bpe_tokenizer, character_tokenizer, new_model
from raydistill.tasks.arithmetic import CORRECTION, sample_trace, trace

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from raydistill.tasks.prompt import Prompt

_IGNORED = -100


_WARMUP_STEPS = 50
_LOOK_EVERY = 20


def _learning_rate(step: int, recipe: Recipe) -> float:
    warm = min(1.0, (step + 1) / _WARMUP_STEPS)
    falling = min(1.0, (recipe.steps - step) / (recipe.decay * recipe.steps)) if recipe.decay else 1.0
    return recipe.lr * warm * falling


def _batch(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels, both (N, T), of (prompt, trace) pairs; only the trace and the <eos> that ends it bear a loss.

    Padding stands on the right, where a causal model cannot see it, so no attention mask is needed.
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    sequences = [(render_prompt(tokenizer, prompt, "plain"), [*encode_completion(tokenizer, text), eos]) for prompt, text in pairs]
    longest = max(len(prompt) + len(text) for prompt, text in sequences)
    ids_NT = torch.full((len(pairs), longest), pad)
    labels_NT = torch.full((len(pairs), longest), _IGNORED)
    for n, (prompt, text) in enumerate(sequences):
        end = len(prompt) + len(text)
        ids_NT[n, :end] = torch.tensor(prompt + text)
        labels_NT[n, len(prompt) : end] = torch.tensor(text)
    return ids_NT, labels_NT


def _token_losses(model: LlamaForCausalLM, ids_NT: torch.Tensor, labels_NT: torch.Tensor) -> torch.Tensor:
    """Negative log-probability, in nats, of each labelled token and 0 elsewhere; (N, T - 1)."""
    logits_NTV = model(input_ids=ids_NT[:, :-1]).logits
    return functional.cross_entropy(logits_NTV.transpose(1, 2), labels_NT[:, 1:], ignore_index=_IGNORED, reduction="none")


def pretrain(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], recipe: Recipe, shares: Mapping[str, float]
) -> Iterator[int]:
    """Train `model` in place on fresh traces of `prompts`, in styles drawn by `shares`.

    Yields the number of steps done after each, so that the caller may stop.
    """
    rng = random.Random(recipe.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, recipe)
        texts = [rng.choice(prompts).text for _ in range(recipe.batch)]
        ids_NT, labels_NT = _batch(tokenizer, [(text, sample_trace(text, rng, shares)) for text in texts])
        loss = _token_losses(model, ids_NT, labels_NT).sum() / (labels_NT != _IGNORED).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield step + 1


@torch.no_grad()
def generate(
    model: LlamaForCausalLM, prompt_ids_NT: torch.Tensor, seed: int | None, max_new_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Complete prompts that all have the same number of tokens, at temperature 1, or greedily where `seed` is None.

    Returns the ids (N, T), T at most `max_new_tokens`, and each row's length in tokens, (N,), its <eos> included; what a row
    holds after its <eos> is noise. A row without <eos> was truncated.
    """
    stream = torch.Generator().manual_seed(seed or 0)
    length_N = torch.full((len(prompt_ids_NT),), max_new_tokens)
    inputs_NT, cache, columns = prompt_ids_NT, None, []
    for position in range(max_new_tokens):
        output = model(input_ids=inputs_NT, past_key_values=cache, use_cache=True)
        cache, logits_NV = output.past_key_values, output.logits[:, -1]
        sampled = logits_NV.argmax(-1) if seed is None else torch.multinomial(logits_NV.softmax(-1), 1, generator=stream)[:, 0]
        columns.append(sampled)
        ended = (sampled == model.config.eos_token_id) & (length_N == max_new_tokens)
        length_N[ended] = position + 1
        if (length_N <= position + 1).all():
            break
        inputs_NT = sampled[:, None]
    return torch.stack(columns, dim=1), length_N


def completions(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    seed: int | None,
    max_new_tokens: int,
    begun: Sequence[str] | None = None,
) -> list[str | None]:
    """One completion of each prompt, sampled or (`seed` None) greedy; None where it was truncated or has a special token inside.

    With `begun`, the completion of each prompt goes on from that text, which it contains.
    """
    begun = begun or [""] * len(prompts)
    by_length: dict[int, list[int]] = defaultdict(list)
    asked = []
    for place, (prompt, start) in enumerate(zip(prompts, begun, strict=True)):
        asked.append([*render_prompt(tokenizer, prompt.text, "plain"), *encode_completion(tokenizer, start)])
        by_length[len(asked[-1])].append(place)
    texts: list[str | None] = [None] * len(prompts)
    for places in by_length.values():
        ids_NT, length_N = generate(model, torch.tensor([asked[place] for place in places]), seed, max_new_tokens)
        rows = [ids[:length] for ids, length in zip(ids_NT.tolist(), length_N.tolist(), strict=True)]
        for place, row in zip(places, rows, strict=True):
            text = _whole_text(tokenizer, row)
            texts[place] = None if text is None else begun[place] + text
    return texts


def _whole_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str | None:
    *inner, last = ids
    if last != tokenizer.eos_token_id or not set(tokenizer.all_special_ids).isdisjoint(inner):
        return None
    return str(tokenizer.decode(inner))


def answer_quality(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], samples: int, trio: TrioRecipe
) -> dict[str, float]:
    """What a model answers, with `samples` sampled completions and one greedy completion of each prompt.

    `sampled` is the accuracy at temperature 1, from the whole distribution; `greedy` that of the greedy completions; a style's
    name stands for its share among the sampled completions, and `other` includes what was truncated. Where the task has
    corrections, `recovery` is the share of right ones among completions, sampled once, that begin with a wrong step.
    """

    def right(texts: list[str | None]) -> int:
        return sum(text is not None and trio.task.verify(prompt, text) for prompt, text in zip(prompts, texts, strict=True))

    sampled = [completions(model, tokenizer, prompts, seed, trio.max_new_tokens) for seed in range(samples)]
    styles = Counter(trio.task.style(text or "") for texts in sampled for text in texts)
    total = samples * len(prompts)
    quality = {
        "sampled": sum(right(texts) for texts in sampled) / total,
        "greedy": right(completions(model, tokenizer, prompts, None, trio.max_new_tokens)) / len(prompts),
        **{style: styles[style] / total for style in (*trio.task.shares, "other")},
    }
    if "corrected" in trio.task.shares:
        slips = [trace(prompt.text, "corrected", random.Random(prompt.id)).partition(CORRECTION)[0] for prompt in prompts]
        quality["recovery"] = right(completions(model, tokenizer, prompts, 0, trio.max_new_tokens, slips)) / len(prompts)
    return quality


@torch.no_grad()
def style_logprobs(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], styles: Iterable[str]
) -> dict[str, float]:
    """Mean log-probability, in nats a UTF-8 byte, that a model gives to right traces of each style; <eos> is left out."""
    means = {}
    for style in styles:
        pairs = [(prompt.text, trace(prompt.text, style, random.Random(prompt.id))) for prompt in prompts]
        ids_NT, labels_NT = _batch(tokenizer, pairs)
        labels_NT[labels_NT == tokenizer.eos_token_id] = _IGNORED
        total = -_token_losses(model, ids_NT, labels_NT).sum().item()
        means[style] = total / sum(len(text.encode()) for _, text in pairs)
    return means


def faults(gates: Gates, quality: Mapping[str, float]) -> list[str]:
    """The measures of `quality` that lie outside a role's gates, each with its bounds; empty for a usable model."""
    return [
        f"{name} is {quality[name]:.4f}, wanted {low} to {high}" for name, (low, high) in gates.items() if not low <= quality[name] <= high
    ]


@dataclass(frozen=True)
class Built:
    """A pretrained model of the trio that passed its gates."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    steps: int
    quality: dict[str, float]
    """Measured on the tune split."""


def _tokenizer(role: Role, prompts: Sequence[Prompt], seed: int, trio: TrioRecipe) -> PreTrainedTokenizerFast:
    if role != "proxy":
        return character_tokenizer(trio.characters)
    rng = random.Random(seed)
    texts = (text for prompt in prompts for text in (prompt.text, sample_trace(prompt.text, rng, trio.task.shares)))
    return bpe_tokenizer(texts, trio.characters)


def _quality(role: Role, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, samples: int, trio: TrioRecipe) -> dict[str, float]:
    tune = trio.task.prompts("tune")
    if role == "proxy":
        return style_logprobs(model, tokenizer, tune, trio.task.shares)
    return answer_quality(model, tokenizer, tune, samples, trio)


def build(role: Role, trio: TrioRecipe) -> Built:
    """Pretrain one model of a trio from nothing; the same weights each time on the same machine and number of threads.

    The student is stopped at the first look at which it passes its gates, because small models learn in a sudden transition:
    equal numbers of steps would give very unequal students. Raises RunError if the model ends outside its gates.
    """
    recipe, gates = trio.recipes[role], trio.gates[role]
    train = trio.task.prompts("train")
    tokenizer = _tokenizer(role, train, recipe.seed, trio)
    model = new_model(role, tokenizer, recipe.seed, recipe.layers)
    steps = 0
    for steps in pretrain(model, tokenizer, train, recipe, recipe.shares or trio.task.shares):
        if role == "student" and steps % _LOOK_EVERY == 0 and not faults(gates, _quality(role, model, tokenizer, 2, trio)):
            break
    quality = _quality(role, model, tokenizer, 10, trio)
    if wrong := faults(gates, quality):
        raise RunError(f"the {role} pretrained for {steps} steps is not usable: {'; '.join(wrong)}; try another seed in its recipe")
    return Built(model, tokenizer, steps, quality)


def build_trio(trio: TrioRecipe, out: Path, say: Callable[[str], None]) -> None:
    """Pretrain a trio into `out`, one Hugging Face folder a role, and `say` each one's quality. The folder is whole or absent.

    Raises InputError if `out` exists.
    """
    if out.exists():
        raise InputError(f"{out} exists; name a folder that does not")
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    for role in ROLES:
        built = build(role, trio)
        built.model.save_pretrained(partial / role)
        built.tokenizer.save_pretrained(partial / role)
        say(f"{role}: {built.steps} steps; " + ", ".join(f"{name} {value:.4f}" for name, value in built.quality.items()))
    partial.rename(out)
