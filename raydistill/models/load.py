"""Models and tokenizers from a local folder or the hub: safetensors only, and never code from a repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.errors import InputError, reason
from raydistill.models.trio import ROLES, TRIOS, demo_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
"""What is fetched from the hub: no pickles and no code."""


def resolve_folder(field: str, model: str) -> Path:
    """The folder of a model: itself, `demo:ROLE` or `demo-corrections:ROLE` of the embedded trios, or a snapshot
    of the hub, fetched if need be.

    Raises InputError naming `field` where there is none.
    """
    kind, colon, role = model.partition(":")
    if colon and kind in TRIOS:
        if role not in ROLES:
            raise InputError(f"{field}: no demo model {role!r}; there are {', '.join(f'{kind}:{name}' for name in ROLES)}")
        return demo_model(role, kind)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise InputError(f"{field}: {model} is a file; give the folder that holds config.json and the safetensors")
    if not _HUB_NAME.fullmatch(model):
        raise InputError(f"{field}: no folder {model}; give an existing folder or a hub name such as owner/model")
    return _snapshot(field, model)


def _snapshot(field: str, name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # offline, no such repository, no permission: classes of several libraries
        raise InputError(f"{field}: no folder {name} here, and the hub does not give it: {reason(error)}") from error


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or hub name."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)


def load_model(model: str | Path, dtype: str = "float32") -> PreTrainedModel:
    """A causal language model for inference: eval mode, no gradients. `dtype` names a torch type."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(str(model), dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False)
    return loaded.eval().requires_grad_(False)
