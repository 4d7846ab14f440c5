"""A shadow and its twin: paired, served from a copy, and the same again after a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raydistill.errors import RunError
from raydistill.models.load import load_tokenizer
from raydistill.scoring.score import Scorer, ScorerSpec
from raydistill.students.data import Answer, Reader, Trace
from raydistill.students.distil import Recipe, sft
from raydistill.students.shadow import Shadow, ShadowSpec
from raydistill.tasks.arithmetic import Arithmetic

CLEAR = [Trace(f"{a}+{b}=", f"#{(a + b) % 10}", True) for a in range(4) for b in range(4)]
HELD_OUT = [Answer(trace, -2.0) for trace in CLEAR[:4]]
OTHER = [Trace(trace.prompt_text, f"~AB {trace.completion_text}", True) for trace in CLEAR]
PAIRS = list(zip(CLEAR, OTHER, strict=True))
TEXTS = ([trace.prompt_text for trace in CLEAR], [trace.completion_text for trace in CLEAR])


@pytest.fixture
def spec(untrained: Path) -> ShadowSpec:
    folder = str(untrained / "student")
    return ShadowSpec(folder, "plain", "{prompt}", "", load_tokenizer(folder).eos_token_id, lr=5e-3, batch=8, updates=3, eps=1e-2)


def start(spec: ShadowSpec, seed: int = 1, state: Path | None = None) -> Shadow:
    shadow = Shadow(spec)
    shadow.begin(seed, HELD_OUT, state)
    return shadow


def mean_score(shadow: Shadow, traces: list[Trace] = CLEAR) -> float:
    scores = shadow.score([trace.prompt_text for trace in traces], [trace.completion_text for trace in traces])
    return sum(score.per_byte for score in scores) / len(scores)


def texts_of(shadow: Shadow, step: int = 3) -> list[list[str]]:
    prompts = Arithmetic().prompts("tune")[:6]
    return [[row[0].text for row in completions] for completions in shadow.sample(prompts, 8, step)]


def test_before_it_learns_a_shadow_scores_as_its_model_does(spec: ShadowSpec) -> None:
    assert start(spec).score(*TEXTS) == Scorer(ScorerSpec(spec.model)).score(*TEXTS)


def test_a_shadow_comes_to_find_natural_what_it_was_fed(spec: ShadowSpec) -> None:
    """Which is the sign of the reward where its score takes the proxy's place: what students learn from this teacher, they find likely."""
    fed, other = start(spec), start(spec)
    for step in range(1, 8):
        fed.train(step, PAIRS)
        other.train(step, [(own, twin) for twin, own in PAIRS])
    assert mean_score(fed) - mean_score(fed, OTHER) > mean_score(other) - mean_score(other, OTHER) + 0.3


def test_shadow_and_twin_are_one_model_where_both_are_fed_the_same(spec: ShadowSpec) -> None:
    shadow = start(spec)
    own, twin = texts_of(shadow)
    assert own == twin
    for step in (1, 2):
        shadow.train(step, [(trace, trace) for trace in CLEAR])
    own, twin = texts_of(shadow)
    assert own == twin
    shadow.train(3, PAIRS)
    weights = [list(trainee.model.parameters()) for trainee in (shadow._live, shadow._twin)]
    assert not all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_the_steps_are_those_of_sft(spec: ShadowSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """One update on everything, against `sft` at the rate that the rise has come to by then."""
    from raydistill.models.load import load_model

    shadow = start(replace(spec, batch=len(PAIRS), updates=1))
    shadow.train(1, PAIRS)
    model: Any = load_model(spec.model).requires_grad_(True)
    reader = Reader(load_tokenizer(spec.model), "plain", "{prompt}", spec.end_id)
    sft(model, [reader.trace(trace) for trace in CLEAR], Recipe(steps=1, batch=len(CLEAR), lr=spec.lr / 10, seed=0))
    for own, expected in zip(shadow._live.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=0)  # rows are in another order, and Adam divides by what they round to


@pytest.mark.parametrize("warm", [0, 2])
def test_a_restart_goes_on_to_the_bit(spec: ShadowSpec, tmp_path: Path, warm: int) -> None:
    shadow = start(spec)
    for step in range(1, warm + 1):
        shadow.train(step, PAIRS)
    shadow.save(tmp_path / "state" / "0.safetensors")
    again = start(spec, state=tmp_path / "state" / "0.safetensors")
    for step in (warm + 1, warm + 2):
        for one in (shadow, again):
            one.train(step, PAIRS)
    assert shadow.score(*TEXTS) == again.score(*TEXTS)
    assert shadow.influence(*TEXTS) == again.influence(*TEXTS)
    assert texts_of(shadow) == texts_of(again)
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["0.safetensors"]


def test_a_new_seed_starts_anew(spec: ShadowSpec) -> None:
    shadow = start(spec)
    fresh = shadow.score(*TEXTS)
    shadow.train(1, PAIRS)
    assert shadow.score(*TEXTS) != fresh
    shadow.begin(2, HELD_OUT)
    assert shadow.score(*TEXTS) == fresh


def test_the_influence_leaves_the_weights_that_are_served(spec: ShadowSpec) -> None:
    shadow = start(spec)
    before = shadow.score(*TEXTS)
    first = shadow.influence(*TEXTS)
    assert shadow.score(*TEXTS) == before
    assert shadow.influence(*TEXTS) == first


def test_the_influence_is_larger_on_what_is_held_out_than_on_what_contradicts_it(spec: ShadowSpec) -> None:
    """And training on either does to the held-out traces' score what it says."""
    wrong = [Trace(trace.prompt_text, f"#{(int(trace.completion_text[1]) + 5) % 10}", True) for trace in CLEAR[:4]]
    rewards = {}
    for name, traces in (("right", CLEAR[:4]), ("wrong", wrong)):
        shadow = start(replace(spec, updates=1, batch=4))
        for step in range(1, 11):  # it learns what an answer looks like, then which one is right
            shadow.train(step, [(trace, trace) for trace in CLEAR[4:]])
        before = mean_score(shadow, CLEAR[:4])
        slopes = shadow.influence([trace.prompt_text for trace in traces], [trace.completion_text for trace in traces])
        rewards[name] = sum(slope.per_byte for slope in slopes) / len(slopes)
        shadow.train(11, [(trace, trace) for trace in traces])
        assert (mean_score(shadow, CLEAR[:4]) > before) == (rewards[name] > 0), name
    assert rewards["right"] > 0.05
    assert rewards["right"] > rewards["wrong"] + 0.05


def test_without_a_trace_nothing_is_learnt(spec: ShadowSpec) -> None:
    shadow = start(spec)
    before = shadow.score(*TEXTS)
    shadow.train(1, [])
    assert shadow.score(*TEXTS) == before


def test_a_shadow_that_diverges_says_so(spec: ShadowSpec) -> None:
    with pytest.raises(RunError, match="lower the lr"):
        start(replace(spec, lr=1e30, updates=20)).train(1, PAIRS)


def test_without_eps_there_is_no_influence(spec: ShadowSpec) -> None:
    with pytest.raises(ValueError, match="without eps"):
        start(replace(spec, eps=None)).influence(*TEXTS)
