"""Fast tokenizers of every convention that alignment meets, learnt or written out in a moment."""

from __future__ import annotations

import json
import string
from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from raydistill.models.trio import character_tokenizer

TEXTS = [
    "the answer is 42, and the question is what the answer is the answer to",
    "Natalia sold 48 clips in April and half as many in May; how many in all?",
    "日本語のテキスト、 日本の日本語 καὶ ἑλληνικά, и русский текст, naïve café 🙂🙃",
]
_SPECIAL = ["<eos>", "<bos>", "<unk>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _wrap(core: Tokenizer) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", bos_token="<bos>", unk_token="<unk>")


def _trained(core: Tokenizer, size: int, special: list[str], alphabet: list[str]) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(TEXTS, trainer)
    return core


def _byte_level(size: int, prefix_space: bool = False) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    core.decoder = decoders.ByteLevel()
    return _trained(core, size, _SPECIAL, pre_tokenizers.ByteLevel.alphabet())


def _trimmed() -> Tokenizer:
    """Its offsets leave out the spaces that its tokens begin with, as those of GPT-NeoX do."""
    core = _byte_level(400)
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    return core


def _with_bytes(core: Tokenizer) -> Tokenizer:
    """The byte tokens come after the special ones, and are no special ones themselves."""
    written = json.loads(core.to_str())
    learnt = {token: id_ + len(_BYTES) for token, id_ in written["model"]["vocab"].items() if token not in _SPECIAL}
    written["model"]["vocab"] = {token: id_ for id_, token in enumerate([*_SPECIAL, *_BYTES])} | learnt
    return Tokenizer.from_str(json.dumps(written))


def _word_bpe(scheme: str) -> Tokenizer:
    """BPE over words with bytes to fall back on, and <bos> before a text."""
    core = Tokenizer(models.BPE(byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core = _with_bytes(_trained(core, 130, _SPECIAL, []))
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return core


def _unigram() -> Tokenizer:
    """As Llama 2 has it: a space before the text, which the decoder takes off, and bytes to fall back on."""
    words = ["▁the", "▁answer", "▁is", "an", "er", "▁4", "日本", "語", "▁"]
    pieces = [*((token, 0.0) for token in ["<unk>", *_BYTES]), *((word, -2.0) for word in words)]
    pieces += [(character, -4.0) for character in string.ascii_letters + string.digits + "é.,;"]
    core = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    core.add_special_tokens(_SPECIAL)
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Strip(" ", 1, 0)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), strip])
    return core


def _normalising() -> Tokenizer:
    """Composes and lowers what it reads."""
    core = _byte_level(400)
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    return core


@cache
def small_tokenizer(kind: str) -> Any:
    if kind == "character":  # knows the task's characters alone; the rest is <unk>
        return character_tokenizer()
    core = {
        "byte-level": lambda: _byte_level(400),
        "bytes": lambda: _byte_level(259),
        "prefix space": lambda: _byte_level(330, prefix_space=True),
        "trimmed": _trimmed,
        "words": lambda: _word_bpe("never"),
        "words with space": lambda: _word_bpe("always"),
        "unigram": _unigram,
        "normalising": _normalising,
    }[kind]()
    return _wrap(core)


EXACT = ["byte-level", "bytes", "trimmed", "words"]
"""Those that spell any text as it is."""
SPACED = ["prefix space", "words with space", "unigram"]
"""Those that may put a space before it."""
