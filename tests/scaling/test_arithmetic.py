"""The arithmetic against figures worked out by hand, published ones, and what PyTorch counts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, AutoModelForCausalLM

from raydistill.config.calibration import ZeroConfig
from raydistill.models.checkpoint import read_checkpoint
from raydistill.models.shapes import KNOWN, Shape, shape_of
from raydistill.models.trio import demo_model
from raydistill.scaling.arithmetic import (
    ASSUMED_CONTEXT,
    ASSUMED_DECODING,
    ASSUMED_DIGEST,
    ASSUMED_HOST,
    ASSUMED_LINK,
    ASSUMED_OBJECTS,
    ASSUMED_UTILISATION,
    H100,
    Gpu,
    Memory,
    activation_bytes,
    attention_flops,
    compute_seconds,
    decode_seconds,
    engine_memory,
    forward_flops,
    gather_seconds,
    gathered_bytes,
    kv_bytes,
    layer_activation_bytes,
    logits_bytes,
    scorer_memory,
    sync_seconds,
    training_passes,
    zero3_state,
)
from raydistill.scaling.hours import ASSUMED_PROMPT, passed_seconds, trained_seconds
from tests.models.test_shapes import config_of

SMALL = Shape(layers=4, hidden=8, heads=2, kv_heads=1, head_dim=4, intermediate=16, vocabulary=10, tied=True)
# 8 x (2 x 8 + 2 x 4) = 192 of attention and 3 x 8 x 16 = 384 of the MLP in each layer; 80 of the embedding.
WINDOWED = Shape(**SMALL.__dict__ | {"window": 3, "full_layers": 1})
GEMMA, QWEN = KNOWN["google/gemma-3-12b-it"], KNOWN["Qwen/Qwen3-8B"]


def test_a_shape_counts_its_matrices() -> None:
    assert (SMALL.block_matrices, SMALL.multiplied, SMALL.parameters) == (4 * 576, 4 * 576 + 80, 4 * 576 + 80)
    # rank 2: q 8+8, k 8+4, v 8+4, o 8+8; gate, up, down 8+16 each
    assert SMALL.adapters(2) == 4 * 2 * (16 + 12 + 12 + 16 + 3 * 24)


def test_state_of_zero3_is_the_papers_but_for_float32_gradients() -> None:
    """ZeRO's figure 1: 7.5 B parameters on 64 GPUs, 2 + 2 + 12 bytes: 120 GB for one process and 1.9 for each of 64."""
    for processes, gigabytes in ((1, 120.0), (64, 1.875)):
        state = zero3_state(7_500_000_000, 7_500_000_000, processes, 2)
        assert state.total - state.gradients / 2 == pytest.approx(gigabytes * 1e9)


def test_with_lora_only_adapters_have_gradients_and_moments() -> None:
    state = zero3_state(1100, 100, 2, 2)
    assert state == Memory(weights=1100, gradients=200, optimiser=600, other=0)


@given(st.integers(1, 64))
def test_state_is_shared_by_all_processes_without_a_rest(processes: int) -> None:
    one = zero3_state(QWEN.parameters, QWEN.parameters, 1, 2).total
    assert zero3_state(QWEN.parameters, QWEN.parameters, processes, 2).total * processes == pytest.approx(one)


def test_what_is_gathered() -> None:
    # Gemma's embedding, 262,208 x 3,840, is more than DeepSpeed's 10^9 live parameters
    assert gathered_bytes(GEMMA, 2) == 2 * (262_208 * 3840 + 50_000_000 + 500_000_000)
    assert gathered_bytes(QWEN, 2) == 2 * 1.55e9
    assert gathered_bytes(SMALL, 4) == 4 * (SMALL.parameters + 500_000_000)


def test_keys_and_values() -> None:
    assert kv_bytes(QWEN, 1, 2) == 2 * 36 * 8 * 128 * 2 == 147_456  # 144 KiB
    assert kv_bytes(GEMMA, 1, 2) == 2 * 48 * 8 * 256 * 2
    assert kv_bytes(GEMMA, 3072, 2) == 2 * 8 * 256 * 2 * (8 * 3072 + 40 * 1024)
    assert kv_bytes(WINDOWED, 5, 4) == 2 * 4 * 4 * (5 + 3 * 3)
    assert kv_bytes(WINDOWED, 5, 4, windows=False) == kv_bytes(SMALL, 5, 4) == 2 * 4 * 4 * 4 * 5


@given(st.integers(1, 8192))
def test_windows_never_cost_more(tokens: int) -> None:
    assert kv_bytes(GEMMA, tokens, 2) <= kv_bytes(GEMMA, tokens, 2, windows=False)


def test_memory_of_engines_and_scorers() -> None:
    engine = engine_memory(SMALL, 1000, 2)
    assert (engine.weights, engine.kv_cache, engine.logits) == (2 * SMALL.parameters, 1000, 12 * 1024 * 10)
    assert engine.activations == 16_384 * 2 * (16 + 16 + 32)
    scorer = scorer_memory(SMALL, 7, 4)
    assert scorer.total == 4 * SMALL.parameters + 7 * layer_activation_bytes(SMALL, 4) + 12 * 2**24 + ASSUMED_CONTEXT


def _saved_bytes(name: str, tokens: int) -> float:
    """What autograd keeps of one block, LoRA on its frozen weights, of tensors that are not parameters."""
    from peft import LoraConfig, get_peft_model

    class Kernel(torch.autograd.Function):
        """Keeps what a kernel without an attention matrix keeps."""

        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
            out = torch.empty_like(query)
            ctx.save_for_backward(query, key, value, out)
            return out

    def attend(module: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        return Kernel.apply(query, key, value).transpose(1, 2), None

    AttentionInterface.register("counted", attend)
    config = config_of(name).get_text_config()
    config.num_hidden_layers, config.layer_types = 1, config.layer_types[:1]
    config._attn_implementation = "counted"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    # Not on "meta", where peft would leave adapters in float32.
    get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"), autocast_adapter_dtype=False)
    with torch.device("meta"):
        hidden = torch.zeros(1, tokens, config.hidden_size, dtype=torch.bfloat16, requires_grad=True)
        places = torch.arange(tokens)[None]
        gemma = name.startswith("google")
        angles = model.model.rotary_emb(hidden, places, *([config.layer_types[0]] if gemma else []))
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model.layers[0](hidden, position_embeddings=angles, attention_mask=None, position_ids=places)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("name", ["google/gemma-3-12b-it", "google/gemma-3-1b-it", "Qwen/Qwen3-8B", "Qwen/Qwen3-1.7B"])
def test_activations_of_a_block_are_about_what_autograd_keeps(name: str) -> None:
    """Of real shapes, on no device. Qwen3 has two norms less than are counted."""
    counted = _saved_bytes(name, 512) / 512
    assert counted <= 1.05 * layer_activation_bytes(KNOWN[name], 2)
    assert counted >= 0.7 * layer_activation_bytes(KNOWN[name], 2)


def test_checkpointing_keeps_a_block_s_input_and_one_block() -> None:
    block = layer_activation_bytes(SMALL, 2)
    assert block == 4 * (4 * 8 + 8 + 4) + 2 * (2 * 8 + 2 * 8 + 2 * 4 + 4 * 16)
    assert activation_bytes(SMALL, 10, 2, checkpointing=False) == 10 * 4 * block
    assert activation_bytes(SMALL, 10, 2, checkpointing=True) == 10 * (4 * 2 * 8 + block)
    assert logits_bytes(SMALL, 10) == 16 * 10 * 10


def test_flops_are_those_that_pytorch_counts() -> None:
    """A forward pass, with logits at all places; the look-up of the embedding is free. `eager` also computes what the mask hides."""
    folder, tokens = demo_model("teacher"), 100
    shape = shape_of(read_checkpoint("teacher.model", folder))
    assert shape is not None
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, tokens, dtype=torch.long), use_cache=False)
    hidden_half = tokens * attention_flops(shape, tokens / 2)
    assert forward_flops(shape, 0, tokens) + hidden_half == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_flops_by_hand() -> None:
    assert attention_flops(SMALL, 6) == 4 * 8 * 4 * 6
    assert attention_flops(WINDOWED, 6) == 4 * 8 * (6 + 3 * 3)
    assert forward_flops(SMALL, 2, 4) == 2 * (4 * 576 * 6 + 80 * 4) + 6 * 4 * 8 * 4 * 3
    assert [training_passes(lora, again) for lora in (False, True) for again in (False, True)] == [3, 4, 2, 3]


TOY = Gpu("toy", memory=1000, flops=1000.0, bandwidth=100.0, link=10.0, network=1.0)


def test_seconds_of_computing_and_gathering() -> None:
    assert compute_seconds(6000, 2, TOY) == pytest.approx(6000 / (2 * 1000 * ASSUMED_UTILISATION))
    assert gather_seconds(SMALL, 2, 1, TOY) == 0
    assert gather_seconds(SMALL, 2, 4, TOY) == pytest.approx(2 * SMALL.parameters * 3 / 4 / (10 * ASSUMED_LINK))
    assert gather_seconds(SMALL, 2, 16, TOY) == pytest.approx(2 * SMALL.parameters * 15 / 16 / (1 * ASSUMED_LINK))


@pytest.mark.parametrize("rank", [None, 2])
def test_a_step_of_zero3_moves_the_papers_three_times_the_parameters_a_micro_batch(rank: int | None) -> None:
    """Rajbhandari et al. 2020, section 7.2.2, where the link is slow: two gatherings, and a reduction, of adapters alone with LoRA."""
    lora = None if rank is None else {"rank": rank, "alpha": 1}
    config = ZeroConfig.model_validate({"processes": 4, "micro_batch_tokens": 100, "dtype": "bfloat16", "lora": lora})
    slow = Gpu(**TOY.__dict__ | {"flops": 1e12})
    trained = SMALL.adapters(rank) if rank else SMALL.parameters
    moved = 2 * (2 * SMALL.parameters + trained) * 3 / 4
    # ten completions of 250 tokens, prompts among them, on four processes: seven micro-batches on each
    seconds = 7 * moved / (slow.link * ASSUMED_LINK)
    assert trained_seconds(config, SMALL, 10, 250 - ASSUMED_PROMPT, slow) == pytest.approx(seconds)
    forward = 7 * 2 * SMALL.parameters * 3 / 4 / (slow.link * ASSUMED_LINK)
    assert passed_seconds(config, SMALL, 10, 250 - ASSUMED_PROMPT, slow) == pytest.approx(forward)


def test_seconds_of_decoding() -> None:
    """Six completions of ten tokens on average, two at a time, the last of them sixteen long."""
    weights = 2 * (4 * 576 + 80)
    token = (weights + 2 * kv_bytes(SMALL, 5 + 5, 2)) / (TOY.bandwidth * ASSUMED_DECODING)
    alone = weights / (TOY.bandwidth * ASSUMED_DECODING)
    fast = Gpu(**TOY.__dict__ | {"flops": 1e9})
    assert decode_seconds(SMALL, 6, 2, 5, 10, 16, 2, fast) == pytest.approx(6 * 10 / 2 * token + 6 * alone)
    slow = Gpu(**TOY.__dict__ | {"bandwidth": 1e9})
    computed = 30 * 2 * SMALL.multiplied * 2 / (TOY.flops * ASSUMED_UTILISATION)
    assert decode_seconds(SMALL, 6, 2, 5, 10, 10, 2, slow) == pytest.approx(computed)
    assert decode_seconds(SMALL, 6, 0, 5, 10, 16, 2, TOY) == math.inf


def test_seconds_of_a_sync() -> None:
    own = 2 * QWEN.parameters
    once = own * (4 / ASSUMED_HOST + 2 / ASSUMED_DIGEST)
    assert sync_seconds(QWEN, 2, 0, 1, H100) == pytest.approx(once)
    assert sync_seconds(QWEN, 2, 3, 1, H100) == pytest.approx(once + 3 * own / ASSUMED_OBJECTS)


def test_each_assumption_is_told_where_a_plan_says_what_it_rests_on() -> None:
    """By its figure: of those in bytes in GiB, or in GB a second, of shares in percent."""
    import raydistill.scaling.arithmetic as module
    from raydistill.scaling.hours import assumptions
    from raydistill.scaling.memory import memory_assumptions

    told = " ".join([*assumptions(H100), *memory_assumptions()])
    figures = {name: value for name, value in vars(module).items() if name.startswith("ASSUMED_")}
    assert len(figures) >= 8
    for name, value in figures.items():
        shown = f"{value:.0%}" if value < 1 else f"{value / 1e9:g} GB/s" if value % 1e9 == 0 else f"{value / module.GIB:g} GiB"
        assert shown in told, name
