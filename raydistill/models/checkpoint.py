"""What a model's folder says of itself, read from config.json and the headers of its safetensors: no weights are loaded."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydistill.errors import InputError

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "tok_embeddings.weight")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_BLOCK_BYTES = 2**24


@dataclass(frozen=True)
class Tensor:
    """Where one tensor lies within a safetensors file."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int


@dataclass(frozen=True)
class Checkpoint:
    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    @property
    def text_config(self) -> dict[str, Any]:
        """The part of the config that describes the language model, of a model that also reads images."""
        return self.config.get("text_config") or self.config

    @property
    def parameters(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @property
    def embedding_rows(self) -> int:
        rows = [tensor.shape[0] for name, tensor in self.tensors.items() if name.endswith(_EMBEDDINGS)]
        return max(rows, default=0) or int(self.text_config.get("vocab_size", 0))

    @property
    def context(self) -> int | None:
        """The longest sequence, in tokens, or None where the config does not say."""
        return self.text_config.get("max_position_embeddings") or self.text_config.get("n_positions")


def read_checkpoint(field: str, folder: Path) -> Checkpoint:
    """Raises InputError, naming `field`, if the folder holds no model, pickled weights only, or a broken file."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{field}: {folder} is not a model: it has no config.json; give a Hugging Face model folder")
    config = read_json(field, folder / "config.json")
    tensors: dict[str, Tensor] = {}
    for file in _weight_files(field, folder):
        tensors |= dict(_header(field, file))
    return Checkpoint(folder, config, tensors)


def read_json(field: str, file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{field}: {file} is not readable JSON ({error}); copy the model again") from None
    if not isinstance(content, dict):
        raise InputError(f"{field}: {file} must hold a JSON object; copy the model again")
    return content


def _weight_files(field: str, folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(read_json(field, index).get("weight_map", {}).values()))]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if pickles := sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern)):
        raise InputError(
            f"{field}: {folder} has pickled weights only ({pickles[0]}), which can run code when loaded; "
            "convert them: load the model somewhere you trust and save_pretrained() it as safetensors"
        )
    raise InputError(f"{field}: {folder} is not a model: it has no model.safetensors; give a folder with weights")


def _header(field: str, file: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one file. Format: header length (8 bytes, little endian), JSON header, tensor data."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length)) if length < size else {}
        header.pop("__metadata__", None)
        base = 8 + length
        tensors = {
            name: Tensor(entry["dtype"], tuple(entry["shape"]), file, *(base + offset for offset in entry["data_offsets"]))
            for name, entry in header.items()
        }
    except (OSError, ValueError, struct.error, KeyError, TypeError) as error:
        raise InputError(f"{field}: {file} is missing or no safetensors file ({error}); copy the model again") from None
    if not tensors or size != max(tensor.end for tensor in tensors.values()):
        raise InputError(f"{field}: {file} is cut short or damaged; copy the model again")
    yield from tensors.items()


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints hold the same tensors, bit for bit, however they are spread over files."""
    if one.folder.resolve() == other.folder.resolve():
        return True
    signatures = [{name: (tensor.dtype, tensor.shape) for name, tensor in c.tensors.items()} for c in (one, other)]
    return signatures[0] == signatures[1] and all(_same_bytes(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def weights_digest(checkpoint: Checkpoint) -> str:
    """SHA-256, in hex, of a checkpoint's tensors: equal for two checkpoints where `same_weights` is. Reads all of them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.tensors.items()):
        digest.update(f"{name}|{tensor.dtype}|{tensor.shape}|".encode())
        for block in _blocks(tensor):
            digest.update(block)
    return digest.hexdigest()


def _same_bytes(one: Tensor, other: Tensor) -> bool:
    return all(left == right for left, right in zip(_blocks(one), _blocks(other), strict=True))


def _blocks(tensor: Tensor) -> Iterator[bytes]:
    """The tensor's bytes, piece by piece."""
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        for start in range(tensor.start, tensor.end, _BLOCK_BYTES):
            yield stream.read(min(_BLOCK_BYTES, tensor.end - start))
