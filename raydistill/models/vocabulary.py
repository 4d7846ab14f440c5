"""Whether a tokenizer, its special tokens and the rows of a model's embedding belong together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raydistill.errors import InputError
from raydistill.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLACEHOLDER = re.compile(r"image|audio|video", re.IGNORECASE)


def check_vocabulary(field: str, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
    """Every token must have a row in the embedding, but for placeholders of images and sound, which text never becomes."""
    rows = checkpoint.embedding_rows
    beyond = sorted((id_, token) for token, id_ in tokenizer.get_vocab().items() if id_ >= rows and not _PLACEHOLDER.search(token))
    if beyond:
        id_, token = beyond[0]
        raise InputError(
            f"{field}: the tokenizer of {checkpoint.folder} is larger than the embedding ({len(tokenizer)} tokens, {rows} rows; "
            f"the first without a row is {token!r}, {id_}); use the tokenizer it was trained with or resize the embedding"
        )


def check_special_tokens(field: str, tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint) -> None:
    """A special token that tokenizer.json does not know is given the next free id, whose row, if there is one, was never trained."""
    core = getattr(tokenizer, "backend_tokenizer", None)
    file = checkpoint.folder / "tokenizer.json"
    if core is None or not file.is_file():
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    added = {token["content"] for token in content.get("added_tokens") or []}
    pieces = content["model"].get("vocab") or []
    known = added | (set(pieces) if isinstance(pieces, dict) else {piece for piece, _ in pieces})
    for name in ("eos_token", "bos_token"):
        token = getattr(tokenizer, name)
        if token is not None and token not in known:
            raise InputError(
                f"{field}: the {name} {token!r} of {checkpoint.folder} is not in its tokenizer.json, so that the model never saw it; "
                f"set {name} in tokenizer_config.json to the one it was trained with"
            )


def check_embedding(field: str, checkpoint: Checkpoint) -> None:
    """Raises InputError where config.json does not fit the weights: transformers would put random numbers in the place of some."""
    rows, stated = checkpoint.embedding_rows, checkpoint.text_config.get("vocab_size", checkpoint.embedding_rows)
    if rows != stated:
        raise InputError(
            f"{field}: vocab_size in the config.json of {checkpoint.folder} is {stated}, but the embedding has {rows} rows; "
            f"set vocab_size to {rows}"
        )
    tied = checkpoint.text_config.get("tie_word_embeddings", checkpoint.config.get("tie_word_embeddings"))
    tall = [name for name, tensor in checkpoint.tensors.items() if len(tensor.shape) == 2 and tensor.shape[0] == rows]
    if tied is False and len(tall) == 1:
        raise InputError(
            f"{field}: the weights of {checkpoint.folder} have no output layer beside {tall[0]}, and its config.json says that they are "
            "not tied; set tie_word_embeddings to true if they were, or copy the model again"
        )


def relation(own: Mapping[str, int], other: Mapping[str, int]) -> str:
    """How one vocabulary, from tokens to ids, relates to another: `same`, or how many of its tokens the other has, whatever their ids."""
    if own == other:
        return "same"
    if own.keys() == other.keys():
        return f"same tokens, {len(own.items() - other.items()):,} under other ids"
    return f"shares {len(own.keys() & other.keys()):,} of {len(own):,} tokens"
