"""GGUF files, written by llama.cpp's own package, become folders that load and say the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from raydistill.errors import InputError
from raydistill.models.checkpoint import read_checkpoint
from raydistill.models.gguf import CACHE
from raydistill.models.load import load_model, load_tokenizer, resolve_folder
from raydistill.models.preflight import ModelRef, inspect_model

HIDDEN, HEADS, KV_HEADS, WIDE, LAYERS, CONTEXT = 64, 4, 2, 96, 2, 64
HEAD = HIDDEN // HEADS
TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "c", "▁a", "ab"]
_KINDS = [2, 3, 3, *[6] * 256, *[1] * 6]
"""llama.cpp's: 1 normal, 2 unknown, 3 control, 6 byte."""
TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{{ turn.role }}: {{ turn.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
Write = Callable[..., Path]


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (len(TOKENS), HIDDEN), "output.weight": (len(TOKENS), HIDDEN)}
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.attn_k.weight": (KV_HEADS * HEAD, HIDDEN),
            f"blk.{layer}.attn_v.weight": (KV_HEADS * HEAD, HIDDEN),
            f"blk.{layer}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_gate.weight": (WIDE, HIDDEN),
            f"blk.{layer}.ffn_up.weight": (WIDE, HIDDEN),
            f"blk.{layer}.ffn_down.weight": (HIDDEN, WIDE),
        }
    tensors = {name: (random.standard_normal(shape) * 0.2).astype(np.float32) for name, shape in shapes.items()}
    norms = ["output_norm.weight", *(f"blk.{layer}.{part}_norm.weight" for layer in range(LAYERS) for part in ("attn", "ffn"))]
    return tensors | {name: (1 + 0.1 * random.standard_normal(HIDDEN)).astype(np.float32) for name in norms}


@pytest.fixture
def write(tmp_path, monkeypatch) -> Write:
    """Writes a tiny Llama, or what is said of it, into a folder of its own."""
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))

    def make(name: str = "tiny", architecture: str = "llama", without: str = "", add_bos: bool | None = None, template: str = "") -> Path:
        path = tmp_path / "models" / name / f"{name}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(path, architecture)
        writer.add_name(name)
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(HIDDEN)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(WIDE)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_rope_dimension_count(HEAD)
        writer.add_rope_freq_base(10000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_vocab_size(len(TOKENS))
        writer.add_tokenizer_model("llama")
        writer.add_token_list(TOKENS)
        writer.add_token_scores([0.0] * (len(TOKENS) - 6) + [-1.0, -2.0, -3.0, -4.0, -0.5, -0.4])
        writer.add_token_types(_KINDS)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        if add_bos is not None:
            writer.add_add_bos_token(add_bos)
        if template:
            writer.add_chat_template(template)
        for tensor, values in weights().items():
            if not without or without not in tensor:
                writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return make


def _reference(ids: list[int]) -> np.ndarray:
    """Log-probabilities (T, V) of the file's model, as llama.cpp defines it: rotated pairs are neighbours, not halves."""
    w, length = weights(), len(ids)

    def normed(x_TD: np.ndarray, name: str) -> np.ndarray:
        return x_TD / np.sqrt((x_TD**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"]

    def rotated(x_THE: np.ndarray) -> np.ndarray:
        angles_TE = np.arange(length)[:, None] * 10000.0 ** (-np.arange(0, HEAD, 2) / HEAD)
        cos, sin = np.cos(angles_TE)[:, None], np.sin(angles_TE)[:, None]
        even, odd = x_THE[..., ::2], x_THE[..., 1::2]
        return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x_THE.shape)

    x = w["token_embd.weight"][ids].astype(np.float64)
    for layer in range(LAYERS):
        b = f"blk.{layer}"
        h = normed(x, f"{b}.attn_norm")
        q, k, v = ((h @ w[f"{b}.attn_{n}.weight"].T).reshape(length, -1, HEAD) for n in "qkv")
        q, k = rotated(q), rotated(k)
        heads = []
        for head in range(HEADS):
            shared = head * KV_HEADS // HEADS
            scores = q[:, head] @ k[:, shared].T / np.sqrt(HEAD) + np.triu(np.full((length, length), -np.inf), 1)
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ v[:, shared])
        x = x + np.concatenate(heads, -1) @ w[f"{b}.attn_output.weight"].T
        h = normed(x, f"{b}.ffn_norm")
        gate = h @ w[f"{b}.ffn_gate.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[f"{b}.ffn_up.weight"].T)) @ w[f"{b}.ffn_down.weight"].T
    logits = normed(x, "output_norm") @ w["output.weight"].T
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_a_converted_model_says_what_the_file_does(write) -> None:
    folder = resolve_folder("teacher.model", str(write().parent))
    assert not list(folder.glob("*.gguf"))
    assert {tensor.dtype for tensor in read_checkpoint("teacher.model", folder).tensors.values()} == {"F32"}
    ids = [1, 260, 261, 262, 263, 264, 5, 70]
    with torch.inference_mode():
        found = load_model(folder)(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()
    np.testing.assert_allclose(found, _reference(ids), atol=1e-4)


def test_a_converted_model_passes_and_begins_with_bos(write) -> None:
    facts = inspect_model(ModelRef("teacher", str(write(template=TEMPLATE))))
    assert facts.bos_id == 1
    assert load_tokenizer(facts.folder)("ab")["input_ids"][0] == 1
    assert load_tokenizer(facts.folder).chat_template == TEMPLATE


def test_no_bos_where_the_file_says_so(write) -> None:
    facts = inspect_model(ModelRef("teacher", str(write(add_bos=False))))
    assert facts.bos_id is None
    assert load_tokenizer(facts.folder)("ab")["input_ids"][0] != 1


def test_a_file_is_converted_once_and_another_content_again(write, capfd) -> None:
    first = resolve_folder("teacher.model", str(write()))
    assert f"converting {write()}" in capfd.readouterr().err.replace("\n", "")
    made = os.stat(first / "model.safetensors").st_mtime_ns
    assert resolve_folder("student.model", str(write())) == first
    assert os.stat(first / "model.safetensors").st_mtime_ns == made
    assert "converting" not in capfd.readouterr().err
    assert resolve_folder("teacher.model", str(write(add_bos=False))) != first


def test_safetensors_beside_a_gguf_are_taken(write, tmp_path) -> None:
    folder = write().parent
    (folder / "model.safetensors").touch()
    assert resolve_folder("teacher.model", str(folder)) == folder


def _refused(model: Path, *names: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_folder("teacher.model", str(model))
    text = str(caught.value)
    assert text.startswith("teacher.model: ")
    assert "\n" not in text
    assert all(name in text for name in names), text
    cache = Path(os.environ[CACHE]) / "gguf"
    assert not [path for path in cache.glob("*") if path.is_dir()]


def test_what_cannot_be_converted_is_refused_in_a_line(write, monkeypatch) -> None:
    path = write()
    _refused(write("other", architecture="bert"), "bert", "safetensors")
    _refused(write("lacking", without="ffn_up"), "lacks weights")
    part = path.with_name("big-00001-of-00003.gguf")
    part.touch()
    _refused(path.parent, "2 .gguf files", "tiny.gguf", part.name)
    _refused(part, "llama-gguf-split --merge")
    damaged = path.with_name("damaged.gguf")
    damaged.write_bytes(path.read_bytes()[:2000])
    _refused(damaged, "cannot be converted")
    damaged.write_bytes(b"nothing of the kind" * 20)
    _refused(damaged, "cannot be converted")
    monkeypatch.setattr("raydistill.models.gguf.find_spec", lambda name: None)
    _refused(path, "pip install gguf")
