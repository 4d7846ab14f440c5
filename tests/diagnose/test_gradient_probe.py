import pytest
import torch

from raydistill.diagnose.comparer import ComparerActor
from raydistill.diagnose.gradient_probe import gradient_norms
from raydistill.models.load import load_model
from raydistill.models.trio import demo_model
from raydistill.scoring.score import ScorerSpec
from raydistill.students import distil
from raydistill.students.data import Encoded
from raydistill.students.distil import TracePair

PROMPTS = [(1, 5, 6), (1, 4), (1, 9, 8, 7)]
COMPLETIONS = [(7, 8, 9, 10), (6,), (5, 6)]
PAIRS = [TracePair(Encoded(prompt, ids), Encoded(prompt, ids)) for prompt, ids in zip(PROMPTS, COMPLETIONS, strict=True)]


@pytest.fixture
def models():
    return load_model(demo_model("student")), load_model(demo_model("teacher"))


def plain(student, teacher, pairs):
    """By one sequence at a time and autograd through torch's own KL."""
    student.requires_grad_(True)
    total, tokens = 0, 0
    for pair in pairs:
        prompt, ids = pair.student.prompt_ids, pair.student.completion_ids
        inputs = torch.tensor([[*prompt, *ids]])
        q, p = (m(input_ids=inputs).logits[0, len(prompt) - 1 : -1].log_softmax(-1) for m in (student, teacher))
        total = total + torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum")
        tokens += len(ids)
    gradients = torch.autograd.grad(total / tokens, list(student.parameters()))
    student.requires_grad_(False)
    return torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


@pytest.mark.parametrize("micro_batch_tokens", [1, 512])
@pytest.mark.parametrize("largest_logits", [1, distil.LARGEST_LOGITS])
def test_norms_are_autograds_however_the_batch_is_cut(models, monkeypatch, micro_batch_tokens, largest_logits):
    monkeypatch.setattr(distil, "LARGEST_LOGITS", largest_logits)  # 1: from hidden states, in chunks
    found = gradient_norms(*models, [PAIRS, PAIRS[:1]], micro_batch_tokens)
    assert found == pytest.approx([plain(*models, PAIRS), plain(*models, PAIRS[:1])], rel=1e-4)


def test_the_student_is_left_as_it_was(models):
    student, teacher = models
    before = [parameter.clone() for parameter in student.parameters()]
    gradient_norms(student, teacher, [PAIRS], 512)
    assert all(torch.equal(a, b) for a, b in zip(before, student.parameters(), strict=True))
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in student.parameters())


def test_a_student_that_agrees_has_nothing_to_learn(models):
    teacher = models[1]
    assert gradient_norms(load_model(demo_model("teacher")), teacher, [PAIRS], 512) == pytest.approx([0.0], abs=1e-5)


def test_the_actor_cuts_batches_after_it_has_compared(models):
    actor = ComparerActor(*(ScorerSpec(str(demo_model(role))) for role in ("teacher", "student")))
    actor.compare(PROMPTS, PROMPTS, COMPLETIONS, (5, 39), 2)
    found = actor.gradient_norms(PROMPTS, PROMPTS, COMPLETIONS, 1, 512)
    assert found == pytest.approx([plain(*models, [pair]) for pair in PAIRS], rel=1e-4)
    assert len(actor.gradient_norms(PROMPTS, PROMPTS, COMPLETIONS, 2, 512)) == 1
