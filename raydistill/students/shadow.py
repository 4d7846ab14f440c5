"""A shadow student: distilled from the teacher's latest rollouts, beside a twin that learns from the original teacher instead.

Shadow and twin start alike and take the same steps on the same prompts in the same order; all that differs is who wrote the traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from raydistill.rollout.completion import Completion, Sampling, TokenPrompt, sample_seed
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.transformers_engine import TransformersEngine
from raydistill.scoring.score import Scorer, ScorerSpec, SequenceScore
from raydistill.students.batches import Batch, pad, seeded_order
from raydistill.students.data import Answer, Reader, Trace
from raydistill.students.distil import Optimiser, sft_pieces
from raydistill.students.influence import HeldOut, shifted, slopes, unit_gradient
from raydistill.tasks.prompt import Prompt

WARMUP = 10
"""Optimiser steps over which the learning rate rises."""

TracePair = tuple[Trace, Trace]
"""A trace of the teacher and one of the original, of the same prompt."""


@dataclass(frozen=True)
class ShadowSpec:
    """How to set up a shadow; plain data, so that it can be sent to an actor."""

    model: str
    """A Hugging Face folder: the shadow before distillation."""
    template: str
    """`chat` or `plain`."""
    prompt_format: str
    system_prompt: str
    end_id: int
    """The token that ends an answer."""
    lr: float
    batch: int
    """Traces in an optimiser step."""
    updates: int
    """Optimiser steps in a step of the calibration."""
    eps: float | None = None
    """Length by which weights are moved for the influence; None where only scores are asked for."""
    micro_batch_tokens: int = 8192
    scorer_batch_tokens: int = 16384
    """Both with padding included: in a forward and backward pass, and in a forward pass alone."""
    threads: int = 1
    ends_before: str = ""
    """A text before which its completions end, see `EngineSpec`."""


class Shadow:
    """The live student and its twin. They learn in one thread; what has been learnt is served from a copy, in another if need be."""

    def __init__(self, spec: ShadowSpec) -> None:
        """Loads the model once, for scoring; `begin` loads shadow and twin."""
        self.spec = spec
        template: Any = spec.template
        self._scorer = Scorer(
            ScorerSpec(spec.model, template, spec.prompt_format, spec.system_prompt, batch_tokens=spec.scorer_batch_tokens)
        )
        self._reader = _reader(spec)
        self._serving = Lock()
        self._engine: TransformersEngine | None = None

    def begin(self, seed: int, held_out: Sequence[Answer], state: Path | None = None) -> None:
        """Start anew, or where `save` wrote `state`. `held_out` are the right answers that `influence` is about."""
        self._seed = seed
        answers = [self._reader.trace(answer.trace) for answer in held_out]
        self._held_out = None if self.spec.eps is None else HeldOut.of(answers, [answer.logprob for answer in held_out])
        self._live, self._twin = _Trainee(self.spec), _Trainee(self.spec)
        if state is not None:
            self._restore(state)
        self._serve()

    # --- learning

    def train(self, step: int, pairs: Sequence[TracePair]) -> None:
        """`updates` optimiser steps of shadow and twin on one step's traces, SeqKD; then the shadow's new weights are served.

        Without a trace neither learns. Raises RunError if training diverges.
        """
        if not pairs:
            return
        order = list(seeded_order(len(pairs), self.spec.batch, self.spec.updates, sample_seed(self._seed, "shadow", step)))
        for trainee, traces in zip((self._live, self._twin), zip(*pairs, strict=True), strict=True):
            data = pad([self._reader.trace(trace) for trace in traces])
            for rows in order:
                trainee.step(data.rows(rows))
        self._serve()

    def sample(self, prompts: Sequence[Prompt], max_new_tokens: int, step: int) -> tuple[list[list[Completion]], list[list[Completion]]]:
        """One completion of each prompt, at temperature 1, by the shadow and by the twin; both draw from the same streams."""
        asked = [TokenPrompt(prompt.id, self._reader.prompt(prompt.text)) for prompt in prompts]
        sampling = Sampling(1, max_new_tokens, seed=sample_seed(self._seed, "shadow", step))
        engine = self._engine or self._start_engine(max(len(prompt.token_ids) for prompt in asked) + max_new_tokens)
        return self._sampled(engine, self._live, asked, sampling), self._sampled(engine, self._twin, asked, sampling)

    def _start_engine(self, longest: int) -> TransformersEngine:
        gpu, spec = torch.cuda.is_available(), self.spec
        self._engine = TransformersEngine(
            EngineSpec("transformers", spec.model, longest, threads=spec.threads, ends_before=spec.ends_before, gpu=gpu)
        )
        return self._engine

    @staticmethod
    def _sampled(
        engine: TransformersEngine, trainee: _Trainee, prompts: Sequence[TokenPrompt], sampling: Sampling
    ) -> list[list[Completion]]:
        engine.load_weights(0, trainee.model.named_parameters())
        return engine.generate(prompts, sampling, version=0)

    # --- serving

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        """How likely the shadow, as last served, finds each completion; see `Scorer.score`."""
        with self._serving:
            return self._scorer.score(prompts, completions)

    def influence(self, prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        """How much training on each completion would help the shadow, as last served: slopes of its score (`influence.py`).

        Raises ValueError without `eps`.
        """
        if self.spec.eps is None:
            raise ValueError("a shadow without eps measures no influence")
        with self._serving:
            try:
                ahead, behind = (self._moved(distance, prompts, completions) for distance in (self.spec.eps, -self.spec.eps))
            finally:
                self._scorer.load_weights(self._served.items())
        return slopes(ahead, behind, self.spec.eps)

    def _moved(self, distance: float, prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        self._scorer.load_weights(shifted(self._served, self._direction, distance))
        return self._scorer.score(prompts, completions)

    def _serve(self) -> None:
        weights = {name: parameter.detach().clone() for name, parameter in self._live.model.named_parameters()}
        direction = unit_gradient(self._live.model, self._held_out, self.spec.micro_batch_tokens) if self._held_out else {}
        with self._serving:
            self._served, self._direction = weights, direction
            self._scorer.load_weights(weights.items())

    # --- state

    def save(self, file: Path) -> None:
        """Write weights and optimisers of shadow and twin as safetensors; whole or absent."""
        from safetensors.torch import save_file

        tensors = _under("live", self._live.state()) | _under("twin", self._twin.state())
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.partial")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        partial.replace(file)

    def _restore(self, file: Path) -> None:
        from safetensors.torch import load_file

        tensors = load_file(file)
        self._live.restore(_below("live", tensors))
        self._twin.restore(_below("twin", tensors))


class _Trainee:
    """A model that learns, with its optimiser."""

    def __init__(self, spec: ShadowSpec) -> None:
        from raydistill.models.load import load_model

        model: Any = load_model(spec.model)
        self.model = model.requires_grad_(True).to("cuda" if torch.cuda.is_available() else "cpu")
        self._optimiser = Optimiser(self.model, spec.lr, lambda done: min(1.0, (done + 1) / WARMUP))
        self._micro_batch_tokens = spec.micro_batch_tokens

    def step(self, batch: Batch) -> None:
        self._optimiser.step(sft_pieces(self.model, batch, self._micro_batch_tokens))

    def state(self) -> dict[str, Tensor]:
        weights = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        return _under("weights", weights) | _under("optimiser", self._optimiser.state())

    def restore(self, state: dict[str, Tensor]) -> None:
        weights = _below("weights", state)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(weights[name])
        self._optimiser.restore(_below("optimiser", state))


def _reader(spec: ShadowSpec) -> Reader:
    from raydistill.models.load import load_tokenizer

    return Reader(load_tokenizer(spec.model), spec.template, spec.prompt_format, spec.end_id, spec.system_prompt)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
