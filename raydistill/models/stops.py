"""The tokens at which generation stops."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def stop_ids(model: str | Path, eos: int | None) -> tuple[int, ...]:
    """The tokenizer's end token first, then those of config.json and generation_config.json, which may each name several.

    What config.json leaves out is what its class has by default. Some models name tokens that they have no row for; these can never
    be sampled, and vLLM refuses them. Raises what transformers raises for files that it cannot use.
    """
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(str(model), trust_remote_code=False)
    text = config.get_text_config()
    named = [eos, text.eos_token_id, getattr(config, "eos_token_id", None)]
    with suppress(OSError):  # the file is optional
        named.append(GenerationConfig.from_pretrained(str(model)).eos_token_id)
    flat = [id_ for one in named for id_ in ([one] if isinstance(one, int) else one or [])]
    return tuple(dict.fromkeys(id_ for id_ in flat if id_ < text.vocab_size))
