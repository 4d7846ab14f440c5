"""What a learner leaves on disk: Hugging Face folders for others to load, DeepSpeed checkpoints for itself to go on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch.distributed as dist

from raydistill.errors import InputError
from raydistill.learner.batch import ZeroSpec
from raydistill.learner.export import Exporter

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine

SHARD_BYTES = 4 * 2**30
_MARK = "raydistill.json"
_TAG = "state"


@contextmanager
def _whole_or_absent(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, on all ranks; it takes the place of `folder` once all of them are done.

    All ranks must see the same file system.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    first = dist.get_rank() == 0
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    dist.barrier()
    try:
        yield partial
    except BaseException:  # a full disk, most likely
        shutil.rmtree(partial, ignore_errors=True)
        raise
    dist.barrier()
    if first:
        _replace(partial, folder)
    dist.barrier()


def _replace(partial: Path, folder: Path) -> None:
    old = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_model(exporter: Exporter, original: Path, dtype: str, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a Hugging Face folder: gathered weights as safetensors, all else as in the folder the model came from."""
    from safetensors.torch import save_file

    shards = exporter.group_count(shard_bytes)
    weight_map: dict[str, str] = {}
    size = 0
    with _whole_or_absent(folder) as partial:
        for number, tensors in enumerate(exporter.gather(shard_bytes), start=1):
            if not tensors:
                continue
            name = "model.safetensors" if shards == 1 else f"model-{number:05}-of-{shards:05}.safetensors"
            save_file(tensors, partial / name, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, name)
            size += sum(tensor.nbytes for tensor in tensors.values())
        if weight_map:
            _copy_companions(original, dtype, partial)
        if weight_map and shards > 1:
            index = {"metadata": {"total_size": size}, "weight_map": weight_map}
            (partial / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True))


def _copy_companions(original: Path, dtype: str, partial: Path) -> None:
    """Tokenizer, template, config and generation config: every text file of the original but the index of its shards."""
    for file in original.iterdir():
        if file.suffix in {".json", ".jinja", ".model", ".txt"} and not file.name.endswith(".index.json"):
            shutil.copyfile(file, partial / file.name)
    config = json.loads((original / "config.json").read_text())
    config.pop("torch_dtype", None)
    (partial / "config.json").write_text(json.dumps(config | {"dtype": dtype}, indent=2))


def _mark(spec: ZeroSpec) -> dict[str, object]:
    """What must agree between the learner that wrote a checkpoint and the one that goes on from it."""
    return {
        "kind": "raydistill learner checkpoint",
        "world_size": dist.get_world_size(),
        "dtype": spec.dtype,
        "optimizer": spec.optimizer,
        "lora": None if spec.lora is None else [spec.lora.rank, spec.lora.alpha],
    }


def save_checkpoint(engine: DeepSpeedEngine, spec: ZeroSpec, folder: Path) -> None:
    """Parameters and optimiser state, in DeepSpeed's own format: each rank writes its partitions."""
    with _whole_or_absent(folder) as partial:
        engine.save_checkpoint(str(partial), tag=_TAG, exclude_frozen_parameters=spec.lora is not None)
        if dist.get_rank() == 0:
            (partial / _MARK).write_text(json.dumps(_mark(spec)))


def load_checkpoint(engine: DeepSpeedEngine, spec: ZeroSpec, folder: Path) -> None:
    """Go on from `save_checkpoint`: the next step is the one that would have followed, to the bit.

    DeepSpeed's files are pickles, which can run code when they are read, so only a folder of a run of one's own may be
    loaded. Raises InputError where the folder is none of ours, or was written by a learner of another shape.
    """
    try:
        written = json.loads((folder / _MARK).read_text())
    except (OSError, ValueError):
        raise InputError(f"{folder}: not a learner checkpoint of raydistill, it has no readable {_MARK}") from None
    for field, value in _mark(spec).items():
        if written.get(field) != value:
            raise InputError(f"{folder}: was written with {field} {written.get(field)!r}, and this learner has {value!r}")
    engine.load_checkpoint(str(folder), tag=_TAG, load_module_strict=spec.lora is None, load_lr_scheduler_states=False)
