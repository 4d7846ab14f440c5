"""The splits of a task whose prompts are read from files or hub data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from raydistill.errors import InputError
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.splits import hash_order, split_by_hash

CUT_SHARES: dict[Split, float] = {"tune": 0.1, "report": 0.25}
"""Share of the training file's prompts that goes to a split which has no file of its own."""


def load_splits(data: Mapping[Split, str | None], read: Callable[[Split, str], Iterable[Prompt]], salt: str) -> dict[Split, list[Prompt]]:
    """The prompts of each split in hash order; `read` gives those of one source.

    A split without a source is cut from the training data by a hash of the prompts' ids. No two prompts have the same id: repeats are
    dropped, and a prompt of report is left out of tune and train, one of tune out of train. Raises InputError for an empty split.
    """
    splits: dict[Split, list[Prompt]] = {}
    seen: set[str] = set()
    for split in ("report", "tune", "train"):
        if source := data.get(split):
            fresh = {prompt.id: prompt for prompt in reversed(list(read(split, source))) if prompt.id not in seen}  # the first of repeats
            seen.update(fresh)
            splits[split] = [fresh[id_] for id_ in hash_order(fresh, salt)]
    _cut(splits, salt)
    for split, prompts in splits.items():
        if not prompts:
            raise InputError(f"task.data.{split}: no prompt is left for the {split} split; give more distinct questions")
    return splits


def _cut(splits: dict[Split, list[Prompt]], salt: str) -> None:
    """Give the splits that have no source their share of the training prompts, in place."""
    missing = {split: share for split, share in CUT_SHARES.items() if split not in splits}
    prompts = {prompt.id: prompt for prompt in splits["train"]}
    sizes = [int(share * len(prompts)) for share in missing.values()]
    parts = split_by_hash(list(prompts), [*sizes, len(prompts) - sum(sizes)], salt)
    for split, ids in zip([*missing, "train"], parts, strict=True):
        splits[split] = [prompts[id_] for id_ in ids]
