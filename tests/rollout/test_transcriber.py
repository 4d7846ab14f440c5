"""Text and stop reasons from token ids, for tokenizers of several kinds. No engine is involved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, PreTrainedTokenizerFast

from raydistill.errors import InputError
from raydistill.rollout.completion import Completion, Sampling, StopReason, TokenPrompt
from raydistill.rollout.transcriber import Sampled, Transcriber

VOCABULARY = ["<s>", "</s>", "<unk>", "<|end|>", "▁", "a", "b", "▁a", "▁b", "."]
S, EOS, UNK, END, SPACE, A, B, SPACE_A, SPACE_B, DOT = range(len(VOCABULARY))


def _save(folder: Path, eos_in_config: int | None = EOS, eos_token: str | None = "</s>") -> str:
    """A tokenizer that drops the first space of a text, as those of Llama 2 and Mistral do, and a config beside it."""
    core = Tokenizer(BPE({token: id_ for id_, token in enumerate(VOCABULARY)}, merges=[("▁", "a"), ("▁", "b")], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token=eos_token, unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    tokenizer.save_pretrained(folder)
    LlamaConfig(vocab_size=16, bos_token_id=S, eos_token_id=eos_in_config).save_pretrained(folder)
    return str(folder)


def _one(model: str, token_ids: tuple[int, ...], max_new_tokens: int = 4, ends_before: str = "") -> Completion:
    prompt = TokenPrompt("p", (S, A))
    sampled = [Sampled(token_ids, tuple(-float(place) for place, _ in enumerate(token_ids)))]
    ((completion,),) = Transcriber(model, ends_before).completions([prompt], Sampling(1, max_new_tokens), sampled, version=7)
    return completion


def test_spaces_are_exact(tmp_path: Path) -> None:
    model = _save(tmp_path)
    assert _one(model, (SPACE_A, SPACE_B, DOT, EOS)).text == " a b."
    assert _one(model, (A, SPACE, SPACE_B, EOS)).text == "a  b"
    assert _one(model, (A, SPACE, DOT, SPACE)).text == "a . "


def test_special_tokens_inside_are_visible(tmp_path: Path) -> None:
    completion = _one(_save(tmp_path), (A, END, SPACE_B, EOS))
    assert (completion.text, completion.has_special, completion.stop) == ("a<|end|> b", True, StopReason.END)
    assert _one(_save(tmp_path), (S, SPACE_A, EOS)).has_special


def test_the_closing_token_is_not_special_text(tmp_path: Path) -> None:
    completion = _one(_save(tmp_path), (A, B, EOS))
    assert (completion.text, completion.has_special, completion.token_ids) == ("ab", False, (A, B, EOS))
    assert _one(_save(tmp_path), (EOS,)).text == ""


def test_an_id_beyond_the_tokenizer_counts_as_special(tmp_path: Path) -> None:
    """Models often have more rows than their tokenizer has tokens."""
    assert _one(_save(tmp_path), (A, 12, EOS)).has_special


def test_truncation(tmp_path: Path) -> None:
    assert _one(_save(tmp_path), (A, A, A, A)).stop is StopReason.LENGTH
    assert _one(_save(tmp_path), (A, A, A, EOS)).stop is StopReason.END


@pytest.mark.parametrize(
    ("sampled", "kept"),
    [
        ((SPACE_A, DOT, A, B), (SPACE_A, DOT)),
        ((SPACE_A, SPACE_B, DOT, EOS), (SPACE_A, SPACE_B, DOT, EOS)),
        ((B, B, SPACE_A, B), (B, B, SPACE_A)),  # the token that reaches into the text stays
        ((A, B, DOT, A, B, EOS), (A,)),  # never none
        ((SPACE_A, B, END, EOS), (SPACE_A,)),
    ],
)
def test_a_completion_ends_before_a_text(tmp_path: Path, sampled: tuple[int, ...], kept: tuple[int, ...]) -> None:
    completion = _one(_save(tmp_path), sampled, len(sampled), ends_before="ab")
    assert completion.token_ids == kept
    assert completion.logprobs == tuple(-float(place) for place, _ in enumerate(kept))
    assert (completion.has_end, completion.truncated, completion.has_special) == (kept[-1] == EOS, False, False)
    assert completion.text == _one(_save(tmp_path), (*(one for one in kept if one != EOS), EOS), 9).text


@pytest.mark.parametrize("text", ["x = \u00bd", "12 \U0001f9a9", "\u2234 \u2713"])
def test_no_character_is_cut(tmp_path: Path, text: str) -> None:
    """Each token is a byte here; the beginning of a character reads as a character of its own."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE({token: id_ for id_, token in enumerate(["</s>", *letters])}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>").save_pretrained(tmp_path)
    LlamaConfig(vocab_size=512, eos_token_id=0).save_pretrained(tmp_path)
    ids = tuple(core.encode(f"{text}\n\nQuestion: 2").ids)
    completion = _one(str(tmp_path), ids, len(ids), ends_before="\n\nQuestion:")
    assert completion.text == text
    assert len(completion.token_ids) == len(text.encode())


def test_what_ends_a_completion_is_looked_for_in_the_text_not_in_the_tokens(tmp_path: Path) -> None:
    assert _one(_save(tmp_path), (A, A, B, A), ends_before="ab").token_ids == (A,)
    assert _one(_save(tmp_path), (SPACE_A, SPACE_B, A, A), ends_before="ab").stop is StopReason.LENGTH


def test_an_engine_that_stops_for_no_reason_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stopped after 2 of 4 tokens"):
        _one(_save(tmp_path), (A, A))


def test_stop_ids_of_all_sources(tmp_path: Path) -> None:
    model = _save(tmp_path, eos_in_config=DOT)
    assert Transcriber(model).stop_ids == {EOS, DOT}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, END]}))
    assert Transcriber(model).stop_ids == {EOS, DOT, END}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [EOS, 99]}))
    assert Transcriber(model).stop_ids == {EOS, DOT}


def test_a_model_without_an_end_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="end-of-sequence"):
        Transcriber(_save(tmp_path, eos_in_config=None, eos_token=None))
