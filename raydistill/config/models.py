"""The models of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raydistill.config.base import PositiveInt, Strict


class ModelConfig(Strict):
    """A causal language model and how a prompt is put to it."""

    model: Annotated[str, Field(min_length=1)]
    """Local Hugging Face folder or hub name; `demo:teacher`, `demo:proxy` and `demo:student` are the embedded demo models."""
    template: Literal["auto", "chat", "plain"] = "auto"
    """`chat` renders the prompt as a user turn by the tokenizer's template, `plain` takes it as it is; `auto` is chat if there is one."""
    prompt_format: str = "{prompt}"
    """Text around the prompt, such as `Question: {prompt}\\nAnswer:`."""
    system_prompt: str = ""
    """A system turn before the prompt's turn; for chat templates that have one. Empty for none, or for the template's own."""

    @field_validator("prompt_format")
    @classmethod
    def _keeps_the_prompt(cls, value: str) -> str:
        if value.count("{prompt}") != 1:
            raise ValueError("must contain {prompt} exactly once")
        return value


class LoraConfig(Strict):
    """Train low-rank adapters only; they are merged whenever weights leave the learner."""

    rank: PositiveInt = 16
    """Rank of the adapters."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """Scale of the adapters: their product is multiplied by alpha / rank."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Modules that get an adapter."""
