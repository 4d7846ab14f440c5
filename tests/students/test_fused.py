"""The losses from hidden states against those from logits, and TRL's; and that no tensor of all logits exists."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from raydistill.students.fused import fused_jsd_loss, fused_sft_loss, fused_topk_jsd_loss, liger_jsd_loss
from raydistill.students.losses import jsd_loss, sft_loss, teacher_topk, topk_jsd_loss

POSITIONS, VOCABULARY = 7, 50
BETAS = [0.0, 0.3, 1.0]
betas = st.sampled_from(BETAS)
temperatures = st.sampled_from([0.5, 1.0, 2.0])
chunks = st.integers(1, 2 * POSITIONS)


def _inputs(seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Hidden states and head of the student, which need gradients, and of the teacher, which is wider."""
    generator = torch.Generator().manual_seed(seed)
    shapes = [(POSITIONS, 4), (VOCABULARY, 4), (POSITIONS, 6), (VOCABULARY, 6)]
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    return [tensor.requires_grad_(place < 2) for place, tensor in enumerate(tensors)]


def _logits(inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    return inputs[0] @ inputs[1].T, inputs[2] @ inputs[3].T


def _assert_same(ours: Tensor, theirs: Tensor, inputs: list[Tensor], tolerance: float) -> None:
    """Value, and gradients in the student's hidden states and head, of a mean: what comes from above must be passed on."""
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    gradients = (torch.autograd.grad(loss / POSITIONS, inputs[:2]) for loss in (ours, theirs))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@given(st.integers(0, 1000), betas, temperatures, chunks)
def test_fused_jsd_is_that_of_the_logits_whatever_the_chunk(seed: int, beta: float, temperature: float, chunk: int) -> None:
    inputs = _inputs(seed)
    plain = jsd_loss(*_logits(inputs), beta, temperature)
    _assert_same(fused_jsd_loss(*inputs, beta, temperature, chunk), plain, inputs, 1e-10)


@given(st.integers(0, 1000), betas, temperatures, chunks, st.integers(1, VOCABULARY))
def test_fused_topk_is_that_of_the_logits_whatever_the_chunk(seed: int, beta: float, temperature: float, chunk: int, k: int) -> None:
    inputs = _inputs(seed)
    student_MV, teacher_MV = _logits(inputs)
    told = teacher_topk(teacher_MV, k, temperature)
    # Near 0 the tail's logarithm is that of rounding errors, and these differ with the shape of a product.
    assume(k == VOCABULARY or (1 - told.logprobs_MK.exp().sum(-1)).min() > 1e-5)
    plain = topk_jsd_loss(student_MV, told, beta, temperature)
    fused = fused_topk_jsd_loss(*inputs, k, beta, temperature, chunk)
    _assert_same(fused.loss, plain.loss, inputs, 1e-10)
    torch.testing.assert_close(fused.mass, plain.mass)


@given(st.integers(0, 1000), chunks)
def test_fused_sft_is_that_of_the_logits_whatever_the_chunk(seed: int, chunk: int) -> None:
    inputs = _inputs(seed)
    ids = torch.randint(VOCABULARY, (POSITIONS,), generator=torch.Generator().manual_seed(seed))
    _assert_same(fused_sft_loss(*inputs[:2], ids, chunk), sft_loss(_logits(inputs)[0], ids), inputs, 1e-10)


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_fused_jsd_is_trls_chunked_divergence(beta: float, temperature: float) -> None:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    inputs = _inputs(1, torch.float32)
    student_hidden, student_head, teacher_hidden, teacher_head = inputs
    mask = torch.ones(1, POSITIONS)
    theirs, _, _ = _chunked_divergence_loss(
        student_hidden[None], teacher_hidden[None], student_head, teacher_head, mask, beta, num_items_in_batch=1, temperature=temperature
    )
    _assert_same(fused_jsd_loss(*inputs, beta, temperature, chunk=3), theirs, inputs, 1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("chunk", [3, 64])
def test_fused_jsd_is_ligers(beta: float, temperature: float, chunk: int) -> None:
    """On the CPU, without a compiler: what it computes, not how it does on a GPU."""
    pytest.importorskip("liger_kernel", reason="liger-kernel, of the extra liger, is not installed")
    inputs = _inputs(1, torch.float32)
    theirs = liger_jsd_loss(*inputs, beta, temperature, chunk, compiled=False)
    _assert_same(fused_jsd_loss(*inputs, beta, temperature, chunk), theirs, inputs, 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("beta", BETAS)
def test_a_gpu_gives_what_a_cpu_does(beta: float) -> None:
    """By liger-kernel where it is installed."""
    inputs = _inputs(1, torch.float32)
    moved = [tensor.detach().cuda().requires_grad_(tensor.requires_grad) for tensor in inputs]
    ours, theirs = fused_jsd_loss(*inputs, beta, 2.0), fused_jsd_loss(*moved, beta, 2.0)
    torch.testing.assert_close(theirs.cpu(), ours, atol=1e-4, rtol=1e-4)
    gradients = (torch.autograd.grad(loss, tensors[:2]) for loss, tensors in ((ours, inputs), (theirs, moved)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("beta", BETAS)
def test_gradients_by_finite_differences(beta: float) -> None:
    hidden, head, teacher_hidden, teacher_head = _inputs(1)
    assert torch.autograd.gradcheck(lambda *student: fused_jsd_loss(*student, teacher_hidden, teacher_head, beta, 1.5, 3), (hidden, head))
    assert torch.autograd.gradcheck(
        lambda *student: fused_topk_jsd_loss(*student, teacher_hidden, teacher_head, 5, beta, 1.5, 3).loss, (hidden, head)
    )


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_part_of_the_student_gets_no_gradient_and_leaves_the_other_ones(frozen: int) -> None:
    inputs = _inputs(1)
    expected = torch.autograd.grad(fused_jsd_loss(*inputs, 0.5), inputs[1 - frozen])[0]
    inputs[frozen].requires_grad_(False)
    fused_jsd_loss(*inputs, 0.5).backward()
    assert inputs[frozen].grad is None
    assert torch.equal(inputs[1 - frozen].grad, expected)


def test_no_gradient_reaches_the_teacher() -> None:
    inputs = [tensor.requires_grad_() for tensor in _inputs(1)]
    (fused_jsd_loss(*inputs, 0.5) + fused_topk_jsd_loss(*inputs, 5, 0.5).loss).backward()
    assert [tensor.grad is None for tensor in inputs] == [False, False, True, True]


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_gradients_are_exactly_zero_at_equality(beta: float) -> None:
    hidden, head, *_ = _inputs(1, torch.float32)
    inputs = hidden, head, hidden.detach(), head.detach()
    for loss in (fused_jsd_loss(*inputs, beta), fused_topk_jsd_loss(*inputs, 5, beta).loss):
        assert [gradient.count_nonzero() for gradient in torch.autograd.grad(loss, (hidden, head))] == [0, 0]


class _Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that was computed."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = result if isinstance(result, (tuple, list)) else [result]
        self.elements = max([self.elements, *(tensor.numel() for tensor in tensors if isinstance(tensor, Tensor))])
        return result


def test_no_tensor_of_all_logits_exists() -> None:
    inputs = _inputs(1)
    with _Largest() as plain:
        jsd_loss(*_logits(inputs), 0.5).backward()
    with _Largest() as fused:
        (fused_jsd_loss(*inputs, 0.5, chunk=2) + fused_topk_jsd_loss(*inputs, 5, 0.5, chunk=2).loss).backward()
    assert plain.elements == POSITIONS * VOCABULARY
    assert fused.elements == VOCABULARY * 6  # a view of the teacher's head


def test_no_positions_give_a_loss_of_0() -> None:
    hidden, head, teacher_hidden, teacher_head = _inputs(1)
    loss = fused_jsd_loss(hidden[:0], head, teacher_hidden[:0], teacher_head, 0.5)
    loss.backward()
    assert loss.item() == 0
    assert head.grad.count_nonzero() == 0


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_without_positions_is_refused(chunk: int) -> None:
    with pytest.raises(ValueError, match=rf"^chunk must be at least 1, not {chunk}$"):
        fused_jsd_loss(*_inputs(1), 0.5, chunk=chunk)
