"""GGUF, llama.cpp's file of a model, made into a Hugging Face folder of float32 safetensors, once for each file content."""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError, reason
from raydistill.files import lock_of, whole_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CACHE = "RAYDISTILL_CACHE"
"""Environment variable: the folder that converted models are kept in, under `gguf/`; ~/.cache/raydistill if missing."""
_VERSION = 1
"""Of the conversion: another one is another folder."""
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_BEGINS = ("llama",)
"""Tokenizers (`tokenizer.ggml.model`) that put <bos> before a text where the file does not say; llama.cpp's rule for SentencePiece."""


def gguf_in(field: str, folder: Path) -> Path | None:
    """The GGUF file of a folder that has no safetensors, None where there is none. Raises InputError where there are several."""
    files = [] if any(folder.glob("*.safetensors")) else sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        raise InputError(f"{field}: {folder} has {len(files)} .gguf files; name one of them: {', '.join(file.name for file in files)}")
    return files[0] if files else None


def converted(field: str, file: Path) -> Path:
    """The folder of the model in a GGUF file, converted at the first call. Raises InputError where that cannot be done."""
    if _SPLIT.search(file.name):
        raise InputError(f"{field}: {file} is a part of a model; join the parts by `llama-gguf-split --merge` and name the whole")
    if find_spec("gguf") is None:
        raise InputError(f"{field}: {file} needs the package gguf to be read; `pip install gguf`, or give a folder of safetensors")
    from filelock import FileLock

    from raydistill.progress import Console

    folder = _cache() / f"{file.stem}-{_digest(file)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_of(folder)):
        if not folder.exists():
            with Console().busy(f"{field}: converting {file} to safetensors in {folder}"), whole_folder(folder) as partial:
                _convert(field, file, partial)
    return folder


def _cache() -> Path:
    return Path(os.environ.get(CACHE, "~/.cache/raydistill")).expanduser().absolute() / "gguf"


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return f"{hashlib.file_digest(stream, 'sha256').hexdigest()[:16]}-{_VERSION}"


def _convert(field: str, file: Path, folder: Path) -> None:
    try:
        stated = _stated(file)
        tokenizer = _tokenizer(file, stated)
        model = _model(field, file)
    except InputError:
        raise
    except Exception as error:  # of gguf's reader, of transformers for an architecture or a tokenizer, of numpy for a damaged file
        raise InputError(
            f"{field}: {file} cannot be converted ({reason(error)}); copy it again, or give the model's own folder of safetensors"
        ) from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if stated.get("tokenizer.ggml.add_bos_token") is False:  # else preflight would take a <bos> for a lost one
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": False}, indent=2))


def _stated(file: Path) -> dict[str, Any]:
    """What the file says of its tokenizer."""
    from gguf import GGUFReader

    names = ("tokenizer.ggml.model", "tokenizer.ggml.add_bos_token")
    fields = GGUFReader(file).fields
    return {name: fields[name].contents() for name in names if name in fields}


def _tokenizer(file: Path, stated: dict[str, Any]) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, trust_remote_code=False)
    begins = stated.get("tokenizer.ggml.add_bos_token", stated.get("tokenizer.ggml.model") in _BEGINS)
    if begins and tokenizer("a")["input_ids"][:1] != [tokenizer.bos_token_id]:
        _put_bos_before(tokenizer)
    return tokenizer


def _put_bos_before(tokenizer: PreTrainedTokenizerBase) -> None:
    """transformers drops the rule; Gemma, for one, writes nonsense without it."""
    from tokenizers.processors import Sequence, TemplateProcessing

    backend: Any = tokenizer.backend_tokenizer
    bos = tokenizer.bos_token
    rule = TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.bos_token_id)])
    backend.post_processor = rule if backend.post_processor is None else Sequence([backend.post_processor, rule])


def _model(field: str, file: Path) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        str(file.parent), gguf_file=file.name, dtype=torch.float32, trust_remote_code=False, output_loading_info=True
    )
    model, loading = loaded
    if missing := sorted(loading["missing_keys"]):  # transformers would fill them with random numbers
        raise InputError(f"{field}: {file} lacks weights of the model ({', '.join(missing[:3])}); copy it again, or give another file")
    # The weights are plain numbers by now; without this save_pretrained refuses.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    return model
